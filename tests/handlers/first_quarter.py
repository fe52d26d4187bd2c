"""The three teams of the worked example, read from its data file as the product's own records."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from bot.clock import BEIJING
from handlers.periods import Month
from handlers.rankings import (
    FiledLead,
    FiledMonth,
    LedgerProject,
    Milestone,
    ProjectFunds,
    Records,
    Rules,
    StageEvent,
    TeamTarget,
)

Json = dict[str, Any]

# The data file counts what was started without naming projects; two that the teams signed stand in.
STARTED = {("T2", "2026-02"): "P03", ("T1", "2026-03"): "P01"}


def read_example() -> Json:
    path = Path(__file__).parents[1] / "data" / "fixture_q1_2026.json"
    example: Json = json.loads(path.read_text(encoding="utf-8"))
    return example


def yuan(wan: str) -> int:
    return int(Decimal(wan) * 10_000)


def half_days(days: str) -> int:
    return int(Decimal(days) * 2)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BEIJING)


def rules(example: Json, *, hundred_points: bool = False) -> Rules:
    return Rules(
        minimum_half_days_in={
            Month(2026, int(number)): half_days(days)
            for number, days in example["min_days"].items()
        },
        hundred_points=hundred_points,
    )


def records(example: Json) -> Records:
    filed = [each for each in example["reports"] if each["status"] != "missing"]
    return Records(
        teams=tuple(_team(key, each) for key, each in example["teams"].items()),
        reports=tuple(version for each in filed for version in _report_versions(each)),
        projects=(
            *(LedgerProject(each["id"], _all_of(each["team"])) for each in example["projects"]),
            *(LedgerProject(name, _all_of(team)) for name, team, _ in _talks(filed)),
        ),
        funds=tuple(version for each in example["funds"] for version in _funds(each, example)),
        events=tuple([*_ledger_events(example), *_report_events(filed)]),
        leads=tuple(lead for each in filed for lead in _leads(each)),
    )


def _all_of(team: str) -> tuple[tuple[str, Fraction], ...]:
    return ((team, Fraction(1)),)


def _team(key: str, each: Json) -> TeamTarget:
    return TeamTarget(key, each["name"], each["unit"], yuan(each["target"]), len(each["members"]))


def _report_versions(each: Json) -> list[FiledMonth]:
    days = tuple(half_days(day) for day in each["days"])
    month = Month.parse(each["month"])
    first = FiledMonth(each["team"], month, at(each["filed"]), days, each["visits"])
    if "v1" not in each:
        return [first]
    corrected_at = at(each["v1"]["corrected"])
    return [first, FiledMonth(each["team"], month, corrected_at, days, each["visits"])]


def _funds(each: Json, example: Json) -> list[ProjectFunds]:
    team = next(one["team"] for one in example["projects"] if one["id"] == each["project"])
    report = next(
        one for one in example["reports"] if (one["team"], one["month"]) == (team, each["month"])
    )
    month, filed_at = Month.parse(each["month"]), at(report["filed"])
    examined = ProjectFunds(
        each["project"],
        month,
        at(report["v1"]["corrected"]) if "v1" in report else filed_at,
        yuan(each["fai"]),
        yuan(each["other"]),
        yuan(each["fai_rec"]),
        yuan(each["other_rec"]),
    )
    if "v1" not in report:
        return [examined]
    first = report["v1"]
    return [
        ProjectFunds(each["project"], month, filed_at, yuan(first["fai"]), yuan(first["other"])),
        examined,
    ]


def _ledger_events(example: Json) -> list[StageEvent]:
    signed = [
        StageEvent(
            each["id"], Milestone.SIGNED, date.fromisoformat(each["signed"]), yuan(each["plan"])
        )
        for each in example["projects"]
    ]
    produced = [
        StageEvent(each["id"], Milestone.PRODUCED, date.fromisoformat(each["produced"]))
        for each in example["projects"]
        if "produced" in each
    ]
    return [*signed, *produced]


def _report_events(filed: list[Json]) -> list[StageEvent]:
    started = [
        StageEvent(project, Milestone.STARTED, Month.parse(month).last_day)
        for (_, month), project in STARTED.items()
    ]
    talks = [
        StageEvent(name, Milestone.IN_TALKS, month.first_day) for name, _, month in _talks(filed)
    ]
    return [*started, *talks]


def _talks(filed: list[Json]) -> list[tuple[str, str, Month]]:
    """Name an invented project for each of the new talks that the data file only counts."""
    return [
        (f"{each['team']}/{each['month']}/{number}", each["team"], Month.parse(each["month"]))
        for each in filed
        for number in range(each["talks"])
    ]


def _leads(each: Json) -> list[FiledLead]:
    month = Month.parse(each["month"])
    return [
        FiledLead(
            each["team"], month.first_day, month.last_day if number < each["passed"] else None
        )
        for number in range(each["leads"])
    ]
