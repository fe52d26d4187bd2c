"""What `make bench NAME=soak` does with two thousand people, with fifty."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.crowds import CROWDS, ONE_WAY
from benchmarks.soak import Outcome, trial
from bot.app import CHANNELS

PROMISES = ("lost", "unanswered", "misheard", "doubled", "stuck")


@pytest.mark.slow
def test_fifty_people_on_every_channel_lose_nothing_and_get_nothing_twice(tmp_path: Path) -> None:
    found = asyncio.run(trial(50, 20260331, tmp_path, tokens_die=False, stride=15))
    # How far everybody gets in so short an hour is the machine's affair; these are promises.
    assert {name: found.broken[name] for name in PROMISES if name in found.broken} == {}
    assert found.messages > 50 * 4
    assert set(found.faults) >= {"cut_before", "cut_after", "busy"}
    assert set(found.states) <= {"sent", "delivered", "read", "unknown", "failed", "deferred"}


def test_every_channel_has_its_crowd_or_is_one_on_which_nobody_speaks() -> None:
    assert set(CROWDS) | ONE_WAY == set(CHANNELS)


def test_a_promise_that_is_not_kept_is_named() -> None:
    kept = dict.fromkeys(
        ("lost", "unanswered", "misheard", "unfiled", "doubled", "missing", "stuck"), 0
    )
    found = Outcome(
        people=1,
        messages=2,
        answers=2,
        states={"sent": 2},
        faults={"cut_after": 1},
        unavailable=0,
        rss=(100.0, 110.0, 150.0),
        seconds=1.0,
        **{**kept, "doubled": 1},
        repeated=3,
    )
    assert found.broken == {"doubled": 1, "repeated": 1, "growth": 40.0}
