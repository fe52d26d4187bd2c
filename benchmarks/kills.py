"""kill -9 at random moments of a letter, on SQLite with one worker and on PostgreSQL with four.

On PostgreSQL the server itself is killed now and then. At the end the emulator, which lives here
and notes every message, has seen nobody twice; everybody has one row; and whoever it has not seen
is `unknown`, as are at most the rows that were in flight at a kill.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from benchmarks import letter
from benchmarks.figures import Figure, note
from benchmarks.warm import Nest
from bot.context import Services
from bot.delivery import most_sending
from storage.mailbox import TABLE
from storage.states import OPEN, State
from tests.emulators.clock import VirtualClock
from tests.emulators.faults import When
from tests.emulators.server import Platforms
from tests.emulators.telegram import Rules, Telegram
from tests.laying import lay_tables
from tests.postgres import Server, running_server

PEOPLE = 10_000
KILLS = 200
SEED = 20260925
CALL = (0.02, 0.15)  # seconds the platform takes, from one kill to the next
LOOK = 0.002  # seconds between looks how far the letter is
OUTAGE = 30.0  # seconds in which a killed database must be back


@dataclass(frozen=True)
class Trial:
    """What is to be survived. `slots` is how many calls a worker makes at once: with the product's
    own number a letter would be over, all unknown, before it was killed so often. `paced`: as slow
    as the channel wants its platform to be called, otherwise as fast as it goes.

    Every `server_every`-th kill is the database server's, if there is a server. The trial stops by
    itself after `seconds`, its promise broken.
    """

    url: str
    people: int
    kills: int
    workers: int = 1
    slots: int = 24
    paced: bool = False
    server: Server | None = None
    server_every: int = 20
    seconds: float = 600.0
    seed: int = SEED


@dataclass(frozen=True)
class Outcome:
    """What was left when nothing of the letter was open any more.

    `in_flight` is how many rows were between gate and acknowledgement when their worker was killed,
    over all kills; `most_in_flight` at one of them.
    """

    trial: Trial
    kills: int
    server_kills: int
    states: Mapping[str, int]
    doubled: int
    lost: int
    in_flight: int
    most_in_flight: int
    seconds: float

    @property
    def unknown(self) -> int:
        """Of how many people nobody can say whether they got it."""
        return self.states.get(State.UNKNOWN, 0)

    @property
    def kept(self) -> bool:
        """Is the promise kept?"""
        return (
            self.doubled == 0
            and self.lost == 0
            and self.kills + self.server_kills == self.trial.kills
            and sum(self.states.values()) == self.trial.people
            and set(self.states) <= {State.SENT, State.UNKNOWN}
            and self.unknown <= self.in_flight
            and self.most_in_flight <= most_sending(self.trial.slots)
        )


@dataclass
class Post:
    """The database of a letter under way, and the platform it leaves for."""

    trial: Trial
    services: Services
    platform: Telegram
    in_flight: list[int] = field(default_factory=list)
    server_kills: int = 0

    @property
    def calls(self) -> int:
        """How many letters the platform was called for so far."""
        return self.platform.calls["sendMessage"]

    def hamper(self, chance: random.Random) -> None:
        """Let the platform take its time, before it has shown a letter or after."""
        self.platform.mend()
        when: When = "before" if chance.random() < 0.5 else "after"
        self.platform.fail("sendMessage", "delay", when, times=-1, value=chance.uniform(*CALL))

    async def open(self) -> int:
        """How many rows something may still become of; asked again while the database is away."""
        query = select(func.count()).where(TABLE.c.state.in_(OPEN))
        return await self._ask(query)

    async def count_in_flight(self, worker: str) -> None:
        """Note what a dead worker had let through and not acknowledged."""
        query = select(func.count()).where(TABLE.c.owner == worker, TABLE.c.state == State.SENDING)
        self.in_flight.append(await self._ask(query))

    async def _ask(self, query: object) -> int:
        async with asyncio.timeout(OUTAGE):
            while True:
                try:
                    with self.services.database.engine.connect() as connection:
                        return int(connection.execute(query).scalar_one())  # type: ignore[call-overload]
                except DBAPIError:
                    await asyncio.sleep(0.1)


async def run(trial: Trial) -> Outcome:
    """Send the letter, kill as often as asked, and count what came of it."""
    chance = random.Random(trial.seed)  # noqa: S311  # when to kill, not a secret
    began = time.monotonic()
    services, _channels = letter.installation(trial.url)
    lay_tables(services.database)
    letter.post(services, trial.people)
    clock = VirtualClock(services.clock.now(), rate=1)
    platform = Telegram(clock, token=letter.TOKEN, rules=Rules(None, None, None))
    for person in range(1, trial.people + 1):
        platform.users[platform.person(letter.FIRST_CHAT + person, f"乡亲{person}")].started = True
    post = Post(trial, services, platform)
    async with Platforms(clock, telegram=platform) as platforms:
        pace = letter.PACED if trial.paced else ""
        words = ("benchmarks.letter", trial.url, platforms.url, str(trial.slots), pace)
        # What is not over by then has broken its promise: kills are missing, or rows are open.
        with suppress(TimeoutError):
            async with asyncio.timeout(trial.seconds), Nest(*words) as nest:
                await _kill_all(post, nest, chance)
                while await post.open():
                    await asyncio.sleep(0.1)
    outcome = _counted(post, time.monotonic() - began)
    services.database.close()
    return outcome


async def _kill_all(post: Post, nest: Nest, chance: random.Random) -> None:
    """Kill at random moments, spread over the whole letter; leaves workers that finish it."""
    trial = post.trial
    names = (f"w{number}" for number in range(1, trial.kills + trial.workers + 1))

    async def start() -> tuple[str, int]:
        name = next(names)
        return name, await nest.start(name)

    living = [await start() for _ in range(trial.workers)]
    for number in range(1, trial.kills + 1):
        post.hamper(chance)
        left = await post.open()
        if not left:
            break
        # Half of an even share on average: the rows in flight at the kill are spent too.
        further = 1 + chance.randrange(left // (trial.kills + 2 - number) + 1)
        if not await _heard(post, post.calls + further):
            break
        if trial.server is not None and number % trial.server_every == 0:
            await asyncio.to_thread(_kill_server, trial.server)
            post.server_kills += 1
            continue
        name, worker = living.pop(chance.randrange(len(living)))
        await nest.end(worker)
        await post.count_in_flight(name)
        living.append(await start())


async def _heard(post: Post, calls: int) -> bool:
    """Wait for the platform to be called so often; False when the letter ends before."""
    looked = time.monotonic()
    while post.calls < calls:
        await asyncio.sleep(LOOK)
        if time.monotonic() - looked > 1.0:
            looked = time.monotonic()
            if not await post.open():
                return False
    return True


def _kill_server(server: Server) -> None:
    server.kill()
    server.start()


def _counted(post: Post, seconds: float) -> Outcome:
    with post.services.database.engine.connect() as connection:
        rows = connection.execute(select(TABLE.c.person_id, TABLE.c.state)).all()
    heard = {
        person: len(post.platform.heard(letter.FIRST_CHAT + person))
        for person in range(1, post.trial.people + 1)
    }
    unknown = {row.person_id for row in rows if row.state == State.UNKNOWN}
    return Outcome(
        trial=post.trial,
        kills=len(post.in_flight),
        server_kills=post.server_kills,
        states=Counter(row.state for row in rows),
        doubled=sum(1 for count in heard.values() if count > 1),
        lost=sum(1 for person, count in heard.items() if not count and person not in unknown),
        in_flight=sum(post.in_flight),
        most_in_flight=max(post.in_flight, default=0),
        seconds=seconds,
    )


def told(where: str, outcome: Outcome) -> None:
    """Say how one engine fared."""
    note(
        f"{where}：给 {outcome.trial.people} 人的信，杀死进程 {outcome.kills} 次、数据库 "
        f"{outcome.server_kills} 次，用时 {outcome.seconds:.0f} 秒；被杀时在途共 "
        f"{outcome.in_flight} 行，一次最多 {outcome.most_in_flight} 行；"
        f"各状态 {dict(outcome.states)}"
    )


def main(kills: int = KILLS) -> bool:
    """Print the figures; True when nobody got two and nobody was silently left out."""
    people = kills * PEOPLE // KILLS
    with tempfile.TemporaryDirectory() as folder:
        alone = asyncio.run(run(Trial(f"sqlite:///{folder}/kills.db", people, kills)))
    told("SQLite，一个进程", alone)
    with running_server("") as server:  # whose promises are kept as in production
        url = server.url(server.create())
        every = max(2, kills // 10)
        trial = Trial(url, people, kills, workers=4, server=server, server_every=every)
        several = asyncio.run(run(trial))
    told("PostgreSQL，四个进程", several)
    for name in ("lost", "doubled", "unknown", "in_flight"):
        ours, theirs = getattr(alone, name), getattr(several, name)
        Figure("kills", f"sqlite_{name}", ours, "人").tell()
        Figure("kills", f"pg_{name}", theirs, "人").tell()
        Figure("kills", name, ours + theirs, "人").tell()
    return alone.kept and several.kept
