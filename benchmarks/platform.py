"""An emulated Telegram in a process of its own: `python -m benchmarks.platform CHATS`.

Prints its address, and ends when its input is closed.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.drain import FIRST_CHAT, TOKEN
from bot.clock import SystemClock
from tests.emulators.clock import VirtualClock
from tests.emulators.server import Platforms
from tests.emulators.telegram import Rules, Telegram


async def serve(chats: int) -> None:
    """So many people who have pressed START, and a bot that no limit holds."""
    clock = VirtualClock(SystemClock().now(), rate=1)
    emulator = Telegram(clock, token=TOKEN, rules=Rules(None, None, None))
    for chat in range(FIRST_CHAT, FIRST_CHAT + chats + 1):
        emulator.person(chat, "乡亲")
        emulator.start(chat)
    async with Platforms(clock, telegram=emulator) as platforms:
        print(platforms.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
