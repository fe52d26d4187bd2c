"""Rankings and bulletins: drafted from the ledger, published by a second person, then fixed."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from bot.clock import BEIJING, show_time
from bot.commands import Approvable, command
from bot.context import Context
from bot.errors import UserError
from bot.messages import Reply, say
from bot.text import content_hash
from handlers.approvals import request
from handlers.bulletin import (
    bulletin_headline,
    in_wan,
    percent,
    render_bulletin,
    render_ranking,
    target_in_wan,
)
from handlers.deadlines import FilingState, cut_off, filing_state
from handlers.ledger import funds_entries, month_ended, parse_period, period_key, summary_of
from handlers.periods import Month, Period, ReportPeriod
from handlers.place import Place, here
from handlers.purposes import DUTY
from handlers.rankings import Summary, TeamResult
from handlers.roles import FIELD, STAFF, Role, teams_of
from storage.approvals import Approval
from storage.organisation import FieldTeam
from storage.people import people_with_role
from storage.reports import Bulletin, Report

KIND = "bulletin"
READERS = (Role.COORDINATOR, Role.LEADER, Role.TEAM_LEADER, Role.UNIT_LIAISON)
DRAFT, PUBLISHED = "draft", "published"
STATE_WORDS = {
    FilingState.NOT_DUE: "待报",
    FilingState.OUTSTANDING: "未报",
    FilingState.MISSING: "缺报",
    FilingState.ON_TIME: "按时",
    FilingState.LATE: "迟报",
    FilingState.BACKFILLED: "补报",
}


@command(
    "排名",
    help="排名：看各队完成情况；排名 Q1、排名 3月、排名 上半年",
    section="统筹",
    roles=(*STAFF, *FIELD, Role.UNIT_LIAISON),
    feature="monthly_reports",
    reads=True,
)
def ranking(context: Context, argument: str) -> Reply:
    """Staff see how things stand now; the teams see what was published."""
    if context.has_role(*STAFF):
        period = parse_period(argument, context.today)
        summary = summary_of(context.session, here(context), period, context.now)
        return say(f"{render_ranking(summary)}\n（截至{show_time(context.now)}的数据）")
    found = _published(context, argument)
    if found is None:
        return say("这一期还没有发布。发布后会通知您，也可回「完成情况」看本队的数据。")
    text: str = json.loads(found.snapshot)["ranking"]
    return say(text)


def _published(context: Context, argument: str) -> Bulletin | None:
    """The published bulletin of the period asked for, or the newest."""
    statement = select(Bulletin).where(Bulletin.state == PUBLISHED)
    if argument.strip():
        key = period_key(parse_period(argument, context.today))
        return context.session.exec(statement.where(Bulletin.period == key)).first()
    return context.session.exec(statement.order_by(col(Bulletin.published_at).desc())).first()


@command(
    "通报",
    help="通报 Q1：看通报；统筹员先看草稿，再回「通报 发布 Q1」",
    section="统筹",
    roles=(*STAFF, *FIELD, Role.UNIT_LIAISON),
    feature="monthly_reports",
)
def bulletin(context: Context, argument: str) -> Reply:
    """The published text; for staff, the draft while there is none."""
    found = _published(context, argument)
    if not context.has_role(*STAFF):
        return say(found.text if found else "这一期还没有发布。")
    period = parse_period(argument, context.today)
    found = _stored(context.session, period)
    if found is not None and found.state == PUBLISHED:
        return say(found.text)
    summary = summary_of(context.session, here(context), period, context.now)
    text = render_bulletin(summary, area=here(context).reports.area)
    words = _spoken(period)
    return say(text).then(f"这是草稿。核对无误请回「通报 发布 {words}」，第二人同意后发布。")


@command(
    "通报 发布",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="monthly_reports",
    needs_argument=True,
)
def publish(context: Context, argument: str) -> Reply:
    """Keep the draft as a snapshot and ask a second person to publish it."""
    period = parse_period(argument, context.today)
    if context.now <= cut_off(period.last_month):
        raise UserError(f"{period.title}还没有结束，不能发布通报。")
    stored = _stored(context.session, period)
    if stored is not None and stored.state == PUBLISHED:
        raise UserError(f"{period.title}通报已经发布，不再改动；之后的更正在下一期说明。")
    place = here(context)
    summary = summary_of(context.session, place, period, context.now)
    if not summary.teams:
        raise UserError("本期没有下达年度任务的小分队，没有可通报的数据。")
    draft = stored or Bulletin(
        period=period_key(period), text="", snapshot="", content_hash="", drafted_at=context.now
    )
    draft.text = render_bulletin(summary, area=place.reports.area)
    draft.snapshot = snapshot(context.session, place, summary, context.now)
    draft.content_hash = content_hash(KIND, draft.period, draft.text, draft.snapshot)
    draft.drafted_at = context.now
    context.session.add(draft)
    context.session.flush()
    approval = request(
        context, KIND, draft.period, f"发布{period.title}驻点招商情况通报", draft.content_hash
    )
    return say(f"已提交 {approval.number}，第二人同意后发布。内容已锁定。")


def _spoken(period: ReportPeriod) -> str:
    """The period as one would type it: Q1, 3月, 上半年, 全年, with the year."""
    words = f"Q{period.number}" if period.period is Period.QUARTER else period.short_title
    return f"{period.year}年" if period.period is Period.YEAR else words


def _stored(session: Session, period: ReportPeriod) -> Bulletin | None:
    return session.exec(select(Bulletin).where(Bulletin.period == period_key(period))).first()


def snapshot(session: Session, place: Place, summary: Summary, now: datetime) -> str:
    """All figures of a bulletin down to each project's month, as JSON; money in 元.

    Shares are exact fractions such as `73/200`.
    """
    period = summary.period
    entries = [
        each
        for each in funds_entries(session, period.year, now)
        if each.superseded_at is None and each.month in period.to_date
    ]
    return json.dumps(
        {
            "period": period_key(period),
            "as_of": now.isoformat(),
            "ranking": render_ranking(summary),
            "area": place.reports.area,
            "teams": [_team_figures(each) for each in summary.teams],
            "total": asdict(summary.total),
            "target_yuan": summary.target_yuan,
            "completion": str(summary.progress.completion),
            "funds": [
                {
                    "project": each.project.code,
                    "month": str(each.month),
                    "fixed_yuan": each.fixed_yuan,
                    "other_yuan": each.other_yuan,
                    "recognised_yuan": each.recognised_yuan,
                    "basis": each.recognition.basis if each.recognition else "",
                }
                for each in entries
            ],
        },
        ensure_ascii=False,
        sort_keys=True,
    )


def _team_figures(result: TeamResult) -> dict[str, Any]:
    return {
        "team": result.team.team,
        "name": result.team.name,
        "rank": result.rank,
        "group_rank": result.group_rank,
        "target_yuan": result.team.target_yuan,
        "completion": str(result.progress.completion),
        "figures": asdict(result.figures),
        "late": [str(each.month) for each in result.conduct.late],
        "missing": [str(each) for each in result.conduct.missing],
        "backfilled": [str(each) for each in result.conduct.backfilled],
        "post": f"{result.conduct.post_met}/{result.conduct.post_due}",
        "score": str(result.score.total),
    }


# - four eyes -


def _draft(context: Context, approval: Approval) -> Bulletin:
    return context.session.exec(select(Bulletin).where(Bulletin.period == approval.object)).one()


def _show(context: Context, approval: Approval) -> Reply:
    return say(_draft(context, approval).text)


def _granted(context: Context, approval: Approval) -> Reply:
    """Publish the snapshot that was approved; only the day in its headline is new."""
    draft = _draft(context, approval)
    if draft.content_hash != approval.content_hash:
        raise UserError("草稿已经重新生成，请按新的审批编号审批。")
    period = parse_period(draft.period, context.today)
    _, *body = draft.text.splitlines()
    draft.text = "\n".join([bulletin_headline(period, context.today), *body])
    draft.content_hash = content_hash(KIND, draft.period, draft.text, draft.snapshot)
    draft.state, draft.published_at = PUBLISHED, context.now
    context.session.add(draft)
    context.session.flush()
    context.audit("bulletin.publish", f"bulletin:{draft.period}", approval_id=approval.id)
    readers = _readers(context)
    for person_id in readers:
        context.send(person_id, say(draft.text), occasion=f"bulletin:{draft.period}", purpose=DUTY)
    also = _post(context, draft)
    return say(f"{period.title}通报已发布，发给{len(readers)}人{also}。")


def _post(context: Context, bulletin: Bulletin) -> str:
    """Let the staff's groups have it too, not at night; returns words about it."""
    groups = context.services.groups
    morning = context.services.settings.quiet.after(context.now, BEIJING)
    for group in groups:
        context.send_to_group(
            group, say(bulletin.text), occasion=f"bulletin:{bulletin.period}", not_before=morning
        )
    return f"，并发到{'、'.join(groups.values())}" if groups else ""


def _refused(context: Context, approval: Approval) -> Reply:
    return say("通报仍是草稿。")


def _readers(context: Context) -> list[int]:
    people: list[int] = []
    for role in READERS:
        people += people_with_role(context.session, role, context.now)
    return list(dict.fromkeys(people))


BULLETINS = Approvable(KIND, "通报发布", _show, _granted, _refused)


# - a team's own view -


@command(
    "完成情况",
    "本队进度",
    help="完成情况：看本队今年的认定数和进度",
    section="小分队",
    roles=FIELD,
    feature="monthly_reports",
    reads=True,
)
def my_progress(context: Context, _argument: str) -> Reply:
    """This year's figures of the speaker's teams, as recognised so far; no ranks."""
    today = context.today
    last = month_ended(today)
    months = Month.of(today) if last.year < today.year else last
    period = ReportPeriod(Period.MONTH, months.year, months.number)
    summary = summary_of(context.session, here(context), period, context.now)
    teams = context.session.exec(
        select(FieldTeam).where(col(FieldTeam.id).in_(teams_of(context)))
    ).all()
    codes = {each.team.team: each for each in summary.teams}
    blocks = [
        _own_block(context, team, codes[team.code], period) for team in teams if team.code in codes
    ]
    if not blocks:
        return say("本队今年还没有下达任务，或您还没有加入小分队。")
    return say("\n".join(blocks))


def _own_block(context: Context, team: FieldTeam, result: TeamResult, period: ReportPeriod) -> str:
    figures = result.figures
    states = "，".join(
        f"{month.number}月{STATE_WORDS[_state(context, team, month)]}" for month in period.to_date
    )
    pending = f"，待认定{in_wan(figures.unexamined_yuan)}" if figures.unexamined_yuan else ""
    return (
        f"{team.name}（1月至{period.last_month.number}月）\n"
        f"认定到位资金{in_wan(figures.recognised_yuan)}，上报{in_wan(figures.reported_yuan)}"
        f"{pending}\n"
        f"年度目标{target_in_wan(result.team.target_yuan)}，"
        f"完成{percent(result.progress.completion)}%"
        f"（序时进度{percent(period.time_progress)}%）\n"
        f"签约{figures.signed}个{in_wan(figures.signed_yuan)}，开工{figures.started}个，"
        f"投产{figures.produced}个；走访{figures.visits}家次\n"
        f"月报：{states}"
    )


def _state(context: Context, team: FieldTeam, month: Month) -> FilingState:
    return filing_state(first_filed(context.session, team.id or 0, month), month, context.now)


def first_filed(session: Session, team_id: int, month: Month) -> datetime | None:
    """When a team's report for a month was first filed."""
    return session.exec(
        select(Report.filed_at)
        .where(Report.team_id == team_id, Report.month == str(month))
        .order_by(col(Report.filed_at))
        .limit(1)
    ).first()
