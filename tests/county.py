"""A county with one field team, its people and two projects, for tests of what follows a report."""

from __future__ import annotations

from datetime import date

from storage.organisation import FieldTeam, TeamMember, TeamTarget, Unit
from storage.reports import Project, Stage
from tests.world import World

COORDINATOR, SECOND, LEADER, LIAISON = "统筹", "副统筹", "带队", "联络"


def settle_county(world: World) -> None:
    """Team T1 with one member, P01 in talks since January, P07 signed last year."""
    with world.database.session() as session:
        unit = Unit(name="派出单位甲")
        session.add(unit)
        session.flush()
        team = FieldTeam(code="T1", name="长三角驻点小分队", unit_id=unit.id or 0, center="上海市")
        session.add(team)
        session.flush()
        session.add(TeamMember(team_id=team.id or 0, name="A1", leads=True))
        session.add(TeamTarget(team_id=team.id or 0, year=2026, target_yuan=100_000_000))
        now = world.clock.now()
        session.add(
            Project(
                code="P01",
                team_id=team.id or 0,
                name="项目甲",
                talks_on=date(2026, 1, 9),
                created_at=now,
            )
        )
        session.add(
            Project(
                code="P07",
                team_id=team.id or 0,
                name="项目庚",
                stage=Stage.SIGNED,
                planned_yuan=20_000_000,
                signed_on=date(2025, 9, 20),
                carried_over=True,
                created_at=now,
            )
        )
        team_id, unit_id = team.id, unit.id
    world.grant(COORDINATOR, "coordinator")
    world.grant(SECOND, "coordinator")
    world.grant(LEADER, "team_leader", team_id=team_id)
    world.grant(LIAISON, "unit_liaison", unit_id=unit_id)
