"""How fast one chat may be written to, and how long the platform asked it to be left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from bot.clock import Clock
from bot.errors import SendError

Sleep = Callable[[float], Awaitable[None]]

# core.telegram.org/bots/faq: avoid more than one message a second in a chat, and no more than
# twenty a minute in a group. The little more keeps jitter on the way from making it less.
CHAT_GAP = 1.05
GROUP_MOST = (20, 60_500)
PATIENCE = 5.0  # seconds a call may wait here; a longer wait is the outbox's
LONGEST = 3600.0  # a clock that was set back must not silence a chat
REMEMBERED = 2000  # chats; those that are free are forgotten when there are more


class Turns(Protocol):
    """Turns by chat that all replicas share; both calls may raise SendError."""

    async def take_turn(self, chat: str, gap: float, most: tuple[int, int] | None) -> float:
        """Take a turn; returns 0, or for how many seconds there is none."""

    async def leave_alone(self, chat: str, seconds: float) -> None:
        """Let nobody take a turn for so long."""


class Pace:
    """Turns by chat. The table counts from when a message leaves, so that replicas keep the rates;
    this process counts from when it has arrived.
    """

    def __init__(self, clock: Clock, sleep: Sleep, turns: Turns) -> None:
        self._clock = clock
        self._sleep = sleep
        self._turns = turns
        self._free_at: dict[str, float] = {}
        self._floods: dict[str, float] = {}

    @asynccontextmanager
    async def turn(self, chat: str, *, taken: bool = False) -> AsyncIterator[None]:
        """Wait for the chat's next turn and hold it; raises SendError where that takes long.

        `taken`: the table has given it already.
        """
        while (wait := self._here(chat) if taken else await self._wait(chat)) > 0:
            if wait > PATIENCE:
                raise SendError("pace", retry_after=wait, only_here=True)
            await self._sleep(wait)
        try:
            yield
        finally:
            self._note(chat)

    def is_free(self, chat: str) -> bool:
        """May a private chat be written to now, as far as this process knows?"""
        return not is_group(chat) and self._here(chat) <= 0

    async def flooded(self, chat: str, seconds: float) -> bool:
        """Leave a chat alone as the platform asked; True if it asks so elsewhere too."""
        now = self._now()
        self._free_at[chat] = max(self._free_at.get(chat, 0.0), now + seconds)
        self._floods = {c: until for c, until in self._floods.items() if until > now}
        self._floods[chat] = now + seconds
        with suppress(SendError):  # this process has noted it in any case
            await self._turns.leave_alone(chat, seconds)
        return len(self._floods) > 1

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _here(self, chat: str) -> float:
        return min(self._free_at.get(chat, 0.0) - self._now(), LONGEST)

    async def _wait(self, chat: str) -> float:
        wait = self._here(chat)
        if wait > 0:
            return wait
        most = GROUP_MOST if is_group(chat) else None
        return await self._turns.take_turn(chat, CHAT_GAP, most)

    def _note(self, chat: str) -> None:
        now = self._now()
        self._free_at[chat] = max(self._free_at.get(chat, 0.0), now + CHAT_GAP)
        if len(self._free_at) > REMEMBERED:
            self._free_at = {c: at for c, at in self._free_at.items() if at > now}


def is_group(chat: str) -> bool:
    """The ids of groups are negative."""
    return chat.startswith("-")
