"""Starts processes that drain one queue side by side, and reads how fast they were."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import note

READY = 60.0  # seconds a process may take to load
LEAVE = 30.0  # seconds it may take to finish what it has begun


@dataclass
class _Hand:
    """One process, and the last it told."""

    process: subprocess.Popen[str]
    told: dict[str, Any] = field(default_factory=dict)
    reader: threading.Thread | None = None

    def listen(self) -> None:
        """Read what it tells until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.told = self.told | json.loads(line)
            else:
                note(line.rstrip())

    def say(self, word: str) -> None:
        """Write it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()


@dataclass(frozen=True)
class Run:
    """What a crew did: rows sent, rows a second, its own processor time and commits for a row,
    and the memory of its largest process in MB.
    """

    count: int
    rate: float
    cpu_us: float
    commits: float
    rss_mb: float


def run(commands: Sequence[Sequence[str]], rows: int, seconds: float) -> Run:
    """Start one process for each command together; end when all rows are sent or time is up.

    Raises RuntimeError when one of them does not start, ends early or sends nothing.
    """
    crew = [
        _Hand(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        for command in commands
    ]
    try:
        for hand in crew:
            hand.reader = threading.Thread(target=hand.listen, daemon=True)
            hand.reader.start()
        _await(crew, "ready")
        began = time.monotonic()
        for hand in crew:
            hand.say("go")
        while time.monotonic() - began < seconds and _count(crew) < rows:
            if any(hand.process.poll() is not None for hand in crew):
                raise RuntimeError("a process ended before its time")
            time.sleep(0.05)
        for hand in crew:
            hand.say("stop")
        for hand in crew:
            hand.process.wait(LEAVE)
            if hand.reader is not None:
                hand.reader.join()
    finally:
        for hand in crew:
            hand.process.kill()
    count = _count(crew)
    if not count:
        raise RuntimeError("nothing was sent")
    return Run(
        count,
        count / (max(hand.told["ended"] for hand in crew) - began),
        sum(hand.told["cpu"] - hand.told["ready"] for hand in crew) / count * 1e6,
        sum(hand.told.get("commits", 0) for hand in crew) / count,
        max(hand.told["rss_mb"] for hand in crew),
    )


def _count(crew: Sequence[_Hand]) -> int:
    return sum(hand.told.get("count", 0) for hand in crew)


def _await(crew: Sequence[_Hand], word: str) -> None:
    deadline = time.monotonic() + READY
    while not all(word in hand.told for hand in crew):
        if time.monotonic() > deadline or any(hand.process.poll() is not None for hand in crew):
            raise RuntimeError(f"a process did not get {word}")
        time.sleep(0.02)
