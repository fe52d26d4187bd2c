"""The heartbeat: on each beat every tick looks at the tables for what is due.

APScheduler only wakes us; what is due is truth in tables, and a firing's unique key lets any number
of replicas beat at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog
from sqlmodel import Session, col

from bot.commands import Tick
from bot.context import Services
from bot.jobs import run_one
from storage.driver import on_conflict_nothing
from storage.jobs import Firing

SECONDS = 20
MOST_CHUNKS = 100  # of long work between two looks at the clock

log = structlog.get_logger()


def beat(services: Services, retired: Callable[[], bool] = lambda: False) -> int:
    """Run every tick once, each in a transaction of its own, and some of the long work, as long as
    this process is not `retired`; returns how many ticks failed."""
    failed = 0
    for tick in services.catalog.of(Tick):
        try:
            with services.database.session() as session:
                tick.run(services, session, services.clock.now())
        except Exception as error:  # noqa: BLE001  # one broken tick must not stop the others
            failed += 1
            log.error("tick_failed", tick=tick.name, error=type(error).__name__)
    for _ in range(MOST_CHUNKS):
        if retired() or not run_one(services, "heart"):
            break
    return failed


def fire(session: Session, schedule: str, occasion: str, now: datetime, note: str = "") -> bool:
    """Claim an occasion of a schedule; False if it was claimed before, by anybody."""
    # Asked for by RETURNING: of an INSERT's rows PostgreSQL's driver keeps no count.
    statement = on_conflict_nothing(session.connection(), Firing.__table__)  # type: ignore[attr-defined]
    claim = statement.returning(col(Firing.occasion))
    row = {"schedule": schedule, "occasion": occasion, "at": now, "note": note}
    return session.connection().execute(claim, row).first() is not None
