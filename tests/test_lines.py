"""Calls under way: so many at once, each address in its order, and none forgotten."""

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from bot.lines import MOST_LEAD, Lines
from bot.wording import Ready
from storage.claims import Claimed
from storage.gate import Outcome
from storage.states import State

pytestmark = pytest.mark.anyio


def to(address: str, id: int) -> Ready:
    row = Claimed(
        id, "letter", None, None, address, "answer", "memory:bulk", False, False, 0, 0, b"", None
    )
    return Ready(row, (), "", 0.0)


@dataclass
class Desk:
    """What calls the lines: every call lasts until it is told to end."""

    most: int = 2
    begun: list[int] = field(default_factory=list)
    ended: list[tuple[int, bool]] = field(default_factory=list)
    """Each row, and whether it has left."""
    calls: dict[int, asyncio.Future[bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lines = Lines(self.most, self.call, self.end)

    async def call(self, ready: Ready) -> Outcome | None:
        self.begun.append(ready.row.id)
        self.calls[ready.row.id] = asyncio.get_running_loop().create_future()
        left = await self.calls[ready.row.id]
        return Outcome(ready.row.id, State.SENT) if left else None

    def end(self, ready: Ready, outcome: Outcome | None) -> None:
        self.ended.append((ready.row.id, outcome is not None))

    async def hand_in(self, *users: str) -> None:
        """Give them a row to each, numbered from 1."""
        for id, user in enumerate(users, 1):
            self.lines.take(to(f"memory:a:{user}", id))
        await settled()

    async def hang_up(self, id: int, *, left: bool = True) -> None:
        """Let a call end."""
        self.calls.pop(id).set_result(left)
        await settled()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr("bot.lines.monotonic", lambda: clock[0])
    return clock


async def test_the_first_that_waits_is_called_when_a_call_ends() -> None:
    desk = Desk(most=2)
    await desk.hand_in("v", "w", "x", "y", "z")
    assert desk.begun == [1, 2]
    await desk.hang_up(2)
    assert desk.begun == [1, 2, 3]
    await desk.hang_up(1)
    assert desk.begun == [1, 2, 3, 4]
    assert len(desk.lines) == 3


async def test_two_to_one_address_leave_one_after_the_other_and_block_nobody() -> None:
    desk = Desk(most=2)
    await desk.hand_in("x", "x", "x", "y")
    assert desk.begun == [1, 4]
    await desk.hang_up(1)
    assert desk.begun == [1, 4, 2]
    await desk.hang_up(2)
    assert desk.begun == [1, 4, 2, 3]


async def test_what_follows_what_has_not_left_stays_too() -> None:
    desk = Desk(most=2)
    await desk.hand_in("x", "x", "x")
    await desk.hang_up(1, left=False)
    assert desk.begun == [1]
    assert desk.ended == [(1, False), (2, False), (3, False)]
    assert len(desk.lines) == 0
    # Its address is free again.
    desk.lines.take(to("memory:a:x", 4))
    await settled()
    assert desk.begun == [1, 4]


async def test_what_finds_no_line_for_long_does_not_leave(now: list[float]) -> None:
    desk = Desk(most=1)
    await desk.hand_in("x", "y", "y")
    now[0] += MOST_LEAD
    desk.lines.give_up_waiting()
    assert desk.ended == []
    now[0] += 0.001
    desk.lines.give_up_waiting()
    assert desk.ended == [(2, False), (3, False)]
    assert len(desk.lines) == 1


async def test_nor_when_the_line_becomes_free_too_late(now: list[float]) -> None:
    desk = Desk(most=1)
    await desk.hand_in("x", "y")
    now[0] += 5.0
    await desk.hang_up(1)
    assert desk.begun == [1]
    assert desk.ended == [(1, True), (2, False)]


async def test_who_follows_at_an_address_waits_behind_the_others() -> None:
    desk = Desk(most=1)
    await desk.hand_in("x", "x", "y")
    await desk.hang_up(1)
    assert desk.begun == [1, 3]
    await desk.hang_up(3)
    assert desk.begun == [1, 3, 2]


async def test_what_waits_for_its_address_and_not_for_a_line_may_wait(now: list[float]) -> None:
    desk = Desk(most=2)
    await desk.hand_in("x", "x")
    now[0] += 30.0
    assert desk.lines.oldest(now[0]) == 30.0
    desk.lines.give_up_waiting()
    await desk.hang_up(1)
    assert desk.begun == [1, 2]
    assert desk.lines.oldest(now[0]) == 0.0
    assert desk.lines.usual.seconds == 30.0


async def test_what_comes_just_as_the_last_line_closes_is_called() -> None:
    begun: list[int] = []

    async def call(ready: Ready) -> Outcome:
        begun.append(ready.row.id)
        return Outcome(ready.row.id, State.SENT)

    def ended(ready: Ready, outcome: Outcome | None) -> None:
        if ready.row.id < 5:
            id = ready.row.id + 1
            asyncio.get_running_loop().call_soon(lines.take, to(f"memory:a:{id}", id))

    lines = Lines(1, call, ended)
    lines.take(to("memory:a:1", 1))
    await settled()
    assert begun == [1, 2, 3, 4, 5]


async def test_a_row_that_is_here_already_is_not_called_twice() -> None:
    """It was taken from us and is ours again, while its first call lasts."""
    desk = Desk()
    desk.lines.take(to("memory:a:x", 1))
    await settled()
    desk.lines.take(to("memory:a:x", 1))
    desk.lines.take(to("memory:a:x", 2))
    await desk.hang_up(1)
    await desk.hang_up(2)
    assert desk.begun == [1, 2]
    assert desk.ended == [(1, True), (2, True)]
    assert len(desk.lines) == 0


async def test_a_call_that_breaks_takes_its_line_and_its_address_with_it_only_once() -> None:
    desk = Desk(most=1)
    await desk.hand_in("x", "x")
    desk.calls[1].cancel()
    await settled()
    assert desk.ended == [(2, False)]
    desk.lines.take(to("memory:a:x", 3))
    await settled()
    assert desk.begun == [1, 3]
    assert len(desk.lines) == 1


async def test_when_time_is_up_nothing_more_leaves() -> None:
    desk = Desk(most=1)
    await desk.hand_in("x", "x", "y")
    await desk.lines.finish(0.01)
    assert sorted(desk.ended) == [(2, False), (3, False)]
    await desk.hang_up(1)
    assert desk.begun == [1]
    assert desk.ended[-1] == (1, True)


async def test_finishing_waits_for_calls_but_not_for_ever(now: list[float]) -> None:
    desk = Desk(most=1)
    await desk.hand_in("x", "y")
    now[0] += 1.0
    await desk.lines.finish(0.01)
    assert desk.ended == [(2, False)]
    await desk.hang_up(1)
    await desk.lines.finish(10.0)
    assert desk.ended == [(2, False), (1, True)]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_the_order_each_row_ends_once(seed: int) -> None:
    """Calls that end at once, later, or not having left, while others come."""
    chance = random.Random(seed)  # noqa: S311  # to be repeatable
    under_way: dict[str, int] = defaultdict(int)
    begun: dict[str, list[int]] = defaultdict(list)
    ended: list[int] = []
    most = 3

    async def call(ready: Ready) -> Outcome | None:
        address = ready.row.address
        under_way[address] += 1
        assert under_way[address] == 1
        assert sum(under_way.values()) <= most
        begun[address].append(ready.row.id)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        under_way[address] -= 1
        return None if chance.random() < 0.1 else Outcome(ready.row.id, State.SENT)

    lines = Lines(most, call, lambda ready, outcome: ended.append(ready.row.id))
    for id in range(200):
        lines.take(to(f"memory:a:{chance.randrange(5)}", id))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    await lines.finish(10.0)
    assert sorted(ended) == list(range(200))
    assert all(ids == sorted(ids) for ids in begun.values())
    assert len(lines) == 0
