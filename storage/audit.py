"""The audit log: append only, sealed into a hash chain in batches after the fact."""

import hashlib
import json
from datetime import datetime

from sqlmodel import Field, Session, SQLModel, col, select

from storage.columns import UtcDateTime

SEAL_BATCH = 500


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
    """Chain the next unsealed entries; returns how many."""
    last = session.exec(select(AuditSeal).order_by(col(AuditSeal.id).desc()).limit(1)).first()
    entries = session.exec(
        select(AuditEntry)
        .where(col(AuditEntry.id) > (last.last_id if last else 0))
        .order_by(col(AuditEntry.id))
        .limit(SEAL_BATCH)
    ).all()
    if not entries:
        return 0
    first_id, last_id = entries[0].id, entries[-1].id
    assert first_id is not None and last_id is not None
    chained = _chain(last.hash if last else "", entries)
    session.add(AuditSeal(first_id=first_id, last_id=last_id, hash=chained, at=now))
    return len(entries)


def broken_seal(session: Session) -> int | None:
    """The id of the first seal that no longer fits its entries; None when all hold."""
    before = ""
    for mark in session.exec(select(AuditSeal).order_by(col(AuditSeal.id))):
        entries = session.exec(
            select(AuditEntry)
            .where(col(AuditEntry.id) >= mark.first_id, col(AuditEntry.id) <= mark.last_id)
            .order_by(col(AuditEntry.id))
        ).all()
        if _chain(before, entries) != mark.hash:
            return mark.id
        before = mark.hash
    return None


def _chain(before: str, entries: "list[AuditEntry] | tuple[AuditEntry, ...] | object") -> str:
    digest = hashlib.sha256(before.encode())
    for entry in entries:  # type: ignore[attr-defined]  # any sequence of entries
        digest.update(json.dumps(entry.model_dump(mode="json"), sort_keys=True).encode())
    return digest.hexdigest()
