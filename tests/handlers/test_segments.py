"""What coordinators mean by their words, and whom that finds."""

from __future__ import annotations

import pytest
from sqlmodel import Session

from bot.normalize import Miss
from handlers.place import PLACES
from handlers.segments import Segment, Vocabulary, understand
from storage.people import unsubscribe
from tests.people import register_many
from tests.world import World

PLACE = PLACES.load("huolingol", {})
KNOWN = Vocabulary.of(PLACE)


def _echo(text: str) -> str:
    found = understand(text, KNOWN)
    return found.text if isinstance(found, Miss) else found.echo(PLACE)


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("企业家 上海的和杭州的", "类别∈{企业家} 且 城市∈{上海，杭州}"),
        (
            "类别 企业家，城市 上海 苏州，订阅 活动",
            "类别∈{企业家} 且 城市∈{上海，苏州} 且 订阅∈{活动邀请}",
        ),
        ("类别：企业家；城市：上海、苏州", "类别∈{企业家} 且 城市∈{上海，苏州}"),
        ("全体", "全体"),
        ("所有人", "全体"),
        ("全体企业家", "类别∈{企业家}"),
        ("住在呼和浩特市的老兵", "类别∈{曾在霍服役} 且 城市∈{呼和浩特}"),
        ("内蒙古的校友和知青", "类别∈{校友，知青} 且 城市∈{内蒙古}"),
        ("在霍插队", "渊源∈{在霍插队}"),
        ("上海或苏州", "城市∈{上海，苏州}"),
        ("最近确认 12个月", "365天内确认过"),
        ("知青，一年内确认过的", "类别∈{知青} 且 365天内确认过"),
        ("上海 上海 企业家 老板", "类别∈{企业家} 且 城市∈{上海}"),
    ],
)
def test_a_segment_is_understood_and_said_back(said: str, understood: str) -> None:
    assert _echo(said) == understood


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("火星人 上海", "没看懂「火星」"),
        ("除了上海的", "没看懂「除了」"),
        ("不要企业家", "没看懂「不要」"),
        ("女企业家", "没看懂「女」"),
        ("美国洛杉矶和北京朝阳区", "没看懂「区」"),
        ("企业家或上海", "「或」只能用在同一类条件里"),
        ("的", "请说明发给谁"),
    ],
)
def test_what_is_not_understood_is_asked_about(said: str, asked: str) -> None:
    assert _echo(said).startswith(asked)


def test_a_stored_segment_is_the_same_segment() -> None:
    found = understand("企业家 上海 订阅 活动 最近确认 3个月", KNOWN)
    assert isinstance(found, Segment)
    assert Segment.load(found.dump()) == found


def _found(session: Session, said: str, world: World) -> list[int]:
    segment = understand(said, KNOWN)
    assert isinstance(segment, Segment)
    return sorted(person for (person,) in session.execute(segment.people(world.clock.now())))


def test_conditions_find_the_people_who_meet_all_of_them(world: World) -> None:
    people = register_many(world, 48)
    with world.database.session() as session:
        unsubscribe(session, people[0], "活动邀请", world.clock.now())
        found = {
            said: [people.index(person) for person in _found(session, said, world)]
            for said in ("企业家", "企业家 上海", "企业家 上海 订阅 活动", "上海 杭州 校友", "浙江")
        }
    assert found == {
        "企业家": [0, 8, 16, 24, 32, 40],
        "企业家 上海": [0, 24],
        "企业家 上海 订阅 活动": [24],
        "上海 杭州 校友": [18, 42],
        "浙江": [1, 7, 13, 19, 25, 31, 37, 43],
    }


def test_recently_confirmed_leaves_out_who_was_not_heard_of(world: World) -> None:
    people = register_many(world, 48)
    with world.database.session() as session:
        assert _found(session, "最近确认 10天", world) == people[:11]
