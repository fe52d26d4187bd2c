"""Gathers what a report begins with: roster, days, the team's projects and their funds so far."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from handlers.periods import Month
from handlers.place import Place
from handlers.reports.sheet import DATES
from storage.organisation import FieldTeam, MinimumDays, TeamMember, Unit, roster
from storage.reports import (
    STAGE_ORDER,
    ChangeState,
    Project,
    Report,
    ReportedFunds,
    Stage,
    StageChange,
    projects_of,
)


def gather(
    session: Session, place: Place, team: FieldTeam, month: Month, person_id: int
) -> dict[str, Any]:
    """The facts of a `Sheet` as JSON values; `reporter` is the speaker's name on the roster."""
    members = roster(session, team.id or 0)
    unit = session.get_one(Unit, team.unit_id)
    changed = session.get(MinimumDays, str(month))
    return {
        "month": str(month),
        "days": month.last_day.day,
        "minimum": changed.half_days if changed else place.reports.minimum_days * 2,
        "team": {
            "id": team.id,
            "code": team.code,
            "name": team.name,
            "unit": unit.name,
            "center": team.center,
            "nearby": team.nearby,
        },
        "roster": [
            {"key": f"m{each.id}", "id": each.id, "name": each.name, "nickname": each.nickname}
            for each in members
        ],
        "reporter": _reporter(members, person_id),
        "projects": _projects(session, team.id or 0, month),
    }


def _reporter(members: Sequence[TeamMember], person_id: int) -> str:
    return next((each.name for each in members if each.person_id == person_id), "")


def _projects(session: Session, team_id: int, month: Month) -> list[dict[str, Any]]:
    waiting = _waiting(session, team_id)
    before = _funds_before(session, team_id, month)
    return [_project(each, waiting, before) for each in projects_of(session, team_id)]


def _project(
    project: Project, waiting: dict[int, list[StageChange]], before: dict[int, list[int]]
) -> dict[str, Any]:
    changes = waiting[project.id or 0]
    stage = max([project.stage, *(each.to_stage for each in changes)], key=_order)
    signing = next((each for each in changes if each.to_stage == Stage.SIGNED), None)
    reached = {name: day.isoformat() for name in DATES.values() if (day := getattr(project, name))}
    for each in changes:
        if each.to_stage in DATES:
            reached[DATES[Stage(each.to_stage)]] = each.happened_on.isoformat()
    fixed_before, other_before = before[project.id or 0]
    return {
        "key": f"p{project.id}",
        "id": project.id,
        "code": project.code,
        "name": project.name,
        "stage": str(stage),
        "waiting": stage != project.stage,
        "planned_yuan": (signing and signing.planned_yuan) or project.planned_yuan,
        "fixed_yuan": (signing and signing.fixed_yuan) or project.fixed_yuan,
        "before_fixed_yuan": fixed_before,
        "before_other_yuan": other_before,
        "reached": reached,
    }


def _order(stage: str) -> int:
    return STAGE_ORDER.index(Stage(stage))


def _waiting(session: Session, team_id: int) -> dict[int, list[StageChange]]:
    """Changes that wait for a coordinator, by project: the team already counts on them."""
    found: dict[int, list[StageChange]] = defaultdict(list)
    for each in session.exec(
        select(StageChange)
        .join(Project, col(Project.id) == StageChange.project_id)
        .where(Project.team_id == team_id, StageChange.state == ChangeState.PROPOSED)
        .order_by(col(StageChange.id))
    ):
        found[each.project_id].append(each)
    return found


def _funds_before(session: Session, team_id: int, month: Month) -> dict[int, list[int]]:
    """Fixed assets and other of earlier months, by project, as the newest versions tell them."""
    newest: dict[str, int] = {}
    for report in session.exec(
        select(Report)
        .where(Report.team_id == team_id, col(Report.month) < str(month))
        .order_by(col(Report.month), col(Report.version))
    ):
        newest[report.month] = report.id or 0
    found: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for row in session.exec(
        select(ReportedFunds).where(col(ReportedFunds.report_id).in_(newest.values()))
    ):
        found[row.project_id][0] += row.fixed_yuan
        found[row.project_id][1] += row.other_yuan
    return found
