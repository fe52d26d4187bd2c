"""What an event of customer contact tells: who came or went, which group is no more, a friend."""

from __future__ import annotations

from dataclasses import dataclass

from bot.channels.envelope import Fields, word
from bot.messages import Address
from storage.customer_groups import RosterChange

NAME = "wecom_group"
GROUPS, FRIENDS = "change_external_chat", "change_external_contact"


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The group is no more."""

    address: str


@dataclass(frozen=True, slots=True)
class Befriended:
    """Somebody has become a friend of one of the staff; the code lets us greet them."""

    code: str


Told = RosterChange | Dismissed | Befriended


def read(fields: Fields, account: str) -> Told | None:
    """What concerns us of an event."""
    if word(fields, "Event") == FRIENDS:
        code = word(fields, "WelcomeCode")
        return Befriended(code) if code else None
    chat = word(fields, "ChatId")
    if not chat:
        return None
    address = str(Address(NAME, account, chat))
    if word(fields, "ChangeType") == "dismiss":
        return Dismissed(address)
    who = _items(fields)
    detail = word(fields, "UpdateDetail")
    return RosterChange(
        address,
        joined=who if detail == "add_member" else (),
        left=who if detail == "del_member" else (),
        before=word(fields, "LastMemVer"),
        after=word(fields, "CurMemVer"),
    )


def _items(fields: Fields) -> tuple[str, ...]:
    """The members an event names: one stands alone, several are a list."""
    found = fields.get("MemChangeList")
    items = found.get("Item", "") if isinstance(found, dict) else ""
    listed = items if isinstance(items, list) else [items]
    return tuple(item for item in listed if isinstance(item, str) and item)
