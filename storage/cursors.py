"""How far we have read what a platform keeps for us; moved in the transaction of what was read."""

from datetime import datetime

from sqlalchemy import Connection
from sqlmodel import Field, SQLModel, col, select

from storage.columns import UtcDateTime
from storage.driver import on_conflict_base


class Cursor(SQLModel, table=True):
    """One place to read on from, by name."""

    name: str = Field(primary_key=True)
    value: str
    at: datetime = Field(sa_type=UtcDateTime)


def read_cursor(connection: Connection, name: str) -> str:
    """Where to read on; an empty text at the very beginning."""
    return (
        connection.execute(select(col(Cursor.value)).where(col(Cursor.name) == name)).scalar() or ""
    )


def move_cursor(connection: Connection, name: str, value: str, now: datetime) -> None:
    """Remember where to read on."""
    table = Cursor.__table__  # type: ignore[attr-defined]  # SQLModel sets it
    statement = on_conflict_base(connection, table).values(name=name, value=value, at=now)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[col(Cursor.name)], set_={"value": value, "at": now}
        )
    )


def hold_cursor(connection: Connection, name: str, now: datetime) -> str:
    """Where to read on, held until the transaction ends: nobody else moves it meanwhile."""
    table = Cursor.__table__  # type: ignore[attr-defined]  # SQLModel sets it
    statement = on_conflict_base(connection, table).values(name=name, value="", at=now)
    held = statement.on_conflict_do_update(index_elements=[col(Cursor.name)], set_={"at": now})
    value: str = connection.execute(held.returning(col(Cursor.value))).scalar_one()
    return value
