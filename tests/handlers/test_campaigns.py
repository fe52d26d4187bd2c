"""Campaigns: who must agree, what stops them at once, and that nobody gets a thing twice."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from sqlalchemy import event
from sqlmodel import select

from bot import planning
from bot.errors import SendError
from bot.jobs import run_one
from bot.messages import Address, Part
from bot.planning import Moment
from handlers import campaigns
from handlers.composition import Text, rendered
from handlers.place import Place, place_of
from handlers.purposes import NEWS, POLICY
from handlers.segments import Segment
from storage import claims, gate
from storage.audit import VIEWED, AuditEntry
from storage.campaigns import Campaign, CampaignState
from storage.lanes import ensure_lane
from storage.mailbox import Outbox
from storage.people import ConsentNow, Contact
from storage.states import State
from tests.people import HOMES, register_many, who
from tests.world import MemoryChannel, World

HOME = HOMES[:1]


def _office(
    make_world: Callable[..., World], people: int, start: str = "2026-06-20 10:00"
) -> World:
    world = make_world(start=start)
    register_many(world, people, homes=HOME)
    world.grant("小王", "coordinator")
    world.grant("小李", "coordinator")
    world.grant("老赵", "leader")
    return world


def _hand_in(
    world: World, *, segment: str = "全体", text: str = "政策汇编已更新。", when: str = "立即"
) -> str:
    """Compose a notice and hand it in; returns the bot's answer."""
    return world.talk("小王", "群发", "3", "政策更新", text, segment, when, "提交")


def _code(answer: str) -> str:
    found = re.search(r"(?:哈希|确认发送) (\w{4})", answer)
    assert found, answer
    return found[1]


def _approved(world: World, **how: str) -> None:
    code = _code(_hand_in(world, **how))
    assert "已批准" in world.says("小李", f"同意 {code}")


def _arrived(world: World, count: int) -> list[int]:
    return [
        len([text for text in world.received(who(index)) if text.startswith(("政策更新", "更正"))])
        for index in range(count)
    ]


def _states(world: World) -> dict[str, int]:
    with world.database.reading() as session:
        rows = session.exec(select(Outbox.state).where(Outbox.campaign_id != None)).all()  # noqa: E711
    return {state: rows.count(state) for state in set(rows)}


# --- eyes ---


def test_fifty_recipients_need_ones_own_code_and_fifty_one_another_person(
    make_world: Callable[..., World],
) -> None:
    small, large = _office(make_world, 50), _office(make_world, 51)
    assert "由您自己确认" in _hand_in(small)
    assert "须另一名统筹员或领导同意" in _hand_in(large)


def test_a_small_broadcast_leaves_only_on_its_own_code(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 3)
    code = _code(_hand_in(world))
    assert world.says("小王", "确认发送 0000x").startswith("没有等您确认的内容")
    assert world.says("小李", f"确认发送 {code}").startswith("没有等您确认的内容")
    assert world.says("小王", f"确认发送 {code}").startswith("B-0001「政策更新」：批准后立即发")
    world.drain()
    assert _arrived(world, 3) == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("详见 https://www.example.org/zc", "须另一名统筹员或领导同意"),
        ("请知悉。\n某市招商引资领导小组", "须一位领导同意"),
        ("市政府已印发新政策，请各位乡亲留意，具体内容可以回复“政策”查看。", "由您自己确认"),
    ],
)
def test_links_and_higher_signatures_need_other_eyes(
    text: str, answer: str, make_world: Callable[..., World]
) -> None:
    world = _office(make_world, 3)
    world.talk("小王", "群发", "3", "政策更新", text)
    if "领导小组" in text:
        world.says("小王", "某招办字9号")
    assert answer in world.talk("小王", "全体", "立即", "提交")


@pytest.mark.parametrize(
    ("kind", "count", "eyes"),
    [
        ("broadcast", 1001, (2, "leader")),
        ("broadcast", 1000, (1, None)),
        ("broadcast", 50, (0, None)),
        ("letter", 3, (2, "leader")),
    ],
)
def test_the_rules_of_four_eyes(
    kind: str, count: int, eyes: tuple[int, str | None], world: World
) -> None:
    place = place_of(world.app.services)
    campaign = _unsaved(place, world, kind=kind)
    found = campaigns.eyes_for(campaign, count, place)
    assert (found.needed, found.role) == eyes


def _unsaved(place: Place, world: World, kind: str = "broadcast") -> Campaign:
    text = Text(kind, "家乡动态", NEWS.name, "{{ salutation }}：您好", {})
    moment = Moment(world.clock.now(), local=False)
    return campaigns.unsaved(text, Segment(), place, moment, world.clock.now())


def test_nobody_approves_their_own(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 51)
    code = _code(_hand_in(world))
    assert world.says("小王", f"同意 {code}").startswith("不能审批自己提交的事项")
    assert _arrived(world, 51) == [0] * 51


def test_a_change_after_approval_waits_for_approval_again(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, 51)
    _approved(world, when="6月20日 18:00")
    world.talk("小王", "群发 修改 B-0001", "改 正文", "政策汇编又更新。")
    code = _code(world.says("小王", "提交"))
    world.at("2026-06-20 18:00")
    assert _arrived(world, 51) == [0] * 51
    assert "待审批" in world.says("小王", "群发 进度 B-0001")
    world.says("小李", f"同意 {code}")
    world.drain()
    assert _arrived(world, 51) == [1] * 51
    assert "政策汇编又更新。" in world.received(who(0))[0]


def test_the_old_code_approves_nothing_after_a_change(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 51)
    old = _code(_hand_in(world))
    world.talk("小王", "群发 修改 B-0001", "改 正文", "政策汇编又更新。", "立即", "提交")
    assert world.says("小李", f"同意 {old}").startswith("没有等待审批的内容对得上")


def test_unapproved_for_a_day_it_is_a_draft_again_and_can_be_handed_in_anew(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, 51)
    code = _code(_hand_in(world))
    world.at("2026-06-21 10:01")
    assert world.says("小李", f"同意 {code}").startswith("没有等待审批的内容对得上")
    assert "草稿" in world.says("小王", "群发 进度 B-0001")
    again = world.talk("小王", "群发 修改 B-0001", "立即")
    assert "提交审批" in again
    assert world.says("小王", "提交").startswith("已送审 B-0001")


def test_a_refused_broadcast_can_be_handed_in_again(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 51)
    _hand_in(world)
    assert "没有发出" in world.says("小李", "驳回 B-0001 标题不清楚")
    assert world.talk("小王", "群发 修改 B-0001", "立即", "提交").startswith("已送审 B-0001")


def test_the_same_on_postgresql(make_world: Callable[..., World], postgres_url: str) -> None:
    world = make_world(start="2026-06-20 10:00", url=postgres_url)
    for name, role in (("小王", "coordinator"), ("小李", "coordinator")):
        world.grant(name, role)
    register_many(world, 60)
    _approved(world)
    world.drain()
    assert _arrived(world, 60) == [1] * 60
    world.settle()
    code = _code(world.talk("小王", "更正 B-0001", "电话以通知为准。"))
    assert world.says("小王", "取消剩余 B-0002").startswith("已取消 B-0002，60份不再发")
    assert world.says("小李", f"同意 {code}").startswith("没有等待审批的内容对得上")


# --- stopping ---


@dataclass
class Failing(MemoryChannel):
    """Refuses the first of a campaign's messages, and carries everything else."""

    errors: list[SendError] = field(default_factory=list)

    async def send(self, address: Address, part: Part, key: str) -> str:
        if self.errors and part.text.startswith("政策更新"):
            raise self.errors.pop(0)
        return await super().send(address, part, key)


@dataclass
class Interrupting(MemoryChannel):
    """Lets something happen in the middle of a campaign: after so many sends."""

    after: int = 20
    happens: list[Callable[[], None]] = field(default_factory=list)

    async def send(self, address: Address, part: Part, key: str) -> str:
        sent = await super().send(address, part, key)
        if len(self.sent) == self.after and self.happens:
            self.happens.pop()()
        return sent


def test_stop_takes_effect_within_a_second_and_nothing_more_leaves(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, 300)
    world.drain()
    channel = Interrupting(after=len(world.channel.sent) + 20)
    channel.sent = world.channel.sent
    world.channel = channel
    world.restart()
    spent: list[float] = []

    def stop() -> None:
        began = time.perf_counter()
        assert world.says("小王", "停").startswith("已暂停 B-0001")
        spent.append(time.perf_counter() - began)

    channel.happens.append(stop)
    _approved(world)
    world.drain()
    arrived, states = sum(_arrived(world, 300)), _states(world)
    assert spent[0] < 1
    # What had passed the gate was on its way; everything else stays.
    assert arrived == states[State.SENT] < 300
    assert states == {State.SENT: arrived, State.HELD: 300 - arrived}
    world.passes(minutes=5)
    assert sum(_arrived(world, 300)) == arrived
    assert world.says("小王", "群发 继续").startswith("B-0001 继续发送")
    world.drain()
    assert _arrived(world, 300) == [1] * 300


def test_a_call_that_fails_during_a_pause_is_not_tried_again_before_it_goes_on(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, 51)
    _approved(world)
    with world.database.transaction() as connection:
        ensure_lane(connection, "memory:bulk", 9)
        claimed = claims.claim(connection, "memory:bulk", "w", world.clock.now(), 1)
        gate.gate(connection, [row.id for row in claimed], "w", world.clock.now())
    world.says("小王", "停")
    with world.database.transaction() as connection:
        failed = gate.Outcome(claimed[0].id, State.QUEUED, "rate", 1)
        gate.acknowledge(connection, "w", [failed])
    assert _states(world) == {State.HELD: 51}


@pytest.fixture
def large(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> World:
    """An approved campaign of three chunks."""
    monkeypatch.setattr(planning, "AT_ONCE", 20)
    world = _office(make_world, 60)
    _approved(world)
    return world


def test_a_large_campaign_follows_what_was_said_last(large: World) -> None:
    assert _states(large) == {State.QUEUED: 20, State.HELD: 40}
    assert large.says("小王", "停").startswith("已暂停 B-0001，已发0份")
    # What the approval left to do follows the pause.
    assert run_one(large.app.services, "one")
    assert _states(large) == {State.HELD: 60}
    assert large.says("小王", "群发 继续") == "B-0001 继续发送，还有60份。"
    assert _states(large) == {State.QUEUED: 20, State.HELD: 40}
    assert large.says("小王", "取消剩余") == "已取消 B-0001，60份不再发；一份也没有发出。"
    assert _states(large)[State.CANCELLED] == 20
    large.drain()  # the gate turns away what the job has not come to
    while run_one(large.app.services, "one"):
        pass
    assert _states(large) == {State.CANCELLED: 60}
    assert _arrived(large, 60) == [0] * 60


def test_the_rest_of_a_large_campaign_leaves_at_the_next_beat(large: World) -> None:
    large.drain()
    assert _states(large) == {State.SENT: 20, State.HELD: 40}
    large.passes(minutes=1)
    assert _arrived(large, 60) == [1] * 60


def test_cancelling_keeps_what_left_and_stops_the_rest(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 60)
    world.drain()
    channel = Interrupting(after=len(world.channel.sent) + 5)
    world.channel = channel
    world.restart()
    _approved(world, when="6月21日 10:00")
    assert world.says("小王", "取消剩余") == "已取消 B-0001，60份不再发；一份也没有发出。"
    world.at("2026-06-21 10:00")
    assert _arrived(world, 60) == [0] * 60
    assert world.says("小王", "群发 取消 B-0001") == "B-0001 已经取消过了。"


def test_the_short_word_means_letters_to_a_member(world: World) -> None:
    assert world.says("乡亲", "停").startswith("不想再收来信，请回「退订 节日信」")


# --- the plan ---


def test_the_plan_names_everybody_left_out_and_why(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 10)
    with world.database.session() as session:
        people = list(session.exec(select(ConsentNow.person_id).order_by(ConsentNow.person_id)))
        session.get_one(ConsentNow, (people[0], "profile")).live = False
        session.delete(session.get_one(ConsentNow, (people[1], "profile")))
        session.exec(select(Contact).where(Contact.person_id == people[2])).one().reachable = False
    answer = world.talk("小王", "群发", "4", "近况", "草原绿了。", "全体")
    assert answer.splitlines()[1] == (
        "命中 10 人；排除：退订 8、未同意 1、撤回 1、渠道不可达 0。可发 0 人。"
    )
    answer = world.talk("小王", "取消", "群发", "3", "政策更新", "已更新。", "全体")
    assert answer.splitlines()[1] == (
        "命中 10 人；排除：退订 0、未同意 1、撤回 1、渠道不可达 1。可发 7 人（memory7）。"
    )


def test_withdrawal_between_approval_and_sending_is_kept(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, 51)
    _approved(world, when="6月21日 10:00")
    with world.database.session() as session:
        person = session.exec(select(Contact).where(Contact.address.endswith(who(0)))).one()
        session.get_one(ConsentNow, (person.person_id, "profile")).live = False
    world.at("2026-06-21 10:00")
    assert _arrived(world, 51) == [0] + [1] * 50
    assert world.says("小王", "群发 回执 B-0001").splitlines()[1:] == [
        "已发出 50",
        "不发 1（撤回同意1）",
    ]


def test_released_at_night_it_waits_for_the_morning(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 51, start="2026-06-20 21:00")
    code = _code(_hand_in(world))
    world.at("2026-06-20 23:00")
    assert "已批准" in world.says("小李", f"同意 {code}")
    world.drain()
    assert _arrived(world, 51) == [0] * 51
    world.at("2026-06-21 08:30")
    assert _arrived(world, 51) == [1] * 51


def test_a_template_in_the_text_is_refused(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 3)
    answer = world.talk("小王", "群发", "3", "政策更新", "{{ name }}您好")
    assert answer == "正文里有花括号，像是没填完的模板，请改好再发。"


def test_a_text_too_long_for_any_recipient_is_not_handed_in(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, 3)
    answer = _hand_in(world, text="政" * 590)
    assert answer.startswith("没有送审：试填 3 份：未填的空 0，超长 3；")


def test_a_large_list_is_checked_in_the_background(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 1100)
    assert _hand_in(world) == (
        "B-0001：正在逐份核对 1100 份，完成后告诉您并送审；"
        "在那之前一份也不发。回「群发 进度 B-0001」看到哪一步了。"
    )
    world.settle()
    [told] = world.news("小王")
    assert told.startswith("已送审 B-0001，等待审批（24小时）。须2人同意，其中一位领导。")
    assert "试填 1100 份：未填的空 0，超长 0；" in told


# --- afterwards ---


def test_the_coordinator_hears_once_when_all_is_done(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 51)
    _approved(world)
    world.drain()
    world.news("小王")
    world.passes(minutes=1)
    world.passes(minutes=1)
    assert world.news("小王") == ["完成。B-0001「政策更新」已完成，名单51人：\n已发出 51"]
    assert world.says("小王", "群发 取消 B-0001").startswith("B-0001 已全部发出，无法取消。")


def test_failures_are_named_in_chinese(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 51)
    code = _code(_hand_in(world))
    blocked, lost = SendError("blocked", permanent=True), SendError("timeout", unknown=True)
    world.channel = Failing(errors=[blocked, lost])
    world.restart()
    world.says("小李", f"同意 {code}")
    world.drain()
    progress = world.says("小王", "群发 进度 B-0001")
    assert "已发 49/51，失败 1（取关1），未知 1（超时1）" in progress


def test_a_correction_goes_to_those_who_got_it_and_needs_the_same_eyes(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, 51)
    _approved(world)
    world.drain()
    register_many(world, 5, first=51, homes=HOME)
    code = _code(world.talk("小王", "更正 B-0001", "电话以通知为准。"))
    world.says("小李", f"同意 {code}")
    world.drain()
    assert _arrived(world, 56) == [2] * 51 + [0] * 5


def test_looking_at_real_letters_is_noted(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 10)
    world.talk("小王", "群发", "3", "政策更新", "已更新。", "全体", "预览")
    with world.database.reading() as session:
        seen = session.exec(select(AuditEntry).where(AuditEntry.action == VIEWED)).all()
    assert [entry.reason for entry in seen] == ["预览 草稿"] * 3


def test_rendering_a_batch_takes_two_statements(world: World) -> None:
    people = register_many(world, 200)
    services = world.app.services
    campaign = _unsaved(place_of(services), world)
    campaign.content_hash = campaigns.fingerprint(campaign)
    statements: list[str] = []
    event.listen(
        world.database.engine,
        "before_cursor_execute",
        lambda _c, _cur, statement, *_rest: statements.append(statement),
    )
    with world.database.reading() as session:
        replies = rendered(services, session, campaign, people)
    assert len(replies) == 200
    assert len([s for s in statements if s.startswith("SELECT")]) == 2


def test_a_campaign_lives_until_its_last_row_is_settled(make_world: Callable[..., World]) -> None:
    world = _office(make_world, 51)
    _approved(world, when="6月21日 10:00")
    world.passes(hours=1)
    with world.database.reading() as session:
        assert session.exec(select(Campaign.state)).all() == [CampaignState.RUNNING]
    world.clock.set(world.clock.now() + timedelta(days=9))
    world.app.beat()
    assert _states(world) == {State.EXPIRED: 51}
    assert POLICY.topic == "政策"
