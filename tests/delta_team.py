"""An invented field team for tests of reports: T1, its roster, its unit, and two projects."""

from datetime import date

from storage.organisation import FieldTeam, TeamMember, Unit
from storage.reports import Project, Stage
from tests.world import World

LEADER, MEMBER, OFFICE, LIAISON = "王队", "小李", "小赵", "老孙"


def lay(world: World) -> int:
    """The Yangtze delta team T1 with 张某, 李某 and its leader 王某; returns the team's id."""
    with world.database.session() as session:
        unit = Unit(name="派出单位甲")
        session.add(unit)
        session.flush()
        team = FieldTeam(
            code="T1",
            name="长三角小分队",
            unit_id=unit.id or 0,
            center="上海市",
            nearby="苏州市、南通市",
        )
        session.add(team)
        session.flush()
        team_id, unit_id = team.id or 0, unit.id or 0
        session.add_all(_projects(team_id, world))
    people = {
        "张某": None,
        "李某": world.grant(MEMBER, "team_member", team_id=team_id),
        "王某": world.grant(LEADER, "team_leader", team_id=team_id),
    }
    with world.database.session() as session:
        for position, (name, person_id) in enumerate(people.items()):
            session.add(
                TeamMember(
                    team_id=team_id,
                    position=position,
                    name=name,
                    nickname={"张某": "老张", "李某": "小李"}.get(name, ""),
                    leads=name == "王某",
                    person_id=person_id,
                )
            )
    world.grant(OFFICE, "coordinator")
    world.grant(LIAISON, "unit_liaison", unit_id=unit_id)
    return team_id


def _projects(team_id: int, world: World) -> list[Project]:
    first = Project(
        code="P01",
        team_id=team_id,
        name="项目甲",
        investor="某装备公司",
        planned_yuan=50_000_000,
        fixed_yuan=40_000_000,
        stage=Stage.SIGNED,
        talks_on=date(2025, 11, 3),
        signed_on=date(2026, 2, 10),
        created_at=world.clock.now(),
    )
    second = Project(
        code="P02",
        team_id=team_id,
        name="项目乙",
        investor="某材料公司",
        stage=Stage.IN_TALKS,
        talks_on=date(2026, 1, 12),
        created_at=world.clock.now(),
    )
    return [first, second]
