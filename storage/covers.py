"""Covers: a short text that a platform sends to many at once, so that they write and get theirs.

A platform lets each person get only a few a month and tells of a push nothing but counts, so who
got how many is counted here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlmodel import Field, SQLModel, col

from storage.columns import UtcDateTime
from storage.mailbox import TABLE
from storage.overview import waiting_for_a_word


class CoverState(StrEnum):
    """Where a push stands. Accepted is not done: that the platform tells later."""

    SUBMITTED = "submitted"
    WAITING = "waiting"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


COVER_WORDS: Mapping[CoverState, str] = {
    CoverState.SUBMITTED: "待审批",
    CoverState.WAITING: "等候发送",
    CoverState.SENDING: "正在交给平台",
    CoverState.ACCEPTED: "平台已受理，结果未到",
    CoverState.DONE: "平台已发完",
    CoverState.FAILED: "没有发出",
    CoverState.UNKNOWN: "不知是否发出",
}
COUNTED = (
    CoverState.WAITING,
    CoverState.SENDING,
    CoverState.ACCEPTED,
    CoverState.DONE,
    CoverState.UNKNOWN,
)
"""States in which a push uses up, or may use up, one of each person's few a month."""

UNFINISHED = (CoverState.SUBMITTED, CoverState.WAITING, CoverState.SENDING, CoverState.ACCEPTED)


class Cover(SQLModel, table=True):
    """One push. `key` is the platform's idempotency key, `job` the platform's own number.

    `month` is the county's calendar month whose allowance it uses (`2026-09`). A `preview` goes to
    whoever asked, alone, and uses none. `excuse`: why it may use what is kept for letters. The
    counts are the platform's; -1 means it told none.
    """

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    channel: str
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id", index=True)
    text: str
    preview: bool = False
    asked_by: int = Field(foreign_key="person.id")
    created_at: datetime = Field(sa_type=UtcDateTime)
    state: str = Field(default=CoverState.SUBMITTED, index=True)
    reason: str = ""
    month: str = Field(default="", index=True)
    job: str = Field(default="", index=True)
    tries: int = 0
    looked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    total: int = -1
    sent: int = -1
    filtered: int = -1
    errors: int = -1
    told: bool = False
    excuse: str = ""


class CoverRecipient(SQLModel, table=True):
    """Somebody a push was meant for."""

    __tablename__ = "cover_recipient"

    cover_id: int = Field(foreign_key="cover.id", primary_key=True)
    person_id: int = Field(foreign_key="person.id", primary_key=True, index=True)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a platform tells of a push that is over."""

    total: int = -1
    sent: int = -1
    filtered: int = -1
    errors: int = -1


def received(
    connection: Connection, channel: str, month: str, but: int | None = None
) -> dict[int, int]:
    """How many covers of a month people have got or will get, by person; without the push `but`."""
    rows = connection.execute(
        select(col(CoverRecipient.person_id), func.count())
        .join(Cover, col(Cover.id) == col(CoverRecipient.cover_id))
        .where(
            col(Cover.channel) == channel,
            col(Cover.month) == month,
            ~col(Cover.preview),
            col(Cover.state).in_(COUNTED),
            col(Cover.id) != (but or 0),
        )
        .group_by(col(CoverRecipient.person_id))
    )
    return {person_id: count for person_id, count in rows}


def pushed_since(connection: Connection, channel: str, moment: datetime) -> int:
    """How many pushes were handed in since and are not given up: each is a call, perhaps."""
    query = select(func.count()).where(
        col(Cover.channel) == channel,
        col(Cover.created_at) >= moment,
        ~col(Cover.preview),
        col(Cover.state).in_((CoverState.SUBMITTED, *COUNTED)),
    )
    return int(connection.execute(query).scalar_one())


def add_recipients(connection: Connection, cover_id: int, people: Sequence[int]) -> None:
    """Say whom a push is meant for."""
    rows = [{"cover_id": cover_id, "person_id": person_id} for person_id in people]
    if rows:
        connection.execute(insert(CoverRecipient), rows)


def forget(connection: Connection, campaign_id: int) -> None:
    """Take back what was submitted for a campaign and not yet approved."""
    mine = select(col(Cover.id)).where(
        col(Cover.campaign_id) == campaign_id, col(Cover.state) == CoverState.SUBMITTED
    )
    connection.execute(delete(CoverRecipient).where(col(CoverRecipient.cover_id).in_(mine)))
    connection.execute(delete(Cover).where(col(Cover.id).in_(mine)))


def covers_in(connection: Connection, channel: str, *states: CoverState) -> list[Cover]:
    """Pushes in some states, the oldest first; not bound to any session."""
    rows = connection.execute(
        select(Cover.__table__)  # type: ignore[attr-defined]
        .where(col(Cover.channel) == channel, col(Cover.state).in_(states))
        .order_by(col(Cover.id))
    )
    return [Cover(**row) for row in rows.mappings()]


def begin(
    connection: Connection, cover: Cover, month: str, most: int, now: datetime
) -> Sequence[str]:
    """Let a push begin: the addresses of those it is meant for who still wait and have one left.

    The others are taken off its list. A push that has begun before keeps the list it had.
    """
    assert cover.id is not None
    assert cover.campaign_id is not None
    mine = select(col(CoverRecipient.person_id)).where(col(CoverRecipient.cover_id) == cover.id)
    if cover.state == CoverState.WAITING:
        spent = received(connection, cover.channel, month, but=cover.id)
        waiting = waiting_for_a_word(cover.campaign_id, cover.channel).where(
            TABLE.c.person_id.in_(mine)
        )
        rows = connection.execute(waiting, {"now": now}).all()
        keep = {row.person_id: row.address for row in rows if spent.get(row.person_id, 0) < most}
        connection.execute(delete(CoverRecipient).where(col(CoverRecipient.cover_id) == cover.id))
        add_recipients(connection, cover.id, sorted(keep))
        addresses = [keep[person_id] for person_id in sorted(keep)]
    else:
        rows = connection.execute(
            select(TABLE.c.address)
            .where(
                TABLE.c.campaign_id == cover.campaign_id,
                TABLE.c.person_id.in_(mine),
                TABLE.c.address.is_not(None),
            )
            .order_by(TABLE.c.person_id)
        ).all()
        addresses = [row.address for row in rows]
    move(connection, cover.id, CoverState.SENDING, month=month, tries=cover.tries + 1)
    return addresses


def move(
    connection: Connection,
    cover_id: int,
    state: CoverState,
    *,
    reason: str = "",
    **values: object,
) -> None:
    """Let a push stand somewhere else, unless it is over already."""
    connection.execute(
        update(Cover)
        .where(col(Cover.id) == cover_id, col(Cover.state).in_(UNFINISHED))
        .values(state=state, reason=reason, **values)
    )


def finish(
    connection: Connection, channel: str, job: str, *, fine: bool, reason: str, counts: Counts
) -> bool:
    """Write down what a platform says of a push that is over; False if it is none of ours."""
    found = connection.execute(
        update(Cover)
        .where(
            col(Cover.channel) == channel,
            col(Cover.job) == job,
            col(Cover.job) != "",
            col(Cover.state).in_([CoverState.ACCEPTED, CoverState.UNKNOWN, CoverState.SENDING]),
        )
        .values(
            state=CoverState.DONE if fine else CoverState.FAILED,
            reason=reason,
            total=counts.total,
            sent=counts.sent,
            filtered=counts.filtered,
            errors=counts.errors,
        )
    )
    return bool(found.rowcount)


def forget_recipients(connection: Connection, month: str) -> int:
    """Forget who was meant by pushes of months before one; how many they were stays."""
    old = select(col(Cover.id)).where(col(Cover.month) != "", col(Cover.month) < month)
    return connection.execute(
        delete(CoverRecipient).where(col(CoverRecipient.cover_id).in_(old))
    ).rowcount
