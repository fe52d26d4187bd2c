"""Outbox to channels: claim ahead, render, gate, send, acknowledge; nothing else ever sends.

The loop keeps more rows leased than calls in flight, so that calls never wait for the database.
All database work runs in two threads: one claims and renders, one gates and acknowledges.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from bot.breaker import Breaker
from bot.channels.base import Channel, Exclusive
from bot.clerk import Clerk
from bot.context import Services
from bot.courier import Courier, channel_of
from bot.lines import MOST_LEAD, Lines, Usually
from bot.messages import Address
from bot.wording import Ready, Wording
from storage import claims, gate, steering
from storage.claims import Claimed
from storage.gate import Outcome
from storage.lanes import ensure_lane
from storage.states import State

IN_FLIGHT = 64
AHEAD = 4  # leases held for each call slot, so that calls need not run in lock-step
RESERVED = 8  # call slots that only urgent lanes may use
POLL = 0.25  # seconds between looks when nobody wakes us
WORKER_TTL = timedelta(seconds=10)
JUMP = timedelta(minutes=1)  # by which a clock that goes back is said to have been set
HANGS = 2  # times the longest lately, after which the oldest call is not about to end
FENCE = 0.8  # of that time without a beat, after which we start no call: others may think us dead
FINISH = 6.0  # seconds for calls under way, and for their results, when we are asked to end

log = structlog.get_logger()


def most_sending(in_flight: int) -> int:
    """How many rows may be between gate and acknowledgement, with so many calls at once: a few more
    than calls, so that none is idle while a transaction goes to the disk."""
    return in_flight + in_flight // 2


@dataclass(frozen=True)
class _Leave:
    """What passed the gate: ids of rows, of those whose people may only be told, and in turn."""

    passed: frozenset[int] = frozenset()
    noticed: frozenset[int] = frozenset()
    in_turn: frozenset[int] = frozenset()


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
        ttl: timedelta = WORKER_TTL,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.services = services
        self.channels = channels
        self._breaker = Breaker(services)
        self._quiet = services.settings.quiet
        self.worker = worker or f"w{secrets.token_hex(6)}"
        self._alone = alone
        self._slots = in_flight
        self._ttl = ttl
        self._handful = max(1, in_flight // 8)
        # Calls begun together end together, and all slots wait while they are written down. In
        # several batches they take turns; but on PostgreSQL each costs its round trips.
        self._batch = max(1, in_flight // (4 if services.database.sqlite else 2))
        self._awake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        database = services.database.steady
        self._wording = Wording(services, self.worker)
        self._claims = Clerk("claims", database)
        self._ledger = Clerk("ledger", database)
        self._courier = Courier(services, channels, self._breaker, self._claims, chance)
        self.counters = self._courier.counters
        self._results: list[Outcome] = []
        self._doubtful: dict[int, bool] = {}
        self._returned: list[int] = []
        self._missing: set[str] = set()  # addresses of which a row is about to be claimed again
        self._claiming_takes, self._gating_takes = Usually(), Usually()
        self._claiming: asyncio.Task[None] | None = None
        self._exchanging: asyncio.Task[int] | None = None
        self._lines, self._soon = Lines(in_flight, self._call, self._ended), 0
        self._ready: list[Ready] = []
        self._lived = 0.0  # when we last said that we live, by the loop's clock
        self._seen: dict[str, tuple[int, float]] = {}  # each worker's beat, and since when we know
        self._told = services.clock.now()
        self._retired = False
        self._called_since = False

    def wake(self) -> None:
        """Look at the outbox now; may be called from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._called)

    def _called(self) -> None:
        self._called_since = True
        self._awake.set()

    def retire(self) -> None:
        """Claim nothing more; what is claimed may still leave."""
        self._retired = True

    # - the loop -

    async def run(self) -> None:
        """Drain until cancelled; calls under way are finished and written down first."""
        self._loop = asyncio.get_running_loop()
        prepared, trouble = False, ""
        try:
            while True:
                try:
                    if not prepared:
                        await self._claims.does(self._prepare)
                        prepared = True
                    moved, trouble = await self._round(), ""
                except asyncio.CancelledError:
                    raise
                except Exception as error:  # noqa: BLE001  # the loop outlives a database in trouble
                    if trouble != type(error).__name__:  # once, however long it lasts
                        log.warning("delivery_round_failed", error=type(error).__name__)
                    moved, trouble = False, type(error).__name__
                    await asyncio.sleep(POLL)
                if not moved:
                    await self._rest()
        finally:
            await self._drain()

    async def until_idle(self, seconds: float = 10.0) -> None:
        """Drain what is due now, then return (tests, the demo's clock)."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                await self._until_idle()
        finally:
            await self._claims.rest()
            await self._ledger.rest()

    async def _until_idle(self) -> None:
        await self._claims.does(self._prepare)
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
        return bool(self._lines or self._ready or self._results or claiming)

    async def _rest(self) -> None:
        """Wait until something ends, somebody wakes us, or it is time to look again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._nap()):
                await self._awake.wait()
        self._awake.clear()

    def _nap(self) -> float:
        if not self._ready or not self._room():
            return POLL  # a call that ends wakes us
        return min(POLL, max(0.001, min(map(self._ripens, self._ready)) - monotonic()))

    def _ripens(self, ready: Ready) -> float:
        """When a row should ask the gate, so that it leaves in its slot."""
        lead = min(MOST_LEAD, self._gating_takes.seconds) if ready.row.gap_ms else 0.0
        return ready.due - lead

    def _prepare(self) -> None:
        with self._claims.transaction() as connection:
            for facts in self.services.channels.values():
                for urgent in (True, False):
                    gap = facts.live_gap_ms if urgent else facts.bulk_gap_ms
                    lane = facts.lane(urgent=urgent)
                    known = round(facts.known_for / timedelta(milliseconds=1))
                    ensure_lane(connection, lane, 0 if urgent else 9, gap, facts.burst, known)
            claims.beat(connection, self.worker)
            claims.sweep(connection, self.worker, self._ttl, alone=self._alone)
            self._told = self.services.clock.now()
            claims.wind_back(connection, self._told)

    async def _round(self) -> bool:
        """Claim, gate and start what there is room for; True if anything moved."""
        assert self._loop is not None
        if self._loop.time() - self._lived > self._ttl.total_seconds() / 5:
            await self._live(self._loop.time())
        self._lines.give_up_waiting()
        self._claim_soon()
        # Shielded: cut off in the middle, rows would be gated and never sent, results forgotten.
        self._exchanging = asyncio.create_task(self._exchange())
        return await asyncio.shield(self._exchanging) > 0

    async def _live(self, now: float) -> None:
        """Say that we live. Who could not say so for long must not judge others by their silence:
        the database may have been away from them too."""
        if now - self._lived > self._ttl.total_seconds() / 2:
            self._seen.clear()
        if self._claiming is not None:
            await asyncio.wait([self._claiming])
        known = [ready.row.id for ready in self._ready]
        await self._claims.does(self._beat, known, now)
        self._lived = now

    def _beat(self, known: Sequence[int], now: float) -> None:
        with self._claims.transaction() as connection:
            claims.beat(connection, self.worker)
            claims.release_unknown(connection, self.worker, known)
            before, self._told = self._told, self.services.clock.now()
            if self._told < before - JUMP:
                log.warning("clock_set_back", rows=claims.wind_back(connection, self._told))
            living = self._living(claims.beats(connection), now)
            claims.sweep(connection, self.worker, self._ttl, alone=False, living=living)
            steering.expire_overdue(connection, self.services.clock.now())

    def _living(self, beats: Mapping[str, int], now: float) -> list[str]:
        """Those whose beat has changed of late, by our own clock that never jumps."""
        self._seen = {
            worker: known if (known := self._seen.get(worker)) and known[0] == beat else (beat, now)
            for worker, beat in beats.items()
        }
        patience = self._ttl.total_seconds()
        return [worker for worker, (_beat, since) in self._seen.items() if now - since < patience]

    # - claiming and rendering -

    def _claim_soon(self) -> None:
        """Keep leases ahead of the calls; claiming goes on beside gating."""
        free = self._slots * AHEAD - len(self._ready) - len(self._lines)
        if self._retired:
            return
        if free >= 2 * self._slots and (self._claiming is None or self._claiming.done()):
            self._called_since = False
            self._claiming = asyncio.create_task(self._claim(free))

    async def _claim(self, free: int) -> None:
        assert self._loop is not None
        off = self._breaker.off
        try:
            ready = await self._claims.does(self._claim_rows, free)
        except Exception as error:  # noqa: BLE001  # the loop outlives a database in trouble
            log.warning("claim_failed", error=type(error).__name__)
            return
        # What was taken from us meanwhile, and is ours again, is here once.
        again = {one.row.id for one in ready}
        self._ready = [one for one in self._ready if one.row.id not in again] + ready
        # What was broken off while we claimed is not whole for having been so when we looked.
        for name in off & {channel_of(one.row.lane) for one in ready if not one.row.probe}:
            self._breaker.seen_whole(name)
        # Whoever called while we claimed may have written after we had looked.
        if ready or self._called_since:
            self._awake.set()

    def _claim_rows(self, free: int) -> list[Ready]:
        began, now = monotonic(), self.services.clock.now()
        lead = round(1000 * (self._claiming_takes.seconds + self._gating_takes.seconds))
        rows: list[Claimed] = []
        # What was claimed and forgotten waits again, as if we had never claimed it.
        with self._claims.unhurried() as connection:
            lanes = claims.due_lanes(connection, now)
            for lane in lanes:
                name = channel_of(lane)
                channel = self.channels.get(name)
                if channel is None or (isinstance(channel, Exclusive) and not channel.may_speak()):
                    continue
                spare = free if lane.endswith(":live") else free - RESERVED
                spare -= len(rows)
                rows += claims.claim(connection, lane, self.worker, now, spare, lead_ms=lead)
        if not lanes:
            return []  # says nothing about how long claiming takes
        ready = self._wording.render(rows)
        self._claiming_takes.note(monotonic() - began)
        return ready

    # - gate and send -

    async def _exchange(self) -> int:
        """Write down what came back and gate what may leave, in one transaction.

        Returns how many calls were started. The rows between gate and acknowledgement are never
        more than `most_sending`, so a crash leaves at most that many unknown.
        """
        assert self._loop is not None
        began = monotonic()
        self._soon = self._ending_soon(began)
        ripe, sleepers = self._by_night(self._ripe(began))
        outcomes, self._results = self._results, []
        missing, self._missing = self._missing, set()
        if not (ripe or outcomes or sleepers or self._doubtful or self._returned):
            return 0
        returned, self._returned = self._returned, []
        try:
            leave = await self._ledger.does(
                self._write, outcomes, ripe, dict(self._doubtful), sleepers, returned
            )
        except Exception as error:  # noqa: BLE001  # kept in memory until the database is back
            log.warning("ledger_failed", error=type(error).__name__, rows=len(outcomes))
            self._results = outcomes + self._results
            self._missing |= missing
            self._ready = ripe + self._ready
            self._returned += returned
            self._doubtful.update(_tried(ripe))
            await asyncio.sleep(POLL)
            return 0
        self._gating_takes.note(monotonic() - began)
        if self._doubtful:
            self._forget_doubtful()
        if self._fenced():
            log.warning("gate_repeated", rows=len(leave.passed) + len(leave.noticed))
            gated = leave.passed | leave.noticed
            self._doubtful.update(_tried(one for one in ripe if one.row.id in gated))
            return 0
        self._launch(ripe, leave)
        return len(ripe) + len(sleepers)

    def _forget_doubtful(self) -> None:
        """What was taken back waits for its next claim, and what follows it at its address too."""
        gone = [one for one in self._ready if one.row.id in self._doubtful]
        self._missing |= {one.row.address for one in gone}
        self._ready = [one for one in self._ready if one.row.id not in self._doubtful]
        self._doubtful.clear()

    def _fenced(self) -> bool:
        """Have we been silent for so long that others may have judged what passed our gate?"""
        assert self._loop is not None
        silent = self._loop.time() - self._lived
        return bool(self._lived) and silent > FENCE * self._ttl.total_seconds()

    def _by_night(self, ripe: Sequence[Ready]) -> tuple[list[Ready], dict[datetime, list[int]]]:
        """Those that may leave now, and by their morning the ids of those whose night has come."""
        now = self.services.clock.now()
        awake: list[Ready] = []
        sleepers: dict[datetime, list[int]] = defaultdict(list)
        for ready in ripe:
            morning = now if ready.zone is None else self._quiet.after(now, ready.zone)
            if morning > now:
                sleepers[morning].append(ready.row.id)
            else:
                awake.append(ready)
        return awake, sleepers

    def _ripe(self, now: float) -> list[Ready]:
        """Take out of the ready rows as many as there are free calls, a handful at a time.

        Those whose slot will have gone by are given back, and so are those of a broken channel;
        what was to follow at the same address goes back with them, so that it still follows.
        """
        free = min(self._batch, self._free()) if self._room() else 0
        if not self._ready or not (free or self._missing):
            return []
        ripe: list[Ready] = []
        kept: list[Ready] = []
        through = now + min(MOST_LEAD, self._gating_takes.seconds)
        missing = set(self._missing)
        for looked, ready in enumerate(self._ready):
            if len(ripe) == free and not missing:
                kept += self._ready[looked:]
                break
            late = ready.late(through)
            if late or ready.row.address in missing or self._is_off(ready.row):
                self._returned.append(ready.row.id)
                missing.add(ready.row.address)
                self.counters.late += late
            elif len(ripe) < free and self._ripens(ready) <= now:
                ripe.append(ready)
            else:
                kept.append(ready)
        self._ready = kept
        return ripe

    def _is_off(self, row: Claimed) -> bool:
        return not row.probe and self._breaker.is_off(channel_of(row.lane))

    def _write(
        self,
        outcomes: Sequence[Outcome],
        ripe: Sequence[Ready],
        doubtful: Mapping[int, bool],
        sleepers: Mapping[datetime, Sequence[int]],
        returned: Sequence[int],
    ) -> _Leave:
        """Acknowledge, then gate: which may leave, and of which people may only be told.

        `doubtful`: gated in a transaction whose end we never saw, and whether they may have
        arrived before that. `returned` are to be claimed again.
        """
        ids = [ready.row.id for ready in ripe]
        with self._ledger.transaction() as connection:
            campaigns = {one.row.campaign_id for one in ripe if one.row.campaign_id is not None}
            gate.wait_at_fences(connection, campaigns)
            gate.acknowledge(connection, self.worker, outcomes)
            if doubtful:
                tried = [id for id, before in doubtful.items() if before]
                gate.take_back(connection, self.worker, list(doubtful), tried)
            if returned:
                claims.release(connection, self.worker, returned)
            for morning, asleep in sleepers.items():
                claims.put_off(connection, self.worker, asleep, morning)
            if not ids:
                return _Leave()
            now = self.services.clock.now()
            tellable = [
                ready.row.id
                for ready in ripe
                if ready.row.windowed and self._can_be_told(ready.row)
            ]
            noticed = gate.gate_beyond(connection, ids, tellable, self.worker, now)
            rest = [id for id in ids if id not in noticed]
            passed = gate.gate(connection, rest, self.worker, now) if rest else set()
            in_turn = self._take_turns(connection, [r.row for r in ripe if r.row.id in passed])
            return _Leave(frozenset(passed), frozenset(noticed), in_turn)

    def _take_turns(self, connection: Connection, rows: Sequence[Claimed]) -> frozenset[int]:
        """Of rows that leave, those whose chat is free; its turn is theirs."""
        found: set[int] = set()
        for name, channel in self._courier.paced.items():
            ours = [row for row in rows if channel_of(row.lane) == name]
            mine = {Address.parse(row.address): row.id for row in ours}
            if mine:
                free = channel.take_turns(connection, list(mine))
                found |= {mine[address] for address in free}
        return frozenset(found)

    def _can_be_told(self, row: Claimed) -> bool:
        channel = self._courier.notifying.get(channel_of(row.lane))
        return channel is not None and row.person_id is not None and row.purpose in channel.noticed

    def _launch(self, ripe: Sequence[Ready], leave: _Leave) -> None:
        """Have those sent that may leave; never a row twice, whatever was."""
        for id, ready in {one.row.id: one for one in ripe}.items():  # of two as claimed last
            if id in leave.noticed:
                leaving = ready._replace(noticed=True)
            elif id in leave.in_turn:
                leaving = ready._replace(in_turn=True)
            elif id in leave.passed:
                leaving = ready
            else:
                continue
            if ready.row.address in self._missing:
                self._ended(leaving, None)
            else:
                self._lines.take(leaving)

    async def _call(self, ready: Ready) -> Outcome | None:
        """Send it; None if its slot or our time has gone by, or its channel was broken off."""
        if ready.row.gap_ms:
            if (early := ready.due - monotonic()) > 0:
                await asyncio.sleep(early)
            if ready.late(monotonic()):
                return None
        if self._fenced() or self._is_off(ready.row):
            return None
        return await self._courier.send(ready)

    def _ended(self, ready: Ready, outcome: Outcome | None) -> None:
        self.counters.moved[ready.row.lane] += 1
        self._results.append(outcome or self._missed(ready))
        if self._room():
            self._awake.set()

    def _missed(self, ready: Ready) -> Outcome:
        """Its slot went by after it had passed the gate, or it found no line: it has not left, and
        asks again."""
        row = ready.row
        self._missing.add(row.address)
        self.counters.late += 1
        tried = row.tried_at is not None
        return Outcome(
            row.id, State.QUEUED, attempts=row.attempts, parts_sent=row.parts_sent, tried=tried
        )

    def _room(self) -> bool:
        """Have enough calls ended for others to be worth a transaction?"""
        return not self._lines or self._free() >= self._handful

    def _free(self) -> int:
        """How many rows may pass the gate: when they have, there is a call for each of them."""
        return self._slots + self._soon - len(self._lines)

    def _ending_soon(self, now: float) -> int:
        """How many calls will have ended when a row that asks the gate now has passed it.

        None where calls take long, or nobody knows yet: what has passed is not to wait for one.
        Nor of what is counted as it passes: that would be lost.
        """
        usual, oldest = self._lines.usual.seconds, self._lines.oldest(now)
        if not usual or oldest > HANGS * usual or any(one.row.windowed for one in self._ready):
            return 0
        share = min(MOST_LEAD, self._gating_takes.seconds) / max(usual, oldest)
        return min(int(self._slots * share), most_sending(self._slots) - self._slots)

    async def _drain(self) -> None:
        """Finish the calls under way, write them down, give the rest back: as far as there is time.

        What a database out of reach does not learn now, another worker finds by our silence.
        """
        assert self._loop is not None
        until = self._loop.time() + FINISH
        if self._exchanging is not None:
            await asyncio.wait([self._exchanging])
        await self._lines.finish(until - self._loop.time())
        if self._claiming is not None:
            await asyncio.wait([self._claiming])
        ready, self._ready = self._ready, []
        while self._results:  # once at least, however long a call hung
            await self._exchange()
            if self._loop.time() >= until:
                break
        left = [one.row.id for one in ready]
        try:
            if left:
                await self._claims.does(self._give_back, left)
        except SQLAlchemyError as error:
            log.warning("leases_not_given_back", rows=len(left), error=type(error).__name__)
        self._claims.leave()
        self._ledger.leave()

    def _give_back(self, ids: Sequence[int]) -> None:
        with self._claims.transaction() as connection:
            claims.release(connection, self.worker, ids)


def _tried(rows: Iterable[Ready]) -> dict[int, bool]:
    """Ids of rows that were gated but not sent, and which of them may have arrived earlier."""
    return {one.row.id: one.row.tried_at is not None for one in rows}
