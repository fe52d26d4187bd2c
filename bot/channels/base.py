"""The contract every channel keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sqlalchemy import Connection
from starlette.routing import BaseRoute

from bot.context import ChannelFacts, Context, Services
from bot.messages import Address, File, Inbound, Media, Part

Receive = Callable[[Inbound, float], Awaitable[tuple[Part, ...]]]
"""Hand a message over and wait at most so many seconds for the parts of the platform's own answer.

Raises TimeoutError when it takes longer: then answer nothing, so that the platform tries again and
its next try finds the answer (or, when no try is left, the answer leaves through the outbox).
Raises anything else when the message could not be taken: answer with 503. The message is handed
over by the call itself, not by waiting for what it returns.
"""


@dataclass(frozen=True, slots=True)
class Awaiting:
    """What `send` returns where a member of the staff must still tap: nobody was written to yet.

    `id` is the platform's id of the task; `storage.gate.report` finds the row by it.
    """

    id: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A message that may not leave now, because its reader's window is closed.

    `row` is its number in the outbox, `text` what it says, whole.
    """

    row: int
    purpose: str
    person_id: int
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `hongyan check`: what was looked at, and where it is wrong, what to click."""

    fine: bool
    what: str
    advice: str = ""


class Channel(Protocol):
    """One platform. Above it nobody knows the platform's rules; it knows nothing above it."""

    @property
    def facts(self) -> ChannelFacts:
        """What it can carry."""

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        """Its webhooks with their whole paths (`/callback/…`); none for a polling channel."""

    async def run(self, receive: Receive) -> None:
        """Live until cancelled: poll, hold a connection, renew a token. May return at once.

        A platform that cannot be reached must not end it; other channels go on.
        """

    async def send(self, address: Address, part: Part, key: str) -> str | Awaiting:
        """Send one bubble and return the platform's id of it ("" if it has none).

        `key` is the same for each try of the same bubble: the platform's idempotency key where it
        has one. Raises SendError; TimeoutError and connection errors after the request may have
        left become SendError(unknown=True).
        """

    async def close(self) -> None:
        """Give connections back."""

    def check(self) -> Sequence[str]:
        """What is missing in the settings, in plain Chinese; empty when it may start."""


@runtime_checkable
class Attached(Protocol):
    """A channel that keeps something in tables of its own (buttons, a platform's token)."""

    def attach(self, services: Services) -> None:
        """Called once, before anything else of the channel."""


@runtime_checkable
class Neighbourly(Protocol):
    """A channel at whose address a platform also tells what concerns other channels."""

    def meet(self, others: Sequence[Channel]) -> None:
        """Called once with all channels of the installation, before anything else of this one."""


@runtime_checkable
class Noting(Protocol):
    """A channel that is also told what nobody said: what became of a message, who is in a group.

    It hands that over as `bot.messages.aside`, so that it is taken in once, in its order, and kept
    while the database is away.
    """

    def note(self, context: Context) -> None:
        """Write an aside down, in its transaction, perhaps long after it was told.

        Raises NotYet where it is about something that is still to be written.
        """


@runtime_checkable
class Notifying(Protocol):
    """A channel that can tell people, outside their reply window, that something waits for them."""

    @property
    def noticed(self) -> frozenset[str]:
        """Names of the purposes for which it can."""

    async def notify(self, address: Address, notice: Notice, key: str) -> str:
        """Tell that a message waits and where it can be read; returns the platform's id.

        Raises SendError as `send` does; `window` where this person cannot be told now.
        """


@runtime_checkable
class Paced(Protocol):
    """A channel whose chats have a pace of their own, which all processes keep together.

    Turns are taken as rows pass the gate, all in one statement; who gets none there waits in
    `send`, or is refused by it.
    """

    def take_turns(
        self, connection: Connection, addresses: Sequence[Address]
    ) -> frozenset[Address]:
        """Those of the addresses whose chat is free now: its turn is taken. For a thread."""

    async def send_in_turn(self, address: Address, part: Part, key: str) -> str | Awaiting:
        """As `send`, the turn having been taken."""


@runtime_checkable
class Exclusive(Protocol):
    """A channel that one process alone can speak on, because it holds the only connection."""

    def may_speak(self) -> bool:
        """Can this process? If not, its delivery leaves the rows to the one that can."""


@runtime_checkable
class Working(Protocol):
    """A channel whose `run` may be a worker's part: it polls, or does errands."""

    @property
    def works(self) -> bool:
        """Is it? Then a process that only answers callbacks leaves it alone."""


@runtime_checkable
class Probed(Protocol):
    """A channel that can be tried for real by `hongyan check`: token, rights, callback, quota."""

    async def probe(self) -> Sequence[Finding]:
        """Ask the platform; never raises for what the platform answers, nor shows a secret."""


@runtime_checkable
class Fetching(Protocol):
    """A channel that can bring a file which somebody sent; only for a step that asked for one."""

    async def fetch(self, media: Media, longest: int) -> File:
        """The file, of at most so many bytes; raises SendError (`too_large`, permanent)."""
