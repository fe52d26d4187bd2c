"""How soon an answer leaves while 100,000 rows drain unthrottled: from its commit to its call."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from dataclasses import dataclass, field

import uvloop

from benchmarks.figures import Figure, note
from bot.app import tune_interpreter
from bot.context import new_row
from bot.delivery import Delivery
from bot.messages import Address, Part
from storage import mailbox
from tests.bare import NOON, Bare
from tests.world import MemoryChannel

ROWS = 100_000
CHUNK = 5_000
CALL = 0.020  # seconds the sink takes
ANSWERS = 400
EVERY = 0.05  # seconds between two answers: a busy office
MOST_MS = 200.0


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


def main() -> bool:
    """Print the figures; True when the slowest hundredth keeps the promise."""
    note(f"{ROWS} 行不限速地发着，其间每 {EVERY * 1000:.0f} 毫秒一条回复，共 {ANSWERS} 条")
    tune_interpreter()
    with tempfile.TemporaryDirectory() as folder:
        bare, sink = Bare(f"sqlite:///{folder}/lanes.db"), Sink()
        bare.lane("memory:live")
        bare.lane()
        for first in range(0, ROWS, CHUNK):
            fill(bare, first)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            waits = runner.run(measured(bare, sink))
        with bare.database.engine.connect() as connection:
            left = sum(mailbox.owed(connection, NOON).values())
        bare.close()
    note(f"结束时还有 {left} 行排队")
    Figure("lanes", "answer_p50_ms", waits[len(waits) // 2], "毫秒").tell()
    Figure("lanes", "answer_p95_ms", waits[len(waits) * 95 // 100], "毫秒").tell()
    p99 = waits[len(waits) * 99 // 100]
    Figure("lanes", "answer_p99_ms", p99, "毫秒").tell()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Figure("lanes", "rss_mb", peak, "MB").tell()
    return p99 <= MOST_MS and left > 0 and len(waits) == ANSWERS
