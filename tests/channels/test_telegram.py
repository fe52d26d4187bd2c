"""The Telegram channel keeps what the platform asks for; numbers are those of its fact sheet."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from sqlmodel import select
from starlette.applications import Starlette

from bot.app import App, facts_of
from bot.catalog import Catalog
from bot.channels.telegram import Telegram
from bot.channels.telegram.channel import AGAIN, EXPIRED
from bot.commands import command
from bot.context import Context, new_row
from bot.dispatch import GROUP_NUMBER
from bot.errors import SendError
from bot.messages import Address, Choice, File, Inbound, Link, Part, Reply, dump_reply, say
from bot.settings import Settings
from storage import mailbox
from storage.bubbles import Button
from storage.mailbox import Inbox, Outbox
from storage.people import Contact
from storage.states import State
from tests.channels.harness import catalog
from tests.channels.on_telegram import BOT, LI, WANG, OnTelegram, running
from tests.world import MemoryChannel

pytestmark = pytest.mark.anyio

SECRET = "a-secret-of-some-length"
Start = Callable[..., Any]


@command("公告", help="看公告", group=True, reads=True)
def notice(context: Context, _argument: str) -> Reply:
    return say("今天没有公告。", "回声")


@command("/help", help="看用法", group=True, reads=True)
def usage(context: Context, argument: str) -> Reply:
    return say(f"用法{argument}")


@command("长长的", help="很多按钮")
def many(context: Context, _argument: str) -> Reply:
    return say(
        "请选", *(Choice("选项" * 40 + str(n), "回声 " + "值" * 60 + str(n)) for n in range(99))
    )


@pytest.fixture
async def start(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Start]:
    """Starts an installation; it ends with the test."""
    async with AsyncExitStack() as stack:

        async def begin(known: Catalog | None = None, **values: Any) -> OnTelegram:
            made: AbstractAsyncContextManager[OnTelegram] = running(
                tmp_path, known or catalog(notice, usage, many), **values
            )
            return await stack.enter_async_context(made)

        yield begin


@pytest.fixture
async def bot(start: Start) -> OnTelegram:
    made: OnTelegram = await start()
    return made


def rows(bot: OnTelegram) -> list[tuple[str, str]]:
    """State and reason of every row of the outbox, in order."""
    with bot.app.services.database.reading() as session:
        return [(r.state, r.reason) for r in session.exec(select(Outbox).order_by("id"))]


def enqueue(bot: OnTelegram, address: str, *texts: str, repeatable: bool = False) -> None:
    """Letters to one address, in the outbox."""
    now = bot.clock.now()
    recipient = f"g{address}" if ":-" in address else address
    with bot.app.services.database.transaction() as connection:
        mailbox.enqueue(
            connection,
            [
                new_row(
                    occasion=f"letter:{text}",
                    recipient=recipient,
                    address=address,
                    purpose="letter",
                    lane="telegram:live",
                    body=dump_reply(say(text)),
                    not_before=now,
                    created_at=now,
                    repeatable=repeatable,
                )
                for text in texts
            ],
        )


# - what arrives -


@pytest.fixture
async def webhook(start: Start) -> tuple[OnTelegram, httpx.AsyncClient]:
    made = await start(
        telegram_mode="webhook", telegram_secret=SECRET, public_url="https://bot.example.org"
    )
    app = Starlette(routes=list(made.channel.routes(made.app.receive)))
    transport = httpx.ASGITransport(app)
    return made, httpx.AsyncClient(transport=transport, base_url="http://bot")


def update(text: str, number: int = 1) -> dict[str, Any]:
    person = {"id": WANG, "is_bot": False, "first_name": "王小雁"}
    chat = {"id": WANG, "type": "private", "first_name": "王小雁"}
    message = {"message_id": number, "date": 1790000000, "chat": chat, "from": person, "text": text}
    return {"update_id": 7000 + number, "message": message}


async def post(client: httpx.AsyncClient, body: object, secret: str | None = SECRET) -> int:
    headers = {} if secret is None else {"X-Telegram-Bot-Api-Secret-Token": secret.encode()}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await client.post("/callback/telegram", content=content, headers=headers)
    assert "Traceback" not in response.text
    return response.status_code


def inbox(bot: OnTelegram) -> list[str]:
    with bot.app.services.database.reading() as session:
        return sorted(session.exec(select(Inbox.key)))


async def test_fact_64_without_the_secret_nothing_is_heard(
    webhook: tuple[OnTelegram, httpx.AsyncClient],
) -> None:
    bot, client = webhook
    assert [await post(client, update("回声"), s) for s in (None, "", "wrong", "秘密")] == [403] * 4
    assert inbox(bot) == []
    assert await post(client, update("回声")) == 200
    assert inbox(bot) == [f"telegram:{BOT}:m{WANG}.1"]


async def test_fact_65_repeated_and_reordered_updates_are_answered_once_each(
    bot: OnTelegram,
) -> None:
    bot.telegram.start(WANG)
    bot.telegram.duplicate_next(2)
    bot.telegram.hold_next()
    bot.telegram.say(WANG, "回声 一")
    bot.telegram.say(WANG, "回声 二")
    await bot.settle()
    assert sorted(bot.heard(WANG)[1:]) == ["一", "二"]


async def test_fact_65_update_ids_may_begin_anew_after_a_silent_week(
    webhook: tuple[OnTelegram, httpx.AsyncClient],
) -> None:
    bot, client = webhook
    later = {**update("回声 新", 2), "update_id": update("回声 旧")["update_id"]}
    assert [await post(client, update("回声 旧")), await post(client, later)] == [200, 200]
    assert len(inbox(bot)) == 2


async def test_fact_65_what_was_not_taken_is_told_again_after_a_restart(bot: OnTelegram) -> None:
    bot.telegram.say(WANG, "回声 一")
    await bot.channel.poll(bot.app.receive, 0)
    other = Telegram(bot.settings, bot.clock, sleep=bot.clock.advance)
    other.attach(bot.app.services)
    await other.poll(bot.app.receive, 0)
    await bot.drain()
    await other.close()
    assert bot.heard(WANG) == ["一"]


@pytest.mark.parametrize(
    "poison", [{}, {"message": {}}, {"message": {"message_id": "x"}}, {"callback_query": {"id": 1}}]
)
async def test_fact_66_a_poisoned_update_is_answered_200(
    webhook: tuple[OnTelegram, httpx.AsyncClient], poison: Mapping[str, Any]
) -> None:
    bot, client = webhook
    assert await post(client, {"update_id": 1, **poison}) == 200
    assert inbox(bot) == []


async def test_fact_66_a_poisoned_update_does_not_stop_those_behind_it(bot: OnTelegram) -> None:
    bot.telegram.poison()
    bot.telegram.say(WANG, "回声 在")
    await bot.settle()
    assert bot.heard(WANG) == ["在"]


async def test_a_body_that_is_no_json_is_400_and_one_over_a_megabyte_413(
    webhook: tuple[OnTelegram, httpx.AsyncClient],
) -> None:
    _bot, client = webhook
    bodies = (b"{", b"[]", b"[" * 100_000, b" " * (1024 * 1024 + 1))
    assert [await post(client, body) for body in bodies] == [400, 400, 400, 413]


async def test_a_message_that_cannot_be_taken_now_is_asked_for_again(
    webhook: tuple[OnTelegram, httpx.AsyncClient],
) -> None:
    bot, client = webhook

    async def away(_inbound: object, _seconds: float) -> tuple[Part, ...]:
        raise TimeoutError

    broken = Starlette(routes=list(bot.channel.routes(away)))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(broken), base_url="http://bot"
    ) as other:
        assert await post(other, update("回声")) == 503
    assert await post(client, update("回声")) == 200


# - what leaves -


async def test_fact_67_a_flood_in_one_chat_leaves_others_flowing(bot: OnTelegram) -> None:
    for who in (WANG, LI):
        await bot.says(who, "回声")
    await bot.clock.advance(5)
    bot.telegram.flood(30, WANG)
    enqueue(bot, bot.address(WANG), "给王", "又给王")
    enqueue(bot, bot.address(LI), "给李")
    await bot.drain()
    assert (bot.heard(WANG)[1:], bot.heard(LI)[1:]) == ([], ["给李"])
    await bot.clock.advance(31)
    await bot.drain()
    assert bot.heard(WANG)[1:] == ["给王", "又给王"]


async def test_fact_67_a_flood_of_the_whole_bot_rests_the_lane(bot: OnTelegram) -> None:
    await bot.says(WANG, "回声")
    await bot.says(LI, "回声")
    bot.telegram.flood(30)
    errors = []
    for who in (WANG, LI):
        with pytest.raises(SendError) as caught:
            await bot.channel.send(Address.parse(bot.address(who)), Part("信"), "1-0")
        errors.append(caught.value)
    assert [error.only_here for error in errors] == [True, False]
    assert all(error.retry_after and error.retry_after >= 25 for error in errors)


async def test_fact_68_one_chat_is_written_to_once_a_second(bot: OnTelegram) -> None:
    await bot.says(WANG, "三句")
    lines = [line for line in bot.telegram.transcript(WANG) if line.by == "bot"]
    gaps = [after.at - before.at for before, after in itertools.pairwise(lines)]
    assert [line.text for line in lines] == ["一", "二", "三"]
    assert all(gap >= 1 for gap in gaps)


async def test_fact_68_a_group_gets_twenty_a_minute_and_the_rest_later(bot: OnTelegram) -> None:
    group = bot.telegram.group("乡亲", [WANG])
    address = Address("telegram", BOT, str(group))
    for number in range(20):
        await bot.channel.send(address, Part(f"第{number}条"), f"{number}-0")
    with pytest.raises(SendError) as caught:
        await bot.channel.send(address, Part("第20条"), "20-0")
    assert (caught.value.only_here, len(bot.heard(group))) == (True, 20)
    assert caught.value.retry_after is not None
    await bot.clock.advance(caught.value.retry_after)
    await bot.channel.send(address, Part("再来"), "20-0")
    assert bot.heard(group)[-1] == "再来"


async def test_fact_69_a_migrated_group_gets_its_message_and_its_rows(bot: OnTelegram) -> None:
    group = bot.telegram.group("乡亲", [WANG])
    old = str(Address("telegram", BOT, str(group)))
    enqueue(bot, old, "通知")
    new = bot.telegram.migrate(group, WANG)
    # The service messages have not been fetched yet: the send finds out by itself.
    await bot.drain()
    assert bot.heard(new) == ["通知"]
    with bot.app.services.database.reading() as session:
        moved = session.exec(select(Outbox)).one()
    assert (moved.address, moved.recipient, moved.state) == (
        f"telegram:{BOT}:{new}",
        f"gtelegram:{BOT}:{new}",
        State.SENT,
    )


async def test_fact_69_the_service_message_of_a_migration_moves_what_waits(bot: OnTelegram) -> None:
    group = bot.telegram.group("乡亲", [WANG])
    enqueue(bot, str(Address("telegram", BOT, str(group))), "通知")
    new = bot.telegram.migrate(group, WANG)
    await bot.channel.poll(bot.app.receive, 0)
    with bot.app.services.database.reading() as session:
        assert session.exec(select(Outbox.address)).one() == f"telegram:{BOT}:{new}"


async def test_fact_70_who_blocks_us_is_not_written_to_until_they_unblock(bot: OnTelegram) -> None:
    await bot.says(WANG, "回声")
    bot.telegram.block(WANG)
    enqueue(bot, bot.address(WANG), "信")
    await bot.drain()
    assert (rows(bot)[-1], reachable(bot)) == ((State.FAILED, "blocked"), False)
    bot.telegram.unblock(WANG)
    await bot.settle()
    assert reachable(bot)


async def test_fact_70_a_block_is_noted_without_a_send(bot: OnTelegram) -> None:
    await bot.says(WANG, "回声")
    bot.telegram.block(WANG)
    await bot.settle()
    assert not reachable(bot)


def reachable(bot: OnTelegram) -> bool:
    with bot.app.services.database.reading() as session:
        return session.exec(select(Contact.reachable)).one()


async def test_fact_71_a_letter_whose_answer_is_lost_is_unknown_and_not_repeated(
    bot: OnTelegram,
) -> None:
    await bot.says(WANG, "回声")
    bot.telegram.fail("sendMessage", "cut", "after")
    enqueue(bot, bot.address(WANG), "信")
    await bot.drain()
    await bot.clock.advance(hours=1)
    await bot.drain()
    assert (bot.heard(WANG)[1:], rows(bot)[-1]) == (["信"], (State.UNKNOWN, "timeout"))


async def test_fact_71_where_nothing_listens_nothing_has_left(
    bot: OnTelegram, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        nowhere = f"http://127.0.0.1:{door.getsockname()[1]}"
    settings = bot.settings.model_copy(update={"telegram_api_base": nowhere})
    lost = Telegram(settings, bot.clock, sleep=bot.clock.advance)
    lost.attach(bot.app.services)
    with pytest.raises(SendError) as caught:
        await lost.send(Address.parse(bot.address(WANG)), Part("信"), "1-0")
    await lost.close()
    assert (caught.value.reason, caught.value.unknown) == ("no_connection", False)


async def test_fact_71_a_page_instead_of_an_answer_is_unknown(bot: OnTelegram) -> None:
    await bot.says(WANG, "回声")
    bot.telegram.fail("sendMessage", "html")
    with pytest.raises(SendError) as caught:
        await bot.channel.send(Address.parse(bot.address(WANG)), Part("信"), "1-0")
    assert caught.value.unknown


async def test_a_refused_token_stops_the_channel(bot: OnTelegram) -> None:
    bot.telegram.token = "another"
    with pytest.raises(SendError) as caught:
        await bot.channel.send(Address.parse(bot.address(WANG)), Part("信"), "1-0")
    assert (caught.value.stop_channel, caught.value.permanent) == (True, False)


async def test_fact_72_4097_characters_are_two_messages_and_tags_are_words(bot: OnTelegram) -> None:
    await bot.says(WANG, "回声 <b>&amp;</i>")
    assert bot.heard(WANG)[-1] == "<b>&amp;</i>"
    enqueue(bot, bot.address(WANG), "雁" * 4096, "雁" * 4097)
    await bot.drain()
    assert [len(text) for text in bot.heard(WANG)[1:]] == [4096, 4096, 1]


# - buttons -


async def test_fact_73_a_buttons_data_is_short_whatever_it_stands_for(bot: OnTelegram) -> None:
    await bot.says(WANG, "长长的")
    buttons = bot.buttons(WANG)
    assert len(buttons) == 99
    assert all(len(button["callback_data"].encode()) <= 64 for button in buttons)
    await bot.presses(WANG, buttons[7]["text"])
    assert bot.heard(WANG)[-1].startswith("值" * 60)


async def test_fact_73_a_press_is_heard_once_however_often_it_is_made(bot: OnTelegram) -> None:
    await bot.says(WANG, "选")
    bot.telegram.press(WANG, "回声")
    bot.telegram.press(WANG, "回声")
    await bot.settle()
    assert (bot.heard(WANG)[1:], bot.telegram.calls["answerCallbackQuery"]) == (["（没有话）"], 2)
    assert toasts(bot) == ["", AGAIN]
    await bot.clock.advance(60)
    await bot.presses(WANG, "回声")
    assert len(bot.heard(WANG)) == 3


async def test_fact_73_another_persons_button_and_an_expired_one_are_refused(
    bot: OnTelegram,
) -> None:
    await bot.says(WANG, "选")
    data = bot.buttons(WANG)[0]["callback_data"]
    await bot.says(LI, "选")
    bot.telegram.press_data(LI, data, 2)
    bot.telegram.press_data(LI, "made up", 2)
    await bot.settle()
    await bot.clock.advance(days=31)
    bot.telegram.press(WANG, "回声")
    await bot.settle()
    assert (len(bot.heard(WANG)), len(bot.heard(LI))) == (1, 1)
    assert toasts(bot) == [EXPIRED] * 3


def toasts(bot: OnTelegram) -> list[str]:
    """What people saw pop up over the buttons they pressed."""
    return bot.telegram.toasts


async def test_expired_buttons_are_forgotten(bot: OnTelegram) -> None:
    await bot.says(WANG, "选")
    await bot.clock.advance(days=31)
    await bot.says(WANG, "选")
    with bot.app.services.database.reading() as session:
        assert len(session.exec(select(Button.key)).all()) == 2


async def test_a_bubble_that_replaces_another_edits_it(bot: OnTelegram) -> None:
    await bot.says(WANG, "回声")
    address = Address.parse(bot.address(WANG))
    for text in ("已发1封", "已发2封", "已发2封"):
        await bot.channel.send(address, Part(text, replaces="进度"), "1-0")
    assert bot.heard(WANG)[1:] == ["已发1封", "[edit] 已发2封"]


async def test_a_file_goes_with_its_words_and_a_page_under_a_button(start: Start) -> None:
    bot = await start(public_url="https://bot.example.org")
    await bot.says(WANG, "回声")
    address = Address.parse(bot.address(WANG))
    file = File("名单.xlsx", "application/octet-stream", b"xlsx")
    await bot.channel.send(address, Part("请查收", file=file), "1-0")
    await bot.channel.send(address, Part("长" * 1025, file=file), "2-0")
    await bot.channel.send(address, Part("请看", link=Link("我的档案", "/p/abc")), "3-0")
    assert bot.heard(WANG)[1:] == [
        "[document] 名单.xlsx 请查收",
        "长" * 1025,
        "[document] 名单.xlsx",
        "请看",
    ]
    assert bot.buttons(WANG) == [{"text": "我的档案", "url": "https://bot.example.org/p/abc"}]


# - groups -


@pytest.fixture
async def group(bot: OnTelegram) -> int:
    await bot.channel.poll(bot.app.receive, 0)
    return bot.telegram.group("鸿雁乡亲", [WANG, LI])


async def test_a_group_is_answered_only_when_it_asks(bot: OnTelegram, group: int) -> None:
    async with bot.living():
        bot.telegram.set_privacy(False)
        bot.telegram.add_bot(group, WANG)
    for text in ("大家好", "公告", "/help@hongyan_bot", "@hongyan_bot 公告", "/help@other_bot"):
        bot.telegram.say(WANG, text, group)
    await bot.settle()
    assert bot.heard(group) == ["用法", "今天没有公告。"]
    assert len(inbox(bot)) == 2


async def test_a_group_shows_no_buttons(bot: OnTelegram, group: int) -> None:
    bot.telegram.say(WANG, "/help", group)
    await bot.settle()
    bot.telegram.say(WANG, "公告", group, reply_to=2)
    await bot.settle()
    assert (bot.heard(group), bot.buttons(group)) == (["用法", "今天没有公告。"], [])


async def test_a_number_typed_to_us_in_a_group_is_not_kept(bot: OnTelegram, group: int) -> None:
    bot.telegram.say(WANG, "/help 请打 13800001234", group)
    await bot.settle()
    assert bot.heard(group) == [GROUP_NUMBER]
    with bot.app.services.database.engine.connect() as connection:
        dump = "".join(connection.connection.driver_connection.iterdump())
    assert "13800001234" not in dump


ZHAO = 1003


async def test_fact_74_a_join_is_told_once_to_members_and_admins(
    bot: OnTelegram, group: int
) -> None:
    await bot.channel.poll(bot.app.receive, 0)
    bot.telegram.join(LI, group)
    await bot.settle()
    assert bot.heard(group) == ["joined："]
    bot.telegram.promote_bot(group)
    bot.telegram.person(ZHAO, "赵望归")
    bot.telegram.join(ZHAO, group)
    assert bot.telegram.pending() == 2
    await bot.settle()
    assert bot.heard(group) == ["joined："] * 2


async def test_who_leaves_a_group_and_joins_again_is_not_greeted_again(
    bot: OnTelegram, group: int
) -> None:
    for _ in range(2):
        bot.telegram.join(LI, group)
        await bot.settle()
        bot.telegram.leave(LI, group)
        await bot.clock.advance(hours=5)
    assert bot.heard(group) == ["joined："]


# - living -


async def test_fact_75_an_unreachable_platform_is_waited_for(bot: OnTelegram) -> None:
    bot.telegram.fail("getMe", "cut", times=3)
    async with bot.living():
        assert bot.telegram.calls["getMe"] == 4


async def test_fact_75_other_channels_serve_meanwhile(bot: OnTelegram) -> None:
    bot.telegram.fail("getMe", "cut", times=-1)
    other = MemoryChannel()
    channels = {"telegram": bot.channel, "memory": other}
    services = replace(bot.app.services, channels=facts_of(channels))
    app = App(services, channels, alone=True)
    async with app.running(roles=("web",)):
        person = Address("memory", "test", "wang")
        parts = await app.receive(Inbound("1", person, "回声 在", bot.clock.now()), 5)
    assert [part.text for part in parts] == ["在"]


async def test_fact_76_a_second_poller_is_waited_for_and_told_of_once(bot: OnTelegram) -> None:
    printed = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(printed))
    living = asyncio.create_task(bot.channel.run(bot.app.receive))
    try:
        for _ in range(3):
            await bot.telegram.until(lambda: bot.telegram.waiting_polls == 1)
            other = Telegram(bot.settings, bot.clock)
            await other._wire.raw_updates(None, ("message",), 0)
            await other.close()
            await bot.telegram.until(lambda: bot.telegram.waiting_polls == 0)
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        structlog.reset_defaults()
    assert printed.getvalue().count("telegram_other_poller") == 1


async def test_fact_77_the_token_is_in_no_log_of_a_poll(
    bot: OnTelegram, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bot.telegram.fail("getMe", "status", value=500)
    async with bot.living():
        pass
    shown = caplog.text + repr(bot.channel) + repr(bot.channel._wire) + repr(bot.settings)
    assert [secret for secret in bot.secrets if secret in shown] == []


async def test_a_webhook_is_set_with_secret_and_kinds(start: Start) -> None:
    bot = await start(
        telegram_mode="webhook", telegram_secret=SECRET, public_url="https://bot.example.org"
    )
    await bot.channel.run(bot.app.receive)
    assert (bot.telegram.webhook, bot.telegram._secret) == (
        "https://bot.example.org/callback/telegram",
        SECRET,
    )
    assert bot.telegram._allowed == {"message", "callback_query", "my_chat_member", "chat_member"}


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, 0),
        ({"telegram_token": ""}, 1),
        ({"telegram_filing": ""}, 1),
        ({"telegram_mode": "webhook"}, 2),
        ({"telegram_policy": "off", "telegram_token": ""}, 0),
        ({"telegram_policy": "overseas_self", "telegram_filing": ""}, 0),
    ],
)
async def test_what_is_missing_is_named(
    bot: OnTelegram, values: Mapping[str, Any], missing: int
) -> None:
    settings = Settings.model_validate({**bot.settings.model_dump(), **values})
    channel = Telegram(settings, bot.clock)
    await channel.close()
    assert len(channel.check()) == missing


async def test_a_channel_that_is_off_does_nothing(start: Start) -> None:
    bot = await start(telegram_policy="off")
    await bot.channel.run(bot.app.receive)
    with pytest.raises(SendError):
        await bot.channel.send(Address.parse(bot.address(WANG)), Part("信"), "1-0")
    assert bot.telegram.calls == {}
