"""The smart bot by callbacks: one test for each fact of its platform, and what we make of it."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as rules
from hypothesis import strategies as st
from sqlmodel import select

from bot.app import build_channels
from bot.channels.callback import Patience
from bot.channels.wecom.bot import build
from bot.channels.wecom.bot.door import STILL, WAIT
from bot.channels.wecom.bot.reading import NAME, Event, Refresh, Told, address_of, read
from bot.channels.wecom.bot.socket import SocketBot
from bot.channels.wecom.bot.url import UrlBot
from bot.channels.wecom.bot.words import AGAIN, EXPIRED, LOST, as_markdown, choice_card
from bot.clock import SystemClock
from bot.commands import Command, command
from bot.context import Context, group_row, outbox_row
from bot.errors import SendError
from bot.messages import Address, Choice, File, Happening, Part, Reply, say
from bot.purposes import ANSWER
from storage import mailbox
from storage.mailbox import Outbox
from storage.people import Contact
from storage.states import State
from tests.channels.harness import settings_for
from tests.channels.on_wecom_bot import GROUP, LI, WANG, OnWeComBot, bot_settings, running
from tests.emulators.server import START, Platforms
from tests.emulators.wecom_bot import RESPONSE, Account, check_card, shown
from tests.thrift import no_more_than

pytestmark = pytest.mark.anyio

QUICK = Patience(one_try=0.3, all_tries=330.0)


@command("公开", help="谁都能问", group=True)
def public(context: Context, argument: str) -> Reply:
    return say(f"公开：{argument}", "回声")


@command("许多")
def many(context: Context, _argument: str) -> Reply:
    return say("请选", *[f"第{number}项" for number in range(1, 25)])


class Slow:
    """A word whose answer takes as long as the test likes."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.free = threading.Event()

    def word(self) -> Command:
        @command("慢")
        def slowly(context: Context, _argument: str) -> Reply:
            self.begun.set()
            self.free.wait(20)
            return say("慢慢来")

        return slowly


@pytest.fixture
async def on(tmp_path: Path, anyio_backend: str) -> AsyncIterator[OnWeComBot]:
    async with running(tmp_path, public, many) as made:
        yield made


def address(on: OnWeComBot, who: str = WANG) -> Address:
    return Address.parse(on.address(who))


def states(on: OnWeComBot) -> list[tuple[State, str]]:
    with on.app.services.database.reading() as session:
        rows = session.exec(select(Outbox).order_by(Outbox.id)).all()  # type: ignore[arg-type]
        return [(State(row.state), row.reason) for row in rows]


async def wait_for(event: threading.Event) -> None:
    await asyncio.to_thread(event.wait, 20)


# The door -----------------------------------------------------------------------------------------


async def test_fact_31_the_consoles_check_is_answered_at_once_and_plainly(on: OnWeComBot) -> None:
    assert await on.bot.verify_url()


async def test_fact_32_what_is_sealed_for_anybody_by_name_is_refused(on: OnWeComBot) -> None:
    text = '{"msgid":"1","msgtype":"text","from":{"userid":"x"},"text":{"content":"帮助"}}'
    now = int(on.clock.timestamp())
    assert await on.posts(*on.sealed(text, now, "ww1234567890")) == 403
    assert await on.posts(*on.sealed(text, now)) == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"encrypt": 1}', 400),
        (b"[" * 60_000, 400),
        (b'{"encrypt": "AAAA"}', 403),
        (b"x" * 70_000, 413),
    ],
)
async def test_a_malformed_body_is_refused_and_nothing_else(
    on: OnWeComBot, body: bytes, status: int
) -> None:
    good, _body = on.sealed("{}", int(on.clock.timestamp()))
    assert await on.posts(good, body) == status


@pytest.mark.parametrize(
    ("plain", "status"),
    [("[]", 400), ("not JSON", 400), ("[" * 3000, 400), ("{}", 200), ('{"msgtype":"stream"}', 200)],
)
async def test_genuine_nonsense_is_refused_or_passed_over(
    on: OnWeComBot, plain: str, status: int
) -> None:
    assert await on.posts(*on.sealed(plain, int(on.clock.timestamp()))) == status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["msgid", "msgtype", "from", "chattype", "chatid", "text", "mixed", "event", "stream", "voice"]
)
KINDS = st.sampled_from(["text", "event", "stream", "mixed", "image", "voice"])


@given(st.dictionaries(NAMES, JSON), KINDS, JSON)
@rules(suppress_health_check=[HealthCheck.too_slow], max_examples=100)
def test_no_callback_is_too_odd_to_be_read(body: dict, kind: str, user: object) -> None:  # type: ignore[type-arg]
    body |= {"msgtype": kind}
    body.setdefault("from", {"userid": user})
    event = read(body, "bot", START)
    assert event is None or isinstance(event, Event)


def test_halves_of_characters_do_not_get_in() -> None:
    body = json.loads(
        '{"msgid":"1","msgtype":"text","from":{"userid":"x"},"text":{"content":"a\\ud800"}}'
    )
    told = read(body, "bot", START)
    assert isinstance(told, Told)
    assert told.inbound.text == "a?"


@given(st.text(max_size=60))
@rules(max_examples=300)
def test_markdown_shows_what_was_said(text: str) -> None:
    said = text.replace("\r", "")
    assert shown(as_markdown(said)) == said
    assert len(as_markdown(text).encode()) <= 2 * len(text.encode())


@pytest.mark.parametrize(
    "text", [" " * 40_000, "\n" * 40_000, "@" * 40_000, " @" * 20_000, "http" * 9000]
)
def test_no_text_takes_long_to_read_or_to_write(text: str) -> None:
    body = {"msgid": "1", "msgtype": "text", "from": {"userid": "x"}, "text": {"content": text}}
    with no_more_than(0.5):
        read(body | {"chattype": "group", "chatid": "g"}, "bot", START)
        as_markdown(text)


@pytest.mark.parametrize(
    ("typed", "heard"),
    [
        ("写给 a@b.cn", "写给 a@b.cn"),
        ("@鸿雁 @老王 帮助", "@老王 帮助"),
        ("帮助 @鸿雁", "帮助"),
        ("帮助 @鸿雁 政策", "帮助 @鸿雁 政策"),
        ("@鸿雁", ""),
        ("帮助 @", "帮助 @"),
    ],
)
def test_only_a_mention_of_us_is_taken_off(typed: str, heard: str) -> None:
    body = {"msgid": "1", "msgtype": "text", "from": {"userid": "x"}, "text": {"content": typed}}
    told = read(body | {"chattype": "group", "chatid": "g"}, "bot", START)
    assert isinstance(told, Told)
    assert told.inbound.text == heard


def test_an_address_in_a_text_stays_whole() -> None:
    text = "请打开 https://bot.example.org/p/a_b-c_d?x=1&y=*2 查看 a_b_c"
    assert as_markdown(text) == ("请打开 https://bot.example.org/p/a_b-c_d?x=1&y=*2 查看 a\\_b\\_c")


# Groups -------------------------------------------------------------------------------------------


async def test_in_a_group_a_public_command_is_answered_without_buttons(on: OnWeComBot) -> None:
    await on.done(on.bot.say(LI, "公开 家乡", GROUP))
    assert on.heard(GROUP) == ["公开：家乡"]
    assert (on.offered(GROUP), on.heard(LI)) == ([], [])


@pytest.mark.parametrize(
    "typed",
    [
        "@鸿雁回通 公开 家乡",
        "公开 家乡 @鸿雁回通",
        "  @鸿雁回通\u2005公开 家乡 ",
        "@鸿雁回通\n公开 家乡",
    ],
)
async def test_a_mention_may_stand_before_or_behind_the_words(on: OnWeComBot, typed: str) -> None:
    await on.done(on.bot.say_as_typed(LI, typed, GROUP))
    assert on.heard(GROUP) == ["公开：家乡"]


async def test_in_a_group_a_personal_command_leads_to_the_private_chat(on: OnWeComBot) -> None:
    await on.done(on.bot.say(LI, "回声 我的事", GROUP))
    assert len(on.heard(GROUP)) == 1
    assert "私聊" in on.heard(GROUP)[0]
    assert "我的事" not in on.heard(GROUP)[0]


@pytest.mark.parametrize("said", ["1", "今天天气好", ""])
async def test_in_a_group_idle_words_and_bare_numbers_are_passed_over(
    on: OnWeComBot, said: str
) -> None:
    push = await on.done(on.bot.say(LI, said, GROUP))
    assert (on.heard(GROUP), [one.status for one in push.tries]) == ([], [200])


async def test_in_a_group_somebodys_number_is_answered_with_a_warning(on: OnWeComBot) -> None:
    await on.done(on.bot.say(LI, "公开 电话13800138000", GROUP))
    assert len(on.heard(GROUP)) == 1
    assert "13800138000" not in on.heard(GROUP)[0]


async def test_fact_38_words_with_a_picture_among_them_are_heard(on: OnWeComBot) -> None:
    await on.done(on.bot.send_mixed(LI, "公开 有图", GROUP))
    assert on.heard(GROUP) == ["公开：有图"]


# Answers ------------------------------------------------------------------------------------------


async def test_who_enters_is_welcomed_in_plain_words(on: OnWeComBot) -> None:
    push = await on.done(on.bot.enter(WANG))
    assert push.answers == [{"msgtype": "text", "text": {"content": f"{Happening.FOLLOW}："}}]


async def test_a_thumb_is_answered_with_nothing(on: OnWeComBot) -> None:
    push = await on.done(on.bot.rate(WANG))
    assert ([one.status for one in push.tries], push.tries[0].error) == ([200], "")


async def test_choices_stand_on_a_card_under_the_text(on: OnWeComBot) -> None:
    push = await on.done(on.bot.say(WANG, "选"))
    assert push.answers[0]["msgtype"] == "stream_with_template_card"
    assert on.offered(WANG) == ["回声", "三句"]


async def test_many_choices_become_a_list(on: OnWeComBot) -> None:
    await on.says(WANG, "许多")
    assert on.offered(WANG) == [f"第{number}项" for number in range(1, 21)]
    await on.presses(WANG, "第20项")
    assert on.heard(WANG)[-1].startswith("没听懂")


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=25, unique=True))
def test_every_card_is_within_the_limits(labels: list[str]) -> None:
    check_card(choice_card([(f"k{n}", Choice(x, x)) for n, x in enumerate(labels)], "t-1"))


async def test_a_card_shows_what_was_chosen(on: OnWeComBot) -> None:
    await on.says(WANG, "选")
    push = await on.done(on.bot.press(WANG, "三句"))
    assert push.answers[0]["template_card"]["main_title"] == {"title": "已选：三句"}
    assert on.heard(WANG)[-1] == "一\n\n二\n\n三"


async def test_a_button_pressed_twice_is_done_once(on: OnWeComBot) -> None:
    await on.says(WANG, "选")
    await on.presses(WANG, "回声")
    again = await on.done(on.bot.press(WANG, "回声"))
    assert on.heard(WANG).count("（没有话）") == 1
    assert again.answers[0]["template_card"]["sub_title_text"] == AGAIN


async def test_a_press_told_twice_is_answered_alike_and_done_once(on: OnWeComBot) -> None:
    await on.says(WANG, "选")
    on.bot.repeat_next()
    await on.presses(WANG, "回声")
    await on.drain()
    assert on.heard(WANG).count("（没有话）") == 1


async def test_somebody_elses_button_is_refused_politely(on: OnWeComBot) -> None:
    await on.says(WANG, "选")
    on.bot.chats[LI].cards = on.bot.chats[WANG].cards
    push = await on.done(on.bot.press(LI, "回声"))
    assert push.answers[0]["template_card"]["sub_title_text"] == EXPIRED
    assert on.heard(LI) == []


async def test_an_old_button_has_expired(on: OnWeComBot) -> None:
    await on.says(WANG, "选")
    await on.clock.advance(days=31)
    push = await on.done(on.bot.press(WANG, "回声"))
    assert push.answers[0]["template_card"]["sub_title_text"] == EXPIRED


async def test_fact_34_a_slow_press_changes_the_card_in_time_and_is_answered_later(
    tmp_path: Path,
) -> None:
    slow = Slow()

    @command("选慢")
    def choose(context: Context, _argument: str) -> Reply:
        return say("请选", "慢")

    async with running(tmp_path, slow.word(), choose, patience=QUICK) as on:
        await on.says(WANG, "选慢")
        push = on.bot.press(WANG, "慢")
        await wait_for(slow.begun)
        await push.done()
        assert push.answers[0]["template_card"]["sub_title_text"] == AGAIN
        slow.free.set()
        while on.heard(WANG)[-1] != "慢慢来":
            await on.drain()
        assert [one.status for one in push.tries] == [200]


async def test_fact_34_a_press_that_cannot_be_taken_says_so_on_the_card(on: OnWeComBot) -> None:
    await on.says(WANG, "选")
    on.app.services.database.close()
    on.app.dispatcher.stop()
    with on.app.services.database.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE button RENAME TO gone")
        connection.commit()
    push = on.bot.press(WANG, "回声")
    await push.done()
    assert push.answers[0]["template_card"]["sub_title_text"] == LOST
    on.app.dispatcher.start()


# Streams ------------------------------------------------------------------------------------------


async def test_fact_36_a_slow_answer_is_begun_and_finished_when_asked_for(tmp_path: Path) -> None:
    slow = Slow()
    async with running(tmp_path, slow.word(), patience=QUICK) as on:
        push = on.bot.say(WANG, "慢")
        await wait_for(slow.begun)
        while not push.stream:
            await asyncio.sleep(0.001)
        assert (on.heard(WANG), push.finished) == ([WAIT], False)
        slow.free.set()
        await on.done(push)
        assert (on.heard(WANG), push.finished) == (["慢慢来"], True)


async def test_fact_36_another_replica_can_finish_a_stream(tmp_path: Path) -> None:
    slow = Slow()
    async with running(tmp_path, slow.word(), patience=QUICK) as on:
        push = on.bot.say(WANG, "慢")
        await wait_for(slow.begun)
        while not push.stream:
            await asyncio.sleep(0.001)
        slow.free.set()
        while not on.app.dispatcher._queue.empty():
            await asyncio.sleep(0.001)
        other = UrlBot(on.channel._settings, on.clock)
        other.attach(on.app.services)
        door = other.routes(on.app.receive)[0].endpoint  # type: ignore[attr-defined]
        ask = {"msgtype": "stream", "stream": {"id": push.stream}}
        answer = None
        while answer is None or not answer["stream"]["finish"]:
            answer = await door._answer(read(ask, "bot", on.clock.now()), on.clock.now())
        assert answer["stream"]["content"] == "慢慢来"
        await on.done(push)


async def test_fact_36_a_stream_that_takes_too_long_is_ended_by_us(on: OnWeComBot) -> None:
    door = on.channel.routes(on.app.receive)[0].endpoint  # type: ignore[attr-defined]
    now = on.clock.now()
    begun = int(now.timestamp()) - 330
    answer = await door._answer(Refresh(f"{begun}.never-heard"), now)
    assert answer["stream"] == {"id": f"{begun}.never-heard", "finish": True, "content": STILL}
    assert await door._answer(Refresh("nonsense"), now) is None


async def test_fact_37_what_is_in_flight_makes_room_when_it_is_answered(on: OnWeComBot) -> None:
    for _time in range(5):
        await on.says(WANG, "回声 好")
    assert on.heard(WANG) == ["好"] * 5


# Later answers ------------------------------------------------------------------------------------


async def test_fact_35_one_later_answer_for_each_word_and_then_the_row_waits(
    on: OnWeComBot,
) -> None:
    await on.says(WANG, "回声")
    await on.channel.send(address(on), Part("一"), "1-0")
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on), Part("二"), "2-0")
    assert caught.value.reason == "window"


async def test_fact_35_after_an_hour_there_is_no_way_any_more(on: OnWeComBot) -> None:
    await on.says(WANG, "回声")
    await on.clock.advance(3600)
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on), Part("一"), "1-0")
    assert (caught.value.reason, on.bot.calls[RESPONSE]) == ("window", 0)


async def test_fact_35_an_address_that_was_not_used_is_used_by_the_second_try(
    on: OnWeComBot,
) -> None:
    await on.says(WANG, "回声")
    on.bot.fail(RESPONSE, "status", value=502)
    with pytest.raises(SendError):
        await on.channel.send(address(on), Part("一"), "1-0")
    await on.channel.send(address(on), Part("一"), "1-0")
    assert on.heard(WANG)[-1] == "一"


async def test_fact_35_an_address_that_may_have_been_used_is_not_tried_again(
    on: OnWeComBot,
) -> None:
    await on.says(WANG, "回声")
    on.bot.fail(RESPONSE, "cut", "after")
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on), Part("一"), "1-0")
    assert caught.value.unknown
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on), Part("一"), "1-0")
    assert (caught.value.reason, on.bot.calls[RESPONSE]) == ("window", 1)


async def test_news_waits_for_their_next_word_and_then_leaves(on: OnWeComBot) -> None:
    await on.says(WANG, "回声")
    await on.clock.advance(3600)
    services, now = on.app.services, on.clock.now()
    with services.database.session() as session:
        person = session.exec(select(Contact)).one().person_id
        row = outbox_row(
            services, session, person, say("家书"), occasion="news", purpose=ANSWER, now=now
        )
        assert row is not None
        mailbox.enqueue(session.connection(), [row])
    await on.drain()
    assert states(on) == [(State.DEFERRED, "window")]
    await on.says(WANG, "回声 好")
    assert on.heard(WANG)[-2:] == ["好", "家书"]
    assert states(on) == [(State.SENT, "")]


async def test_who_never_wrote_cannot_be_written_to(on: OnWeComBot) -> None:
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on, LI), Part("素不相识"), "3-0")
    assert (caught.value.reason, on.bot.calls[RESPONSE]) == ("window", 0)


async def test_a_later_answer_with_choices_is_a_card(on: OnWeComBot) -> None:
    await on.says(WANG, "回声")
    await on.channel.send(address(on), Part("来吗？", (Choice("来", "回声 来"),)), "1-0")
    assert on.offered(WANG) == ["来"]
    await on.presses(WANG, "来")
    assert on.heard(WANG)[-1] == "来"


async def test_a_group_cannot_be_written_to_unasked(on: OnWeComBot) -> None:
    group = address_of(on.account.bot_id, group=GROUP)
    row = group_row(on.app.services, group, say("通知"), "news", on.clock.now())
    with on.app.services.database.transaction() as connection:
        mailbox.enqueue(connection, [row])
    await on.drain()
    assert states(on) == [(State.FAILED, "url_mode")]


async def test_a_file_cannot_be_sent_and_is_named(on: OnWeComBot) -> None:
    file = File("月报.xlsx", "application/vnd.ms-excel", b"x" * 10)
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on), Part("", file=file), "1-0")
    assert (caught.value.reason, caught.value.permanent) == ("no_files", True)


async def test_we_answer_only_at_the_platforms_own_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as on:
        on.bot.url = "http://127.0.0.1:9/elsewhere"
        await on.says(WANG, "回声")
        with pytest.raises(SendError) as caught:
            await on.channel.send(address(on), Part("一"), "1-0")
        assert caught.value.reason == "window"


async def test_an_address_to_answer_at_is_kept_sealed(on: OnWeComBot) -> None:
    push = await on.done(on.bot.say(WANG, "回声"))
    with on.app.services.database.engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT owner, url FROM answer_url").all()
    assert len(kept) == 1
    assert push.fields["response_url"] not in str(kept)
    assert WANG not in str(kept)


# Settings -----------------------------------------------------------------------------------------


def test_settings_choose_the_way(tmp_path: Path) -> None:
    account = Account()
    clock = SystemClock()
    by_url = bot_settings(tmp_path, account, "http://127.0.0.1:9")
    by_socket = settings_for(
        tmp_path, wecom_bot_id=account.bot_id, wecom_bot_secret=account.secret, channels=NAME
    )
    assert isinstance(build(by_url, clock), UrlBot)
    assert isinstance(build_channels(by_socket, clock)[NAME], SocketBot)
    assert (build(by_url, clock).check(), build(by_socket, clock).check()) == ([], [])


def test_both_ways_at_once_are_refused(tmp_path: Path) -> None:
    given = bot_settings(tmp_path, Account(), "http://127.0.0.1:9", wecom_bot_secret="x")
    built = build(given, SystemClock())
    assert "只能选一种" in built.check()[0]
    assert list(built.routes(lambda _inbound, _seconds: asyncio.sleep(0, ()))) == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    bare = build(settings_for(tmp_path), SystemClock())
    assert [line.partition("（")[0] for line in bare.check()] == [
        "缺少 HONGYAN_WECOM_BOT_TOKEN",
        "缺少 HONGYAN_WECOM_BOT_AES_KEY",
    ]
    short = bot_settings(tmp_path, Account(aes_key="short"), "http://127.0.0.1:9")
    assert "43个字符" in build(short, SystemClock()).check()[0]


async def test_check_finds_the_callback_reached(tmp_path: Path) -> None:
    async with Platforms() as platforms:
        nobody = bot_settings(tmp_path, Account(), platforms.url)
        refused = await UrlBot(nobody, platforms.clock).probe()
    assert [(one.fine, "HONGYAN_PUBLIC_URL" in one.advice) for one in refused] == [(False, True)]
    async with running(tmp_path) as on:
        known = bot_settings(
            tmp_path, on.account, on.platforms.url, public_url=on.webhook.rpartition("/callback")[0]
        )
        found = await UrlBot(known, on.clock).probe()
        wrong = known.model_copy(update={"public_url": on.platforms.url})
        missed = await UrlBot(wrong, on.clock).probe()
    assert [one.fine for one in (*found, *missed)] == [True, False]
    assert on.account.token not in str((*found, *missed))


async def test_the_secret_of_an_address_is_in_no_log(
    on: OnWeComBot, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    push = await on.done(on.bot.say(WANG, "回声"))
    on.bot.fail(RESPONSE, "html")
    with pytest.raises(SendError) as caught:
        await on.channel.send(address(on), Part("一"), "1-0")
    code = push.fields["response_url"].rpartition("=")[2]
    assert code not in caplog.text + str(caught.value) + repr(on.channel)
