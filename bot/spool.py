"""What platforms told us while the database was away, kept on this machine until it is back.

One line a message or aside, sealed with the key ring, in a file that belongs to one living process:
its lock says so. A line stands on the disk before `keep` returns. Files whose process has died are
taken over by whichever process of this machine starts next. What was taken in twice over a crash is
told by its inbox key.
"""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag

from bot.messages import Inbound, dump_inbound, load_inbound
from storage.columns import KeyRing

MOST = 32 * 1024 * 1024  # bytes one process may keep; some eighty thousand messages
SUFFIX = ".spool"

log = structlog.get_logger()


class SpoolFull(OSError):
    """There is no room left: the platform must be refused, so that it tells again."""


class Spool:
    """Messages in the order in which they were said, on the disk and in memory alike.

    `keep` may be called from any thread; `next` and `taken` are for the one that takes in.
    """

    def __init__(self, folder: Path, keys: KeyRing, *, most: int = MOST) -> None:
        self._folder = folder
        self._keys = keys
        self._most = most
        self._lock = threading.Lock()
        self._own: _File | None = None
        self._adopted: list[_File] = []
        self._waiting: deque[Inbound] = deque()
        self._senders: Counter[str] = Counter()

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def holds(self, sender: str) -> bool:
        """Does something said by this address still wait? Then what it says now goes behind."""
        return sender in self._senders

    def keep(self, messages: Sequence[Inbound]) -> None:
        """Have them on the disk; raises OSError (SpoolFull among them), and then keeps none."""
        written = b"".join(self._line(message) for message in messages)
        with self._lock:
            if self._own is None:
                self._own = _File.new(self._folder)
            if self._own.size + len(written) > self._most:
                raise SpoolFull
            self._own.append(written)
            self._remember(messages)

    def adopt(self) -> int:
        """Take over what dead processes left; returns how many messages that is."""
        with self._lock:
            before = len(self._waiting)
            for path in _files(self._folder):
                found = None if self._is_ours(path) else _File.of_nobody(path)
                if found is not None:
                    self._adopted.append(found)
                    self._remember(self._read(found))
            self._tidy()
            return len(self._waiting) - before

    def next(self, most: int) -> list[Inbound]:
        """The oldest that wait, at most so many; they stay until they are `taken`."""
        with self._lock:
            return [self._waiting[at] for at in range(min(most, len(self._waiting)))]

    def taken(self, count: int, left: Sequence[Inbound] = ()) -> None:
        """So many of the oldest are in the database, but for those `left`, which go behind; when
        none waits any more the files go."""
        with self._lock:
            for _each in range(count):
                sender = str(self._waiting.popleft().sender)
                self._senders[sender] -= 1
                if not self._senders[sender]:
                    del self._senders[sender]
            self._remember(left)
            self._tidy()

    def close(self) -> None:
        """Let the files go; what waits in them is found by the next start."""
        with self._lock:
            for file in self._files():
                file.close()
            self._own, self._adopted = None, []

    def _tidy(self) -> None:
        if not self._waiting:
            for file in self._files():
                file.remove()
            self._own, self._adopted = None, []

    def _files(self) -> list[_File]:
        return [*self._adopted, *([self._own] if self._own is not None else [])]

    def _is_ours(self, path: Path) -> bool:
        return any(file.path == path for file in self._files())

    def _remember(self, messages: Iterable[Inbound]) -> None:
        for message in messages:
            self._waiting.append(message)
            self._senders[str(message.sender)] += 1

    def _line(self, message: Inbound) -> bytes:
        return base64.b64encode(self._keys.seal(dump_inbound(message))) + b"\n"

    def _read(self, file: _File) -> list[Inbound]:
        """Every message that can be read; a crash leaves half a line, which nobody was promised."""
        found: list[Inbound] = []
        for number, line in enumerate(file.lines(), 1):
            try:
                found.append(load_inbound(self._keys.open(base64.b64decode(line, validate=True))))
            except (InvalidTag, LookupError, ValueError, TypeError) as error:
                log.error(
                    "spool_line_unreadable",
                    file=file.path.name,
                    line=number,
                    error=type(error).__name__,
                )
        return found


def spooled(folder: Path) -> int:
    """How many messages all processes of this machine keep; looks only."""
    depth = 0
    for path in _files(folder):
        try:
            depth += path.read_bytes().count(b"\n")
        except FileNotFoundError:  # taken in this moment
            continue
    return depth


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


class _File:
    """One file, held by this process until it is closed or removed."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle
        self.size = os.fstat(handle).st_size

    @classmethod
    def new(cls, folder: Path) -> _File:
        """One that sorts behind those that are there."""
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync(folder.parent)
        numbers = [int(path.name.partition("-")[0]) for path in _files(folder)]
        name = f"{max(numbers, default=0) + 1:08d}-{secrets.token_hex(4)}{SUFFIX}"
        path = folder / name
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sync(folder)
        return cls(path, handle)

    @classmethod
    def of_nobody(cls, path: Path) -> _File | None:
        """One whose process is gone; None while somebody holds it, or when it was just removed."""
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        if not os.fstat(handle).st_nlink:
            os.close(handle)
            return None
        return cls(path, handle)

    def append(self, written: bytes) -> None:
        """Have it on the disk, all of it or nothing; raises OSError."""
        try:
            left = memoryview(written)
            while left:
                left = left[os.write(self._handle, left) :]
            os.fdatasync(self._handle)
        except OSError:
            # Half a line would spoil the one behind it.
            os.ftruncate(self._handle, self.size)
            raise
        self.size += len(written)

    def lines(self) -> list[bytes]:
        """What stands in it."""
        return list(filter(None, self.path.read_bytes().split(b"\n")))

    def remove(self) -> None:
        """All of it is in the database."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        os.close(self._handle)


def _sync(folder: Path) -> None:
    """A new name in a folder lasts only when the folder itself is written."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
