"""Agreements are counted exactly, however many ask at once; union ids, codes and covers kept."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlmodel import col

from bot.context import new_row
from storage import claims, covers, gate, mailbox, overview, scenes, wechat
from storage.campaigns import Campaign, CampaignState
from storage.covers import Counts, Cover, CoverRecipient, CoverState
from storage.hotpath import HotPath
from storage.people import Person
from storage.platform_tokens import keep_token, token_of
from storage.scenes import Arrival, CodeState, SceneCode
from storage.states import State
from storage.wechat import Follower, NoticeGrant
from tests.bare import NOON, Bare


def somebody(bare: Bare) -> int:
    with bare.database.session() as session:
        person = Person(created_at=NOON)
        session.add(person)
        session.flush()
        assert person.id is not None
        return person.id


def grant(bare: Bare, person_id: int) -> tuple[int, bool]:
    with bare.database.engine.connect() as connection:
        query = select(col(NoticeGrant.left), col(NoticeGrant.lasting))
        row = connection.execute(query.where(col(NoticeGrant.person_id) == person_id)).one()
        return row.left, row.lasting


def at_once(work: Callable[[], Any], threads: int = 2) -> list[Any]:
    """The same from several threads at the same moment; what each got."""
    barrier, got = threading.Barrier(threads), list[Any]()

    def run() -> None:
        barrier.wait()
        got.append(work())

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return got


def test_fact_15_of_two_workers_one_gets_the_last_agreement(bare: Bare) -> None:
    person_id = somebody(bare)
    with bare.database.transaction() as connection:
        wechat.agree(connection, person_id, "t", NOON)

    def take() -> bool:
        with bare.database.transaction() as connection:
            return wechat.use_up(connection, person_id, "t", NOON)

    assert sorted(at_once(take, 4)) == [False, False, False, True]
    assert grant(bare, person_id) == (0, False)


def test_agreements_add_up_however_many_arrive_at_once(bare: Bare) -> None:
    person_id = somebody(bare)

    def agree() -> None:
        with bare.database.transaction() as connection:
            wechat.agree(connection, person_id, "t", NOON)

    at_once(agree, 5)
    assert grant(bare, person_id) == (5, False)


def test_a_lasting_agreement_is_used_without_end_and_refused_at_once(bare: Bare) -> None:
    person_id = somebody(bare)
    with bare.database.transaction() as connection:
        wechat.agree(connection, person_id, "t", NOON)
        wechat.agree(connection, person_id, "t", NOON, lasting=True)
        assert [wechat.use_up(connection, person_id, "t", NOON) for _ in range(3)] == [True] * 3
        wechat.put_back(connection, person_id, "t", NOON)
        wechat.refuse(connection, person_id, "t", NOON)
        assert not wechat.use_up(connection, person_id, "t", NOON)
    assert grant(bare, person_id) == (0, False)


def test_what_did_not_leave_is_put_back(bare: Bare) -> None:
    person_id = somebody(bare)
    with bare.database.transaction() as connection:
        wechat.agree(connection, person_id, "t", NOON)
        assert wechat.use_up(connection, person_id, "t", NOON)
        wechat.put_back(connection, person_id, "t", NOON)
    assert grant(bare, person_id) == (1, False)


def test_a_union_id_is_kept_for_who_is_still_with_us(bare: Bare) -> None:
    here, gone = somebody(bare), somebody(bare)
    with bare.database.transaction() as connection:
        connection.execute(update(Person).where(col(Person.id) == gone).values(silent_since=NOON))
        for person_id in (here, gone):
            wechat.keep_unionid(connection, person_id, "u", NOON)
            wechat.keep_unionid(connection, person_id, "u2", NOON)
        rows = connection.execute(select(col(Follower.person_id), col(Follower.unionid))).all()
    assert rows == [(here, "u2")]


def test_the_first_code_somebody_came_by_is_the_one_that_counts(bare: Bare) -> None:
    person_id = somebody(bare)
    with bare.database.transaction() as connection:
        told = [
            scenes.remember_arrival(connection, person_id, scene, NOON) for scene in ("u_1", "u_2")
        ]
        rows = connection.execute(select(col(Arrival.scene))).scalars().all()
    assert (told, rows) == ([True, False], ["u_1"])


def test_a_code_lives_until_its_end_and_is_forgotten_later(bare: Bare) -> None:
    person_id = somebody(bare)
    with bare.database.session() as session:
        for days in (30, None):
            code = SceneCode(
                channel="wechat",
                scene="u_1",
                label="工商联",
                days=days,
                asked_by=person_id,
                asked_at=NOON,
            )
            session.add(code)
    with bare.database.transaction() as connection:
        first, second = scenes.codes_in(connection, "wechat", CodeState.WAITING)
        assert first.id is not None
        assert second.id is not None
        scenes.made(connection, first.id, "http://127.0.0.1/1", NOON + timedelta(days=30))
        scenes.not_made(connection, second.id, "no")
        scenes.made(connection, second.id, "http://127.0.0.1/2", None)  # too late
    with bare.database.session() as session:
        live = [
            scenes.live_code(session, "wechat", "u_1", NOON + timedelta(days=days)) is not None
            for days in (29, 30)
        ]
        assert live == [True, False]
        later = NOON + timedelta(days=31)
        assert scenes.forget_codes(session.connection(), later) == 2


def push(bare: Bare, state: CoverState, month: str = "2026-03", **values: Any) -> int:
    person_id = somebody(bare)
    with bare.database.session() as session:
        cover = Cover(
            key=f"k{person_id}",
            channel="wechat",
            text="信",
            asked_by=person_id,
            created_at=NOON,
            state=state,
            month=month,
            **values,
        )
        session.add(cover)
        session.flush()
        assert cover.id is not None
        covers.add_recipients(session.connection(), cover.id, [1])
        return cover.id


def test_a_failed_push_costs_nobody_any_of_the_months_four(bare: Bare) -> None:
    for state in CoverState:
        push(bare, state)
    push(bare, CoverState.DONE, "2026-02")
    push(bare, CoverState.DONE, preview=True)
    with bare.database.engine.connect() as connection:
        assert covers.received(connection, "wechat", "2026-03") == {1: 5}
        assert covers.received(connection, "other", "2026-03") == {}


def test_a_push_that_is_over_stays_so(bare: Bare) -> None:
    cover_id = push(bare, CoverState.ACCEPTED, job="77")
    with bare.database.transaction() as connection:
        counts = Counts(3, 2, 2, 0)
        done = [
            covers.finish(connection, "wechat", job, fine=fine, reason="", counts=counts)
            for job, fine in (("78", True), ("", True), ("77", True), ("77", False))
        ]
        covers.move(connection, cover_id, CoverState.ACCEPTED)
        found = covers.covers_in(connection, "wechat", CoverState.DONE)
    assert done == [False, False, True, False]
    assert [(cover.total, cover.sent) for cover in found] == [(3, 2)]


def test_who_was_pushed_to_is_forgotten_after_last_month(bare: Bare) -> None:
    push(bare, CoverState.DONE, "2026-01")
    push(bare, CoverState.DONE, "2026-02")
    with bare.database.transaction() as connection:
        assert covers.forget_recipients(connection, "2026-02") == 1


# What may leave beyond the window, and who waits for a cover --------------------------------------


def waiting_rows(bare: Bare, count: int, **values: Any) -> list[int]:
    """So many people whose window is closed, each with one row; returns their ids."""
    people = bare.people(count, "window", window_until=NOON, window_left=0)
    with bare.database.transaction() as connection:
        rows = [
            new_row(
                occasion="b:1",
                recipient=f"p{person}",
                person_id=person,
                address=f"window:t:p{person}",
                purpose="news",
                lane="window:bulk",
                windowed=True,
                not_before=NOON,
                created_at=NOON,
                **values,
            )
            for person in people
        ]
        mailbox.enqueue(connection, rows)
    return people


def campaign(bare: Bare) -> int:
    with bare.database.session() as session:
        row = Campaign(
            number="B-1",
            kind="broadcast",
            title="",
            occasion="b:1",
            purpose="news",
            template="",
            created_at=NOON,
            state=CampaignState.RUNNING,
        )
        session.add(row)
        session.flush()
        assert row.id is not None
        return row.id


def test_what_needs_no_window_is_let_through_only_where_it_is_closed(bare: Bare) -> None:
    bare.lane("window:bulk")
    closed = waiting_rows(bare, 2)
    [open_one] = bare.people(1, "window", window_until=NOON + timedelta(hours=1), window_left=5)
    bare.rows(1, lane="window:bulk", windowed=True, address=f"window:t:p{open_one}")
    with bare.database.transaction() as connection:
        ids = [row.id for row in claims.claim(connection, "window:bulk", "w", NOON, 9)]
        beyond = gate.gate_beyond(connection, ids, ids, "w", NOON)
        rest = [id for id in ids if id not in beyond]
        assert gate.gate(connection, rest, "w", NOON) == set(rest)
        assert gate.gate_beyond(connection, ids, [], "w", NOON) == set()
    assert (len(beyond), len(rest), len(closed)) == (2, 1, 2)


def test_what_nobody_consented_to_does_not_leave_beyond_the_window_either(bare: Bare) -> None:
    bare.lane("window:bulk")
    waiting_rows(bare, 1, scope="profile")
    with bare.database.transaction() as connection:
        ids = [row.id for row in claims.claim(connection, "window:bulk", "w", NOON, 9)]
        assert gate.gate_beyond(connection, ids, ids, "w", NOON) == set()
        gate.gate(connection, ids, "w", NOON)
    assert bare.states() == {"suppressed": 1}


def test_a_push_begins_with_those_who_still_wait_and_keeps_its_list(bare: Bare) -> None:
    number = campaign(bare)
    people = waiting_rows(bare, 4, campaign_id=number, state=State.DEFERRED, reason="window")
    cover_id = push(bare, CoverState.WAITING, campaign_id=number)
    earlier = [push(bare, CoverState.DONE) for _ in range(4)]
    with bare.database.transaction() as connection:
        connection.execute(delete(CoverRecipient))
        covers.add_recipients(connection, cover_id, people[:3])
        for one in earlier:
            covers.add_recipients(connection, one, people[:1])  # the first has had four
        HotPath(connection).reopen([f"window:t:p{people[1]}"])  # the second has just written
        waiting, *_ = covers.covers_in(connection, "wechat", CoverState.WAITING)
        # The rows stand on a channel of another name in these tests.
        waiting.channel = "window"
        connection.execute(update(Cover).values(channel="window"))
        begun = covers.begin(connection, waiting, "2026-03", 4, NOON)
        sending, *_ = covers.covers_in(connection, "window", CoverState.SENDING)
        again = covers.begin(connection, sending, "2026-03", 4, NOON)
    assert begun == again == [f"window:t:p{people[2]}"]
    assert (sending.tries, waits(bare, people[2])) == (1, 1)


def waits(bare: Bare, person: int) -> int:
    with bare.database.engine.connect() as connection:
        return overview.waits_for(connection, f"window:t:p{person}")


def test_a_token_is_kept_for_all_and_replaced(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        assert token_of(connection, "wechat:wx1") is None
        for token in ("one", "two"):
            keep_token(connection, "wechat:wx1", token, NOON)
        assert token_of(connection, "wechat:wx1") == ("two", NOON)
