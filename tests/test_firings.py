"""Three workers whose hearts beat at once, and kill -9: benchmarks/firings.py is the long form."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.firings import Season, together


@pytest.mark.slow
def test_what_fell_due_before_anybody_lived_fires_once_and_as_its_policy_says(
    tmp_path: Path, postgres_url: str
) -> None:
    season = Season("2026-09-22", "2026-09-22", hours=(10,), kills=1, seconds=240)
    lived = asyncio.run(together(season, postgres_url, tmp_path))
    # The draft was due on the fifteenth; of the reminders since, only the nearest is sent.
    assert {one for one in lived.fired if one[0].startswith("letter")} == {
        ("letter.draft", "letter:mid_autumn:2026"),
        ("letter.remind", "letter:mid_autumn:2026:3"),
    }
    assert lived.rows["campaign"] == 1
