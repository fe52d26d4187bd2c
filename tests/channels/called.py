"""What tests of a platform that calls us share: they wait for its pushes and forge its letters."""

from __future__ import annotations

import asyncio
import threading
from typing import ClassVar

import aiohttp

from bot.app import App
from bot.channels.envelope import Envelope, Sealed
from bot.commands import Command, command
from bot.context import Context
from bot.messages import Reply, say
from tests.channels.harness import Trouble
from tests.emulators.clock import VirtualClock
from tests.emulators.faults import What, When
from tests.emulators.pushing import Push

MONTH_AGO = 30 * 86400
PROMPTLY = 20.0  # real seconds after which a test is told that nothing comes any more
SHORT = aiohttp.ClientTimeout(sock_connect=1, sock_read=0.3)


def faults(quota: int) -> dict[Trouble, tuple[What, When, float]]:
    """How a trouble of the contract looks on a platform that says `quota` when it is used up."""
    return {
        Trouble.BUSY: ("errcode", "before", -1),
        Trouble.QUOTA: ("errcode", "before", quota),
        Trouble.SERVER_ERROR: ("status", "before", 502),
        Trouble.HTML: ("html", "before", 0),
        Trouble.ANSWER_LOST: ("cut", "after", 0),
        Trouble.NO_ANSWER: ("stall", "after", 0),
    }


class Called:
    """An installation that an emulated platform calls at `webhook`, in sealed letters."""

    CALL = "<xml><MsgType>text</MsgType></xml>"
    """The least that a genuine letter holds."""

    troubles: ClassVar[frozenset[Trouble]] = frozenset(faults(0)) | {Trouble.NOT_SENT}

    def __init__(
        self, clock: VirtualClock, app: App, webhook: str, sealing: tuple[str, str, str]
    ) -> None:
        """`sealing`: the token, the AES key and whom the platform's letters are for."""
        self.clock = clock
        self.app = app
        self.webhook = webhook
        self._sealing = sealing

    async def done(self, push: Push) -> Push:
        """Wait until a push is answered and the outbox has said the rest."""
        async with asyncio.timeout(PROMPTLY):
            await push.done()
            await self.heard_out()
        await self.app.delivery.until_idle()
        return push

    async def heard_out(self) -> None:
        """Wait for what a push only announces; most say everything themselves."""

    async def status(self, push: Push, number: int) -> int:
        """How a try (0 is the first) was answered, whether or not more will follow."""
        async with asyncio.timeout(PROMPTLY):
            while len(push.tries) <= number or (status := push.tries[number].status) is None:
                await self.clock.advance(0)
        return status

    async def forges(self) -> list[int]:
        """Statuses for a wrong signature, for a letter of last month, and for none at all."""
        now = int(self.clock.timestamp())
        good, body = self.sealed(self.CALL, now)
        old, old_body = self.sealed(self.CALL, now - MONTH_AGO)
        return [
            await self.posts({**good, "msg_signature": "0" * 40}, body),
            await self.posts(old, old_body),
            await self.posts({}, body),
        ]

    def sealed(
        self, plain: str, stamp: int, receive_id: str | None = None
    ) -> tuple[dict[str, str], bytes]:
        """A callback as the platform would sign and seal it, for us or for somebody else."""
        token, aes_key, ours = self._sealing
        envelope = Envelope(token, aes_key, ours if receive_id is None else receive_id)
        letter = envelope.seal(plain, stamp, "n1")
        query = {"timestamp": str(stamp), "nonce": "n1", "msg_signature": letter.signature}
        return query, self.written(letter)

    def written(self, letter: Sealed) -> bytes:
        """The body that holds a sealed letter."""
        return letter.as_xml().encode()

    async def posts(self, query: dict[str, str], body: bytes) -> int:
        """The status that a callback is answered with."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.webhook, params=query, data=body) as response,
        ):
            answer = await response.text()
        assert "Traceback" not in answer
        return response.status


class Slow:
    """A word whose answer takes as long as the test likes, and how often it was worked out."""

    def __init__(self) -> None:
        self.runs = 0
        self.begun = threading.Event()
        self.free = threading.Event()

    def word(self) -> Command:
        @command("慢")
        def slowly(context: Context, _argument: str) -> Reply:
            self.runs += 1
            self.begun.set()
            self.free.wait(20)
            return say("慢慢来")

        return slowly
