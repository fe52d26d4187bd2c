"""Read dates and times the way people say them: 昨天, 周五, 8月12号, 腊月二十五, 明天下午3点."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal

from bot.clock import BEIJING
from bot.lunar import festival_date, lunar_text, lunar_to_date, lunar_year, read_lunar
from bot.numerals import NUMERAL, Miss, read_integer, tidy

WEEKDAYS = "一二三四五六日"
Prefer = Literal["past", "future"] | None


@dataclass(frozen=True)
class LunarGuess(Miss):
    """A lunar date with the Gregorian day it stands for, to be confirmed before it is used."""

    day: date


_NOT_A_DATE = Miss("没认出日期，请这样写：「8月12日」「昨天」「周五」。")
_DAYS_AWAY = {
    "大前天": -3,
    "前天": -2,
    "昨天": -1,
    "昨日": -1,
    "昨晚": -1,
    "今天": 0,
    "今日": 0,
    "今儿": 0,
    "今早": 0,
    "今晚": 0,
    "当天": 0,
    "明天": 1,
    "明日": 1,
    "明儿": 1,
    "明早": 1,
    "明晚": 1,
    "后天": 2,
    "大后天": 3,
}
_N = "[0-9零\u3007一二两三四五六七八九十廿]"
_END = r"(?=$|[\s，,。；;的了开签去来到回左早上中下晚前]|\d{1,2}[:：点时])"
_EXPRESSION = re.compile(
    rf"(?P<away>{'|'.join(sorted(_DAYS_AWAY, key=len, reverse=True))})"
    r"|(?P<lunar>(?:农历|阴历|旧历)\s*(?:\d{1,2}月\d{1,2}|闰?[正冬腊一二三四五六七八九十]{1,2}月"
    r"(?:初|廿)?[一二三四五六七八九十]{0,3})[日号]?"
    r"|闰?[正冬腊]月(?:初|[廿一二三四五六七八九十])[一二三四五六七八九十]{0,2}"
    r"|闰?[一二三四五六七八九十]{1,2}月(?:初|廿)[一二三四五六七八九十]?|(?<!年)八月十五(?![号日]))"
    r"|(?P<week>[上下本这]?个?)(?:周|星期|礼拜)(?P<weekday>[一二三四五六日天1-7])(?![0-9一二三四五六七八九])"
    rf"|(?P<year>\d{{4}}|[零\u3007一二三四五六七八九]{{4}}|今|明|去|后|前)年\s*(?P<ymonth>{_N}{{1,3}})月\s*(?P<yday>{_N}{{1,3}})[号日]?"
    r"|(?<!\d)(?P<iso>20\d\d[-./年]\d{1,2}[-./月]\d{1,2}|20\d{6})(?!\d)"
    rf"|(?P<relmonth>[上下本这])个?月(?P<relday>{_N}{{1,3}})[号日]"
    rf"|(?P<month>{_N}{{1,3}})月份?\s*(?P<day>{_N}{{1,3}})[号日]?"
    rf"|^(?P<nmonth>\d{{1,2}})[./\uff0e-](?P<nday>\d{{1,2}})[号日]?{_END}"
    rf"|(?<![{_N[1:-1]}月个])(?P<only>{_N}{{1,3}})[号日]"
    r"|(?P<festival>春节|除夕|元宵节?|端午节?|中秋节?|重阳节?|元旦|国庆节?)(?:当天|当日|那天)?"
)
_SOLAR_FESTIVALS = {"元旦": (1, 1), "国庆": (10, 1), "国庆节": (10, 1)}


def parse_date(text: str, today: date, prefer: Prefer = None) -> date | Miss:
    """Return the one day a text names; words around it (`3月18号开的`) do not matter.

    Without a year it is this year's, except across New Year; `prefer` moves a day that does not
    fit to the nearest past or future one. A lunar date comes back as LunarGuess, to be confirmed.
    """
    plain = tidy(text)
    found = _EXPRESSION.search(plain)
    if found is None:
        return _NOT_A_DATE
    day = _resolve(found, today, prefer)
    if isinstance(day, date) and _another_day(plain[found.end() :], day, today, prefer):
        return Miss("一次请只写一个日期，如「8月12日」。")
    return day


def _another_day(rest: str, day: date, today: date, prefer: Prefer) -> bool:
    """Say whether a second date follows; a weekday in brackets only repeats the first."""
    found = _EXPRESSION.search(rest.lstrip(" ，,。（(/-."))
    if found is None:
        return False
    other = _resolve(found, today, prefer)
    if found["weekday"] and isinstance(other, date):
        return other.weekday() != day.weekday()
    return isinstance(other, date) and other != day


def _resolve(found: re.Match[str], today: date, prefer: Prefer) -> date | Miss:
    if found["away"]:
        return today + timedelta(days=_DAYS_AWAY[found["away"]])
    if found["lunar"]:
        return _lunar_guess(found["lunar"], today, prefer)
    if found["weekday"]:
        return _weekday(found["week"] or "", found["weekday"], today, prefer)
    if found["iso"]:
        return _iso(found["iso"])
    if found["festival"]:
        return _festival(found["festival"], today, prefer)
    if found["year"]:
        return _on(_year(found["year"], today), _number(found["ymonth"]), _number(found["yday"]))
    if found["relday"]:
        return _in_month(found["relmonth"], _number(found["relday"]), today)
    if found["only"]:
        return _day_of_month(_number(found["only"]), today, prefer)
    return _month_and_day(
        _number(found["month"] or found["nmonth"]),
        _number(found["day"] or found["nday"]),
        today,
        prefer,
    )


def _number(text: str) -> int:
    return read_integer(text.replace("廿", "二十")) or 0


def _year(word: str, today: date) -> int:
    shift = {"今": 0, "明": 1, "去": -1, "后": 2, "前": -2}.get(word)
    return today.year + shift if shift is not None else _number(word)


def _on(year: int, month: int, day: int) -> date | Miss:
    try:
        return date(year, month, day)
    except ValueError:
        return Miss(f"没有{month}月{day}日这一天，请核对后再发，如「3月18日」。")


def _iso(text: str) -> date | Miss:
    digits = re.findall(r"\d+", text)
    if len(digits) == 1:
        digits = [text[:4], text[4:6], text[6:]]
    year, month, day = (int(part) for part in digits)
    return _on(year, month, day)


def _month_and_day(month: int, day: int, today: date, prefer: Prefer) -> date | Miss:
    year = today.year
    passed = (month, day) < (today.month, today.day)
    ahead = (month, day) > (today.month, today.day)
    if prefer is None:
        passed = today.month >= 11 and month <= 2
        ahead = today.month <= 2 and month >= 11
    if passed and prefer != "past":
        year += 1
    elif ahead and prefer != "future":
        year -= 1
    return _on(year, month, day)


def _day_of_month(day: int, today: date, prefer: Prefer) -> date | Miss:
    month_start = today.replace(day=1)
    if prefer == "past" and day > today.day:
        month_start = (month_start - timedelta(days=1)).replace(day=1)
    elif prefer == "future" and day < today.day:
        month_start = (month_start + timedelta(days=31)).replace(day=1)
    return _on(month_start.year, month_start.month, day)


def _in_month(word: str, day: int, today: date) -> date | Miss:
    start = today.replace(day=1)
    if word == "上":
        start = (start - timedelta(days=1)).replace(day=1)
    elif word == "下":
        start = (start + timedelta(days=31)).replace(day=1)
    return _on(start.year, start.month, day)


def _weekday(week: str, name: str, today: date, prefer: Prefer) -> date:
    wanted = (int(name) - 1) if name.isdigit() else WEEKDAYS.index(name.replace("天", "日"))
    monday = today - timedelta(days=today.weekday())
    shift = {"上": -7, "下": 7, "本": 0, "这": 0}.get(week[:1])
    if shift is not None:
        return monday + timedelta(days=wanted + shift)
    if prefer == "past":
        return today - timedelta(days=(today.weekday() - wanted) % 7)
    return today + timedelta(days=(wanted - today.weekday()) % 7)


def _festival(name: str, today: date, prefer: Prefer) -> date:
    return _nearest([_festival_in(name, today.year + step) for step in (-1, 0, 1)], today, prefer)


def _festival_in(name: str, year: int) -> date:
    if name in _SOLAR_FESTIVALS:
        return date(year, *_SOLAR_FESTIVALS[name])
    return festival_date(name, year)


def _nearest(days: list[date], today: date, prefer: Prefer) -> date:
    if prefer == "past":
        return max(day for day in days if day <= today)
    return min(day for day in days if day >= today)


def _lunar_guess(text: str, today: date, prefer: Prefer) -> Miss:
    words = re.sub(r"农历|阴历|旧历|[号日\s]", "", text)
    digits = re.fullmatch(r"(\d{1,2})月(\d{1,2})", words)
    spoken = (int(digits[1]), int(digits[2]), False) if digits else read_lunar(words)
    if spoken is None:
        return Miss("没认出这个农历日期，请写成「农历腊月二十五」，或直接发公历日期。")
    month, number, leap = spoken
    days = []
    for year in range(lunar_year(today) - 1, lunar_year(today) + 3):
        try:
            days.append(lunar_to_date(year, month, number, leap=leap))
        except ValueError:
            continue
    fitting = [day for day in days if (day <= today if prefer == "past" else day >= today)]
    if not fitting:
        return Miss("近两年没有这个农历日期，请直接发公历日期，如「8月12日」。")
    day = max(fitting) if prefer == "past" else min(fitting)
    said = f"{day.year}年{day.month}月{day.day}日（周{WEEKDAYS[day.weekday()]}）"
    return LunarGuess(f"农历{lunar_text(day)}是公历{said}，对吗？回「是」，或直接发公历日期。", day)


@dataclass(frozen=True)
class SpokenTime:
    """A time of day as said: perhaps only 上午, perhaps 下午3点多 with its vagueness kept."""

    hour: int | None
    minute: int = 0
    vague: str = ""
    part: str = ""

    @property
    def text(self) -> str:
        """The Chinese words for it, such as `15点多`, `10:30` or `上午`."""
        if self.hour is None:
            return self.part
        if self.vague:
            return f"{self.hour}点{f'{self.minute}分' if self.minute else ''}{self.vague}"
        return f"{self.hour:02d}:{self.minute:02d}"


_PARTS = "凌晨|清晨|早上|早晨|上午|中午|下午|傍晚|晚上|夜里|半夜|早|晚"
_TIME = re.compile(
    rf"(?P<part>{_PARTS})?\s*(?:"
    r"(?P<h>[01]?\d|2[0-3])\s*[:：]\s*(?P<m>[0-5]\d)"
    rf"|(?P<hour>[{NUMERAL}]{{1,3}}?)\s*(?:点钟?|时)"
    rf"(?P<minute>半|[一二三1-3]刻|[{NUMERAL}]{{1,3}}分?)?"
    r")(?P<vague>多|左右|前后|来钟)?"
)
_AFTERNOON = ("下午", "傍晚", "晚上", "晚")


def read_time(text: str) -> SpokenTime | None:
    """Find the time of day in a text; None where there is none or it is impossible.

    An hour after 下午 or 晚上 is turned into the 24-hour one; `part` keeps the word said.
    """
    plain = tidy(text)
    found = _TIME.search(plain)
    if not found:
        only = re.search(_PARTS, plain)
        return SpokenTime(None, part=only[0]) if only else None
    part: str = found["part"] or ""
    hour = int(found["h"]) if found["h"] else read_integer(found["hour"])
    minute = int(found["m"]) if found["m"] else _minutes(found["minute"] or "")
    if hour is None or minute is None or hour > 23:
        return None
    if (part in _AFTERNOON and hour < 12) or (part == "中午" and hour < 3):
        hour += 12
    return SpokenTime(hour, minute, found["vague"] or "", part)


def _minutes(text: str) -> int | None:
    if not text:
        return 0
    if text == "半":
        return 30
    if text.endswith("刻"):
        return 15 * (read_integer(text[0]) or 0)
    minutes = read_integer(text.removesuffix("分"))
    return minutes if minutes is not None and minutes < 60 else None


_NOW = frozenset(("立即", "立刻", "马上", "现在", "现在就发", "立即发", "立即发送", "马上发"))
_WHEN_EXAMPLE = "「7月1日 10:00」「明天下午3点」或「立即」"


def parse_when(text: str, now: datetime) -> datetime | Miss:
    """Return the moment a text names, aware and in Asia/Shanghai; 立即 is `now`.

    The moment must lie ahead and name an hour that cannot be mistaken for its twin at night.
    """
    here = now.astimezone(BEIJING)
    plain = tidy(text)
    if plain.strip("。！!") in _NOW:
        return here
    clock = read_time(re.sub(r"今晚|明晚", "晚上", re.sub(r"今早|明早", "早上", plain)))
    day = parse_date(plain, here.date())
    if isinstance(day, Miss) and day != _NOT_A_DATE:
        return day
    if clock is None or clock.hour is None:
        return Miss(f"请写明几点，如{_WHEN_EXAMPLE}。")
    if clock.part in ("晚上", "晚", "夜里", "半夜") and clock.hour in (0, 12):
        return Miss("夜里12点容易算错日子，请写成「0:00」并带上日期，如「7月2日 0:00」。")
    if not clock.part and 1 <= clock.hour <= 6 and not re.search(r"\d\s*[:：]", plain):
        return Miss(
            f"{clock.hour}点是上午还是下午？请写「下午{clock.hour}点」或「{clock.hour + 12}:00」。"
        )
    chosen = here.date() if isinstance(day, Miss) else day
    moment = datetime.combine(chosen, time(clock.hour, clock.minute), BEIJING)
    if moment <= now:
        said = f"{moment.month}月{moment.day}日 {clock.text}"
        return Miss(f"{said}已经过去了，请写一个以后的时间，如{_WHEN_EXAMPLE}。")
    return moment
