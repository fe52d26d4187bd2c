"""The only place that asks what time it is; everything else is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_time
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

BEIJING = ZoneInfo("Asia/Shanghai")


class Clock(Protocol):
    """Tells the time as an aware UTC datetime, in whole milliseconds as they are stored.

    So a moment read back from the database equals the one that was written.
    """

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        # Asked for every message: whole milliseconds from the start are cheaper than cut ones.
        return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1000, UTC)


def _wall() -> datetime:
    return datetime.now(UTC)


def _elapsed() -> float:
    """Seconds that passed, counting those in which the machine slept, whatever its clock says."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SteadyClock:
    """The machine's clock, which is not believed at once when it jumps.

    A clock that is set wrong and put right again within `patience` was never wrong for anybody: no
    letter left a day early. A jump that stays is followed then; a small one, at once.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = _wall,
        elapsed: Callable[[], float] = _elapsed,
        *,
        patience: timedelta = timedelta(minutes=5),
        jump: timedelta = timedelta(minutes=1),
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._patience = patience.total_seconds()
        self._jump = jump.total_seconds()
        self._known = (wall(), elapsed())
        self._since: float | None = None

    @property
    def doubted(self) -> bool:
        """Did the machine's clock jump, and is it not believed yet?"""
        return self._since is not None

    def now(self) -> datetime:
        told, passed = self._wall(), self._elapsed()
        moment, at = self._known
        if abs((told - moment).total_seconds() - (passed - at)) >= self._jump:
            if self._since is None:
                self._since = passed
            if passed - self._since < self._patience:
                return _whole_millis(moment + timedelta(seconds=passed - at))
        self._known, self._since = (told, passed), None
        return _whole_millis(told)


class MovableClock:
    """A clock that can be set: the demo's slider, and the tests' time.

    With `running` it goes on from where it was set; otherwise it stands still.
    """

    def __init__(self, start: datetime, *, running: bool = False) -> None:
        self._running = running
        self._set_at = time.monotonic()
        self._start = start.astimezone(UTC)

    def now(self) -> datetime:
        if not self._running:
            return self._start
        return _whole_millis(self._start + timedelta(seconds=time.monotonic() - self._set_at))

    def set(self, moment: datetime) -> None:
        """Move to an aware `moment`, forwards or back."""
        self._set_at = time.monotonic()
        self._start = moment.astimezone(UTC)

    def advance(self, **span: float) -> None:
        """Move on by a timedelta given as keywords: `advance(days=1)`."""
        self.set(self.now() + timedelta(**span))


def _whole_millis(moment: datetime) -> datetime:
    return moment - timedelta(microseconds=moment.microsecond % 1000)


def beijing(moment: datetime) -> datetime:
    """The same moment as people in the county read it."""
    return moment.astimezone(BEIJING)


@lru_cache(64)
def beijing_day(moment: datetime) -> date:
    """The day it is in the county; all of a batch ask it of one moment."""
    return beijing(moment).date()


def show_time(moment: datetime) -> str:
    """`2026-03-12 10:02`, Beijing time."""
    return beijing(moment).strftime("%Y-%m-%d %H:%M")


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A span over midnight in which nobody is written to unasked."""

    begins: wall_time = wall_time(21, 30)
    ends: wall_time = wall_time(8, 30)

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The first moment from `moment` on that is not quiet for somebody in `zone`."""
        local = moment.astimezone(zone)
        if self.ends <= local.time() < self.begins:
            return moment
        day = local.date() if local.time() < self.ends else local.date() + timedelta(days=1)
        return datetime.combine(day, self.ends, zone)
