"""Corrects a filed report: in a sentence or on its review, with a reason, as a new version."""

import re
from typing import Annotated

from sqlmodel import col, select

from bot.clock import beijing
from bot.commands import Approvable, command
from bot.context import Context
from bot.errors import UserError
from bot.forms import REVIEW, Ask, Dialog, Form
from bot.messages import Reply, say
from bot.normalize import Miss, tidy
from handlers.deadlines import freeze
from handlers.ledger import parse_month
from handlers.reports import filing, wording
from handlers.reports.commands import team_of
from handlers.reports.field_team_monthly import MonthlyReport
from handlers.reports.sheet import Sheet
from handlers.roles import Role
from storage.approvals import Approval
from storage.organisation import FieldTeam
from storage.reports import PreparedReport, Report, latest_report

_MONTH = re.compile(
    r"(?:月报\s*)?((?:\d{4}\s*[年-]\s*)?[0-9一二三四五六七八九十]{1,2}\s*月份?|\d{4}-\d{2})"
)
_SHOULD_BE = re.compile(r"\s*(?:应该是|应该为|应是|应为|改成|改为|更正为|→|->)\s*")


class ReportCorrection(MonthlyReport, name="monthly_report_correction", label="月报更正"):
    """A filed report opened again at its review."""

    def submit(self, context: Context) -> Reply:
        """Asks for the reason of what has changed."""
        return _ask_reason(context, Sheet(self.model_dump(), self.began_with))


def _parse_reason(text: str, _asking: object) -> str | Miss:
    plain = tidy(text)
    if 2 <= len(plain) <= 200:
        return plain
    return Miss("请写一句更正原因，2到200字，如「回单看错了」。")


class CorrectionReason(Form, name="monthly_report_reason", label="更正原因"):
    """Why a report is corrected; the answer files it."""

    finish = None

    reason: Annotated[str, Ask("更正原因", "更正原因？一句话即可。", parse=_parse_reason)]

    def submit(self, context: Context) -> Reply:
        """Files the new version, or asks for approval after the freeze."""
        sheet = Sheet(self.began_with["answers"], self.began_with["facts"])
        return filing.correct(context, sheet, self.reason)


@command(
    "更正 月报",
    "更正月报",
    help="更正 月报 3月：改已交的月报，如「更正 月报 3月 P01其他应该是50」",
    section="小分队",
    roles=(Role.TEAM_LEADER,),
    feature="monthly_reports",
)
def correct(context: Context, argument: str) -> Reply:
    """`3月 p01其他应该是50` changes that; `3月` opens the filed report to be changed."""
    team = team_of(context)
    report, words = _which(context, team, argument)
    before = filing.load_sheet(report.answers)
    facts = {**before.facts, "version": report.version + 1}
    if not words:
        head = f"{_until(context, before)}请说要改哪一项。"
        return context.begin(ReportCorrection, facts, before.answers, head)
    opened = Dialog.begin(ReportCorrection, facts, context.today, before.answers).next_step()
    assert opened.draft is not None, "a filed report is complete"
    heard = Dialog.resume(ReportCorrection, opened.draft, context.today).hear(
        f"修改 {' '.join(_SHOULD_BE.split(words))}"
    )
    if heard.draft is None or heard.draft.answers == opened.draft.answers:
        context.drafts[ReportCorrection.name] = heard.draft or opened.draft
        context.open_form = ReportCorrection.name
        return heard.reply
    if heard.draft.asked == REVIEW:
        return _ask_reason(context, Sheet(heard.draft.answers, facts))
    context.drafts[ReportCorrection.name] = heard.draft
    context.open_form = ReportCorrection.name
    return heard.reply


def _which(context: Context, team: FieldTeam, argument: str) -> tuple[Report, str]:
    """The report that is meant, and what is to change in it."""
    found = _MONTH.match(argument)
    month = str(parse_month(found[1], context.today)) if found else _last_filed(context, team)
    report = latest_report(context.session, team.id or 0, month)
    if report is None:
        raise UserError(
            f"{found[1] if found else '目前'}没有已提交的月报可更正。填报请回「月报」。"
        )
    return report, argument[found.end() :].strip(" ，,：:") if found else argument


def _last_filed(context: Context, team: FieldTeam) -> str:
    newest = context.session.exec(
        select(Report.month).where(Report.team_id == team.id).order_by(col(Report.month).desc())
    ).first()
    return newest or ""


def _until(context: Context, sheet: Sheet) -> str:
    frozen = beijing(freeze(sheet.month))
    moment = f"{frozen.month}月{frozen.day}日{frozen:%H:%M}"
    if context.now <= freeze(sheet.month):
        return f"{moment}前可自由更正。"
    return f"{sheet.month_name}月报已于{moment}冻结，更正须统筹员批准。"


def _ask_reason(context: Context, after: Sheet) -> Reply:
    team_id = int(after.facts["team"]["id"])
    report = latest_report(context.session, team_id, str(after.month))
    assert report is not None, "only a filed report is corrected"
    changed = wording.changes(filing.load_sheet(report.answers), after)
    if not changed:
        raise UserError("和已交的内容一样，没有需要更正的。")
    said = f"{_until(context, after)}{'；'.join(changed)}。"
    facts = {"answers": dict(after.answers), "facts": dict(after.facts)}
    return context.begin(CorrectionReason, facts, before=said)


# - after the freeze -


def _key(approval: Approval) -> tuple[int, str]:
    team_id, _, month = approval.object.partition(":")
    return int(team_id), month


def _show(context: Context, approval: Approval) -> Reply:
    team_id, month = _key(approval)
    kept = context.session.get_one(PreparedReport, (team_id, month, filing.CORRECTION))
    after = filing.load_sheet(kept.sheet)
    report = latest_report(context.session, team_id, month)
    changed = wording.changes(filing.load_sheet(report.answers), after) if report else []
    return say(f"{approval.title}\n改动：{'；'.join(changed)}\n原因：{kept.reason}")


def _granted(context: Context, approval: Approval) -> Reply:
    return say(filing.grant_correction(context, *_key(approval)))


def _refused(context: Context, approval: Approval) -> Reply:
    filing.refuse_correction(context, *_key(approval))
    return say("月报维持原样。")


LATE_CORRECTION = Approvable(filing.APPROVAL, "冻结后更正月报", _show, _granted, _refused)
