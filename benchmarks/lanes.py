"""How soon an answer leaves, from its commit to its call, while a broadcast is under way.

At a production rate, 25 messages a second, and while 100,000 rows drain unthrottled.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import uvloop

from benchmarks.figures import Figure, note
from bot.app import tune_interpreter
from bot.context import ChannelFacts, new_row
from bot.delivery import Delivery
from bot.messages import Address, Part
from storage import mailbox, overview
from tests.bare import NOON, Bare
from tests.world import MemoryChannel

ROWS = 100_000
CHUNK = 5_000
CALL = 0.020  # seconds the sink takes
ANSWERS = 400
EVERY = 0.05  # seconds between two answers: a busy office
MOST_MS = 200.0  # of the slowest hundredth, unthrottled
MOST_USUAL_MS = 20.0  # of the slowest twentieth, at a production rate
RATE = 25  # messages a second
THROTTLED = {"memory": ChannelFacts("memory", bulk_gap_ms=1000 // RATE)}


@dataclass
class Sink(MemoryChannel):
    """Takes 20 ms; notes when the call for an answer begins."""

    began: dict[str, float] = field(default_factory=dict)

    async def send(self, address: Address, part: Part, key: str) -> str:
        if address.user.startswith("a"):
            self.began[address.user] = time.perf_counter()
        await asyncio.sleep(CALL)
        return ""


def fill(bare: Bare, first: int) -> None:
    """Queue a chunk of the broadcast."""
    with bare.database.transaction() as connection:
        mailbox.enqueue(
            connection,
            [
                new_row(
                    occasion="broadcast",
                    recipient=f"x{number}",
                    address=f"memory:t:u{number}",
                    purpose="answer",
                    lane="memory:bulk",
                    body='[{"t":"您好"}]',
                    not_before=NOON,
                    created_at=NOON,
                )
                for number in range(first, first + CHUNK)
            ],
        )


def answer(bare: Bare, number: int) -> float:
    """Commit one answer; when that was."""
    row = new_row(
        occasion=f"answer:{number}",
        recipient=f"a{number}",
        address=f"memory:t:a{number}",
        purpose="answer",
        lane="memory:live",
        body='[{"t":"您好"}]',
        repeatable=True,
        not_before=NOON,
        created_at=NOON,
    )
    with bare.database.transaction() as connection:
        mailbox.enqueue(connection, [row])
    return time.perf_counter()


async def measured(bare: Bare, sink: Sink) -> list[float]:
    """Milliseconds of each answer, while the broadcast drains."""
    delivery = Delivery(bare.services, {"memory": sink}, alone=True)
    running = asyncio.create_task(delivery.run())
    committed: dict[str, float] = {}
    await asyncio.sleep(1)
    for number in range(ANSWERS):
        committed[f"a{number}"] = await asyncio.to_thread(answer, bare, number)
        delivery.wake()
        await asyncio.sleep(EVERY)
    await asyncio.sleep(1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return sorted(1000 * (sink.began[who] - at) for who, at in committed.items())


def trial(rows: int, channels: Mapping[str, ChannelFacts]) -> tuple[list[float], int]:
    """The answers' waits, shortest first, and how much of the broadcast was left at the end."""
    with tempfile.TemporaryDirectory() as folder:
        bare, sink = Bare(f"sqlite:///{folder}/lanes.db", channels), Sink()
        for first in range(0, rows, CHUNK):
            fill(bare, first)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            waits = runner.run(measured(bare, sink))
        with bare.database.engine.connect() as connection:
            left = sum(overview.owed(connection, NOON).values())
        bare.close()
    return waits, left


def main() -> bool:
    """Print the figures; True when the slow answers keep both promises."""
    note(f"每 {EVERY * 1000:.0f} 毫秒一条回复，共 {ANSWERS} 条：先在每秒 {RATE} 条的群发当中，")
    note(f"再在 {ROWS} 行不限速地发着的时候")
    tune_interpreter()
    usual, left_usual = trial(CHUNK, THROTTLED)
    waits, left = trial(ROWS, {"memory": ChannelFacts("memory")})
    note(f"结束时还有 {left_usual} 行和 {left} 行排队")
    p95, p99 = usual[len(usual) * 95 // 100], waits[len(waits) * 99 // 100]
    Figure("lanes", "answer_p50_ms", usual[len(usual) // 2], "毫秒").tell()
    Figure("lanes", "answer_p95_ms", p95, "毫秒").tell()
    Figure("lanes", "draining_p50_ms", waits[len(waits) // 2], "毫秒").tell()
    Figure("lanes", "draining_p95_ms", waits[len(waits) * 95 // 100], "毫秒").tell()
    Figure("lanes", "answer_p99_ms", p99, "毫秒").tell()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Figure("lanes", "rss_mb", peak, "MB").tell()
    whole = len(usual) == len(waits) == ANSWERS and left > 0 and left_usual > 0
    return whole and p99 <= MOST_MS and p95 <= MOST_USUAL_MS
