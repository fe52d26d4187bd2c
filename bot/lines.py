"""Calls under way: so many at once, and to each address one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from time import monotonic

from bot.wording import Ready
from storage.gate import Outcome

MOST_LEAD = 0.25  # seconds before its slot, or before a line is free, that a row may pass the gate


@dataclass
class Usually:
    """How long something takes: the longest lately, forgotten little by little."""

    seconds: float = 0.0

    def note(self, seconds: float) -> None:
        """It took so long."""
        self.seconds = max(seconds, 0.9 * self.seconds)


class Lines:
    """Has rows that passed the gate sent, at most `most` at a time.

    `call` sends a row and returns what came of it, None if it has not left; it never raises.
    `ended` is told so. Two rows to one address leave in the order in which they came; if the first
    has not left, neither does the second. Nor does one that finds no line free for `MOST_LEAD`.
    """

    def __init__(
        self,
        most: int,
        call: Callable[[Ready], Awaitable[Outcome | None]],
        ended: Callable[[Ready, Outcome | None], None],
    ) -> None:
        self._most = most
        self._call = call
        self._ended = ended
        self._open: dict[int, asyncio.Task[None]] = {}
        self._numbers = count()
        self._waiting: deque[Ready] = deque()  # for a free line
        self._behind: dict[str, list[Ready]] = {}  # by address: what follows the row that is out
        self._since: dict[int, float] = {}  # every row here by its id, the oldest first
        self.usual = Usually()

    def __len__(self) -> int:
        """How many rows are here, called or waiting."""
        return len(self._since)

    def oldest(self, now: float) -> float:
        """For how many seconds the oldest has been here; 0 if there is none."""
        return now - next(iter(self._since.values()), now)

    def take(self, ready: Ready) -> None:
        """Have a row sent as soon as a line is free and its address is its own."""
        row = ready.row
        self._since[row.id] = monotonic()
        if row.address in self._behind:
            self._behind[row.address].append(ready)
            return
        self._behind[row.address] = []
        self._waiting.append(ready)
        if len(self._open) < self._most:
            number = next(self._numbers)
            self._open[number] = asyncio.create_task(self._line(number))

    async def _line(self, number: int) -> None:
        """One call after the other while there is a row that waits for it."""
        try:
            while (ready := self._next()) is not None:
                self._end(ready, await self._call(ready))
        finally:
            # Not by a callback: until that ran, a line that is gone would pass for one that comes.
            del self._open[number]

    def _next(self) -> Ready | None:
        self.give_up_waiting()
        return self._waiting.popleft() if self._waiting else None

    def give_up_waiting(self) -> None:
        """What has found no free line for long does not leave."""
        while self._waiting and monotonic() - self._since[self._waiting[0].row.id] > MOST_LEAD:
            self._end(self._waiting.popleft(), None)

    def _end(self, ready: Ready, outcome: Outcome | None) -> None:
        row = ready.row
        self.usual.note(monotonic() - self._since.pop(row.id))
        behind = self._behind.pop(row.address)
        self._ended(ready, outcome)
        if not behind:
            return
        if outcome is None:
            for one in behind:
                del self._since[one.row.id]
                self._ended(one, None)
            return
        first = behind.pop(0)
        self._behind[row.address] = behind
        # From now on it waits for a line: for the one that has just become free, if we end there.
        del self._since[first.row.id]
        self._since[first.row.id] = monotonic()
        self._waiting.appendleft(first)

    async def finish(self, seconds: float) -> None:
        """Wait for the calls under way, so long at most; begin none that would have to wait."""
        if self._open:
            await asyncio.wait(self._open.values(), timeout=max(0.0, seconds))
        self.give_up_waiting()
