"""One long connection to the platform: commands and their acks, callbacks, and a pulse."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.protocol import State

from bot.channels.calls import authorities
from bot.channels.wecom.bot.reading import NAME
from bot.errors import SendError

PULSE = 30.0  # seconds; the platform's own figure
MISSED = 2  # pings without an answer after which nobody is there
ACK = 5.0  # seconds after which a command is given up
OPEN, CLOSE = 10.0, 2.0

CALLBACKS = frozenset({"aibot_msg_callback", "aibot_event_callback"})

Sleep = Callable[[float], Awaitable[None]]
Hear = Callable[[str, Mapping[str, Any]], None]
"""Given each callback's req_id and body; must not wait."""

log = structlog.get_logger()

# The library writes down frames, and the first one holds the secret.
_QUIET = logging.getLogger(f"{__name__}.frames")
_QUIET.setLevel(logging.WARNING)


class NotConnected(Exception):
    """The platform could not be reached; the text names the kind of trouble, nothing else."""


@asynccontextmanager
async def wired(url: str, hear: Hear, sleep: Sleep, ack: float = ACK) -> AsyncIterator[Wire]:
    """Connect; yields a Wire that lives until the block ends. Raises NotConnected."""
    secure = url.startswith("wss:")
    trust = ssl.create_default_context(cafile=authorities()) if secure else None
    try:
        connection = await connect(
            url,
            ssl=trust,
            logger=_QUIET,
            user_agent_header=None,
            open_timeout=OPEN,
            close_timeout=CLOSE,
            # The platform has a ping of its own; a frame it does not expect may end the connection.
            ping_interval=None,
        )
    except (OSError, TimeoutError, WebSocketException, ValueError) as error:
        raise NotConnected(type(error).__name__) from None
    wire = Wire(connection, hear, sleep, ack)
    try:
        yield wire
    finally:
        await wire.close()


class Wire:
    """A live connection. `ended` is done when it is not live any more."""

    def __init__(
        self, connection: ClientConnection, hear: Hear, sleep: Sleep, ack: float = ACK
    ) -> None:
        self._connection = connection
        self._hear = hear
        self._sleep = sleep
        self._ack = ack
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._unanswered = 0
        self._pinging: asyncio.Task[None] | None = None
        self._reading = asyncio.create_task(self._read(), name="wecom-bot-reading")
        self._pulsing = asyncio.create_task(self._pulse(), name="wecom-bot-pulse")

    @property
    def ended(self) -> asyncio.Task[None]:
        """The task that reads: it is over when the connection is."""
        return self._reading

    async def ask(
        self, command: str, body: Mapping[str, Any] | None = None, req_id: str = ""
    ) -> dict[str, Any]:
        """Give a command and return what acknowledged it, `errcode` and all.

        An answer to a callback bears the callback's `req_id`. Raises SendError: a plain one when
        the command has not left, `unknown` when it may have and no ack came in time.
        """
        req_id = req_id or f"{command}-{secrets.token_hex(8)}"
        if self._connection.state is not State.OPEN or req_id in self._waiting:
            raise SendError("no_connection", retry_after=ACK, only_here=True)
        frame: dict[str, Any] = {"cmd": command, "headers": {"req_id": req_id}}
        if body is not None:
            frame["body"] = body
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[req_id] = future
        try:
            async with asyncio.timeout(self._ack):
                await self._connection.send(json.dumps(frame, ensure_ascii=False))
                return await future
        except (ConnectionClosed, TimeoutError, OSError) as error:
            detail = type(error).__name__
            raise SendError("no_ack", unknown=True, detail=detail) from None
        finally:
            self._waiting.pop(req_id, None)

    async def close(self) -> None:
        """Hang up; whoever waits for an ack is told that none will come."""
        self._pulsing.cancel()
        await self._connection.close()
        await asyncio.wait({self._reading, self._pulsing})

    async def _read(self) -> None:
        try:
            async for frame in self._connection:
                self._take(frame)
        except ConnectionClosed as error:
            log.info("connection_closed", channel=NAME, error=type(error).__name__)
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(SendError("no_ack", unknown=True, detail="closed"))

    def _take(self, text: str | bytes) -> None:
        try:
            frame = json.loads(text)
            command, req_id = frame.get("cmd"), frame["headers"]["req_id"]
            body = frame.get("body") or {}
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
            log.warning("frame_not_understood", channel=NAME, error=type(error).__name__)
            return
        if not isinstance(req_id, str) or not isinstance(body, dict):
            log.warning("frame_not_understood", channel=NAME, error="shape")
        elif command in CALLBACKS:
            self._tell(req_id, body)
        elif command is None:
            future = self._waiting.get(req_id)
            if future is not None and not future.done():
                future.set_result(frame)

    def _tell(self, req_id: str, body: Mapping[str, Any]) -> None:
        try:
            self._hear(req_id, body)
        except Exception as error:  # noqa: BLE001  # one callback must not end the connection
            log.error("callback_failed", channel=NAME, error=type(error).__name__)

    async def _pulse(self) -> None:
        """Ping; after two pings in a row without an answer the connection is dead."""
        while True:
            await self._sleep(PULSE)
            if self._unanswered >= MISSED:
                log.warning("connection_dead", channel=NAME, pings=self._unanswered)
                self._connection.transport.abort()
                return
            self._unanswered += 1
            self._pinging = asyncio.create_task(self._ping(), name="wecom-bot-ping")

    async def _ping(self) -> None:
        try:
            await self.ask("ping")
        except SendError:
            return
        self._unanswered = 0
