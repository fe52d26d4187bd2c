"""Who of a segment may be written to, by which rung and why not; and freezing that list.

The one place that asks for consent: it refuses a purpose without a live one and says so. It works
in SQL, set by set, so that a hundred thousand people are never loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    Integer,
    Select,
    String,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    update,
)
from sqlmodel import Session, col

from bot.clock import BEIJING
from bot.context import ChannelFacts, Services, may_carry
from bot.ladder import LEAVING, WAITING, Asked, Rung, Way
from storage import overview, states, steering
from storage.campaigns import Campaign, CampaignState
from storage.driver import execute, looking_up, on_conflict_base
from storage.mailbox import TABLE
from storage.numbers import among
from storage.people import (
    ALL_TOPICS,
    ConsentNow,
    Contact,
    Person,
    Unsubscription,
)
from storage.quotas import received_since
from storage.states import State

OFTEN = "often"
REASONS: Mapping[str, str] = {
    "consent": "未同意",
    "withdrawn": "撤回",
    "unsubscribed": "退订",
    "unreachable": "渠道不可达",
    "nowhere": "没有渠道",
    "elsewhere": "所用渠道未获同意",
    "silent": "请勿联系",
    OFTEN: "近期已收得够多",
}
"""Why somebody of the segment is left out."""

TO_TELEPHONE = ("unreachable", "nowhere", "elsewhere")
"""Reasons for which somebody who wants to be written to can only be telephoned."""

CHUNK = 3000
"""How many people are frozen in one transaction: well under 200 ms on a small machine."""

_CONTACT: Any = Contact.__table__  # type: ignore[attr-defined]  # SQLModel sets it


@dataclass(frozen=True)
class Reach:
    """So many people are reached on a channel by a rung; `channel` is "" for one by staff."""

    channel: str
    rung: Rung
    people: int


@dataclass(frozen=True)
class Plan:
    """What a campaign would do: how many it reaches, by channel and rung, and why not the rest."""

    reached: Sequence[Reach]
    left_out: Mapping[str, int]

    @property
    def matched(self) -> int:
        """Everybody of the segment, once."""
        return sum(reach.people for reach in self.reached) + sum(self.left_out.values())

    @property
    def now(self) -> Mapping[str, int]:
        """People who get it without doing anything, by channel."""
        return self._by_channel(LEAVING)

    @property
    def waiting(self) -> Mapping[str, int]:
        """People who get it when they next write to us, by channel."""
        return self._by_channel(WAITING)

    @property
    def reachable(self) -> int:
        """People who get it without doing anything."""
        return self.by(*LEAVING)

    @property
    def frozen(self) -> int:
        """Rows the plan would write to leave some day."""
        return self.by(*LEAVING, *WAITING)

    def by(self, *rungs: Rung) -> int:
        """How many are reached by one of these."""
        return sum(reach.people for reach in self.reached if reach.rung in rungs)

    def _by_channel(self, rungs: Sequence[Rung]) -> dict[str, int]:
        found: dict[str, int] = {}
        for reach in self.reached:
            if reach.rung in rungs:
                found[reach.channel] = found.get(reach.channel, 0) + reach.people
        return found


# - who is reached how -


def _agreed(who: Any, scope: str) -> Any:
    """Does the consent that a channel needs stand? Beside that which the purpose needs."""
    return (
        exists()
        .where(
            col(ConsentNow.person_id) == who.c.person_id,
            col(ConsentNow.scope) == scope,
            col(ConsentNow.live),
        )
        .correlate(who)
    )


def _allowed(services: Services, who: Any, asked: Asked) -> Any:
    """May an address be written to unasked for this purpose?"""
    return or_(
        false(),
        *(
            and_(who.c.channel == name, _agreed(who, scope)) if scope else who.c.channel == name
            for name, scope in services.proactive.items()
            if may_carry(asked.purpose, scope)
        ),
    )


def _rung(services: Services, who: Any, asked: Asked) -> Any:
    """By which of its channel's rungs an address is reached; NULL for none."""
    return case(
        *(
            (who.c.channel == name, _first(services.channels[name].ladder, who, asked))
            for name in services.proactive
        ),
        else_=literal(None, Integer),
    )


def _first(ways: Sequence[Way], who: Any, asked: Asked) -> Any:
    """The rung of the first way that reaches somebody; NULL for none."""
    asks = [(way.rung, way.reaches(who, asked)) for way in ways]
    steps = [(holds, literal(int(rung), Integer)) for rung, holds in asks if holds is not None]
    return case(*steps, else_=None) if steps else literal(None, Integer)


def _addresses(services: Services, people: Select[Any], asked: Asked) -> Any:
    """Each person of the segment once, with what they agreed to and the best of their addresses:
    the one that they chose, or else that reaches them best, of equals the one last used."""
    (person_id,) = people.subquery("meant").c
    wanted = select(person_id.label("person_id")).distinct().subquery("wanted")
    who = _CONTACT.alias("who")
    mine = and_(
        who.c.person_id == wanted.c.person_id, who.c.reachable, _allowed(services, who, asked)
    )
    consent = and_(
        col(ConsentNow.person_id) == wanted.c.person_id,
        col(ConsentNow.scope) == (asked.purpose.scope or ""),
    )
    known = (
        select(
            wanted.c.person_id,
            col(Person.timezone).label("timezone"),
            col(Person.silent_since).label("silent_since"),
            col(ConsentNow.live).label("live"),
            who.c.id,
            who.c.address,
            who.c.channel,
            who.c.preferred_at,
            who.c.last_seen_at,
            _rung(services, who, asked).label("rung"),
        )
        .select_from(wanted)
        .join(Person, col(Person.id) == wanted.c.person_id)
        .outerjoin(ConsentNow, consent)
        .outerjoin(who, mine)
        .subquery("known")
    )
    best_first = (
        known.c.preferred_at.is_(None),
        known.c.rung,
        known.c.last_seen_at.desc(),
        known.c.id.desc(),
    )
    place = func.row_number().over(partition_by=known.c.person_id, order_by=best_first)
    ranked = select(known, place.label("place")).subquery("ranked")
    return select(ranked).where(ranked.c.place == 1).subquery("best")


def _by_staff(services: Services, wanted: Any, asked: Asked) -> Any:
    """The rung by which our staff reach somebody who has no address of theirs; NULL for none."""
    apart = [f for name, f in services.channels.items() if name not in services.proactive]
    return _first([way for facts in apart for way in facts.ladder], wanted, asked)


def _no_way(services: Services, wanted: Any) -> Any:
    """Why nobody can be reached who is reached by no rung."""
    lost = exists().where(
        col(Contact.person_id) == wanted.c.person_id,
        col(Contact.channel).in_(list(services.proactive)),
        ~col(Contact.reachable),
    )
    known = exists().where(col(Contact.person_id) == wanted.c.person_id)
    return case((lost, "unreachable"), (known, "elsewhere"), else_="nowhere")


def _too_often(wanted: Any, asked: Asked) -> Any:
    """Has somebody got as much lately as a limit allows?"""
    due = asked.due or asked.now
    return or_(
        false(),
        *(
            received_since(wanted.c.person_id, due - timedelta(days=limit.days)) >= limit.most
            for limit in asked.limits
        ),
    )


def _verdicts(services: Services, people: Select[Any], asked: Asked) -> Any:
    """Each person of the segment once: address, channel, zone, rung, and what stands in the way.

    `reason` is NULL where nothing does; who is too often written to still has a rung.
    """
    best, purpose = _addresses(services, people, asked), asked.purpose
    stopped = exists().where(
        col(Unsubscription.person_id) == best.c.person_id,
        col(Unsubscription.topic).in_([purpose.topic or ALL_TOPICS, ALL_TOPICS]),
    )
    by_staff = _by_staff(services, best, asked)
    consented = [(best.c.live.is_(None), "consent"), (best.c.live.is_(False), "withdrawn")]
    ways_out = [
        *(consented if purpose.scope is not None else []),
        *([(stopped, "unsubscribed")] if purpose.topic is not None else []),
        (best.c.silent_since.is_not(None), "silent"),
        (and_(best.c.id.is_(None), by_staff.is_(None)), _no_way(services, best)),
        *([(_too_often(best, asked), OFTEN)] if asked.limits else []),
    ]
    return (
        select(
            best.c.person_id,
            best.c.address,
            best.c.channel,
            best.c.timezone,
            case((best.c.id.is_not(None), best.c.rung), else_=by_staff).label("rung"),
            case(*ways_out, else_=literal(None, String)).label("reason"),
        )
        .cte("verdicts")
        .prefix_with("MATERIALIZED")  # or a database asks everything again for each mention
    )


def plan(services: Services, session: Session, people: Select[Any], asked: Asked) -> Plan:
    """Count a segment by rung and by reason. `people` selects person ids; doubles count once."""
    verdicts = _verdicts(services, people, asked)
    columns = (verdicts.c.reason, verdicts.c.rung, verdicts.c.channel)
    query = select(*columns, func.count()).group_by(*columns).order_by(*columns)
    with looking_up(session.connection()):
        rows = session.execute(query).all()
    reached: list[Reach] = []
    left_out: dict[str, int] = {}
    for reason, rung, channel, count in rows:
        if reason is None:
            reached.append(Reach(channel or "", Rung(rung), count))
        else:
            left_out[reason] = left_out.get(reason, 0) + count
    return Plan(reached, left_out)


def _gets_it(verdicts: Any) -> Any:
    return and_(verdicts.c.reason.is_(None), verdicts.c.rung.in_([*LEAVING, *WAITING]))


def sample(
    services: Services, session: Session, people: Select[Any], asked: Asked, count: int
) -> Sequence[int]:
    """Some of those who would get it, in a stable order."""
    verdicts = _verdicts(services, people, asked)
    rows = session.execute(
        select(verdicts.c.person_id)
        .where(_gets_it(verdicts))
        .order_by(verdicts.c.person_id)
        .limit(count)
    )
    return [person_id for (person_id,) in rows]


def to_telephone(services: Services, people: Select[Any], asked: Asked) -> Select[Any]:
    """A SELECT of (person_id, reason) of those who want it and whom only a telephone reaches.

    The reason is NULL for who can be written to again only when they write of themselves.
    """
    verdicts = _verdicts(services, people, asked)
    waits = and_(verdicts.c.reason.is_(None), verdicts.c.rung == int(Rung.WORD))
    return (
        select(verdicts.c.person_id, verdicts.c.reason)
        .where(or_(verdicts.c.reason.in_(TO_TELEPHONE), waits))
        .order_by(verdicts.c.person_id)
    )


# - when it leaves, and the list -


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
    asked: Asked,
    moment: Moment,
) -> int:
    """Write the campaign's recipients as held rows, once each, and its list's hash; returns how
    many. What was frozen before for this campaign and not released is replaced.

    For lists that are written while somebody waits; a long one goes chunk by chunk, each in its own
    transaction (`freeze_some`), and is closed by `close_list`.
    """
    thaw(session, campaign)
    after: int | None = 0
    while after is not None:
        after = freeze_some(services, session, campaign, people, asked, moment, after)
    return close_list(session, campaign, moment)


def freeze_some(
    services: Services,
    session: Session,
    campaign: Campaign,
    people: Select[Any],
    asked: Asked,
    moment: Moment,
    after: int,
    most: int = CHUNK,
) -> int | None:
    """Freeze the next people whose number is above `after`; returns the last number, None at the
    end. Freezing somebody twice changes nothing."""
    some = next_people(session, people, after, most)
    if some is None:
        return None
    part, last = some
    verdicts = _verdicts(services, part, asked)
    times = _times(services, session, asked, moment)
    source = _rows(services, verdicts, campaign, asked, times)
    with looking_up(session.connection()):
        session.execute(
            on_conflict_base(session.connection(), TABLE)
            .from_select([column.name for column in source.selected_columns], source)
            .on_conflict_do_nothing()
        )
    return last


def next_people(
    session: Session, people: Select[Any], after: int, most: int
) -> tuple[Select[Any], int] | None:
    """The next people of a segment above a number, and the last number; None where none is left."""
    (person_id,) = people.selected_columns
    some = people.where(person_id > after).order_by(person_id).limit(most).subquery("some")
    last = session.execute(select(func.max(next(iter(some.c))))).scalar()
    return None if last is None else (people.where(person_id > after, person_id <= last), last)


def close_list(session: Session, campaign: Campaign, moment: Moment) -> int:
    """The list is whole: note its hash and when it leaves; returns how many are on it."""
    assert campaign.id is not None
    campaign.recipients_hash = recipients_hash(session, campaign.id)
    campaign.not_before, campaign.local_time = moment.at, moment.local
    campaign.expires_at = moment.latest
    session.add(campaign)
    session.flush()
    return frozen_count(session, campaign.id)


def _times(
    services: Services, session: Session, asked: Asked, moment: Moment
) -> Mapping[str, tuple[datetime, datetime | None]]:
    """(not before, expires) by the zones in which people live; "" is the county's."""
    abroad = col(Person.timezone).is_not(None)
    found = session.execute(select(col(Person.timezone)).where(abroad).distinct())
    times = {}
    for name in ("", *found.scalars()):
        zone = ZoneInfo(name) if name else BEIJING
        due, expires = moment.in_zone(zone)
        times[name] = (
            services.settings.quiet.after(due, zone) if asked.purpose.quiet else due,
            expires,
        )
    return times


def _by_zone(timezone: Any, times: Mapping[str, datetime | None], column: Any) -> Any:
    """What holds in somebody's zone, in the county's where it is not known."""
    home = literal(times[""], column.type)
    abroad = [(timezone == name, literal(at, column.type)) for name, at in times.items() if name]
    return case(*abroad, else_=home) if abroad else home


def _rows(
    services: Services,
    verdicts: Any,
    campaign: Campaign,
    asked: Asked,
    times: Mapping[str, tuple[datetime, datetime | None]],
) -> Select[Any]:
    """A row for each who gets it; who is too often written to has one that says so."""
    purpose, zone = asked.purpose, verdicts.c.timezone

    def by_channel(fact: Callable[[ChannelFacts], Any]) -> Any:
        named = services.channels.items()
        return case(*((verdicts.c.channel == name, fact(one)) for name, one in named))

    state = case((verdicts.c.reason == OFTEN, str(State.SUPPRESSED)), else_=str(State.HELD))
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
        "repeatable": literal(purpose.repeatable),
        "state": state,
        "reason": func.coalesce(verdicts.c.reason, ""),
        "not_before": _by_zone(zone, {n: at[0] for n, at in times.items()}, TABLE.c.not_before),
        "expires_at": _by_zone(zone, {n: at[1] for n, at in times.items()}, TABLE.c.expires_at),
        "attempts": literal(0),
        "parts_sent": literal(0),
        "owner": literal(""),
        "body_hash": literal(""),
        "provider_id": literal(""),
        "created_at": literal(asked.now, TABLE.c.created_at.type),
    }
    columns = [value.label(name) for name, value in values.items()]
    often = and_(verdicts.c.reason == OFTEN, verdicts.c.address.is_not(None))
    return select(*columns).where(or_(_gets_it(verdicts), often))


def frozen_people(
    session: Session, campaign: Campaign, after: int = 0, last: int | None = None
) -> Sequence[int]:
    """Whom a campaign's list names, of those whose number is above `after` and up to `last`."""
    query = select(TABLE.c.person_id).where(
        TABLE.c.campaign_id == campaign.id,
        TABLE.c.state == State.HELD,
        TABLE.c.person_id > after,
    )
    if last is not None:
        query = query.where(TABLE.c.person_id <= last)
    return session.execute(query.order_by(TABLE.c.person_id)).scalars().all()


_HELD_BACK = and_(TABLE.c.state == State.SUPPRESSED, TABLE.c.reason == OFTEN)


def frozen_count(session: Session, campaign_id: int) -> int:
    """How many are on a campaign's list; who was left out as too often written to is not."""
    counted = session.execute(
        select(func.count())
        .select_from(TABLE)
        .where(TABLE.c.campaign_id == campaign_id, not_(_HELD_BACK))
    )
    return int(counted.scalar_one())


def recipients_hash(session: Session, campaign_id: int) -> str:
    """The fingerprint of who is on the list, whatever their state, and whoever they became."""
    digest = hashlib.sha256()
    query = "SELECT recipient FROM outbox WHERE campaign_id = ? ORDER BY recipient"
    rows = execute(session.connection(), query, (campaign_id,))
    while some := rows.fetchmany(10_000):
        digest.update("".join(f"{recipient}," for (recipient,) in some).encode())
    return digest.hexdigest()


AT_ONCE = 5_000  # rows of a campaign that are moved in one transaction


def settle(services: Services, session: Session, campaign: Campaign, asked: Asked) -> bool:
    """Bring some rows of a campaign where its state wants them; True when all are there.

    Nothing of it leaves against its state meanwhile: held rows are not claimed, and the gate turns
    away what is paused or cancelled.
    """
    assert campaign.id is not None
    connection = session.connection()
    origins = _UNSETTLED.get(CampaignState(campaign.state))
    if origins is None:
        return True
    ids = steering.pick(connection, campaign.id, origins, AT_ONCE)
    if campaign.state == CampaignState.PAUSED:
        steering.hold(connection, campaign.id, ids)
    elif campaign.state == CampaignState.CANCELLED:
        steering.cancel(connection, campaign.id, ids)
    else:
        _release(services, session, campaign.id, asked, ids)
    return not overview.stands_in(connection, campaign.id, origins)


_UNSETTLED: Mapping[CampaignState, Sequence[State]] = {
    CampaignState.RUNNING: (State.HELD,),
    CampaignState.PAUSED: steering.STOPPABLE,
    CampaignState.CANCELLED: states.WAITING,
}


def _release(
    services: Services, session: Session, campaign_id: int, asked: Asked, ids: Sequence[int]
) -> None:
    """Let frozen rows go, each at its own time, but none in its reader's quiet hours.

    They were frozen before somebody approved, or held by a pause: the night may have come since,
    and what is too much for a reader.
    """
    if asked.limits:
        _hold_back(session, ids, asked)
    if asked.purpose.quiet:
        for zone_name in _zones_of(session, ids):
            zone = ZoneInfo(zone_name) if zone_name else BEIJING
            morning = services.settings.quiet.after(asked.now, zone)
            if morning > asked.now:
                steering.postpone(session.connection(), ids, zone_name, morning)
    steering.resume(session.connection(), campaign_id, ids)


def _hold_back(session: Session, ids: Sequence[int], asked: Asked) -> None:
    """Leave out who has got enough of other campaigns since this one was frozen."""
    session.execute(
        update(TABLE)
        .where(among(TABLE.c.id, "ids"), TABLE.c.state == State.HELD, _too_often(TABLE, asked))
        .values(state=State.SUPPRESSED, reason=OFTEN),
        {"ids": ids},
    )


def _zones_of(session: Session, ids: Sequence[int]) -> list[str | None]:
    rows = session.execute(
        select(col(Person.timezone))
        .join(TABLE, TABLE.c.person_id == col(Person.id))
        .where(among(TABLE.c.id, "ids"))
        .distinct(),
        {"ids": ids},
    )
    return [zone for (zone,) in rows]


def thaw(session: Session, campaign: Campaign) -> None:
    """Forget a frozen list that will not be used: nothing of it was released."""
    session.execute(
        delete(TABLE).where(
            TABLE.c.campaign_id == campaign.id, or_(TABLE.c.state == State.HELD, _HELD_BACK)
        )
    )


def wall(day: Any, clock: time) -> datetime:
    """A wall-clock time in the county, as an aware datetime."""
    return datetime.combine(day, clock, BEIJING)
