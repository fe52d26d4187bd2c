"""The words that open a monthly report: 月报, 月报 模板 and 补报."""

import re
from typing import Any

from bot.clock import beijing
from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.forms import Dialog
from bot.messages import Reply, say
from handlers.deadlines import OPENING_DAY, freeze
from handlers.ledger import month_ended, parse_month
from handlers.periods import Month
from handlers.place import here
from handlers.reports.facts import gather
from handlers.reports.field_team_monthly import MonthlyReport
from handlers.reports.filing import DRAFT, load_sheet
from handlers.reports.sheet import Sheet
from handlers.roles import FIELD, teams_of
from storage.organisation import FieldTeam
from storage.reports import PreparedReport, latest_report

_MONTH_LIKE = re.compile(r"月|^\s*\d{1,2}\s*$|^\s*\d{4}-\d{1,2}\s*$")


def team_of(context: Context) -> FieldTeam:
    """The speaker's field team; UserError without one."""
    for team_id in teams_of(context):
        return context.session.get_one(FieldTeam, team_id)
    raise UserError("您的账号还没有分到小分队，请联系办公室登记。")


@command(
    "月报",
    "/report",
    help="月报：填本月的报告；月报 模板：一次填好整张表",
    section="小分队",
    roles=FIELD,
    feature="monthly_reports",
)
def report(context: Context, argument: str) -> Reply:
    """Begin or go on; a filled-in template may follow on the next lines."""
    words, filled = _split(argument)
    team = team_of(context)
    month = _open_month(context, words)
    _refuse_if_filed(context, team, month)
    return _begin(context, team, month, filled)


def _split(argument: str) -> tuple[str, str]:
    """The month that was said, and the template or the first answer behind it."""
    first, _, rest = argument.partition("\n")
    if "：" in first or ":" in first or not _MONTH_LIKE.search(first):
        return "", argument
    return first.strip(), rest.strip()


def _open_month(context: Context, words: str) -> Month:
    """The month that may be filed now; UserError says since when or until when another may."""
    this, last = Month.of(context.today), month_ended(context.today)
    if words:
        month = parse_month(words, context.today)
    else:
        month = this if context.today.day >= OPENING_DAY else last
    name = f"{month.number}月"
    if month == this and context.today.day < OPENING_DAY:
        raise UserError(f"{name}月报{month.number}月{OPENING_DAY}日开放填报，到时会提醒您。")
    if context.now <= freeze(month):
        return month
    frozen = beijing(freeze(month))
    if words:
        raise UserError(
            f"{name}月报已于{frozen.month}月{frozen.day}日{frozen:%H:%M}冻结。"
            f"没交的请回「补报 {name}」，交过要改的请回「更正 月报 {name}」。"
        )
    raise UserError(
        f"现在没有要填的月报，{this.number}月月报{this.number}月{OPENING_DAY}日开放。"
        f"以前没交的请回「补报 {name}」。"
    )


def _refuse_if_filed(context: Context, team: FieldTeam, month: Month) -> None:
    filed = latest_report(context.session, team.id or 0, str(month))
    if filed is not None:
        raise UserError(
            f"{month.number}月月报已提交（{filed.number}）。"
            f"看内容请回「月报 查看 {month.number}月」，要改请回「更正 月报 {month.number}月」。"
        )


def _begin(
    context: Context, team: FieldTeam, month: Month, filled: str, *, backfill: bool = False
) -> Reply:
    kept = context.drafts.get(MonthlyReport.name)
    if kept and (kept.facts["month"], kept.facts["team"]["id"]) == (str(month), team.id):
        reply = context.resume(MonthlyReport, _resumed(context, team, month))
    else:
        reply = _begin_afresh(context, team, month, backfill=backfill)
    return _hear(context, filled) if filled else reply


def _resumed(context: Context, team: FieldTeam, month: Month) -> str:
    words = f"接着填{month.number}月月报。"
    if context.session.get(PreparedReport, (team.id, str(month), DRAFT)) is None:
        return words
    return f"{words}（队员也填好了一份；想用那一份，先回「取消」，再回「月报」。）"


def _begin_afresh(context: Context, team: FieldTeam, month: Month, *, backfill: bool) -> Reply:
    facts = gather(context.session, here(context), team, month, context.person_id)
    if not facts["roster"]:
        raise UserError(f"{team.name}的花名册还没有登记，请联系办公室。")
    facts |= {"version": 1, "backfill": backfill}
    laid = context.session.get(PreparedReport, (team.id, str(month), DRAFT))
    if laid is not None:
        sheet = load_sheet(laid.sheet)
        facts = {**sheet.facts, "reporter": facts["reporter"] or sheet.facts["reporter"]}
        return context.begin(MonthlyReport, facts, sheet.answers, "队员已填好，请核对。")
    return context.begin(MonthlyReport, facts, before=_greeting(context, facts))


def _greeting(context: Context, facts: dict[str, Any]) -> str:
    sheet = Sheet({}, facts)
    month = sheet.month
    until = f"{month.number}月{month.last_day.day}日24点截止"
    if context.today > month.last_day:
        until = "已过截止日，冻结前照收" if not facts["backfill"] else "补报，计入下期累计"
    projects = len(sheet.known)
    carried = f"，{projects}个在跟项目已带入" if projects else ""
    return f"{sheet.month_name}月报（{until}），约3分钟{carried}。"


def _hear(context: Context, filled: str) -> Reply:
    """A template that came with the command is the first answer."""
    dialog = Dialog.resume(MonthlyReport, context.drafts[MonthlyReport.name], context.today)
    step = dialog.hear(filled)
    if step.draft is not None:
        context.drafts[MonthlyReport.name] = step.draft
    return step.reply


@command(
    "补报",
    help="补报 3月：冻结后补交没报的月份",
    section="小分队",
    roles=FIELD,
    feature="monthly_reports",
    needs_argument=True,
)
def backfill(context: Context, argument: str) -> Reply:
    """File a month that was missing; it counts from the next period on."""
    words, filled = _split(argument)
    month = parse_month(words.removeprefix("月报").strip(), context.today)
    if context.now <= freeze(month):
        raise UserError(f"{month.number}月月报还没有冻结，直接回「月报 {month.number}月」即可。")
    team = team_of(context)
    _refuse_if_filed(context, team, month)
    return _begin(context, team, month, filled, backfill=True)


@command(
    "月报 模板",
    "月报模板",
    help="月报 模板：复制、填好、一次发回",
    section="小分队",
    roles=FIELD,
    reads=True,
    feature="monthly_reports",
)
def template(context: Context, _argument: str) -> Reply:
    """The whole form as lines to copy, with the team's own projects in it."""
    team = team_of(context)
    this = Month.of(context.today)
    month = this if context.today.day >= OPENING_DAY else month_ended(context.today)
    facts = gather(context.session, here(context), team, month, context.person_id)
    names = "、".join(each["name"] for each in facts["roster"])
    hints = (
        "复制下一条，填好后整条发回来，没填的我再逐项问。金额单位万元。\n"
        f"驻点天数按 {names} 的顺序写；天数不足的在「请假事由」写“姓名 事由”，几人用分号隔开；"
        "新增线索、新增在谈每条一行，没有写「没有」。"
    )
    return say(hints).then("\n".join([f"月报 {month.number}月", *_template_lines(facts)]))


def _template_lines(facts: dict[str, Any]) -> list[str]:
    codes = [each["code"] for each in facts["projects"]]
    given = {
        "progress": "；".join(f"{code} 无变化" for code in codes),
        "funds": "；".join(
            f"{code} 固投0 其他0"
            for code in (Sheet({}, facts).called(key) for key in Sheet({}, facts).funded())
        ),
        "leads": "没有",
        "fresh": "没有",
    }
    return [
        f"{ask.label}：{given.get(name, '')}"
        for name, ask in MonthlyReport.asks().items()
        if name not in ("progress", "funds") or given[name]
    ]
