"""Who of our processes holds the connection."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from bot.channels.wecom.bot.memory import Memory
from storage.leases import give_back, take

T = TypeVar("T")

HOLD = timedelta(seconds=30)
RENEW = 10.0  # seconds between two renewals, and between two tries to take it


class Lease:
    """Ours or somebody else's; each object is a claimant of its own."""

    def __init__(self, memory: Memory, name: str) -> None:
        self._memory = memory
        self._name = name
        self._holder = secrets.token_hex(8)

    async def take(self) -> bool:
        """Take it or keep it; finished even if we are cancelled, so that nothing stays taken."""

        def work() -> bool:
            with self._memory.services.database.transaction() as connection:
                return take(connection, self._name, self._holder, HOLD)

        return await whole(work)

    async def give_back(self) -> None:
        """Let others have it at once; without a database they wait until it is over."""

        def work() -> None:
            with self._memory.services.database.transaction() as connection:
                give_back(connection, self._name, self._holder)

        with suppress(SQLAlchemyError):
            await whole(work)


async def whole(work: Callable[[], T]) -> T:
    """Do something in a thread, to its end even when whoever waits is cancelled."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
