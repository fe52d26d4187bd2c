"""How filed reports are looked at: by the team, the office and the dispatching unit."""

from collections.abc import Sequence

from sqlmodel import col, func, or_, select

from bot.clock import beijing, show_time
from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.messages import Choice, Reply, say
from handlers.deadlines import FilingState, days_late, filing_state, freeze, opening
from handlers.ledger import month_ended, parse_month
from handlers.periods import Month
from handlers.purposes import DUTY
from handlers.reports.filing import SIDES, timeliness
from handlers.roles import FIELD, STAFF, Role, leaders_of, teams_of, units_of
from storage import overview
from storage.organisation import FieldTeam
from storage.reports import DaysWord, Report, ReportReceipt
from storage.states import State

READERS = (*FIELD, *STAFF, Role.UNIT_LIAISON)
ARRIVED = {State.SENT, State.DELIVERED, State.READ}


def _in_scope(context: Context) -> list[object]:
    """Conditions on `Report`: all for the office, otherwise own teams and units' teams."""
    if context.has_role(*STAFF):
        return []
    of_units = select(FieldTeam.id).where(col(FieldTeam.unit_id).in_(units_of(context)))
    return [
        or_(
            col(Report.team_id).in_(teams_of(context)),
            col(Report.team_id).in_(of_units),
        )
    ]


def newest(context: Context, *conditions: object) -> Sequence[Report]:
    """Reports within the speaker's scope, newest month and version first."""
    return context.session.exec(
        select(Report)
        .where(*_in_scope(context), *conditions)  # type: ignore[arg-type]  # SQL conditions
        .order_by(col(Report.month).desc(), col(Report.team_id), col(Report.version).desc())
    ).all()


def by_number(context: Context, number: str) -> Report:
    """The report of this number, without a version the newest; UserError out of scope."""
    wanted = number.strip().upper()
    conditions = or_(
        func.upper(Report.number) == wanted,
        func.upper(Report.number).startswith(f"{wanted}-V", autoescape=True),
    )
    found = newest(context, conditions)
    if not found:
        raise UserError(f"没有找到 {number}，或不在您的范围内。回「月报 查看」看清单。")
    return found[0]


@command(
    "月报 查看",
    help="月报 查看：看已交的月报和回执；月报 查看 3月",
    section="小分队",
    roles=READERS,
    reads=True,
    feature="monthly_reports",
)
def view(context: Context, argument: str) -> Reply:
    """One report whole, by month or number; the list of a month for those who see several teams."""
    if argument.upper().startswith("YB"):
        return _shown(context, by_number(context, argument))
    conditions: list[object] = []
    if argument:
        conditions = [col(Report.month) == str(parse_month(argument, context.today))]
    reports = _last_versions(newest(context, *conditions))
    if not reports:
        raise UserError(f"{argument or '目前'}没有已提交的月报。")
    month = reports[0].month
    listed = [each for each in reports if each.month == month]
    return _shown(context, listed[0]) if len(listed) == 1 else _list(listed)


def _last_versions(reports: Sequence[Report]) -> list[Report]:
    """The newest version of each team and month."""
    first: dict[tuple[int, str], Report] = {}
    for report in reports:
        first.setdefault((report.team_id, report.month), report)
    return list(first.values())


def _list(reports: Sequence[Report]) -> Reply:
    lines = [f"{each.number}　{show_time(each.filed_at)}" for each in reports]
    return say("已收到的月报：\n" + "\n".join(lines) + "\n回「月报 查看 编号」看全文。")


def _shown(context: Context, report: Report) -> Reply:
    reason = f"\n更正原因：{report.reason}" if report.reason else ""
    text = (
        f"{report.text}{reason}\n内容校验码 {report.content_hash[:8]}\n{receipts(context, report)}"
    )
    word = context.session.get(DaysWord, report.id)
    if word is not None:
        said = "派出单位已确认天数" if word.agrees else f"派出单位对天数有异议：{word.note}"
        text = f"{text}\n{said}"
    return say(text)


def receipts(context: Context, report: Report) -> str:
    """`办公室：已送达2人、已阅1人；派出单位：…`, from the two deliveries."""
    rows = context.session.exec(
        select(ReportReceipt)
        .where(ReportReceipt.report_id == report.id)
        .order_by(col(ReportReceipt.side), col(ReportReceipt.person_id))
    ).all()
    states = overview.states_of(context.connection, sorted({row.occasion for row in rows}))
    words = []
    for side, label in SIDES.items():
        mine = [row for row in rows if row.side == side]
        if not mine:
            words.append(f"{label}：未送")
            continue
        arrived = sum(1 for row in mine if states.get((row.occasion, row.person_id)) in ARRIVED)
        read = [row.read_at for row in mine if row.read_at is not None]
        seen = f"已阅（{beijing(min(read)):%m-%d %H:%M}）" if read else "未阅"
        words.append(f"{label}：{'已送达' if arrived else '发送中'}，{seen}")
    return "回执　" + "；".join(words)


@command(
    "已阅",
    help="已阅 YB-…：告诉小分队月报看过了",
    section="小分队",
    roles=(Role.COORDINATOR, Role.UNIT_LIAISON),
    feature="monthly_reports",
)
def mark_read(context: Context, argument: str) -> Reply:
    """Mark a delivered report as read; without a number the newest one that is not."""
    conditions = [ReportReceipt.person_id == context.person_id]
    if argument:
        conditions.append(ReportReceipt.report_id == by_number(context, argument).id)
    else:
        conditions.append(col(ReportReceipt.read_at).is_(None))  # type: ignore[arg-type]
    receipt = context.session.exec(
        select(ReportReceipt).where(*conditions).order_by(col(ReportReceipt.report_id).desc())
    ).first()
    if receipt is None:
        raise UserError("没有等您阅看的月报。" if not argument else f"{argument} 没有送给您。")
    report = context.session.get_one(Report, receipt.report_id)
    if receipt.read_at is None:
        receipt.read_at = context.now
        context.session.add(receipt)
    return say(f"已记下：{report.number} 已阅。")


@command(
    "我的进度",
    help="我的进度：本月月报交没交、两方看没看",
    section="小分队",
    roles=FIELD,
    reads=True,
    feature="monthly_reports",
)
def progress(context: Context, _argument: str) -> Reply:
    """How the team stands with this month's and last month's report."""
    team_ids = teams_of(context)
    if not team_ids:
        raise UserError("您的账号还没有分到小分队，请联系办公室登记。")
    this = Month.of(context.today)
    months = [month_ended(context.today), this]
    lines = [_standing(context, team_ids[0], month) for month in months]
    return say("\n".join(lines))


def _standing(context: Context, team_id: int, month: Month) -> str:
    found = newest(context, Report.team_id == team_id, Report.month == str(month))
    name = f"{month.number}月月报"
    if found:
        report, first = found[0], found[-1]
        filed = beijing(report.filed_at)
        return (
            f"{name}：{report.number}，{filed:%m-%d %H:%M}，{timeliness(first, month)}。\n"
            f"　　{receipts(context, report)}"
        )
    if context.now < opening(month):
        return f"{name}：{opening(month).month}月{opening(month).day}日开放填报。"
    match filing_state(None, month, context.now):
        case FilingState.MISSING:
            frozen = show_time(freeze(month))
            return f"{name}：未交，已于{frozen}冻结；补交请回「补报 {month.number}月」。"
        case FilingState.OUTSTANDING:
            return f"{name}：未交，已迟{days_late(context.now, month)}天，请回「月报」。"
        case _:
            return f"{name}：未交，{month.number}月{month.last_day.day}日24点截止，请回「月报」。"


@command(
    "确认天数",
    help="确认天数 YB-…：派出单位确认驻点天数",
    section="小分队",
    roles=(Role.UNIT_LIAISON,),
    feature="monthly_reports",
    needs_argument=True,
)
def confirm_days(context: Context, argument: str) -> Reply:
    """The dispatching unit agrees with the days on post."""
    report = by_number(context, argument)
    _say_of_days(context, report, agrees=True, note="")
    return say(f"已记下：{report.number} 的驻点天数已确认。")


@command(
    "异议",
    help="异议 YB-… 原因：派出单位对驻点天数有异议",
    section="小分队",
    roles=(Role.UNIT_LIAISON,),
    feature="monthly_reports",
    needs_argument=True,
)
def dispute_days(context: Context, argument: str) -> Reply:
    """The dispatching unit disagrees; the leader is told, nothing is held up."""
    number, _, note = argument.partition(" ")
    if not note.strip():
        raise UserError("请写明异议内容，如「异议 YB-2026-03-T1 李某3月在单位5天」。")
    report = by_number(context, number)
    _say_of_days(context, report, agrees=False, note=note.strip())
    for person_id in leaders_of(context.session, report.team_id, context.now):
        context.send(
            person_id,
            say(
                f"派出单位对 {report.number} 的驻点天数有异议：{note.strip()}。"
                f"需要更正请回「更正 月报 {Month.parse(report.month).number}月」。",
                Choice("查看", f"月报 查看 {report.number}"),
            ),
            occasion=f"days:{report.id}:{context.now.isoformat()}",
            purpose=DUTY,
        )
    return say(f"已记下对 {report.number} 天数的异议，并告知带队人；不影响报送。")


def _say_of_days(context: Context, report: Report, *, agrees: bool, note: str) -> None:
    word = context.session.get(DaysWord, report.id) or DaysWord(
        report_id=report.id or 0, person_id=context.person_id, agrees=agrees, at=context.now
    )
    word.person_id, word.at = context.person_id, context.now
    word.agrees, word.note = agrees, note
    context.session.add(word)
    context.audit("report.days", f"report:{report.number}", note)
