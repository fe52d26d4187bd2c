"""Lanes: how fast each platform is spoken to, and what keeps it quiet for a while."""

from typing import Any

from sqlalchemy import BigInteger, Connection, update
from sqlmodel import Field, SQLModel

from storage.driver import database_millis, on_conflict_nothing


class Lane(SQLModel, table=True):
    """One rate-limit domain with a priority (0 goes first).

    `gap_ms` is the time between two sends, 0 for no limit, `burst` how many may go at once. `tat`
    is the theoretical arrival time of the next send (GCRA), `blocked_until` the platform's word,
    both by the database's clock in epoch ms.
    """

    key: str = Field(primary_key=True)
    priority: int = 9
    gap_ms: int = 0
    burst: int = 1
    tat: int = Field(default=0, sa_type=BigInteger)
    blocked_until: int = Field(default=0, sa_type=BigInteger)
    paused: bool = False


LANES: Any = Lane.__table__  # type: ignore[attr-defined]  # SQLModel sets it


def block_lane(connection: Connection, lane: str, seconds: float) -> None:
    """Keep a lane quiet for as long as the platform asked."""
    until = database_millis(connection) + round(seconds * 1000)
    connection.execute(
        update(LANES)
        .where(LANES.c.key == lane, LANES.c.blocked_until < until)
        .values(blocked_until=until)
    )


def ensure_lane(
    connection: Connection, key: str, priority: int, gap_ms: int = 0, burst: int = 1
) -> None:
    """Have a lane with these limits; the limits in the code win over stored ones."""
    limits = {"priority": priority, "gap_ms": gap_ms, "burst": burst}
    done = connection.execute(update(LANES).where(LANES.c.key == key).values(**limits))
    if not done.rowcount:
        connection.execute(
            on_conflict_nothing(connection, LANES),
            [{"key": key, **limits, "tat": 0, "blocked_until": 0, "paused": False}],
        )
