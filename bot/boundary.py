"""What a channel with rules of its own must not carry; the rules are declared above `bot`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot.commands import Command
from bot.messages import Reply

if TYPE_CHECKING:
    from bot.context import Context
    from bot.forms import Form


@dataclass(frozen=True)
class Boundary:
    """Asked wherever `ChannelFacts.policy` names rules; at most one is declared.

    Each of the first three returns what is answered instead, or None to go on: `message` before a
    private message is read, `command` before a command runs, `form` before a form opens or hears
    an answer. `withheld` names the questions of a form that are not asked there. `scopes` gives for
    a policy the consent without which nobody is written to there unasked.
    """

    message: Callable[[Context], Reply | None]
    command: Callable[[Context, Command], Reply | None]
    form: Callable[[Context, type[Form]], Reply | None]
    withheld: Callable[[Context, type[Form]], Collection[str]]
    scopes: Mapping[str, str] = field(default_factory=dict)
