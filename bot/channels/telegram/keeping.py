"""What the channel keeps in tables: buttons, bubbles, turns, its lease and its own address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from bot.channels.telegram.reading import CHANNEL
from bot.clock import Clock
from bot.context import Services
from bot.errors import SendError
from bot.messages import Address
from storage import bubbles, doors, groups, leases, pace

BUTTON_LIFE = timedelta(days=30)
BUBBLE_LIFE = timedelta(days=90)
TIDY = timedelta(hours=1)

T = TypeVar("T")


class Keeping:
    """Each call is a thread's work and one transaction. Before a message leaves, a database in
    trouble is a SendError after which it may be tried again.
    """

    def __init__(self, services: Services, clock: Clock) -> None:
        self._services = services
        self._clock = clock
        self._tidied = clock.now() - TIDY

    # - before a message leaves -

    async def keep_buttons(self, owner: Address, buttons: Sequence[tuple[str, str]]) -> None:
        """Remember what buttons say, as (key, value), for a month."""
        await _or_later(self._keep_buttons, owner, buttons)

    async def bubble(self, owner: Address, topic: str) -> str | None:
        """The platform's number of the bubble of a topic."""
        return await _or_later(self._bubble, owner, topic)

    async def take_turn(self, chat: str, gap: float, most: tuple[int, int] | None) -> float:
        """See `bot.channels.telegram.pace.Turns`."""
        return await _or_later(self._take_turn, chat, round(gap * 1000), most)

    async def leave_alone(self, chat: str, seconds: float) -> None:
        """See `bot.channels.telegram.pace.Turns`."""
        await _or_later(self._leave_alone, chat, round(seconds * 1000))

    async def move(self, old: Address, new: Address) -> None:
        """A group has become another one."""
        await _or_later(self._move, old, new)

    # - after it has left, and between messages; these raise what the database raises -

    async def keep_bubble(self, owner: Address, topic: str, number: str) -> None:
        """Remember the bubble of a topic."""
        await asyncio.to_thread(self._keep_bubble, owner, topic, number)

    async def press(self, owner: Address, key: str, query: str) -> bubbles.Press:
        """Press a button."""
        return await asyncio.to_thread(self._press, owner, key, query)

    async def take_lease(self, name: str, holder: str, ttl: timedelta) -> bool:
        """Be the one who polls, or go on being it."""
        return await asyncio.to_thread(self._take_lease, name, holder, ttl)

    async def give_back(self, name: str, holder: str) -> None:
        """Let another replica poll at once."""
        await asyncio.to_thread(self._give_back, name, holder)

    async def keep_door(self, address: str) -> None:
        """Remember where people come in."""
        await asyncio.to_thread(self._keep_door, address)

    # - in the thread -

    def _owner(self, address: Address | str) -> str:
        return self._services.keys.digest(str(address))

    def _keep_buttons(self, owner: Address, buttons: Sequence[tuple[str, str]]) -> None:
        now = self._clock.now()
        with self._services.database.transaction() as connection:
            if now - self._tidied >= TIDY:
                self._tidied = now
                bubbles.forget_bubbles(connection, now, now - BUBBLE_LIFE)
                pace.forget_paces(connection, now)
            bubbles.keep_buttons(connection, self._owner(owner), buttons, now + BUTTON_LIFE)

    def _press(self, owner: Address, key: str, query: str) -> bubbles.Press:
        with self._services.database.transaction() as connection:
            return bubbles.press_button(
                connection, key, self._owner(owner), query, self._clock.now()
            )

    def _bubble(self, owner: Address, topic: str) -> str | None:
        with self._services.database.reading() as session:
            return bubbles.bubble_of(session.connection(), self._owner(owner), topic)

    def _keep_bubble(self, owner: Address, topic: str, number: str) -> None:
        with self._services.database.transaction() as connection:
            bubbles.keep_bubble(connection, self._owner(owner), topic, number, self._clock.now())

    def _take_turn(self, chat: str, gap_ms: int, most: tuple[int, int] | None) -> float:
        now = self._clock.now()
        with self._services.database.transaction() as connection:
            return pace.take_turn(connection, self._owner(chat), now, gap_ms, most) / 1000

    def take_turns(self, connection: Connection, chats: Sequence[str], gap: float) -> set[str]:
        """Those of the chats whose turn was free and is taken, in somebody's transaction."""
        owners = {self._owner(chat): chat for chat in chats}
        free = pace.take_turns(connection, owners, self._clock.now(), round(gap * 1000))
        return {owners[owner] for owner in free}

    def _leave_alone(self, chat: str, ms: int) -> None:
        with self._services.database.transaction() as connection:
            pace.leave_alone(connection, self._owner(chat), self._clock.now(), ms)

    def _move(self, old: Address, new: Address) -> None:
        with self._services.database.transaction() as connection:
            groups.move_group(connection, str(old), str(new))

    def _take_lease(self, name: str, holder: str, ttl: timedelta) -> bool:
        with self._services.database.transaction() as connection:
            return leases.take(connection, name, holder, ttl)

    def _give_back(self, name: str, holder: str) -> None:
        with self._services.database.transaction() as connection:
            leases.give_back(connection, name, holder)

    def _keep_door(self, address: str) -> None:
        with self._services.database.transaction() as connection:
            doors.keep_door(connection, CHANNEL, address, f"{address}?start=", self._clock.now())


async def _or_later(work: Callable[..., T], *arguments: object) -> T:
    try:
        return await asyncio.to_thread(work, *arguments)
    except SQLAlchemyError as error:
        raise SendError("database", detail=type(error).__name__) from None
