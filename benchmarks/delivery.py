"""How fast the outbox drains: 20,000 rows to a sink that takes 20 ms a call, 64 calls in flight.

The sink allows 64 / 20 ms = 3,200 rows a second; the share of that is what the ledger leaves.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median

import uvloop

from benchmarks.figures import Figure, note
from bot.app import tune_interpreter
from bot.delivery import IN_FLIGHT, Delivery
from bot.messages import Address, Part
from tests.bare import Bare
from tests.world import MemoryChannel

ROWS = 20_000
CALL = 0.020  # seconds the sink takes
ROUNDS = 3
PROMISE = 0.70


@dataclass
class Sink(MemoryChannel):
    """Takes everything after 20 ms and only counts."""

    count: int = 0

    async def send(self, address: Address, part: Part, key: str) -> str:
        await asyncio.sleep(CALL)
        self.count += 1
        return ""


def drain_once(report: Connection) -> None:
    """In a process of its own, so that its memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Bare(f"sqlite:///{folder}/delivery.db")
        bare.lane()
        bare.rows(ROWS)
        sink = Sink()
        tune_interpreter()
        before = bare.database.commits
        started = time.perf_counter()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            delivery = Delivery(bare.services, {"memory": sink}, alone=True)
            runner.run(delivery.until_idle(120))
        seconds = time.perf_counter() - started
        assert bare.states() == {"sent": ROWS}
        assert sink.count == ROWS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report.send((ROWS / seconds, (bare.database.commits - before) / ROWS, peak))
        bare.close()


def measured() -> tuple[float, float, float]:
    """(rows a second, commits a row, peak memory in MB) of one run."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=drain_once, args=(theirs,))
    process.start()
    found: tuple[float, float, float] = ours.recv()
    process.join()
    return found


def main() -> bool:
    """Print the figures; True when the promised share is reached."""
    note(f"{ROWS} 行，每次 {CALL * 1000:.0f} 毫秒，同时 {IN_FLIGHT} 路，SQLite，{ROUNDS} 轮")
    rounds = [measured() for _ in range(ROUNDS)]
    rate = median(found[0] for found in rounds)
    share = rate / (IN_FLIGHT / CALL)
    Figure("delivery", "rows_per_s", rate, "行/秒").tell()
    Figure("delivery", "share_of_sink", share, "", "sink", share).tell()
    Figure("delivery", "commits_per_message", median(f[1] for f in rounds), "次/行").tell()
    Figure("delivery", "rss_mb", max(found[2] for found in rounds), "MB").tell()
    return share >= PROMISE
