"""What a handler is given: who speaks, when, the tables, and the way to tell others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, NestedTransaction
from sqlmodel import Session

from bot.clock import BEIJING, Clock, beijing_day
from bot.forms import UNDER, WITHHELD, Dialog, DraftState, Form
from bot.ladder import ByCover, InWindow, Openly, Way, WhenTheyWrite
from bot.messages import Address, Inbound, Kind, Reply, dump_reply
from storage.audit import AuditEntry
from storage.columns import KeyRing
from storage.db import Database
from storage.people import Contact, Person, Role, contact_of, grants_of, has_consent
from storage.states import State

if TYPE_CHECKING:
    from bot.boundary import Boundary
    from bot.catalog import Catalog
    from bot.commands import Place, Purpose
    from bot.settings import Settings


@dataclass(frozen=True)
class Covers:
    """A channel can send one text to many at once: each person gets at most `a_month` of them in a
    calendar month of the county, one call takes from `least` to `most` people, and the account has
    `a_day` calls."""

    a_month: int
    least: int
    most: int
    a_day: int = 100


@dataclass(frozen=True)
class ChannelFacts:
    """What the core must know of a channel to shape what it sends there.

    `inline`: how many bubbles the platform takes in its own answer (0: all through the outbox).
    `text_bytes`/`text_chars`: the longest bubble. `buttons`: does it show choices. `windowed`: may
    it only speak inside a reply window; `windows` says how long and for how many messages, by kind
    of message or happening. `*_gap_ms` is the time between two sends in the fast and slow lane.
    `links`: shows a page's link as a button. `policy` names the rules of a channel that has rules
    of its own (see `bot.commands.Boundary`); `anonymous`: who writes there is never kept.
    `edits`: a bubble can be brought up to date. `captions`: a file may bear a text. `covers`: see
    there, None where there are none. `codes`: its platform makes codes that tell by which of them
    somebody came. `known_for`: how long a bubble that is sent again with the same key is
    taken for the one that arrived, so that what is unknown may be tried again; zero: never.
    `one_way`: nobody is heard there.
    `apart`: kinds of messages that the platform's own answer has no room for, whatever `inline` is.
    `groups`: those of the staff that the settings name, with what people call them.
    `gives_up`: a message that we do not take is told a few times within seconds, then never again.
    `ways`: how people are reached beyond the reply window, the best first (see `bot.ladder`).
    `a_day`: how many messages the account may send in a day, 0 for no limit.
    """

    name: str
    inline: int = 0
    text_bytes: int | None = None
    text_chars: int | None = None
    buttons: bool = True
    windowed: bool = False
    windows: Mapping[str, tuple[timedelta, int]] = field(default_factory=dict)
    live_gap_ms: int = 0
    bulk_gap_ms: int = 0
    burst: int = 1
    label: str = ""
    links: bool = False
    policy: str = ""
    anonymous: bool = False
    edits: bool = False
    captions: bool = True
    covers: Covers | None = None
    codes: bool = False
    known_for: timedelta = timedelta(0)
    one_way: bool = False
    apart: frozenset[str] = frozenset()
    groups: Mapping[Address, str] = field(default_factory=dict)
    gives_up: bool = False
    ways: tuple[Way, ...] = ()
    a_day: int = 0

    @property
    def ladder(self) -> tuple[Way, ...]:
        """Every way by which somebody is reached here unasked, the best first."""
        if self.anonymous:
            return self.ways
        if not self.windowed:
            return (Openly(),)
        cover = (ByCover(self.name, self.covers.a_month),) if self.covers is not None else ()
        return (InWindow(), *self.ways, *cover, WhenTheyWrite())

    def lets_go(self, kind: Kind) -> bool:
        """Would its platform soon stop telling us this? Of what it tells beside the conversation
        any would."""
        return self.gives_up or kind is Kind.ASIDE

    def lane(self, *, urgent: bool) -> str:
        """The lane a message takes: answers and urgent notices never wait behind a campaign."""
        return f"{self.name}:{'live' if urgent else 'bulk'}"


class Sender(NamedTuple):
    """Who wrote, as the dispatcher loaded them. `person_id` 0: a stranger speaking in a group."""

    person_id: int = 0
    contact_id: int = 0
    roles: Sequence[Role] = ()
    drafts: Mapping[str, DraftState] = {}
    open_form: str | None = None


@dataclass(frozen=True)
class Services:
    """What the process is made of; built once in `bot.app`, received by everything else."""

    database: Database
    clock: Clock
    settings: Settings
    catalog: Catalog
    place: Place
    channels: Mapping[str, ChannelFacts]

    @property
    def keys(self) -> KeyRing:
        return self.database.keys

    @property
    def proactive(self) -> Mapping[str, str]:
        """The channels on which people are written to unasked, with the consent each needs."""
        boundary = self.catalog.boundary
        scopes = boundary.scopes if boundary is not None else {}
        return {
            name: scopes.get(facts.policy, "")
            for name, facts in self.channels.items()
            if not facts.anonymous
        }

    @property
    def groups(self) -> Mapping[Address, str]:
        """The groups of the staff that may be told what is public, with what people call them."""
        return {
            address: name
            for facts in self.channels.values()
            for address, name in facts.groups.items()
        }


class Context:
    """One message being answered, inside its transaction.

    `session` sees committed work and this handler's own writes; it opens when first asked for.
    Whatever is sent to others with `send` becomes a row of the outbox in the same transaction.
    `under` is the word of the command being done, if it needs a role: forms it opens need it too.
    `loaded` is the speaker as the tables have them, `merged` the persons who became one.
    """

    def __init__(
        self,
        services: Services,
        connection: Connection,
        inbound: Inbound,
        sender: Sender,
        now: datetime,
    ) -> None:
        self.services = services
        self._connection = connection
        self._savepoints: list[NestedTransaction | None] = []
        self.inbound = inbound
        self.person_id = sender.person_id
        self.contact_id = sender.contact_id
        self.roles: Sequence[Role] = sender.roles
        self.drafts: dict[str, DraftState] = dict(sender.drafts)
        self.open_form: str | None = sender.open_form
        self.under = ""
        self.now = now
        self.outgoing: list[dict[str, Any]] = []
        self.loaded = sender
        self.merged: set[int] = set()
        self._session: Session | None = None

    @property
    def connection(self) -> Connection:
        """This message's transaction. Inside `work` its first use opens the savepoint: a handler
        that only asks a question needs none."""
        for depth, savepoint in enumerate(self._savepoints):
            if savepoint is None:
                self._savepoints[depth] = self._connection.begin_nested()
        return self._connection

    @property
    def session(self) -> Session:
        """The ORM on this message's transaction. Never commit it."""
        connection = self.connection
        if self._session is None:
            self._session = Session(
                bind=connection,
                join_transaction_mode="rollback_only",
                expire_on_commit=False,
            )
        return self._session

    @contextmanager
    def work(self) -> Iterator[None]:
        """A savepoint: what is written inside stands or falls together."""
        self._savepoints.append(None)
        kept = (dict(self.drafts), self.open_form, len(self.outgoing))
        speaker = (self.person_id, self.roles, self.loaded)
        try:
            yield
            if self._session is not None:
                self._session.flush()
            savepoint = self._savepoints[-1]
            if savepoint is not None:
                savepoint.commit()
        except BaseException:
            self.drafts, self.open_form = kept[0], kept[1]
            self.person_id, self.roles, self.loaded = speaker
            self.merged.clear()
            del self.outgoing[kept[2] :]
            savepoint = self._savepoints[-1]
            if savepoint is not None and savepoint.is_active:
                savepoint.rollback()
            raise
        finally:
            self._savepoints.pop()
            if self._session is not None:
                self._session.close()
                self._session = None

    @property
    def person(self) -> Person:
        """Who speaks."""
        return self.session.get_one(Person, self.person_id)

    @property
    def contact(self) -> Contact:
        """The address they speak from."""
        return self.session.get_one(Contact, self.contact_id)

    @property
    def today(self) -> date:
        """The day in the county."""
        return beijing_day(self.now)

    @property
    def place(self) -> Place:
        return self.services.place

    @property
    def boundary(self) -> Boundary | None:
        """The rules of this channel, where it has rules of its own."""
        facts = self.services.channels[self.inbound.sender.channel]
        return self.services.catalog.boundary if facts.policy else None

    def become(self, person_id: int) -> None:
        """Go on as another person, to whom the speaker's address belongs from now on.

        Their drafts are left as they stand in the table; none is open.
        """
        held = grants_of(self.session, person_id, self.now)
        self.person_id = person_id
        self.roles = tuple(Role(one.role, one.unit_id, one.team_id) for one in held)
        self.loaded = Sender(person_id, self.contact_id, self.roles)
        self.drafts, self.open_form = {}, None

    def has_role(self, *names: str) -> bool:
        """Does the person hold one of these roles now?"""
        return any(role.name in names for role in self.roles)

    # - forms -

    def begin(
        self,
        form: type[Form],
        facts: Mapping[str, Any] | None = None,
        answers: Mapping[str, Any] | None = None,
        before: str = "",
    ) -> Reply:
        """Open a form and ask its first question; a form already open is parked."""
        known = dict(facts or {})
        if self.under:
            known[UNDER] = self.under
        boundary = self.boundary
        if boundary is not None:
            instead = boundary.form(self, form)
            if instead is not None:
                return instead
            known[WITHHELD] = sorted(boundary.withheld(self, form))
        step = Dialog.begin(form, known, self.today, answers).next_step(before)
        if step.draft is None:
            return step.reply
        parked = self.open_form
        self.drafts[form.name] = step.draft
        self.open_form = form.name
        if parked and parked != form.name and parked in self.drafts:
            left = self.services.catalog.form(parked)
            if left.passing:
                del self.drafts[parked]
            else:
                return step.reply.ending(f"（{left.label}已存草稿，随时回「继续」接着填。）")
        return step.reply

    def resume(self, form: type[Form], before: str = "") -> Reply:
        """Go on with a form in progress: its last question again."""
        instead = self.boundary.form(self, form) if self.boundary is not None else None
        if instead is not None:
            return instead
        step = Dialog.resume(form, self.drafts[form.name], self.today).again(before)
        assert step.draft is not None, "a draft that was asked something asks it again"
        self.drafts[form.name] = step.draft
        self.open_form = form.name
        return step.reply

    def discard(self, form: type[Form]) -> None:
        """Forget a form in progress."""
        self.drafts.pop(form.name, None)
        if self.open_form == form.name:
            self.open_form = None

    # - telling others -

    def send(
        self,
        person_id: int,
        reply: Reply,
        *,
        occasion: str,
        purpose: Purpose,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
        contact: Contact | None = None,
    ) -> bool:
        """Queue a message to a person, once per occasion. False: they have no address.

        `contact` names the one of their addresses it must go to.
        """
        row = outbox_row(
            self.services,
            self.session,
            person_id,
            reply,
            occasion=occasion,
            purpose=purpose,
            now=self.now,
            not_before=not_before,
            expires_at=expires_at,
            contact=contact,
        )
        if row is None:
            return False
        self.outgoing.append(row)
        return True

    def send_to_group(
        self,
        group: Address,
        reply: Reply,
        *,
        occasion: str,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Queue a message to a group. It must never hold personal data (requirements §4.6)."""
        row = group_row(self.services, group, reply, occasion, self.now)
        row |= {"not_before": not_before or self.now, "expires_at": expires_at}
        self.outgoing.append(row)

    def audit(self, action: str, object: str, reason: str = "", **more: Any) -> None:
        """Write a line into the audit log, in this transaction: ids and reasons, never values."""
        self.session.add(
            AuditEntry(
                at=self.now,
                actor_id=self.person_id,
                role=",".join(sorted({role.name for role in self.roles})),
                channel=self.inbound.sender.channel,
                action=action,
                object=object,
                reason=reason,
                source=self.inbound.id,
                **more,
            )
        )


def zone_of(person: Person | None) -> ZoneInfo:
    """A person's own zone, the county's while unknown."""
    return ZoneInfo(person.timezone) if person is not None and person.timezone else BEIJING


def may_carry(purpose: Purpose, scope: str) -> bool:
    """May a channel that needs the consent `scope` ("": none) carry this unasked?

    One that needs a consent carries what was consented to, never what is sent out of duty: that
    may be about others.
    """
    return not scope or purpose.scope is not None


def channels_for(
    services: Services, session: Session, person_id: int, purpose: Purpose
) -> list[str]:
    """The channels on which somebody may be written to unasked for this purpose."""
    return [
        name
        for name, scope in services.proactive.items()
        if may_carry(purpose, scope) and (not scope or has_consent(session, person_id, scope))
    ]


def outbox_row(
    services: Services,
    session: Session,
    person_id: int,
    reply: Reply,
    *,
    occasion: str,
    purpose: Purpose,
    now: datetime,
    not_before: datetime | None = None,
    expires_at: datetime | None = None,
    contact: Contact | None = None,
) -> dict[str, Any] | None:
    """A row for one person at their best address (or `contact`); None if they have none, or left.

    Who asks may still know them by the number of somebody who became part of them.
    """
    person = session.get(Person, person_id)
    if person is not None and person.merged_into is not None:
        person_id = person.merged_into
        person = session.get(Person, person_id)
    allowed = channels_for(services, session, person_id, purpose)
    contact = contact or contact_of(session, person_id, allowed)
    if contact is None or person is None:
        return None
    if person.silent_since is not None and purpose.scope is not None:
        return None
    facts = services.channels[contact.channel]
    due = not_before or now
    if purpose.quiet:
        due = services.settings.quiet.after(due, zone_of(person))
    return new_row(
        occasion=occasion,
        recipient=f"p{person_id}",
        person_id=person_id,
        address=contact.address,
        purpose=purpose.name,
        scope=purpose.scope,
        topic=purpose.topic,
        lane=facts.lane(urgent=purpose.urgent),
        windowed=facts.windowed,
        repeatable=purpose.repeatable,
        body=dump_reply(reply),
        not_before=due,
        expires_at=expires_at,
        created_at=now,
    )


def group_row(
    services: Services, group: Address, reply: Reply, occasion: str, now: datetime
) -> dict[str, Any]:
    """A row for a group."""
    facts = services.channels[group.channel]
    return new_row(
        occasion=occasion,
        recipient=f"g{group}",
        address=str(group),
        purpose="group",
        lane=facts.lane(urgent=True),
        body=dump_reply(reply),
        not_before=now,
        created_at=now,
        repeatable=False,
    )


def new_row(**values: Any) -> dict[str, Any]:
    """Every column of an outbox row, so that rows of different kinds go in one statement."""
    row: dict[str, Any] = {
        "campaign_id": None,
        "person_id": None,
        "scope": None,
        "topic": None,
        "windowed": False,
        "repeatable": False,
        "state": State.QUEUED,
        "reason": "",
        "expires_at": None,
        "attempts": 0,
        "parts_sent": 0,
        "owner": "",
        "body": None,
        "body_hash": "",
        "provider_id": "",
        "sent_at": None,
    }
    return row | values
