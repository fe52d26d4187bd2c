"""Notices a channel that owes messages and gets nothing done, and tells a person."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from bot.alarm import call_for_help
from bot.context import Services
from storage import overview

PATIENCE = timedelta(minutes=10)
TROUBLE = "有该发的消息，十分钟没有动静。请管理员运行 hongyan doctor，或看「群发 进度」。"


class Stalls:
    """`moved` counts by lane what deliveries came to; the wall clock may jump, so time is given."""

    def __init__(self, services: Services, moved: Mapping[str, int]) -> None:
        self._services = services
        self._moved = moved
        self._since: dict[str, tuple[float, int, int]] = {}

    def look(self, seconds: float) -> None:
        """Look now, `seconds` on a clock that only goes forward; the same trouble is told once a
        day."""
        database, now = self._services.database, self._services.clock.now()
        with database.engine.connect() as connection:
            owed = overview.owed(connection, now)
        before, self._since = self._since, {}
        for lane, count in owed.items():
            moved = self._moved.get(lane, 0)
            since, known, more = before.get(lane, (seconds, moved, count))
            # Another process may be the one that sends: then what is owed becomes less.
            still = known == moved and count >= more
            self._since[lane] = (since if still else seconds, moved, count)
        stalled = {
            lane.partition(":")[0]
            for lane, (since, *_seen) in self._since.items()
            if seconds - since >= PATIENCE.total_seconds()
        }
        for channel in sorted(stalled & self._services.channels.keys()):
            with database.transaction() as connection:
                call_for_help(self._services, connection, channel, TROUBLE)
