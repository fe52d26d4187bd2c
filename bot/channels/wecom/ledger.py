"""What the app remembers between two sends, shared by all processes: turns, tries, cards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError

from bot.clock import Clock
from bot.context import Services
from bot.errors import SendError
from bot.messages import Address
from storage import bubbles, pace, sendings
from storage.sendings import Try

T = TypeVar("T")

# document/path/90236: 30 a minute and 1,000 an hour to one member; more are dropped, and nobody is
# told. The little longer spans keep jitter on the way from making two minutes one.
LIMITS = ((30, 62_000), (1000, 3_600_000))
CHECKED = timedelta(seconds=1800)  # how long the platform knows a repetition
TIDY = timedelta(hours=1)
CARD_LIFE = timedelta(hours=72)

log = structlog.get_logger()


class Ledger:
    """Tables for one app; whoever is asked for may wait for the database."""

    def __init__(self, services: Services, clock: Clock) -> None:
        self._database = services.database
        self._keys = services.keys
        self._clock = clock
        self._tidied = clock.now() - TIDY

    async def begin(self, address: Address, content: str, key: str) -> Try:
        """Take the member's turn and begin a try; raises SendError where there is no turn now."""
        wait, begun = await or_later(lambda: self._begin(str(address), content, key))
        if wait:
            raise SendError("pace", retry_after=wait / 1000, only_here=True)
        return begun

    async def refused(self, address: Address, content: str) -> None:
        """The platform did not take it."""

        def work() -> None:
            with self._database.transaction() as connection:
                sendings.refused(connection, *self._digests(str(address), content))

        await _if_possible(work)

    async def note(
        self, address: Address, content: str, *, media: str = "", message: str = ""
    ) -> None:
        """Remember the platform's name of the file or the message."""

        def work() -> None:
            owner, digest = self._digests(str(address), content)
            with self._database.transaction() as connection:
                sendings.note(connection, owner, digest, media=media, message=message)

        await _if_possible(work)

    async def card(self, address: Address, topic: str) -> str:
        """The code with which the card of a topic may be renewed, once; empty if there is none."""

        def work() -> str:
            with self._database.transaction() as connection:
                owner, now = self._keys.digest(str(address)), self._clock.now()
                code = bubbles.bubble_of(connection, owner, topic) or ""
                bubbles.keep_bubble(connection, owner, topic, "", now)
                return code

        return await or_later(work)

    async def keep_card(self, address: Address, topic: str, code: str) -> None:
        def work() -> None:
            with self._database.transaction() as connection:
                owner, now = self._keys.digest(str(address)), self._clock.now()
                bubbles.keep_bubble(connection, owner, topic, code, now)

        await _if_possible(work)

    def _begin(self, address: str, content: str, key: str) -> tuple[int, Try]:
        now, (owner, digest) = self._clock.now(), self._digests(address, content)
        with self._database.transaction() as connection:
            if now - self._tidied >= TIDY:
                self._tidied = now
                sendings.forget_sendings(connection, now)
                bubbles.forget_bubbles(connection, now, now - CARD_LIFE)
                pace.forget_paces(connection, now)
            for most in LIMITS:
                chat = self._keys.digest(f"{address} {most[1]}")
                wait = pace.take_turn(connection, chat, now, 0, most)
                if wait:
                    return wait, Try(False, now)
            return 0, sendings.begin(connection, owner, digest, key, now, CHECKED)

    def _digests(self, address: str, content: str) -> tuple[str, str]:
        return self._keys.digest(address), self._keys.digest(content)


async def or_later(work: Callable[[], T]) -> T:
    """Without the tables nothing may leave; the outbox tries again."""
    try:
        return await asyncio.to_thread(work)
    except DBAPIError:
        raise SendError("busy", detail="database") from None


async def _if_possible(work: Callable[[], None]) -> None:
    """What has happened has happened, whether or not it could be written down."""
    try:
        await asyncio.to_thread(work)
    except DBAPIError as error:
        log.warning("not_noted", channel="wecom", error=type(error).__name__)
