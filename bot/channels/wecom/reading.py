"""What a member of the staff did, from the fields of an opened callback."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from bot.channels.envelope import Fields, word
from bot.channels.wecom.cards import unpack
from bot.messages import Address, Happening, Inbound, Kind, Media
from bot.text import content_hash

NAME = "wecom"
TAPPED = "template_card_event"

_KINDS: Mapping[str, Kind] = {
    "text": Kind.TEXT,
    "image": Kind.IMAGE,
    "voice": Kind.VOICE,
    "video": Kind.VIDEO,
    "location": Kind.LOCATION,
    "link": Kind.TEXT,
}
_HAPPENINGS: Mapping[str, Happening] = {
    "subscribe": Happening.FOLLOW,
    "enter_agent": Happening.FOLLOW,
    "unsubscribe": Happening.UNFOLLOW,
}


def address_of(account: str, user: str) -> Address:
    """Where a member is reached. Their UserID is told in either case, and means the same."""
    return Address(NAME, account, user.lower())


def read(fields: Fields, account: str, now: datetime) -> Inbound | None:
    """The message or happening that concerns us; None for everything else the platform tells.

    Pictures and places are never read, only noted as such: nobody asked for them.
    """
    who = word(fields, "FromUserName")
    if not who:
        return None
    sender = address_of(account, who)
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
    event, key = word(fields, "Event"), word(fields, "EventKey")
    names = ["FromUserName", "CreateTime", "Event", "EventKey", "TaskId"]
    if event in _HAPPENINGS:
        kind, text = Kind.EVENT, str(_HAPPENINGS[event])
    elif event == TAPPED:
        kind, text = Kind.PRESS, unpack(key).value
    elif event == "click":
        kind, text = Kind.PRESS, key
    else:
        return None
    if event == "enter_agent":
        names.remove("CreateTime")  # told each time they open the app: greeted once
    # Events have no number, and two of one member may happen in one second.
    id = content_hash(*(word(fields, name) for name in names))[:40]
    return Inbound(f"e{id}", sender, text, now, kind)
