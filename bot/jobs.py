"""Long work in short transactions: one worker a process takes jobs by lease and does chunks."""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlmodel import col, or_, select

from bot.commands import JobKind
from bot.context import Services
from storage.jobs import Job

LEASE = timedelta(seconds=30)

log = structlog.get_logger()


def run_one(services: Services, worker: str) -> bool:
    """Do one chunk of the oldest job that nobody works on; False when there is none."""
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
                    col(Job.owner) == worker,
                ),
            )
            .order_by(col(Job.id))
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
        except Exception as error:  # noqa: BLE001  # a broken job is parked, the worker goes on
            log.error("job_failed", job=job.id, kind=job.kind, error=type(error).__name__)
            job.state, job.error = "failed", type(error).__name__
        else:
            if finished:
                job.state = "done"
        session.add(job)
    return True
