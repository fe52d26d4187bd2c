"""A platform out of order: nothing is burnt, one row tries at a time, people hear of it once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from bot.breaker import FAILURES
from bot.context import outbox_row
from bot.delivery import Delivery
from bot.errors import SendError
from bot.messages import Address, Part, say
from handlers.purposes import DUTY
from storage import mailbox
from storage.db import Database
from tests.bare import Bare
from tests.people import who
from tests.world import MemoryChannel, World

SLOTS = 4


@dataclass
class Platform(MemoryChannel):
    """Says nothing while it is out of order."""

    trouble: SendError | None = None
    calls: int = 0

    async def send(self, address: Address, part: Part, key: str) -> str:
        self.calls += 1
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        return await super().send(address, part, key)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    made = Bare(f"sqlite:///{tmp_path}/bare.db")
    made.rows(40)
    yield made
    made.close()


def delivery(bare: Bare, platform: Platform) -> Delivery:
    return Delivery(bare.services, {"memory": platform}, alone=True, in_flight=SLOTS)


def drain(delivery: Delivery) -> None:
    asyncio.run(delivery.until_idle())


def wait_for_probe(database: Database) -> None:
    """Let the time until the next try be over."""
    with database.transaction() as connection:
        connection.execute(text("UPDATE lane SET blocked_until = 0"))


def test_a_silent_platform_is_left_alone_and_no_row_is_burnt(bare: Bare) -> None:
    platform = Platform(trouble=SendError("server_error"))
    worker = delivery(bare, platform)
    drain(worker)
    called = platform.calls
    assert FAILURES <= called < FAILURES + SLOTS
    assert sum(row.attempts for row in bare.all()) < FAILURES
    assert bare.states() == {"queued": 40}
    drain(worker)
    assert platform.calls == called


def test_one_row_at_a_time_tries_and_none_of_its_tries_counts(bare: Bare) -> None:
    platform = Platform(trouble=SendError("no_connection"))
    worker = delivery(bare, platform)
    drain(worker)
    called, tried = platform.calls, [row.attempts for row in bare.all()]
    for _ in range(3):
        wait_for_probe(bare.database)
        drain(worker)
    assert platform.calls == called + 3
    assert [row.attempts for row in bare.all()] == tried


def test_another_process_tries_too_and_goes_on_when_it_works(bare: Bare) -> None:
    platform = Platform(trouble=SendError("server_error"))
    drain(delivery(bare, platform))
    wait_for_probe(bare.database)
    platform.trouble = None
    bare.clock.advance(minutes=1)
    drain(delivery(bare, platform))
    assert bare.states() == {"sent": 40}


@pytest.mark.parametrize(
    "answer", [SendError("too_long", permanent=True), SendError("window"), SendError("busy")]
)
def test_what_a_platform_says_of_a_message_breaks_nothing_off(
    bare: Bare, answer: SendError
) -> None:
    # The last of them says nothing, but not often enough.
    platform = Platform(failures=[answer] * (FAILURES - 1))
    drain(delivery(bare, platform))
    assert len(platform.sent) == 40 - (FAILURES - 1)


def test_an_hour_of_trouble_makes_one_alarm_and_one_all_clear(world: World) -> None:
    for role in ("admin", "coordinator"):
        world.grant("小王", role)
    for name in ("小王", who(0)):
        world.says(name, "菜单")
    member = world.person(who(0))
    world.news("小王")
    with world.database.session() as session:
        rows = [
            outbox_row(
                world.app.services,
                session,
                member,
                say("在吗"),
                occasion=f"owed:{number}",
                purpose=DUTY,
                now=world.clock.now(),
            )
            for number in range(FAILURES + 2)
        ]
        mailbox.enqueue(session.connection(), [row for row in rows if row is not None])
    # The last two rows had passed the gate when the channel was broken off; they never call.
    world.fails_next(*[SendError("server_error") for _ in range(FAILURES + 4)])
    for _ in range(5):
        wait_for_probe(world.database)
        world.drain()
        world.clock.advance(minutes=10)
    told = world.news("小王")
    assert [text for text in told if "恢复" in text or "已停下" in text] == [
        f"memory自2026-03-12 10:00起连续{FAILURES}条发不出去，已停下等着；"
        "每隔一会儿试一条，通了自己接着发。",
        "memory已于2026-03-12 10:30恢复，没发完的接着发。",
    ]
    assert len(world.received(who(0))) == FAILURES + 2
