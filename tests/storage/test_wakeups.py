"""Who writes into the outbox wakes every process, when it is committed and not before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from storage.wakeups import Listener, announce
from tests.bare import Bare

PATIENCE = 10.0


class Woken:
    """Counts, and lets a test wait for the next time."""

    def __init__(self) -> None:
        self.times = threading.Semaphore(0)

    def __call__(self) -> None:
        self.times.release()

    def soon(self) -> bool:
        return self.times.acquire(timeout=PATIENCE)


@pytest.fixture
def postgres(new_postgres_url: Callable[[], str]) -> Iterator[Bare]:
    made = Bare(new_postgres_url())
    yield made
    made.close()


@pytest.fixture
def woken(postgres: Bare) -> Iterator[Woken]:
    """Woken once already, for what was announced before anybody listened."""
    woken = Woken()
    listener = Listener(postgres.database.engine, woken)
    assert woken.soon()
    yield woken
    listener.close()


def test_an_announcement_wakes_when_it_is_committed(postgres: Bare, woken: Woken) -> None:
    with postgres.database.transaction() as connection:
        announce(connection)
        assert not woken.times.acquire(timeout=0.3)
    assert woken.soon()
    postgres.rows(1)
    assert woken.soon()


def test_a_listener_whose_connection_is_cut_listens_again(postgres: Bare, woken: Woken) -> None:
    with postgres.database.transaction() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )
    assert woken.soon()  # it is back
    postgres.rows(1)
    assert woken.soon()


def test_on_sqlite_nobody_listens_and_announcing_harms_nothing(tmp_path: Path) -> None:
    bare, woken = Bare(f"sqlite:///{tmp_path}/bare.db"), Woken()
    listener = Listener(bare.database.engine, woken)
    bare.rows(1)
    listener.close()
    bare.close()
    assert not woken.times.acquire(blocking=False)
