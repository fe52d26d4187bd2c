"""What a coordinator is told before anything leaves, and a long list while it is being frozen."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from openpyxl import load_workbook
from sqlmodel import select

from bot.clock import BEIJING
from bot.context import ChannelFacts, Covers
from bot.jobs import run_one
from bot.ladder import Rung
from bot.planning import Plan, Reach
from handlers import telephone
from handlers.festivals import letters_of
from handlers.plans import limits_of, named, plan_words, promised
from handlers.telephone import masked
from storage.approvals import Approval
from storage.audit import VIEWED, AuditEntry
from storage.campaigns import Campaign, CampaignState
from storage.mailbox import Outbox
from tests.bare import Bare
from tests.people import lose, register_many, who
from tests.world import World, whole_catalog

SEPTEMBER = datetime(2026, 9, 1, 10, 0, tzinfo=BEIJING)
CHANNELS = {
    "memory": ChannelFacts("memory", bulk_gap_ms=40),
    "window": ChannelFacts(
        "window", windowed=True, covers=Covers(4, 2, 10_000), label="公众号", a_day=500_000
    ),
}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Bare]:
    bare = Bare(f"sqlite:///{tmp_path / 'office.db'}", channels=CHANNELS)
    bare.services = replace(bare.services, catalog=whole_catalog())
    yield bare
    bare.close()


def _campaign(**values: str) -> Campaign:
    values = {"kind": "broadcast", "purpose": "news", "occasion": "campaign:B-1"} | values
    return Campaign(number="", title="", template="", created_at=SEPTEMBER, **values)


def _words(office: Bare, plan: Plan, **values: str) -> list[str]:
    with office.database.session() as session:
        campaign = _campaign(**values)
        return plan_words(office.services, session, campaign, plan, SEPTEMBER).splitlines()


# - the words -


def test_a_plan_is_told_by_rung_and_by_reason(office: Bare) -> None:
    plan = Plan(
        [
            Reach("memory", Rung.OPEN, 3000),
            Reach("window", Rung.WINDOW, 20),
            Reach("window", Rung.LASTING, 5),
            Reach("window", Rung.ONCE, 4),
            Reach("window", Rung.COVER, 60),
            Reach("window", Rung.WORD, 7),
            Reach("", Rung.STAFF, 2),
        ],
        {"consent": 6, "often": 8, "nowhere": 1, "elsewhere": 1, "unreachable": 3},
    )
    assert _words(office, plan) == [
        "命中 3117 人；排除：退订 0、未同意 6、撤回 0、渠道不可达 3、没有渠道 1、"
        "所用渠道未获同意 1、近期已收得够多 8。可发 3029 人（memory3000 公众号29）；"
        "顺延 67 人（待其下次来信时送达）。",
        "怎样送到：随时可发 3000 人，在回复时限内直接发 20 人，凭长期订阅通知 5 人，"
        "凭一次性订阅通知 4 人，等群发封面 60 人，只能等其来信 7 人，"
        "只能由员工在客户群里转告 2 人。",
        "群发封面每人每月最多4次，其中1次给中秋信留着。",
        "8 人近期收到的已够多（每人最多7天3次、30天8次），这次不发。确有必要请回「照发 事由」。",
        "按平台限速，约 2 分钟发完。",
        "渠道送不到、要打电话的有 12 人，回「电话」看名单。",
    ]


def test_a_plan_that_reaches_everybody_at_once_is_one_line(office: Bare) -> None:
    assert _words(office, Plan([Reach("memory", Rung.OPEN, 3)], {})) == [
        "命中 3 人；排除：退订 0、未同意 0、撤回 0、渠道不可达 0。可发 3 人（memory3）。"
    ]


@pytest.mark.parametrize(
    ("channel", "people", "words"),
    [
        ("memory", 1_400, ""),
        ("memory", 2_999, "按平台限速，约 2 分钟发完。"),
        ("memory", 300_000, "按平台限速，约 4 小时发完。"),
        ("window", 500_000, ""),
        ("window", 1_200_000, "约 2 天发完。"),
    ],
)
def test_how_long_it_takes_is_told_from_pace_and_the_days_quota(
    office: Bare, channel: str, people: int, words: str
) -> None:
    found = _words(office, Plan([Reach(channel, Rung.OPEN, people)], {}))
    assert found[1:] == ([words] if words else [])


# - what the calendar keeps, and how often anybody is written to -


@pytest.mark.parametrize(
    ("moment", "but", "letters"),
    [
        (SEPTEMBER, "", "中秋信"),
        (SEPTEMBER, "letter:mid_autumn:2026", ""),
        (datetime(2026, 9, 26, 10, 0, tzinfo=BEIJING), "", ""),
        (datetime(2026, 6, 1, 10, 0, tzinfo=BEIJING), "", ""),
    ],
)
def test_the_calendar_keeps_one_for_each_letter_still_to_leave_this_month(
    office: Bare, moment: datetime, but: str, letters: str
) -> None:
    with office.database.reading() as session:
        assert named(promised(office.services, session, moment, but)) == letters


def test_a_letter_that_was_cancelled_keeps_nothing(office: Bare) -> None:
    with office.database.session() as session:
        letter = _campaign(kind="letter", occasion="letter:mid_autumn:2026")
        letter.state = CampaignState.CANCELLED
        session.add(letter)
        session.flush()
        assert promised(office.services, session, SEPTEMBER) == []
    assert "中秋" in {letter.label for letter in letters_of(office.services)}


@pytest.mark.parametrize(
    ("values", "limited"),
    [
        ({}, True),
        ({"kind": "invitation"}, True),
        ({"kind": "letter"}, False),
        ({"audience": '{"reached_by": 1}'}, False),
        ({"facts": '{"excuse": "汛情紧急"}'}, False),
    ],
)
def test_letters_corrections_and_what_has_a_reason_leave_however_often(
    office: Bare, values: dict[str, str], limited: bool
) -> None:
    assert bool(limits_of(office.services, _campaign(**values))) is limited


# - a long list -


def test_a_long_list_is_frozen_step_by_step_and_nothing_leaves_before_it_is_whole(
    make_world: Callable[..., World],
) -> None:
    world = make_world(start="2026-06-20 10:00")
    register_many(world, 501)
    world.grant("小王", "coordinator")
    world.talk("小王", "群发", "3", "政策更新", "已更新。", "全体", "立即", "提交")
    run_one(world.app.services, "worker")
    assert world.says("小王", "群发 进度 B-0001") == (
        "B-0001「政策更新」正在锁定名单：已锁定500人，共约501人；还没有送审，一份也没有发。"
    )
    world.drain()
    assert world.received(who(0)) == []
    assert world.says("小王", "群发 取消 B-0001").startswith("已取消 B-0001，500份不再发")
    world.settle()
    with world.database.reading() as session:
        rows = session.exec(select(Outbox.state).where(Outbox.campaign_id == 1)).all()
    assert set(rows) == {"cancelled"}
    assert len(rows) == 500


# - the telephone list -


@pytest.mark.parametrize(
    ("phone", "shown"),
    [("13900001234", "139****1234"), ("+15550001234", "+15****1234"), ("5550001", "****"),
     (None, "")],
)  # fmt: skip
def test_a_phone_is_shown_without_its_middle(phone: str | None, shown: str) -> None:
    assert masked(phone) == shown


def test_the_workbook_says_who_took_it_and_why_and_each_look_is_noted(world: World) -> None:
    register_many(world, 3)
    lose(world, who(1), "13900001234")
    coordinator = world.grant("小王", "coordinator")
    world.grant("小李", "coordinator")
    world.talk("小王", "群发", "3", "政策更新", "已更新。", "全体", "立即", "提交")
    said = world.says("小王", "群发 电话表 B-0001 逐一通知")
    found = re.search(r"哈希 (\w{4})", said)
    assert found is not None
    world.says("小李", f"同意 {found[1]}")
    services = world.app.services
    with world.database.session() as session:
        approval = session.exec(select(Approval)).one()
        part = telephone._handed(services, session, approval, world.clock.now())
    assert part.file is not None
    [title, heads, row] = load_workbook(io.BytesIO(part.file.content)).active.values
    assert title[0] == (
        "B-0001「政策更新」电话名单，2026-03-12 10:00导出，审批 SP-0001，"
        f"申请人编号 {coordinator}，事由：逐一通知"
    )
    assert heads == ("档案号", "姓名", "城市", "手机", "发不到的原因")
    assert row[1:] == ("林远山", "杭州", "13900001234", "渠道不可达")
    with world.database.reading() as session:
        looks = select(AuditEntry.reason).where(AuditEntry.action == VIEWED)
        assert session.exec(looks).all() == ["B-0001 电话名单：逐一通知"]
