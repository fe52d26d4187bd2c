"""The last look before a message leaves, and what became of it."""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    and_,
    bindparam,
    case,
    exists,
    func,
    not_,
    or_,
    text,
    type_coerce,
    update,
)
from sqlalchemy import select as core_select
from sqlmodel import col

from storage.campaigns import Campaign, CampaignState
from storage.columns import UtcDateTime, to_millis
from storage.conditions import ALIVE, CONSENTED, MAY_HAVE_ARRIVED, WANTED
from storage.driver import execute, run
from storage.lanes import LANES
from storage.mailbox import TABLE
from storage.numbers import among, packed
from storage.people import Contact
from storage.states import TRANSITIONS, State

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

_SAFE_AGAIN = or_(
    not_(MAY_HAVE_ARRIVED),
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
        _MINE, ALIVE, CONSENTED, WANTED, _IN_WINDOW, _SAFE_AGAIN, not_(_PAUSED), not_(_CANCELLED)
    )
    .values(state=State.SENDING, tried_at=_FIRST_TRIED)
    .returning(TABLE.c.id, TABLE.c.windowed, TABLE.c.address)
)

_UNCERTAIN = or_(not_(_SAFE_AGAIN), and_(MAY_HAVE_ARRIVED, or_(not_(ALIVE), _CANCELLED)))

_TURNED_AWAY = (
    update(TABLE)
    .where(_MINE)
    .values(
        state=case(
            (_UNCERTAIN, State.UNKNOWN),
            (not_(ALIVE), State.EXPIRED),
            (_CANCELLED, State.CANCELLED),
            (not_(CONSENTED), State.SUPPRESSED),
            (not_(WANTED), State.SUPPRESSED),
            (_PAUSED, State.HELD),
            else_=State.DEFERRED,
        ),
        reason=case(
            (_UNCERTAIN, "no_answer"),
            (not_(ALIVE), "expired"),
            (_CANCELLED, "cancelled"),
            (not_(CONSENTED), "consent"),
            (not_(WANTED), "unsubscribed"),
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
        ALIVE,
        CONSENTED,
        WANTED,
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

_WAIT_THERE = "SELECT pg_advisory_xact_lock_shared(?, id) FROM unnest(?::int[]) AS id"


def wait_at_fences(connection: Connection, campaigns: Collection[int]) -> None:
    """Wait until whoever stops one of these campaigns has done so, that the gate sees it.

    To be asked before the gate, and before this transaction holds any row: whoever stops a campaign
    may want that row.
    """
    dialect = connection.dialect.name
    if campaigns and dialect != "sqlite":
        execute(connection, _WAIT_THERE, (_FENCED, packed(sorted(campaigns), dialect)))


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
        state=case((_PAUSED, State.HELD), (MAY_HAVE_ARRIVED, State.UNKNOWN), else_=State.CANCELLED)
    )
)


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


def fence(connection: Connection, campaign_id: int) -> None:
    """Wait for the gates that are letting a campaign's rows through, and let no other do so before
    this transaction ends: those that come after it see what became of the campaign."""
    if connection.dialect.name != "sqlite":  # which knows one writer at a time
        execute(connection, _FENCE, (_FENCED, campaign_id))
