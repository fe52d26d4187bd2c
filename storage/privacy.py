"""What is held about one person: shown whole, and erased whole, by walking every table's marks.

A table takes part through its marked columns (`storage.columns.personal`) and its `person_id`.
`__table_args__ = {"info": {"erase": …}}` says what erasure does with its rows: `delete` removes
them, `keep` leaves an official record alone; without a word the marked columns are blanked, and
where one of them cannot be blank the row goes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, String, Table, delete, select, update
from sqlmodel import AutoString, Session, col

from storage.campaigns import Campaign
from storage.columns import EncryptedText
from storage.linking import never_undone
from storage.mailbox import TABLE as OUTBOX
from storage.people import Person, grants_of, ids_of
from storage.states import WAITING, State
from storage.steering import suppress_person
from storage.tables import METADATA

LONGEST_COPY = 500  # characters


@dataclass(frozen=True, slots=True)
class Held:
    """One thing we hold about a person, under the label of its column."""

    label: str
    value: str
    column: str


@dataclass(frozen=True, slots=True)
class Section:
    """Everything that is held for one purpose."""

    purpose: str
    entries: tuple[Held, ...]


def marked(table: Table) -> list[Column[Any]]:
    """The columns of a table that hold personal data."""
    return [column for column in table.columns if "personal" in column.info]


def tables_of_people() -> Iterator[tuple[Table, Column[Any], list[Column[Any]]]]:
    """Each table with personal data, the column that says whose it is, and the marked ones."""
    for table in METADATA.sorted_tables:
        columns = marked(table)
        if columns:
            yield table, _whose(table), columns


def _words(column: Column[Any], value: Any) -> str:
    """Sealed copies of what was said are cut: an answer may hold an earlier export whole."""
    text = str(value)
    if isinstance(column.type, EncryptedText) and len(text) > LONGEST_COPY:
        return f"{text[:LONGEST_COPY]}…（共{len(text)}字）"
    return text


def _whose(table: Table) -> Column[Any]:
    return table.c.id if table.name == Person.__tablename__ else table.c.person_id


def export_person(session: Session, person_id: int) -> list[Section]:
    """Every marked value of every table, by purpose; empty ones are left out.

    Also what is held of persons who became part of this one.
    """
    people = ids_of(session, person_id)
    found: dict[str, list[Held]] = {}
    for table, whose, columns in tables_of_people():
        rows = session.execute(select(*columns).where(whose.in_(people))).all()
        for row in rows:
            for column, value in zip(columns, row, strict=True):
                if value not in (None, ""):
                    held = Held(
                        column.info["label"],
                        _words(column, value),
                        f"{table.name}.{column.name}",
                    )
                    found.setdefault(column.info["personal"], []).append(held)
    return [Section(purpose, tuple(dict.fromkeys(held))) for purpose, held in found.items()]


def erase_person(
    session: Session, person_id: int, now: datetime, *, reason: str, keep_contact: bool
) -> int:
    """Stop what waits for a person, then blank or delete all that is known of them.

    Who holds a role keeps the address and name they work under. `keep_contact` leaves the bare
    channel ids, by which somebody who withdrew is known not to be written to. Returns how many
    messages were stopped.
    """
    session.flush()
    connection = session.connection()
    people = ids_of(session, person_id)
    never_undone(session, people)
    staff = bool(grants_of(session, person_id, now))
    stopped = suppress_person(connection, person_id, reason)
    if not staff:
        stopped += _stop_all(session, person_id, reason)
    for table, whose, columns in tables_of_people():
        rule = table.info.get("erase", "blank")
        if rule == "keep" or (table.name == "contact" and (staff or keep_contact)):
            continue
        mine = [whose.in_(people), *_finished(table)]
        if rule == "delete" or not all(_can_be_blank(column) for column in columns):
            session.execute(delete(table).where(*mine))
        else:
            blank = {c.name: None if c.nullable else "" for c in columns}
            if staff:
                blank.pop("called", None)
            session.execute(update(table).where(*mine).values(blank))
    session.expire_all()
    return stopped


def _finished(table: Table) -> list[Any]:
    """What is about to leave still needs its address."""
    return [OUTBOX.c.state.not_in((*WAITING, State.SENDING))] if table is OUTBOX else []


def _can_be_blank(column: Column[Any]) -> bool:
    return not column.primary_key and (bool(column.nullable) or is_text(column))


def is_text(column: Column[Any]) -> bool:
    """Does a column hold words, sealed or plain?"""
    return isinstance(column.type, String | AutoString | EncryptedText)


def _stop_all(session: Session, person_id: int, reason: str) -> int:
    """Stop also what needs no consent: nobody is written to who left."""
    return (
        session.connection()
        .execute(
            update(OUTBOX)
            .where(OUTBOX.c.person_id == person_id, OUTBOX.c.state.in_(WAITING))
            .values(state=State.SUPPRESSED, reason=reason)
        )
        .rowcount
    )


def waiting_letters(session: Session, person_id: int) -> list[tuple[str, datetime]]:
    """Titles and moments of the campaigns that were still to reach a person."""
    rows = session.execute(
        select(col(Campaign.title), OUTBOX.c.not_before)
        .join(Campaign, col(Campaign.id) == OUTBOX.c.campaign_id)
        .where(OUTBOX.c.person_id == person_id, OUTBOX.c.state.in_(WAITING))
        .order_by(OUTBOX.c.not_before)
    )
    return [(title, moment) for title, moment in rows]


def last_campaign(session: Session, person_id: int) -> tuple[Campaign, datetime | None] | None:
    """The campaign that reached a person last, and when it left."""
    row = session.execute(
        select(Campaign, OUTBOX.c.sent_at)
        .join(OUTBOX, OUTBOX.c.campaign_id == col(Campaign.id))
        .where(
            OUTBOX.c.person_id == person_id,
            OUTBOX.c.state.in_((State.SENT, State.DELIVERED, State.READ, State.AWAITING_STAFF)),
        )
        .order_by(OUTBOX.c.sent_at.desc(), OUTBOX.c.id.desc())
        .limit(1)
    ).first()
    return (row[0], row[1]) if row else None
