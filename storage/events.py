"""Events and the answers to their invitations."""

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import UniqueConstraint, func
from sqlmodel import Field, Session, SQLModel, col, select

from storage.columns import UtcDateTime, personal


class RsvpState(StrEnum):
    """What somebody answered, and whether they have a place."""

    COMING = "coming"
    WAITING = "waiting"
    NOT_COMING = "not_coming"
    UNDECIDED = "undecided"


class Event(SQLModel, table=True):
    """A day, a place, a number of seats and the last day for answers. `number` is `HD-2026-01`.

    `came` keeps how many had a seat once the answers themselves are forgotten.
    """

    id: int | None = Field(default=None, primary_key=True)
    number: str = Field(unique=True)
    title: str
    starts_on: date
    ends_on: date
    starts_at: str = ""
    venue: str
    capacity: int
    deadline: date
    note: str = ""
    created_by: int = Field(foreign_key="person.id")
    created_at: datetime = Field(sa_type=UtcDateTime)
    cancelled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    came: int | None = None


class Rsvp(SQLModel, table=True):
    """One person's answer to one event; `heads` counts them and who comes along.

    `queued_at` orders the waiting list: the moment they first asked for these seats.
    """

    __table_args__ = (UniqueConstraint("event_id", "person_id"),)

    id: int | None = Field(default=None, primary_key=True)
    number: str = Field(unique=True)
    event_id: int = Field(foreign_key="event.id", index=True)
    person_id: int = Field(foreign_key="person.id", index=True)
    state: str = Field(index=True, sa_column_kwargs=personal("活动接待", "是否出席"))
    heads: int = Field(default=1, sa_column_kwargs=personal("活动接待", "出席人数"))
    queued_at: datetime = Field(sa_type=UtcDateTime)
    answered_at: datetime = Field(sa_type=UtcDateTime)


def event_called(session: Session, number: str) -> Event | None:
    """An event by its number."""
    return session.exec(select(Event).where(Event.number == number)).first()


def coming_events(session: Session, today: date) -> Sequence[Event]:
    """Events that are not over and not cancelled, the nearest first."""
    return session.exec(
        select(Event)
        .where(col(Event.cancelled_at).is_(None), col(Event.ends_on) >= today)
        .order_by(col(Event.starts_on), col(Event.id))
    ).all()


def locked_event(session: Session, event_id: int) -> Event:
    """The event as it stands now; nobody else gives away its seats before this transaction ends."""
    return session.exec(
        select(Event)
        .where(Event.id == event_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def rsvps_of(session: Session, event_id: int) -> Sequence[Rsvp]:
    """All answers to an event, in the order in which the seats were asked for."""
    return session.exec(
        select(Rsvp)
        .where(Rsvp.event_id == event_id)
        .order_by(col(Rsvp.queued_at), col(Rsvp.id))
        .execution_options(populate_existing=True)
    ).all()


def rsvp_of(session: Session, event_id: int, person_id: int) -> Rsvp | None:
    """One person's answer to an event."""
    return session.exec(
        select(Rsvp)
        .where(Rsvp.event_id == event_id, Rsvp.person_id == person_id)
        .execution_options(populate_existing=True)
    ).first()


def heads_coming(session: Session, event_ids: Sequence[int]) -> dict[int, int]:
    """How many seats are taken, by event."""
    rows = session.execute(
        select(Rsvp.event_id, func.sum(Rsvp.heads))
        .where(col(Rsvp.event_id).in_(event_ids), Rsvp.state == RsvpState.COMING)
        .group_by(col(Rsvp.event_id))
    )
    return {event_id: int(heads) for event_id, heads in rows}
