"""Inbox and outbox: what was answered, and the ledger of everything that is to leave.

Nothing is sent that is not a row here first. A worker *claims* rows ahead of its calls, the *gate*
lets only those through that are still its own, live, unpaused and consented to, and the
*acknowledgement* writes down what became of them. A row whose sender died between gate and
acknowledgement is `unknown`: it is never sent again blindly.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from itertools import chain
from math import inf
from time import monotonic
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    UniqueConstraint,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    not_,
    or_,
    text,
    type_coerce,
    update,
)
from sqlalchemy import select as core_select
from sqlmodel import Field, SQLModel, col

from storage.campaigns import Campaign, CampaignState, CampaignTotal
from storage.columns import EncryptedText, UtcDateTime, personal, to_millis
from storage.driver import clock_of, execute, run
from storage.driver import database_millis as database_millis
from storage.driver import on_conflict_base as on_conflict_base
from storage.driver import on_conflict_nothing as on_conflict_nothing
from storage.lanes import LANES as LANES
from storage.lanes import Lane as Lane
from storage.lanes import block_lane as block_lane
from storage.lanes import ensure_lane as ensure_lane
from storage.lanes import probe
from storage.numbers import among, packed
from storage.people import ALL_TOPICS, ConsentNow, Contact, Person, Unsubscription
from storage.states import OPEN as OPEN
from storage.states import STATE_WORDS as STATE_WORDS
from storage.states import TRANSITIONS as TRANSITIONS
from storage.states import WAITING as WAITING
from storage.states import State as State
from storage.wakeups import announce

ROW_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER keys itself


STORED_AS: Mapping[str, object] = {
    "fillfactor": 80,
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 5000,
    "autovacuum_analyze_scale_factor": 0.01,
    "autovacuum_analyze_threshold": 5000,
    "autovacuum_vacuum_cost_limit": 2000,
}
"""How PostgreSQL keeps the outbox: each message that leaves is three dead versions of its row, and
a claim walks over those that no vacuum has cleared away."""


class Inbox(SQLModel, table=True):
    """A message that was answered. `reply` is what the platform's next try is given.

    `reply` is None when the answer left through the outbox, or was pruned after a day.
    """

    key: str = Field(primary_key=True, sa_column_kwargs=personal("去重", "消息编号"))
    person_id: int | None = Field(default=None, foreign_key="person.id", index=True)
    received_at: datetime = Field(sa_type=UtcDateTime, index=True)
    reply: str | None = Field(
        default=None, sa_type=EncryptedText, sa_column_kwargs=personal("重发应答", "刚才的回复")
    )


class Outbox(SQLModel, table=True):
    """One message to one recipient for one occasion: the pair is unique.

    `recipient` is `p<person id>` or `g<address>`. `address` is `channel:account:user`. A campaign's
    row has no body: it is rendered when claimed; `body_hash` keeps what left. `scope` and `topic`
    are what the gate asks before sending: a live consent, no unsubscription. `windowed`: the
    channel lets us speak only inside its reply window. `repeatable`: after a crash it may leave
    twice rather than never (answers, reminders). `tried_at`: when it first left, if nobody knows
    whether it arrived.
    """

    __table_args__ = (
        UniqueConstraint("occasion", "recipient"),
        {"postgresql_with": STORED_AS},
    )

    id: int | None = Field(default=None, sa_column=Column(ROW_ID, primary_key=True))
    occasion: str
    recipient: str
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id")
    person_id: int | None = Field(default=None, foreign_key="person.id")
    address: str | None = Field(default=None, sa_column_kwargs=personal("收发消息", "寄往的标识"))
    purpose: str
    scope: str | None = None
    topic: str | None = None
    lane: str
    windowed: bool = False
    repeatable: bool = False
    state: str = State.QUEUED
    reason: str = ""
    not_before: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    attempts: int = 0
    parts_sent: int = 0
    owner: str = ""
    body: str | None = Field(
        default=None, sa_type=EncryptedText, sa_column_kwargs=personal("寄给您的话", "发件正文")
    )
    body_hash: str = ""
    provider_id: str = ""
    created_at: datetime = Field(sa_type=UtcDateTime)
    sent_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    tried_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Worker(SQLModel, table=True):
    """A delivery process and when it last said that it lives (epoch ms, database's clock)."""

    id: str = Field(primary_key=True)
    beat: int = Field(sa_type=BigInteger)


def _in_state(*states: State) -> Any:
    # Written out, not bound: only then can the partial indexes be used.
    return text("outbox.state IN (" + ", ".join(f"'{state}'" for state in states) + ")")


def _partial(name: str, *columns: Any, states: "tuple[State, ...]", and_also: str = "") -> Index:
    where = text("state IN (" + ", ".join(f"'{state}'" for state in states) + f"){and_also}")
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


_partial(
    "ix_outbox_ready",
    col(Outbox.lane),
    col(Outbox.not_before),
    col(Outbox.id),
    states=(State.QUEUED,),
)
# Led by the address: led by the lane it becomes a scan over everything in flight.
_partial(
    "ix_outbox_flight",
    col(Outbox.address),
    states=(
        State.LEASED,
        State.SENDING,
    ),
)
_partial("ix_outbox_deferred", col(Outbox.address), states=(State.DEFERRED,))
_partial(
    "ix_outbox_expiry",
    col(Outbox.expires_at),
    states=(*WAITING, State.AWAITING_STAFF),
    and_also=" AND expires_at IS NOT NULL",  # what never expires is not written there three times
)
_OF_SOMEBODY = text("person_id IS NOT NULL")
Index(
    "ix_outbox_person",
    col(Outbox.person_id),
    sqlite_where=_OF_SOMEBODY,
    postgresql_where=_OF_SOMEBODY,
)
_KNOWN_THERE = text("provider_id <> ''")
Index(
    "ix_outbox_provider",
    col(Outbox.provider_id),
    sqlite_where=_KNOWN_THERE,
    postgresql_where=_KNOWN_THERE,
)
_OF_CAMPAIGN = text("campaign_id IS NOT NULL")
Index(
    "ix_outbox_campaign",
    col(Outbox.campaign_id),
    col(Outbox.state),
    col(Outbox.reason),  # receipts are counted from the index alone
    sqlite_where=_OF_CAMPAIGN,
    postgresql_where=_OF_CAMPAIGN,
)
_WITH_BODY = text("body IS NOT NULL")
Index(
    "ix_outbox_body",
    col(Outbox.created_at),
    sqlite_where=_WITH_BODY,
    postgresql_where=_WITH_BODY,
)
_WITH_REPLY = text("reply IS NOT NULL")
Index(
    "ix_inbox_reply",
    col(Inbox.received_at),
    sqlite_where=_WITH_REPLY,
    postgresql_where=_WITH_REPLY,
)

TABLE: Any = Outbox.__table__  # type: ignore[attr-defined]  # SQLModel sets it
INBOX: Any = Inbox.__table__  # type: ignore[attr-defined]
_TOTALS: Any = CampaignTotal.__table__  # type: ignore[attr-defined]


def enqueue(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whose (occasion, recipient) is new; the others are left as they are."""
    if rows:
        connection.execute(on_conflict_nothing(connection, TABLE), list(rows))
        announce(connection)


def reopen(connection: Connection, address: str, purposes: Iterable[str]) -> int:
    """What waits for somebody to write may be tried again, if it is for one of these purposes."""
    return connection.execute(
        update(TABLE)
        .where(
            TABLE.c.address == address,
            _in_state(State.DEFERRED),
            TABLE.c.reason == "window",
            TABLE.c.purpose.in_(list(purposes)),
        )
        .values(state=State.QUEUED, reason="")
    ).rowcount


def first_time(connection: Connection, key: str, now: datetime) -> bool:
    """Take what a platform tells under this key; False if it was taken before."""
    row = {"key": key, "person_id": None, "received_at": now, "reply": None}
    statement = on_conflict_nothing(connection, INBOX).returning(INBOX.c.key)
    return connection.execute(statement, row).first() is not None


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
    """A lane as it stands; locked where slots are counted, so that a limit holds over any number of
    workers. Where none are they need not wait for one another."""
    statement = _GAUGE.format(clock=clock_of(connection))
    gauge = _Gauge._make(execute(connection, statement, (lane,)).fetchone())
    if connection.dialect.name == "sqlite" or not (gauge.gap_ms or gauge.broken_at):
        return gauge
    # The clock is read once the lane is ours: we may have waited for it.
    execute(connection, "SELECT key FROM lane WHERE key = ? FOR UPDATE", (lane,))
    return _Gauge._make(execute(connection, statement, (lane,)).fetchone())


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


_CONSENTED = or_(
    TABLE.c.scope.is_(None),
    exists().where(
        col(ConsentNow.person_id) == TABLE.c.person_id,
        col(ConsentNow.scope) == TABLE.c.scope,
        col(ConsentNow.live),
    ),
)
_WANTED = or_(
    TABLE.c.topic.is_(None),
    not_(
        exists().where(
            col(Unsubscription.person_id) == TABLE.c.person_id,
            col(Unsubscription.topic).in_([TABLE.c.topic, ALL_TOPICS]),
        )
    ),
)
_AHEAD = TABLE.alias("ahead")
_GOING_FIRST = (
    core_select(func.count())
    .select_from(_AHEAD)
    .where(
        _AHEAD.c.address == TABLE.c.address,
        _AHEAD.c.id < TABLE.c.id,
        among(_AHEAD.c.id, "ids"),
        text("ahead.state IN ('leased', 'sending')"),
    )
    .correlate(TABLE)
    .scalar_subquery()
)
_IN_WINDOW = or_(
    not_(TABLE.c.windowed),
    exists().where(
        col(Contact.address) == TABLE.c.address,
        col(Contact.window_until) > bindparam("now", type_=UtcDateTime),
        col(Contact.window_left) > _GOING_FIRST,
    ),
)
_ALIVE = or_(TABLE.c.expires_at.is_(None), TABLE.c.expires_at > bindparam("now", type_=UtcDateTime))
# What may have arrived may be said again only while its platform takes it for the same message.
_MAY_HAVE_ARRIVED = and_(TABLE.c.tried_at.is_not(None), not_(TABLE.c.repeatable))
_SAFE_AGAIN = or_(
    not_(_MAY_HAVE_ARRIVED),
    exists().where(
        LANES.c.key == TABLE.c.lane,
        type_coerce(TABLE.c.tried_at, BigInteger) + LANES.c.known_ms
        > type_coerce(bindparam("now", type_=UtcDateTime), BigInteger),
    ),
)


def _campaign_is(state: CampaignState) -> Any:
    return and_(
        TABLE.c.campaign_id.is_not(None),
        exists().where(col(Campaign.id) == TABLE.c.campaign_id, col(Campaign.state) == state),
    )


_PAUSED = _campaign_is(CampaignState.PAUSED)
_CANCELLED = _campaign_is(CampaignState.CANCELLED)
_MINE = and_(
    among(TABLE.c.id, "ids"),
    TABLE.c.owner == bindparam("worker"),
    # Hidden from the planner, which would rather read all that is in flight than look up the ids.
    TABLE.c.state.concat("") == State.LEASED,
)
_FIRST_TRIED = func.coalesce(TABLE.c.tried_at, bindparam("now", type_=UtcDateTime))
_GATE = (
    update(TABLE)
    .where(
        _MINE,
        _ALIVE,
        _CONSENTED,
        _WANTED,
        _IN_WINDOW,
        _SAFE_AGAIN,
        not_(_PAUSED),
        not_(_CANCELLED),
    )
    .values(state=State.SENDING, tried_at=_FIRST_TRIED)
    .returning(TABLE.c.id, TABLE.c.windowed, TABLE.c.address)
)
_UNCERTAIN = or_(not_(_SAFE_AGAIN), and_(_MAY_HAVE_ARRIVED, or_(not_(_ALIVE), _CANCELLED)))
_TURNED_AWAY = (
    update(TABLE)
    .where(_MINE)
    .values(
        state=case(
            (_UNCERTAIN, State.UNKNOWN),
            (not_(_ALIVE), State.EXPIRED),
            (_CANCELLED, State.CANCELLED),
            (not_(_CONSENTED), State.SUPPRESSED),
            (not_(_WANTED), State.SUPPRESSED),
            (_PAUSED, State.HELD),
            else_=State.DEFERRED,
        ),
        reason=case(
            (_UNCERTAIN, "no_answer"),
            (not_(_ALIVE), "expired"),
            (_CANCELLED, "cancelled"),
            (not_(_CONSENTED), "consent"),
            (not_(_WANTED), "unsubscribed"),
            (_PAUSED, ""),
            else_="window",
        ),
    )
)
_SPEND_WINDOW = (
    update(Contact)
    .where(col(Contact.address) == bindparam("spent"))
    .values(window_left=col(Contact.window_left) - 1)
)


_GATE_BEYOND = (
    update(TABLE)
    .where(
        _MINE,
        among(TABLE.c.id, "beyond"),
        _ALIVE,
        _CONSENTED,
        _WANTED,
        not_(_IN_WINDOW),
        _SAFE_AGAIN,
        not_(_PAUSED),
        not_(_CANCELLED),
    )
    .values(state=State.SENDING, tried_at=_FIRST_TRIED)
    .returning(TABLE.c.id)
)


_FENCED = 20_260_101  # sets these locks apart from whatever else is locked by a number
_FENCE = "SELECT pg_advisory_xact_lock(?, ?)"
_WAIT_THERE = (
    "SELECT pg_advisory_xact_lock_shared(?, these.id) FROM (SELECT DISTINCT campaign_id AS id FROM "
    "outbox WHERE id = ANY(?::bigint[]) AND campaign_id IS NOT NULL ORDER BY campaign_id) AS these"
)


def wait_at_fences(connection: Connection, ids: Sequence[int]) -> None:
    """Wait until whoever stops the campaigns of these rows has done so, that the gate sees it.

    To be asked before the gate, and before this transaction holds any row: whoever stops a campaign
    may want that row.
    """
    if connection.dialect.name != "sqlite":
        execute(connection, _WAIT_THERE, (_FENCED, packed(ids, connection.dialect.name)))


def gate_beyond(
    connection: Connection, ids: Sequence[int], beyond: Sequence[int], worker: str, now: datetime
) -> set[int]:
    """Of the rows `beyond`, which need no reply window, let those through whose window is closed.

    To be asked before `gate`, with the same `ids`; the rest is for `gate` to decide.
    """
    if not beyond:
        return set()
    arguments = {"ids": list(ids), "beyond": list(beyond), "worker": worker, "now": now}
    return {row.id for row in connection.execute(_GATE_BEYOND, arguments)}


def gate(connection: Connection, ids: Sequence[int], worker: str, now: datetime) -> set[int]:
    """Let through what may leave this moment; everything else gets its reason.

    To be asked after `wait_at_fences`. Only the returned ids may be sent. Pause, cancel,
    withdrawal, expiry, a closed reply window and a lost lease all work through this one statement.
    """
    dialect = connection.dialect.name
    arguments = {"ids": packed(ids, dialect), "worker": worker, "now": to_millis(now)}
    passed = run(connection, _GATE, arguments).fetchall()
    if len(passed) < len(ids):
        run(connection, _TURNED_AWAY, arguments)
    spent = [{"spent": address} for _id, windowed, address in passed if windowed]
    if spent:
        connection.execute(_SPEND_WINDOW, spent)
    return {id for id, _windowed, _address in passed}


class Outcome(NamedTuple):
    """What became of a row that was let through. `tried`: it may have arrived all the same."""

    id: int
    state: State
    reason: str = ""
    attempts: int = 0
    parts_sent: int = 0
    not_before: datetime | None = None
    sent_at: datetime | None = None
    provider_id: str = ""
    body_hash: str = ""
    tried: bool = False


_DONE = {
    "id": "bigint",
    "state": "text",
    "reason": "text",
    "attempts": "int",
    "parts_sent": "int",
    "not_before": "bigint",
    "sent_at": "bigint",
    "provider_id": "text",
    "body_hash": "text",
    "tried": "bool",
}
"""What an acknowledgement holds of a row, and as what."""

# All rows in one statement: for each one of its own the server would do as much again, and on
# SQLite the interpreter would change hands. `|| ''` hides the state from the planner, which would
# rather read all that is in flight than look up the ids.
_ACK = (
    "UPDATE outbox SET state = done.state, reason = done.reason, attempts = done.attempts, "
    "parts_sent = done.parts_sent, not_before = coalesce(done.not_before, outbox.not_before), "
    "sent_at = done.sent_at, provider_id = done.provider_id, body_hash = done.body_hash, "
    "tried_at = CASE WHEN done.tried THEN outbox.tried_at END "
    "FROM {done} WHERE outbox.id = done.id AND outbox.owner = ? "
    "AND outbox.state || '' IN ('sending', 'unknown')"
)
# One parameter for all: PostgreSQL's driver would put longer lists together value by value.
_ACK_POSTGRESQL = _ACK.format(
    done=f"json_to_recordset(?) AS done({', '.join(map(' '.join, _DONE.items()))})"
)


@cache
def _ack_sqlite(count: int) -> str:
    row = f"({', '.join('?' for _ in _DONE)})"
    rows = ", ".join(row for _ in range(count))
    return f"WITH done({', '.join(_DONE)}) AS (VALUES {rows}) " + _ACK.format(done="done")


GONE = ("blocked", "unreachable")
"""Reasons of a failure after which an address is not tried again until its owner speaks."""

_LOSE_CONTACT = (
    update(Contact)
    .where(
        col(Contact.address).in_(
            core_select(TABLE.c.address).where(TABLE.c.id == bindparam("lost"))
        )
    )
    .values(reachable=False)
)


def acknowledge(connection: Connection, worker: str, outcomes: Iterable[Outcome]) -> None:
    """Write down results; repeating it changes nothing, a stranger's row is left alone."""
    done = list(outcomes)
    if not done:
        return
    rows = [
        (
            one.id,
            str(one.state),
            one.reason,
            one.attempts,
            one.parts_sent,
            one.not_before and to_millis(one.not_before),
            one.sent_at and to_millis(one.sent_at),
            one.provider_id,
            one.body_hash,
            one.tried,
        )
        for one in done
    ]
    if connection.dialect.name == "sqlite":
        execute(connection, _ack_sqlite(len(rows)), (*chain.from_iterable(rows), worker))
    else:
        named = json.dumps([dict(zip(_DONE, row, strict=True)) for row in rows])
        execute(connection, _ACK_POSTGRESQL, (named, worker))
    lost = [{"lost": one.id} for one in done if one.state is State.FAILED and one.reason in GONE]
    if lost:
        connection.execute(_LOSE_CONTACT, lost)
    again = [one.id for one in done if one.state in (State.QUEUED, State.DEFERRED)]
    if again:
        connection.execute(_STOPPED_MEANWHILE, {"again": again})


def report(
    connection: Connection, channel: str, provider_id: str, state: State, reason: str = ""
) -> int:
    """Write down what a platform tells later of a row that it knows by `provider_id`.

    Returns how many rows moved; news that comes twice or too late moves none.
    """
    if not provider_id:
        return 0
    before = [known for known, after in TRANSITIONS.items() if state in after]
    moved = connection.execute(
        update(TABLE)
        .where(
            TABLE.c.provider_id == provider_id,
            text("provider_id <> ''"),  # said beside it, or the partial index is not used
            TABLE.c.lane.startswith(f"{channel}:", autoescape=True),
            TABLE.c.state.in_(before),
        )
        .values(state=state, reason=reason)
        .returning(TABLE.c.id)
    ).all()
    if state is State.FAILED and reason in GONE and moved:
        connection.execute(_LOSE_CONTACT, [{"lost": row.id} for row in moved])
    return len(moved)


# A call that was under way when its campaign was paused or cancelled must not be tried again.
_STOPPED_MEANWHILE = (
    update(TABLE)
    .where(
        TABLE.c.id.in_(bindparam("again", expanding=True)),
        TABLE.c.state.in_([State.QUEUED, State.DEFERRED]),
        or_(_PAUSED, _CANCELLED),
    )
    .values(
        state=case(
            (_PAUSED, State.HELD),
            (_MAY_HAVE_ARRIVED, State.UNKNOWN),
            else_=State.CANCELLED,
        ),
    )
)


# Said beside the narrower condition, or the partial index of what is in flight is not used.
_IN_FLIGHT = _in_state(State.LEASED, State.SENDING)


def take_back(
    connection: Connection, worker: str, ids: Sequence[int], tried: Sequence[int] = ()
) -> None:
    """Rows gated in a transaction whose end the worker never saw wait again: it sent none of them.

    `tried` may have arrived before that. Their campaign may have been stopped meanwhile.
    """
    connection.execute(
        update(TABLE)
        .where(
            TABLE.c.id.in_(ids),
            TABLE.c.owner == worker,
            TABLE.c.state.in_([State.SENDING, State.UNKNOWN]),
        )
        .values(
            state=State.QUEUED,
            owner="",
            tried_at=case((TABLE.c.id.in_(tried), TABLE.c.tried_at), else_=None),
        )
    )
    connection.execute(_STOPPED_MEANWHILE, {"again": list(ids)})


def release_unknown(connection: Connection, worker: str, known: Sequence[int]) -> int:
    """Leases of a worker that it does not know of (its claim's answer was lost) wait again."""
    return connection.execute(
        update(TABLE)
        .where(_IN_FLIGHT, TABLE.c.owner == worker, _in_state(State.LEASED))
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
            _in_state(State.QUEUED),
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
    lost = and_(_IN_FLIGHT, TABLE.c.owner != "", TABLE.c.owner.not_in({worker, *living}))
    moved = connection.execute(
        update(TABLE).where(lost, _in_state(State.LEASED)).values(state=State.QUEUED, owner="")
    ).rowcount
    moved += connection.execute(
        update(TABLE)
        .where(lost, _in_state(State.SENDING))
        .values(
            state=case((or_(TABLE.c.repeatable, _KNOWN_AGAIN), State.QUEUED), else_=State.UNKNOWN),
            reason="worker_lost",
        )
    ).rowcount
    return moved


def fence(connection: Connection, campaign_id: int) -> None:
    """Wait for the gates that are letting a campaign's rows through, and let no other do so before
    this transaction ends: those that come after it see what became of the campaign."""
    if connection.dialect.name != "sqlite":  # which knows one writer at a time
        execute(connection, _FENCE, (_FENCED, campaign_id))


def pick(
    connection: Connection, campaign_id: int, states: Sequence[State], most: int
) -> Sequence[int]:
    """Ids of some of a campaign's rows in these states, ours until this transaction ends; what
    somebody else is moving is passed over."""
    some = core_select(TABLE.c.id).where(
        TABLE.c.campaign_id == campaign_id, TABLE.c.state.in_(states)
    )
    return connection.execute(some.limit(most).with_for_update(skip_locked=True)).scalars().all()


STOPPABLE = (State.QUEUED, State.DEFERRED, State.LEASED)
"""What a pause holds: deferred rows too, else somebody who writes meanwhile would get theirs."""


def hold(connection: Connection, campaign_id: int, ids: Sequence[int] | None = None) -> int:
    """Pause a campaign, or these rows of it: no send of them starts after this commits."""
    return _move(connection, campaign_id, STOPPABLE, State.HELD, ids=ids)


def resume(connection: Connection, campaign_id: int, ids: Sequence[int] | None = None) -> int:
    """Let a held campaign go on, or these rows of it."""
    announce(connection)
    return _move(connection, campaign_id, (State.HELD,), State.QUEUED, ids=ids)


def postpone(
    connection: Connection, ids: Sequence[int], timezone: str | None, until: datetime
) -> None:
    """Let those of these held rows that are for people of one zone wait until a moment at least."""
    there = core_select(col(Person.id)).where(
        col(Person.timezone).is_(None) if timezone is None else col(Person.timezone) == timezone
    )
    connection.execute(
        update(TABLE)
        .where(
            among(TABLE.c.id, "ids"),
            TABLE.c.state == State.HELD,
            TABLE.c.not_before < until,
            TABLE.c.person_id.in_(there),
        )
        .values(not_before=until),
        {"ids": ids},
    )


def cancel(connection: Connection, campaign_id: int, ids: Sequence[int] | None = None) -> int:
    """Cancel what of a campaign, or of these rows of it, has not left; returns how many rows."""
    cancelled = _unless_tried(State.CANCELLED)
    return _move(connection, campaign_id, WAITING, cancelled, "cancelled", ids)


def _move(
    connection: Connection,
    campaign_id: int,
    origins: Sequence[State],
    target: Any,
    reason: str = "",
    ids: Sequence[int] | None = None,
) -> int:
    of_it = TABLE.c.campaign_id == campaign_id
    arguments: dict[str, Any] = {}
    if ids is not None:
        of_it, arguments = and_(of_it, among(TABLE.c.id, "ids")), {"ids": ids}
    elif State.LEASED in origins and connection.dialect.name != "sqlite":
        # In the gate's order: else it and we could each hold a row that the other waits for.
        leased = core_select(TABLE.c.id).where(of_it, TABLE.c.state == State.LEASED)
        connection.execute(leased.order_by(TABLE.c.id).with_for_update())
    return connection.execute(
        update(TABLE).where(of_it, TABLE.c.state.in_(origins)).values(state=target, reason=reason),
        arguments,
    ).rowcount


def _unless_tried(state: State) -> Any:
    """Of what may have arrived nobody can say that it never left."""
    return case((_MAY_HAVE_ARRIVED, State.UNKNOWN), else_=state)


def suppress_person(
    connection: Connection, person_id: int, reason: str, topic: str | None = None
) -> int:
    """Stop what waits for a person and needs their consent; of one topic only, if given."""
    conditions = [
        TABLE.c.person_id == person_id,
        _in_state(*WAITING),
        TABLE.c.scope.is_not(None),
    ]
    if topic is not None:
        conditions.append(TABLE.c.topic == topic)
    return connection.execute(
        update(TABLE).where(*conditions).values(state=State.SUPPRESSED, reason=reason)
    ).rowcount


def suppress_channel(
    connection: Connection, person_id: int, lanes: Sequence[str], reason: str, but: str
) -> int:
    """Stop what waits for a person on some lanes, whatever it is for but the purpose `but`."""
    return connection.execute(
        update(TABLE)
        .where(
            TABLE.c.person_id == person_id,
            _in_state(*WAITING),
            TABLE.c.lane.in_(lanes),
            TABLE.c.purpose != but,
        )
        .values(state=State.SUPPRESSED, reason=reason)
    ).rowcount


def progress(connection: Connection, campaign_id: int) -> dict[tuple[State, str], int]:
    """How many rows of a campaign are in which state for which reason; the forgotten ones too."""
    rows = connection.execute(
        core_select(TABLE.c.state, TABLE.c.reason, func.count())
        .where(TABLE.c.campaign_id == campaign_id)
        .group_by(TABLE.c.state, TABLE.c.reason)
    )
    counts = {(State(state), reason): count for state, reason, count in rows}
    forgotten = connection.execute(
        core_select(_TOTALS.c.state, _TOTALS.c.reason, _TOTALS.c.count).where(
            _TOTALS.c.campaign_id == campaign_id
        )
    )
    for state, reason, count in forgotten:
        key = State(state), reason
        counts[key] = counts.get(key, 0) + count
    return counts


def departed(connection: Connection, campaign_id: int) -> int:
    """How many rows of a campaign need nothing more done."""
    query = (
        core_select(func.count())
        .select_from(TABLE)
        .where(TABLE.c.campaign_id == campaign_id, TABLE.c.state.not_in(OPEN))
    )
    return int(connection.execute(query).scalar_one())


def stands_in(connection: Connection, campaign_id: int, states: Sequence[State]) -> bool:
    """Does any row of a campaign stand in one of these states?"""
    query = core_select(TABLE.c.id).where(
        TABLE.c.campaign_id == campaign_id, TABLE.c.state.in_(states)
    )
    return connection.execute(query.limit(1)).first() is not None


def unfinished(connection: Connection, campaign_id: int) -> bool:
    """Is anything of a campaign still to leave, or on its way?"""
    return stands_in(connection, campaign_id, OPEN)


def ahead(connection: Connection, campaign_id: int) -> dict[str, int]:
    """How many rows of a campaign have yet to leave, by lane."""
    rows = connection.execute(
        core_select(TABLE.c.lane, func.count())
        .where(
            TABLE.c.campaign_id == campaign_id,
            TABLE.c.state.in_([State.QUEUED, State.LEASED, State.SENDING]),
        )
        .group_by(TABLE.c.lane)
    )
    return {lane: count for lane, count in rows}


def people_in(campaign_id: int, states: Sequence[State]) -> Any:
    """A SELECT of the person ids of a campaign's rows in these states."""
    return core_select(TABLE.c.person_id).where(
        TABLE.c.campaign_id == campaign_id, TABLE.c.state.in_(states)
    )


def waiting_for_a_word(campaign_id: int, channel: str) -> Any:
    """A SELECT of (person_id, address) of a campaign's rows that wait until their reader writes.

    Only of those who may still get it; to be executed with the parameter `now`.
    """
    return (
        core_select(TABLE.c.person_id, TABLE.c.address)
        .join(Contact, col(Contact.address) == TABLE.c.address)
        .where(
            TABLE.c.campaign_id == campaign_id,
            TABLE.c.lane.startswith(f"{channel}:", autoescape=True),
            _in_state(State.DEFERRED),
            TABLE.c.reason == "window",
            col(Contact.reachable),
            _ALIVE,
            _CONSENTED,
            _WANTED,
        )
    )


def waits_for(connection: Connection, address: str) -> int:
    """How many rows wait until the reader at this address writes."""
    query = (
        core_select(func.count())
        .select_from(TABLE)
        .where(TABLE.c.address == address, _in_state(State.DEFERRED), TABLE.c.reason == "window")
    )
    return int(connection.execute(query).scalar_one())


def bubbles_since(connection: Connection, address: str, moment: datetime) -> int:
    """How many bubbles may have arrived at an address since a moment."""
    person = core_select(col(Contact.person_id)).where(col(Contact.address) == address)
    query = core_select(func.coalesce(func.sum(TABLE.c.parts_sent), 0)).where(
        TABLE.c.person_id == person.scalar_subquery(),
        TABLE.c.address == address,
        TABLE.c.sent_at >= moment,
    )
    return int(connection.execute(query).scalar_one())


def states_of(connection: Connection, occasions: Sequence[str]) -> dict[tuple[str, int], State]:
    """How the rows of some occasions stand, by occasion and person."""
    rows = connection.execute(
        core_select(TABLE.c.occasion, TABLE.c.person_id, TABLE.c.state).where(
            TABLE.c.occasion.in_(occasions), TABLE.c.person_id.is_not(None)
        )
    )
    return {(occasion, person): State(state) for occasion, person, state in rows}


def expire_overdue(connection: Connection, now: datetime, most: int = 5_000) -> int:
    """Close some rows whose moment has passed while they waited; the gate lets none through."""
    overdue = and_(TABLE.c.expires_at <= now, _in_state(*WAITING, State.AWAITING_STAFF))
    some = core_select(TABLE.c.id).where(overdue).limit(most).with_for_update(skip_locked=True)
    return connection.execute(
        update(TABLE)
        .where(TABLE.c.id.in_(some), overdue)
        .values(state=_unless_tried(State.EXPIRED), reason="expired")
    ).rowcount


def standing(campaign_id: int, states: Iterable[State] = State) -> Any:
    """A SELECT of (id, person_id, state, reason, lane, sent_at) of a campaign's rows in these
    states, in the order of the list."""
    return (
        core_select(
            TABLE.c.id,
            TABLE.c.person_id,
            TABLE.c.state,
            TABLE.c.reason,
            TABLE.c.lane,
            TABLE.c.sent_at,
        )
        .where(
            TABLE.c.campaign_id == campaign_id,
            TABLE.c.person_id.is_not(None),
            TABLE.c.state.in_(list(states)),
        )
        .order_by(TABLE.c.id)
    )


def try_again(connection: Connection, campaign_id: int, states: Sequence[State]) -> int:
    """Queue a campaign's rows in these final states once more; the gate asks everything again.

    Not what a platform took and then gave back: under the same key it would pass for sent.
    """
    moved = connection.execute(
        update(TABLE)
        .where(
            TABLE.c.campaign_id == campaign_id,
            TABLE.c.state.in_(states),
            TABLE.c.provider_id == "",
        )
        .values(state=State.QUEUED, reason="", attempts=0, owner="", tried_at=None)
    ).rowcount
    announce(connection)
    return moved


def count_as_sent(connection: Connection, campaign_id: int) -> int:
    """Somebody vouches that a campaign's uncertain rows have arrived."""
    return _move(connection, campaign_id, (State.UNKNOWN,), State.SENT, "vouched")


def owed(connection: Connection, due: datetime) -> dict[str, int]:
    """How many rows should have left by then, by lane; none of a lane that is kept quiet."""
    clock = database_millis(connection)
    rows = connection.execute(
        core_select(TABLE.c.lane, func.count())
        .outerjoin(LANES, LANES.c.key == TABLE.c.lane)
        .where(
            _in_state(State.QUEUED),
            TABLE.c.not_before <= due,
            func.coalesce(LANES.c.blocked_until, 0) <= clock,
            not_(func.coalesce(LANES.c.paused, False)),
        )
        .group_by(TABLE.c.lane)
    )
    return {lane: count for lane, count in rows}
