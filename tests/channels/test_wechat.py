"""WeChat's own rules, one test for each fact of its platform and each trap of its library."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import requests
from sqlmodel import col, select
from starlette.routing import BaseRoute

from bot.app import App, build_channels, facts_of, services_for
from bot.channels.callback import Patience
from bot.channels.wechat import build
from bot.channels.wechat.channel import WeChatChannel
from bot.channels.wechat.menu import Button, client, read_menu
from bot.clock import SystemClock
from bot.context import outbox_row
from bot.dispatch import Waiting
from bot.errors import SendError
from bot.installation import load_settings
from bot.messages import Address, File, Inbound, Part, load_reply, say
from bot.purposes import ANSWER
from bot.settings import demo_settings
from storage import mailbox
from storage.mailbox import Outbox
from storage.people import Contact, Grant
from storage.states import State
from tests.channels.called import Slow
from tests.channels.harness import serving
from tests.channels.on_wechat import (
    SEND,
    TOKEN,
    WANG,
    OnWeChat,
    running,
    wechat_settings,
)
from tests.emulators.clock import VirtualClock
from tests.emulators.pushing import Push
from tests.emulators.server import START, Platforms
from tests.emulators.wechat import UNAVAILABLE, Rules, WeChat
from tests.laying import lay_tables
from tests.thrift import no_more_than
from tests.world import KEYS, whole_catalog

pytestmark = pytest.mark.anyio

MENU = "cgi-bin/menu/create"


@pytest.fixture
async def wechat(tmp_path: Path, anyio_backend: str) -> AsyncIterator[OnWeChat]:
    async with running(tmp_path) as made:
        yield made


def text(content: str, number: str = "1", who: str = WANG) -> str:
    """A text message as the platform writes it."""
    return (
        f"<xml><ToUserName>gh_hongyan</ToUserName><FromUserName>{who}</FromUserName>"
        f"<CreateTime>1</CreateTime><MsgType>text</MsgType>"
        f"<Content><![CDATA[{content}]]></Content><MsgId>{number}</MsgId></xml>"
    )


def contact(on: OnWeChat) -> Contact:
    with on.app.services.database.reading() as session:
        return session.exec(select(Contact).where(Contact.address == on.address(WANG))).one()


def write(on: OnWeChat, *texts: str) -> None:
    """Queue news for 王小雁, as a handler or the clock would."""
    with on.app.services.database.session() as session:
        rows = [
            outbox_row(
                on.app.services,
                session,
                contact(on).person_id,
                say(line),
                occasion=f"news:{line}",
                purpose=ANSWER,
                now=on.clock.now(),
            )
            for line in texts
        ]
        mailbox.enqueue(session.connection(), [row for row in rows if row is not None])


def states(on: OnWeChat) -> list[tuple[str, str]]:
    """State and reason of every queued piece of news, in order."""
    with on.app.services.database.reading() as session:
        rows = session.exec(select(Outbox).order_by(col(Outbox.id))).all()
        return [(row.state, row.reason) for row in rows]


async def drain(on: OnWeChat) -> None:
    await on.app.delivery.until_idle()


async def refused(on: OnWeChat, content: str = "家乡的信") -> SendError:
    address = Address.parse(on.address(WANG))
    with pytest.raises(SendError) as caught:
        await on.channel.send(address, Part(content), "1-0")
    return caught.value


async def first_status(on: OnWeChat, push: Push) -> int:
    """How the first try was answered, whether or not more will follow."""
    return await on.status(push, 0)


# The callback ------------------------------------------------------------------------------------


async def test_fact_1_the_console_finds_our_address(wechat: OnWeChat) -> None:
    assert await wechat.wechat.verify_url()


@pytest.mark.parametrize("touched", ["signature", "timestamp", "nonce"])
async def test_fact_1_a_check_with_another_signature_is_forbidden(
    wechat: OnWeChat, touched: str
) -> None:
    query = {"timestamp": str(int(wechat.clock.timestamp())), "nonce": "n1", "echostr": "8261"}
    query["signature"] = "0" * 40
    query.pop(touched)
    async with aiohttp.ClientSession() as session, session.get(wechat.webhook, params=query) as got:
        assert (got.status, await got.text()) == (403, "")


async def test_fact_2_plain_mode_is_forbidden(wechat: OnWeChat) -> None:
    wechat.wechat.mode = "plain"
    push = wechat.wechat.say(WANG, "回声 好")
    assert await first_status(wechat, push) == 403


async def test_fact_2_compatible_mode_is_read_where_it_is_sealed(wechat: OnWeChat) -> None:
    wechat.wechat.mode = "compatible"
    await wechat.says(WANG, "回声 好")
    assert wechat.heard(WANG)[-1] == "好"


async def test_fact_3_a_message_for_another_account_is_forbidden(wechat: OnWeChat) -> None:
    now = int(wechat.clock.timestamp())
    query, body = wechat.sealed(text("回声 好"), now, "wx0000000000000000")
    assert await wechat.posts(query, body) == 403


async def test_fact_4_a_replay_changes_nothing_and_later_is_forbidden(wechat: OnWeChat) -> None:
    query, body = wechat.sealed(text("三句", "77"), int(wechat.clock.timestamp()))
    before = states(wechat)
    assert [await wechat.posts(query, body) for _ in range(3)] == [200, 200, 200]
    assert states(wechat) == before
    await wechat.clock.advance(301)
    assert await wechat.posts(query, body) == 403


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_fact_5_a_slow_answer_belongs_to_the_try_that_is_open(
    tmp_path: Path, number: int
) -> None:
    slow = Slow()
    async with running(tmp_path, slow.word()) as on:
        push = on.wechat.say(WANG, "慢")
        await asyncio.to_thread(slow.begun.wait)
        for _ in range(number - 1):
            await on.clock.advance(5)
        slow.free.set()
        await on.done(push)
        assert push.text == "慢慢来"
        assert [attempt.error for attempt in push.tries] == ["timeout"] * (number - 1) + [""]
        assert (slow.runs, on.heard(WANG).count("慢慢来")) == (1, 1)


async def test_fact_5_an_answer_that_misses_every_try_leaves_by_itself(tmp_path: Path) -> None:
    slow = Slow()
    hasty = Patience(one_try=5, all_tries=1)
    async with running(tmp_path, slow.word(), patience=hasty) as on:
        push = await on.wechat.say(WANG, "慢").done()
        assert (push.text, push.unavailable, len(push.tries)) == ("", False, 1)
        slow.free.set()
        await on.says(WANG, "回声 后来")
        assert slow.runs == 1
        assert sorted(on.heard(WANG)[-2:]) == ["后来", "慢慢来"]


async def test_the_window_of_what_is_fetched_late_began_when_it_was_said(wechat: OnWeChat) -> None:
    said = wechat.clock.now() - timedelta(hours=3)
    late = Inbound("78", Address.parse(wechat.address(WANG)), "回声 早说的", said)
    wechat.app.dispatcher.handle(late)
    with wechat.app.services.database.reading() as session:
        contact = session.exec(select(Contact).where(Contact.address == str(late.sender))).one()
    assert contact.window_until == said + timedelta(hours=48)


async def test_an_answer_given_up_while_it_is_written_down_leaves_once(wechat: OnWeChat) -> None:
    await wechat.says(WANG, "回声 先来")
    said = Inbound("77", Address.parse(wechat.address(WANG)), "回声 迟到", wechat.clock.now())
    given_up: asyncio.Future[tuple[Part, ...]] = asyncio.get_running_loop().create_future()
    waiting = Waiting(said, given_up)
    wechat.app.dispatcher.work([waiting])
    waiting.abandoned = True
    given_up.set_exception(TimeoutError())
    with contextlib.suppress(TimeoutError):
        await given_up
    await wechat.says(WANG, "回声 后来")
    assert sorted(wechat.heard(WANG)[-2:]) == ["后来", "迟到"]


async def test_fact_5_a_try_we_give_up_is_answered_by_any_other_replica(tmp_path: Path) -> None:
    slow = Slow()
    async with running(tmp_path, slow.word()) as on:
        services = on.app.services
        hasty = WeChatChannel(
            services.settings, on.clock, patience=Patience(one_try=0.05, all_tries=30)
        )
        async with serving(App(services, {"wechat": hasty}, alone=True)) as url:
            on.wechat.connect(f"{url}/callback/wechat")
            push = on.wechat.say(WANG, "慢")
            assert await first_status(on, push) == 503
            on.wechat.connect(on.webhook)
            slow.free.set()
            await on.clock.advance(5)
            await on.done(push)
        assert (push.text, slow.runs) == ("慢慢来", 1)


class Unwell(App):
    """An installation that cannot write anything down."""

    async def receive(self, inbound: Inbound, seconds: float) -> tuple[Part, ...]:
        raise OSError("disk full")


async def test_what_could_not_be_taken_is_answered_503(wechat: OnWeChat) -> None:
    unwell = Unwell(wechat.app.services, wechat.app.channels, alone=True)
    async with serving(unwell) as url:
        wechat.webhook = f"{url}/callback/wechat"
        query, body = wechat.sealed(text("好"), int(wechat.clock.timestamp()))
        assert await wechat.posts(query, body) == 503


async def test_fact_6_an_event_that_arrives_twice_counts_once(wechat: OnWeChat) -> None:
    before = len(wechat.heard(WANG))
    wechat.wechat.repeat_next()
    push = await wechat.done(wechat.wechat.scan(WANG, "team_3"))
    assert await wechat.status(push, 1) == 200
    assert wechat.heard(WANG)[before:] == ["scanned：team_3"]


async def test_fact_6_two_events_of_one_second_both_count(wechat: OnWeChat) -> None:
    before = len(wechat.heard(WANG))
    pushes = [wechat.wechat.scan(WANG, "team_3"), wechat.wechat.scan(WANG, "team_4")]
    for push in pushes:
        await wechat.done(push)
    assert len({push.fields["CreateTime"] for push in pushes}) == 1
    assert sorted(wechat.heard(WANG)[before:]) == ["scanned：team_3", "scanned：team_4"]


@pytest.mark.parametrize(
    "event", ["VIEW", "LOCATION", "TEMPLATESENDJOBFINISH", "MASSSENDJOBFINISH", "kf_close_session"]
)
async def test_fact_7_an_event_that_does_not_concern_us_is_taken_at_once(
    wechat: OnWeChat, event: str
) -> None:
    push = await wechat.done(wechat.wechat.happen(WANG, event, {"EventKey": "x" * 3000}))
    assert ([attempt.status for attempt in push.tries], push.answer) == ([200], None)


async def test_fact_7_a_nested_event_is_taken_at_once(wechat: OnWeChat) -> None:
    push = await wechat.done(wechat.wechat.grant(WANG, ["t1", "t2"]))
    assert [attempt.status for attempt in push.tries] == [200]


async def test_fact_8_every_kind_of_message_is_answered_as_the_platform_wants_it(
    wechat: OnWeChat,
) -> None:
    phone = wechat.wechat
    before = len(wechat.heard(WANG))
    for push in (
        phone.send_image(WANG),
        phone.send_voice(WANG),
        phone.send_video(WANG),
        phone.send_location(WANG, 45.53, 119.66, "霍林郭勒"),
        phone.send_file(WANG, "名单.xlsx"),
        phone.send_link(WANG, "家乡的草", "http://127.0.0.1/a"),
        phone.say(WANG, ""),
    ):
        await wechat.done(push)
    kinds = ["image", "voice", "video", "location", "file"]
    answers = [*(f"没听懂：{kind}" for kind in kinds), "没听懂", "没听懂"]
    assert wechat.heard(WANG)[before:] == answers
    assert UNAVAILABLE not in wechat.heard(WANG)


async def test_fact_9_a_scene_is_the_same_for_newcomers_and_followers(wechat: OnWeChat) -> None:
    await wechat.done(wechat.wechat.follow("oLiYuangui", "team_3"))
    await wechat.done(wechat.wechat.scan(WANG, "team_3"))
    assert wechat.heard("oLiYuangui") == ["follow：team_3"]
    assert wechat.heard(WANG)[-1] == "scanned：team_3"


# Windows -----------------------------------------------------------------------------------------


async def test_fact_10_following_lets_three_leave_within_a_minute(wechat: OnWeChat) -> None:
    write(wechat, "一", "二", "三", "四")
    await drain(wechat)
    assert wechat.heard(WANG)[-3:] == ["一", "二", "三"]
    assert states(wechat) == [(State.SENT, "")] * 3 + [(State.DEFERRED, "window")]
    assert wechat.wechat.calls[SEND] == 3


async def test_fact_10_a_minute_after_following_nothing_leaves(wechat: OnWeChat) -> None:
    await wechat.clock.advance(60)
    write(wechat, "一")
    await drain(wechat)
    assert (states(wechat), wechat.wechat.calls[SEND]) == ([(State.DEFERRED, "window")], 0)


async def test_fact_11_a_message_lets_five_leave_and_the_next_one_releases_the_rest(
    wechat: OnWeChat,
) -> None:
    await wechat.says(WANG, "回声 好")
    write(wechat, *"一二三四五六")
    await drain(wechat)
    assert wechat.heard(WANG)[-5:] == list("一二三四五")
    assert states(wechat)[-1] == (State.DEFERRED, "window")
    await wechat.says(WANG, "回声 在")
    assert wechat.heard(WANG)[-2:] == ["在", "六"]
    assert states(wechat)[-1] == (State.SENT, "")


async def test_fact_11_two_days_after_a_message_nothing_leaves(wechat: OnWeChat) -> None:
    await wechat.says(WANG, "回声 好")
    await wechat.clock.advance(hours=47, minutes=59)
    write(wechat, "一")
    await drain(wechat)
    await wechat.clock.advance(minutes=1)
    write(wechat, "二")
    await drain(wechat)
    assert states(wechat) == [(State.SENT, ""), (State.DEFERRED, "window")]


async def test_facts_10_and_11_the_platforms_own_refusal_puts_a_row_off(wechat: OnWeChat) -> None:
    wechat.wechat.fail(SEND, "errcode", value=45047)
    wechat.wechat.fail(SEND, "errcode", value=45015)
    write(wechat, "一", "二")
    await drain(wechat)
    assert states(wechat) == [(State.DEFERRED, "window")] * 2


async def test_fact_12_a_tap_on_the_menu_opens_a_minute_and_a_page_opens_nothing(
    wechat: OnWeChat,
) -> None:
    await wechat.clock.advance(60)
    await wechat.done(wechat.wechat.view(WANG, "http://127.0.0.1/"))
    write(wechat, "一")
    await drain(wechat)
    assert states(wechat) == [(State.DEFERRED, "window")]
    await wechat.presses(WANG, "回声")
    assert states(wechat) == [(State.SENT, "")]
    assert contact(wechat).window_until == wechat.clock.now() + timedelta(minutes=1)
    assert contact(wechat).window_left == 2


async def test_fact_12_an_item_of_a_message_menu_counts_as_a_tap(wechat: OnWeChat) -> None:
    await wechat.clock.advance(60)
    await wechat.done(wechat.wechat.say(WANG, "回声 好", menu_id="3"))
    assert wechat.heard(WANG)[-1] == "好"
    assert contact(wechat).window_left == 3


async def test_a_tap_does_not_shorten_the_two_days_of_a_message(wechat: OnWeChat) -> None:
    await wechat.says(WANG, "回声 好")
    until = wechat.clock.now() + timedelta(hours=48)
    await wechat.clock.advance(10)
    await wechat.presses(WANG, "回声")
    assert (contact(wechat).window_until, contact(wechat).window_left) == (until, 5)


async def test_a_tap_after_the_five_are_used_lets_three_more_leave(wechat: OnWeChat) -> None:
    await wechat.says(WANG, "回声 好")
    write(wechat, *"一二三四五")
    await drain(wechat)
    await wechat.presses(WANG, "回声")
    write(wechat, *"六七八九")
    await drain(wechat)
    assert wechat.heard(WANG)[-3:] == list("六七八")
    assert states(wechat)[-1] == (State.DEFERRED, "window")


async def test_fact_13_who_unfollows_is_not_written_to_until_they_come_back(
    wechat: OnWeChat,
) -> None:
    await wechat.says(WANG, "回声 好")
    await wechat.done(wechat.wechat.unfollow(WANG))
    assert (contact(wechat).reachable, contact(wechat).window_left) == (False, 0)
    assert (await refused(wechat)).reason == "window"
    await wechat.clock.advance(10)
    await wechat.done(wechat.wechat.follow(WANG))
    assert (contact(wechat).reachable, contact(wechat).window_left) == (True, 3)
    assert contact(wechat).window_until == wechat.clock.now() + timedelta(minutes=1)


# Sending -----------------------------------------------------------------------------------------


async def test_fact_22_a_token_that_is_never_taken_costs_two_calls(wechat: OnWeChat) -> None:
    wechat.wechat.fail(SEND, "errcode", times=-1, value=40001)
    error = await refused(wechat)
    assert (error.reason, error.permanent, error.retry_after) == ("token", False, 30)
    assert (wechat.wechat.calls[SEND], wechat.wechat.calls[TOKEN]) == (2, 2)
    await asyncio.gather(*(refused(wechat) for _ in range(20)))
    assert wechat.wechat.calls[TOKEN] == 2


async def test_fact_23_many_calls_with_a_dead_token_fetch_one(wechat: OnWeChat) -> None:
    await wechat.says(WANG, "回声 好")
    address = Address.parse(wechat.address(WANG))
    await wechat.channel.send(address, Part("一"), "1-0")
    wechat.wechat.kill_tokens()
    many = [wechat.channel.send(address, Part(line), "1-0") for line in "二三四五"]
    assert await asyncio.gather(*many) == [""] * 4
    assert wechat.wechat.calls[TOKEN] == 2


async def test_fact_23_two_replicas_do_not_end_each_others_token(
    wechat: OnWeChat, tmp_path: Path
) -> None:
    await wechat.says(WANG, "回声 好")
    url = f"{wechat.platforms.url}/mp"
    other = WeChatChannel(wechat_settings(tmp_path, wechat.account, url), wechat.clock)
    address = Address.parse(wechat.address(WANG))
    both = (wechat.channel.send(address, Part("一"), ""), other.send(address, Part("二"), ""))
    await asyncio.gather(*both)
    await wechat.channel.send(address, Part("三"), "")
    await other.close()
    assert (wechat.wechat.calls[TOKEN], wechat.wechat.calls["cgi-bin/token"]) == (2, 0)


async def test_fact_20_the_token_is_renewed_while_the_old_one_still_lives(
    wechat: OnWeChat,
) -> None:
    await wechat.says(WANG, "回声 好")
    address = Address.parse(wechat.address(WANG))
    for line, minutes in zip("一二三", (0, 115, 5), strict=True):
        await wechat.clock.advance(minutes=minutes)
        await wechat.channel.send(address, Part(line), "")
    assert wechat.heard(WANG)[-3:] == ["一", "二", "三"]
    assert (wechat.wechat.calls[TOKEN], wechat.wechat.calls[SEND]) == (2, 3)


async def test_fact_21_the_rationed_classic_token_is_never_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, wechat_menu="登记", wechat_unionid=True) as on:
        await on.says(WANG, "三句")
        await on.channel.set_menu()
        assert on.channel.errands is not None
        await on.channel.errands.work()
        assert (on.wechat.calls["cgi-bin/token"], on.wechat.calls[TOKEN]) == (0, 1)


async def test_fact_24_the_days_quota_pauses_until_midnight_in_beijing(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    spent = WeChat(clock, rules=Rules(custom_per_day=0))
    async with running(tmp_path, platforms=Platforms(clock, wechat=spent)) as on:
        error = await refused(on)
        assert error.retry_after == timedelta(hours=15).total_seconds()
        assert not error.permanent
        write(on, "一", "二")
        await drain(on)
        calls = on.wechat.calls[SEND]
        await drain(on)
        assert on.wechat.calls[SEND] == calls
        assert {state for state, _ in states(on)} == {State.QUEUED}


async def test_the_minutes_quota_pauses_until_the_next_minute(wechat: OnWeChat) -> None:
    await wechat.clock.advance(seconds=45)
    wechat.wechat.fail(SEND, "errcode", value=45011)
    assert (await refused(wechat)).retry_after == 15


async def test_fact_26_2048_bytes_leave_in_one_and_2049_in_two(wechat: OnWeChat) -> None:
    for size, bubbles in ((2048, 1), (2049, 2)):
        before = len(wechat.heard(WANG))
        line = "家" * 682 + "x" * (size - 2046)
        await wechat.says(WANG, f"回声 {line}")
        heard = wechat.heard(WANG)[before:]
        assert (len(heard), "".join(heard)) == (bubbles, line)


async def test_fact_26_what_is_too_long_all_the_same_is_given_up(wechat: OnWeChat) -> None:
    error = await refused(wechat, "x" * 2049)
    assert (error.reason, error.permanent) == ("too_long", True)


async def test_fact_27_a_members_words_cannot_write_our_answer(wechat: OnWeChat) -> None:
    said = "]]></Content><MsgType><![CDATA[evil]]></MsgType><Content><![CDATA["
    push = await wechat.done(wechat.wechat.say(WANG, f"回声 {said}"))
    assert push.answer is not None
    assert (push.answer["MsgType"], push.text) == ("text", said)


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<xml><MsgType>text</MsgType><Content>&b;</Content></xml>"
)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("bomb", BOMB),
        ("nested", "<xml>" + "<a>" * 5000 + "</a>" * 5000 + "</xml>"),
        ("cut", text("好")[:-20]),
        ("empty", ""),
        ("no kind", "<xml><FromUserName>o</FromUserName></xml>"),
        ("not xml", '{"MsgType":"text"}'),
    ],
)
async def test_fact_28_a_sealed_body_that_is_broken_is_refused(
    wechat: OnWeChat, name: str, plain: str
) -> None:
    query, body = wechat.sealed(plain, int(wechat.clock.timestamp()))
    assert await wechat.posts(query, body) == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * 1_000_000, 413),
        (b"x" * (64 * 1024 + 1), 413),
        (b"x" * 64 * 1024, 400),
        (b"<xml>" + b"<a>" * 200_000, 413),
        (BOMB.encode(), 403),
        (b"", 400),
        (b"<xml></xml>", 400),
        (b"\xff\xfe\x00", 400),
        (b"<xml><Encrypt>AAAA</Encrypt></xml>", 403),
    ],
)
async def test_fact_28_a_body_that_nobody_sealed_is_refused_cheaply(
    wechat: OnWeChat, body: bytes, status: int
) -> None:
    query, _ = wechat.sealed(text("好"), int(wechat.clock.timestamp()))
    with no_more_than(0.2):
        assert await wechat.posts(query, body) == status


async def test_a_genuine_message_that_names_nobody_is_taken_and_forgotten(wechat: OnWeChat) -> None:
    query, body = wechat.sealed(text("好", who=""), int(wechat.clock.timestamp()))
    assert await wechat.posts(query, body) == 200


@pytest.mark.parametrize("code", [48001, 48004, 50002, 40013, 40125])
async def test_fact_29_a_lapsed_right_stops_the_channel_and_loses_nothing(
    wechat: OnWeChat, code: int
) -> None:
    wechat.wechat.fail(SEND, "errcode", times=-1, value=code)
    error = await refused(wechat)
    assert (error.reason, error.stop_channel, error.permanent) == ("stopped", True, False)
    assert f"errcode {code}：" in error.detail
    write(wechat, "一")
    await drain(wechat)
    calls = wechat.wechat.calls[SEND]
    await drain(wechat)
    assert wechat.wechat.calls[SEND] == calls
    assert states(wechat) == [(State.QUEUED, "stopped")]


async def test_fact_29_those_on_duty_are_told_once_a_day(wechat: OnWeChat) -> None:
    with wechat.app.services.database.session() as session:
        grant = Grant(person_id=contact(wechat).person_id, role="admin", granted_at=START)
        session.add(grant)
    wechat.wechat.lapse()
    write(wechat, "一", "二")
    await drain(wechat)
    with wechat.app.services.database.reading() as session:
        rows = session.exec(select(Outbox).where(Outbox.purpose == "trouble")).all()
        told = [load_reply(row.body or "").text for row in rows]
    assert told == [
        "微信公众号自2026-09-22 09:00起发不出消息：errcode 48001："
        "公众号没有这项接口的权限，认证可能已经到期，请到公众平台查看"
    ]


async def test_news_in_several_bubbles_counts_as_one(wechat: OnWeChat) -> None:
    with wechat.app.services.database.session() as session:
        news = say("一").then("二").then("三")
        person = contact(wechat).person_id
        services, now = wechat.app.services, wechat.clock.now()
        row = outbox_row(services, session, person, news, occasion="news", purpose=ANSWER, now=now)
        assert row is not None
        mailbox.enqueue(session.connection(), [row])
    await drain(wechat)
    assert wechat.heard(WANG)[-1] == "一\n\n二\n\n三"
    assert contact(wechat).window_left == 2


async def test_an_address_off_the_allow_list_is_named(wechat: OnWeChat) -> None:
    wechat.wechat.allow_ip(False)
    error = await refused(wechat)
    assert error.stop_channel
    assert "127.0.0.1 不在公众平台的 IP 白名单" in error.detail


async def test_a_wrong_secret_stops_the_channel(wechat: OnWeChat) -> None:
    wechat.wechat.fail(TOKEN, "errcode", value=40001)
    error = await refused(wechat)
    assert error.stop_channel
    assert "HONGYAN_WECHAT_APP_SECRET" in error.detail


@pytest.mark.parametrize("code", [40003, 43004, 43019, 48002])
async def test_who_cannot_be_reached_is_given_up(wechat: OnWeChat, code: int) -> None:
    wechat.wechat.fail(SEND, "errcode", value=code)
    error = await refused(wechat)
    assert (error.reason, error.permanent) == ("unreachable", True)


async def test_a_file_cannot_be_sent(wechat: OnWeChat) -> None:
    part = Part("名单", file=File("名单.xlsx", "application/x", b"x"))
    with pytest.raises(SendError) as caught:
        await wechat.channel.send(Address.parse(wechat.address(WANG)), part, "")
    assert (caught.value.reason, caught.value.permanent) == ("no_files", True)


async def test_a_token_that_does_not_come_leaves_the_message_unsent_for_certain(
    wechat: OnWeChat,
) -> None:
    wechat.wechat.fail(TOKEN, "stall")
    error = await refused(wechat)
    assert (error.reason, error.unknown) == ("no_token", False)


async def test_a_platform_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    async with Platforms() as platforms:
        url, account = platforms.url, platforms.wechat.account
    channel = WeChatChannel(wechat_settings(tmp_path, account, url), SystemClock())
    with pytest.raises(SendError) as caught:
        await channel.send(Address("wechat", account.app_id, WANG), Part("好"), "")
    await channel.close()
    assert (caught.value.reason, caught.value.unknown) == ("no_connection", False)


# The menu, and wechatpy's traps ------------------------------------------------------------------


def test_a_menu_is_read_from_words() -> None:
    assert read_menu("登记， 活动,更多=我的档案/人工") == (
        Button("登记"),
        Button("活动"),
        Button("更多", ("我的档案", "人工")),
    )
    assert read_menu("") == ()


@pytest.mark.parametrize(
    "words", ["一,二,三,四", "多=一/二/三/四/五/六", "一二三四五六", "多=" + "长" * 21]
)
def test_a_menu_that_the_platform_would_refuse_is_named_by_check(words: str) -> None:
    channel = build(demo_settings(wechat_menu=words), SystemClock())
    assert any("HONGYAN_WECHAT_MENU" in line for line in channel.check())


async def test_trap_6_the_menu_is_set_where_the_settings_say(tmp_path: Path) -> None:
    async with running(tmp_path, wechat_menu="登记,更多=活动/人工") as on:
        await on.channel.set_menu()
        assert on.wechat.calls[MENU] >= 1
        assert on.wechat.calls["cgi-bin/token"] == 0


async def test_a_menu_that_cannot_be_set_stops_nothing(tmp_path: Path) -> None:
    lapsed = Platforms()
    lapsed.wechat.lapse()
    async with running(tmp_path, platforms=lapsed, wechat_menu="登记") as on:
        await on.says(WANG, "回声 好")
        assert on.heard(WANG)[-1] == "好"


async def test_trap_1_a_refused_token_is_asked_for_once_more_and_no_further(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, wechat_menu="登记") as on:
        await on.channel.set_menu()
        before = on.wechat.calls[MENU]
        on.wechat.fail(MENU, "errcode", times=-1, value=40001)
        with pytest.raises(SendError, match="token"):
            await on.channel.set_menu()
        assert on.wechat.calls[MENU] - before == 2
        assert on.wechat.calls["cgi-bin/token"] == 0


async def test_trap_2_a_dead_token_is_renewed_by_us_and_not_by_the_library(tmp_path: Path) -> None:
    async with running(tmp_path, wechat_menu="登记") as on:
        await on.channel.set_menu()
        on.wechat.kill_tokens()
        await on.channel.set_menu()
        assert (on.wechat.calls[TOKEN], on.wechat.calls["cgi-bin/token"]) == (2, 0)


def test_traps_3_and_4_the_library_keeps_the_given_token_and_no_secret() -> None:
    made = client("http://127.0.0.1:9/mp", "wx1", "tok_1", (1, 1))
    assert (made.access_token, made.secret, made.access_token_key) == (
        "tok_1",
        "",
        "wx1_access_token",
    )


async def test_trap_5_a_platform_that_never_answers_is_left_in_time(tmp_path: Path) -> None:
    async with running(tmp_path, wechat_menu="登记") as on:
        on.wechat.fail(MENU, "stall", times=-1)
        with pytest.raises(SendError, match="no_connection: ReadTimeout"):
            await on.channel.set_menu()


async def test_traps_5_and_6_even_the_librarys_own_token_call_goes_our_way(
    wechat: OnWeChat,
) -> None:
    made = client(f"{wechat.platforms.url}/mp", wechat.account.app_id, "tok_1", (1, 0.3))
    wechat.wechat.fail("cgi-bin/token", "stall")
    with made._http, pytest.raises(requests.ReadTimeout):
        await asyncio.to_thread(made.fetch_access_token)
    assert wechat.wechat.calls["cgi-bin/token"] == 1


async def test_no_token_or_secret_of_the_menus_call_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(tmp_path, wechat_menu="登记") as on:
        await on.channel.set_menu()
        on.wechat.fail(MENU, "status", times=-1, value=502)
        with pytest.raises(SendError):
            await on.channel.set_menu()
        seen = caplog.text + "".join(capsys.readouterr())
        assert [word for word in (*on.secrets, "tok_") if word in seen] == []


# Settings ----------------------------------------------------------------------------------------


def test_without_a_key_the_channel_says_so_and_does_not_start(tmp_path: Path) -> None:
    async def never(inbound: Inbound, seconds: float) -> tuple[Part, ...]:
        raise AssertionError

    values = {"wechat_app_id": "wx1", "wechat_app_secret": "s", "wechat_token": "t"}
    channel = build(demo_settings(**values), SystemClock())
    routes: list[BaseRoute] = list(channel.routes(never))
    assert ([line for line in channel.check() if "安全模式" in line] != [], routes) == (True, [])


def test_a_key_of_another_length_is_named_without_being_shown() -> None:
    values = {"wechat_app_id": "wx1", "wechat_app_secret": "s", "wechat_token": "t"}
    channel = build(demo_settings(**values, wechat_aes_key="too-short"), SystemClock())
    assert list(channel.check()) == [
        "HONGYAN_WECHAT_AES_KEY 应是公众平台给出的43个字符，请重新复制"
    ]


@asynccontextmanager
async def started_from_environment() -> AsyncIterator[str]:
    """What `hongyan serve` does with nothing but its settings; yields the address."""
    settings, clock = load_settings(), SystemClock()
    channels = build_channels(settings, clock)
    keys = settings.keys.get_secret_value()
    services = services_for(
        settings, facts_of(channels), keys=keys, clock=clock, catalog=whole_catalog()
    )
    lay_tables(services.database)
    app = App(services, channels, alone=True)
    async with serving(app) as url:
        yield url


async def test_a_message_sealed_now_is_answered_with_nothing_but_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Platforms(VirtualClock(SystemClock().now(), rate=1)) as platforms:
        account = platforms.wechat.account
        given = {
            "DATABASE_URL": f"sqlite:///{tmp_path}/served.db",
            "KEYS": KEYS,
            "CHANNELS": "wechat",
            "OFFICE_NAME": "区域经济合作服务中心",
            "OFFICE_PHONE": "0475-0000000",
            "SIGNATORY": "区域经济合作服务中心",
            "WECHAT_APP_ID": account.app_id,
            "WECHAT_APP_SECRET": account.secret,
            "WECHAT_TOKEN": "QDG6eK",
            "WECHAT_AES_KEY": "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C",
            "WECHAT_API_BASE": f"{platforms.url}/mp",
        }
        monkeypatch.chdir(tmp_path)  # where no file of settings lies
        for name, value in given.items():
            monkeypatch.setenv(f"HONGYAN_{name}", value)
        async with started_from_environment() as url:
            platforms.wechat.connect(f"{url}/callback/wechat")
            assert await platforms.wechat.verify_url()
            await platforms.wechat.follow(WANG).done()
            push = await platforms.wechat.say(WANG, "菜单").done()
            assert (len(push.tries), "「帮助」" in push.text) == (1, True)
