"""Phones on a page: keeps the bubbles of the demo's people in memory and sends nothing anywhere."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from starlette.routing import BaseRoute

from bot.channels.base import Receive
from bot.clock import beijing
from bot.context import ChannelFacts
from bot.errors import SendError
from bot.messages import Address, Choice, File, Part

ACCOUNT = "demo"
SLOWEST = 0.9  # seconds an invented platform takes at most, so that the eye can follow a campaign
BLOCKED_MARK = "-gone"

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Bubble:
    """One bubble on one phone. `mine`: said by the phone's owner. `spent`: its buttons are past."""

    id: int
    user: str
    who: str
    text: str
    at: datetime
    mine: bool = False
    asked: bool = True
    choices: tuple[Choice, ...] = ()
    spent: bool = False
    file: File | None = None
    topic: str | None = None


@dataclass
class Board:
    """What all phones show, and who watches. Only the event loop touches it."""

    now: Callable[[], datetime]
    bubbles: list[Bubble] = field(default_factory=list)
    _watchers: set[asyncio.Queue[Event]] = field(default_factory=set)

    def said(self, user: str, who: str, text: str, *, mine: bool) -> None:
        """Somebody spoke; whatever was asked of them before is past."""
        self._add(Bubble(0, user, who, text, self.now(), mine=mine))
        if mine:
            self._spend(lambda bubble: bubble.user == user and bubble.asked)

    def shown(self, user: str, who: str, part: Part, *, asked: bool) -> None:
        """The bot spoke: in answer (`asked`), or of its own accord."""
        bubble = Bubble(
            0, user, who, part.text, self.now(), asked=asked, choices=part.choices, file=part.file
        )
        if part.replaces is not None:
            # The earlier one stays to be read, but only the newest can be pressed.
            self._spend(lambda old: old.user == user and old.topic == part.replaces)
        self._add(replace(bubble, topic=part.replaces))

    def press(self, bubble_id: int, number: int) -> Choice | None:
        """Take a button of a bubble; None if it is past or never was."""
        found = self.find(bubble_id)
        if found is None or found.spent or not 0 <= number < len(found.choices):
            return None
        self._spend(lambda bubble: bubble.id == bubble_id)
        return found.choices[number]

    def find(self, bubble_id: int) -> Bubble | None:
        """A bubble by its id."""
        return self.bubbles[bubble_id - 1] if 0 < bubble_id <= len(self.bubbles) else None

    def publish(self, event: Event) -> None:
        """Tell everybody who watches."""
        for watcher in self._watchers:
            watcher.put_nowait(event)

    @property
    def watched(self) -> bool:
        """Is any page open?"""
        return bool(self._watchers)

    @contextmanager
    def watching(self) -> Iterator[asyncio.Queue[Event]]:
        """A queue of what happens from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield queue
        finally:
            self._watchers.discard(queue)

    def _add(self, bubble: Bubble) -> None:
        numbered = replace(bubble, id=len(self.bubbles) + 1)
        self.bubbles.append(numbered)
        self.publish({"kind": "bubble", "bubble": as_json(numbered)})

    def _spend(self, past: Callable[[Bubble], bool]) -> None:
        ids = [b.id for b in self.bubbles if b.choices and not b.spent and past(b)]
        for number in ids:
            self.bubbles[number - 1] = replace(self.bubbles[number - 1], spent=True)
        if ids:
            self.publish({"kind": "spent", "ids": ids})


def as_json(bubble: Bubble) -> dict[str, Any]:
    """A bubble as the page reads it."""
    return {
        "id": bubble.id,
        "user": bubble.user,
        "who": bubble.who,
        "text": bubble.text,
        "at": beijing(bubble.at).isoformat(),
        "mine": bubble.mine,
        "asked": bubble.asked,
        "choices": [choice.label for choice in bubble.choices],
        "spent": bubble.spent,
        "file": bubble.file.name if bubble.file else None,
    }


class DemoChannel:
    """One invented platform. People with a phone on the page see bubbles, the others only a wait.

    `hurry` makes everything arrive at once, while the clock is being moved.
    """

    def __init__(self, facts: ChannelFacts, board: Board, bot: str, phones: Sequence[str]) -> None:
        self.facts = facts
        self.hurry = False
        self._board = board
        self._bot = bot
        self._phones = frozenset(phones)
        self._sent = 0

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        """None: the page's own server speaks to `receive`."""
        return ()

    async def run(self, receive: Receive) -> None:
        """Nothing to poll."""

    async def send(self, address: Address, part: Part, key: str) -> str:
        """Show a bubble, or take the time a platform would."""
        if address.user in self._phones:
            self._board.shown(address.user, self._bot, part, asked=False)
        elif not self.hurry:
            # By the recipient and not by chance: each run of the demo looks the same.
            await asyncio.sleep(SLOWEST * (zlib.crc32(str(address).encode()) % 997) / 997)
        if address.user.endswith(BLOCKED_MARK):
            raise SendError("blocked", permanent=True)
        self._sent += 1
        return f"{self.facts.name}-{self._sent}"

    async def close(self) -> None:
        """Nothing to give back."""

    def check(self) -> Sequence[str]:
        """Nothing can be missing."""
        return ()
