"""Groups in which a member of our staff speaks for us: rosters by version, and taps still due."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from sqlalchemy import UniqueConstraint, func, update
from sqlmodel import Field, Session, SQLModel, col, delete, select

from storage.campaigns import Campaign, CampaignState
from storage.columns import EncryptedText, UtcDateTime, personal
from storage.mailbox import TABLE as OUTBOX
from storage.states import WAITING, State
from storage.wechat import Follower

LAG = timedelta(seconds=2)
"""How long the platform's roster may stay behind its own events; doubles with each reading."""
PATIENCE = 5
"""After so many readings of another version than was promised, what was read is believed."""
NEWCOMERS = "welcome"
"""The user of an address to which the words for newcomers are sent."""
IN_TOUCH = "收发消息"
_BEIJING = timezone(timedelta(hours=8))


class CustomerGroup(SQLModel, table=True):
    """A group on a platform. `address` is `channel:account:chat`, `owner` our member's id there.

    `version` names the roster that we have, `expected` the one that the last event promised.
    `due_at` is when it must be read (again), None while it is up to date; `reads` counts the
    readings that did not bring what was promised.
    """

    __tablename__ = "customer_group"

    id: int | None = Field(default=None, primary_key=True)
    address: str = Field(unique=True)
    name: str = ""
    owner: str = ""
    version: str = ""
    expected: str = ""
    due_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    reads: int = 0
    read_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    dismissed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class GroupMember(SQLModel, table=True):
    """Somebody's membership of a group; `left_at` once it is over.

    `person_id` is set where the unionid is that of somebody who writes to us elsewhere.
    """

    __tablename__ = "customer_group_member"
    __table_args__ = (UniqueConstraint("group_id", "member"), {"info": {"erase": "delete"}})

    id: int | None = Field(default=None, primary_key=True)
    group_id: int = Field(foreign_key="customer_group.id", index=True)
    member: str = Field(sa_column_kwargs=personal(IN_TOUCH, "客户群里的标识"))
    staff: bool = False
    unionid: str | None = Field(
        default=None, index=True, sa_column_kwargs=personal(IN_TOUCH, "微信开放平台标识")
    )
    nickname: str | None = Field(
        default=None,
        sa_type=EncryptedText,
        sa_column_kwargs=personal(IN_TOUCH, "客户群里的昵称"),
    )
    person_id: int | None = Field(default=None, foreign_key="person.id", index=True)
    joined_at: datetime = Field(sa_type=UtcDateTime)
    left_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class StaffTask(SQLModel, table=True):
    """A message to a group that leaves only when a member of the staff taps.

    `id` is the platform's. `due_at` is when to ask what became of it, None once that is known.
    """

    __tablename__ = "staff_task"

    id: str = Field(primary_key=True)
    group_id: int = Field(foreign_key="customer_group.id", index=True)
    owner: str
    made_at: datetime = Field(sa_type=UtcDateTime)
    due_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    tapped_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    reminders: int = 0
    reminded_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    recall_asked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Seat:
    """One line of a roster as the platform gives it."""

    member: str
    staff: bool
    unionid: str
    nickname: str
    joined_at: datetime


@dataclass(frozen=True, slots=True)
class Roster:
    """A group as the platform shows it now."""

    name: str
    owner: str
    version: str
    seats: tuple[Seat, ...]


@dataclass(frozen=True, slots=True)
class RosterChange:
    """What an event tells: who came or went between two versions; either may be empty."""

    address: str
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    before: str = ""
    after: str = ""


# - rosters -


def group_at(session: Session, address: str) -> CustomerGroup:
    """The group of an address, held until the transaction ends; made if it is new."""
    query = select(CustomerGroup).where(CustomerGroup.address == address).with_for_update()
    found = session.exec(query.execution_options(populate_existing=True)).first()
    if found is None:
        found = CustomerGroup(address=address)
        session.add(found)
        session.flush()
    return found


def known_group(session: Session, address: str) -> CustomerGroup | None:
    """The group of an address, if it still is and has an owner."""
    return session.exec(
        select(CustomerGroup).where(
            CustomerGroup.address == address,
            col(CustomerGroup.dismissed_at).is_(None),
            CustomerGroup.owner != "",
        )
    ).first()


def apply_change(session: Session, change: RosterChange, now: datetime) -> bool:
    """Take an event over if it fits the roster we have; else have the roster read again.

    Events get lost and overtake one another, so one counts only if it begins where we stand.
    Returns whether it was applied; one that was applied before changes nothing.
    """
    group = group_at(session, change.address)
    if change.after and change.after == group.version:
        return False
    fits = bool(change.before and change.after) and change.before == group.version
    overtaken = fits and group.expected != group.version
    if not overtaken:  # else a later event has already promised more
        group.expected = change.after or group.expected
    if fits:
        _come(session, group, change.joined, now)
        _go(session, group, change.left, now)
        group.version = change.after
    if not fits or change.joined:
        # An event brings bare ids; names and unionids are in the roster only.
        _read_again(group, now)
    session.add(group)
    session.flush()
    return fits


def _read_again(group: CustomerGroup, now: datetime) -> None:
    group.due_at, group.reads = now + LAG, 0


def want_roster(session: Session, address: str, now: datetime) -> None:
    """Have a group's roster read at once."""
    group = group_at(session, address)
    group.due_at, group.reads, group.dismissed_at = now, 0, None
    group.expected = ""  # nothing was promised, so whatever is read is believed
    session.add(group)
    session.flush()


def keep_roster(session: Session, address: str, roster: Roster, now: datetime) -> bool:
    """Make ours the roster that was read; False if an older one came and it is read once more."""
    group = group_at(session, address)
    stale = bool(group.expected) and roster.version != group.expected
    if stale and group.reads < PATIENCE:
        group.reads += 1
        group.due_at = now + LAG * 2**group.reads
        session.add(group)
        return False
    group.name, group.owner = roster.name, roster.owner
    group.version, group.expected = roster.version, roster.version
    group.due_at, group.reads, group.read_at = None, 0, now
    session.add(group)
    known = {
        entry.member: entry
        for entry in session.exec(select(GroupMember).where(GroupMember.group_id == group.id))
    }
    for seat in roster.seats:
        entry = known.pop(seat.member, None) or GroupMember(
            group_id=group.id or 0, member=seat.member, joined_at=seat.joined_at
        )
        entry.staff, entry.left_at, entry.joined_at = seat.staff, None, seat.joined_at
        entry.unionid = seat.unionid or entry.unionid
        entry.nickname = seat.nickname or entry.nickname
        session.add(entry)
    for entry in known.values():
        entry.left_at = entry.left_at or now
        session.add(entry)
    session.flush()
    link_members(session)
    return True


def postpone_roster(session: Session, address: str, now: datetime) -> None:
    """A roster could not be read: not again at once."""
    group = group_at(session, address)
    group.reads = min(group.reads + 1, PATIENCE)
    group.due_at = now + LAG * 2**group.reads
    session.add(group)
    session.flush()


def nobody_recognised(session: Session) -> bool:
    """Are there customers in our groups, and has not one of them a unionid?"""
    here = (not_staff(), col(GroupMember.left_at).is_(None))
    anybody = session.exec(select(GroupMember.id).where(*here).limit(1)).first()
    known = session.exec(
        select(GroupMember.id).where(*here, col(GroupMember.unionid).is_not(None)).limit(1)
    ).first()
    return anybody is not None and known is None


def _come(session: Session, group: CustomerGroup, who: Iterable[str], now: datetime) -> None:
    for member in who:
        entry = session.exec(
            select(GroupMember).where(
                GroupMember.group_id == group.id, GroupMember.member == member
            )
        ).first() or GroupMember(group_id=group.id or 0, member=member, joined_at=now)
        if entry.left_at is not None:
            entry.joined_at, entry.left_at = now, None
        session.add(entry)
    session.flush()


def _go(session: Session, group: CustomerGroup, who: Sequence[str], now: datetime) -> None:
    session.exec(
        update(GroupMember)
        .where(
            col(GroupMember.group_id) == group.id,
            col(GroupMember.member).in_(who),
            col(GroupMember.left_at).is_(None),
        )
        .values(left_at=now)
    )


def dismiss(session: Session, address: str, now: datetime) -> None:
    """The group is no more."""
    group = group_at(session, address)
    group.dismissed_at, group.due_at = now, None
    session.add(group)
    session.exec(
        update(GroupMember)
        .where(col(GroupMember.group_id) == group.id, col(GroupMember.left_at).is_(None))
        .values(left_at=now)
    )


def link_members(session: Session) -> None:
    """Say of members who they are, where their unionid is known from elsewhere."""
    who = (
        select(Follower.person_id)
        .where(Follower.unionid == GroupMember.unionid)
        .order_by(col(Follower.person_id))
        .limit(1)
        .scalar_subquery()
    )
    session.exec(
        update(GroupMember)
        .where(col(GroupMember.unionid).is_not(None), col(GroupMember.person_id).is_(None))
        .values(person_id=who)
        .execution_options(synchronize_session=False)
    )


def rosters_due(session: Session, channel: str, now: datetime) -> Sequence[str]:
    """Addresses of the groups of a channel whose roster is to be read now."""
    return session.exec(
        select(CustomerGroup.address)
        .where(
            col(CustomerGroup.due_at) <= now,
            col(CustomerGroup.address).startswith(f"{channel}:", autoescape=True),
        )
        .order_by(col(CustomerGroup.due_at))
    ).all()


def live_groups(session: Session) -> Sequence[CustomerGroup]:
    """Every group that still is, in the order of their discovery."""
    return session.exec(
        select(CustomerGroup)
        .where(col(CustomerGroup.dismissed_at).is_(None), CustomerGroup.owner != "")
        .order_by(col(CustomerGroup.id))
    ).all()


def head_count(session: Session, group_id: int) -> int:
    """How many of a group are not our staff."""
    return session.exec(
        select(func.count(col(GroupMember.id))).where(
            GroupMember.group_id == group_id,
            col(GroupMember.left_at).is_(None),
            not_staff(),
        )
    ).one()


def not_staff() -> bool:
    """The condition that a member is not one of ours."""
    condition: bool = col(GroupMember.staff).is_(False)  # type: ignore[assignment]  # SQL
    return condition


def forget_leavers(session: Session, before: datetime) -> int:
    """Forget who left before a moment."""
    return session.exec(delete(GroupMember).where(col(GroupMember.left_at) < before)).rowcount


# - what staff must still tap -


def room_left(session: Session, group_id: int, now: datetime) -> int:
    """How many more messages staff may send to a group this month in Beijing.

    The platform lets through as many as the month has days; one taken back does not count.
    """
    first = now.astimezone(_BEIJING).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = ((first + timedelta(days=32)).replace(day=1) - first).days
    used = session.exec(
        select(func.count(col(StaffTask.id))).where(
            StaffTask.group_id == group_id,
            col(StaffTask.made_at) >= first,
            col(StaffTask.outcome).in_(["", State.SENT]),
        )
    ).one()
    return max(0, days - used)


@dataclass(frozen=True, slots=True)
class Pending:
    """A task and how its row of the outbox stands (None: not written down yet)."""

    task: StaffTask
    address: str
    state: State | None
    stopped: bool
    """Nobody wants it any more: called back, expired, or its campaign cancelled."""


def tasks_due(session: Session, channel: str, now: datetime) -> list[Pending]:
    """The tasks of a channel to be asked about now."""
    cancelled = col(Campaign.state) == CampaignState.CANCELLED
    rows = session.execute(
        select(StaffTask, CustomerGroup.address, OUTBOX.c.state, Campaign.id)
        .join(CustomerGroup, col(CustomerGroup.id) == col(StaffTask.group_id))
        .outerjoin(OUTBOX, OUTBOX.c.provider_id == StaffTask.id)
        .outerjoin(Campaign, (col(Campaign.id) == OUTBOX.c.campaign_id) & cancelled)
        .where(
            col(StaffTask.due_at) <= now,
            col(CustomerGroup.address).startswith(f"{channel}:", autoescape=True),
        )
        .order_by(col(StaffTask.due_at))
    ).all()
    return [
        Pending(
            task,
            address,
            State(state) if state else None,
            stopped=campaign is not None
            or task.recall_asked_at is not None
            or state in (State.CANCELLED, State.EXPIRED, State.SUPPRESSED),
        )
        for task, address, state, campaign in rows
    ]


def call_back(session: Session, occasion: str, now: datetime) -> tuple[int, int]:
    """Stop an occasion's rows: (how many had not left, how many still wait for a tap).

    The latter end as cancelled only when the platform has taken the task back: until then somebody
    may still tap.
    """
    stopped = session.exec(
        update(OUTBOX)
        .where(OUTBOX.c.occasion == occasion, OUTBOX.c.state.in_(WAITING))
        .values(state=State.CANCELLED, reason="cancelled")
    ).rowcount
    waiting = select(OUTBOX.c.provider_id).where(
        OUTBOX.c.occasion == occasion, OUTBOX.c.state == State.AWAITING_STAFF
    )
    asked = session.exec(
        update(StaffTask)
        .where(col(StaffTask.id).in_(waiting), col(StaffTask.due_at).is_not(None))
        .values(recall_asked_at=now, due_at=now)
        .execution_options(synchronize_session=False)
    ).rowcount
    return stopped, asked


def standing(session: Session, occasion: str) -> list[tuple[str, State, str]]:
    """(address, state, reason) of each of an occasion's rows, in order."""
    rows = session.execute(
        select(OUTBOX.c.address, OUTBOX.c.state, OUTBOX.c.reason)
        .where(OUTBOX.c.occasion == occasion)
        .order_by(OUTBOX.c.id)
    )
    return [(address, State(state), reason) for address, state, reason in rows]


def forget_tasks(session: Session, before: datetime) -> int:
    """Forget finished tasks that were made before a moment."""
    done = (col(StaffTask.due_at).is_(None), col(StaffTask.made_at) < before)
    return session.exec(delete(StaffTask).where(*done)).rowcount
