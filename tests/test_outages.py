"""A database that goes away, hangs, fills up or is cut off mid-word loses and doubles nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, make_url, select
from sqlalchemy.exc import DBAPIError

from bot.app import App, services_for
from bot.clock import MovableClock, SystemClock
from bot.commands import command
from bot.context import ChannelFacts, Context
from bot.delivery import Delivery
from bot.messages import Address, Inbound, Part, Reply, say
from bot.settings import demo_settings
from bot.spool import Spool
from storage import claims, leases
from storage.db import Database
from storage.driver import database_millis
from storage.mailbox import Inbox
from storage.sequences import next_number
from tests.bare import NOON, Bare
from tests.channels.harness import catalog
from tests.cutting import Door
from tests.laying import lay_tables
from tests.postgres import Server
from tests.world import KEYS, MemoryChannel

HASTY = ChannelFacts("memory", inline=1, gives_up=True)
PATIENT = ChannelFacts("patient", inline=1)


@command("记", help="记一次")
def counted(context: Context, _argument: str) -> Reply:
    """Writes, so that a second time would show."""
    return say(f"第{next_number(context.session, 'times')}次")


@pytest.fixture
def door(postgres_server: Server) -> Iterator[Door]:
    with Door(postgres_server.socket_folder) as made:
        yield made


def installation(url: str, folder: Path) -> App:
    facts = {"memory": HASTY, "patient": PATIENT}
    services = services_for(
        demo_settings(database_url=url),
        facts,
        keys=KEYS,
        clock=SystemClock(),
        catalog=catalog(counted),
    )
    channels = {name: MemoryChannel(fact) for name, fact in facts.items()}
    return App(
        services,
        channels,
        alone=services.database.sqlite,
        spool=Spool(folder / "spool", services.keys),
    )


def said(number: int, who: str = "wang", channel: str = "memory") -> Inbound:
    return Inbound(f"{number}", Address(channel, "t", who), "记", SystemClock().now())


@asynccontextmanager
async def living(app: App) -> AsyncIterator[MemoryChannel]:
    """The whole of it, web and worker; yields the channel on which answers leave."""
    async with app.running():
        channel = app.channels["memory"]
        assert isinstance(channel, MemoryChannel)
        yield channel
    app.close()


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture
def away(postgres_server: Server, postgres_url: str, door: Door, tmp_path: Path) -> App:
    """An installation behind the door, with its tables."""
    app = installation(door.url(make_url(postgres_url).database or ""), tmp_path)
    lay_tables(app.services.database)
    return app


@pytest.mark.anyio
async def test_what_is_said_during_an_outage_is_answered_after_it_in_order_and_once(
    away: App, door: Door
) -> None:
    async with living(away) as channel:
        assert [p.text for p in await away.receive(said(1), 5)] == ["第1次"]
        door.shut()
        # The platform is told that we have it; its answer comes when there is one.
        for number in (2, 3, 3, 4):
            assert await away.receive(said(number), 5) == ()
        with pytest.raises(DBAPIError):
            await away.receive(said(9, channel="patient"), 5)
        assert away.spool is not None
        assert away.spool.depth == 4
        door.open()
        await until(lambda: len(channel.sent) == 3)
        assert [part.text for _address, part in channel.sent] == ["第2次", "第3次", "第4次"]
        await until(lambda: away.spool is not None and away.spool.depth == 0)
        assert [p.text for p in await away.receive(said(5), 5)] == ["第5次"]


@pytest.mark.anyio
async def test_a_process_killed_during_an_outage_leaves_what_it_was_told_to_the_next(
    away: App, door: Door, tmp_path: Path
) -> None:
    async with away.running(roles=("web",)):
        door.shut()
        for number in (1, 2):
            assert await away.receive(said(number), 5) == ()
    away.close()
    heir = installation(str(away.services.database.url), tmp_path)
    async with living(heir) as channel:
        assert heir.spool is not None
        assert heir.spool.depth == 2
        assert await heir.receive(said(3), 5) == ()
        door.open()
        await until(lambda: len(channel.sent) == 3)
        assert [part.text for _address, part in channel.sent] == ["第1次", "第2次", "第3次"]
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.anyio
async def test_a_database_that_hangs_leaves_no_message_without_a_place(
    away: App, door: Door
) -> None:
    async with living(away) as channel:
        await away.receive(said(1), 5)
        door.jam()
        with pytest.raises(TimeoutError):
            await away.receive(said(2), 0.2)
        assert away.spool is not None
        assert away.spool.depth == 1
        door.open()
        await until(lambda: len(channel.sent) == 1)
        assert [part.text for _address, part in channel.sent] == ["第2次"]
        assert [p.text for p in await away.receive(said(3), 5)] == ["第3次"]


def test_a_connection_cut_at_any_byte_loses_and_doubles_no_message(away: App, door: Door) -> None:
    def hear(number: int) -> None:
        parts = away.dispatcher.handle(said(number))
        assert [part.text for part in parts] == [f"第{number + 1}次"]

    number = door.cut_everywhere(hear)
    assert door.cuts > 15
    door.open()
    with away.services.database.reading() as session:
        assert len(session.execute(select(Inbox)).all()) == number + 1
    away.close()


@pytest.mark.anyio
async def test_a_connection_cut_at_any_byte_loses_and_doubles_no_row(
    postgres_url: str, door: Door
) -> None:
    bare = Bare(postgres_url)
    bare.lane()
    channel = MemoryChannel()
    behind = Database(door.url(make_url(postgres_url).database or ""), bare.database.keys)
    services = replace(bare.services, database=behind)
    delivery = Delivery(services, {"memory": channel}, alone=False)
    running = asyncio.create_task(delivery.run())
    try:
        for number, (at, down) in enumerate([(150, False), (2500, False), (40, True), (700, True)]):
            bare.rows(8, occasion=f"o{number}")
            door.cut(at, down=down)
            delivery.wake()
            await until(lambda: set(bare.states()) == {"sent"})
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        behind.close()
    bare.close()
    assert len(channel.sent) == 32


def test_a_full_disk_is_said_and_got_over_without_a_restart(
    tmp_path: Path, logged: list[str]
) -> None:
    app = installation(f"sqlite:///{tmp_path}/bot.db", tmp_path)
    lay_tables(app.services.database)
    disk = Disk(app.services.database)
    number, answers = 0, []
    app.dispatcher.handle(said(0))
    disk.full = True
    while app.spool is not None and not app.spool.depth:
        number += 1
        answers.append(app.dispatcher.handle(said(number, who=f"w{number}")))
        assert number < 500
    assert answers[-1] == ()
    assert any("database_away" in line for line in logged)
    disk.full = False

    async def again() -> list[tuple[Address, Part]]:
        async with living(app) as channel:
            await until(lambda: len(channel.sent) == 1)
            return channel.sent

    sent = asyncio.run(again())
    assert [part.text for _address, part in sent] == [f"第{number + 1}次"]


class Disk:
    """Where a SQLite file lies; `full`: it may not have a page more than it has."""

    def __init__(self, database: Database) -> None:
        self.full = False
        event.listen(database.engine, "begin", self._limit)

    def _limit(self, connection: Connection) -> None:
        pages = 1 if self.full else 1_000_000
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


@pytest.mark.anyio
async def test_a_disk_that_fills_up_in_mid_delivery_loses_and_doubles_nothing(
    tmp_path: Path, logged: list[str]
) -> None:
    bare = Bare(f"sqlite:///{tmp_path}/bare.db")
    bare.lane()
    bare.rows(600)
    disk, channel = Disk(bare.database), Slow()
    running = asyncio.create_task(Delivery(bare.services, {"memory": channel}, alone=True).run())
    await until(lambda: bool(channel.sent))
    disk.full = True
    await until(lambda: any("_failed" in line for line in logged))
    disk.full = False
    await until(lambda: set(bare.states()) == {"sent"})
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    bare.close()
    assert len({address for address, _part in channel.sent}) == len(channel.sent) == 600


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_a_day_sends_nothing_twice_or_early_and_loses_nothing(
    tmp_path: Path, days: int
) -> None:
    bare = Bare(f"sqlite:///{tmp_path}/bare.db")
    bare.lane()
    bare.rows(40)
    channel = Jumping(clock=bare.clock, days=days)
    asyncio.run(Delivery(bare.services, {"memory": channel}, alone=True, in_flight=8).until_idle())
    bare.clock.set(NOON)
    bare.rows(1, occasion="later", not_before=NOON + timedelta(minutes=1))
    asyncio.run(Delivery(bare.services, {"memory": channel}, alone=True).until_idle())
    assert bare.states() == {"sent": 40, "queued": 1}
    assert len({address for address, _part in channel.sent}) == len(channel.sent) == 40
    bare.close()


@dataclass
class Jumping(MemoryChannel):
    """After ten messages it is suddenly another day."""

    clock: MovableClock = field(default_factory=lambda: MovableClock(NOON))
    days: int = 0

    async def send(self, address: Address, part: Part, key: str) -> str:
        if len(self.sent) == 10:
            self.clock.set(NOON + timedelta(days=self.days))
        return await super().send(address, part, key)


@pytest.mark.anyio
async def test_a_worker_frozen_past_its_lease_doubles_nothing_and_leaves_no_doubt(
    postgres_url: str,
) -> None:
    """Its loop stands still in mid-call, as under SIGSTOP, while another takes over."""
    bare = Bare(postgres_url)
    bare.lane()
    bare.rows(120)
    channel = Freezing(freeze=lambda: _meanwhile(bare, channel))
    frozen = Delivery(bare.services, {"memory": channel}, alone=False, in_flight=8, ttl=TTL)
    running = asyncio.create_task(frozen.run())
    await until(lambda: set(bare.states()) == {"sent"}, 30)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert channel.doubted > 0
    assert len({address for address, _part in channel.sent}) == len(channel.sent) == 120
    bare.close()


TTL = timedelta(seconds=1)


@dataclass
class Freezing(MemoryChannel):
    """Its twentieth call blocks the loop; `doubted` rows are unknown when it goes on."""

    freeze: Callable[[], int] = field(default=lambda: 0)
    doubted: int = 0

    async def send(self, address: Address, part: Part, key: str) -> str:
        sent = await super().send(address, part, key)
        if len(self.sent) == 20:
            self.doubted = self.freeze()
        await asyncio.sleep(0)
        return sent


def _meanwhile(bare: Bare, channel: MemoryChannel) -> int:
    heir = threading.Thread(target=lambda: asyncio.run(_takes_over(bare, channel)))
    heir.start()
    heir.join()
    return bare.states().get("unknown", 0)


async def _takes_over(bare: Bare, channel: MemoryChannel) -> None:
    def silent() -> bool:
        with bare.database.engine.connect() as connection:
            deadline = database_millis(connection) - TTL / timedelta(milliseconds=1)
            return all(beat < deadline for beat in claims.beats(connection).values())

    await until(silent, 30)
    other = MemoryChannel(sent=channel.sent)
    await Delivery(bare.services, {"memory": other}, alone=False, ttl=TTL).until_idle(30)


class Slow(MemoryChannel):
    """Takes its time, so that something is under way at any moment."""

    async def send(self, address: Address, part: Part, key: str) -> str:
        await asyncio.sleep(0.02)
        return await super().send(address, part, key)


def test_what_was_to_leave_at_once_does_not_wait_for_a_clock_that_was_set_back(
    tmp_path: Path,
) -> None:
    bare = Bare(f"sqlite:///{tmp_path}/bare.db")
    bare.lane()
    tomorrow = NOON + timedelta(days=1)
    bare.rows(1, occasion="now", not_before=tomorrow, created_at=tomorrow)
    bare.rows(1, occasion="then", not_before=tomorrow + timedelta(hours=1), created_at=tomorrow)
    channel = MemoryChannel()
    asyncio.run(Delivery(bare.services, {"memory": channel}, alone=True).until_idle())
    assert [(row.occasion, row.state) for row in bare.all()] == [
        ("now", "sent"),
        ("then", "queued"),
    ]
    bare.close()


def test_a_lease_reckoned_by_a_clock_that_was_set_back_locks_nobody_out(tmp_path: Path) -> None:
    bare = Bare(f"sqlite:///{tmp_path}/bare.db")
    day, minute = timedelta(days=1), timedelta(minutes=1)
    with bare.database.transaction() as connection:
        assert leases.take(connection, "poller", "dead", day)
        assert leases.take(connection, "poller", "heir", minute)
        assert not leases.take(connection, "poller", "third", minute)
    bare.close()
