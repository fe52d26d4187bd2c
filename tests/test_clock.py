"""Clocks: what they tell can be stored and read back unchanged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bot.clock import Clock, MovableClock, SteadyClock, SystemClock
from storage.columns import from_millis, to_millis

NOON = datetime(2026, 3, 12, 4, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "clock",
    [
        SystemClock(),
        SteadyClock(),
        MovableClock(datetime(2026, 3, 12, 2, 0, 0, 1999, UTC), running=True),
    ],
    ids=["system", "steady", "running"],
)
def test_a_moment_read_back_is_the_moment_that_was_told(clock: Clock) -> None:
    for _try in range(50):
        told = clock.now()
        assert from_millis(to_millis(told)) == told


@pytest.fixture
def machine() -> Machine:
    return Machine()


class Machine:
    """A wall clock that can be set, and the seconds that really passed."""

    def __init__(self) -> None:
        self.wall, self.elapsed = NOON, 100.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.elapsed)

    def passes(self, **span: float) -> datetime:
        self.wall += timedelta(**span)
        self.elapsed += timedelta(**span).total_seconds()
        return self.clock.now()

    def jumps(self, **span: float) -> datetime:
        self.wall += timedelta(**span)
        return self.clock.now()


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_and_is_put_right_was_never_wrong(machine: Machine, days: int) -> None:
    machine.passes(minutes=1)
    assert machine.jumps(days=days) == NOON + timedelta(minutes=1)
    assert machine.clock.doubted
    assert machine.passes(minutes=4) == NOON + timedelta(minutes=5)
    assert machine.jumps(days=-days) == NOON + timedelta(minutes=5)
    assert not machine.clock.doubted


@pytest.mark.parametrize("days", [1, -1])
def test_a_jump_that_stays_is_followed_after_some_minutes(machine: Machine, days: int) -> None:
    machine.jumps(days=days)
    machine.passes(minutes=4)
    assert machine.passes(minutes=2) == NOON + timedelta(days=days, minutes=6)


def test_a_machine_that_slept_and_one_that_is_set_right_by_seconds_are_believed(
    machine: Machine,
) -> None:
    assert machine.passes(hours=9) == NOON + timedelta(hours=9)
    assert machine.jumps(seconds=20) == NOON + timedelta(hours=9, seconds=20)
