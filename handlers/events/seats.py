"""Seats: who has one, who waits, and who moves up when some become free.

A party sits together or waits together. Freed seats are offered along the queue in the order in
which the seats were asked for; a party that does not fit keeps its turn and those behind it that
fit go ahead, for an empty chair helps nobody. Whoever asks anew is treated alike: what fits now is
given now. So at any moment no waiting party would fit into the seats that are left.

Everything here expects the event to be locked (`storage.events.locked_event`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlmodel import Session

from bot.errors import UserError
from storage.events import Event, Rsvp, RsvpState, rsvp_of, rsvps_of
from storage.sequences import next_number

MOST_HEADS = 20  # in one party; more is a delegation, which the office arranges


@dataclass(frozen=True)
class Wish:
    """What somebody wants: to come with so many heads (themselves included), or not."""

    state: RsvpState
    heads: int = 0


def taken(rsvps: Sequence[Rsvp]) -> int:
    """Seats given away."""
    return sum(rsvp.heads for rsvp in rsvps if rsvp.state == RsvpState.COMING)


def waiting(rsvps: Sequence[Rsvp]) -> list[Rsvp]:
    """The queue, in order."""
    return [rsvp for rsvp in rsvps if rsvp.state == RsvpState.WAITING]


def position(session: Session, rsvp: Rsvp) -> int:
    """The place of a waiting party in the queue, from 1."""
    queue = waiting(rsvps_of(session, rsvp.event_id))
    return 1 + [each.id for each in queue].index(rsvp.id)


def answer(session: Session, event: Event, person_id: int, wish: Wish, now: datetime) -> Rsvp:
    """Keep what somebody wants, with a seat if their whole party fits and in the queue if not.

    Raises UserError when a party with seats wants more than are left: it keeps those it has.
    """
    assert event.id is not None
    mine = rsvp_of(session, event.id, person_id)
    state = wish.state
    if state is RsvpState.COMING:
        others = [r for r in rsvps_of(session, event.id) if r.person_id != person_id]
        state = _seated_or_waiting(event, mine, wish.heads, event.capacity - taken(others))
    if mine is None:
        number = f"HZ-{event.id:04d}-{next_number(session, f'rsvp:{event.id}'):03d}"
        mine = Rsvp(
            number=number,
            event_id=event.id,
            person_id=person_id,
            state=state,
            heads=wish.heads,
            queued_at=now,
            answered_at=now,
        )
    keeps_turn = mine.state == state == RsvpState.WAITING and wish.heads <= mine.heads
    if not keeps_turn:
        mine.queued_at = now
    mine.state, mine.heads, mine.answered_at = state, wish.heads, now
    session.add(mine)
    session.flush()
    return mine


def _seated_or_waiting(event: Event, mine: Rsvp | None, heads: int, free: int) -> RsvpState:
    if heads <= free:
        return RsvpState.COMING
    if mine is not None and mine.state == RsvpState.COMING:
        raise UserError(
            f"名额只够您一行{free}位，暂时加不到{heads}位；原来的{mine.heads}位照旧为您留着。"
        )
    if heads > event.capacity:
        raise UserError(
            f"这次活动一共{event.capacity}个名额，安排不下{heads}位，请重新回「回执」。"
        )
    return RsvpState.WAITING


def move_up(session: Session, event: Event, today: date) -> list[Rsvp]:
    """Give free seats to those who wait; returns the parties that have just got theirs.

    On the day itself nobody moves up any more: they could not come in time.
    """
    assert event.id is not None
    if today >= event.starts_on:
        return []
    session.flush()
    rsvps = rsvps_of(session, event.id)
    free = event.capacity - taken(rsvps)
    lucky = []
    for rsvp in waiting(rsvps):
        if rsvp.heads <= free:
            free -= rsvp.heads
            rsvp.state = RsvpState.COMING
            session.add(rsvp)
            lucky.append(rsvp)
    session.flush()
    return lucky
