"""What stops rows of the outbox, holds them, or lets them go again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, update
from sqlalchemy import select as core_select
from sqlmodel import col

from storage.conditions import unless_tried
from storage.mailbox import TABLE, in_state
from storage.numbers import among
from storage.people import Person
from storage.states import WAITING, State
from storage.wakeups import announce


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
    cancelled = unless_tried(State.CANCELLED)
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


def suppress_person(
    connection: Connection, person_id: int, reason: str, topic: str | None = None
) -> int:
    """Stop what waits for a person and needs their consent; of one topic only, if given."""
    conditions = [TABLE.c.person_id == person_id, in_state(*WAITING), TABLE.c.scope.is_not(None)]
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
            in_state(*WAITING),
            TABLE.c.lane.in_(lanes),
            TABLE.c.purpose != but,
        )
        .values(state=State.SUPPRESSED, reason=reason)
    ).rowcount


def expire_overdue(connection: Connection, now: datetime, most: int = 5_000) -> int:
    """Close some rows whose moment has passed while they waited; the gate lets none through."""
    overdue = and_(TABLE.c.expires_at <= now, in_state(*WAITING, State.AWAITING_STAFF))
    some = core_select(TABLE.c.id).where(overdue).limit(most).with_for_update(skip_locked=True)
    return connection.execute(
        update(TABLE)
        .where(TABLE.c.id.in_(some), overdue)
        .values(state=unless_tried(State.EXPIRED), reason="expired")
    ).rowcount


def try_again(connection: Connection, campaign_id: int, states: Sequence[State]) -> int:
    """Queue a campaign's rows in these final states once more; the gate asks everything again.

    Not what a platform took and then gave back: under the same key it would pass for sent.
    """
    moved = connection.execute(
        update(TABLE)
        .where(
            TABLE.c.campaign_id == campaign_id, TABLE.c.state.in_(states), TABLE.c.provider_id == ""
        )
        .values(state=State.QUEUED, reason="", attempts=0, owner="", tried_at=None)
    ).rowcount
    announce(connection)
    return moved


def count_as_sent(connection: Connection, campaign_id: int) -> int:
    """Somebody vouches that a campaign's uncertain rows have arrived."""
    return _move(connection, campaign_id, (State.UNKNOWN,), State.SENT, "vouched")
