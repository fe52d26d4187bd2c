"""Who is in the members' groups and has no file yet: for coordinators, never in a group."""

from sqlmodel import col, select

from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.messages import Reply, say
from handlers.roles import Role
from storage.customer_groups import (
    CustomerGroup,
    GroupMember,
    link_members,
    live_groups,
    nobody_recognised,
    not_staff,
)
from storage.people import Person
from storage.profiles import MemberProfile

VIEWED = "group_roster.view"
MOST = 30  # names in one list


@command(
    "在群未建档",
    "群里没登记的",
    help="在群未建档：乡亲群里还没有档案的人",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="profiles",
)
def in_group_without_file(context: Context, _argument: str) -> Reply:
    """Counts and names by group. Who asked never to be contacted again is on no list."""
    groups = live_groups(context.session)
    if not groups:
        raise UserError("还没有接入客户群，看不到群成员。")
    link_members(context.session)
    blocks = [_block(context, group) for group in groups]
    if nobody_recognised(context.session):
        blocks.append(
            "群成员都没有对照标识：请管理员在企业微信绑定公众号所在的开放平台，之后才能认出谁已登记。"
        )
    context.audit(VIEWED, "group_roster", f"{len(groups)}个群的未建档名单")
    return say("\n\n".join(blocks))


def _block(context: Context, group: CustomerGroup) -> str:
    session = context.session
    members = session.exec(
        select(GroupMember)
        .where(GroupMember.group_id == group.id, not_staff(), col(GroupMember.left_at).is_(None))
        .order_by(col(GroupMember.joined_at), col(GroupMember.id))
    ).all()
    people = [member.person_id for member in members if member.person_id is not None]
    filed = set(
        session.exec(
            select(MemberProfile.person_id).where(col(MemberProfile.person_id).in_(people))
        )
    )
    silent = set(
        session.exec(
            select(Person.id).where(
                col(Person.id).in_(people), col(Person.silent_since).is_not(None)
            )
        )
    )
    lacking = [m for m in members if m.person_id not in filed and m.person_id not in silent]
    known = [_name(member) for member in lacking if member.person_id is not None]
    unknown = [_name(member) for member in lacking if member.person_id is None]
    count = sum(member.person_id in filed for member in members)
    lines = [f"{group.name}：{len(members)}人，已建档{count}人"]
    if known:
        lines.append(f"关注了公众号、还没建档{len(known)}人：{_listed(known)}")
    if unknown:
        lines.append(f"没对上号{len(unknown)}人（多半还没关注公众号）：{_listed(unknown)}")
    return "\n".join(lines)


def _name(member: GroupMember) -> str:
    return member.nickname or f"未取到昵称（{member.joined_at:%m-%d}进群）"


def _listed(names: list[str]) -> str:
    more = f"……等{len(names)}人" if len(names) > MOST else ""
    return "、".join(names[:MOST]) + more
