"""WeCom's smart bot by callbacks, over its emulated platform."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bot.app import App
from bot.channels.callback import Patience
from bot.channels.envelope import Sealed
from bot.channels.wecom.bot.reading import NAME, address_of
from bot.channels.wecom.bot.url import PATH, PATIENCE, UrlBot
from bot.commands import Command
from bot.settings import Settings
from tests.channels.called import PROMPTLY, SHORT, Called, faults
from tests.channels.harness import Trouble, installed, serving, settings_for
from tests.emulators.server import Platforms
from tests.emulators.wecom_bot import RESPONSE, Account, Push

WANG, LI, GROUP = "oWangXiaoyan", "oLiYuangui", "wrInternalGroup"

FAULTS = faults(45009)
TROUBLES = frozenset(FAULTS)
WEBHOOK = True


def bot_settings(folder: Path, account: Account, url: str, **values: Any) -> Settings:
    """Settings as the console's page for URL callbacks shows them."""
    given = {
        "wecom_bot_id": account.bot_id,
        "wecom_bot_token": account.token,
        "wecom_bot_aes_key": account.aes_key,
        "wecom_api_base": f"{url}/qy",
        **values,
    }
    return settings_for(folder, channels=NAME, **given)


class OnWeComBot(Called):
    """Employees use their phones; the platform calls us and is answered in place."""

    troubles = TROUBLES
    CALL = '{"msgid":"1","msgtype":"text","from":{"userid":"x"},"text":{"content":"帮助"}}'

    def __init__(self, platforms: Platforms, channel: UrlBot, app: App, url: str) -> None:
        ours = platforms.wecom_bot.account
        super().__init__(platforms.clock, app, f"{url}{PATH}", (ours.token, ours.aes_key, ""))
        self.platforms = platforms
        self.bot = platforms.wecom_bot
        self.account = ours
        self.channel = channel
        self.secrets = (self.account.token, self.account.aes_key, "response_code=")

    async def done(self, push: Push | None) -> Push:
        """Wait until a push is answered, and time has passed for a stream to end; drain."""
        assert push is not None
        async with asyncio.timeout(PROMPTLY):
            while not push.over.is_set():
                # An answer that was only begun is asked for again as time passes.
                await self.clock.advance(1.0 if push.stream else 0.0)
                await asyncio.sleep(0.001)
        await push.done()
        await self.drain()
        return push

    async def drain(self) -> None:
        await self.app.delivery.until_idle(PROMPTLY)

    async def says(self, who: str, text: str) -> None:
        await self.done(self.bot.say(who, text))

    async def says_twice(self, who: str, text: str) -> None:
        self.bot.repeat_next()
        push = await self.done(self.bot.say(who, text))
        while len(push.tries) < 2 or push.tries[1].status is None:
            await self.clock.advance(0)

    async def presses(self, who: str, value: str) -> None:
        await self.done(self.bot.press(who, value))

    async def sends_voice(self, who: str) -> None:
        await self.done(self.bot.send(who, "voice"))

    async def happens(self) -> int:
        push = await self.done(self.bot.happen(WANG, "something_new"))
        return push.tries[-1].status or 0

    def heard(self, who: str) -> list[str]:
        return self.bot.heard(who)

    def offered(self, who: str) -> list[str]:
        return self.bot.offered(who)

    async def blocks(self, who: str) -> None:
        self.bot.leave(who)

    def meets(self, trouble: Trouble) -> None:
        what, when, value = FAULTS[trouble]
        self.bot.fail(RESPONSE, what, when, 1, value)

    def address(self, who: str) -> str:
        return str(address_of(self.account.bot_id, who))

    def written(self, letter: Sealed) -> bytes:
        return json.dumps({"encrypt": letter.encrypt}).encode()


@asynccontextmanager
async def running(
    folder: Path,
    *commands: Command,
    platforms: Platforms | None = None,
    patience: Patience | None = None,
    **values: Any,
) -> AsyncIterator[OnWeComBot]:
    """An installation that the emulated platform calls; 王小雁 and 李远归 may see the bot."""
    async with platforms or Platforms() as emulated:
        bot = emulated.wecom_bot
        for user in (WANG, LI):
            bot.hire(user)
        bot.group(GROUP)
        settings = bot_settings(folder, bot.account, emulated.url, **values)
        channel = UrlBot(settings, emulated.clock, patience=patience or PATIENCE, timeout=SHORT)
        app = installed(settings, emulated.clock, channel, *commands)
        async with serving(app) as url:
            bot.connect(f"{url}{PATH}")
            yield OnWeComBot(emulated, channel, app, url)


@asynccontextmanager
async def harness(folder: Path) -> AsyncIterator[OnWeComBot]:
    """For the contract: 王小雁 has said enough for the bot to speak some times by itself."""
    async with running(folder) as made:
        for _time in range(8):
            await made.says(WANG, "回声 你好")
        yield made
