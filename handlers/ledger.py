"""Reads the tables of reports and projects into the records that rankings are worked out from."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction

from sqlmodel import Session, col, select

from bot.clock import beijing
from bot.errors import UserError
from bot.normalize import read_integer, tidy
from handlers.deadlines import counted_from
from handlers.periods import Month, Period, ReportPeriod
from handlers.place import Place
from handlers.rankings import (
    FiledLead,
    FiledMonth,
    Group,
    LedgerProject,
    Milestone,
    ProjectFunds,
    Records,
    Rules,
    StageEvent,
    Summary,
    summarise,
)
from handlers.rankings import TeamTarget as RankedTeam
from storage.organisation import FieldTeam, MinimumDays, TeamMember, TeamTarget, Unit
from storage.reports import (
    ChangeState,
    Lead,
    LeadsPassed,
    Project,
    Recognition,
    Report,
    ReportDays,
    ReportedFunds,
    Stage,
    StageChange,
)

GROUPS = {
    "县直": Group.COUNTY_UNITS,
    "县直单位": Group.COUNTY_UNITS,
    "乡镇": Group.TOWNSHIPS,
    "驻外分局": Group.BRANCHES,
}
MILESTONES = {
    Stage.SIGNED: Milestone.SIGNED,
    Stage.STARTED: Milestone.STARTED,
    Stage.PRODUCED: Milestone.PRODUCED,
}
FIRST_YEAR = 2000
_MONTH = re.compile(r"(?:(\d{4})[年-])?([0-9一二三四五六七八九十]{1,2})(?:月份?)?")
_QUARTER = re.compile(r"(?:(\d{4})年?)?(?:[Qq]([1-4])|第?([一二三四1-4])季度?)")
_HALF = re.compile(r"(?:(\d{4})年?)?(?:[Hh]([12])|([上下])半年)")
_YEAR = re.compile(r"(?:(\d{4})年?|全年|今年|年度)")


@dataclass(frozen=True)
class FundsEntry:
    """What a project had in place in a month, as some version of the report first told it (元).

    `recognition` is the newest confirmed word on exactly these amounts, `pending` one that a
    second person has not agreed to yet. `superseded_at`: when another version told otherwise.
    """

    project: Project
    month: Month
    entered_at: datetime
    fixed_yuan: int
    other_yuan: int
    superseded_at: datetime | None = None
    recognition: Recognition | None = None
    pending: Recognition | None = None

    @property
    def reported_yuan(self) -> int:
        return self.fixed_yuan + self.other_yuan

    @property
    def recognised_yuan(self) -> int | None:
        found = self.recognition
        return None if found is None else found.fixed_yuan + found.other_yuan


def parse_month(text: str, today: date) -> Month:
    """Read `3月`, `2026年3月` or `2026-03`; without a year the latest such month begun by `today`.

    Raises UserError.
    """
    found = _MONTH.fullmatch(tidy(text).replace(" ", ""))
    number = read_integer(found[2]) if found else None
    if found is None or number is None or not 1 <= number <= 12:
        raise UserError(f"没认出月份「{text}」，请写成「3月」或「2026-03」。")
    if found[1]:
        return Month(_year(found[1], today), number)
    return Month(today.year if number <= today.month else today.year - 1, number)


def parse_period(text: str, today: date) -> ReportPeriod:
    """Read `3月`, `Q1`, `一季度`, `上半年`, `全年`; nothing means the month that ended last.

    Raises UserError.
    """
    said = tidy(text).replace(" ", "")
    if not said:
        last = month_ended(today)
        return ReportPeriod(Period.MONTH, last.year, last.number)
    if found := _QUARTER.fullmatch(said):
        number = int(found[2]) if found[2] else read_integer(found[3]) or 1
        return _begun(Period.QUARTER, found[1], number, today)
    if found := _HALF.fullmatch(said):
        number = int(found[2]) if found[2] else "上下".index(found[3]) + 1
        return _begun(Period.HALF_YEAR, found[1], number, today)
    if found := _YEAR.fullmatch(said):
        return ReportPeriod(Period.YEAR, _year(found[1] or str(today.year), today))
    try:
        month = parse_month(said, today)
    except UserError:
        raise UserError(
            f"没认出期间「{text}」，可写「3月」「一季度」「上半年」或「全年」。"
        ) from None
    return ReportPeriod(Period.MONTH, month.year, month.number)


def _begun(period: Period, year: str | None, number: int, today: date) -> ReportPeriod:
    """The named period; without a year the latest one that has begun."""
    if year:
        return ReportPeriod(period, _year(year, today), number)
    this_year = ReportPeriod(period, today.year, number)
    begun = this_year.months[0].first_day <= today
    return this_year if begun else ReportPeriod(period, today.year - 1, number)


def _year(text: str, today: date) -> int:
    """A year somebody may mean; raises UserError."""
    if not FIRST_YEAR <= int(text) <= today.year + 1:
        raise UserError(f"年份「{text}」不对，请写{FIRST_YEAR}到{today.year + 1}之间的年份。")
    return int(text)


def month_ended(today: date) -> Month:
    """The last month that is over."""
    this = Month.of(today)
    return Month(this.year - 1, 12) if this.number == 1 else Month(this.year, this.number - 1)


def period_key(period: ReportPeriod) -> str:
    """How a period is stored: `2026-03`, `2026Q1`, `2026H1` or `2026`."""
    match period.period:
        case Period.MONTH:
            return str(period.last_month)
        case Period.QUARTER:
            return f"{period.year}Q{period.number}"
        case Period.HALF_YEAR:
            return f"{period.year}H{period.number}"
        case Period.YEAR:
            return str(period.year)


def rules_of(session: Session, place: Place) -> Rules:
    """The place's rules, with the months for which they were changed."""
    changed = session.exec(select(MinimumDays)).all()
    return Rules(
        minimum_half_days=place.reports.minimum_days * 2,
        minimum_half_days_in={Month.parse(each.month): each.half_days for each in changed},
        hundred_points="hundred_points" in place.features,
    )


def summary_of(session: Session, place: Place, period: ReportPeriod, now: datetime) -> Summary:
    """Everything a period's ranking and bulletin say, as known at `now`."""
    records = read_records(session, period.year, now)
    return summarise(records, period, rules_of(session, place), as_of=now)


def read_records(session: Session, year: int, as_of: datetime) -> Records:
    """The year's records as known at `as_of`.

    Teams without a target are not ranked; their projects still count for the whole county.
    """
    teams = _ranked_teams(session, year)
    projects = {each.id: each for each in session.exec(select(Project))}
    codes = {each.id: each.code for each in projects.values()}
    return Records(
        teams=tuple(teams.values()),
        reports=tuple(_filed_months(session, year, teams)),
        projects=tuple(_ledger_project(each, codes, teams) for each in projects.values()),
        funds=tuple(_project_funds(each) for each in funds_entries(session, year, as_of)),
        events=tuple(_stage_events(session, list(projects.values()))),
        leads=tuple(_filed_leads(session, year, teams)),
    )


def _ranked_teams(session: Session, year: int) -> dict[int, RankedTeam]:
    heads = Counter(
        session.exec(select(TeamMember.team_id).where(col(TeamMember.left_at).is_(None)))
    )
    rows = session.exec(
        select(FieldTeam, TeamTarget.target_yuan, Unit.name)
        .join(TeamTarget, col(TeamTarget.team_id) == FieldTeam.id)
        .join(Unit, col(Unit.id) == FieldTeam.unit_id)
        .where(TeamTarget.year == year, TeamTarget.target_yuan > 0)
        .order_by(col(FieldTeam.code))
    )
    return {
        team.id or 0: RankedTeam(
            team.code,
            team.name,
            unit,
            target_yuan,
            heads[team.id or 0],
            GROUPS.get(team.group, Group.COUNTY_UNITS),
        )
        for team, target_yuan, unit in rows
    }


def _versions(session: Session, year: int) -> Sequence[Report]:
    """Every version of every report of a year, in the order of their filing."""
    return session.exec(
        select(Report)
        .where(col(Report.month).startswith(f"{year}-"))
        .order_by(col(Report.filed_at), col(Report.version))
    ).all()


def _filed_months(
    session: Session, year: int, teams: Mapping[int, RankedTeam]
) -> Iterable[FiledMonth]:
    days: dict[int, list[int]] = defaultdict(list)
    rows = session.exec(
        select(ReportDays)
        .join(Report, col(Report.id) == ReportDays.report_id)
        .where(col(Report.month).startswith(f"{year}-"))
        .order_by(col(ReportDays.report_id), col(ReportDays.member_id))
    )
    for each in rows:
        days[each.report_id].append(each.half_days)
    for report in _versions(session, year):
        if report.team_id in teams:
            yield FiledMonth(
                teams[report.team_id].team,
                Month.parse(report.month),
                report.filed_at,
                tuple(days[report.id or 0]),
                report.visits,
            )


def _ledger_project(
    project: Project, codes: Mapping[int | None, str], teams: Mapping[int, RankedTeam]
) -> LedgerProject:
    owner = teams.get(project.team_id)
    return LedgerProject(
        project.code,
        ((owner.team, Fraction(1)),) if owner else (),
        codes[project.merged_into] if project.merged_into else None,
    )


# - funds -


def funds_entries(session: Session, year: int, as_of: datetime) -> list[FundsEntry]:
    """Every amount that reports of the year told, each once, with what was recognised of it."""
    projects = {each.id: each for each in session.exec(select(Project))}
    told = _told(session, year, as_of)
    words: dict[tuple[int, str], list[Recognition]] = defaultdict(list)
    for each in session.exec(
        select(Recognition)
        .where(
            col(Recognition.month).startswith(f"{year}-"),
            col(Recognition.entered_at) <= as_of,
            col(Recognition.state).in_([ChangeState.CONFIRMED, ChangeState.SUBMITTED]),
        )
        .order_by(col(Recognition.id))
    ):
        words[each.project_id, each.month].append(each)
    entries = []
    for (project_id, month), amounts in told.items():
        ends = [*(entered_at for entered_at, _, _ in amounts[1:]), None]
        for (entered_at, fixed_yuan, other_yuan), end in zip(amounts, ends, strict=True):
            said = [
                each
                for each in words[project_id, month]
                if entered_at <= each.entered_at and (end is None or each.entered_at < end)
            ]
            entries.append(
                FundsEntry(
                    projects[project_id],
                    Month.parse(month),
                    entered_at,
                    fixed_yuan,
                    other_yuan,
                    end,
                    _newest(said, ChangeState.CONFIRMED),
                    _newest(said, ChangeState.SUBMITTED),
                )
            )
    return entries


def _told(
    session: Session, year: int, as_of: datetime
) -> dict[tuple[int, str], list[tuple[datetime, int, int]]]:
    """By project and month: when, fixed assets and other, one line for each change.

    A version that no longer lists a project tells that nothing was in place.
    """
    by_report: dict[int, dict[int, tuple[int, int]]] = defaultdict(dict)
    for row in session.exec(
        select(ReportedFunds).where(col(ReportedFunds.month).startswith(f"{year}-"))
    ):
        by_report[row.report_id][row.project_id] = (row.fixed_yuan, row.other_yuan)
    told: dict[tuple[int, str], list[tuple[datetime, int, int]]] = defaultdict(list)
    listed: dict[tuple[int, str], set[int]] = defaultdict(set)
    for report in _versions(session, year):
        if report.filed_at > as_of:
            continue
        amounts = by_report[report.id or 0]
        known = listed[report.team_id, report.month]
        for project_id in sorted(known | amounts.keys()):
            now = amounts.get(project_id, (0, 0))
            lines = told[project_id, report.month]
            if not lines or lines[-1][1:] != now:
                lines.append((report.filed_at, *now))
        known |= amounts.keys()
    return told


def _newest(said: Iterable[Recognition], state: ChangeState) -> Recognition | None:
    return next((each for each in reversed(list(said)) if each.state == state), None)


def _project_funds(entry: FundsEntry) -> ProjectFunds:
    found = entry.recognition
    return ProjectFunds(
        entry.project.code,
        entry.month,
        entry.entered_at,
        entry.fixed_yuan,
        entry.other_yuan,
        None if found is None else found.fixed_yuan,
        None if found is None else found.other_yuan,
    )


# - stages -


def _stage_events(session: Session, projects: Sequence[Project]) -> Iterable[StageEvent]:
    codes = {each.id: each.code for each in projects}
    confirmed = _confirmed_changes(session)
    told: dict[int | None, set[Stage]] = defaultdict(set)
    for project_id, stage in confirmed:
        told[project_id].add(stage)
    for project in projects:
        if project.talks_on is not None:
            known_at = None if project.carried_over else project.created_at
            yield StageEvent(
                project.code, Milestone.IN_TALKS, project.talks_on, reported_at=known_at
            )
        yield from _dated_events(project, told[project.id])
    for (project_id, stage), changes in confirmed.items():
        for change, filed_at in changes:
            yield StageEvent(
                codes[project_id],
                MILESTONES[stage],
                change.happened_on,
                change.planned_yuan or 0,
                filed_at or change.decided_at,
            )


def _dated_events(project: Project, told: set[Stage]) -> Iterable[StageEvent]:
    """What is known of a project only from its own line in the ledger, such as an imported one."""
    days = {
        Stage.SIGNED: project.signed_on,
        Stage.STARTED: project.started_on,
        Stage.PRODUCED: project.produced_on,
    }
    for stage, day in days.items():
        if day is not None and stage not in told:
            total = project.planned_yuan if stage is Stage.SIGNED else 0
            yield StageEvent(project.code, MILESTONES[stage], day, total)


def _confirmed_changes(
    session: Session,
) -> dict[tuple[int, Stage], list[tuple[StageChange, datetime | None]]]:
    """Confirmed changes by project and stage; one that later versions repeat stands once."""
    rows = session.exec(
        select(StageChange, Report.filed_at)
        .join(Report, col(Report.id) == StageChange.report_id, isouter=True)
        .where(StageChange.state == ChangeState.CONFIRMED)
        .order_by(col(Report.filed_at), col(StageChange.id))
    )
    found: dict[tuple[int, Stage], list[tuple[StageChange, datetime | None]]] = defaultdict(list)
    seen: set[tuple[object, ...]] = set()
    for change, filed_at in rows:
        stage = Stage(change.to_stage)
        same = (change.project_id, stage, change.happened_on, change.planned_yuan)
        if stage in MILESTONES and same not in seen:
            seen.add(same)
            found[change.project_id, stage].append((change, filed_at))
    return found


# - leads -


def _filed_leads(
    session: Session, year: int, teams: Mapping[int, RankedTeam]
) -> Iterable[FiledLead]:
    """Leads with the day on which the review passed them.

    Where only the number of passed leads is known, the newest that still wait are taken to be
    those, first of the month itself.
    """
    passed_in = {
        (each.team_id, each.month): each.passed
        for each in session.exec(
            select(LeadsPassed).where(col(LeadsPassed.month).startswith(f"{year}-"))
        )
    }
    by_team: dict[int, list[Lead]] = defaultdict(list)
    for lead in session.exec(
        select(Lead)
        .where(col(Lead.month).startswith(f"{year}-"))
        .order_by(col(Lead.month), col(Lead.id))
    ):
        by_team[lead.team_id].append(lead)
    for team_id, leads in by_team.items():
        if team_id not in teams:
            continue
        passed = _passed_days(team_id, leads, passed_in)
        for lead in leads:
            yield FiledLead(teams[team_id].team, _lead_day(lead), passed.get(lead.id or 0))


def _lead_day(lead: Lead) -> date:
    """The day a lead counts on: never after the month whose report told it in time."""
    counted = counted_from(Month.parse(lead.month), lead.filed_at)
    return min(beijing(lead.filed_at).date(), counted.last_day)


def _passed_days(
    team_id: int, leads: Sequence[Lead], passed_in: Mapping[tuple[int, str], int]
) -> dict[int, date]:
    days = {each.id or 0: beijing(each.passed_at).date() for each in leads if each.passed_at}
    for month in sorted({each.month for each in leads} | {m for t, m in passed_in if t == team_id}):
        waiting = [each for each in leads if each.month <= month and each.id not in days]
        for each in list(reversed(waiting))[: passed_in.get((team_id, month), 0)]:
            days[each.id or 0] = Month.parse(month).last_day
    return days
