"""People on the emulated platforms: how each of them speaks to the bot, and what they were sent."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bot.messages import Address
from tests.emulators.faults import Fault, Faults
from tests.emulators.server import Platforms

SHARE = 0.05
"""Of all calls so many lose their connection, and as many are told `system busy`."""
FLOODS = 0.01
LATE = 0.02
"""Of all messages to us so many arrive twice."""
CUSTOMER_GROUP, STAFF_GROUP = "wrSoak", "工作群"


class Unreliable(Faults):
    """Faults by chance instead of on request, counted by what they were.

    `busy` and `flood` are the platform's own errors; 0 for one that it does not have.
    """

    def __init__(
        self,
        chance: random.Random,
        busy: float,
        flood: float = 0,
        *,
        calm: Sequence[str] = (),
        cuts: bool = True,
    ) -> None:
        super().__init__()
        self._chance = chance
        self._busy = busy
        self._flood = flood
        self._calm = frozenset(calm)
        self._cuts = SHARE / 2 if cuts else 0.0
        self.drawn: Counter[str] = Counter()
        self.over = False

    def take(self, endpoint: str) -> Fault | None:
        laid = super().take(endpoint)
        if laid is not None or self.over or endpoint in self._calm:
            return laid
        drawn = self._chance.random()
        for name, share, fault in (
            ("cut_before", self._cuts, Fault("cut", "before")),
            ("cut_after", self._cuts, Fault("cut", "after")),
            ("busy", SHARE, Fault("errcode", "before", value=self._busy)),
            ("flood", FLOODS if self._flood else 0, Fault("errcode", "before", value=self._flood)),
        ):
            drawn -= share
            if drawn < 0:
                self.drawn[name] += 1
                return fault
        return None


class _Push(Protocol):
    async def done(self) -> Any: ...


@dataclass(frozen=True)
class Spoken:
    """One thing that somebody said, and the address at which we know them."""

    address: str
    text: str


class Crowd(ABC):
    """The people of one channel. `name` is the channel's."""

    name: str

    def __init__(self, platforms: Platforms, chance: random.Random) -> None:
        self.platforms = platforms
        self.chance = chance
        self.spoken: list[Spoken] = []

    async def say(self, user: str, text: str) -> None:
        """Somebody writes; returns when the platform has handed it over."""
        self.spoken.append(Spoken(str(self.address(user)), text))
        pushed = self._say(user, text, twice=self.chance.random() < LATE)
        if pushed is not None:
            await pushed.done()

    @abstractmethod
    def join(self, number: int) -> str:
        """A new person; returns their name there."""

    async def enter(self, user: str) -> None:  # noqa: B027  # most platforms have no such thing
        """What comes before the first word, where the platform has it so."""

    @abstractmethod
    def address(self, user: str) -> Address:
        """Where our bot knows them."""

    @abstractmethod
    def _say(self, user: str, text: str, *, twice: bool) -> _Push | None: ...

    @abstractmethod
    def heard(self, user: str) -> list[str]:
        """The bubbles that came by a call of ours, answers in place left out."""


class OnWeChat(Crowd):
    """Followers of the Official Account."""

    name = "wechat"

    def join(self, number: int) -> str:
        return f"o{number:05}"

    async def enter(self, user: str) -> None:
        await self.platforms.wechat.follow(user).done()

    def address(self, user: str) -> Address:
        return Address(self.name, self.platforms.wechat.account.app_id, user)

    def _say(self, user: str, text: str, *, twice: bool) -> _Push:
        if twice:
            self.platforms.wechat.repeat_next()
        return self.platforms.wechat.say(user, text)

    def heard(self, user: str) -> list[str]:
        sent = self.platforms.wechat.sent
        return [_text(given) for given in sent if given["touser"] == user]


class OnTelegram(Crowd):
    """People abroad."""

    name = "telegram"

    def join(self, number: int) -> str:
        user = str(self.platforms.telegram.person(1_000_000 + number, f"乡亲{number}"))
        return user

    def address(self, user: str) -> Address:
        return Address(self.name, str(self.platforms.telegram.bot["id"]), user)

    def _say(self, user: str, text: str, *, twice: bool) -> None:
        if twice:
            self.platforms.telegram.duplicate_next()
        self.platforms.telegram.say(int(user), text)

    def heard(self, user: str) -> list[str]:
        lines = self.platforms.telegram.chats[int(user)].transcript
        return [line.text for line in lines if line.by == "bot" and line.kind != "edit"]


class OnKf(Crowd):
    """Customers of the hotline's customer service."""

    name = "wecom_kf"

    def join(self, number: int) -> str:
        user = f"wm{number:05}"
        self.platforms.wecom_kf.find(user)
        return user

    def address(self, user: str) -> Address:
        kf = self.platforms.wecom_kf
        return Address(self.name, kf.account, user)

    def _say(self, user: str, text: str, *, twice: bool) -> _Push:
        if twice:
            self.platforms.wecom.repeat_next()
        return self.platforms.wecom_kf.say(user, text)

    def heard(self, user: str) -> list[str]:
        sent = self.platforms.wecom_kf.sent
        return [_text(given) for given in sent if given["touser"] == user]


class OnWeCom(Crowd):
    """The staff, in the corporation's app."""

    name = "wecom"

    def join(self, number: int) -> str:
        user = f"staff{number:03}"
        self.platforms.wecom.hire(user)
        return user

    def address(self, user: str) -> Address:
        return Address(self.name, self.platforms.wecom.corporation.corp_id, user)

    def _say(self, user: str, text: str, *, twice: bool) -> _Push:
        if twice:
            self.platforms.wecom.repeat_next()
        return self.platforms.wecom.say(user, text)

    def heard(self, user: str) -> list[str]:
        return self.platforms.wecom.heard(user)


class OnBot(Crowd):
    """The staff, with the smart bot over its long connection."""

    name = "wecom_bot"

    def join(self, number: int) -> str:
        user = f"clerk{number:03}"
        self.platforms.wecom_bot.hire(user)
        return user

    def address(self, user: str) -> Address:
        return Address(self.name, self.platforms.wecom_bot.account.bot_id, user)

    async def say(self, user: str, text: str) -> None:
        """Only while the connection stands: this platform tells a message once."""
        while self.platforms.wecom_bot.live is None:
            await asyncio.sleep(0.01)
        await super().say(user, text)

    def _say(self, user: str, text: str, *, twice: bool) -> _Push:
        if twice:
            self.platforms.wecom_bot.repeat_next()
        return self.platforms.wecom_bot.say(user, text)

    def heard(self, user: str) -> list[str]:
        return self.platforms.wecom_bot.heard(user)


CROWDS: Mapping[str, type[Crowd]] = {
    kind.name: kind for kind in (OnWeChat, OnTelegram, OnKf, OnWeCom, OnBot)
}
ONE_WAY = frozenset({"wecom_group", "wecom_webhook"})
"""Channels on which nobody speaks to us: groups that get announcements."""


def _text(given: Mapping[str, Any]) -> str:
    part = given[given["msgtype"]]
    return str(part.get("content") or part.get("head_content") or f"[{given['msgtype']}]")


def settings_of(platforms: Platforms) -> dict[str, str]:
    """What an operator would fill in, of every platform, as the consoles show it."""
    platforms.wecom_bot.mode = "socket"
    platforms.wecom_webhook.make_group(STAFF_GROUP)
    filed = {"telegram_policy": "full", "telegram_filing": "演练评估1号"}
    return {**platforms.settings(), **filed}


def make_unreliable(platforms: Platforms, chance: random.Random) -> dict[str, Unreliable]:
    """Lay the faults by chance; returns them by platform.

    Tokens are got without trouble: they are killed now and then instead. The long connection is
    never cut: its platform tells a message once, so what is lost there nobody can bring back. Only
    Telegram says 429: the minute's silence that the others ask for is a real one, and would be a
    quarter of the hour here.
    """
    platforms.wechat.faults = wechat = Unreliable(chance, -1, calm=("cgi-bin/stable_token",))
    platforms.wecom.faults = wecom = Unreliable(chance, -1, calm=("cgi-bin/gettoken",))
    platforms.telegram.faults = telegram = Unreliable(chance, 500, 429)
    platforms.wecom_bot.faults = bot = Unreliable(
        chance, -1, calm=("ping", "openws", "aibot_subscribe"), cuts=False
    )
    return {"wechat": wechat, "wecom": wecom, "telegram": telegram, "wecom_bot": bot}
