"""The memory channel of the other tests keeps the contract too, so that they prove something."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bot.clock import MovableClock
from bot.errors import SendError
from bot.messages import Address, Inbound, Kind, Part
from tests.channels.harness import Trouble, installed, settings_for
from tests.emulators.server import START
from tests.world import MemoryChannel

FAILURES = {
    Trouble.BUSY: SendError("busy"),
    Trouble.QUOTA: SendError("quota", retry_after=30),
    Trouble.SERVER_ERROR: SendError("server_error"),
    Trouble.HTML: SendError("server_error"),
    Trouble.NOT_SENT: SendError("no_connection"),
    Trouble.ANSWER_LOST: SendError("no_answer", unknown=True),
    Trouble.NO_ANSWER: SendError("no_answer", unknown=True),
}
TROUBLES = frozenset(FAILURES)
WEBHOOK = False


class OnMemory:
    """Answers are kept beside what was sent."""

    secrets = ()
    troubles = TROUBLES
    webhook = ""

    def __init__(self, folder: Path) -> None:
        self.clock = MovableClock(START)
        self.channel = MemoryChannel()
        self.app = installed(settings_for(folder), self.clock, self.channel)
        self._answers: dict[str, list[Part]] = {}
        self._numbers = itertools.count(1)

    async def says(self, who: str, text: str, kind: Kind = Kind.TEXT) -> None:
        await self._hands_over(self._inbound(who, text, kind))

    async def says_twice(self, who: str, text: str) -> None:
        inbound = self._inbound(who, text, Kind.TEXT)
        await self._hands_over(inbound)
        await self.app.receive(inbound, 5)

    async def presses(self, who: str, value: str) -> None:
        await self.says(who, value, Kind.PRESS)

    async def sends_voice(self, who: str) -> None:
        await self.says(who, "", Kind.VOICE)

    async def happens(self) -> int:
        return 200

    async def forges(self) -> list[int]:
        return []

    def heard(self, who: str) -> list[str]:
        sent = [part for address, part in self.channel.sent if address.user == who]
        return [part.text for part in (*self._answers.get(who, ()), *sent)]

    def offered(self, who: str) -> list[str]:
        return [choice.label for choice in self._answers[who][-1].choices]

    async def blocks(self, who: str) -> None:
        self.channel.failures.append(SendError("unreachable", permanent=True))

    def meets(self, trouble: Trouble) -> None:
        self.channel.failures.append(FAILURES[trouble])

    def address(self, who: str) -> str:
        return f"memory:test:{who}"

    def _inbound(self, who: str, text: str, kind: Kind) -> Inbound:
        sender = Address("memory", "test", who)
        return Inbound(str(next(self._numbers)), sender, text, self.clock.now(), kind)

    async def _hands_over(self, inbound: Inbound) -> None:
        parts = await self.app.receive(inbound, 5)
        self._answers.setdefault(inbound.sender.user, []).extend(parts)


@asynccontextmanager
async def harness(folder: Path) -> AsyncIterator[OnMemory]:
    """A running installation that talks to nobody."""
    made = OnMemory(folder)
    async with made.app.running(roles=("web",)):
        yield made
    made.app.close()
