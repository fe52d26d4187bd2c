"""Files monthly reports straight into the tables, for tests about what comes after the filing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlmodel import Session, select

from bot.text import content_hash
from handlers.periods import Month
from storage.organisation import FieldTeam, roster
from storage.reports import (
    Lead,
    Project,
    Report,
    ReportDays,
    ReportedFunds,
    Stage,
    StageChange,
    latest_report,
)
from storage.sequences import next_number
from tests.world import World

WAN = 10_000


@dataclass(frozen=True)
class Move:
    """A project's new stage on a day; amounts in 万元 for a signing."""

    project: str
    stage: Stage
    on: date
    planned: int | None = None
    fixed: int | None = None
    formal: bool = True


@dataclass(frozen=True)
class Filed:
    """A report to file; `talks` are new projects (code, name, day), funds are 万元."""

    team: str
    month: str
    days: Sequence[float]
    visits: int = 0
    leads: int = 0
    talks: Sequence[tuple[str, str, date]] = ()
    moves: Sequence[Move] = ()
    funds: Sequence[tuple[str, int, int]] = ()
    reason: str = ""


def file_report(world: World, who: str, filed: Filed) -> None:
    """Write one version of a report as `who`, now."""
    person_id = world.person(who)
    now = world.clock.now()
    with world.database.session() as session:
        team = session.exec(select(FieldTeam).where(FieldTeam.code == filed.team)).one()
        before = latest_report(session, team.id or 0, filed.month)
        report = _report(session, filed, team, person_id, now)
        _days(session, report, team, filed)
        for code, name, day in filed.talks:
            project = Project(
                code=code, team_id=team.id or 0, name=name, talks_on=day, created_at=now
            )
            session.add(project)
        session.flush()
        for move in filed.moves:
            session.add(_change(session, report, move))
        for code, fixed, other in filed.funds:
            session.add(
                ReportedFunds(
                    report_id=report.id or 0,
                    project_id=project_of(session, code).id or 0,
                    month=filed.month,
                    fixed_yuan=fixed * WAN,
                    other_yuan=other * WAN,
                )
            )
        if before is None:
            _leads(session, report, filed, now)


def project_of(session: Session, code: str) -> Project:
    """The project of a code."""
    return session.exec(select(Project).where(Project.code == code)).one()


def _report(
    session: Session, filed: Filed, team: FieldTeam, person_id: int, now: datetime
) -> Report:
    before = latest_report(session, team.id or 0, filed.month)
    version = before.version + 1 if before else 1
    number = f"YB-{filed.month}-{filed.team}-v{version}"
    report = Report(
        number=number,
        team_id=team.id or 0,
        month=filed.month,
        version=version,
        as_of=Month.parse(filed.month).last_day,
        filed_at=now,
        filed_by=person_id,
        reason=filed.reason,
        answers="{}",
        content_hash=content_hash(number),
        text=number,
        visits=filed.visits,
    )
    session.add(report)
    session.flush()
    return report


def _days(session: Session, report: Report, team: FieldTeam, filed: Filed) -> None:
    members = roster(session, team.id or 0)
    for member, days in zip(members, filed.days, strict=True):
        session.add(
            ReportDays(report_id=report.id or 0, member_id=member.id or 0, half_days=int(days * 2))
        )


def _change(session: Session, report: Report, move: Move) -> StageChange:
    project = project_of(session, move.project)
    return StageChange(
        project_id=project.id or 0,
        report_id=report.id,
        month=report.month,
        from_stage=project.stage,
        to_stage=move.stage,
        happened_on=move.on,
        formal=move.formal,
        planned_yuan=None if move.planned is None else move.planned * WAN,
        fixed_yuan=None if move.fixed is None else move.fixed * WAN,
        proposed_by=report.filed_by,
    )


def _leads(session: Session, report: Report, filed: Filed, now: datetime) -> None:
    for position in range(1, filed.leads + 1):
        number = next_number(session, "test-lead")
        session.add(
            Lead(
                number=f"XS-2026-{number:04d}",
                team_id=report.team_id,
                month=filed.month,
                report_id=report.id,
                position=position,
                name=f"线索{number}",
                filed_at=now,
            )
        )
