"""The lunar calendar against the reference table and against a second library."""

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest
from borax.calendars.lunardate import LunarDate
from hypothesis import given
from hypothesis import strategies as st

from bot.lunar import (
    festival_date,
    ganzhi_year,
    is_lunar_day,
    leap_month,
    lunar_text,
    parse_lunar,
    upcoming_ganzhi,
    upcoming_zodiac,
    zodiac,
)

with (Path(__file__).parent / "data" / "festivals.csv").open(encoding="utf-8") as table:
    YEARS = list(csv.DictReader(table))


@pytest.mark.parametrize("row", YEARS, ids=lambda row: row["year"])
def test_every_festival_of_the_reference_table(row: dict[str, str]) -> None:
    year = int(row["year"])
    names = ("除夕", "春节", "元宵", "端午", "中秋", "重阳", "腊月廿三")
    expected = {name: row.get(name) or row["腊月廿三(上年岁末)"] for name in names}
    assert {name: festival_date(name, year).isoformat() for name in names} == expected


@pytest.mark.parametrize("row", YEARS, ids=lambda row: row["year"])
def test_the_last_evening_and_the_leap_month_of_the_reference_table(row: dict[str, str]) -> None:
    year = int(row["year"])
    said = (lunar_text(festival_date("除夕", year)), leap_month(year))
    assert said == (row["除夕农历"], int(row["闰月"]))


@pytest.mark.parametrize("year", range(2025, 2051))
def test_a_second_library_agrees(year: int) -> None:
    fixed = {"春节": (1, 1), "元宵": (1, 15), "端午": (5, 5), "中秋": (8, 15), "重阳": (9, 9)}
    other = {name: LunarDate(year, *day).to_solar_date() for name, day in fixed.items()}
    other["腊月廿三"] = LunarDate(year - 1, 12, 23).to_solar_date()
    assert {name: festival_date(name, year) for name in other} == other


@given(st.dates(date(2025, 1, 1), date(2050, 12, 31)))
def test_a_second_library_says_the_same_words_for_every_day(day: date) -> None:
    other = LunarDate.from_solar_date(day.year, day.month, day.day)
    month = "冬" if other.month == 11 else other.cn_month
    assert lunar_text(day) == f"{'闰' if other.leap else ''}{month}月{other.cn_day}"


@pytest.mark.parametrize("year", [2025, 2028, 2031, 2033])
def test_a_festival_falls_once_a_year_even_where_its_month_is_repeated(year: int) -> None:
    days = [date(year, 1, 1) + timedelta(days=step) for step in range(365)]
    hits = [day for day in days if is_lunar_day(day, 5, 5) or is_lunar_day(day, 8, 15)]
    assert hits == [festival_date("端午", year), festival_date("中秋", year)]


@pytest.mark.parametrize(
    ("day", "words"),
    [
        (date(2026, 2, 16), "腊月廿九"),
        (date(2026, 2, 17), "正月初一"),
        (date(2026, 9, 25), "八月十五"),
        (date(2025, 7, 25), "闰六月初一"),
        (date(2034, 1, 1), "闰冬月十一"),
        (date(2026, 12, 29), "冬月廿一"),
        (date(2026, 3, 8), "正月二十"),
        (date(2030, 2, 2), "腊月三十"),
    ],
)
def test_lunar_words_are_the_ones_people_use(day: date, words: str) -> None:
    assert lunar_text(day) == words


def test_on_the_last_evening_the_year_is_still_the_old_one() -> None:
    evening = date(2026, 2, 16)
    said = (
        ganzhi_year(evening),
        zodiac(evening),
        upcoming_ganzhi(evening),
        upcoming_zodiac(evening),
    )
    assert said == ("乙巳", "蛇", "丙午", "马")


def test_on_the_first_day_the_year_is_the_new_one() -> None:
    day = date(2026, 2, 17)
    assert (ganzhi_year(day), upcoming_ganzhi(day)) == ("丙午", "丙午")


def test_after_the_first_day_the_next_year_comes_into_view() -> None:
    assert (upcoming_ganzhi(date(2026, 2, 18)), upcoming_zodiac(date(2026, 12, 1))) == (
        "丁未",
        "羊",
    )


@pytest.mark.parametrize(
    ("text", "day"),
    [("08-15", (8, 15)), ("12-23", (12, 23)), ("腊月廿三", (12, 23)), ("腊月二十五", (12, 25))],
)
def test_a_lunar_day_is_read_from_a_place_file(text: str, day: tuple[int, int]) -> None:
    assert parse_lunar(text) == day


@pytest.mark.parametrize("text", ["13-01", "08-31", "八月", "闰六月初一", ""])
def test_an_impossible_lunar_day_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no lunar month and day"):
        parse_lunar(text)


def test_an_unknown_festival_is_an_error() -> None:
    with pytest.raises(KeyError):
        festival_date("复活节", 2026)
