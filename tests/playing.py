"""Plain-text dialogues and how they are played: as is, with restarts, with every message twice.

A transcript is lines of
    # a note                        @ 2026-03-12 10:00   (set the clock, beat, drain)
    > said by the default person    小王> said by 小王     群 小王> said in the group
    < what is answered              小王<< what 小王 gets unasked since last looked
    [voice] as the words means that kind of message      ! restart
    % place gongan                  % role 小王 coordinator        % start 2026-03-01 09:00
    % people 12   (register so many invented members, member-0 and on; see tests/people.py)
    % team (lay the invented field team with its unit and projects)
    % lost member-1 13900001234   (their address is lost; the phone they gave, if any)
In expected lines `…` stands for anything, `{code}` takes a word that later lines may use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bot.messages import Chat, Kind
from tests import delta_team
from tests.people import lose, register_many
from tests.world import GROUP, World

DEFAULT = "乡亲"
_KINDS = {f"[{kind}]": kind for kind in Kind}


@dataclass
class Line:
    """One line of a transcript: `op` is one of `> < << @ ! %`."""

    number: int
    op: str
    who: str
    text: str
    group: bool = False


@dataclass
class Step:
    """An action and the lines expected after it."""

    line: Line
    expected: list[Line] = field(default_factory=list)


def parse(text: str) -> Iterator[Step]:
    """Steps in order; raises ValueError for a line that is none of the above."""
    step: Step | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        if not raw.strip() or raw.startswith("#"):
            continue
        line = _line(number, raw)
        if line.op == "<":
            if step is None:
                raise ValueError(f"line {number}: an answer to nothing")
            step.expected.append(line)
            continue
        if step is not None:
            yield step
        step = Step(line)
        if line.op == "<<":
            yield step
            step = None
    if step is not None:
        yield step


def _line(number: int, raw: str) -> Line:
    for op in ("@", "!", "%"):
        if raw.startswith(op):
            return Line(number, op, "", raw[1:].strip())
    found = re.match(r"(群\s+)?([^<>]*?)\s*(<<|<|>)\s?(.*)", raw)
    if not found:
        raise ValueError(f"line {number}: {raw!r}")
    return Line(number, found[3], found[2] or DEFAULT, found[4], bool(found[1]))


@dataclass
class Player:
    """Plays a transcript. `restart`: before each message; `twice`: each message again."""

    make: Callable[..., World]
    restart: bool = False
    twice: bool = False

    def play(self, path: Path) -> None:
        """Play a file; the assertion error names file and line."""
        options = dict(re.findall(r"^% (place|start) (.+)$", path.read_text("utf-8"), re.MULTILINE))
        self.world = self.make(**options)
        self.words: dict[str, str] = {}
        for step in parse(path.read_text("utf-8")):
            self._step(path, step)

    def _step(self, path: Path, step: Step) -> None:
        line = step.line
        text = self._fill(line.text)
        if line.op == "@":
            self.world.at(text)
        elif line.op == "!":
            self.world.restart()
        elif line.op == "%":
            self._directive(text)
        elif line.op == "<<":
            self._unasked(path, line)
        else:
            self._compare(path, step, self._say(line, text))

    def _directive(self, text: str) -> None:
        word, *rest = text.split()
        if word == "role":
            self.world.grant(rest[0], rest[1])
        elif word == "people":
            register_many(self.world, int(rest[0]))
        if word == "team":
            delta_team.lay(self.world)
        if word == "lost":
            lose(self.world, *rest)

    def _say(self, line: Line, text: str) -> str:
        if self.restart:
            self.world.restart()
        kind = _KINDS.get(text, Kind.TEXT)
        more = {"chat": Chat(GROUP)} if line.group else {}
        inbound = self.world.inbound(
            line.who, "" if kind is not Kind.TEXT else text.replace("⏎", "\n"), kind=kind, **more
        )
        answer = self.world.hears(inbound)
        if self.twice:
            assert self.world.hears(inbound) == answer
        return answer

    def _unasked(self, path: Path, line: Line) -> None:
        self.world.drain()
        waiting = "\n".join(self.world.news(line.who))
        self._match(path, line.number, self._pattern(line.text), waiting, search=True)

    def _compare(self, path: Path, step: Step, answer: str) -> None:
        if step.expected:
            wanted = "\n".join(line.text for line in step.expected)
            self._match(path, step.line.number, self._pattern(wanted), answer)

    def _match(
        self, path: Path, number: int, pattern: str, answer: str, *, search: bool = False
    ) -> None:
        find = re.search if search else re.fullmatch
        found = find(pattern, answer)
        assert found, f"{path.name}:{number} was answered\n{answer}\ninstead of\n{pattern}"
        self.words.update(found.groupdict())

    def _pattern(self, text: str) -> str:
        pattern = re.escape(self._fill(text)).replace("…", r"[\s\S]*?")
        return re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[\\w-]+)", pattern)

    def _fill(self, text: str) -> str:
        for name, value in self.words.items():
            text = text.replace("{" + name + "}", value)
        return text
