"""What a member did, from the fields of an opened callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from bot.channels.envelope import Fields, word
from bot.messages import Address, Happening, Inbound, Kind, Media, aside
from bot.text import content_hash

NAME = "wechat"
_SCENE = "qrscene_"

POPUP, CHANGED, SENT = (
    "subscribe_msg_popup_event",
    "subscribe_msg_change_event",
    "subscribe_msg_sent_event",
)
TEMPLATE_DONE, MASS_DONE = "templatesendjobfinish", "masssendjobfinish"
AGREEMENTS, REPORTS = frozenset({POPUP, CHANGED}), frozenset({SENT, TEMPLATE_DONE, MASS_DONE})

_KINDS: Mapping[str, Kind] = {
    "text": Kind.TEXT,
    "image": Kind.IMAGE,
    "voice": Kind.VOICE,
    "video": Kind.VIDEO,
    "shortvideo": Kind.VIDEO,
    "location": Kind.LOCATION,
    "link": Kind.TEXT,
    "file": Kind.FILE,
}


def read(fields: Fields, account: str, now: datetime) -> Inbound | None:
    """The message, happening or aside that concerns us; None for all else the platform tells.

    Pictures and places are never read, only noted as such: nobody asked for them.
    """
    who, said = word(fields, "FromUserName"), word(fields, "MsgType")
    if not who:
        return None
    sender = Address(NAME, account, who)
    if said == "event":
        return _event(fields, sender, now)
    kind = _KINDS.get(said)
    number = word(fields, "MsgId")
    if kind is None or not number:
        return None
    if word(fields, "bizmsgmenuid"):
        kind = Kind.PRESS  # a tap on an item of a message menu opens no 48 hours
    text = word(fields, "Content")
    if said == "link":
        text = f"{word(fields, 'Title')} {word(fields, 'Url')}".strip()
    id = word(fields, "MediaId")
    media = Media(id, word(fields, "Title")) if id or kind is Kind.FILE else None
    return Inbound(number, sender, text, now, kind, media=media)


def _event(fields: Fields, sender: Address, now: datetime) -> Inbound | None:
    event = word(fields, "Event").lower()
    reader = _EVENTS.get(event)
    if reader is None:
        return _aside(fields, event, sender, now)
    kind, text, argument = reader(word(fields, "EventKey"))
    # Events have no number, and two of one member may happen in one second.
    parts = (word(fields, name) for name in ("FromUserName", "CreateTime", "Event", "EventKey"))
    return Inbound(f"e{content_hash(*parts)[:40]}", sender, text, now, kind, argument=argument)


def _aside(fields: Fields, event: str, sender: Address, now: datetime) -> Inbound | None:
    if event in AGREEMENTS:
        return aside(sender, fields, now)
    if event in REPORTS:
        # What became of a message keeps nobody's words waiting.
        return aside(Address(NAME, sender.account, f"{sender.user}/{event}"), fields, now)
    return None


_EVENTS: Mapping[str, Callable[[str], tuple[Kind, str, str]]] = {
    "subscribe": lambda key: (Kind.EVENT, Happening.FOLLOW, key.removeprefix(_SCENE)),
    "unsubscribe": lambda key: (Kind.EVENT, Happening.UNFOLLOW, ""),
    "scan": lambda key: (Kind.EVENT, Happening.SCANNED, key),
    "click": lambda key: (Kind.PRESS, key, ""),
}
