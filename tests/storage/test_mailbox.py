"""The ledger's promises: unique, leased once, gated by consent, window, time and pause."""

import threading
import time
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from storage import claims, gate, lanes, overview, steering, upkeep
from storage.campaigns import Campaign
from storage.gate import Outcome
from storage.hotpath import HotPath
from storage.lanes import block_lane
from storage.people import ConsentEntry, Contact, record_consent, unsubscribe
from storage.states import STATE_WORDS, TRANSITIONS, State
from tests.bare import NOON, Bare


def claim(bare: Bare, worker: str = "w1", free: int = 100) -> list[int]:
    with bare.database.transaction() as connection:
        rows = claims.claim(connection, "memory:bulk", worker, NOON, free)
        return [row.id for row in rows]


def gated(
    bare: Bare, ids: list[int], worker: str = "w1", campaigns: Collection[int] = ()
) -> set[int]:
    with bare.database.transaction() as connection:
        gate.wait_at_fences(connection, campaigns)
        return gate.gate(connection, ids, worker, NOON)


def consent(bare: Bare, person_id: int, action: str) -> None:
    with bare.database.session() as session:
        record_consent(
            session,
            ConsentEntry(
                person_id=person_id,
                scope="profile",
                action=action,
                version="1",
                notice_hash="",
                at=NOON,
                channel="memory",
                source="1",
                words="同意",
            ),
        )


def test_one_occasion_reaches_one_recipient_once(bare: Bare) -> None:
    bare.rows(3)
    assert len(bare.rows(5)) == 5


def test_two_workers_never_lease_one_row(bare: Bare) -> None:
    bare.lane()
    ids = bare.rows(200)
    taken: dict[str, list[int]] = {"a": [], "b": []}

    def work(name: str) -> None:
        while found := claim(bare, name, 10):
            taken[name] += found

    threads = [threading.Thread(target=work, args=(name,)) for name in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken["a"] + taken["b"]) == ids


def test_two_workers_at_once_have_one_row_an_address_in_flight(bare: Bare) -> None:
    bare.lane()
    bare.queue([1, 2], address="memory:t:same")
    found: list[int] = []
    other = threading.Thread(target=lambda: found.extend(claim(bare, "b")))
    with bare.database.transaction() as connection:
        [first] = claims.claim(connection, "memory:bulk", "a", NOON, 1)
        other.start()
        other.join(0.2)
        waiting = other.is_alive()
    other.join()
    assert waiting
    assert found == []
    assert first.address == "memory:t:same"


def test_only_one_row_an_address_is_in_flight(bare: Bare) -> None:
    bare.lane()
    first = bare.rows(1)
    claimed = claim(bare)
    bare.rows(1, occasion="second")
    assert claimed == first
    assert claim(bare) == []


def test_a_row_due_later_is_not_claimed(bare: Bare) -> None:
    bare.lane()
    bare.rows(1, not_before=NOON + timedelta(seconds=1))
    assert claim(bare) == []


def test_a_lane_gives_no_more_slots_than_its_rate(bare: Bare) -> None:
    bare.lane(gap_ms=100, burst=1)
    bare.rows(50)
    # 300 ms ahead at one each 100 ms: now, 100, 200 and 300.
    assert len(claim(bare)) == 4


def test_slots_follow_one_another_at_the_lanes_gap(bare: Bare) -> None:
    bare.lane(gap_ms=100, burst=1)
    bare.rows(50)
    with bare.database.transaction() as connection:
        rows = claims.claim(connection, "memory:bulk", "w1", NOON, 100)
    assert [row.slot_ms for row in rows] == [0, 100, 200, 300]


def test_the_platforms_word_blocks_the_lane(bare: Bare) -> None:
    bare.lane()
    bare.rows(5)
    with bare.database.transaction() as connection:
        block_lane(connection, "memory:bulk", 60)
    assert claim(bare) == []


def test_the_gate_lets_a_leased_row_through_once(bare: Bare) -> None:
    bare.lane()
    bare.rows(1)
    ids = claim(bare)
    assert gated(bare, ids) == set(ids)
    assert gated(bare, ids) == set()


def test_the_gate_refuses_a_stranger(bare: Bare) -> None:
    bare.lane()
    bare.rows(1)
    assert gated(bare, claim(bare, "w1"), "w2") == set()


def test_a_withdrawn_consent_stops_a_leased_row(bare: Bare) -> None:
    bare.lane()
    [person] = bare.people(1)
    consent(bare, person, "granted")
    bare.rows(1, person_id=person, scope="profile", address=f"memory:t:p{person}")
    ids = claim(bare)
    consent(bare, person, "withdrawn")
    assert gated(bare, ids) == set()
    assert [(row.state, row.reason) for row in bare.all()] == [("suppressed", "consent")]


def test_consent_lets_a_row_through(bare: Bare) -> None:
    bare.lane()
    [person] = bare.people(1)
    consent(bare, person, "granted")
    bare.rows(1, person_id=person, scope="profile", address=f"memory:t:p{person}")
    ids = claim(bare)
    assert gated(bare, ids) == set(ids)


@pytest.mark.parametrize("topic", ["节日信", "*"])
def test_an_unsubscribed_topic_is_suppressed(bare: Bare, topic: str) -> None:
    bare.lane()
    [person] = bare.people(1)
    with bare.database.session() as session:
        unsubscribe(session, person, topic, NOON)
    bare.rows(1, person_id=person, topic="节日信", address=f"memory:t:p{person}")
    assert gated(bare, claim(bare)) == set()
    assert bare.all()[0].reason == "unsubscribed"


def test_an_expired_row_does_not_leave(bare: Bare) -> None:
    bare.lane()
    bare.rows(1, expires_at=NOON)
    assert gated(bare, claim(bare)) == set()
    assert bare.states() == {"expired": 1}


def test_a_closed_window_defers_until_the_person_speaks(bare: Bare) -> None:
    bare.lane()
    [person] = bare.people(1, "window", window_until=NOON, window_left=5)
    address = f"window:t:p{person}"
    bare.rows(1, windowed=True, address=address)
    assert gated(bare, claim(bare)) == set()
    assert [(row.state, row.reason) for row in bare.all()] == [("deferred", "window")]
    with bare.database.transaction() as connection:
        HotPath(connection).reopen([address])
    assert bare.states() == {"queued": 1}


def test_each_send_spends_one_message_of_the_window(bare: Bare) -> None:
    bare.lane()
    [person] = bare.people(1, "window", window_until=NOON + timedelta(hours=1), window_left=1)
    bare.rows(1, windowed=True, address=f"window:t:p{person}")
    ids = claim(bare)
    assert gated(bare, ids) == set(ids)
    with bare.database.reading() as session:
        assert session.execute(select(Contact.window_left)).scalar_one() == 0  # type: ignore[call-overload]


def campaign(bare: Bare) -> int:
    with bare.database.session() as session:
        row = Campaign(
            number="B-1",
            kind="broadcast",
            title="",
            occasion="b:1",
            purpose="letter",
            template="",
            created_at=NOON,
        )
        session.add(row)
        session.flush()
        return row.id or 0


@pytest.mark.parametrize("stop", [steering.hold, steering.cancel])
def test_nothing_starts_after_a_pause_or_a_cancel_commits(bare: Bare, stop: object) -> None:
    bare.lane()
    number = campaign(bare)
    bare.rows(20, campaign_id=number)
    ids = claim(bare, free=10)
    with bare.database.transaction() as connection:
        stop(connection, number)  # type: ignore[operator]
    assert gated(bare, ids) == set()
    assert claim(bare) == []


def test_a_pause_waits_for_the_gate_and_the_next_gate_for_the_pause(postgres_url: str) -> None:
    bare = Bare(postgres_url)
    bare.lane()
    number = campaign(bare)
    bare.rows(20, campaign_id=number)
    first, second = claim(bare, free=10), claim(bare, free=10)
    done: list[str] = []

    def pause() -> None:
        with bare.database.transaction() as connection:
            connection.execute(text("UPDATE campaign SET state = 'paused'"))
            gate.fence(connection, number)
            done.append("paused")
            assert not gating.wait(0.2)  # the second gate stands before the fence

    def let_through() -> None:
        assert gated(bare, second, campaigns=[number]) == set()
        gating.set()

    gating = threading.Event()
    with bare.database.transaction() as connection:
        gate.wait_at_fences(connection, [number])
        assert gate.gate(connection, first, "w1", NOON) == set(first)
        pausing = threading.Thread(target=pause)
        pausing.start()
        pausing.join(0.2)
        assert done == []
        done.append("gated")
    while len(done) < 2:
        time.sleep(0.001)
    later = threading.Thread(target=let_through)
    later.start()
    pausing.join()
    later.join()
    assert done == ["gated", "paused"]
    assert bare.states() == {"sending": 10, "held": 10}
    bare.close()


def test_a_paused_campaign_goes_on(bare: Bare) -> None:
    bare.lane()
    number = campaign(bare)
    bare.rows(20, campaign_id=number)
    with bare.database.transaction() as connection:
        steering.hold(connection, number)
        assert steering.resume(connection, number) == 20
    assert len(claim(bare)) == 20


def test_a_dead_workers_rows_wait_or_are_unknown(bare: Bare) -> None:
    bare.lane()
    bare.rows(2)
    bare.rows(3, occasion="again", repeatable=True, address=None)
    with bare.database.transaction() as connection:
        claims.beat(connection, "dead")
    ids = claim(bare, "dead")
    gated(bare, ids[:1], "dead")
    with bare.database.transaction() as connection:
        connection.execute(text("UPDATE worker SET beat = 0"))
        claims.sweep(connection, "alive", timedelta(seconds=10), alone=False)
    assert bare.states() == {"unknown": 1, "queued": 4}


def test_a_living_workers_rows_are_left_alone(bare: Bare) -> None:
    bare.lane()
    bare.rows(2)
    with bare.database.transaction() as connection:
        claims.beat(connection, "w1")
    claim(bare, "w1")
    with bare.database.transaction() as connection:
        assert claims.sweep(connection, "w2", timedelta(seconds=10), alone=False) == 0


def test_a_late_acknowledgement_settles_an_unknown_row(bare: Bare) -> None:
    bare.lane()
    bare.rows(1)
    ids = claim(bare)
    gated(bare, ids)
    with bare.database.transaction() as connection:
        claims.sweep(connection, "w2", timedelta(0), alone=True)
        gate.acknowledge(connection, "w1", [Outcome(ids[0], State.SENT, sent_at=NOON)])
    assert bare.states() == {"sent": 1}


def test_a_strangers_acknowledgement_changes_nothing(bare: Bare) -> None:
    bare.lane()
    bare.rows(1)
    ids = claim(bare)
    gated(bare, ids)
    with bare.database.transaction() as connection:
        gate.acknowledge(connection, "w2", [Outcome(ids[0], State.SENT, sent_at=NOON)])
    assert bare.states() == {"sending": 1}


def test_bodies_are_sealed_in_the_table_and_forgotten_later(bare: Bare) -> None:
    bare.lane()
    bare.rows(1)
    with bare.database.engine.connect() as connection:
        raw = connection.execute(text("SELECT body FROM outbox")).scalar_one()
    assert "您好".encode() not in bytes(raw)
    ids = claim(bare)
    gated(bare, ids)
    with bare.database.transaction() as connection:
        gate.acknowledge(connection, "w1", [Outcome(ids[0], State.SENT, sent_at=NOON)])
        assert upkeep.forget_bodies(connection, NOON + timedelta(days=7), 9) == 1


def test_what_was_rolled_back_to_a_savepoint_is_gone(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        savepoint = connection.begin_nested()
        connection.execute(text("INSERT INTO sequence (name, value) VALUES ('lost', 1)"))
        savepoint.rollback()
        kept = connection.begin_nested()
        connection.execute(text("INSERT INTO sequence (name, value) VALUES ('kept', 1)"))
        kept.commit()
        with bare.database.engine.connect() as other:
            seen = other.execute(text("SELECT count(*) FROM sequence")).scalar_one()
    assert seen == 0
    with bare.database.engine.connect() as connection:
        assert connection.execute(text("SELECT name FROM sequence")).all() == [("kept",)]


def test_the_claim_uses_its_partial_indexes(tmp_path: Path) -> None:
    bare = Bare(f"sqlite:///{tmp_path}/plan.db")
    with bare.database.engine.connect() as connection:
        statement, arguments = claims._READY, ("memory:bulk", 10**15, 64)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", arguments).all()
    bare.close()
    used = [word for row in plan for word in row[-1].split() if word.startswith("ix_")]
    assert used == ["ix_outbox_ready", "ix_outbox_flight"]


def test_every_state_has_its_transitions_and_words() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set(STATE_WORDS) == set(State)


def test_of_a_campaign_long_finished_only_the_counts_are_kept(bare: Bare) -> None:
    with bare.database.session() as session:
        session.add(
            Campaign(
                number="B-1",
                kind="letter",
                title="",
                occasion="letter",
                purpose="letter",
                template="",
                created_at=NOON,
            )
        )
    for person, state in zip(bare.people(4), ("sent", "sent", "failed", "queued"), strict=True):
        bare.rows(1, recipient=f"p{person}", person_id=person, campaign_id=1, state=state)
    with bare.database.transaction() as connection:
        before = overview.progress(connection, 1)
        assert upkeep.settle_campaigns(connection, NOON - timedelta(days=1), 9) == 0
        assert upkeep.settle_campaigns(connection, NOON, 2) == 2
        assert overview.progress(connection, 1) == before
        assert upkeep.settle_campaigns(connection, NOON, 9) == 1
        assert overview.progress(connection, 1) == before
    assert [row.state for row in bare.all()] == ["queued"]
    assert [row.person_id for row in bare.all()] == [4]


@pytest.mark.parametrize(("state", "kept"), [("paused", "held"), ("cancelled", "cancelled")])
def test_what_is_leased_of_a_stopped_campaign_does_not_leave(
    bare: Bare, state: str, kept: str
) -> None:
    """It was leased while the word to stop was being written, which did not see it."""
    bare.lane()
    number = campaign(bare)
    bare.rows(3, campaign_id=number)
    ids = claim(bare)
    with bare.database.transaction() as connection:
        connection.execute(text("UPDATE campaign SET state = :state"), {"state": state})
    assert gated(bare, ids) == set()
    assert bare.states() == {kept: 3}


def test_what_fails_while_its_campaign_is_being_stopped_is_not_tried_again(bare: Bare) -> None:
    bare.lane()
    number = campaign(bare)
    bare.rows(1, campaign_id=number)
    ids = claim(bare)
    assert gated(bare, ids) == set(ids)
    with bare.database.transaction() as connection:
        connection.execute(text("UPDATE campaign SET state = 'paused'"))
        steering.hold(connection, number)
        gate.acknowledge(connection, "w1", [Outcome(ids[0], State.QUEUED)])
    assert bare.states() == {"held": 1}


def test_what_was_gated_without_our_knowing_it_waits_again(bare: Bare) -> None:
    bare.lane()
    bare.rows(2)
    ids = claim(bare)
    gated(bare, ids)
    with bare.database.transaction() as connection:
        gate.take_back(connection, "w1", ids)
    assert [(row.state, row.tried_at) for row in bare.all()] == [("queued", None)] * 2


def test_slots_are_given_by_one_clock_to_all_workers(bare: Bare) -> None:
    bare.lane(gap_ms=100)
    bare.rows(50)
    with bare.database.transaction() as connection:
        first = claims.claim(connection, "memory:bulk", "w1", NOON, 2, ticks=lambda: 5.0)
        later = claims.claim(connection, "memory:bulk", "w2", NOON, 1, ticks=lambda: 5.0)
    assert [round(row.due, 3) for row in first] == [5.0, 5.1]
    assert 0.1 < later[0].due - 5.0 <= 0.2


def test_no_slot_is_sooner_than_its_worker_can_use_it(bare: Bare) -> None:
    bare.lane(gap_ms=100)
    bare.rows(50)
    with bare.database.transaction() as connection:
        rows = claims.claim(connection, "memory:bulk", "w1", NOON, 2, lead_ms=50)
    assert [row.slot_ms for row in rows] == [50, 150]


def test_a_broken_lane_gives_one_row_at_a_time(bare: Bare) -> None:
    bare.lane()
    bare.rows(5)
    with bare.database.transaction() as connection:
        assert lanes.break_off(connection, ["memory:bulk"]) == 1
        assert lanes.break_off(connection, ["memory:bulk"]) == 0
    assert claim(bare) == []
    with bare.database.transaction() as connection:
        connection.execute(text("UPDATE lane SET blocked_until = 0"))
        [row] = claims.claim(connection, "memory:bulk", "w1", NOON, 100)
    assert row.probe
    assert claim(bare) == []
    with bare.database.transaction() as connection:
        assert lanes.mend(connection, ["memory:bulk"]) == 1
    assert len(claim(bare)) == 4
