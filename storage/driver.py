"""Statements in the driver's own words, for the few that run for every message or row.

SQLAlchemy's compiler and its row objects would cost as much as the work itself.
"""

from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert


def execute(connection: Connection, statement: str, arguments: Any) -> Any:
    """Run a statement with `?` for its arguments: a tuple, or a list of tuples for many rows."""
    if connection.dialect.name != "sqlite":
        statement = statement.replace("?", "%s")
    return connection.exec_driver_sql(statement, arguments)


def on_conflict_base(connection: Connection, table: Any) -> Any:
    """An INSERT that knows ON CONFLICT, in the connection's dialect."""
    return (sqlite_insert if connection.dialect.name == "sqlite" else pg_insert)(table)


def on_conflict_nothing(connection: Connection, table: Any) -> Any:
    """An INSERT that leaves a row alone which is there already."""
    return on_conflict_base(connection, table).on_conflict_do_nothing()


def database_millis(connection: Connection) -> int:
    """The database's own clock, so that replicas need not agree on theirs."""
    if connection.dialect.name == "sqlite":
        query = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    else:
        query = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
    return int(connection.execute(text(query)).scalar_one())
