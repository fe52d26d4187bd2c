"""Starts `hongyan` as a program of its own, on a folder of its own, and always ends it."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from storage.columns import KeyRing
from storage.db import Database
from tests.laying import migrate
from tests.world import KEYS

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 30  # seconds; two busy cores may start slowly


@dataclass
class Program:
    """A running `hongyan`: the first line it said, and the address in it."""

    process: subprocess.Popen[str]
    said: str

    @property
    def address(self) -> str:
        found = re.search(r"http://[\w.:\[\]]+\d", self.said)
        assert found, self.said
        return found[0]

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Ask it to end as Ctrl-C does; returns exit code and what it said on stderr."""
        self.process.send_signal(number)
        _, complaints = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, complaints


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's, without anybody's settings but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HONGYAN_")}
    return {**kept, "PYTHONPATH": str(ROOT), "HONGYAN_KEYS": KEYS, **settings}


@contextmanager
def program(folder: Path, *words: str, **settings: str) -> Iterator[Program]:
    """Run `hongyan` until its first line, and end it after."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bot", *words],
        cwd=folder,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Program(process, process.stdout.readline())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def told(folder: Path, *words: str, said: str = "", **settings: str) -> tuple[int, str, str]:
    """Run `hongyan` to its end; returns exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "bot", *words],
        cwd=folder,
        env=environment(settings),
        input=said,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def laid(url: str, keys: str = KEYS) -> Database:
    """A database with this version's tables, open."""
    database = Database(url, KeyRing(keys))
    migrate(database)
    return database


def one_line(complaint: str, *parts: Sequence[str]) -> bool:
    """Is it a single line, no traceback, with these words?"""
    return len(complaint.splitlines()) == 1 and all(str(part) in complaint for part in parts)


@contextmanager
def logging_restored() -> Iterator[None]:
    """What is configured inside ends here: logging belongs to the whole process."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    try:
        yield
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.raiseExceptions = raising
        logging.captureWarnings(False)
