"""Every dialogue under transcripts/, played as is, with restarts, and with every message twice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.playing import Player
from tests.world import World

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("how", ["plain", "restart", "twice"])
def test_the_dialogue_goes_as_written(
    path: Path, how: str, make_world: Callable[..., World]
) -> None:
    Player(make_world, restart=how == "restart", twice=how == "twice").play(path)
