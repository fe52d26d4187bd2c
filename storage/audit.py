"""The audit log: append only, sealed into a hash chain in batches after the fact."""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import takewhile

from sqlmodel import Field, Session, SQLModel, col, select

from storage.columns import UtcDateTime

VIEWED = "profile.view"  # staff read somebody's file: object `person:<id>`, and why
SEAL_BATCH = 500
SETTLED = timedelta(minutes=5)  # by then a transaction that took a lower number has committed


class AuditEntry(SQLModel, table=True):
    """Who did what to which object, and why: ids and reasons, never values."""

    __tablename__ = "audit_entry"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    actor_id: int | None = Field(default=None, index=True)
    role: str = ""
    channel: str = ""
    action: str
    object: str = Field(index=True)
    result: str = "ok"
    reason: str = ""
    approval_id: int | None = None
    source: str = ""


class AuditSeal(SQLModel, table=True):
    """Closes a run of entries: `hash` covers them and the seal before."""

    __tablename__ = "audit_seal"

    id: int | None = Field(default=None, primary_key=True)
    first_id: int
    last_id: int
    hash: str
    at: datetime = Field(sa_type=UtcDateTime)


def seal(session: Session, now: datetime) -> int:
    """Chain the next unsealed entries, but none that is still fresh; returns how many.

    Only one holder at a time may call this.
    """
    last = last_seal(session)
    young = session.exec(
        select(AuditEntry)
        .where(col(AuditEntry.id) > (last.last_id if last else 0))
        .order_by(col(AuditEntry.id))
        .limit(SEAL_BATCH)
    )
    entries = list(takewhile(lambda entry: entry.at <= now - SETTLED, young))
    if not entries:
        return 0
    first_id, last_id = entries[0].id, entries[-1].id
    assert first_id is not None
    assert last_id is not None
    chained = _chain(last.hash if last else "", entries)
    session.add(AuditSeal(first_id=first_id, last_id=last_id, hash=chained, at=now))
    return len(entries)


def last_seal(session: Session) -> AuditSeal | None:
    """The end of the chain."""
    return session.exec(select(AuditSeal).order_by(col(AuditSeal.id).desc()).limit(1)).first()


def broken_seal(session: Session) -> int | None:
    """The id of the first seal that no longer fits its entries; None when all hold."""
    after = 0
    while True:
        broken, more = check_seals(session, after, SEAL_BATCH)
        if broken is not None or more is None:
            return broken
        after = more


def check_seals(session: Session, after: int, limit: int) -> tuple[int | None, int | None]:
    """Check at most `limit` seals that follow the seal `after` (0: from the start).

    Returns the first that is broken, and the one to go on after; both None at a sound end.
    """
    before = session.get(AuditSeal, after)
    chained = before.hash if before else ""
    marks = session.exec(
        select(AuditSeal).where(col(AuditSeal.id) > after).order_by(col(AuditSeal.id)).limit(limit)
    ).all()
    for mark in marks:
        entries = session.exec(
            select(AuditEntry)
            .where(col(AuditEntry.id) >= mark.first_id, col(AuditEntry.id) <= mark.last_id)
            .order_by(col(AuditEntry.id))
        )
        if _chain(chained, entries) != mark.hash:
            return mark.id, None
        chained = mark.hash
    return None, marks[-1].id if len(marks) == limit else None


def _chain(before: str, entries: Iterable[AuditEntry]) -> str:
    digest = hashlib.sha256(before.encode())
    for entry in entries:
        digest.update(json.dumps(entry.model_dump(mode="json"), sort_keys=True).encode())
    return digest.hexdigest()
