"""The engine, and the one place that commits."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlmodel import Session

from storage.columns import KeyRing

OPENING = 10.0  # seconds we wait for somebody else who opens a new file too
LOG = 4000  # pages of 4 kB
"""So long SQLite's log grows before it is taken over into the file, where each page is then written
once, however often it changed. Among a million members everybody changes pages of their own, with
each answer to a form the same ones; SQLite's own 1,000 pages end after 300 messages. Who comes
while it is taken over waits: with many more pages for long."""
MIGRATION_LOCK = 20221509  # any number that only our migrations take
PATIENCE = {"connect_timeout": 3, "tcp_user_timeout": 5000}
"""What libpq is told unless the address says otherwise: seconds, and milliseconds. Without it a
machine that has vanished is waited for until TCP gives up, after a quarter of an hour."""
AWAY = ("08", "25006", "53", "57P", "58")
"""Beginnings of the SQLSTATEs of a PostgreSQL that cannot write now: connection, a standby's
read-only transaction, no room or too many connections, shutting down, its disk."""
GIVEN_WAY = "40"
"""Beginning of the SQLSTATEs of a transaction that was rolled back for another one: a deadlock."""
AWAY_SQLITE = ("FULL", "IOERR", "BUSY", "LOCKED", "CANTOPEN", "READONLY")


class Database:
    """SQLite or PostgreSQL behind a URL, with the keys that open its encrypted columns.

    On SQLite one lock orders this process's writers: waiting on it is fair and prompt, waiting
    for SQLite's own busy handler is neither.
    """

    def __init__(
        self, url: str | URL, keys: KeyRing, *, pool_size: int = 8, asked_first: bool = True
    ) -> None:
        self.url = make_url(url)
        self.keys = keys
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self._committed = [0]
        self.turn: AbstractContextManager[object] = (
            threading.RLock() if self.sqlite else nullcontext()
        )
        self._steady: Database | None = None
        self.engine = self._engine(pool_size, asked_first)

    @property
    def commits(self) -> int:
        """How many transactions were committed."""
        return self._committed[0]

    @property
    def steady(self) -> "Database":
        """The same database, for whoever says the same few statements all the time.

        On PostgreSQL by connections of its own, that keep the statements prepared (psycopg forgets
        all of them at each ROLLBACK, which is how reading ends) and are not asked whether they
        live before each use: whoever works with them tries again anyway.
        """
        if self.sqlite:
            return self
        if self._steady is None:
            self._steady = Database(self.url, self.keys, pool_size=2, asked_first=False)
            self._steady._committed = self._committed
        return self._steady

    def _engine(self, pool_size: int, asked_first: bool) -> Engine:
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 4}
        if self.sqlite:
            _make_private(self.url.database)
            options["connect_args"] = {"check_same_thread": False, "timeout": 10}
        else:
            options["pool_pre_ping"] = asked_first
            options["connect_args"] = {
                name: value for name, value in PATIENCE.items() if name not in self.url.query
            }
        engine = create_engine(self.url, **options)
        engine.dialect.hongyan_keys = self.keys  # type: ignore[attr-defined]  # read in columns.py
        if self.sqlite:
            event.listen(engine, "connect", _tell_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A writing transaction: committed at the end, rolled back on any exception."""
        with self.turn, self.writer() as connection, connection.begin():
            yield connection
        self.committed()

    def writer(self) -> Connection:
        """A connection whose transactions write: each begins in its turn, under `turn`."""
        return self.engine.connect().execution_options(hongyan_writes=True)

    def committed(self) -> None:
        """Count a transaction that was committed."""
        self._committed[0] += 1

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A writing transaction as an ORM session."""
        with self.transaction() as connection, attached(connection) as session:
            yield session
            session.flush()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads; whatever it changed is thrown away."""
        with self.engine.connect() as connection, attached(connection) as session:
            yield session

    def migrate(self) -> None:
        """Bring the tables to this version; safe to repeat and to run from several processes."""
        with self.transaction() as connection:
            if not self.sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def revision(self) -> str | None:
        """The migration the tables stand at; None for an empty database."""
        with self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def current(self) -> bool:
        """Do the tables stand where this version expects them?"""
        return self.revision() == ScriptDirectory.from_config(alembic_config()).get_current_head()

    def newer(self) -> bool:
        """Do the tables stand at a migration that this version does not know?"""
        revision = self.revision()
        known = ScriptDirectory.from_config(alembic_config()).walk_revisions()
        return revision is not None and revision not in {script.revision for script in known}

    def close(self) -> None:
        """Give all connections back."""
        if self._steady is not None:
            self._steady.close()
        self.engine.dispose()


class Kept:
    """A connection that is not given back between transactions: taking and returning one costs as
    much as a short transaction itself."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A writing transaction: committed at the end, rolled back on any exception."""
        with self._database.turn:
            try:
                with self._connection().begin():
                    yield self._connection()
            except BaseException:
                # A COMMIT that failed may have left it in the middle: nobody is to have it again.
                if self._kept is not None:
                    self._kept.invalidate()
                self.close()
                raise
        self._database.committed()

    @contextmanager
    def unhurried(self) -> Iterator[Connection]:
        """The same for what may be forgotten if the machine stops: its end waits for no disk.

        What anybody commits later is never on the disk without it.
        """
        with self._database.turn:
            self._wait_for_disk("NORMAL")
            try:
                with self.transaction() as connection:
                    if not self._database.sqlite:
                        connection.execute(text("SET LOCAL synchronous_commit TO off"))
                    yield connection
            finally:
                if self._kept is not None:  # one in trouble is gone, and a new one waits anyway
                    self._wait_for_disk("FULL")

    def _wait_for_disk(self, how: str) -> None:
        if self._database.sqlite:  # not to be said within a transaction
            driver: Any = self._connection().connection.dbapi_connection
            driver.execute(f"PRAGMA synchronous={how}")

    def _connection(self) -> Connection:
        if self._kept is None:
            self._kept = self._database.writer()
        return self._kept

    def close(self) -> None:
        """Give it back; the next transaction takes another."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def away(error: BaseException) -> bool:
    """Does this say that the database cannot be written to now, whatever is asked of it?"""
    if isinstance(error, NoConnection | InterfaceError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    told = getattr(error.orig, "sqlite_errorname", None)
    if told is not None:
        return str(told).removeprefix("SQLITE_").startswith(AWAY_SQLITE)
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        return isinstance(error, OperationalError)
    return str(state).startswith(AWAY)


def passing(error: BaseException) -> bool:
    """Does this say nothing about what was asked, which may succeed the next time?"""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return away(error) or str(state).startswith(GIVEN_WAY)


@contextmanager
def attached(connection: Connection) -> Iterator[Session]:
    """An ORM session on a connection whose transaction somebody else ends."""
    with Session(
        bind=connection, join_transaction_mode="rollback_only", expire_on_commit=False
    ) as session:
        yield session


def alembic_config() -> Config:
    """Where the migrations are; the connection is put into its attributes."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _make_private(path: str | None) -> None:
    """A new SQLite file is for its owner only; SQLite gives its journals the same mode."""
    if path and path != ":memory:" and not Path(path).exists():
        with suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _tell_sqlite(connection: Any, _record: object) -> None:
    """Take transactions away from Python's driver and set what durability needs.

    Left to itself the driver begins late and lets a SAVEPOINT commit by itself.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    _turn_to_wal(cursor)
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=10000",
        "secure_delete=ON",
        f"wal_autocheckpoint={LOG}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _turn_to_wal(cursor: Any) -> None:
    """Of two that open a new file at once SQLite lets one wait for everything but this."""
    until = time.monotonic() + OPENING
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("hongyan_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
