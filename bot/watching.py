"""Notices what is not done in time, with one timer for all that have equally long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Watch:
    """Calls `late` for each future that is not done so many seconds after it was handed over.

    Nearly everything is done long before. So all stand in a line, in the order of their time, and
    only its head has a timer: one of its own for each would cost more than much of the work.
    """

    def __init__(self, seconds: float, late: Callable[..., None]) -> None:
        self._seconds = seconds
        self._late = late
        self._line: deque[tuple[float, asyncio.Future[Any], tuple[Any, ...]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def over(self, future: asyncio.Future[Any], *words: Any) -> None:
        """Look after this one; `words` are what `late` is told of it."""
        loop, line = future.get_loop(), self._line
        if loop is not self._loop:  # nothing of a loop that was left is awaited any more
            line.clear()
            self._loop, self._timer = loop, None
        while line and line[0][1].done():
            line.popleft()
        line.append((loop.time() + self._seconds, future, words))
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        line, now = self._line, loop.time()
        while line and (line[0][0] <= now or line[0][1].done()):
            _due, future, words = line.popleft()
            if not future.done():
                self._late(*words)
        self._timer = loop.call_at(line[0][0], self._look, loop) if line else None
