"""What a channel abroad may carry under each policy, with the whole bot behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from bot.context import outbox_row
from bot.dispatch import dump_draft
from bot.forms import DraftState
from bot.ladder import Asked
from bot.messages import say
from bot.planning import plan
from handlers.cross_border import AGREED, AT_HOME, STATEMENT
from handlers.purposes import LETTER
from storage import mailbox
from storage.dialogs import Draft
from storage.mailbox import Outbox
from storage.people import ConsentEntry, Contact, Grant, Person
from storage.profiles import MemberProfile
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


def everything(bot: OnTelegram, table: Any) -> list[Any]:
    with bot.app.services.database.reading() as session:
        return list(session.exec(select(table)))


async def last(bot: OnTelegram, who: int, *texts: str) -> str:
    """Say several things in turn; returns the last answer."""
    for text in texts:
        await bot.says(who, text)
    return bot.heard(who)[-1]


def grant(bot: OnTelegram, who: int, role: str) -> None:
    with bot.app.services.database.session() as session:
        contact = session.exec(select(Contact).where(Contact.address == bot.address(who))).one()
        session.add(Grant(person_id=contact.person_id, role=role, granted_at=bot.clock.now()))


# - public_only -


async def test_public_only_answers_public_words_and_keeps_nobody(under: Start) -> None:
    bot = await under("public_only")
    assert (await last(bot, WANG, "/start")).startswith("您好")
    assert "短卡" not in await last(bot, WANG, "隐私")
    assert (everything(bot, Person), everything(bot, Contact)) == ([], [])


@pytest.mark.parametrize("text", ["登记", "我叫高远山，在上海", "我的档案", "撤回同意", "群发"])
async def test_public_only_names_where_to_go_and_opens_no_form(under: Start, text: str) -> None:
    bot = await under("public_only")
    answer = await last(bot, WANG, text)
    assert "公众号" in answer
    assert "0475-0000000" in answer
    assert (everything(bot, Person), everything(bot, Draft)) == ([], [])


async def test_public_only_writes_nobody_a_letter(under: Start) -> None:
    bot = await under("public_only")
    services = bot.app.services
    now = bot.clock.now()
    with services.database.session() as session:
        person = Person(created_at=now)
        session.add(person)
        session.flush()
        assert person.id is not None
        session.add(
            Contact(
                person_id=person.id,
                channel="telegram",
                address=bot.address(WANG),
                last_seen_at=now,
            )
        )
        session.flush()
        row = outbox_row(
            services, session, person.id, say("信"), occasion="letter", purpose=LETTER, now=now
        )
    assert row is None


# - overseas_self -


async def test_overseas_self_asks_place_and_s7_before_registering(under: Start) -> None:
    bot = await under("overseas_self")
    assert STATEMENT in await last(bot, WANG, "/register")
    assert bot.offered(WANG) == [STATEMENT, AT_HOME]
    await bot.presses(WANG, STATEMENT)
    assert "S7" in bot.heard(WANG)[-1]
    assert AGREED in await last(bot, WANG, "好的")
    assert everything(bot, ConsentEntry) == []
    await bot.presses(WANG, AGREED)
    (entry,) = everything(bot, ConsentEntry)
    assert (entry.scope, entry.action, entry.channel) == ("S7", "granted", "telegram")
    assert "鸿雁档案·个人信息告知" in bot.heard(WANG)[-1]


async def test_a_member_abroad_registers_with_buttons_to_the_end(under: Start) -> None:
    bot = await under("overseas_self")
    await register(bot)
    (profile,) = everything(bot, MemberProfile)
    assert (profile.name, profile.phone) == ("高远山", None)
    assert sorted(entry.scope for entry in everything(bot, ConsentEntry)) == ["S7", "profile"]


async def register(bot: OnTelegram) -> None:
    """王小雁's telephone registers a member from the first word to the last."""
    await bot.says(WANG, "登记")
    for label in (STATEMENT, AGREED, "同意", "是"):
        await bot.presses(WANG, label)
    await bot.presses(WANG, bot.offered(WANG)[0])
    await bot.presses(WANG, bot.offered(WANG)[0])
    await bot.says(WANG, "跳过")
    await bot.says(WANG, "高远山")
    await bot.says(WANG, "新加坡")
    await bot.presses(WANG, bot.offered(WANG)[0])
    await bot.presses(WANG, "确认")


async def test_without_the_statement_or_the_consent_nobody_registers(under: Start) -> None:
    bot = await under("overseas_self")
    assert "公众号" in await last(bot, WANG, "登记", AT_HOME)
    assert "公众号" in await last(bot, LI, "登记", STATEMENT, "不同意")
    assert everything(bot, Draft) == []
    assert [entry.action for entry in everything(bot, ConsentEntry)] == ["refused"]


async def test_a_mobile_number_is_neither_asked_nor_kept_abroad(under: Start) -> None:
    bot = await under("overseas_self")
    answer = await last(bot, WANG, "修改 手机 13800001234")
    assert "没有保存" in answer
    assert (await last(bot, WANG, "换手机")).startswith("「换手机」请在我们的微信公众号")
    with bot.app.services.database.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        assert "13800001234" not in "".join(raw.iterdump())


@pytest.mark.parametrize(("role", "word"), [("coordinator", "群发"), ("team_leader", "月报")])
async def test_staff_are_told_which_channel_to_use(under: Start, role: str, word: str) -> None:
    bot = await under("overseas_self")
    await bot.says(WANG, "菜单")
    grant(bot, WANG, role)
    answer = await last(bot, WANG, word)
    assert answer.startswith(f"「{word}」请在我们的微信公众号或企业微信里办理")
    assert everything(bot, Draft) == []


async def test_the_telephone_is_left_out_of_the_optional_questions(under: Start) -> None:
    bot = await under("overseas_self")
    await register(bot)
    assert "单位" in await last(bot, WANG, "完善")


async def test_letters_reach_a_member_abroad_only_while_s7_stands(under: Start) -> None:
    bot = await under("overseas_self")
    await register(bot)
    before = reach(bot)
    answer = await last(bot, WANG, "撤回同意 S7")
    assert "已撤回" in answer
    await bot.says(WANG, "菜单")
    assert (before, reach(bot)) == ((True, 1), (False, 0))


async def test_what_waits_on_telegram_is_stopped_when_s7_is_withdrawn(under: Start) -> None:
    bot = await under("overseas_self")
    await register(bot)
    services, now = bot.app.services, bot.clock.now()
    with services.database.session() as session:
        row = outbox_row(
            services,
            session,
            1,
            say("信"),
            occasion="letter",
            purpose=LETTER,
            now=now,
            not_before=now + timedelta(days=1),
        )
        assert row is not None
        mailbox.enqueue(session.connection(), [row])
    await bot.says(WANG, "撤回同意 S7")
    with services.database.reading() as session:
        waiting = session.exec(select(Outbox).where(Outbox.occasion == "letter")).one()
        assert (waiting.state, waiting.reason) == ("suppressed", "consent")


def reach(bot: OnTelegram) -> tuple[bool, int]:
    """May the member be written to now, alone and in a campaign?"""
    services, now = bot.app.services, bot.clock.now()
    with services.database.reading() as session:
        row = outbox_row(
            services, session, 1, say("信"), occasion="letter", purpose=LETTER, now=now
        )
        counted = plan(services, session, select(Person.id), Asked(LETTER, now))
    return row is not None, counted.reachable


async def test_a_form_begun_at_home_is_not_continued_abroad(under: Start) -> None:
    bot = await under("overseas_self")
    await bot.says(WANG, "菜单")
    with bot.app.services.database.session() as session:
        (person,) = session.exec(select(Person))
        assert person.id is not None
        state = DraftState("member_details", {"phone": None}, {}, asked="org")
        session.add(
            Draft(
                person_id=person.id,
                form="member_details",
                state=dump_draft(state),
                updated_at=bot.clock.now(),
                expires_at=bot.clock.now() + timedelta(days=7),
            )
        )
    assert "公众号" in await last(bot, WANG, "深远公司")
    assert "公众号" in await last(bot, WANG, "继续")


# - full -


async def test_full_carries_everything(under: Start) -> None:
    bot = await under("full")
    assert "鸿雁档案·个人信息告知" in await last(bot, WANG, "登记")


async def test_the_privacy_word_names_the_policy(under: Start) -> None:
    bot = await under("overseas_self")
    assert "S7" in await last(bot, WANG, "隐私")


# - groups -


async def test_a_group_newcomer_is_greeted_once_an_hour(under: Start) -> None:
    bot = await under("overseas_self")
    group = bot.telegram.group("鸿雁乡亲", [WANG])
    bot.telegram.join(WANG, group)
    bot.telegram.join(LI, group)
    await bot.settle()
    assert [text[:5] for text in bot.heard(group)] == ["欢迎新乡亲"]


async def test_help_is_answered_in_a_group_and_registering_is_not(under: Start) -> None:
    bot = await under("overseas_self")
    group = bot.telegram.group("鸿雁乡亲", [WANG])
    bot.telegram.say(WANG, "/help@hongyan_bot", group)
    bot.telegram.say(WANG, "/register@hongyan_bot", group)
    bot.telegram.say(LI, "今天天气真好", group)
    await bot.settle()
    assert [text[:4] for text in bot.heard(group)] == ["【书信与", "涉及个人"]
    assert everything(bot, Person) == []
