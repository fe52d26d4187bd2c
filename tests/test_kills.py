"""kill -9 at twenty random moments of a letter to two thousand people."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.kills import KILLS, PEOPLE, trial


@pytest.mark.slow
def test_nobody_gets_two_letters_and_nobody_is_silently_left_out(tmp_path: Path) -> None:
    found = asyncio.run(trial(KILLS, PEOPLE, 20260216, f"sqlite:///{tmp_path}/kills.db"))
    assert found.kills == KILLS
    assert (found.doubled, found.lost) == (0, 0)
    assert sum(found.states.values()) == PEOPLE
    assert set(found.states) == {"sent", "unknown"}
    # Rows between gate and acknowledgement never exceed the call slots.
    assert found.most_in_doubt <= 64
