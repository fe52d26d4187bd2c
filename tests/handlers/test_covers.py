"""Covers, scene codes and the page of a notice, without any platform."""

import json
from datetime import datetime

import pytest
from sqlmodel import select

from bot.messages import Happening, Kind
from handlers.waiting import NOTICE
from storage.mailbox import Outbox
from storage.organisation import Unit
from storage.people import OneTimeCode
from storage.privacy import erase_person
from storage.scenes import Arrival
from storage.states import State
from tests.world import World


@pytest.fixture
def office(world: World) -> World:
    """陈统筹 coordinates, and there is a unit."""
    world.grant("陈统筹", "coordinator")
    with world.database.session() as session:
        session.add(Unit(id=7, name="工商联"))
    return world


def comes(world: World, who: str, scene: str) -> str:
    """Somebody follows by a code; what they are told."""
    inbound = world.inbound(who, Happening.FOLLOW, kind=Kind.EVENT, argument=scene)
    return world.hears(inbound)


def row(world: World, who: str, body: str | None) -> int:
    """A message to somebody, however it left; its number."""
    now: datetime = world.clock.now()
    person_id = world.person(who)
    with world.database.session() as session:
        kept = Outbox(
            occasion="duty:1",
            recipient=f"p{person_id}",
            person_id=person_id,
            purpose="duty",
            lane="memory:live",
            state=State.SENT,
            body=body,
            not_before=now,
            created_at=now,
        )
        session.add(kept)
        session.flush()
        assert kept.id is not None
        return kept.id


def page(world: World, number: int, who: str) -> str:
    """What the page of a notice shows."""
    code = OneTimeCode(
        kind="page",
        digest="d",
        person_id=world.person(who),
        payload=json.dumps({"page": "notice", "row": number}),
        created_at=world.clock.now(),
        expires_at=world.clock.now(),
    )
    with world.database.reading() as session:
        return NOTICE.show(world.app.services, session, code).text


@pytest.mark.parametrize("word", ["群发 封面 预览", "群发 封面 送审", "群发 封面"])
def test_where_no_channel_needs_covers_it_is_said(office: World, word: str) -> None:
    assert office.says("陈统筹", f"{word} B-0001") == (
        "没有编号为「B-0001」的群发。回「群发 进度」看最近几次。"
    )


def test_where_no_channel_makes_codes_it_is_said(office: World) -> None:
    answer = office.says("陈统筹", "二维码 单位 工商联")
    assert answer == "现在启用的渠道都不能做二维码，要接入公众号才行。"


def test_codes_are_for_staff(office: World) -> None:
    assert "由统筹员、领导使用" in office.says("乡亲", "二维码 单位 工商联")


def test_who_came_by_whose_code_is_counted_once(office: World) -> None:
    first = comes(office, "乡亲", "u_7")
    assert first.startswith("您是应「工商联」的邀请来的，欢迎。\n\n您好，这里是")
    comes(office, "乡亲", "g_上海乡亲群")
    comes(office, "老李", "g_上海乡亲群")
    listed = office.says("陈统筹", "二维码").splitlines()
    assert sorted(listed[1:3]) == ["上海乡亲群　1人", "工商联　1人"]


def test_who_erases_their_file_came_by_no_code(office: World) -> None:
    comes(office, "乡亲", "u_7")
    person_id = office.person("乡亲")
    with office.database.session() as session:
        erase_person(session, person_id, office.clock.now(), reason="erased", keep_contact=False)
        assert session.exec(select(Arrival)).all() == []


def test_the_word_of_a_cover_is_answered_even_when_nothing_waits(office: World) -> None:
    for word in ("信", "『信』", "「信」", "来信"):
        assert office.says("乡亲", word) == "眼下没有等您领取的信；有了会告诉您。"


def test_a_notices_page_shows_the_whole_message(office: World) -> None:
    number = row(office, "乡亲", json.dumps([{"t": "月报未交"}, {"t": "请回「月报」"}]))
    assert page(office, number, "乡亲") == "月报未交\n\n请回「月报」"


def test_a_notices_page_shows_nothing_to_another_and_nothing_that_is_gone(office: World) -> None:
    kept = row(office, "乡亲", json.dumps([{"t": "月报未交"}]))
    assert page(office, kept, "老李").startswith("这条消息已过保存期限")
    assert page(office, 999, "乡亲").startswith("这条消息已过保存期限")


def test_a_notices_page_of_a_forgotten_body_says_so(office: World) -> None:
    number = row(office, "乡亲", None)
    assert page(office, number, "乡亲").startswith("这条消息已过保存期限")
