"""Run the emulators as a process of their own: `python -m tests.emulators --port 0`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys

from bot.clock import SystemClock
from tests.emulators.clock import VirtualClock
from tests.emulators.server import Platforms
from tests.emulators.telegram import Rules, Telegram


async def run(port: int, rate: float, unlimited: bool) -> None:
    """Serve on 127.0.0.1; the first line printed is JSON with the port and the URL."""
    clock = VirtualClock(SystemClock().now(), rate=rate)
    rules = Rules(per_chat=None, per_group=None, overall=None) if unlimited else Rules()
    async with Platforms(clock, telegram=Telegram(clock, rules=rules), port=port) as platforms:
        line = {"port": int(platforms.url.rsplit(":", 1)[1]), "url": platforms.url}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await platforms.serve_for_ever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.emulators", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--rate", type=float, default=1.0, help="virtual seconds per real one")
    parser.add_argument("--unlimited", action="store_true", help="no 429 from Telegram")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(given.port, given.rate, given.unlimited))


if __name__ == "__main__":
    main()
