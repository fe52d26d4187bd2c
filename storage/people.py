"""People, the addresses they are reached at, their roles, and the consent ledger."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Index, UniqueConstraint, and_, insert, or_, text
from sqlmodel import Field, Session, SQLModel, col, select, update

from storage.columns import UtcDateTime, personal

ALL_TOPICS = "*"


class Person(SQLModel, table=True):
    """Somebody who has written to us: a member, a clerk, a team leader. Nothing but a number
    until they consent to more.

    `timezone` is an IANA name, None means the county's own. `silent_since`: asked never to be
    contacted again (withdrawal, erasure). `merged_into`: who they turned out to be; nobody speaks
    as this number any more (no foreign key: a backup is restored in the order of the numbers).
    """

    id: int | None = Field(default=None, primary_key=True)
    created_at: datetime = Field(sa_type=UtcDateTime)
    timezone: str | None = Field(
        default=None, sa_column_kwargs=personal("按当地时间寄信", "所在时区")
    )
    called: str | None = Field(default=None, sa_column_kwargs=personal("履职联系", "工作中的称呼"))
    silent_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    merged_into: int | None = Field(default=None, index=True)


class Contact(SQLModel, table=True):
    """An address of a person on one channel. `address` is `channel:account:user`.

    `window_until` and `window_left` count what a channel with a reply window still lets us say.
    `last_seen_at` orders a person's addresses: the last used one is tried first, but before it the
    one they chose (`preferred_at`).
    """

    __table_args__ = {"info": {"erase": "delete"}}

    id: int | None = Field(default=None, primary_key=True)
    person_id: int = Field(foreign_key="person.id", index=True)
    channel: str
    address: str = Field(unique=True, sa_column_kwargs=personal("收发消息", "渠道标识"))
    reachable: bool = True
    window_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    window_left: int = 0
    last_seen_at: datetime = Field(sa_type=UtcDateTime)
    preferred_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Grant(SQLModel, table=True):
    """A role a person holds, perhaps only for one unit or one field team."""

    __tablename__ = "role_grant"

    id: int | None = Field(default=None, primary_key=True)
    person_id: int = Field(foreign_key="person.id", index=True)
    role: str
    unit_id: int | None = Field(default=None, foreign_key="unit.id")
    team_id: int | None = Field(default=None, foreign_key="field_team.id")
    granted_at: datetime = Field(sa_type=UtcDateTime)
    granted_by: int | None = Field(default=None, foreign_key="person.id")
    confirmed_by: int | None = Field(default=None, foreign_key="person.id")
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class ConsentEntry(SQLModel, table=True):
    """One line of the consent ledger: append only.

    `action` is `granted`, `refused`, `withdrawn` or `renewed`; `scope` is `profile` or a separate
    consent (`S1` … `S8`); `words` are what the person wrote, `source` the message it stood in.
    """

    __tablename__ = "consent_entry"

    id: int | None = Field(default=None, primary_key=True)
    person_id: int = Field(foreign_key="person.id", index=True)
    scope: str
    action: str
    version: str
    notice_hash: str
    at: datetime = Field(sa_type=UtcDateTime)
    channel: str
    source: str = Field(sa_column_kwargs=personal("证明同意", "同意所在的消息"))
    words: str = Field(sa_column_kwargs=personal("证明同意", "同意的原话"))


class ConsentNow(SQLModel, table=True):
    """What the ledger's last line says, one row a person and scope, for the gate to join."""

    __tablename__ = "consent_now"

    person_id: int = Field(foreign_key="person.id", primary_key=True)
    scope: str = Field(primary_key=True)
    live: bool
    version: str
    at: datetime = Field(sa_type=UtcDateTime)


class Unsubscription(SQLModel, table=True):
    """A topic a person does not want; `*` is all of them. No row means that it is wanted."""

    person_id: int = Field(foreign_key="person.id", primary_key=True)
    topic: str = Field(primary_key=True, sa_column_kwargs=personal("照您的意思停发", "退订的主题"))
    at: datetime = Field(sa_type=UtcDateTime)


class OneTimeCode(SQLModel, table=True):
    """A short secret that works once: a role code, a confirmation, a page token.

    Only the keyed digest is kept. `payload` is JSON without personal data.
    """

    __tablename__ = "one_time_code"
    __table_args__ = (UniqueConstraint("kind", "digest"),)

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    digest: str
    person_id: int | None = Field(default=None, foreign_key="person.id", index=True)
    payload: str = "{}"
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    tries_left: int = 3
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


# Few live abroad, and a list that is frozen asks which zones there are.
_ABROAD = text("timezone IS NOT NULL")
Index(
    "ix_person_timezone",
    col(Person.timezone),
    sqlite_where=_ABROAD,
    postgresql_where=_ABROAD,
)
# A finished or revoked grant stays as history; only live ones are looked up.
Index("ix_role_grant_live", col(Grant.role), postgresql_where=text("revoked_at IS NULL"))


@dataclass(frozen=True, slots=True)
class Role:
    """A live grant as handlers see it: a name, and the unit or team it is limited to."""

    name: str
    unit_id: int | None = None
    team_id: int | None = None


BEST_FIRST = (
    col(Contact.preferred_at).is_(None),
    col(Contact.last_seen_at).desc(),
    col(Contact.id).desc(),
)
"""The order in which a person's addresses are tried."""


def live_grant(now: datetime) -> "list[object]":
    """Conditions under which a grant counts."""
    return [
        col(Grant.revoked_at).is_(None),
        or_(col(Grant.expires_at).is_(None), col(Grant.expires_at) > now),
    ]


def people_with_role(session: Session, role: str, now: datetime) -> list[int]:
    """Ids of all who hold the role now, in order of their grant."""
    rows = session.exec(
        select(Grant.person_id)
        .where(Grant.role == role, *live_grant(now))  # type: ignore[arg-type]  # SQL conditions
        .order_by(col(Grant.id))
    )
    return list(dict.fromkeys(rows))


def contact_of(session: Session, person_id: int, channels: Sequence[str]) -> Contact | None:
    """The address a person chose on these channels, or else used last; none that is lost."""
    return session.exec(
        select(Contact)
        .where(
            Contact.person_id == person_id,
            col(Contact.reachable),
            col(Contact.channel).in_(channels),
        )
        .order_by(*BEST_FIRST)
        .limit(1)
    ).first()


def contacts_of(session: Session, person_id: int) -> Sequence[Contact]:
    """All addresses of a person, in the order in which they came."""
    return session.exec(
        select(Contact).where(Contact.person_id == person_id).order_by(col(Contact.id))
    ).all()


def ids_of(session: Session, person_id: int) -> list[int]:
    """A person's number and those of the persons who became part of them, the own one first."""
    merged = session.exec(select(Person.id).where(Person.merged_into == person_id))
    return [person_id, *(number for number in merged if number is not None)]


def record_consent(session: Session, entry: ConsentEntry) -> None:
    """Append to the ledger and bring the last word up to date."""
    session.add(entry)
    live = entry.action in ("granted", "renewed")
    now = session.get(ConsentNow, (entry.person_id, entry.scope))
    if now is None:
        now = ConsentNow(
            person_id=entry.person_id,
            scope=entry.scope,
            live=live,
            version=entry.version,
            at=entry.at,
        )
    now.live, now.version, now.at = live, entry.version, entry.at
    session.add(now)
    session.flush()


def consents_of(session: Session, person_id: int) -> dict[str, ConsentNow]:
    """Scope → its last word."""
    rows = session.exec(select(ConsentNow).where(ConsentNow.person_id == person_id))
    return {row.scope: row for row in rows}


def has_consent(session: Session, person_id: int, scope: str) -> bool:
    """Does the person's consent to `scope` stand?"""
    now = session.get(ConsentNow, (person_id, scope))
    return now is not None and now.live


def unsubscribe(session: Session, person_id: int, topic: str, at: datetime) -> None:
    """Stop a topic (`*`: all); saying it twice is once."""
    if session.get(Unsubscription, (person_id, topic)) is None:
        session.add(Unsubscription(person_id=person_id, topic=topic, at=at))
        session.flush()


def subscribe(session: Session, person_id: int, topics: Iterable[str]) -> None:
    """Take topics up again; taking one up ends a stop of all."""
    wanted = {*topics, ALL_TOPICS}
    for row in session.exec(select(Unsubscription).where(Unsubscription.person_id == person_id)):
        if row.topic in wanted:
            session.delete(row)
    session.flush()


def unsubscribed(session: Session, person_id: int) -> set[str]:
    """The topics a person has stopped."""
    return set(
        session.exec(select(Unsubscription.topic).where(Unsubscription.person_id == person_id))
    )


def revoke(session: Session, person_id: int, role: str, at: datetime) -> int:
    """End a person's grants of a role; returns how many there were."""
    result = session.exec(
        update(Grant)
        .where(
            and_(
                col(Grant.person_id) == person_id,
                col(Grant.role) == role,
                col(Grant.revoked_at).is_(None),
            )
        )
        .values(revoked_at=at)
    )
    return result.rowcount


def grants_of(session: Session, person_id: int, now: datetime) -> Sequence[Grant]:
    """A person's live grants."""
    return session.exec(
        select(Grant).where(Grant.person_id == person_id, *live_grant(now))  # type: ignore[arg-type]
    ).all()


INSERT_PERSON = insert(Person)
INSERT_CONTACT = insert(Contact)
