"""Yearly targets and the least days of a month: shown to all staff, changed only by two people."""

from sqlmodel import Session, col, select

from bot.commands import Approvable, command
from bot.context import Context
from bot.errors import UserError
from bot.messages import Reply, say
from bot.normalize import Miss, read_number, tidy
from bot.text import content_hash
from handlers.approvals import request, void
from handlers.bulletin import target_in_wan
from handlers.forms.fields import parse_money, show_days
from handlers.ledger import parse_month
from handlers.place import here
from handlers.roles import STAFF, Role
from storage.approvals import Approval, ApprovalState
from storage.organisation import FieldTeam, MinimumDays, TeamTarget

MINIMUM_DAYS_KIND = "minimum_days"
TARGET_KIND = "target"
_DAYS_EXAMPLE = "「最低天数 2月 15 春节假期」"
_TARGET_EXAMPLE = "「目标 T1 12000 年中调整」"


@command(
    "最低天数",
    help="最低天数：看各月要求；最低天数 2月 15 原因",
    section="统筹",
    roles=STAFF,
    feature="monthly_reports",
)
def minimum_days(context: Context, argument: str) -> Reply:
    """Show what the months ask, or ask a second person to change one."""
    usual = here(context).reports.minimum_days
    pieces = tidy(argument).split(maxsplit=2)
    if not pieces:
        rows = context.session.exec(select(MinimumDays).order_by(col(MinimumDays.month))).all()
        lines = [
            f"{each.month}：{show_days(each.half_days)} {each.reason}".strip() for each in rows
        ]
        return say("\n".join([f"每人每月最低驻点{usual}天；另行规定的月份：", *(lines or ["无"])]))
    _only_coordinators(context)
    if len(pieces) < 3:
        raise UserError(f"请写明月份、天数和原因，如{_DAYS_EXAMPLE}。")
    month = parse_month(pieces[0], context.today)
    days = read_number(pieces[1].removesuffix("天"))
    most = month.last_day.day
    if days is None or not 0 <= days <= most or days * 2 != int(days * 2):
        raise UserError(f"天数请写0到{most}之间的数，可以是半天，如{_DAYS_EXAMPLE}。")
    title = f"{month.number}月最低驻点天数改为{show_days(int(days * 2))}"
    return _ask(context, MINIMUM_DAYS_KIND, f"{month}:{int(days * 2)}", title, pieces[2])


@command(
    "目标",
    help="目标：看各队年度目标；目标 T1 12000 原因",
    section="统筹",
    roles=STAFF,
    feature="monthly_reports",
)
def targets(context: Context, argument: str) -> Reply:
    """Show this year's targets, or ask a second person to change one."""
    year = context.today.year
    pieces = tidy(argument).split(maxsplit=2)
    if not pieces:
        return _target_list(context.session, year)
    _only_coordinators(context)
    if len(pieces) < 3:
        raise UserError(f"请写明小分队编号、目标（万元）和原因，如{_TARGET_EXAMPLE}。")
    team = context.session.exec(
        select(FieldTeam).where(FieldTeam.code == pieces[0].upper())
    ).first()
    if team is None:
        raise UserError(f"没有编号为 {pieces[0]} 的小分队。回「目标」看清单。")
    yuan = parse_money(pieces[1])
    if isinstance(yuan, Miss):
        raise UserError(yuan.text)
    if yuan <= 0:
        raise UserError("年度目标要大于0。")
    title = f"{team.name}{year}年目标改为{target_in_wan(yuan)}"
    return _ask(context, TARGET_KIND, f"{team.code}:{year}:{yuan}", title, pieces[2])


def _only_coordinators(context: Context) -> None:
    if not context.has_role(Role.COORDINATOR):
        raise UserError("由统筹员提出，您可以在「审批」里同意或驳回。")


def _target_list(session: Session, year: int) -> Reply:
    rows = session.exec(
        select(FieldTeam, TeamTarget.target_yuan)
        .join(TeamTarget, col(TeamTarget.team_id) == FieldTeam.id)
        .where(TeamTarget.year == year)
        .order_by(col(FieldTeam.code))
    ).all()
    if not rows:
        return say(f"{year}年还没有下达目标，请由管理员导入。")
    lines = [f"{team.code} {team.name}：{target_in_wan(yuan)}" for team, yuan in rows]
    total = target_in_wan(sum(yuan for _, yuan in rows))
    return say("\n".join([f"{year}年目标（合计{total}）：", *lines]))


# - four eyes: the object names the thing and its new value, such as `2026-02:30` -


def _ask(context: Context, kind: str, object: str, title: str, reason: str) -> Reply:
    thing = object.rpartition(":")[0]
    for older in context.session.exec(
        select(Approval).where(
            Approval.kind == kind,
            Approval.state == ApprovalState.OPEN,
            col(Approval.object).startswith(f"{thing}:"),
        )
    ).all():
        void(context.session, kind, older.object)
    approval = request(
        context, kind, object, title, content_hash(kind, object, reason), reason=reason
    )
    return say(f"已提交 {approval.number}：{title}（{reason}）。第二人同意后生效。")


def _show(context: Context, approval: Approval) -> Reply:
    return say(f"{approval.title}\n原因：{approval.reason}")


def _refused(context: Context, approval: Approval) -> Reply:
    return say("未作改动。")


def _days_granted(context: Context, approval: Approval) -> Reply:
    month, _, half_days = approval.object.rpartition(":")
    row = context.session.get(MinimumDays, month) or MinimumDays(month=month, half_days=0)
    row.half_days, row.reason, row.batch = int(half_days), approval.reason, ""
    context.session.add(row)
    _note(context, approval, f"month:{month}")
    return say(f"{approval.title}，已生效。")


def _target_granted(context: Context, approval: Approval) -> Reply:
    code, year, yuan = approval.object.split(":")
    team = context.session.exec(select(FieldTeam).where(FieldTeam.code == code)).one()
    row = context.session.exec(
        select(TeamTarget).where(TeamTarget.team_id == team.id, TeamTarget.year == int(year))
    ).first() or TeamTarget(team_id=team.id or 0, year=int(year), target_yuan=0)
    row.target_yuan, row.batch = int(yuan), ""
    context.session.add(row)
    _note(context, approval, f"team:{code}:{year}")
    return say(f"{approval.title}，已生效。")


def _note(context: Context, approval: Approval, object: str) -> None:
    context.session.flush()
    context.audit(f"{approval.kind}.change", object, approval.reason, approval_id=approval.id)


MINIMUM_DAYS_CHANGES = Approvable(MINIMUM_DAYS_KIND, "最低驻点天数", _show, _days_granted, _refused)
TARGET_CHANGES = Approvable(TARGET_KIND, "年度目标", _show, _target_granted, _refused)
