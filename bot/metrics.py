"""Figures about the queues and the delivery loop, for /metrics and for `hongyan doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, func, select

from storage.jobs import Job
from storage.mailbox import Outbox
from storage.states import State

if TYPE_CHECKING:
    from bot.app import App


@dataclass(frozen=True)
class Figures:
    """What stands in the tables now. `oldest_seconds`: how long the oldest due row has waited."""

    outbox: Mapping[str, int]
    jobs: Mapping[str, int]
    oldest_seconds: float


def figures(session: Session, now: datetime) -> Figures:
    """Read them; rows that are not due, paused or outside a window do not count as waiting."""
    outbox = session.exec(select(Outbox.state, func.count()).group_by(Outbox.state)).all()
    jobs = session.exec(select(Job.state, func.count()).group_by(Job.state)).all()
    oldest = session.exec(
        select(Outbox.not_before)
        .where(col(Outbox.state).in_((State.QUEUED, State.LEASED)), col(Outbox.not_before) <= now)
        .order_by(col(Outbox.not_before))
        .limit(1)
    ).first()
    waited = (now - oldest).total_seconds() if oldest else 0.0
    return Figures(dict(outbox), dict(jobs), waited)


class _Live(Collector):
    """Read when asked, so that nothing need be kept in step with the tables."""

    def __init__(self, app: App) -> None:
        self._app = app

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: registering must not touch the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield from self._spooled()
        services = self._app.services
        try:
            with services.database.reading() as session:
                now = figures(session, services.clock.now())
        except SQLAlchemyError:
            yield GaugeMetricFamily("hongyan_database_up", "Can the database be asked", 0)
        else:
            yield GaugeMetricFamily("hongyan_database_up", "Can the database be asked", 1)
            yield from self._stored(now)
        yield from self._counted()

    def _spooled(self) -> Iterator[Metric]:
        spool = self._app.spool
        yield GaugeMetricFamily(
            "hongyan_spooled", "Messages kept on this machine", spool.depth if spool else 0
        )

    def _stored(self, now: Figures) -> Iterator[Metric]:
        rows = GaugeMetricFamily("hongyan_outbox_rows", "Outbox rows by state", labels=["state"])
        for state, count in sorted(now.outbox.items()):
            rows.add_metric([state], count)
        yield rows
        jobs = GaugeMetricFamily("hongyan_jobs", "Jobs by state", labels=["state"])
        for state, count in sorted(now.jobs.items()):
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily(
            "hongyan_oldest_unsent_seconds", "Age of the oldest due row", now.oldest_seconds
        )

    def _counted(self) -> Iterator[Metric]:
        counters = self._app.delivery.counters
        sends = CounterMetricFamily("hongyan_sends", "Sends by result", labels=["result"])
        for result in ("sent", "failed", "retried", "unknown"):
            sends.add_metric([result], getattr(counters, result))
        yield sends
        reasons = CounterMetricFamily(
            "hongyan_send_errors", "Refused sends by reason", labels=["reason"]
        )
        for reason, count in sorted(dict(counters.by_reason).items()):
            reasons.add_metric([reason], count)
        yield reasons
        yield CounterMetricFamily(
            "hongyan_commits", "Transactions committed", self._app.services.database.commits
        )


def exposition(app: App) -> bytes:
    """The figures in Prometheus' text format; blocks while it reads the tables."""
    registry = CollectorRegistry()
    registry.register(_Live(app))
    return generate_latest(registry)
