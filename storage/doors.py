"""Where a channel lets people in: the address that opens a private chat with us."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection
from sqlmodel import Field, SQLModel, col, select

from storage.columns import UtcDateTime
from storage.driver import on_conflict_base


class Door(SQLModel, table=True):
    """A channel's way in: a plain address, and one behind which a code may be set."""

    channel: str = Field(primary_key=True)
    address: str
    coded: str
    at: datetime = Field(sa_type=UtcDateTime)


def keep_door(
    connection: Connection, channel: str, address: str, coded: str, now: datetime
) -> None:
    """Remember a channel's way in, as its platform has just told."""
    statement = on_conflict_base(connection, Door).values(
        channel=channel, address=address, coded=coded, at=now
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["channel"], set_={"address": address, "coded": coded, "at": now}
        )
    )


def doors(connection: Connection, channels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Of these channels those that let people in: name → (plain address, address for a code)."""
    rows = connection.execute(
        select(col(Door.channel), col(Door.address), col(Door.coded)).where(
            col(Door.channel).in_(channels)
        )
    )
    return {channel: (address, coded) for channel, address, coded in rows}
