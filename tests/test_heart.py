"""A schedule's occasion is claimed once, on either database, whoever beats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from bot.commands import JobKind, Tick
from bot.context import Services
from bot.heart import beat, fire
from storage.jobs import Job
from tests.bare import NOON, Bare


def with_work(bare: Bare, *work: Tick | JobKind) -> Services:
    """An installation with these ticks and kinds of jobs."""
    kinds = {kind: [one for one in work if isinstance(one, kind)] for kind in (Tick, JobKind)}
    return replace(bare.services, catalog=replace(bare.services.catalog, values=kinds))


def raised(error: Exception) -> OperationalError:
    return OperationalError("", {}, error)


def states(bare: Bare) -> list[str]:
    with bare.database.reading() as session:
        return list(session.exec(select(Job.state)))


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    made = Bare(f"sqlite:///{tmp_path}/heart.db")
    yield made
    made.close()


def test_a_broken_tick_stops_no_other_and_a_database_that_is_away_all(bare: Bare) -> None:
    seen: list[str] = []
    trouble: list[Exception] = [
        ValueError(),
        raised(psycopg.errors.DeadlockDetected()),
        raised(psycopg.errors.AdminShutdown()),
    ]

    def fails(*_given: Any) -> None:
        raise trouble[0]

    services = with_work(
        bare, Tick("broken", fails), Tick("whole", lambda *_given: seen.append(""))
    )
    for after in (1, 2, 2):
        assert beat(services) == 1
        assert len(seen) == after
        trouble.pop(0)


@pytest.mark.parametrize("error", [psycopg.errors.DeadlockDetected, psycopg.errors.DiskFull])
def test_a_job_that_gave_another_the_way_is_done_at_the_next_beat(
    bare: Bare, error: type[Exception]
) -> None:
    trouble = [raised(error())]

    def work(*_given: Any) -> bool:
        if trouble:
            raise trouble.pop()
        return True

    services = with_work(bare, JobKind("work", work))
    with bare.database.session() as session:
        session.add(Job(kind="work", payload="{}", created_at=NOON))
    assert beat(services) == 1
    assert states(bare) == ["waiting"]
    assert beat(services) == 0
    assert states(bare) == ["done"]


def test_a_broken_job_is_parked(bare: Bare) -> None:
    services = with_work(bare, JobKind("work", lambda *_given: 1 / 0))  # type: ignore[arg-type, return-value]
    with bare.database.session() as session:
        session.add(Job(kind="work", payload="{}", created_at=NOON))
    assert beat(services) == 0
    assert states(bare) == ["failed"]


def test_an_occasion_is_claimed_once_by_whoever_ends_what_it_began(database_url: str) -> None:
    bare = Bare(database_url)
    with suppress(InterruptedError), bare.database.session() as session:
        fire(session, "letter", "spring", NOON)
        raise InterruptedError
    claims = []
    for hours in (0, 1):
        with bare.database.session() as session:
            claims.append(fire(session, "letter", "spring", NOON + timedelta(hours=hours)))
    assert claims == [True, False]
    bare.close()


def test_of_three_that_beat_at_once_one_claims_the_occasion(database_url: str) -> None:
    bare, ready, claims = Bare(database_url), Barrier(3), list[bool]()

    def beat() -> None:
        ready.wait()
        with bare.database.session() as session:
            claims.append(fire(session, "letter", "spring", NOON))

    threads = [Thread(target=beat) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == [False, False, True]
    bare.close()
