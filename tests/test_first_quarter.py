"""The first quarter of the worked example, lived through by message: filed, confirmed, recognised,
reminded of, frozen and published, to the digit of its table and the full stop of its bulletin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from sqlmodel import col, select

from handlers.bulletin import percent, two_places
from handlers.imports import import_example
from handlers.ledger import parse_period, summary_of
from handlers.place import place_of
from handlers.rankings import YI_YUAN, Figures, Summary, TeamResult, needs_sponsor
from storage.reports import Bulletin, Project
from tests.handlers.test_bulletin import FIRST_QUARTER_TEXT
from tests.world import World

EXAMPLE = Path(__file__).parent / "data" / "fixture_q1_2026.json"
LEADERS = {"T1": "长三角带队", "T2": "珠三角带队", "T3": "京津冀带队"}
LIAISONS = {"T1": "甲单位", "T2": "乙单位", "T3": "丙单位"}
COORDINATOR, SECOND, LEADER = "统筹", "副统筹", "县领导"


def live(world: World) -> None:
    """January to the freeze of March."""
    set_up(world)
    january(world)
    february(world)
    march(world)


def set_up(world: World) -> None:
    with world.database.session() as session:
        import_example(session, EXAMPLE, world.clock.now(), "批次一")
    world.grant(COORDINATOR, "coordinator")
    world.grant(SECOND, "coordinator")
    world.grant(LEADER, "leader")
    for number, (team, leader) in enumerate(LEADERS.items(), start=1):
        world.grant(leader, "team_leader", team_id=number)
        world.grant(LIAISONS[team], "unit_liaison", unit_id=number)


@dataclass(frozen=True)
class Monthly:
    """What one report of the example says, as its leader would type it into the template."""

    days: str
    visits: int
    leads: int
    fresh: str = ""
    progress: str = ""
    funds: str = ""

    def template(self) -> str:
        leads = "\n".join(f"线索{n}；某公司；加工；1000" for n in range(1, self.leads + 1))
        lines = {
            "驻点天数": self.days,
            "走访": self.visits,
            "重点企业": 1,
            "商协会与知名人士": "无",
            "新增线索": leads,
            "新增在谈": self.fresh,
            "项目进展": self.progress,
            "到位资金": self.funds,
            "推介活动": 0,
            "引荐考察": 0,
            "问题与建议": "无",
            "下月打算": "继续跟进在谈项目",
        }
        return "月报\n" + "\n".join(
            f"{label}：{said}" for label, said in lines.items() if said != ""
        )


def file(world: World, team: str, monthly: Monthly, *explained: str) -> str:
    """Paste the template, explain what the form asks about, and submit; returns the receipt."""
    answer = world.talk(LEADERS[team], monthly.template(), *explained)
    assert "回「提交」提交" in answer, answer
    return world.says(LEADERS[team], "提交")


def january(world: World) -> None:
    world.at("2026-01-30 16:20")
    first = Monthly("22 21 20", 14, 5, "项目甲；甲投资公司；1月9日\n项目壬；壬投资公司；1月20日")
    assert file(world, "T1", first).startswith("已提交 v1（YB-2026-01-T1-v1），01-30 16:20，准时。")
    world.at("2026-01-31 09:00")
    third = Monthly(
        "20 18",
        8,
        2,
        "项目己；己投资公司；1月13日",
        "P07 无变化",
        "P07 400 0",
    )
    file(world, "T3", third, "C2家中有事请假2天")
    world.at("2026-01-31 22:40")
    second = Monthly(
        "21 20",
        10,
        4,
        "项目丙；丙投资公司；1月5日面谈 1月15日签约 30000 固投24000 正式",
        "P08 无变化",
        "P08 0\n项目丙 固投1500 其他500",
    )
    file(world, "T2", second)
    world.at("2026-02-02 10:00")
    decide(world, "1月", "认定 1月 全部 依据 银行进账")


def february(world: World) -> None:
    world.at("2026-02-27 18:00")
    second = Monthly(
        "16 15",
        5,
        1,
        progress="P08 无变化\n项目丙 开工 2月25日",
        funds="P08 0\n项目丙 固投1500 其他200",
    )
    file(world, "T2", second)
    world.at("2026-02-28 10:05")
    first = Monthly(
        "15 15.5 14",
        6,
        2,
        "项目乙；乙投资公司；2月11日",
        "项目甲 签约 2月6日 5000 固投4200 正式\n项目壬 无变化",
        "项目甲 800 200",
    )
    file(world, "T1", first, "A3返县汇报1天")
    world.at("2026-02-28 20:11")
    third = Monthly(
        "15 15",
        4,
        1,
        "项目癸；癸投资公司；2月4日",
        "P07 无变化\n项目己 签约 2月12日 3000 固投2600 正式",
        "P07 0\n项目己 0",
    )
    file(world, "T3", third)
    world.at("2026-03-03 09:00")
    corrected = world.talk(LEADERS["T2"], "更正 月报 2月 项目丙 固投1000", "回单看错了")
    assert corrected == "已生成 v2（YB-2026-02-T2-v2），两方已收到更正通知（不计迟报）。"
    world.at("2026-03-04 10:00")
    decide(world, "2月", "认定 2月 全部 依据 银行进账")


def march(world: World) -> None:
    for moment in ("03-25 09:30", "03-30 10:00", "03-31 10:00", "03-31 17:00", "03-31 17:55"):
        world.at(f"2026-{moment}")
    second = Monthly(
        "20 20",
        12,
        3,
        "项目丁；丁投资公司；3月2日面谈 3月5日签约 8000 固投6500 正式\n"
        "项目戊；戊投资公司；3月10日面谈 3月27日签约 6000 固投5000 正式",
        "P08 投产 3月25日\n项目丙 无变化",
        "P08 0\n项目丙 600 0\n项目丁 0\n项目戊 0",
    )
    file(world, "T2", second)
    for moment in ("04-01 09:30", "04-02 09:12"):
        world.at(f"2026-{moment}")
    first = Monthly(
        "22 20 19.5",
        18,
        6,
        "项目子；子投资公司；3月12日\n项目丑；丑投资公司；3月19日",
        "项目甲 开工 3月18日\n项目乙 签约 3月18日 12000 固投9500 正式\n项目壬 无变化",
        "项目甲 1400 100\n项目乙 0",
    )
    late = file(world, "T1", first, "A3返县汇报半天")
    assert late.startswith("已提交 v1（YB-2026-03-T1-v1），04-02 09:12，迟报（迟2天）。")
    world.at("2026-04-03 10:00")
    code = code_of(world, "项目丙")
    world.says(COORDINATOR, f"认定 {code} 3月 450 依据 银行进账 理由 150无凭证")
    decide(world, "3月", "认定 3月 全部 依据 银行进账")
    for moment in ("04-03 09:30", "04-05 18:00", "04-08 10:00"):
        world.at(f"2026-{moment}")


def code_of(world: World, name: str) -> str:
    """The code under which the ledger entered a project that a report brought."""
    with world.database.reading() as session:
        return session.exec(select(Project.code).where(Project.name == name)).one()


def decide(world: World, month: str, recognition: str) -> None:
    """A coordinator confirms stages and funds; a second person agrees to what needs it."""
    if "没有" not in world.says(COORDINATOR, "项目确认"):
        world.says(COORDINATOR, "项目确认 全部")
    world.says(COORDINATOR, recognition)
    approve(world)
    assert world.says(COORDINATOR, f"认定 {month}") == f"{month}没有待认定的到位资金。"
    world.drain()


def waiting(world: World) -> list[str]:
    """Numbers of the requests that wait for a second person."""
    return re.findall(r"^SP-\d+", world.says(SECOND, "审批"), re.MULTILINE)


def approve(world: World) -> str:
    """The second person looks at everything that waits and agrees; returns the last answer."""
    answer = ""
    for number in waiting(world):
        code = re.search(r"同意 ([0-9a-f]{4})", world.says(SECOND, f"审批 {number}"))
        assert code is not None
        answer = world.says(SECOND, f"同意 {code[1]}")
    return answer


def summary(world: World, period: str) -> Summary:
    services = world.app.services
    with world.database.reading() as session:
        return summary_of(
            session,
            place_of(services),
            parse_period(period, date(2026, 5, 8)),
            world.clock.now(),
        )


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """January to the morning of 8 April; tests look at it and change nothing."""
    world = World(tmp_path_factory.mktemp("quarter"), place="gongan", start="2026-01-02 09:00")
    live(world)
    yield world
    world.close()


@pytest.fixture
def after(lived: World, tmp_path: Path) -> Iterator[World]:
    """The same world, to go on with."""
    world = lived.copy(tmp_path)
    yield world
    world.close()


PERIODS = {"2026-01": "1月", "2026-02(累计)": "2月", "2026Q1": "一季度"}
COUNTED = (
    *("reported", "recognised", "fai_rec", "signed", "signed_amt", "visits", "leads"),
    *("leads_passed", "talks", "started", "produced", "days"),
)
MEASURED = (
    *("completion", "diff", "post_ok", "late", "missing"),
    *("score_target", "score_post", "score_filing", "score", "rank"),
)


def wan(yuan: int) -> str:
    return two_places(Fraction(yuan, 10_000))


def counted(figures: Figures) -> dict[str, str | int]:
    values: list[str | int] = [
        wan(figures.reported_yuan),
        wan(figures.recognised_yuan),
        wan(figures.fixed_assets_recognised_yuan),
        figures.signed,
        wan(figures.signed_yuan),
        figures.visits,
        figures.leads,
        figures.leads_passed,
        figures.in_talks,
        figures.started,
        figures.produced,
        two_places(Fraction(figures.half_days, 2)),
    ]
    return dict(zip(COUNTED, values, strict=True))


def measured(result: TeamResult) -> dict[str, str | int]:
    conduct, score = result.conduct, result.score
    values: list[str | int] = [
        percent(result.progress.completion),
        percent(result.progress.ahead),
        f"{conduct.post_met}/{conduct.post_due}",
        len(conduct.late),
        len(conduct.missing),
        *(two_places(each) for each in (score.target, score.post, score.filing, score.total)),
        result.rank,
    ]
    return dict(zip(MEASURED, values, strict=True))


@pytest.mark.parametrize(("key", "period"), PERIODS.items())
def test_every_figure_of_the_table_comes_out(lived: World, key: str, period: str) -> None:
    expected = json.loads(EXAMPLE.read_text(encoding="utf-8"))["expected"][key]
    result = summary(lived, period)
    found = {each.team.team: counted(each.figures) | measured(each) for each in result.teams}
    assert found == expected["teams"]
    total = counted(result.total) | {"completion": percent(result.progress.completion)}
    assert {name: total[name] for name in expected["total"]} == expected["total"]
    assert [each.team.team for each in result.teams] == expected["order"]
    assert percent(result.progress.time_progress) == expected["seq"]


def test_points_are_never_worked_out_from_rounded_numbers(lived: World) -> None:
    february = {each.team.team: each for each in summary(lived, "2月").teams}
    january = {each.team.team: each for each in summary(lived, "1月").teams}
    assert two_places(february["T1"].score.target) == "48.00"
    assert two_places(january["T3"].score.target) == "48.00"


def test_only_fixed_assets_of_one_yi_ask_for_a_sponsor(lived: World) -> None:
    with lived.database.reading() as session:
        signed = session.exec(select(Project).where(col(Project.signed_on).is_not(None))).all()
    sponsored = [each.name for each in signed if needs_sponsor(each.fixed_yuan)]
    of_one_yi = [each.name for each in signed if each.planned_yuan >= YI_YUAN]
    assert (sponsored, of_one_yi) == (["项目丙"], ["项目丙", "项目乙"])


def test_the_ranking_by_message_is_that_of_the_table(lived: World) -> None:
    answer = lived.says(COORDINATOR, "排名 Q1")
    assert re.findall(r"^(\d)\.(\S+) (\S+)（(\S+?)，", answer, re.MULTILINE) == [
        ("1", "珠三角小分队", "36.50%", "超11.50"),
        ("2", "长三角小分队", "25.00%", "持平"),
        ("3", "京津冀小分队", "5.00%", "欠20.00"),
    ]


def test_team_leaders_see_no_ranking_before_it_is_published(after: World) -> None:
    before = after.says(LEADERS["T1"], "排名 Q1")
    publish(after)
    later = after.says(LEADERS["T1"], "排名 Q1")
    assert before == "这一期还没有发布。发布后会通知您，也可回「完成情况」看本队的数据。"
    assert later.splitlines()[1] == "1.珠三角小分队 36.50%（超11.50，县直单位第1）"


def test_the_bulletin_is_drafted_on_the_eighth_and_published_by_a_second_person(
    after: World,
) -> None:
    assert FIRST_QUARTER_TEXT.replace("4月8日发布", "草稿") in after.received(COORDINATOR)
    publish(after)
    assert after.says(LEADERS["T3"], "通报 Q1") == FIRST_QUARTER_TEXT
    for who in (LEADER, *LEADERS.values(), *LIAISONS.values()):
        assert after.received(who)[-1] == FIRST_QUARTER_TEXT


def test_nobody_publishes_alone(after: World) -> None:
    after.says(COORDINATOR, "通报 发布 Q1")
    answer = after.says(COORDINATOR, "审批 " + waiting(after)[0])
    assert answer.splitlines()[-1] == "这是您自己提交的，须由另一位统筹员或领导审批。"


def test_a_published_bulletin_never_changes(after: World) -> None:
    publish(after)
    backfill(after)
    assert after.says(COORDINATOR, "通报 Q1") == FIRST_QUARTER_TEXT
    refused = after.says(COORDINATOR, "通报 发布 Q1")
    assert refused == "2026年第一季度通报已经发布，不再改动；之后的更正在下一期说明。"
    with after.database.reading() as session:
        kept = json.loads(session.exec(select(Bulletin)).one().snapshot)
    assert kept["total"]["recognised_yuan"] == 65_500_000


def test_what_is_backfilled_in_april_counts_in_april_and_is_explained(after: World) -> None:
    publish(after)
    backfill(after)
    quarter, april = summary(after, "一季度"), summary(after, "4月")
    assert wan(quarter.total.recognised_yuan) == "6550.00"
    assert wan(april.total.recognised_yuan) == "8150.00"
    after.at("2026-05-08 10:00")
    text = after.says(COORDINATOR, "通报 4月")
    assert "京津冀补报3月到位资金1600.00万元" in text


def test_team_leaders_are_told_what_was_recognised_and_why(lived: World) -> None:
    code = code_of(lived, "项目丙")
    assert (
        f"{code} 项目丙 3月到位资金认定450.00万元，依据银行进账，理由：150无凭证。"
        "有异议请回「人工」。" in lived.received(LEADERS["T2"])
    )


def test_reminders_reach_those_who_owe_march_and_nobody_else(lived: World) -> None:
    march_reminders = [
        text for text in lived.received(LEADERS["T3"]) if re.search("3月月报.*截止", text)
    ]
    assert len(march_reminders) == 4
    opened = march_reminders[0]
    assert "项目己" in opened
    assert "P07 项目庚" in opened
    assert [t for t in lived.received(LIAISONS["T1"]) if "至今未交" in t] == []
    assert "您单位派出的京津冀驻点小分队3月月报至今未交，" in lived.received(LIAISONS["T3"])[-1]


def test_the_late_list_of_the_first_names_teams_and_units_only(lived: World) -> None:
    lists = [text for text in lived.received(COORDINATOR) if "3月月报迟报清单" in text]
    assert lists == [
        "2026年3月月报迟报清单（截至4月1日09:30）\n"
        "应报3队，已报1队，未报2队。\n"
        "1.长三角驻点小分队（派出单位甲）：未报\n"
        "2.京津冀驻点小分队（派出单位丙）：未报"
    ]


def test_the_freeze_leaves_one_team_missing(lived: World) -> None:
    assert (
        "2026年3月月报已冻结：应报3队，按期收到2队，缺报1队。\n"
        "1.京津冀驻点小分队（派出单位丙）缺报" in lived.received(COORDINATOR)
    )


def test_nothing_was_said_in_a_group(lived: World) -> None:
    assert lived.received("group-1") == []


def publish(world: World) -> None:
    """On 8 April a coordinator asks, a second person agrees."""
    world.says(COORDINATOR, "通报 发布 Q1")
    assert approve(world).endswith("2026年第一季度通报已发布，发给9人。")
    world.drain()


def backfill(world: World) -> None:
    """On 15 April the third team files March after all, and its funds are recognised."""
    world.at("2026-04-15 10:00")
    report = Monthly(
        "20 20",
        3,
        0,
        progress="P07 无变化\n项目己 无变化\n项目癸 无变化",
        funds="P07 1600 0\n项目己 0",
    )
    backfilled = report.template().replace("月报\n", "补报 3月\n", 1)
    answer = world.talk(LEADERS["T3"], backfilled, "0", "提交")
    assert "补报（计入下期累计）" in answer, answer
    decide(world, "3月", "认定 3月 全部 依据 银行进账")
