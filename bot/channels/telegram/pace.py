"""How fast one chat may be written to, and how long the platform asked it to be left alone."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from bot.clock import Clock
from bot.errors import SendError

Sleep = Callable[[float], Awaitable[None]]

# core.telegram.org/bots/faq: avoid more than one message a second in a chat, and no more than
# twenty a minute in a group. The little more keeps jitter on the way from making it less.
CHAT_GAP = 1.05
GROUP_MESSAGES = 20
GROUP_SPAN = 60.5
PATIENCE = 5.0  # seconds a call may wait here; a longer wait is the outbox's
REMEMBERED = 2000  # chats; older ones are forgotten when there are more


class Pace:
    """Turns by chat, in this process."""

    def __init__(self, clock: Clock, sleep: Sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._free_at: dict[str, float] = {}
        self._sent: dict[str, deque[float]] = {}
        self._floods: dict[str, float] = {}

    @asynccontextmanager
    async def turn(self, chat: str) -> AsyncIterator[None]:
        """Wait for the chat's next turn and hold it; raises SendError where that takes long."""
        while (wait := self._wait(chat)) > 0:
            if wait > PATIENCE:
                raise SendError("pace", retry_after=wait, only_here=True)
            await self._sleep(wait)
        self._free_at[chat] = self._now() + CHAT_GAP
        try:
            yield
        finally:
            self._note(chat)

    def flooded(self, chat: str, seconds: float) -> bool:
        """Leave a chat alone as the platform asked; True if it asks so elsewhere too."""
        now = self._now()
        self._free_at[chat] = max(self._free_at.get(chat, 0.0), now + seconds)
        self._floods = {c: until for c, until in self._floods.items() if until > now}
        self._floods[chat] = now + seconds
        return len(self._floods) > 1

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _wait(self, chat: str) -> float:
        now = self._now()
        wait = self._free_at.get(chat, 0.0) - now
        sent = self._sent.get(chat)
        if sent is not None and len(sent) == GROUP_MESSAGES:
            wait = max(wait, sent[0] + GROUP_SPAN - now)
        # A clock that was set back must not silence a chat.
        return min(wait, 3600.0)

    def _note(self, chat: str) -> None:
        now = self._now()
        self._free_at[chat] = max(self._free_at.get(chat, 0.0), now + CHAT_GAP)
        if chat.startswith("-"):  # the ids of groups are negative
            self._sent.setdefault(chat, deque(maxlen=GROUP_MESSAGES)).append(now)
        if len(self._free_at) > REMEMBERED:
            self._free_at = {c: at for c, at in self._free_at.items() if at > now}
            self._sent = {c: s for c, s in self._sent.items() if s[-1] > now - GROUP_SPAN}
