"""How rows of the outbox stand, for people to see: counts and lists."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, not_
from sqlalchemy import select as core_select
from sqlmodel import col

from storage.campaigns import CampaignTotal
from storage.conditions import ALIVE, CONSENTED, WANTED
from storage.driver import database_millis
from storage.lanes import LANES
from storage.mailbox import TABLE, in_state
from storage.people import Contact
from storage.states import OPEN, State

_TOTALS: Any = CampaignTotal.__table__  # type: ignore[attr-defined]


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
            in_state(State.DEFERRED),
            TABLE.c.reason == "window",
            col(Contact.reachable),
            ALIVE,
            CONSENTED,
            WANTED,
        )
    )


def waits_for(connection: Connection, address: str) -> int:
    """How many rows wait until the reader at this address writes."""
    query = (
        core_select(func.count())
        .select_from(TABLE)
        .where(TABLE.c.address == address, in_state(State.DEFERRED), TABLE.c.reason == "window")
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


def owed(connection: Connection, due: datetime) -> dict[str, int]:
    """How many rows should have left by then, by lane; none of a lane that is kept quiet."""
    clock = database_millis(connection)
    rows = connection.execute(
        core_select(TABLE.c.lane, func.count())
        .outerjoin(LANES, LANES.c.key == TABLE.c.lane)
        .where(
            in_state(State.QUEUED),
            TABLE.c.not_before <= due,
            func.coalesce(LANES.c.blocked_until, 0) <= clock,
            not_(func.coalesce(LANES.c.paused, False)),
        )
        .group_by(TABLE.c.lane)
    )
    return {lane: count for lane, count in rows}
