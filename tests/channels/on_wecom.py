"""The WeCom app over its emulated platform."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bot.app import App
from bot.channels.callback import Patience
from bot.channels.wecom import WeComChannel
from bot.channels.wecom.cards import unpack
from bot.channels.wecom.reading import address_of
from bot.commands import Command
from bot.settings import Settings
from tests.channels.called import SHORT, Called, faults
from tests.channels.harness import Trouble, installed, serving, settings_for
from tests.emulators.pushing import Push
from tests.emulators.server import Platforms
from tests.emulators.wecom import Corporation

SEND = "cgi-bin/message/send"
TOKEN = "cgi-bin/gettoken"
WANG, LI = "oWangXiaoyan", "oLiYuangui"

FAULTS = faults(45009)
TROUBLES = Called.troubles
WEBHOOK = True


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


class OnWeCom(Called):
    """Members use their phones; the platform calls us and is called."""

    def __init__(self, platforms: Platforms, channel: WeComChannel, app: App, url: str) -> None:
        ours = platforms.wecom.corporation
        sealing = (ours.token, ours.aes_key, ours.corp_id)
        super().__init__(platforms.clock, app, f"{url}/callback/wecom", sealing)
        self.platforms = platforms
        self.wecom = platforms.wecom
        self.corporation = ours
        self.channel = channel
        self.secrets = (ours.secret, ours.token, ours.aes_key)

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
