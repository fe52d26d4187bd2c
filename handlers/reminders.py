"""Who owes a monthly report: the late list, the reminders, 稍后, and freezing a month."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time

from sqlalchemy import func
from sqlmodel import Session, col, select, update

from bot.clock import BEIJING, beijing
from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.heart import fire
from bot.messages import Reply, say
from bot.workdays import NotAnnounced, is_announced, is_working_day
from handlers.bulletin import FilingLine, render_late_list
from handlers.deadlines import (
    BULLETIN_DAY,
    FilingState,
    Moment,
    Step,
    WorkingDayRule,
    cut_off,
    filing_state,
    freeze,
    opening,
    reminders,
    snooze,
)
from handlers.ledger import month_ended, parse_month
from handlers.periods import Month
from handlers.purposes import DUTY
from handlers.roles import Role, leaders_of, teams_of
from storage.jobs import Firing
from storage.organisation import DayOverride, FieldTeam, Unit
from storage.reports import Project, Report, Snooze, Stage, projects_of

REMINDERS_A_MONTH = 5
SCHEDULE = "report_reminder"


@dataclass(frozen=True)
class Standing:
    """How one team stands with a month's report: its state, and when it first filed."""

    team: FieldTeam
    unit: str
    state: FilingState
    filed_at: datetime | None

    @property
    def owes(self) -> bool:
        return self.filed_at is None


def standings(session: Session, month: Month, now: datetime) -> list[Standing]:
    """Every team's standing with a month, by team code; three statements, however many teams."""
    first: Mapping[int, datetime] = {
        team_id: filed_at
        for team_id, filed_at in session.exec(
            select(Report.team_id, func.min(col(Report.filed_at)))
            .where(Report.month == str(month), col(Report.filed_at) <= now)
            .group_by(col(Report.team_id))
        )
    }
    rows = session.exec(
        select(FieldTeam, Unit.name)
        .join(Unit, col(Unit.id) == FieldTeam.unit_id)
        .order_by(col(FieldTeam.code))
    )
    return [
        Standing(
            team,
            unit,
            filing_state(first.get(team.id or 0), month, now),
            first.get(team.id or 0),
        )
        for team, unit in rows
    ]


# - working days -


def day_overrides(session: Session) -> dict[date, bool]:
    """The office's own word on days, day to worked or not."""
    return {
        date.fromisoformat(each.day): each.working for each in session.exec(select(DayOverride))
    }


def working_days(overrides: Mapping[date, bool]) -> WorkingDayRule:
    """The rule of the published calendar; Monday to Friday where a year is not announced yet."""

    def works(day: date) -> bool:
        try:
            return is_working_day(day, overrides)
        except NotAnnounced:
            return day.weekday() < 5

    return works


def calendar_remark(month: Month, overrides: Mapping[date, bool]) -> str:
    """What coordinators must know of the calendar behind the dates; empty when it is announced."""
    if is_announced(month.year, overrides):
        return ""
    return f"{month.year}年放假安排尚未公布，工作日暂按周一至周五算；公布后请导入假日表。"


# - reminders -


def said_later(session: Session, team_id: int, month: Month) -> list[Snooze]:
    """When a team said 稍后 in a month, in order."""
    return list(
        session.exec(
            select(Snooze)
            .where(
                Snooze.team_id == team_id,
                col(Snooze.day) >= month.first_day,
                col(Snooze.day) <= month.last_day,
            )
            .order_by(col(Snooze.day))
        )
    )


def is_put_off(moment: Moment, snoozes: Sequence[Snooze]) -> bool:
    """Does a 稍后 of the same day stand in the place of this reminder?"""
    return any(
        each.day == beijing(moment.at).date() and each.said_at < moment.at for each in snoozes
    )


def planned(month: Month, works: WorkingDayRule, snoozes: Sequence[Snooze]) -> tuple[Moment, ...]:
    """A team's reminders for a month, each 20:00 that was asked for among them."""
    kept = [each for each in reminders(month, works) if not is_put_off(each, snoozes)]
    again = [Moment(Step.SNOOZED, each.until) for each in snoozes]
    return tuple(sorted([*kept, *again], key=lambda each: each.at))


def reminded(session: Session, team_id: int, month: Month) -> int:
    """How often a team was reminded of a month."""
    return len(
        session.exec(
            select(Firing.occasion).where(
                Firing.schedule == SCHEDULE,
                col(Firing.occasion).startswith(f"{month}:{team_id}:"),
            )
        ).all()
    )


def claim_reminder(session: Session, team_id: int, month: Month, what: str, now: datetime) -> bool:
    """Claim one reminder of a team; False when it was sent before, or is a sixth one in time."""
    if now <= cut_off(month) and reminded(session, team_id, month) >= REMINDERS_A_MONTH:
        return False
    return fire(session, SCHEDULE, f"{month}:{team_id}:{what}", now)


def reminder_words(session: Session, team_id: int, month: Month, step: Step) -> str:
    """What the team's leader is told; nobody is named."""
    last = f"{month.number}月{month.last_day.day}日"
    match step:
        case Step.OPENING:
            projects = [
                f"{each.code} {each.name}" for each in projects_of(session, team_id) if _runs(each)
            ]
            carried = f"已带入在跟项目：{'、'.join(projects)}。" if projects else ""
            return (
                f"您好，{month.number}月月报开放（{last}24点截止）。{carried}"
                "回「月报」开始，约3分钟；现在不方便请回「稍后」。"
            )
        case Step.SECOND_REMINDER | Step.WORKING_DAY_BEFORE:
            return (
                f"您好，{month.number}月月报{last}24点截止，还没有收到。"
                "回「月报」约3分钟；现在不方便请回「稍后」。"
            )
        case Step.SNOOZED:
            return (
                f"您好，按您说的再提醒这一次：{month.number}月月报{last}24点截止。"
                "回「月报」可先报一部分，草稿会替您留着。"
            )
        case Step.LAST_DAY_MORNING:
            return (
                f"您好，{month.number}月月报今天截止（24点）。已带入上月数据，"
                "回「月报」约3分钟；现在不方便请回「稍后」，今晚20:00再提醒一次。"
            )
        case _:
            return f"您好，{month.number}月月报今天24点截止，还没有收到。回「月报」约3分钟。"


def _runs(project: Project) -> bool:
    return project.stage not in (Stage.PRODUCED, Stage.FULL_CAPACITY)


def due_month(today: date) -> Month:
    """The month people mean without saying: the one past until its bulletin, then the present."""
    return month_ended(today) if today.day < BULLETIN_DAY else Month.of(today)


def _month(context: Context, argument: str) -> Month:
    said = argument.strip()
    return parse_month(said, context.today) if said else due_month(context.today)


@command(
    "稍后",
    "等会",
    "晚点",
    help="稍后：今晚20:00再提醒一次月报",
    section="小分队",
    roles=(Role.TEAM_LEADER,),
    feature="monthly_reports",
)
def later(context: Context, _argument: str) -> Reply:
    """Put the day's reminder off to 20:00, once a day and within the month's five."""
    month = Month.of(context.today)
    until = snooze(context.now, month)
    if until is None:
        return say("现在没有可以推后的月报提醒。随时回「月报」填报。")
    works = working_days(day_overrides(context.session))
    owing = {
        each.team.id or 0 for each in standings(context.session, month, context.now) if each.owes
    }
    teams = [each for each in teams_of(context) if each in owing]
    if not teams:
        return say(f"{month.number}月月报已经收到，不会再提醒您。")
    for team_id in teams:
        _put_off(context, team_id, month, until, works)
    return say("好，已记为「稍后」，今晚20:00只再提醒您这一次。")


def _put_off(
    context: Context, team_id: int, month: Month, until: datetime, works: WorkingDayRule
) -> None:
    snoozes = said_later(context.session, team_id, month)
    if any(each.day == context.today for each in snoozes):
        return
    again = Snooze(team_id=team_id, day=context.today, said_at=context.now, until=until)
    if len(planned(month, works, [*snoozes, again])) > REMINDERS_A_MONTH:
        raise UserError(
            f"本月最多提醒{REMINDERS_A_MONTH}次，今晚不再另提；下次提醒照常。随时回「月报」填报。"
        )
    context.session.add(again)
    context.session.flush()


# - the coordinator -


@command(
    "迟报",
    help="迟报：看谁还没报；迟报 3月",
    section="统筹",
    roles=(Role.COORDINATOR, Role.LEADER),
    feature="monthly_reports",
    reads=True,
)
def late_list(context: Context, argument: str) -> Reply:
    """Teams that have not filed, or filed late; units and teams, never people."""
    return say(late_words(context.session, _month(context, argument), context.now))


def late_words(session: Session, month: Month, now: datetime) -> str:
    """The late list of a month as it stands now."""
    lines = [
        FilingLine(each.team.name, each.unit, each.state, each.filed_at)
        for each in standings(session, month, now)
    ]
    return render_late_list(month, lines, now=now)


@command(
    "催报",
    help="催报：提醒还没报的小分队，一天一次",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="monthly_reports",
)
def remind(context: Context, argument: str) -> Reply:
    """Remind the leaders of those who owe; a team once a day, and in time five times at most."""
    month = _month(context, argument)
    if context.now < opening(month):
        raise UserError(f"{month.number}月月报{month.number}月25日才开放，还不能催报。")
    owing = [each for each in standings(context.session, month, context.now) if each.owes]
    if not owing:
        return say(f"{month.number}月月报已经全部收到，不用催。")
    reached, spared, nobody = [], [], []
    for each in owing:
        team_id = each.team.id or 0
        leaders = leaders_of(context.session, team_id, context.now)
        if not leaders:
            nobody.append(each.team.name)
            continue
        if _reminded_today(context, team_id, month) or not claim_reminder(
            context.session, team_id, month, f"asked:{context.today}", context.now
        ):
            spared.append(each.team.name)
            continue
        reached.append(each.team.name)
        words = _asked_words(month, context.now)
        for person_id in leaders:
            context.send(
                person_id,
                say(words),
                occasion=f"{SCHEDULE}:{month}:{team_id}:asked:{context.today}",
                purpose=DUTY,
                expires_at=_end_of_day(context.today),
            )
    context.audit("report.remind", f"month:{month}")
    parts = [
        f"已催报{len(reached)}队：{'、'.join(reached)}。" if reached else "没有新催的小分队。",
        f"今天已提醒过或本月已满{REMINDERS_A_MONTH}次：{'、'.join(spared)}。" if spared else "",
        f"还没有带队人领码，请单位转告：{'、'.join(nobody)}。" if nobody else "",
    ]
    return say("".join(parts))


def _reminded_today(context: Context, team_id: int, month: Month) -> bool:
    begin = datetime.combine(context.today, time.min, BEIJING)
    found = select(Firing.occasion).where(
        Firing.schedule == SCHEDULE,
        col(Firing.occasion).startswith(f"{month}:{team_id}:"),
        col(Firing.at) >= begin,
    )
    return context.session.exec(found).first() is not None


def _asked_words(month: Month, now: datetime) -> str:
    if now > freeze(month):
        return f"您好，{month.number}月月报还没有收到，已记为缺报。补报请回「补报」。"
    if now > cut_off(month):
        return (
            f"您好，{month.number}月月报还没有收到，已记为迟报。今天补上仍计入本月统计，"
            "回「月报」即可。"
        )
    last = f"{month.number}月{month.last_day.day}日"
    return f"您好，{month.number}月月报{last}24点截止，还没有收到。回「月报」约3分钟。"


def _end_of_day(day: date) -> datetime:
    return datetime.combine(day, time(21, 30), BEIJING)


@command(
    "冻结",
    help="冻结：看某月何时冻结、谁缺报",
    section="统筹",
    roles=(Role.COORDINATOR, Role.LEADER),
    feature="monthly_reports",
)
def frozen(context: Context, argument: str) -> Reply:
    """Tell whether a month is frozen and who is missing; lock it if the clock has not yet."""
    month = _month(context, argument)
    if context.now <= freeze(month):
        moment = f"{beijing(freeze(month)):%Y-%m-%d %H:%M}"
        words = f"{month.number}月月报{moment}冻结；之前可自由更正，之后走更正申请。"
        return say(f"{words}\n{late_words(context.session, month, context.now)}")
    lock(context.session, month, context.now)
    return say(frozen_words(context.session, month, context.now))


def lock(session: Session, month: Month, now: datetime) -> None:
    """Lock what was filed by the freeze; doing it again changes nothing."""
    session.execute(
        update(Report)
        .where(
            col(Report.month) == str(month),
            col(Report.locked_at).is_(None),
            col(Report.filed_at) <= freeze(month),
        )
        .values(locked_at=now)
    )
    session.expire_all()


def frozen_words(session: Session, month: Month, now: datetime) -> str:
    """Which teams are missing now that a month is frozen."""
    everyone = standings(session, month, now)
    missing = [each for each in everyone if each.filed_at is None or each.filed_at > freeze(month)]
    rows = [
        f"{number}.{each.team.name}（{each.unit}）{'缺报' if each.owes else '冻结后补报'}"
        for number, each in enumerate(missing, start=1)
    ]
    heading = (
        f"{month.year}年{month.number}月月报已冻结：应报{len(everyone)}队，"
        f"按期收到{len(everyone) - len(missing)}队，缺报{len(missing)}队。"
    )
    return "\n".join([heading, *rows])
