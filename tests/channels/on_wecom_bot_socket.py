"""WeCom's smart bot by the long connection, over its emulated platform."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from bot.channels.base import Receive
from bot.channels.wecom.bot.reading import NAME, address_of
from bot.channels.wecom.bot.socket import SocketBot
from bot.commands import Command
from bot.errors import SendError
from bot.settings import Settings
from tests.channels.called import PROMPTLY
from tests.channels.harness import Trouble, installed, settings_for
from tests.channels.on_wecom_bot import GROUP, LI, WANG
from tests.emulators.faults import What, When
from tests.emulators.server import Platforms
from tests.emulators.wecom_bot import Account, Push, WeComBot

SEND = "aibot_send_msg"
ANSWER = "aibot_respond_msg"

FAULTS: dict[Trouble, tuple[What, When, float]] = {
    Trouble.BUSY: ("errcode", "before", -1),
    Trouble.QUOTA: ("errcode", "before", 45009),
    Trouble.ANSWER_LOST: ("cut", "after", 0),
    Trouble.NO_ANSWER: ("stall", "after", 0),
}
TROUBLES = frozenset(FAULTS)
WEBHOOK = False


def socket_settings(folder: Path, account: Account, url: str, **values: Any) -> Settings:
    """Settings as the console's page for the long connection shows them."""
    given = {
        "wecom_bot_id": account.bot_id,
        "wecom_bot_secret": account.secret,
        "wecom_bot_url": f"{url.replace('http', 'ws', 1)}/openws",
        **values,
    }
    return settings_for(folder, channels=NAME, **given)


class OnSocket:
    """Employees use their phones; one connection carries everything."""

    troubles = TROUBLES
    webhook = ""

    def __init__(
        self,
        platforms: Platforms,
        folder: Path,
        *commands: Command,
        ack: float = 2.0,
        chance: Callable[[], float] = lambda: 0.5,
        **values: Any,
    ) -> None:
        self.platforms = platforms
        self.bot = platforms.wecom_bot
        self.account = self.bot.account
        self.clock = platforms.clock
        self.settings = socket_settings(folder, self.account, platforms.url, **values)
        self.waits: list[float] = []
        self.channel = SocketBot(
            self.settings, self.clock, sleep=self.sleep, chance=chance, ack=ack
        )
        self.app = installed(self.settings, self.clock, self.channel, *commands)
        self.secrets = (self.account.secret,)
        self._running: asyncio.Task[None] | None = None

    async def sleep(self, seconds: float) -> None:
        """The clock's, and noted."""
        self.waits.append(seconds)
        await self.clock.wait(seconds)

    def start(self, receive: Receive | None = None) -> None:
        """Begin to live, as the installation would."""
        self._running = asyncio.create_task(self.channel.run(receive or self.app.receive))

    async def stop(self) -> None:
        """Live no longer."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def connected(self) -> None:
        await until(self.channel.may_speak)

    async def settle(self) -> None:
        """Hear everything that was told, and say everything that is to be said."""
        await self.connected()
        await self.channel.ping()
        await self.channel.settled()
        await self.drain()

    async def drain(self) -> None:
        await self.app.delivery.until_idle(PROMPTLY)

    async def passes(self, seconds: float) -> None:
        """Time passes slowly enough for pings to be answered."""
        while seconds > 0:
            step = min(seconds, 15.0)
            await self.clock.advance(step)
            seconds -= step
            if self.channel.may_speak():
                with suppress(SendError):
                    await self.channel.ping()

    async def done(self, push: Push | None) -> Push:
        assert push is not None
        await push.done()
        await self.settle()
        return push

    async def says(self, who: str, text: str) -> None:
        await self.done(self.bot.say(who, text))

    async def says_twice(self, who: str, text: str) -> None:
        self.bot.repeat_next()
        push = self.bot.say(who, text)
        await until(lambda: len(push.tries) == 2)
        await self.done(push)

    async def presses(self, who: str, value: str) -> None:
        await self.done(self.bot.press(who, value))

    async def sends_voice(self, who: str) -> None:
        await self.done(self.bot.send(who, "voice"))

    async def happens(self) -> int:
        await self.done(self.bot.happen(WANG, "something_new"))
        return 200

    async def forges(self) -> list[int]:
        return []

    def heard(self, who: str) -> list[str]:
        return self.bot.heard(who)

    def offered(self, who: str) -> list[str]:
        return self.bot.offered(who)

    async def blocks(self, who: str) -> None:
        self.bot.leave(who)

    def meets(self, trouble: Trouble) -> None:
        what, when, value = FAULTS[trouble]
        self.bot.fail(SEND, what, when, 1, value)

    def address(self, who: str) -> str:
        return str(address_of(self.account.bot_id, who))


async def until(true: Callable[[], bool], each: Callable[[], Awaitable[Any]] | None = None) -> None:
    """Let others run until something is true."""
    async with asyncio.timeout(PROMPTLY):
        while not true():
            if each is not None:
                await each()
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(
    folder: Path,
    *commands: Command,
    platforms: Platforms | None = None,
    connect: bool = True,
    **values: Any,
) -> AsyncIterator[OnSocket]:
    """An installation that holds the connection; 王小雁 and 李远归 may see the bot."""
    async with platforms or Platforms() as emulated:
        bot: WeComBot = emulated.wecom_bot
        bot.mode = "socket"
        for user in (WANG, LI):
            bot.hire(user)
        bot.group(GROUP)
        made = OnSocket(emulated, folder, *commands, **values)
        made.app.dispatcher.start()
        try:
            if connect:
                made.start()
                await made.connected()
            yield made
        finally:
            await made.stop()
            made.app.dispatcher.stop()
            await made.channel.close()
            made.app.close()


@asynccontextmanager
async def harness(folder: Path) -> AsyncIterator[OnSocket]:
    """For the contract, which all channels keep."""
    async with running(folder) as made:
        yield made
