"""The monthly report by message: each check of §3.2, the two deliveries, corrections and scope."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session, col, select

from bot.normalize import Miss
from bot.text import content_hash
from handlers.forms.fields import show_days
from handlers.rankings import needs_sponsor
from handlers.reports.reading import funds, leave, plain_wan, visits
from storage.organisation import FieldTeam, MinimumDays, Unit
from storage.people import revoke
from storage.reports import (
    ChangeState,
    Lead,
    Project,
    Report,
    ReportDays,
    ReportedFunds,
    ReportReceipt,
    Stage,
    StageChange,
)
from tests import delta_team
from tests.delta_team import LEADER, LIAISON, MEMBER, OFFICE
from tests.world import World

VISITS = "【2/6 走访】"
LEADS = "【3/6 新增线索】"
PROGRESS = "【4/6 项目进展】"
FUNDS = "【5/6 到位资金】"
OTHERS = "【6/6 其他】"
REVIEW = "【汇总预览】"

TEMPLATE = {
    "驻点天数": "22 21 20",
    "走访": "18",
    "重点企业": "4",
    "商协会与知名人士": "跳过",
    "新增线索": "没有",
    "项目进展": "都无变化",
    "到位资金": "P01 0",
    "推介活动": "1",
    "引荐考察": "1批6人",
    "问题与建议": "跳过",
    "下月打算": "跟进项目乙",
}


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """The invented county on the last day of March, before anything was filed."""
    world = make_world(start="2026-03-31 10:00")
    delta_team.lay(world)
    return world


def template(month: str = "3月", **changed: str) -> str:
    """A filled-in template; keywords are labels."""
    lines = {**TEMPLATE, **changed}
    return "\n".join([f"月报 {month}", *(f"{label}：{words}" for label, words in lines.items())])


def file(world: World, who: str = LEADER, **changed: str) -> str:
    """Say the whole report in one message and submit it; returns the last answer."""
    return world.talk(who, template(**changed), "提交")


def reaches(world: World, question: str) -> None:
    """Go on to one of the later questions with unremarkable answers."""
    before = {
        VISITS: ["月报", "都20天"],
        LEADS: ["18 4"],
        PROGRESS: ["0"],
        FUNDS: ["都无变化"],
        OTHERS: ["都没有"],
    }
    for step, words in before.items():
        answer = world.talk(LEADER, *words)
        assert step in answer
        if step == question:
            return


def all_of(world: World, kind: type) -> list:  # type: ignore[type-arg]  # any table
    with world.database.session() as session:
        return list(session.exec(select(kind)))


def edit(world: World, change: Callable[[Session], None]) -> None:
    with world.database.session() as session:
        change(session)


# - K1 to K4: days -


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ("32 20 20", "本月只有31天，张某写了32天，请更正。"),
        ("20.3 20 20", "天数以半天为单位，张某的20.3天请改成整数或「.5」，如「19.5」。"),
        ("满勤", "满勤是几天各月不同，请直接写天数，如「22 21 20」。"),
    ],
)
def test_k1_days_lie_within_the_month_in_half_days(world: World, said: str, answered: str) -> None:
    world.says(LEADER, "月报")
    assert world.says(LEADER, said) == answered


def test_k2_whoever_is_short_of_the_minimum_gives_a_reason(world: World) -> None:
    assert world.talk(LEADER, "月报", "22 21 19.5") == (
        "张某22天、李某21天、王某19.5天。\n王某差0.5天（最低20天），请写事由，如「返县汇报2天」。"
    )
    assert VISITS in world.says(LEADER, "返县汇报2天")


def test_k2_a_months_own_minimum_counts(world: World) -> None:
    edit(world, lambda session: session.add(MinimumDays(month="2026-03", half_days=30)))
    assert VISITS in world.talk(LEADER, "月报", "15 15.5 19")


def test_two_who_are_short_may_give_one_reason(world: World) -> None:
    assert VISITS in world.talk(LEADER, "月报", "18 19 20", "都回县开会了")
    assert "张某差2天：都回县开会了；李某差1天：都回县开会了" in world.talk(
        LEADER, "18 4", "0", "都无变化", "都没有", "推介0 考察0 下月继续"
    )


def test_k3_one_alone_on_post_is_remarked_and_does_not_block(world: World) -> None:
    review = world.says(
        LEADER, template(驻点天数="20 0 0", 请假事由="李某 家里有事；王某 住院治疗")
    )
    assert "提醒：在岗不足2人。" in review
    assert world.says(LEADER, "提交").startswith("已提交 v1")


def test_k4_days_and_leave_fit_into_the_month(world: World) -> None:
    world.talk(LEADER, "月报", "22 21 19")
    assert world.says(LEADER, "返县汇报13天") == (
        "驻点天数加请假13天超过了当月天数，最多还能请假12天，请更正。"
    )
    assert VISITS in world.says(LEADER, "返县汇报12天")


# - K5 to K9: counts and funds -


def test_k5_key_visits_do_not_exceed_visits_however_they_are_told(world: World) -> None:
    reaches(world, VISITS)
    wrong = "重点企业（20）不能多于走访总数（18），请更正，如「18 重点4」。"
    assert world.says(LEADER, "18家 20家重点") == wrong
    assert world.says(LEADER, "18").startswith("其中重点企业")
    assert world.says(LEADER, "20") == wrong
    assert "商协会" in world.says(LEADER, "4")


def test_k5_batches_do_not_exceed_people(world: World) -> None:
    reaches(world, OTHERS)
    assert world.says(LEADER, "推介1 考察7批6人 问题无 下月继续") == (
        "批数（7）不能多于人次（6），请更正，如「1批6人」。"
    )


def test_k5_holds_for_corrections_on_the_review(world: World) -> None:
    world.says(LEADER, template())
    answer = world.says(LEADER, "修改 走访 3")
    assert answer.startswith("重点企业（4）不能多于走访总数（3），请更正")
    assert "2. 走访：18家\n3. 重点企业：4家" in answer


def test_k6_three_numbers_that_do_not_add_up_tell_the_difference(world: World) -> None:
    reaches(world, FUNDS)
    assert world.says(LEADER, "P01 1500 固投1400 其他200") == (
        "三个数对不上：固投1400+其他200=1600，而您说合计1500，差100（万元）。"
        "请重报，如「固投1400 其他100」。"
    )


@pytest.mark.parametrize(
    ("said", "echoed"),
    [
        ("1400 100", "P01 本月到位1500万元（0.15亿元），其中固投1400、其他100。"),
        ("固投1400，其他100", "P01 本月到位1500万元（0.15亿元），其中固投1400、其他100。"),
        ("合计1500 固投1400", "P01 本月到位1500万元（0.15亿元），其中固投1400、其他100。"),
        ("1,400 100", "P01 本月到位1500万元（0.15亿元），其中固投1400、其他100。"),
        ("固投1千4百万 其他一百万", "P01 本月到位1500万元（0.15亿元），其中固投1400、其他100。"),
        ("固投0.1亿", "P01 本月到位1000万元（0.1亿元），其中固投1000、其他0。"),
        ("没有", "P01 本月无到位资金。"),
    ],
)
def test_funds_are_read_as_people_write_them(world: World, said: str, echoed: str) -> None:
    reaches(world, FUNDS)
    assert world.says(LEADER, said).splitlines()[0] == echoed


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ("1500", "请把到位资金分成固投和其他两项，如「固投1400 其他100」，没有的写0。"),
        (
            "固投5千 其他0",
            "「5千」是5000元，还是5000万元？请写明单位，如「5000元」或「5000万」。",
        ),
        (
            "固投-5 其他0",
            "金额不能是负数，请重新发，如「8000」（即8000万元）「1.2亿」或「3500万」。",
        ),
        ("钱都到了", "没看懂，请用数字报，如「P01 固投1400 其他100」；没有回「0」。"),
    ],
)
def test_unclear_funds_are_asked_about(world: World, said: str, answered: str) -> None:
    reaches(world, FUNDS)
    assert world.says(LEADER, said) == answered


def test_k7_over_the_plan_is_remarked_and_far_over_it_explained(world: World) -> None:
    remark = "提醒：P01累计到位已超过计划，请核对单位和计划总投资。"
    assert remark not in world.says(LEADER, template(到位资金="P01 3000 2000"))
    assert remark in world.says(LEADER, "修改 P01 3000 2500")
    answer = world.says(LEADER, "修改 P01 3000 3001")
    assert answer.endswith("P01 累计到位超过计划的1.2倍，请写一句说明。")
    assert "（设备提前到货）" in world.says(LEADER, "设备提前到货")


def test_k7_counts_the_funds_of_earlier_months(world: World) -> None:
    world.clock.set(world.clock.now().replace(month=2, day=27))
    file(world, month="2月", 到位资金="P01 3000 1000")
    world.at("2026-03-31 10:00")
    assert "P01累计到位已超过计划" in world.says(LEADER, template(到位资金="P01 500 600"))


def test_k8_fixed_assets_have_their_own_plan(world: World) -> None:
    assert "P01累计到位已超过计划" in world.says(LEADER, template(到位资金="P01 4100 0"))


def test_k9_funds_need_a_signed_project(world: World) -> None:
    reaches(world, FUNDS)
    answer = world.says(LEADER, "P02 100 0")
    assert answer.startswith("P02 项目乙目前“在谈”，签约以后才能报到位资金。")


def test_k9_a_signing_in_the_same_report_opens_the_funds(world: World) -> None:
    review = world.says(
        LEADER,
        template(
            项目进展="P01 无变化；P02 签约 3月9日 8000 固投6000 正式",
            到位资金="P01 0；P02 500 100",
        ),
    )
    assert "P02 本月到位600万元（0.06亿元），其中固投500、其他100" in review


# - K10 and K13: units and currencies -


@pytest.mark.parametrize(
    ("said", "shown"), [("100亿 0", "1000000万元（100亿元）"), ("固投5000元", "0.5万元（5000元）")]
)
def test_k10_amounts_with_a_doubtful_unit_are_asked_again(
    world: World, said: str, shown: str
) -> None:
    reaches(world, FUNDS)
    assert world.says(LEADER, said).endswith(
        f"P01 到位{shown}，单位没有弄错吧？没错回「对」，错了请重报。"
    )
    assert OTHERS in world.says(LEADER, "1000 0")


def test_k10_a_confirmed_amount_stays(world: World) -> None:
    reaches(world, FUNDS)
    world.talk(LEADER, "固投0 其他5000元", "对")
    assert "其中固投0、其他0.5" in world.says(LEADER, "推介0 考察0 下月继续")


@pytest.mark.parametrize("said", ["固投500万美元 其他0", "500万欧元 0", "P01 固投HKD500 其他0"])
def test_k13_foreign_money_must_be_told_in_yuan(world: World, said: str) -> None:
    reaches(world, FUNDS)
    assert world.says(LEADER, said) == (
        "外币请按当时汇率折算成人民币再报，单位万元，如「3500万」；这里不代为换汇。"
    )


def test_k13_holds_for_leads(world: World) -> None:
    reaches(world, LEADS)
    answer = world.says(LEADER, "甲线索；甲公司；做饼；500万美元")
    assert answer == (
        "线索1：甲线索（做饼），甲公司，金额未定。\n"
        "线索「甲线索」的投资额：外币请按当时汇率折算成人民币再报，单位万元，如「3500万」；"
        "这里不代为换汇。"
    )
    assert world.says(LEADER, "3500万") == "还有吗？「没有」继续。"


# - stages -


def test_stages_do_not_go_back(world: World) -> None:
    reaches(world, PROGRESS)
    answer = world.says(LEADER, "P01 在谈")
    assert answer.startswith(
        "这个项目目前已是“签约”，月报里不能往回改。可报：「无变化」、「已开工」、「已投产」。"
    )


def test_a_leap_needs_the_days_between(world: World) -> None:
    reaches(world, PROGRESS)
    world.says(LEADER, "1")
    answer = world.says(LEADER, "开工 3月20日")
    assert answer.endswith("P02 签约的计划总投资多少？其中固定资产多少？如「1.2亿 固投9500」。")
    assert "协议" in world.says(LEADER, "8000 固投6000")
    assert world.says(LEADER, "1").endswith("P02 签约日期？如「3月18日」「昨天」。")
    assert FUNDS in world.says(LEADER, "3月2日")


def test_a_letter_of_intent_is_no_signing(world: World) -> None:
    file(world, 项目进展="P01 无变化；P02 签约 8000 固投6000 意向")
    assert all_of(world, StageChange) == []
    assert "P02 项目乙：签了意向（框架）协议，不计签约" in all_of(world, Report)[0].text


def test_days_of_stages_come_in_order_and_not_from_the_future(world: World) -> None:
    reaches(world, PROGRESS)
    assert (
        world.says(LEADER, "2 1月5日") == "开工日期2026-01-05早于签约日期2026-02-10，请核对后重发。"
    )
    world.at("2026-04-02 10:00")
    assert world.says(LEADER, "2 4月1日") == "这份月报只报到3月31日，2026-04-01请放到下期报。"


def test_fixed_assets_do_not_exceed_the_planned_total(world: World) -> None:
    reaches(world, PROGRESS)
    world.says(LEADER, "1")
    assert world.says(LEADER, "签约 9000 固投9500") == (
        "其中固定资产（9500万元）不能多于计划总投资（9000万元），请核对后重报。"
    )


def test_a_signing_below_one_yi_of_fixed_assets_needs_no_sponsor(world: World) -> None:
    signing = "P01 无变化；P02 签约 3月9日 1.2亿 固投9500 正式"
    review = world.says(LEADER, template(项目进展=signing, 到位资金="P01 0；P02 0"))
    assert "计划总投资12000万元（1.2亿元），其中固定资产9500万元（0.95亿元）" in review
    assert "包联" not in review
    assert [needs_sponsor(95_000_000), needs_sponsor(100_000_000)] == [False, True]


# - what is stored -


def test_a_report_is_stored_with_all_its_figures(world: World) -> None:
    file(
        world,
        驻点天数="22 21 19.5",
        请假事由="王某 返县汇报2天",
        商协会与知名人士="商会2 知名人士3",
        新增线索="甲线索；甲公司；做饼；8000\n乙线索；乙公司；做面；1.2亿",
        项目进展="P01 开工 3月18日；P02 签约 3月9日 8000 固投6000 正式",
        到位资金="P01 1400 100；P02 0",
    )
    report = all_of(world, Report)[0]
    figures = (report.visits, report.visits_key, report.chambers, report.notables, report.promos)
    assert figures == (18, 4, 2, 3, 1)
    assert (report.inbound_batches, report.inbound_people) == (1, 6)
    assert report.as_of == date(2026, 3, 31)
    days = [(each.half_days, each.leave_half_days) for each in all_of(world, ReportDays)]
    assert days == [(44, 0), (42, 0), (39, 4)]
    leads = [(each.number, each.name, each.planned_yuan) for each in all_of(world, Lead)]
    assert leads == [
        ("XS-2026-0001", "甲线索", 80_000_000),
        ("XS-2026-0002", "乙线索", 120_000_000),
    ]
    funds = [(each.fixed_yuan, each.other_yuan) for each in all_of(world, ReportedFunds)]
    assert funds == [(14_000_000, 1_000_000), (0, 0)]


def test_stages_are_proposed_and_count_for_nothing_before_a_coordinators_word(
    world: World,
) -> None:
    file(world, 项目进展="P01 开工 3月18日；P02 无变化")
    change = all_of(world, StageChange)[0]
    assert (change.from_stage, change.to_stage, change.state) == (
        Stage.SIGNED,
        Stage.STARTED,
        ChangeState.PROPOSED,
    )
    assert [each.stage for each in all_of(world, Project)] == [Stage.SIGNED, Stage.IN_TALKS]


def test_a_new_project_joins_the_ledger_in_talks(world: World) -> None:
    file(world, 新增在谈="项目戊；某能源公司；3月5日")
    project = all_of(world, Project)[-1]
    assert (project.code, project.stage, project.talks_on) == (
        "P03",
        Stage.IN_TALKS,
        date(2026, 3, 5),
    )


def test_both_receivers_get_the_same_number_and_content(world: World) -> None:
    file(world)
    world.drain()
    office, unit = world.news(OFFICE), world.news(LIAISON)
    assert len(office) == 1
    assert office == unit
    report = all_of(world, Report)[0]
    assert report.content_hash == content_hash(report.text)
    assert f"内容校验码 {report.content_hash[:8]}" in office[0]
    sides = [each.side for each in all_of(world, ReportReceipt)]
    assert sorted(sides) == ["office", "unit"]


def test_a_missing_liaison_is_said_and_holds_nothing_up(world: World) -> None:
    edit(world, lambda session: session.add(Unit(name="别的单位")))
    edit(world, lambda session: session.add(_moved(session)))
    answer = file(world)
    assert answer.endswith(
        "已同时送：办公室（回执可回「我的进度」查看）。派出单位还没有登记账号，暂未送达。"
    )


def _moved(session: Session) -> FieldTeam:
    team = session.exec(select(FieldTeam)).one()
    team.unit_id = session.exec(select(Unit.id).where(Unit.name == "别的单位")).one() or 0
    return team


# - corrections -


def test_a_correction_keeps_the_first_version_and_doubles_nothing(world: World) -> None:
    file(
        world,
        新增线索="甲线索；甲公司；做饼；8000",
        新增在谈="项目戊；某能源公司；3月5日",
        项目进展="P01 开工 3月18日；P02 无变化",
        到位资金="P01 1400 100",
    )
    world.talk(LEADER, "更正 月报 3月 P01其他应该是50", "回单看错了")
    reports = all_of(world, Report)
    assert [(each.version, each.state) for each in reports] == [(1, "replaced"), (2, "filed")]
    assert reports[1].reason == "回单看错了"
    funds = [(each.report_id, each.other_yuan) for each in all_of(world, ReportedFunds)]
    assert funds == [(reports[0].id, 1_000_000), (reports[1].id, 500_000)]
    assert [each.number for each in all_of(world, Lead)] == ["XS-2026-0001"]
    assert [each.report_id for each in all_of(world, StageChange)] == [reports[1].id]
    assert [each.code for each in all_of(world, Project)] == ["P01", "P02", "P03"]


def test_what_was_confirmed_stays_through_a_correction(world: World) -> None:
    file(world, 项目进展="P01 开工 3月18日；P02 无变化")
    world.says(OFFICE, "项目确认 全部")
    world.talk(LEADER, "更正 月报 走访应该是19", "数错了")
    changes = [(each.state, each.to_stage) for each in all_of(world, StageChange)]
    assert changes == [(ChangeState.CONFIRMED, Stage.STARTED)]


def test_the_checks_hold_for_a_correction(world: World) -> None:
    file(world)
    answer = world.says(LEADER, "更正 月报 3月 走访应该是3")
    assert answer.startswith("重点企业（4）不能多于走访总数（3），请更正")
    assert [each.version for each in all_of(world, Report)] == [1]


def test_a_correction_of_progress_names_the_project(world: World) -> None:
    file(world, 新增在谈="项目戊；某能源公司；3月5日")
    answer = world.says(LEADER, "更正 月报 P02 签约 3月9日 8000 固投6000 正式")
    assert answer.endswith("P02 项目乙 呢？没有回「0」。")
    assert "P02 项目乙“无变化”→“在谈→签约，2026-03-09，" in world.talk(LEADER, "0", "提交")
    world.says(LEADER, "晚收到协议")
    changes = [(each.to_stage, each.planned_yuan) for each in all_of(world, StageChange)]
    assert changes == [(Stage.SIGNED, 80_000_000)]


def test_a_project_reported_by_mistake_is_taken_back(world: World) -> None:
    file(world, 新增在谈="项目戊；某能源公司；3月5日")
    world.talk(LEADER, "更正 月报", "改 6")
    assert "P03 项目戊“新增在谈，2026-03-05”→“无”" in world.says(LEADER, "提交")
    world.says(LEADER, "报重了")
    assert [each.code for each in all_of(world, Project)] == ["P01", "P02"]


def test_a_correction_that_changes_nothing_is_no_new_version(world: World) -> None:
    file(world)
    assert world.talk(LEADER, "更正 月报 3月", "提交") == "和已交的内容一样，没有需要更正的。"


def test_a_correction_after_a_late_report_is_not_late_once_more(world: World) -> None:
    world.at("2026-04-02 09:12")
    assert "迟报（迟2天）" in file(world)
    world.at("2026-04-04 09:00")
    assert world.talk(LEADER, "更正 月报 走访应该是19", "数错了").endswith("（不计迟报）。")
    assert "迟报（迟2天）" in world.says(LEADER, "我的进度")


# - months -


@pytest.mark.parametrize(
    ("moment", "said", "answered"),
    [
        (
            "2026-03-24 10:00",
            "月报",
            "现在没有要填的月报，3月月报3月25日开放。以前没交的请回「补报 2月」。",
        ),
        ("2026-03-24 10:00", "月报 3月", "3月月报3月25日开放填报，到时会提醒您。"),
        ("2026-03-31 10:00", "补报 3月", "3月月报还没有冻结，直接回「月报 3月」即可。"),
        ("2026-03-31 10:00", "月报 十三月", "没认出月份「十三月」，请写成「3月」或「2026-03」。"),
    ],
)
def test_only_an_open_month_can_be_filed(
    world: World, moment: str, said: str, answered: str
) -> None:
    world.at(moment)
    assert world.says(LEADER, said) == answered


def test_the_last_month_can_be_filed_until_its_freeze(world: World) -> None:
    world.at("2026-04-05 18:00")
    assert world.says(LEADER, "月报").startswith("3月月报（已过截止日，冻结前照收）")
    world.at("2026-04-05 18:01")
    assert world.says(LEADER, "月报").startswith("现在没有要填的月报")


def test_a_draft_ends_at_the_freeze(world: World) -> None:
    world.talk(LEADER, template())
    world.at("2026-04-05 18:01")
    assert all_of(world, Report) == []
    assert "已提交" not in world.says(LEADER, "提交")


def test_a_draft_survives_a_night_and_a_restart(world: World) -> None:
    world.talk(LEADER, "月报", "22 21 20", "18 4")
    world.restart()
    world.at("2026-04-01 08:00")
    assert world.says(LEADER, "月报").startswith("接着填3月月报。\n【3/6 新增线索】")


def test_the_first_answer_may_come_with_the_word(world: World) -> None:
    assert VISITS in world.says(LEADER, "月报 22 21 20")


def test_saying_it_in_a_sentence_is_understood(world: World) -> None:
    assert world.says(LEADER, "交月报") == "您是要「月报」吗？回「是」。"


def test_a_report_is_filed_once(world: World) -> None:
    file(world)
    assert world.says(LEADER, "月报").startswith("3月月报已提交（YB-2026-03-T1-v1）。")


# - who sees what -


def test_other_teams_and_units_do_not_see_a_report(world: World) -> None:
    file(world)
    _another_team(world)
    for stranger in ("外队", "外单位"):
        assert world.says(stranger, "月报 查看 YB-2026-03-T1").startswith("没有找到")
        assert world.says(stranger, "月报 查看") == "目前没有已提交的月报。"
    for reader in (LEADER, MEMBER, OFFICE, LIAISON):
        assert "八、下月打算：跟进项目乙" in world.says(reader, "月报 查看 YB-2026-03-T1")


def _another_team(world: World) -> None:
    with world.database.session() as session:
        unit = Unit(name="派出单位乙")
        session.add(unit)
        session.flush()
        team = FieldTeam(code="T2", name="珠三角小分队", unit_id=unit.id or 0, center="深圳市")
        session.add(team)
        session.flush()
        team_id, unit_id = team.id, unit.id
    world.grant("外队", "team_leader", team_id=team_id)
    world.grant("外单位", "unit_liaison", unit_id=unit_id)


def test_a_member_of_the_public_is_told_whose_word_it_is(world: World) -> None:
    assert world.says("乡亲", "月报").startswith("「月报」由队员、带队人使用")


def test_only_a_receiver_marks_a_report_as_read(world: World) -> None:
    file(world)
    world.grant("新来的", "coordinator")
    assert world.says("新来的", "已阅 YB-2026-03-T1-v1") == "YB-2026-03-T1-v1 没有送给您。"
    assert world.says(LIAISON, "已阅") == "已记下：YB-2026-03-T1-v1 已阅。"
    read = [each.read_at is not None for each in all_of(world, ReportReceipt)]
    assert sorted(read) == [False, True]


def test_the_dispatching_units_word_on_days_stands_on_the_report(world: World) -> None:
    file(world)
    world.says(LIAISON, "异议 YB-2026-03-T1 李某3月在单位5天")
    assert "派出单位对天数有异议：李某3月在单位5天" in world.says(LEADER, "月报 查看")
    world.says(LIAISON, "确认天数 YB-2026-03-T1")
    assert "派出单位已确认天数" in world.says(LEADER, "月报 查看")


def test_the_answers_are_sealed_at_rest(world: World) -> None:
    file(world, 新增线索="甲线索；某食品公司；做饼；8000")
    with world.database.engine.connect() as connection:
        raw = connection.exec_driver_sql("SELECT answers, text FROM report").one()
    assert all("某食品公司".encode() not in bytes(each) for each in raw)


def test_lead_contacts_hold_no_telephone(world: World) -> None:
    reaches(world, LEADS)
    assert world.says(LEADER, "甲线索；甲公司；做饼；8000；要地；展会；王总13800001234；回访") == (
        "联系人请只写职务和姓氏（如「王总」），不写电话，请重发这一条。"
    )
    world.talk(LEADER, "甲线索；甲公司；做饼；8000；要地；展会；王总；回访", "没有")
    world.talk(LEADER, "都无变化", "都没有", "推介0 考察0 下月继续", "提交")
    lead = all_of(world, Lead)[0]
    assert (lead.needs, lead.source, lead.contact, lead.next_step) == (
        "要地",
        "展会",
        "王总",
        "回访",
    )


def test_several_leads_come_in_one_message(world: World) -> None:
    reaches(world, LEADS)
    answer = world.says(LEADER, "甲线索；甲公司；做饼；8000\n乙线索；乙公司；做面；0")
    assert answer.splitlines()[:2] == [
        "线索1：甲线索（做饼），甲公司，8000万元（0.8亿元）。",
        "线索2：乙线索（做面），乙公司，金额未定。",
    ]


def test_a_whole_list_can_be_told_anew_on_the_review(world: World) -> None:
    world.says(LEADER, template(新增线索="甲线索；甲公司；做饼；8000\n乙线索；乙公司；做面；1.2亿"))
    assert world.says(LEADER, "修改 新增线索").startswith("好的，重新填这一项。\n【3/6 新增线索】")
    world.says(LEADER, "丙线索；丙公司；做糕；3百万")
    assert "1条（线索1：丙线索（做糕），丙公司，300万元（0.03亿元））" in world.says(LEADER, "没有")
    assert world.says(LEADER, "改 7").startswith("好的，重新填这一项。\n【5/6 到位资金】")


def test_a_leader_with_a_draft_is_told_of_the_members(world: World) -> None:
    world.talk(LEADER, "月报", "22 21 20")
    file(world, MEMBER)
    assert world.says(LEADER, "月报").startswith(
        "接着填3月月报。（队员也填好了一份；想用那一份，先回「取消」，再回「月报」。）"
    )
    assert world.talk(LEADER, "取消", "月报").startswith("队员已填好，请核对。")


@given(
    fixed=st.integers(0, 10**13).map(lambda cents: cents * 100),
    other=st.integers(0, 10**13).map(lambda cents: cents * 100),
)
def test_funds_read_back_what_they_show(fixed: int, other: int) -> None:
    shown = f"固投{plain_wan(fixed)} 其他{plain_wan(other)}"
    assert funds(shown) == {"fixed": fixed, "other": other}
    assert funds(f"合计{plain_wan(fixed + other)} {shown}") == {"fixed": fixed, "other": other}


@given(total=st.integers(0, 10**9), fixed=st.integers(0, 10**9), other=st.integers(0, 10**9))
def test_three_numbers_pass_only_when_they_add_up(total: int, fixed: int, other: int) -> None:
    found = funds(f"合计{total} 固投{fixed} 其他{other}")
    assert isinstance(found, Miss) == (total != fixed + other)


@given(st.text())
def test_whatever_is_said_of_funds_is_an_amount_a_question_or_nothing(text: str) -> None:
    found = funds(text)
    assert found is None or isinstance(found, Miss) or found.keys() == {"fixed", "other"}


@given(st.text(alphabet="走访重点商协会知名人士鸿雁 0123456789家，、十八"))
def test_key_visits_never_exceed_visits(text: str) -> None:
    found = visits(text, {})
    if isinstance(found, dict) and {"visits", "visits_key"} <= found.keys():
        assert found["visits_key"] <= found["visits"]


@given(half_days=st.integers(0, 62), away=st.integers(0, 62))
def test_days_and_leave_never_exceed_the_month(half_days: int, away: int) -> None:
    found = leave(f"返县汇报{show_days(away)}", 62 - half_days)
    assert isinstance(found, Miss) == (half_days + away > 62)


def test_the_newest_version_is_what_others_see(world: World) -> None:
    file(world)
    world.talk(LEADER, "更正 月报 走访应该是19", "数错了")
    assert "走访企业19家次" in world.says(OFFICE, "月报 查看 YB-2026-03-T1")
    assert "走访企业18家次" in world.says(OFFICE, "月报 查看 YB-2026-03-T1-v1")
    numbers = select(Report.number).order_by(col(Report.version))
    with world.database.session() as session:
        assert session.exec(numbers).all() == ["YB-2026-03-T1-v1", "YB-2026-03-T1-v2"]


# - whoever has left the team -


def moved(world: World, who: str, role: str) -> None:
    """Take somebody's role in the team away and give them the same in another."""
    person, now = world.person(who), world.clock.now()
    with world.database.session() as session:
        revoke(session, person, role, now)
        other = FieldTeam(code="T9", name="珠三角小分队", unit_id=1, center="广州市")
        session.add(other)
        session.flush()
        team = other.id
    world.grant(who, role, team_id=team)


def test_a_member_who_moved_to_another_team_lays_no_report_before_the_old_one(
    world: World,
) -> None:
    assert REVIEW in world.says(MEMBER, template())
    moved(world, MEMBER, "team_member")
    assert "您已不在长三角小分队" in world.says(MEMBER, "提交")
    assert world.news(LEADER) == []


def test_a_leader_who_moved_to_another_team_corrects_no_report_of_the_old_one(
    world: World,
) -> None:
    file(world)
    assert "更正原因" in world.says(LEADER, "更正 月报 3月 走访应该是20")
    moved(world, LEADER, "team_leader")
    assert "由现任带队人更正" in world.says(LEADER, "数错了")
    assert [report.version for report in all_of(world, Report)] == [1]
