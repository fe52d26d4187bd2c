"""Dates and times as people say them, on a Tuesday, the last of March 2026."""

# Full-width characters are what these tests are about.
# ruff: noqa: RUF001

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.dates import LunarGuess, SpokenTime, parse_date, parse_when, read_time
from bot.numerals import Miss

TODAY = date(2026, 3, 31)
SHANGHAI = ZoneInfo("Asia/Shanghai")


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("今天", date(2026, 3, 31)),
        ("昨天", date(2026, 3, 30)),
        ("前天", date(2026, 3, 29)),
        ("明天", date(2026, 4, 1)),
        ("大后天", date(2026, 4, 3)),
        ("后天", date(2026, 4, 2)),
        ("周五", date(2026, 4, 3)),
        ("上周五", date(2026, 3, 27)),
        ("下周二", date(2026, 4, 7)),
        ("礼拜天", date(2026, 4, 5)),
        ("8月12号", date(2026, 8, 12)),
        ("８月１２日", date(2026, 8, 12)),
        ("8.12", date(2026, 8, 12)),
        ("8/12", date(2026, 8, 12)),
        ("12号", date(2026, 3, 12)),
        ("二十号", date(2026, 3, 20)),
        ("八月十二", date(2026, 8, 12)),
        ("3月18号", date(2026, 3, 18)),
        ("3月18号开的", date(2026, 3, 18)),
        ("2026年8月12日", date(2026, 8, 12)),
        ("2026-08-12", date(2026, 8, 12)),
        ("20260812", date(2026, 8, 12)),
        ("二〇二六年八月十二日", date(2026, 8, 12)),
        ("去年12月3号", date(2025, 12, 3)),
        ("下个月5号", date(2026, 4, 5)),
        ("12号下午3点多那趟", date(2026, 3, 12)),
        ("8月12日（周三）", date(2026, 8, 12)),
        ("中秋", date(2026, 9, 25)),
        ("国庆节", date(2026, 10, 1)),
    ],
)
def test_a_spoken_day_is_found(said: str, day: date) -> None:
    assert parse_date(said, TODAY) == day


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("农历腊月二十五", date(2027, 2, 1)),
        ("腊月廿五", date(2027, 2, 1)),
        ("农历8月15", date(2026, 9, 25)),
        ("八月十五", date(2026, 9, 25)),
        ("正月初八", date(2027, 2, 13)),
        ("冬月廿一", date(2026, 12, 29)),
        ("九月初九", date(2026, 10, 18)),
    ],
)
def test_a_lunar_day_is_converted_and_asked_about(said: str, day: date) -> None:
    guess = parse_date(said, TODAY)
    assert isinstance(guess, LunarGuess)
    assert guess.day == day


def test_the_question_about_a_lunar_day_names_both_calendars() -> None:
    guess = parse_date("腊月二十五", TODAY)
    assert guess == LunarGuess(
        "农历腊月廿五是公历2027年2月1日（周一），对吗？回「是」，或直接发公历日期。",
        date(2027, 2, 1),
    )


def test_a_date_with_the_suffix_of_a_solar_day_is_solar() -> None:
    assert parse_date("八月十五号", TODAY) == date(2026, 8, 15)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("2月30号", "没有2月30日"),
        ("32号", "没有3月32日"),
        ("13月1日", "没有13月1日"),
        ("abc", "没认出日期"),
        ("投资8.12亿", "没认出日期"),
        ("8月", "没认出日期"),
        ("8月12日到8月15日", "只写一个日期"),
        ("农历腊月", "没认出这个农历日期"),
    ],
)
def test_what_is_no_day_is_refused_with_advice(said: str, words: str) -> None:
    missed = parse_date(said, TODAY)
    assert isinstance(missed, Miss)
    assert words in missed.text


@pytest.mark.parametrize(
    ("said", "today", "prefer", "day"),
    [
        ("12月20号", date(2026, 1, 5), None, date(2025, 12, 20)),
        ("1月5号", date(2026, 12, 20), None, date(2027, 1, 5)),
        ("8月12号", date(2026, 9, 1), "future", date(2027, 8, 12)),
        ("8月12号", date(2026, 3, 1), "past", date(2025, 8, 12)),
        ("30号", date(2026, 4, 2), "past", date(2026, 3, 30)),
        ("1号", date(2026, 12, 20), "future", date(2027, 1, 1)),
        ("周五", date(2026, 3, 31), "past", date(2026, 3, 27)),
        ("春节", date(2026, 3, 31), "past", date(2026, 2, 17)),
    ],
)
def test_the_year_follows_from_the_season_or_the_question(
    said: str, today: date, prefer: str | None, day: date
) -> None:
    assert parse_date(said, today, prefer) == day  # type: ignore[arg-type] # the cases are literals


@given(st.dates(date(2020, 1, 1), date(2049, 12, 31)))
def test_any_full_date_is_read_back(day: date) -> None:
    assert parse_date(f"{day.year}年{day.month}月{day.day}日", TODAY) == day


@given(st.text(max_size=20))
def test_no_text_makes_the_date_reader_fail(text: str) -> None:
    assert isinstance(parse_date(text, TODAY), date | Miss)


@pytest.mark.parametrize(
    ("said", "spoken", "text"),
    [
        ("下午3点多", SpokenTime(15, 0, "多", "下午"), "15点多"),
        ("12号下午3点多那趟D开头的", SpokenTime(15, 0, "多", "下午"), "15点多"),
        ("13号上午到", SpokenTime(None, part="上午"), "上午"),
        ("晚上八点半", SpokenTime(20, 30, "", "晚上"), "20:30"),
        ("9：05", SpokenTime(9, 5), "09:05"),
        ("两点一刻左右", SpokenTime(2, 15, "左右"), "2点15分左右"),
    ],
)
def test_a_time_keeps_the_vagueness_with_which_it_was_said(
    said: str, spoken: SpokenTime, text: str
) -> None:
    found = read_time(said)
    assert found == spoken
    assert found is not None
    assert found.text == text


@pytest.mark.parametrize("said", ["晚点再说吧"[2:], "25点", "3点99分", ""])
def test_an_impossible_or_missing_time_is_none(said: str) -> None:
    assert read_time(said) is None


NOW = datetime(2026, 6, 20, 2, 0, tzinfo=UTC)  # ten in the morning in Shanghai


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("立即", datetime(2026, 6, 20, 10, tzinfo=SHANGHAI)),
        ("7月1日 10:00", datetime(2026, 7, 1, 10, tzinfo=SHANGHAI)),
        ("7月1号上午10点", datetime(2026, 7, 1, 10, tzinfo=SHANGHAI)),
        ("７月１日１０：３０", datetime(2026, 7, 1, 10, 30, tzinfo=SHANGHAI)),
        ("明天下午3点", datetime(2026, 6, 21, 15, tzinfo=SHANGHAI)),
        ("今晚8点", datetime(2026, 6, 20, 20, tzinfo=SHANGHAI)),
        ("明早八点", datetime(2026, 6, 21, 8, tzinfo=SHANGHAI)),
        ("下周一下午两点一刻", datetime(2026, 6, 22, 14, 15, tzinfo=SHANGHAI)),
        ("15:30", datetime(2026, 6, 20, 15, 30, tzinfo=SHANGHAI)),
    ],
)
def test_a_spoken_moment_is_a_moment_in_shanghai(said: str, moment: datetime) -> None:
    assert parse_when(said, NOW) == moment


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("7月1日", "写明几点"),
        ("7月1日 3点", "上午还是下午"),
        ("今天9点", "已经过去"),
        ("明天晚上12点", "夜里12点"),
        ("随便", "写明几点"),
        ("农历八月十五上午10点", "2026年9月25日"),
    ],
)
def test_a_moment_that_could_be_mistaken_is_asked_about(said: str, words: str) -> None:
    missed = parse_when(said, NOW)
    assert isinstance(missed, Miss)
    assert words in missed.text
