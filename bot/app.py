"""Builds everything and joins it: the only place that does."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot import heart
from bot.catalog import Catalog, collect
from bot.channels.base import (
    Attached,
    Channel,
    Exclusive,
    Neighbourly,
    Noting,
    Receive,
    Working,
)
from bot.clock import Clock, SteadyClock
from bot.context import ChannelFacts, Services
from bot.delivery import FINISH, Delivery
from bot.dispatch import Dispatcher, Waiting
from bot.errors import ConfigError
from bot.messages import Inbound, Part
from bot.settings import Settings
from bot.spool import Spool
from bot.stalls import Stalls
from bot.watching import Watch
from storage.columns import KeyRing
from storage.db import Database
from storage.wakeups import Listener

CHANNELS: Mapping[str, str] = {
    "wechat": "bot.channels.wechat",
    "telegram": "bot.channels.telegram",
    "wecom": "bot.channels.wecom",
    "wecom_bot": "bot.channels.wecom.bot",
    "wecom_group": "bot.channels.wecom.group",
    "wecom_kf": "bot.channels.wecom.kf",
    "wecom_webhook": "bot.channels.wecom.webhook",
}
"""Name in HONGYAN_CHANNELS → module with a function `build(settings, services_clock)`."""

SWITCH = 0.02  # seconds a thread may keep the interpreter while others want it
YOUNG = 20_000  # new objects between two looks for garbage

log = structlog.get_logger()


class App:
    """A whole installation: services, channels, the writer, the delivery loop and the heart."""

    def __init__(
        self,
        services: Services,
        channels: Mapping[str, Channel],
        *,
        alone: bool,
        delivery: Delivery | None = None,
        spool: Spool | None = None,
    ) -> None:
        self.services = services
        self.channels = channels
        for channel in channels.values():
            if isinstance(channel, Attached):
                channel.attach(services)
            if isinstance(channel, Neighbourly):
                channel.meet(tuple(channels.values()))
        self.delivery = delivery or Delivery(services, channels, alone=alone)
        self._stalls = Stalls(services, self.delivery.counters.moved)
        self.spool = spool
        noting = {name: one.note for name, one in channels.items() if isinstance(one, Noting)}
        self.dispatcher = Dispatcher(services, self.delivery.wake, spool, noting)
        self._retired = False
        self._beating = threading.Lock()
        self._keeping: set[asyncio.Task[None]] = set()
        self._patience: dict[float, Watch] = {}

    def receive(self, inbound: Inbound, seconds: float) -> asyncio.Future[tuple[Part, ...]]:
        """What channels call: see `bot.channels.base.Receive`.

        The writer settles the loop's own future: a task around it would cost as much again.
        """
        answer: asyncio.Future[tuple[Part, ...]] = asyncio.get_running_loop().create_future()
        waiting = self.dispatcher.submit(inbound, answer)
        watch = self._patience.get(seconds)
        if watch is None:
            watch = self._patience[seconds] = Watch(seconds, self._give_up)
        watch.over(answer, waiting, answer)
        return answer

    def _give_up(self, waiting: Waiting, answer: asyncio.Future[tuple[Part, ...]]) -> None:
        """Nobody waits any longer: what is answered now must leave through the outbox."""
        waiting.abandoned = True
        facts = self.services.channels[waiting.inbound.sender.channel]
        if self.spool is None or not facts.lets_go(waiting.inbound.kind):
            answer.set_exception(TimeoutError())
            return
        task = asyncio.create_task(self._keep(self.spool, waiting.inbound, answer))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _keep(
        self, spool: Spool, inbound: Inbound, answer: asyncio.Future[tuple[Part, ...]]
    ) -> None:
        """A database that does not even refuse has the writer waiting; the disk remembers."""
        trouble: Exception = TimeoutError()
        try:
            await asyncio.to_thread(spool.keep, [inbound])
        except OSError as error:
            log.error("spool_refused", count=1, error=type(error).__name__)
            trouble = error
        if not answer.done():
            answer.set_exception(trouble)

    def beat(self) -> None:
        """One heartbeat, now; none once this process is about to end."""
        with self._beating:
            if self._retired:
                return
            heart.beat(self.services, lambda: self._retired)
            self._stalls.look(time.monotonic())
            self.delivery.wake()

    def _await_beat(self) -> None:
        """A beat under way works on the database that is about to be closed."""
        if self._beating.acquire(timeout=FINISH):
            self._beating.release()

    @asynccontextmanager
    async def running(self, roles: Iterable[str] = ("web", "worker")) -> Any:
        """Live: the writer for both, delivery, jobs and the heart for workers, and the channels.

        Whoever answers callbacks runs no channel that polls; in the end calls under way are
        finished and leases given back.
        """
        wanted = set(roles)
        self.dispatcher.start()
        tasks: list[asyncio.Task[None]] = []
        scheduler = AsyncIOScheduler()
        listener: Listener | None = None
        if "worker" in wanted:
            tasks.append(asyncio.create_task(self.delivery.run(), name="delivery"))
            listener = Listener(self.services.database.engine, self.delivery.wake)
            scheduler.add_job(
                asyncio.to_thread,
                "interval",
                args=[self.beat],
                seconds=heart.SECONDS,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,  # a beat that comes late is still a beat
            )
            scheduler.start()
            tasks.append(asyncio.create_task(asyncio.to_thread(self.beat), name="first-beat"))
        receive: Receive = self.receive
        for channel in self.channels.values():
            if "worker" in wanted or not _works(channel):
                tasks.append(asyncio.create_task(_keep_running(channel, receive)))
        try:
            yield self
        finally:
            if scheduler.running:
                scheduler.shutdown(wait=False)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self._await_beat)
            await asyncio.to_thread(self.dispatcher.stop)
            if listener is not None:
                await asyncio.to_thread(listener.close)
            for channel in self.channels.values():
                await channel.close()

    def retire(self) -> None:
        """Claim and fire nothing more; what is in hand is finished."""
        self._retired = True
        self.delivery.retire()

    def close(self) -> None:
        """Let the database go, and the spool."""
        self.dispatcher.stop()
        if self.spool is not None:
            self.spool.close()
        self.services.database.close()


def _works(channel: Channel) -> bool:
    """Is its `run` for workers? What only one process can send must be heard by one that sends."""
    return isinstance(channel, Exclusive) or (isinstance(channel, Working) and channel.works)


def tune_interpreter() -> None:
    """Make this process the home of one installation; called once, when everything is loaded.

    Each statement of the writer gives the interpreter away and wants it back: with Python's 5 ms
    the writer and the loop would keep interrupting one another in mid-message. And what was loaded
    never becomes garbage, so the collector need not look at it again and again.
    """
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


async def _keep_running(channel: Channel, receive: Receive) -> None:
    """A channel that falls down gets up again; the others do not notice."""
    wait = 1.0
    while True:
        try:
            await channel.run(receive)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # one platform in trouble must not stop the rest
            log.warning("channel_down", channel=channel.facts.name, error=type(error).__name__)
        else:
            return
        await asyncio.sleep(wait)
        wait = min(60.0, wait * 2)


def services_for(
    settings: Settings,
    channels: Mapping[str, ChannelFacts],
    *,
    keys: str,
    clock: Clock | None = None,
    catalog: Catalog | None = None,
) -> Services:
    """Open the database and load the place; raises ConfigError with one line for the operator."""
    known = catalog or collect()
    try:
        ring = KeyRing(keys)
    except ValueError as error:
        raise ConfigError("HONGYAN_KEYS 未设置或太短；请先运行 hongyan init 生成") from error
    place = known.places.load(settings.place, settings.office)
    return Services(
        Database(settings.database_url, ring),
        clock or SteadyClock(),
        settings,
        known,
        place,
        channels,
    )


def build_channels(settings: Settings, clock: Clock) -> dict[str, Channel]:
    """The channels that HONGYAN_CHANNELS names."""
    built: dict[str, Channel] = {}
    for name in settings.enabled:
        if name not in CHANNELS:
            known = "、".join(CHANNELS)
            raise ConfigError(f"HONGYAN_CHANNELS 里的「{name}」这个版本不认得；可用：{known}")
        built[name] = importlib.import_module(CHANNELS[name]).build(settings, clock)
    return built


def facts_of(channels: Mapping[str, Channel]) -> dict[str, ChannelFacts]:
    """What the core needs to know of each channel."""
    return {name: channel.facts for name, channel in channels.items()}


def missing_of(channels: Mapping[str, Channel]) -> Sequence[str]:
    """What each channel still lacks, in plain words."""
    return [f"{name}：{line}" for name, channel in channels.items() for line in channel.check()]
