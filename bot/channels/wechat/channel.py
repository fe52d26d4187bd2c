"""The channel that the rest of the bot sees."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import aiohttp
import structlog
from starlette.routing import BaseRoute, Route

from bot.channels.base import Finding, Notice, Receive
from bot.channels.callback import Patience
from bot.channels.calls import TIMEOUT, Caller
from bot.channels.envelope import Envelope
from bot.channels.tokens import Vault
from bot.channels.wechat.api import Refusal, WeChatApi
from bot.channels.wechat.callback import SLOW, WeChatCallback
from bot.channels.wechat.errands import Errands
from bot.channels.wechat.hearing import Hearing
from bot.channels.wechat.menu import Button, client, create_menu, read_menu
from bot.channels.wechat.notices import Notices, agreements, read_templates
from bot.channels.wechat.pictures import Pictures
from bot.channels.wechat.probe import Probe
from bot.channels.wechat.reading import NAME
from bot.clock import Clock
from bot.commands import Purpose
from bot.context import ChannelFacts, Context, Covers, Services
from bot.errors import SendError
from bot.messages import Address, Happening, Kind, Part
from bot.settings import Settings

PATH = "/callback/wechat"
TAP = (timedelta(minutes=1), 3)
COVERS = Covers(a_month=4, least=2, most=10_000)
NO_MENUS = frozenset({40008, 45008, 47001, 48001, 48008})
"""What an account answers that may not send message menus, or not this one."""

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
    captions=False,
    covers=COVERS,
    a_day=500_000,
    codes=True,
    gives_up=True,
)

log = structlog.get_logger()


class WeChatChannel:
    """Callbacks in safe mode only; texts and pictures out by the customer-service API.

    Once it is attached to the database it also tells people of what waits for them, pushes covers,
    has codes made, and shares its token with the other replicas.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        patience: Patience | None = None,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
        slow: float = SLOW,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._patience = patience or Patience()
        self._timeout = timeout
        self._slow = slow
        self._caller = Caller(settings.wechat_api_base, timeout=timeout)
        self._api = WeChatApi(
            self._caller, settings.wechat_app_id, settings.wechat_app_secret, clock
        )
        self._pictures = Pictures(self._api, clock)
        self._services: Services | None = None
        self._able = not self.check()
        self._notices: Notices | None = None
        self._hearing: Hearing | None = None
        self.errands: Errands | None = None

    def attach(self, services: Services) -> None:
        """Have tables of its own; nothing of it while a setting is missing."""
        self._services = services
        account = self._settings.wechat_app_id
        self._able = not self.check()
        if not self._able:
            return
        self._api.share(Vault(services.database, f"{NAME}:{account}"))
        self._notices = Notices(services, self._settings, self._api)
        self._hearing = Hearing(account, self._notices)
        self.errands = Errands(
            services, self._api, account, COVERS, unionids=self._settings.wechat_unionid
        )

    @property
    def facts(self) -> ChannelFacts:
        buttons, ways = self._settings.wechat_msgmenu, agreements(self._settings)
        return replace(FACTS, buttons=buttons, ways=ways)

    @property
    def noticed(self) -> frozenset[str]:
        """The purposes for which there is a template."""
        return self._notices.purposes if self._notices is not None else frozenset()

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        """The callback; none while a setting is missing."""
        if self.check():
            return ()
        callback = WeChatCallback(
            self._envelope(),
            self._settings.wechat_app_id,
            self._clock,
            receive,
            self._patience,
            typing=self._show_typing,
            slow=self._slow,
        )
        return (Route(PATH, callback, methods=["GET", "POST"]),)

    def note(self, context: Context) -> None:
        """Write down an agreement, or what became of a job."""
        if self._hearing is not None:
            self._hearing.note(context)

    works = True

    async def run(self, receive: Receive) -> None:
        """Set the menu, if somebody named one, then do what nobody waits for."""
        if self.check():
            return
        try:
            await self.set_menu()
        except SendError as error:
            log.warning("menu_not_set", channel=NAME, reason=error.reason, detail=error.detail)
        if self.errands is not None:
            await self.errands.run()

    async def set_menu(self) -> None:
        """Make the account's menu say what is named, if anything is; raises SendError."""
        buttons = self._buttons()
        if not buttons:
            return
        base, app_id = self._settings.wechat_api_base, self._settings.wechat_app_id
        seconds = (self._timeout.sock_connect or 3, self._timeout.sock_read or 8)

        async def once(token: str) -> None:
            made = client(base, app_id, token, seconds)
            code, message = await asyncio.to_thread(create_menu, made, buttons)
            self._api.check(code, message)

        await self._api.with_token(once)

    def _buttons(self) -> Sequence[Button]:
        """The menu of the settings, or else of the place; raises ValueError."""
        named = self._settings.wechat_menu
        if not named and self._services is not None:
            named = self._services.place.menu
        return read_menu(named)

    async def send(self, address: Address, part: Part, key: str) -> str:
        """One text, picture or message menu; the platform gives no id and takes no other file."""
        if not self._able:
            raise SendError("not_configured", permanent=True)
        if part.file is not None:
            await self._pictures.send(address.user, part.file)
        elif not (part.choices and await self._send_menu(address.user, part)):
            body = {"touser": address.user, "msgtype": "text", "text": {"content": part.text}}
            await self._api.post("message/custom/send", body)
        return ""

    async def _send_menu(self, openid: str, part: Part) -> bool:
        """False where the account, or the platform, does not take it as a menu.

        A tap says the label, so that only choices which say what they show can be tapped.
        """
        if any(choice.label != choice.value for choice in part.choices):
            return False
        items = [{"id": str(n), "content": c.label} for n, c in enumerate(part.choices, 1)]
        menu = {"head_content": part.text, "list": items, "tail_content": ""}
        body = {"touser": openid, "msgtype": "msgmenu", "msgmenu": menu}
        try:
            await self._api.post("message/custom/send", body)
        except Refusal as error:
            if error.code not in NO_MENUS:
                raise
            return False
        return True

    async def notify(self, address: Address, notice: Notice, key: str) -> str:
        """Tell that something waits, by template or agreement; raises SendError."""
        if self._notices is None:
            raise SendError("window", permanent=True)
        return await self._notices.tell(address, notice, key)

    async def _show_typing(self, openid: str) -> None:
        try:
            body = {"touser": openid, "command": "Typing"}
            await self._api.post("message/custom/typing", body)
        except SendError as error:
            log.debug("typing_not_shown", channel=NAME, reason=error.reason)

    async def probe(self) -> Sequence[Finding]:
        """Try the account for real; sends nothing to anybody."""
        missing = [Finding(False, line) for line in self.check()]
        if missing:
            return missing
        probe = Probe(
            self._api,
            self._envelope(),
            self._settings.public_url,
            self._buttons(),
            read_templates(self._settings.wechat_templates),
        )
        return await probe.findings(PATH, self._clock.now())

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
            self._buttons()
        except ValueError as error:
            named = self._settings.wechat_menu
            lines.append(f"{'HONGYAN_WECHAT_MENU' if named else '地方文件的 menu'}：{error}")
        return [*lines, *self._malformed_templates()]

    def _malformed_templates(self) -> list[str]:
        lines = []
        for name in ("wechat_templates", "wechat_notices"):
            setting = f"HONGYAN_{name.upper()}"
            try:
                found = read_templates(getattr(self._settings, name))
            except ValueError as error:
                lines.append(f"{setting}：{error}")
                continue
            if self._services is not None:
                lines += _misused(setting, found, self._services, service="templates" in name)
        return lines

    def _envelope(self) -> Envelope:
        return Envelope(
            self._settings.wechat_token.get_secret_value(),
            self._settings.wechat_aes_key.get_secret_value(),
            self._settings.wechat_app_id,
        )


def _misused(
    setting: str, found: Iterable[str], services: Services, *, service: bool
) -> Iterator[str]:
    """Purposes that there are not, and such as must never be told by a service template."""
    purposes = {purpose.name: purpose for purpose in services.catalog.of(Purpose)}
    for name in found:
        if name not in purposes:
            yield f"{setting}：没有叫「{name}」的用途"
        elif service and not purposes[name].service:
            yield f"{setting}：「{purposes[name].label}」不是服务通知，平台不许用模板消息发"
