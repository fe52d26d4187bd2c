"""Notices that a platform is out of order, and lets one message at a time try it until it is not.

What counts is failures running that say nothing of the message: no connection, no answer, trouble
over there. A refusal is an answer.
"""

from __future__ import annotations

from collections import defaultdict

import structlog

from bot.alarm import call_for_help, give_all_clear
from bot.context import Services
from storage import lanes

FAILURES = 10  # running, as one process counts them

log = structlog.get_logger()


class Breaker:
    """Counts for one process; that a channel is broken off all processes read in its lanes."""

    def __init__(self, services: Services, failures: int = FAILURES) -> None:
        self._services = services
        self._most = failures
        self._running: dict[str, int] = defaultdict(int)
        self._off: set[str] = set()

    def answered(self, channel: str) -> None:
        """The platform said something."""
        self._running[channel] = 0

    def failed(self, channel: str) -> bool:
        """It said nothing; True when that is enough: then the channel is to be broken off."""
        self._running[channel] += 1
        if self._running[channel] < self._most or channel in self._off:
            return False
        self._off.add(channel)
        return True

    @property
    def off(self) -> frozenset[str]:
        """The channels we know to be out of order."""
        return frozenset(self._off)

    def is_off(self, channel: str) -> bool:
        """Do we know of the channel that it is out of order?"""
        return channel in self._off

    def seen_whole(self, channel: str) -> None:
        """Its lanes give out rows as ever: another process has mended it."""
        if channel in self._off:
            self._off.discard(channel)
            self._running[channel] = 0

    def break_off(self, channel: str, reason: str) -> None:
        """Stop claiming its lanes, and tell those on duty once; for a thread."""
        log.error("channel_broken_off", channel=channel, reason=reason)
        with self._services.database.transaction() as connection:
            if lanes.break_off(connection, self._lanes(channel)):
                trouble = (
                    f"连续{self._most}条发不出去，已停下等着；每隔一会儿试一条，通了自己接着发。"
                )
                call_for_help(self._services, connection, channel, trouble)

    def mend(self, channel: str) -> None:
        """A message got through: go on, and say so once; for a thread."""
        with self._services.database.transaction() as connection:
            if lanes.mend(connection, self._lanes(channel)):
                log.info("channel_mended", channel=channel)
                give_all_clear(self._services, connection, channel)
        self.seen_whole(channel)

    def _lanes(self, channel: str) -> list[str]:
        facts = self._services.channels[channel]
        return [facts.lane(urgent=urgent) for urgent in (True, False)]
