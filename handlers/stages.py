"""Coordinators confirm, or send back, the stages that reports propose for projects (§3.6)."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.messages import Reply, say
from handlers.bulletin import in_wan
from handlers.purposes import DUTY
from handlers.rankings import needs_sponsor
from handlers.roles import Role, leaders_of
from storage.organisation import FieldTeam
from storage.reports import (
    STAGE_ORDER,
    STAGE_WORDS,
    ChangeState,
    Project,
    Stage,
    StageChange,
)

DATED = {
    Stage.IN_TALKS: "talks_on",
    Stage.SIGNED: "signed_on",
    Stage.STARTED: "started_on",
    Stage.PRODUCED: "produced_on",
}
"""The column of `Project` that says since when it stands at a stage."""

DATE_WORDS = {
    Stage.IN_TALKS: "首次面谈日期",
    Stage.SIGNED: "签约日期",
    Stage.STARTED: "开工日期",
    Stage.PRODUCED: "投产日期",
}


@dataclass(frozen=True)
class Proposal:
    """A change that waits for a coordinator, with its project and team."""

    change: StageChange
    project: Project
    team: FieldTeam


def proposals(session: Session, code: str = "") -> list[Proposal]:
    """What waits, of one project or of all."""
    rows = session.exec(
        select(StageChange, Project, FieldTeam)
        .join(Project, col(Project.id) == StageChange.project_id)
        .join(FieldTeam, col(FieldTeam.id) == Project.team_id)
        .where(StageChange.state == ChangeState.PROPOSED)
        .order_by(col(FieldTeam.code), col(Project.code), col(StageChange.id))
    )
    return [Proposal(*row) for row in rows if not code or row[1].code == code]


def next_stages(project: Project) -> list[Stage]:
    """Stages a project may move to: the next one, or further if the days between are given."""
    return list(STAGE_ORDER[STAGE_ORDER.index(Stage(project.stage)) + 1 :])


def objection(project: Project, change: StageChange) -> str:
    """Why a change may not be confirmed as it stands; empty when it may."""
    here, there = Stage(project.stage), Stage(change.to_stage)
    name = f"{project.code} {project.name}"
    legal = next_stages(project)
    if there not in legal:
        following = f"下一步可以是「{STAGE_WORDS[legal[0]]}」" if legal else "已是最后一个阶段"
        return (
            f"{name}目前是「{STAGE_WORDS[here]}」，不能改为「{STAGE_WORDS[there]}」；{following}。"
            "误填请用「项目退回」，让小分队更正月报。"
        )
    skipped = [each for each in legal[: legal.index(there)] if _owes_date(project, each)]
    if skipped:
        words = "、".join(DATE_WORDS[each] for each in skipped)
        return (
            f"{name}从「{STAGE_WORDS[here]}」直接到「{STAGE_WORDS[there]}」，还缺{words}；"
            f"下一步应是「{STAGE_WORDS[legal[0]]}」，补登须先给齐中间日期。"
        )
    return _signing_objection(name, change) if there is Stage.SIGNED else ""


def _owes_date(project: Project, stage: Stage) -> bool:
    return stage in DATED and getattr(project, DATED[stage]) is None


def _signing_objection(name: str, change: StageChange) -> str:
    if not change.formal:
        return f"{name}签的是意向或框架协议，不计签约；签正式协议后再报。"
    if not change.planned_yuan:
        return f"{name}报签约，还缺计划总投资，请退回补报。"
    if change.fixed_yuan is None:
        return f"{name}报签约，还缺其中固定资产投资，请退回补报。"
    if change.fixed_yuan > change.planned_yuan:
        return (
            f"{name}固定资产投资{in_wan(change.fixed_yuan)}多于"
            f"计划总投资{in_wan(change.planned_yuan)}，请退回更正。"
        )
    return ""


@command(
    "项目确认",
    help="项目确认：看待确认的阶段变更；项目确认 P01 或 全部",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="monthly_reports",
)
def confirm_stages(context: Context, argument: str) -> Reply:
    """List what waits, or confirm one project's changes, or all that may be confirmed."""
    code = argument.strip().upper()
    if not code:
        return _waiting(context)
    waiting = proposals(context.session, "" if code == "全部" else code)
    if not waiting:
        raise UserError(f"{_named(code)}没有待确认的阶段变更。回「项目确认」看清单。")
    done, refused = [], []
    for each in sorted(waiting, key=lambda one: STAGE_ORDER.index(Stage(one.change.to_stage))):
        why_not = objection(each.project, each.change)
        if why_not:
            refused.append(why_not)
        else:
            done.append(_confirm(context, each))
    if not done:
        raise UserError("\n".join(refused))
    return say("\n".join([*done, *(f"未确认：{each}" for each in refused)]))


def _named(code: str) -> str:
    return "现在" if code == "全部" else f"{code} "


def _waiting(context: Context) -> Reply:
    waiting = proposals(context.session)
    if not waiting:
        return say("没有待确认的阶段变更。")
    lines = [
        f"{number}. {each.project.code} {each.project.name}（{each.team.name}）"
        f"{_change_words(each.change)}"
        for number, each in enumerate(waiting, start=1)
    ]
    return say(
        "待确认的阶段变更：\n"
        + "\n".join(lines)
        + "\n回「项目确认 编号」或「项目确认 全部」；有误回「项目退回 编号 原因」。"
    )


def _change_words(change: StageChange) -> str:
    day = f"{change.happened_on:%Y-%m-%d}"
    words = [
        f"{STAGE_WORDS[Stage(change.from_stage)]}→{STAGE_WORDS[Stage(change.to_stage)]}，{day}"
    ]
    if change.to_stage == Stage.SIGNED:
        words.append("正式协议" if change.formal else "意向或框架协议")
        words.append(f"计划总投资{in_wan(change.planned_yuan or 0)}")
        words.append(f"其中固定资产{in_wan(change.fixed_yuan or 0)}")
    return "，".join([*words, change.note] if change.note else words)


def _confirm(context: Context, proposal: Proposal) -> str:
    change, project = proposal.change, proposal.project
    stage = Stage(change.to_stage)
    project.stage = stage
    if stage in DATED:
        setattr(project, DATED[stage], change.happened_on)
    if stage is Stage.SIGNED:
        project.planned_yuan = change.planned_yuan or 0
        project.fixed_yuan = change.fixed_yuan or 0
    _decide(context, proposal, ChangeState.CONFIRMED, "")
    words = f"已确认 {project.code} {project.name}：{_change_words(change)}。"
    if stage is Stage.SIGNED and needs_sponsor(project.fixed_yuan):
        words += "固定资产投资达1亿元，请安排领导包联。"
    _tell_leaders(context, proposal, words)
    return words


def _decide(context: Context, proposal: Proposal, state: ChangeState, reason: str) -> None:
    change = proposal.change
    change.state, change.reason = state, reason
    change.decided_by, change.decided_at = context.person_id, context.now
    context.session.add(change)
    context.session.add(proposal.project)
    context.session.flush()
    action = "stage.confirm" if state is ChangeState.CONFIRMED else "stage.reject"
    context.audit(action, f"project:{proposal.project.code}:{change.to_stage}", reason)


@command(
    "项目退回",
    help="项目退回 P01 原因：退回阶段变更",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="monthly_reports",
    needs_argument=True,
)
def send_back_stages(context: Context, argument: str) -> Reply:
    """Reject what one project's report proposed; the team is told why."""
    code, _, reason = argument.strip().partition(" ")
    waiting = proposals(context.session, code.upper())
    if not waiting:
        raise UserError(f"{code} 没有待确认的阶段变更。回「项目确认」看清单。")
    if not reason.strip():
        raise UserError(f"退回须写明原因，如「项目退回 {code} 签约日期有误」。")
    for each in waiting:
        _decide(context, each, ChangeState.REJECTED, reason.strip())
        words = f"{each.project.code} {each.project.name}的阶段变更被退回：{reason.strip()}"
        _tell_leaders(context, each, f"{words}。更正请回「更正 月报」。")
    return say(f"已退回 {waiting[0].project.code} {waiting[0].project.name}，原因已告知带队人。")


def _tell_leaders(context: Context, proposal: Proposal, words: str) -> None:
    for person_id in leaders_of(context.session, proposal.team.id or 0, context.now):
        context.send(
            person_id,
            say(words),
            occasion=f"stage:{proposal.change.id}:{proposal.change.state}",
            purpose=DUTY,
        )
