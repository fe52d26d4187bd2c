"""The lunar calendar as people say it: festivals, 腊月 and 冬月, and the year's stem and branch."""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import lru_cache

from tyme4py.lunar import LunarDay, LunarMonth, LunarYear
from tyme4py.solar import SolarDay

# Month and day of the lunar year; 除夕 is not among them, for 腊月 often has no 30th.
_FESTIVALS = {
    "春节": (1, 1),
    "正月初一": (1, 1),
    "元宵": (1, 15),
    "元宵节": (1, 15),
    "端午": (5, 5),
    "端午节": (5, 5),
    "中秋": (8, 15),
    "中秋节": (8, 15),
    "重阳": (9, 9),
    "重阳节": (9, 9),
}
_LAST_MONTH_23 = "腊月廿三"
_MONTHS = ("", "正", "二", "三", "四", "五", "六", "七", "八", "九", "十", "冬", "腊")
_ONES = ("", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十")
_DAYS = (
    "",
    *(f"初{one}" for one in _ONES[1:]),
    *(f"十{one}" for one in _ONES[1:10]),
    "二十",
    *(f"廿{one}" for one in _ONES[1:10]),
    "三十",
)
_STEMS = "甲乙丙丁戊己庚辛壬癸"
_BRANCHES = "子丑寅卯辰巳午未申酉戌亥"
_ZODIAC = "鼠牛虎兔龙蛇马羊猴鸡狗猪"


@lru_cache(maxsize=512)
def festival_date(name: str, year: int) -> date:
    """Return the day of a lunar festival in a Gregorian year.

    Knows 春节, 除夕, 元宵, 端午, 中秋, 重阳 and 腊月廿三; each falls once in every Gregorian year,
    and leap months never count. Raises KeyError for another name.
    """
    if name in ("除夕", "大年三十"):
        return festival_date("春节", year) - timedelta(days=1)
    if name == _LAST_MONTH_23:
        # The old lunar year ends in the new Gregorian one.
        return lunar_to_date(year - 1, 12, 23)
    month, day = _FESTIVALS[name]
    return lunar_to_date(year, month, day)


def lunar_to_date(lunar_year: int, month: int, day: int, *, leap: bool = False) -> date:
    """Return the Gregorian day of a lunar one; ValueError where that year has no such day."""
    solar = LunarDay.from_ymd(lunar_year, -month if leap else month, day).get_solar_day()
    return date(solar.get_year(), solar.get_month(), solar.get_day())


@lru_cache(maxsize=1024)
def _lunar(day: date) -> tuple[int, int, int, bool]:
    lunar = SolarDay.from_ymd(day.year, day.month, day.day).get_lunar_day()
    month: LunarMonth = lunar.get_lunar_month()
    return (
        int(lunar.get_year()),
        int(month.get_month()),
        int(lunar.get_day()),
        bool(month.is_leap()),
    )


def lunar_year(day: date) -> int:
    """Return the number of the lunar year a day lies in; it changes at 正月初一."""
    return _lunar(day)[0]


def leap_month(year: int) -> int:
    """Return the month after which a lunar year repeats one, or 0."""
    return int(LunarYear.from_year(year).get_leap_month())


def lunar_text(day: date) -> str:
    """Return the lunar month and day of a date, as in 腊月廿九, 八月十五 or 闰六月初一."""
    _, month, number, leap = _lunar(day)
    return f"{'闰' if leap else ''}{_MONTHS[month]}月{_DAYS[number]}"


def is_lunar_day(day: date, month: int, number: int) -> bool:
    """Say whether a date is that day of that month, leap months excepted."""
    _, its_month, its_number, leap = _lunar(day)
    return (its_month, its_number, leap) == (month, number, False)


def ganzhi_year(day: date) -> str:
    """Return the stem and branch of the lunar year a date lies in; on 除夕 still the old one."""
    return _ganzhi(lunar_year(day))


def zodiac(day: date) -> str:
    """Return the animal of the lunar year a date lies in."""
    return _ZODIAC[(lunar_year(day) - 4) % 12]


def upcoming_ganzhi(day: date) -> str:
    """Return the stem and branch of the 春节 that comes next or is today."""
    return _ganzhi(_upcoming_year(day))


def upcoming_zodiac(day: date) -> str:
    """Return the animal of the 春节 that comes next or is today."""
    return _ZODIAC[(_upcoming_year(day) - 4) % 12]


def _ganzhi(year: int) -> str:
    return _STEMS[(year - 4) % 10] + _BRANCHES[(year - 4) % 12]


def _upcoming_year(day: date) -> int:
    # In January 正月初一 of the same Gregorian year may still lie ahead.
    return day.year if day <= festival_date("春节", day.year) else day.year + 1


def parse_lunar(text: str) -> tuple[int, int]:
    """Return (month, day) of a lunar date written as digits, such as `08-15`, or 腊月廿三.

    Raises ValueError for anything else; no leap month can be written.
    """
    digits = re.fullmatch(r"(\d{1,2})-(\d{1,2})", text)
    if digits:
        month, day = int(digits[1]), int(digits[2])
        if 1 <= month <= 12 and 1 <= day <= 30:
            return month, day
        raise ValueError(f"no lunar month and day: {text!r}")
    spoken = read_lunar(text)
    if spoken is None or spoken[2]:
        raise ValueError(f"no lunar month and day: {text!r}")
    return spoken[0], spoken[1]


_SPOKEN = re.compile(
    r"(?P<leap>闰)?(?P<month>正|冬|腊|十一|十二|[一二三四五六七八九十])月"
    r"(?P<day>初[一二三四五六七八九十]|廿[一二三四五六七八九]?|三十|二十[一二三四五六七八九]?"
    r"|十[一二三四五六七八九]?)"
)
_MONTH_NUMBERS = {name: number for number, name in enumerate(_MONTHS) if name} | {
    "一": 1,
    "十一": 11,
    "十二": 12,
}


def read_lunar(text: str) -> tuple[int, int, bool] | None:
    """Read a spoken lunar date such as 腊月二十五 or 闰六月初一 as (month, day, leap), or None."""
    found = _SPOKEN.fullmatch(text)
    if not found:
        return None
    day = found["day"]
    if day.startswith("二十") and len(day) > 2:
        day = day.replace("二十", "廿")
    number = _DAYS.index({"廿": "二十", "十": "初十"}.get(day, day))
    return _MONTH_NUMBERS[found["month"]], number, bool(found["leap"])
