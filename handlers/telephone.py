"""群发 电话: whom no channel reaches, for those who pick up the telephone; never who said no."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session, col

from bot import planning
from bot.clock import beijing, show_time
from bot.commands import Approvable, Page, command
from bot.context import Context, Services
from bot.errors import UserError
from bot.messages import File, Link, Part, Reply, say
from bot.planning import REASONS
from bot.text import content_hash
from handlers import approvals, codes
from handlers.campaigns import find
from handlers.plans import asked_of
from handlers.purposes import DUTY_NOW
from handlers.receipt_export import about
from handlers.roles import Role
from handlers.segments import people_of
from handlers.workbook import XLSX, Sheet
from storage.approvals import Approval
from storage.audit import VIEWED, AuditEntry
from storage.campaigns import Campaign
from storage.people import OneTimeCode, people_with_role
from storage.profiles import MemberProfile

KIND = "telephone_list"
PER_PAGE = 30  # names in one answer
MOST = 2000  # rows in a workbook made while others wait
WAITS = "等其来信才能送到"
HEADS = (("档案号", 18), ("姓名", 12), ("城市", 12), ("手机", 16), ("发不到的原因", 20))


def _wanted(services: Services, session: Session, campaign: Campaign, now: datetime) -> Any:
    asked = asked_of(services, session, campaign, now)
    return planning.to_telephone(services, people_of(campaign, now), asked)


def _count(session: Session, wanted: Any) -> int:
    return int(session.execute(select(func.count()).select_from(wanted.subquery())).scalar_one())


# - page by page -


@command("群发 电话", help="群发 电话 B-0001：发不到、要打电话的人", section="统筹",
         roles=(Role.COORDINATOR,), feature="broadcasts", needs_argument=True)  # fmt: skip
def by_telephone(context: Context, argument: str) -> Reply:
    """`群发 电话 B-0001 2` is the second page; `群发 电话 B-0001 2 事由` shows whole numbers."""
    number, _, rest = argument.strip().partition(" ")
    campaign = find(context.session, number)
    first, _, more = rest.strip().partition(" ")
    numbered = first.isdecimal() and len(first) < 6
    page, why = (int(first), more.strip()) if numbered else (1, rest.strip())
    return say(page_of(context, campaign, page, why))


def page_of(context: Context, campaign: Campaign, page: int = 1, why: str = "") -> str:
    """Some of those who are to be telephoned; whole numbers only for a reason, which is kept.

    Each who is shown is noted in the audit log.
    """
    wanted = _wanted(context.services, context.session, campaign, context.now)
    count = _count(context.session, wanted)
    if not count:
        return "没有要打电话的人：愿意收的人都发得到。"
    pages = -(-count // PER_PAGE)
    if not 1 <= page <= pages:
        raise UserError(f"要打电话的名单只有{pages}页。")
    rows = context.session.execute(wanted.limit(PER_PAGE).offset((page - 1) * PER_PAGE)).all()
    profiles = _profiles(context.session, [row.person_id for row in rows])
    lines = []
    for row in rows:
        profile = profiles[row.person_id]
        phone = profile.phone if why else masked(profile.phone)
        lines.append(
            f"{profile.name}（{profile.city}）{phone or '没有留电话'}：{_reason(row.reason)}"
        )
        reason = f"{campaign.number or '群发草稿'} 电话名单{f'：{why}' if why else ''}"
        context.audit(VIEWED, f"person:{row.person_id}", reason)
    of = f"（第{page}/{pages}页）" if pages > 1 else ""
    return "\n".join([f"要打电话的有{count}人{of}：", *lines, *_next(campaign, page, pages, why)])


def masked(phone: str | None) -> str:
    """138****8000; nothing of a number too short to hide anything in."""
    if not phone:
        return ""
    return f"{phone[:3]}****{phone[-4:]}" if len(phone) >= 11 else "****"


def _reason(reason: str | None) -> str:
    return REASONS[reason] if reason else WAITS


def _profiles(session: Session, people: Sequence[int]) -> dict[int, MemberProfile]:
    rows = session.execute(
        select(MemberProfile).where(col(MemberProfile.person_id).in_(people))
    ).scalars()
    return {profile.person_id: profile for profile in rows}


def _next(campaign: Campaign, page: int, pages: int, why: str) -> list[str]:
    number = campaign.number
    if not number:
        return ["送审后可回「群发 电话 编号 事由」看全部号码。"]
    more = f" {why}" if why else ""
    lines = [f"下一页请回「群发 电话 {number} {page + 1}{more}」。"] if page < pages else []
    if not why:
        lines.append(
            f"要看完整号码，请回「群发 电话 {number} 事由」；"
            f"要表格，请回「群发 电话表 {number} 事由」（须另一人同意）。查看都会留痕。"
        )
    return lines


# - as a workbook, which takes four eyes -


@command("群发 电话表", help="群发 电话表 B-0001 事由：要打电话的名单，Excel，须另一人同意",
         section="统筹", roles=(Role.COORDINATOR,), feature="broadcasts",
         needs_argument=True)  # fmt: skip
def as_workbook(context: Context, argument: str) -> Reply:
    """Ask another person; then the list comes as a link that opens once within a day."""
    number, _, why = argument.strip().partition(" ")
    campaign = find(context.session, number)
    if not why.strip():
        raise UserError(
            f"导出名单须写事由，如「群发 电话表 {campaign.number} 逐一电话通知」，会留痕。"
        )
    wanted = _wanted(context.services, context.session, campaign, context.now)
    count = _count(context.session, wanted)
    if not count:
        return say("没有要打电话的人：愿意收的人都发得到。")
    if count > MOST:
        raise UserError(f"要打电话的有{count}人，一张表最多{MOST}人，请按城市分开群发再导。")
    approval = approvals.request(
        context,
        KIND,
        campaign.number,
        f"{campaign.title} 的电话名单（{count}人，含手机号）",
        content_hash(KIND, campaign.number, why.strip()),
        reason=why.strip(),
    )
    code = approval.content_hash[: approvals.CODE_LENGTH]
    return say(f"已送审 {approval.number}，另一人同意后把表格的链接发给您。哈希 {code}。")


def _show(context: Context, approval: Approval) -> Reply:
    return say(
        f"{approval.number}：{approval.title}\n事由：{approval.reason}\n"
        "同意后发给申请人一次有效的下载链接，24小时作废；表上写明何人何时因何事导出。"
    )


def _granted(context: Context, approval: Approval) -> Reply:
    services, session, number = context.services, context.session, approval.object
    context.audit("telephone.export", f"campaign:{number}", approval.reason,
                  approval_id=approval.id)  # fmt: skip
    if services.settings.public_url:
        token = codes.page_token(
            session, services.keys, KIND, approval.asked_by, context.now, approval.number
        )
        words = "电话名单已备好（链接24小时内有效，仅可打开一次，请勿转发）。"
        told = say(f"{number} 的{words}", link=Link("打开名单", f"/p/{token}"))
    else:
        told = Reply((_handed(services, session, approval, context.now),))
    occasion = f"{KIND}:{approval.id}"
    context.send(approval.asked_by, told, occasion=occasion, purpose=DUTY_NOW)
    return say(f"{number} 的电话名单已发给申请人。")


def _refused(_context: Context, approval: Approval) -> Reply:
    return say(f"{approval.object} 的电话名单没有导出。")


APPROVABLE = Approvable(KIND, "电话名单导出", _show, _granted, _refused)


def _page(_services: Services, _session: Session, _code: OneTimeCode) -> Part:
    return Part("这是要打电话的名单，含手机号，只能取一次。按下面的按钮下载，取走后链接失效。")


def _take(services: Services, session: Session, code: OneTimeCode) -> Part:
    now = services.clock.now()
    if code.person_id not in people_with_role(session, Role.COORDINATOR, now):
        raise UserError("您已不是统筹员，不能取这份名单。")
    approval = session.execute(select(Approval).where(Approval.number == about(code)))  # type: ignore[arg-type]
    return _handed(services, session, approval.scalar_one(), now)


PAGE = Page(KIND, _page, _take)


def _handed(services: Services, session: Session, approval: Approval, now: datetime) -> Part:
    """The workbook; that its people were looked at is noted in the file of each."""
    campaign = find(session, approval.object)
    wanted = _wanted(services, session, campaign, now)
    reasons = {row.person_id: row.reason for row in session.execute(wanted.limit(MOST))}
    profiles = _profiles(session, list(reasons))
    title = (
        f"{campaign.number}「{campaign.title}」电话名单，{show_time(now)}导出，"
        f"审批 {approval.number}，申请人编号 {approval.asked_by}，事由：{approval.reason}"
    )
    sheet = Sheet("电话名单", title, HEADS, now)
    for person, reason in reasons.items():
        one = profiles[person]
        sheet.append([one.number, one.name, one.city, one.phone or "没有留", _reason(reason)])
        session.add(
            AuditEntry(
                at=now,
                actor_id=approval.asked_by,
                role=str(Role.COORDINATOR),
                channel="page",
                action=VIEWED,
                object=f"person:{person}",
                reason=f"{campaign.number} 电话名单：{approval.reason}",
                approval_id=approval.id,
            )
        )
    name = f"{campaign.number} 电话名单 {beijing(now):%Y-%m-%d}.xlsx"
    return Part(
        f"{campaign.number}「{campaign.title}」电话名单，{len(reasons)}人。",
        file=File(name, XLSX, sheet.bytes()),
    )
