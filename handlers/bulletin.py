"""Words the monthly, quarterly, half-yearly and yearly bulletin, its table and the late list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction

from bot.clock import beijing
from handlers.deadlines import FilingState, days_late
from handlers.periods import Month, ReportPeriod
from handlers.rankings import (
    YI_YUAN,
    Figures,
    Group,
    Remark,
    RemarkKind,
    Score,
    Summary,
    TeamResult,
)

WAN_YUAN = 10_000

# On a phone, more teams than this in one line can no longer be told apart.
TEAMS_ON_ONE_LINE = 3

GROUP_NAMES = {
    Group.COUNTY_UNITS: "县直单位",
    Group.TOWNSHIPS: "乡镇",
    Group.BRANCHES: "驻外分局",
}


@dataclass(frozen=True, slots=True)
class FilingLine:
    """How one team stands with the month's report, for the coordinator's list."""

    team_name: str
    unit: str
    state: FilingState
    filed_at: datetime | None = None


def two_places(value: Fraction | int) -> str:
    """Show an exact number with two decimals, halves away from zero, never as -0.00."""
    exact = abs(Fraction(value)) * 100
    hundredths = (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)
    sign = "-" if value < 0 and hundredths else ""
    return f"{sign}{hundredths // 100}.{hundredths % 100:02d}"


def percent(share: Fraction) -> str:
    """Show a share of 1 as `23.39`; the sign % is left to the sentence."""
    return two_places(share * 100)


def in_wan(yuan: int) -> str:
    """Show an amount in 元 as `6550.00万元`."""
    return f"{two_places(Fraction(yuan, WAN_YUAN))}万元"


def in_yi(yuan: int) -> str:
    """Show an amount in 元 as `6.40亿元`."""
    return f"{two_places(Fraction(yuan, YI_YUAN))}亿元"


def target_in_wan(yuan: int) -> str:
    """Show a target in 元 as documents write it, `28000万元`, with decimals only if it has any."""
    return in_wan(yuan).replace(".00万元", "万元")


def render_bulletin(
    summary: Summary,
    *,
    published_on: date | None = None,
    area: str = "全县",
    names_late: bool = False,
) -> str:
    """Return the bulletin's text; without `published_on` it calls itself a draft.

    `area` is the place's word for the whole of it. Late reports are named only on request: the
    bulletin is about results, and a late report still counts in full.
    """
    lines = [bulletin_headline(summary.period, published_on)]
    if not summary.teams:
        return "\n".join([*lines, "本期没有下达年度任务的小分队，暂无可通报的数据。"])
    lines += [_opening(summary, area), *_standings(summary)]
    explanations = _explanations(summary, names_late=names_late)
    if explanations:
        lines.append(f"说明：{'；'.join(explanations)}。")
    return "\n".join(lines)


def bulletin_headline(period: ReportPeriod, published_on: date | None = None) -> str:
    """Return the bulletin's first line; without `published_on` it says 草稿."""
    last_day = period.last_month.last_day
    if published_on is None:
        published = "草稿"
    elif published_on.year == last_day.year:
        published = f"{_month_and_day(published_on)}发布"
    else:
        published = f"{published_on.year}年{_month_and_day(published_on)}发布"
    return f"{period.title}驻点招商情况通报（截至{_month_and_day(last_day)}，{published}）"


def render_ranking(summary: Summary, group: Group | None = None) -> str:
    """Return the ranking of all teams, or of one group, as short blocks for a chat."""
    subject = "排名" if group is None else f"{GROUP_NAMES[group]}排名"
    heading = f"{summary.period.title}驻点招商{subject}"
    results = summary.teams if group is None else summary.of_group(group)
    if not results:
        return f"{heading}\n没有可排名的小分队。"
    until = _month_and_day(summary.period.last_month.last_day)
    lines = [f"{heading}（1月1日至{until}，按认定数）"]
    for result in sorted(results, key=lambda each: _rank_in(each, group)):
        lines += _ranking_block(result, group, scored=summary.rules.hundred_points)
    return "\n".join(lines)


def render_late_list(month: Month, lines: Iterable[FilingLine], *, now: datetime) -> str:
    """Return the coordinator's list of who has not filed `month`'s report, or filed it late.

    It names teams and units, never people.
    """
    listed = list(lines)
    local = beijing(now)
    moment = f"{_month_and_day(local.date())}{local:%H:%M}"
    heading = f"{month.year}年{month.number}月月报迟报清单（截至{moment}）"
    if not listed:
        return f"{heading}\n本月没有应报的小分队。"
    unfiled = [each for each in listed if each.filed_at is None]
    counts = f"应报{len(listed)}队，已报{len(listed) - len(unfiled)}队，未报{len(unfiled)}队。"
    named = [each for each in listed if each.state is not FilingState.ON_TIME]
    if not named:
        return f"{heading}\n{counts}\n全部按时报送，没有迟报。"
    rows = [
        f"{number}.{each.team_name}（{each.unit}）：{_filing_words(each, month)}"
        for number, each in enumerate(named, start=1)
    ]
    return "\n".join([heading, counts, *rows])


def _opening(summary: Summary, area: str) -> str:
    total, period = summary.total, summary.period
    if period.begins_the_year:
        scope, cumulated, share = area, "", ""
    else:
        scope, cumulated = f"1—{period.last_month.number}月，{area}", "累计"
        share = f"（其中{period.short_title}{in_wan(summary.recognised_in_period_yuan)}）"
    return (
        f"{scope}{cumulated}认定到位资金{in_wan(total.recognised_yuan)}{share}，"
        f"完成年度目标{target_in_wan(summary.target_yuan)}的"
        f"{percent(summary.progress.completion)}%，{_against_time(summary.progress.ahead)}；"
        f"{_signed_words(total, cumulated or '新')}；{_built_words(total)}。"
    )


def _against_time(ahead: Fraction) -> str:
    word, points = _ahead_words(ahead)
    return f"{word}序时进度{points}个百分点" if points else "与序时进度持平"


def _ahead_words(ahead: Fraction) -> tuple[str, str]:
    """Return 超 or 欠 with the points, or 持平 with none where two decimals show no difference."""
    points = percent(abs(ahead))
    if points == "0.00":
        return "持平", ""
    return ("超" if ahead > 0 else "欠"), points


def _signed_words(total: Figures, adverb: str) -> str:
    if not total.signed and not total.signed_yuan:
        return "暂无签约"
    return (
        f"{adverb}签约{total.signed}个，计划总投资{in_yi(total.signed_yuan)}，"
        f"其中亿元以上{total.signed_of_one_yi}个"
    )


def _built_words(total: Figures) -> str:
    if not total.started and not total.produced:
        return "暂无开工、投产"
    return f"开工{total.started}个、投产{total.produced}个"


def _standings(summary: Summary) -> list[str]:
    """Return the teams by rank; where there are several groups, each under its own name."""
    if len(summary.groups) == 1:
        return _standing_lines(summary.teams, "")
    return [
        line
        for group in summary.groups
        for line in _standing_lines(summary.of_group(group), f"{GROUP_NAMES[group]}：")
    ]


def _standing_lines(results: Iterable[TeamResult], label: str) -> list[str]:
    ranked = sorted(results, key=lambda each: each.group_rank)
    words = [f"{each.group_rank}.{_standing(each)}" for each in ranked]
    if len(words) <= TEAMS_ON_ONE_LINE:
        return [label + "".join(words)]
    return [*([label] if label else []), *words]


def _standing(result: TeamResult) -> str:
    ahead = "".join(_ahead_words(result.progress.ahead))
    missing = f"，缺{_month_list(result.conduct.missing)}报表" if result.conduct.missing else ""
    completed = percent(result.progress.completion)
    return f"{_short_name(result.team.name)} {completed}%（{ahead}{missing}）"


def _explanations(summary: Summary, *, names_late: bool) -> list[str]:
    """Return the remarks in the teams' order, naming a team only at its first remark."""
    explained = [(each.team, _remark_words(each)) for each in summary.remarks]
    if names_late:
        explained += [
            (result.team, f"{late.month.number}月报表迟报{late.days}天")
            for result in summary.teams
            for late in result.conduct.late
            if late.month in summary.period.months
        ]
    by_team = {
        result.team: [words for team, words in explained if team == result.team]
        for result in summary.teams
    }
    return [_region(team.name) + "；".join(words) for team, words in by_team.items() if words]


def _remark_words(remark: Remark) -> str:
    month = f"{remark.month.number}月"
    match remark.kind:
        case RemarkKind.CORRECTED:
            return f"{month}到位资金经更正为{in_wan(remark.reported_yuan)}"
        case RemarkKind.BACKFILLED if remark.reported_yuan == 0:
            return f"补报{month}报表，无到位资金"
        case RemarkKind.BACKFILLED:
            return f"补报{month}到位资金{in_wan(remark.reported_yuan)}"
        case RemarkKind.LESS_RECOGNISED:
            reported, recognised = in_wan(remark.reported_yuan), in_wan(remark.recognised_yuan)
            return f"{month}上报{reported}，认定{recognised}"
        case RemarkKind.UNEXAMINED:
            reported, pending = in_wan(remark.reported_yuan), in_wan(remark.unexamined_yuan)
            return f"{month}上报{reported}，其中{pending}待认定，暂未计入"


def _ranking_block(result: TeamResult, group: Group | None, *, scored: bool) -> list[str]:
    figures, conduct = result.figures, result.conduct
    group_note = (
        "" if group is not None else f"，{GROUP_NAMES[result.team.group]}第{result.group_rank}"
    )
    ahead = "".join(_ahead_words(result.progress.ahead))
    lines = [
        f"{_rank_in(result, group)}.{_short_name(result.team.name)} "
        f"{percent(result.progress.completion)}%（{ahead}{group_note}）",
        f"  认定{in_wan(figures.recognised_yuan)}，目标{target_in_wan(result.team.target_yuan)}",
        f"  签约{figures.signed}个{in_wan(figures.signed_yuan)}，"
        f"通过评审线索{figures.leads_passed}条",
        f"  驻点达标{conduct.post_met}/{conduct.post_due}人月，{_conduct_words(result)}",
    ]
    return [*lines, _score_words(result.score)] if scored else lines


def _rank_in(result: TeamResult, group: Group | None) -> int:
    return result.rank if group is None else result.group_rank


def _conduct_words(result: TeamResult) -> str:
    conduct = result.conduct
    named = [
        ("迟报", tuple(each.month for each in conduct.late)),
        ("缺报", conduct.missing),
        ("补报", conduct.backfilled),
    ]
    words = [f"{word}{_month_list(months)}" for word, months in named if months]
    return "，".join(words) or "报送及时"


def _score_words(points: Score) -> str:
    return (
        f"  得分{two_places(points.total)}（目标{two_places(points.target)}，"
        f"驻点{two_places(points.post)}，报送{two_places(points.filing)}）"
    )


def _filing_words(line: FilingLine, month: Month) -> str:
    if line.filed_at is None:
        missing = line.state is FilingState.MISSING
        return "缺报" if missing else "未报"
    local = beijing(line.filed_at)
    moment = f"{_month_and_day(local.date())}{local:%H:%M}"
    if line.state is FilingState.BACKFILLED:
        return f"{moment}补报"
    return f"{moment}提交，迟报{days_late(line.filed_at, month)}天"


def _region(team_name: str) -> str:
    """Return the team's name as people say it: 珠三角 for 珠三角驻点小分队."""
    return team_name.removesuffix("小分队").removesuffix("招商").removesuffix("驻点")


def _short_name(team_name: str) -> str:
    """Return the name for a list: 珠三角小分队; a team called otherwise keeps its name."""
    return f"{_region(team_name)}小分队" if team_name.endswith("小分队") else team_name


def _month_list(months: Iterable[Month]) -> str:
    return "、".join(f"{each.number}月" for each in months)


def _month_and_day(day: date) -> str:
    return f"{day.month}月{day.day}日"
