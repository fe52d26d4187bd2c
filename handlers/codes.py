"""One-time codes people type back: to confirm what cannot be undone, and to take a role."""

import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, delete, select

from storage.columns import KeyRing
from storage.people import OneTimeCode

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # nothing that looks like something else
CONFIRMATION_LENGTH = 4
CONFIRMATION_LIFE = timedelta(minutes=10)
ROLE_LENGTH = 8
ROLE_LIFE = timedelta(days=7)
PAGE_LIFE = timedelta(hours=24)


def confirmation(session: Session, keys: KeyRing, kind: str, person_id: int, now: datetime) -> str:
    """A fresh code that only this person can use, within ten minutes; an older one is void."""
    session.exec(
        delete(OneTimeCode).where(
            col(OneTimeCode.kind) == kind, col(OneTimeCode.person_id) == person_id
        )
    )
    code = _random(CONFIRMATION_LENGTH)
    digest = keys.digest(f"{person_id}:{code}")
    _keep(session, kind, digest, now, CONFIRMATION_LIFE, person_id=person_id)
    return code


def confirm(
    session: Session, keys: KeyRing, kind: str, person_id: int, code: str, now: datetime
) -> str | None:
    """Use a code up; None when it fits, else what to tell the person (a try is counted)."""
    found = session.exec(
        select(OneTimeCode).where(
            OneTimeCode.kind == kind,
            OneTimeCode.person_id == person_id,
            col(OneTimeCode.used_at).is_(None),
            col(OneTimeCode.expires_at) > now,
        )
    ).first()
    if found is None:
        return "没有等待确认的申请，或者确认码已过期"
    typed = f"{person_id}:{code.strip().upper()}"
    if secrets.compare_digest(found.digest, keys.digest(typed)):
        found.used_at = now
        session.add(found)
        return None
    found.tries_left -= 1
    session.add(found)
    if found.tries_left:
        return f"确认码不对，还可以试{found.tries_left}次"
    found.used_at = now
    return "确认码三次不对，已作废"


def role_code(session: Session, keys: KeyRing, now: datetime, payload: Mapping[str, Any]) -> str:
    """A code that gives whoever types it first a role; `payload` says which."""
    code = _random(ROLE_LENGTH)
    _keep(session, "role", keys.digest(code), now, ROLE_LIFE, payload=payload)
    return code


def take_role_code(
    session: Session, keys: KeyRing, code: str, now: datetime
) -> Mapping[str, Any] | None:
    """Use a role's code up; None when it is wrong, used or expired."""
    found = session.exec(
        select(OneTimeCode)
        .where(
            OneTimeCode.kind == "role",
            OneTimeCode.digest == keys.digest(code.strip().upper()),
            col(OneTimeCode.used_at).is_(None),
            col(OneTimeCode.expires_at) > now,
        )
        .with_for_update()
    ).first()
    if found is None:
        return None
    found.used_at = now
    session.add(found)
    payload: Mapping[str, Any] = json.loads(found.payload)
    return payload


def page_token(session: Session, keys: KeyRing, page: str, person_id: int, now: datetime) -> str:
    """The secret part of a page's address (`/p/<token>`), good for one day."""
    token = secrets.token_urlsafe(16)
    payload = {"page": page}
    digest = keys.digest(token)
    _keep(session, "page", digest, now, PAGE_LIFE, person_id=person_id, payload=payload)
    return token


def _keep(
    session: Session,
    kind: str,
    digest: str,
    now: datetime,
    life: timedelta,
    *,
    person_id: int | None = None,
    payload: Mapping[str, Any] | None = None,
) -> None:
    session.add(
        OneTimeCode(
            kind=kind,
            digest=digest,
            person_id=person_id,
            payload=json.dumps(payload or {}, ensure_ascii=False),
            created_at=now,
            expires_at=now + life,
        )
    )
    session.flush()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
