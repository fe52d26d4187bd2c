"""Statements in the driver's own words behave as SQLAlchemy's do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from storage.columns import KeyRing
from storage.db import Database
from storage.driver import execute


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/words.db", KeyRing(KeyRing.generate()))
    with made.transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE said (word TEXT PRIMARY KEY)")
    yield made
    made.close()


def test_a_refused_statement_raises_what_sqlalchemy_raises_and_tells_no_value(
    database: Database,
) -> None:
    with pytest.raises(IntegrityError) as raised, database.transaction() as connection:
        execute(connection, "INSERT INTO said VALUES (?)", [("悄悄话",), ("悄悄话",)])
    assert "悄悄话" not in str(raised.value)
    with database.transaction() as connection:
        assert execute(connection, "SELECT word FROM said", ()).fetchall() == []


def test_whoever_listens_to_the_engine_hears_them(database: Database) -> None:
    heard: list[tuple[str, Any, bool]] = []

    def note(
        _c: object, _cursor: object, statement: str, values: Any, _x: object, many: bool
    ) -> None:
        heard.append((statement, values, many))

    with database.transaction() as connection:
        event.listen(database.engine, "before_cursor_execute", note)
        execute(connection, "SELECT word FROM said WHERE word = ?", ("雁",))
        event.remove(database.engine, "before_cursor_execute", note)
    assert heard == [("SELECT word FROM said WHERE word = ?", ("雁",), False)]


def test_outside_a_transaction_nothing_is_done(database: Database) -> None:
    with database.engine.connect() as connection, pytest.raises(AssertionError):
        execute(connection, "INSERT INTO said VALUES (?)", ("雁",))
