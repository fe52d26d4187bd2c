"""Events: one seat is never given twice, the queue is fair, and only the right people see names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, event
from sqlmodel import Session, select

from bot.errors import UserError
from handlers.events import seats
from handlers.events.seats import Wish
from handlers.forms.heads import count_heads
from handlers.invitations import invitation_to
from handlers.place import PLACES
from storage.audit import AuditEntry
from storage.events import Event, Rsvp, RsvpState, locked_event, rsvps_of
from storage.people import Person
from storage.tables import METADATA
from tests.bare import NOON, Bare
from tests.people import HOMES, register_many, who
from tests.world import World

COMING, WAITING = RsvpState.COMING, RsvpState.WAITING
NOT_COMING, UNDECIDED = RsvpState.NOT_COMING, RsvpState.UNDECIDED
DEEP_HOME = HOMES[:1]


def _event(capacity: int, created_by: int = 1) -> Event:
    return Event(
        number="HD-2026-01",
        title="家乡恳谈会",
        starts_on=date(2026, 8, 12),
        ends_on=date(2026, 8, 12),
        starts_at="9:00",
        venue="市会展中心",
        capacity=capacity,
        deadline=date(2026, 7, 22),
        created_by=created_by,
        created_at=NOON,
    )


def _opened(make_world: Callable[..., World], capacity: int, people: int = 4) -> World:
    """A world with so many members and one event with so many seats."""
    world = make_world(start="2026-06-20 10:00")
    register_many(world, people, homes=DEEP_HOME)
    staff = world.grant("小王", "coordinator")
    with world.database.session() as session:
        session.add(_event(capacity, staff))
    return world


def _come(world: World, index: int, heads: int) -> str:
    return world.talk(who(index), "回执", "1", str(heads), "确认")


def _states(world: World) -> list[tuple[str, int]]:
    with world.database.reading() as session:
        return [(r.state, r.heads) for r in session.exec(select(Rsvp).order_by(Rsvp.id)).all()]  # type: ignore[arg-type]


# --- how many come ---


@pytest.mark.parametrize(
    ("said", "heads"),
    [
        ("能，带媳妇和娃", 3),
        ("带媳妇和8岁的娃", 3),
        ("我和老伴", 2),
        ("夫妻俩带俩孩子", 4),
        ("带两个同事", 3),
        ("一家三口", 3),
        ("连我4个", 4),
        ("就我自己", 1),
        ("\uff13", 3),
        ("十二位", 12),
        ("带父母", 3),
        ("带家属", None),
        ("能来", None),
        ("娃今年8岁", 2),
    ],
)
def test_the_number_of_heads_is_read_from_how_people_speak(said: str, heads: int | None) -> None:
    assert count_heads(said) == heads


@pytest.mark.parametrize(
    ("said", "state", "heads"),
    [
        ("能，就我一个人", "coming", 1),
        ("来不了", "not_coming", 0),
        ("不一定能来", "undecided", 0),
        ("家里有事，去不了了，抱歉抱歉啊各位乡亲", "not_coming", 0),
        ("2", "not_coming", 0),
        ("待定", "undecided", 0),
    ],
)
def test_an_answer_in_ones_own_words_is_understood(
    said: str, state: str, heads: int, make_world: Callable[..., World]
) -> None:
    world = _opened(make_world, 10)
    world.talk(who(0), "回执", said, *(["对"] if heads else []), "确认")
    assert _states(world) == [(state, heads)]


def test_a_child_s_age_is_kept_nowhere(make_world: Callable[..., World]) -> None:
    world = _opened(make_world, 10)
    world.talk(who(0), "回执", "能，带媳妇和7岁半的娃")
    assert "出席|3位" in world.says(who(0), "对 娃7岁半")
    world.says(who(0), "确认")
    assert _states(world) == [("coming", 3)]
    with world.database.reading() as session:
        for table in METADATA.sorted_tables:
            for row in session.execute(table.select()):
                assert "7岁半" not in str(tuple(row))


# --- seats ---


def test_a_party_waits_as_a_whole_and_smaller_ones_behind_may_go_ahead(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 3)
    assert "名额已留" in _come(world, 0, 1)
    assert "候补第1位" in _come(world, 1, 3)
    assert "名额已留" in _come(world, 2, 2)
    assert "候补第2位" in _come(world, 3, 1)
    world.talk(who(2), "改回执", "不能来", "确认")
    assert _states(world) == [("coming", 1), ("waiting", 3), ("not_coming", 0), ("coming", 1)]
    world.drain()
    assert [len(world.news(who(index))) for index in range(4)] == [0, 0, 0, 1]


def test_who_moves_up_is_told_once_though_the_message_comes_twice(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 2)
    _come(world, 0, 2)
    _come(world, 1, 2)
    world.talk(who(0), "改回执", "不能来")
    last = world.inbound(who(0), "确认")
    assert world.hears(last) == world.hears(last)
    world.settle()
    world.settle()
    assert [text[:4] for text in world.received(who(1))] == ["好消息："]


def test_who_asks_again_after_leaving_queues_again_and_is_told_again(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 1)
    for _ in range(2):
        _come(world, 0, 1)
        world.passes(minutes=1)
        _come(world, 1, 1)
        world.talk(who(0), "改回执", "不能来", "确认")
        world.talk(who(1), "改回执", "不能来", "确认")
        world.passes(minutes=1)
    assert len(world.received(who(1))) == 2


def test_more_heads_than_there_is_room_for_leaves_the_old_answer(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 3)
    _come(world, 0, 2)
    answer = world.talk(who(0), "改回执", "1", "4", "确认")
    assert answer == "名额只够您一行3位，暂时加不到4位；原来的2位照旧为您留着。"
    assert _states(world) == [("coming", 2)]


def test_a_party_larger_than_the_event_is_told_so(make_world: Callable[..., World]) -> None:
    world = _opened(make_world, 3)
    assert _come(world, 0, 4).startswith("这次活动一共3个名额，安排不下4位")
    assert _states(world) == []


def test_asking_for_fewer_keeps_the_turn_and_for_more_goes_to_the_end(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 3)
    _come(world, 0, 3)
    for index in (1, 2, 3):
        world.passes(minutes=1)
        assert f"候补第{index}位" in _come(world, index, 2)
    world.passes(minutes=1)
    assert "候补第1位" in world.talk(who(1), "改回执", "1", "1", "确认")
    assert "候补第3位" in world.talk(who(2), "改回执", "1", "3", "确认")


def test_on_the_day_itself_nobody_moves_up_any_more(make_world: Callable[..., World]) -> None:
    world = _opened(make_world, 1)
    _come(world, 0, 1)
    _come(world, 1, 1)
    world.at("2026-08-12 08:40")
    world.talk(who(0), "改回执", "不能来", "确认")
    world.settle()
    assert _states(world) == [("not_coming", 0), ("waiting", 1)]


def test_erasing_one_s_file_frees_the_seats_for_the_next(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 2)
    _come(world, 0, 2)
    _come(world, 1, 2)
    code = world.talk(who(0), "删除档案", "2").partition("「")[2].split("」")[0]
    assert "已删除" in world.says(who(0), code)
    world.settle()
    assert _states(world) == [("coming", 2)]
    assert [text[:4] for text in world.news(who(1))] == ["好消息："]


@dataclass
class _Model:
    """Seats on an empty database, driven step by step."""

    session: Session
    now: datetime = field(default_factory=lambda: datetime(2026, 6, 1, tzinfo=UTC))

    def step(self, person_id: int, wish: Wish | int) -> None:
        self.now += timedelta(seconds=1)
        meeting = locked_event(self.session, 1)
        before = {r.id: (r.state, r.queued_at) for r in rsvps_of(self.session, 1)}
        free_to_grow = True
        if isinstance(wish, int):
            if wish >= seats.taken(rsvps_of(self.session, 1)):
                meeting.capacity = wish
                self.session.add(meeting)
        else:
            try:
                seats.answer(self.session, meeting, person_id, wish, self.now)
            except UserError:
                free_to_grow = False
        lucky = seats.move_up(self.session, meeting, NOON.date())
        self._holds(meeting, before, lucky, changed=free_to_grow)

    def _holds(
        self, event: Event, before: dict[int | None, tuple[str, datetime]], lucky: list[Rsvp],
        *, changed: bool,
    ) -> None:  # fmt: skip
        after = rsvps_of(self.session, 1)
        free = event.capacity - seats.taken(after)
        assert free >= 0
        assert [r.heads for r in seats.waiting(after) if r.heads <= free] == []
        assert changed or not lucky
        for rsvp in lucky:
            assert rsvp.state == COMING
            assert before.get(rsvp.id, (WAITING, self.now))[0] != COMING


_WISHES = st.one_of(
    st.integers(1, 8),
    st.builds(Wish, st.just(COMING), st.integers(1, 5)),
    st.builds(Wish, st.just(COMING), st.integers(1, 5)),
    st.builds(Wish, st.sampled_from([NOT_COMING, UNDECIDED])),
)


@pytest.fixture(scope="module")
def empty_tables() -> Iterator[Engine]:
    """All tables with nothing in them; who uses them rolls back."""
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 6),
    steps=st.lists(st.tuples(st.integers(1, 5), _WISHES), max_size=14),
)
def test_no_seat_is_given_twice_and_none_is_left_that_somebody_waiting_fits(
    empty_tables: Engine, capacity: int, steps: list[tuple[int, Wish | int]]
) -> None:
    with Session(empty_tables, autoflush=False) as session:
        session.add_all(Person(created_at=NOON) for _ in range(5))
        session.add(_event(capacity))
        session.flush()
        model = _Model(session)
        for person_id, wish in steps:
            model.step(person_id, wish)
        session.rollback()


@pytest.fixture
def bare(database_url: str) -> Iterator[Bare]:
    """An empty installation, on each database."""
    made = Bare(database_url)
    yield made
    made.close()


def test_two_at_once_cannot_have_the_last_seat(bare: Bare) -> None:
    people = bare.people(6)
    with bare.database.session() as session:
        session.add(_event(3, people[0]))
    start = threading.Barrier(len(people))

    def ask(person_id: int) -> None:
        start.wait()
        with bare.database.session() as session:
            event = locked_event(session, 1)
            seats.answer(session, event, person_id, Wish(COMING, 1), NOON)

    threads = [threading.Thread(target=ask, args=(person_id,)) for person_id in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with bare.database.reading() as session:
        states = sorted(rsvp.state for rsvp in rsvps_of(session, 1))
        assert len({rsvp.number for rsvp in rsvps_of(session, 1)}) == 6
    assert states == ["coming"] * 3 + ["waiting"] * 3


def test_two_leaving_at_once_move_up_two_and_neither_twice(bare: Bare) -> None:
    people = bare.people(5)
    with bare.database.session() as session:
        session.add(_event(2, people[0]))
        session.flush()
        for second, person_id in enumerate(people):
            event = locked_event(session, 1)
            at = NOON + timedelta(seconds=second)
            seats.answer(session, event, person_id, Wish(COMING, 1), at)
    moved: list[int] = []
    start = threading.Barrier(2)

    def leave(person_id: int) -> None:
        start.wait()
        with bare.database.session() as session:
            event = locked_event(session, 1)
            seats.answer(session, event, person_id, Wish(NOT_COMING), NOON)
            moved.extend(rsvp.person_id for rsvp in seats.move_up(session, event, NOON.date()))

    threads = [threading.Thread(target=leave, args=(person_id,)) for person_id in people[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(moved) == people[2:4]


def test_moving_somebody_up_does_not_wait_for_what_they_are_just_saying(
    make_world: Callable[..., World], postgres_url: str
) -> None:
    """The one who leaves holds the event, the one who moves up is held by their own message."""
    world = make_world(start="2026-06-20 10:00", url=postgres_url)
    staff = world.grant("小王", "coordinator")
    register_many(world, 2, homes=DEEP_HOME)
    with world.database.session() as session:
        session.add(_event(1, staff))
    _come(world, 0, 1)
    _come(world, 1, 1)
    world.talk(who(0), "改回执", "不能来")
    replica = make_world(start="2026-06-20 10:00", url=postgres_url)
    replica._numbers = 1000
    locked, go_on = threading.Event(), threading.Event()

    def pause(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "FROM person" in statement and " FOR " in statement:
            locked.set()
            go_on.wait(timeout=20)

    event.listen(replica.database.engine, "after_cursor_execute", pause)
    speaking = threading.Thread(target=replica.says, args=(who(1), "活动"))
    leaving = threading.Thread(target=world.says, args=(who(0), "确认"))
    speaking.start()
    assert locked.wait(timeout=20)
    leaving.start()
    leaving.join(timeout=10)
    waited = leaving.is_alive()
    go_on.set()
    speaking.join()
    leaving.join()
    assert not waited
    assert _states(world) == [("not_coming", 0), ("coming", 1)]


# --- who may see what ---


def test_a_group_sees_seats_and_no_answers(make_world: Callable[..., World]) -> None:
    world = _opened(make_world, 3)
    _come(world, 0, 2)
    heard = world.says_in_group(who(0), "活动")
    assert "余1席" in heard
    assert "您" not in heard
    assert "出席2位" in world.says(who(0), "活动")


def test_names_are_for_coordinators_and_looking_is_noted(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 3)
    _come(world, 0, 2)
    world.grant("老赵", "leader")
    assert "高远山" in world.says("小王", "名单 hd2026-1")
    assert "高远山" not in world.says("老赵", "回执 HD-2026-01")
    assert world.says(who(1), "名单 HD-2026-01").startswith("「名单」由统筹员、领导使用")
    with world.database.reading() as session:
        looked = session.exec(select(AuditEntry).where(AuditEntry.action == "event.list")).all()
    assert [(entry.object, entry.reason) for entry in looked] == [("event:HD-2026-01", "活动名单")]


def test_a_member_who_names_the_event_answers_it(make_world: Callable[..., World]) -> None:
    world = _opened(make_world, 3)
    assert "您能来吗" in world.says(who(0), "回执 HD-2026-01")


def test_with_two_open_events_one_is_asked_which(make_world: Callable[..., World]) -> None:
    world = _opened(make_world, 3)
    with world.database.session() as session:
        other = _event(5)
        other.number, other.title = "HD-2026-02", "座谈会"
        session.add(other)
    assert "1 家乡恳谈会" in world.says(who(0), "回执")
    assert "「座谈会」" in world.says(who(0), "2")


def test_without_consent_nobody_is_put_on_a_list(make_world: Callable[..., World]) -> None:
    world = _opened(make_world, 3)
    assert world.says("路人", "回执").startswith("回执要先登记")
    assert _states(world) == []


# --- the invitation ---


@pytest.mark.parametrize(
    ("place", "month", "season"),
    [
        ("huolingol", 7, "草原七月，绿意正浓，"),
        ("huolingol", 8, "草原八月，天高气爽，"),
        ("huolingol", 9, "草原九月，金风送爽，"),
        ("gongan", 8, "八月时节，天高气爽，"),
    ],
)
def test_the_invitation_speaks_of_the_month(
    place: str, month: int, season: str, make_world: Callable[..., World]
) -> None:
    world = _opened(make_world, 3)
    with world.database.session() as session:
        event = session.exec(select(Event)).one()
        event.starts_on = event.ends_on = date(2026, month, 12)
        session.add(event)
        session.flush()
        text = invitation_to(session, "HD-2026-01", PLACES.load(place, {}))
    assert f"{text.values['season']}，" == season


def test_the_longest_invitation_fits_a_mass_message(make_world: Callable[..., World]) -> None:
    world = _opened(make_world, 3)
    with world.database.session() as session:
        event = session.exec(select(Event)).one()
        event.title, event.venue, event.note = "名" * 30, "地" * 40, "注" * 150
        event.ends_on = date(2026, 9, 1)
        session.add(event)
    world.talk("小王", "活动 邀请 HD-2026-01", "全体")
    assert "未填的空 0，超长 0；" in world.says("小王", "预览")


# --- by the clock ---


def test_those_who_come_are_reminded_once_the_evening_before(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 2)
    _come(world, 0, 2)
    _come(world, 1, 1)
    world.talk(who(2), "回执", "3", "确认")
    world.at("2026-08-11 17:59")
    assert [world.received(who(index)) for index in range(3)] == [[], [], []]
    world.at("2026-08-11 18:00")
    world.at("2026-08-11 20:00")
    world.at("2026-08-12 09:00")
    assert [len(world.received(who(index))) for index in range(3)] == [1, 0, 0]
    assert "8月12日（周三）9:00在市会展中心" in world.received(who(0))[0]


def test_a_reminder_that_comes_late_at_night_waits_for_the_morning(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 2)
    _come(world, 0, 1)
    world.at("2026-08-11 22:00")
    assert world.received(who(0)) == []
    world.at("2026-08-12 08:30")
    assert len(world.received(who(0))) == 1


def test_a_cancelled_event_reminds_nobody(make_world: Callable[..., World]) -> None:
    world = _opened(make_world, 2)
    _come(world, 0, 1)
    world.talk("小王", "活动 取消 HD-2026-01", "大雨", "确认")
    world.drain()
    assert [text[:3] for text in world.news(who(0))] == ["很抱歉"]
    world.at("2026-08-11 18:00")
    assert world.news(who(0)) == []


def test_calling_off_stops_invitations_that_have_not_left(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 2)
    handed = world.talk("小王", "活动 邀请 HD-2026-01", "全体", "7月1日 10:00", "提交")
    code = handed.partition("确认发送 ")[2][:4]
    world.says("小王", f"确认发送 {code}")
    answer = world.talk("小王", "活动 取消 HD-2026-01", "大雨", "确认")
    assert "已取消 B-0001" in answer
    world.at("2026-07-01 10:00")
    assert [world.received(who(index)) for index in range(4)] == [[], [], [], []]


def test_answers_are_forgotten_thirty_days_after_and_the_count_stays(
    make_world: Callable[..., World],
) -> None:
    world = _opened(make_world, 3)
    _come(world, 0, 2)
    world.at("2026-09-11 04:00")
    assert _states(world) == [("coming", 2)]
    world.at("2026-09-12 04:00")
    assert _states(world) == []
    assert "到会2位" in world.says("小王", "名单 HD-2026-01")
