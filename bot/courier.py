"""The call itself: a gated row goes to its channel, and what came of it becomes an outcome."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from bot.alarm import call_for_help
from bot.breaker import Breaker
from bot.channels.base import Awaiting, Channel, Notice, Notifying, Paced
from bot.clerk import Clerk
from bot.context import Services
from bot.errors import SendError
from bot.messages import Address
from bot.wording import Ready
from storage.gate import Outcome
from storage.lanes import block_lane
from storage.states import State

TRIES = 5
FIRST_WAIT = 2.0  # seconds before the second try; doubles, half of it by chance
STOPPED = 300.0  # seconds until a channel that waits for a person's hand is tried again
LONGEST_WAIT = timedelta(days=1).total_seconds()  # whatever patience a platform asks for

log = structlog.get_logger()


@dataclass
class Counters:
    """What `hongyan doctor` and /metrics tell about the loop."""

    sent: int = 0
    failed: int = 0
    unknown: int = 0
    retried: int = 0
    late: int = 0
    """Rows that asked for another slot because theirs had gone by, or no line was free."""
    by_reason: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    moved: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Rows something became of, by lane."""


class Courier:
    """Carries gated rows; what the database must know of a channel it has a clerk write down."""

    def __init__(
        self,
        services: Services,
        channels: Mapping[str, Channel],
        breaker: Breaker,
        clerk: Clerk,
        chance: Callable[[], float],
    ) -> None:
        self.services = services
        self.channels = channels
        self.notifying = {n: c for n, c in channels.items() if isinstance(c, Notifying)}
        self.paced = {n: c for n, c in channels.items() if isinstance(c, Paced)}
        self.counters = Counters()
        self._breaker = breaker
        self._clerk = clerk
        self._chance = chance

    async def send(self, ready: Ready) -> Outcome:
        """Send what of a row has not left yet; raises only when it is cancelled."""
        row = ready.row
        name = channel_of(row.lane)
        channel = self.channels[name]
        done, state = row.parts_sent, State.SENT
        sent: str | Awaiting = ""
        try:
            address = Address.parse(row.address)
            if ready.noticed:
                sent = await self._notify(ready, address)
                done = len(ready.parts)
            for number in range(done, len(ready.parts)):
                part, key = ready.parts[number], f"{row.id}-{number}"
                if ready.in_turn and number == row.parts_sent:
                    sent = await self.paced[name].send_in_turn(address, part, key)
                else:
                    sent = await channel.send(address, part, key)
                done = number + 1
        except SendError as error:
            return await self._refused(ready, error, done)
        except (Exception, asyncio.CancelledError) as error:
            # A channel's bug is not known to have sent nothing.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            log.error("channel_failed", lane=row.lane, error=type(error).__name__)
            return await self._refused(ready, SendError("bug", unknown=True), done)
        self.counters.sent += 1
        self._breaker.answered(name)
        if row.probe:
            await self._try_to(self._breaker.mend, name)
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

    async def _notify(self, ready: Ready, address: Address) -> str:
        row = ready.row
        assert row.person_id is not None
        text = "\n\n".join(part.text for part in ready.parts)
        notice = Notice(row.id, row.purpose, row.person_id, text)
        channel = self.notifying[address.channel]
        return await channel.notify(address, notice, f"{row.id}-{row.parts_sent}")

    async def _refused(self, ready: Ready, error: SendError, done: int) -> Outcome:
        """What a failed call makes of a row."""
        row, now = ready.row, self.services.clock.now()
        name = channel_of(row.lane)
        self.counters.by_reason[error.reason] += 1
        if error.stop_channel or (error.retry_after is not None and not error.only_here):
            await self._quieten(row.lane, error)
        elif _is_answer(error):
            self._breaker.answered(name)
            if row.probe:
                await self._try_to(self._breaker.mend, name)
        elif self._breaker.failed(name):
            await self._try_to(self._breaker.break_off, name, error.reason)
        # Where a second copy does harm, what may have arrived is not known to have failed.
        tried = not row.repeatable and (error.unknown or row.tried_at is not None)
        known_for = self.services.channels[name].known_for
        if error.unknown and tried and not known_for:
            self.counters.unknown += 1
            return Outcome(row.id, State.UNKNOWN, error.reason, row.attempts + 1, done, tried=True)
        if error.reason == "window":
            return Outcome(row.id, State.DEFERRED, "window", row.attempts, done, tried=tried)
        if error.permanent:
            self.counters.failed += 1
            state = State.UNKNOWN if tried else State.FAILED
            return Outcome(row.id, state, error.reason, row.attempts + 1, done, tried=tried)
        self.counters.retried += 1
        if error.retry_after is not None or error.stop_channel:
            # The platform asked for patience, or for a person's hand; that is not a try.
            due = now + timedelta(seconds=_patience(error))
            return Outcome(row.id, State.QUEUED, error.reason, row.attempts, done, due, tried=tried)
        if row.probe or self._breaker.is_off(name):
            # The channel is out of order, not the message.
            return Outcome(row.id, State.QUEUED, error.reason, row.attempts, done, tried=tried)
        tries = row.attempts + 1
        if tries >= TRIES:
            self.counters.failed += 1
            state = State.UNKNOWN if tried else State.DEAD
            return Outcome(row.id, state, error.reason, tries, done, tried=tried)
        wait = FIRST_WAIT * 2**row.attempts * (0.5 + self._chance())
        due = now + timedelta(seconds=wait)
        return Outcome(row.id, State.QUEUED, error.reason, tries, done, due, tried=tried)

    async def _try_to(self, work: Callable[..., None], *arguments: object) -> None:
        """What becomes of the row in hand is written down whether or not this works."""
        try:
            await self._clerk.does(work, *arguments)
        except Exception as error:  # noqa: BLE001  # the next answer, or the next silence, does it
            log.warning("breaker_not_moved", error=type(error).__name__)

    async def _quieten(self, lane: str, error: SendError) -> None:
        """Keep the lane quiet; what became of the row in hand is written down in any case."""
        try:
            await self._clerk.does(self._block, lane, error)
        except Exception as trouble:  # noqa: BLE001  # the next refusal blocks it again
            log.warning("lane_not_blocked", lane=lane, error=type(trouble).__name__)

    def _block(self, lane: str, error: SendError) -> None:
        seconds = _patience(error)
        if error.stop_channel:
            log.error("channel_stopped", lane=lane, reason=error.reason, detail=error.detail)
        with self._clerk.transaction() as connection:
            block_lane(connection, lane, seconds)
            if error.stop_channel:
                trouble = f"发不出消息：{error.detail or error.reason}"
                call_for_help(self.services, connection, channel_of(lane), trouble)


def channel_of(lane: str) -> str:
    """The channel a lane belongs to."""
    return lane.partition(":")[0]


def _is_answer(error: SendError) -> bool:
    """Did the platform say something, be it no?"""
    return (
        error.permanent
        or error.only_here
        or error.retry_after is not None
        or error.reason == "window"
    )


def _patience(error: SendError) -> float:
    """For how many seconds a channel, or an address, is left alone."""
    asked = STOPPED if error.retry_after is None else error.retry_after
    return min(max(asked, 0.0), LONGEST_WAIT)
