"""Units with their liaison, field teams with roster and yearly target."""

from datetime import datetime

from sqlalchemy import BigInteger, UniqueConstraint
from sqlmodel import Field, Session, SQLModel, col, select

from storage.columns import UtcDateTime, personal


class Unit(SQLModel, table=True):
    """A department, township or school; `dispatches` when it sends a field team."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    batch: str = ""


class FieldTeam(SQLModel, table=True):
    """A team posted in another city. `group` ranks apart (county units, townships, bureaus)."""

    __tablename__ = "field_team"

    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(unique=True)
    name: str
    group: str = "县直"
    unit_id: int = Field(foreign_key="unit.id")
    center: str
    nearby: str = ""
    batch: str = ""


class TeamMember(SQLModel, table=True):
    """A line of a team's roster; `person_id` once they have taken their code."""

    __tablename__ = "team_member"
    __table_args__ = {"info": {"erase": "keep"}}

    id: int | None = Field(default=None, primary_key=True)
    team_id: int = Field(foreign_key="field_team.id", index=True)
    position: int = 0
    name: str = Field(sa_column_kwargs=personal("小分队履职", "花名册姓名"))
    nickname: str = Field(default="", sa_column_kwargs=personal("小分队履职", "花名册小名"))
    leads: bool = False
    person_id: int | None = Field(default=None, foreign_key="person.id", index=True)
    left_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class TeamTarget(SQLModel, table=True):
    """A team's guiding plan for a year, in 元."""

    __tablename__ = "team_target"
    __table_args__ = (UniqueConstraint("team_id", "year"),)

    id: int | None = Field(default=None, primary_key=True)
    team_id: int = Field(foreign_key="field_team.id")
    year: int
    target_yuan: int = Field(sa_type=BigInteger)
    batch: str = ""


class MinimumDays(SQLModel, table=True):
    """How many half days a month asks of each person, where it differs from the place's rule."""

    __tablename__ = "minimum_days"

    month: str = Field(primary_key=True)
    half_days: int
    reason: str = ""
    batch: str = ""


class DayOverride(SQLModel, table=True):
    """An office's own word on whether a day is worked, over the published calendar."""

    __tablename__ = "day_override"

    day: str = Field(primary_key=True)
    working: bool
    reason: str = ""
    batch: str = ""


def roster(session: Session, team_id: int) -> list[TeamMember]:
    """Who is on the team now, in roster order."""
    return list(
        session.exec(
            select(TeamMember)
            .where(TeamMember.team_id == team_id, col(TeamMember.left_at).is_(None))
            .order_by(col(TeamMember.position), col(TeamMember.id))
        )
    )
