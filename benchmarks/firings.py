"""Schedules over three workers on one PostgreSQL, with fifty kill -9: who is told what, and when.

A season of the county's real calendar, two moments a day, is lived through by three workers whose
hearts beat at once, one of which is killed and replaced now and then; sometimes all of them are
away for days. What has fired by then must be what one process on SQLite fires that lives
through the same, with the same rows written, and what came late must have followed its policy.
"""

from __future__ import annotations

import asyncio
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.figures import Figure, note
from benchmarks.soak import FollowedClock
from benchmarks.warm import Nest, hatch
from bot import heart, logs, web
from bot.app import App, services_for
from bot.clock import BEIJING
from bot.context import Services
from bot.settings import demo_settings
from storage.db import Database
from storage.jobs import Firing
from storage.tables import METADATA
from tests.county import settle_county
from tests.postgres import running_server
from tests.world import KEYS, OFFICE, MemoryChannel, World, whole_catalog

REPLICAS = 3
KILLS = 50
SEED = 20260925
FIRST, LAST = "2026-07-20", "2026-10-10"
HOURS = (10, 22)
AWAY = (
    ("2026-08-05 12:00", "2026-08-06 12:00"),
    ("2026-08-25 08:00", "2026-08-25 23:00"),
    ("2026-09-14 12:00", "2026-09-17 08:00"),
    ("2026-09-19 12:00", "2026-09-22 08:00"),
    ("2026-09-25 12:00", "2026-09-27 08:00"),
)
"""When no worker lives."""

LATE: Mapping[tuple[str, str], str] = {
    # Freezing a month is made up for, a reminder that came too late is left out.
    ("monthly_report", "2026-07:freeze"): "2026-08-06 22:00",
    ("monthly_report", "2026-08:opening"): "",
    # A draft is made up for; of several reminders only the nearest is sent.
    ("letter.draft", "letter:mid_autumn:2026"): "2026-09-17 10:00",
    ("letter.remind", "letter:mid_autumn:2026:5"): "",
    ("letter.remind", "letter:mid_autumn:2026:3"): "2026-09-22 10:00",
    # A letter that nobody approved in time does not leave late: it is reported.
    ("letter.missed", "letter:mid_autumn:2026"): "2026-09-27 10:00",
}
"""What falls due in those times, and when it fires; empty for what is left out."""

PATIENCE = 120.0  # seconds in which three workers must have beaten once
STRIKE = 0.3  # seconds after a moment has come in which a worker is killed
NUMBERED = ("audit_seal",)
"""Schedules whose occasions are row numbers, in which PostgreSQL leaves gaps."""
VOLATILE = ("worker", "lane", "lease", "job", "chat_pace", "audit_seal", "firing")

Fired = Mapping[tuple[str, str], datetime]


@dataclass(frozen=True)
class Season:
    """What is lived through: moments in order, and at how many of them a worker is killed."""

    first: str = FIRST
    last: str = LAST
    hours: tuple[int, ...] = HOURS
    kills: int = KILLS
    seed: int = SEED
    seconds: float = 600.0

    @property
    def moments(self) -> list[datetime]:
        """Every moment at which somebody lives."""
        day, end = _beijing(self.first), _beijing(self.last)
        spans = [(_beijing(begin), _beijing(end)) for begin, end in AWAY]
        days = [day + timedelta(days=number) for number in range((end - day).days + 1)]
        moments = [day + timedelta(hours=hour) for day in days for hour in self.hours]
        return [one for one in moments if not any(begin <= one < end for begin, end in spans)]


@dataclass(frozen=True)
class Lived:
    """What fired and when, and how many rows each table has at the end."""

    fired: Fired
    rows: Mapping[str, int]
    kills: int = 0

    def missed(self, expected: Lived) -> int:
        """How many expected firings there were not, or not at their moment; and rows."""
        late = sum(1 for one, at in expected.fired.items() if self.fired.get(one) != at)
        return late + (expected._counter() - self._counter()).total()

    def doubled(self, expected: Lived) -> int:
        """How many firings and rows there were beyond the expected."""
        return (
            len(self.fired.keys() - expected.fired)
            + (self._counter() - expected._counter()).total()
        )

    def _counter(self) -> Counter[str]:
        return Counter(self.rows)


def against_policy(fired: Fired) -> list[tuple[str, str]]:
    """Which of the late firings did not do what their policy says."""
    said = {one: _beijing(at) if at else None for one, at in LATE.items()}
    return [one for one, at in said.items() if fired.get(one) != at]


def _beijing(moment: str) -> datetime:
    return datetime.fromisoformat(moment).replace(tzinfo=BEIJING)


# - living through it -


async def live(
    database: Database, moments: Sequence[datetime], beat: Callable[[datetime], Awaitable[None]]
) -> Lived:
    """At each moment beat until a whole beat has changed nothing, and see what has fired."""
    fired: dict[tuple[str, str], datetime] = {}
    for moment in moments:
        seen, now = -1, moment
        while seen != len(fired):
            seen = len(fired)
            await beat(now)
            fired |= _fired(database)
            now += timedelta(seconds=1)
    return Lived({one: at for one, at in fired.items() if one[0] not in NUMBERED}, _rows(database))


def _fired(database: Database) -> dict[tuple[str, str], datetime]:
    with database.reading() as session:
        return {(one.schedule, one.occasion): one.at for one in session.scalars(select(Firing))}


def _rows(database: Database) -> dict[str, int]:
    tables = [table for table in METADATA.sorted_tables if table.name not in VOLATILE]
    with database.engine.connect() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables
        }


def alone(season: Season) -> Lived:
    """One process on SQLite, which nobody kills."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), start=f"{season.first} 00:00")
        settle_county(world)

        async def beat(now: datetime) -> None:
            world.clock.set(now)
            heart.beat(world.app.services)

        lived = asyncio.run(live(world.database, season.moments, beat))
        world.close()
    return lived


async def together(season: Season, url: str, folder: Path) -> Lived:
    """Three workers on PostgreSQL, some of which are killed."""
    world = World(folder, start=f"{season.first} 00:00", url=url)
    settle_county(world)
    clock, beaten = (_shared(folder / name) for name in ("clock", "beaten"))
    chance = random.Random(season.seed)  # noqa: S311  # when to kill, not a secret
    moments = season.moments
    struck = set(chance.sample(moments, season.kills))
    before = dict(zip(moments[1:], moments, strict=False))
    words = ("benchmarks.firings", url, str(folder / "clock"), str(folder / "beaten"))
    async with asyncio.timeout(season.seconds), Nest(*words) as nest:
        living: list[int] = []

        async def beat(now: datetime) -> None:
            if now - before.get(now, now) > timedelta(hours=12):
                await asyncio.gather(*(nest.end(living.pop()) for _ in tuple(living)))
            clock.set(now.timestamp())
            while len(living) < REPLICAS:
                living.append(await nest.start())
            if now in struck:
                await asyncio.sleep(chance.uniform(0.0, STRIKE))
                await nest.end(living.pop(chance.randrange(REPLICAS)))
                living.append(await nest.start())
            async with asyncio.timeout(PATIENCE):
                while beaten.now() < now:
                    await asyncio.sleep(0.005)

        lived = await live(world.database, moments, beat)
    world.close()
    return Lived(lived.fired, lived.rows, len(struck))


def _shared(path: Path) -> FollowedClock:
    path.write_bytes(struct.pack("d", 0.0))
    return FollowedClock(path)


# - a worker -


async def work(services: Services, clock: FollowedClock, beaten: FollowedClock) -> None:
    """Be a worker whose heart beats at every moment, and say which was beaten through."""
    channels = {"memory": MemoryChannel()}
    app = App(services, channels, alone=False)
    beating = asyncio.create_task(_beat(services, clock, beaten))
    await web.serve(app, None, ("worker",))
    beating.cancel()


async def _beat(services: Services, clock: FollowedClock, beaten: FollowedClock) -> None:
    through = datetime.min.replace(tzinfo=BEIJING)
    while True:
        began = clock.now()
        if began != through and not await asyncio.to_thread(heart.beat, services):
            through = began
            beaten.set(began.timestamp())
        await asyncio.sleep(0.005)


def hatch_workers(url: str, clock_file: str, beaten_file: str) -> None:
    """Make workers of the whole catalog on this database and this clock."""
    logs.configure("ERROR", ())
    settings = demo_settings(
        database_url=url, place="huolingol", public_url="http://127.0.0.1:8080", **OFFICE
    )
    clock, beaten = FollowedClock(Path(clock_file)), FollowedClock(Path(beaten_file))
    services = services_for(
        settings,
        {"memory": MemoryChannel().facts},
        keys=KEYS,
        clock=clock,
        catalog=whole_catalog(),
    )
    hatch(partial(work, services, clock, beaten))


def main() -> bool:
    """Print the figures; True when everything fired once, and the late as their policy says."""
    season = Season()
    note(
        f"{season.first} 至 {season.last}，{REPLICAS} 个进程，{season.kills} 次 kill -9，PostgreSQL"
    )
    expected = alone(season)
    began = time.monotonic()
    with running_server() as server, tempfile.TemporaryDirectory() as folder:
        lived = asyncio.run(together(season, server.url(server.create()), Path(folder)))
    wrong = against_policy(lived.fired)
    missed, doubled = lived.missed(expected), lived.doubled(expected)
    note(f"用时 {time.monotonic() - began:.0f} 秒；迟到 {len(LATE)} 件，不合规定的 {wrong}")
    Figure("firings", "fired", len(lived.fired), "次").tell()
    Figure("firings", "missed", missed, "次").tell()
    Figure("firings", "doubled", doubled, "次").tell()
    Figure("firings", "late_against_policy", len(wrong), "次").tell()
    return lived.kills == season.kills and not (missed or doubled or wrong)


if __name__ == "__main__":
    hatch_workers(*sys.argv[1:])
