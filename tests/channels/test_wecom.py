"""WeCom's own rules for a self-built app, one test for each fact of its platform."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from sqlmodel import col, select
from wechatpy.enterprise.crypto import WeChatCrypto

from bot.app import App, build_channels
from bot.channels.callback import Patience
from bot.channels.wecom.cards import CARD_TEXT, messages, pack, unpack
from bot.channels.wecom.channel import WeComChannel
from bot.channels.wecom.ledger import Ledger
from bot.clock import SystemClock
from bot.context import outbox_row
from bot.errors import SendError
from bot.messages import Address, Choice, File, Link, Part, Reply, load_reply, say
from bot.purposes import ANSWER
from bot.settings import demo_settings
from storage import mailbox
from storage.mailbox import Outbox
from storage.people import Contact, Grant
from storage.states import State
from tests.channels.called import SHORT, Slow
from tests.channels.harness import Trouble, serving
from tests.channels.on_wecom import (
    FAULTS,
    LI,
    SEND,
    TOKEN,
    WANG,
    OnWeCom,
    running,
    wecom_settings,
)
from tests.emulators.server import START
from tests.emulators.wecom import Corporation

pytestmark = pytest.mark.anyio

UPLOAD = "cgi-bin/media/upload"
UPDATE = "cgi-bin/message/update_template_card"
SHEET = File("三月回执.xlsx", "application/vnd.ms-excel", "名单".encode() * 10)
CARD = Part("请选：1. 回声；2. 三句", (Choice("回声", "回声"), Choice("三句", "三句")))


@pytest.fixture
async def wecom(tmp_path: Path, anyio_backend: str) -> AsyncIterator[OnWeCom]:
    async with running(tmp_path) as made:
        yield made


def text(content: str, number: str = "1", who: str = WANG) -> str:
    """A text message as the platform writes it."""
    return (
        f"<xml><ToUserName>ww</ToUserName><FromUserName>{who}</FromUserName>"
        f"<CreateTime>1</CreateTime><MsgType>text</MsgType>"
        f"<Content><![CDATA[{content}]]></Content><MsgId>{number}</MsgId><AgentID>1</AgentID></xml>"
    )


async def send(on: OnWeCom, part: Part | str, key: str, who: str = WANG) -> str:
    """One bubble straight through the channel."""
    bubble = Part(part) if isinstance(part, str) else part
    return await on.channel.send(Address.parse(on.address(who)), bubble, key)


async def refused(on: OnWeCom, part: Part | str, key: str = "1-0", who: str = WANG) -> SendError:
    with pytest.raises(SendError) as caught:
        await send(on, part, key, who)
    return caught.value


def contact(on: OnWeCom, who: str = WANG) -> Contact:
    with on.app.services.database.reading() as session:
        return session.exec(select(Contact).where(Contact.address == on.address(who))).one()


def write(on: OnWeCom, *replies: Reply) -> None:
    """Queue news for 王小雁, as a handler or the clock would."""
    services = on.app.services
    with services.database.session() as session:
        person, now = contact(on).person_id, on.clock.now()
        rows = [
            outbox_row(
                services,
                session,
                person,
                reply,
                occasion=f"news:{number}",
                purpose=ANSWER,
                now=now,
            )
            for number, reply in enumerate(replies)
        ]
        mailbox.enqueue(session.connection(), [row for row in rows if row is not None])


def states(on: OnWeCom) -> list[tuple[str, str]]:
    """State and reason of every queued piece of news, in order."""
    with on.app.services.database.reading() as session:
        found = select(Outbox).where(col(Outbox.occasion).startswith("news:"))
        rows = session.exec(found.order_by(col(Outbox.id))).all()
        return [(row.state, row.reason) for row in rows]


def told_on_duty(on: OnWeCom) -> list[str]:
    """What those on duty are to be told."""
    with on.app.services.database.reading() as session:
        rows = session.exec(select(Outbox).where(Outbox.purpose == "trouble")).all()
        return [load_reply(row.body or "").text for row in rows]


def put_on_duty(on: OnWeCom) -> None:
    with on.app.services.database.session() as session:
        person = contact(on).person_id
        session.add(Grant(person_id=person, role="admin", granted_at=START))


async def settle(on: OnWeCom, seconds: float = 60) -> None:
    """Drain, let so many virtual seconds pass for what waits, and drain again."""
    await on.app.delivery.until_idle()
    await on.clock.advance(seconds)
    await on.app.delivery.until_idle()


# The callback ------------------------------------------------------------------------------------


async def test_fact_31_the_console_reads_its_echo_and_nothing_else(wecom: OnWeCom) -> None:
    assert await wecom.wecom.verify_url()


async def test_fact_31_the_librarys_echo_is_answered_in_plain_text(wecom: OnWeCom) -> None:
    ours, stamp = wecom.corporation, str(int(wecom.clock.timestamp()))
    library = WeChatCrypto(ours.token, ours.aes_key, ours.corp_id)
    sealed = library.encrypt_message("1616140317555161061", "n1", stamp)
    echo, signature = sealed.split("<![CDATA[")[1].split("]]>")[0], sealed.split("<![CDATA[")[2]
    query = {
        "msg_signature": signature.split("]]>")[0],
        "timestamp": stamp,
        "nonce": "n1",
        "echostr": echo,
    }
    async with aiohttp.ClientSession() as session, session.get(wecom.webhook, params=query) as got:
        assert (got.status, await got.read()) == (200, b"1616140317555161061")
        assert got.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("touched", ["msg_signature", "timestamp", "nonce", "echostr"])
async def test_fact_31_a_check_that_is_not_whole_is_forbidden(wecom: OnWeCom, touched: str) -> None:
    query, _ = wecom.sealed("8261", int(wecom.clock.timestamp()))
    query["echostr"] = "QUJD"
    query.pop(touched)
    async with aiohttp.ClientSession() as session, session.get(wecom.webhook, params=query) as got:
        assert (got.status, await got.text()) == (403, "")


async def test_fact_32_a_message_for_another_corporation_is_forbidden(wecom: OnWeCom) -> None:
    now = int(wecom.clock.timestamp())
    before = wecom.heard(WANG)
    query, body = wecom.sealed(text("回声 好"), now, "ww0000000000000000")
    assert await wecom.posts(query, body) == 403
    assert wecom.heard(WANG) == before


async def test_a_plain_message_is_forbidden(wecom: OnWeCom) -> None:
    query, _ = wecom.sealed(text("回声 好"), int(wecom.clock.timestamp()))
    assert await wecom.posts(query, text("回声 好").encode()) == 403


async def test_a_replay_changes_nothing_and_later_is_forbidden(wecom: OnWeCom) -> None:
    query, body = wecom.sealed(text("回声 好", "77"), int(wecom.clock.timestamp()))
    before = len(wecom.heard(WANG))
    assert [await wecom.posts(query, body) for _ in range(3)] == [200, 200, 200]
    await wecom.app.delivery.until_idle()
    assert wecom.heard(WANG)[before:] == ["好"]
    await wecom.clock.advance(301)
    assert await wecom.posts(query, body) == 403


async def test_fact_33_a_slow_message_is_tried_three_times_and_answered_once(
    tmp_path: Path,
) -> None:
    slow = Slow()
    async with running(tmp_path, slow.word()) as on:
        push = on.wecom.say(WANG, "慢")
        await asyncio.to_thread(slow.begun.wait)
        await on.clock.advance(5)
        await on.clock.advance(5)
        slow.free.set()
        await on.done(push)
        assert [attempt.error for attempt in push.tries] == ["timeout", "timeout", ""]
        assert [attempt.at - push.tries[0].at for attempt in push.tries] == [0, 5, 10]
        assert (slow.runs, on.heard(WANG).count("慢慢来")) == (1, 1)


async def test_fact_33_what_could_not_be_taken_is_told_again(wecom: OnWeCom) -> None:
    unwell = Unwell(wecom.app.services, wecom.app.channels, alone=True)
    async with serving(unwell) as url:
        wecom.wecom.connect(f"{url}/callback/wecom")
        push = wecom.wecom.say(WANG, "回声 好")
        assert await wecom.status(push, 0) == 503
        wecom.wecom.connect(wecom.webhook)
        await wecom.clock.advance(5)
        await wecom.done(push)
    assert [attempt.status for attempt in push.tries] == [503, 200]
    assert wecom.heard(WANG)[-1] == "好"


class Unwell(App):
    """An installation that cannot write anything down."""

    def receive(self, inbound: object, seconds: float) -> asyncio.Future[tuple[Part, ...]]:
        broken: asyncio.Future[tuple[Part, ...]] = asyncio.get_running_loop().create_future()
        broken.set_exception(OSError("disk full"))
        return broken


async def test_fact_33_an_answer_that_misses_every_try_leaves_by_itself(tmp_path: Path) -> None:
    slow = Slow()
    hasty = Patience(one_try=5, all_tries=1)
    async with running(tmp_path, slow.word(), patience=hasty) as on:
        push = await on.wecom.say(WANG, "慢").done()
        assert len(push.tries) == 1
        slow.free.set()
        await on.says(WANG, "回声 后来")
        assert slow.runs == 1
        assert sorted(on.heard(WANG)[-2:]) == ["后来", "慢慢来"]


async def test_every_kind_of_message_is_taken(wecom: OnWeCom) -> None:
    phone = wecom.wecom
    before = len(wecom.heard(WANG))
    for push in (
        phone.send_image(WANG),
        phone.send_voice(WANG),
        phone.send_location(WANG, 45.53, 119.66, "霍林郭勒"),
    ):
        await wecom.done(push)
    kinds = ["image", "voice", "location"]
    assert wecom.heard(WANG)[before:] == [f"没听懂：{kind}" for kind in kinds]


@pytest.mark.parametrize(
    "event", ["view", "LOCATION", "batch_job_result", "open_approval_change", "change_contact"]
)
async def test_an_event_that_does_not_concern_us_is_taken_at_once(
    wecom: OnWeCom, event: str
) -> None:
    push = await wecom.done(wecom.wecom.event(WANG, event, {"EventKey": "x" * 3000}))
    assert ([attempt.status for attempt in push.tries], push.answer) == ([200], None)


async def test_who_comes_into_the_visible_range_is_greeted(wecom: OnWeCom) -> None:
    await wecom.done(wecom.wecom.show_app(LI))
    assert wecom.heard(LI) == ["follow："]


async def test_who_opens_the_app_again_and_again_is_greeted_once(wecom: OnWeCom) -> None:
    for _ in range(3):
        await wecom.done(wecom.wecom.enter(LI))
        await wecom.clock.advance(60)
    assert wecom.heard(LI) == ["follow："]


async def test_who_leaves_the_visible_range_is_written_to_no_more(wecom: OnWeCom) -> None:
    await wecom.done(wecom.wecom.show_app(WANG, visible=False))
    assert not contact(wecom).reachable
    await wecom.clock.advance(60)
    await wecom.done(wecom.wecom.show_app(WANG))
    assert contact(wecom).reachable


async def test_a_userid_in_capitals_is_the_same_member(wecom: OnWeCom) -> None:
    await wecom.says(WANG, "回声 好")
    query, body = wecom.sealed(text("回声 又", "9", WANG.upper()), int(wecom.clock.timestamp()))
    assert await wecom.posts(query, body) == 200
    await wecom.app.delivery.until_idle()
    assert wecom.heard(WANG)[-1] == "又"
    with wecom.app.services.database.reading() as session:
        assert len(session.exec(select(Contact)).all()) == 1


# Cards -------------------------------------------------------------------------------------------


async def test_a_tap_is_answered_by_the_card_within_its_five_seconds(wecom: OnWeCom) -> None:
    await wecom.says(WANG, "选")
    push = await wecom.done(wecom.tap(WANG, "回声"))
    assert (push.answer or {})["MsgType"] == "update_button"
    assert (push.answer or {})["Button"] == {"ReplaceName": "已选：回声"}
    assert wecom.heard(WANG)[-1] == "（没有话）"


async def test_what_a_long_button_shows_is_cut(wecom: OnWeCom) -> None:
    choice = Choice("霍林郭勒市区域经济合作服务中心", "回声 好")
    await send(wecom, Part("问谁", (choice,)), "1-0")
    push = await wecom.done(wecom.tap(WANG, "回声 好"))
    assert (push.answer or {})["Button"] == {"ReplaceName": "已选：霍林郭勒市区域经济…"}
    assert wecom.heard(WANG)[-1] == "好"


async def test_a_tap_told_twice_counts_once(wecom: OnWeCom) -> None:
    await wecom.says(WANG, "选")
    before = len(wecom.heard(WANG))
    wecom.wecom.repeat_next()
    push = await wecom.done(wecom.tap(WANG, "回声"))
    await wecom.status(push, 1)
    await wecom.app.delivery.until_idle()
    assert wecom.heard(WANG)[before:].count("（没有话）") == 1


async def test_a_press_on_the_apps_menu_says_its_key(wecom: OnWeCom) -> None:
    await wecom.done(wecom.wecom.click(WANG, "回声 好"))
    assert wecom.heard(WANG)[-1] == "好"


def test_a_long_question_goes_before_its_card() -> None:
    long = "家" * (CARD_TEXT + 1)
    first, second = messages(Part(long, CARD.choices), "1-0", "")
    assert first == {"msgtype": "text", "text": {"content": long}}
    assert len(second["template_card"]["button_list"]) == 2


def test_more_choices_than_a_card_has_buttons_are_typed() -> None:
    choices = tuple(Choice(str(n), str(n)) for n in range(7))
    assert messages(Part("选", choices), "1-0", "") == (
        {"msgtype": "text", "text": {"content": "选"}},
    )


def test_a_link_is_a_card_that_opens_a_page() -> None:
    part = Part("您的导出好了", link=Link("下载", "/p/abc"))
    (message,) = messages(part, "1-0", "https://bot.example.org")
    card = message["template_card"]
    assert card["card_type"] == "text_notice"
    assert card["card_action"] == {"type": 1, "url": "https://bot.example.org/p/abc"}


@pytest.mark.parametrize("choice", [Choice("好", "path=1"), Choice('"[]"', "]]>"), Choice("", "x")])
def test_a_buttons_key_says_what_it_shows_and_what_it_means(choice: Choice) -> None:
    assert unpack(pack(choice)) == choice


@pytest.mark.parametrize("key", ["登记", "[1", "[1]", "3", "null", '{"a":1}'])
def test_a_key_that_is_not_ours_says_itself(key: str) -> None:
    assert unpack(key) == Choice(key, key)


async def test_fact_49_a_card_is_renewed_once(wecom: OnWeCom) -> None:
    await wecom.says(WANG, "回声")
    progress = [Part(f"已发出{n}人", CARD.choices, replaces="progress") for n in (10, 20, 30)]
    wecom_url = "https://bot.example.org"
    settings = wecom.app.services.settings.model_copy(update={"public_url": wecom_url})
    channel = WeComChannel(settings, wecom.clock, timeout=SHORT)
    channel.attach(wecom.app.services)
    address = Address.parse(wecom.address(WANG))
    for number, part in enumerate(progress):
        await channel.send(address, part, f"{number}-0")
    await channel.close()
    lines = [(line.by, line.text.splitlines()[0]) for line in wecom.wecom.transcript(WANG)][-3:]
    assert lines == [("app", "已发出10人"), ("update", "已发出20人"), ("app", "已发出30人")]


async def test_fact_49_after_72_hours_a_new_card_is_sent(tmp_path: Path) -> None:
    async with running(tmp_path, public_url="https://bot.example.org") as on:
        await send(on, Part("已发出10人", CARD.choices, replaces="progress"), "1-0")
        await on.clock.advance(hours=72)
        await send(on, Part("已发出20人", CARD.choices, replaces="progress"), "2-0")
        assert on.heard(WANG)[-1].startswith("已发出20人")
        assert on.wecom.calls[UPDATE] == 1


# Sending -----------------------------------------------------------------------------------------


async def test_fact_47_whom_nobody_finds_is_given_up(wecom: OnWeCom) -> None:
    error = await refused(wecom, "好", who="nobody")
    assert (error.reason, error.permanent, error.detail) == ("unreachable", True, "errcode 81013")


async def test_fact_47_whom_the_platform_leaves_out_without_an_error_is_given_up(
    wecom: OnWeCom,
) -> None:
    two = Address("wecom", wecom.corporation.corp_id, f"{WANG}|Nobody")
    with pytest.raises(SendError) as caught:
        await wecom.channel.send(two, Part("好"), "1-0")
    error = caught.value
    assert (error.reason, error.permanent, error.detail) == ("unreachable", True, "invaliduser")


async def test_fact_47_who_is_out_of_reach_is_suppressed(wecom: OnWeCom) -> None:
    await wecom.blocks(WANG)
    write(wecom, say("一"))
    await wecom.app.delivery.until_idle()
    assert states(wecom) == [(State.FAILED, "unreachable")]
    assert not contact(wecom).reachable


async def test_fact_47_the_31st_message_of_a_minute_waits_and_nothing_is_dropped(
    wecom: OnWeCom,
) -> None:
    write(wecom, *(say(f"第{n}条") for n in range(1, 41)))
    await wecom.app.delivery.until_idle()
    at_once = [line for line in wecom.heard(WANG) if line.startswith("第")]
    assert len(at_once) in (29, 30)
    await settle(wecom, 63)
    arrived = [line for line in wecom.heard(WANG) if line.startswith("第")]
    assert arrived == [f"第{n}条" for n in range(1, 41)]
    assert wecom.wecom.member(WANG).dropped == 0
    assert states(wecom) == [(State.SENT, "")] * 40


async def test_fact_47_the_limit_is_one_for_all_replicas_and_for_each_member(
    wecom: OnWeCom,
) -> None:
    other = WeComChannel(wecom.app.services.settings, wecom.clock, timeout=SHORT)
    other.attach(wecom.app.services)
    address = Address.parse(wecom.address(WANG))
    await wecom.clock.advance(120)
    for number in range(15):
        await send(wecom, f"甲{number}", f"a{number}")
        await other.send(address, Part(f"乙{number}"), f"b{number}")
    with pytest.raises(SendError) as caught:
        await other.send(address, Part("再一条"), "c")
    await other.close()
    error = caught.value
    assert (error.reason, error.only_here, error.unknown) == ("pace", True, False)
    assert error.retry_after == pytest.approx(62, abs=1)
    await send(wecom, "给别人的", "d", who=LI)
    assert wecom.heard(LI)[-1] == "给别人的"
    assert wecom.wecom.member(WANG).dropped == 0


async def test_fact_47_the_1001st_message_of_an_hour_waits(wecom: OnWeCom) -> None:
    ledger = Ledger(wecom.app.services, wecom.clock)
    address = Address.parse(wecom.address(LI))
    for number in range(1000):
        await ledger.begin(address, f"第{number}条", f"n{number}")
        await wecom.clock.advance(2.2)
    error = await refused(wecom, "再一条", who=LI)
    assert (error.reason, error.only_here) == ("pace", True)
    assert error.retry_after == pytest.approx(3600 - 2200, abs=1)


@pytest.mark.parametrize("trouble", [Trouble.ANSWER_LOST, Trouble.NO_ANSWER])
@pytest.mark.parametrize("part", [Part("家乡的信"), CARD, Part("", file=SHEET)], ids=type)
async def test_fact_48_a_lost_answer_is_asked_again_and_delivered_once(
    wecom: OnWeCom, trouble: Trouble, part: Part
) -> None:
    before = len(wecom.heard(WANG))
    what, when, value = FAULTS[trouble]
    wecom.wecom.fail(SEND, what, when, 1, value)
    write(wecom, Reply((part,)))
    await settle(wecom)
    assert (wecom.wecom.calls[SEND] >= 2, len(wecom.heard(WANG)) - before) == (True, 1)
    assert states(wecom) == [(State.SENT, "")]


async def test_fact_48_what_did_not_arrive_is_delivered_by_the_second_try(wecom: OnWeCom) -> None:
    wecom.wecom.fail(SEND, "cut", "before")
    write(wecom, say("家乡的信"))
    await settle(wecom)
    assert wecom.heard(WANG).count("家乡的信") == 1


async def test_fact_48_the_same_words_on_another_occasion_arrive_again(wecom: OnWeCom) -> None:
    write(wecom, say("明天开会"), say("明天开会"))
    await wecom.app.delivery.until_idle()
    assert wecom.heard(WANG).count("明天开会") == 2


async def test_fact_48_after_half_an_hour_nothing_is_sent_blindly(wecom: OnWeCom) -> None:
    wecom.wecom.fail(SEND, "cut", "after")
    assert (await refused(wecom, "家乡的信", "7-0")).unknown
    await wecom.clock.advance(1800)
    error = await refused(wecom, "家乡的信", "7-0")
    assert (error.reason, error.permanent) == ("no_answer", True)
    assert wecom.heard(WANG).count("家乡的信") == 1


async def test_a_try_whose_sender_died_before_writing_it_down_is_not_sent_again(
    wecom: OnWeCom,
) -> None:
    first = await send(wecom, "家乡的信", "7-0")
    await wecom.clock.advance(hours=2)
    assert await send(wecom, "家乡的信", "7-0") == first
    assert wecom.heard(WANG).count("家乡的信") == 1


async def test_a_refused_message_may_be_tried_hours_later(wecom: OnWeCom) -> None:
    wecom.wecom.fail(SEND, "errcode", value=45009)
    await refused(wecom, "家乡的信", "7-0")
    await wecom.clock.advance(hours=2)
    await send(wecom, "家乡的信", "7-0")
    assert wecom.heard(WANG).count("家乡的信") == 1


@pytest.mark.parametrize("size", [10, 2 * 1024 * 1024])
async def test_a_file_arrives_whole_and_under_its_name(wecom: OnWeCom, size: int) -> None:
    sheet = replace(SHEET, content=b"\r\n--" * (size // 4))
    write(wecom, Reply((Part("三月的回执", file=sheet),)))
    await wecom.app.delivery.until_idle()
    assert wecom.heard(WANG)[-2:] == ["三月的回执", "[file] 三月回执.xlsx"]
    assert [content for _, content, _ in wecom.wecom.media.values()] == [sheet.content]


async def test_without_the_tables_nothing_leaves_and_it_is_tried_again(wecom: OnWeCom) -> None:
    before = wecom.wecom.calls[SEND]
    with wecom.app.services.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE chat_pace RENAME TO away")
    error = await refused(wecom, "家乡的信")
    assert (error.reason, error.permanent, error.unknown) == ("busy", False, False)
    assert wecom.wecom.calls[SEND] == before


async def test_what_has_left_and_could_not_be_written_down_is_sent(wecom: OnWeCom) -> None:
    with wecom.app.services.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE UPDATE ON sending BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    assert await send(wecom, "家乡的信", "1-0") != ""
    assert wecom.heard(WANG)[-1] == "家乡的信"


@pytest.mark.parametrize(
    ("mime", "kind"), [("image/png", "image"), ("image/jpeg", "image"), ("image/tiff", "file")]
)
async def test_a_picture_is_shown_as_one(wecom: OnWeCom, mime: str, kind: str) -> None:
    await send(wecom, Part("", file=File("二维码.png", mime, b"\x89PNG 1234")), "1-0")
    assert wecom.heard(WANG)[-1] == f"[{kind}] 二维码.png"


@pytest.mark.parametrize("size", [5, 20 * 1024 * 1024 + 1])
async def test_a_file_that_the_platform_does_not_take_is_not_uploaded(
    wecom: OnWeCom, size: int
) -> None:
    error = await refused(wecom, Part("", file=File("a.bin", "application/x", b"x" * size)))
    assert (error.reason, error.permanent) == ("too_large", True)
    assert wecom.wecom.calls[UPLOAD] == 0


async def test_an_upload_without_an_answer_is_no_unknown_message(wecom: OnWeCom) -> None:
    wecom.wecom.fail(UPLOAD, "cut", "after")
    error = await refused(wecom, Part("", file=SHEET))
    assert (error.unknown, error.permanent) == (False, False)
    await send(wecom, Part("", file=SHEET), "1-0")
    assert wecom.heard(WANG)[-1] == "[file] 三月回执.xlsx"


# Tokens and the app's state ----------------------------------------------------------------------


async def test_many_calls_with_a_dead_token_fetch_one(wecom: OnWeCom) -> None:
    await send(wecom, "零", "0")
    wecom.wecom.kill_tokens()
    fetched = wecom.wecom.calls[TOKEN]
    await asyncio.gather(*(send(wecom, line, line) for line in "一二三四五"))
    assert wecom.wecom.calls[TOKEN] == fetched + 1


async def test_a_token_that_is_never_taken_costs_two_calls(wecom: OnWeCom) -> None:
    before = wecom.wecom.calls[SEND]
    wecom.wecom.fail(SEND, "errcode", times=-1, value=40014)
    error = await refused(wecom, "好")
    assert (error.reason, error.permanent, error.retry_after) == ("token", False, 30)
    assert wecom.wecom.calls[SEND] - before == 2


async def test_the_token_is_renewed_before_it_ends(wecom: OnWeCom) -> None:
    for number, minutes in enumerate((0, 119, 2)):
        await wecom.clock.advance(minutes=minutes)
        await send(wecom, f"第{number}条", f"{number}")
    assert wecom.wecom.calls[TOKEN] == 2


async def test_fact_51_an_address_off_the_list_is_named(wecom: OnWeCom) -> None:
    wecom.wecom.allow_ip(False)
    error = await refused(wecom, "好")
    assert error.stop_channel
    assert "203.0.113.7 不在应用的「企业可信IP」里" in error.detail


async def test_fact_51_those_on_duty_are_told_the_address(wecom: OnWeCom) -> None:
    put_on_duty(wecom)
    wecom.wecom.allow_ip(False)
    write(wecom, say("一"), say("二"))
    await wecom.app.delivery.until_idle()
    assert told_on_duty(wecom) == [
        "企业微信自2026-09-22 09:00起发不出消息：errcode 60020："
        "服务器地址 203.0.113.7 不在应用的「企业可信IP」里，请到应用页底部添加"
    ]


@pytest.mark.parametrize(
    ("code", "setting"),
    [(40001, "HONGYAN_WECOM_SECRET"), (40013, "HONGYAN_WECOM_CORP_ID")],
)
async def test_a_wrong_secret_or_corporation_stops_the_channel(
    wecom: OnWeCom, code: int, setting: str
) -> None:
    wecom.wecom.kill_tokens()
    wecom.wecom.fail(TOKEN, "errcode", value=code)
    error = await refused(wecom, "好")
    assert error.stop_channel
    assert setting in error.detail


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            "inactive_alert",
            "收到平台预警：应用长期没有人用，2026-09-29 09:00起将被停用。"
            "请几位同事在企业微信里打开它，说一句话",
        ),
        (
            "close_inactive_agent",
            "被平台停用：应用长期没有人用，消息发不出去。"
            "请管理员在企业微信管理后台的「应用管理」里重新启用",
        ),
    ],
)
async def test_fact_52_those_on_duty_are_warned_of_an_app_that_nobody_uses(
    wecom: OnWeCom, event: str, words: str
) -> None:
    put_on_duty(wecom)
    due = int((START + timedelta(days=7)).timestamp())
    wecom.wecom.repeat_next()
    push = await wecom.wecom.announce(event, {"EffectTime": due}).done()
    await wecom.status(push, 1)
    assert told_on_duty(wecom) == [f"企业微信自2026-09-22 09:00起{words}"]


async def test_fact_52_a_warning_without_a_date_is_told_too(wecom: OnWeCom) -> None:
    put_on_duty(wecom)
    await wecom.wecom.announce("inactive_alert", {"EffectTime": "9" * 11}).done()
    assert "不久将被停用" in told_on_duty(wecom)[0]


# Settings ----------------------------------------------------------------------------------------


def test_without_settings_the_channel_says_which_are_missing(tmp_path: Path) -> None:
    channel = build_channels(demo_settings(channels="wecom"), SystemClock())["wecom"]
    assert [line.split("（")[0] for line in channel.check()] == [
        "缺少 HONGYAN_WECOM_CORP_ID",
        "缺少 HONGYAN_WECOM_AGENT_ID",
        "缺少 HONGYAN_WECOM_SECRET",
        "缺少 HONGYAN_WECOM_TOKEN",
        "缺少 HONGYAN_WECOM_AES_KEY",
    ]


def test_a_spoilt_key_or_number_is_named(tmp_path: Path) -> None:
    given = {"wecom_aes_key": "short", "wecom_agent_id": "abc"}
    settings = wecom_settings(tmp_path, Corporation(), "http://127.0.0.1", **given)
    assert [
        line.split(" ")[0] for line in build_channels(settings, SystemClock())["wecom"].check()
    ] == [
        "HONGYAN_WECOM_AGENT_ID",
        "HONGYAN_WECOM_AES_KEY",
    ]


async def test_the_check_finds_everything_fine(wecom: OnWeCom) -> None:
    url = wecom.webhook.removesuffix("/callback/wecom")
    found = await probed(wecom, public_url=url)
    assert found == [
        (True, "企业微信应用「鸿雁回通」"),
        (True, "应用的可见范围：2名成员"),
        (True, "应用的回调地址"),
    ]


async def probed(on: OnWeCom, **values: str) -> list[tuple[bool, str]]:
    """What `hongyan check` finds with other settings."""
    settings = on.app.services.settings.model_copy(update=values)
    channel = WeComChannel(settings, on.clock, timeout=SHORT)
    findings = await channel.probe()
    await channel.close()
    secrets = [secret for secret in on.secrets if secret in repr(findings)]
    assert secrets == []
    return [(finding.fine, finding.what) for finding in findings]


async def test_fact_51_the_check_shows_the_address_to_add(wecom: OnWeCom) -> None:
    wecom.wecom.allow_ip(False)
    findings = await wecom.channel.probe()
    assert not findings[0].fine
    assert "203.0.113.7" in findings[0].advice


async def test_the_check_tells_an_app_that_is_off_or_seen_by_nobody(wecom: OnWeCom) -> None:
    for who in (WANG, LI):
        await wecom.blocks(who)
    assert (False, "应用的可见范围") in await probed(wecom)
    wecom.wecom.enable(False)
    assert (False, "企业微信应用「鸿雁回通」") in await probed(wecom)


@pytest.mark.parametrize(
    "public_url", ["", "http://bot.example.org", "http://127.0.0.1:9"], ids=["none", "open", "dead"]
)
async def test_the_check_tells_an_address_that_nobody_reaches(
    wecom: OnWeCom, public_url: str
) -> None:
    assert (await probed(wecom, public_url=public_url))[-1] == (False, "应用的回调地址")


async def test_no_token_is_logged_or_shown(
    wecom: OnWeCom, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await send(wecom, "零", "0")
    token, _ = wecom.wecom.tokens.give(wecom.corporation.secret)
    wecom.wecom.fail(SEND, "cut", "after")
    error = await refused(wecom, "一", "1")
    seen = f"{caplog.text}{error!r}{error.detail}{wecom.channel!r}"
    assert (token in seen, wecom.corporation.secret in seen) == (False, False)
