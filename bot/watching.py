"""Notices what is not done in time, with one timer for all that have equally long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


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


class Stretches:
    """A stretch of a task that takes longer than so many seconds ends with TimeoutError.

    What `asyncio.timeout` does, for a stretch that every request has.
    """

    def __init__(self, seconds: float) -> None:
        self._watch = Watch(seconds, Stretch.end)

    def begin(self) -> Stretch:
        """For `with`, around the stretch."""
        task = asyncio.current_task()
        assert task is not None
        stretch = Stretch(task)
        self._watch.over(task, stretch)
        return stretch


class Stretch:
    """One of them."""

    __slots__ = ("_asked", "_late", "_over", "_task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._asked = task.cancelling()
        self._late = self._over = False

    def __enter__(self) -> Self:
        return self

    def end(self) -> None:
        """Its time is up."""
        if not self._over:
            self._late = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._over = True
        if self._late and self._task.uncancel() <= self._asked and kind is asyncio.CancelledError:
            raise TimeoutError from error
