"""Works out each team's figures, progress, score and rank from filed reports and the ledger.

Everything is exact: money in whole 元, days in whole half days, rates as Fraction. Only what is
shown to people is rounded, and that happens elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from enum import StrEnum
from fractions import Fraction

from bot.clock import BEIJING, beijing
from handlers.deadlines import counted_from, days_late, freeze
from handlers.periods import Month, ReportPeriod

YI_YUAN = 100_000_000

TARGET_POINTS = 80
POST_POINTS = 10
FILING_POINTS = 10
POINTS_A_LATE_REPORT = 1
POINTS_A_MISSING_REPORT = 2


class Group(StrEnum):
    """Which teams are measured against each other."""

    COUNTY_UNITS = "county_units"
    TOWNSHIPS = "townships"
    BRANCHES = "branches"


class Milestone(StrEnum):
    """A stage of a project that the bulletin counts, once in the project's life."""

    IN_TALKS = "in_talks"
    SIGNED = "signed"
    STARTED = "started"
    PRODUCED = "produced"


@dataclass(frozen=True, slots=True)
class TeamTarget:
    """A field team and what it is to bring in this year; `headcount` is its members on post."""

    team: str
    name: str
    unit: str
    target_yuan: int
    headcount: int
    group: Group = Group.COUNTY_UNITS

    def __post_init__(self) -> None:
        if self.target_yuan <= 0:
            raise ValueError(f"team {self.team} needs a target above zero to be ranked")


@dataclass(frozen=True, slots=True)
class FiledMonth:
    """One version of a team's report; a later `filed_at` for the same month corrects it.

    `half_days` has one number a member, days on post in half days.
    """

    team: str
    month: Month
    filed_at: datetime
    half_days: tuple[int, ...]
    visits: int = 0


@dataclass(frozen=True, slots=True)
class LedgerProject:
    """A project and the teams whose work it is; shares add up to 1, none means the office's own.

    A project that was merged into another no longer counts by itself.
    """

    project: str
    shares: tuple[tuple[str, Fraction], ...] = ()
    merged_into: str | None = None

    def __post_init__(self) -> None:
        if self.shares and sum(share for _, share in self.shares) != 1:
            raise ValueError(f"the shares of project {self.project} do not add up to 1")


@dataclass(frozen=True, slots=True)
class ProjectFunds:
    """Funds in place for one project in one month, as reported and as recognised (元).

    `recognised_*` is None until the coordinator has examined the entry, and never exceeds what was
    reported. A later `entered_at` for the same project and month replaces the earlier entry;
    recognising the figure does not change `entered_at`, altering it after the freeze does.
    """

    project: str
    month: Month
    entered_at: datetime
    fixed_assets_yuan: int
    other_yuan: int
    fixed_assets_recognised_yuan: int | None = None
    other_recognised_yuan: int | None = None

    def __post_init__(self) -> None:
        for recognised, reported in (
            (self.fixed_assets_recognised_yuan, self.fixed_assets_yuan),
            (self.other_recognised_yuan, self.other_yuan),
        ):
            if recognised is not None and not 0 <= recognised <= reported:
                raise ValueError(f"project {self.project}: recognised must be 0 to reported")

    @property
    def reported_yuan(self) -> int:
        return self.fixed_assets_yuan + self.other_yuan

    @property
    def recognised_yuan(self) -> int:
        return (self.fixed_assets_recognised_yuan or 0) + (self.other_recognised_yuan or 0)

    @property
    def unexamined_yuan(self) -> int:
        fixed = self.fixed_assets_yuan if self.fixed_assets_recognised_yuan is None else 0
        other = self.other_yuan if self.other_recognised_yuan is None else 0
        return fixed + other


@dataclass(frozen=True, slots=True)
class StageEvent:
    """A project reached a milestone on a day; `reported_at` matters if that was after the freeze.

    For SIGNED, `planned_total_yuan` is the agreement's total. A later SIGNED of the same project
    tells the total after an increase of capital: only the increase counts, and no further signing.
    """

    project: str
    milestone: Milestone
    on: date
    planned_total_yuan: int = 0
    reported_at: datetime | None = None

    @property
    def known_at(self) -> datetime:
        """When it was told; without a time of its own, the day it happened."""
        return self.reported_at or datetime.combine(self.on, time.min, BEIJING)


@dataclass(frozen=True, slots=True)
class FiledLead:
    """A team's lead and the day on which the review passed it, if it did."""

    team: str
    filed_on: date
    passed_on: date | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """Everything a ranking is worked out from; the teams' order settles the order of ties."""

    teams: tuple[TeamTarget, ...]
    reports: tuple[FiledMonth, ...] = ()
    projects: tuple[LedgerProject, ...] = ()
    funds: tuple[ProjectFunds, ...] = ()
    events: tuple[StageEvent, ...] = ()
    leads: tuple[FiledLead, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a county may set: the least days on post a month (in half days) and the points."""

    minimum_half_days: int = 40
    minimum_half_days_in: Mapping[Month, int] = field(default_factory=dict)
    hundred_points: bool = False

    def minimum_for(self, month: Month) -> int:
        return self.minimum_half_days_in.get(month, self.minimum_half_days)


@dataclass(frozen=True, slots=True)
class Figures:
    """Results from January to the period's end, of one team or of all; money in 元."""

    reported_yuan: int = 0
    recognised_yuan: int = 0
    fixed_assets_recognised_yuan: int = 0
    unexamined_yuan: int = 0
    signed: int = 0
    signed_yuan: int = 0
    signed_of_one_yi: int = 0
    in_talks: int = 0
    started: int = 0
    produced: int = 0
    visits: int = 0
    leads: int = 0
    leads_passed: int = 0
    half_days: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a target is reached against how much of the year has passed, all as shares of 1."""

    completion: Fraction
    time_progress: Fraction

    @property
    def ahead(self) -> Fraction:
        """Completion less time progress; times 100, the percentage points ahead or behind."""
        return self.completion - self.time_progress


@dataclass(frozen=True, slots=True)
class LateReport:
    """A month filed after its last day but before the freeze, and by how many days."""

    month: Month
    days: int


@dataclass(frozen=True, slots=True)
class Conduct:
    """Person-months on post long enough, of those due, and which reports did not come in time."""

    post_met: int
    post_due: int
    late: tuple[LateReport, ...] = ()
    missing: tuple[Month, ...] = ()
    backfilled: tuple[Month, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """The optional hundred points: 80 for the target, 10 for days on post, 10 for filing."""

    target: Fraction
    post: Fraction
    filing: Fraction

    @property
    def total(self) -> Fraction:
        return self.target + self.post + self.filing


@dataclass(frozen=True, slots=True)
class TeamResult:
    """One team's results; `rank` is among all teams, `group_rank` among its own kind."""

    team: TeamTarget
    figures: Figures
    progress: Progress
    conduct: Conduct
    score: Score
    rank: int
    group_rank: int


class RemarkKind(StrEnum):
    """Why a figure is not simply what the team reported in time."""

    CORRECTED = "corrected"
    BACKFILLED = "backfilled"
    LESS_RECOGNISED = "less_recognised"
    UNEXAMINED = "unexamined"


@dataclass(frozen=True, slots=True)
class Remark:
    """An explanation the bulletin owes its readers about one team's funds in one month (元)."""

    kind: RemarkKind
    team: TeamTarget
    month: Month
    reported_yuan: int
    recognised_yuan: int
    unexamined_yuan: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What one bulletin says: the teams by rank, the totals by project ledger, the remarks.

    `recognised_in_period_yuan` is for the period's own months; all else counts from January.
    """

    period: ReportPeriod
    rules: Rules
    teams: tuple[TeamResult, ...]
    total: Figures
    target_yuan: int
    progress: Progress
    recognised_in_period_yuan: int
    remarks: tuple[Remark, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        present = {each.team.group for each in self.teams}
        return tuple(group for group in Group if group in present)

    def of_group(self, group: Group) -> tuple[TeamResult, ...]:
        return tuple(each for each in self.teams if each.team.group is group)


def summarise(
    records: Records, period: ReportPeriod, rules: Rules, as_of: datetime | None = None
) -> Summary:
    """Work out everything the period's bulletin says.

    What was filed or altered after the freeze of the period's last month is left out, so that a
    published period comes out the same for ever. With `as_of` it is a snapshot: nothing entered
    later counts, and a report is missing only if its month was frozen by then.
    Raises ValueError when the records name a team or project they do not hold.
    """
    counted = _count(records, _Horizon(period, as_of))
    teams = _ranked([_measure(team, counted, rules) for team in records.teams], rules)
    total = _total(counted, [each.figures for each in teams])
    target_yuan = sum(each.target_yuan for each in records.teams)
    return Summary(
        period=period,
        rules=rules,
        teams=teams,
        total=total,
        target_yuan=target_yuan,
        progress=progress(total.recognised_yuan, target_yuan, period.time_progress),
        recognised_in_period_yuan=sum(
            each.recognised_yuan for each in counted.funds if each.month in period.months
        ),
        remarks=_remarks(teams, counted),
    )


def progress(recognised_yuan: int, target_yuan: int, time_progress: Fraction) -> Progress:
    """Measure recognised funds against a target; without any target nothing is completed."""
    completion = Fraction(recognised_yuan, target_yuan) if target_yuan else Fraction(0)
    return Progress(completion, time_progress)


def score(achieved: Progress, conduct: Conduct) -> Score:
    """Give the hundred points: nothing for being ahead of time, off for late and missing reports.

    A backfilled report was missing when its month froze, and loses the same.
    """
    reached = min(Fraction(1), achieved.completion / achieved.time_progress)
    met = Fraction(conduct.post_met, conduct.post_due) if conduct.post_due else Fraction(0)
    never_in_time = len(conduct.missing) + len(conduct.backfilled)
    lost = POINTS_A_LATE_REPORT * len(conduct.late) + POINTS_A_MISSING_REPORT * never_in_time
    return Score(
        target=TARGET_POINTS * reached,
        post=POST_POINTS * met,
        filing=Fraction(max(0, FILING_POINTS - lost)),
    )


def at_least_one_yi(yuan: int) -> bool:
    """Tell whether an amount is 亿元以上, which by art. 1259 of the Civil Code includes 1 亿元."""
    return yuan >= YI_YUAN


def needs_sponsor(fixed_assets_yuan: int) -> bool:
    """Tell whether a project must be given a sponsor: by fixed assets, not planned total."""
    return at_least_one_yi(fixed_assets_yuan)


def split_yuan(yuan: int, shares: tuple[tuple[str, Fraction], ...]) -> dict[str, int]:
    """Divide whole 元 by shares so that the parts add up; the largest remainders get the odd 元."""
    if len(shares) == 1:
        return {shares[0][0]: yuan}
    parts = {team: int(yuan * share) for team, share in shares}
    by_remainder = sorted(shares, key=lambda each: yuan * each[1] % 1, reverse=True)
    for team, _ in by_remainder[: yuan - sum(parts.values())]:
        parts[team] += 1
    return parts


@dataclass(frozen=True, slots=True)
class _Signing:
    """What one signing adds to the period: a project, or only more capital for one."""

    project: LedgerProject
    is_first: bool
    yuan: int

    @property
    def is_of_one_yi(self) -> bool:
        return self.is_first and at_least_one_yi(self.yuan)


@dataclass(frozen=True, slots=True)
class _Horizon:
    """Decides what counts: this year's, up to the period's last month, known by its freeze."""

    period: ReportPeriod
    as_of: datetime | None

    def takes(self, month: Month, entered_at: datetime) -> bool:
        if self.as_of is not None and entered_at > self.as_of:
            return False
        in_time = month.year == self.period.year and month <= self.period.last_month
        return in_time and counted_from(month, entered_at) <= self.period.last_month

    def takes_event(self, event: StageEvent) -> bool:
        return self.takes(Month.of(event.on), event.known_at)

    def takes_day(self, day: date | None) -> bool:
        if day is None or (self.as_of is not None and day > beijing(self.as_of).date()):
            return False
        return day.year == self.period.year and Month.of(day) <= self.period.last_month

    def is_frozen(self, month: Month) -> bool:
        return self.as_of is None or self.as_of > freeze(month)

    def is_news(self, month: Month, entered_at: datetime) -> bool:
        """Tell whether it first counts in one of the period's own months."""
        return counted_from(month, entered_at) in self.period.months


@dataclass(frozen=True, slots=True)
class _Counted:
    """The records that count in the period, corrections applied and duplicates gone."""

    horizon: _Horizon
    projects: Mapping[str, LedgerProject]
    first_filed: Mapping[tuple[str, Month], datetime]
    reports: Mapping[tuple[str, Month], FiledMonth]
    first_funds: Mapping[tuple[str, Month], ProjectFunds]
    funds: tuple[ProjectFunds, ...]
    funds_of: Mapping[str, tuple[ProjectFunds, ...]]
    reached: tuple[StageEvent, ...]
    signings: tuple[_Signing, ...]
    leads: tuple[FiledLead, ...]

    def milestones(self, team: str | None) -> Counter[Milestone]:
        """Count the projects (of one team, or all) that reached each milestone."""
        return Counter(
            each.milestone for each in self.reached if self.is_of(team, self.projects[each.project])
        )

    @staticmethod
    def is_of(team: str | None, project: LedgerProject) -> bool:
        return team is None or any(each == team for each, _ in project.shares)


def _count(records: Records, horizon: _Horizon) -> _Counted:
    _check_names(records)
    projects = {each.project: each for each in records.projects if each.merged_into is None}
    events = [each for each in records.events if each.project in projects]
    reports = sorted(
        (each for each in records.reports if horizon.takes(each.month, each.filed_at)),
        key=lambda each: each.filed_at,
    )
    funds = sorted(
        (
            each
            for each in records.funds
            if each.project in projects and horizon.takes(each.month, each.entered_at)
        ),
        key=lambda each: each.entered_at,
    )
    latest_funds = tuple({(each.project, each.month): each for each in funds}.values())
    return _Counted(
        horizon=horizon,
        projects=projects,
        first_filed={(each.team, each.month): each.filed_at for each in reversed(reports)},
        reports={(each.team, each.month): each for each in reports},
        first_funds={(each.project, each.month): each for each in reversed(funds)},
        funds=latest_funds,
        funds_of=_by_team(latest_funds, projects),
        reached=tuple(each for each in _firsts(events) if horizon.takes_event(each)),
        signings=tuple(_signings(events, projects, horizon)),
        leads=records.leads,
    )


def _by_team(
    funds: Iterable[ProjectFunds], projects: Mapping[str, LedgerProject]
) -> dict[str, tuple[ProjectFunds, ...]]:
    by_team: dict[str, list[ProjectFunds]] = {}
    for each in funds:
        for team, _ in projects[each.project].shares:
            by_team.setdefault(team, []).append(each)
    return {team: tuple(mine) for team, mine in by_team.items()}


def _check_names(records: Records) -> None:
    teams = {each.team for each in records.teams}
    projects = {each.project for each in records.projects}
    named_teams = {team for each in records.projects for team, _ in each.shares}
    named_teams |= {each.team for each in records.reports} | {each.team for each in records.leads}
    named_projects = {each.project for each in records.funds}
    named_projects |= {each.project for each in records.events}
    unknown = sorted((named_teams - teams) | (named_projects - projects))
    if unknown:
        raise ValueError(f"the records name teams or projects they do not hold: {unknown}")


def _firsts(events: Iterable[StageEvent]) -> list[StageEvent]:
    """Keep the first time each project reached each milestone, whatever the year."""
    latest_first = sorted(events, key=lambda each: each.on, reverse=True)
    return list({(each.project, each.milestone): each for each in latest_first}.values())


def _signings(
    events: Iterable[StageEvent], projects: Mapping[str, LedgerProject], horizon: _Horizon
) -> Iterable[_Signing]:
    agreed: dict[str, int] = {}
    for event in sorted(events, key=lambda each: each.on):
        if event.milestone is not Milestone.SIGNED:
            continue
        before = agreed.get(event.project)
        agreed[event.project] = max(before or 0, event.planned_total_yuan)
        if horizon.takes_event(event):
            added = agreed[event.project] - (before or 0)
            yield _Signing(projects[event.project], before is None, added)


def _measure(team: TeamTarget, counted: _Counted, rules: Rules) -> TeamResult:
    """Return the team's results, not ranked yet."""
    figures = _figures(team, counted)
    achieved = progress(
        figures.recognised_yuan, team.target_yuan, counted.horizon.period.time_progress
    )
    conduct = _conduct(team, counted, rules)
    points = score(achieved, conduct)
    return TeamResult(team, figures, achieved, conduct, points, rank=0, group_rank=0)


def _figures(team: TeamTarget, counted: _Counted) -> Figures:
    def share(yuan: int, project: str) -> int:
        return split_yuan(yuan, counted.projects[project].shares)[team.team]

    funds = counted.funds_of.get(team.team, ())
    reports = [each for each in counted.reports.values() if each.team == team.team]
    signings = [each for each in counted.signings if counted.is_of(team.team, each.project)]
    leads = [each for each in counted.leads if each.team == team.team]
    reached = counted.milestones(team.team)
    return Figures(
        reported_yuan=sum(share(each.reported_yuan, each.project) for each in funds),
        recognised_yuan=sum(share(each.recognised_yuan, each.project) for each in funds),
        fixed_assets_recognised_yuan=sum(
            share(each.fixed_assets_recognised_yuan or 0, each.project) for each in funds
        ),
        unexamined_yuan=sum(share(each.unexamined_yuan, each.project) for each in funds),
        signed=sum(each.is_first for each in signings),
        signed_yuan=sum(share(each.yuan, each.project.project) for each in signings),
        signed_of_one_yi=sum(each.is_of_one_yi for each in signings),
        in_talks=reached[Milestone.IN_TALKS],
        started=reached[Milestone.STARTED],
        produced=reached[Milestone.PRODUCED],
        visits=sum(each.visits for each in reports),
        leads=sum(counted.horizon.takes_day(each.filed_on) for each in leads),
        leads_passed=sum(counted.horizon.takes_day(each.passed_on) for each in leads),
        half_days=sum(sum(each.half_days) for each in reports),
    )


def _total(counted: _Counted, teams: Iterable[Figures]) -> Figures:
    """Add up projects by the ledger, where two teams' common project stands once."""
    listed = list(teams)
    reached = counted.milestones(None)
    return Figures(
        reported_yuan=sum(each.reported_yuan for each in counted.funds),
        recognised_yuan=sum(each.recognised_yuan for each in counted.funds),
        fixed_assets_recognised_yuan=sum(
            each.fixed_assets_recognised_yuan or 0 for each in counted.funds
        ),
        unexamined_yuan=sum(each.unexamined_yuan for each in counted.funds),
        signed=sum(each.is_first for each in counted.signings),
        signed_yuan=sum(each.yuan for each in counted.signings),
        signed_of_one_yi=sum(each.is_of_one_yi for each in counted.signings),
        in_talks=reached[Milestone.IN_TALKS],
        started=reached[Milestone.STARTED],
        produced=reached[Milestone.PRODUCED],
        visits=sum(each.visits for each in listed),
        leads=sum(each.leads for each in listed),
        leads_passed=sum(each.leads_passed for each in listed),
        half_days=sum(each.half_days for each in listed),
    )


def _conduct(team: TeamTarget, counted: _Counted, rules: Rules) -> Conduct:
    met = due = 0
    late: list[LateReport] = []
    missing: list[Month] = []
    backfilled: list[Month] = []
    for month in counted.horizon.period.to_date:
        report = counted.reports.get((team.team, month))
        if report is None:
            if counted.horizon.is_frozen(month):
                missing.append(month)
                due += team.headcount
            continue
        least = rules.minimum_for(month)
        met += sum(half_days >= least for half_days in report.half_days)
        due += len(report.half_days)
        first_filed_at = counted.first_filed[team.team, month]
        if first_filed_at > freeze(month):
            backfilled.append(month)
        elif days := days_late(first_filed_at, month):
            late.append(LateReport(month, days))
    return Conduct(met, due, tuple(late), tuple(missing), tuple(backfilled))


def _ranked(results: list[TeamResult], rules: Rules) -> tuple[TeamResult, ...]:
    def key(result: TeamResult) -> tuple[Fraction | int, ...]:
        by_result = (
            result.progress.completion,
            result.figures.signed_yuan,
            result.figures.leads_passed,
        )
        return (result.score.total, *by_result) if rules.hundred_points else by_result

    def rank_among(rivals: Iterable[TeamResult], result: TeamResult) -> int:
        return 1 + sum(key(each) > key(result) for each in rivals)

    ranked = [
        replace(
            result,
            rank=rank_among(results, result),
            group_rank=rank_among(
                (each for each in results if each.team.group is result.team.group), result
            ),
        )
        for result in results
    ]
    return tuple(sorted(ranked, key=lambda each: each.rank))


def _remarks(teams: Iterable[TeamResult], counted: _Counted) -> tuple[Remark, ...]:
    months = counted.horizon.period.to_date
    return tuple(
        remark
        for result in teams
        for month in months
        for remark in _remarks_on(result.team, month, counted)
    )


def _remarks_on(team: TeamTarget, month: Month, counted: _Counted) -> Iterable[Remark]:
    rows = [each for each in counted.funds_of.get(team.team, ()) if each.month == month]

    def share(yuan_of: Callable[[ProjectFunds], int]) -> int:
        return sum(
            split_yuan(yuan_of(each), counted.projects[each.project].shares)[team.team]
            for each in rows
        )

    reported = share(lambda each: each.reported_yuan)
    recognised = share(lambda each: each.recognised_yuan)
    unexamined = share(lambda each: each.unexamined_yuan)
    filed_at = counted.first_filed.get((team.team, month))
    is_backfilled = filed_at is not None and filed_at > freeze(month)
    news = [each for each in rows if counted.horizon.is_news(month, each.entered_at)]
    kinds = {
        RemarkKind.BACKFILLED: is_backfilled
        and filed_at is not None
        and counted.horizon.is_news(month, filed_at),
        RemarkKind.CORRECTED: any(
            counted.first_funds[each.project, month].reported_yuan != each.reported_yuan
            for each in news
        ),
        RemarkKind.LESS_RECOGNISED: bool(news) and not unexamined and recognised < reported,
        RemarkKind.UNEXAMINED: unexamined > 0,
    }
    for kind, applies in kinds.items():
        if applies:
            yield Remark(kind, team, month, reported, recognised, unexamined)
