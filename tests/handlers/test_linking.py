"""Two accounts become one person and part again: nothing forgotten, twice or revived."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Date, ForeignKey, Integer, MetaData, Table, event
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from bot.app import App
from bot.context import outbox_row
from bot.dispatch import Waiting
from bot.messages import say
from handlers.purposes import DUTY
from storage import linking, mailbox
from storage.approvals import Approval, ApprovalVote
from storage.audit import VIEWED, AuditEntry
from storage.columns import EncryptedText, UtcDateTime
from storage.dialogs import Draft
from storage.events import Event, Rsvp
from storage.linking import PersonLink, Said, references, unhandled
from storage.mailbox import Outbox
from storage.people import (
    ConsentEntry,
    ConsentNow,
    Contact,
    Grant,
    OneTimeCode,
    Person,
    consents_of,
    ids_of,
    unsubscribed,
)
from storage.privacy import export_person
from storage.profiles import MemberProfile
from storage.states import State
from storage.tables import METADATA
from tests.storage.test_on_postgresql import Meeting, both, told
from tests.test_every_failure import Fault
from tests.world import World

SAID = Said("memory", "1", "确认关联")
REGISTER = ("登记", "同意", "是", "1", "3", "高远山", "上海", "1", "确认", "2")
OLD, NEW = "微信", "企业微信"


def code_of(world: World, who: str) -> str:
    found = re.search(r"关联码：(\d{6})", world.says(who, "关联"))
    assert found
    return found[1]


def link(world: World, old: str = OLD, new: str = NEW) -> str:
    """What the new channel is told at the end."""
    return world.talk(new, f"关联 {code_of(world, old)}", "确认关联")


def rows(world: World, table: Any, *conditions: Any) -> list[Any]:
    with world.database.reading() as session:
        return list(session.exec(select(table).where(*conditions)))


def add(world: World, *values: Any) -> None:
    with world.database.session() as session:
        session.add_all(values)


# --- every table --------------------------------------------------------------------------------

LOOKS_LIKE_A_PERSON = re.compile(r"(?:^|_)person(?:_id)?$|_by$|^actor_id$|^recipient$|^merged_")

NAMES_NOBODY_ANEW = {
    "audit_entry.actor_id": "sealed into a chain; whoever reads it asks for all of a person's ids",
    "outbox.recipient": "the key of one letter once; moved by its own rule",
    "person.merged_into": "says itself who became whom",
    "project.merged_into": "another project",
}


def test_every_column_that_names_a_person_is_found_by_its_foreign_key() -> None:
    found = {f"{table.name}.{column.name}" for table, column in references()}
    seeming = {
        f"{table.name}.{column.name}"
        for table in METADATA.sorted_tables
        for column in table.columns
        if LOOKS_LIKE_A_PERSON.search(column.name)
    }
    assert seeming - found == set(NAMES_NOBODY_ANEW)


def test_no_unique_key_is_without_a_rule() -> None:
    assert unhandled() == []


def test_a_table_added_later_is_not_forgotten() -> None:
    metadata = MetaData()
    Table("person", metadata, Column("id", Integer, primary_key=True))
    guest, writer = ForeignKey("person.id"), ForeignKey("person.id")
    Table("guest", metadata, Column("person_id", guest, primary_key=True), Column("room"))
    Table("note", metadata, Column("id", Integer, primary_key=True), Column("by", writer))
    assert unhandled(metadata) == ["guest.person_id"]


STAYS = {"consent_entry.person_id", "person_link.other_id"}


def _value(column: Column[Any], number: int, sealed: bytes) -> Any:
    kind = column.type
    if isinstance(kind, EncryptedText):
        return sealed
    if isinstance(kind, UtcDateTime):
        return 1_773_000_000_000
    if isinstance(kind, Date):
        return "2026-03-01"
    if isinstance(kind, Boolean):
        return 0
    return number if isinstance(kind, Integer) else f"{column.name}{number}"


def _fill(world: World, person: int, number: int) -> None:
    """A row of every table that names a person, whatever else would have to be there."""
    sealed = world.database.keys.seal("{}")
    every = list(references())
    connection = sqlite3.connect(str(world.database.url.database))  # no foreign keys are enforced
    with connection:
        for table in {table for table, _column in every}:
            ours = {column.name for owner, column in every if owner is table}
            values = [
                person if column.name in ours else _value(column, number, sealed)
                for column in table.columns
            ]
            names = ", ".join(f'"{column.name}"' for column in table.columns)
            marks = ", ".join("?" * len(values))
            row = f'INSERT INTO "{table.name}" ({names}) VALUES ({marks})'  # noqa: S608  # ours
            connection.execute(row, values)
    connection.close()


def _naming(world: World, person: int) -> set[str]:
    with world.database.engine.connect() as connection:
        return {
            f"{table.name}.{column.name}"
            for table, column in references()
            if connection.execute(
                table.select().with_only_columns(column).where(column == person)
            ).first()
        }


@pytest.mark.parametrize("meeting", [False, True], ids=["alone", "meeting"])
def test_every_row_of_the_one_comes_to_name_the_other(world: World, meeting: bool) -> None:
    add(world, *(Person(id=n, created_at=world.clock.now()) for n in (91, 92)))
    _fill(world, 92, 9002)
    if meeting:
        _fill(world, 91, 9001)
    everything = {f"{table.name}.{column.name}" for table, column in references()}
    assert _naming(world, 92) == everything
    with world.database.session() as session:
        linking.merge(session, 91, 92, world.clock.now(), SAID)
    assert _naming(world, 92) == STAYS
    assert _naming(world, 91) >= everything - STAYS


# --- what meets ---------------------------------------------------------------------------------


def test_the_stricter_word_on_a_consent_wins_and_the_ledger_keeps_its_lines(world: World) -> None:
    world.talk(OLD, *REGISTER)
    new = world.person(NEW)
    before = rows(world, ConsentEntry)
    add(
        world,
        *_consent(world, new, "S8", "granted"),
        *_consent(world, new, "profile", "withdrawn"),
    )
    kept = world.person(OLD)
    answer = world.says(NEW, f"关联 {code_of(world, OLD)}")
    assert "其中一边撤回过同意" in answer
    world.says(NEW, "确认关联")
    with world.database.reading() as session:
        now = {scope: word.live for scope, word in consents_of(session, kept).items()}
    assert now == {"profile": False, "S8": True}
    ledger = rows(world, ConsentEntry)
    assert ledger[: len(before)] == before
    assert [(e.person_id, e.scope, e.action, e.words) for e in ledger[-2:]] == [
        (kept, "S8", "granted", "确认关联"),
        (kept, "profile", "withdrawn", "确认关联"),
    ]
    assert rows(world, ConsentNow, ConsentNow.person_id == new) == []
    assert "您已建档" in world.says(NEW, "登记")
    world.says(NEW, "同意")
    assert rows(world, ConsentNow, ConsentNow.scope == "profile")[0].live


def _consent(world: World, person: int, scope: str, action: str) -> list[Any]:
    at = world.clock.now()
    entry = ConsentEntry(
        person_id=person,
        scope=scope,
        action=action,
        version="1",
        notice_hash="h",
        at=at,
        channel="memory",
        source="1",
        words="",
    )
    live = action == "granted"
    return [entry, ConsentNow(person_id=person, scope=scope, live=live, version="1", at=at)]


def test_what_either_stopped_is_stopped(world: World) -> None:
    world.talk(OLD, *REGISTER, "退订 政策")
    world.talk(NEW, *REGISTER, "退订 节日信")
    link(world)
    kept = world.person(OLD)
    with world.database.reading() as session:
        assert {"政策", "节日信"} <= unsubscribed(session, kept)


def test_of_two_files_that_say_the_same_one_is_left_without_a_question(world: World) -> None:
    world.talk(OLD, *REGISTER)
    world.talk(NEW, *REGISTER)
    assert "HY-2026-000001" in link(world)
    assert [file.number for file in rows(world, MemberProfile)] == ["HY-2026-000001"]


def test_of_two_drafts_of_a_form_the_newer_is_kept_and_continued(world: World) -> None:
    world.talk(OLD, *REGISTER, "修改 单位", "老单位")
    world.talk(NEW, *REGISTER)
    world.clock.advance(minutes=1)
    world.talk(NEW, "修改 职务", "新职务")
    answer = link(world)
    assert "两边都有没填完的" in answer
    assert "新职务" in world.says(OLD, "继续")
    assert len(rows(world, Draft)) == 1


def _event(world: World, capacity: int) -> Event:
    today = world.clock.now().date()
    return Event(
        id=1,
        number="HD-2026-01",
        title="座谈会",
        starts_on=today + timedelta(days=9),
        ends_on=today + timedelta(days=9),
        venue="会展中心",
        capacity=capacity,
        deadline=today + timedelta(days=5),
        created_by=1,
        created_at=world.clock.now(),
    )


def _rsvp(world: World, number: int, person: int, state: str, **more: Any) -> Rsvp:
    at = world.clock.now() + timedelta(minutes=number)
    values: dict[str, Any] = {"heads": 1, "queued_at": at, "answered_at": at, **more}
    return Rsvp(number=f"HZ-{number}", event_id=1, person_id=person, state=state, **values)


def test_of_two_answers_to_an_event_the_newer_counts_and_seats_are_freed(world: World) -> None:
    world.talk("第三人", *REGISTER[:5], "乌日娜", "北京", "1", "确认", "2")
    for who in (OLD, NEW):
        world.talk(who, *REGISTER)
    old, new, third = (world.person(who) for who in (OLD, NEW, "第三人"))
    add(world, _event(world, 3))
    add(
        world,
        _rsvp(world, 1, old, "coming", heads=2),
        _rsvp(world, 2, new, "coming"),
        _rsvp(world, 3, third, "waiting", heads=2),
    )
    assert "以较晚的那次为准" in link(world)
    assert [(one.person_id, one.state, one.heads) for one in rows(world, Rsvp)] == [
        (old, "coming", 1),
        (third, "coming", 2),
    ]
    world.drain()
    assert len(world.news("第三人")) == 1


# --- one letter once ----------------------------------------------------------------------------


def _row(world: World, person: int, state: State, occasion: str = "letter") -> Outbox:
    now = world.clock.now()
    return Outbox(
        occasion=occasion,
        recipient=f"p{person}",
        person_id=person,
        address="memory:test:x",
        purpose="duty",
        lane="memory:bulk",
        state=state,
        not_before=now,
        created_at=now,
    )


LETTERS = [
    (State.QUEUED, State.QUEUED, ["queued", "cancelled linked"]),
    (State.DEFERRED, State.LEASED, ["cancelled linked", "queued"]),
    (State.SENT, State.QUEUED, ["sent", "cancelled linked"]),
    (State.HELD, State.SENDING, ["cancelled linked", "sending"]),
    (State.UNKNOWN, State.HELD, ["unknown", "cancelled linked"]),
    (State.FAILED, State.QUEUED, ["failed", "queued"]),
    (State.SENT, State.READ, ["sent", "read"]),
]


@pytest.mark.parametrize(("mine", "theirs", "after"), LETTERS, ids=lambda value: str(value))
def test_a_letter_to_both_is_sent_once(
    world: World, mine: State, theirs: State, after: list[str]
) -> None:
    one, other = world.person(OLD), world.person(NEW)
    add(world, _row(world, one, mine), _row(world, other, theirs))
    with world.database.session() as session:
        linking.merge(session, one, other, world.clock.now(), SAID)
    found = rows(world, Outbox)
    assert [f"{row.state} {row.reason}".strip() for row in found] == after
    assert {row.person_id for row in found} == {one}


def test_what_waits_for_the_second_alone_goes_to_the_first(world: World) -> None:
    one, other = world.person(OLD), world.person(NEW)
    add(world, _row(world, other, State.QUEUED))
    with world.database.session() as session:
        linking.merge(session, one, other, world.clock.now(), SAID)
        twice = outbox_row(
            world.app.services,
            session,
            other,
            say("又一次"),
            occasion="letter",
            purpose=DUTY,
            now=world.clock.now(),
        )
        assert twice is not None
        mailbox.enqueue(session.connection(), [twice])
    assert [(row.recipient, row.state) for row in rows(world, Outbox)] == [(f"p{one}", "queued")]


# --- privacy ------------------------------------------------------------------------------------


def test_the_export_holds_what_either_said(world: World) -> None:
    world.talk(OLD, *REGISTER)
    world.talk(NEW, "登记", "同意")
    link(world)
    with world.database.reading() as session:
        held = export_person(session, world.person(OLD))
    values = [entry.value for section in held for entry in section.entries]
    assert {f"memory:test:{OLD}", f"memory:test:{NEW}", "高远山"} <= set(values)
    sources = [entry for section in held for entry in section.entries if entry.value == "同意"]
    assert sources != []


@pytest.mark.parametrize("who", [OLD, NEW])
def test_erasure_from_either_channel_leaves_nothing_of_both(world: World, who: str) -> None:
    world.talk(OLD, *REGISTER, "修改 单位", "蓝天公司", "确认")
    world.talk(NEW, "登记", "同意", "不是")
    link(world)
    answer = world.talk(who, "删除档案", "2")
    world.says(who, answer.partition("「")[2].split("」")[0])
    assert rows(world, Contact) == []
    assert rows(world, MemberProfile) == []
    assert [entry.words for entry in rows(world, ConsentEntry) if entry.words] == []
    assert [one.moved for one in rows(world, PersonLink)] == [None]
    file = Path(str(world.database.url.database))
    world.app.close()
    data = b"".join(path.read_bytes() for path in sorted(file.parent.glob("world.db*")))
    assert [w for w in ("高远山", "蓝天公司", OLD, NEW) if w.encode() in data] == []
    world.app = world._build()


def test_who_read_the_file_before_is_still_seen(world: World) -> None:
    world.talk(NEW, *REGISTER)
    new = world.person(NEW)
    world.grant(OLD, "leader")
    now = world.clock.now()
    add(world, AuditEntry(at=now, role="coordinator", action=VIEWED, object=f"person:{new}"))
    link(world)
    assert "谁看过（近12个月）：统筹员" in world.says(OLD, "我的档案")


# --- who may not --------------------------------------------------------------------------------


def test_two_accounts_that_voted_on_one_request_stay_two(world: World) -> None:
    one, other = world.grant(OLD, "coordinator"), world.grant(NEW, "leader")
    now = world.clock.now()
    add(
        world,
        Approval(
            id=1,
            number="B-0001",
            kind="campaign",
            object="B-0001",
            title="信",
            content_hash="h",
            asked_by=one,
            asked_at=now,
            expires_at=now,
        ),
    )
    vote = ApprovalVote(
        approval_id=1, person_id=other, role="leader", agrees=True, content_hash="h", at=now
    )
    add(world, vote)
    answer = world.says(NEW, f"关联 {code_of(world, OLD)}")
    assert "B-0001" in answer
    assert "不能关联" in answer
    assert rows(world, PersonLink) == []


def test_those_in_charge_hear_when_a_role_gets_another_channel(world: World) -> None:
    world.grant("管理员", "admin")
    world.grant(OLD, "leader")
    link(world)
    world.drain()
    assert ["（领导）把账号与" in words for words in world.news("管理员")] == [True]


def test_only_a_digest_of_the_code_is_kept(world: World) -> None:
    world.talk(OLD, *REGISTER)
    code = code_of(world, OLD)
    kept = rows(world, OneTimeCode, OneTimeCode.kind == "link")
    assert len(kept) == 1
    assert code not in f"{kept[0].digest}{kept[0].payload}"
    assert kept[0].expires_at - kept[0].created_at == timedelta(minutes=10)


# --- parting ------------------------------------------------------------------------------------


def test_parting_gives_back_what_came_along_and_revives_no_consent(world: World) -> None:
    world.talk(OLD, *REGISTER)
    new = world.grant(NEW, "leader")
    add(world, *_consent(world, new, "S8", "granted"), *_consent(world, new, "S3", "granted"))
    old = world.person(OLD)
    link(world)
    world.says(OLD, "撤回同意 S3")
    world.talk(OLD, "取消关联", "确认取消关联")
    assert world.person(NEW) == new
    assert [grant.person_id for grant in rows(world, Grant)] == [new]
    assert [file.person_id for file in rows(world, MemberProfile)] == [old]
    with world.database.reading() as session:
        assert {s: w.live for s, w in consents_of(session, new).items()} == {
            "S3": False,
            "S8": True,
        }
        assert {s: w.live for s, w in consents_of(session, old).items()} == {
            "S3": False,
            "S8": False,
            "profile": True,
        }
        assert ids_of(session, old) == [old]
    actions = [e.action for e in rows(world, AuditEntry) if e.action.startswith("person.")]
    assert actions == [
        "person.link_code",
        "person.link_shown",
        "person.linked",
        "person.link_undone",
    ]


def test_what_waits_at_a_lost_address_goes_where_the_reader_still_is(world: World) -> None:
    world.talk(OLD, *REGISTER)
    link(world)
    person = world.person(OLD)
    row = _row(world, person, State.HELD)
    row.address = f"memory:test:{NEW}"
    add(world, row)
    world.talk(NEW, "取消关联", "确认取消关联")
    found = rows(world, Outbox, Outbox.occasion == "letter")
    assert [(one.person_id, one.address, one.state) for one in found] == [
        (person, f"memory:test:{OLD}", "held")
    ]


def test_after_seven_days_nothing_is_kept_of_what_came_along(world: World) -> None:
    world.talk(OLD, *REGISTER)
    link(world)
    world.steps("2026-03-21 10:00", hours=12)
    assert [one.moved for one in rows(world, PersonLink)] == [None]


def test_the_channel_that_was_chosen_is_tried_first(world: World) -> None:
    world.talk(OLD, *REGISTER)
    link(world)
    world.says(OLD, "首选渠道 2")
    world.clock.advance(minutes=5)
    world.says(OLD, "菜单")
    person = world.person(OLD)
    with world.database.session() as session:
        row = outbox_row(
            world.app.services,
            session,
            person,
            say("您好"),
            occasion="x",
            purpose=DUTY,
            now=world.clock.now(),
        )
    assert row is not None
    assert row["address"] == f"memory:test:{NEW}"


# --- whatever happens meanwhile -----------------------------------------------------------------


def test_two_who_become_one_may_both_be_in_one_batch(world: World) -> None:
    world.talk(OLD, *REGISTER)
    world.talk(NEW, f"关联 {code_of(world, OLD)}")
    for first, second in ((OLD, NEW), (NEW, OLD)):
        said = {OLD: "修改 单位", NEW: "确认关联"}
        batch = [Waiting(world.inbound(who, said[who])) for who in (first, second)]
        world.app.dispatcher.work(batch)
        answers = {
            who: "\n".join(part.text for part in waiting.future.result())
            for who, waiting in zip((first, second), batch, strict=True)
        }
        assert "已关联" in answers[NEW]
        assert "单位" in answers[OLD]
        assert {draft.person_id for draft in rows(world, Draft)} == {world.person(OLD)}
        world.talk(OLD, "取消", "取消关联", "确认取消关联")
        world.talk(NEW, f"关联 {code_of(world, OLD)}")


def test_any_failing_statement_links_once_and_loses_nothing(
    make_world: Callable[..., World],
) -> None:
    def prepared() -> World:
        world = make_world()
        world.talk(OLD, *REGISTER)
        world.talk(NEW, "登记", "同意")
        world.talk(NEW, f"关联 {code_of(world, OLD)}")
        return world

    def confirmed(world: World, nth: int) -> int:
        inbound, fault = world.inbound(NEW, "确认关联"), Fault(world.database.engine, nth)
        for _try in range(3):
            try:
                answer = world.hears(inbound)
                break
            except OperationalError:
                continue
        fault.nth = 0
        count = fault.count
        assert "已关联" in answer
        assert world.hears(inbound) == answer
        return count

    def state(world: World) -> list[Any]:
        return [
            [(c.person_id, c.address) for c in rows(world, Contact)],
            [(link.person_id, link.other_id) for link in rows(world, PersonLink)],
            [(e.person_id, e.scope, e.action) for e in rows(world, ConsentEntry)],
            [e.action for e in rows(world, AuditEntry)],
            [row.occasion.partition(":")[0] for row in rows(world, Outbox)],
        ]

    world = prepared()
    statements = confirmed(world, 0)
    expected = state(world)
    for nth in range(1, statements + 1, 7):
        world = prepared()
        confirmed(world, nth)
        assert state(world) == expected, f"statement {nth}"


# --- on PostgreSQL ------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path, postgres_url: str) -> Iterator[tuple[World, App]]:
    """A world on PostgreSQL, and a second process on the same database."""
    world = World(tmp_path, url=postgres_url)
    replica = world._build()
    yield world, replica
    replica.close()
    world.close()


def test_a_code_that_two_confirm_at_once_links_one(shared: tuple[World, App]) -> None:
    world, replica = shared
    world.talk(OLD, *REGISTER)
    code = code_of(world, OLD)
    for who in ("乙", "丙"):
        world.says(who, f"关联 {code}")
    Meeting("UPDATE one_time_code", world.app, replica)
    answers = both(
        told(world.app, world.inbound("乙", "确认关联")),
        told(replica, world.inbound("丙", "确认关联")),
    )
    assert sorted("已关联" in answer for answer in answers) == [False, True]
    assert len(rows(world, PersonLink)) == 1
    assert len({contact.person_id for contact in rows(world, Contact)}) == 2


def test_each_typing_the_others_code_at_once_makes_one_person(shared: tuple[World, App]) -> None:
    world, replica = shared
    world.talk(OLD, *REGISTER)
    world.grant(NEW, "leader")
    ones, others = code_of(world, OLD), code_of(world, NEW)
    world.says(NEW, f"关联 {ones}")
    world.says(OLD, f"关联 {others}")
    Meeting("merged_into IS NULL", world.app, replica)
    answers = both(
        told(world.app, world.inbound(OLD, "确认关联")),
        told(replica, world.inbound(NEW, "确认关联")),
    )
    assert all(isinstance(answer, str) for answer in answers), answers
    assert len(rows(world, PersonLink)) <= 1
    if not rows(world, PersonLink):
        assert "已关联" in world.says(NEW, "确认关联")
    assert len({contact.person_id for contact in rows(world, Contact)}) == 1


def test_who_speaks_while_being_linked_speaks_as_the_one_they_are(
    shared: tuple[World, App],
) -> None:
    world, replica = shared
    world.talk(OLD, *REGISTER)
    world.talk(NEW, "登记", "同意", "是", "2")
    world.says(NEW, f"关联 {code_of(world, OLD)}")
    begun = threading.Event()
    event.listen(world.database.engine, "before_cursor_execute", lambda *_: begun.set())

    def speak() -> str:
        begun.wait(5)
        return told(replica, world.inbound(NEW, "修改 单位"))()

    answers = both(told(world.app, world.inbound(NEW, "确认关联")), speak)
    assert all(isinstance(answer, str) for answer in answers), answers
    kept = world.person(OLD)
    assert {draft.person_id for draft in rows(world, Draft)} <= {kept}
    assert {contact.person_id for contact in rows(world, Contact)} == {kept}
