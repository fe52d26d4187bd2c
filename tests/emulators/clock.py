"""A clock that emulators and product share: it stands still, runs, or jumps, as it is told."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta

from tests.emulators.control import control


class VirtualClock:
    """Tells and passes virtual time; fits wherever the product asks for a `Clock`.

    `rate` is virtual seconds per real one; at 0 time passes only by `advance`.
    """

    def __init__(self, start: datetime, *, rate: float = 0.0) -> None:
        self._base = start.timestamp()
        self._since = time.monotonic()
        self._rate = rate
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = itertools.count()

    def timestamp(self) -> float:
        """Seconds of Unix time."""
        return self._base + (time.monotonic() - self._since) * self._rate

    @control
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp(), UTC)

    async def wait(self, seconds: float) -> None:
        """Return when so many virtual seconds have passed."""
        loop = asyncio.get_running_loop()
        due = self.timestamp() + seconds
        future: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._waiting, (due, next(self._number), future))
        if self._rate:
            loop.call_later(seconds / self._rate, self._release, due)
        await future

    @control
    async def advance(self, seconds: float = 0.0, **span: float) -> None:
        """Let time pass, stopping at each moment that somebody waits for.

        Takes seconds or the keywords of a timedelta: `advance(hours=48)`.
        """
        await _let_others_run()
        until = self.timestamp() + seconds + timedelta(**span).total_seconds()
        while self._waiting and self._waiting[0][0] <= until:
            due = self._waiting[0][0]
            self._jump(max(due, self.timestamp()))
            self._release(due)
            await _let_others_run()
        self._jump(until)
        await _let_others_run()

    @control
    async def move_to(self, moment: str) -> None:
        """Go to a moment, as ISO 8601 with its offset: as `advance` does, or back in one step."""
        await self.advance(datetime.fromisoformat(moment).timestamp() - self.timestamp())

    def _jump(self, moment: float) -> None:
        self._base, self._since = moment, time.monotonic()

    def _release(self, moment: float) -> None:
        while self._waiting and self._waiting[0][0] <= moment:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)


async def _let_others_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
