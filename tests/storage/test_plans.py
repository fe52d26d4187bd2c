"""What runs for every batch finds its rows by an index, however long the outbox has grown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from storage import claims, gate, upkeep
from storage.gate import Outcome
from storage.states import State
from tests.bare import NOON, Bare


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    made = Bare(f"sqlite:///{tmp_path}/bare.db")
    made.lane()
    yield made
    made.close()


@contextmanager
def heard(bare: Bare, said: list[str]) -> Iterator[Connection]:
    """A transaction whose statements are noted, with their values written out."""
    with bare.database.transaction() as connection:
        connection.connection.driver_connection.set_trace_callback(said.append)  # type: ignore[union-attr]
        yield connection
        connection.connection.driver_connection.set_trace_callback(None)  # type: ignore[union-attr]


def indexes_of(bare: Bare, statement: str) -> set[str]:
    """The indexes by which a statement finds its rows."""
    with bare.database.engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
    return {step.split(" INDEX ")[1].split()[0] for step in plan if " INDEX " in step}


def round_of(bare: Bare) -> list[str]:
    """The statements of one round of a worker."""
    said: list[str] = []
    with heard(bare, said) as connection:
        lanes = claims.due_lanes(connection, NOON)
        rows = claims.claim(connection, lanes[0], "w", NOON, 3)
        passed = gate.gate(connection, [row.id for row in rows], "w", NOON)
        gate.gate(connection, [row.id for row in rows], "w", NOON)  # turned away
        gate.acknowledge(connection, "w", [Outcome(id, State.SENT) for id in passed])
    return said


def test_a_round_reads_the_outbox_only_by_indexes(bare: Bare) -> None:
    bare.rows(3)
    said = [statement for statement in round_of(bare) if "outbox" in statement]
    with bare.database.engine.connect() as connection:
        plans = {
            statement: [
                row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")
            ]
            for statement in said
            if not statement.startswith("--")  # what a trigger does
        }
    assert len(plans) >= 5
    scans = {
        statement: plan
        for statement, plan in plans.items()
        if any(step.startswith("SCAN outbox") for step in plan)
    }
    assert scans == {}


def test_a_claim_finds_what_is_ready_and_in_flight_by_their_own_indexes(bare: Bare) -> None:
    bare.rows(3)
    claim = next(said for said in round_of(bare) if "SET state = 'leased'" in said)
    assert {"ix_outbox_ready", "ix_outbox_flight"} <= indexes_of(bare, claim)


def test_old_bodies_are_found_by_their_own_index(bare: Bare) -> None:
    bare.rows(3)
    said: list[str] = []
    with heard(bare, said) as connection:
        upkeep.forget_bodies(connection, NOON, 9)
    assert "ix_outbox_body_over" in indexes_of(bare, said[0])
