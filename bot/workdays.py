"""Working days of mainland China, and an honest answer for years not yet announced."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from datetime import date, timedelta
from typing import NamedTuple

import chinese_calendar


class NotAnnounced(Exception):
    """The holidays of this year are not known: neither the library nor the overrides have them."""

    def __init__(self, year: int) -> None:
        super().__init__(f"holidays of {year} are not announced yet")
        self.year = year


class WorkingDay(NamedTuple):
    """A working day, and whether it rests on announced holidays or only on Monday to Friday."""

    day: date
    announced: bool


def is_working_day(day: date, overrides: Mapping[date, bool]) -> bool:
    """Say whether people work on a day; `overrides` (day to working or not) goes first.

    Raises NotAnnounced for a year whose notice is neither in the library nor in the overrides.
    """
    if day in overrides:
        return overrides[day]
    try:
        return bool(chinese_calendar.is_workday(day))
    except NotImplementedError:
        if _imported(day.year, overrides):
            return day.weekday() < 5
        raise NotAnnounced(day.year) from None


def _imported(year: int, overrides: Mapping[date, bool]) -> bool:
    # Every yearly notice names both; one single local exception is not a notice.
    return date(year, 1, 1) in overrides and date(year, 10, 1) in overrides


def is_announced(year: int, overrides: Mapping[date, bool]) -> bool:
    """Say whether the holidays of a year are known."""
    try:
        chinese_calendar.is_workday(date(year, 7, 1))
    except NotImplementedError:
        return _imported(year, overrides)
    return True


def nth_last_working_day(
    year: int, month: int, n: int, overrides: Mapping[date, bool]
) -> WorkingDay:
    """Return the n-th working day from the end of a month (1 is the last).

    Where the year is not announced, Monday to Friday count and `announced` is False.
    Raises ValueError where the month has fewer than n working days.
    """
    day = date(year, month, monthrange(year, month)[1])
    announced, left = True, n
    while day.month == month:
        try:
            working = is_working_day(day, overrides)
        except NotAnnounced:
            working, announced = day.weekday() < 5, False
        left -= working
        if left == 0:
            return WorkingDay(day, announced)
        day -= timedelta(days=1)
    raise ValueError(f"{year}-{month:02d} has fewer than {n} working days")
