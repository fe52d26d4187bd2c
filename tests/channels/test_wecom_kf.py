"""Customer service: fetched once, five messages in 48 hours, handed over to a person and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlmodel import col, select, update

from bot.app import App
from bot.channels.wecom.kf.channel import KfChannel
from bot.commands import command
from bot.context import Context, outbox_row
from bot.errors import SendError
from bot.messages import Address, Choice, File, Part, Reply, say
from bot.purposes import ANSWER
from storage import mailbox
from storage.conversations import Conversation, Led, Taken, waiting
from storage.cursors import move_cursor, read_cursor
from storage.dialogs import Draft
from storage.mailbox import Inbox, Outbox
from storage.people import Contact
from storage.states import State
from tests.channels.called import SHORT
from tests.channels.harness import installed
from tests.channels.on_wecom_kf import (
    LI,
    SEND,
    SYNC,
    WANG,
    OnKf,
    running,
    wecom_settings,
)
from tests.emulators.wecom_kf import BOT, ENDED, HUMAN, NEW, POOL

pytestmark = pytest.mark.anyio

GREET = "cgi-bin/kf/send_msg_on_event"
TRANS = "cgi-bin/kf/service_state/trans"
STATE = "cgi-bin/kf/service_state/get"


@command("人工")
def human(context: Context, _argument: str) -> Reply:
    return say("已转告工作人员。").handing_over()


@pytest.fixture
async def on(tmp_path: Path, anyio_backend: str) -> AsyncIterator[OnKf]:
    async with running(tmp_path, human) as made:
        yield made


def contact(on: OnKf, who: str = WANG) -> Contact:
    with on.app.services.database.reading() as session:
        return session.exec(select(Contact).where(Contact.address == on.address(who))).one()


def write(on: OnKf, *texts: str) -> None:
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


def news(on: OnKf) -> list[tuple[str, str]]:
    """State and reason of every piece of news, in order."""
    with on.app.services.database.reading() as session:
        rows = session.exec(
            select(Outbox).where(col(Outbox.occasion).startswith("news:")).order_by(col(Outbox.id))
        ).all()
        return [(row.state, row.reason) for row in rows]


def cursor(on: OnKf) -> str:
    with on.app.services.database.reading() as session:
        return read_cursor(session.connection(), f"wecom_kf:{on.kf.account}")


def led(on: OnKf, who: str = WANG) -> str | None:
    with on.app.services.database.reading() as session:
        found = session.get(Conversation, on.address(who))
        return found.led if found else None


async def drain(on: OnKf) -> None:
    await on.app.delivery.until_idle()


async def later(on: OnKf, **span: float) -> None:
    """Let a span pass, and what comes of it arrive."""
    await on.clock.advance(**span)
    for _ in range(50):
        await asyncio.sleep(0.01)
    await on.channel.settled()
    await drain(on)


# Fetching ----------------------------------------------------------------------------------------


async def test_fact_59_a_callback_without_content_is_enough(on: OnKf) -> None:
    push = on.kf.say(WANG, "回声 家乡好")
    assert "Content" not in push.fields
    await on.done(push)
    assert on.kf.heard(WANG) == ["家乡好"]


async def test_fact_59_two_callbacks_at_once_take_a_batch_once(on: OnKf) -> None:
    other = KfChannel(
        wecom_settings(Path(), on.wecom.corporation, f"{on.platforms.url}/qy"),
        on.clock,
        timeout=SHORT,
    )
    other.attach(on.app.services)
    on.kf.mute()
    for number in range(5):
        on.kf.say(WANG, f"回声 {number}")
    try:
        await asyncio.gather(on.channel.fetch(on.kf.account), other.fetch(on.kf.account))
        with on.app.services.database.reading() as session:
            assert len(waiting(session.connection(), "wecom_kf")) == 5
        await asyncio.gather(on.channel.answer(on.app.receive), other.answer(on.app.receive))
        await drain(on)
    finally:
        await other.close()
    assert on.kf.heard(WANG) == ["0", "1", "2", "3", "4"]


async def test_fact_59_an_empty_batch_with_more_behind_it_is_read_on(on: OnKf) -> None:
    on.kf.stutter(2)
    before = on.wecom.calls[SYNC]
    await on.says(WANG, "回声 还在")
    assert on.kf.heard(WANG) == ["还在"]
    assert on.wecom.calls[SYNC] == before + 3


async def test_fact_59_the_cursor_moves_with_the_batch(on: OnKf) -> None:
    on.kf.mute()
    on.kf.say(WANG, "回声 一")
    start = cursor(on)
    await on.channel.fetch(on.kf.account)
    assert cursor(on) != start
    with on.app.services.database.reading() as session:
        (row,) = waiting(session.connection(), "wecom_kf")
    assert json.loads(row[2])["text"]["content"] == "回声 一"


async def test_fact_59_what_was_taken_over_survives_the_process(on: OnKf) -> None:
    on.kf.mute()
    on.kf.say(WANG, "回声 没丢")
    await on.channel.fetch(on.kf.account)
    app = _another(on)
    channel = app.channels["wecom_kf"]
    assert isinstance(channel, KfChannel)
    app.dispatcher.start()
    try:
        await channel.answer(app.receive)
        await drain(on)
    finally:
        app.dispatcher.stop()
        await channel.close()
        app.close()
    assert on.kf.heard(WANG) == ["没丢"]


def _another(on: OnKf) -> App:
    """Another process on the same database."""
    folder = Path(str(on.app.services.database.url.database)).parent
    settings = wecom_settings(folder, on.wecom.corporation, f"{on.platforms.url}/qy")
    return installed(settings, on.clock, KfChannel(settings, on.clock, timeout=SHORT))


async def test_fact_59_a_message_that_cannot_be_taken_is_tried_again(on: OnKf) -> None:
    on.kf.mute()
    on.kf.say(WANG, "回声 再来")
    await on.channel.fetch(on.kf.account)

    async def broken(inbound: object, seconds: float) -> tuple[Part, ...]:
        raise RuntimeError("no database")

    with pytest.raises(SendError):
        await on.channel.answer(broken)
    await on.channel.answer(on.app.receive)
    await drain(on)
    assert on.kf.heard(WANG) == ["再来"]


async def test_fact_59_a_token_older_than_ten_minutes_is_done_without(on: OnKf) -> None:
    on.kf.mute()
    on.kf.say(WANG, "回声 晚到")
    token = next(iter(reversed(on.kf._tokens)))
    await on.clock.advance(minutes=11)
    await on.channel.fetch(on.kf.account, token)
    await on.channel.answer(on.app.receive)
    await drain(on)
    assert on.kf.heard(WANG) == ["晚到"]


async def test_fact_59_a_lost_callback_is_made_up_for_by_looking(on: OnKf) -> None:
    on.kf.mute()
    on.kf.say(WANG, "回声 没听到")
    await on.channel.round(on.app.receive)
    await drain(on)
    assert on.kf.heard(WANG) == ["没听到"]


async def test_a_first_reading_answers_nothing_old(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        on.kf.mute()
        on.kf.say(LI, "回声 前天的话")
        await on.clock.advance(hours=30)
        on.kf.say(WANG, "回声 刚才的话")
        with on.app.services.database.transaction() as connection:
            move_cursor(connection, f"wecom_kf:{on.kf.account}", "", on.clock.now())
        await on.channel.round(on.app.receive)
        await drain(on)
        assert (on.kf.heard(LI), on.kf.heard(WANG)) == ([], ["刚才的话"])


async def test_the_messages_of_one_member_are_answered_in_order(on: OnKf) -> None:
    on.kf.mute()
    for number in range(4):
        on.kf.say(WANG, f"回声 {number}")
        on.kf.say(LI, f"回声 {number}")
    await on.channel.round(on.app.receive)
    await drain(on)
    assert on.kf.heard(WANG) == on.kf.heard(LI) == ["0", "1", "2", "3"]


# Sending -----------------------------------------------------------------------------------------


async def test_fact_60_the_sixth_message_waits_for_a_word(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    write(on, *"二三四五六")
    await drain(on)
    assert on.kf.heard(WANG) == ["一", "二", "三", "四", "五"]
    assert news(on)[-1] == (State.DEFERRED, "window")
    await on.says(WANG, "回声 七")
    assert sorted(on.kf.heard(WANG)[5:]) == ["七", "六"]


async def test_fact_60_a_sixth_that_left_is_a_failure_with_its_reason(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    on.kf.customers[WANG].left = 0  # somebody else has used them up
    write(on, "二")
    await drain(on)
    assert news(on) == [(State.SENT, "")]
    await later(on, seconds=2)
    assert news(on) == [(State.FAILED, "超过5条，等对方来信")]
    write(on, "三")
    await drain(on)
    assert news(on)[-1] == (State.DEFERRED, "window")


async def test_after_48_hours_nothing_leaves(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    await on.clock.advance(hours=49)
    write(on, "二")
    await drain(on)
    assert news(on) == [(State.DEFERRED, "window")]


async def test_a_long_answer_goes_on_when_they_write_again(on: OnKf) -> None:
    await on.says(WANG, "很长")
    assert len(on.kf.heard(WANG)) == 5
    await on.says(WANG, "回声 继续")
    assert len(on.kf.heard(WANG)) >= 7
    assert "第300句话，家乡的草绿了。" in "".join(on.kf.heard(WANG))


async def test_fact_61_a_message_whose_answer_was_lost_arrives_once(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    on.wecom.fail(SEND, "cut", "after")
    write(on, "二")
    await drain(on)
    assert news(on) == [(State.QUEUED, "no_answer")]
    await later(on, minutes=1)
    assert news(on) == [(State.SENT, "")]
    assert on.kf.heard(WANG) == ["一", "二"]


async def test_fact_61_the_same_key_is_the_same_message(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    address = Address.parse(on.address(WANG))
    first = await on.channel.send(address, Part("二"), "9-0")
    assert await on.channel.send(address, Part("二"), "9-0") == first
    assert on.kf.heard(WANG) == ["一", "二"]


async def test_who_wants_no_more_messages_is_left_alone(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    await on.done(on.kf.reject(WANG))
    assert not contact(on).reachable
    await on.done(on.kf.reject(WANG, False))
    assert contact(on).reachable


async def test_a_refusal_that_is_told_afterwards_ends_the_address(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    on.kf.customers[WANG].rejects = True
    write(on, "二")
    await drain(on)
    await later(on, seconds=2)
    assert news(on) == [(State.FAILED, "blocked")]
    assert not contact(on).reachable


async def test_choices_are_a_menu_of_at_most_ten(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    address = Address.parse(on.address(WANG))
    for count, kind in ((10, "msgmenu"), (11, "text")):
        choices = tuple(Choice(f"第{n}项", str(n)) for n in range(count))
        await on.channel.send(address, Part("请选", choices), f"{count}-0")
        assert on.kf.sent[-1]["msgtype"] == kind


async def test_a_text_too_long_for_a_menu_is_a_text(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    part = Part("请选" * 200, (Choice("是", "是"),))
    await on.channel.send(Address.parse(on.address(WANG)), part, "1-0")
    assert on.kf.sent[-1]["msgtype"] == "text"


async def test_a_file_is_handed_over(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    file = File("报名表.xlsx", "application/vnd.ms-excel", b"content of a sheet")
    await on.channel.send(Address.parse(on.address(WANG)), Part("", file=file), "1-0")
    assert on.kf.heard(WANG)[-1] == "[文件] 报名表.xlsx"


async def test_a_files_upload_without_answer_has_sent_nothing(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    on.wecom.fail("cgi-bin/media/upload", "cut", "after")
    file = File("报名表.xlsx", "application/vnd.ms-excel", b"content of a sheet")
    with pytest.raises(SendError) as caught:
        await on.channel.send(Address.parse(on.address(WANG)), Part("", file=file), "1-0")
    assert not caught.value.unknown


async def test_a_file_of_theirs_is_not_fetched(on: OnKf) -> None:
    await on.done(on.kf.send_file(WANG))
    assert on.kf.heard(WANG) == ["没听懂：file"]
    assert on.wecom.calls["cgi-bin/media/get"] == 0


# Greeting ----------------------------------------------------------------------------------------


async def test_who_enters_is_greeted_by_the_code(on: OnKf) -> None:
    await on.done(on.kf.enter(WANG, "group_one"))
    assert on.kf.heard(WANG) == ["follow：group_one"]
    assert (on.wecom.calls[GREET], on.wecom.calls[SEND]) == (1, 0)


async def test_who_enters_again_is_not_greeted_again(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    await on.done(on.kf.enter(WANG))
    assert on.kf.heard(WANG) == ["一"]


async def test_after_20_seconds_the_code_greets_nobody(on: OnKf) -> None:
    on.kf.mute()
    on.kf.enter(WANG)
    await on.clock.advance(21)
    await on.channel.round(on.app.receive)
    await drain(on)
    assert (on.kf.heard(WANG), on.wecom.calls[GREET]) == ([], 0)


async def test_a_code_that_was_used_gives_way_to_the_ordinary_way(on: OnKf) -> None:
    on.wecom.fail(GREET, "errcode", value=95015)
    await on.done(on.kf.enter(WANG))
    assert (on.wecom.calls[GREET], on.wecom.calls[SEND]) == (1, 1)


# A person leads ----------------------------------------------------------------------------------


async def test_fact_62_after_人工_the_bot_is_silent_until_the_person_ends(on: OnKf) -> None:
    await on.says(WANG, "人工")
    assert (on.kf.customers[WANG].state, led(on)) == (POOL, Led.QUEUE)
    await on.done(on.kf.take(WANG, "zhangsan"))
    await on.says(WANG, "回声 给人看的话")
    assert on.kf.heard(WANG) == ["已转告工作人员。"]
    await on.done(on.kf.finish(WANG))
    assert led(on) == Led.ENDED
    await on.says(WANG, "回声 又是我")
    assert on.kf.heard(WANG)[-1] == "又是我"
    assert (on.kf.customers[WANG].state, led(on)) == (NEW, Led.BOT)


async def test_fact_62_what_is_to_be_said_meanwhile_waits(on: OnKf) -> None:
    await on.says(WANG, "人工")
    await on.done(on.kf.take(WANG, "zhangsan"))
    write(on, "活动改期了")
    await drain(on)
    assert news(on) == [(State.DEFERRED, "window")]
    await on.done(on.kf.finish(WANG))
    await on.says(WANG, "回声 好了")
    assert news(on) == [(State.SENT, "")]
    assert sorted(on.kf.heard(WANG)[1:]) == ["好了", "活动改期了"]


async def test_fact_62_a_state_that_we_did_not_know_blocks_too(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    on.kf.customers[WANG].state = HUMAN
    write(on, "二")
    await drain(on)
    assert (news(on), led(on)) == ([(State.DEFERRED, "window")], Led.PERSON)


async def test_a_lost_end_of_a_session_is_found_out(on: OnKf) -> None:
    await on.says(WANG, "人工")
    on.kf.customers[WANG].state = ENDED  # and the event got lost
    await on.clock.advance(minutes=11)
    await on.says(WANG, "回声 还有人吗")
    assert on.kf.heard(WANG)[-1] == "还有人吗"
    assert on.wecom.calls[STATE] == 1


async def test_whom_nobody_takes_is_the_bots_again(on: OnKf) -> None:
    await on.says(WANG, "人工")
    await on.clock.advance(hours=13)
    await on.says(WANG, "回声 天亮了")
    assert (on.kf.heard(WANG)[-1], on.kf.customers[WANG].state) == ("天亮了", ENDED)
    await on.says(WANG, "回声 有人吗")
    assert on.kf.heard(WANG)[1:] == ["天亮了", "有人吗"]


async def test_a_named_servicer_takes_over_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, human, wecom_kf_servicer="zhangsan") as on:
        on.kf.serve("zhangsan")
        await on.says(WANG, "人工")
        assert (on.kf.customers[WANG].state, led(on)) == (HUMAN, Led.PERSON)


async def test_while_nobody_can_take_over_the_bot_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, human, wecom_kf_servicer="zhangsan") as on:
        on.kf.serve("zhangsan", False)
        await on.says(WANG, "人工")
        await on.says(WANG, "回声 还在")
        assert on.kf.heard(WANG) == ["已转告工作人员。", "还在"]
        assert on.kf.customers[WANG].state in (NEW, BOT)


async def test_what_the_staff_say_is_not_ours(on: OnKf) -> None:
    await on.says(WANG, "人工")
    await on.done(on.kf.take(WANG, "zhangsan"))
    on.kf.staff_says(WANG, "您好，我是小张")
    await on.done(on.kf.poke())
    with on.app.services.database.reading() as session:
        assert session.exec(select(Taken)).all() == []
        said = session.exec(select(Inbox.key)).all()
    assert len(said) == 1


async def test_handing_over_twice_is_no_trouble(on: OnKf) -> None:
    await on.says(WANG, "人工")
    on.kf.customers[WANG].state = NEW
    with on.app.services.database.transaction() as connection:
        connection.execute(update(Conversation).values(led=Led.BOT))
    await on.says(WANG, "人工")
    assert on.wecom.calls[TRANS] == 2


# Taken back --------------------------------------------------------------------------------------


async def test_fact_63_what_was_taken_back_before_it_was_read_is_never_read(on: OnKf) -> None:
    on.kf.mute()
    on.kf.say(WANG, "回声 我的秘密")
    await on.channel.fetch(on.kf.account)
    on.kf.recall(WANG)
    await on.channel.fetch(on.kf.account)
    with on.app.services.database.reading() as session:
        bodies = [body for _, _, body in waiting(session.connection(), "wecom_kf")]
    assert "秘密" not in "".join(bodies)
    await on.channel.answer(on.app.receive)
    await drain(on)
    assert "我的秘密" not in on.kf.heard(WANG)


async def test_fact_63_both_in_one_batch_leave_nothing(on: OnKf) -> None:
    on.kf.mute()
    on.kf.say(WANG, "回声 我的秘密")
    on.kf.recall(WANG)
    await on.channel.round(on.app.receive)
    await drain(on)
    assert "我的秘密" not in on.kf.heard(WANG)


async def test_fact_63_an_answer_taken_back_is_asked_for_again(tmp_path: Path) -> None:
    async with running(tmp_path, whole=True) as on:
        for text in ("登记", "同意", "是", "1", "1"):
            await on.says(WANG, text)
        asked = on.kf.heard(WANG)[-1]
        await on.says(WANG, "某某旗")
        assert on.kf.heard(WANG)[-1] != asked
        await on.done(on.kf.recall(WANG))
        assert on.kf.heard(WANG)[-1].startswith("您撤回的那条已删去。")
        with on.app.services.database.reading() as session:
            draft = session.exec(select(Draft)).one()
        assert "某某旗" not in draft.state


async def test_fact_63_what_was_taken_back_too_late_changes_nothing(on: OnKf) -> None:
    await on.says(WANG, "回声 一")
    await on.done(on.kf.recall(WANG))
    assert on.kf.heard(WANG) == ["一"]


# Checking ----------------------------------------------------------------------------------------


async def test_probing_says_whether_anybody_would_take_over(on: OnKf) -> None:
    findings = await on.channel.probe()
    assert [finding.fine for finding in findings] == [True, False]
    on.kf.serve("zhangsan")
    findings = await on.channel.probe()
    assert [finding.what for finding in findings] == ["客服账号1个", "第1个账号接待人员1人"]


async def test_probing_without_the_right_says_where_to_click(on: OnKf) -> None:
    on.wecom.fail("cgi-bin/kf/account/list", "errcode", value=48002)
    (finding,) = await on.channel.probe()
    assert (finding.fine, "可调用接口的应用" in finding.advice) == (False, True)


async def test_too_many_readings_make_it_wait(on: OnKf) -> None:
    on.wecom.fail(SYNC, "errcode", value=45009)
    with pytest.raises(SendError) as caught:
        await on.channel.round(on.app.receive)
    assert (caught.value.retry_after or 0) > 0
