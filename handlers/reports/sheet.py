"""A report being filled in: its answers beside the facts it began with, and what follows from both.

Everything here is computed in memory. Projects of the ledger have keys `p<id>`, those that are new
in this report `n<row>`; members have keys `m<id>`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any, Self

from bot.forms import Answers, Asking
from handlers.forms.fields import show_days
from handlers.periods import Month
from storage.reports import STAGE_ORDER, STAGE_WORDS, Stage

NOTHING, NOTE = "none", "note"
"""What a project may do in a month besides moving to a stage."""

DATES = {
    Stage.IN_TALKS: "talks_on",
    Stage.SIGNED: "signed_on",
    Stage.STARTED: "started_on",
    Stage.PRODUCED: "produced_on",
}
"""Under which name the day of reaching a stage is kept, here as in the ledger."""

REPORTABLE = tuple(DATES)
"""Stages a team may report; the others are for reviewers and coordinators."""


@dataclass(frozen=True, slots=True)
class Member:
    """A line of the roster as it was when the report was begun."""

    key: str
    id: int
    name: str
    nickname: str = ""


@dataclass(frozen=True, slots=True)
class KnownProject:
    """A project before this report. `stage` counts what was reported and awaits confirmation.

    `before_*` are the funds of earlier months as reported, `reached` the days of its stages.
    """

    key: str
    id: int
    code: str
    name: str
    stage: str
    waiting: bool = False
    planned_yuan: int = 0
    fixed_yuan: int = 0
    before_fixed_yuan: int = 0
    before_other_yuan: int = 0
    reached: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A project reaches a stage on a day; a signing brings its amounts."""

    key: str
    origin: Stage
    stage: Stage
    on: date
    planned_yuan: int | None = None
    fixed_yuan: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Funds:
    """Funds in place of one project this month (元)."""

    key: str
    fixed_yuan: int
    other_yuan: int
    note: str = ""

    @property
    def total_yuan(self) -> int:
        return self.fixed_yuan + self.other_yuan


@dataclass(frozen=True, slots=True)
class Sheet:
    """One team's report for one month, as far as it has got."""

    answers: Mapping[str, Any]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, asking: Asking) -> Self:
        """The sheet around a question; inside a row the answers of the whole form are meant."""
        return cls(asking.parent if asking.item else asking.answers, asking.facts)

    def get(self, name: str, default: Any = None) -> Any:
        """An answer, or `default` while there is none or it was skipped."""
        value = self.answers.get(name)
        return default if value is None else value

    # - the month -

    @property
    def month(self) -> Month:
        return Month.parse(self.facts["month"])

    @property
    def month_name(self) -> str:
        return f"{self.month.number}月"

    @property
    def minimum(self) -> int:
        """The least half days on post of each person."""
        return int(self.facts["minimum"])

    def last_day(self, today: date) -> date:
        """Up to which day this report can tell of."""
        return min(today, self.month.last_day)

    # - people -

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(Member(**each) for each in self.facts["roster"])

    def member(self, key: str) -> Member:
        return next(each for each in self.members if each.key == key)

    def half_days(self, member: Member) -> int:
        return int(self.get("days", {}).get(member.name, 0))

    def short(self) -> list[str]:
        """Keys of those who were on post for less than the month asks."""
        if not self.get("days"):
            return []
        return [each.key for each in self.members if self.half_days(each) < self.minimum]

    def leave(self, key: str) -> Answers:
        """The row of a member's leave; empty without one."""
        row: Answers = self.get("leave", {}).get(key, {}) if key in self.short() else {}
        return row

    def on_post(self) -> int:
        """How many were on post at all."""
        return sum(1 for each in self.members if self.half_days(each) > 0)

    def shown_day(self, member: Member) -> str:
        return f"{member.name}{show_days(self.half_days(member))}"

    def lacking(self, member: Member) -> str:
        """`差0.5天`, without its verb."""
        return show_days(self.minimum - self.half_days(member))

    # - projects -

    @property
    def known(self) -> tuple[KnownProject, ...]:
        return tuple(KnownProject(**each) for each in self.facts["projects"])

    def project(self, key: str) -> KnownProject | None:
        return next((each for each in self.known if each.key == key), None)

    def fresh(self) -> Iterator[tuple[str, Answers]]:
        """Projects that are new in this report, by key."""
        for number, row in enumerate(self.get("fresh", {}).get("rows", ()), 1):
            yield f"n{number}", row

    def row(self, key: str) -> Answers:
        """What this report says of a project's stage."""
        if key.startswith("n"):
            return dict(self.fresh()).get(key, {})
        row: Answers = self.get("progress", {}).get(key, {})
        return row

    def project_keys(self) -> list[str]:
        """All projects of the team, new ones last."""
        return [each.key for each in self.known] + [key for key, _ in self.fresh()]

    def called(self, key: str) -> str:
        """`P01`, or the name of one that has no code yet."""
        project = self.project(key)
        if project:
            return project.code
        name = self.named(key)
        return str(self.facts.get("codes", {}).get(name, name))

    def named(self, key: str) -> str:
        """`项目甲`."""
        project = self.project(key)
        return project.name if project else str(self.row(key).get("called", ""))

    def titled(self, key: str) -> str:
        """`P01 项目甲`."""
        called, named = self.called(key), self.named(key)
        return named if called == named else f"{called} {named}"

    def before(self, key: str) -> Stage:
        """The stage before this report."""
        project = self.project(key)
        return Stage(project.stage) if project else Stage.LEAD

    def after(self, key: str) -> Stage:
        """The stage this report says a project stands at."""
        moves = self.moves(key)
        return moves[-1].stage if moves else self.before(key)

    def moves(self, key: str) -> list[Move]:
        """The stages a project reaches in this report, each with its day, in order."""
        row = self.row(key)
        found = []
        origin = self.before(key)
        for stage in crossed(origin, row):
            on = row.get(DATES[stage])
            if on is None:
                break
            signs = stage is Stage.SIGNED
            found.append(
                Move(
                    key,
                    origin,
                    stage,
                    date.fromisoformat(on),
                    row.get("planned") if signs else None,
                    row.get("fixed") if signs else None,
                    row.get("note") or "",
                )
            )
            origin = stage
        return found

    def reached(self, key: str) -> Mapping[str, str]:
        """Known days of a project's stages, by name as in `DATES`."""
        project = self.project(key)
        return (project.reached if project else None) or {}

    # - funds -

    def funded(self) -> list[str]:
        """Projects that may have funds in place: those signed, by this report or before (K9)."""
        return [key for key in self.project_keys() if is_signed(self.after(key))]

    def funds(self, key: str) -> Funds | None:
        """What this report says of a project's funds; None before it is asked."""
        row = self.get("funds", {}).get(key, {})
        amount = row.get("amount")
        if amount is None or key not in self.funded():
            return None
        return Funds(key, amount["fixed"], amount["other"], row.get("note") or "")

    def all_funds(self) -> list[Funds]:
        """What is told of funds so far, in the order of the projects."""
        return [told for key in self.funded() if (told := self.funds(key)) is not None]

    def plan(self, key: str) -> tuple[int, int]:
        """A project's planned total and planned fixed assets, 0 while unknown."""
        row, project = self.row(key), self.project(key)
        planned = row.get("planned") or (project.planned_yuan if project else 0)
        fixed = row.get("fixed") or (project.fixed_yuan if project else 0)
        return planned, fixed

    def excess(self, told: Funds) -> Fraction:
        """How much of its plan a project has in place, in total or in fixed assets; 0 unknown."""
        project = self.project(told.key)
        planned, planned_fixed = self.plan(told.key)
        fixed = told.fixed_yuan + (project.before_fixed_yuan if project else 0)
        total = fixed + told.other_yuan + (project.before_other_yuan if project else 0)
        return max(
            Fraction(total, planned) if planned else Fraction(0),
            Fraction(fixed, planned_fixed) if planned_fixed else Fraction(0),
        )


def is_signed(stage: Stage) -> bool:
    """Has a project come as far as a signed agreement?"""
    return STAGE_ORDER.index(stage) >= STAGE_ORDER.index(Stage.SIGNED)


def crossed(origin: Stage, row: Mapping[str, Any]) -> Sequence[Stage]:
    """Stages between where a project stood and where its row says it stands now.

    A letter of intent is no signing: it stops what comes after it, too.
    """
    to = row.get("to")
    if to not in REPORTABLE:
        return ()
    start, end = STAGE_ORDER.index(origin), STAGE_ORDER.index(Stage(to))
    stages = [each for each in STAGE_ORDER[start + 1 : end + 1] if each in DATES]
    if row.get("formal") is False and Stage.SIGNED in stages:
        return tuple(stages[: stages.index(Stage.SIGNED)])
    return tuple(stages)


def next_stages(origin: Stage) -> tuple[Stage, ...]:
    """Stages a team may report for a project that stands at `origin`."""
    return tuple(each for each in REPORTABLE if STAGE_ORDER.index(each) > STAGE_ORDER.index(origin))


def stage_word(stage: str) -> str:
    """`签约`."""
    return STAGE_WORDS[Stage(stage)]
