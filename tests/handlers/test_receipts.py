"""Whom a campaign did not reach: by name and reason, tried again, or settled by a person."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from sqlmodel import select

from bot.errors import SendError
from storage.audit import VIEWED, AuditEntry
from storage.campaigns import Campaign, CampaignState
from storage.mailbox import Outbox, State
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
