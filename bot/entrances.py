"""Ways into the private chat: behind a link or a QR code, once, stands what somebody wanted to say.

A code is a short random word that opens one command, for a while, and only for the one person it
was made for where that is known. Only its digest is kept, like that of every one-time code; what it
says is kept sealed.
"""

from __future__ import annotations

import json
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import insert, select, update
from sqlmodel import col

from bot.catalog import Match
from bot.context import Context
from bot.messages import Happening, Kind, Link
from storage.doors import doors
from storage.people import OneTimeCode

KIND: Final = "entrance"
PREFIX: Final = "go-"
LIFE: Final = timedelta(minutes=30)
LABEL: Final = "私聊办理"

# What stands behind a command may be anybody's data; only the number of something is taken along.
_NUMBER = re.compile(r"[A-Za-z]{0,3}-?\d{1,6}")


def way_in(context: Context, found: Match | None = None) -> Link | None:
    """A link from a group to the private chat on this channel, where it has one.

    With `found`, following it says that command there; it works once, for who speaks now.
    """
    channel = context.inbound.sender.channel
    door = doors(context.connection, [channel]).get(channel)
    if door is None:
        return None
    address, coded = door
    if found is None or context.services.channels[channel].anonymous:
        return Link(LABEL, address)
    words = found.command.word
    if _NUMBER.fullmatch(found.argument):
        words = f"{words} {found.argument}"
    return Link(LABEL, coded + new_code(context, words, LIFE, str(context.inbound.sender)))


def ways_elsewhere(
    context: Context, words: str, life: timedelta, channels: Sequence[str]
) -> Sequence[Link]:
    """Links by which the speaker says `words` on those of these channels that have a way in."""
    mine = context.inbound.sender.channel
    ways = doors(context.connection, [name for name in channels if name != mine])
    return [
        Link(
            f"用 {context.services.channels[channel].label} 打开",
            coded + new_code(context, words, life),
        )
        for channel, (_plain, coded) in ways.items()
    ]


def new_code(context: Context, words: str, life: timedelta, sender: str = "") -> str:
    """A code that says `words` once within `life`, for whoever brings it or for one address."""
    code = PREFIX + secrets.token_urlsafe(16)
    keys = context.services.keys
    said = {"words": words, "for": keys.digest(sender) if sender else ""}
    sealed = b64encode(keys.seal(json.dumps(said, ensure_ascii=False))).decode()
    context.connection.execute(
        insert(OneTimeCode).values(
            kind=KIND,
            digest=keys.digest(code),
            payload=json.dumps({"sealed": sealed}),
            created_at=context.now,
            expires_at=context.now + life,
            tries_left=1,
        )
    )
    return code


def came_by_code(context: Context) -> bool:
    """Has somebody come in by a code of ours, still good or not?"""
    inbound = context.inbound
    arrived = inbound.text in (Happening.FOLLOW, Happening.SCANNED)
    return inbound.kind is Kind.EVENT and arrived and inbound.argument.startswith(PREFIX)


def enter(context: Context) -> str | None:
    """Use the code up and return what it says; None for one that is used, expired or not theirs."""
    keys = context.services.keys
    found = context.connection.execute(
        select(col(OneTimeCode.id), col(OneTimeCode.payload))
        .where(
            col(OneTimeCode.kind) == KIND,
            col(OneTimeCode.digest) == keys.digest(context.inbound.argument),
            col(OneTimeCode.used_at).is_(None),
            col(OneTimeCode.expires_at) > context.now,
        )
        .with_for_update()
    ).first()
    if found is None:
        return None
    said = _opened(context, found.payload)
    if said["for"] not in ("", keys.digest(str(context.inbound.sender))):
        return None
    context.connection.execute(
        update(OneTimeCode).where(col(OneTimeCode.id) == found.id).values(used_at=context.now)
    )
    return said["words"]


def _opened(context: Context, payload: str) -> Mapping[str, str]:
    sealed = b64decode(json.loads(payload)["sealed"])
    said: Mapping[str, str] = json.loads(context.services.keys.open(sealed))
    return said
