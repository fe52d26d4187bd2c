"""The channel that the rest of the bot sees."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import aiohttp
import structlog
from starlette.routing import BaseRoute, Route

from bot.channels.base import Receive
from bot.channels.callback import Patience
from bot.channels.calls import TIMEOUT, Caller
from bot.channels.envelope import Envelope
from bot.channels.wechat.api import WeChatApi
from bot.channels.wechat.callback import WeChatCallback
from bot.channels.wechat.menu import client, create_menu, read_menu
from bot.channels.wechat.reading import NAME
from bot.clock import Clock
from bot.context import ChannelFacts
from bot.errors import SendError
from bot.messages import Address, Happening, Kind, Part
from bot.settings import Settings

PATH = "/callback/wechat"
TAP = (timedelta(minutes=1), 3)

# After api_sendcustommessage: a member's message lets us send 5 texts in 48 hours; following, a
# scan or a tap on the menu 3 in a minute; opening a page from the menu none.
FACTS = ChannelFacts(
    NAME,
    inline=1,
    text_bytes=2048,
    buttons=False,
    windowed=True,
    windows={
        "any": (timedelta(hours=48), 5),
        Kind.PRESS: TAP,
        Happening.FOLLOW: TAP,
        Happening.SCANNED: TAP,
    },
    label="微信公众号",
)

log = structlog.get_logger()


class WeChatChannel:
    """Callbacks in safe mode only; texts out by the customer-service API."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        patience: Patience | None = None,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._patience = patience or Patience()
        self._timeout = timeout
        self._caller = Caller(settings.wechat_api_base, timeout=timeout)
        self._api = WeChatApi(
            self._caller, settings.wechat_app_id, settings.wechat_app_secret, clock
        )

    @property
    def facts(self) -> ChannelFacts:
        return FACTS

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        """The callback; none while a setting is missing."""
        if self.check():
            return ()
        callback = WeChatCallback(
            self._envelope(), self._settings.wechat_app_id, self._clock, receive, self._patience
        )
        return (Route(PATH, callback, methods=["GET", "POST"]),)

    async def run(self, receive: Receive) -> None:
        """Set the menu, if the operator named one; a failure is logged and nothing else."""
        if self.check() or not self._settings.wechat_menu:
            return
        try:
            await self.set_menu()
        except SendError as error:
            log.warning("menu_not_set", channel=NAME, reason=error.reason, detail=error.detail)

    async def set_menu(self) -> None:
        """Make the account's menu say what the settings name; raises SendError."""
        buttons = read_menu(self._settings.wechat_menu)
        base, app_id = self._settings.wechat_api_base, self._settings.wechat_app_id
        seconds = (self._timeout.sock_connect or 3, self._timeout.sock_read or 8)

        async def once(token: str) -> None:
            made = client(base, app_id, token, seconds)
            code, message = await asyncio.to_thread(create_menu, made, buttons)
            self._api.check(code, message)

        await self._api.with_token(once)

    async def send(self, address: Address, part: Part, key: str) -> str:
        """One text. The platform has neither an id of it nor a way to send a file."""
        if self.check():
            raise SendError("not_configured", permanent=True)
        if part.file is not None:
            raise SendError("no_files", permanent=True)
        body = {"touser": address.user, "msgtype": "text", "text": {"content": part.text}}
        await self._api.post("message/custom/send", body)
        return ""

    async def close(self) -> None:
        await self._caller.close()

    def check(self) -> Sequence[str]:
        """What is missing; safe mode is not optional."""
        given = self._settings
        needed = {
            "HONGYAN_WECHAT_APP_ID（公众号的 AppID）": given.wechat_app_id,
            "HONGYAN_WECHAT_APP_SECRET（AppSecret）": given.wechat_app_secret,
            "HONGYAN_WECHAT_TOKEN（服务器配置里的 Token）": given.wechat_token,
            "HONGYAN_WECHAT_AES_KEY（EncodingAESKey，消息加解密方式须选「安全模式」）": (
                given.wechat_aes_key
            ),
        }
        missing = [f"缺少 {name}" for name, value in needed.items() if not value]
        return [*missing, *self._malformed()]

    def _malformed(self) -> list[str]:
        lines = []
        if self._settings.wechat_aes_key.get_secret_value():
            try:
                self._envelope()
            except ValueError:
                lines.append("HONGYAN_WECHAT_AES_KEY 应是公众平台给出的43个字符，请重新复制")
        try:
            read_menu(self._settings.wechat_menu)
        except ValueError as error:
            lines.append(f"HONGYAN_WECHAT_MENU：{error}")
        return lines

    def _envelope(self) -> Envelope:
        return Envelope(
            self._settings.wechat_token.get_secret_value(),
            self._settings.wechat_aes_key.get_secret_value(),
            self._settings.wechat_app_id,
        )
