"""How many messages leave in any second when four processes share a lane of thirty a second.

On one PostgreSQL, by the database's clock; a fifth of the calls take a second, as platforms do.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.figures import Figure, note
from bot.context import ChannelFacts
from bot.delivery import Delivery
from bot.messages import Address, Part
from tests.bare import Bare
from tests.postgres import running_server
from tests.world import MemoryChannel

LIMIT = 30  # a second
PROCESSES = 4
ROWS = 600
SECONDS = 60.0  # at most
CHANNELS = {"memory": ChannelFacts("memory", bulk_gap_ms=-(-1000 // LIMIT))}


@dataclass
class Sink(MemoryChannel):
    """Notes when each call began, by the machine's one monotonic clock."""

    began: list[float] = field(default_factory=list)

    async def send(self, address: Address, part: Part, key: str) -> str:
        self.began.append(time.monotonic())
        await asyncio.sleep(1.0 if len(self.began) % 5 == 0 else 0.05)
        return ""


def drain(url: str, report: Connection) -> None:
    """One of the processes: drains until nothing is left."""
    bare, sink = Bare(url, channels=CHANNELS), Sink()

    async def work() -> None:
        delivery = Delivery(bare.services, {"memory": sink}, alone=False)
        running = asyncio.create_task(delivery.run())
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and bare.states() != {"sent": ROWS}:
            await asyncio.sleep(0.5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(work())
    report.send(sink.began)
    bare.close()


def most_in_a_second(moments: list[float]) -> int:
    """The fullest second that begins with any of the moments."""
    window: deque[float] = deque()
    most = 0
    for moment in sorted(moments):
        window.append(moment)
        while window[0] <= moment - 1.0:
            window.popleft()
        most = max(most, len(window))
    return most


def main() -> bool:
    """Print the figure; True when no second held more than the limit and one."""
    note(f"{PROCESSES} 个进程共用一条每秒 {LIMIT} 条的通道，{ROWS} 条")
    context = multiprocessing.get_context("spawn")
    with running_server() as server:
        url = server.url(server.create())
        bare = Bare(url, channels=CHANNELS)
        bare.rows(ROWS)
        pipes = [context.Pipe() for _ in range(PROCESSES)]
        processes = [context.Process(target=drain, args=(url, theirs)) for _ours, theirs in pipes]
        for process in processes:
            process.start()
        moments = [moment for ours, _theirs in pipes for moment in ours.recv()]
        for process in processes:
            process.join()
        states = bare.states()
        bare.close()
    most = most_in_a_second(moments)
    note(f"用了 {max(moments) - min(moments):.1f} 秒，状态 {states}")
    Figure("limits", "max_in_any_second", most, "条", "limit", most / LIMIT).tell()
    return most <= LIMIT + 1 and states == {"sent": ROWS} and len(moments) == ROWS
