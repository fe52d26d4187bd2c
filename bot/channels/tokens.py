"""One access token for all calls to a platform, renewed in time and never by two at once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from bot.clock import Clock
from bot.errors import SendError
from storage.db import Database
from storage.leases import give_back, take
from storage.platform_tokens import keep_token, token_of

T = TypeVar("T")

AT_LEAST = timedelta(seconds=60)
PAUSE_AFTER_REFUSAL = timedelta(seconds=30)
HOLD = timedelta(seconds=20)
"""How long a replica may take to ask; it has hung up before."""
LOOK_AGAIN = 0.1
LOOKS = 100  # after 10 seconds a replica asks for itself

log = structlog.get_logger()


class DeadToken(Exception):
    """The platform does not take this access token (any more)."""


class Vault:
    """Where the replicas of one installation keep a token; its methods wait for the database."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._holder = secrets.token_hex(8)

    def read(self) -> tuple[str, datetime] | None:
        """The token and when to renew it."""
        with self._database.engine.connect() as connection:
            return token_of(connection, self._name)

    def keep(self, token: str, renew_at: datetime) -> None:
        """Give it to the others."""
        with self._database.transaction() as connection:
            keep_token(connection, self._name, token, renew_at)

    def take(self) -> bool:
        """Be the one who asks; False while another does."""
        with self._database.transaction() as connection:
            return take(connection, f"token:{self._name}", self._holder, HOLD)

    def give_back(self) -> None:
        """Let another ask the next time."""
        with self._database.transaction() as connection:
            give_back(connection, f"token:{self._name}", self._holder)


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
        self._vault: Vault | None = None
        self._token = ""
        self._renew_at: datetime | None = None
        self._refused_at: datetime | None = None

    def share(self, vault: Vault) -> None:
        """From now on, all replicas have one token and only one of them asks for the next."""
        self._vault = vault

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
                await self._next("")
            return self._token

    async def _after(self, refused: str) -> str:
        """Another token than `refused`, asked for once however many calls it failed."""
        async with self._renewing:
            if self._token != refused:
                return self._token
            now = self._clock.now()
            if self._refused_at is not None and now - self._refused_at < PAUSE_AFTER_REFUSAL:
                raise SendError("token", retry_after=PAUSE_AFTER_REFUSAL.total_seconds())
            await self._next(refused)
            self._refused_at = now
            return self._token

    def _fresh(self) -> bool:
        return self._renew_at is not None and self._clock.now() < self._renew_at

    async def _next(self, refused: str) -> None:
        """Another token than `refused`: one that another replica has had, or a new one."""
        if self._vault is None:
            await self._renew()
            return
        try:
            if not await self._shared(self._vault, refused):
                await self._renew()
        except SQLAlchemyError as error:
            log.warning("token_not_shared", error=type(error).__name__)
            await self._renew()

    async def _shared(self, vault: Vault, refused: str) -> bool:
        """False where nobody has answered for so long that we must ask ourselves."""
        for _look in range(LOOKS):
            if await asyncio.to_thread(self._adopt, vault, refused):
                return True
            if await asyncio.to_thread(vault.take):
                try:
                    # Looked at again: it may have come just before we became the one who asks.
                    if not await asyncio.to_thread(self._adopt, vault, refused):
                        await self._renew()
                        assert self._renew_at is not None
                        await asyncio.to_thread(vault.keep, self._token, self._renew_at)
                finally:
                    await asyncio.to_thread(vault.give_back)
                return True
            await asyncio.sleep(LOOK_AGAIN)
        return False

    def _adopt(self, vault: Vault, refused: str) -> bool:
        found = vault.read()
        if found is None or found[0] == refused or self._clock.now() >= found[1]:
            return False
        self._token, self._renew_at = found
        return True

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
