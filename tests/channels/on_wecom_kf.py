"""The customer service channel over its emulated platform."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bot.app import App
from bot.channels.wecom.callback import PATH
from bot.channels.wecom.kf.channel import KfChannel
from bot.commands import Command
from bot.messages import Address
from bot.settings import Settings
from tests.channels.called import SHORT, Called, faults
from tests.channels.harness import Trouble, installed, serving, settings_for
from tests.emulators.server import Platforms
from tests.emulators.wecom import Corporation
from tests.emulators.wecom_kf import Kf, KfRules
from tests.world import whole_catalog

SEND = "cgi-bin/kf/send_msg"
SYNC = "cgi-bin/kf/sync_msg"
TOKEN = "cgi-bin/gettoken"
WANG = "oWangXiaoyan"
LI = "oLiYuangui"

FAULTS = faults(45009)
TROUBLES = Called.troubles
WEBHOOK = True
CANNOT = {
    "test_who_has_blocked_the_bot_is_given_up": "the platform accepts it and tells afterwards",
    "test_a_long_answer_arrives_whole": "five messages are all that one of theirs opens",
}
"""Tests that the platform cannot be held to, and why; its own tests say what happens instead."""


def wecom_settings(
    folder: Path, corporation: Corporation, api_base: str, **values: str
) -> Settings:
    """Settings as the corporation's console shows them."""
    return settings_for(
        folder,
        wecom_corp_id=corporation.corp_id,
        wecom_agent_id=str(corporation.agent_id),
        wecom_secret=corporation.secret,
        wecom_token=corporation.token,
        wecom_aes_key=corporation.aes_key,
        wecom_api_base=api_base,
        **values,
    )


class OnKf(Called):
    """Customers write to the service account; the platform keeps it until we fetch it."""

    def __init__(
        self, platforms: Platforms, kf: Kf, channel: KfChannel, app: App, url: str
    ) -> None:
        ours = platforms.wecom.corporation
        sealing = (ours.token, ours.aes_key, ours.corp_id)
        super().__init__(platforms.clock, app, f"{url}{PATH}", sealing)
        self.platforms = platforms
        self.wecom = platforms.wecom
        self.kf = kf
        self.channel = channel
        self.secrets = (ours.secret, ours.token, ours.aes_key)

    async def heard_out(self) -> None:
        """What a push tells of is fetched."""
        await self.channel.settled()

    async def says(self, who: str, text: str) -> None:
        await self.done(self.kf.say(who, text))

    async def says_twice(self, who: str, text: str) -> None:
        push = self.kf.say(who, text)
        await self.done(push)
        await self.done(self.kf.poke())

    async def presses(self, who: str, value: str) -> None:
        await self.done(self.kf.tap(who, value))

    async def sends_voice(self, who: str) -> None:
        await self.done(self.kf.send_voice(who))

    async def happens(self) -> int:
        push = await self.done(self.wecom.announce("some_new_event", {"OpenKfId": "x"}))
        return push.tries[-1].status or 0

    def heard(self, who: str) -> list[str]:
        return self.kf.heard(who)

    def offered(self, who: str) -> list[str]:
        menu = next(m for m in reversed(self.kf.sent) if m["msgtype"] == "msgmenu")
        return [item["click"]["content"] for item in menu["msgmenu"]["list"]]

    async def blocks(self, who: str) -> None:
        await self.done(self.kf.reject(who))

    def meets(self, trouble: Trouble) -> None:
        if trouble is Trouble.NOT_SENT:
            # Nothing listens where the token comes from, so the message has not left.
            self.wecom.kill_tokens()
            self.wecom.fail(TOKEN, "cut", times=2)  # a GET is tried again by the client
            return
        what, when, value = FAULTS[trouble]
        self.wecom.fail(SEND, what, when, 1, value)

    def address(self, who: str) -> str:
        return str(Address("wecom_kf", self.kf.account, who))


@asynccontextmanager
async def running(
    folder: Path,
    *commands: Command,
    rules: KfRules | None = None,
    whole: bool = False,
    **values: str,
) -> AsyncIterator[OnKf]:
    """An installation that the emulated platform calls; 王小雁 and 李元贵 have the link.

    `whole`: it knows all that geese say.
    """
    async with Platforms() as emulated:
        kf = Kf(emulated.wecom, rules=rules) if rules else emulated.wecom_kf
        settings = wecom_settings(
            folder, emulated.wecom.corporation, f"{emulated.url}/qy", **values
        )
        channel = KfChannel(settings, emulated.clock, timeout=SHORT)
        known = whole_catalog() if whole else None
        app = installed(settings, emulated.clock, channel, *commands, known=known)
        async with serving(app) as url:
            emulated.wecom.connect(f"{url}{PATH}")
            made = OnKf(emulated, kf, channel, app, url)
            for who in (WANG, LI):
                kf.find(who)
            await channel.settled()
            yield made


@asynccontextmanager
async def harness(folder: Path) -> AsyncIterator[OnKf]:
    """For the contract, which all channels keep."""
    async with running(folder) as made:
        yield made
