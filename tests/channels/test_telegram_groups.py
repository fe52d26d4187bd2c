"""Groups on Telegram: what is answered there, and the way from there into the private chat."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from bot.dispatch import GROUP_NUMBER, GROUP_PRIVATE, USED_UP
from bot.entrances import LABEL
from bot.messages import Address, Link, Part
from handlers.cross_border import AT_HOME, STATEMENT
from storage.mailbox import Outbox
from storage.organisation import Unit
from storage.people import Contact, Grant, OneTimeCode, Person
from tests.channels.on_telegram import BOT, LI, WANG, OnTelegram, running
from tests.world import whole_catalog

pytestmark = pytest.mark.anyio

Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Start]:
    """Starts the whole bot under a policy, with its name known; it ends with the test."""
    async with AsyncExitStack() as stack:

        async def begin(policy: str = "full") -> OnTelegram:
            known = whole_catalog()
            made = await stack.enter_async_context(running(tmp_path, known, telegram_policy=policy))
            async with made.living():
                return made

        yield begin


@pytest.fixture
async def bot(start: Start) -> OnTelegram:
    made: OnTelegram = await start()
    return made


@pytest.fixture
async def group(bot: OnTelegram) -> int:
    # As an admin it is sent all talk, and so mentions too, which privacy mode may keep back.
    made = bot.telegram.group("鸿雁乡亲", [WANG, LI], supergroup=True)
    bot.telegram.promote_bot(made)
    return made


async def says_in(bot: OnTelegram, group: int, text: str, who: int = WANG, **more: Any) -> None:
    bot.telegram.say(who, text, group, **more)
    await bot.settle()


def address_of(bot: OnTelegram, group: int) -> str:
    """The link under the newest message that has one."""
    return bot.buttons(group)[0]["url"]


def people(bot: OnTelegram) -> int:
    with bot.app.services.database.reading() as session:
        return len(session.exec(select(Person.id)).all())


# - the way in -


async def test_a_personal_command_in_a_group_leads_to_the_private_chat_where_it_is_done(
    bot: OnTelegram, group: int
) -> None:
    await says_in(bot, group, "/register@hongyan_bot")
    assert (bot.heard(group), people(bot)) == ([GROUP_PRIVATE], 0)
    assert re.fullmatch(
        r"https://t\.me/hongyan_bot\?start=[A-Za-z0-9_-]{16,64}", address_of(bot, group)
    )
    bot.telegram.follow_link(WANG, LABEL, group)
    await bot.settle()
    assert "鸿雁档案·个人信息告知" in bot.heard(WANG)[-1]


async def test_a_way_in_works_once(bot: OnTelegram, group: int) -> None:
    await says_in(bot, group, "/me@hongyan_bot")
    for _ in range(2):
        bot.telegram.follow_link(WANG, LABEL, group)
        await bot.settle()
        await bot.clock.advance(2)
    assert [text.startswith(USED_UP) for text in bot.heard(WANG)] == [False, True, False]
    assert bot.heard(WANG)[-1].startswith("您好")


async def test_a_way_in_that_is_told_twice_is_entered_once(bot: OnTelegram, group: int) -> None:
    await says_in(bot, group, "/register@hongyan_bot")
    bot.telegram.duplicate_next()
    bot.telegram.follow_link(WANG, LABEL, group)
    await bot.settle()
    assert [USED_UP in text for text in bot.heard(WANG)] == [False]


async def test_somebody_elses_way_in_is_refused_and_stays_good(bot: OnTelegram, group: int) -> None:
    await says_in(bot, group, "/register@hongyan_bot")
    bot.telegram.follow_link(LI, LABEL, group)
    bot.telegram.follow_link(WANG, LABEL, group)
    await bot.settle()
    assert bot.heard(LI)[0].startswith(USED_UP)
    assert "鸿雁档案·个人信息告知" in bot.heard(WANG)[-1]


async def test_a_way_in_closes_after_half_an_hour(bot: OnTelegram, group: int) -> None:
    await says_in(bot, group, "/register@hongyan_bot")
    await bot.clock.advance(minutes=31)
    bot.telegram.follow_link(WANG, LABEL, group)
    await bot.settle()
    assert bot.heard(WANG)[0].startswith(USED_UP)


async def test_of_a_code_only_the_digest_is_kept(bot: OnTelegram, group: int) -> None:
    await says_in(bot, group, "/register@hongyan_bot")
    code = address_of(bot, group).partition("start=")[2]
    with bot.app.services.database.reading() as session:
        (kept,) = session.exec(select(OneTimeCode))
    assert kept.digest == bot.app.services.keys.digest(code)
    assert str(WANG) not in kept.payload
    assert "登记" not in json.dumps(json.loads(kept.payload), ensure_ascii=False)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("报名 3", "回执 3"),
        ("修改 城市 北京", "修改"),
        ("人工 我家老人在住院", "人工"),
    ],
)
async def test_a_number_goes_along_and_whatever_else_was_said_does_not(
    bot: OnTelegram, group: int, said: str, words: str
) -> None:
    await says_in(bot, group, f"@hongyan_bot {said}")
    with bot.app.services.database.reading() as session:
        (kept,) = session.exec(select(OneTimeCode))
    sealed = b64decode(json.loads(kept.payload)["sealed"])
    assert json.loads(bot.app.services.keys.open(sealed))["words"] == words


async def test_a_link_of_unknown_meaning_opens_the_menu(bot: OnTelegram) -> None:
    bot.telegram.start(WANG, "poster-7")
    await bot.settle()
    assert bot.heard(WANG)[-1].startswith("您好")


async def test_where_nobody_is_kept_the_way_in_holds_no_code(start: Start) -> None:
    bot = await start("public_only")
    group = bot.telegram.group("鸿雁乡亲", [WANG])
    await says_in(bot, group, "/register@hongyan_bot")
    assert address_of(bot, group) == "https://t.me/hongyan_bot"
    bot.telegram.follow_link(WANG, LABEL, group)
    await bot.settle()
    assert bot.heard(WANG)[-1].startswith("您好")
    assert people(bot) == 0


async def test_the_way_in_asks_first_what_the_policy_asks_first(start: Start) -> None:
    bot = await start("overseas_self")
    group = bot.telegram.group("鸿雁乡亲", [WANG])
    await says_in(bot, group, "/register")
    bot.telegram.follow_link(WANG, LABEL, group)
    await bot.settle()
    assert bot.offered(WANG) == [STATEMENT, AT_HOME]


async def test_a_link_names_the_unit_that_invites(bot: OnTelegram) -> None:
    with bot.app.services.database.session() as session:
        unit = Unit(name="新加坡乡亲会")
        session.add(unit)
        session.flush()
        number = unit.id
    bot.telegram.scan(WANG, f"https://t.me/hongyan_bot?start=u_{number}")
    await bot.settle()
    assert bot.heard(WANG)[0].startswith("您是应「新加坡乡亲会」的邀请来的")


async def test_a_coordinators_qr_code_opens_what_it_says(bot: OnTelegram) -> None:
    await bot.says(LI, "菜单")
    with bot.app.services.database.session() as session:
        (person,) = session.exec(select(Person.id))
        session.add(Grant(person_id=person, role="coordinator", granted_at=bot.clock.now()))
    await bot.says(LI, "入口 登记")
    found = re.search(r"https://t\.me/\S+", bot.heard(LI)[-1])
    assert found is not None
    assert "[photo] 入口.png" in bot.heard(LI)[-1]
    for who in (WANG, LI):
        bot.telegram.scan(who, found[0])
        await bot.settle()
    assert "鸿雁档案·个人信息告知" in bot.heard(WANG)[-1]
    assert any(text.startswith(USED_UP) for text in bot.heard(LI))


# - what is not answered, and what is not kept -


@pytest.mark.parametrize("text", ["1", "@hongyan_bot 1", "/1", "谢谢", "@hongyan_bot 今天真冷"])
async def test_numbers_and_talk_are_left_alone(bot: OnTelegram, group: int, text: str) -> None:
    await says_in(bot, group, text)
    assert bot.heard(group) == []


@pytest.mark.parametrize(
    "text",
    [
        "@hongyan_bot 我家老人在霍林郭勒住院想找人帮忙 电话13800001234",
        "/help@hongyan_bot \uff11\uff13\uff18 0000 1234",
        "@hongyan_bot 我在新加坡，+65 9123 4567",
        "@hongyan_bot 家里座机 0475-7920000",
        "@hongyan_bot 邮箱 gaoyuanshan@example.org",
        "@hongyan_bot 身份证 11010519491231002X",
    ],
)
async def test_a_number_typed_by_mistake_is_neither_kept_nor_repeated(
    bot: OnTelegram, group: int, text: str
) -> None:
    await says_in(bot, group, text)
    assert bot.heard(group) == [GROUP_NUMBER]
    assert address_of(bot, group) == "https://t.me/hongyan_bot"
    with bot.app.services.database.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        kept = "".join(raw.iterdump())
    for said in (
        "13800001234",
        "0000 1234",
        "9123 4567",
        "91234567",
        "0475-7920000",
        "04757920000",
        "gaoyuanshan",
        "11010519491231002X",
        "老人",
    ):
        assert said not in kept


async def test_what_stands_below_a_picture_counts_like_words(bot: OnTelegram, group: int) -> None:
    bot.telegram.send_photo(WANG, caption="/help 13800001234", chat=group)
    await bot.settle()
    assert bot.heard(group) == [GROUP_NUMBER]


async def test_a_group_is_shown_no_page_that_is_meant_for_one(bot: OnTelegram, group: int) -> None:
    address = Address("telegram", BOT, str(group))
    await bot.channel.send(address, Part("看", link=Link("我的档案", "/p/secret")), "1-0")
    assert bot.buttons(group) == []


# - topics -


async def test_an_answer_stays_in_the_topic_of_its_question(bot: OnTelegram, group: int) -> None:
    topic = bot.telegram.topic(group, "活动")
    await says_in(bot, group, "/help@hongyan_bot", topic=topic)
    await says_in(bot, group, "/start@hongyan_bot")
    assert [text[:3] for text in bot.telegram.heard_in(group, topic)] == ["【书信"]
    assert [text[:2] for text in bot.telegram.heard_in(group, None)] == ["您好"]


async def test_an_answer_to_a_topic_that_is_gone_goes_to_the_group(
    bot: OnTelegram, group: int
) -> None:
    topic = bot.telegram.topic(group, "活动")
    bot.telegram.say(WANG, "/help@hongyan_bot", group, topic=topic)
    bot.telegram.close_topic(group, topic)
    await bot.settle()
    assert len(bot.telegram.heard_in(group, None)) == 1


async def test_all_topics_of_a_group_share_its_pace(bot: OnTelegram, group: int) -> None:
    one, two = bot.telegram.topic(group, "一"), bot.telegram.topic(group, "二")
    for number in range(6):
        topic = one if number % 2 else two
        address = Address("telegram", BOT, f"{group}/{topic}")
        await bot.channel.send(address, Part(f"第{number}条"), "1-0")
    times = [line.at for line in bot.telegram.transcript(group) if line.by == "bot"]
    assert all(after - before >= 1 for before, after in pairwise(times))


# - coming, going, moving -


async def test_a_storm_of_newcomers_is_greeted_with_one_line(bot: OnTelegram, group: int) -> None:
    for number in range(50):
        bot.telegram.person(5000 + number, f"乡亲{number}")
        bot.telegram.join(5000 + number, group)
    await bot.settle()
    assert [text[:5] for text in bot.heard(group)] == ["欢迎新乡亲"]
    assert address_of(bot, group) == "https://t.me/hongyan_bot"


async def test_who_came_before_is_not_greeted_again(bot: OnTelegram, group: int) -> None:
    for _ in range(2):
        bot.telegram.join(LI, group)
        bot.telegram.leave(LI, group)
        await bot.settle()
        await bot.clock.advance(hours=2)
    assert len(bot.heard(group)) == 1


async def test_fact_69_whatever_bears_the_groups_number_gets_the_new_one(bot: OnTelegram) -> None:
    old = bot.telegram.group("乡亲", [WANG])
    await says_in(bot, old, "/help")
    services = bot.app.services
    with services.database.session() as session:
        person = Person(created_at=bot.clock.now())
        session.add(person)
        session.flush()
        assert person.id is not None
        session.add(
            Contact(
                person_id=person.id,
                channel="telegram",
                address=f"telegram:{BOT}:{old}",
                last_seen_at=bot.clock.now(),
            )
        )
    new = bot.telegram.migrate(old, WANG)
    await bot.settle()
    with services.database.reading() as session:
        kept = [*session.exec(select(Outbox.address)), *session.exec(select(Contact.address))]
    assert set(kept) == {f"telegram:{BOT}:{new}"}


# - the menu key -


async def test_the_menu_key_offers_in_a_group_only_what_is_answered_there(
    bot: OnTelegram,
) -> None:
    menus = {
        scope: {entry["command"] for entry in entries}
        for scope, entries in bot.telegram.menus.items()
    }
    assert menus["all_group_chats"] == menus["default"] == {"start", "help", "event"}
    assert menus["all_private_chats"] == {
        *("start", "help", "event", "register", "me", "ticket", "cancel")
    }


async def test_where_only_public_words_are_answered_the_menu_key_offers_no_others(
    start: Start,
) -> None:
    bot = await start("public_only")
    private = {entry["command"] for entry in bot.telegram.menus["all_private_chats"]}
    assert private == {"start", "help", "event"}


@pytest.mark.parametrize(
    "alias", ["start", "help", "register", "me", "letter", "event", "report", "broadcast", "ticket"]
)
def test_every_promised_alias_is_a_command(alias: str) -> None:
    assert f"/{alias}" in whole_catalog().words


async def test_cancel_ends_a_form(bot: OnTelegram) -> None:
    await bot.says(WANG, "/register")
    await bot.says(WANG, "/cancel")
    assert bot.heard(WANG)[-1].startswith("已取消")
