"""What went wrong when somebody tried to break it; each of these once did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, select

from bot.catalog import Catalog
from bot.clock import BEIJING
from bot.commands import Content, Purpose
from bot.delivery import Delivery
from bot.dispatch import dump_draft, load_draft
from bot.errors import SendError
from bot.messages import say
from bot.settings import demo_settings
from handlers.place import PLACES
from handlers.roles import POLICY
from storage import claims, privacy, steering
from storage.campaigns import Campaign
from storage.dialogs import Draft
from storage.driver import database_millis
from storage.hotpath import HotPath
from storage.jobs import Job
from storage.lanes import LANES
from storage.mailbox import TABLE
from storage.people import Person, revoke
from tests.bare import NOON, Bare
from tests.world import MemoryChannel, World

LETTER = Purpose("letter", "节日信")


def greet(
    _services: object, session: Any, _campaign: Campaign, people: Sequence[int]
) -> dict[int, Any]:
    session.execute(text("SELECT 1"))
    return {person: say(f"{10 // (person % 3)}") for person in people}


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    made = Bare(f"sqlite:///{tmp_path}/bare.db", contents=[Content("letter", greet)])
    catalog = Catalog({Content: [Content("letter", greet)], Purpose: [LETTER]}, {}, POLICY, PLACES)
    made.services = replace(made.services, catalog=catalog)
    made.lane()
    yield made
    made.close()


def delivery(bare: Bare, channel: MemoryChannel) -> Delivery:
    return Delivery(bare.services, {"memory": channel}, alone=True, chance=lambda: 0.5)


def drain(bare: Bare, channel: MemoryChannel) -> None:
    asyncio.run(delivery(bare, channel).until_idle())


def letter(bare: Bare, people: int) -> None:
    with bare.database.session() as session:
        row = Campaign(
            number="B-1",
            kind="letter",
            title="",
            occasion="letter",
            purpose="letter",
            template="",
            created_at=NOON,
        )
        session.add(row)
        session.flush()
        number = row.id
    for person in bare.people(people):
        bare.rows(
            1,
            recipient=f"p{person}",
            campaign_id=number,
            person_id=person,
            address=f"memory:t:p{person}",
            purpose="letter",
            body=None,
        )


# - the way out -


def test_a_body_that_no_key_opens_fails_alone(bare: Bare) -> None:
    bare.rows(3)
    with bare.database.transaction() as connection:
        connection.execute(text("UPDATE outbox SET body = x'00' WHERE id = 1"))
        connection.execute(update(TABLE).where(TABLE.c.id == 2).values(body="no JSON"))
    channel = MemoryChannel()
    drain(bare, channel)
    with bare.database.engine.connect() as connection:
        rows = connection.execute(text("SELECT state, reason FROM outbox ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [
        ("failed", "unreadable"),
        ("failed", "unreadable"),
        ("sent", ""),
    ]


def test_a_letter_that_one_persons_file_breaks_reaches_the_others(bare: Bare) -> None:
    letter(bare, 4)
    drain(bare, MemoryChannel())
    assert [(row.person_id, row.state) for row in bare.all()] == [
        (1, "sent"),
        (2, "sent"),
        (3, "failed"),
        (4, "sent"),
    ]


def test_a_database_in_trouble_while_wording_fails_no_letter(bare: Bare) -> None:
    letter(bare, 2)
    broken = [True]

    def fault(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement == "SELECT 1" and broken:
            broken.clear()
            raise OperationalError(statement, {}, Exception("the server is gone"))

    event.listen(bare.database.engine, "before_cursor_execute", fault)
    drain(bare, MemoryChannel())
    drain(bare, MemoryChannel())
    assert bare.states() == {"sent": 2}


def test_patience_without_end_is_cut_to_a_day(bare: Bare) -> None:
    bare.rows(1)
    drain(bare, MemoryChannel(failures=[SendError("flood", retry_after=1e15)]))
    assert [(row.state, row.not_before) for row in bare.all()] == [
        ("queued", NOON + timedelta(days=1))
    ]


def test_a_refused_token_spends_no_tries(bare: Bare) -> None:
    bare.rows(1)
    for _try in range(6):
        drain(bare, MemoryChannel(failures=[SendError("token", stop_channel=True)]))
        bare.clock.advance(minutes=10)
        with bare.database.transaction() as connection:
            connection.execute(update(LANES).values(blocked_until=0))
    assert [(row.state, row.attempts) for row in bare.all()] == [("queued", 0)]


def test_a_result_is_written_down_though_the_lane_could_not_be_blocked(bare: Bare) -> None:
    bare.rows(1)

    def fault(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "SET blocked_until" in statement:
            raise OperationalError(statement, {}, Exception("the server is gone"))

    event.listen(bare.database.engine, "before_cursor_execute", fault)
    drain(bare, MemoryChannel(failures=[SendError("flood", retry_after=30.0)]))
    assert bare.states() == {"queued": 1}


def test_stopping_in_the_middle_of_the_gate_leaves_nothing_in_doubt(bare: Bare) -> None:
    bare.rows(60)
    channel = MemoryChannel()

    async def run() -> None:
        one = delivery(bare, channel)
        task = asyncio.create_task(one.run())
        while one._exchanging is None or one._exchanging.done():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert set(bare.states()) <= {"sent", "queued"}
    assert bare.states().get("sent", 0) == len(channel.sent)


def test_a_letter_stops_where_its_readers_night_begins(bare: Bare) -> None:
    letter(bare, 5)
    with bare.database.transaction() as connection:
        for person, zone in ((4, "America/New_York"), (5, "Europe/London")):
            connection.execute(
                update(Person).where(Person.__table__.c.id == person).values(timezone=zone)  # type: ignore[attr-defined]
            )
    bare.clock.set(datetime(2026, 3, 12, 21, 30, tzinfo=BEIJING))
    drain(bare, MemoryChannel())
    morning = datetime(2026, 3, 13, 8, 30, tzinfo=BEIJING)
    assert [(row.person_id, row.state, row.not_before) for row in bare.all()] == [
        (1, "queued", morning),
        (2, "queued", morning),
        (3, "failed", NOON),
        (4, "sent", NOON),
        (5, "sent", NOON),
    ]


def test_a_database_clock_set_back_a_day_stops_no_lane(bare: Bare) -> None:
    bare.lane(gap_ms=40)
    bare.rows(3)
    with bare.database.transaction() as connection:
        tomorrow = database_millis(connection) + 86_400_000
        connection.execute(update(LANES).values(tat=tomorrow))
        assert len(claims.claim(connection, "memory:bulk", "w", NOON, 10)) == 3


@pytest.mark.parametrize(
    "work",
    [
        lambda c: claims.sweep(c, "w", timedelta(seconds=10), alone=False),
        lambda c: claims.release_unknown(c, "w", [1]),
        lambda c: steering.suppress_person(c, 1, "consent"),
        lambda c: steering.suppress_channel(c, 1, ["memory:bulk"], "consent", "answer"),
        lambda c: steering.expire_overdue(c, NOON),
        lambda c: claims.due_lanes(c, NOON),
        lambda c: claims.claim(c, "memory:bulk", "w", NOON, 10),
        lambda c: HotPath(c).reopen(["memory:t:u1"]),
        lambda c: privacy.waiting_letters(Session(c), 1),
        lambda c: privacy.last_campaign(Session(c), 1),
        lambda c: privacy.export_person(Session(c), 1),
        lambda c: privacy.erase_person(Session(c), 1, NOON, reason="x", keep_contact=False),
    ],
    ids=[
        "sweep",
        "release",
        "person",
        "channel",
        "expiry",
        "lanes",
        "claim",
        "window",
        "waiting",
        "last",
        "export",
        "erase",
    ],
)
def test_nothing_on_the_way_out_reads_the_whole_ledger(
    bare: Bare, work: Callable[[Any], object]
) -> None:
    statements: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
        if "outbox" in statement and not statement.startswith("EXPLAIN"):
            statements.append((statement, values))

    event.listen(bare.database.engine, "before_cursor_execute", note)
    with bare.database.transaction() as connection:
        work(connection)
        assert statements
        for statement, values in list(statements):
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            assert [row for row in plan if row.detail == "SCAN outbox"] == [], statement


# - roles that end while a form is open -


@pytest.mark.parametrize("until", ["revoked", "expired"])
def test_whoever_is_no_coordinator_any_more_cannot_go_on_with_a_coordinators_form(
    world: World, until: str
) -> None:
    person = world.grant("小王", "coordinator", expires_at=world.clock.now() + timedelta(days=2))
    assert "类型" in world.says("小王", "群发")
    if until == "revoked":
        with world.database.session() as session:
            revoke(session, person, "coordinator", world.clock.now())
    else:
        world.clock.advance(days=3)
    assert "由统筹员使用" in world.says("小王", "3")
    assert "没有填到一半的表" in world.says("小王", "继续")


def test_a_parked_form_is_not_continued_without_its_role(world: World) -> None:
    person = world.grant("小王", "coordinator")
    world.talk("小王", "群发", "登记")
    with world.database.session() as session:
        revoke(session, person, "coordinator", world.clock.now())
    world.says("小王", "取消")
    assert "由统筹员使用" in world.says("小王", "继续")


def test_a_form_opened_by_everybodys_command_asks_for_no_role(world: World) -> None:
    person = world.grant("小王", "coordinator")
    first = world.says("小王", "登记")
    with world.database.session() as session:
        revoke(session, person, "coordinator", world.clock.now())
    assert first
    assert "由统筹员使用" not in world.says("小王", "同意")


# - forms that broke -


def test_a_draft_that_a_release_can_no_longer_read_is_put_away(world: World) -> None:
    world.talk("小王", "登记", "同意")
    person = world.person("小王")
    with world.database.session() as session:
        draft = session.exec(select(Draft).where(Draft.person_id == person)).one()
        state = load_draft(draft.form, draft.state)
        draft.form, draft.state = "did_you_mean", dump_draft(state._replace(asked="yes", facts={}))
        session.add(draft)
    assert "打不开了，已收起" in world.says("小王", "是")
    assert "打不开了" not in world.says("小王", "菜单")


def test_an_answer_of_a_hundred_thousand_characters_is_not_read(world: World) -> None:
    world.talk("小王", "登记", "同意")
    assert "请分几次发" in world.says("小王", "9" * 100_000)
    assert world.says_in_group("小王", "9" * 100_000) == ""
    assert "请分几次发" not in world.says("小王", "是")


@pytest.mark.parametrize("number", ["9" * 4000, "²", "٣", "0"])
def test_numbers_beyond_reason_are_answered(world: World, number: str) -> None:
    for role in ("coordinator", "admin"):
        world.grant("小王", role)
    for word in (
        "角色 撤销",
        "群发",
        "群发 进度",
        "同意",
        "认定 P01 3月",
        "目标 T1",
        "最低天数 2月",
    ):
        assert "出了点问题" not in world.says("小王", f"{word} {number}"), word


@pytest.mark.parametrize("month", ["0000年1月", "9999年12月", "0000", "0000年一季度"])
def test_years_that_never_were_are_answered(world: World, month: str) -> None:
    world.grant("小王", "coordinator")
    world.grant("小王", "team_leader")
    for word in ("通报", "通报 发布", "迟报", "催报", "冻结", "月报 查看", "补报", "排名"):
        assert "出了点问题" not in world.says("小王", f"{word} {month}"), word


# - one among many -


def test_whoever_says_a_hundred_things_at_once_keeps_nobody_waiting(world: World) -> None:
    dispatcher = world.app.dispatcher
    for _time in range(100):
        dispatcher.submit(world.inbound("话多的人", "菜单"))
    dispatcher.submit(world.inbound("乡亲", "菜单"))
    batch = dispatcher._gather()
    assert batch is not None
    assert [one.inbound.sender.user for one in batch] == ["话多的人", "乡亲"]


def test_a_draft_and_a_reply_that_no_key_opens_leave_nobody_stuck(world: World) -> None:
    inbound = world.inbound("乡亲", "登记")
    world.hears(inbound)
    with world.database.transaction() as connection:
        connection.execute(text("UPDATE draft SET state = x'00'"))
        connection.execute(text("UPDATE inbox SET reply = x'00'"))
    assert world.hears(inbound) == ""
    assert "菜单" in world.says("乡亲", "同意")
    assert "同意" in world.says("乡亲", "登记")


def test_whoever_waits_for_a_job_hears_that_it_failed(world: World) -> None:
    person = world.grant("小王", "coordinator")
    with world.database.session() as session:
        session.add(
            Job(
                kind="campaign_freeze",
                payload="no JSON",
                person_id=person,
                created_at=world.clock.now(),
            )
        )
    world.settle()
    assert "没有办成" in world.news("小王")[-1]


def test_quiet_hours_that_would_never_end_are_refused() -> None:
    for hours in ("12:00-14:00", "21:30-21:30"):
        with pytest.raises(ValueError, match="要跨过午夜"):
            demo_settings(quiet_hours=hours)
    assert demo_settings(quiet_hours="22:00-7:00").quiet.ends.hour == 7
