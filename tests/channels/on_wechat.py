"""The WeChat channel over its emulated platform."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bot.app import App
from bot.catalog import Catalog
from bot.channels.callback import Patience
from bot.channels.envelope import Envelope
from bot.channels.wechat.callback import SLOW
from bot.channels.wechat.channel import WeChatChannel
from bot.commands import Command
from bot.messages import Address
from bot.settings import Settings
from tests.channels.harness import Trouble, installed, serving, settings_for
from tests.emulators.faults import What, When
from tests.emulators.pushing import Push
from tests.emulators.server import Platforms
from tests.emulators.wechat import Account

SEND = "cgi-bin/message/custom/send"
TOKEN = "cgi-bin/stable_token"
WANG = "oWangXiaoyan"
MONTH_AGO = 30 * 86400

FAULTS: dict[Trouble, tuple[What, When, float]] = {
    Trouble.BUSY: ("errcode", "before", -1),
    Trouble.QUOTA: ("errcode", "before", 45011),
    Trouble.SERVER_ERROR: ("status", "before", 502),
    Trouble.HTML: ("html", "before", 0),
    Trouble.ANSWER_LOST: ("cut", "after", 0),
    Trouble.NO_ANSWER: ("stall", "after", 0),
}
TROUBLES = frozenset(FAULTS) | {Trouble.NOT_SENT}
WEBHOOK = True
PROMPTLY = 20.0  # real seconds after which a test is told that nothing comes any more
SHORT = aiohttp.ClientTimeout(sock_connect=1, sock_read=0.3)


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


class OnWeChat:
    """Members use their phones; the platform calls us and is called."""

    troubles = TROUBLES

    def __init__(self, platforms: Platforms, channel: WeChatChannel, app: App, url: str) -> None:
        self.platforms = platforms
        self.wechat = platforms.wechat
        self.account = platforms.wechat.account
        self.clock = platforms.clock
        self.channel = channel
        self.app = app
        self.webhook = f"{url}/callback/wechat"
        self.secrets = (self.account.secret, self.account.token, self.account.aes_key)

    async def done(self, push: Push) -> Push:
        """Wait until a push is answered and the outbox has said the rest."""
        async with asyncio.timeout(PROMPTLY):
            await push.done()
        await self.app.delivery.until_idle()
        return push

    async def status(self, push: Push, number: int) -> int:
        """How a try (0 is the first) was answered, whether or not more will follow."""
        async with asyncio.timeout(PROMPTLY):
            while len(push.tries) <= number or (status := push.tries[number].status) is None:
                await self.clock.advance(0)
        return status

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

    async def forges(self) -> list[int]:
        now = int(self.clock.timestamp())
        good, body = self.sealed("<xml><MsgType>text</MsgType></xml>", now)
        old, old_body = self.sealed("<xml><MsgType>text</MsgType></xml>", now - MONTH_AGO)
        return [
            await self.posts({**good, "msg_signature": "0" * 40}, body),
            await self.posts(old, old_body),
            await self.posts({}, body),
        ]

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

    def sealed(self, plain: str, stamp: int) -> tuple[dict[str, str], bytes]:
        """A callback as the platform would sign and seal it."""
        envelope = Envelope(self.account.token, self.account.aes_key, self.account.app_id)
        letter = envelope.seal(plain, stamp, "n1")
        query = {"timestamp": str(stamp), "nonce": "n1", "msg_signature": letter.signature}
        return query, letter.as_xml().encode()

    async def posts(self, query: dict[str, str], body: bytes) -> int:
        """The status that a callback is answered with."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.webhook, params=query, data=body) as response,
        ):
            answer = await response.text()
        assert "Traceback" not in answer
        return response.status


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
