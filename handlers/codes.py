"""One-time codes people type back: to confirm what cannot be undone, and to take a role."""

import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, delete, select, update

from storage.columns import KeyRing
from storage.people import OneTimeCode

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # nothing that looks like something else
CONFIRMATION_LENGTH = 4
CONFIRMATION_LIFE = timedelta(minutes=10)
ROLE_LENGTH = 8
ROLE_LIFE = timedelta(days=7)
PAGE_LIFE = timedelta(hours=24)
LINK_LENGTH = 6  # digits: it is read on one phone and typed on another
LINK_LIFE = timedelta(minutes=10)
LINK_TRIES = 3
LINK_LOCK = timedelta(hours=24)  # 3 of 1,000,000 a day for one address


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


def link_code(session: Session, keys: KeyRing, person_id: int, now: datetime) -> str:
    """A fresh code by which this person's other account is made theirs; an older one is void."""
    session.exec(
        delete(OneTimeCode).where(
            col(OneTimeCode.kind) == LINK,
            (col(OneTimeCode.person_id) == person_id) | (col(OneTimeCode.expires_at) <= now),
        )
    )
    while True:
        code = "".join(secrets.choice("0123456789") for _ in range(LINK_LENGTH))
        digest = keys.digest(f"{LINK}:{code}")
        if session.exec(_of_kind(LINK, digest)).first() is None:
            break
    _keep(session, LINK, digest, now, LINK_LIFE, person_id=person_id)
    return code


LINK, TRIES = "link", "link_tries"


def _of_kind(kind: str, digest: str) -> Any:
    return select(OneTimeCode).where(OneTimeCode.kind == kind, OneTimeCode.digest == digest)


def live_link_code(session: Session, keys: KeyRing, code: str, now: datetime) -> OneTimeCode | None:
    """The code that was typed, if it can still be used; it is not used up."""
    found: OneTimeCode | None = session.exec(
        _of_kind(LINK, keys.digest(f"{LINK}:{code}")).where(
            col(OneTimeCode.used_at).is_(None), col(OneTimeCode.expires_at) > now
        )
    ).first()
    return found


def use_link_code(session: Session, code_id: int, now: datetime) -> bool:
    """Use a code up; False if somebody was quicker, or it is too late."""
    used = session.exec(
        update(OneTimeCode)
        .where(
            col(OneTimeCode.id) == code_id,
            col(OneTimeCode.kind) == LINK,
            col(OneTimeCode.used_at).is_(None),
            col(OneTimeCode.expires_at) > now,
        )
        .values(used_at=now)
    )
    return bool(used.rowcount)


def wrong_try(session: Session, keys: KeyRing, address: str, person_id: int, now: datetime) -> int:
    """Count a wrong code from an address; returns how many tries it has left."""
    digest = keys.digest(f"{TRIES}:{address}")
    found = session.exec(_of_kind(TRIES, digest)).first()
    if found is None or found.expires_at <= now:
        if found is not None:
            session.delete(found)
            session.flush()
        _keep(session, TRIES, digest, now, LINK_LOCK, person_id=person_id)
        found = session.exec(_of_kind(TRIES, digest)).one()
        found.tries_left = LINK_TRIES
    found.tries_left -= 1
    found.expires_at = now + LINK_LOCK
    session.add(found)
    left: int = found.tries_left
    return left


def locked_until(session: Session, keys: KeyRing, address: str, now: datetime) -> datetime | None:
    """Until when an address may not try codes; None if it may."""
    found = session.exec(_of_kind(TRIES, keys.digest(f"{TRIES}:{address}"))).first()
    locked = found is not None and found.tries_left <= 0 and found.expires_at > now
    return found.expires_at if locked else None


def forgive(session: Session, keys: KeyRing, address: str) -> None:
    """The right code was typed: earlier slips are forgotten."""
    digest = keys.digest(f"{TRIES}:{address}")
    session.exec(
        delete(OneTimeCode).where(col(OneTimeCode.kind) == TRIES, col(OneTimeCode.digest) == digest)
    )


def page_token(
    session: Session, keys: KeyRing, page: str, person_id: int, now: datetime, about: str = ""
) -> str:
    """The secret part of a page's address (`/p/<token>`), good for one day.

    `about` is the number of what the page shows, for the page to read from the payload.
    """
    token = secrets.token_urlsafe(16)
    payload = {"page": page, "about": about} if about else {"page": page}
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
