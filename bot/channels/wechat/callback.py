"""The address that the platform calls: verified, opened, answered in time or not at all."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive as ASGIReceive
from starlette.types import Scope, Send

from bot.channels.base import Receive
from bot.channels.envelope import MAX_BYTES, BadCallback, Envelope, Fields, text_answer
from bot.channels.wechat.reading import NAME, read
from bot.clock import Clock
from bot.messages import Inbound, Part

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


class Callback:
    """Answers `GET` (the console's check of our address) and `POST` (messages and events)."""

    def __init__(
        self,
        envelope: Envelope,
        account: str,
        clock: Clock,
        receive: Receive,
        patience: Patience,
    ) -> None:
        self._envelope = envelope
        self._account = account
        self._clock = clock
        self._receive = receive
        self._patience = patience
        self._open: dict[str, asyncio.Future[tuple[Part, ...]]] = {}

    async def __call__(self, scope: Scope, receive: ASGIReceive, send: Send) -> None:
        """As an ASGI application: the router's wrappers would only catch what is caught here."""
        response = await self.serve(Request(scope, receive))
        await response(scope, receive, send)

    async def serve(self, request: Request) -> Response:
        """Never raises for what was sent; a refusal says nothing but its status."""
        now = self._clock.now()
        try:
            if request.method != "POST":
                return PlainTextResponse(self._envelope.verify(request.query_params, now))
            fields = self._envelope.open(request.query_params, await _body(request), now)
        except BadCallback as refused:
            log.warning(
                "callback_refused", channel=NAME, status=refused.status, reason=refused.reason
            )
            return Response(status_code=refused.status)
        inbound = read(fields, self._account, now)
        if inbound is None:
            return _success()
        return await self._answer(inbound, fields)

    async def _answer(self, inbound: Inbound, fields: Fields) -> Response:
        work = self._work(inbound)
        await asyncio.wait({work}, timeout=self._patience.one_try)
        if not work.done():
            return Response(status_code=503)
        try:
            parts = work.result()
        except TimeoutError:
            return _success()  # no try is left: the answer leaves through the outbox
        except Exception as error:  # noqa: BLE001  # whatever it was, the platform shall try again
            log.error("message_not_taken", channel=NAME, error=type(error).__name__)
            return Response(status_code=503)
        text = parts[0].text if parts else ""
        return self._sealed(fields, text) if text else _success()

    def _work(self, inbound: Inbound) -> asyncio.Future[tuple[Part, ...]]:
        """The answer in the making; a later try of the same message waits for the same one."""
        work = self._open.get(inbound.id)
        if work is None:
            work = asyncio.ensure_future(self._receive(inbound, self._patience.all_tries))
            self._open[inbound.id] = work
            work.add_done_callback(lambda done: self._done(inbound.id, done))
        return work

    def _done(self, id: str, work: asyncio.Future[tuple[Part, ...]]) -> None:
        del self._open[id]
        if not work.cancelled():
            work.exception()  # looked at, even if no try is open to be told

    def _sealed(self, fields: Fields, text: str) -> Response:
        stamp = int(self._clock.now().timestamp())
        sealed = self._envelope.seal(text_answer(fields, text, stamp), stamp, secrets.token_hex(8))
        return Response(sealed.as_xml(), media_type="application/xml")


def _success() -> Response:
    return PlainTextResponse("success")


async def _body(request: Request) -> bytes:
    """The body, of which no more is read than is allowed; raises BadCallback(413)."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BYTES:
            raise BadCallback(413, "body too large")
        pieces.append(piece)
    return b"".join(pieces)
