"""The WeChat channel over its emulated platform."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bot.app import App
from bot.catalog import Catalog
from bot.channels.callback import Patience
from bot.channels.wechat.callback import SLOW
from bot.channels.wechat.channel import WeChatChannel
from bot.commands import Command
from bot.messages import Address
from bot.settings import Settings
from tests.channels.called import SHORT, Called, faults
from tests.channels.harness import Trouble, installed, serving, settings_for
from tests.emulators.server import Platforms
from tests.emulators.wechat import Account

SEND = "cgi-bin/message/custom/send"
TOKEN = "cgi-bin/stable_token"
WANG = "oWangXiaoyan"

FAULTS = faults(45011)
TROUBLES = Called.troubles
WEBHOOK = True


def wechat_settings(folder: Path, account: Account, api_base: str, **values: Any) -> Settings:
    """Settings as the account's console shows them."""
    return settings_for(
        folder,
        channels="wechat",
        wechat_app_id=account.app_id,
        wechat_app_secret=account.secret,
        wechat_token=account.token,
        wechat_aes_key=account.aes_key,
        wechat_api_base=api_base,
        **values,
    )


class OnWeChat(Called):
    """Members use their phones; the platform calls us and is called."""

    def __init__(self, platforms: Platforms, channel: WeChatChannel, app: App, url: str) -> None:
        ours = platforms.wechat.account
        sealing = (ours.token, ours.aes_key, ours.app_id)
        super().__init__(platforms.clock, app, f"{url}/callback/wechat", sealing)
        self.platforms = platforms
        self.wechat = platforms.wechat
        self.account = ours
        self.channel = channel
        self.secrets = (ours.secret, ours.token, ours.aes_key)

    async def says(self, who: str, text: str) -> None:
        await self.done(self.wechat.say(who, text))

    async def says_twice(self, who: str, text: str) -> None:
        self.wechat.repeat_next()
        push = await self.done(self.wechat.say(who, text))
        await self.status(push, 1)

    async def presses(self, who: str, value: str) -> None:
        await self.done(self.wechat.click(who, value))

    async def sends_voice(self, who: str) -> None:
        await self.done(self.wechat.send_voice(who))

    async def happens(self) -> int:
        fields = {"Latitude": "45.5", "Longitude": "119.6"}
        push = await self.done(self.wechat.happen(WANG, "LOCATION", fields))
        return push.tries[-1].status or 0

    def heard(self, who: str) -> list[str]:
        return self.wechat.heard(who)

    def offered(self, who: str) -> list[str]:
        return [self.heard(who)[-1]]

    async def blocks(self, who: str) -> None:
        self.wechat.accept_messages(who, False)

    def meets(self, trouble: Trouble) -> None:
        if trouble is Trouble.NOT_SENT:
            # Nothing listens where the token comes from, so the message has not left.
            self.wechat.kill_tokens()
            self.wechat.fail(TOKEN, "cut")
            return
        what, when, value = FAULTS[trouble]
        self.wechat.fail(SEND, what, when, 1, value)

    def address(self, who: str) -> str:
        return str(Address("wechat", self.account.app_id, who))


@asynccontextmanager
async def running(
    folder: Path,
    *commands: Command,
    platforms: Platforms | None = None,
    patience: Patience | None = None,
    known: Catalog | None = None,
    slow: float = SLOW,
    **values: Any,
) -> AsyncIterator[OnWeChat]:
    """An installation that the emulated platform calls; 王小雁 follows it.

    `platforms` must not have been entered. With `known` it says what the real one says.
    """
    async with platforms or Platforms() as emulated:
        settings = wechat_settings(folder, emulated.wechat.account, f"{emulated.url}/mp", **values)
        channel = WeChatChannel(
            settings, emulated.clock, patience=patience, timeout=SHORT, slow=slow
        )
        app = installed(settings, emulated.clock, channel, *commands, known=known)
        async with serving(app) as url:
            emulated.wechat.connect(f"{url}/callback/wechat")
            made = OnWeChat(emulated, channel, app, url)
            await made.done(emulated.wechat.follow(WANG))
            yield made


@asynccontextmanager
async def harness(folder: Path) -> AsyncIterator[OnWeChat]:
    """For the contract, which all channels keep."""
    async with running(folder) as made:
        yield made
