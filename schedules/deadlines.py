"""The monthly report's calendar: opens, reminds, lists who is late, freezes, drafts the bulletin.

Every step is claimed in the table of firings, so any number of beats and replicas does it once. A
beat that comes too late for a reminder leaves it out; freezing is made up for whenever it comes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from sqlmodel import Session, col, select

from bot.clock import BEIJING, beijing
from bot.commands import Tick
from bot.context import Services, outbox_row
from bot.heart import fire
from bot.messages import Reply, say
from handlers.bulletin import render_bulletin
from handlers.deadlines import (
    Moment,
    Step,
    WorkingDayRule,
    bulletin_due,
    cut_off,
    freeze,
    moments,
    reminders,
)
from handlers.ledger import month_ended, summary_of
from handlers.periods import Month, Period, ReportPeriod
from handlers.place import place_of
from handlers.purposes import DUTY
from handlers.reminders import (
    Standing,
    calendar_remark,
    claim_reminder,
    day_overrides,
    frozen_words,
    is_put_off,
    late_words,
    lock,
    reminder_words,
    said_later,
    standings,
    working_days,
)
from handlers.roles import Role, leaders_of, liaisons_of
from storage import mailbox
from storage.jobs import Firing
from storage.organisation import FieldTeam
from storage.people import people_with_role
from storage.reports import Report, Snooze

SCHEDULE = "monthly_report"
EVENING = time(21, 30)
NEWS_LASTS = timedelta(days=3)
"""How long after its moment a step still tells the coordinators."""

STEP_WORDS = {
    Step.OPENING: "月报开放，第一次提醒",
    Step.SECOND_REMINDER: "第二次提醒（未报者）",
    Step.WORKING_DAY_BEFORE: "月末前一工作日提醒（未报者）",
    Step.LAST_DAY_MORNING: "当日提醒（未报者）",
    Step.LAST_DAY_AFTERNOON: "当日再提醒（未报者）",
    Step.CUT_OFF: "月报截止",
    Step.LATE_LIST: "迟报清单发统筹员",
    Step.ESCALATION: "升级提醒派出单位",
    Step.FREEZE: "月报冻结",
    Step.BULLETIN: "通报草稿发统筹员",
}


@dataclass(frozen=True)
class Beat:
    """One look at the clock, for one month; `works` tells working days."""

    services: Services
    session: Session
    now: datetime
    month: Month
    works: WorkingDayRule
    remark: str = ""

    def tell(self, people: Sequence[int], reply: Reply, what: str, until: datetime) -> None:
        """Queue a message for people, each once for `what`, gone if not sent by `until`."""
        rows = [
            outbox_row(
                self.services,
                self.session,
                person_id,
                reply,
                occasion=f"{SCHEDULE}:{self.month}:{what}",
                purpose=DUTY,
                now=self.now,
                expires_at=until,
            )
            for person_id in people
        ]
        mailbox.enqueue(self.session.connection(), [row for row in rows if row is not None])

    def tell_coordinators(self, reply: Reply, what: str, until: datetime) -> None:
        people = people_with_role(self.session, Role.COORDINATOR, self.now)
        self.tell(people, reply, what, until)

    def owing(self) -> list[Standing]:
        """Teams that have not filed the month."""
        return [each for each in standings(self.session, self.month, self.now) if each.owes]


def run(services: Services, session: Session, now: datetime) -> None:
    """Do what is due of the last three months' reports."""
    if "monthly_reports" not in services.place.features:
        return
    if session.exec(select(FieldTeam.id).limit(1)).first() is None:
        return
    overrides = day_overrides(session)
    works = working_days(overrides)
    for month in _months(now):
        beat = Beat(services, session, now, month, works, calendar_remark(month, overrides))
        for step, at, until in _windows(month, works):
            if at <= now < until and not _done(beat, step) and _claim(beat, step):
                STEPS[step](beat, step, until)
        _evening(beat)


def _months(now: datetime) -> tuple[Month, ...]:
    present = Month.of(beijing(now).date())
    past = month_ended(present.first_day)
    return month_ended(past.first_day), past, present


def _windows(month: Month, works: WorkingDayRule) -> list[tuple[Step, datetime, datetime]]:
    """Each step with when it falls due and when it is too late for it."""
    steps = [each for each in moments(month, works) if each.step in STEPS]
    planned = reminders(month, works)
    return [(each.step, each.at, _until(each, month, planned)) for each in steps]


def _until(moment: Moment, month: Month, planned: Sequence[Moment]) -> datetime:
    match moment.step:
        case Step.LATE_LIST | Step.ESCALATION:
            return freeze(month)
        case Step.FREEZE:
            return moment.at + timedelta(days=400)
        case Step.BULLETIN:
            return bulletin_due(month.next)
        case _:
            evening = datetime.combine(beijing(moment.at).date(), EVENING, BEIJING)
            later = [each.at for each in planned if each.at > moment.at]
            return min([evening, *later])


def _done(beat: Beat, step: Step) -> bool:
    return beat.session.get(Firing, (SCHEDULE, f"{beat.month}:{step}")) is not None


def _claim(beat: Beat, step: Step) -> bool:
    return fire(beat.session, SCHEDULE, f"{beat.month}:{step}", beat.now)


# - the steps -


def _remind(beat: Beat, step: Step, until: datetime) -> None:
    """Remind the leaders of teams that have not filed and did not say 稍后 today."""
    due = next(each for each in reminders(beat.month, beat.works) if each.step is step)
    for each in beat.owing():
        team_id = each.team.id or 0
        if not is_put_off(due, said_later(beat.session, team_id, beat.month)):
            _remind_team(beat, team_id, step, step, until)


def _remind_team(beat: Beat, team_id: int, step: Step, what: str, until: datetime) -> None:
    leaders = leaders_of(beat.session, team_id, beat.now)
    if leaders and claim_reminder(beat.session, team_id, beat.month, what, beat.now):
        words = reminder_words(beat.session, team_id, beat.month, step)
        beat.tell(leaders, say(words), f"{team_id}:{what}", until)


def _evening(beat: Beat) -> None:
    """Remind once more, at 20:00, those who said 稍后 that day and have not filed since."""
    said = beat.session.exec(
        select(Snooze).where(
            col(Snooze.until) <= beat.now,
            col(Snooze.until) > beat.now - timedelta(hours=1, minutes=30),
            col(Snooze.day) >= beat.month.first_day,
            col(Snooze.day) <= beat.month.last_day,
        )
    ).all()
    if not said:
        return
    owing = {each.team.id for each in beat.owing()}
    for each in said:
        if each.team_id in owing:
            until = datetime.combine(each.day, EVENING, BEIJING)
            _remind_team(beat, each.team_id, Step.SNOOZED, f"{Step.SNOOZED}:{each.day}", until)


def _late_list(beat: Beat, step: Step, until: datetime) -> None:
    """The list to coordinators; a private word to leaders and to the units that sent them."""
    words = late_words(beat.session, beat.month, beat.now)
    if beat.remark:
        words = f"{words}\n{beat.remark}"
    beat.tell_coordinators(say(words), step, until)
    number = beat.month.number
    for each in beat.owing():
        leaders = leaders_of(beat.session, each.team.id or 0, beat.now)
        beat.tell(
            leaders,
            say(
                f"您好，{number}月月报尚未提交，已记为迟报。今天补上仍计入本月统计，回「月报」即可。"
                "需要帮忙回「人工」。"
            ),
            f"{step}:{each.team.id}",
            until,
        )
        told = "（已催办带队人）" if leaders else ""
        beat.tell(
            liaisons_of(beat.session, each.team.unit_id, beat.now),
            say(f"您单位派出的{each.team.name}{number}月月报未提交{told}。"),
            f"{step}:unit:{each.team.id}",
            until,
        )


def _escalate(beat: Beat, step: Step, until: datetime) -> None:
    frozen_at = f"{beijing(until).month}月{beijing(until).day}日18:00"
    for each in beat.owing():
        beat.tell(
            liaisons_of(beat.session, each.team.unit_id, beat.now),
            say(
                f"您单位派出的{each.team.name}{beat.month.number}月月报至今未交，"
                f"{frozen_at}冻结后记为缺报，请协助督促。"
            ),
            f"{step}:{each.team.id}",
            until,
        )


def _freeze(beat: Beat, step: Step, _until: datetime) -> None:
    lock(beat.session, beat.month, beat.now)
    until = freeze(beat.month) + NEWS_LASTS
    if beat.now < until:
        words = frozen_words(beat.session, beat.month, beat.now)
        beat.tell_coordinators(say(words), step, until)


def _draft(beat: Beat, step: Step, until: datetime) -> None:
    """The longest period that ends with the month as a draft; the others are named."""
    any_report = select(Report.id).where(Report.month == str(beat.month)).limit(1)
    if beat.session.exec(any_report).first() is None:
        return
    periods = periods_ending(beat.month)
    place = place_of(beat.services)
    summary = summary_of(beat.session, place, periods[-1], beat.now)
    text = render_bulletin(summary, area=place.reports.area)
    words = "、".join(f"「通报 {each.short_title}」" for each in periods)
    reply = say(text).then(
        f"通报草稿已备好，请核对。看草稿回{words}，"
        f"发布回「通报 发布 {periods[-1].short_title}」，第二人同意后发布。"
    )
    beat.tell_coordinators(reply, step, until)


def periods_ending(month: Month) -> list[ReportPeriod]:
    """The periods whose bulletin is due after a month, the longest last."""
    lengths = {Period.MONTH: 1, Period.QUARTER: 3, Period.HALF_YEAR: 6, Period.YEAR: 12}
    return [
        ReportPeriod(period, month.year, month.number // length)
        for period, length in lengths.items()
        if month.number % length == 0
    ]


STEPS: dict[Step, Callable[[Beat, Step, datetime], None]] = {
    Step.OPENING: _remind,
    Step.SECOND_REMINDER: _remind,
    Step.WORKING_DAY_BEFORE: _remind,
    Step.LAST_DAY_MORNING: _remind,
    Step.LAST_DAY_AFTERNOON: _remind,
    Step.LATE_LIST: _late_list,
    Step.ESCALATION: _escalate,
    Step.FREEZE: _freeze,
    Step.BULLETIN: _draft,
}


def upcoming(
    services: Services, session: Session, now: datetime, span: timedelta
) -> list[tuple[datetime, str]]:
    """The coming moments of all months' reports within `span`, with words."""
    if "monthly_reports" not in services.place.features:
        return []
    works = working_days(day_overrides(session))
    found: list[tuple[datetime, str]] = []
    month = _months(now)[1]
    while cut_off(month) - timedelta(days=31) < now + span:
        found += [
            (each.at, f"{month.number}月：{STEP_WORDS[each.step]}")
            for each in moments(month, works)
            if now < each.at <= now + span
        ]
        month = month.next
    return sorted(found)


MONTHLY_REPORT = Tick(SCHEDULE, run, "月报的提醒、迟报、冻结与通报", upcoming=upcoming)
