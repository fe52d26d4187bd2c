"""What a synchronised message says: a member's words, or what happened to the conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bot.messages import Address, Happening, Inbound, Kind, Media
from storage.conversations import Led

NAME = "wecom_kf"
MEMBER, SYSTEM = (
    3,
    4,
)  # `origin`; 5 is what our own staff wrote, which is between them and the member

_KINDS: Mapping[str, Kind] = {
    "text": Kind.TEXT,
    "image": Kind.IMAGE,
    "voice": Kind.VOICE,
    "video": Kind.VIDEO,
    "file": Kind.FILE,
    "location": Kind.LOCATION,
    "link": Kind.TEXT,
    "business_card": Kind.CONTACT,
}

FAILURES: Mapping[int, str] = {
    1: "客服账号已被删除",
    2: "应用已被停用",
    4: "对方48小时内没有来信",
    5: "会话已经关闭",
    6: "超过5条，等对方来信",
    8: "企业主体未验证",
    10: "blocked",
    11: "企业没有成员登录企业微信",
    12: "平台不许发的消息类型",
    13: "平台安全限制",
}
"""Why a message that was accepted did not arrive, by `fail_type`."""
SHUT = (4, 6)
"""Those after which nothing can be said until the member writes."""

# The states of a session, and what a change of one (`change_type`) makes of it.
STATES: Mapping[int, Led] = {
    0: Led.BOT,
    1: Led.BOT,
    2: Led.QUEUE,
    3: Led.PERSON,
    4: Led.ENDED,
}
_CHANGES: Mapping[int, Led] = {1: Led.PERSON, 2: Led.PERSON, 3: Led.ENDED, 4: Led.PERSON}


@dataclass(frozen=True, slots=True)
class Entered:
    """A member opened the conversation; `code` lets us greet them for some seconds, "" does not."""

    code: str
    scene: str


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """A message of ours did not arrive."""

    msgid: str
    why: int


@dataclass(frozen=True, slots=True)
class NowLed:
    """The conversation has changed hands."""

    by: Led


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A member has taken a message back."""

    msgid: str


@dataclass(frozen=True, slots=True)
class Shuts:
    """A member lets us write no more, or again."""

    out: bool


Happened = Entered | NotDelivered | NowLed | TakenBack | Shuts


def address_of(message: Mapping[str, Any]) -> Address:
    """Whose conversation a message or an event belongs to."""
    event = _part(message, "event")
    account = message.get("open_kfid") or event.get("open_kfid") or ""
    user = message.get("external_userid") or event.get("external_userid") or ""
    return Address(NAME, str(account), str(user))


def happened(message: Mapping[str, Any]) -> Happened | None:
    """What an event tells that concerns us."""
    event = _part(message, "event")
    reader = _EVENTS.get(str(event.get("event_type", "")))
    return reader(event) if reader is not None and message.get("msgtype") == "event" else None


def read(message: Mapping[str, Any], now: datetime) -> Inbound | None:
    """What a member said; None for what is not theirs or of a kind that nobody knows."""
    kind = _KINDS.get(str(message.get("msgtype", "")))
    number = str(message.get("msgid", ""))
    if kind is None or not number or message.get("origin") != MEMBER:
        return None
    content = _part(message, str(message["msgtype"]))
    text = ""
    if message["msgtype"] == "text":
        text = str(content.get("content", ""))
        if content.get("menu_id"):
            kind, text = Kind.PRESS, str(content["menu_id"])
    elif message["msgtype"] == "link":
        text = f"{content.get('title', '')} {content.get('url', '')}".strip()
    media = Media(str(content.get("media_id", "")), str(content.get("filename", "")))
    return Inbound(number, address_of(message), text, now, kind, media=media if media.id else None)


def event(message: Mapping[str, Any], what: Happening, argument: str, now: datetime) -> Inbound:
    """A happening as the rest of the bot hears it."""
    number = str(message.get("msgid", ""))
    return Inbound(number, address_of(message), what, now, Kind.EVENT, argument=argument)


def _part(message: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = message.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | str) and str(value).isdigit() else -1


_EVENTS: Mapping[str, Callable[[Mapping[str, Any]], Happened | None]] = {
    "enter_session": lambda e: Entered(
        str(e.get("welcome_code", "")), str(e.get("scene_param", ""))
    ),
    "msg_send_fail": lambda e: NotDelivered(
        str(e.get("fail_msgid", "")), _number(e.get("fail_type"))
    ),
    "session_status_change": lambda e: _changed(_number(e.get("change_type"))),
    "user_recall_msg": lambda e: TakenBack(str(e.get("recall_msgid", ""))),
    "reject_customer_msg_switch_change": lambda e: Shuts(_number(e.get("reject_switch")) == 1),
}


def _changed(change: int) -> Happened | None:
    led = _CHANGES.get(change)
    return None if led is None else NowLed(led)
