"""The yearly number of people written to abroad is watched."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import insert

from schedules.cross_border import WARN_AT, abroad_this_year
from storage.people import ConsentEntry, Person
from tests.world import World


def agree(world: World, first: int, count: int, **span: float) -> None:
    """So many people agree to S7, so long ago."""
    now = world.clock.now()
    people = [{"id": n, "created_at": now} for n in range(first, first + count)]
    entries = [
        {
            "person_id": person["id"],
            "scope": "S7",
            "action": "granted",
            "version": "1",
            "notice_hash": "",
            "at": now - timedelta(**span),
            "channel": "telegram",
            "source": "",
            "words": "",
        }
        for person in people
    ]
    with world.database.transaction() as connection:
        connection.execute(insert(Person), people)
        connection.execute(insert(ConsentEntry), entries)


def test_people_are_counted_once_and_only_this_year(world: World) -> None:
    agree(world, 1000, 3)
    agree(world, 2000, 2, days=100)
    with world.database.reading() as session:
        assert abroad_this_year(session, world.clock.now()) == 3


def test_those_on_duty_are_warned_once_a_year_at_four_fifths(world: World) -> None:
    world.grant("统筹", "coordinator")
    agree(world, 1000, WARN_AT - 1)
    world.at("2026-03-13 10:00")
    assert not [text for text in world.received("统筹") if "出境" in text]
    agree(world, 500_000, 1)
    world.at("2026-03-14 10:00")
    world.at("2026-03-15 10:00")
    warned = [text for text in world.received("统筹") if "出境" in text]
    assert [text.partition("人（")[0] for text in warned] == ["本年累计出境人数已到80000"]
