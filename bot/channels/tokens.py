"""One access token for all calls to a platform, renewed in time and never by two at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

from bot.clock import Clock
from bot.errors import SendError

T = TypeVar("T")

AT_LEAST = timedelta(seconds=60)
PAUSE_AFTER_REFUSAL = timedelta(seconds=30)


class DeadToken(Exception):
    """The platform does not take this access token (any more)."""


class Tokens:
    """Keeps the token that `fetch` asks the platform for.

    `fetch` returns the token and the seconds of its life; it is renewed `renew_before` it ends.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[tuple[str, int]]],
        clock: Clock,
        *,
        renew_before: timedelta,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._renew_before = renew_before
        self._renewing = asyncio.Lock()
        self._token = ""
        self._renew_at: datetime | None = None
        self._refused_at: datetime | None = None

    async def use(self, call: Callable[[str], Awaitable[T]]) -> T:
        """Call with the token; once more with another one if that raises DeadToken.

        Raises SendError, never `unknown` for a token that was not given: the message has not left.
        """
        token = await self._current()
        try:
            return await call(token)
        except DeadToken:
            token = await self._after(token)
        try:
            return await call(token)
        except DeadToken:
            raise SendError("token", retry_after=PAUSE_AFTER_REFUSAL.total_seconds()) from None

    async def _current(self) -> str:
        if self._fresh():
            return self._token
        async with self._renewing:
            if not self._fresh():
                await self._renew()
            return self._token

    async def _after(self, refused: str) -> str:
        """Another token than `refused`, asked for once however many calls it failed."""
        async with self._renewing:
            if self._token != refused:
                return self._token
            now = self._clock.now()
            if self._refused_at is not None and now - self._refused_at < PAUSE_AFTER_REFUSAL:
                raise SendError("token", retry_after=PAUSE_AFTER_REFUSAL.total_seconds())
            self._refused_at = now
            await self._renew()
            return self._token

    def _fresh(self) -> bool:
        return self._renew_at is not None and self._clock.now() < self._renew_at

    async def _renew(self) -> None:
        try:
            token, seconds = await self._fetch()
        except SendError as error:
            if error.unknown:  # the request for a token, not the message
                raise SendError("no_token", detail=error.detail) from None
            raise
        except (KeyError, ValueError):
            raise SendError("no_token", detail="not understood") from None
        self._token = token
        life = timedelta(seconds=seconds) - self._renew_before
        self._renew_at = self._clock.now() + max(life, AT_LEAST)
