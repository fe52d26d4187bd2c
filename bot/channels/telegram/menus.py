"""What the menu key offers: in groups what may be answered there, in private all for anybody."""

from __future__ import annotations

import re
from collections.abc import Sequence

from telegram import (
    BotCommand,
    BotCommandScope,
    BotCommandScopeAllGroupChats,
    BotCommandScopeAllPrivateChats,
    BotCommandScopeDefault,
)

from bot.catalog import Catalog
from bot.commands import Command

MOST = 100  # the platform's limit
_LATIN = re.compile(r"/[a-z0-9_]{1,32}")
_CANCEL = BotCommand("cancel", "放弃正在填的表")


def menus(
    catalog: Catalog, public_only: bool
) -> Sequence[tuple[BotCommandScope, list[BotCommand]]]:
    """Lists by scope, made from the commands that have a Latin alias.

    `public_only`: nothing personal is done on this channel.
    """
    public = [_entry(word, c) for word, c in catalog.words.items() if _offered(word, c) and c.group]
    every = [_entry(word, c) for word, c in catalog.words.items() if _offered(word, c)]
    private = public if public_only else [*every, _CANCEL]
    return (
        (BotCommandScopeDefault(), public[:MOST]),
        (BotCommandScopeAllGroupChats(), public[:MOST]),
        (BotCommandScopeAllPrivateChats(), private[:MOST]),
    )


def _offered(word: str, command: Command) -> bool:
    return bool(_LATIN.fullmatch(word) and command.help and not command.roles)


def _entry(word: str, command: Command) -> BotCommand:
    return BotCommand(word[1:], command.help[:256])
