"""Statements in the driver's own words, for the few that run for every message or row.

SQLAlchemy's compiler and its row objects would cost as much as the work itself.
"""

from typing import Any

from sqlalchemy import Connection


def execute(connection: Connection, statement: str, arguments: Any) -> Any:
    """Run a statement with `?` for its arguments: a tuple, or a list of tuples for many rows."""
    if connection.dialect.name != "sqlite":
        statement = statement.replace("?", "%s")
    return connection.exec_driver_sql(statement, arguments)
