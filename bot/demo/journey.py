"""Moves the demo's clock, and lets the heart beat at what lies between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from datetime import time as wall_time

from sqlalchemy import func, select

from bot.clock import BEIJING, Clock, MovableClock, QuietHours, beijing
from bot.commands import Tick
from bot.context import Services
from bot.lunar import festival_date
from storage.mailbox import TABLE
from storage.states import State

BUDGET = 2.0  # seconds for the stops on the way
MORNING = wall_time(10, 0)  # when letters leave and reminders are given
THRICE = (wall_time(8, 30), MORNING, wall_time(20, 0))
HOURLY = tuple(wall_time(hour) for hour in range(24))
PATIENCE = 1.0  # seconds to wait at one moment until what is due has left
WAITING = (State.QUEUED, State.LEASED, State.SENDING)


def first_moment(now: datetime, quiet: QuietHours) -> datetime:
    """Where the demo's clock begins: now, or the next morning if nobody may be written to now."""
    awake = quiet.after(now, BEIJING)
    return now if awake == now else awake + timedelta(minutes=30)


def destination(name: str, now: datetime, start: datetime) -> datetime:
    """The moment a shortcut leads to, always later than `now` but for `now`; KeyError if unknown.

    `start` is where 回到现在 leads.
    """
    shortcuts: dict[str, Callable[[], datetime]] = {
        "hour": lambda: now + timedelta(hours=1),
        "day": lambda: now + timedelta(days=1),
        "month_end": lambda: _next(now, _month_ends(now)),
        "mid_autumn": lambda: _next(now, _festivals("中秋", now)),
        "new_year_eve": lambda: _next(now, _festivals("除夕", now)),
        "now": lambda: start,
    }
    return shortcuts[name]()


def _next(now: datetime, mornings: Iterator[datetime]) -> datetime:
    return next(moment for moment in mornings if moment > now)


def _festivals(name: str, now: datetime) -> Iterator[datetime]:
    year = beijing(now).year
    for later in range(3):
        yield datetime.combine(festival_date(name, year + later), MORNING, BEIJING)


def _month_ends(now: datetime) -> Iterator[datetime]:
    day = beijing(now).date().replace(day=1)
    for _month in range(3):
        following = (day + timedelta(days=32)).replace(day=1)
        yield datetime.combine(following - timedelta(days=1), MORNING, BEIJING)
        day = following


class Journey:
    """One move of the clock: to each moment at which something may be due, then on."""

    def __init__(
        self,
        services: Services,
        clock: MovableClock,
        beat: Callable[[], None],
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._clock = clock
        self._beat = beat
        self._elapsed = elapsed

    async def travel(self, end: datetime, passed: Callable[[float], None]) -> None:
        """Go to `end`; `passed` is told how far it is, from 0 to 1, at each stop.

        A long way has more stops than there is time for: then some are left out, but never the
        moment at which a queued message falls due. Backwards is one step: what has left stays so.
        """
        start, begun = self._clock.now(), self._elapsed()
        stops = await asyncio.to_thread(self._stops, start, end)
        for number, stop in enumerate(stops, 1):
            if self._elapsed() - begun > BUDGET * number / len(stops):
                continue
            await self._go(stop)
            passed((stop - start) / (end - start))
        await self._go(end)
        passed(1.0)

    async def _go(self, stop: datetime) -> None:
        """Go to a stop by way of what falls due before it."""
        for moment in await asyncio.to_thread(self._queued, self._clock.now(), stop):
            self._clock.set(moment)
            await self._settle()
        self._clock.set(stop)
        await self._settle()

    async def _settle(self) -> None:
        """Beat once and wait until what is due has left."""
        await asyncio.to_thread(self._beat)
        given_up = self._elapsed() + PATIENCE
        # Only the table knows when all have left.
        while await asyncio.to_thread(self._due) and self._elapsed() < given_up:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _due(self) -> bool:
        with self._services.database.reading() as session:
            waiting = session.execute(
                select(func.count())
                .select_from(TABLE)
                .where(
                    TABLE.c.state.in_(WAITING),
                    TABLE.c.not_before <= self._services.clock.now(),
                )
            ).scalar_one()
        return bool(waiting)

    def _queued(self, start: datetime, end: datetime) -> list[datetime]:
        """Moments at which queued messages fall due."""
        with self._services.database.reading() as session:
            return list(
                session.execute(
                    select(TABLE.c.not_before)
                    .where(
                        TABLE.c.state == State.QUEUED,
                        TABLE.c.not_before > start,
                        TABLE.c.not_before < end,
                    )
                    .distinct()
                    .order_by(TABLE.c.not_before)
                    .limit(20)
                ).scalars()
            )

    def _stops(self, start: datetime, end: datetime) -> list[datetime]:
        """Regular stops, and the moments that the schedules announce, in order."""
        stops = set(_marks(start, end))
        with self._services.database.reading() as session:
            for tick in self._services.catalog.of(Tick):
                if tick.upcoming is not None and start < end:
                    coming = tick.upcoming(self._services, session, start, end - start)
                    stops.update(moment for moment, _words in coming)
        return sorted(stop for stop in stops if start < stop < end)


def _marks(start: datetime, end: datetime) -> Iterator[datetime]:
    """Regular stops: each hour of a short way, three a day of a longer one, else one a week."""
    days = (end - start) / timedelta(days=1)
    times = HOURLY if days <= 2 else THRICE if days <= 45 else (MORNING,)
    day = beijing(start).date()
    while day <= beijing(end).date():
        yield from (datetime.combine(day, moment, BEIJING) for moment in times)
        day += timedelta(days=1 if days <= 45 else 7)


def running_clock(clock: Clock, quiet: QuietHours) -> MovableClock:
    """The demo's clock: it goes on by itself from a moment at which people may be written to."""
    return MovableClock(first_moment(clock.now(), quiet), running=True)
