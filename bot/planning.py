"""Who of a segment may be written to, by which way and why not; and freezing that list.

The one place that asks for consent: it refuses a purpose without a live one and says so. It works
in SQL, set by set, so that a hundred thousand people are never loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Select, and_, case, delete, exists, false, func, literal, or_, select
from sqlalchemy.schema import DropTable
from sqlmodel import Session, col

from bot.clock import BEIJING
from bot.commands import Purpose
from bot.context import ChannelFacts, Services, may_carry
from storage import mailbox
from storage.campaigns import Campaign
from storage.mailbox import TABLE, State
from storage.people import (
    ALL_TOPICS,
    BEST_FIRST,
    ConsentNow,
    Contact,
    Person,
    Unsubscription,
)

NOW = "now"
WINDOW = "window"
REASONS: Mapping[str, str] = {
    "consent": "未同意",
    "withdrawn": "撤回",
    "unsubscribed": "退订",
    "unreachable": "渠道不可达",
    "silent": "请勿联系",
}
"""Why somebody of the segment is left out, in the order it is asked."""


@dataclass(frozen=True)
class Plan:
    """What a campaign would do: how many by channel now, how many when they next write, and how
    many not at all, by reason."""

    matched: int
    now: Mapping[str, int]
    waiting: Mapping[str, int]
    left_out: Mapping[str, int]

    @property
    def reachable(self) -> int:
        """People who get it without doing anything."""
        return sum(self.now.values())

    @property
    def frozen(self) -> int:
        """Rows the plan would write: reachable now, or when they next write to us."""
        return self.reachable + sum(self.waiting.values())


def _best_contact(services: Services, purpose: Purpose, person_id: Any) -> Any:
    """The id of the best of a person's addresses that may be written to unasked for this purpose.

    Asked person by person, so that the cost is that of the segment and not of everybody.
    """
    allowed = [
        and_(col(Contact.channel) == name, _agreed(scope))
        if scope
        else col(Contact.channel) == name
        for name, scope in services.proactive.items()
        if may_carry(purpose, scope)
    ]
    return (
        select(col(Contact.id))
        .where(col(Contact.person_id) == person_id, col(Contact.reachable), or_(false(), *allowed))
        .order_by(*BEST_FIRST)
        .limit(1)
        .correlate(person_id.table)
        .scalar_subquery()
    )


def _agreed(scope: str) -> Any:
    """Does the consent that a channel needs stand?"""
    return exists().where(
        col(ConsentNow.person_id) == col(Contact.person_id),
        col(ConsentNow.scope) == scope,
        col(ConsentNow.live),
    )


def _verdicts(services: Services, people: Select[Any], purpose: Purpose, now: datetime) -> Any:
    """Each person of the segment once, with address, channel, zone and what stands in the way."""
    wanted = people.distinct().subquery("wanted")
    person_id = next(iter(wanted.c))
    best = Contact.__table__.alias("best")  # type: ignore[attr-defined]  # SQLModel sets it
    windowed = [name for name, facts in services.channels.items() if facts.windowed]
    stopped = exists().where(
        col(Unsubscription.person_id) == person_id,
        col(Unsubscription.topic).in_([purpose.topic or ALL_TOPICS, ALL_TOPICS]),
    )
    open_window = or_(
        best.c.channel.not_in(windowed),
        and_(best.c.window_until > now, best.c.window_left > 0),
    )
    live = col(ConsentNow.live)
    reason = case(
        (literal(purpose.scope is not None) & live.is_(None), "consent"),
        (literal(purpose.scope is not None) & live.is_(False), "withdrawn"),
        (literal(purpose.topic is not None) & stopped, "unsubscribed"),
        (col(Person.silent_since).is_not(None), "silent"),
        (best.c.address.is_(None), "unreachable"),
        (open_window, NOW),
        else_=WINDOW,
    )
    return (
        select(
            person_id.label("person_id"),
            best.c.address,
            best.c.channel,
            col(Person.timezone).label("timezone"),
            reason.label("verdict"),
        )
        .select_from(wanted)
        .join(Person, col(Person.id) == person_id)
        .outerjoin(
            ConsentNow,
            and_(
                col(ConsentNow.person_id) == person_id,
                col(ConsentNow.scope) == (purpose.scope or ""),
            ),
        )
        .outerjoin(best, best.c.id == _best_contact(services, purpose, person_id))
        .subquery("verdicts")
    )


def plan(
    services: Services, session: Session, people: Select[Any], purpose: Purpose, now: datetime
) -> Plan:
    """Count a segment by verdict. `people` selects person ids; doubles count once."""
    verdicts = _verdicts(services, people, purpose, now)
    rows = session.execute(
        select(verdicts.c.verdict, verdicts.c.channel, func.count()).group_by(
            verdicts.c.verdict, verdicts.c.channel
        )
    ).all()
    reachable: dict[str, int] = {}
    waiting: dict[str, int] = {}
    left_out: dict[str, int] = {}
    for verdict, channel, count in rows:
        if verdict == NOW:
            reachable[channel] = reachable.get(channel, 0) + count
        elif verdict == WINDOW:
            waiting[channel] = waiting.get(channel, 0) + count
        else:
            left_out[verdict] = left_out.get(verdict, 0) + count
    return Plan(sum(count for *_rest, count in rows), reachable, waiting, left_out)


@dataclass(frozen=True)
class Moment:
    """When a campaign leaves: at a wall-clock time in each recipient's zone, or at once.

    `latest` is the wall-clock time after which it must not leave any more, None for never.
    """

    at: datetime
    local: bool = True
    latest: datetime | None = None

    def in_zone(self, zone: ZoneInfo) -> tuple[datetime, datetime | None]:
        """(not before, expires) for somebody who lives in `zone`."""
        if not self.local:
            return self.at, self.latest
        return _same_wall(self.at, zone), _same_wall(self.latest, zone) if self.latest else None


def _same_wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(BEIJING).replace(tzinfo=zone)


def freeze(
    services: Services,
    session: Session,
    campaign: Campaign,
    people: Select[Any],
    purpose: Purpose,
    moment: Moment,
    now: datetime,
) -> int:
    """Write the campaign's recipients as held rows, once each, and its list's hash; returns how
    many. What was frozen before for this campaign and not released is replaced."""
    assert campaign.id is not None
    session.execute(
        delete(TABLE).where(TABLE.c.campaign_id == campaign.id, TABLE.c.state == State.HELD)
    )
    with _worked_out(session, _verdicts(services, people, purpose, now)) as verdicts:
        for zone_name in _zones(session, verdicts):
            zone = ZoneInfo(zone_name) if zone_name else BEIJING
            due, expires = moment.in_zone(zone)
            if purpose.quiet:
                due = services.settings.quiet.after(due, zone)
            source = _rows(
                services.channels, verdicts, campaign, purpose, zone_name, due, expires, now
            )
            session.execute(
                mailbox.on_conflict_base(session.connection(), TABLE)
                .from_select([column.name for column in source.selected_columns], source)
                .on_conflict_do_nothing()
            )
    campaign.recipients_hash = recipients_hash(session, campaign.id)
    campaign.not_before, campaign.local_time = moment.at, moment.local
    campaign.expires_at = moment.latest
    session.add(campaign)
    session.flush()
    return frozen_count(session, campaign.id)


@contextmanager
def _worked_out(session: Session, verdicts: Any) -> Iterator[Any]:
    """The verdicts as a table of this transaction: each person is asked about once."""
    made = (
        select(verdicts)
        .where(verdicts.c.verdict.in_([NOW, WINDOW]))
        .into("planned", temporary=True)
    )
    session.execute(made)
    yield made.table
    session.execute(DropTable(made.table))


def _zones(session: Session, verdicts: Any) -> list[str | None]:
    return [zone for (zone,) in session.execute(select(verdicts.c.timezone).distinct())]


def _rows(
    channels: Mapping[str, ChannelFacts],
    verdicts: Any,
    campaign: Campaign,
    purpose: Purpose,
    zone_name: str | None,
    due: datetime,
    expires: datetime | None,
    now: datetime,
) -> Select[Any]:

    def by_channel(fact: Callable[[ChannelFacts], Any]) -> Any:
        return case(*((verdicts.c.channel == name, fact(one)) for name, one in channels.items()))

    values: dict[str, Any] = {
        "occasion": literal(campaign.occasion),
        "recipient": literal("p").op("||")(verdicts.c.person_id),
        "campaign_id": literal(campaign.id),
        "person_id": verdicts.c.person_id,
        "address": verdicts.c.address,
        "purpose": literal(purpose.name),
        "scope": literal(purpose.scope),
        "topic": literal(purpose.topic),
        "lane": by_channel(lambda facts: facts.lane(urgent=purpose.urgent)),
        "windowed": by_channel(lambda facts: facts.windowed),
        "repeatable": by_channel(lambda facts: purpose.repeatable or facts.idempotent),
        "state": literal(str(State.HELD)),
        "reason": literal(""),
        "not_before": literal(due, TABLE.c.not_before.type),
        "expires_at": literal(expires, TABLE.c.expires_at.type),
        "attempts": literal(0),
        "parts_sent": literal(0),
        "owner": literal(""),
        "body_hash": literal(""),
        "provider_id": literal(""),
        "created_at": literal(now, TABLE.c.created_at.type),
    }
    zone = verdicts.c.timezone.is_(None) if zone_name is None else verdicts.c.timezone == zone_name
    return select(*[value.label(name) for name, value in values.items()]).where(zone)


def frozen_count(session: Session, campaign_id: int) -> int:
    """How many rows a campaign has."""
    counted = session.execute(
        select(func.count()).select_from(TABLE).where(TABLE.c.campaign_id == campaign_id)
    )
    return int(counted.scalar_one())


def recipients_hash(session: Session, campaign_id: int) -> str:
    """The fingerprint of who is on the list, whatever their state, and whoever they became."""
    digest = hashlib.sha256()
    rows = session.execute(
        select(TABLE.c.recipient)
        .where(TABLE.c.campaign_id == campaign_id)
        .order_by(TABLE.c.recipient)
    )
    for (recipient,) in rows.yield_per(10_000):
        digest.update(f"{recipient},".encode())
    return digest.hexdigest()


def release(
    services: Services, session: Session, campaign: Campaign, purpose: Purpose, now: datetime
) -> int:
    """Let the frozen rows go, each at its own time, but none in its reader's quiet hours.

    They were frozen before somebody approved, or held by a pause: the night may have come since.
    """
    assert campaign.id is not None
    if purpose.quiet:
        for zone_name in _frozen_zones(session, campaign.id):
            zone = ZoneInfo(zone_name) if zone_name else BEIJING
            morning = services.settings.quiet.after(now, zone)
            if morning > now:
                mailbox.postpone(session.connection(), campaign.id, zone_name, morning)
    return mailbox.resume(session.connection(), campaign.id)


def _frozen_zones(session: Session, campaign_id: int) -> list[str | None]:
    rows = session.execute(
        select(col(Person.timezone))
        .join(TABLE, TABLE.c.person_id == col(Person.id))
        .where(TABLE.c.campaign_id == campaign_id, TABLE.c.state == State.HELD)
        .distinct()
    )
    return [zone for (zone,) in rows]


def thaw(session: Session, campaign: Campaign) -> None:
    """Forget a frozen list that will not be used: nothing of it was released."""
    session.execute(
        delete(TABLE).where(TABLE.c.campaign_id == campaign.id, TABLE.c.state == State.HELD)
    )


def sample(
    services: Services,
    session: Session,
    people: Select[Any],
    purpose: Purpose,
    now: datetime,
    count: int,
) -> Sequence[int]:
    """Some of those who would get it, in a stable order."""
    verdicts = _verdicts(services, people, purpose, now)
    rows = session.execute(
        select(verdicts.c.person_id)
        .where(verdicts.c.verdict.in_([NOW, WINDOW]))
        .order_by(verdicts.c.person_id)
        .limit(count)
    )
    return [person_id for (person_id,) in rows]


def wall(day: Any, clock: time) -> datetime:
    """A wall-clock time in the county, as an aware datetime."""
    return datetime.combine(day, clock, BEIJING)
