"""Whom a campaign did not reach: by name and reason, tried again, or settled by a person."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from openpyxl import load_workbook
from openpyxl.worksheet.worksheet import Worksheet
from sqlmodel import select, update

from bot.errors import SendError, UserError
from bot.messages import Part
from handlers.receipt_export import ACTION, PAGE, RECEIPTS, WRITE
from storage.audit import VIEWED, AuditEntry
from storage.campaigns import Campaign, CampaignState
from storage.mailbox import Outbox
from storage.people import Grant, OneTimeCode
from storage.profiles import MemberProfile
from storage.states import State
from tests.people import HOMES, register_many, who
from tests.world import World

LOST = SendError("no_answer", unknown=True)
BLOCKED = SendError("blocked", permanent=True)
REFUSED = SendError("render", permanent=True)


@pytest.fixture
def sent(make_world: Callable[..., World]) -> Callable[..., World]:
    """A notice to some people, of which the first sends meet these failures."""

    def send(people: int, *failures: SendError) -> World:
        world = make_world(start="2026-06-20 10:00")
        register_many(world, people, homes=HOMES[:1])
        world.grant("小王", "coordinator")
        answer = world.talk(
            "小王", "群发", "3", "政策更新", "政策汇编已更新。", "全体", "立即", "提交"
        )
        found = re.search(r"确认发送 (\w{4})", answer)
        assert found, answer
        world.channel.failures += failures
        world.says("小王", f"确认发送 {found[1]}")
        world.drain()
        world.passes(minutes=1)
        return world

    return send


def arrived(world: World, count: int) -> int:
    texts = [text for index in range(count) for text in world.received(who(index))]
    return len([text for text in texts if text.startswith("政策更新")])


def test_everybody_reached_is_said_in_a_line(sent: Callable[..., World]) -> None:
    world = sent(3)
    assert world.says("小王", "群发 未达 B-0001") == "B-0001「政策更新」名单上的人都收到了。"
    assert world.says("小王", "群发 重发 B-0001") == "B-0001 没有失败的，不用重发。"
    assert world.says("小王", "群发 未知 B-0001") == "B-0001 没有说不准的。"


def test_who_was_not_reached_is_listed_with_the_reason_and_the_look_is_noted(
    sent: Callable[..., World],
) -> None:
    world = sent(4, REFUSED, LOST)
    answer = world.says("小王", "群发 未达 b1")
    assert "还没收到的2人：" in answer
    assert "：失败，内容对不上" in answer
    assert "：未知，平台没有答复" in answer
    with world.database.reading() as session:
        looks = session.exec(select(AuditEntry).where(AuditEntry.action == VIEWED)).all()
    assert [look.reason for look in looks if "未达" in look.reason] == ["B-0001 未达名单"] * 2


def test_phones_are_shown_only_for_a_reason(sent: Callable[..., World]) -> None:
    world = sent(2, REFUSED)
    assert world.says("小王", "群发 未达 B-0001 电话").startswith("看电话须写事由")
    assert "没有留电话" in world.says("小王", "群发 未达 B-0001 电话 逐一通知")


def test_a_long_list_comes_in_pages(sent: Callable[..., World]) -> None:
    world = sent(33, *[REFUSED] * 31)
    first = world.says("小王", "群发 未达 B-0001")
    assert "还没收到的31人（第1/2页）" in first
    assert len(re.findall("：失败", first)) == 30
    assert len(re.findall("：失败", world.says("小王", "群发 未达 B-0001 2"))) == 1
    assert world.says("小王", "群发 未达 B-0001 3").startswith("只有2页")


def test_only_the_failed_are_written_to_again(sent: Callable[..., World]) -> None:
    world = sent(4, REFUSED, REFUSED)
    assert arrived(world, 4) == 2
    assert "有2人没有发成（内容对不上2）" in world.says("小王", "群发 重发 B-0001")
    assert arrived(world, 4) == 2
    assert world.says("小王", "群发 重发 B-0001 确认").startswith("已重发给2人")
    world.drain()
    assert [world.received(who(i))[-1][:4] for i in range(4)] == ["政策更新"] * 4
    assert arrived(world, 4) == 4
    world.passes(minutes=1)
    assert "已完成：已发 4/4" in world.says("小王", "群发 进度 B-0001")


def test_who_has_blocked_us_is_not_written_to_by_trying_again(sent: Callable[..., World]) -> None:
    world = sent(2, BLOCKED)
    world.says("小王", "群发 重发 B-0001 确认")
    world.drain()
    with world.database.reading() as session:
        states = session.exec(select(Outbox.state).where(Outbox.occasion.contains("B-0001"))).all()
    assert State.QUEUED not in states


def test_what_is_uncertain_is_never_tried_again_with_the_failed(
    sent: Callable[..., World],
) -> None:
    world = sent(3, LOST)
    assert world.says("小王", "群发 重发 B-0001 确认") == "B-0001 没有失败的，不用重发。"
    assert "有1人说不准到没到" in world.says("小王", "群发 未知 B-0001")
    assert arrived(world, 3) == 2


@pytest.mark.parametrize(
    ("word", "answer", "copies"), [("再发", "1人再发一次", 3), ("算送达", "1人记为已发出", 2)]
)
def test_a_person_decides_what_is_uncertain(
    word: str, answer: str, copies: int, sent: Callable[..., World]
) -> None:
    world = sent(3, LOST)
    assert answer in world.says("小王", f"群发 未知 B-0001 {word}")
    world.drain()
    assert arrived(world, 3) == copies
    assert world.says("小王", "群发 未知 B-0001") == "B-0001 没有说不准的。"


def test_what_a_platform_took_and_gave_back_is_not_tried_again(
    sent: Callable[..., World],
) -> None:
    world = sent(2, REFUSED)
    with world.database.session() as session:
        row = session.exec(select(Outbox).where(Outbox.state == State.FAILED)).one()
        row.provider_id = "m9"
        session.add(row)
    assert "平台收下又退回的" in world.says("小王", "群发 重发 B-0001 确认")


def test_a_cancelled_campaign_is_not_woken(sent: Callable[..., World]) -> None:
    world = sent(2, REFUSED)
    with world.database.session() as session:
        campaign = session.exec(select(Campaign)).one()
        campaign.state = CampaignState.CANCELLED
        session.add(campaign)
    assert world.says("小王", "群发 重发 B-0001") == "B-0001 已取消，不能再发。"


def test_what_was_for_another_day_is_not_sent_again(sent: Callable[..., World]) -> None:
    world = sent(2, REFUSED)
    with world.database.session() as session:
        campaign = session.exec(select(Campaign)).one()
        campaign.expires_at = world.clock.now()
        session.add(campaign)
    assert "时间已过" in world.says("小王", "群发 重发 B-0001")


def test_who_got_it_is_listed_by_name_with_the_time(sent: Callable[..., World]) -> None:
    world = sent(3, REFUSED)
    answer = world.says("小王", "谁收到了 B-0001")
    assert answer.startswith("B-0001「政策更新」收到的2人：\n")
    assert len(re.findall("：已发出，memory 2026-06-20 10:0", answer)) == 2


@pytest.mark.parametrize("words", ["谁还没收到", "失败原因 政策"])
def test_without_a_number_the_last_campaign_is_meant(
    words: str, sent: Callable[..., World]
) -> None:
    world = sent(2, REFUSED)
    assert "人：" in world.says("小王", words)
    assert "有1人没有发成" in world.says("小王", "只重发失败的")


def workbook(part: Part) -> list[tuple[str | None, ...]]:
    assert part.file is not None
    page = load_workbook(BytesIO(part.file.content)).active
    assert isinstance(page, Worksheet)
    return [tuple(str(cell) if cell else None for cell in row) for row in page.values]


def handed(world: World) -> Part:
    """What the one-time page of the only token hands over."""
    with world.database.session() as session:
        code = session.exec(
            select(OneTimeCode).where(OneTimeCode.payload.contains(PAGE))  # type: ignore[attr-defined]
        ).one()
        assert RECEIPTS.act is not None
        return RECEIPTS.act(world.app.services, session, code)


def test_the_list_leaves_as_a_workbook_for_a_reason_and_every_look_is_noted(
    sent: Callable[..., World],
) -> None:
    world = sent(3, REFUSED)
    assert world.says("小王", "群发 导出 B-0001").startswith("导出名单须写事由")
    assert "仅可打开一次" in world.says("小王", "群发 导出 B-0001 核对名单")
    title, heads, *rows = workbook(handed(world))
    assert str(title[0]).startswith("B-0001「政策更新」回执，截至")
    assert heads[:5] == ("档案号", "姓名", "城市", "渠道", "结果")
    assert sorted((row[4], row[5]) for row in rows) == [
        ("失败", "内容对不上"),
        ("已发出", None),
        ("已发出", None),
    ]
    with world.database.reading() as session:
        entries = session.exec(select(AuditEntry)).all()
    assert [e.reason for e in entries if e.action == ACTION] == ["3人，核对名单"]
    assert len([e for e in entries if e.reason == "B-0001 回执导出"]) == 3


def test_who_is_no_coordinator_any_more_gets_no_list(sent: Callable[..., World]) -> None:
    world = sent(2)
    world.says("小王", "群发 导出 B-0001 核对")
    with world.database.session() as session:
        session.exec(update(Grant).values(revoked_at=world.clock.now()))
    with pytest.raises(UserError, match="已不是统筹员"):
        handed(world)


def test_a_name_that_looks_like_a_formula_stays_a_name(sent: Callable[..., World]) -> None:
    world = sent(1)
    with world.database.session() as session:
        session.exec(update(MemberProfile).values(name="=1+1"))
    world.says("小王", "群发 导出 B-0001 核对")
    part = handed(world)
    assert workbook(part)[2][1] == "=1+1"
    assert part.file is not None
    page = load_workbook(BytesIO(part.file.content)).active
    assert page is not None
    assert page["B3"].data_type == "s"


def test_the_operator_writes_a_list_of_any_length(
    sent: Callable[..., World], tmp_path: Path
) -> None:
    world = sent(2, REFUSED)
    path = tmp_path / "回执.xlsx"
    services = world.app.services
    assert WRITE.run(services, ["b1", str(path)]) == [f"B-0001「政策更新」2人 → {path}"]
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(UserError, match="没有覆盖"):
        WRITE.run(services, ["b1", str(path)])


def test_only_coordinators_see_who_got_what(sent: Callable[..., World]) -> None:
    world = sent(2)
    for words in ("谁收到了 B-0001", "谁还没收到", "群发 失败 B-0001", "群发 导出 B-0001 核对"):
        assert "由统筹员使用" in world.says(who(0), words)
