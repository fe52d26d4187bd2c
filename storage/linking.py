"""Two persons who are one: each row that names the second comes to name the first, and back again.

What names a person is found in the tables' metadata, so that a table added later is not forgotten.
Where such a column is part of a unique key, two rows may meet: `RULES` says for each of these
tables what becomes of them.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    and_,
    case,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlmodel import Field, Session, SQLModel, col

from storage.approvals import Approval, ApprovalVote
from storage.columns import EncryptedText, UtcDateTime
from storage.dialogs import Draft
from storage.events import Rsvp
from storage.mailbox import TABLE as OUTBOX
from storage.people import (
    ConsentEntry,
    ConsentNow,
    Contact,
    Person,
    consents_of,
    ids_of,
    record_consent,
    unsubscribe,
    unsubscribed,
)
from storage.profiles import MemberCategory, MemberProfile, ProfileChange, categories_of
from storage.states import WAITING, State
from storage.tables import METADATA

LINKED = "linked"
"""Why a second row for the same occasion is cancelled."""
UNLINKED = "unlinked"
"""Why a row is cancelled whose address its reader gave up."""

UNDO_WITHIN = timedelta(days=7)


class PersonLink(SQLModel, table=True):
    """`other_id` became part of `person_id`.

    `moved` is JSON, sealed: which rows came along, by table, column and key, so that they can go
    back. It is forgotten when nothing can be undone any more.
    """

    __tablename__ = "person_link"

    id: int | None = Field(default=None, primary_key=True)
    person_id: int = Field(foreign_key="person.id", index=True)
    other_id: int = Field(foreign_key="person.id", index=True)
    linked_at: datetime = Field(sa_type=UtcDateTime)
    undone_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    moved: str | None = Field(default=None, sa_type=EncryptedText)


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said to have this done: the channel, the message's id, their words."""

    channel: str
    source: str
    words: str


@dataclass
class Merged:
    """What became one: the link, forms of which only the newer draft is left, events with only the
    newer answer, and how many messages would have come twice."""

    link: PersonLink
    forms: list[str] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    doubles: int = 0


@dataclass
class _Merging:
    """A merger under way: the rows of `gone` come to `kept`."""

    session: Session
    kept: int
    gone: int
    now: datetime
    said: Said
    result: Merged
    journal: list[tuple[str, str, list[list[Any]]]] = field(default_factory=list)
    carried: list[str] = field(default_factory=list)

    def move(self, table: Table, column: Column[Any], *, back: bool = True) -> None:
        """Rename the person in a column; `back`: note the rows, so that they can be given back."""
        mine = column == self.gone
        if back:
            keys = [key for key in table.primary_key if key is not column]
            rows = self.session.execute(select(*keys).where(mine)) if keys else [()]
            found = [list(row) for row in rows]
            if found and (keys or self.session.execute(select(column).where(mine)).first()):
                self.journal.append((table.name, column.name, found))
        self.session.execute(update(table).where(mine).values({column.name: self.kept}))


# - which columns name a person -


def references(metadata: MetaData = METADATA) -> Iterator[tuple[Table, Column[Any]]]:
    """Every column that names a person, table by table."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            if any(key.target_fullname == "person.id" for key in column.foreign_keys):
                yield table, column


def keyed(table: Table, column: Column[Any]) -> bool:
    """Is the column part of a unique key, so that two persons' rows may meet?"""
    unique = [
        constraint.columns
        for constraint in table.constraints
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint)
    ]
    unique += [index.columns for index in table.indexes if index.unique]
    return bool(column.unique) or any(column.name in columns for columns in unique)


def unhandled(metadata: MetaData = METADATA) -> list[str]:
    """Columns whose rows may meet and for which nobody said what then becomes of them."""
    return [
        f"{table.name}.{column.name}"
        for table, column in references(metadata)
        if keyed(table, column) and table.name not in RULES
    ]


# - what becomes of rows that meet -


def _kept_first(merging: _Merging, table: Table, column: Column[Any]) -> None:
    """Where both have a row, the kept person's stays."""
    theirs = table.alias()
    same = [theirs.c[key.name] == key for key in table.primary_key if key is not column]
    met = select(theirs).where(theirs.c[column.name] == merging.kept, *same).exists()
    merging.session.execute(delete(table).where(column == merging.gone, met))
    merging.move(table, column)


def _consents(merging: _Merging, table: Table, column: Column[Any]) -> None:
    """The stricter word holds; it is told to the ledger, whose old lines stay as they are."""
    session = merging.session
    mine = consents_of(session, merging.kept)
    for scope, theirs in sorted(consents_of(session, merging.gone).items()):
        own = mine.get(scope)
        if own is not None and not (own.live and not theirs.live):
            continue
        entry = _last_word(session, merging.gone, scope)
        action = _action(entry, live=theirs.live)
        _note(session, merging.kept, theirs, action, merging.now, merging.said)
        merging.carried.append(scope)
        now = session.get_one(ConsentNow, (merging.kept, scope))
        now.at = theirs.at
    session.execute(delete(table).where(column == merging.gone))


def _last_word(session: Session, person_id: int, scope: str) -> ConsentEntry | None:
    whose = ids_of(session, person_id)
    found: ConsentEntry | None = session.execute(
        select(ConsentEntry)
        .where(col(ConsentEntry.person_id).in_(whose), col(ConsentEntry.scope) == scope)
        .order_by(col(ConsentEntry.id).desc())
        .limit(1)
    ).scalar()
    return found


def _action(entry: ConsentEntry | None, *, live: bool) -> str:
    """The word of the ledger that says the same."""
    if entry is not None and (entry.action in _GIVEN) == live:
        return entry.action
    return "granted" if live else "withdrawn"


_GIVEN = ("granted", "renewed")


def _note(
    session: Session, person_id: int, word: ConsentNow, action: str, now: datetime, said: Said
) -> None:
    """Tell a person's ledger what another line said, or that it holds no more."""
    entry = _last_word(session, word.person_id, word.scope)
    record_consent(
        session,
        ConsentEntry(
            person_id=person_id,
            scope=word.scope,
            action=action,
            version=word.version,
            notice_hash=entry.notice_hash if entry else "",
            at=now,
            channel=said.channel,
            source=said.source,
            words=said.words,
        ),
    )


def _drafts(merging: _Merging, table: Table, column: Column[Any]) -> None:
    """Of two drafts of one form the newer is kept; all of them wait to be continued."""
    session = merging.session
    when = {
        (row.person_id, row.form): row.updated_at
        for row in session.execute(
            select(table.c.person_id, table.c.form, table.c.updated_at).where(
                column.in_([merging.kept, merging.gone])
            )
        )
    }
    for person, form in sorted(when):
        other = when.get((merging.kept, form))
        if person != merging.gone or other is None:
            continue
        older = merging.gone if when[person, form] <= other else merging.kept
        session.execute(delete(table).where(column == older, table.c.form == form))
        merging.result.forms.append(form)
    merging.move(table, column)
    session.execute(update(Draft).where(col(Draft.person_id) == merging.kept).values(parked=True))


def _answers(merging: _Merging, table: Table, column: Column[Any]) -> None:
    """Of two answers to one event the newer counts, in the better place of the queue."""
    session = merging.session
    rows = session.execute(
        select(Rsvp)
        .where(col(Rsvp.person_id).in_([merging.kept, merging.gone]))
        .order_by(col(Rsvp.event_id), col(Rsvp.answered_at), col(Rsvp.id))
    ).scalars()
    by_event: dict[int, list[Rsvp]] = {}
    for row in rows:
        by_event.setdefault(row.event_id, []).append(row)
    for event_id, answers in by_event.items():
        if len(answers) == 2:
            older, newer = answers
            if older.state == newer.state:
                newer.queued_at = min(older.queued_at, newer.queued_at)
            session.delete(older)
            merging.result.events.append(event_id)
    session.flush()
    merging.move(table, column)


def _letters(merging: _Merging, table: Table, column: Column[Any]) -> None:
    """One letter once: of two rows for an occasion that still wait, or of which one has left, what
    waits is cancelled.

    What a campaign froze keeps its `recipient`: the list was approved as it stands.
    """
    session, both = merging.session, (merging.kept, merging.gone)
    rows = session.execute(
        select(
            OUTBOX.c.id, OUTBOX.c.occasion, OUTBOX.c.state, OUTBOX.c.person_id, OUTBOX.c.campaign_id
        )
        .where(column.in_(both))
        .order_by(OUTBOX.c.id)
        .with_for_update()
    ).all()
    mine = {row.occasion: row for row in rows if row.person_id == merging.kept}
    for row in rows:
        if row.person_id != merging.gone:
            continue
        twin = mine.get(row.occasion)
        values: dict[str, Any] = {"person_id": merging.kept}
        if row.state == State.LEASED:
            values |= {"state": State.QUEUED, "owner": ""}  # claimed for who is no more
        if twin is None and row.campaign_id is None:
            values["recipient"] = f"p{merging.kept}"
        if twin is not None:
            double = _double(row, twin)
            merging.result.doubles += double is not None
            if double is row:
                values |= {"state": State.CANCELLED, "reason": LINKED, "owner": ""}
            elif double is twin:
                _cancel(session, twin.id)
        session.execute(update(OUTBOX).where(OUTBOX.c.id == row.id).values(values))


_MAY_HAVE_LEFT = (
    State.SENDING,
    State.SENT,
    State.DELIVERED,
    State.READ,
    State.UNKNOWN,
    State.AWAITING_STAFF,
)
_READIEST = (State.LEASED, State.QUEUED, State.DEFERRED, State.HELD)


def _double(row: Any, twin: Any) -> Any:
    """Which of two rows for one occasion must not leave any more, if any."""
    if row.state in WAITING and twin.state in WAITING:
        return twin if _READIEST.index(row.state) < _READIEST.index(twin.state) else row
    if row.state in WAITING and twin.state in _MAY_HAVE_LEFT:
        return row
    if twin.state in WAITING and row.state in _MAY_HAVE_LEFT:
        return twin
    return None


def _cancel(session: Session, row_id: int) -> None:
    session.execute(
        update(OUTBOX)
        .where(OUTBOX.c.id == row_id)
        .values(state=State.CANCELLED, reason=LINKED, owner="")
    )


def _topics(merging: _Merging, table: Table, column: Column[Any]) -> None:
    """What either stopped is stopped."""
    for topic in unsubscribed(merging.session, merging.gone):
        unsubscribe(merging.session, merging.kept, topic, merging.now)
    merging.session.execute(delete(table).where(column == merging.gone))


def _by_earlier(moment: str) -> "Rule":
    """The earlier of two rows is kept, whoever's it is."""

    def rule(merging: _Merging, table: Table, column: Column[Any]) -> None:
        session, others = merging.session, [k for k in table.primary_key if k is not column]
        rows = session.execute(
            select(column.label("whose"), table.c[moment].label("at"), *others)
            .where(column.in_([merging.kept, merging.gone]))
            .order_by(table.c[moment].is_(None), table.c[moment])
        ).all()
        seen: set[tuple[Any, ...]] = set()
        for whose, _at, *key in rows:
            if tuple(key) in seen:
                same = [other == value for other, value in zip(others, key, strict=True)]
                session.execute(delete(table).where(column == whose, *same))
            seen.add(tuple(key))
        merging.move(table, column)

    return rule


def _move(merging: _Merging, table: Table, column: Column[Any]) -> None:
    """Nothing can meet: what could was looked at before."""
    merging.move(table, column)


def _stays(_merging: _Merging, _table: Table, _column: Column[Any]) -> None:
    """A record of what was: it keeps the number under which it was written."""


def _for_good(merging: _Merging, table: Table, column: Column[Any]) -> None:
    """What was said stays with the file when the link is undone."""
    merging.move(table, column, back=False)


Rule = Callable[[_Merging, Table, Column[Any]], None]
RULES: Mapping[str, Rule] = {
    "approval_vote": _move,  # who spoke twice on one request is refused before
    "arrival": _by_earlier("at"),
    "consent_entry": _stays,
    "consent_now": _consents,
    "cover_recipient": _kept_first,
    "draft": _drafts,
    "inbox": _for_good,
    "job": _for_good,
    "member_category": _move,  # only one file is left by then
    "member_profile": _move,
    "one_time_code": _for_good,
    "outbox": _letters,
    "report_receipt": _by_earlier("read_at"),
    "rsvp": _answers,
    "unsubscription": _topics,
    "wechat_follower": _kept_first,
    "wechat_notice_grant": _kept_first,
}
"""What becomes of the rows of a table; the column is simply renamed where nothing is said here."""

_NOT_RENAMED = {("person_link", "other_id")}


# - before -


def hold(session: Session, mine: int, other: int) -> bool:
    """Lock the other person while one's own lock is held; False if that cannot be done now.

    Locks are taken in the order of the numbers, so nobody waits against it: a lower number is
    taken only if it is free. Also False for somebody who has become part of another meanwhile.
    """
    query = (
        select(col(Person.id))
        .where(col(Person.id) == other, col(Person.merged_into).is_(None))
        .with_for_update(key_share=True, skip_locked=other < mine)
    )
    return session.execute(query).first() is not None


def voted_twice(session: Session, one: int, other: int) -> Collection[str]:
    """Numbers of the requests on which both persons acted: four eyes that were two."""

    def acted(person: int) -> Any:
        return select(col(Approval.id)).where(
            (col(Approval.asked_by) == person)
            | col(Approval.id).in_(
                select(col(ApprovalVote.approval_id)).where(col(ApprovalVote.person_id) == person)
            )
        )

    return list(
        session.execute(
            select(col(Approval.number)).where(
                col(Approval.id).in_(acted(one)), col(Approval.id).in_(acted(other))
            )
        ).scalars()
    )


_OF_THE_ROW = {"person_id", "number", "source_unit_id", "registered_at", "last_confirmed_at"}


def differing(session: Session, one: MemberProfile, other: MemberProfile) -> list[str]:
    """Labels of what two files say differently; empty for files that say the same."""
    columns = MemberProfile.__table__.columns  # type: ignore[attr-defined]  # SQLModel sets it
    found = [
        column.info.get("label", column.name)
        for column in columns
        if column.name not in _OF_THE_ROW
        and not column.name.endswith("_digest")
        and getattr(one, column.name) != getattr(other, column.name)
    ]
    if categories_of(session, one.person_id) != categories_of(session, other.person_id):
        found.append("类别")
    return found


# - one -


def merge(
    session: Session, kept: int, gone: int, now: datetime, said: Said, *, file_of: int | None = None
) -> Merged:
    """Make two persons one, in this transaction, both being locked.

    Where both have a file, the one of `file_of` (`kept` if None) stays and the other is deleted.
    """
    session.flush()
    link = PersonLink(person_id=kept, other_id=gone, linked_at=now)
    merging = _Merging(session, kept, gone, now, said, Merged(link))
    _one_file(session, gone if file_of in (None, kept) else kept, (kept, gone))
    for table, column in references():
        if (table.name, column.name) in _NOT_RENAMED:
            continue
        rule = RULES.get(table.name)
        if rule is None and keyed(table, column):
            raise NotImplementedError(f"{table.name}.{column.name}")
        (rule or _move)(merging, table, column)
    _one_person(session, kept, gone)
    link.moved = json.dumps({"rows": merging.journal, "carried": merging.carried})
    session.add(link)
    session.flush()
    session.expire_all()
    return merging.result


def _one_file(session: Session, loser: int, both: Iterable[int]) -> None:
    if any(session.get(MemberProfile, person) is None for person in both):
        return
    for table in (ProfileChange, MemberCategory, MemberProfile):
        session.execute(delete(table).where(col(table.person_id) == loser))
    session.expire_all()


def _one_person(session: Session, kept: int, gone: int) -> None:
    one, other = session.get_one(Person, kept), session.get_one(Person, gone)
    one.timezone = one.timezone or other.timezone
    one.called = one.called or other.called
    silent = [at for at in (one.silent_since, other.silent_since) if at is not None]
    one.silent_since = min(silent, default=None)
    session.execute(update(Person).where(col(Person.merged_into) == gone).values(merged_into=kept))
    other.merged_into = kept


# - and two again -


def last_link(session: Session, person_id: int, now: datetime) -> PersonLink | None:
    """The newest link of a person that can still be undone."""
    found: PersonLink | None = session.execute(
        select(PersonLink)
        .where(
            col(PersonLink.person_id) == person_id,
            col(PersonLink.undone_at).is_(None),
            col(PersonLink.moved).is_not(None),
            col(PersonLink.linked_at) > now - UNDO_WITHIN,
        )
        .order_by(col(PersonLink.id).desc())
        .limit(1)
    ).scalar()
    return found


def part(session: Session, link: PersonLink, now: datetime, said: Said) -> None:
    """Undo a link: what came along goes back; what was said or done since stays where it is.

    A consent that came along is withdrawn again, and none revives on the other side that was
    withdrawn meanwhile. Topics that were stopped stay stopped on both sides.
    """
    kept, other = link.person_id, link.other_id
    moved = json.loads(link.moved or "{}")
    session.get_one(Person, other).merged_into = None
    for name, column, keys in moved["rows"]:
        _give_back(session, METADATA.tables[name], column, keys, kept, other)
    session.flush()
    _part_consents(session, kept, other, moved["carried"], now, said)
    for topic in unsubscribed(session, kept):
        unsubscribe(session, other, topic, now)
    theirs = select(col(Contact.address)).where(col(Contact.person_id) == other)
    session.execute(
        update(OUTBOX)
        .where(
            OUTBOX.c.person_id == kept,
            OUTBOX.c.state.in_(WAITING),
            OUTBOX.c.recipient == f"p{other}",
            OUTBOX.c.address.in_(theirs),
        )
        .values(person_id=other)
    )
    link.undone_at, link.moved = now, None
    session.add(link)
    session.flush()
    session.expire_all()


def _give_back(
    session: Session,
    table: Table,
    column: str,
    keys: Sequence[Sequence[Any]],
    kept: int,
    other: int,
) -> None:
    rest = [key for key in table.primary_key if key.name != column]
    for values in keys:
        same = [key == value for key, value in zip(rest, values, strict=True)]
        session.execute(
            update(table).where(and_(table.c[column] == kept, *same)).values({column: other})
        )


def _part_consents(
    session: Session, kept: int, other: int, carried: Sequence[str], now: datetime, said: Said
) -> None:
    mine = consents_of(session, kept)
    stopped = [scope for scope, word in mine.items() if not word.live]
    for scope in carried:
        if scope in mine and mine[scope].live:
            _note(session, kept, mine[scope], "withdrawn", now, said)
    scopes = session.execute(
        select(col(ConsentEntry.scope))
        .where(col(ConsentEntry.person_id).in_(ids_of(session, other)))
        .distinct()
    ).scalars()
    for scope in sorted(scopes):
        entry = _last_word(session, other, scope)
        assert entry is not None
        word = ConsentNow(
            person_id=other,
            scope=scope,
            live=entry.action in _GIVEN,
            version=entry.version,
            at=entry.at,
        )
        session.add(word)
        session.flush()
        if word.live and scope in stopped:
            _note(session, other, word, "withdrawn", now, said)


def redirect(
    session: Session, person_id: int, lost: Contact, instead: Contact | None, *, windowed: bool
) -> int:
    """Let what waits for a person at an address they gave up go to another, or cancel it.

    `windowed` is the other channel's. Returns how many messages.
    """
    waiting = (
        OUTBOX.c.person_id == person_id,
        OUTBOX.c.address == lost.address,
        OUTBOX.c.state.in_(WAITING),
    )
    values: dict[str, Any] = {"state": State.CANCELLED, "reason": UNLINKED, "owner": ""}
    if instead is not None:
        kind = func.substr(OUTBOX.c.lane, len(lost.channel) + 1)
        values = {
            "address": instead.address,
            "lane": literal(instead.channel).op("||")(kind),
            "windowed": windowed,
            "state": case((OUTBOX.c.state == State.HELD, State.HELD), else_=State.QUEUED),
            "owner": "",
        }
    result = session.execute(update(OUTBOX).where(*waiting).values(values))
    return int(result.rowcount)  # type: ignore[attr-defined]


def leave_alone(session: Session, contact: Contact, now: datetime) -> int:
    """Make an address somebody of its own, of whom nothing is known; returns their number."""
    person = Person(created_at=now)
    session.add(person)
    session.flush()
    assert person.id is not None
    contact.person_id, contact.preferred_at = person.id, None
    session.add(contact)
    session.flush()
    return person.id


def forget_links(session: Session, now: datetime) -> int:
    """Forget which rows came along, once nothing can be undone any more."""
    result = session.execute(
        update(PersonLink)
        .where(
            col(PersonLink.moved).is_not(None),
            col(PersonLink.linked_at) <= now - UNDO_WITHIN,
        )
        .values(moved=None)
    )
    return int(result.rowcount)  # type: ignore[attr-defined]


def never_undone(session: Session, people: Sequence[int]) -> None:
    """Nobody who was erased comes back by an undoing."""
    session.execute(
        update(PersonLink).where(col(PersonLink.person_id).in_(people)).values(moved=None)
    )
