"""The ledger's functions make the moves that `TRANSITIONS` names, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from storage import claims, gate, mailbox, steering
from storage.campaigns import Campaign, CampaignState
from storage.gate import Outcome
from storage.hotpath import HotPath
from storage.people import ConsentNow
from storage.states import TRANSITIONS, State
from tests.bare import NOON, Bare

# Those that wait; the one that a claim would take comes last.
WAITING = (State.HELD, State.DEFERRED, State.LEASED, State.QUEUED)
TTL = timedelta(seconds=10)
HOUR = timedelta(hours=1)
KEEP_BOOK = (
    "CREATE TABLE moves (before TEXT, after TEXT)",
    "CREATE TRIGGER book AFTER UPDATE OF state ON outbox WHEN OLD.state <> NEW.state "
    "BEGIN INSERT INTO moves VALUES (OLD.state, NEW.state); END",
)


class Ledger(Bare):
    """A bare installation that keeps book of every move of a row."""

    def keep_book(self) -> None:
        self.lane()
        self.lane("sure:bulk", known_ms=3_600_000)
        with self.database.transaction() as connection:
            for statement in KEEP_BOOK:
                connection.exec_driver_sql(statement)

    @property
    def moves(self) -> set[tuple[str, str]]:
        with self.database.engine.connect() as connection:
            return {
                (row.before, row.after) for row in connection.execute(text("SELECT * FROM moves"))
            }

    def brought_to(self, state: State, number: int, **values: object) -> int:
        """A new row, led to a state by the ledger's own functions."""
        held = {"state": State.HELD} if state is State.HELD else {}
        named = {"occasion": f"o{number}", "recipient": f"x{number}"}
        address = {"address": f"memory:t:u{number}"}
        self.rows(1, **named | address | held | values)
        id = max(row.id for row in self.all())
        if state in (State.HELD, State.QUEUED):
            return id
        with self.database.transaction() as connection:
            lane = str(values.get("lane", "memory:bulk"))
            claims.claim(connection, lane, "w", NOON, 1000)
            if state is State.LEASED:
                return id
            gate.gate(connection, [id], "w", NOON)
            if state is not State.SENDING:
                outcome = Outcome(id, state, tried=state is State.UNKNOWN, reason="window")
                gate.acknowledge(connection, "w", [outcome])
        return id


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path}/states.db")
    made.keep_book()
    yield made
    made.close()


def letter(ledger: Ledger) -> int:
    values = {"number": "B-1", "kind": "letter", "occasion": "b", "purpose": "letter"}
    with ledger.database.session() as session:
        campaign = Campaign(**values, title="", template="", created_at=NOON)
        session.add(campaign)
        session.flush()
        return campaign.id or 0


def test_a_move_that_the_table_does_not_name_is_refused(bare: Bare) -> None:
    bare.rows(1)
    with pytest.raises(DBAPIError), bare.database.transaction() as connection:
        connection.execute(text("UPDATE outbox SET state = 'read'"))
    assert bare.states() == {"queued": 1}


def test_every_move_of_the_table_is_made_and_no_other(ledger: Ledger) -> None:
    Drive(ledger).everything()
    assert ledger.moves == {(before, after) for before in State for after in TRANSITIONS[before]}


class Drive:
    """All that the ledger can do to rows."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._number = 0

    def everything(self) -> None:
        self._campaigns()
        self._gate()
        self._outcomes()
        self._workers()
        self._people()
        self._reports()

    def _rows(self, *states: State, **values: object) -> list[int]:
        found = []
        for state in states:
            self._number += 1
            found.append(self._ledger.brought_to(state, self._number, **values))
        return found

    def _in(self) -> Connection:
        return self._ledger.database.transaction()  # type: ignore[return-value]

    def _tried(self, *states: State, **values: object) -> None:
        """Rows that may have arrived, waiting again in these states."""
        ids = self._rows(*[State.SENDING] * len(states), lane="sure:bulk", **values)
        with self._in() as connection:
            for id, state in zip(ids, states, strict=True):
                again = State.DEFERRED if state is State.DEFERRED else State.QUEUED
                gate.acknowledge(connection, "w", [Outcome(id, again, tried=True)])
                if state is State.HELD:
                    self._state(connection, id, State.HELD)
                if state is State.LEASED:
                    claims.claim(connection, "sure:bulk", "w", NOON, 1000)

    def _state(self, connection: Connection, id: int, state: State) -> None:
        statement = mailbox.TABLE.update().where(mailbox.TABLE.c.id == id)
        connection.execute(statement.values(state=state))

    def _campaigns(self) -> None:
        number = letter(self._ledger)
        self._rows(*WAITING, campaign_id=number)
        with self._in() as connection:
            assert steering.hold(connection, number) == 3
            assert steering.resume(connection, number) == 4
            steering.cancel(connection, number)
        self._rows(*WAITING, campaign_id=number)
        self._tried(*WAITING, campaign_id=number)
        with self._in() as connection:
            steering.cancel(connection, number)
        self._rows(State.FAILED, State.DEAD, State.UNKNOWN, State.UNKNOWN, campaign_id=number)
        with self._in() as connection:
            steering.try_again(connection, number, [State.FAILED, State.DEAD])
            steering.try_again(connection, number, [State.UNKNOWN])
        self._rows(State.UNKNOWN, campaign_id=number)
        with self._in() as connection:
            steering.count_as_sent(connection, number)
        [sending] = self._rows(State.SENDING, campaign_id=number)
        with self._in() as connection:
            connection.execute(text("UPDATE campaign SET state = 'paused'"))
            gate.acknowledge(connection, "w", [Outcome(sending, State.QUEUED)])
            connection.execute(text("UPDATE campaign SET state = :c"), {"c": CampaignState.DONE})

    def _gate(self) -> None:
        leased = [
            *self._rows(State.LEASED, expires_at=NOON),
            *self._rows(State.LEASED, scope="profile"),
            *self._rows(State.LEASED, windowed=True),
        ]
        with self._in() as connection:
            assert gate.gate(connection, leased, "w", NOON) == set()

    def _outcomes(self) -> None:
        results: Sequence[State] = sorted(TRANSITIONS[State.SENDING])
        ids = self._rows(*[State.SENDING] * len(results))
        late = [state for state in results if state is not State.UNKNOWN]
        with self._in() as connection:
            for id, state in zip(ids, results, strict=True):
                gate.acknowledge(connection, "w", [Outcome(id, state)])
        ids = self._rows(*[State.UNKNOWN] * len(late))
        with self._in() as connection:
            for id, state in zip(ids, late, strict=True):
                gate.acknowledge(connection, "w", [Outcome(id, state)])
        [leased] = self._rows(State.LEASED)
        with self._in() as connection:
            claims.fail_leased(connection, "w", [leased], "render")
        self._rows(State.DEFERRED)
        with self._in() as connection:
            HotPath(connection).reopen([f"memory:t:u{self._number}"])

    def _workers(self) -> None:
        self._rows(State.LEASED, State.SENDING)
        with self._in() as connection:
            claims.sweep(connection, "other", TTL, alone=True)

    def _people(self) -> None:
        [person] = self._ledger.people(1)
        agreed = ConsentNow(person_id=person, scope="profile", live=True, version="1", at=NOON)
        with self._ledger.database.session() as session:
            session.add(agreed)
        self._rows(*WAITING, person_id=person, scope="profile")
        with self._in() as connection:
            steering.suppress_person(connection, person, "withdrawn")
        self._rows(State.AWAITING_STAFF, *WAITING, expires_at=NOON + HOUR)
        self._tried(*WAITING, expires_at=NOON + HOUR)
        with self._in() as connection:
            steering.expire_overdue(connection, NOON + HOUR)

    def _reports(self) -> None:
        [first, second, third, *asked] = self._rows(
            *[State.SENDING] * 3, *[State.AWAITING_STAFF] * 5
        )
        with self._in() as connection:
            for number, id in enumerate((first, second, third)):
                sent = Outcome(id, State.SENT, provider_id=f"m{number}")
                gate.acknowledge(connection, "w", [sent])
            gate.report(connection, "memory", "m0", State.DELIVERED)
            gate.report(connection, "memory", "m0", State.READ)
            gate.report(connection, "memory", "m1", State.READ)
            gate.report(connection, "memory", "m2", State.FAILED)
            told = (State.SENT, State.FAILED, State.CANCELLED, State.EXPIRED, State.SUPPRESSED)
            for id, state in zip(asked, told, strict=True):
                self._state(connection, id, state)
