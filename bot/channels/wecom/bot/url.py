"""The smart bot by callbacks: without state, so that any number of replicas may answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from starlette.routing import BaseRoute, Route

from bot.channels.base import Finding, Receive
from bot.channels.callback import Patience
from bot.channels.calls import TIMEOUT, Caller
from bot.channels.envelope import Envelope
from bot.channels.wecom.bot.door import BotDoor
from bot.channels.wecom.bot.memory import URL_LIFE, Memory, new_key
from bot.channels.wecom.bot.reading import GROUP, NAME
from bot.channels.wecom.bot.words import WORDS, markdown
from bot.channels.wecom.reaching import reachable
from bot.clock import Clock
from bot.context import ChannelFacts, Context, Services
from bot.errors import SendError
from bot.messages import Address, Kind, Part
from bot.settings import Settings

PATH = "/callback/wecom-bot"
ONE_LATER_ANSWER = (timedelta(minutes=59), 1)

# A callback is answered in place, and once more within the hour at the address it brought. 20,480
# bytes is the platform's limit; escaping may double a text.
FACTS = ChannelFacts(
    NAME,
    inline=1,
    text_bytes=10_000,
    windowed=True,
    windows={
        kind: ONE_LATER_ANSWER
        for kind in (Kind.TEXT, Kind.PRESS, Kind.IMAGE, Kind.VOICE, Kind.VIDEO, Kind.FILE)
    },
    label="企业微信智能机器人",
    captions=False,
    # A press is answered by what becomes of the card, which has no room for an answer.
    apart=frozenset({Kind.PRESS}),
    gives_up=True,
)

# The platform hangs up after 5 s; it asks for the rest of a stream for 6 minutes.
PATIENCE = Patience(one_try=3.0, all_tries=330.0)

# What the platform says of a message, by its error code; anything else is said of the address.
_BUSY, _OFTEN, _GONE = -1, 45009, 93006
_WRONG = {40008: "kind", 40058: "format", 45002: "too_long"}


class UrlBot:
    """Answers callbacks; speaks later only at the addresses that callbacks brought."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        patience: Patience = PATIENCE,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
        keys: Callable[[], str] = new_key,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._patience = patience
        self._base = settings.wecom_api_base.rstrip("/")
        self._caller = Caller(self._base, timeout=timeout)
        self._memory = Memory(clock, keys)

    @property
    def facts(self) -> ChannelFacts:
        return FACTS

    def attach(self, services: Services) -> None:
        """Take the tables."""
        self._memory.attach(services)

    def check(self) -> Sequence[str]:
        """What is missing or malformed in the settings."""
        given = self._settings
        needed = {
            "HONGYAN_WECOM_BOT_TOKEN（智能机器人「API模式 → URL回调」的 Token）": (
                given.wecom_bot_token
            ),
            "HONGYAN_WECOM_BOT_AES_KEY（同一页的 EncodingAESKey）": given.wecom_bot_aes_key,
        }
        missing = [f"缺少 {name}" for name, value in needed.items() if not value]
        if given.wecom_bot_aes_key.get_secret_value():
            try:
                self._envelope()
            except ValueError:
                missing.append("HONGYAN_WECOM_BOT_AES_KEY 应是管理后台给出的43个字符，请重新复制")
        return missing

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        """The callback; none while a setting is missing."""
        if self.check():
            return ()
        door = BotDoor(
            self._envelope(),
            self._clock,
            receive,
            self._patience,
            account=account_of(self._settings),
            base=self._base,
            memory=self._memory,
        )
        return (Route(PATH, door, methods=["GET", "POST"]),)

    def note(self, context: Context) -> None:
        """Remember where an answer may be given, told when the tables could not be written."""
        told = context.inbound
        until = told.received_at + URL_LIFE
        self._memory.write_url(context.connection, told.sender, json.loads(told.text)["url"], until)

    async def run(self, receive: Receive) -> None:
        """Nothing to keep alive."""

    async def send(self, address: Address, part: Part, key: str) -> str:
        """One later answer, at an address that a callback brought. The platform has no id of it."""
        if self.check():
            raise SendError("not_configured", permanent=True)
        if part.file is not None:
            raise SendError("no_files", permanent=True)
        taken = await asyncio.to_thread(self._memory.take_url, address)
        if taken is None:
            raise _no_way(address)
        url, until = taken
        body = await self._later(address, part)
        try:
            await self._post(url, body, address)
        except SendError as error:
            if not error.unknown and error.reason != "window":
                await asyncio.to_thread(self._memory.keep_url, address, url, until)
            raise
        return ""

    async def _later(self, address: Address, part: Part) -> dict[str, Any]:
        """A text; with its choices as a card, where the text fits into one."""
        if part.choices and not address.user.startswith(GROUP) and len(part.text) <= WORDS:
            make, choices = self._memory.card, part.choices
            card = await asyncio.to_thread(make, address, choices, part.text)
            return {"msgtype": "template_card", "template_card": card}
        return markdown(part.text)

    async def _post(self, url: str, body: Mapping[str, Any], address: Address) -> None:
        found = urlsplit(url.removeprefix(self._base).lstrip("/"))
        answer = await self._caller.post(found.path, body, dict(parse_qsl(found.query)))
        code = answer.get("errcode")
        if code == 0:
            return
        detail = f"errcode {code}"
        if code == _BUSY:
            raise SendError("busy", detail=detail)
        if code == _OFTEN:
            raise SendError("quota", retry_after=60.0, only_here=True, detail=detail)
        if code == _GONE:
            raise SendError("unreachable", permanent=True, detail=detail)
        if isinstance(code, int) and code in _WRONG:
            raise SendError(_WRONG[code], permanent=True, detail=detail)
        # Used or expired, by the platform's count: their next word opens a new one.
        raise _no_way(address, detail)

    async def close(self) -> None:
        await self._caller.close()

    async def probe(self) -> Sequence[Finding]:
        """Is our address reached from outside, and does it answer as the console wants?"""
        missing = self.check()
        if missing:
            return [Finding(False, "智能机器人的设置", "；".join(missing))]
        where, url = "企业微信管理后台「智能机器人 → API模式 → URL回调」", self._settings.public_url
        return [
            await reachable("智能机器人的回调地址", where, url, PATH, self._envelope(), self._clock)
        ]

    def _envelope(self) -> Envelope:
        return Envelope(
            self._settings.wecom_bot_token.get_secret_value(),
            self._settings.wecom_bot_aes_key.get_secret_value(),
            "",  # the platform seals for a bot without naming anybody
        )


def account_of(settings: Settings) -> str:
    """Our name in addresses."""
    return settings.wecom_bot_id or "bot"


def _no_way(address: Address, detail: str = "") -> SendError:
    if address.user.startswith(GROUP):
        return SendError("url_mode", permanent=True, detail="URL 回调方式不能主动向群里发消息")
    return SendError("window", detail=detail)
