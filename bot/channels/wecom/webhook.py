"""Announcements to internal groups by 消息推送 (the former 群机器人): we speak, nobody is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
from pydantic import SecretStr
from starlette.routing import BaseRoute

from bot.alarm import call_for_help
from bot.channels.base import Finding, Receive
from bot.channels.calls import TIMEOUT, Caller
from bot.channels.tokens import DeadToken
from bot.channels.wecom.api import check
from bot.channels.wecom.ledger import or_later
from bot.clock import Clock
from bot.context import ChannelFacts, Services
from bot.errors import SendError
from bot.messages import Address, File, Part
from bot.settings import Settings
from storage import pace

NAME, ACCOUNT = "wecom_webhook", "group"
SEND, UPLOAD = "cgi-bin/webhook/send", "cgi-bin/webhook/upload_media"
UNNAMED = "工作群"
LEAST_BYTES, MOST_BYTES = 6, 20 * 1024 * 1024
LIMIT = (20, 62_000)  # document/path/99110: 20 a minute; two seconds more against jitter
GONE = 93000
EMPTY = 44004

_HOW = "应是群里「消息推送」给出的整个地址，或几个「群名=地址」用逗号隔开"


@dataclass(frozen=True, slots=True)
class Hook:
    """One group: what people call it, the platform's address, and the key to speak there."""

    name: str
    base: str
    key: SecretStr

    @property
    def address(self) -> Address:
        return Address(NAME, ACCOUNT, self.name)


def read_hooks(text: str) -> tuple[Hook, ...]:
    """`地址` or `群名=地址,群名=地址`; raises ValueError in words for people, without a key."""
    entries = [entry.strip() for entry in text.replace("，", ",").split(",") if entry.strip()]
    hooks = tuple(_read_hook(entry) for entry in entries)
    if len({hook.name for hook in hooks}) < len(hooks):
        raise ValueError("每个群要有不同的名字，写成「群名=地址」")
    return hooks


def _read_hook(entry: str) -> Hook:
    name, address = UNNAMED, entry
    if not entry.startswith("http"):
        name, _, address = entry.partition("=")
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        raise ValueError(_HOW) from None
    keys = parse_qs(parts.query).get("key", [])
    base, found, rest = parts.path.partition(f"/{SEND}")
    sealed = parts.scheme == "https" or parts.hostname == "127.0.0.1"
    if not (sealed and parts.netloc and found and not rest and len(keys) == 1 and name.strip()):
        raise ValueError(_HOW)
    return Hook(name.strip(), f"{parts.scheme}://{parts.netloc}{base}", SecretStr(keys[0]))


class WebhookChannel:
    """Texts and files to the groups that the settings name; keys are shown to nobody."""

    def __init__(
        self, settings: Settings, clock: Clock, *, timeout: aiohttp.ClientTimeout = TIMEOUT
    ) -> None:
        self._clock = clock
        self._wrong = ""
        self._hooks: Mapping[str, Hook] = {}
        try:
            read = read_hooks(settings.wecom_webhook_url.get_secret_value())
            self._hooks = {hook.name: hook for hook in read}
        except ValueError as error:
            self._wrong = str(error)
        bases = {hook.base for hook in self._hooks.values()}
        self._callers = {base: Caller(base, timeout=timeout) for base in bases}
        self._services: Services | None = None

    @property
    def facts(self) -> ChannelFacts:
        return ChannelFacts(
            NAME,
            text_bytes=2048,
            buttons=False,
            label="企业微信工作群",
            captions=False,
            anonymous=True,
            one_way=True,
            groups={hook.address: hook.name for hook in self._hooks.values()},
        )

    def attach(self, services: Services) -> None:
        self._services = services

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        return ()

    async def run(self, receive: Receive) -> None:
        """Nothing: nobody is heard there."""

    async def close(self) -> None:
        for caller in self._callers.values():
            await caller.close()

    async def send(self, address: Address, part: Part, key: str) -> str:
        """A text or a file. The platform has neither an id of it nor an idempotency key."""
        hook = self._hooks.get(address.user)
        if hook is None:
            raise SendError("unreachable", permanent=True, detail="设置里没有这个群")
        if part.file is None:
            body: dict[str, Any] = {"msgtype": "text", "text": {"content": part.text}}
        else:
            media = await self._upload(hook, part.file)
            body = {"msgtype": "file", "file": {"media_id": media}}
        await self._take_turn(hook)
        try:
            await self._call(hook, body)
        except SendError as error:
            if error.reason == "unreachable":
                await asyncio.to_thread(self._call_for_help, hook)
            raise
        return ""

    async def _upload(self, hook: Hook, file: File) -> str:
        if not LEAST_BYTES <= len(file.content) <= MOST_BYTES:
            raise SendError("too_large", permanent=True, detail="文件须在5字节到20MB之间")
        query = {"key": hook.key.get_secret_value(), "type": "file"}
        try:
            answer = _read(await self._callers[hook.base].upload(UPLOAD, file, query))
        except SendError as error:
            if error.unknown:  # a file that nobody was sent
                raise SendError("no_answer", detail=error.detail) from None
            raise
        return str(answer.get("media_id"))

    async def _call(self, hook: Hook, body: Mapping[str, Any]) -> None:
        query = {"key": hook.key.get_secret_value()}
        _read(await self._callers[hook.base].post(SEND, body, query))

    async def _take_turn(self, hook: Hook) -> None:
        wait = await or_later(lambda: self._turn(hook))
        if wait:
            raise SendError("pace", retry_after=wait / 1000, only_here=True)

    def _turn(self, hook: Hook) -> int:
        assert self._services is not None, "attach() comes first"
        chat = self._services.keys.digest(str(hook.address))
        with self._services.database.transaction() as connection:
            return pace.take_turn(connection, chat, self._clock.now(), 0, LIMIT)

    def _call_for_help(self, hook: Hook) -> None:
        assert self._services is not None, "attach() comes first"
        with self._services.database.transaction() as connection:
            call_for_help(self._services, connection, NAME, f"发不进「{hook.name}」：{_MEND}")

    # - settings -

    def check(self) -> Sequence[str]:
        """What is missing or cannot be read; never what was given."""
        if self._wrong:
            return [f"HONGYAN_WECOM_WEBHOOK_URL：{self._wrong}"]
        if not self._hooks:
            return ["缺少 HONGYAN_WECOM_WEBHOOK_URL（群里「消息推送」给出的 Webhook 地址）"]
        return []

    async def probe(self) -> Sequence[Finding]:
        """Say nothing to each group: of a key it knows, the platform only refuses the emptiness."""
        missing = self.check()
        if missing:
            return [Finding(False, "企业微信消息推送的设置", line) for line in missing]
        return [await self._known(hook) for hook in self._hooks.values()]

    async def _known(self, hook: Hook) -> Finding:
        what = f"消息推送「{hook.name}」"
        try:
            await self._call(hook, {"msgtype": "text", "text": {"content": ""}})
        except SendError as error:
            if error.detail == f"errcode {EMPTY}":
                return Finding(True, what)
            if error.reason == "unreachable":
                return Finding(False, what, _MEND)
            return Finding(False, what, f"没有问到（{error.detail or error.reason}），请稍后再试")
        return Finding(True, what)


_MEND = (
    "地址已经失效：请在企业微信打开这个群，「群设置 → 消息推送」里重新添加，"
    "把新的 Webhook 地址填到 HONGYAN_WECOM_WEBHOOK_URL"
)


def _read(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer to what was done; raises SendError, whose words hold no key."""
    code = int(str(answer.get("errcode") or 0))
    try:
        if code == GONE:
            raise DeadToken
        return check(answer)
    except DeadToken:
        raise SendError("unreachable", permanent=True, detail=f"errcode {code}") from None


def build(settings: Settings, clock: Clock) -> WebhookChannel:
    """The channel, as the settings describe it."""
    return WebhookChannel(settings, clock)
