"""Imports from workbooks: units, teams, targets, minimum days, holidays, projects, passed leads.

A workbook has one header row in Chinese. Every row is checked before anything is written; one that
is wrong stops them all. Imports only add: what is there already is left alone and reported.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from openpyxl import Workbook, load_workbook
from openpyxl.utils.exceptions import InvalidFileException
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from bot.clock import BEIJING
from bot.commands import Exporter, Importer
from bot.errors import UserError
from bot.normalize import Miss, parse_date, read_integer, read_number, tidy
from handlers.forms.fields import parse_money
from handlers.ledger import GROUPS
from handlers.periods import Month
from storage.organisation import (
    DayOverride,
    FieldTeam,
    MinimumDays,
    TeamMember,
    TeamTarget,
    Unit,
)
from storage.reports import STAGE_WORDS, LeadsPassed, Project, Stage

MOST_ROWS = 5000
MOST_ERRORS = 20
BATCHED: Mapping[Any, str] = {
    LeadsPassed: "评审通过线索",
    Project: "项目",
    DayOverride: "假日",
    MinimumDays: "最低天数",
    TeamTarget: "年度目标",
    FieldTeam: "小分队",
    Unit: "单位",
}
"""Tables whose rows name the import that brought them, in the order in which they can go."""

Row = Mapping[str, Any]


class RowError(Exception):
    """What is wrong with one row, in words."""


@dataclass(frozen=True)
class Column:
    """A column of a workbook: its header, how a cell is read, and an example for the template."""

    header: str
    parse: Callable[[Any], Any]
    example: str = ""
    optional: bool = False


@dataclass
class Batch:
    """One import on its way into the tables."""

    session: Session
    now: datetime
    name: str
    new: set[tuple[object, ...]] = field(default_factory=set)

    def add(self, row: SQLModel) -> None:
        self.session.add(row)
        self.session.flush()

    def once(self, *key: object) -> None:
        """Refuse the same line twice in one workbook."""
        if key in self.new:
            raise RowError("与前面的行重复")
        self.new.add(key)


@dataclass(frozen=True)
class Sheet:
    """A kind of workbook: its columns, and what one row of it does.

    `write` returns what was done with the row; it raises RowError for what is wrong with it.
    """

    kind: str
    title: str
    columns: tuple[Column, ...]
    write: Callable[[Batch, Row], str]

    def run(self, session: Session, path: Any, now: datetime, batch: str) -> list[str]:
        """Import a workbook; raises UserError naming the rows that are wrong."""
        done, wrong = [], []
        target = Batch(session, now, batch)
        for number, cells in self._rows(Path(path)):
            try:
                done.append(f"第{number}行 {self.write(target, self.read(cells))}")
            except RowError as error:
                wrong.append(f"第{number}行：{error}")
        if wrong:
            more = f"\n……共{len(wrong)}行有误" if len(wrong) > MOST_ERRORS else ""
            raise UserError("没有导入，请改好再来：\n" + "\n".join(wrong[:MOST_ERRORS]) + more)
        return [*done, f"{self.title}：{len(done)}行，批次{batch}。"]

    def _rows(self, path: Path) -> list[tuple[int, dict[str, Any]]]:
        """Row number and cells by header, of every row that is not empty."""
        try:
            book = load_workbook(path, read_only=True, data_only=True)
        except (OSError, BadZipFile, InvalidFileException, KeyError, ValueError) as error:
            raise UserError(f"打不开 {path.name}，请给 .xlsx 工作簿。") from error
        try:
            page = book[self.title] if self.title in book.sheetnames else book.worksheets[0]
            lines = list(page.iter_rows(values_only=True, max_row=MOST_ROWS + 2))
        finally:
            book.close()
        if len(lines) > MOST_ROWS + 1:
            raise UserError(f"一次最多导入{MOST_ROWS}行，请分几份。")
        headers = [tidy(str(each or "")) for each in (lines[0] if lines else ())]
        missing = [c.header for c in self.columns if not c.optional and c.header not in headers]
        if missing:
            raise UserError(f"{path.name} 缺这几列：{'、'.join(missing)}。表头请写在第一行。")
        rows = [
            (number, dict(zip(headers, line, strict=False)))
            for number, line in enumerate(lines[1:], start=2)
            if any(cell not in (None, "") for cell in line)
        ]
        if not rows:
            raise UserError(f"{path.name} 里没有数据。")
        return rows

    def read(self, cells: Mapping[str, Any]) -> Row:
        """The values of a row by header, None for empty ones; raises RowError."""
        found: dict[str, Any] = {}
        for column in self.columns:
            cell = cells.get(column.header)
            if cell is None or (isinstance(cell, str) and not cell.strip()):
                if not column.optional:
                    raise RowError(f"「{column.header}」没有填")
                found[column.header] = None
                continue
            try:
                found[column.header] = column.parse(cell)
            except ValueError as error:
                raise RowError(f"「{column.header}」{error}") from error
        return found


# - cells -


def words(cell: Any) -> str:
    """A cell as tidy text; whole numbers without their decimal point."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return tidy(str(cell))


def money(cell: Any) -> int:
    """万元 in a cell, as 元; raises ValueError."""
    yuan = parse_money(words(cell))
    if isinstance(yuan, Miss):
        raise ValueError(yuan.text)
    return yuan


def day(cell: Any) -> date:
    """A date cell, or a date written out; raises ValueError."""
    if isinstance(cell, datetime):
        return cell.date()
    if isinstance(cell, date):
        return cell
    found = parse_date(words(cell), date(2000, 1, 1))
    if isinstance(found, Miss):
        raise ValueError("请写成 2026-02-14 这样的日期")
    return found


def month(cell: Any) -> str:
    """A month cell as `2026-03`; raises ValueError."""
    if isinstance(cell, datetime | date):
        return f"{cell:%Y-%m}"
    text = words(cell).replace("年", "-").replace("月", "").replace("/", "-")
    year, _, number = text.partition("-")
    try:
        return str(Month(int(year), int(number)))
    except ValueError:
        raise ValueError("请写成 2026-03 这样的月份") from None


def half_days(cell: Any) -> int:
    """Days in a cell, as half days; raises ValueError."""
    number = read_number(words(cell))
    if number is None or not 0 <= number <= 31 or number * 2 != int(number * 2):
        raise ValueError("请写0到31的天数，可以是半天，如 19.5")
    return int(number * 2)


def whole(cell: Any) -> int:
    """A whole number in a cell; raises ValueError."""
    number = read_integer(words(cell))
    if number is None:
        raise ValueError("请写整数")
    return number


def year(cell: Any) -> int:
    """A year in a cell; raises ValueError."""
    number = whole(str(cell).replace("年", "").removesuffix(".0"))
    if not 2000 <= number <= 2100:
        raise ValueError("请写四位年份")
    return number


def group(cell: Any) -> str:
    """One of the groups that are ranked apart; raises ValueError."""
    text = words(cell)
    if text not in GROUPS:
        raise ValueError(f"请写{'、'.join(dict.fromkeys(GROUPS))}之一")
    return text


def stage(cell: Any) -> Stage:
    """A stage by its Chinese word; raises ValueError."""
    found = [each for each, word in STAGE_WORDS.items() if word == words(cell)]
    if not found:
        raise ValueError(f"请写{'、'.join(STAGE_WORDS.values())}之一")
    return found[0]


def is_worked(cell: Any) -> bool:
    """上班 or 休息; raises ValueError."""
    text = words(cell)
    if text not in ("上班", "休息"):
        raise ValueError("请写「上班」或「休息」")
    return text == "上班"


def names(cell: Any) -> list[str]:
    """Several names in one cell, apart by 、 or a comma."""
    text = words(cell)
    for mark in "，,;；/ ":
        text = text.replace(mark, "、")
    return [each for each in text.split("、") if each]


# - what a row does -


def _unit(batch: Batch, row: Row) -> str:
    name = row["单位名称"]
    batch.once(name)
    if _find_unit(batch, name) is not None:
        return f"{name}：已有，未改"
    batch.add(Unit(name=name, batch=batch.name))
    return f"{name}：新增"


def _find_unit(batch: Batch, name: str) -> Unit | None:
    return batch.session.exec(select(Unit).where(Unit.name == name)).first()


def _team(batch: Batch, row: Row) -> str:
    code = row["编号"].upper()
    batch.once(code)
    if _find_team(batch, code) is not None:
        return f"{code} {row['小分队']}：已有，未改"
    unit = _find_unit(batch, row["派出单位"])
    if unit is None:
        unit = Unit(name=row["派出单位"], batch=batch.name)
        batch.add(unit)
    members, leader = row["队员"], row["带队人"]
    if leader not in members:
        members = [leader, *members]
    if len(set(members)) != len(members):
        raise RowError("「队员」有重名，请加以区分")
    team = FieldTeam(
        code=code,
        name=row["小分队"],
        group=row["分组"] or "县直",
        unit_id=unit.id or 0,
        center=row["中心城市"],
        nearby="、".join(row["周边城市"] or ()),
        batch=batch.name,
    )
    batch.add(team)
    for position, name in enumerate(members):
        batch.add(
            TeamMember(team_id=team.id or 0, position=position, name=name, leads=name == leader)
        )
    return f"{code} {team.name}：新增，{len(members)}人"


def _find_team(batch: Batch, code: str) -> FieldTeam | None:
    return batch.session.exec(select(FieldTeam).where(FieldTeam.code == code)).first()


def _team_of(batch: Batch, row: Row) -> FieldTeam:
    code = row["小分队编号"].upper()
    team = _find_team(batch, code)
    if team is None:
        raise RowError(f"没有编号为 {code} 的小分队，请先导入小分队")
    return team


def _target(batch: Batch, row: Row) -> str:
    team = _team_of(batch, row)
    batch.once(team.code, row["年度"])
    target_yuan = row["年度目标（万元）"]
    if target_yuan <= 0:
        raise RowError("「年度目标（万元）」要大于0")
    label = f"{team.code} {row['年度']}年目标"
    found = batch.session.exec(
        select(TeamTarget).where(TeamTarget.team_id == team.id, TeamTarget.year == row["年度"])
    ).first()
    if found is not None and found.target_yuan != target_yuan:
        raise RowError(f"{label}已经下达，改目标请在对话里用「目标」，由第二人审批")
    if found is not None:
        return f"{label}：已有，未改"
    batch.add(
        TeamTarget(
            team_id=team.id or 0, year=row["年度"], target_yuan=target_yuan, batch=batch.name
        )
    )
    return f"{label}：{target_yuan // 10_000}万元"


def _minimum_days(batch: Batch, row: Row) -> str:
    key, least = row["月份"], row["最低天数"]
    batch.once(key)
    found = batch.session.get(MinimumDays, key)
    if found is not None and found.half_days != least:
        raise RowError(f"{key} 已经定过，改动请在对话里用「最低天数」，由第二人审批")
    if found is not None:
        return f"{key}：已有，未改"
    batch.add(MinimumDays(month=key, half_days=least, reason=row["原因"] or "", batch=batch.name))
    return f"{key}：最低{least / 2:g}天"


def _holiday(batch: Batch, row: Row) -> str:
    key = row["日期"].isoformat()
    batch.once(key)
    found = batch.session.get(DayOverride, key)
    if found is not None and found.working == row["上班或休息"]:
        return f"{key}：已有，未改"
    if found is not None:
        raise RowError(f"{key} 已按相反的安排导入过，请先撤回那一批")
    batch.add(
        DayOverride(day=key, working=row["上班或休息"], reason=row["说明"] or "", batch=batch.name)
    )
    return f"{key}：{'上班' if row['上班或休息'] else '休息'}"


def _project(batch: Batch, row: Row) -> str:
    team = _team_of(batch, row)
    code = row["项目编号"].upper()
    batch.once(code)
    if batch.session.exec(select(Project).where(Project.code == code)).first() is not None:
        return f"{code}：已有，未改"
    planned_yuan, fixed_yuan = row["计划总投资（万元）"], row["其中固定资产投资（万元）"] or 0
    if fixed_yuan > planned_yuan:
        raise RowError("「其中固定资产投资（万元）」多于计划总投资")
    batch.add(
        Project(
            code=code,
            team_id=team.id or 0,
            name=row["项目名称"],
            investor=row["投资方"] or "",
            planned_yuan=planned_yuan,
            fixed_yuan=fixed_yuan,
            stage=row["阶段"],
            signed_on=row["签约日期"],
            started_on=row["开工日期"],
            produced_on=row["投产日期"],
            carried_over=True,
            created_at=batch.now,
            batch=batch.name,
        )
    )
    return f"{code} {row['项目名称']}：新增（{STAGE_WORDS[row['阶段']]}）"


def _leads_passed(batch: Batch, row: Row) -> str:
    team = _team_of(batch, row)
    key = row["月份"]
    batch.once(team.code, key)
    passed = row["评审通过线索（条）"]
    found = batch.session.get(LeadsPassed, (team.id, key))
    if found is not None and found.passed != passed:
        raise RowError(f"{team.code} {key} 已导入过{found.passed}条，请先撤回那一批")
    if found is not None:
        return f"{team.code} {key}：已有，未改"
    batch.add(LeadsPassed(team_id=team.id or 0, month=key, passed=passed, batch=batch.name))
    return f"{team.code} {key}：通过{passed}条"


UNITS = Sheet("units", "单位", (Column("单位名称", words, "县商务局"),), _unit)
TEAMS = Sheet(
    "teams",
    "小分队",
    (
        Column("编号", words, "T1"),
        Column("小分队", words, "长三角驻点小分队"),
        Column("派出单位", words, "县商务局"),
        Column("中心城市", words, "上海市"),
        Column("周边城市", names, "苏州市、南通市", optional=True),
        Column("带队人", words, "王某"),
        Column("队员", names, "王某、张某、李某"),
        Column("分组", group, "县直", optional=True),
    ),
    _team,
)
TARGETS = Sheet(
    "targets",
    "年度目标",
    (
        Column("小分队编号", words, "T1"),
        Column("年度", year, "2026"),
        Column("年度目标（万元）", money, "10000"),
    ),
    _target,
)
MINIMUM_DAYS = Sheet(
    "minimum-days",
    "最低天数",
    (
        Column("月份", month, "2026-02"),
        Column("最低天数", half_days, "15"),
        Column("原因", words, "春节假期", optional=True),
    ),
    _minimum_days,
)
HOLIDAYS = Sheet(
    "holidays",
    "假日",
    (
        Column("日期", day, "2026-02-14"),
        Column("上班或休息", is_worked, "上班"),
        Column("说明", words, "春节调休", optional=True),
    ),
    _holiday,
)
PROJECTS = Sheet(
    "projects",
    "续建项目",
    (
        Column("项目编号", words, "P01"),
        Column("小分队编号", words, "T1"),
        Column("项目名称", words, "速冻玉米加工"),
        Column("投资方", words, "某食品有限公司", optional=True),
        Column("计划总投资（万元）", money, "8000"),
        Column("其中固定资产投资（万元）", money, "6500", optional=True),
        Column("阶段", stage, "签约"),
        Column("签约日期", day, "2025-09-20", optional=True),
        Column("开工日期", day, "", optional=True),
        Column("投产日期", day, "", optional=True),
    ),
    _project,
)
LEADS_PASSED = Sheet(
    "leads-passed",
    "评审通过线索",
    (
        Column("小分队编号", words, "T1"),
        Column("月份", month, "2026-01"),
        Column("评审通过线索（条）", whole, "2"),
    ),
    _leads_passed,
)
SHEETS = (UNITS, TEAMS, TARGETS, MINIMUM_DAYS, HOLIDAYS, PROJECTS, LEADS_PASSED)

# - taking back -


def undo(session: Session, _now: datetime, batch: str) -> list[str]:
    """Take an import back whole; raises UserError when somebody has built on it."""
    done = []
    try:
        with session.begin_nested():
            for member in session.exec(
                select(TeamMember)
                .join(FieldTeam, col(FieldTeam.id) == TeamMember.team_id)
                .where(FieldTeam.batch == batch)
            ):
                session.delete(member)
            session.flush()
            for table, called in BATCHED.items():
                rows = session.exec(select(table).where(table.batch == batch)).all()
                for row in rows:
                    session.delete(row)
                session.flush()
                if rows:
                    done.append(f"撤回{called}{len(rows)}行")
    except IntegrityError as error:
        raise UserError(f"批次 {batch} 的数据已经被月报或授权用上，不能撤回。") from error
    if not done:
        raise UserError(f"没有批次 {batch} 的数据。")
    return done


IMPORT_UNITS = Importer("units", "单位", UNITS.run, undo=undo)
IMPORT_TEAMS = Importer("teams", "小分队、花名册和带队人", TEAMS.run, undo=undo)
IMPORT_TARGETS = Importer("targets", "年度目标", TARGETS.run, undo=undo)
IMPORT_MINIMUM_DAYS = Importer("minimum-days", "各月最低天数", MINIMUM_DAYS.run, undo=undo)
IMPORT_HOLIDAYS = Importer("holidays", "放假和调休", HOLIDAYS.run, undo=undo)
IMPORT_PROJECTS = Importer("projects", "上年续建项目", PROJECTS.run, undo=undo)
IMPORT_LEADS_PASSED = Importer("leads-passed", "评审通过的线索数", LEADS_PASSED.run, undo=undo)


# - a worked example in one file -


def import_example(session: Session, path: Any, now: datetime, batch: str) -> list[str]:
    """Import a JSON file of teams, targets, minimum days, passed leads and projects carried over.

    The reports and funds in it are for people to file. Raises UserError for a file of another
    shape.
    """
    try:
        example = json.loads(Path(path).read_text(encoding="utf-8"))
        months = sorted(each["month"] for each in example["reports"])
        sheets = _example_rows(example, months[0][:4])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{Path(path).name} 不是样例数据文件。") from error
    target = Batch(session, now, batch)
    done = []
    for sheet, rows in sheets:
        target.new.clear()
        for row in rows:
            try:
                done.append(f"{sheet.title} {sheet.write(target, sheet.read(row))}")
            except RowError as error:
                raise UserError(f"没有导入。{sheet.title}：{error}。") from error
    return [*done, f"共{len(done)}项，批次{batch}。"]


def _example_rows(example: Any, year_: str) -> list[tuple[Sheet, list[dict[str, Any]]]]:
    teams = example["teams"]
    return [
        (
            TEAMS,
            [
                {
                    "编号": code,
                    "小分队": each["name"],
                    "派出单位": each["unit"],
                    "中心城市": each["center"],
                    "周边城市": "、".join(each["nearby"]),
                    "带队人": each["members"][0],
                    "队员": "、".join(each["members"]),
                }
                for code, each in teams.items()
            ],
        ),
        (
            TARGETS,
            [
                {"小分队编号": code, "年度": year_, "年度目标（万元）": each["target"]}
                for code, each in teams.items()
            ],
        ),
        (
            MINIMUM_DAYS,
            [
                {"月份": f"{year_}-{int(number):02d}", "最低天数": days}
                for number, days in example["min_days"].items()
            ],
        ),
        (
            PROJECTS,
            [_carried_over(each) for each in example["projects"] if each["signed"] < year_],
        ),
        (
            LEADS_PASSED,
            [
                {
                    "小分队编号": each["team"],
                    "月份": each["month"],
                    "评审通过线索（条）": each["passed"],
                }
                for each in example["reports"]
                if each.get("passed") is not None
            ],
        ),
    ]


def _carried_over(each: Any) -> dict[str, Any]:
    # What went into production this year was being built before; that it did is for its report.
    return {
        "项目编号": each["id"],
        "小分队编号": each["team"],
        "项目名称": each["name"],
        "计划总投资（万元）": each["plan"],
        "其中固定资产投资（万元）": each["fixed"],
        "阶段": STAGE_WORDS[Stage.STARTED if "produced" in each else Stage.SIGNED],
        "签约日期": each["signed"],
    }


IMPORT_EXAMPLE = Importer("fixture", "样例数据（JSON）", import_example, undo=undo)


# - empty workbooks -


def templates(_session: Session, now: datetime) -> tuple[str, bytes]:
    """A workbook with a sheet for every kind of import, each with its header and an example row."""
    book = Workbook(write_only=True)
    for sheet in SHEETS:
        page = book.create_sheet(sheet.title)
        page.freeze_panes = "A2"
        for letter, column in zip("ABCDEFGHIJ", sheet.columns, strict=False):
            page.column_dimensions[letter].width = max(12, 2 * len(column.header) + 4)
        page.append([each.header for each in sheet.columns])
        page.append([each.example for each in sheet.columns])
    book.properties.created = now.astimezone(BEIJING).replace(tzinfo=None)
    file = io.BytesIO()
    book.save(file)
    return "导入模板.xlsx", file.getvalue()


TEMPLATES = Exporter("import-templates", "各类导入的空白工作簿", templates)
