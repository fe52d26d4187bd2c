"""One delivery process of the `delivery` benchmark: the product's own loop and storage.

Started as `python -m benchmarks.drain DATABASE [SECONDS] [PLATFORM]`: drains into a sink that takes
so long for a call, or through the real Telegram channel to the emulated platform at that address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import uvloop
from sqlalchemy import text

from benchmarks.peers.tally import CALL, Tally, until_stopped, until_told
from bot.app import build_channels, tune_interpreter
from bot.catalog import Catalog
from bot.channels.base import Attached, Channel, Paced
from bot.clock import SystemClock
from bot.context import ChannelFacts, Services
from bot.delivery import Delivery
from bot.messages import Address, Part
from bot.settings import demo_settings
from handlers.place import PLACES
from handlers.roles import POLICY
from storage.columns import KeyRing, to_millis
from storage.db import Database
from storage.lanes import ensure_lane
from tests.world import MemoryChannel

KEYS = "k1:0123456789abcdef0123456789abcdef"
TOKEN = "4200:" + "k" * 35
FIRST_CHAT = 1_000_000
BODY = '[{"t":"您好，中秋将至，家乡的白桦黄了。道一声平安，盼您得空回来看看。"}]'

# Written by the database, so that nobody holds the rows; every column that has no default of its
# own. All have the same sealed words: opening them costs what it always costs.
_FILL = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)
INSERT INTO outbox (occasion, recipient, address, purpose, lane, windowed, repeatable, state,
    reason, not_before, attempts, parts_sent, owner, body, body_hash, provider_id, created_at)
SELECT 'letter', 'x' || n, :stem || (:first + n), 'answer', :lane, false, false, 'queued',
    '', :now, 0, 0, '', :body, '', '', :now FROM numbers
"""


@dataclass
class Counting:
    """A channel through which every call is counted."""

    channel: Any
    tally: Tally

    def __getattr__(self, name: str) -> Any:
        return getattr(self.channel, name)

    async def send(self, address: Address, part: Part, key: str) -> Any:
        """Carry it, and count it."""
        sent = await self.channel.send(address, part, key)
        self.tally.note()
        return sent


class CountingInTurn(Counting):
    """A channel that takes its chats' turns as rows pass the gate."""

    async def send_in_turn(self, address: Address, part: Part, key: str) -> Any:
        """Carry it, and count it."""
        sent = await self.channel.send_in_turn(address, part, key)
        self.tally.note()
        return sent


@dataclass
class Sink(MemoryChannel):
    """Takes everything after a while and keeps nothing."""

    seconds: float = CALL

    async def send(self, address: Address, part: Part, key: str) -> str:
        """Wait."""
        await asyncio.sleep(self.seconds)
        return ""


def telegram(platform: str) -> tuple[Channel, Mapping[str, ChannelFacts]]:
    """The real channel, with no pace but the emulator's."""
    settings = demo_settings(
        channels="telegram",
        telegram_token=TOKEN,
        telegram_api_base=platform,
        telegram_policy="full",
    )
    channel = build_channels(settings, SystemClock())["telegram"]
    return channel, {"telegram": replace(channel.facts, live_gap_ms=0, bulk_gap_ms=0)}


def services(url: str, channels: Mapping[str, ChannelFacts]) -> Services:
    """An installation with nothing declared in it, on tables that are there."""
    settings = demo_settings(database_url=url)
    nothing = Catalog({}, {}, POLICY, PLACES)
    database = Database(url, KeyRing(KEYS))
    place = PLACES.load("huolingol", {})
    return Services(database, SystemClock(), settings, nothing, place, channels)


def fill(url: str, rows: int, channel: str = "memory") -> None:
    """Make the tables, and queue so many messages to as many strangers."""
    database = Database(url, KeyRing(KEYS))
    database.migrate()
    with database.transaction() as connection:
        ensure_lane(connection, f"{channel}:bulk", 9)
        words = {
            "rows": rows,
            "stem": f"{channel}:{TOKEN.partition(':')[0]}:",
            "first": FIRST_CHAT,
            "lane": f"{channel}:bulk",
            "now": to_millis(SystemClock().now()),
            "body": database.keys.seal(BODY),
        }
        connection.execute(text(_FILL), words)
    with database.transaction() as connection:
        connection.execute(text("ANALYZE"))
    database.close()


async def drain(url: str, seconds: float, platform: str, tally: Tally) -> dict[str, int]:
    """Drain until told to stop; returns how many transactions it took."""
    channel: Channel = Sink(seconds=seconds)
    facts: Mapping[str, ChannelFacts] = {"memory": channel.facts}
    if platform:
        channel, facts = telegram(platform)
    mine = services(url, facts)
    if isinstance(channel, Attached):
        channel.attach(mine)
    counting: Any = (CountingInTurn if isinstance(channel, Paced) else Counting)(channel, tally)
    delivery = Delivery(mine, {channel.facts.name: counting}, alone=mine.database.sqlite)
    tune_interpreter()
    await until_told()
    before = mine.database.commits
    running = asyncio.create_task(delivery.run())
    await until_stopped(tally)
    tally.tell()
    commits = mine.database.commits - before
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await channel.close()
    mine.database.close()
    return {"commits": commits}


def main(url: str, seconds: str = str(CALL), platform: str = "") -> None:
    """Run it, and tell the end."""
    tally = Tally()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(drain(url, float(seconds), platform, tally))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
