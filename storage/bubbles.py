"""What a channel remembers of bubbles it has shown: what a button says, which one to renew."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, or_, select, update
from sqlmodel import Field, SQLModel, col

from storage.columns import EncryptedText, UtcDateTime
from storage.driver import on_conflict_base

TWICE = timedelta(seconds=10)
"""A second press within this is the same press: people tap again while they wait."""


class Button(SQLModel, table=True):
    """A button behind a short random key. `owner` is the keyed digest of who may press it."""

    key: str = Field(primary_key=True)
    owner: str
    value: str = Field(sa_type=EncryptedText)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
    pressed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    press: str = ""


class Bubble(SQLModel, table=True):
    """The platform's id of the bubble that stands for a topic at an address (as a digest)."""

    owner: str = Field(primary_key=True)
    topic: str = Field(primary_key=True)
    message: str
    at: datetime = Field(sa_type=UtcDateTime)


@dataclass(frozen=True, slots=True)
class Press:
    """What became of a press: the button's `value`, or why it is refused (`expired`, `again`)."""

    value: str = ""
    refused: str = ""


def keep_buttons(
    connection: Connection, owner: str, buttons: Sequence[tuple[str, str]], expires_at: datetime
) -> None:
    """Remember buttons as (key, value)."""
    rows = [
        {"key": key, "owner": owner, "value": value, "expires_at": expires_at, "press": ""}
        for key, value in buttons
    ]
    if rows:
        connection.execute(insert(Button), rows)


def press_button(connection: Connection, key: str, owner: str, press: str, now: datetime) -> Press:
    """Press a button; the same `press` may be told again, another within a moment is refused.

    Somebody else's button is answered like one that is gone, so that nobody learns of it.
    """
    taken = connection.execute(
        update(Button)
        .where(
            col(Button.key) == key,
            col(Button.owner) == owner,
            col(Button.expires_at) > now,
            or_(
                col(Button.pressed_at).is_(None),
                col(Button.pressed_at) <= now - TWICE,
                col(Button.press) == press,
            ),
        )
        .values(pressed_at=now, press=press)
        .returning(col(Button.value))
    ).first()
    if taken is not None:
        return Press(taken.value)
    there = connection.execute(
        select(col(Button.key)).where(
            col(Button.key) == key, col(Button.owner) == owner, col(Button.expires_at) > now
        )
    ).first()
    return Press(refused="expired" if there is None else "again")


def bubble_of(connection: Connection, owner: str, topic: str) -> str | None:
    """The bubble that a newer one of this topic replaces."""
    return connection.execute(
        select(col(Bubble.message)).where(col(Bubble.owner) == owner, col(Bubble.topic) == topic)
    ).scalar_one_or_none()


def keep_bubble(
    connection: Connection, owner: str, topic: str, message: str, now: datetime
) -> None:
    """Remember the bubble of a topic."""
    statement = on_conflict_base(connection, Bubble)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["owner", "topic"],
            set_={"message": statement.excluded.message, "at": statement.excluded.at},
        ),
        [{"owner": owner, "topic": topic, "message": message, "at": now}],
    )


def forget_bubbles(connection: Connection, now: datetime, bubbles_before: datetime) -> int:
    """Forget buttons that have expired and bubbles nobody will renew; returns how many."""
    gone = connection.execute(delete(Button).where(col(Button.expires_at) <= now)).rowcount
    return gone + connection.execute(delete(Bubble).where(col(Bubble.at) < bubbles_before)).rowcount
