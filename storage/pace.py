"""How fast one chat is written to, kept where every process that sends can see it."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import BigInteger, Connection
from sqlmodel import Field, SQLModel, col, delete, select

from storage.columns import to_millis
from storage.driver import execute, on_conflict_base

LONGEST_MS = 3_600_000
"""No chat is silent for longer: a moment further off was reckoned by a clock since set back."""


class ChatPace(SQLModel, table=True):
    """One chat (the keyed digest of its address): when it may next be written to (epoch ms), and
    where a count of messages is kept too, when the last of them left, oldest first.
    """

    __tablename__ = "chat_pace"

    chat: str = Field(primary_key=True)
    free_at: int = Field(sa_type=BigInteger)
    recent: str = ""


# For every message that leaves: written out once, in the driver's own words.
_TAKE = (
    "INSERT INTO chat_pace (chat, free_at, recent) VALUES {} ON CONFLICT (chat) "
    "DO UPDATE SET free_at = excluded.free_at, recent = excluded.recent "
    "WHERE chat_pace.free_at <= ? OR chat_pace.free_at > ? RETURNING chat"
)


def take_turns(
    connection: Connection, chats: Iterable[str], now: datetime, gap_ms: int
) -> frozenset[str]:
    """Take the next turn of each of these chats that is free, in one statement; returns those."""
    # In one order, or two processes could wait for one another.
    wanted = sorted(set(chats))
    if not wanted:
        return frozenset()
    clock = to_millis(now)
    values = [value for chat in wanted for value in (chat, clock + gap_ms, "")]
    statement = _TAKE.format(", ".join(["(?, ?, ?)"] * len(wanted)))
    arguments = (*values, clock, clock + LONGEST_MS)
    return frozenset(chat for (chat,) in execute(connection, statement, arguments))


def take_turn(
    connection: Connection,
    chat: str,
    now: datetime,
    gap_ms: int,
    most: tuple[int, int] | None = None,
) -> int:
    """Take a chat's next turn; returns 0, or for how many ms it is not free (nothing was taken).

    `most` is (messages, ms): in any span of that length no more than so many.
    """
    clock = to_millis(now)
    recent: list[int] = []
    if most is not None:
        recent = _recent(connection, chat)[-most[0] :]
        wait = recent[0] + most[1] - clock if len(recent) == most[0] else 0
        if 0 < wait <= LONGEST_MS:
            return wait
        recent = [*recent, clock][-most[0] :]
    latest = clock + LONGEST_MS
    kept = ",".join(str(at) for at in recent)
    if execute(
        connection, _TAKE.format("(?, ?, ?)"), (chat, clock + gap_ms, kept, clock, latest)
    ).fetchall():
        return 0
    free_at = connection.execute(
        select(col(ChatPace.free_at)).where(col(ChatPace.chat) == chat)
    ).scalar_one()
    return max(1, int(free_at) - clock)


def leave_alone(connection: Connection, chat: str, now: datetime, ms: int) -> None:
    """Take no turn of a chat before so many ms have passed, as its platform asked."""
    free_at = to_millis(now) + min(ms, LONGEST_MS)
    statement = on_conflict_base(connection, ChatPace).values(chat=chat, free_at=free_at, recent="")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["chat"],
            set_={"free_at": free_at},
            where=col(ChatPace.free_at) < free_at,
        )
    )


def forget_paces(connection: Connection, now: datetime) -> int:
    """Forget the chats that have been free for an hour; returns how many."""
    before = to_millis(now) - LONGEST_MS
    return connection.execute(delete(ChatPace).where(col(ChatPace.free_at) < before)).rowcount


def _recent(connection: Connection, chat: str) -> list[int]:
    found = connection.execute(
        select(col(ChatPace.recent)).where(col(ChatPace.chat) == chat).with_for_update()
    ).scalar()
    return [int(at) for at in found.split(",")] if found else []
