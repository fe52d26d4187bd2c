"""Lanes: how fast each platform is spoken to, and what keeps it quiet for a while."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, case, update
from sqlmodel import Field, SQLModel

from storage.driver import database_millis, on_conflict_nothing


class Lane(SQLModel, table=True):
    """One rate-limit domain with a priority (0 goes first).

    `gap_ms` is the time between two sends, 0 for no limit, `burst` how many may go at once. `tat`
    is the theoretical arrival time of the next send (GCRA), `blocked_until` the platform's word,
    both by the database's clock in epoch ms. `broken_at` (0: not) is when its channel was found to
    be out of order: since then one row at a time tries whether it works again. `known_ms` is for
    how long the platform takes a message of the same key for the one it has.
    """

    key: str = Field(primary_key=True)
    priority: int = 9
    gap_ms: int = 0
    burst: int = 1
    tat: int = Field(default=0, sa_type=BigInteger)
    blocked_until: int = Field(default=0, sa_type=BigInteger)
    paused: bool = False
    broken_at: int = Field(default=0, sa_type=BigInteger)
    known_ms: int = 0


LANES: Any = Lane.__table__  # type: ignore[attr-defined]  # SQLModel sets it

FIRST_PROBE_MS = 5_000
LAST_PROBE_MS = 300_000


def block_lane(connection: Connection, lane: str, seconds: float) -> None:
    """Keep a lane quiet for as long as the platform asked."""
    until = database_millis(connection) + round(seconds * 1000)
    connection.execute(
        update(LANES)
        .where(LANES.c.key == lane, LANES.c.blocked_until < until)
        .values(blocked_until=until)
    )


def ensure_lane(
    connection: Connection,
    key: str,
    priority: int,
    gap_ms: int = 0,
    burst: int = 1,
    known_ms: int = 0,
) -> None:
    """Have a lane with these limits; the limits in the code win over stored ones."""
    limits = {"priority": priority, "gap_ms": gap_ms, "burst": burst, "known_ms": known_ms}
    done = connection.execute(update(LANES).where(LANES.c.key == key).values(**limits))
    if not done.rowcount:
        connection.execute(
            on_conflict_nothing(connection, LANES),
            [{"key": key, **limits, "tat": 0, "blocked_until": 0, "broken_at": 0, "paused": False}],
        )


def break_off(connection: Connection, lanes: Sequence[str]) -> int:
    """Claim nothing of these lanes for a while, then one row at a time; how many were whole."""
    clock = database_millis(connection)
    return connection.execute(
        update(LANES)
        .where(LANES.c.key.in_(lanes), LANES.c.broken_at == 0)
        .values(broken_at=clock, blocked_until=_later(clock + FIRST_PROBE_MS))
    ).rowcount


def mend(connection: Connection, lanes: Sequence[str]) -> int:
    """Let these lanes go on as before; returns how many were broken."""
    return connection.execute(
        update(LANES)
        .where(LANES.c.key.in_(lanes), LANES.c.broken_at > 0)
        .values(broken_at=0, blocked_until=0)
    ).rowcount


def probe(connection: Connection, lane: str, broken_at: int, clock: int) -> None:
    """One row of a broken lane is about to try; the next one waits as long as it has lasted."""
    wait = min(max(clock - broken_at, FIRST_PROBE_MS), LAST_PROBE_MS)
    connection.execute(
        update(LANES).where(LANES.c.key == lane).values(blocked_until=_later(clock + wait))
    )


def _later(until: int) -> Any:
    return case((LANES.c.blocked_until > until, LANES.c.blocked_until), else_=until)
