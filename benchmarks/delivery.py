"""How fast the outbox drains: 100,000 rows to a sink that takes 20 ms a call, 64 in flight.

The sink allows a process 64 / 20 ms = 3,200 rows a second. SQLite with one process is held against
that; PostgreSQL with two and four processes against one, and against PgQueuer, Procrastinate and
DBOS with as many on the same server. Four need the processors of more than two: beside it one and
four with calls of 60 ms, as long as platforms take. All take turns for some seconds in every round.
Then the same over HTTP to an emulated Telegram, and the memory with 10,000 and 1,000,000 rows.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.crews import Run, run
from benchmarks.drain import fill
from benchmarks.figures import Figure, note, ratio
from benchmarks.peers.tally import CALL, IN_FLIGHT
from tests.postgres import Server, running_server

ROWS = 100_000
SECONDS = 3  # that each takes in each round
ROUNDS = 3
SLOW = 0.060  # seconds of a call as platforms take them
CHATS = 8_000  # rows over HTTP
FEW, MANY = 10_000, 1_000_000  # rows between which memory must not grow
HERE = Path(__file__).parent
WANTED = HERE / "peers" / "requirements.txt"
DURABLE = "-c max_connections=200 -c shared_buffers=256MB -c max_wal_size=4GB"
"""A server as one would run it, that waits for its disk; only the log is large."""

SHARE, TWICE, FOURFOLD, COMMITS, RSS_MB, GROWTH = 0.75, 1.7, 3.0, 0.15, 150, 1.10
LEVEL = 0.97  # of PgQueuer's rate passes for level with it


@dataclass(frozen=True)
class Peer:
    """Another library: so many rows for it, so that its queue does not run dry."""

    name: str
    rows: int


PEERS = (Peer("pgqueuer", ROWS), Peer("procrastinate", 8_000), Peer("dbos", 2_000))


def peer_python() -> str | None:
    """The interpreter of an environment with the peers, made once; None if they cannot be had."""
    stamp = hashlib.sha256(WANTED.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "hongyan-benchmarks" / f"peers-{stamp}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        note("正在给对照的队列装一个环境……")
        venv.create(home, with_pip=True, clear=True)
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", WANTED])
        if done.returncode:
            return None
        (home / "complete").touch()
    return str(python)


def ours(
    url: str, processes: int, rows: int, seconds: float, platform: str = "", call: float = CALL
) -> Run:
    """The product's own processes."""
    command = [sys.executable, "-m", "benchmarks.drain", url, str(call)]
    return run([command + [platform] * bool(platform)] * processes, rows, seconds)


def on_sqlite(folder: Path, laid: Path, rows: int, seconds: float, platform: str = "") -> Run:
    """One process on a copy of a laid database."""
    copy = Path(shutil.copy(laid, folder / "run.db"))
    try:
        return ours(f"sqlite:///{copy}", 1, rows, seconds, platform)
    finally:
        for left in folder.glob("run.db*"):
            left.unlink()


@contextmanager
def copied(server: Server, laid: str) -> Iterator[str]:
    """A copy of a laid database."""
    name = server.create(laid)
    try:
        yield name
    finally:
        server.drop(name)


def dsn(server: Server, name: str) -> str:
    """The address of a database, as peers take it."""
    return server.url(name).replace("+psycopg", "", 1)


def lay(folder: Path, rows: int, channel: str = "memory") -> Path:
    """A SQLite database with so many rows waiting."""
    path = folder / f"{channel}-{rows}.db"
    fill(f"sqlite:///{path}", rows, channel)
    return path


Entry = tuple[str, Callable[[], Run]]


def entries(server: Server, folder: Path, python: str | None, seconds: float) -> list[Entry]:
    """Lay every database, and return who takes turns, by name."""
    laid = lay(folder, ROWS)
    ledger = server.create()
    fill(server.url(ledger), ROWS)
    field: list[Entry] = [("sqlite", lambda: on_sqlite(folder, laid, ROWS, seconds))]

    def mine(processes: int, call: float = CALL) -> Run:
        with copied(server, ledger) as name:
            return ours(server.url(name), processes, ROWS, seconds, call=call)

    def theirs(peer: Peer, queue: str, processes: int) -> Run:
        with copied(server, queue) as name:
            command = [str(python), "-m", f"benchmarks.peers.{peer.name}_drain", "drain"]
            return run([[*command, dsn(server, name)]] * processes, peer.rows, seconds)

    field += [(f"pg{count}", lambda count=count: mine(count)) for count in (1, 2, 4)]  # type: ignore[misc]
    field += [(f"slow{count}", lambda count=count: mine(count, SLOW)) for count in (1, 4)]  # type: ignore[misc]
    for peer in PEERS if python else ():
        queue = server.create()
        module = f"benchmarks.peers.{peer.name}_drain"
        words = [str(python), "-m", module, "fill", dsn(server, queue), str(peer.rows)]
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
        for count in (2, 4):
            field.append(
                (
                    f"{peer.name}{count}",
                    lambda peer=peer, queue=queue, count=count: theirs(peer, queue, count),  # type: ignore[misc]
                )
            )
    return field


def over_http(folder: Path, seconds: float) -> Run:
    """One process on SQLite through the real Telegram channel to an emulator beside it."""
    laid = lay(folder, CHATS, "telegram")
    emulator = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.platform", str(CHATS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert emulator.stdout is not None
        return on_sqlite(folder, laid, CHATS, seconds, emulator.stdout.readline().strip())
    finally:
        emulator.communicate()


def memory(folder: Path, seconds: float) -> tuple[float, float]:
    """(MB with many rows waiting, how many times that with few)."""
    few = on_sqlite(folder, lay(folder, FEW), FEW, seconds).rss_mb
    many = on_sqlite(folder, lay(folder, MANY), MANY, seconds).rss_mb
    return many, many / few


def show(runs: dict[str, list[Run]]) -> None:
    """What everybody reached, for people."""
    for name, found in runs.items():
        rates = [one.rate for one in found]
        note(
            f"{name:16}{median(rates):8.0f} 行/秒（{min(rates):.0f}～{max(rates):.0f}），"
            f"每行 {median(one.commits for one in found):.3f} 次提交，"
            f"进程的处理器时间 {median(one.cpu_us for one in found):.0f} 微秒，"
            f"内存 {max(one.rss_mb for one in found):.0f} MB"
        )


def tell(runs: dict[str, list[Run]], peers: bool) -> bool:
    """Print the figures of the rounds; True when their promises are kept."""
    rates = {name: [one.rate for one in found] for name, found in runs.items()}
    share = median(rates["sqlite"]) / (IN_FLIGHT / CALL)
    Figure("delivery", "rows_per_s", median(rates["sqlite"]), "行/秒").tell()
    Figure("delivery", "share_of_sink", share, "", "sink", share).tell()
    kept = share >= SHARE
    for count, least in ((2, TWICE), (4, FOURFOLD)):
        mine, figure = rates[f"pg{count}"], f"pg{count}_rows_per_s"
        held = {"one_process": (rates["pg1"], least)}
        if peers:
            held["pgqueuer"] = (rates[f"pgqueuer{count}"], LEVEL)
            held["procrastinate"] = (rates[f"procrastinate{count}"], 1.0)
            held["dbos"] = (rates[f"dbos{count}"], 1.0)
        for against, (theirs, wanted) in held.items():
            times = ratio(mine, theirs)
            Figure("delivery", figure, median(mine), "行/秒", against, times).tell()
            kept = kept and times >= wanted
    slow = ratio(rates["slow4"], rates["slow1"])
    Figure(
        "delivery",
        "pg4_slow_calls_rows_per_s",
        median(rates["slow4"]),
        "行/秒",
        "one_process",
        slow,
    ).tell()
    kept = kept and slow >= FOURFOLD
    own = [one for name, found in runs.items() if name[:2] in ("sq", "pg") for one in found]
    commits = max(
        median(one.commits for one in found)
        for name, found in runs.items()
        if name in ("sqlite", "pg1", "pg2", "pg4")
    )
    Figure("delivery", "commits_per_message", commits, "次/行").tell()
    cpu = median(one.cpu_us for one in runs["sqlite"])
    Figure("delivery", "cpu_us_per_row", cpu, "微秒").tell()
    return kept and commits <= COMMITS and max(one.rss_mb for one in own) <= RSS_MB


def main(seconds: int = SECONDS) -> bool:
    """Print the figures; True when every promise is kept."""
    python = peer_python()
    note(
        f"{ROWS} 行，每次 {CALL * 1000:.0f} 毫秒，每个进程同时 {IN_FLIGHT} 路，"
        f"{ROUNDS} 轮，每轮各 {seconds} 秒"
    )
    if python is None:
        note("对照的队列没有装上，这次不比。")
    runs: dict[str, list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place, running_server(DURABLE) as server:
        folder = Path(place)
        field: Sequence[Entry] = entries(server, folder, python, seconds)
        for _round in range(ROUNDS):
            for name, take in field:
                runs[name].append(take())
        http = over_http(folder, seconds)
        many, growth = memory(folder, seconds)
    show(runs | {"http": [http]})
    kept = tell(runs, python is not None)
    Figure("delivery", "http_rows_per_s", http.rate, "行/秒").tell()
    Figure("delivery", "rss_mb", many, "MB").tell()
    Figure("delivery", "rss_growth", growth, "倍", f"{FEW} rows", growth).tell()
    return kept and python is not None and many <= RSS_MB and growth <= GROWTH
