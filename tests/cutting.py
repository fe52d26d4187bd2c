"""A door in front of PostgreSQL that can be shut, jammed, or slammed after so many bytes."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

CHUNK = 65536


@dataclass(eq=False)
class _Pair:
    """One connection: what the program holds and what the server holds."""

    near: socket.socket
    far: socket.socket

    def other(self, end: socket.socket) -> socket.socket:
        return self.far if end is self.near else self.near


@dataclass
class Door:
    """`with Door(server.socket_folder) as door:`; every method may be called from any thread.

    `up` counts bytes towards the server, `down` those from it.
    """

    folder: Path
    up: int = 0
    down: int = 0
    cuts: int = 0
    _shut: bool = False
    _jammed: bool = False
    _left: int | None = None
    _down: bool = False
    _pairs: dict[socket.socket, _Pair] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._lock = threading.RLock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._waking, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._waking, selectors.EVENT_READ)
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name="door", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True
        os.write(self._woken, b".")
        self._thread.join()
        for pair in set(self._pairs.values()):
            self._part(pair)
        self._selector.close()
        self._listening.close()
        os.close(self._waking)
        os.close(self._woken)

    def url(self, name: str) -> str:
        """The SQLAlchemy address of a database behind the door."""
        options = "sslmode=disable&gssencmode=disable"
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}?{options}"

    def shut(self) -> None:
        """Cut every connection, and refuse new ones."""
        with self._lock:
            self._shut = True
            for pair in set(self._pairs.values()):
                self._part(pair)

    def open(self) -> None:
        """Let everything through again."""
        with self._lock:
            self._shut = self._jammed = False
            self._left = None
            for end in self._pairs:
                self._selector.modify(end, selectors.EVENT_READ)
        os.write(self._woken, b".")

    def jam(self) -> None:
        """Let nothing through and say nothing: a server that hangs."""
        with self._lock:
            self._jammed = True

    def cut(self, after: int, *, down: bool) -> None:
        """Cut a connection once so many more bytes have gone up, or down."""
        with self._lock:
            self._left, self._down = after, down

    def cut_everywhere(self, work: Callable[[int], None]) -> int:
        """Have some work done whole, then with its connection cut at one place after another of
        what it sends and gets; it is told how often it was done before, which is returned too."""
        before = (self.up, self.down)
        work(0)
        sizes = {False: self.up - before[0], True: self.down - before[1]}
        number = 0
        for down, size in sizes.items():
            for at in range(0, size, size // 12):
                number += 1
                self.cut(at, down=down)
                work(number)
        return number

    @property
    def armed(self) -> bool:
        """Is a cut still to come?"""
        return self._left is not None

    def _serve(self) -> None:
        while not self._ended:
            for key, _events in self._selector.select(0.05 if self._jammed else None):
                with self._lock, contextlib.suppress(OSError):
                    if key.fileobj is self._listening:
                        self._accept()
                    elif key.fileobj == self._waking:
                        os.read(self._waking, CHUNK)
                    elif isinstance(key.fileobj, socket.socket) and not self._jammed:
                        self._pass_on(key.fileobj)

    def _accept(self) -> None:
        near, _address = self._listening.accept()
        if self._shut:
            near.close()
            return
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(str(self.folder / ".s.PGSQL.5432"))
        except OSError:
            near.close()
            far.close()
            return
        pair = _Pair(near, far)
        for end in (near, far):
            self._pairs[end] = pair
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        pair = self._pairs.get(end)
        if pair is None:
            return
        try:
            data = end.recv(CHUNK)
            downwards = end is pair.far
            cut = self._left is not None and self._down == downwards and len(data) > self._left
            if cut:
                data = data[: self._left]
            elif self._left is not None and self._down == downwards:
                self._left -= len(data)
            if downwards:
                self.down += len(data)
            else:
                self.up += len(data)
            pair.other(end).sendall(data)
        except OSError:
            data, cut = b"", False
        if cut:
            self._left = None
            self.cuts += 1
        if cut or not data:
            self._part(pair)

    def _part(self, pair: _Pair) -> None:
        for end in (pair.near, pair.far):
            if self._pairs.pop(end, None) is not None:
                self._selector.unregister(end)
                end.close()
