"""PgQueuer in the `delivery` benchmark: `fill DATABASE ROWS`, or `drain DATABASE`.

It may pick rows ahead of its calls as ours does; a semaphore keeps 64 calls in flight.
"""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.tally import IN_FLIGHT, Tally, until_stopped, until_told

PAYLOAD = b"x" * 80
CHUNK = 10_000


async def fill(dsn: str, rows: int) -> None:
    """Queue so many jobs."""
    connection = await asyncpg.connect(dsn)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    for begun in range(0, rows, CHUNK):
        some = min(CHUNK, rows - begun)
        await queries.enqueue(["call"] * some, [PAYLOAD] * some, [0] * some)
    await connection.execute("ANALYZE")
    await connection.close()


async def drain(dsn: str) -> None:
    """Drain until told to stop."""
    tally, slots = Tally(), asyncio.Semaphore(IN_FLIGHT)
    async with asyncpg.create_pool(dsn, min_size=2, max_size=8) as pool:
        pgq = PgQueuer(AsyncpgPoolDriver(pool))

        @pgq.entrypoint("call")
        async def call(_job: Job) -> None:
            async with slots:
                await tally.take()

        await until_told()
        ahead = 3 * IN_FLIGHT
        running = asyncio.create_task(pgq.run(batch_size=IN_FLIGHT, max_concurrent_tasks=ahead))
        await until_stopped(tally)
        tally.tell()
        running.cancel()
        os._exit(0)


if __name__ == "__main__":
    what, address, *size = sys.argv[1:]
    uvloop.run(fill(address, int(size[0])) if what == "fill" else drain(address))
