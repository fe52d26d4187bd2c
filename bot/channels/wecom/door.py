"""The app's address for channels that listen there, where the app has no channel of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from starlette.routing import BaseRoute, Route

from bot.channels.base import Channel, Receive
from bot.channels.callback import Patience
from bot.channels.envelope import Envelope, Fields
from bot.channels.wecom.callback import PATH, Listener, WeComCallback
from bot.channels.wecom.reading import NAME as APP
from bot.clock import Clock
from bot.messages import Inbound
from bot.settings import Settings


class _EventsOnly(WeComCallback):
    """Nobody is there to answer what members of the staff write to the app."""

    def converse(self, opened: Fields, now: datetime) -> Inbound | None:
        return None


def door(
    mine: Listener,
    others: Sequence[Channel],
    settings: Settings,
    clock: Clock,
    receive: Receive,
    patience: Patience,
) -> Sequence[BaseRoute]:
    """The route of the app's address, if it is `mine` to open it: the app's channel has it, and
    without that the first of those who listen there.
    """
    listeners = [other for other in others if isinstance(other, Listener)]
    if any(other.facts.name == APP for other in others) or (listeners and listeners[0] is not mine):
        return ()
    callback = _EventsOnly(
        envelope_of(settings), settings.wecom_corp_id, clock, receive, patience, listeners or [mine]
    )
    return (Route(PATH, callback, methods=["GET", "POST"]),)


def envelope_of(settings: Settings) -> Envelope:
    """Opens what the platform tells the app; raises ValueError for a malformed key."""
    return Envelope(
        settings.wecom_token.get_secret_value(),
        settings.wecom_aes_key.get_secret_value(),
        settings.wecom_corp_id,
    )


def missing(settings: Settings) -> list[str]:
    """What an app needs that tells its events, in plain Chinese."""
    needed: Mapping[str, object] = {
        "HONGYAN_WECOM_CORP_ID（「我的企业」页的企业ID）": settings.wecom_corp_id,
        "HONGYAN_WECOM_SECRET（自建应用的 Secret）": settings.wecom_secret,
        "HONGYAN_WECOM_TOKEN（应用「接收消息」的 Token）": settings.wecom_token,
        "HONGYAN_WECOM_AES_KEY（应用「接收消息」的 EncodingAESKey）": settings.wecom_aes_key,
    }
    lines = [f"缺少 {name}" for name, value in needed.items() if not value]
    if settings.wecom_aes_key:
        try:
            envelope_of(settings)
        except ValueError:
            lines.append("HONGYAN_WECOM_AES_KEY 应是企业微信给出的43个字符，请重新复制")
    return lines
