"""The WeCom app over its emulated platform."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from bot.app import App
from bot.channels.callback import Patience
from bot.channels.envelope import Envelope
from bot.channels.wecom import WeComChannel
from bot.channels.wecom.cards import unpack
from bot.channels.wecom.reading import address_of
from bot.commands import Command
from bot.settings import Settings
from tests.channels.harness import Trouble, installed, serving, settings_for
from tests.emulators.faults import What, When
from tests.emulators.pushing import Push
from tests.emulators.server import Platforms
from tests.emulators.wecom import Corporation

SEND = "cgi-bin/message/send"
TOKEN = "cgi-bin/gettoken"
WANG, LI = "oWangXiaoyan", "oLiYuangui"
MONTH_AGO = 30 * 86400

FAULTS: dict[Trouble, tuple[What, When, float]] = {
    Trouble.BUSY: ("errcode", "before", -1),
    Trouble.QUOTA: ("errcode", "before", 45009),
    Trouble.SERVER_ERROR: ("status", "before", 502),
    Trouble.HTML: ("html", "before", 0),
    Trouble.ANSWER_LOST: ("cut", "after", 0),
    Trouble.NO_ANSWER: ("stall", "after", 0),
}
TROUBLES = frozenset(FAULTS) | {Trouble.NOT_SENT}
WEBHOOK = True
PROMPTLY = 20.0  # real seconds after which a test is told that nothing comes any more
SHORT = aiohttp.ClientTimeout(sock_connect=1, sock_read=0.3)


def wecom_settings(folder: Path, ours: Corporation, api_base: str, **values: str) -> Settings:
    """Settings as the admin console shows them."""
    given = {
        "channels": "wecom",
        "wecom_corp_id": ours.corp_id,
        "wecom_agent_id": str(ours.agent_id),
        "wecom_secret": ours.secret,
        "wecom_token": ours.token,
        "wecom_aes_key": ours.aes_key,
        "wecom_api_base": api_base,
        **values,
    }
    return settings_for(folder, **given)


class OnWeCom:
    """Members use their phones; the platform calls us and is called."""

    troubles = TROUBLES

    def __init__(self, platforms: Platforms, channel: WeComChannel, app: App, url: str) -> None:
        self.platforms = platforms
        self.wecom = platforms.wecom
        self.corporation = platforms.wecom.corporation
        self.clock = platforms.clock
        self.channel = channel
        self.app = app
        self.webhook = f"{url}/callback/wecom"
        ours = self.corporation
        self.secrets = (ours.secret, ours.token, ours.aes_key)

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
        await self.done(self.wecom.say(who, text))

    async def says_twice(self, who: str, text: str) -> None:
        self.wecom.repeat_next()
        push = await self.done(self.wecom.say(who, text))
        await self.status(push, 1)

    async def presses(self, who: str, value: str) -> None:
        await self.done(self.tap(who, value))

    def tap(self, who: str, value: str) -> Push:
        """Tap the button that says `value`, on the newest card that has one."""
        keys = [key for card in reversed(self.wecom.cards) for key in card.keys]
        return self.wecom.tap(who, next(key for key in keys if unpack(key).value == value))

    async def sends_voice(self, who: str) -> None:
        await self.done(self.wecom.send_voice(who))

    async def happens(self) -> int:
        fields = {"Latitude": "45.5", "Longitude": "119.6"}
        push = await self.done(self.wecom.event(WANG, "LOCATION", fields))
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
        return self.wecom.heard(who)

    def offered(self, who: str) -> list[str]:
        """The buttons of the newest card."""
        return [unpack(key).label for key in self.wecom.cards[-1].keys]

    async def blocks(self, who: str) -> None:
        """An administrator takes them out of the app's visible range."""
        self.wecom.member(who).visible = False

    def meets(self, trouble: Trouble) -> None:
        if trouble is Trouble.NOT_SENT:
            # Nothing listens where the token comes from, so the message has not left.
            self.wecom.kill_tokens()
            self.wecom.fail(TOKEN, "cut", times=2)  # a GET is asked again at once
            return
        what, when, value = FAULTS[trouble]
        self.wecom.fail(SEND, what, when, 1, value)

    def address(self, who: str) -> str:
        return str(address_of(self.corporation.corp_id, who))

    def sealed(
        self, plain: str, stamp: int, receive_id: str | None = None
    ) -> tuple[dict[str, str], bytes]:
        """A callback as the platform would sign and seal it."""
        ours = self.corporation
        envelope = Envelope(ours.token, ours.aes_key, receive_id or ours.corp_id)
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
    **values: str,
) -> AsyncIterator[OnWeCom]:
    """An installation that the emulated platform calls; 王小雁 and 李远归 see its app.

    `platforms` must not have been entered.
    """
    async with platforms or Platforms() as emulated:
        emulated.wecom.hire(WANG, "王小雁")
        emulated.wecom.hire(LI, "李远归")
        base = f"{emulated.url}/qy"
        settings = wecom_settings(folder, emulated.wecom.corporation, base, **values)
        channel = WeComChannel(settings, emulated.clock, patience=patience, timeout=SHORT)
        app = installed(settings, emulated.clock, channel, *commands)
        async with serving(app) as url:
            emulated.wecom.connect(f"{url}/callback/wecom")
            made = OnWeCom(emulated, channel, app, url)
            await made.done(emulated.wecom.show_app(WANG))
            yield made


@asynccontextmanager
async def harness(folder: Path) -> AsyncIterator[OnWeCom]:
    """For the contract, which all channels keep."""
    async with running(folder) as made:
        yield made
