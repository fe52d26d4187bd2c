"""How much may be said in one conversation: the platform counts answers and pushes together."""

from __future__ import annotations

from collections import deque

from bot.clock import Clock

LIMITS = ((30, 60.0), (1000, 3600.0))  # messages in so many seconds
REMEMBERED = 5000


class Budget:
    """Sliding windows by conversation. In memory: only one process speaks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sent: dict[str, deque[float]] = {}

    def wait(self, chat: str, messages: int) -> float:
        """Seconds until so many more may be said there."""
        now, sent = self._clock.now().timestamp(), self._sent.get(chat, deque())
        waits = [
            sent[len(sent) + messages - 1 - count] + seconds - now
            for count, seconds in LIMITS
            if len(sent) + messages > count
        ]
        return max([0.0, *waits])

    def spend(self, chat: str) -> None:
        """Count one message."""
        now = self._clock.now().timestamp()
        self._sent.setdefault(chat, deque(maxlen=LIMITS[-1][0])).append(now)
        if len(self._sent) > REMEMBERED:
            since = now - LIMITS[-1][1]
            self._sent = {c: s for c, s in self._sent.items() if s[-1] > since}
