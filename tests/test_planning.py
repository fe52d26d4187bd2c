"""The planner: who is reached by which rung and why not, and the list frozen chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlmodel import Session, col

from bot import planning
from bot.channels.wechat.notices import ByAgreement
from bot.channels.wecom.group.channel import InGroups
from bot.commands import Purpose
from bot.context import ChannelFacts, Covers, new_row
from bot.ladder import Asked, Limit, Rung
from bot.planning import Moment, Plan, Reach
from storage import claims, overview
from storage.campaigns import Campaign, CampaignState
from storage.covers import Cover, CoverRecipient, CoverState
from storage.customer_groups import CustomerGroup, GroupMember
from storage.mailbox import TABLE
from storage.people import ConsentNow, Contact, Person, Unsubscription
from storage.states import State
from storage.wechat import NoticeGrant
from tests.bare import NOON, Bare

NEWS = Purpose("news", "家乡动态", scope="profile", topic="家乡动态")
LIMIT = Limit(2, 7)
AGREED = {"news": "T1"}
CHANNELS = {
    "open": ChannelFacts("open"),
    "window": ChannelFacts(
        "window",
        windowed=True,
        covers=Covers(4, 2, 10_000),
        ways=(ByAgreement(AGREED, lasting=True), ByAgreement(AGREED)),
    ),
    "groups": ChannelFacts("groups", anonymous=True, one_way=True, ways=(InGroups(),)),
}
EVERYBODY = select(col(Person.id))

SITUATIONS = (
    "open", "in window", "lasting", "once", "cover", "covers used up", "lost", "nowhere",
    "elsewhere", "no consent", "withdrawn", "unsubscribed", "silent", "often", "in a group",
    "two addresses", "chosen address",
)  # fmt: skip


BOTH = pytest.mark.parametrize("office", ["sqlite", "postgresql"], indirect=True)
"""On either database; the others on SQLite alone."""


@pytest.fixture
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bare]:
    """One person in each situation, in the order of `SITUATIONS`."""
    url = f"sqlite:///{tmp_path / 'office.db'}"
    if getattr(request, "param", "sqlite") == "postgresql":
        url = request.getfixturevalue("postgres_url")
    bare = Bare(url, channels=CHANNELS)
    with bare.database.session() as session:
        for number, situation in enumerate(SITUATIONS, 1):
            session.add(Person(id=number, created_at=NOON))
            session.flush()
            _lay(session, number, situation)
    yield bare
    bare.close()


def _lay(session: Session, person: int, situation: str) -> None:
    if situation != "no consent":
        live = situation != "withdrawn"
        session.add(ConsentNow(person_id=person, scope="profile", live=live, version="1", at=NOON))
    closed = ("lasting", "once", "cover", "covers used up", "chosen address")
    match situation:
        case "in window":
            _contact(session, person, "window", window_until=NOON + timedelta(hours=1))
        case "lasting" | "once":
            grant = NoticeGrant(person_id=person, template="T1", changed_at=NOON, left=1)
            grant.lasting = situation == "lasting"
            session.add(grant)
        case "covers used up":
            _covers(session, person, 4)
        case "lost":
            _contact(session, person, "open", reachable=False)
        case "elsewhere":
            _contact(session, person, "closed down")
        case "unsubscribed":
            session.add(Unsubscription(person_id=person, topic="*", at=NOON))
        case "silent":
            session.get_one(Person, person).silent_since = NOON
        case "often":
            _received(session, person, 2, NOON - timedelta(days=6))
        case "in a group":
            group = CustomerGroup(address="groups:t:1", owner="staff")
            session.add(group)
            session.flush()
            session.add(
                GroupMember(group_id=group.id or 0, member="m", person_id=person, joined_at=NOON)
            )
        case "two addresses":
            _contact(session, person, "window", last_seen_at=NOON + timedelta(hours=1))
    if situation in closed:
        chosen = NOON if situation == "chosen address" else None
        _contact(session, person, "window", preferred_at=chosen)
    reached = ("open", "no consent", "withdrawn", "unsubscribed", "silent", "often")
    if situation in (*reached, "two addresses", "chosen address"):
        _contact(session, person, "open")


def _contact(session: Session, person: int, channel: str, **values: Any) -> None:
    values = {"last_seen_at": NOON, "window_left": 5} | values
    address = f"{channel}:t:{person}"
    session.add(Contact(person_id=person, channel=channel, address=address, **values))


def _covers(session: Session, person: int, count: int) -> None:
    for number in range(count):
        cover = Cover(
            key=f"{person}-{number}",
            channel="window",
            text="",
            asked_by=person,
            created_at=NOON,
            state=CoverState.DONE,
            month="2026-03",
        )
        session.add(cover)
        session.flush()
        session.add(CoverRecipient(cover_id=cover.id or 0, person_id=person))


def _received(session: Session, person: int, count: int, at: Any) -> None:
    rows = [
        new_row(
            occasion=f"earlier:{number}",
            recipient=f"p{person}",
            person_id=person,
            purpose="news",
            topic="家乡动态",
            lane="open:bulk",
            not_before=at,
            created_at=at,
        )
        | {"state": State.SENT, "sent_at": at}
        for number in range(count)
    ]
    session.execute(insert(TABLE), rows)


def _asked(**more: Any) -> Asked:
    return Asked(NEWS, NOON, limits=(LIMIT,), **more)


def _plan(office: Bare, **more: Any) -> Plan:
    with office.database.reading() as session:
        return planning.plan(office.services, session, EVERYBODY, _asked(**more))


def _campaign(session: Session, number: int = 1) -> Campaign:
    made = Campaign(
        number=f"B-{number}",
        kind="broadcast",
        title="",
        purpose="news",
        template="",
        occasion=f"campaign:{number}",
        created_at=NOON,
    )
    session.add(made)
    session.flush()
    return made


def _number(situation: str) -> int:
    return SITUATIONS.index(situation) + 1


MOMENT = Moment(NOON, local=False)


# - who is reached how -


@BOTH
def test_everybody_is_planned_once_by_their_best_rung_or_with_the_reason(office: Bare) -> None:
    found = _plan(office)
    assert found == Plan(
        [
            Reach("open", Rung.OPEN, 2),
            Reach("window", Rung.WINDOW, 1),
            Reach("window", Rung.LASTING, 1),
            Reach("window", Rung.ONCE, 1),
            Reach("window", Rung.COVER, 2),
            Reach("window", Rung.WORD, 1),
            Reach("", Rung.STAFF, 1),
        ],
        dict.fromkeys(
            ("consent", "elsewhere", "nowhere", "often", "silent", "unreachable", "unsubscribed",
             "withdrawn"),
            1,
        ),
    )  # fmt: skip
    assert (found.matched, found.reachable, found.frozen) == (len(SITUATIONS), 5, 8)


def test_what_letters_of_the_month_need_nobody_is_asked_to_wait_for(office: Bare) -> None:
    kept = _plan(office, kept=4)
    assert (kept.by(Rung.COVER), kept.by(Rung.WORD)) == (0, 3)


def test_a_cover_of_another_month_uses_nothing_up(office: Bare) -> None:
    with office.database.reading() as session:
        asked = Asked(NEWS, NOON + timedelta(days=31))
        later = planning.plan(office.services, session, EVERYBODY, asked)
    assert (later.by(Rung.COVER), later.by(Rung.WORD)) == (4, 0)


def test_a_notice_is_for_its_own_purpose_alone(office: Bare) -> None:
    other = Purpose("other", "其他", scope="profile", topic="其他")
    with office.database.reading() as session:
        found = planning.plan(office.services, session, EVERYBODY, Asked(other, NOON))
    assert found.by(Rung.LASTING, Rung.ONCE) == 0


def test_what_was_received_is_counted_back_from_when_it_leaves(office: Bare) -> None:
    assert "often" not in _plan(office, due=NOON + timedelta(days=2)).left_out


def test_service_needs_neither_consent_nor_subscription(office: Bare) -> None:
    duty = Purpose("duty", "工作通知")
    with office.database.reading() as session:
        found = planning.plan(office.services, session, EVERYBODY, Asked(duty, NOON))
    assert {"consent", "withdrawn", "unsubscribed"} & set(found.left_out) == set()


@BOTH
def test_to_telephone_are_those_who_want_it_and_cannot_be_asked_to_write(office: Bare) -> None:
    with office.database.reading() as session:
        found = session.execute(planning.to_telephone(office.services, EVERYBODY, _asked())).all()
    assert [(SITUATIONS[person - 1], reason) for person, reason in found] == [
        ("covers used up", None),
        ("lost", "unreachable"),
        ("nowhere", "nowhere"),
        ("elsewhere", "elsewhere"),
    ]


# - the list -


def _rows(session: Session, campaign: Campaign) -> dict[str, tuple[str, str, str]]:
    query = TABLE.select().where(TABLE.c.campaign_id == campaign.id)
    return {
        SITUATIONS[row.person_id - 1]: (row.address.partition(":")[0], row.state, row.reason)
        for row in session.execute(query)
    }


FROZEN = {
    "open": ("open", "held", ""),
    "in window": ("window", "held", ""),
    "lasting": ("window", "held", ""),
    "once": ("window", "held", ""),
    "cover": ("window", "held", ""),
    "covers used up": ("window", "held", ""),
    "often": ("open", "suppressed", "often"),
    "two addresses": ("open", "held", ""),
    "chosen address": ("window", "held", ""),
}


@BOTH
def test_a_list_is_frozen_chunk_by_chunk_and_a_chunk_done_twice_changes_nothing(
    office: Bare,
) -> None:
    services, after = office.services, 0
    with office.database.session() as session:
        campaign = _campaign(session)
    while True:
        with office.database.session() as session:
            chunk = (services, session, campaign, EVERYBODY, _asked(), MOMENT, after, 3)
            assert planning.freeze_some(*chunk) == planning.freeze_some(*chunk)
            last = planning.freeze_some(*chunk)
        if last is None:
            break
        after = last
    with office.database.session() as session:
        assert planning.close_list(session, campaign, MOMENT) == 8
        assert _rows(session, campaign) == FROZEN
        other = _campaign(session, 2)
        assert planning.freeze(services, session, other, EVERYBODY, _asked(), MOMENT) == 8
        assert other.recipients_hash == campaign.recipients_hash


def test_nothing_of_a_list_can_leave_before_it_is_released(office: Bare) -> None:
    office.lane("open:bulk")
    with office.database.session() as session:
        campaign = _campaign(session)
        planning.freeze_some(office.services, session, campaign, EVERYBODY, _asked(), MOMENT, 0)
        assert claims.claim(session.connection(), "open:bulk", "w", NOON, 99) == []
        planning.close_list(session, campaign, MOMENT)
        campaign.state = CampaignState.RUNNING
        assert planning.settle(office.services, session, campaign, _asked())
        assert sum(overview.ahead(session.connection(), campaign.id or 0).values()) == 8
        claimed = claims.claim(session.connection(), "open:bulk", "w", NOON, 99)
        assert [row.person_id for row in claimed] == [_number("open"), _number("two addresses")]


@BOTH
def test_who_has_got_enough_of_others_meanwhile_is_left_out_when_it_is_released(
    office: Bare,
) -> None:
    with office.database.session() as session:
        campaign = _campaign(session)
        planning.freeze(office.services, session, campaign, EVERYBODY, _asked(), MOMENT)
        _received(session, _number("open"), 2, NOON)
        campaign.state = CampaignState.RUNNING
        assert planning.settle(office.services, session, campaign, _asked())
        assert sum(overview.ahead(session.connection(), campaign.id or 0).values()) == 7
        assert _rows(session, campaign)["open"] == ("open", "suppressed", "often")


def test_a_list_that_is_thawed_leaves_nothing_behind(office: Bare) -> None:
    with office.database.session() as session:
        campaign = _campaign(session)
        planning.freeze(office.services, session, campaign, EVERYBODY, _asked(), MOMENT)
        planning.thaw(session, campaign)
        assert _rows(session, campaign) == {}


@BOTH
def test_a_row_leaves_by_the_clock_of_its_readers_zone(office: Bare) -> None:
    with office.database.session() as session:
        session.get_one(Person, _number("open")).timezone = "America/New_York"
        session.flush()
        campaign = _campaign(session)
        local = Moment(NOON, local=True, latest=NOON + timedelta(hours=8))
        planning.freeze(office.services, session, campaign, EVERYBODY, _asked(), local)
        rows = session.execute(TABLE.select().where(TABLE.c.campaign_id == campaign.id)).all()
    hours = {row.person_id: (row.not_before - NOON, row.expires_at - NOON) for row in rows}
    twelve, eight = timedelta(hours=12), timedelta(hours=8)
    assert hours[_number("open")] == (twelve, twelve + eight)
    assert hours[_number("two addresses")] == (timedelta(0), eight)
