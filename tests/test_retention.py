"""Holds that every night what is past its time goes, once, and that the audit chain is watched."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import update
from sqlmodel import SQLModel, col, select

from bot.commands import Retention
from bot.jobs import run_one
from schedules.retention import BATCH, KEYS, NIGHT
from storage import audit
from storage.audit import AuditEntry, AuditSeal
from storage.dialogs import Draft
from storage.jobs import Job
from storage.mailbox import INBOX, Inbox
from storage.people import OneTimeCode
from tests.world import World, whole_catalog


def rows(world: World, table: type[SQLModel]) -> int:
    """How many rows a table has."""
    with world.database.reading() as session:
        return len(session.exec(select(table)).all())


def noted(world: World, *objects: str) -> None:
    """Audit entries made now."""
    with world.database.session() as session:
        session.add_all(
            AuditEntry(at=world.clock.now(), action="looked", object=each) for each in objects
        )


def test_a_stored_reply_is_forgotten_after_a_day_and_its_key_after_a_month(world: World) -> None:
    world.says("张三", "菜单")
    with world.database.reading() as session:
        assert session.exec(select(Inbox.reply)).one() is not None
    world.at("2026-03-14 04:00")
    with world.database.reading() as session:
        assert session.exec(select(Inbox.reply)).one() is None
    world.at("2026-04-15 04:00")
    assert rows(world, Inbox) == 0


def test_drafts_and_codes_past_their_time_are_gone_the_next_night(world: World) -> None:
    now, person = world.clock.now(), world.person("张三")
    with world.database.session() as session:
        session.add(
            Draft(person_id=person, form="gone", state="{}", updated_at=now, expires_at=now)
        )
        session.add(OneTimeCode(kind="page", digest="d", created_at=now, expires_at=now))
    world.at("2026-03-12 23:00")
    assert (rows(world, Draft), rows(world, OneTimeCode)) == (0, 1)
    world.at("2026-03-14 04:00")
    assert (rows(world, Draft), rows(world, OneTimeCode)) == (0, 0)


def test_the_night_s_work_is_begun_once_a_day(world: World) -> None:
    world.at("2026-03-13 02:59")
    before = rows(world, Job)
    for moment in ("03:00", "03:01", "23:00"):
        world.at(f"2026-03-13 {moment}")
    assert rows(world, Job) - before == 2


def test_entries_are_sealed_when_they_have_settled(world: World) -> None:
    noted(world, "p1", "p2")
    world.passes(minutes=1)
    assert rows(world, AuditSeal) == 0
    world.passes(minutes=5)
    with world.database.session() as session:
        seal = session.exec(select(AuditSeal)).one()
        assert (seal.first_id, seal.last_id) == (1, 2)
        assert audit.broken_seal(session) is None


def test_many_seals_are_checked_in_turns(world: World) -> None:
    for number in range(5):
        noted(world, f"p{number}")
        world.passes(minutes=6)
    with world.database.reading() as session:
        assert audit.check_seals(session, 0, 2) == (None, 2)
        assert audit.check_seals(session, 2, 2) == (None, 4)
        assert audit.check_seals(session, 4, 2) == (None, None)


def test_an_altered_entry_is_told_to_those_on_duty(world: World) -> None:
    world.grant("管理", "admin")
    noted(world, "p1")
    world.passes(minutes=6)
    with world.database.session() as session:
        session.exec(update(AuditEntry).where(col(AuditEntry.object) == "p1").values(object="p9"))
    world.at("2026-03-13 04:00")
    world.at("2026-03-13 09:00")
    told = [words for words in world.received("管理") if "审计记录" in words]
    assert told == ["审计记录的第1号封签对不上，可能有人改动过数据库。请立即核查。"]


def test_much_is_forgotten_in_batches_and_what_somebody_waits_for_goes_first(world: World) -> None:
    now, person = world.clock.now(), world.person("张三")
    with world.database.transaction() as connection:
        old = [{"key": f"k{n}", "received_at": now - timedelta(days=40)} for n in range(BATCH + 1)]
        connection.execute(INBOX.insert(), old)
    with world.database.session() as session:
        session.add(Job(kind=NIGHT.kind, created_at=now, cursor=f'{{"done": {number(KEYS)}}}'))
        session.add(Job(kind="whatever", person_id=person, created_at=now))
    services = world.app.services
    assert run_one(services, "w")
    assert [job.state for job in jobs(world)] == ["waiting", "failed"]
    left = []
    for _ in range(2):
        assert run_one(services, "w")
        left.append(rows(world, Inbox) - 1)
    assert left == [1, 0]


def number(rule: Retention) -> int:
    return whole_catalog().of(Retention).index(rule)


def jobs(world: World) -> list[Job]:
    with world.database.reading() as session:
        return list(session.exec(select(Job).order_by(col(Job.id))))
