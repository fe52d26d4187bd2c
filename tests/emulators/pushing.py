"""Callbacks on their way to the product: tried, signed anew, repeated, out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import aiohttp

from tests.emulators.clock import VirtualClock

Signed = tuple[dict[str, str], bytes]
"""The query and the body of a callback."""


@dataclass(slots=True)
class Try:
    """One delivery of a callback: when it began and how it ended."""

    at: float
    status: int | None = None
    error: str = ""


@dataclass(slots=True)
class Push:
    """A message or event on its way to the product, and what came back."""

    openid: str
    fields: dict[str, Any]
    tries: list[Try] = field(default_factory=list)
    answer: dict[str, Any] | None = None
    unavailable: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        """What a passive text answer says, or nothing."""
        return str((self.answer or {}).get("Content") or "")

    def shown(self) -> dict[str, Any]:
        """As the control API shows it."""
        tries = [asdict(attempt) for attempt in self.tries]
        return {"text": self.text, "answer": self.answer, "tries": tries,
                "unavailable": self.unavailable}  # fmt: skip

    async def done(self) -> Self:
        """Wait until the last try is over."""
        await self.over.wait()
        return self


class Pusher:
    """Delivers callbacks to `url`, `tries` times `patience` seconds apart.

    `seal` signs one; it is asked again for each try if `resigned`. `take` is given what answered
    it with status 200; `gave_up` is told when no try was answered so.
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        tries: int,
        patience: float,
        seal: Callable[[Push], Signed],
        take: Callable[[Push, bytes], None],
        gave_up: Callable[[Push], None],
        content_type: str = "text/xml",
        resigned: bool = True,
    ) -> None:
        self.url = ""
        self._clock = clock
        self._tries = tries
        self._patience = patience
        self._seal = seal
        self._take = take
        self._gave_up = gave_up
        self._content_type = content_type
        self._resigned = resigned
        self._repeats = 0
        self._holds = 0
        self._held: list[Push] = []
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def push(self, push: Push, tries: int | None = None) -> Push:
        """Send one on its way; `tries` for a kind that is tried less often."""
        if self._holds:
            self._holds -= 1
            self._held.append(push)
            return push
        self.start(self._deliver(push, tries=tries))
        for held in self._held:
            self.start(self._deliver(held, behind=push))
        self._held.clear()
        return push

    def repeat_next(self, times: int = 1) -> None:
        """The next pushes arrive twice although they were answered."""
        self._repeats += times

    def hold_next(self, times: int = 1) -> None:
        """The next pushes arrive after the one that follows them."""
        self._holds += times

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside; it ends with the emulator."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def client(self) -> aiohttp.ClientSession:
        """For the platform's own calls."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None)
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self._session

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _deliver(
        self, push: Push, behind: Push | None = None, tries: int | None = None
    ) -> None:
        """The answer belongs to the try still open."""
        if behind is not None:
            await behind.done()
        signed = self._seal(push)
        for number in range(tries or self._tries):
            if number and self._resigned:
                signed = self._seal(push)
            attempt = Try(self._clock.timestamp())
            push.tries.append(attempt)
            pause = asyncio.ensure_future(self._clock.wait(self._patience))
            try:
                body = await self._attempt(signed, attempt, pause)
                if body is not None:
                    self._take(push, body)
                    break
                await pause
            finally:
                pause.cancel()
        else:
            self._gave_up(push)
        push.over.set()
        if self._repeats:
            self._repeats -= 1
            again = Try(self._clock.timestamp())
            push.tries.append(again)
            await self._attempt(self._seal(push), again, None)

    async def _attempt(
        self, signed: Signed, attempt: Try, deadline: asyncio.Future[None] | None
    ) -> bytes | None:
        call = asyncio.ensure_future(self._post(*signed))
        try:
            waiting: set[asyncio.Future[Any]] = {call}
            if deadline is not None:
                waiting.add(deadline)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                attempt.error = "timeout"
                return None
            attempt.status, body = call.result()
        except (aiohttp.ClientError, OSError) as error:
            attempt.error = type(error).__name__
            return None
        finally:
            call.cancel()
        return body if attempt.status == 200 else None

    async def _post(self, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": self._content_type}
        async with self.client().post(
            self.url, params=query, data=body, headers=headers
        ) as response:
            return response.status, await response.read()
