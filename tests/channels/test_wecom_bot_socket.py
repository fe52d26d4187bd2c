"""The smart bot by the long connection: one test for each fact of its platform, and for us."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import structlog
from sqlmodel import col, select

from bot.channels.wecom.bot.budget import Budget
from bot.channels.wecom.bot.files import CHUNK
from bot.channels.wecom.bot.lease import RENEW
from bot.channels.wecom.bot.reading import NAME, address_of
from bot.channels.wecom.bot.socket import LONG_PAUSE, REFUSALS, SocketBot
from bot.channels.wecom.bot.wire import ACK
from bot.channels.wecom.bot.words import AGAIN, EXPIRED
from bot.commands import command
from bot.context import Context, group_row
from bot.errors import SendError
from bot.messages import Address, Choice, File, Happening, Inbound, Part, Reply, load_reply, say
from storage import leases, mailbox
from storage.mailbox import Outbox
from storage.people import Contact, Grant
from storage.states import State
from tests.channels.harness import serving, settings_for
from tests.channels.on_wecom_bot import GROUP, LI, WANG
from tests.channels.on_wecom_bot_socket import ANSWER, SEND, OnSocket, running, until
from tests.emulators.clock import VirtualClock
from tests.emulators.server import START, Platforms
from tests.emulators.wecom_bot import Account, WeComBot

pytestmark = pytest.mark.anyio

SUBSCRIBE = "aibot_subscribe"
LEASE = f"{NAME}:{Account().bot_id}"


@command("公开", help="谁都能问", group=True)
def public(context: Context, argument: str) -> Reply:
    return say(f"公开：{argument}", "回声")


@pytest.fixture
async def on(tmp_path: Path, anyio_backend: str) -> AsyncIterator[OnSocket]:
    async with running(tmp_path, public) as made:
        yield made


def address(on: OnSocket, who: str = WANG) -> Address:
    return Address.parse(on.address(who))


def rows(on: OnSocket) -> list[tuple[State, str]]:
    with on.app.services.database.reading() as session:
        found = session.exec(select(Outbox).order_by(col(Outbox.id))).all()
        return [(State(row.state), row.reason) for row in found]


def announce(on: OnSocket, text: str, occasion: str) -> None:
    """Queue a notice for the internal group."""
    group = address_of(on.account.bot_id, group=GROUP)
    row = group_row(on.app.services, group, say(text), occasion, on.clock.now())
    with on.app.services.database.transaction() as connection:
        mailbox.enqueue(connection, [row])


@asynccontextmanager
async def stranger(on: OnSocket) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Another program with the same bot: it subscribes and stays."""
    url = f"{on.platforms.url}/openws"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        body = {"bot_id": on.account.bot_id, "secret": on.account.secret}
        await socket.send_json({"cmd": SUBSCRIBE, "headers": {"req_id": "r"}, "body": body})
        assert (await socket.receive_json())["errcode"] == 0
        yield socket


def called(on: OnSocket) -> list[str]:
    """What those on duty were told."""
    with on.app.services.database.reading() as session:
        found = session.exec(select(Outbox).where(Outbox.purpose == "trouble")).all()
        return [load_reply(row.body or "").text for row in found]


async def sends(on: OnSocket, part: Part) -> None:
    """One bubble to 王小雁, while time passes."""
    sending = asyncio.create_task(on.channel.send(address(on), part, "1-0"))
    await until(sending.done, lambda: on.clock.advance(0.01))
    await sending


async def on_duty(on: OnSocket) -> None:
    """李远归 is an administrator."""
    await on.says(LI, "回声")
    with on.app.services.database.session() as session:
        contact = session.exec(select(Contact)).one()
        session.add(Grant(person_id=contact.person_id, role="admin", granted_at=START))


# Talking ------------------------------------------------------------------------------------------


async def test_an_answer_names_what_it_answers(on: OnSocket) -> None:
    await on.says(WANG, "回声 家乡好")
    assert on.heard(WANG) == ["家乡好"]
    assert (on.bot.calls[ANSWER], on.bot.calls[SEND]) == (1, 0)


async def test_news_is_pushed(on: OnSocket) -> None:
    await on.says(WANG, "回声")
    await on.channel.send(address(on), Part("家乡的信"), "1-0")
    assert (on.heard(WANG)[-1], on.bot.calls[SEND]) == ("家乡的信", 1)


async def test_what_comes_minutes_later_is_no_answer(on: OnSocket) -> None:
    await on.says(
        WANG,
        "公开 一",
    )
    await on.done(on.bot.say(LI, "今天天气好", GROUP))
    await on.passes(61)
    await on.channel.send(address_of(on.account.bot_id, group=GROUP), Part("通知"), "1-0")
    assert (on.heard(GROUP), on.bot.calls[SEND]) == (["通知"], 2)


async def test_in_a_group_a_public_command_is_answered_without_buttons(on: OnSocket) -> None:
    await on.done(on.bot.say(LI, "公开 家乡", GROUP))
    assert (on.heard(GROUP), on.offered(GROUP), on.heard(LI)) == (["公开：家乡"], [], [])


async def test_in_a_group_a_personal_command_leads_to_the_private_chat(on: OnSocket) -> None:
    await on.done(on.bot.say(LI, "回声 我的事", GROUP))
    assert "私聊" in on.heard(GROUP)[0]
    assert (len(on.heard(GROUP)), on.heard(LI)) == (1, [])


async def test_a_group_can_be_told_news(on: OnSocket) -> None:
    await on.done(on.bot.say(LI, "公开 家乡", GROUP))
    announce(on, "明天开会", "news")
    await on.drain()
    assert on.heard(GROUP)[-1] == "明天开会"


async def test_who_enters_is_welcomed_within_five_seconds(on: OnSocket) -> None:
    await on.done(on.bot.enter(LI))
    assert on.heard(LI) == [f"{Happening.FOLLOW}："]
    assert on.bot.calls["aibot_respond_welcome_msg"] == 1


async def test_a_thumb_is_answered_with_nothing(on: OnSocket) -> None:
    calls = dict(on.bot.calls)
    await on.done(on.bot.rate(WANG))
    assert {k: v for k, v in on.bot.calls.items() if k != "ping"} == {
        k: v for k, v in calls.items() if k != "ping"
    }


async def test_choices_stand_on_a_card_of_their_own(on: OnSocket) -> None:
    await on.says(WANG, "选")
    assert on.offered(WANG) == ["回声", "三句"]
    await on.done(on.bot.press(WANG, "三句"))
    assert on.heard(WANG)[-3:] == ["一", "二", "三"]
    assert on.bot.chats[WANG].cards[-1].content["main_title"] == {"title": "已选：三句"}


@pytest.mark.parametrize(("later", "words"), [(0, AGAIN), (31 * 86400, EXPIRED)])
async def test_a_button_pressed_again_or_too_late_says_so(
    on: OnSocket, later: float, words: str
) -> None:
    await on.says(WANG, "选")
    if later:
        await on.stop()
        await on.clock.advance(later)
        on.start()
        await on.connected()
    else:
        await on.presses(WANG, "回声")
    await on.presses(WANG, "回声")
    assert on.bot.chats[WANG].cards[-1].content["sub_title_text"] == words
    assert on.heard(WANG).count("（没有话）") == (0 if later else 1)


async def test_fact_34_a_card_cannot_be_changed_after_five_seconds(on: OnSocket) -> None:
    await on.says(WANG, "选")
    on.bot.fail("aibot_respond_update_msg", "delay", value=6)
    push = on.bot.press(WANG, "回声")
    await push.done()
    await on.channel.ping()
    await on.clock.advance(6)
    await on.settle()
    assert on.heard(WANG)[-1] == "（没有话）"
    assert on.offered(WANG) == ["回声", "三句"]


async def test_what_nobody_understands_is_passed_over(on: OnSocket) -> None:
    for text in ("{not json", "[]", "1", '{"headers": 1}', '{"headers":{"req_id":[]}}', "[" * 9999):
        await on.bot.garble(text)
    await on.says(WANG, "回声 还在")
    assert on.heard(WANG) == ["还在"]


async def test_a_person_is_answered_in_the_order_they_spoke(on: OnSocket) -> None:
    for number in range(5):
        on.bot.say(WANG, f"回声 {number}")
    await on.settle()
    assert on.heard(WANG) == ["0", "1", "2", "3", "4"]


async def test_a_message_is_taken_again_until_the_database_is_back(tmp_path: Path) -> None:
    async with running(tmp_path, connect=False) as on:
        failures = 3
        tries = []

        async def receive(inbound: Inbound, seconds: float) -> tuple[Part, ...]:
            tries.append(inbound.id)
            if len(tries) <= failures:
                raise RuntimeError("the database is away")
            return await on.app.receive(inbound, seconds)

        on.start(receive)
        await on.connected()
        on.bot.say(WANG, "回声 没有丢")
        await until(lambda: len(tries) > failures, lambda: on.clock.advance(1))
        await on.settle()
        assert (on.heard(WANG), len(set(tries))) == (["没有丢"], 1)


async def test_what_was_heard_is_taken_before_we_go(tmp_path: Path) -> None:
    async with running(tmp_path, connect=False) as on:
        free, taken = asyncio.Event(), []

        async def receive(inbound: Inbound, seconds: float) -> tuple[Part, ...]:
            await free.wait()
            taken.append(inbound.text)
            return ()

        on.start(receive)
        await on.connected()
        on.bot.say(WANG, "最后一句")
        await until(lambda: bool(on.channel._lines))
        stopping = asyncio.create_task(on.stop())
        done, _waiting = await asyncio.wait({stopping}, timeout=0.3)
        assert done == set()
        free.set()
        await stopping
        assert taken == ["最后一句"]


# Streams and limits -------------------------------------------------------------------------------


async def test_fact_36_an_answer_that_is_not_taken_becomes_a_push(on: OnSocket) -> None:
    on.bot.fail(ANSWER, "errcode", value=846608)
    await on.says(WANG, "回声 家乡好")
    assert (on.heard(WANG), on.bot.calls[SEND]) == (["家乡好"], 1)


async def test_fact_42_an_answer_whose_ack_is_lost_is_not_shown_twice(on: OnSocket) -> None:
    on.bot.fail(ANSWER, "stall", "after")
    push = on.bot.say(WANG, "回声 家乡好")
    await push.done()
    await on.channel.ping()
    await on.channel.settled()
    async with asyncio.timeout(10):
        while rows(on) != [(State.SENT, "")]:
            await on.drain()
            await on.clock.advance(1)
    assert (on.heard(WANG), on.bot.calls[ANSWER]) == (["家乡好"], 2)


async def test_fact_42_news_does_not_take_the_place_of_an_answer_in_doubt(on: OnSocket) -> None:
    await on.bot.say(WANG, "今天天气好").done()
    await on.channel.ping()
    on.bot.fail(ANSWER, "stall", "after")
    with pytest.raises(SendError):
        await on.channel.send(address(on), Part("答复"), "1-0")
    await on.channel.send(address(on), Part("家书"), "2-0")
    await on.channel.send(address(on), Part("答复"), "1-0")
    assert on.heard(WANG) == ["答复", "家书"]


async def test_fact_42_a_push_without_an_ack_is_unknown_after_five_seconds(
    on: OnSocket,
) -> None:
    await on.says(WANG, "回声")
    on.bot.fail(SEND, "stall", "after")
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on), Part("家乡的信"), "1-0")
    assert (caught.value.unknown, caught.value.reason) == (True, "no_ack")
    assert ACK == 5.0


async def test_fact_42_acks_find_their_commands_in_any_order(on: OnSocket) -> None:
    await on.says(WANG, "回声")
    await on.says(LI, "回声")
    on.bot.fail(SEND, "delay", value=0.1)
    slow = asyncio.create_task(on.channel.send(address(on), Part("慢"), "1-0"))
    await until(lambda: on.bot.calls[SEND] == 1)
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on, "nobody"), Part("错"), "2-0")
    assert (caught.value.reason, caught.value.permanent) == ("unreachable", True)
    await on.clock.advance(1)
    assert (await slow, on.heard(WANG)[-1]) == ("", "慢")


@pytest.mark.parametrize(("who", "reason"), [(LI, "unreachable"), (WANG.lower(), "unreachable")])
async def test_fact_44_who_never_wrote_or_is_misspelt_is_given_up(
    on: OnSocket, who: str, reason: str
) -> None:
    await on.says(WANG, "回声")
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on, who), Part("家乡的信"), "1-0")
    assert (caught.value.reason, caught.value.permanent) == (reason, True)


async def test_fact_45_we_stop_before_the_platform_does(on: OnSocket) -> None:
    await on.says(WANG, "回声")
    for number in range(29):
        await on.channel.send(address(on), Part(str(number)), f"{number}-0")
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on), Part("太多"), "99-0")
    error = caught.value
    assert (error.reason, error.only_here, error.retry_after) == ("quota", True, 60.0)
    assert on.bot.calls[SEND] == 29
    await on.passes(60)
    await on.channel.send(address(on), Part("又一分钟"), "99-0")
    assert on.heard(WANG)[-1] == "又一分钟"


async def test_fact_45_one_full_conversation_keeps_no_other_waiting(on: OnSocket) -> None:
    await on.done(on.bot.say(LI, "公开 家乡", GROUP))
    for number in range(31):
        announce(on, f"通知{number}", f"news{number}")
    await on.drain()
    assert len(on.heard(GROUP)) == 30
    await on.says(WANG, "回声 好")
    assert on.heard(WANG) == ["好"]
    await on.passes(61)
    await on.drain()
    assert len(on.heard(GROUP)) == 32


def test_fact_45_a_thousand_an_hour_are_counted_too() -> None:
    clock = VirtualClock(START)
    budget = Budget(clock)
    for _number in range(1000):
        clock._jump(clock.timestamp() + 2.5)
        assert budget.wait("wang", 1) == 0
        budget.spend("wang")
    assert budget.wait("wang", 1) == pytest.approx(3600 - 999 * 2.5)
    assert budget.wait("li", 3) == 0


# Files --------------------------------------------------------------------------------------------

REPORT = File("月报.xlsx", "application/vnd.ms-excel", bytes(range(256)) * 5000)


async def test_fact_46_a_file_goes_in_pieces_after_its_text(on: OnSocket) -> None:
    await on.says(WANG, "回声")
    await on.channel.send(address(on), Part("三月月报", file=REPORT), "1-0")
    *_earlier, text, file = on.bot.chats[WANG].transcript
    assert (text.kind, text.text, file.kind) == ("markdown", "三月月报", "file")
    assert on.bot.files[file.text] == REPORT.content
    assert on.bot.calls["aibot_upload_media_chunk"] == -(-len(REPORT.content) // CHUNK)


async def test_fact_46_an_upload_goes_on_over_a_new_connection(on: OnSocket) -> None:
    await on.says(WANG, "回声")
    on.bot.fail("aibot_upload_media_chunk", "delay", times=1, value=0)
    on.bot.fail("aibot_upload_media_chunk", "cut", "after")
    with pytest.raises(SendError) as caught:
        await sends(on, Part("三月月报", file=REPORT))
    assert (caught.value.unknown, caught.value.permanent) == (False, False)
    await until(on.channel.may_speak, lambda: on.clock.advance(1))
    await on.channel.send(address(on), Part("三月月报", file=REPORT), "1-0")
    assert on.bot.calls["aibot_upload_media_init"] == 1
    assert on.bot.files[on.bot.chats[WANG].transcript[-1].text] == REPORT.content
    assert on.heard(WANG).count("三月月报") == 1


async def test_a_picture_is_shown_as_one(on: OnSocket) -> None:
    await on.says(WANG, "回声")
    picture = File("榜.png", "image/png", b"\x89PNG and so on")
    await on.channel.send(address(on), Part("", file=picture), "1-0")
    assert on.bot.chats[WANG].transcript[-1].kind == "image"


async def test_too_large_a_file_is_given_up_before_it_is_sent(on: OnSocket) -> None:
    await on.says(WANG, "回声")
    large = File("大.zip", "application/zip", b"x" * (20 * 1024 * 1024 + 1))
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on), Part("", file=large), "1-0")
    assert (caught.value.reason, caught.value.permanent) == ("too_large", True)
    assert on.bot.calls["aibot_upload_media_init"] == 0


async def test_the_second_try_of_a_bubble_says_only_what_was_not_said(on: OnSocket) -> None:
    await on.says(WANG, "回声")
    on.bot.fail(SEND, "delay", value=0)
    on.bot.fail(SEND, "errcode", value=-1)
    part = Part("来吗？", (Choice("来", "回声 来"),))
    with pytest.raises(SendError):
        await sends(on, part)
    await sends(on, part)
    assert (on.heard(WANG).count("来吗？"), on.offered(WANG)) == (1, ["来"])


# The connection -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [1000, 1001, None])
async def test_fact_40_after_any_end_we_connect_again_and_lose_no_row(
    on: OnSocket, ending: int | None
) -> None:
    await on.done(on.bot.say(LI, "公开 家乡", GROUP))
    if ending is None:
        on.bot.cut()
    else:
        await on.bot.hang_up(ending)
    await until(lambda: not on.channel.may_speak())
    announce(on, "明天开会", "news")
    await on.drain()
    assert (rows(on)[-1], on.heard(GROUP)) == ((State.QUEUED, ""), ["公开：家乡"])
    await until(on.channel.may_speak, lambda: on.clock.advance(0.5))
    await on.drain()
    assert (rows(on)[-1], on.heard(GROUP)[-1]) == ((State.SENT, ""), "明天开会")
    assert (on.bot.calls[SUBSCRIBE], on.bot.connections) == (2, 2)
    await on.says(WANG, "回声 又连上了")
    assert on.heard(WANG) == ["又连上了"]


async def test_fact_40_the_waits_grow_and_are_spread_by_chance(tmp_path: Path) -> None:
    chances = iter([0.0, 1.0] * 20)
    async with running(tmp_path, connect=False, chance=lambda: next(chances)) as on:
        on.bot.fail("openws", "status", times=9, value=503)
        on.start()
        await until(on.channel.may_speak, lambda: on.clock.advance(5))
        waits = [wait for wait in on.waits if wait != RENEW]
        assert waits[:9] == [0.5, 3.0, 2.0, 12.0, 8.0, 48.0, 30.0, 90.0, 30.0]


async def test_fact_41_two_unanswered_pings_mean_that_nobody_is_there(on: OnSocket) -> None:
    await on.says(WANG, "回声")
    on.bot.fail("ping", "stall", times=-1)
    connections = on.bot.connections
    await on.clock.advance(30)
    await on.clock.advance(30)
    await asyncio.sleep(0.01)
    assert on.channel.may_speak()
    await on.clock.advance(30)
    await until(lambda: not on.channel.may_speak())
    on.bot.mend()
    await until(on.channel.may_speak, lambda: on.clock.advance(1))
    assert on.bot.connections == connections + 1


async def test_fact_41_an_answered_ping_begins_the_count_anew(on: OnSocket) -> None:
    on.bot.fail("ping", "stall")
    for _time in range(4):
        pings = on.bot.calls["ping"]
        await on.clock.advance(30)
        await until(lambda before=pings: on.bot.calls["ping"] > before)  # type: ignore[misc]
        await asyncio.sleep(0.01)
    assert (on.channel.may_speak(), on.bot.connections) == (True, 1)


async def test_fact_39_a_newer_subscriber_wins_and_we_do_not_fight(on: OnSocket) -> None:
    await on_duty(on)
    async with stranger(on) as socket:
        await until(lambda: not on.channel.may_speak())
        await until(lambda: bool(called(on)))
        await on.clock.advance(LONG_PAUSE - 60)
        assert (on.bot.calls[SUBSCRIBE], on.bot.connections, socket.closed) == (2, 2, False)
        assert called(on) == [
            "企业微信智能机器人自2026-09-22 09:00起断开："
            "另有一个程序用同一个机器人建立了长连接，本程序已让出。"
        ]
        announce(on, "等着", "news")
        await on.drain()
        assert rows(on)[-1] == (State.QUEUED, "")
    await until(on.channel.may_speak, lambda: on.clock.advance(10))
    assert on.bot.calls[SUBSCRIBE] == 3


async def test_fact_43_a_wrong_secret_is_tried_five_times_and_then_told(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        await on_duty(on)
        await on.stop()
        right = on.bot.account
        on.bot.account = Account(secret="changed-in-the-console")
        on.bot.calls.clear()
        on.start()
        await until(lambda: bool(called(on)), lambda: on.clock.advance(5))
        assert on.bot.calls[SUBSCRIBE] == REFUSALS
        assert "请核对设置" in called(on)[0]
        assert right.secret not in called(on)[0]
        await on.clock.advance(LONG_PAUSE / 2)
        await asyncio.sleep(0.01)
        assert on.bot.calls[SUBSCRIBE] == REFUSALS
        on.bot.account = right
        await until(on.channel.may_speak, lambda: on.clock.advance(60))
        assert on.bot.calls[SUBSCRIBE] == REFUSALS + 1


async def test_the_platform_in_trouble_is_no_wrong_secret(tmp_path: Path) -> None:
    async with running(tmp_path, connect=False) as on:
        on.bot.fail(SUBSCRIBE, "errcode", times=REFUSALS + 1, value=-1)
        on.start()
        await until(on.channel.may_speak, lambda: on.clock.advance(5))
        assert called(on) == []


# Who holds it -------------------------------------------------------------------------------------


async def test_of_two_replicas_one_holds_the_connection_and_the_other_takes_over(
    on: OnSocket,
) -> None:
    other = SocketBot(on.settings, on.clock, sleep=on.clock.wait, ack=2.0)
    other.attach(on.app.services)
    running = asyncio.create_task(other.run(on.app.receive))
    for _time in range(5):
        await on.clock.advance(10)
        await asyncio.sleep(0.01)
    assert (on.channel.may_speak(), other.may_speak(), on.bot.connections) == (True, False, 1)
    with pytest.raises(SendError) as caught:
        await other.send(address(on), Part("不该由我说"), "1-0")
    assert (caught.value.reason, caught.value.unknown) == ("no_connection", False)
    await on.stop()
    await until(other.may_speak, lambda: on.clock.advance(10))
    assert on.bot.connections == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_who_loses_the_lease_hangs_up(on: OnSocket) -> None:
    database = on.app.services.database
    with database.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM lease")
        assert leases.take(connection, LEASE, "somebody else", timedelta(hours=1))
    await until(lambda: not on.channel.may_speak(), lambda: on.clock.advance(1))
    for _time in range(5):
        await on.clock.advance(10)
        await asyncio.sleep(0.01)
    assert (on.channel.may_speak(), on.bot.connections) == (False, 1)


async def test_stopping_gives_the_lease_back(on: OnSocket) -> None:
    await on.stop()
    with on.app.services.database.transaction() as connection:
        assert leases.take(connection, LEASE, "somebody else", timedelta(seconds=1))


async def test_a_process_that_only_answers_the_web_leaves_it_to_a_worker(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, connect=False) as on:
        on.app.dispatcher.stop()
        async with serving(on.app):
            await on.clock.advance(30)
            await asyncio.sleep(0.05)
            assert on.bot.calls["openws"] == 0


# Settings -----------------------------------------------------------------------------------------


async def test_check_tries_the_connection_unless_it_is_held(on: OnSocket) -> None:
    bare = await SocketBot(on.settings, on.clock).probe()
    assert ([one.fine for one in bare], on.bot.calls[SUBSCRIBE]) == ([True], 1)
    other = SocketBot(on.settings, on.clock, ack=2.0)
    other.attach(on.app.services)
    assert ([one.fine for one in await other.probe()], on.bot.connections) == ([True], 2)
    assert on.channel.may_speak()
    await on.stop()
    assert ([one.fine for one in await other.probe()], on.bot.calls[SUBSCRIBE]) == ([True], 2)
    on.bot.account = Account(secret="changed-in-the-console")
    (refused,) = await other.probe()
    assert (refused.fine, "errcode 40001" in refused.advice) == (False, True)
    assert on.settings.wecom_bot_secret.get_secret_value() not in refused.advice


async def test_check_says_when_the_platform_is_not_reached(tmp_path: Path) -> None:
    async with running(tmp_path, connect=False, wecom_bot_url="ws://127.0.0.1:9") as on:
        (found,) = await on.channel.probe()
        assert (found.fine, "连不上" in found.advice) == (False, True)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    given = settings_for(tmp_path, wecom_bot_url="http://example.org")
    bare = SocketBot(given, VirtualClock(START))
    assert [line.partition("（")[0] for line in bare.check()] == [
        "缺少 HONGYAN_WECOM_BOT_ID",
        "缺少 HONGYAN_WECOM_BOT_SECRET",
        "HONGYAN_WECOM_BOT_URL 须以 wss:// 开头",
    ]


async def test_the_secret_is_in_no_frame_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    printed = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(printed))
    try:
        async with running(tmp_path) as on:
            await on.says(WANG, "回声 悄悄话")
            on.bot.cut()
            await until(lambda: not on.channel.may_speak())
            seen = caplog.text + printed.getvalue() + repr(on.channel)
            assert (on.account.secret in seen, "悄悄话" in seen) == (False, False)
    finally:
        structlog.reset_defaults()


async def test_the_emulator_can_be_told_over_http(platforms_bot: WeComBot) -> None:
    url = platforms_bot.url.removesuffix("/qy")
    async with aiohttp.ClientSession() as session:
        for verb, body in (("hire", {"user": WANG}), ("heard", {"chat": WANG})):
            async with session.post(f"{url}/control/wecom_bot/{verb}", json=body) as answer:
                assert answer.status == 200
                last = await answer.json()
    assert last == {"result": []}


@pytest.fixture
async def platforms_bot(anyio_backend: str) -> AsyncIterator[WeComBot]:
    async with Platforms() as platforms:
        yield platforms.wecom_bot
