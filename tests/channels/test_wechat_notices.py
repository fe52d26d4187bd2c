"""What members are told outside their reply window: by template as a service, or as they agreed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr
from sqlmodel import Session, col, select

from bot.channels.base import Notice
from bot.channels.calls import Caller
from bot.channels.wechat import build
from bot.channels.wechat.api import WeChatApi
from bot.channels.wechat.channel import WeChatChannel
from bot.channels.wechat.notices import Notices, Template, read_templates
from bot.clock import SystemClock
from bot.commands import Purpose
from bot.context import outbox_row
from bot.errors import SendError
from bot.messages import Address, say
from bot.settings import demo_settings
from handlers.purposes import DUTY, INVITATION, LETTER
from storage import mailbox
from storage.mailbox import Outbox
from storage.people import ConsentEntry, Contact, Grant, record_consent
from storage.states import State
from storage.wechat import NoticeGrant
from tests.channels.called import PROMPTLY
from tests.channels.on_wechat import SEND, WANG, OnWeChat, running
from tests.emulators.clock import VirtualClock
from tests.emulators.server import START, Platforms
from tests.emulators.wechat import Rules, WeChat
from tests.world import whole_catalog

pytestmark = pytest.mark.anyio

TEMPLATE, BIZSEND = "cgi-bin/message/template/send", "cgi-bin/message/subscribe/bizsend"
PUBLIC = "https://bot.example.org"
DUTY_TEMPLATE = "duty=T-duty:thing1=标题,time2=时间,thing3=单位"
LETTER_NOTICE = "letter=N-letter:thing1=标题,phrase2=来信"


@asynccontextmanager
async def office(
    folder: Path, *, rules: Rules | None = None, **values: str
) -> AsyncIterator[OnWeChat]:
    """The whole bot; 王小雁 follows it, has consented, and has not written for a week."""
    clock = VirtualClock(START)
    platforms = Platforms(clock, wechat=WeChat(clock, rules=rules))
    platforms.wechat.templates.add("T-duty")
    async with running(
        folder, platforms=platforms, known=whole_catalog(), public_url=PUBLIC, **values
    ) as on:
        await on.clock.advance(timedelta(days=7).total_seconds())
        with on.app.services.database.session() as session:
            entry = ConsentEntry(
                person_id=person(on, session),
                scope="profile",
                action="granted",
                version="1",
                notice_hash="",
                at=START,
                channel="wechat",
                source="",
                words="同意",
            )
            record_consent(session, entry)
        yield on


def contact(on: OnWeChat, session: Session) -> Contact:
    return session.exec(select(Contact).where(Contact.address == on.address(WANG))).one()


def person(on: OnWeChat, session: Session) -> int:
    return contact(on, session).person_id


async def writes(on: OnWeChat, text: str, purpose: Purpose) -> None:
    """A message for 王小雁 is queued, and what can leave leaves."""
    with on.app.services.database.session() as session:
        row = outbox_row(
            on.app.services,
            session,
            person(on, session),
            say(text),
            occasion=f"news:{text}",
            purpose=purpose,
            now=on.clock.now(),
        )
        assert row is not None
        mailbox.enqueue(session.connection(), [row])
    await on.app.delivery.until_idle()


def rows(on: OnWeChat) -> list[tuple[str, str]]:
    with on.app.services.database.reading() as session:
        found = session.exec(select(Outbox).order_by(col(Outbox.id))).all()
        return [(row.state, row.reason) for row in found if row.purpose != "trouble"]


def grants(on: OnWeChat) -> list[tuple[str, int, bool]]:
    with on.app.services.database.reading() as session:
        found = session.exec(select(NoticeGrant).order_by(NoticeGrant.template)).all()
        return [(grant.template, grant.left, grant.lasting) for grant in found]


async def until(on: OnWeChat, true: Callable[[], bool]) -> None:
    """Wait for what a callback sets going."""
    async with asyncio.timeout(PROMPTLY):
        while not true():
            await on.clock.advance(0)


# Service notices by template ---------------------------------------------------------------------


async def test_what_is_owed_is_told_by_template_with_a_page_that_shows_it(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_templates=DUTY_TEMPLATE) as on:
        text = "九月月报尚未提交，请回「月报」补上。\n需要帮忙回「人工」。"
        await writes(on, text, DUTY)
        assert (rows(on), on.wechat.calls[SEND]) == ([(State.SENT, "notice")], 0)
        told = on.wechat.told[-1]
        assert told["data"] == {
            "thing1": {"value": "九月月报尚未提交，请回「月报」补上。"},
            "time2": {"value": "2026年09月29日 09:00"},
            "thing3": {"value": "区域经济合作服务中心"},
        }
        page = told["url"].removeprefix(PUBLIC)
        assert page.startswith("/p/")
        address = on.webhook.removesuffix("/callback/wechat") + page
        async with aiohttp.ClientSession() as session, session.get(address) as got:
            shown = await got.text()
        assert (got.status, "需要帮忙回「人工」" in shown) == (200, True)


async def test_fact_14_the_result_comes_later(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_templates=DUTY_TEMPLATE) as on:
        await writes(on, "月报", DUTY)
        assert rows(on) == [(State.SENT, "notice")]
        await on.clock.advance(1)
        await until(on, lambda: rows(on) == [(State.DELIVERED, "notice")])


async def test_fact_14_who_blocked_us_is_marked(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_templates=DUTY_TEMPLATE) as on:
        on.wechat.block(WANG)
        await writes(on, "月报", DUTY)
        await on.clock.advance(1)
        await until(on, lambda: rows(on) == [(State.FAILED, "blocked")])
        with on.app.services.database.reading() as session:
            assert not contact(on, session).reachable


async def test_fact_14_a_failure_of_the_system_marks_nobody(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_templates=DUTY_TEMPLATE) as on:
        await writes(on, "月报", DUTY)
        with on.app.services.database.reading() as session:
            job = session.exec(select(Outbox.provider_id)).one()
        fields = {"MsgID": job, "Status": "failed: system failed"}
        await on.done(on.wechat.happen(WANG, "TEMPLATESENDJOBFINISH", fields))
        assert rows(on) == [(State.FAILED, "refused")]
        with on.app.services.database.reading() as session:
            assert contact(on, session).reachable


async def test_a_notice_whose_answer_is_lost_arrives_once(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_templates=DUTY_TEMPLATE) as on:
        on.wechat.fail(TEMPLATE, "cut", "after")
        await writes(on, "九月月报尚未提交。", DUTY)
        assert (rows(on), len(on.wechat.told)) == ([(State.SENT, "notice")], 1)


async def test_fact_13_who_unfollowed_gets_no_template(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_templates=DUTY_TEMPLATE) as on:
        on.wechat.members[WANG].following = False  # and the event has not arrived yet
        await writes(on, "月报", DUTY)
        assert (rows(on), on.wechat.calls[TEMPLATE]) == ([(State.FAILED, "unreachable")], 1)


async def test_inside_the_window_the_words_themselves_leave(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_templates=DUTY_TEMPLATE) as on:
        await on.says(WANG, "菜单")
        await writes(on, "月报", DUTY)
        assert (on.heard(WANG)[-1], on.wechat.told, rows(on)[-1]) == (
            "月报",
            [],
            (State.SENT, ""),
        )


async def test_without_a_template_it_waits_as_ever(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        await writes(on, "月报", DUTY)
        assert (rows(on), on.wechat.calls[TEMPLATE]) == ([(State.DEFERRED, "window")], 0)


@pytest.mark.parametrize("code", [40037, 47003, 48001])
async def test_a_template_that_is_refused_lets_it_wait_and_calls_for_help(
    tmp_path: Path, code: int
) -> None:
    async with office(tmp_path, wechat_templates=DUTY_TEMPLATE) as on:
        with on.app.services.database.session() as session:
            session.add(Grant(person_id=person(on, session), role="admin", granted_at=START))
        on.wechat.fail(TEMPLATE, "errcode", value=code)
        await writes(on, "月报", DUTY)
        await writes(on, "月报二", DUTY)
        assert (rows(on), on.wechat.calls[TEMPLATE]) == ([(State.DEFERRED, "window")] * 2, 1)
        with on.app.services.database.reading() as session:
            told = session.exec(select(Outbox).where(Outbox.purpose == "trouble")).all()
        assert len(told) == 1


# A letter never goes by template -----------------------------------------------------------------


def test_what_can_be_unsubscribed_from_cannot_be_declared_a_service() -> None:
    with pytest.raises(ValueError, match="letter"):
        Purpose("letter", "节日信", scope="profile", topic="节日信", service=True)


def test_no_purpose_of_the_bot_is_both() -> None:
    both = [p.name for p in whole_catalog().of(Purpose) if p.service and p.topic is not None]
    assert both == []


@pytest.mark.parametrize("purpose", [LETTER, INVITATION])
async def test_a_greeting_cannot_go_by_template_whatever_is_set(
    tmp_path: Path, purpose: Purpose
) -> None:
    setting = f"{purpose.name}=T-duty:thing1=标题"
    async with office(tmp_path) as on:
        services = replace(
            on.app.services,
            settings=on.app.services.settings.model_copy(update={"wechat_templates": setting}),
        )
        channel = WeChatChannel(services.settings, on.clock)
        channel.attach(services)
        refusal = f"「{purpose.label}」不是服务通知，平台不许用模板消息发"
        assert list(channel.check()) == [f"HONGYAN_WECHAT_TEMPLATES：{refusal}"]
        assert channel.noticed == frozenset()
        api = WeChatApi(Caller("http://127.0.0.1:9"), "wx1", SecretStr("s"), on.clock)
        notices = Notices(services, services.settings, api)  # as if nobody had checked
        assert notices.purposes == frozenset()
        address = Address.parse(on.address(WANG))
        with pytest.raises(SendError) as caught:
            await notices.tell(address, Notice(1, purpose.name, 1, "中秋快乐"), "1-0")
        assert caught.value.reason == "window"


# Subscription notices ----------------------------------------------------------------------------


async def test_fact_15_without_an_agreement_a_letter_waits_and_nothing_is_asked(
    tmp_path: Path,
) -> None:
    async with office(tmp_path, wechat_notices=LETTER_NOTICE) as on:
        await writes(on, "中秋快乐", LETTER)
        assert (rows(on), on.wechat.calls[BIZSEND]) == ([(State.DEFERRED, "window")], 0)


async def test_fact_15_an_agreement_is_used_up_by_one_letter(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_notices=LETTER_NOTICE) as on:
        await on.done(on.wechat.grant(WANG, ["N-letter"]))
        assert grants(on) == [("N-letter", 1, False)]
        await writes(on, "中秋快乐", LETTER)
        await writes(on, "重阳安康", LETTER)
        assert rows(on) == [(State.SENT, "notice"), (State.DEFERRED, "window")]
        assert (grants(on), on.wechat.calls[BIZSEND]) == ([("N-letter", 0, False)], 1)
        assert on.wechat.told[-1]["data"] == {
            "thing1": {"value": "中秋快乐"},
            "phrase2": {"value": "来信"},
        }


async def test_fact_15_two_letters_at_once_share_one_agreement_fairly(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_notices=LETTER_NOTICE) as on:
        await on.done(on.wechat.grant(WANG, ["N-letter"]))
        on.wechat.members[WANG].grants["N-letter"] = 5  # the platform would let more leave
        both = [writes(on, "中秋快乐", LETTER), writes(on, "重阳安康", LETTER)]
        await asyncio.gather(*both)
        assert sorted(rows(on)) == [(State.DEFERRED, "window"), (State.SENT, "notice")]
        assert on.wechat.calls[BIZSEND] == 1


async def test_fact_15_an_agreement_that_the_platform_does_not_know_is_struck_off(
    tmp_path: Path,
) -> None:
    async with office(tmp_path, wechat_notices=LETTER_NOTICE) as on:
        await on.done(on.wechat.grant(WANG, ["N-letter", "N-letter"]))
        on.wechat.members[WANG].grants.clear()
        await writes(on, "中秋快乐", LETTER)
        assert (rows(on), grants(on)) == ([(State.DEFERRED, "window")], [("N-letter", 0, False)])


async def test_an_agreement_comes_back_when_the_notice_certainly_did_not_leave(
    tmp_path: Path,
) -> None:
    async with office(tmp_path, wechat_notices=LETTER_NOTICE) as on:
        await on.done(on.wechat.grant(WANG, ["N-letter"]))
        on.wechat.fail(BIZSEND, "errcode", value=45009)
        await writes(on, "中秋快乐", LETTER)
        assert (rows(on), grants(on)) == ([(State.QUEUED, "quota")], [("N-letter", 1, False)])


async def test_an_agreement_is_spent_when_nobody_knows_whether_the_notice_left(
    tmp_path: Path,
) -> None:
    async with office(tmp_path, wechat_notices=LETTER_NOTICE) as on:
        await on.done(on.wechat.grant(WANG, ["N-letter"]))
        on.wechat.fail(BIZSEND, "cut", "after")
        await writes(on, "中秋快乐", LETTER)
        assert (rows(on), grants(on)) == (
            [(State.UNKNOWN, "no_answer")],
            [("N-letter", 0, False)],
        )


async def test_a_letter_that_waited_leaves_when_its_reader_agrees(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_notices=LETTER_NOTICE) as on:
        await writes(on, "中秋快乐", LETTER)
        assert rows(on) == [(State.DEFERRED, "window")]
        await on.done(on.wechat.grant(WANG, ["N-letter"]))
        assert rows(on) == [(State.SENT, "notice")]


async def test_a_lasting_agreement_is_never_used_up(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_notices="letter=长期 N-letter:thing1=标题") as on:
        await on.done(on.wechat.grant(WANG, ["N-letter"], lasting=True))
        for text in ("中秋快乐", "重阳安康"):
            await writes(on, text, LETTER)
        assert (rows(on), grants(on)) == (
            [(State.SENT, "notice")] * 2,
            [("N-letter", 0, True)],
        )
        await on.done(on.wechat.take_back(WANG, ["N-letter"]))
        assert grants(on) == [("N-letter", 0, False)]


async def test_the_platforms_word_on_a_subscription_notice_is_kept(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_notices=LETTER_NOTICE) as on:
        await on.done(on.wechat.grant(WANG, ["N-letter"]))
        await writes(on, "中秋快乐", LETTER)
        await on.clock.advance(1)
        await until(on, lambda: rows(on) == [(State.DELIVERED, "notice")])


@pytest.mark.parametrize("templates", [["a"], ["a", "b"], ["a", "b", "c"]])
async def test_fact_16_one_agreement_and_several_are_read_alike(
    tmp_path: Path, templates: list[str]
) -> None:
    async with office(tmp_path) as on:
        await on.done(on.wechat.grant(WANG, templates))
        assert grants(on) == [(template, 1, False) for template in templates]


async def test_fact_16_an_agreement_that_is_told_twice_counts_once(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        on.wechat.repeat_next()
        push = await on.done(on.wechat.grant(WANG, ["a"]))
        assert (await on.status(push, 1), grants(on)) == (200, [("a", 1, False)])
        await on.clock.advance(1)
        await on.done(on.wechat.grant(WANG, ["a"]))
        assert grants(on) == [("a", 2, False)]


async def test_fact_16_a_refusal_ends_what_was_agreed(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        await on.done(on.wechat.grant(WANG, ["a", "b"]))
        await on.clock.advance(1)
        await on.done(on.wechat.grant(WANG, ["a"], accept=False))
        assert grants(on) == [("a", 0, False), ("b", 1, False)]


async def test_an_agreement_of_nobody_we_know_is_taken_and_forgotten(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        item = {"TemplateId": "a", "SubscribeStatusString": "accept", "PopupScene": "2"}
        push = on.wechat.happen(
            WANG, "subscribe_msg_popup_event", {"SubscribeMsgPopupEvent": {"List": item}}
        )
        push.fields["FromUserName"] = "oNobody"
        await on.done(push)
        assert (push.tries[-1].status, grants(on)) == (200, [])


# Settings ----------------------------------------------------------------------------------------


def test_templates_are_read_from_a_setting() -> None:
    assert read_templates("duty=T_1-x:thing1=标题，time2=时间；letter=长期 N2:thing1=鸿雁来信") == {
        "duty": Template("T_1-x", (("thing1", "标题"), ("time2", "时间"))),
        "letter": Template("N2", (("thing1", "鸿雁来信"),), lasting=True),
    }
    assert read_templates("") == {}


@pytest.mark.parametrize("words", ["duty", "duty=", "duty=T1", "duty=T1:thing1", "duty=T1:thing1="])
def test_a_template_without_all_it_needs_is_named_by_check(words: str) -> None:
    channel = build(demo_settings(wechat_templates=words), SystemClock())
    assert any("HONGYAN_WECHAT_TEMPLATES" in line for line in channel.check())


async def test_a_purpose_that_there_is_not_is_named_by_check(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        setting = {"wechat_notices": "greeting=N1:thing1=标题"}
        settings = on.app.services.settings.model_copy(update=setting)
        channel = WeChatChannel(settings, on.clock)
        channel.attach(replace(on.app.services, settings=settings))
        assert list(channel.check()) == ["HONGYAN_WECHAT_NOTICES：没有叫「greeting」的用途"]
