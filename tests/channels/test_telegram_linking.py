"""Linking a channel whose servers are abroad: what each policy lets through."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from bot.context import outbox_row
from bot.ladder import Asked
from bot.messages import say
from bot.planning import plan
from handlers.purposes import DUTY, LETTER
from storage.linking import PersonLink
from storage.mailbox import Outbox
from storage.people import ConsentNow, Contact, Grant, OneTimeCode, Person
from tests.channels.on_telegram import LI, WANG, OnTelegram, running
from tests.world import whole_catalog

pytestmark = pytest.mark.anyio

Start = Callable[[str], Any]


@pytest.fixture
async def under(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Start]:
    """Starts the whole bot under a policy; it ends with the test."""
    async with AsyncExitStack() as stack:

        async def begin(policy: str) -> OnTelegram:
            made = running(tmp_path, whole_catalog(), telegram_policy=policy)
            return await stack.enter_async_context(made)

        yield begin


async def last(bot: OnTelegram, who: int, *texts: str) -> str:
    """Say several things in turn; returns the last answer."""
    for text in texts:
        await bot.says(who, text)
    return bot.heard(who)[-1]


def everything(bot: OnTelegram, table: Any) -> list[Any]:
    with bot.app.services.database.reading() as session:
        return list(session.exec(select(table)))


def grant(bot: OnTelegram, who: int, role: str) -> int:
    with bot.app.services.database.session() as session:
        contact = session.exec(select(Contact).where(Contact.address == bot.address(who))).one()
        session.add(Grant(person_id=contact.person_id, role=role, granted_at=bot.clock.now()))
        return contact.person_id


@pytest.mark.parametrize("policy", ["overseas_self", "public_only"])
@pytest.mark.parametrize("text", ["关联", "关联 123456", "绑定", "绑定 123456"])
async def test_no_code_is_given_or_taken_there(under: Start, policy: str, text: str) -> None:
    bot = await under(policy)
    answer = await last(bot, WANG, "/start", text)
    assert "公众号" in answer
    assert everything(bot, OneTimeCode) == []


async def test_under_full_two_accounts_become_one(under: Start) -> None:
    bot = await under("full")
    await last(bot, LI, "/start")
    grant(bot, LI, "leader")
    code = re.search(r"关联码：(\d{6})", await last(bot, LI, "关联"))
    assert code
    assert "Telegram，没有档案，领导" in await last(bot, WANG, "/start", f"关联 {code[1]}")
    await bot.presses(WANG, "确认关联")
    assert "已关联" in bot.heard(WANG)[-1]
    assert "合成了一个人" in bot.heard(LI)[-1]
    assert len(everything(bot, PersonLink)) == 1
    assert len({contact.person_id for contact in everything(bot, Contact)}) == 1


async def test_what_is_sent_out_of_duty_is_not_carried_abroad(under: Start) -> None:
    bot = await under("overseas_self")
    await last(bot, WANG, "/start")
    person = grant(bot, WANG, "coordinator")
    services, now = bot.app.services, bot.clock.now()
    with services.database.session() as session:
        for scope in ("S7", "profile"):
            session.add(ConsentNow(person_id=person, scope=scope, live=True, version="1", at=now))
        session.flush()
        duty, letter = (
            outbox_row(services, session, person, say("x"), occasion="x", purpose=purpose, now=now)
            for purpose in (DUTY, LETTER)
        )
        people = select(Person.id).where(Person.id == person)
        counted = plan(services, session, people, Asked(DUTY, now))
    assert duty is None
    assert letter is not None
    assert (counted.reachable, dict(counted.left_out)) == (0, {"elsewhere": 1})
    assert [row.purpose for row in everything(bot, Outbox) if row.purpose == "duty"] == []
