"""The address that a platform calls: verified, opened, answered in time or not at all."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

import structlog
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive as ASGIReceive
from starlette.types import Scope, Send

from bot.channels.base import Receive
from bot.channels.envelope import MAX_BYTES, BadCallback, Envelope
from bot.clock import Clock
from bot.messages import Inbound, Part
from bot.watching import Watch

Opened = TypeVar("Opened")
"""What a callback says once it is opened: fields of XML, or an object of JSON."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the platform waits, in seconds.

    It hangs up after 5 s and tries again, three times in all; that it is left without an answer is
    what makes it try again, so we hold on a little longer than it does. When the third try is about
    to end, the answer must leave by another way.
    """

    one_try: float = 6.0
    all_tries: float = 14.5


class Door(ABC, Generic[Opened]):
    """Answers `GET` (the console's check of our address) and `POST` (what is told us)."""

    def __init__(
        self,
        name: str,
        envelope: Envelope,
        clock: Clock,
        receive: Receive,
        patience: Patience,
    ) -> None:
        self.name = name
        self.envelope = envelope
        self.clock = clock
        self._receive = receive
        self._patience = patience
        self._open: dict[str, asyncio.Future[tuple[Part, ...]]] = {}
        self._one_try = Watch(patience.one_try, _end)

    # What a platform is asked for ----------------------------------------------------------------

    @abstractmethod
    def verify(self, query: Mapping[str, str], now: datetime) -> str:
        """What the console wants to read; raises BadCallback."""

    @abstractmethod
    def open(self, query: Mapping[str, str], body: bytes, now: datetime) -> Opened:
        """What a callback says; raises BadCallback."""

    @abstractmethod
    async def respond(self, opened: Opened, now: datetime) -> Response:
        """What a genuine callback is answered with."""

    # ---------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: ASGIReceive, send: Send) -> None:
        """As an ASGI application: the router's wrappers would only catch what is caught here."""
        response = await self.serve(scope, receive)
        await response(scope, receive, send)

    async def serve(self, scope: Scope, receive: ASGIReceive) -> Response:
        """Never raises for what was sent; a refusal says nothing but its status."""
        now = self.clock.now()
        query = _query(scope["query_string"].decode("latin-1"))
        try:
            if scope["method"] != "POST":
                return PlainTextResponse(self.verify(query, now))
            opened = self.open(query, await _body(receive), now)
        except BadCallback as refused:
            log.warning(
                "callback_refused", channel=self.name, status=refused.status, reason=refused.reason
            )
            return Response(status_code=refused.status)
        return await self.respond(opened, now)

    def _work(
        self, id: str, begin: Callable[[], Awaitable[tuple[Part, ...]]]
    ) -> asyncio.Future[tuple[Part, ...]]:
        """The answer in the making; a later try of the same message waits for the same one."""
        work = self._open.get(id)
        if work is None:
            work = asyncio.ensure_future(begin())
            self._open[id] = work
            work.add_done_callback(lambda done: self._done(id, done))
        return work

    async def _done_in_time(self, work: asyncio.Future[Any]) -> bool:
        """Wait for one try; the work goes on whatever becomes of who waits."""
        if not work.done():
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._one_try.over(over, over)
            work.add_done_callback(lambda _work: _end(over))
            await over
        return work.done()

    def _done(self, id: str, work: asyncio.Future[tuple[Part, ...]]) -> None:
        del self._open[id]
        if not work.cancelled():
            work.exception()  # looked at, even if no try is open to be told


class Callback(Door[Opened]):
    """A platform that calls with messages and events, one at a time, and waits for the answer."""

    @abstractmethod
    def read(self, opened: Opened, now: datetime) -> Inbound | None:
        """The message, happening or aside that concerns us; None for everything else."""

    @abstractmethod
    def reply(self, opened: Opened, parts: tuple[Part, ...]) -> Response | None:
        """The platform's own way to answer, sealed; None where there is nothing to say."""

    async def respond(self, opened: Opened, now: datetime) -> Response:
        inbound = self.read(opened, now)
        if inbound is None:
            return success()
        seconds = self._patience.all_tries
        work = self._work(inbound.id, lambda: self._receive(inbound, seconds))
        return await self._answer(opened, work)

    async def _answer(self, opened: Opened, work: asyncio.Future[tuple[Part, ...]]) -> Response:
        if not await self._done_in_time(work):
            return Response(status_code=503)
        try:
            parts = work.result()
        except TimeoutError:
            return success()  # no try is left: the answer leaves through the outbox
        except Exception as error:  # noqa: BLE001  # whatever it was, the platform shall try again
            log.error("message_not_taken", channel=self.name, error=type(error).__name__)
            return Response(status_code=503)
        return self.reply(opened, parts) or success()


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


def success() -> Response:
    """What ends the platform's tries."""
    return PlainTextResponse("success")


def _query(text: str) -> dict[str, str]:
    """The query's words; in nearly every one nothing is quoted."""
    if "%" in text or "+" in text:
        return dict(parse_qsl(text, keep_blank_values=True))
    pairs = [pair.partition("=") for pair in text.split("&")]
    return {name: value for name, _, value in pairs if name}


async def _body(receive: ASGIReceive) -> bytes:
    """The body, of which no more is read than is allowed; raises BadCallback(413)."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BYTES:
            raise BadCallback(413, "body too large")
    return body
