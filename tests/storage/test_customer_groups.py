"""Rosters follow their versions; tasks follow the rows of the outbox."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlmodel import Session, select

from bot.clock import BEIJING
from bot.context import new_row
from storage import mailbox
from storage.customer_groups import (
    CustomerGroup,
    GroupMember,
    Roster,
    RosterChange,
    Seat,
    StaffTask,
    apply_change,
    call_back,
    forget_tasks,
    group_at,
    head_count,
    keep_roster,
    link_members,
    room_left,
    tasks_due,
)
from storage.people import Person
from storage.states import State
from storage.wechat import keep_unionid
from tests.bare import NOON, Bare

ADDRESS = "desk:one:group"


def roster(version: str, *members: str) -> Roster:
    seats = tuple(Seat(one, one == "staff", f"union-{one}", one, NOON) for one in members)
    return Roster("乡亲一群", "staff", version, seats)


def change(before: str, after: str, joined: str = "", left: str = "") -> RosterChange:
    return RosterChange(
        ADDRESS, (joined,) if joined else (), (left,) if left else (), before, after
    )


def here(session: Session) -> set[str]:
    rows = session.exec(select(GroupMember)).all()
    return {row.member for row in rows if row.left_at is None}


def test_changes_in_their_order_need_no_reading(bare: Bare) -> None:
    with bare.database.session() as session:
        keep_roster(session, ADDRESS, roster("v1", "staff", "wang"), NOON)
        assert apply_change(session, change("v1", "v2", left="wang"), NOON)
        assert (here(session), group_at(session, ADDRESS).due_at) == ({"staff"}, None)


def test_fact_55_a_gap_means_reading_again(bare: Bare) -> None:
    with bare.database.session() as session:
        keep_roster(session, ADDRESS, roster("v1", "staff"), NOON)
        assert not apply_change(session, change("v2", "v3", joined="wang"), NOON)
        assert group_at(session, ADDRESS).due_at == NOON + timedelta(seconds=2)
        assert not keep_roster(session, ADDRESS, roster("v2", "staff"), NOON)
        assert keep_roster(session, ADDRESS, roster("v3", "staff", "wang"), NOON)
        assert here(session) == {"staff", "wang"}


def test_fact_55_an_overtaken_event_takes_nothing_back(bare: Bare) -> None:
    with bare.database.session() as session:
        keep_roster(session, ADDRESS, roster("v1", "staff"), NOON)
        assert not apply_change(session, change("v2", "v3", left="wang"), NOON)
        assert apply_change(session, change("v1", "v2", joined="wang"), NOON)
        assert group_at(session, ADDRESS).expected == "v3"
        assert not apply_change(session, change("v1", "v2", joined="wang"), NOON)


def test_fact_58_members_are_linked_by_unionid_and_only_so(bare: Bare) -> None:
    with bare.database.session() as session:
        person = Person(created_at=NOON)
        session.add(person)
        session.flush()
        keep_unionid(session.connection(), person.id or 0, "union-wang", NOON)
        keep_roster(session, ADDRESS, roster("v1", "staff", "wang", "li"), NOON)
        session.expire_all()
        linked = {row.member: row.person_id for row in session.exec(select(GroupMember))}
        assert linked == {"staff": None, "wang": person.id, "li": None}
        link_members(session)
        assert head_count(session, group_at(session, ADDRESS).id or 0) == 2


@pytest.mark.parametrize(
    ("made", "left"),
    [
        (datetime(2026, 3, 1, 0, 0, tzinfo=BEIJING), 30),
        (datetime(2026, 2, 28, 23, 59, tzinfo=BEIJING), 31),
    ],
)
def test_fact_54_the_month_is_beijings(bare: Bare, made: datetime, left: int) -> None:
    with bare.database.session() as session:
        group = group_at(session, ADDRESS)
        session.add(StaffTask(id="t1", group_id=group.id or 0, owner="staff", made_at=made))
        session.flush()
        assert room_left(session, group.id or 0, NOON) == left


def test_fact_54_what_was_taken_back_does_not_count(bare: Bare) -> None:
    with bare.database.session() as session:
        group = group_at(session, ADDRESS)
        for number, outcome in enumerate(("", State.SENT, State.CANCELLED, State.FAILED)):
            session.add(
                StaffTask(
                    id=f"t{number}",
                    group_id=group.id or 0,
                    owner="staff",
                    made_at=NOON,
                    outcome=outcome,
                )
            )
        session.flush()
        assert room_left(session, group.id or 0, NOON) == 31 - 2


def task(session: Session, state: State, **more: Any) -> None:
    """A task and its row of the outbox."""
    group = group_at(session, ADDRESS)
    session.add(
        StaffTask(id="t1", group_id=group.id or 0, owner="staff", made_at=NOON, due_at=NOON)
    )
    row = new_row(
        occasion="notice",
        recipient=f"g{ADDRESS}",
        address=ADDRESS,
        purpose="group",
        lane="desk:live",
        not_before=NOON,
        created_at=NOON,
    )
    mailbox.enqueue(session.connection(), [row | {"state": state, "provider_id": "t1"} | more])
    session.flush()


@pytest.mark.parametrize(
    ("state", "stopped"),
    [(State.AWAITING_STAFF, False), (State.EXPIRED, True), (State.CANCELLED, True)],
)
def test_a_task_nobody_wants_any_more_is_known(bare: Bare, state: State, stopped: bool) -> None:
    with bare.database.session() as session:
        task(session, state)
        (pending,) = tasks_due(session, "desk", NOON)
        assert (pending.state, pending.stopped) == (state, stopped)
        assert tasks_due(session, "des", NOON) == []


def test_calling_back_stops_what_waits_and_asks_for_the_rest(bare: Bare) -> None:
    with bare.database.session() as session:
        task(session, State.AWAITING_STAFF)
        assert call_back(session, "notice", NOON) == (0, 1)
        session.expire_all()
        (pending,) = tasks_due(session, "desk", NOON)
        assert (pending.state, pending.stopped) == (State.AWAITING_STAFF, True)
    with bare.database.session() as session:
        assert call_back(session, "another", NOON) == (0, 0)


def test_only_finished_tasks_are_forgotten(bare: Bare) -> None:
    with bare.database.session() as session:
        task(session, State.AWAITING_STAFF)
        later = NOON + timedelta(days=400)
        assert forget_tasks(session, later) == 0
        session.get_one(StaffTask, "t1").due_at = None
        session.flush()
        assert forget_tasks(session, later) == 1
        assert session.exec(select(CustomerGroup)).one().address == ADDRESS
