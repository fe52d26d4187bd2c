"""The address that WeCom calls for an app: messages, and the events of whoever listens to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from starlette.responses import Response

from bot.channels.base import Receive
from bot.channels.callback import Callback, Patience
from bot.channels.envelope import Envelope, Fields, cdata, word
from bot.channels.wecom.cards import short, unpack
from bot.channels.wecom.reading import NAME, TAPPED, read
from bot.clock import Clock
from bot.messages import Inbound, Part

PATH = "/callback/wecom"


@runtime_checkable
class Listener(Protocol):
    """A channel whose events arrive at the app's address: customer contact, customer service."""

    @property
    def events(self) -> frozenset[str]:
        """The values of `Event` that it takes, such as `change_external_chat`."""

    def hear(self, fields: Fields, now: datetime) -> Inbound | None:
        """Take one: the aside that is to be written down of it, if anything is."""


class WeComCallback(Callback[Fields]):
    """XML in safe mode, sealed for our corporation."""

    def __init__(
        self,
        envelope: Envelope,
        account: str,
        clock: Clock,
        receive: Receive,
        patience: Patience,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(NAME, envelope, clock, receive, patience)
        self._account = account
        self._listeners = {event: heard for heard in listeners for event in heard.events}

    def verify(self, query: Mapping[str, str], now: datetime) -> str:
        """The echo is encrypted, and answered as it was before."""
        return self.envelope.verify_sealed(query, now)

    def open(self, query: Mapping[str, str], body: bytes, now: datetime) -> Fields:
        return self.envelope.open(query, body, now)

    def read(self, opened: Fields, now: datetime) -> Inbound | None:
        listener = self._listeners.get(word(opened, "Event"))
        if listener is not None:
            return listener.hear(opened, now)
        return self.converse(opened, now)

    def converse(self, opened: Fields, now: datetime) -> Inbound | None:
        """What a member of the staff says or does."""
        return read(opened, self._account, now)

    def reply(self, opened: Fields, parts: tuple[Part, ...]) -> Response | None:
        """To a tap, within 5 s: the buttons of that card give way to what was chosen."""
        if word(opened, "Event") != TAPPED:
            return None
        stamp = int(self.clock.now().timestamp())
        chosen = short(unpack(word(opened, "EventKey")))
        answer = (
            f"<xml><ToUserName>{cdata(word(opened, 'FromUserName'))}</ToUserName>"
            f"<FromUserName>{cdata(word(opened, 'ToUserName'))}</FromUserName>"
            f"<CreateTime>{stamp}</CreateTime><MsgType>update_button</MsgType>"
            f"<Button><ReplaceName>{cdata(f'已选：{chosen}')}</ReplaceName></Button></xml>"
        )
        sealed = self.envelope.seal(answer, stamp, self.envelope.nonce())
        return Response(sealed.as_xml(), media_type="application/xml")
