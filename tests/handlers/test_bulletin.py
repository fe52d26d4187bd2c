"""The bulletin's words, to the digit and the full-width stop."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest

from handlers.bulletin import (
    FilingLine,
    in_wan,
    in_yi,
    render_bulletin,
    render_late_list,
    render_ranking,
    target_in_wan,
    two_places,
)
from handlers.deadlines import FilingState
from handlers.periods import Month, Period, ReportPeriod
from handlers.rankings import (
    FiledMonth,
    Group,
    LedgerProject,
    ProjectFunds,
    Records,
    Rules,
    Summary,
    TeamTarget,
    summarise,
)
from tests.handlers.first_quarter import at, read_example, records, rules, yuan

EXAMPLE = read_example()
FIRST_QUARTER = ReportPeriod(Period.QUARTER, 2026, 1)
JANUARY = ReportPeriod(Period.MONTH, 2026, 1)
FEBRUARY = ReportPeriod(Period.MONTH, 2026, 2)
PUBLISHED = date(2026, 4, 8)

FIRST_QUARTER_TEXT = """\
2026年第一季度驻点招商情况通报（截至3月31日，4月8日发布）
全县认定到位资金6550.00万元，完成年度目标28000万元的23.39%，欠序时进度1.61个百分点；\
新签约6个，计划总投资6.40亿元，其中亿元以上2个；开工2个、投产1个。
1.珠三角小分队 36.50%（超11.50）2.长三角小分队 25.00%（持平）\
3.京津冀小分队 5.00%（欠20.00，缺3月报表）
说明：珠三角2月到位资金经更正为1200.00万元；3月上报600.00万元，认定450.00万元。"""

FEBRUARY_TEXT = """\
2026年2月驻点招商情况通报（截至2月28日，3月8日发布）
1—2月，全县累计认定到位资金4600.00万元（其中2月2200.00万元），完成年度目标28000万元的16.43%，\
欠序时进度0.24个百分点；累计签约3个，计划总投资3.80亿元，其中亿元以上1个；开工1个、投产0个。
1.珠三角小分队 32.00%（超15.33）2.长三角小分队 10.00%（欠6.67）3.京津冀小分队 5.00%（欠11.67）
说明：珠三角2月到位资金经更正为1200.00万元。"""

FIRST_QUARTER_RANKING = """\
2026年第一季度驻点招商排名（1月1日至3月31日，按认定数）
1.珠三角小分队 36.50%（超11.50，县直单位第1）
  认定3650.00万元，目标10000万元
  签约3个44000.00万元，通过评审线索5条
  驻点达标6/6人月，报送及时
2.长三角小分队 25.00%（持平，县直单位第2）
  认定2500.00万元，目标10000万元
  签约2个17000.00万元，通过评审线索6条
  驻点达标7/9人月，迟报3月
3.京津冀小分队 5.00%（欠20.00，县直单位第3）
  认定400.00万元，目标8000万元
  签约1个3000.00万元，通过评审线索1条
  驻点达标3/6人月，缺报3月"""


def worked_example(period: ReportPeriod, *, hundred_points: bool = False) -> Summary:
    return summarise(records(EXAMPLE), period, rules(EXAMPLE, hundred_points=hundred_points))


def of_teams(count: int, groups: tuple[Group, ...] = (Group.COUNTY_UNITS,)) -> Records:
    """Invented teams 甲, 乙, … that filed an empty January in time, taking the groups in turn."""
    names = "甲乙丙丁戊己"[:count]
    return Records(
        teams=tuple(
            TeamTarget(
                name,
                f"{name}驻点小分队",
                f"{name}单位",
                yuan("8000.5"),
                2,
                groups[place % len(groups)],
            )
            for place, name in enumerate(names)
        ),
        reports=tuple(
            FiledMonth(name, Month(2026, 1), at("2026-01-31T12:00"), (40, 40)) for name in names
        ),
    )


def test_the_first_quarter_reads_exactly_as_the_office_wants_it() -> None:
    text = render_bulletin(worked_example(FIRST_QUARTER), published_on=PUBLISHED)
    assert text == FIRST_QUARTER_TEXT


def test_a_month_after_january_counts_from_january_and_names_its_own_part() -> None:
    text = render_bulletin(worked_example(FEBRUARY), published_on=date(2026, 3, 8))
    assert text == FEBRUARY_TEXT


def test_march_alone_does_not_repeat_the_correction_of_february() -> None:
    text = render_bulletin(worked_example(ReportPeriod(Period.MONTH, 2026, 3)))
    assert text.splitlines()[-1] == "说明：珠三角3月上报600.00万元，认定450.00万元。"


def test_the_ranking_for_the_chat_shows_results_first_and_conduct_last() -> None:
    assert render_ranking(worked_example(FIRST_QUARTER)) == FIRST_QUARTER_RANKING


def test_the_ranking_shows_points_only_where_the_county_wants_them() -> None:
    lines = render_ranking(worked_example(FIRST_QUARTER, hundred_points=True)).splitlines()
    assert [line for line in lines if "得分" in line] == [
        "  得分100.00（目标80.00，驻点10.00，报送10.00）",
        "  得分96.78（目标80.00，驻点7.78，报送9.00）",
        "  得分29.00（目标16.00，驻点5.00，报送8.00）",
    ]


def test_a_bulletin_without_a_day_of_publication_is_a_draft() -> None:
    first_line = render_bulletin(worked_example(FIRST_QUARTER)).splitlines()[0]
    assert first_line == "2026年第一季度驻点招商情况通报（截至3月31日，草稿）"


@pytest.mark.parametrize(
    ("period", "published_on", "expected"),
    [
        (JANUARY, date(2026, 2, 8), "2026年1月驻点招商情况通报（截至1月31日，2月8日发布）"),
        (
            ReportPeriod(Period.HALF_YEAR, 2026, 1),
            date(2026, 7, 8),
            "2026年上半年驻点招商情况通报（截至6月30日，7月8日发布）",
        ),
        (
            ReportPeriod(Period.YEAR, 2026),
            date(2027, 1, 8),
            "2026年度驻点招商情况通报（截至12月31日，2027年1月8日发布）",
        ),
    ],
)
def test_every_period_has_its_headline(
    period: ReportPeriod, published_on: date, expected: str
) -> None:
    text = render_bulletin(worked_example(period), published_on=published_on)
    assert text.splitlines()[0] == expected


def test_the_second_quarter_counts_from_january() -> None:
    text = render_bulletin(worked_example(ReportPeriod(Period.QUARTER, 2026, 2)))
    assert text.splitlines()[1].startswith(
        "1—6月，全县累计认定到位资金6550.00万元（其中第二季度0.00万元），"
    )


def test_the_half_year_and_the_year_do_not_say_cumulated() -> None:
    periods = [ReportPeriod(Period.HALF_YEAR, 2026, 1), ReportPeriod(Period.YEAR, 2026)]
    openings = [render_bulletin(worked_example(each)).splitlines()[1] for each in periods]
    assert [line[:18] for line in openings] == ["全县认定到位资金6550.00万元，"[:18]] * 2


def test_a_banner_reads_its_own_word_for_the_whole() -> None:
    text = render_bulletin(worked_example(FIRST_QUARTER), area="全旗")
    assert text.splitlines()[1].startswith("全旗认定到位资金")


def test_late_reports_are_named_only_on_request() -> None:
    text = render_bulletin(worked_example(FIRST_QUARTER), names_late=True)
    assert text.splitlines()[-1] == (
        "说明：珠三角2月到位资金经更正为1200.00万元；3月上报600.00万元，认定450.00万元；"
        "长三角3月报表迟报2天。"
    )


def test_what_is_not_yet_examined_is_said_and_not_counted() -> None:
    base = of_teams(1)
    pending = ProjectFunds("P1", Month(2026, 1), at("2026-01-31T12:00"), yuan("300"), 0)
    waiting = replace(
        base, projects=(LedgerProject("P1", (("甲", Fraction(1)),)),), funds=(pending,)
    )
    lines = render_bulletin(summarise(waiting, JANUARY, Rules())).splitlines()
    assert lines[1].startswith("全县认定到位资金0.00万元，")
    assert lines[-1] == "说明：甲1月上报300.00万元，其中300.00万元待认定，暂未计入。"


def test_an_empty_january_says_so_courteously() -> None:
    text = render_bulletin(summarise(of_teams(1), JANUARY, Rules()))
    assert text == (
        "2026年1月驻点招商情况通报（截至1月31日，草稿）\n"
        "全县认定到位资金0.00万元，完成年度目标8000.50万元的0.00%，欠序时进度8.33个百分点；"
        "暂无签约；暂无开工、投产。\n"
        "1.甲小分队 0.00%（欠8.33）"
    )


def test_a_county_without_teams_still_gets_an_answer() -> None:
    summary = summarise(Records(teams=()), JANUARY, Rules())
    assert render_bulletin(summary) == (
        "2026年1月驻点招商情况通报（截至1月31日，草稿）\n"
        "本期没有下达年度任务的小分队，暂无可通报的数据。"
    )
    assert render_ranking(summary) == "2026年1月驻点招商排名\n没有可排名的小分队。"


def test_equal_teams_carry_the_same_number() -> None:
    last_line = render_bulletin(summarise(of_teams(2), JANUARY, Rules())).splitlines()[-1]
    assert last_line == "1.甲小分队 0.00%（欠8.33）1.乙小分队 0.00%（欠8.33）"


def test_more_than_three_teams_stand_one_to_a_line() -> None:
    lines = render_bulletin(summarise(of_teams(4), JANUARY, Rules())).splitlines()
    assert [line[:6] for line in lines[2:]] == [
        "1.甲小分队",
        "1.乙小分队",
        "1.丙小分队",
        "1.丁小分队",
    ]


def test_groups_stand_apart_each_under_its_name() -> None:
    groups = (Group.COUNTY_UNITS, Group.TOWNSHIPS)
    summary = summarise(of_teams(2, groups), JANUARY, Rules())
    assert render_bulletin(summary).splitlines()[2:] == [
        "县直单位：1.甲小分队 0.00%（欠8.33）",
        "乡镇：1.乙小分队 0.00%（欠8.33）",
    ]
    assert render_ranking(summary, Group.TOWNSHIPS).splitlines()[:2] == [
        "2026年1月驻点招商乡镇排名（1月1日至1月31日，按认定数）",
        "1.乙小分队 0.00%（欠8.33）",
    ]


def test_the_late_list_names_teams_and_units() -> None:
    lines = [
        FilingLine("珠三角驻点小分队", "派出单位乙", FilingState.ON_TIME, at("2026-03-31T17:55")),
        FilingLine("长三角驻点小分队", "派出单位甲", FilingState.LATE, at("2026-04-02T09:12")),
        FilingLine("京津冀驻点小分队", "派出单位丙", FilingState.OUTSTANDING),
    ]
    text = render_late_list(Month(2026, 3), lines, now=at("2026-04-02T09:30"))
    assert text == (
        "2026年3月月报迟报清单（截至4月2日09:30）\n"
        "应报3队，已报2队，未报1队。\n"
        "1.长三角驻点小分队（派出单位甲）：4月2日09:12提交，迟报2天\n"
        "2.京津冀驻点小分队（派出单位丙）：未报"
    )


def test_after_the_freeze_the_list_says_missing_and_backfilled() -> None:
    lines = [
        FilingLine("长三角驻点小分队", "派出单位甲", FilingState.MISSING),
        FilingLine(
            "京津冀驻点小分队", "派出单位丙", FilingState.BACKFILLED, at("2026-04-15T10:00")
        ),
    ]
    text = render_late_list(Month(2026, 3), lines, now=at("2026-04-16T10:00"))
    assert text.splitlines()[2:] == [
        "1.长三角驻点小分队（派出单位甲）：缺报",
        "2.京津冀驻点小分队（派出单位丙）：4月15日10:00补报",
    ]


def test_a_late_list_with_nobody_on_it_says_so() -> None:
    on_time = FilingLine("甲小分队", "单位", FilingState.ON_TIME, at("2026-03-31T17:55"))
    texts = [
        render_late_list(Month(2026, 3), lines, now=at("2026-04-01T09:30"))
        for lines in ([on_time], [])
    ]
    assert texts == [
        "2026年3月月报迟报清单（截至4月1日09:30）\n应报1队，已报1队，未报0队。\n全部按时报送，没有迟报。",
        "2026年3月月报迟报清单（截至4月1日09:30）\n本月没有应报的小分队。",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Fraction(1, 200), "0.01"),
        (Fraction(-1, 200), "-0.01"),
        (Fraction(-1, 300), "0.00"),
        (Fraction(2675, 1000), "2.68"),
        (Fraction(25, 3), "8.33"),
        (7, "7.00"),
    ],
)
def test_numbers_are_rounded_half_up_only_when_shown(value: Fraction | int, expected: str) -> None:
    assert two_places(value) == expected


def test_money_is_shown_in_ten_thousands_and_hundred_millions() -> None:
    shown = (in_wan(yuan("6550")), in_yi(yuan("64000")), target_in_wan(yuan("28000")))
    assert shown == ("6550.00万元", "6.40亿元", "28000万元")


def test_a_difference_too_small_to_show_reads_as_level() -> None:
    base = of_teams(1)
    january = Month(2026, 1)
    a_twelfth = ProjectFunds("P1", january, at("2026-01-31T12:00"), 6_667_083, 0, 6_667_083, 0)
    level = replace(
        base, projects=(LedgerProject("P1", (("甲", Fraction(1)),)),), funds=(a_twelfth,)
    )
    summary = summarise(level, JANUARY, Rules())
    assert summary.progress.ahead != 0
    assert "，与序时进度持平；" in render_bulletin(summary)
    assert render_bulletin(summary).splitlines()[-1] == "1.甲小分队 8.33%（持平）"


def test_a_team_that_is_not_called_a_field_team_keeps_its_name() -> None:
    base = of_teams(1)
    renamed = replace(base, teams=(replace(base.teams[0], name="驻外招商分局"),))
    last_line = render_bulletin(summarise(renamed, JANUARY, Rules())).splitlines()[-1]
    assert last_line == "1.驻外招商分局 0.00%（欠8.33）"
