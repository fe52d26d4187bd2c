"""The emulators as other processes see them, and the clock they share."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from tests.emulators.clock import VirtualClock
from tests.emulators.conftest import Client, Product
from tests.emulators.server import START, Platforms

pytestmark = pytest.mark.anyio


async def test_time_passes_only_when_told_and_stops_at_each_waiter() -> None:
    clock = VirtualClock(START)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.wait(seconds)
        woken.append((name, clock.timestamp() - START.timestamp()))

    sleepers = [asyncio.create_task(sleeper(*who)) for who in (("b", 5.0), ("a", 2.0), ("c", 60.0))]
    await clock.advance(10)
    assert woken == [("a", 2.0), ("b", 5.0)]
    await clock.advance(hours=1)
    await asyncio.gather(*sleepers)
    assert clock.now() == START + timedelta(hours=1, seconds=10)


async def test_a_running_clock_wakes_its_waiters_by_itself() -> None:
    clock = VirtualClock(START, rate=10_000)
    await clock.wait(100)
    assert clock.now() >= START + timedelta(seconds=100)


async def test_other_processes_play_the_members(
    platforms: Platforms, product: Product, client: Client
) -> None:
    await client.control("wechat", "follow", openid="oWang")
    push = await client.control("wechat", "say", openid="oWang", text="登记")
    await client.control("clock", "advance", hours=48)
    code = await client.send_text("oWang", "信")
    lines = await client.control("wechat", "transcript", openid="oWang")
    counters = await client.control("wechat", "counters")
    assert [attempt["status"] for attempt in push["tries"]] == [200]
    assert (code, lines[-1]["text"]) == (45015, "登记")
    assert counters["cgi-bin/message/custom/send"] == 1


@pytest.mark.parametrize(
    ("emulator", "verb", "status"),
    [
        ("wechat", "close", 404),
        ("wechat", "nothing", 404),
        ("nobody", "say", 404),
        ("wechat", "say", 400),
        ("telegram", "press", 400),
    ],
)
async def test_only_what_is_meant_for_it_can_be_controlled(
    client: Client, emulator: str, verb: str, status: int
) -> None:
    url = f"{client.platforms.url}/control/{emulator}/{verb}"
    async with client.session.post(url, json={}) as response:
        assert response.status == status


async def test_a_process_of_its_own_prints_its_port_and_serves() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.emulators", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        address = json.loads(await process.stdout.readline())
        async with aiohttp.ClientSession() as session:
            url = f"{address['url']}/control/telegram/person"
            async with session.post(url, json={"id": 7, "name": "王小雁"}) as response:
                assert await response.json() == {"result": 7}
    finally:
        process.terminate()
        await process.wait()
