"""One server on 127.0.0.1 that is all platforms at once, and their control API."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.emulators.clock import VirtualClock
from tests.emulators.control import control, control_route
from tests.emulators.telegram import Telegram
from tests.emulators.wechat import WeChat
from tests.emulators.wecom import WeCom
from tests.emulators.wecom_bot import WeComBot
from tests.emulators.wecom_contact import Contact
from tests.emulators.wecom_kf import Kf
from tests.emulators.wecom_webhook import WeComWebhook

START = datetime(2026, 9, 22, 1, 0, tzinfo=UTC)
"""Tuesday morning, 9 o'clock in Beijing, three days before 中秋."""


class Platforms:
    """`async with Platforms() as platforms:` serves `/mp/…`, `/qy/…`, `/bot…` and `/control/…`."""

    def __init__(
        self,
        clock: VirtualClock | None = None,
        *,
        wechat: WeChat | None = None,
        telegram: Telegram | None = None,
        wecom: WeCom | None = None,
        wecom_bot: WeComBot | None = None,
        port: int = 0,
    ) -> None:
        self.clock = clock or VirtualClock(START)
        self.wechat = wechat or WeChat(self.clock)
        self.telegram = telegram or Telegram(self.clock)
        self.wecom = wecom or WeCom(self.clock)
        self.wecom_bot = wecom_bot or WeComBot(self.clock)
        self.wecom_webhook = WeComWebhook(self.wecom)
        self.wecom_contact = Contact(self.wecom)
        self.wecom_kf = Kf(self.wecom)
        self._port = port
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=60 * 1024 * 1024)
        named: dict[str, Any] = {
            "wechat": self.wechat,
            "telegram": self.telegram,
            "wecom": self.wecom,
            "wecom_bot": self.wecom_bot,
            "wecom_webhook": self.wecom_webhook,
            "wecom_contact": self.wecom_contact,
            "wecom_kf": self.wecom_kf,
            "clock": self.clock,
            "platforms": self,
        }
        app.add_routes([*self.wechat.routes(), *self.telegram.routes()])
        app.add_routes([*self.wecom_bot.routes(), *self.wecom.routes()])
        app.add_routes([control_route(named)])
        # A stalled answer ends when its caller goes away.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        self.wecom_bot.url = f"{self.url}/qy"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.wechat.close()
        await self.telegram.close()
        await self.wecom.close()
        await self.wecom_bot.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @control
    def settings(self) -> dict[str, str]:
        """What an operator would copy from the consoles into `HONGYAN_…` settings."""
        wechat, corporation = self.wechat.account, self.wecom.corporation
        bot, qy = self.wecom_bot.account, f"{self.url}/qy"
        hooks = ",".join(
            f"{group.name}={qy}/cgi-bin/webhook/send?key={group.key}"
            for group in self.wecom_webhook.groups.values()
        )
        given = {
            "wechat_app_id": wechat.app_id,
            "wechat_app_secret": wechat.secret,
            "wechat_token": wechat.token,
            "wechat_aes_key": wechat.aes_key,
            "wechat_api_base": f"{self.url}/mp",
            "telegram_token": self.telegram.token,
            "telegram_api_base": self.url,
            "wecom_corp_id": corporation.corp_id,
            "wecom_agent_id": str(corporation.agent_id),
            "wecom_secret": corporation.secret,
            "wecom_token": corporation.token,
            "wecom_aes_key": corporation.aes_key,
            "wecom_api_base": qy,
            "wecom_bot_id": bot.bot_id,
            "wecom_webhook_url": hooks,
        }
        if self.wecom_bot.mode == "socket":
            socket = f"{self.url.replace('http', 'ws', 1)}/openws"
            return {**given, "wecom_bot_secret": bot.secret, "wecom_bot_url": socket}
        return {**given, "wecom_bot_token": bot.token, "wecom_bot_aes_key": bot.aes_key}

    @control
    def transcripts(self) -> dict[str, dict[str, list[Any]]]:
        """What every phone and group shows, by platform and by who or which it is."""
        chats = self.telegram.chats.values()
        return {
            "wechat": {one.openid: one.transcript for one in self.wechat.members.values()},
            "telegram": {str(chat.id): chat.transcript for chat in chats},
            "wecom": {one.userid: one.transcript for one in self.wecom.members.values()},
            "wecom_bot": {one.id: one.transcript for one in self.wecom_bot.chats.values()},
            "wecom_kf": {name: one.transcript for name, one in self.wecom_kf.customers.items()},
            "wecom_webhook": {
                name: list(one.transcript) for name, one in self.wecom_webhook.groups.items()
            },
        }

    async def serve_for_ever(self) -> None:
        """Until cancelled."""
        await asyncio.Event().wait()
