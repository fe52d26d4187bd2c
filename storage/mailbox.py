"""Inbox and outbox: what was answered, and the ledger of everything that is to leave.

Nothing is sent that is not a row here first. A worker *claims* rows ahead of its calls
(`storage.claims`), the *gate* lets only those through that are still its own, live, unpaused and
consented to, and the *acknowledgement* writes down what became of them (`storage.gate`). A row
whose sender died between gate and acknowledgement is `unknown`: it is never sent again blindly.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    UniqueConstraint,
    text,
    update,
)
from sqlmodel import Field, SQLModel, col

from storage.columns import EncryptedText, UtcDateTime, personal
from storage.driver import on_conflict_nothing
from storage.states import OPEN, WAITING, State
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

    __table_args__ = (UniqueConstraint("occasion", "recipient"), {"postgresql_with": STORED_AS})

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


def _listed(words: str, states: Iterable[State]) -> str:
    """A condition on the state, written out, not bound: only then are partial indexes used."""
    return words + " (" + ", ".join(f"'{state}'" for state in states) + ")"


def in_state(*states: State) -> Any:
    """Does a row stand in one of these?"""
    return text(_listed("outbox.state IN", states))


def not_in_state(*states: State) -> Any:
    """Does a row stand in none of these?"""
    return text(_listed("outbox.state NOT IN", states))


def _partial(name: str, *columns: Any, states: "tuple[State, ...]", and_also: str = "") -> Index:
    where = text(_listed("state IN", states) + and_also)
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


_partial(
    "ix_outbox_ready",
    col(Outbox.lane),
    col(Outbox.not_before),
    col(Outbox.id),
    states=(State.QUEUED,),
)

# Led by the address: led by the lane it becomes a scan over everything in flight.
_partial("ix_outbox_flight", col(Outbox.address), states=(State.LEASED, State.SENDING))

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

# Only once it is done with: written there from the first, it would be so at each move again.
_BODY_OVER = text(f"body IS NOT NULL AND {_listed('state NOT IN', OPEN)}")

Index(
    "ix_outbox_body_over",
    col(Outbox.created_at),
    sqlite_where=_BODY_OVER,
    postgresql_where=_BODY_OVER,
)

_WITH_REPLY = text("reply IS NOT NULL")

Index(
    "ix_inbox_reply", col(Inbox.received_at), sqlite_where=_WITH_REPLY, postgresql_where=_WITH_REPLY
)

TABLE: Any = Outbox.__table__  # type: ignore[attr-defined]  # SQLModel sets it

INBOX: Any = Inbox.__table__  # type: ignore[attr-defined]


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
            in_state(State.DEFERRED),
            TABLE.c.reason == "window",
            TABLE.c.purpose.in_(list(purposes)),
        )
        .values(state=State.QUEUED, reason="")
    ).rowcount
