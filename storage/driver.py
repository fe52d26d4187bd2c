"""Statements in the driver's own words, for the few that run for every message or row.

SQLAlchemy's compiler, its execution and its row objects would cost more than the work itself.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Never

from sqlalchemy import Connection, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError


def execute(connection: Connection, statement: str, arguments: Any) -> Any:
    """Run a statement with `?` for its arguments: a tuple, or a list of tuples for many rows; or
    with names for them, as its driver has names: a mapping.

    Returns the driver's cursor, whose rows are tuples. Raises what SQLAlchemy would.
    """
    assert connection.in_transaction(), "outside a transaction the driver commits each statement"
    if connection.dialect.name != "sqlite" and not isinstance(arguments, dict):
        statement = statement.replace("?", "%s")
    cursor = connection.connection.cursor()
    many = isinstance(arguments, list)
    # Whoever listens to the engine's statements hears these too.
    for heard in connection.dispatch.before_cursor_execute:
        heard(connection, cursor, statement, arguments, None, many)
    try:
        if many:
            cursor.executemany(statement, arguments)
        else:
            cursor.execute(statement, arguments)
    except connection.dialect.loaded_dbapi.Error as error:
        _tell(connection, cursor, statement, error)
    for heard in connection.dispatch.after_cursor_execute:
        heard(connection, cursor, statement, arguments, None, many)
    return cursor


def run(connection: Connection, statement: Any, arguments: Mapping[str, Any]) -> Any:
    """Run one of SQLAlchemy's statements, which is put into the driver's words only once.

    The arguments are what the driver takes: moments in epoch ms, many numbers `packed`. Returns
    the driver's cursor, whose rows are tuples.
    """
    words, constants = _in_words(statement, connection.dialect.name)
    return execute(connection, words, {**constants, **arguments})


_NAMING: Mapping[str, Any] = {
    "sqlite": partial(sqlite.dialect, paramstyle="named"),
    "postgresql": psycopg.dialect,
}


@cache
def _in_words(statement: Any, dialect: str) -> tuple[str, Mapping[str, Any]]:
    compiled = statement.compile(dialect=_NAMING[dialect]())
    # A driver may know better than to take an enum's value for a string.
    constants = {k: str(v) if isinstance(v, str) else v for k, v in compiled.params.items()}
    return str(compiled), constants


def _tell(connection: Connection, cursor: Any, statement: str, error: Any) -> Never:
    """Raise the driver's error as SQLAlchemy's, and let a connection go that was lost."""
    dialect = connection.dialect
    driver: Any = connection.connection.dbapi_connection
    lost = dialect.is_disconnect(error, driver, cursor)
    if lost:
        connection.invalidate(error)
    # The arguments may be what a person wrote: no message of ours has them.
    told = DBAPIError.instance(
        statement,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )
    raise told from error


def on_conflict_base(connection: Connection, table: Any) -> Any:
    """An INSERT that knows ON CONFLICT, in the connection's dialect."""
    return (sqlite_insert if connection.dialect.name == "sqlite" else pg_insert)(table)


def on_conflict_nothing(connection: Connection, table: Any) -> Any:
    """An INSERT that leaves a row alone which is there already."""
    return on_conflict_base(connection, table).on_conflict_do_nothing()


_WAYS_OFF = ("jit", "enable_hashjoin", "enable_mergejoin")


@contextmanager
def looking_up(connection: Connection) -> Iterator[None]:
    """Have what is joined meanwhile looked up row by row, so that it costs what the rows asked for
    cost and not what the tables do; compiling such a statement would cost more than running it."""
    if connection.dialect.name == "sqlite":  # knows no other way
        yield
        return
    for way in _WAYS_OFF:
        connection.execute(text(f"SET LOCAL {way} = off"))
    yield
    for way in _WAYS_OFF:
        connection.execute(text(f"SET LOCAL {way} TO DEFAULT"))


def clock_of(connection: Connection) -> str:
    """The database's own clock in epoch ms, as SQL, so that replicas need not agree on theirs."""
    if connection.dialect.name == "sqlite":
        return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


def database_millis(connection: Connection) -> int:
    """What the database's own clock shows."""
    return int(connection.execute(text(f"SELECT {clock_of(connection)}")).scalar_one())
