"""The way to the Bot API: python-telegram-bot's calls over several small pools of connections."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import httpx

# The library tells waits as whole numbers, with a deprecation warning, unless this is set.
os.environ.setdefault("PTB_TIMEDELTA", "true")

from telegram import Bot
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
    TimedOut,
)
from telegram.request import BaseRequest, HTTPXRequest, RequestData

from bot.errors import SendError

POOLS = 4
CONNECTIONS = 16  # a pool; httpx slows down with the square of it
POLL = 30  # seconds a poll stays open
# Errors of the transport after which nothing can have left.
NOTHING_LEFT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"})

__all__ = [
    "BadRequest",
    "Bot",
    "ChatMigrated",
    "Conflict",
    "InvalidToken",
    "TelegramError",
    "Wire",
    "as_send_error",
]


class Pools(BaseRequest):
    """Several small pools taken in turn."""

    def __init__(self, proxy: str | None, patience: float, trust: ssl.SSLContext) -> None:
        self._pools = [
            HTTPXRequest(
                connection_pool_size=CONNECTIONS,
                proxy=proxy,
                connect_timeout=10,
                read_timeout=patience,
                pool_timeout=20,
                httpx_kwargs={"verify": trust},
            )
            for _ in range(POOLS)
        ]
        self._turn = cycle(self._pools)

    @property
    def read_timeout(self) -> float | None:
        return self._pools[0].read_timeout

    async def initialize(self) -> None:
        for pool in self._pools:
            await pool.initialize()

    async def shutdown(self) -> None:
        for pool in self._pools:
            await pool.shutdown()

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: Any = BaseRequest.DEFAULT_NONE,
        write_timeout: Any = BaseRequest.DEFAULT_NONE,
        connect_timeout: Any = BaseRequest.DEFAULT_NONE,
        pool_timeout: Any = BaseRequest.DEFAULT_NONE,
    ) -> tuple[int, bytes]:
        return await next(self._turn).do_request(
            url, method, request_data, read_timeout, write_timeout, connect_timeout, pool_timeout
        )


class Wire(Bot):
    """A bot that is only a wire: nothing is asked at the start, and updates come as they are.

    The library's own reading of updates loses a whole batch to one bad update and logs them all.
    """

    def __init__(self, token: str, api_base: str, proxy: str | None, patience: float) -> None:
        # The token stands in every address, and these two write addresses and messages down.
        for name in ("httpx", "httpcore", "telegram"):
            logging.getLogger(name).setLevel(logging.WARNING)
        base = api_base.rstrip("/")
        trust = _trust()
        polling = HTTPXRequest(
            connection_pool_size=1,
            proxy=proxy,
            connect_timeout=10,
            httpx_kwargs={"verify": trust},
        )
        self._requests: Sequence[BaseRequest] = (polling, Pools(proxy, patience, trust))
        super().__init__(
            token,
            base_url=f"{base}/bot",
            base_file_url=f"{base}/file/bot",
            get_updates_request=self._requests[0],
            request=self._requests[1],
        )

    def __repr__(self) -> str:
        return f"Wire({self.token.partition(':')[0]})"

    async def raw_updates(
        self, offset: int | None, allowed: Sequence[str], seconds: int
    ) -> list[dict[str, Any]]:
        """The waiting updates as JSON; waits up to so many seconds for the first."""
        data = {"offset": offset, "timeout": seconds, "allowed_updates": list(allowed)}
        found: list[dict[str, Any]] = await self._post(
            "getUpdates", data, read_timeout=seconds + 15.0
        )
        return found

    async def hang_up(self) -> None:
        """Give the connections back."""
        for request in self._requests:
            await request.shutdown()


def _trust() -> ssl.SSLContext:
    """Whose certificates are believed, read once for all pools: it takes longer than a call."""
    trust = httpx.create_ssl_context()
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    if bundle:
        trust.load_verify_locations(bundle)
    return trust


def as_send_error(error: TelegramError) -> SendError:
    """What an error of the Bot API means for a message; never quotes an address with the token."""
    if isinstance(error, RetryAfter):
        wait = error.retry_after
        seconds = float(wait) if isinstance(wait, int | float) else wait.total_seconds()
        return SendError("flood", retry_after=seconds)
    if isinstance(error, Forbidden):
        return SendError("blocked", permanent=True, detail=error.message)
    if isinstance(error, ChatMigrated):
        return SendError("moved")
    if isinstance(error, InvalidToken):
        return SendError("token", stop_channel=True)
    if isinstance(error, BadRequest):
        return SendError(_reason(error.message.lower()), permanent=True, detail=error.message)
    if isinstance(error, NetworkError):
        return _lost(error)
    return SendError("no_answer", unknown=True, detail=type(error).__name__)


def _reason(said: str) -> str:
    """Why what was asked cannot be done, as one word of the ledger."""
    if "not found" in said:
        return "unreachable"
    if "too big" in said:
        return "too_large"
    return "rights" if "rights" in said or "restricted" in said or "forbidden" in said else "bug"


def _lost(error: NetworkError) -> SendError:
    """An error on the way: may the message have left?"""
    cause = error.__cause__
    if type(cause).__name__ in NOTHING_LEFT:
        return SendError("no_connection", detail=type(cause).__name__)
    if "Too Large" in error.message:
        return SendError("too_large", permanent=True)
    if "(502)" in error.message or "(503)" in error.message:
        return SendError("server_error", detail="5xx")
    if isinstance(error, TimedOut) or cause is not None:
        # Not heard, or heard in a proxy's words: the platform may have done what was asked.
        return SendError("timeout", unknown=True, detail=type(cause).__name__)
    return SendError("server_error", detail=error.message)
