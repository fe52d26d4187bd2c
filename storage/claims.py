"""What a delivery worker holds of the outbox: rows claimed ahead of its calls, while it lives."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from math import inf
from time import monotonic
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, and_, case, exists, insert, or_, update
from sqlalchemy import select as core_select
from sqlmodel import Field, SQLModel

from storage.columns import to_millis
from storage.conditions import IN_FLIGHT
from storage.driver import clock_of, database_millis, execute
from storage.lanes import LANES, probe
from storage.mailbox import TABLE, in_state
from storage.states import State


class Worker(SQLModel, table=True):
    """A delivery process and when it last said that it lives (epoch ms, database's clock)."""

    id: str = Field(primary_key=True)
    beat: int = Field(sa_type=BigInteger)


class Claimed(NamedTuple):
    """A leased row: what a worker needs to render and send it, and when its slot is.

    `body` is still sealed, so that one that no key opens spoils nothing but its own row. `slot_ms`
    is how long to wait so that the lane's rate holds (0 where `gap_ms` is), `due` the same moment
    by the machine's own clock, and `until` when it is too late for it. `probe`: it tries a channel
    that was out of order. `tried_at` (epoch ms): it may have left then.
    """

    id: int
    occasion: str
    campaign_id: int | None
    person_id: int | None
    address: str
    purpose: str
    lane: str
    windowed: bool
    repeatable: bool
    attempts: int
    parts_sent: int
    body: bytes | None
    tried_at: int | None
    slot_ms: int = 0
    due: float = 0.0
    until: float = inf
    gap_ms: int = 0
    probe: bool = False


FURTHEST_MS = 2_000
"""No slot is given out further ahead."""

TOLERANCE = 0.8
"""Of a lane's gap, how late a row may be: less than a whole one, or a second could hold two too
many."""

# Counted, not NOT EXISTS: PostgreSQL would make a join of that and hold each ready row against
# everything in flight, where one look into the index is enough. And below one, not none: it takes
# that to be rare, expects to read the whole lane and compiles the statement first, for 0.1 s.
_READY = (
    "SELECT outbox.id FROM outbox WHERE outbox.lane = ? AND outbox.state IN ('queued') "
    "AND outbox.not_before <= ? AND (SELECT count(*) FROM outbox AS flight "
    "WHERE flight.address = outbox.address AND flight.state IN ('leased', 'sending')) < 1 "
    "ORDER BY outbox.not_before, outbox.id LIMIT ?"
)

_CLAIM = (
    "UPDATE outbox SET state = 'leased', reason = '', owner = ? WHERE id IN ({ready}) "
    "RETURNING id, occasion, campaign_id, person_id, address, purpose, lane, windowed, "
    "repeatable, attempts, parts_sent, body, tried_at"
)

_CLAIM_SQLITE = _CLAIM.format(ready=_READY)

_CLAIM_POSTGRESQL = _CLAIM.format(ready=f"{_READY} FOR UPDATE SKIP LOCKED")

# The same again: a join would read past every row that has left before it finds one that waits.
_DUE_LANES = (
    "SELECT lane.key FROM lane WHERE lane.blocked_until <= {clock} AND NOT lane.paused AND ("
    "SELECT outbox.id FROM outbox WHERE outbox.lane = lane.key AND outbox.state IN ('queued') "
    "AND outbox.not_before <= ? ORDER BY outbox.lane, outbox.not_before LIMIT 1) IS NOT NULL "
    "ORDER BY lane.priority, lane.key"
)


def due_lanes(connection: Connection, now: datetime) -> list[str]:
    """Lanes that may send now and have something due, most urgent first."""
    statement = _DUE_LANES.format(clock=clock_of(connection))
    return [key for (key,) in execute(connection, statement, (to_millis(now),))]


class _Gauge(NamedTuple):
    """What limits a lane, and what the database's clock shows."""

    gap_ms: int
    burst: int
    tat: int
    blocked_until: int
    paused: bool
    broken_at: int
    clock: int


_GAUGE = (
    "SELECT gap_ms, burst, tat, blocked_until, paused, broken_at, {clock} FROM lane WHERE key = ?"
)


def _gauge(connection: Connection, lane: str) -> _Gauge:
    """A lane as it stands, and ours until this transaction ends: its slots are counted, and what is
    in flight to an address looked up, by one worker after the other."""
    statement = _GAUGE.format(clock=clock_of(connection))
    if connection.dialect.name == "sqlite":  # which knows one writer at a time
        return _Gauge._make(execute(connection, statement, (lane,)).fetchone())
    gauge = _Gauge._make(execute(connection, f"{statement} FOR UPDATE", (lane,)).fetchone())
    # We may have waited for it since the clock was read.
    return gauge._replace(clock=database_millis(connection)) if gauge.gap_ms else gauge


def claim(
    connection: Connection,
    lane: str,
    worker: str,
    now: datetime,
    free: int,
    horizon_ms: int = 300,
    lead_ms: int = 0,
    ticks: Callable[[], float] = monotonic,
) -> list[Claimed]:
    """Lease up to `free` due rows of a lane, at most as many as have a slot within the horizon.

    `lead_ms`: how long this worker needs from here to a call; no slot is sooner. `ticks`: seconds
    of a clock that only goes forward.
    """
    gauge = _gauge(connection, lane)
    clock, read_at = gauge.clock, ticks()
    if gauge.paused or gauge.blocked_until > clock:
        return []
    free = min(free, 1) if gauge.broken_at else free
    gap = gauge.gap_ms
    # No claim reserves further ahead than this: a later one was reckoned by a clock since set back.
    tat = gauge.tat if gauge.tat <= clock + FURTHEST_MS + gap else clock
    start = max(tat, clock + min(lead_ms, FURTHEST_MS) - (gauge.burst - 1) * gap) if gap else clock
    if gap:
        free = min(free, (clock + min(lead_ms + horizon_ms, FURTHEST_MS) - start) // gap + 1)
    if free <= 0:
        return []
    statement = _CLAIM_SQLITE if connection.dialect.name == "sqlite" else _CLAIM_POSTGRESQL
    rows = execute(connection, statement, (worker, lane, to_millis(now), free)).fetchall()
    rows.sort()  # by id, in which they were written
    if gauge.broken_at and rows:
        probe(connection, lane, gauge.broken_at, clock)
    if not gap:
        unhurried = (0, read_at, inf, 0, bool(gauge.broken_at))
        return [Claimed._make((*row, *unhurried)) for row in rows]
    if rows:
        connection.execute(
            update(LANES).where(LANES.c.key == lane).values(tat=start + gap * len(rows))
        )
    waits = [max(0, start + index * gap - clock) for index in range(len(rows))]
    # A slot that a burst saved up is not missed for the time that any row needs until its call.
    latest = [max(wait, lead_ms) + TOLERANCE * gap for wait in waits]
    return [
        Claimed._make(
            (*row, wait, read_at + wait / 1000, read_at + last / 1000, gap, bool(gauge.broken_at))
        )
        for row, wait, last in zip(rows, waits, latest, strict=True)
    ]


def release_unknown(connection: Connection, worker: str, known: Sequence[int]) -> int:
    """Leases of a worker that it does not know of (its claim's answer was lost) wait again."""
    return connection.execute(
        update(TABLE)
        .where(IN_FLIGHT, TABLE.c.owner == worker, in_state(State.LEASED))
        .where(TABLE.c.id.not_in(known))
        .values(state=State.QUEUED, owner="")
    ).rowcount


def fail_leased(connection: Connection, worker: str, ids: Sequence[int], reason: str) -> None:
    """Give up rows that could not even be rendered."""
    connection.execute(
        update(TABLE)
        .where(TABLE.c.id.in_(ids), TABLE.c.owner == worker, TABLE.c.state == State.LEASED)
        .values(state=State.FAILED, reason=reason)
    )


def put_off(connection: Connection, worker: str, ids: Sequence[int], until: datetime) -> None:
    """Give leased rows back, not to leave before a moment."""
    connection.execute(
        update(TABLE)
        .where(TABLE.c.id.in_(ids), TABLE.c.owner == worker, TABLE.c.state == State.LEASED)
        .values(state=State.QUEUED, owner="", not_before=until)
    )


def release(connection: Connection, worker: str, ids: Sequence[int]) -> None:
    """Give leased rows back, not having been sent."""
    connection.execute(
        update(TABLE)
        .where(TABLE.c.id.in_(ids), TABLE.c.owner == worker, TABLE.c.state == State.LEASED)
        .values(state=State.QUEUED, owner="")
    )


def beat(connection: Connection, worker: str) -> None:
    """Say that a worker lives."""
    now = database_millis(connection)
    workers: Any = Worker.__table__  # type: ignore[attr-defined]
    done = connection.execute(update(workers).where(workers.c.id == worker).values(beat=now))
    if not done.rowcount:
        connection.execute(insert(workers), {"id": worker, "beat": now})


# The gate asks whether its platform still knows it when it leaves again.
_KNOWN_AGAIN = exists().where(LANES.c.key == TABLE.c.lane, LANES.c.known_ms > 0)


def wind_back(connection: Connection, now: datetime) -> int:
    """What was to leave at once, written while the clock was ahead, may leave now that it is back;
    what was meant for a moment of its own still waits for it."""
    return connection.execute(
        update(TABLE)
        .where(
            in_state(State.QUEUED),
            TABLE.c.created_at > now,
            TABLE.c.not_before > now,
            TABLE.c.not_before <= TABLE.c.created_at,
        )
        .values(not_before=now)
    ).rowcount


def beats(connection: Connection) -> dict[str, int]:
    """When each worker last said that it lives. To be compared with what was read before, not with
    a clock, which may be set."""
    workers: Any = Worker.__table__  # type: ignore[attr-defined]
    return {row.id: row.beat for row in connection.execute(core_select(workers))}


def sweep(
    connection: Connection,
    worker: str,
    ttl: timedelta,
    *,
    alone: bool,
    living: Collection[str] | None = None,
) -> int:
    """Take back what dead workers held: leased rows wait again, sending rows are `unknown`
    (or wait again where a second copy does no harm, or is none). Returns how many rows moved.

    `alone`: no other process can hold this database, so every other owner is dead at once.
    `living` are those that the caller knows to live; without them their last beat decides.
    """
    if alone:
        living = ()
    elif living is None:
        deadline = database_millis(connection) - ttl / timedelta(milliseconds=1)
        living = [one for one, beat in beats(connection).items() if beat > deadline]
    lost = and_(IN_FLIGHT, TABLE.c.owner != "", TABLE.c.owner.not_in({worker, *living}))
    moved = connection.execute(
        update(TABLE).where(lost, in_state(State.LEASED)).values(state=State.QUEUED, owner="")
    ).rowcount
    moved += connection.execute(
        update(TABLE)
        .where(lost, in_state(State.SENDING))
        .values(
            state=case((or_(TABLE.c.repeatable, _KNOWN_AGAIN), State.QUEUED), else_=State.UNKNOWN),
            reason="worker_lost",
        )
    ).rowcount
    return moved
