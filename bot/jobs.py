"""Long work in short transactions: one worker a process takes jobs by lease and does chunks."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from sqlmodel import Session, col, or_, select

from bot.commands import JobKind
from bot.context import Services, outbox_row
from bot.messages import say
from bot.purposes import TROUBLE
from storage import mailbox
from storage.db import passing
from storage.jobs import Job

LEASE = timedelta(seconds=30)

log = structlog.get_logger()


def run_one(services: Services, worker: str) -> bool:
    """Do one chunk of the oldest job that nobody works on; False when there is none.

    Raises what the database raises when it is away or gives another transaction the way.
    """
    kinds = {kind.kind: kind for kind in services.catalog.of(JobKind)}
    now = services.clock.now()
    with services.database.session() as session:
        job = session.exec(
            select(Job)
            .where(
                col(Job.state).in_(["waiting", "running"]),
                or_(
                    col(Job.leased_until).is_(None),
                    col(Job.leased_until) < now,
                    col(Job.leased_until) > now + 2 * LEASE,  # by a clock that was set back since
                    col(Job.owner) == worker,
                ),
            )
            # What somebody waits for goes before what nobody asked for.
            .order_by(col(Job.person_id).is_(None), col(Job.id))
            .limit(1)
            .with_for_update(skip_locked=True)
        ).first()
        if job is None:
            return False
        kind = kinds.get(job.kind)
        job.owner, job.leased_until, job.state = worker, now + LEASE, "running"
        if kind is None:
            job.state, job.error = "failed", "unknown kind"
            return True
        try:
            with session.begin_nested():
                finished = kind.run(services, session, job, now)
        except Exception as error:
            if passing(error):
                raise  # that chunk did nothing, and is done again
            # A broken job is parked, the worker goes on.
            log.error("job_failed", job=job.id, kind=job.kind, error=type(error).__name__)
            job.state, job.error = "failed", type(error).__name__
            _tell(services, session, job, now)
        else:
            if finished:
                job.state = "done"
        session.add(job)
    return True


def _tell(services: Services, session: Session, job: Job, now: datetime) -> None:
    """Whoever asked waits for an answer: say that there will be none."""
    if job.person_id is None:
        return
    words = f"您要办的事没有办成（编号 J{job.id}），请稍后再试，或联系管理员查看日志。"
    row = outbox_row(
        services,
        session,
        job.person_id,
        say(words),
        occasion=f"job_failed:{job.id}",
        purpose=TROUBLE,
        now=now,
    )
    mailbox.enqueue(session.connection(), [row] if row is not None else [])
