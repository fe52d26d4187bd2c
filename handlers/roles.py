"""Who may do what: the one place that decides. Row scope is applied in the queries."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlmodel import Session, col, select

from bot.commands import Command
from bot.context import Context
from storage.people import Grant, live_grant, people_with_role
from storage.people import Role as Held


class Role(StrEnum):
    """Roles of requirements §6.1; a person may hold several."""

    TEAM_MEMBER = "team_member"
    TEAM_LEADER = "team_leader"
    UNIT_LIAISON = "unit_liaison"
    COORDINATOR = "coordinator"
    REVIEWER = "reviewer"
    LEADER = "leader"
    ADMIN = "admin"
    PRIVACY_OFFICER = "privacy_officer"


ROLE_WORDS = {
    Role.TEAM_MEMBER: "队员",
    Role.TEAM_LEADER: "带队人",
    Role.UNIT_LIAISON: "单位联络员",
    Role.COORDINATOR: "统筹员",
    Role.REVIEWER: "评审员",
    Role.LEADER: "领导",
    Role.ADMIN: "管理员",
    Role.PRIVACY_OFFICER: "个人信息保护专员",
}

STAFF = (Role.COORDINATOR, Role.LEADER)
FIELD = (Role.TEAM_LEADER, Role.TEAM_MEMBER)


class Policy:
    """The access policy the dispatcher asks."""

    def may(self, roles: Sequence[Held], command: Command) -> bool:
        """A command without roles is everybody's; otherwise one of them must be held."""
        return not command.roles or any(role.name in command.roles for role in roles)

    def refusal(self, command: Command) -> str:
        """Says who may, and how to become one."""
        named = "、".join(ROLE_WORDS[role] for role in Role if role in command.roles)
        return (
            f"「{command.word}」由{named}使用，您的账号还没有这个角色。"
            "已有授权码请回「领码 授权码」；其他事情请回「菜单」。"
        )

    def on_duty(self, session: Session, now: datetime) -> Sequence[int]:
        """Administrators, or coordinators while there are none."""
        return people_with_role(session, Role.ADMIN, now) or people_with_role(
            session, Role.COORDINATOR, now
        )


POLICY = Policy()


def teams_of(context: Context) -> list[int]:
    """Ids of the field teams the speaker may file for."""
    return [
        role.team_id for role in context.roles if role.name in FIELD and role.team_id is not None
    ]


def units_of(context: Context) -> list[int]:
    """Ids of the units the speaker is the liaison of."""
    return [
        role.unit_id
        for role in context.roles
        if role.name == Role.UNIT_LIAISON and role.unit_id is not None
    ]


def leaders_of(session: Session, team_id: int, now: datetime) -> list[int]:
    """Ids of those who lead a field team now."""
    return _holders(session, Role.TEAM_LEADER, col(Grant.team_id) == team_id, now)


def liaisons_of(session: Session, unit_id: int, now: datetime) -> list[int]:
    """Ids of those who are a unit's liaison now."""
    return _holders(session, Role.UNIT_LIAISON, col(Grant.unit_id) == unit_id, now)


def _holders(session: Session, role: Role, scope: object, now: datetime) -> list[int]:
    rows = session.exec(
        select(Grant.person_id)
        .where(Grant.role == role, scope, *live_grant(now))  # type: ignore[arg-type]
        .order_by(col(Grant.id))
    )
    return list(dict.fromkeys(rows))
