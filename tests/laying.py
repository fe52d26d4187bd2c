"""Empty installations, copied from one laid earlier: making the tables takes half a second."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import create_mock_engine

from storage.columns import KeyRing
from storage.db import Database
from storage.tables import METADATA
from tests.watching import ON_POSTGRESQL, ON_SQLITE


def lay_tables(database: Database) -> None:
    """This version's tables in an empty database, not stamped with a migration."""
    if _copied(database, migrated=False):
        return
    if database.sqlite:
        METADATA.create_all(database.engine)
        _guard(database)
    else:
        with database.engine.begin() as connection:
            # Another process of the same trial may have laid them.
            if not connection.exec_driver_sql("SELECT to_regclass('outbox')").scalar_one():
                connection.exec_driver_sql(_script())


def migrate(database: Database) -> None:
    """What `hongyan migrate` makes of an empty database."""
    if not _copied(database, migrated=True):
        database.migrate()


def _copied(database: Database, *, migrated: bool) -> bool:
    name = database.url.database if database.sqlite else None
    if not name or name == ":memory:" or Path(name).stat().st_size:
        return False
    Path(name).write_bytes(_laid(migrated))
    return True


@cache
def _script() -> str:
    """PostgreSQL's statements as one: nothing is asked of each table."""
    statements: list[str] = []

    def keep(statement: Any, *_: object, **_options: object) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)).replace("%%", "%"))

    engine = create_mock_engine("postgresql+psycopg://", keep)
    METADATA.create_all(engine, checkfirst=False)
    return ";\n".join([*statements, ON_POSTGRESQL.replace("%", "%%")] if _testing() else statements)


def _guard(database: Database) -> None:
    if _testing():
        with database.engine.begin() as connection:
            connection.exec_driver_sql(ON_SQLITE)


def _testing() -> bool:
    """Benchmarks measure the database as people have it."""
    return "PYTEST_CURRENT_TEST" in os.environ


@cache
def _laid(migrated: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "laid.db"
        database = Database(f"sqlite:///{path}", KeyRing("k1:0123456789abcdef0123456789abcdef"))
        if migrated:
            database.migrate()
        else:
            METADATA.create_all(database.engine)
        _guard(database)
        database.close()
        return path.read_bytes()
