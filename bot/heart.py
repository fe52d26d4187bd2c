"""The heartbeat: on each beat every tick looks at the tables for what is due.

APScheduler only wakes us; what is due is truth in tables, and a firing's unique key lets any number
of replicas beat at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col

from bot.commands import Tick
from bot.context import Services
from bot.jobs import run_one
from storage.db import away, passing
from storage.driver import on_conflict_nothing
from storage.jobs import Firing

SECONDS = 20
MOST_CHUNKS = 100  # of long work between two looks at the clock

log = structlog.get_logger()


def beat(services: Services, retired: Callable[[], bool] = lambda: False) -> int:
    """Run every tick once, each in a transaction of its own, and some of the long work, as long as
    this process is not `retired`; returns how many ticks failed.

    A beat that finds the database away ends there: what is due is still due at the next one.
    """
    failed = 0
    try:
        for tick in services.catalog.of(Tick):
            failed += not _ran(services, tick)
        for _ in range(MOST_CHUNKS):
            if retired() or not run_one(services, "heart"):
                break
    except SQLAlchemyError as error:
        if not passing(error):
            raise
        log.warning("beat_put_off", error=type(error).__name__)
        failed += 1
    return failed


def _ran(services: Services, tick: Tick) -> bool:
    try:
        with services.database.session() as session:
            tick.run(services, session, services.clock.now())
    except Exception as error:
        if away(error):
            raise  # for each of the others we would wait again until nobody answers
        log.error("tick_failed", tick=tick.name, error=type(error).__name__)
        return False
    return True


def fire(session: Session, schedule: str, occasion: str, now: datetime, note: str = "") -> bool:
    """Claim an occasion of a schedule; False if it was claimed before, by anybody."""
    # Asked for by RETURNING: of an INSERT's rows PostgreSQL's driver keeps no count.
    statement = on_conflict_nothing(session.connection(), Firing.__table__)  # type: ignore[attr-defined]
    claim = statement.returning(col(Firing.occasion))
    row = {"schedule": schedule, "occasion": occasion, "at": now, "note": note}
    return session.connection().execute(claim, row).first() is not None
