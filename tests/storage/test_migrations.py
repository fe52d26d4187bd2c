"""Migrations lead from nothing, and from the release before, to what the code expects."""

import threading
from collections.abc import Iterator

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from storage.columns import KeyRing
from storage.db import Database, alembic_config
from storage.tables import METADATA


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, KeyRing("k1:0123456789abcdef0123"))
    yield made
    made.close()


def upgrade(database: Database, revision: str) -> None:
    with database.transaction() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def previous_head() -> str:
    scripts = ScriptDirectory.from_config(alembic_config())
    head = scripts.get_revision("head")
    assert isinstance(head.down_revision, str)
    return head.down_revision


def test_an_empty_database_becomes_what_the_code_expects(database: Database) -> None:
    database.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    assert database.current()


def test_the_partial_indexes_stay_partial(database: Database) -> None:
    database.migrate()
    indexes = inspect(database.engine).get_indexes("outbox")
    partial = {
        index["name"]
        for index in indexes
        if index.get("dialect_options", {}).get(f"{database.engine.dialect.name}_where") is not None
    }
    assert partial >= {"ix_outbox_ready", "ix_outbox_flight", "ix_outbox_deferred"}


def test_migrating_twice_is_migrating_once(database: Database) -> None:
    database.migrate()
    before = database.revision()
    database.migrate()
    assert database.revision() == before


def test_two_processes_may_migrate_at_once(database: Database) -> None:
    errors: list[Exception] = []

    def work() -> None:
        other = Database(database.url.render_as_string(hide_password=False), database.keys)
        try:
            other.migrate()
        except Exception as error:  # noqa: BLE001  # reported below
            errors.append(error)
        other.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert database.current()


def test_rows_of_the_release_before_survive(database: Database) -> None:
    upgrade(database, previous_head())
    with database.transaction() as connection:
        connection.execute(text("INSERT INTO person (id, created_at) VALUES (7, 0)"))
    database.migrate()
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM person")).scalars().all() == [7]
    assert database.current()
