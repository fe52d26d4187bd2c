"""A replica that freezes, and a PostgreSQL that restarts, goes away, or is cut off at any byte.

Workers are what `hongyan serve --role worker` runs, web replicas are `hongyan serve` itself; the
platforms are emulated here and note every message. Nobody may be lost or written to twice, nothing
may stay `unknown`, and work must go on within two seconds of the database's return.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from benchmarks import letter
from benchmarks.figures import Figure, note
from benchmarks.warm import Nest
from bot import logs
from bot.app import App, services_for
from bot.clock import SystemClock
from bot.commands import command
from bot.context import ChannelFacts, Context, Services
from bot.delivery import WORKER_TTL, Delivery
from bot.messages import Address, Inbound, Reply, say
from bot.settings import demo_settings
from bot.spool import spooled
from storage.db import Database
from storage.mailbox import TABLE, Inbox
from storage.sequences import next_number
from storage.states import OPEN, State
from tests.bare import Bare
from tests.channels.harness import catalog
from tests.cutting import Door
from tests.emulators.clock import VirtualClock
from tests.emulators.server import Platforms
from tests.emulators.telegram import Rules, Telegram
from tests.laying import lay_tables
from tests.postgres import Server, running_server
from tests.serving import environment
from tests.world import KEYS, OFFICE, MemoryChannel

PEOPLE = 3_000
CALL = 0.1  # seconds the platform takes
SLOTS = 32  # calls at once in each worker: slow enough for every trouble to come in the middle
AWAY = 8.0  # seconds without a database
PROMISE = 2.0  # seconds from the database's return to the next message
FROZEN = WORKER_TTL.total_seconds() + 4
THAW = 20.0  # seconds in which a worker that goes on must have said all it knows
LIMIT = 120.0  # seconds any part may take
MEMBERS = 20
SPEAKERS, SENTENCES = 100, 20
ROW_CUTS = 60  # in each direction; every one costs the loop's quarter of a second
DURABLE = "-c fsync=on -c synchronous_commit=on"


@dataclass(frozen=True)
class Outcome:
    """What one trouble left: people (or messages) lost and doubled, rows in doubt, seconds."""

    name: str
    lost: int
    doubled: int
    unknown: int
    recovered: float

    @property
    def kept(self) -> bool:
        """Is the promise kept?"""
        return not (self.lost or self.doubled or self.unknown) and self.recovered <= PROMISE


# - a letter under way -


class Letter:
    """A letter to many, the platform it leaves for, and two workers that send it."""

    def __init__(self, services: Services, platform: Telegram, nest: Nest) -> None:
        self.services = services
        self.platform = platform
        self.nest = nest
        self.workers: list[int] = []

    @property
    def calls(self) -> int:
        """How many letters the platform was called for so far."""
        return self.platform.calls["sendMessage"]

    async def reaches(self, calls: int) -> None:
        """Wait for the platform to be called so often."""
        await _until(lambda: self.calls >= calls)

    def states(self) -> Counter[str]:
        """How many rows are in which state; nothing while the database is away."""
        with suppress(DBAPIError), self.services.database.engine.connect() as connection:
            rows = connection.execute(
                select(TABLE.c.state, func.count()).group_by(TABLE.c.state)
            ).all()
            return Counter({state: count for state, count in rows})
        return Counter({State.QUEUED: 1})

    async def ends(self) -> None:
        """Wait until nothing can become of any row."""
        await _until(lambda: not set(OPEN) & set(self.states()), look=0.1)

    def outcome(self, name: str, recovered: float) -> Outcome:
        """Count who heard it how often."""
        heard = [
            len(self.platform.heard(letter.FIRST_CHAT + person)) for person in range(1, PEOPLE + 1)
        ]
        return Outcome(
            name,
            sum(1 for count in heard if not count),
            sum(1 for count in heard if count > 1),
            self.states()[State.UNKNOWN],
            recovered,
        )


@asynccontextmanager
async def posted(server: Server) -> AsyncIterator[Letter]:
    """A released letter and two workers at it."""
    url = server.url(server.create())
    services, _channels = letter.installation(url)
    lay_tables(services.database)
    letter.post(services, PEOPLE)
    clock = VirtualClock(services.clock.now(), rate=1)
    platform = Telegram(clock, token=letter.TOKEN, rules=Rules(None, None, None))
    for person in range(1, PEOPLE + 1):
        platform.users[platform.person(letter.FIRST_CHAT + person, f"乡亲{person}")].started = True
    platform.fail("sendMessage", "delay", "after", times=-1, value=CALL)
    async with asyncio.timeout(LIMIT), Platforms(clock, telegram=platform) as platforms:
        words = ("benchmarks.letter", url, platforms.url, str(SLOTS), "")
        async with Nest(*words) as nest:
            made = Letter(services, platform, nest)
            made.workers = [await nest.start(f"w{number}") for number in (1, 2)]
            yield made
    services.database.close()


async def frozen(server: Server) -> Outcome:
    """SIGSTOP of one worker past its lease, SIGCONT when the other has long taken over."""
    async with posted(server) as post:
        await post.reaches(PEOPLE // 3)
        os.kill(post.workers[0], signal.SIGSTOP)
        await asyncio.sleep(FROZEN)
        doubted = post.states()[State.UNKNOWN]
        os.kill(post.workers[0], signal.SIGCONT)
        with suppress(TimeoutError):
            async with asyncio.timeout(THAW):
                await _until(lambda: set(post.states()) == {State.SENT}, look=0.1)
        note(f"  冻住 {FROZEN:.0f} 秒，其间 {doubted} 行未知")
        return post.outcome("frozen", 0.0)


async def interrupted(server: Server, name: str, interrupt: Callable[[Server], None]) -> Outcome:
    """The database goes in mid-letter and comes back."""
    async with posted(server) as post:
        await post.reaches(PEOPLE // 3)
        await asyncio.to_thread(interrupt, server)
        back, before = time.monotonic(), post.calls
        await post.reaches(before + 1)
        recovered = time.monotonic() - back
        await post.ends()
        return post.outcome(name, recovered)


def _restart(server: Server) -> None:
    server.stop()
    server.start()


def _crash(server: Server) -> None:
    server.kill()
    server.start()


def _leave(server: Server) -> None:
    server.stop()
    time.sleep(AWAY)
    server.start()


# - what people say meanwhile -


class Replica:
    """A `hongyan serve` of its own."""

    def __init__(self, process: asyncio.subprocess.Process, said: str) -> None:
        self.process = process
        found = re.search(r"http://[\d.]+:\d+", said)
        self.url = f"{found[0]}/callback/wechat" if found else ""

    @classmethod
    async def start(cls, folder: Path, role: str, settings: Mapping[str, str]) -> Replica:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot", "serve", "--port", "0", "--role", role),
            cwd=folder,
            env=environment(settings),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        return cls(process, (await process.stdout.readline()).decode())

    async def end(self, how: signal.Signals) -> int:
        """Send it a signal and wait until it is gone; returns its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await self.process.wait()


async def spoken(server: Server) -> Outcome:
    """Two web replicas hear people while the database is away; one of them is killed."""
    url = server.url(server.create())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clock = VirtualClock(SystemClock().now(), rate=1)
        async with asyncio.timeout(LIMIT), Platforms(clock) as platforms:
            given = {"database_url": url, "channels": "wechat", **OFFICE}
            given |= {k: v for k, v in platforms.settings().items() if k.startswith("wechat")}
            settings = {f"HONGYAN_{name.upper()}": value for name, value in given.items()}
            roles = ("web", "web", "worker")
            starting = [Replica.start(folder, role, settings) for role in roles]
            living = list(await asyncio.gather(*starting))
            try:
                return await _conversation(server, platforms, folder, living, settings)
            finally:
                for replica in living:
                    await replica.end(signal.SIGKILL)


async def _conversation(
    server: Server,
    platforms: Platforms,
    folder: Path,
    living: list[Replica],
    settings: Mapping[str, str],
) -> Outcome:
    wechat, members = platforms.wechat, [f"o{number}" for number in range(MEMBERS)]
    for member in members:
        wechat.connect(living[0].url)
        await wechat.follow(member).done()
    before = {member: len(wechat.heard(member)) for member in members}

    async def everybody_speaks(sentence: int, replicas: Sequence[Replica]) -> None:
        for number, member in enumerate(members):
            wechat.connect(replicas[(number + sentence) % len(replicas)].url)
            await wechat.say(member, "帮助").done()

    def heard() -> int:
        return sum(len(wechat.heard(member)) - before[member] for member in members)

    web, kept = living[:2], folder / "hongyan.spool"
    await everybody_speaks(0, web)
    await asyncio.to_thread(server.stop)
    await everybody_speaks(1, web)
    await web[0].end(signal.SIGKILL)
    await everybody_speaks(2, web[1:])
    answered = heard()
    note(f"  数据库不在时暂存 {spooled(kept)} 条，其间 kill -9 一个副本")
    await asyncio.to_thread(server.start)
    back = time.monotonic()
    await _until(lambda: heard() > answered)
    recovered = time.monotonic() - back
    living[0] = web[0] = await Replica.start(folder, "web", settings)
    await _until(lambda: not spooled(kept))
    await everybody_speaks(3, web)
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            await _until(lambda: heard() >= 4 * MEMBERS)
    await asyncio.sleep(1.0)  # a second answer would come now
    codes = [await replica.end(signal.SIGTERM) for replica in living]
    note(f"  SIGTERM 后各副本的退出码 {codes}")
    said = [len(wechat.heard(member)) - before[member] for member in members]
    return Outcome(
        "spool",
        sum(max(0, 4 - count) for count in said) + sum(map(bool, codes)),
        sum(max(0, count - 4) for count in said),
        0,
        recovered,
    )


# - cut off at any byte -


@command("记", help="记一次")
def counted(context: Context, _argument: str) -> Reply:
    """Writes, so that a second time would show."""
    return say(f"第{next_number(context.session, 'times')}次")


def cut_messages(server: Server, door: Door) -> Outcome:
    """Cut the connection after every so many bytes of one message's transaction, either way."""
    facts = ChannelFacts("memory", inline=1)
    settings = demo_settings(database_url=door.url(server.create()))
    services = services_for(
        settings, {"memory": facts}, keys=KEYS, clock=SystemClock(), catalog=catalog(counted)
    )
    lay_tables(services.database)
    app = App(services, {"memory": MemoryChannel(facts)}, alone=False)
    numbers = itertools.count()

    def hear() -> bool:
        number = next(numbers)
        address = Address("memory", "t", "wang")
        message = Inbound(f"{number}", address, "记", services.clock.now())
        said = [part.text for part in app.dispatcher.handle(message)]
        return said == [f"第{number + 1}次"]

    for _warm in range(10):
        hear()
    before = (door.up, door.down)
    hear()
    sizes = {False: door.up - before[0], True: door.down - before[1]}
    wrong = cuts = 0
    for down, size in sizes.items():
        for at in range(0, size + 1):
            door.cut(at, down=down)
            wrong += not hear()
            cuts += 1
    door.open()
    with services.database.reading() as session:
        kept = session.execute(select(func.count()).select_from(Inbox)).scalar_one()
    app.close()
    note(f"  一条消息：上行 {sizes[False]}、下行 {sizes[True]} 字节，逐字节切断 {cuts} 次")
    return Outcome("cut_message", wrong, max(0, kept - next(numbers)), 0, 0.0)


async def cut_rows(server: Server, door: Door) -> Outcome:
    """Cut the connection at bytes of one row's way from claim to acknowledgement."""
    name = server.create()
    bare = Bare(server.url(name))
    bare.lane()
    behind = Database(door.url(name), bare.database.keys)
    channel = MemoryChannel()
    delivery = Delivery(replace(bare.services, database=behind), {"memory": channel}, alone=False)
    running = asyncio.create_task(delivery.run())
    total = 0

    async def leaves() -> None:
        nonlocal total
        bare.rows(1, occasion=f"o{total}")
        total += 1
        delivery.wake()
        await _until(lambda: set(bare.states()) == {State.SENT})

    await leaves()
    before = (door.up, door.down)
    await leaves()
    sizes = {False: door.up - before[0], True: door.down - before[1]}
    for down, size in sizes.items():
        for at in range(0, size, max(1, size // ROW_CUTS)):
            door.cut(at, down=down)
            await leaves()
    door.open()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    unknown = bare.states().get(State.UNKNOWN, 0)
    behind.close()
    bare.close()
    note(f"  一行发件：上行 {sizes[False]}、下行 {sizes[True]} 字节，切断 {door.cuts} 次")
    return Outcome(
        "cut_row", max(0, total - len(channel.sent)), max(0, len(channel.sent) - total), unknown, 0
    )


@command("数", help="数到几了")
def numbered(context: Context, _argument: str) -> Reply:
    """Each person counts for themselves: what is done out of turn shows."""
    return say(str(next_number(context.session, f"p{context.person_id}")))


async def together(server: Server) -> Outcome:
    """People who speak to two replicas by turns, all at once."""
    url, facts = server.url(server.create()), ChannelFacts("memory", inline=1)
    pair: list[App] = []
    for _each in range(2):
        services = services_for(
            demo_settings(database_url=url),
            {"memory": facts},
            keys=KEYS,
            clock=SystemClock(),
            catalog=catalog(numbered),
        )
        pair.append(App(services, {"memory": MemoryChannel(facts)}, alone=False))
    lay_tables(pair[0].services.database)

    async def talks(person: int) -> int:
        wrong = 0
        for sentence in range(SENTENCES):
            address = Address("memory", "t", f"p{person}")
            message = Inbound(f"{person}-{sentence}", address, "数", SystemClock().now())
            parts = await pair[(person + sentence) % 2].receive(message, 30)
            wrong += [part.text for part in parts] != [str(sentence + 1)]
        return wrong

    async with pair[0].running(("web",)), pair[1].running(("web",)):
        began = time.monotonic()
        wrong = await asyncio.gather(*map(talks, range(SPEAKERS)))
        seconds = time.monotonic() - began
    said, commits = SPEAKERS * SENTENCES, sum(app.services.database.commits for app in pair)
    for app in pair:
        app.close()
    note(f"  两个副本轮流听 {SPEAKERS} 人说话：{said / seconds:.0f} 条/秒")
    Figure("outages", "commits_per_message", commits / said, "次/条").tell()
    return Outcome("together", sum(wrong), 0, 0, 0.0)


async def trials() -> list[Outcome]:
    """One trouble after another, each on a database of its own."""
    found: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        found.append(outcome)
        back = f"，恢复用 {outcome.recovered:.2f} 秒" if outcome.recovered else ""
        note(
            f"{outcome.name}：丢 {outcome.lost}、重 {outcome.doubled}、未知 {outcome.unknown}{back}"
        )

    with running_server(DURABLE) as server:
        tell(await frozen(server))
        for name, interrupt in (("restart", _restart), ("crash", _crash), ("away", _leave)):
            tell(await interrupted(server, name, interrupt))
        tell(await spoken(server))
        tell(await together(server))
        with Door(server.socket_folder) as door:
            tell(await asyncio.to_thread(cut_messages, server, door))
        with Door(server.socket_folder) as door:
            tell(await cut_rows(server, door))
    return found


async def _until(true: Callable[[], bool], look: float = 0.01) -> None:
    while not true():
        await asyncio.sleep(look)


def main() -> bool:
    """Print the figures; True when nothing was lost or doubled and all went on in time."""
    note(f"给 {PEOPLE} 人的信，两个进程，PostgreSQL；冻结、重启、崩溃、离开 {AWAY:.0f} 秒、切断")
    logs.configure("CRITICAL", ())  # each of some two thousand cuts would have its line
    found = asyncio.run(trials())
    for name in ("lost", "doubled", "unknown"):
        Figure("outages", name, sum(getattr(one, name) for one in found), "").tell()
    Figure("outages", "recovered_s", max(one.recovered for one in found), "秒").tell()
    return all(one.kept for one in found)
