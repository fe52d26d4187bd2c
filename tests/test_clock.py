"""Clocks: what they tell can be stored and read back unchanged."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bot.clock import Clock, MovableClock, SystemClock
from storage.columns import from_millis, to_millis


@pytest.mark.parametrize(
    "clock",
    [SystemClock(), MovableClock(datetime(2026, 3, 12, 2, 0, 0, 1999, UTC), running=True)],
    ids=["system", "running"],
)
def test_a_moment_read_back_is_the_moment_that_was_told(clock: Clock) -> None:
    for _try in range(50):
        told = clock.now()
        assert from_millis(to_millis(told)) == told
