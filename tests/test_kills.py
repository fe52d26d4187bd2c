"""kill -9 at twenty random moments of a letter; benchmarks/kills.py is the long form."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.kills import Trial, run
from bot.delivery import most_sending

PEOPLE = 600
KILLS = 20
SLOTS = 16


@pytest.mark.slow
def test_nobody_gets_two_letters_and_nobody_is_silently_left_out(tmp_path: Path) -> None:
    trial = Trial(f"sqlite:///{tmp_path}/kills.db", PEOPLE, KILLS, slots=SLOTS, seconds=240)
    found = asyncio.run(run(trial))
    assert found.kills == KILLS
    assert (found.doubled, found.lost) == (0, 0)
    assert sum(found.states.values()) == PEOPLE
    assert set(found.states) == {"sent", "unknown"}
    assert found.unknown == found.in_flight
    assert found.most_in_flight <= most_sending(SLOTS)
