"""A few seconds of what `make bench NAME=fuzz` does for ten minutes, the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from benchmarks.doors import Call, Doors, Way, doors, dressed, ways
from benchmarks.fuzz import by_hypothesis, dictionary, samples

KNOCKS = 250


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with doors(tmp_path_factory.mktemp("doors")) as made:
        yield made


@pytest.mark.slow
def test_nothing_that_arrives_breaks_the_bot_or_keeps_it_long() -> None:
    found = by_hypothesis(60, seed=1, most=KNOCKS)
    assert (found.wrong, found.slow) == ({}, {})
    assert found.knocks >= KNOCKS
    assert set(found.answers) <= {"2xx", "3xx", "4xx"}


@pytest.mark.parametrize("way", ways())
def test_every_way_leads_to_its_door(made: Doors, way: Way) -> None:
    """A knock that never got past the lock would find nothing."""
    answered = made.knock(next(_right(way)))
    assert (answered.status, answered.wrong) == (_EXPECTED.get(way, 200), "")


_EXPECTED = {Way.WECHAT_BODY: 403, Way.WECOM_BODY: 403, Way.BOT_BODY: 400, Way.HEADERS: 404}
"""What is not signed for its very body is refused; headers alone lead nowhere."""


def _right(way: Way) -> Iterator[Call]:
    index = ways().index(way)
    for sample in samples():
        if sample[0] == index:
            yield dressed(way, sample[1:], 9 if way.endswith("query") else 8)


def test_a_server_error_is_found_with_what_was_logged(tmp_path: Path) -> None:
    with doors(tmp_path) as made:
        with made.database.transaction() as connection:
            connection.execute(text("DROP TABLE one_time_code"))
        answered = made.knock(dressed(Way.PAGE, b"x", 1))
    assert answered.wrong.startswith("status 503 ")
    assert "event=request_failed" in answered.wrong


def test_the_guided_part_begins_with_every_way_and_known_words() -> None:
    assert {sample[0] for sample in samples()} == set(range(len(ways())))
    assert all(line.startswith('"\\x') for line in dictionary())
