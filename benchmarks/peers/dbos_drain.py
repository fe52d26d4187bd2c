"""DBOS in the `delivery` benchmark: `fill DATABASE ROWS`, or `drain DATABASE`.

A row is a workflow of one step, which is what makes a call durable there.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions
from sqlalchemy import create_engine

from benchmarks.peers.tally import IN_FLIGHT, Tally, until_stopped, until_told

VERSION = "1"
PAYLOAD = "x" * 80
tally = Tally()


@DBOS.step()
async def send(text: str) -> None:
    """The call."""
    await tally.take()


@DBOS.workflow()
async def call(text: str) -> None:
    """One job."""
    await send(text)


def start(url: str) -> None:
    """The library, told where its tables are."""
    DBOS(
        config=DBOSConfig(
            name="bench",
            system_database_url=url,
            application_version=VERSION,
            executor_id=uuid.uuid4().hex,
            log_level="ERROR",
        )
    )
    DBOS.launch()


def fill(url: str, rows: int) -> None:
    """Queue so many jobs."""
    start(url)
    DBOS.destroy()
    client = DBOSClient(system_database_url=url)
    options = EnqueueOptions(queue_name="calls", workflow_name="call", app_version=VERSION)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection:
        for _row in range(rows):
            client.enqueue_in_transaction(connection, options, PAYLOAD)


async def drain(url: str) -> None:
    """Drain until told to stop."""
    await asyncio.to_thread(start, url)
    await until_told()
    await DBOS.register_queue_async(
        "calls", worker_concurrency=IN_FLIGHT, polling_interval_sec=0.05
    )
    await until_stopped(tally)
    tally.tell()
    os._exit(0)


if __name__ == "__main__":
    what, address, *size = sys.argv[1:]
    if what == "fill":
        fill(address, int(size[0]))
    else:
        asyncio.run(drain(address))
