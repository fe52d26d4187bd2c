"""Watching: what is late is told of once, what is done in time never, in whatever order it ends."""

from __future__ import annotations

import asyncio

import pytest

from bot.watching import Stretches, Watch

pytestmark = pytest.mark.anyio

SOON = 0.02  # seconds


async def test_what_is_late_is_told_of_once_and_what_is_done_never() -> None:
    loop = asyncio.get_running_loop()
    told: list[str] = []
    over: asyncio.Future[None] = loop.create_future()

    def late(name: str) -> None:
        told.append(name)
        if name == "last":
            over.set_result(None)

    watch = Watch(SOON, late)
    futures: dict[str, asyncio.Future[None]] = {}
    for name in ("done before", "late", "done while it waits", "also late", "last"):
        futures[name] = loop.create_future()
        if name == "done before":
            futures[name].set_result(None)
        watch.over(futures[name], name)
    futures["done while it waits"].set_result(None)
    await over
    assert told == ["late", "also late", "last"]


async def test_whoever_comes_after_a_quiet_time_is_watched_too() -> None:
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[int] = asyncio.Queue()
    watch = Watch(SOON, told.put_nowait)
    for number in range(3):
        watch.over(loop.create_future(), number)
        assert await told.get() == number


def test_another_loop_begins_anew() -> None:
    told: list[str] = []
    watch = Watch(SOON, told.append)

    async def leave() -> None:
        watch.over(asyncio.get_running_loop().create_future(), "nobody's any more")

    async def stay() -> None:
        over = asyncio.get_running_loop().create_future()
        watch.over(over, "seen")
        while not told:
            await asyncio.sleep(0)

    asyncio.run(leave())
    asyncio.run(stay())
    assert told == ["seen"]


async def test_a_stretch_that_takes_too_long_ends_and_its_task_goes_on() -> None:
    stretches = Stretches(SOON)
    with pytest.raises(TimeoutError), stretches.begin():
        await asyncio.get_running_loop().create_future()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_stretch_that_is_over_in_time_leaves_its_task_alone() -> None:
    stretches = Stretches(SOON)
    with stretches.begin():
        pass
    later: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(3 * SOON, later.set_result, None)
    await later


async def test_who_cancels_the_task_meanwhile_is_obeyed() -> None:
    stretches = Stretches(60.0)

    async def work() -> None:
        with stretches.begin():
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
