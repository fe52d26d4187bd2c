"""Coordinators confirm stages and recognise funds by message; large amounts need two of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date

import pytest
from sqlmodel import col, select

from storage.audit import AuditEntry
from storage.organisation import MinimumDays
from storage.reports import ChangeState, Recognition, Stage
from tests.county import COORDINATOR, LEADER, SECOND, settle_county
from tests.filing import Filed, Move, file_report, project_of
from tests.world import World

ALREADY_RECOGNISED = "3月没有待认定的到位资金。"


@pytest.fixture
def county(make_world: Callable[..., World]) -> World:
    world = make_world(place="gongan", start="2026-03-31 12:00")
    settle_county(world)
    return world


def filed(
    world: World, funds: Sequence[tuple[str, int, int]] = (), moves: Sequence[Move] = ()
) -> None:
    file_report(world, LEADER, Filed("T1", "2026-03", [20], funds=funds, moves=moves))


def recognised(world: World) -> list[tuple[int, int, str]]:
    with world.database.reading() as session:
        return [
            (each.fixed_yuan // 10_000, each.other_yuan // 10_000, each.state)
            for each in session.exec(select(Recognition).order_by(col(Recognition.id)))
        ]


def stage_of(world: World, code: str) -> Stage:
    with world.database.reading() as session:
        return Stage(project_of(session, code).stage)


def agreed(world: World, number: str) -> str:
    shown = world.says(SECOND, f"审批 {number}")
    code = re.search(r"同意 ([0-9a-f]{4})", shown)
    assert code is not None, shown
    return world.says(SECOND, f"同意 {code[1]}")


def test_what_was_reported_is_shown_before_it_is_recognised(county: World) -> None:
    filed(county, [("P07", 500, 100)])
    assert county.says(COORDINATOR, "认定").splitlines()[:2] == [
        "待认定的到位资金：",
        "P07 项目庚 3月：上报600.00万元（固投500.00万元，其他100.00万元）",
    ]


def test_less_than_reported_asks_for_the_basis_and_the_reason(county: World) -> None:
    filed(county, [("P07", 600, 0)])
    asked = county.says(COORDINATOR, "认定 P07 3月 450")
    assert asked.splitlines()[0] == "P07 项目庚 3月：上报600.00万元（固投600.00万元，其他0.00万元）"
    assert county.says(COORDINATOR, "2") == "比上报少认150.00万元，理由是？"
    assert county.says(COORDINATOR, "150无凭证") == (
        "已认定。P07 项目庚 3月：上报600.00万元（固投600.00万元，其他0.00万元），"
        "认定450.00万元，依据银行进账，理由：150无凭证。"
    )
    assert recognised(county) == [(450, 0, ChangeState.CONFIRMED)]


def test_all_in_one_message_asks_nothing(county: World) -> None:
    filed(county, [("P07", 500, 100)])
    answer = county.says(COORDINATOR, "认定 P07 3月 固投450 其他0 依据 验资报告 理由 其余无凭证")
    assert answer.startswith("已认定。")
    assert recognised(county) == [(450, 0, ChangeState.CONFIRMED)]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (
            "认定 P07 3月 700 依据 银行进账",
            "P07 项目庚 3月：上报600.00万元（固投500.00万元，其他100.00万元）。"
            "请分开写认定数，如「认定 P07 3月 固投… 其他…」。",
        ),
        (
            "认定 P07 3月 固投600 依据 银行进账",
            "固投认定600.00万元，多于上报的500.00万元；认定数不能超过上报数。",
        ),
        (
            "认定 P07 3月 依据 口头",
            "依据请从验资报告、银行进账、设备清单与发票、工程款、统计入库中选一种。",
        ),
        ("认定 P99 3月 100", "台账里没有 P99。回「认定」看待认定的清单。"),
        ("认定 P01 3月 100", "P01 3月没有上报到位资金，无从认定。"),
    ],
)
def test_what_does_not_fit_is_refused(county: World, said: str, answer: str) -> None:
    filed(county, [("P07", 500, 100)])
    assert county.says(COORDINATOR, said) == answer
    assert recognised(county) == []


def test_from_the_threshold_on_a_second_person_decides(county: World) -> None:
    filed(county, [("P07", 1000, 0)])
    answer = county.says(COORDINATOR, "认定 P07 3月 1000 依据 银行进账")
    assert answer.splitlines()[1] == "单笔达到复核线，已提交 SP-0001，第二人同意后生效。"
    assert recognised(county) == [(1000, 0, ChangeState.SUBMITTED)]
    assert county.says(COORDINATOR, "认定").splitlines()[1].endswith("（待第二人审批）")
    agreed(county, "SP-0001")
    assert recognised(county) == [(1000, 0, ChangeState.CONFIRMED)]


def test_just_below_the_threshold_one_person_is_enough(county: World) -> None:
    filed(county, [("P07", 1000, 0)])
    county.says(COORDINATOR, "认定 P07 3月 999.99 依据 银行进账 理由 零头无凭证")
    assert [state for _, _, state in recognised(county)] == [ChangeState.CONFIRMED]


def test_a_refused_amount_waits_again(county: World) -> None:
    filed(county, [("P07", 1000, 0)])
    county.says(COORDINATOR, "认定 P07 3月 1000 依据 银行进账")
    county.says(SECOND, "驳回 SP-0001 回单不清")
    assert county.says(COORDINATOR, "认定 3月") != ALREADY_RECOGNISED


def test_a_correction_while_the_second_person_thinks_makes_the_approval_useless(
    county: World,
) -> None:
    filed(county, [("P07", 1500, 0)])
    county.says(COORDINATOR, "认定 P07 3月 1500 依据 银行进账")
    county.passes(hours=1)
    filed(county, [("P07", 1200, 0)])
    assert agreed(county, "SP-0001") == (
        "P07 3月的上报数已经更正，这份认定对不上了，请驳回后重新认定。"
    )
    assert recognised(county) == [(1500, 0, ChangeState.SUBMITTED)]


def test_what_is_corrected_after_recognition_must_be_recognised_again(county: World) -> None:
    filed(county, [("P07", 500, 0)])
    county.says(COORDINATOR, "认定 3月 全部 依据 银行进账")
    county.passes(hours=1)
    filed(county, [("P07", 400, 0)])
    assert county.says(COORDINATOR, "认定 3月").splitlines()[1] == (
        "P07 项目庚 3月：上报400.00万元（固投400.00万元，其他0.00万元）"
    )


def test_a_correction_of_something_else_keeps_the_recognition(county: World) -> None:
    filed(county, [("P07", 500, 0)])
    county.says(COORDINATOR, "认定 3月 全部 依据 银行进账")
    county.passes(hours=1)
    filed(county, [("P07", 500, 0)])
    assert county.says(COORDINATOR, "认定 3月") == ALREADY_RECOGNISED


def test_a_stage_moves_only_when_a_coordinator_confirms(county: World) -> None:
    filed(county, moves=[Move("P01", Stage.SIGNED, date(2026, 3, 18), 12000, 9500)])
    assert stage_of(county, "P01") is Stage.IN_TALKS
    answer = county.says(COORDINATOR, "项目确认 P01")
    assert answer == (
        "已确认 P01 项目甲：在谈→签约，2026-03-18，正式协议，"
        "计划总投资12000.00万元，其中固定资产9500.00万元。"
    )
    assert stage_of(county, "P01") is Stage.SIGNED


def test_a_stage_confirmed_after_the_freeze_counts_in_the_month_that_told_it(
    county: World,
) -> None:
    filed(county, moves=[Move("P01", Stage.SIGNED, date(2026, 3, 18), 12000, 9500)])
    county.at("2026-04-06 10:00")
    county.says(COORDINATOR, "项目确认 P01")
    assert "  签约1个12000.00万元，" in county.says(COORDINATOR, "排名 一季度")


def test_fixed_assets_of_one_yi_ask_for_a_sponsor_when_confirmed(county: World) -> None:
    filed(county, moves=[Move("P01", Stage.SIGNED, date(2026, 3, 18), 30000, 10000)])
    answer = county.says(COORDINATOR, "项目确认 全部")
    assert answer.endswith("固定资产投资达1亿元，请安排领导包联。")


@pytest.mark.parametrize(
    ("move", "answer"),
    [
        (
            Move("P01", Stage.SIGNED, date(2026, 3, 18), 12000, 9500, formal=False),
            "P01 项目甲签的是意向或框架协议，不计签约；签正式协议后再报。",
        ),
        (
            Move("P01", Stage.SIGNED, date(2026, 3, 18), None, 9500),
            "P01 项目甲报签约，还缺计划总投资，请退回补报。",
        ),
        (
            Move("P01", Stage.SIGNED, date(2026, 3, 18), 12000),
            "P01 项目甲报签约，还缺其中固定资产投资，请退回补报。",
        ),
        (
            Move("P01", Stage.STARTED, date(2026, 3, 18)),
            "P01 项目甲从「在谈」直接到「开工」，还缺签约日期；"
            "下一步应是「签约」，补登须先给齐中间日期。",
        ),
        (
            Move("P07", Stage.IN_TALKS, date(2026, 3, 18)),
            "P07 项目庚目前是「签约」，不能改为「在谈」；下一步可以是「开工」。"
            "误填请用「项目退回」，让小分队更正月报。",
        ),
    ],
)
def test_an_unfit_change_is_refused_with_what_is_legal(
    county: World, move: Move, answer: str
) -> None:
    filed(county, moves=[move])
    before = stage_of(county, move.project)
    assert county.says(COORDINATOR, f"项目确认 {move.project}") == answer
    assert stage_of(county, move.project) is before


def test_what_is_sent_back_tells_the_leader_why(county: World) -> None:
    filed(county, moves=[Move("P01", Stage.SIGNED, date(2026, 3, 18), 12000, 9500)])
    county.news(LEADER)
    county.says(COORDINATOR, "项目退回 P01 签约日期有误")
    county.drain()
    assert county.news(LEADER) == [
        "P01 项目甲的阶段变更被退回：签约日期有误。更正请回「更正 月报」。"
    ]
    assert county.says(COORDINATOR, "项目确认") == "没有待确认的阶段变更。"


def test_every_decision_leaves_a_line_with_its_reason(county: World) -> None:
    filed(
        county,
        [("P07", 600, 0)],
        [Move("P01", Stage.SIGNED, date(2026, 3, 18), 12000, 9500)],
    )
    county.says(COORDINATOR, "项目退回 P01 签约日期有误")
    county.says(COORDINATOR, "认定 P07 3月 450 依据 银行进账 理由 150无凭证")
    with county.database.reading() as session:
        lines = session.exec(
            select(AuditEntry.action, AuditEntry.object, AuditEntry.reason).order_by(
                col(AuditEntry.id)
            )
        ).all()
    assert [line for line in lines if line[0] in ("stage.reject", "funds.recognise")] == [
        ("stage.reject", "project:P01:signed", "签约日期有误"),
        ("funds.recognise", "project:P07:2026-03", "依据银行进账，理由：150无凭证"),
    ]


@pytest.mark.parametrize("words", ["认定", "项目确认", "催报", "通报 发布 Q1"])
def test_team_leaders_may_not_do_the_coordinators_work(county: World, words: str) -> None:
    assert "由统筹员使用" in county.says(LEADER, words)


def test_the_least_days_change_when_a_second_person_agrees(county: World) -> None:
    answer = county.says(COORDINATOR, "最低天数 2月 15 春节假期")
    assert answer == ("已提交 SP-0001：2月最低驻点天数改为15天（春节假期）。第二人同意后生效。")
    with county.database.reading() as session:
        assert session.get(MinimumDays, "2026-02") is None
    agreed(county, "SP-0001")
    assert county.says(COORDINATOR, "最低天数").splitlines()[1:] == ["2026-02：15天 春节假期"]


def test_a_target_changes_when_a_second_person_agrees(county: World) -> None:
    county.says(COORDINATOR, "目标 T1 12000 年中调整")
    agreed(county, "SP-0001")
    assert county.says(SECOND, "目标").splitlines() == [
        "2026年目标（合计12000万元）：",
        "T1 长三角驻点小分队：12000万元",
    ]
