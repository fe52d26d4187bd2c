"""What the smart bot says over the long connection: answers, pushes, files and cards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bot.channels.wecom.bot.budget import Budget
from bot.channels.wecom.bot.files import Files
from bot.channels.wecom.bot.memory import Memory
from bot.channels.wecom.bot.reading import GROUP, Told
from bot.channels.wecom.bot.wire import Wire
from bot.channels.wecom.bot.words import markdown, stream
from bot.clock import Clock
from bot.errors import SendError
from bot.messages import Address, Kind, Part

WELCOME = timedelta(seconds=5)
ANSWERS = timedelta(minutes=1)  # the platform says 24 hours; what comes later is no answer
REMEMBERED = 1000

_BUSY, _OFTEN = -1, 45009
_PERMANENT = {
    93006: "unreachable",
    40007: "media",
    40008: "kind",
    40058: "format",
    45002: "too_long",
}
_NOT_THIS_ANSWER = frozenset({846605, 846608})


@dataclass(slots=True)
class Opening:
    """A callback that still waits for its answer. `key`: the bubble that is answering it."""

    req_id: str
    until: datetime
    welcome: bool
    key: str = ""


class Speaker:
    """Says bubbles over whichever connection `wire` gives at the moment."""

    def __init__(self, clock: Clock, memory: Memory, wire: Callable[[], Wire]) -> None:
        self._clock = clock
        self._memory = memory
        self._wire = wire
        self._budget = Budget(clock)
        self._files = Files(clock)
        self._openings: dict[str, Opening] = {}
        self._steps: dict[str, int] = {}

    def opened(self, req_id: str, told: Told) -> None:
        """The answer to this may name it; the newest counts."""
        welcome = told.inbound.kind is Kind.EVENT
        until = self._clock.now() + (WELCOME if welcome else ANSWERS)
        self._openings.pop(str(told.where), None)
        self._openings[str(told.where)] = Opening(req_id, until, welcome)
        if len(self._openings) > REMEMBERED:
            del self._openings[next(iter(self._openings))]

    async def say(self, address: Address, part: Part, key: str) -> None:
        """One bubble: its text, its file, a card for its choices; raises SendError."""
        pieces = await self._pieces(self._wire(), address, part, key)
        done = self._steps.get(key, 0)
        wait = self._budget.wait(str(address), len(pieces) - done)
        if wait:
            raise SendError("quota", retry_after=wait, only_here=True)
        for number in range(done, len(pieces)):
            await self._piece(address, pieces[number], f"{key}.{number}")
            self._remember(key, number + 1)
        self._steps.pop(key, None)

    def _remember(self, key: str, done: int) -> None:
        """What of a bubble was said already, so that a second try does not say it again."""
        self._steps[key] = done
        if len(self._steps) > REMEMBERED:
            del self._steps[next(iter(self._steps))]

    async def _pieces(
        self, wire: Wire, address: Address, part: Part, key: str
    ) -> list[str | dict[str, Any]]:
        """The messages that make up a bubble; a text stands for itself."""
        pieces: list[str | dict[str, Any]] = [part.text] if part.text else []
        if part.file is not None:
            kind, media = await self._files.upload(wire, part.file, key)
            pieces.append({"msgtype": kind, kind: {"media_id": media}})
        # What a group shows anybody could press.
        if part.choices and not address.user.startswith(GROUP):
            card = await asyncio.to_thread(self._memory.card, address, part.choices)
            pieces.append({"msgtype": "template_card", "template_card": card})
        return pieces

    async def _piece(self, address: Address, piece: str | dict[str, Any], key: str) -> None:
        """As the answer to what they said last, while it waits for one; else as a push."""
        self._budget.spend(str(address))
        if isinstance(piece, str) and await self._answer(address, piece, key):
            return
        body = markdown(piece) if isinstance(piece, str) else piece
        group = address.user.startswith(GROUP)
        chat = {"chatid": address.user.removeprefix(GROUP), "chat_type": 2 if group else 1}
        _judge(await self._wire().ask("aibot_send_msg", chat | body))

    async def _answer(self, address: Address, text: str, key: str) -> bool:
        """Answer a callback; False where none waits or the platform takes no answer to it.

        A second try names the same stream, whose content is replaced and not said again.
        """
        where = str(address)
        opening = self._openings.get(where)
        if opening is None or opening.key not in ("", key):
            return False
        if self._clock.now() >= opening.until:
            del self._openings[where]
            return False
        opening.key = key
        command, said = "aibot_respond_msg", stream(key, text)
        if opening.welcome:
            command = "aibot_respond_welcome_msg"
            said = {"msgtype": "text", "text": {"content": text}}
        answer = await self._wire().ask(command, said, opening.req_id)
        if answer.get("errcode") != _BUSY and self._openings.get(where) is opening:
            del self._openings[where]
        if answer.get("errcode") in _NOT_THIS_ANSWER:
            return False
        _judge(answer)
        return True


def _judge(answer: Mapping[str, Any]) -> None:
    """Raise what an ack's error code means for the message in hand."""
    code = answer.get("errcode")
    if code == 0:
        return
    detail = f"errcode {code}"
    if code == _OFTEN:
        raise SendError("quota", retry_after=60.0, only_here=True, detail=detail)
    if isinstance(code, int) and code in _PERMANENT:
        raise SendError(_PERMANENT[code], permanent=True, detail=detail)
    raise SendError("busy" if code == _BUSY else "refused", detail=detail)
