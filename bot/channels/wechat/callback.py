"""The address that the platform calls: each message is answered once, in the platform's own way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from starlette.responses import Response

from bot.channels.base import Receive
from bot.channels.callback import Callback, Patience
from bot.channels.envelope import Envelope, Fields, text_answer
from bot.channels.wechat.reading import NAME, read
from bot.clock import Clock
from bot.messages import Inbound, Kind, Part
from bot.watching import Watch

SLOW = 1.5  # seconds after which somebody who waits is shown that we are at it
SPOKEN = (Kind.TEXT, Kind.PRESS)

Typing = Callable[[str], Awaitable[None]]
"""Show 「对方正在输入」 to an OpenID; it uses up no window and never raises."""


class WeChatCallback(Callback[Fields]):
    """XML in safe mode; the first bubble is the passive answer."""

    def __init__(
        self,
        envelope: Envelope,
        account: str,
        clock: Clock,
        receive: Receive,
        patience: Patience,
        *,
        typing: Typing | None = None,
        slow: float = SLOW,
    ) -> None:
        patient = receive if typing is None else showing(receive, typing, slow)
        super().__init__(NAME, envelope, clock, patient, patience)
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
        answer = text_answer(opened, text, stamp)
        sealed = self.envelope.seal(answer, stamp, self.envelope.nonce())
        return Response(sealed.as_xml(), media_type="application/xml")


def showing(receive: Receive, typing: Typing, slow: float) -> Receive:
    """`receive`, and a sign of life for whoever waits longer than `slow` seconds."""
    under_way: set[asyncio.Future[None]] = set()

    def begin(openid: str) -> None:
        sign = asyncio.ensure_future(typing(openid))
        under_way.add(sign)
        sign.add_done_callback(under_way.discard)

    watch = Watch(slow, begin)

    def receiving(inbound: Inbound, seconds: float) -> Awaitable[tuple[Part, ...]]:
        answer = asyncio.ensure_future(receive(inbound, seconds))
        if inbound.kind in SPOKEN:
            watch.over(answer, inbound.sender.user)
        return answer

    return receiving
