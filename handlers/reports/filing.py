"""Files a report: its figures, leads, stages and funds, and its two deliveries, all or nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, delete, select

from bot.clock import beijing
from bot.context import Context
from bot.errors import UserError
from bot.messages import Choice, Reply, say
from bot.text import content_hash
from handlers import approvals
from handlers.deadlines import FilingState, days_late, filing_state, freeze
from handlers.periods import Month
from handlers.purposes import DUTY
from handlers.reports import wording
from handlers.reports.sheet import Move, Sheet
from handlers.roles import Role, leaders_of, liaisons_of, teams_of
from storage.organisation import FieldTeam
from storage.people import people_with_role
from storage.reports import (
    ChangeState,
    Lead,
    PreparedReport,
    Project,
    Report,
    ReportDays,
    ReportedFunds,
    ReportReceipt,
    Stage,
    StageChange,
    latest_report,
)
from storage.sequences import next_number

DRAFT, CORRECTION = "draft", "correction"
FILED, REPLACED = "filed", "replaced"
OFFICE, UNIT = "office", "unit"
SIDES = {OFFICE: "办公室", UNIT: "派出单位"}
APPROVAL = "report_correction"


def stem_of(sheet: Sheet) -> str:
    """`YB-2026-03-T1`: a report's number without its version."""
    return f"YB-{sheet.facts['month']}-{sheet.facts['team']['code']}"


def number_of(sheet: Sheet, version: int) -> str:
    """`YB-2026-03-T1-v1`."""
    return f"{stem_of(sheet)}-v{version}"


def dump_sheet(sheet: Sheet) -> str:
    """A sheet as JSON, for a sealed column."""
    return json.dumps(
        {"answers": sheet.answers, "facts": sheet.facts}, ensure_ascii=False, sort_keys=True
    )


def load_sheet(text: str) -> Sheet:
    """The inverse of `dump_sheet`."""
    raw = json.loads(text)
    return Sheet(raw["answers"], raw["facts"])


def leads_team(context: Context, team_id: int) -> bool:
    """May the speaker submit for this team?"""
    return any(role.name == Role.TEAM_LEADER and role.team_id == team_id for role in context.roles)


# - submitting -


def submit(context: Context, sheet: Sheet) -> Reply:
    """File a finished report, or lay a member's before the leader. Raises UserError when closed."""
    month, team_id = sheet.month, int(sheet.facts["team"]["id"])
    if context.now > freeze(month) and not sheet.facts.get("backfill"):
        raise UserError(f"{sheet.month_name}月报已冻结，请回「补报 {sheet.month_name}」。")
    latest = latest_report(context.session, team_id, str(month))
    if latest is not None:
        raise UserError(
            f"{sheet.month_name}月报已提交（{latest.number}），"
            f"要改请回「更正 月报 {sheet.month_name}」。"
        )
    if team_id not in teams_of(context):
        raise UserError(f"您已不在{sheet.facts['team']['name']}，这份月报没有提交。")
    if not leads_team(context, team_id):
        return _lay_before_leader(context, sheet, team_id)
    report = file(context, sheet, filed_by=context.person_id)
    sent = deliver(context, sheet, report)
    return say(
        f"已提交 v{report.version}（{report.number}），{beijing(report.filed_at):%m-%d %H:%M}，"
        f"{timeliness(report, month)}。{sent}"
    )


def timeliness(first: Report, month: Month) -> str:
    """`准时`, `迟报（迟2天）` or `补报`, by the first version."""
    match filing_state(first.filed_at, month, first.filed_at):
        case FilingState.LATE:
            return f"迟报（迟{days_late(first.filed_at, month)}天）"
        case FilingState.BACKFILLED:
            return "补报（计入下期累计）"
        case _:
            return "准时"


def _lay_before_leader(context: Context, sheet: Sheet, team_id: int) -> Reply:
    leaders = leaders_of(context.session, team_id, context.now)
    if not leaders:
        raise UserError("小分队还没有带队人账号，月报须由带队人提交，请联系办公室登记。")
    prepare(context, sheet, DRAFT)
    who = sheet.facts["reporter"] or "队员"
    for person_id in leaders:
        context.send(
            person_id,
            say(
                f"{who}已填好{sheet.month_name}月报，请回「月报」核对后「提交」。",
                Choice("月报", "月报"),
            ),
            occasion=f"prepared:{stem_of(sheet)}:{context.now.isoformat()}",
            purpose=DUTY,
        )
    return say("已填好并转给带队人，由带队人核对后提交；提交前您可以回「月报」再改。")


def prepare(context: Context, sheet: Sheet, kind: str, reason: str = "") -> PreparedReport:
    """Keep a complete report until somebody decides about it; an older one is replaced."""
    key = (int(sheet.facts["team"]["id"]), str(sheet.month), kind)
    kept = context.session.get(PreparedReport, key) or PreparedReport(
        team_id=key[0],
        month=key[1],
        kind=kind,
        sheet="",
        prepared_by=context.person_id,
        prepared_at=context.now,
    )
    kept.sheet, kept.reason = dump_sheet(sheet), reason
    kept.prepared_by, kept.prepared_at = context.person_id, context.now
    kept.content_hash = content_hash(kept.sheet, reason)
    context.session.add(kept)
    context.session.flush()
    return kept


# - storing -


@dataclass(frozen=True)
class _Ledger:
    """Ids of a sheet's projects by key, and codes of those new in it by name."""

    ids: Mapping[str, int]
    codes: Mapping[str, str]


def file(context: Context, sheet: Sheet, *, filed_by: int, reason: str = "") -> Report:
    """Store a new version with everything that hangs on it; nothing is sent yet.

    Raises UserError when another version was filed since the sheet was begun.
    """
    session = context.session
    team_id, month = int(sheet.facts["team"]["id"]), str(sheet.month)
    session.get_one(FieldTeam, team_id, with_for_update={"key_share": True})  # one at a time
    older = latest_report(session, team_id, month)
    version = older.version + 1 if older else 1
    if version != sheet.facts["version"]:
        raise UserError(f"这份月报刚才已有人提交（v{version - 1}），请回「月报 查看」。")
    if older is not None:
        older.state = REPLACED
        session.add(older)
    report = _report_row(context, sheet, version, filed_by, reason)
    session.add(report)
    session.flush()
    ledger = _enter_projects(context, sheet)
    sheet = Sheet(sheet.answers, {**sheet.facts, "codes": ledger.codes})
    report.answers = dump_sheet(sheet)
    _enter_days(session, sheet, report)
    leads = _enter_leads(context, sheet, report)
    _enter_moves(context, sheet, report, ledger)
    _enter_funds(session, sheet, report, ledger)
    titles = wording.Titles(report.number, report.as_of, sheet.facts["reporter"], leads)
    report.text = wording.report_text(sheet, titles)
    report.content_hash = content_hash(report.text)
    session.add(report)
    waiting = session.get(PreparedReport, (team_id, month, DRAFT))
    if waiting is not None:
        session.delete(waiting)
    session.flush()
    context.audit("report.file", f"report:{report.number}", reason)
    return report


def _report_row(context: Context, sheet: Sheet, version: int, filed_by: int, reason: str) -> Report:
    also = sheet.get("also", {})
    inbound = sheet.get("inbound", {"batches": 0, "people": 0})
    return Report(
        number=number_of(sheet, version),
        team_id=int(sheet.facts["team"]["id"]),
        month=str(sheet.month),
        version=version,
        as_of=sheet.last_day(context.today),
        filed_at=context.now,
        filed_by=filed_by,
        reason=reason,
        answers=dump_sheet(sheet),
        content_hash="",
        text="",
        visits=sheet.get("visits", 0),
        visits_key=sheet.get("visits_key", 0),
        chambers=also.get("chambers"),
        notables=also.get("notables"),
        promos=sheet.get("promos", 0),
        inbound_batches=inbound["batches"],
        inbound_people=inbound["people"],
        state=FILED,
    )


def _enter_days(session: Session, sheet: Sheet, report: Report) -> None:
    for member in sheet.members:
        away = sheet.leave(member.key).get("away") or {}
        session.add(
            ReportDays(
                report_id=report.id or 0,
                member_id=member.id,
                half_days=sheet.half_days(member),
                leave_half_days=away.get("half_days", 0),
                leave_reason=away.get("reason", ""),
            )
        )


def _enter_leads(context: Context, sheet: Sheet, report: Report) -> list[str]:
    """Leads under their numbers; of an older version those that are told again keep theirs."""
    session = context.session
    known = list(
        session.exec(
            select(Lead)
            .where(Lead.team_id == report.team_id, Lead.month == report.month)
            .order_by(col(Lead.position))
        )
    )
    numbers = []
    for position, row in enumerate(sheet.get("leads", {}).get("rows", ()), 1):
        lead = next((each for each in known if each.name == row["called"]), None)
        if lead is None:
            year = report.month[:4]
            count = next_number(session, f"lead:{year}")
            lead = Lead(
                number=f"XS-{year}-{count:04d}",
                team_id=report.team_id,
                month=report.month,
                name=row["called"],
                filed_at=context.now,
            )
        else:
            known.remove(lead)
        _tell_lead(lead, row, position, report)
        session.add(lead)
        numbers.append(lead.number)
    for lead in known:
        if lead.passed_at is None:
            session.delete(lead)
    return numbers


def _tell_lead(lead: Lead, row: Mapping[str, Any], position: int, report: Report) -> None:
    lead.report_id, lead.position = report.id, position
    lead.investor, lead.content = row.get("investor") or "", row.get("content") or ""
    lead.planned_yuan = row.get("planned") or 0
    lead.needs, lead.source = row.get("needs") or "", row.get("source") or ""
    lead.contact, lead.next_step = row.get("contact"), row.get("next_step") or ""


def _enter_projects(context: Context, sheet: Sheet) -> _Ledger:
    """New projects join the ledger in talks; those a former version brought are told anew."""
    session = context.session
    ids = {each.key: each.id for each in sheet.known}
    codes: dict[str, str] = {}
    brought = list(session.exec(select(Project).where(Project.batch == stem_of(sheet))))
    for key, row in sheet.fresh():
        project = next((each for each in brought if each.name == row["called"]), None)
        if project is None:
            project = Project(
                code=_free_code(session),
                team_id=int(sheet.facts["team"]["id"]),
                name=row["called"],
                created_at=context.now,
                batch=stem_of(sheet),
            )
        else:
            brought.remove(project)
        _tell_talks(project, sheet.moves(key))
        project.investor = row.get("investor") or ""
        if row.get("to") == Stage.IN_TALKS:
            project.planned_yuan = row.get("planned") or 0
            project.fixed_yuan = row.get("fixed") or 0
        session.add(project)
        session.flush()
        ids[key], codes[project.name] = project.id or 0, project.code
    for each in sheet.known:
        _tell_talks(session.get_one(Project, each.id), sheet.moves(each.key))
    _take_back(session, brought)
    return _Ledger(ids, codes)


def _tell_talks(project: Project, moves: Sequence[Move]) -> None:
    """Being in talks needs nobody's word but the team's (§3.6)."""
    for move in moves:
        if move.stage is Stage.IN_TALKS:
            project.talks_on = move.on
            if project.stage in (Stage.LEAD, Stage.REVIEWED):
                project.stage = Stage.IN_TALKS


def _take_back(session: Session, projects: Sequence[Project]) -> None:
    """Projects a former version brought by mistake go, unless something already hangs on them."""
    for project in projects:
        hung = session.exec(
            select(ReportedFunds.id).where(ReportedFunds.project_id == project.id)
        ).first()
        decided = session.exec(
            select(StageChange.id).where(
                StageChange.project_id == project.id,
                StageChange.state != ChangeState.PROPOSED,
            )
        ).first()
        if hung is None and decided is None:
            session.exec(delete(StageChange).where(col(StageChange.project_id) == project.id))
            session.delete(project)
            session.flush()


def _free_code(session: Session) -> str:
    while True:
        code = f"P{next_number(session, 'project'):02d}"
        if session.exec(select(Project.id).where(Project.code == code)).first() is None:
            return code


def _enter_moves(context: Context, sheet: Sheet, report: Report, ledger: _Ledger) -> None:
    """Propose the stages beyond talks; what older versions proposed and nobody decided goes."""
    session = context.session
    versions = select(Report.id).where(
        Report.team_id == report.team_id, Report.month == report.month
    )
    session.exec(
        delete(StageChange).where(
            col(StageChange.report_id).in_(versions),
            col(StageChange.state) == ChangeState.PROPOSED,
        )
    )
    decided = session.exec(
        select(StageChange).where(
            col(StageChange.project_id).in_(ledger.ids.values()),
            StageChange.state != ChangeState.PROPOSED,
        )
    ).all()
    for key, project_id in ledger.ids.items():
        for move in sheet.moves(key):
            if move.stage is Stage.IN_TALKS or _is_decided(move, project_id, decided):
                continue
            session.add(
                StageChange(
                    project_id=project_id,
                    report_id=report.id,
                    month=report.month,
                    from_stage=move.origin,
                    to_stage=move.stage,
                    happened_on=move.on,
                    planned_yuan=move.planned_yuan,
                    fixed_yuan=move.fixed_yuan,
                    note=move.note,
                    proposed_by=report.filed_by,
                )
            )


def _is_decided(move: Move, project_id: int, decided: Sequence[StageChange]) -> bool:
    """Was it confirmed already, or sent back just as it stands?"""
    return any(
        each.project_id == project_id
        and each.to_stage == move.stage
        and (
            each.state == ChangeState.CONFIRMED
            or (each.happened_on, each.planned_yuan, each.fixed_yuan)
            == (move.on, move.planned_yuan, move.fixed_yuan)
        )
        for each in decided
    )


def _enter_funds(session: Session, sheet: Sheet, report: Report, ledger: _Ledger) -> None:
    for told in sheet.all_funds():
        session.add(
            ReportedFunds(
                report_id=report.id or 0,
                project_id=ledger.ids[told.key],
                month=report.month,
                fixed_yuan=told.fixed_yuan,
                other_yuan=told.other_yuan,
                note=told.note,
            )
        )


# - delivering -


def deliver(context: Context, sheet: Sheet, report: Report, head: str = "") -> str:
    """Queue the two deliveries with one number and one hash; returns what was sent where."""
    team = context.session.get_one(FieldTeam, report.team_id)
    receivers = {
        OFFICE: people_with_role(context.session, Role.COORDINATOR, context.now),
        UNIT: liaisons_of(context.session, team.unit_id, context.now),
    }
    told: set[int] = set()
    reached = []
    for side, people in receivers.items():
        # Somebody who is both gets it once, for the office.
        fresh = [person for person in people if person not in told]
        sent = [person for person in fresh if _send(context, report, side, person, head)]
        told.update(sent)
        if sent or told.intersection(people):
            reached.append(side)
    missing = [words for side, words in SIDES.items() if side not in reached]
    words = f"已同时送：{'、'.join(SIDES[side] for side in reached)}（回执可回「我的进度」查看）。"
    if not reached:
        words = "报告已留存。"
    return words + (f"{'、'.join(missing)}还没有登记账号，暂未送达。" if missing else "")


def _send(context: Context, report: Report, side: str, person_id: int, head: str) -> bool:
    occasion = f"report:{report.number}:{side}"
    mark = f"内容校验码 {report.content_hash[:8]}。看过请回「已阅 {report.number}」。"
    text = "\n".join(part for part in (head, report.text, mark) if part)
    sent = context.send(
        person_id,
        say(text, Choice("已阅", f"已阅 {report.number}")),
        occasion=occasion,
        purpose=DUTY,
    )
    if sent:
        context.session.add(
            ReportReceipt(
                report_id=report.id or 0, person_id=person_id, side=side, occasion=occasion
            )
        )
    return sent


# - correcting -


def correct(context: Context, after: Sheet, reason: str) -> Reply:
    """File a correction with its reason; after the freeze a coordinator is asked first."""
    if not leads_team(context, int(after.facts["team"]["id"])):
        raise UserError(f"{after.facts['team']['name']}的月报由现任带队人更正，没有提交。")
    before = _corrected(context, after)
    if context.now > freeze(after.month):
        kept = prepare(context, after, CORRECTION, reason)
        approval = approvals.request(
            context,
            APPROVAL,
            f"{kept.team_id}:{kept.month}",
            f"{after.facts['team']['name']}{after.month_name}月报更正申请",
            kept.content_hash,
            reason=reason,
        )
        return say(
            f"{after.month_name}月报已冻结，已提交更正申请 {approval.number}，"
            "统筹员批准后生效，计入下期累计；已发布的通报不改。"
        )
    return say(_replace(context, before, after, reason, context.person_id) + "（不计迟报）。")


def _corrected(context: Context, after: Sheet) -> Report:
    team_id = int(after.facts["team"]["id"])
    before = latest_report(context.session, team_id, str(after.month))
    if before is None or before.version + 1 != after.facts["version"]:
        raise UserError("这份月报刚才已有新版本，请回「更正 月报」重新更正。")
    return before


def _replace(context: Context, before: Report, after: Sheet, reason: str, filed_by: int) -> str:
    changed = wording.changes(load_sheet(before.answers), after)
    report = file(context, after, filed_by=filed_by, reason=reason)
    head = (
        f"更正通知：{report.number} 替换 {before.number}。"
        f"改动：{'；'.join(changed) or '无数字改动'}。原因：{reason}。"
    )
    deliver(context, after, report, head)
    return f"已生成 v{report.version}（{report.number}），两方已收到更正通知"


def grant_correction(context: Context, team_id: int, month: str) -> str:
    """File the correction a coordinator has just approved; returns what to say."""
    kept = context.session.get_one(PreparedReport, (team_id, month, CORRECTION))
    after = load_sheet(kept.sheet)
    words = _replace(context, _corrected(context, after), after, kept.reason, kept.prepared_by)
    context.session.delete(kept)
    return f"{words}。"


def refuse_correction(context: Context, team_id: int, month: str) -> None:
    """Forget a correction that was not approved."""
    kept = context.session.get(PreparedReport, (team_id, month, CORRECTION))
    if kept is not None:
        context.session.delete(kept)
