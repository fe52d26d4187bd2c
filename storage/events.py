"""Events and the answers to their invitations."""

from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from storage.columns import UtcDateTime, personal


class RsvpState(StrEnum):
    """What somebody answered, and whether they have a place."""

    COMING = "coming"
    WAITING = "waiting"
    NOT_COMING = "not_coming"
    UNDECIDED = "undecided"


class Event(SQLModel, table=True):
    """A day, a place, a number of seats and the last day for answers. `number` is `HD-2026-01`."""

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
