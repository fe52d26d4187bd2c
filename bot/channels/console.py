"""The terminal as a channel: one person types, answers and messages are printed.

It is also the smallest whole channel, to be read before writing another one.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from starlette.routing import BaseRoute

from bot.channels.base import Receive
from bot.clock import Clock
from bot.context import ChannelFacts
from bot.messages import Address, Choice, Inbound, Kind, Part

FACTS = ChannelFacts("console", inline=99, label="终端")
PATIENCE = 60.0  # seconds to wait for an answer; nobody else waits behind this terminal

_UNSAID = (Kind.TEXT, Kind.PRESS, Kind.EVENT, Kind.ASIDE)
_KINDS = {f"[{kind}]": kind for kind in Kind if kind not in _UNSAID}
_NUMBERED = re.compile(r"(?:^|\s)1\s*[.、:：\s]", re.MULTILINE)
_HERE = Address("console", "local", "1")


@dataclass
class Console:
    """Reads what is said from `lines`, writes with `write`, and awaits `settled` after each line.

    `[1]` presses the first button of the last answer, and so does `1` where the answer has no
    numbers of its own. `[voice]` stands for a voice message. Lines that begin with @ go to `moved`.
    """

    lines: Iterable[str]
    write: Callable[[str], None]
    clock: Clock
    settled: Callable[[], Awaitable[None]]
    moved: Callable[[str], None]
    recorder: Callable[[str, str], None] = lambda _mark, _text: None
    person: Address = _HERE
    facts: ChannelFacts = FACTS
    _choices: tuple[Choice, ...] = ()
    _shown: str = ""
    _numbers: int = 0
    _unasked: list[str] = field(default_factory=list)

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        return ()

    async def run(self, receive: Receive) -> None:
        """Talk until the lines end."""
        for line in self.lines:
            if line.startswith("@") or not line.strip():
                self.moved(line.removeprefix("@").strip())
            else:
                await self._say(line, receive)
            await self.settled()
            if self._unasked:
                # One line: in a transcript 「…」 stands for whatever lies between.
                told = "\n".join(self._unasked).splitlines()
                self.recorder("<<", "…".join(filter(None, told)))
                self._unasked.clear()

    async def _say(self, line: str, receive: Receive) -> None:
        text = self._pressed(line.strip())
        kind = _KINDS.get(text, Kind.TEXT)
        self._numbers += 1
        inbound = Inbound(
            str(self._numbers),
            self.person,
            text if kind is Kind.TEXT else "",
            self.clock.now(),
            kind,
        )
        self.recorder(">", text)
        parts = await receive(inbound, PATIENCE)
        self._choices, self._shown = (), ""
        for part in parts:
            self._show(part)
            for said in part.text.splitlines():
                self.recorder("<", said)

    def _pressed(self, text: str) -> str:
        """The value of the button that was meant, or the words as they are."""
        found = re.fullmatch(r"(\[?)(\d{1,2})(\]?)", text)
        if not found or not 1 <= int(found[2]) <= len(self._choices):
            return text
        if (found[1] and found[3]) or not _NUMBERED.search(self._shown):
            return self._choices[int(found[2]) - 1].value
        return text

    def _show(self, part: Part) -> None:
        self.write(part.text)
        if part.link:
            self.write(f"{part.link.label}：{part.link.path}")
        if part.file:
            self.write(f"（文件：{part.file.name}，{len(part.file.content)}字节）")
        if part.choices:
            shown = (f"[{n}] {choice.label}" for n, choice in enumerate(part.choices, 1))
            self.write("  ".join(shown))
            self._choices = part.choices
        self._shown += f"\n{part.text}"

    async def send(self, address: Address, part: Part, key: str) -> str:
        """Print a message that came by itself."""
        self.write("（来信）")
        self._show(part)
        self._unasked.append(part.text)
        return key

    async def close(self) -> None:
        return None

    def check(self) -> Sequence[str]:
        return ()
