"""Procrastinate in the `delivery` benchmark: `fill DATABASE ROWS`, or `drain DATABASE`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import uvloop
from procrastinate import App, PsycopgConnector

from benchmarks.peers.tally import IN_FLIGHT, Tally, until_stopped, until_told

PAYLOAD = "x" * 80
CHUNK = 1_000
logging.disable(logging.WARNING)
tally = Tally()
app = App(connector=PsycopgConnector(conninfo=sys.argv[2], min_size=4, max_size=16))


@app.task(name="call")
async def call(text: str) -> None:
    """One job."""
    await tally.take()


async def fill(rows: int) -> None:
    """Queue so many jobs."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for begun in range(0, rows, CHUNK):
            some = min(CHUNK, rows - begun)
            await call.batch_defer_async(*({"text": PAYLOAD} for _ in range(some)))


async def drain() -> None:
    """Drain until told to stop."""
    async with app.open_async():
        await until_told()
        running = asyncio.create_task(
            app.run_worker_async(concurrency=IN_FLIGHT, install_signal_handlers=False)
        )
        await until_stopped(tally)
        tally.tell()
        running.cancel()
        os._exit(0)


if __name__ == "__main__":
    uvloop.run(fill(int(sys.argv[3])) if sys.argv[1] == "fill" else drain())
