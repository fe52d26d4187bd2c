"""Callbacks of the smart bot, read as what people do; nothing here asks the network or a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bot.messages import PRIVATE, Address, Chat, Happening, Inbound, Kind, Media

NAME = "wecom_bot"
GROUP = "g:"  # before a group's chatid in our addresses; no userid has a colon
ENTERED, PRESSED, KICKED = "enter_chat", "template_card_event", "disconnected_event"

_ID = re.compile(r"[0-9A-Za-z_\-@.]{1,128}")
_MESSAGE_ID = re.compile(r"[!-~]{1,256}")
_KINDS = {
    "image": Kind.IMAGE,
    "voice": Kind.VOICE,
    "video": Kind.VIDEO,
    "file": Kind.FILE,
}


@dataclass(frozen=True, slots=True)
class Told:
    """A message or an event of somebody, and where it is answered."""

    inbound: Inbound
    where: Address
    """The person, or the group."""
    answer_url: str = ""


@dataclass(frozen=True, slots=True)
class Pressed:
    """A button of a card: the key it carried, the card's number, and who pressed it."""

    told: Told
    key: str
    task_id: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """The platform asks for the rest of an answer that we have begun."""

    stream: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """A newer connection of the same bot has taken our place."""


Event = Told | Pressed | Refresh | Replaced


def read(body: Mapping[str, Any], account: str, now: datetime) -> Event | None:
    """What a callback tells us; None for what we need not know, or cannot answer."""
    kind = body.get("msgtype")
    if kind == "stream":
        return _refresh(body)
    event = _object(body.get("event"))
    if kind == "event" and event.get("eventtype") == KICKED:
        return Replaced()
    told = _told(body, account, now)
    if told is None or kind != "event":
        return told
    if event.get("eventtype") == PRESSED:
        return _pressed(told, _object(event.get(PRESSED)))
    return told if event.get("eventtype") == ENTERED else None


def address_of(account: str, user: str = "", group: str = "") -> Address:
    """Where a person or a group is reached."""
    return Address(NAME, account, f"{GROUP}{group}" if group else user)


def _refresh(body: Mapping[str, Any]) -> Refresh | None:
    stream = _object(body.get("stream")).get("id")
    return Refresh(stream) if isinstance(stream, str) and len(stream) <= 512 else None


def _told(body: Mapping[str, Any], account: str, now: datetime) -> Told | None:
    id, user = body.get("msgid"), _object(body.get("from")).get("userid")
    if not _fits(_MESSAGE_ID, id) or not _fits(_ID, user):
        return None
    sender = where = address_of(account, str(user))
    chat = PRIVATE
    if body.get("chattype") == "group":
        if not _fits(_ID, body.get("chatid")):
            return None
        where = address_of(account, group=str(body["chatid"]))
        chat = Chat(where)
    kind, text, media = _content(body)
    if not chat.private:
        text = _without_mention(text.strip())
    url = body.get("response_url")
    inbound = Inbound(str(id), sender, text, now, kind, chat=chat, media=media)
    return Told(inbound, where, url if isinstance(url, str) else "")


def _content(body: Mapping[str, Any]) -> tuple[Kind, str, Media | None]:
    name = body.get("msgtype")
    if name == "event":
        return Kind.EVENT, Happening.FOLLOW, None
    if name == "mixed":
        return _mixed(_object(body.get("mixed")))
    kind = _KINDS.get(str(name), Kind.TEXT)
    content = _object(body.get(str(name)))
    if kind is Kind.TEXT:
        return kind, _text(content.get("content")), None
    return kind, "", Media(_text(content.get("url")))


def _without_mention(text: str) -> str:
    """The platform pushes a group's message only if it mentions us, and leaves the mention in."""
    if text.startswith("@"):
        return "".join(text.split(None, 1)[1:])
    words, _, name = text.rpartition("@")
    return words.strip() if words[-1:].isspace() and name.split() == [name] else text


def _mixed(content: Mapping[str, Any]) -> tuple[Kind, str, Media | None]:
    """Words with pictures among them: the words count."""
    items = content.get("msg_item")
    known = [_object(item) for item in items] if isinstance(items, list) else []
    words = [_text(_object(item.get("text")).get("content")) for item in known]
    text = "\n".join(filter(None, words))
    return (Kind.TEXT, text, None) if text else (Kind.IMAGE, "", None)


def _pressed(told: Told, event: Mapping[str, Any]) -> Pressed | None:
    key, task_id = _chosen(event), event.get("task_id")
    if not isinstance(task_id, str) or not task_id:
        return None
    inbound = told.inbound
    pressed = Inbound(
        inbound.id, inbound.sender, "", inbound.received_at, Kind.PRESS, chat=inbound.chat
    )
    return Pressed(Told(pressed, told.where, told.answer_url), key, task_id)


def _chosen(event: Mapping[str, Any]) -> str:
    """The key of the button, or of the option that was marked before 提交 was pressed."""
    items = _object(event.get("selected_items")).get("selected_item")
    for item in items if isinstance(items, list) else ():
        options = _object(_object(item).get("option_ids")).get("option_id")
        if isinstance(options, list) and options:
            return _text(options[0])
    return _text(event.get("event_key"))


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """A text that UTF-8 can carry: JSON may hold halves of characters."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _fits(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
