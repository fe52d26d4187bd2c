"""Names the months, quarters, half years and years that reports are about."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from fractions import Fraction

MONTHS_A_YEAR = 12


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """One calendar month; sorts by time and reads as ``2026-03``."""

    year: int
    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MONTHS_A_YEAR:
            raise ValueError(f"month must be 1 to 12, not {self.number}")

    @classmethod
    def parse(cls, text: str) -> Month:
        """Read ``2026-03``; raises ValueError for anything else."""
        match = re.fullmatch(r"([0-9]{4})-([0-9]{2})", text)
        if match is None:
            raise ValueError(f"expected a month like 2026-03, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, day: date) -> Month:
        """Return the month that `day` lies in."""
        return cls(day.year, day.month)

    @property
    def first_day(self) -> date:
        return date(self.year, self.number, 1)

    @property
    def last_day(self) -> date:
        return date(self.year, self.number, calendar.monthrange(self.year, self.number)[1])

    @property
    def next(self) -> Month:
        if self.number == MONTHS_A_YEAR:
            return Month(self.year + 1, 1)
        return Month(self.year, self.number + 1)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"


class Period(StrEnum):
    """How long a stretch one bulletin speaks about."""

    MONTH = "month"
    QUARTER = "quarter"
    HALF_YEAR = "half_year"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class ReportPeriod:
    """The `number`-th month, quarter, half year or (number 1) year of `year`.

    A period's own months are `months`; rankings always look at `to_date`, January to its end.
    """

    period: Period
    year: int
    number: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MONTHS_A_YEAR // self._length:
            raise ValueError(f"a year has no {self.period.value} number {self.number}")

    @property
    def _length(self) -> int:
        lengths = {Period.MONTH: 1, Period.QUARTER: 3, Period.HALF_YEAR: 6, Period.YEAR: 12}
        return lengths[self.period]

    @property
    def months(self) -> tuple[Month, ...]:
        return self.to_date[-self._length :]

    @property
    def to_date(self) -> tuple[Month, ...]:
        return tuple(Month(self.year, each) for each in range(1, self.last_month.number + 1))

    @property
    def last_month(self) -> Month:
        return Month(self.year, self.number * self._length)

    @property
    def begins_the_year(self) -> bool:
        return self.months == self.to_date

    @property
    def time_progress(self) -> Fraction:
        """The share of the year that has passed at the period's end (序时进度)."""
        return Fraction(self.last_month.number, MONTHS_A_YEAR)

    @property
    def short_title(self) -> str:
        """Its name within the year, such as 3月, 第一季度, 上半年, 全年."""
        match self.period:
            case Period.MONTH:
                return f"{self.number}月"
            case Period.QUARTER:
                return f"第{'一二三四'[self.number - 1]}季度"
            case Period.HALF_YEAR:
                return f"{'上下'[self.number - 1]}半年"
            case Period.YEAR:
                return "全年"

    @property
    def title(self) -> str:
        """Its full name, such as 2026年第一季度; a whole year reads 2026年度."""
        if self.period is Period.YEAR:
            return f"{self.year}年度"
        return f"{self.year}年{self.short_title}"
