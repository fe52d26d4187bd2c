"""The address that the platform calls: each message is answered once, in the platform's own way."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime

from starlette.responses import Response

from bot.channels.base import Receive
from bot.channels.callback import Callback, Patience
from bot.channels.envelope import Envelope, Fields, text_answer
from bot.channels.wechat.reading import NAME, read
from bot.clock import Clock
from bot.messages import Inbound, Part


class WeChatCallback(Callback[Fields]):
    """XML in safe mode; the first bubble is the passive answer."""

    def __init__(
        self,
        envelope: Envelope,
        account: str,
        clock: Clock,
        receive: Receive,
        patience: Patience,
    ) -> None:
        super().__init__(NAME, envelope, clock, receive, patience)
        self._account = account

    def verify(self, query: Mapping[str, str], now: datetime) -> str:
        return self.envelope.verify(query, now)

    def open(self, query: Mapping[str, str], body: bytes, now: datetime) -> Fields:
        return self.envelope.open(query, body, now)

    def read(self, opened: Fields, now: datetime) -> Inbound | None:
        return read(opened, self._account, now)

    def reply(self, opened: Fields, parts: tuple[Part, ...]) -> Response | None:
        text = parts[0].text if parts else ""
        if not text:
            return None
        stamp = int(self.clock.now().timestamp())
        sealed = self.envelope.seal(text_answer(opened, text, stamp), stamp, secrets.token_hex(8))
        return Response(sealed.as_xml(), media_type="application/xml")
