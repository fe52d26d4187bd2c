"""Workbooks come in whole or not at all, and go out again by their batch."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from openpyxl import Workbook, load_workbook
from sqlmodel import Session, select

from bot.errors import UserError
from handlers.imports import (
    HOLIDAYS,
    MINIMUM_DAYS,
    SHEETS,
    TARGETS,
    TEAMS,
    import_example,
    templates,
    undo,
)
from storage.organisation import (
    DayOverride,
    FieldTeam,
    MinimumDays,
    TeamMember,
    TeamTarget,
    Unit,
    roster,
)
from storage.reports import Project
from tests.filing import Filed, file_report
from tests.world import World

TEAM_HEADERS = ["编号", "小分队", "派出单位", "中心城市", "周边城市", "带队人", "队员", "分组"]
TEAM_ROW = ["T1", "长三角驻点小分队", "派出单位甲", "上海市", "苏州市", "A1", "A1、A2", "县直"]


@pytest.fixture
def county(make_world: Callable[..., World]) -> World:
    return make_world(place="gongan", start="2026-01-05 10:00")


@pytest.fixture
def workbook(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: Sequence[object]) -> Path:
        book = Workbook(write_only=True)
        page = book.create_sheet("数据")
        for row in rows:
            page.append(row)
        path = tmp_path / "导入.xlsx"
        book.save(path)
        return path

    return write


def bring(world: World, path: Path, batch: str = "B1") -> list[str]:
    """Import a workbook of teams."""
    with world.database.session() as session:
        return TEAMS.run(session, path, world.clock.now(), batch)


def count(world: World, *tables: type) -> list[int]:
    with world.database.reading() as session:
        return [len(session.exec(select(table)).all()) for table in tables]


def test_a_team_comes_with_its_unit_roster_and_leader(
    county: World, workbook: Callable[..., Path]
) -> None:
    report = bring(county, workbook(TEAM_HEADERS, TEAM_ROW))
    assert report == ["第2行 T1 长三角驻点小分队：新增，2人", "小分队：1行，批次B1。"]
    with county.database.reading() as session:
        team = session.exec(select(FieldTeam)).one()
        members = [(each.name, each.leads) for each in roster(session, team.id or 0)]
    assert members == [("A1", True), ("A2", False)]


def test_one_wrong_row_keeps_all_rows_out_and_is_named(
    county: World, workbook: Callable[..., Path]
) -> None:
    wrong = ["T2", "珠三角驻点小分队", "派出单位乙", "", "", "B1", "B1", "省直"]
    with pytest.raises(UserError) as refused:
        bring(county, workbook(TEAM_HEADERS, TEAM_ROW, wrong))
    assert str(refused.value) == "没有导入，请改好再来：\n第3行：「中心城市」没有填"
    assert count(county, Unit, FieldTeam, TeamMember) == [0, 0, 0]


def test_importing_twice_changes_nothing(county: World, workbook: Callable[..., Path]) -> None:
    path = workbook(TEAM_HEADERS, TEAM_ROW)
    bring(county, path)
    again = bring(county, path, "B2")
    assert again[0] == "第2行 T1 长三角驻点小分队：已有，未改"
    assert count(county, Unit, FieldTeam, TeamMember) == [1, 1, 2]


def test_a_missing_column_is_named(county: World, workbook: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="缺这几列：派出单位、中心城市、带队人、队员。"):
        bring(county, workbook(TEAM_HEADERS[:2], TEAM_ROW[:2]))


def test_what_is_no_workbook_is_refused(county: World, tmp_path: Path) -> None:
    path = tmp_path / "清单.xlsx"
    path.write_text("编号,小分队", encoding="utf-8")
    with pytest.raises(UserError, match="打不开"):
        bring(county, path)


def test_an_import_goes_out_by_its_batch(county: World, workbook: Callable[..., Path]) -> None:
    bring(county, workbook(TEAM_HEADERS, TEAM_ROW))
    with county.database.session() as session:
        assert undo(session, county.clock.now(), "B1") == ["撤回小分队1行", "撤回单位1行"]
    assert count(county, Unit, FieldTeam, TeamMember) == [0, 0, 0]


def test_an_import_somebody_built_on_stays(county: World, workbook: Callable[..., Path]) -> None:
    bring(county, workbook(TEAM_HEADERS, TEAM_ROW))
    file_report(county, "带队", Filed("T1", "2026-01", [20, 20]))
    with (
        pytest.raises(UserError, match="已经被月报或授权用上，不能撤回"),
        county.database.session() as session,
    ):
        undo(session, county.clock.now(), "B1")
    assert count(county, FieldTeam, TeamMember) == [1, 2]


def test_an_unknown_batch_is_refused(county: World) -> None:
    with (
        pytest.raises(UserError, match="没有批次 B9 的数据。"),
        county.database.session() as session,
    ):
        undo(session, county.clock.now(), "B9")


def test_a_target_that_stands_is_changed_by_two_people_only(
    county: World, workbook: Callable[..., Path]
) -> None:
    bring(county, workbook(TEAM_HEADERS, TEAM_ROW))
    headers = ["小分队编号", "年度", "年度目标（万元）"]
    with county.database.session() as session:
        TARGETS.run(session, workbook(headers, ["T1", 2026, 10000]), county.clock.now(), "B2")
    with (
        pytest.raises(UserError, match="第2行：T1 2026年目标已经下达，改目标请在对话里用「目标」"),
        county.database.session() as session,
    ):
        TARGETS.run(session, workbook(headers, ["T1", 2026, 9000]), county.clock.now(), "B3")
    with county.database.reading() as session:
        assert session.exec(select(TeamTarget.target_yuan)).all() == [100_000_000]


def test_minimum_days_and_holidays_read_cells_of_every_kind(
    county: World, workbook: Callable[..., Path]
) -> None:
    now = county.clock.now()
    with county.database.session() as session:
        days = workbook(["月份", "最低天数"], ["2026年2月", 15], ["2026-03", "19.5"])
        MINIMUM_DAYS.run(session, days, now, "B1")
        rest = workbook(["日期", "上班或休息"], ["2026-02-14", "上班"], ["2026年5月4日", "休息"])
        HOLIDAYS.run(session, rest, now, "B2")
    with county.database.reading() as session:
        least = {each.month: each.half_days for each in session.exec(select(MinimumDays))}
        worked = {each.day: each.working for each in session.exec(select(DayOverride))}
    assert least == {"2026-02": 30, "2026-03": 39}
    assert worked == {"2026-02-14": True, "2026-05-04": False}


def test_the_example_brings_teams_and_carried_over_projects_but_no_reports(
    county: World,
) -> None:
    example = Path(__file__).parents[1] / "data" / "fixture_q1_2026.json"
    with county.database.session() as session:
        import_example(session, example, county.clock.now(), "B1")
    with county.database.reading() as session:
        projects = session.exec(select(Project.code, Project.stage)).all()
    assert projects == [("P07", "signed"), ("P08", "started")]
    assert count(county, FieldTeam, TeamMember, TeamTarget) == [3, 7, 3]


def test_every_template_can_be_imported_as_it_is(county: World, tmp_path: Path) -> None:
    name, content = templates(Session(), county.clock.now())
    path = tmp_path / name
    path.write_bytes(content)
    with county.database.session() as session:
        for sheet in SHEETS:
            sheet.run(session, path, county.clock.now(), "B1")
    assert count(county, Unit, FieldTeam, Project, DayOverride) == [1, 1, 1, 1]
    assert load_workbook(io.BytesIO(content)).sheetnames == [each.title for each in SHEETS]
