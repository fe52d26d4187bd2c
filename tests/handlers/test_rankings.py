"""The figures, ranks and points of the worked example, to the digit, and the traps beside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.allowances import AllowanceRates, allowance_due
from handlers.bulletin import percent, render_bulletin, two_places
from handlers.periods import Month, Period, ReportPeriod
from handlers.rankings import (
    Conduct,
    Figures,
    FiledLead,
    FiledMonth,
    Group,
    LedgerProject,
    Milestone,
    ProjectFunds,
    Records,
    RemarkKind,
    Rules,
    StageEvent,
    Summary,
    TeamResult,
    TeamTarget,
    at_least_one_yi,
    needs_sponsor,
    progress,
    score,
    split_yuan,
    summarise,
)
from tests.handlers.first_quarter import at, read_example, records, rules, yuan

EXAMPLE = read_example()
EXPECTED = EXAMPLE["expected"]
JANUARY = ReportPeriod(Period.MONTH, 2026, 1)
FEBRUARY = ReportPeriod(Period.MONTH, 2026, 2)
FIRST_QUARTER = ReportPeriod(Period.QUARTER, 2026, 1)
FIRST_HALF = ReportPeriod(Period.HALF_YEAR, 2026, 1)
PERIODS = {"2026-01": JANUARY, "2026-02(累计)": FEBRUARY, "2026Q1": FIRST_QUARTER}
MARCH = Month(2026, 3)


def worked_example(period: ReportPeriod) -> Summary:
    return summarise(records(EXAMPLE), period, rules(EXAMPLE))


def result_of(summary: Summary, team: str) -> TeamResult:
    return next(each for each in summary.teams if each.team.team == team)


def wan(amount: int) -> str:
    return two_places(Fraction(amount, 10_000))


def shown_figures(figures: Figures) -> dict[str, object]:
    return {
        "reported": wan(figures.reported_yuan),
        "recognised": wan(figures.recognised_yuan),
        "fai_rec": wan(figures.fixed_assets_recognised_yuan),
        "signed": figures.signed,
        "signed_amt": wan(figures.signed_yuan),
        "visits": figures.visits,
        "leads": figures.leads,
        "leads_passed": figures.leads_passed,
        "talks": figures.in_talks,
        "started": figures.started,
        "produced": figures.produced,
    }


def shown_result(result: TeamResult) -> dict[str, object]:
    return {
        **shown_figures(result.figures),
        "days": two_places(Fraction(result.figures.half_days, 2)),
        "completion": percent(result.progress.completion),
        "diff": percent(result.progress.ahead),
        "post_ok": f"{result.conduct.post_met}/{result.conduct.post_due}",
        "late": len(result.conduct.late),
        "missing": len(result.conduct.missing),
        "score_target": two_places(result.score.target),
        "score_post": two_places(result.score.post),
        "score_filing": two_places(result.score.filing),
        "score": two_places(result.score.total),
        "rank": result.rank,
    }


@pytest.mark.parametrize("key", EXPECTED)
def test_every_expected_period_is_worked_out(key: str) -> None:
    assert key in PERIODS


@pytest.mark.parametrize(
    ("key", "team"), [(key, team) for key in PERIODS for team in EXAMPLE["teams"]]
)
def test_a_team_of_the_example_has_its_figures_to_the_digit(key: str, team: str) -> None:
    assert (
        shown_result(result_of(worked_example(PERIODS[key]), team)) == EXPECTED[key]["teams"][team]
    )


@pytest.mark.parametrize("key", PERIODS)
def test_the_totals_of_the_example_are_right_to_the_digit(key: str) -> None:
    summary = worked_example(PERIODS[key])
    shown = {
        **shown_figures(summary.total),
        "completion": percent(summary.progress.completion),
    }
    assert shown == EXPECTED[key]["total"]


@pytest.mark.parametrize("key", PERIODS)
def test_time_progress_and_order_of_the_example_are_right(key: str) -> None:
    summary = worked_example(PERIODS[key])
    assert percent(summary.progress.time_progress) == EXPECTED[key]["seq"]
    assert [each.team.team for each in summary.teams] == EXPECTED[key]["order"]


@pytest.mark.parametrize("key", PERIODS)
def test_ranking_by_points_gives_the_same_order_in_the_example(key: str) -> None:
    summary = summarise(records(EXAMPLE), PERIODS[key], rules(EXAMPLE, hundred_points=True))
    assert [each.team.team for each in summary.teams] == EXPECTED[key]["order"]


def test_two_projects_of_the_first_quarter_are_of_one_yi_or_more() -> None:
    assert worked_example(FIRST_QUARTER).total.signed_of_one_yi == 2


def test_trap_1_the_target_points_of_february_use_the_exact_time_progress() -> None:
    assert two_places(result_of(worked_example(FEBRUARY), "T1").score.target) == "48.00"


def test_trap_2_the_target_points_of_january_use_the_exact_time_progress() -> None:
    assert two_places(result_of(worked_example(JANUARY), "T3").score.target) == "48.00"


def test_trap_3_a_sponsor_is_due_by_fixed_assets_and_not_by_the_planned_total() -> None:
    fixed = {each["id"]: yuan(each["fixed"]) for each in EXAMPLE["projects"]}
    assert [project for project, amount in fixed.items() if needs_sponsor(amount)] == ["P03"]


def test_trap_4_the_allowances_of_the_first_quarter_add_up() -> None:
    members = sum(len(each["members"]) for each in EXAMPLE["teams"].values())
    due = allowance_due(new_teams=3, members=members, months=3, rates=AllowanceRates())
    assert (due.post_yuan, due.start_up_yuan, due.total_yuan) == (105_000, 60_000, 165_000)


def with_backfilled_march(base: Records) -> Records:
    """T3 files March on 15 April, ten days after its freeze, with 1600 万元."""
    filed_at = at("2026-04-15T10:00")
    report = FiledMonth("T3", MARCH, filed_at, (40, 36), visits=5)
    funds = ProjectFunds("P07", MARCH, filed_at, yuan("1600"), 0, yuan("1600"), 0)
    return replace(base, reports=(*base.reports, report), funds=(*base.funds, funds))


def test_trap_5_a_report_backfilled_in_april_leaves_the_first_quarter_unchanged() -> None:
    later = with_backfilled_march(records(EXAMPLE))
    assert summarise(later, FIRST_QUARTER, rules(EXAMPLE)) == worked_example(FIRST_QUARTER)
    assert result_of(worked_example(FIRST_QUARTER), "T3").conduct.missing == (MARCH,)


def test_trap_5_a_report_backfilled_in_april_counts_from_january_to_april() -> None:
    april = ReportPeriod(Period.MONTH, 2026, 4)
    summary = summarise(with_backfilled_march(records(EXAMPLE)), april, rules(EXAMPLE))
    result = result_of(summary, "T3")
    assert wan(result.figures.recognised_yuan) == "2000.00"
    assert result.conduct.backfilled == (MARCH,)
    assert result.conduct.missing == (Month(2026, 4),)
    remarks = [(each.kind, each.month, wan(each.recognised_yuan)) for each in summary.remarks]
    assert remarks == [(RemarkKind.BACKFILLED, MARCH, "1600.00")]
    assert "说明：京津冀补报3月到位资金1600.00万元。" in render_bulletin(summary)


def with_second_quarter(base: Records) -> Records:
    """All three teams file April to June in time; what they recognise comes in June."""
    months = (Month(2026, 4), Month(2026, 5), Month(2026, 6))
    filed_at = at("2026-06-30T12:00")
    reports = tuple(
        FiledMonth(team.team, month, at(f"{month}-28T12:00"), (40,) * team.headcount)
        for team in base.teams
        for month in months
    )
    funds = tuple(
        ProjectFunds(project, months[-1], filed_at, yuan(amount), 0, yuan(amount), 0)
        for project, amount in (("P02", "2650"), ("P04", "1500"), ("P06", "2000"))
    )
    projects = (
        LedgerProject("P11", (("T1", Fraction(1)),)),
        LedgerProject("P12", (("T3", Fraction(1)),)),
    )
    events = (
        StageEvent("P11", Milestone.SIGNED, date(2026, 5, 6), yuan("20000")),
        StageEvent("P12", Milestone.SIGNED, date(2026, 6, 9), yuan("6000")),
    )
    return replace(
        base,
        reports=(*base.reports, *reports),
        projects=(*base.projects, *projects),
        funds=(*base.funds, *funds),
        events=(*base.events, *events),
    )


def test_trap_6_equal_completion_in_the_first_half_is_decided_by_the_signed_total() -> None:
    half = with_second_quarter(with_backfilled_march(records(EXAMPLE)))
    summary = summarise(half, FIRST_HALF, rules(EXAMPLE))
    shown = [
        (
            each.rank,
            each.team.team,
            wan(each.figures.recognised_yuan),
            percent(each.progress.completion),
            percent(each.progress.ahead),
            wan(each.figures.signed_yuan),
        )
        for each in summary.teams
    ]
    assert shown == [
        (1, "T2", "5150.00", "51.50", "1.50", "44000.00"),
        (2, "T1", "5150.00", "51.50", "1.50", "37000.00"),
        (3, "T3", "4000.00", "50.00", "0.00", "9000.00"),
    ]
    assert wan(summary.total.recognised_yuan) == "14300.00"
    assert percent(summary.progress.completion) == "51.07"
    assert percent(summary.progress.time_progress) == "50.00"


def plain_team(name: str, group: Group = Group.COUNTY_UNITS) -> TeamTarget:
    return TeamTarget(name, f"{name}小分队", f"{name}单位", yuan("10000"), 2, group)


def funded(*amounts: tuple[str, str], groups: dict[str, Group] | None = None) -> Records:
    """One team a pair of name and 万元, each with one project; nothing else differs."""
    chosen = groups or {}
    filed_at = at("2026-01-31T12:00")
    january = Month(2026, 1)
    return Records(
        teams=tuple(plain_team(name, chosen.get(name, Group.COUNTY_UNITS)) for name, _ in amounts),
        reports=tuple(FiledMonth(name, january, filed_at, (40, 40)) for name, _ in amounts),
        projects=tuple(LedgerProject(f"P-{name}", ((name, Fraction(1)),)) for name, _ in amounts),
        funds=tuple(
            ProjectFunds(f"P-{name}", january, filed_at, yuan(amount), 0, yuan(amount), 0)
            for name, amount in amounts
        ),
    )


def ranks(summary: Summary) -> list[tuple[str, int, int]]:
    return [(each.team.team, each.rank, each.group_rank) for each in summary.teams]


def test_teams_equal_in_all_three_keys_share_a_rank_and_the_next_is_skipped() -> None:
    summary = summarise(funded(("丙", "100"), ("甲", "200"), ("乙", "200")), JANUARY, Rules())
    assert ranks(summary) == [("甲", 1, 1), ("乙", 1, 1), ("丙", 3, 3)]


def test_the_third_key_is_the_number_of_leads_that_passed_review() -> None:
    passed = FiledLead("乙", date(2026, 1, 5), date(2026, 1, 20))
    equal = replace(funded(("甲", "200"), ("乙", "200")), leads=(passed,))
    assert ranks(summarise(equal, JANUARY, Rules())) == [("乙", 1, 1), ("甲", 2, 2)]


def test_county_units_and_townships_are_ranked_apart_and_all_together() -> None:
    amounts = (("甲", "300"), ("乙", "200"), ("丙", "100"))
    towns = {"乙": Group.TOWNSHIPS}
    summary = summarise(funded(*amounts, groups=towns), JANUARY, Rules())
    assert ranks(summary) == [("甲", 1, 1), ("乙", 2, 1), ("丙", 3, 2)]
    assert [each.team.team for each in summary.of_group(Group.COUNTY_UNITS)] == ["甲", "丙"]


def test_panzhihua_was_42_31_points_ahead_after_ten_months_of_2006() -> None:
    achieved = progress(1_005_136 * 10_000, 80 * 100_000_000, Fraction(10, 12))
    assert (percent(achieved.completion), percent(achieved.ahead)) == ("125.64", "42.31")


def test_panzhihua_at_70_41_percent_was_12_92_points_behind() -> None:
    achieved = progress(7041, 10000, Fraction(10, 12))
    assert (percent(achieved.completion), percent(achieved.ahead)) == ("70.41", "-12.92")


def test_exactly_one_yi_counts_as_one_yi_or_more() -> None:
    signings = [("P1", 100_000_000), ("P2", 99_999_999)]
    base = Records(
        teams=(plain_team("甲"),),
        projects=tuple(LedgerProject(name, (("甲", Fraction(1)),)) for name, _ in signings),
        events=tuple(
            StageEvent(name, Milestone.SIGNED, date(2026, 1, 9), amount)
            for name, amount in signings
        ),
    )
    total = summarise(base, JANUARY, Rules()).total
    assert (total.signed, total.signed_of_one_yi) == (2, 1)
    assert (at_least_one_yi(100_000_000), at_least_one_yi(99_999_999)) == (True, False)


def test_a_project_of_two_teams_stands_once_in_the_totals_and_by_share_with_each() -> None:
    shares = (("甲", Fraction(2, 5)), ("乙", Fraction(3, 5)))
    filed_at = at("2026-01-31T12:00")
    base = Records(
        teams=(plain_team("甲"), plain_team("乙")),
        projects=(LedgerProject("P1", shares),),
        funds=(ProjectFunds("P1", Month(2026, 1), filed_at, yuan("1000"), 0, yuan("1000"), 0),),
        events=(StageEvent("P1", Milestone.SIGNED, date(2026, 1, 9), yuan("20000")),),
    )
    summary = summarise(base, JANUARY, Rules())
    shown = [
        (each.team.team, wan(each.figures.recognised_yuan), wan(each.figures.signed_yuan))
        for each in summary.teams
    ]
    assert shown == [("乙", "600.00", "12000.00"), ("甲", "400.00", "8000.00")]
    assert wan(summary.total.recognised_yuan) == "1000.00"
    assert (summary.total.signed, wan(summary.total.signed_yuan)) == (1, "20000.00")
    assert summary.total.signed_of_one_yi == 1


def test_shares_divide_whole_yuan_without_losing_one() -> None:
    thirds = tuple((name, Fraction(1, 3)) for name in "甲乙丙")
    assert split_yuan(100, thirds) == {"甲": 34, "乙": 33, "丙": 33}


@given(st.integers(0, 10**12), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_shares_always_add_up_to_the_whole(amount: int, weights: list[int]) -> None:
    whole = sum(weights)
    shares = tuple((str(place), Fraction(each, whole)) for place, each in enumerate(weights))
    assert sum(split_yuan(amount, shares).values()) == amount


def test_a_merged_project_no_longer_counts_by_itself() -> None:
    base = funded(("甲", "200"))
    merged = replace(base.projects[0], merged_into="P-乙")
    summary = summarise(replace(base, projects=(merged,)), JANUARY, Rules())
    assert summary.total.recognised_yuan == 0


def test_an_increase_of_capital_adds_the_increase_and_no_further_signing() -> None:
    base = replace(
        funded(("甲", "0")),
        events=(
            StageEvent("P-甲", Milestone.SIGNED, date(2025, 6, 1), yuan("8000")),
            StageEvent("P-甲", Milestone.SIGNED, date(2026, 1, 20), yuan("15000")),
        ),
    )
    total = summarise(base, JANUARY, Rules()).total
    assert (total.signed, wan(total.signed_yuan), total.signed_of_one_yi) == (0, "7000.00", 0)


def test_a_signing_told_after_the_freeze_counts_in_the_next_month() -> None:
    told_late = StageEvent(
        "P-甲", Milestone.SIGNED, date(2026, 1, 20), yuan("8000"), at("2026-02-06T09:00")
    )
    base = replace(funded(("甲", "0")), events=(told_late,))
    counts = [summarise(base, each, Rules()).total.signed for each in (JANUARY, FEBRUARY)]
    assert counts == [0, 1]


def test_the_least_days_of_a_month_can_be_lowered() -> None:
    base = replace(
        funded(("甲", "0")),
        reports=(FiledMonth("甲", Month(2026, 1), at("2026-01-31T12:00"), (30, 29)),),
    )
    lowered = Rules(minimum_half_days_in={Month(2026, 1): 30})
    met = [summarise(base, JANUARY, each).teams[0].conduct.post_met for each in (Rules(), lowered)]
    assert met == [0, 1]


def test_a_snapshot_before_the_freeze_calls_nothing_missing() -> None:
    snapshot = summarise(records(EXAMPLE), FIRST_QUARTER, rules(EXAMPLE), at("2026-04-01T09:30"))
    conduct = {each.team.team: each.conduct for each in snapshot.teams}
    assert conduct["T3"].missing == ()
    assert (conduct["T3"].post_met, conduct["T3"].post_due) == (3, 4)
    assert wan(snapshot.total.recognised_yuan) == "5050.00"


def test_a_snapshot_before_a_correction_shows_what_was_first_reported() -> None:
    snapshot = summarise(records(EXAMPLE), FEBRUARY, rules(EXAMPLE), at("2026-03-01T09:30"))
    figures = result_of(snapshot, "T2").figures
    assert wan(figures.reported_yuan) == "3700.00"
    assert wan(figures.unexamined_yuan) == "1700.00"
    assert wan(figures.recognised_yuan) == "2000.00"


def test_points_for_filing_never_fall_below_zero() -> None:
    missing = tuple(Month(2026, number) for number in range(1, 7))
    points = score(progress(0, 1, Fraction(1, 2)), Conduct(0, 12, missing=missing))
    assert points.filing == 0


def test_being_ahead_of_time_gives_no_more_than_80_points() -> None:
    points = score(progress(2, 1, Fraction(1, 2)), Conduct(1, 1))
    assert (points.target, points.total) == (Fraction(80), Fraction(100))


def test_records_that_name_an_unknown_team_are_refused() -> None:
    stray = FiledMonth("丁", Month(2026, 1), at("2026-01-31T12:00"), (40,))
    with pytest.raises(ValueError, match="丁"):
        summarise(Records(teams=(plain_team("甲"),), reports=(stray,)), JANUARY, Rules())


def test_more_recognised_than_reported_is_refused() -> None:
    with pytest.raises(ValueError, match="P1"):
        ProjectFunds("P1", MARCH, at("2026-03-31T12:00"), 100, 0, 101, 0)


def test_shares_that_do_not_make_a_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="P1"):
        LedgerProject("P1", (("甲", Fraction(1, 2)),))


def test_periods_know_their_months_and_names() -> None:
    third = ReportPeriod(Period.QUARTER, 2026, 3)
    assert [str(each) for each in third.months] == ["2026-07", "2026-08", "2026-09"]
    assert len(third.to_date) == 9
    titles = [
        ReportPeriod(Period.MONTH, 2026, 12).title,
        third.title,
        ReportPeriod(Period.HALF_YEAR, 2026, 2).title,
        ReportPeriod(Period.YEAR, 2026).title,
    ]
    assert titles == ["2026年12月", "2026年第三季度", "2026年下半年", "2026年度"]


def test_a_fifth_quarter_and_a_thirteenth_month_are_refused() -> None:
    with pytest.raises(ValueError, match="quarter"):
        ReportPeriod(Period.QUARTER, 2026, 5)
    with pytest.raises(ValueError, match="13"):
        Month(2026, 13)
    with pytest.raises(ValueError, match="2026-3"):
        Month.parse("2026-3")


def test_a_backfilled_report_still_loses_the_points_of_a_missing_one() -> None:
    points = score(progress(1, 1, Fraction(1)), Conduct(1, 1, backfilled=(MARCH,)))
    assert points.filing == 8


def test_a_correction_after_the_freeze_counts_and_is_explained_in_the_next_period() -> None:
    base = funded(("甲", "200"))
    corrected = ProjectFunds(
        "P-甲", Month(2026, 1), at("2026-02-20T09:00"), yuan("150"), 0, yuan("150"), 0
    )
    later = replace(base, funds=(*base.funds, corrected))
    shown = [
        (wan(summary.total.recognised_yuan), [each.kind for each in summary.remarks])
        for summary in (summarise(later, each, Rules()) for each in (JANUARY, FEBRUARY))
    ]
    assert shown == [("200.00", []), ("150.00", [RemarkKind.CORRECTED])]
