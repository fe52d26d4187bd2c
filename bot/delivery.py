"""Outbox to channels: claim ahead, render, gate, send, acknowledge; nothing else ever sends.

The loop keeps more rows leased than calls in flight, so that calls never wait for the database.
All database work runs in two threads: one claims and renders, one gates and
acknowledges.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from bot.alarm import call_for_help
from bot.channels.base import Awaiting, Channel, Exclusive, Notice, Notifying
from bot.clock import BEIJING
from bot.commands import Purpose
from bot.context import Services
from bot.errors import SendError
from bot.messages import Address, Part, Reply, load_reply
from bot.text import content_hash, merged, shape
from storage import mailbox
from storage.campaigns import Campaign
from storage.mailbox import Claimed, Outcome, State
from storage.people import Contact, Person

IN_FLIGHT = 64
AHEAD = 3  # leases held for each call slot, so that calls need not run in lock-step
RESERVED = 8  # call slots that only urgent lanes may use
POLL = 0.25  # seconds between looks when nobody wakes us
WORKER_TTL = timedelta(seconds=10)
TRIES = 5
FIRST_WAIT = 2.0  # seconds before the second try; doubles, half of it by chance
STOPPED = 300.0  # seconds until a channel that waits for a person's hand is tried again
LONGEST_WAIT = timedelta(days=1).total_seconds()  # whatever patience a platform asks for
AWAKE = timedelta(minutes=10)  # after their last word; until then nothing disturbs anybody's night

log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True)
class _Ready:
    """A claimed row with the bubbles that are still to leave."""

    row: Claimed
    parts: tuple[Part, ...]
    digest: str
    due: float
    """When its slot is, by the loop's clock."""
    zone: ZoneInfo | None = None
    """Whose quiet hours it keeps, None for what keeps none."""
    noticed: bool = False
    """Its reader's window is closed: they are only told that it waits."""


@dataclass
class _Counters:
    """What `hongyan doctor` and /metrics tell about the loop."""

    sent: int = 0
    failed: int = 0
    unknown: int = 0
    retried: int = 0
    by_reason: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    moved: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Rows something became of, by lane."""


class Delivery:
    """Drains the outbox through the channels until cancelled."""

    def __init__(
        self,
        services: Services,
        channels: Mapping[str, Channel],
        *,
        alone: bool,
        worker: str = "",
        in_flight: int = IN_FLIGHT,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.services = services
        self.channels = channels
        self._notifying = {n: c for n, c in channels.items() if isinstance(c, Notifying)}
        self.worker = worker or f"w{secrets.token_hex(6)}"
        self.counters = _Counters()
        self._alone = alone
        self._slots = in_flight
        self._handful = max(1, in_flight // 8)
        self._chance = chance
        self._awake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._database = services.database
        self._claims = ThreadPoolExecutor(1, thread_name_prefix="claims")
        self._ledger = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._results: list[Outcome] = []
        self._doubtful: set[int] = set()
        self._claiming: asyncio.Task[None] | None = None
        self._exchanging: asyncio.Task[int] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._ready: list[_Ready] = []
        self._chains: dict[str, asyncio.Task[None]] = {}
        self._beaten = 0.0

    def wake(self) -> None:
        """Look at the outbox now; may be called from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._awake.set)

    # - the loop -

    async def run(self) -> None:
        """Drain until cancelled; calls under way are finished and written down first."""
        self._loop = asyncio.get_running_loop()
        prepared = False
        try:
            while True:
                try:
                    if not prepared:
                        await self._in_claims(self._prepare)
                        prepared = True
                    moved = await self._round()
                except asyncio.CancelledError:
                    raise
                except Exception as error:  # noqa: BLE001  # the loop outlives a database in trouble
                    log.warning("delivery_round_failed", error=type(error).__name__)
                    moved = False
                    await asyncio.sleep(POLL)
                if not moved:
                    await self._rest()
        finally:
            await self._drain()

    async def until_idle(self, seconds: float = 10.0) -> None:
        """Drain what is due now, then return (tests, the demo's clock)."""
        self._loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            await self._in_claims(self._prepare)
            while True:
                # A call that ends during the round may have made way for a row to its address.
                before = self._busy()
                started = await self._round()
                if started:
                    continue
                if self._claiming is not None:
                    await self._claiming
                if not before and not self._busy():
                    return
                if self._busy():
                    await self._rest()

    def _busy(self) -> bool:
        claiming = self._claiming is not None and not self._claiming.done()
        return bool(self._calls or self._ready or self._results or claiming)

    async def _rest(self) -> None:
        """Wait until something ends, somebody wakes us, or it is time to look again."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._awake.wait(), self._nap())
        self._awake.clear()

    def _nap(self) -> float:
        if not self._ready:
            return POLL
        assert self._loop is not None
        return min(POLL, max(0.001, min(r.due for r in self._ready) - self._loop.time()))

    def _prepare(self) -> None:
        with self._database.transaction() as connection:
            for facts in self.services.channels.values():
                for urgent in (True, False):
                    gap = facts.live_gap_ms if urgent else facts.bulk_gap_ms
                    lane = facts.lane(urgent=urgent)
                    mailbox.ensure_lane(connection, lane, 0 if urgent else 9, gap, facts.burst)
            mailbox.beat(connection, self.worker)
            mailbox.sweep(connection, self.worker, WORKER_TTL, alone=self._alone)

    async def _round(self) -> bool:
        """Claim, gate and start what there is room for; True if anything moved."""
        assert self._loop is not None
        if self._loop.time() - self._beaten > WORKER_TTL.total_seconds() / 5:
            self._beaten = self._loop.time()
            if self._claiming is not None:
                await asyncio.wait([self._claiming])
            await self._in_claims(self._beat, [ready.row.id for ready in self._ready])
        self._claim_soon()
        # Shielded: cut off in the middle, rows would be gated and never sent, results forgotten.
        self._exchanging = asyncio.create_task(self._exchange())
        return await asyncio.shield(self._exchanging) > 0

    def _beat(self, known: Sequence[int]) -> None:
        with self._database.transaction() as connection:
            mailbox.beat(connection, self.worker)
            mailbox.release_unknown(connection, self.worker, known)
            mailbox.sweep(connection, self.worker, WORKER_TTL, alone=False)
            mailbox.expire_overdue(connection, self.services.clock.now())

    # - claiming and rendering -

    def _claim_soon(self) -> None:
        """Keep leases ahead of the calls; claiming goes on beside gating."""
        free = self._slots * AHEAD - len(self._ready) - len(self._calls)
        if free >= self._slots and (self._claiming is None or self._claiming.done()):
            self._claiming = asyncio.create_task(self._claim(free))

    async def _claim(self, free: int) -> None:
        assert self._loop is not None
        try:
            ready = await self._in_claims(self._claim_rows, free)
        except Exception as error:  # noqa: BLE001  # the loop outlives a database in trouble
            log.warning("claim_failed", error=type(error).__name__)
            return
        now = self._loop.time()
        self._ready += [replace(r, due=now + r.due) for r in ready]
        if ready:
            self._awake.set()

    def _claim_rows(self, free: int) -> list[_Ready]:
        now = self.services.clock.now()
        rows: list[Claimed] = []
        with self._database.engine.connect() as connection:
            lanes = mailbox.due_lanes(connection, now)
        if not lanes:
            return []
        with self._database.transaction() as connection:
            for lane in lanes:
                name = lane.partition(":")[0]
                channel = self.channels.get(name)
                if channel is None or (isinstance(channel, Exclusive) and not channel.may_speak()):
                    continue
                spare = free if lane.endswith(":live") else free - RESERVED
                rows += mailbox.claim(connection, lane, self.worker, now, spare - len(rows))
        return self._render(rows)

    def _render(self, rows: Sequence[Claimed]) -> list[_Ready]:
        """Words for each row: stored ones, or its campaign's template as it now stands."""
        stored = [row for row in rows if row.body is not None]
        replies = self._opened(stored)
        by_campaign: dict[int, list[Claimed]] = defaultdict(list)
        for row in rows:
            if row.body is None and row.campaign_id is not None:
                by_campaign[row.campaign_id].append(row)
        for campaign_id, members in by_campaign.items():
            rendered = self._render_campaign(campaign_id, members)
            for row in members:
                if row.person_id is not None and row.person_id in rendered:
                    replies[row.id] = rendered[row.person_id]
        self._give_up([row.id for row in stored if row.id not in replies], "unreadable")
        self._give_up(
            [row.id for row in rows if row.body is None and row.id not in replies], "render"
        )
        zones = self._quiet_zones(rows)
        return [
            replace(self._shaped(row, replies[row.id]), zone=zones.get(row.id))
            for row in rows
            if row.id in replies
        ]

    def _opened(self, rows: Sequence[Claimed]) -> dict[int, Reply]:
        """The stored words of those rows whose words can be read."""
        replies: dict[int, Reply] = {}
        for row in rows:
            try:
                replies[row.id] = load_reply(self._database.keys.open(bytes(row.body or b"")))
            except Exception as error:  # noqa: BLE001  # a spoilt row must not stop its lane
                log.error("body_unreadable", row=row.id, error=type(error).__name__)
        return replies

    def _give_up(self, ids: Sequence[int], reason: str) -> None:
        if ids:
            with self._database.transaction() as connection:
                mailbox.fail_leased(connection, self.worker, ids, reason)

    def _quiet_zones(self, rows: Sequence[Claimed]) -> dict[int, ZoneInfo]:
        """By row whose quiet hours it keeps; those who have just written are awake anyway."""
        quiet = {p.name for p in self.services.catalog.of(Purpose) if p.quiet}
        mine = [row for row in rows if row.purpose in quiet]
        if not mine:
            return {}
        query = (
            select(col(Contact.address), col(Person.timezone), col(Contact.last_seen_at))
            .join(Person, col(Person.id) == col(Contact.person_id))
            .where(col(Contact.address).in_({row.address for row in mine}))
        )
        with self._database.engine.connect() as connection:
            known = {row.address: row for row in connection.execute(query)}
        zones: dict[int, ZoneInfo] = {}
        for row in mine:
            found = known.get(row.address)
            if row.windowed and found and self.services.clock.now() < found.last_seen_at + AWAKE:
                continue
            zones[row.id] = ZoneInfo(found.timezone) if found and found.timezone else BEIJING
        return zones

    def _render_campaign(self, campaign_id: int, rows: Sequence[Claimed]) -> Mapping[int, Reply]:
        with self._database.reading() as session:
            campaign = session.get(Campaign, campaign_id)
            content = self.services.catalog.content(campaign.kind) if campaign else None
            if campaign is None or content is None:
                return {}
            people = [row.person_id for row in rows if row.person_id is not None]
            try:
                return content.render(self.services, session, campaign, people)
            except DBAPIError:
                raise  # a database in trouble says nothing about the words
            except Exception as error:  # noqa: BLE001  # one broken campaign must not stop others
                log.error("render_failed", campaign=campaign_id, error=type(error).__name__)
        if len(rows) == 1:
            return {}
        # One person's file may be what broke it: the others get theirs.
        alone = [self._render_campaign(campaign_id, [row]) for row in rows]
        return {person: reply for found in alone for person, reply in found.items()}

    def _shaped(self, row: Claimed, reply: Reply) -> _Ready:
        facts = self.services.channels[row.lane.partition(":")[0]]
        parts = shape(reply, facts, self.services.settings.public_url)
        if facts.windowed:
            parts = merged(parts, facts)  # its platform counts bubbles
        return _Ready(row, parts, content_hash(reply.text), row.slot_ms / 1000)

    # - gate and send -

    async def _exchange(self) -> int:
        """Write down what came back and gate what may leave, in one transaction.

        Returns how many calls were started. The rows between gate and acknowledgement never exceed
        the call slots, so a crash leaves at most that many unknown.
        """
        assert self._loop is not None
        ripe, sleepers = self._by_night(self._ripe(self._loop.time()))
        outcomes, self._results = self._results, []
        if not ripe and not outcomes and not sleepers:
            return 0
        ids = [ready.row.id for ready in ripe]
        try:
            passed, noticed = await self._loop.run_in_executor(
                self._ledger, self._write, outcomes, ripe, tuple(self._doubtful), sleepers
            )
        except Exception as error:  # noqa: BLE001  # kept in memory until the database is back
            log.warning("ledger_failed", error=type(error).__name__, rows=len(outcomes))
            self._results = outcomes + self._results
            self._ready = ripe + self._ready
            self._doubtful.update(ids)
            await asyncio.sleep(POLL)
            return 0
        self._doubtful.clear()
        for ready in ripe:
            if ready.row.id in passed:
                self._launch(ready)
            elif ready.row.id in noticed:
                self._launch(replace(ready, noticed=True))
        return len(ripe) + len(sleepers)

    def _by_night(self, ripe: Sequence[_Ready]) -> tuple[list[_Ready], dict[datetime, list[int]]]:
        """Those that may leave now, and by their morning the ids of those whose night has come."""
        now, quiet = self.services.clock.now(), self.services.settings.quiet
        awake: list[_Ready] = []
        sleepers: dict[datetime, list[int]] = defaultdict(list)
        for ready in ripe:
            morning = now if ready.zone is None else quiet.after(now, ready.zone)
            if morning > now:
                sleepers[morning].append(ready.row.id)
            else:
                awake.append(ready)
        return awake, sleepers

    def _ripe(self, now: float) -> list[_Ready]:
        """Take out of the ready rows as many as there are free calls, a handful at a time."""
        free = self._slots - len(self._calls)
        if not self._ready or (self._calls and free < self._handful):
            return []
        ripe = [ready for ready in self._ready if ready.due <= now][:free]
        taken = {ready.row.id for ready in ripe}
        self._ready = [ready for ready in self._ready if ready.row.id not in taken]
        return ripe

    def _write(
        self,
        outcomes: Sequence[Outcome],
        ripe: Sequence[_Ready],
        doubtful: Sequence[int],
        sleepers: Mapping[datetime, Sequence[int]],
    ) -> tuple[set[int], set[int]]:
        """Acknowledge, then gate: which may leave, and of which people may only be told.

        `doubtful`: gated in a transaction whose end we never saw.
        """
        ids = [ready.row.id for ready in ripe]
        with self._database.transaction() as connection:
            mailbox.acknowledge(connection, self.worker, outcomes)
            if doubtful:
                mailbox.take_back(connection, self.worker, doubtful)
            for morning, asleep in sleepers.items():
                mailbox.put_off(connection, self.worker, asleep, morning)
            if not ids:
                return set(), set()
            now = self.services.clock.now()
            tellable = [
                ready.row.id
                for ready in ripe
                if ready.row.windowed and self._can_be_told(ready.row)
            ]
            noticed = mailbox.gate_beyond(connection, ids, tellable, self.worker, now)
            rest = [id for id in ids if id not in noticed]
            return (mailbox.gate(connection, rest, self.worker, now) if rest else set()), noticed

    def _can_be_told(self, row: Claimed) -> bool:
        channel = self._notifying.get(row.lane.partition(":")[0])
        return (
            channel is not None
            and row.person_id is not None
            and row.purpose in channel.noticed
        )

    def _launch(self, ready: _Ready) -> None:
        """Start a call; two rows to one address leave in order."""
        before = self._chains.get(ready.row.address)
        task = asyncio.create_task(self._call(ready, before))
        self._calls.add(task)
        self._chains[ready.row.address] = task
        task.add_done_callback(lambda done: self._ended(ready.row.address, done))

    def _ended(self, address: str, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if self._chains.get(address) is task:
            del self._chains[address]
        if self._slots - len(self._calls) >= self._handful or not self._calls:
            self._awake.set()

    async def _call(self, ready: _Ready, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        outcome = await self._send(ready)
        self.counters.moved[ready.row.lane] += 1
        # Looked up after the wait: the exchange swaps the list while calls are under way.
        self._results.append(outcome)

    async def _send(self, ready: _Ready) -> Outcome:
        row = ready.row
        channel = self.channels[row.lane.partition(":")[0]]
        address = Address.parse(row.address)
        done, state = row.parts_sent, State.SENT
        sent: str | Awaiting = ""
        try:
            if ready.noticed:
                sent = await self._notify(ready, address)
                done = len(ready.parts)
            for number in range(done, len(ready.parts)):
                sent = await channel.send(address, ready.parts[number], f"{row.id}-{number}")
                done = number + 1
        except SendError as error:
            return await self._refused(ready, error, done)
        except Exception as error:  # noqa: BLE001  # a channel's bug is not known to have sent nothing
            log.error("channel_failed", lane=row.lane, error=type(error).__name__)
            return await self._refused(ready, SendError("bug", unknown=True), done)
        self.counters.sent += 1
        if isinstance(sent, Awaiting):
            state, sent = State.AWAITING_STAFF, sent.id
        return Outcome(
            row.id,
            state,
            reason="notice" if ready.noticed else "",
            attempts=row.attempts + 1,
            parts_sent=done,
            sent_at=self.services.clock.now(),
            provider_id=sent,
            body_hash=ready.digest,
        )

    async def _notify(self, ready: _Ready, address: Address) -> str:
        row = ready.row
        assert row.person_id is not None
        text = "\n\n".join(part.text for part in ready.parts)
        notice = Notice(row.id, row.purpose, row.person_id, text)
        channel = self._notifying[address.channel]
        return await channel.notify(address, notice, f"{row.id}-{row.parts_sent}")

    async def _refused(self, ready: _Ready, error: SendError, done: int) -> Outcome:
        """What a failed call makes of a row."""
        row, now = ready.row, self.services.clock.now()
        self.counters.by_reason[error.reason] += 1
        if error.stop_channel or (error.retry_after is not None and not error.only_here):
            await self._quieten(row.lane, error)
        if error.unknown and not row.repeatable:
            self.counters.unknown += 1
            return Outcome(row.id, State.UNKNOWN, error.reason, row.attempts + 1, done)
        if error.reason == "window":
            return Outcome(row.id, State.DEFERRED, "window", row.attempts, done)
        if error.permanent:
            self.counters.failed += 1
            return Outcome(row.id, State.FAILED, error.reason, row.attempts + 1, done)
        self.counters.retried += 1
        if error.retry_after is not None or error.stop_channel:
            # The platform asked for patience, or for a person's hand; that is not a try.
            due = now + timedelta(seconds=_patience(error))
            return Outcome(row.id, State.QUEUED, error.reason, row.attempts, done, due)
        tries = row.attempts + 1
        if tries >= TRIES:
            self.counters.failed += 1
            return Outcome(row.id, State.DEAD, error.reason, tries, done)
        wait = FIRST_WAIT * 2**row.attempts * (0.5 + self._chance())
        due = now + timedelta(seconds=wait)
        return Outcome(row.id, State.QUEUED, error.reason, tries, done, due)

    async def _quieten(self, lane: str, error: SendError) -> None:
        """Keep the lane quiet; what became of the row in hand is written down in any case."""
        try:
            await self._in_claims(self._block, lane, error)
        except Exception as trouble:  # noqa: BLE001  # the next refusal blocks it again
            log.warning("lane_not_blocked", lane=lane, error=type(trouble).__name__)

    def _block(self, lane: str, error: SendError) -> None:
        seconds = _patience(error)
        if error.stop_channel:
            log.error("channel_stopped", lane=lane, reason=error.reason, detail=error.detail)
        with self._database.transaction() as connection:
            mailbox.block_lane(connection, lane, seconds)
            if error.stop_channel:
                trouble = f"发不出消息：{error.detail or error.reason}"
                call_for_help(self.services, connection, lane.partition(":")[0], trouble)

    async def _in_claims(self, work: Callable[..., T], *arguments: object) -> T:
        assert self._loop is not None
        return await self._loop.run_in_executor(self._claims, work, *arguments)

    async def _drain(self) -> None:
        """Finish the calls under way, write them down, give the rest back."""
        if self._exchanging is not None:
            await asyncio.wait([self._exchanging])
        if self._calls:
            await asyncio.wait(self._calls, timeout=10)
        if self._claiming is not None:
            await asyncio.wait([self._claiming])
        ready, self._ready = self._ready, []
        for _try in range(20):
            if not self._results:
                break
            await self._exchange()
        left = [one.row.id for one in ready]
        if left:
            await self._in_claims(self._give_back, left)
        self._claims.shutdown()
        self._ledger.shutdown()

    def _give_back(self, ids: Sequence[int]) -> None:
        with self._database.transaction() as connection:
            mailbox.release(connection, self.worker, ids)


def _patience(error: SendError) -> float:
    """For how many seconds a channel, or an address, is left alone."""
    asked = STOPPED if error.retry_after is None else error.retry_after
    return min(max(asked, 0.0), LONGEST_WAIT)
