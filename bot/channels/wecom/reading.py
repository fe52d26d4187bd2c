"""What a member of the staff did, from the fields of an opened callback."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from bot.channels.envelope import Fields, word
from bot.messages import Address, Happening, Inbound, Kind, Media
from bot.text import content_hash

NAME = "wecom"

_KINDS: Mapping[str, Kind] = {
    "text": Kind.TEXT,
    "image": Kind.IMAGE,
    "voice": Kind.VOICE,
    "video": Kind.VIDEO,
    "location": Kind.LOCATION,
    "link": Kind.TEXT,
}
_EVENTS: Mapping[str, tuple[Kind, str]] = {
    "subscribe": (Kind.EVENT, Happening.FOLLOW),
    "unsubscribe": (Kind.EVENT, Happening.UNFOLLOW),
}
_PRESSES = frozenset({"click", "template_card_event"})


def address(account: str, user: str) -> Address:
    """Where a member is reached. Their UserID is told in either case, and means the same."""
    return Address(NAME, account, user.lower())


def read(fields: Fields, account: str, now: datetime) -> Inbound | None:
    """The message or happening that concerns us; None for everything else the platform tells.

    Pictures and places are never read, only noted as such: nobody asked for them.
    """
    who = word(fields, "FromUserName")
    if not who:
        return None
    sender = address(account, who)
    if word(fields, "MsgType") == "event":
        return _event(fields, sender, now)
    kind = _KINDS.get(word(fields, "MsgType"))
    number = word(fields, "MsgId")
    if kind is None or not number:
        return None
    media = Media(word(fields, "MediaId"))
    return Inbound(number, sender, _words(fields), now, kind, media=media if media.id else None)


def _words(fields: Fields) -> str:
    if word(fields, "MsgType") == "link":
        return f"{word(fields, 'Title')} {word(fields, 'Url')}".strip()
    return word(fields, "Content")


def _event(fields: Fields, sender: Address, now: datetime) -> Inbound | None:
    event = word(fields, "Event")
    if event in _PRESSES:
        kind, text = Kind.PRESS, word(fields, "EventKey")
    elif event in _EVENTS:
        kind, text = _EVENTS[event]
    else:
        return None
    # Events have no number, and two of one member may happen in one second.
    names = ("FromUserName", "CreateTime", "Event", "EventKey", "TaskId")
    parts = (word(fields, name) for name in names)
    return Inbound(f"e{content_hash(*parts)[:40]}", sender, text, now, kind)
