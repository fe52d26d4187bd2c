"""What a draining process and the benchmark that started it tell each other, whoever's it is.

Only the standard library: peers run it in an environment of their own.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CALL = 0.020  # seconds the sink takes
IN_FLIGHT = 64
TELL = 0.25  # seconds between two reports
PAGE_KB = resource.getpagesize() / 1024


@dataclass
class Tally:
    """Takes everything after 20 ms and only counts; times by the machine's monotonic clock."""

    count: int = 0
    ended: float = 0.0
    frozen: bool = False

    async def take(self) -> None:
        """A call, counted."""
        await asyncio.sleep(CALL)
        self.note()

    def note(self) -> None:
        """A call has come back."""
        if not self.frozen:
            self.count += 1
            self.ended = time.monotonic()

    def tell(self) -> None:
        """Print how far it is; the benchmark reads it."""
        row = {"count": self.count, "ended": self.ended, "rss_mb": resident_mb()}
        print(json.dumps(row | {"cpu": time.process_time()}), flush=True)


def resident_mb() -> float:
    """This process's memory now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE_KB / 1024


async def until_stopped(tally: Tally) -> None:
    """Report now and then until the benchmark says stop; what comes after is not counted."""
    stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    while not stop.done():
        tally.tell()
        await asyncio.wait([stop], timeout=TELL)
    tally.frozen = True


async def until_told() -> None:
    """Say that everything is loaded, and wait for the start."""
    print(json.dumps({"ready": time.process_time()}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
