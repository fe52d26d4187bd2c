"""Calls under way: so many at once, and to each address one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
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

    `call` sends a row and returns what came of it, None if it has not left; `ended` is told so. Two
    rows to one address leave in the order in which they came; if the first has not left, neither
    does the second. Nor does one that waits for a free line longer than `MOST_LEAD`.
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
        self._behind: dict[str, list[Ready]] = {}  # by address: what follows the row that has it
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
        if row.id in self._since:
            return  # taken from us and ours again while its call lasts: what comes of that counts
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
                try:
                    outcome = await self._call(ready)
                except BaseException:
                    # Nobody knows whether it has left, so its row stays as it is.
                    self._stay(self._release(ready))
                    raise
                self._end(ready, outcome)
        finally:
            # Not by a callback: until that ran, a line that is gone would pass for one that comes.
            del self._open[number]

    def _next(self) -> Ready | None:
        """Who has waited longest, but not too long."""
        self.give_up_waiting()
        return self._waiting.popleft() if self._waiting else None

    def give_up_waiting(self) -> None:
        """What has found no free line for long does not leave."""
        while self._waiting and monotonic() - self._since[self._waiting[0].row.id] > MOST_LEAD:
            self._end(self._waiting.popleft(), None)

    def _end(self, ready: Ready, outcome: Outcome | None) -> None:
        behind = self._release(ready)
        self._ended(ready, outcome)
        if outcome is None:
            self._stay(behind)
        elif behind:
            first = behind.pop(0)
            self._behind[first.row.address] = behind
            del self._since[first.row.id]
            self._since[first.row.id] = monotonic()  # from now on it waits for a line
            self._waiting.append(first)

    def _release(self, ready: Ready) -> list[Ready]:
        """A row is here no more; returns what was to follow it at its address."""
        self.usual.note(monotonic() - self._since.pop(ready.row.id))
        return self._behind.pop(ready.row.address)

    def _stay(self, rows: Iterable[Ready]) -> None:
        """What was to follow does not leave."""
        for one in rows:
            del self._since[one.row.id]
            self._ended(one, None)

    async def finish(self, seconds: float) -> None:
        """Wait for the calls under way, so long at most; then nothing more leaves."""
        if self._open:
            await asyncio.wait(self._open.values(), timeout=max(0.0, seconds))
        while self._waiting:
            self._end(self._waiting.popleft(), None)
        for address, behind in self._behind.items():
            self._behind[address] = []
            self._stay(behind)
