"""The card that follows a campaign as it leaves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlmodel import col, select, update

from bot.context import Services
from bot.messages import load_reply
from schedules.progress import renew_cards
from storage.campaigns import Campaign, CampaignState
from storage.mailbox import TABLE, Outbox
from storage.states import State
from tests.people import HOMES, register_many
from tests.world import World


@pytest.fixture
def leaving(make_world: Callable[..., World]) -> World:
    """A notice to four that has been let go and waits to be sent."""
    world = make_world(start="2026-06-20 10:00")
    register_many(world, 4, homes=HOMES[:1])
    world.grant("小王", "coordinator")
    answer = world.talk("小王", "群发", "3", "政策更新", "已更新。", "全体", "立即", "提交")
    found = re.search(r"确认发送 (\w{4})", answer)
    assert found, answer
    world.says("小王", f"确认发送 {found[1]}")
    return world


def editing(world: World) -> Services:
    facts = {n: replace(f, edits=True) for n, f in world.app.services.channels.items()}
    return replace(world.app.services, channels=facts)


def have_left(world: World, count: int) -> None:
    with world.database.session() as session:
        mine = select(Outbox).where(col(Outbox.campaign_id).is_not(None))
        first = session.exec(mine.order_by(col(Outbox.id)).limit(count)).all()
        ids = [row.id for row in first if row.state != State.SENT]
        for state in (State.LEASED, State.SENDING, State.SENT):
            session.exec(update(TABLE).where(TABLE.c.id.in_(ids)).values(state=state))


def look(world: World, services: Services) -> None:
    with world.database.session() as session:
        renew_cards.run(services, session, world.clock.now())


def cards(world: World) -> list[tuple[str, str | None]]:
    with world.database.reading() as session:
        rows = session.exec(select(Outbox).where(col(Outbox.occasion).startswith("progress:")))
        return [
            (part.text, part.replaces) for row in rows for part in load_reply(row.body or "").parts
        ]


def test_one_card_follows_what_has_left(leaving: World) -> None:
    services = editing(leaving)
    look(leaving, services)
    assert cards(leaving) == []
    have_left(leaving, 1)
    look(leaving, services)
    look(leaving, services)
    have_left(leaving, 3)
    look(leaving, services)
    texts = [text for text, _topic in cards(leaving)]
    assert [re.search(r"已发 (\d)/4", text)[1] for text in texts] == ["1", "3"]  # type: ignore[index]
    assert {topic for _text, topic in cards(leaving)} == {"campaign:B-0001"}


def test_where_nothing_can_be_edited_nobody_is_bothered(leaving: World) -> None:
    have_left(leaving, 2)
    look(leaving, leaving.app.services)
    assert cards(leaving) == []


def test_a_paused_campaign_has_no_news(leaving: World) -> None:
    have_left(leaving, 2)
    with leaving.database.session() as session:
        campaign = session.exec(select(Campaign)).one()
        campaign.state = CampaignState.PAUSED
        session.add(campaign)
    look(leaving, editing(leaving))
    assert cards(leaving) == []


def test_asking_for_the_progress_starts_the_same_card(leaving: World) -> None:
    reply = leaving.app.dispatcher.handle(leaving.inbound("小王", "群发 进度 B-0001"))
    assert [part.replaces for part in reply] == ["campaign:B-0001"]
    assert "已发 0/4" in reply[0].text
