"""A thread for work on the database, with a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from storage.db import Database, Kept

T = TypeVar("T")


class Clerk:
    """A thread that does one thing after the other, with a connection of its own."""

    def __init__(self, name: str, database: Database) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._kept = Kept(database)
        self.transaction, self.unhurried = self._kept.transaction, self._kept.unhurried

    async def does(self, work: Callable[..., T], *arguments: object) -> T:
        """Have something done there."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def rest(self) -> None:
        """Give the connection back until there is something to do again."""
        await self.does(self._kept.close)

    def leave(self) -> None:
        """Do what was asked for, and nothing more."""
        self._thread.shutdown()
        self._kept.close()
