"""Conversations on a platform that keeps the messages for us: who leads one, and what came in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, select, update
from sqlmodel import Field, SQLModel, col

from storage.columns import EncryptedText, UtcDateTime, personal
from storage.cursors import hold_cursor, move_cursor
from storage.driver import on_conflict_base, on_conflict_nothing
from storage.hotpath import HotPath
from storage.mailbox import INBOX
from storage.people import Contact

IN_TOUCH = "收发消息"


class Led(StrEnum):
    """Who leads a conversation: the bot, nobody yet (somebody is waited for), a person, none."""

    BOT = "bot"
    QUEUE = "queue"
    PERSON = "person"
    ENDED = "ended"


class Conversation(SQLModel, table=True):
    """One member's conversation with one account; no row: the bot leads it.

    `pass_code` lets one message out while nobody has written yet, until `pass_until`.
    """

    __table_args__ = {"info": {"erase": "delete"}}

    address: str = Field(primary_key=True, sa_column_kwargs=personal(IN_TOUCH, "客服会话里的标识"))
    person_id: int | None = Field(default=None, foreign_key="person.id", index=True)
    led: str = Led.BOT
    seen_at: datetime = Field(sa_type=UtcDateTime)
    pass_code: str = ""
    pass_until: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Taken(SQLModel, table=True):
    """A message taken over from the platform and not answered yet; `body` is what it gave us."""

    __tablename__ = "taken_message"
    __table_args__ = {"info": {"erase": "delete"}}

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    channel: str = Field(index=True)
    person_id: int | None = Field(default=None, foreign_key="person.id", index=True)
    body: str = Field(
        sa_type=EncryptedText, sa_column_kwargs=personal(IN_TOUCH, "刚收到、还没有办的话")
    )
    at: datetime = Field(sa_type=UtcDateTime)


_TAKEN: Any = Taken.__table__  # type: ignore[attr-defined]  # SQLModel sets it
_TALKS: Any = Conversation.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Letter:
    """One message of a batch: the inbox key it will have, who wrote, and its body (JSON)."""

    key: str
    address: str
    body: str


# - taking over -


def take_over(
    connection: Connection,
    channel: str,
    cursor: tuple[str, str, str],
    letters: Sequence[Letter],
    now: datetime,
) -> bool:
    """Keep a batch and move the cursor `(name, from, to)` with it; False if somebody was quicker.

    Of two who read on from the same place only one takes the batch.
    """
    name, start, end = cursor
    if hold_cursor(connection, name, now) != start:
        return False
    people = {
        address: person
        for address, (_contact, person) in HotPath(connection)
        .contacts(sorted({letter.address for letter in letters}))
        .items()
    }
    rows = [
        {
            "key": letter.key,
            "channel": channel,
            "person_id": people.get(letter.address),
            "body": letter.body,
            "at": now,
        }
        for letter in letters
    ]
    if rows:
        connection.execute(on_conflict_nothing(connection, _TAKEN), rows)
    move_cursor(connection, name, end, now)
    return True


def waiting(connection: Connection, channel: str, most: int = 100) -> list[tuple[int, str, str]]:
    """(id, key, body) of what was taken over and is still to be answered, oldest first."""
    rows = connection.execute(
        select(_TAKEN.c.id, _TAKEN.c.key, _TAKEN.c.body)
        .where(_TAKEN.c.channel == channel)
        .order_by(_TAKEN.c.id)
        .limit(most)
    )
    return [(id, key, body) for id, key, body in rows]


def answered(connection: Connection, ids: Sequence[int]) -> None:
    """Messages that were taken over are done with."""
    if ids:
        connection.execute(delete(_TAKEN).where(_TAKEN.c.id.in_(ids)))


def recall(connection: Connection, key: str) -> bool:
    """Forget what a member has taken back; True if nobody had read it yet."""
    unread = connection.execute(delete(_TAKEN).where(_TAKEN.c.key == key)).rowcount
    connection.execute(update(INBOX).where(INBOX.c.key == key).values(reply=None))
    return bool(unread)


# - who leads -


@dataclass(frozen=True, slots=True)
class Standing:
    """Who leads a conversation, since when we know, and whether a greeting may still leave."""

    led: Led = Led.BOT
    since: datetime | None = None
    may_greet: bool = False


def standings(connection: Connection, addresses: Sequence[str]) -> dict[str, Standing]:
    """How each conversation stands; those that the bot leads since ever are left out."""
    rows = connection.execute(
        select(_TALKS.c.address, _TALKS.c.led, _TALKS.c.seen_at, _TALKS.c.pass_code).where(
            _TALKS.c.address.in_(addresses)
        )
    )
    return {
        address: Standing(Led(led), seen_at, bool(code)) for address, led, seen_at, code in rows
    }


def lead(connection: Connection, address: str, led: Led, now: datetime) -> None:
    """Note who leads a conversation; handed back to the bot, what waited for that may leave."""
    _note(connection, address, {"led": led, "seen_at": now})
    if led is Led.BOT:
        HotPath(connection).reopen([address])


def open_pass(
    connection: Connection, address: str, code: str, until: datetime, now: datetime
) -> None:
    """One message may leave by this code until a moment."""
    _note(connection, address, {"seen_at": now, "pass_code": code, "pass_until": until})


def use_pass(connection: Connection, address: str, now: datetime) -> str:
    """The code of a message that may leave now, taken so that it serves once; "" without one."""
    mine = (_TALKS.c.address == address, _TALKS.c.pass_code != "")
    code = connection.execute(
        select(_TALKS.c.pass_code).where(*mine, _TALKS.c.pass_until > now).with_for_update()
    ).scalar()
    connection.execute(update(_TALKS).where(*mine).values(pass_code="", pass_until=None))
    return str(code or "")


def _note(connection: Connection, address: str, values: dict[str, Any]) -> None:
    person = connection.execute(
        select(col(Contact.person_id)).where(col(Contact.address) == address)
    ).scalar()
    new = {"led": Led.BOT, "pass_code": "", "pass_until": None, **values, "person_id": person}
    statement = on_conflict_base(connection, _TALKS).values(address=address, **new)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[_TALKS.c.address], set_={**values, "person_id": person}
        )
    )


def forget_conversations(connection: Connection, before: datetime) -> int:
    """Forget conversations that nothing was heard of since a moment."""
    return connection.execute(delete(_TALKS).where(_TALKS.c.seen_at < before)).rowcount


def forget_taken(connection: Connection, before: datetime) -> int:
    """Forget what was taken over before a moment and could never be answered."""
    return connection.execute(delete(_TAKEN).where(_TAKEN.c.at < before)).rowcount
