"""Starts the servers that inbound measurements compare, each on an empty database and one core."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inbound_app import PATH
from benchmarks.wechat_load import Load, drive

OURS, ORM = "ours", "orm_per_message"
CONNECTIONS = 32
SERVER_CORE, CLIENT_CORE = 0, 1
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """One round: what the client saw, the server's processor time a message, its peak memory."""

    load: Load
    cpu_us: float
    rss_mb: float


def path_of(name: str) -> str:
    """Where a server expects callbacks."""
    return PATH if name == OURS else "/"


def words_of(name: str, url: str, port: int) -> tuple[list[str], dict[str, str]]:
    """(command, environment) of a server on the database `url`; WeRoBot has its own in a folder."""
    if name == OURS:
        return [sys.executable, "-m", "benchmarks.inbound_app", url, str(port)], {}
    if name == ORM:
        words = [sys.executable, "-m", "benchmarks.peers.orm_form", str(port)]
        return words, {"ORM_DATABASE": url}
    bind = f"127.0.0.1:{port}"
    words = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "4", "-b", bind]
    words += ["--keep-alive", "30", "benchmarks.peers.werobot_form:app"]
    environment = {"WEROBOT_DATABASE": url}
    return words, environment | ({"WEROBOT_WAL": "1"} if name == "werobot_wal" else {})


@contextmanager
def server(name: str, url: str) -> Iterator[tuple[int, int]]:
    """(port, process id) of a server, pinned to its core with every process it starts."""
    port = _free_port()
    words, environment = words_of(name, url, port)
    # Set before it starts, so that the workers it starts are pinned too.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    process = subprocess.Popen(  # our own words
        words,
        env=dict(os.environ) | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.sched_setaffinity(0, before)
    try:
        _wait_for(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(15)


def measured(name: str, url: str, messages: Sequence[bytes]) -> Measured:
    """One round on a database; raises RuntimeError when ours left somebody without an answer."""
    before = os.sched_getaffinity(0)
    with server(name, url) as (port, process):
        os.sched_setaffinity(0, {CLIENT_CORE})
        try:
            spent = _cpu(process)
            load = asyncio.run(drive(port, messages, CONNECTIONS))
            spent = _cpu(process) - spent
        finally:
            os.sched_setaffinity(0, before)
        if name == OURS and load.silent:
            raise RuntimeError(f"{load.silent} messages were not answered")
        return Measured(load, spent / len(messages) * 1e6, _peak(process))


def in_turn(urls: Sequence[str], messages: Sequence[Sequence[bytes]], part: int) -> list[float]:
    """Microseconds of processor time a message of ours on each of several databases.

    All are up at once and take turns, so many messages each.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(server(OURS, url)) for url in urls]
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, {CLIENT_CORE})
        before = [_cpu(process) for _port, process in servers]
        for start in range(0, len(messages[0]), part):
            for (port, _process), ours in zip(servers, messages, strict=True):
                load = asyncio.run(drive(port, ours[start:][:part], CONNECTIONS))
                if load.silent:
                    raise RuntimeError(f"{load.silent} messages were not answered")
        spent = [_cpu(process) for _port, process in servers]
    return [
        (after - then) / len(ours) * 1e6
        for then, after, ours in zip(before, spent, messages, strict=True)
    ]


def fresh(name: str, messages: Sequence[bytes]) -> Measured:
    """One round on an empty SQLite database."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/inbound.db"
        return measured(name, f"sqlite:///{path}" if name == OURS else path, messages)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _try in range(1200):
        if process.poll() is not None:
            raise RuntimeError("the server ended at once")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not come up")


def _family(process: int) -> Iterator[Path]:
    """The folders under /proc of a server and of the workers it started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue
        if int(folder.name) == process or f"PPid:\t{process}\n" in status:
            yield folder


def _cpu(process: int) -> float:
    """Seconds of processor time, user and system."""
    fields = [(one / "stat").read_text().rpartition(")")[2].split() for one in _family(process)]
    return sum(int(field[11]) + int(field[12]) for field in fields) / _TICKS


def _peak(process: int) -> float:
    total = 0.0
    for folder in _family(process):
        found = re.search(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())
        total += int(found[1]) / 1024 if found else 0
    return total
