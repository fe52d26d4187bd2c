"""The self-built app, through which the staff talk to the bot and are written to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta

import aiohttp
import structlog
from starlette.routing import BaseRoute, Route

from bot.channels.base import Channel, Finding, Receive
from bot.channels.callback import Patience
from bot.channels.calls import TIMEOUT, Caller
from bot.channels.envelope import Envelope
from bot.channels.wecom.api import WeComApi
from bot.channels.wecom.callback import PATH, Listener, WeComCallback
from bot.channels.wecom.cards import CARD_TEXT, Message, card_message, messages
from bot.channels.wecom.inactivity import Inactivity
from bot.channels.wecom.ledger import CHECKED, Ledger
from bot.channels.wecom.probing import probe
from bot.channels.wecom.reading import NAME
from bot.clock import Clock
from bot.context import ChannelFacts, Context, Services
from bot.errors import SendError
from bot.messages import Address, File, Part
from bot.settings import Settings
from storage.sendings import Try

# 10,000 calls a minute are the corporation's share, of which both lanes take less than a half.
FACTS = ChannelFacts(
    NAME,
    text_bytes=2048,
    live_gap_ms=20,
    bulk_gap_ms=40,
    burst=10,
    label="企业微信",
    links=True,
    captions=False,
    known_for=CHECKED - timedelta(minutes=1),
    gives_up=True,
)
LEAST_BYTES, MOST_BYTES = 6, 20 * 1024 * 1024
PICTURES, PICTURE_BYTES = ("image/png", "image/jpeg"), 10 * 1024 * 1024

log = structlog.get_logger()


class WeComChannel:
    """Callbacks in safe mode only; texts, cards and files out by `message/send`."""

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
        self._caller = Caller(settings.wecom_api_base, timeout=timeout)
        self._api = WeComApi(self._caller, settings.wecom_corp_id, settings.wecom_secret, clock)
        self._ledger: Ledger | None = None
        self._inactivity = Inactivity(settings.wecom_corp_id)
        self._listeners: tuple[Listener, ...] = (self._inactivity,)

    @property
    def facts(self) -> ChannelFacts:
        return FACTS

    def attach(self, services: Services) -> None:
        self._ledger = Ledger(services, self._clock)

    def meet(self, others: Sequence[Channel]) -> None:
        """The app's address is also that of customer contact and customer service."""
        self._listeners += tuple(other for other in others if isinstance(other, Listener))

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        """The callback; none while a setting is missing."""
        if self.check():
            return ()
        callback = WeComCallback(
            self._envelope(),
            self._settings.wecom_corp_id,
            self._clock,
            receive,
            self._patience,
            self._listeners,
        )
        return (Route(PATH, callback, methods=["GET", "POST"]),)

    def note(self, context: Context) -> None:
        """Nothing but warnings is told beside."""
        self._inactivity.note(context)

    async def run(self, receive: Receive) -> None:
        """Nothing: the platform calls."""

    async def close(self) -> None:
        await self._caller.close()

    # - sending -

    async def send(self, address: Address, part: Part, key: str) -> str:
        """One bubble: a text, a card or a file, or both of the first two. A second try of the same
        `key` within half an hour arrives once.
        """
        if self.check():
            raise SendError("not_configured", permanent=True)
        if part.file is not None:
            return await self._send_file(address, part.file, key)
        if part.replaces is not None and await self._renewed(address, part, part.replaces, key):
            return ""
        sent = ""
        for number, message in enumerate(messages(part, key, self._settings.public_url)):
            sent = await self._send(address, message, f"{key}.{number}", topic=part.replaces)
        return sent

    async def _send(
        self, address: Address, message: Message, key: str, *, topic: str | None = None
    ) -> str:
        content = json.dumps(message, ensure_ascii=False, sort_keys=True)
        begun = await self._begin(address, content, key)
        return begun.message or await self._leave(address, message, content, begun, topic)

    async def _send_file(self, address: Address, file: File, key: str) -> str:
        """Uploaded once for all tries: under another name it would be another message."""
        if not LEAST_BYTES <= len(file.content) <= MOST_BYTES:
            raise SendError("too_large", permanent=True, detail="文件须在5字节到20MB之间")
        content = f"{file.name} {hashlib.sha256(file.content).hexdigest()}"
        begun = await self._begin(address, content, key)
        if begun.message:
            return begun.message
        kind, media = _kind(file), begun.media
        if not media:
            media = await self._upload(address, file, kind, content)
        message = {"msgtype": kind, kind: {"media_id": media}}
        return await self._leave(address, message, content, begun, None)

    async def _upload(self, address: Address, file: File, kind: str, content: str) -> str:
        try:
            media = await self._api.upload(file, kind)
        except SendError as error:
            await self._tables.refused(address, content)
            if error.unknown:  # a file that nobody was sent
                raise SendError("no_answer", detail=error.detail) from None
            raise
        await self._tables.note(address, content, media=media)
        return media

    async def _begin(self, address: Address, content: str, key: str) -> Try:
        begun = await self._tables.begin(address, content, key)
        late = self._clock.now() - begun.begun >= CHECKED
        if not begun.message and begun.again and (late or not begun.checked):
            # Whether it arrived is not known, and the platform would not notice.
            raise SendError("no_answer", permanent=True)
        return begun

    async def _leave(
        self, address: Address, message: Message, content: str, begun: Try, topic: str | None
    ) -> str:
        body = {
            "touser": address.user,
            "agentid": int(self._settings.wecom_agent_id),
            **message,
            "enable_duplicate_check": int(begun.checked),
            "duplicate_check_interval": int(CHECKED.total_seconds()),
        }
        try:
            answer = await self._api.call("message/send", body)
            _reached(answer)
        except SendError as error:
            if not error.unknown:
                await self._tables.refused(address, content)
            raise
        sent = str(answer.get("msgid") or "")
        await self._tables.note(address, content, message=sent)
        if topic is not None and "response_code" in answer:
            await self._tables.keep_card(address, topic, str(answer["response_code"]))
        return sent

    async def _renewed(self, address: Address, part: Part, topic: str, key: str) -> bool:
        """Bring the card of a topic up to date: a card serves once, and for 72 hours."""
        code = await self._tables.card(address, topic)
        if not code or not 0 < len(part.text) <= CARD_TEXT or not self._settings.public_url:
            return False
        card = card_message(part, key, self._settings.public_url)["template_card"]
        body = {
            "userids": [address.user],
            "agentid": int(self._settings.wecom_agent_id),
            "response_code": code,
            "template_card": card,
        }
        try:
            await self._api.call("message/update_template_card", body)
        except SendError as error:
            log.info("card_not_renewed", channel=NAME, reason=error.reason, detail=error.detail)
            return False
        return True

    @property
    def _tables(self) -> Ledger:
        assert self._ledger is not None, "attach() comes first"
        return self._ledger

    # - settings -

    def check(self) -> Sequence[str]:
        """What is missing; safe mode is not optional."""
        given = self._settings
        needed = {
            "HONGYAN_WECOM_CORP_ID（「我的企业」页的企业ID）": given.wecom_corp_id,
            "HONGYAN_WECOM_AGENT_ID（应用页的 AgentId）": given.wecom_agent_id,
            "HONGYAN_WECOM_SECRET（应用页的 Secret）": given.wecom_secret,
            "HONGYAN_WECOM_TOKEN（应用「接收消息」里的 Token）": given.wecom_token,
            "HONGYAN_WECOM_AES_KEY（应用「接收消息」里的 EncodingAESKey）": given.wecom_aes_key,
        }
        lines = [f"缺少 {name}" for name, value in needed.items() if not value]
        if given.wecom_agent_id and not given.wecom_agent_id.isdecimal():
            lines.append("HONGYAN_WECOM_AGENT_ID 应是一串数字，如 1000002")
        if given.wecom_aes_key.get_secret_value():
            try:
                self._envelope()
            except ValueError:
                lines.append("HONGYAN_WECOM_AES_KEY 应是应用页给出的43个字符，请重新复制")
        return lines

    def _envelope(self) -> Envelope:
        return Envelope(
            self._settings.wecom_token.get_secret_value(),
            self._settings.wecom_aes_key.get_secret_value(),
            self._settings.wecom_corp_id,
        )

    async def probe(self) -> Sequence[Finding]:
        """Ask for a token and for the app, and call our own address as the platform does."""
        missing = self.check()
        if missing:
            return [Finding(False, "企业微信应用的设置", line) for line in missing]
        return await probe(self._api, self._settings, self._envelope(), self._clock)


def _kind(file: File) -> str:
    """What is shown at once, and what must be opened first."""
    shown = file.mime in PICTURES and len(file.content) <= PICTURE_BYTES
    return "image" if shown else "file"


def _reached(answer: dict[str, object]) -> None:
    """Raise SendError for whom the message was not sent to, which is no error to the platform."""
    for name in ("invaliduser", "unlicenseduser"):
        if answer.get(name):
            raise SendError("unreachable", permanent=True, detail=name)
