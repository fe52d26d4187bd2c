"""Monthly reports, the project ledger behind them, and what coordinators confirmed.

Money is whole 元, days are half days, months are `2026-03`. Reports are official records: they stay
when a team member leaves.
"""

from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import BigInteger, UniqueConstraint
from sqlmodel import Field, Session, SQLModel, col, select

from storage.columns import EncryptedText, UtcDateTime


class Stage(StrEnum):
    """Where a project stands (requirements §3.6)."""

    LEAD = "lead"
    REVIEWED = "reviewed"
    IN_TALKS = "in_talks"
    SIGNED = "signed"
    STARTED = "started"
    PRODUCED = "produced"
    FULL_CAPACITY = "full_capacity"


STAGE_WORDS = {
    Stage.LEAD: "线索",
    Stage.REVIEWED: "已评审",
    Stage.IN_TALKS: "在谈",
    Stage.SIGNED: "签约",
    Stage.STARTED: "开工",
    Stage.PRODUCED: "投产",
    Stage.FULL_CAPACITY: "达产",
}
STAGE_ORDER = tuple(Stage)


class ChangeState(StrEnum):
    """A proposed change of stage, or an amount, waits for a coordinator's word."""

    PROPOSED = "proposed"
    SUBMITTED = "submitted"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"


class Project(SQLModel, table=True):
    """A line of the ledger. `stage` is the last *confirmed* one.

    `carried_over`: it was there before this system; `batch` names the import that brought it.
    """

    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(unique=True)
    team_id: int = Field(foreign_key="field_team.id", index=True)
    name: str
    investor: str = ""
    planned_yuan: int = Field(default=0, sa_type=BigInteger)
    fixed_yuan: int = Field(default=0, sa_type=BigInteger)
    stage: str = Stage.IN_TALKS
    talks_on: date | None = None
    signed_on: date | None = None
    started_on: date | None = None
    produced_on: date | None = None
    carried_over: bool = False
    public: bool = False
    merged_into: int | None = Field(default=None, foreign_key="project.id")
    created_at: datetime = Field(sa_type=UtcDateTime)
    batch: str = ""


class Report(SQLModel, table=True):
    """One version of a team's report for a month. `number` is `YB-2026-03-T1-v1`.

    `answers` is the whole form as filed (JSON, sealed); the figures stand in columns beside it.
    `content_hash` is the same for the office and the dispatching unit. `reason`: why corrected.
    """

    __table_args__ = (UniqueConstraint("team_id", "month", "version"),)

    id: int | None = Field(default=None, primary_key=True)
    number: str = Field(unique=True)
    team_id: int = Field(foreign_key="field_team.id", index=True)
    month: str = Field(index=True)
    version: int = 1
    as_of: date
    filed_at: datetime = Field(sa_type=UtcDateTime)
    filed_by: int = Field(foreign_key="person.id")
    reason: str = ""
    answers: str = Field(sa_type=EncryptedText)
    content_hash: str
    text: str = Field(sa_type=EncryptedText)
    visits: int = 0
    visits_key: int = 0
    chambers: int | None = None
    notables: int | None = None
    promos: int = 0
    inbound_batches: int = 0
    inbound_people: int = 0
    state: str = "filed"
    locked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class PreparedReport(SQLModel, table=True):
    """A complete report that waits for somebody's word, newest only.

    `kind` is `draft` (a member filled it in, the leader submits) or `correction` (after the freeze,
    a coordinator approves). `sheet` is JSON: answers and the facts they began with.
    """

    __tablename__ = "prepared_report"

    team_id: int = Field(foreign_key="field_team.id", primary_key=True)
    month: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    sheet: str = Field(sa_type=EncryptedText)
    content_hash: str = ""
    reason: str = ""
    prepared_by: int = Field(foreign_key="person.id")
    prepared_at: datetime = Field(sa_type=UtcDateTime)


class ReportDays(SQLModel, table=True):
    """How many half days one team member was on post, by one version of a report."""

    __tablename__ = "report_days"

    report_id: int = Field(foreign_key="report.id", primary_key=True)
    member_id: int = Field(foreign_key="team_member.id", primary_key=True)
    half_days: int
    leave_half_days: int = 0
    leave_reason: str = ""


class Lead(SQLModel, table=True):
    """A lead as first reported. `number` is `XS-2026-0001`; `contact` is a post and a surname."""

    id: int | None = Field(default=None, primary_key=True)
    number: str = Field(unique=True)
    team_id: int = Field(foreign_key="field_team.id", index=True)
    month: str = Field(index=True)
    report_id: int | None = Field(default=None, foreign_key="report.id")
    position: int = 1
    name: str
    investor: str = ""
    content: str = ""
    planned_yuan: int = Field(default=0, sa_type=BigInteger)
    needs: str = ""
    source: str = ""
    contact: str | None = Field(default=None, sa_type=EncryptedText)
    next_step: str = ""
    filed_at: datetime = Field(sa_type=UtcDateTime)
    passed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class LeadsPassed(SQLModel, table=True):
    """How many of a month's leads the review passed, where only the number is known (import)."""

    __tablename__ = "leads_passed"

    team_id: int = Field(foreign_key="field_team.id", primary_key=True)
    month: str = Field(primary_key=True)
    passed: int
    batch: str = ""


class StageChange(SQLModel, table=True):
    """A project moves on: proposed in a report, confirmed by a coordinator."""

    __tablename__ = "stage_change"

    id: int | None = Field(default=None, primary_key=True)
    project_id: int = Field(foreign_key="project.id", index=True)
    report_id: int | None = Field(default=None, foreign_key="report.id", index=True)
    month: str = Field(index=True)
    from_stage: str
    to_stage: str
    happened_on: date
    formal: bool = True
    planned_yuan: int | None = Field(default=None, sa_type=BigInteger)
    fixed_yuan: int | None = Field(default=None, sa_type=BigInteger)
    note: str = ""
    state: str = Field(default=ChangeState.PROPOSED, index=True)
    proposed_by: int | None = Field(default=None, foreign_key="person.id")
    decided_by: int | None = Field(default=None, foreign_key="person.id")
    decided_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    reason: str = ""


class ReportedFunds(SQLModel, table=True):
    """Funds in place of a project in a month, by one version of a report."""

    __tablename__ = "reported_funds"
    __table_args__ = (UniqueConstraint("report_id", "project_id"),)

    id: int | None = Field(default=None, primary_key=True)
    report_id: int = Field(foreign_key="report.id", index=True)
    project_id: int = Field(foreign_key="project.id", index=True)
    month: str = Field(index=True)
    fixed_yuan: int = Field(sa_type=BigInteger)
    other_yuan: int = Field(sa_type=BigInteger)
    note: str = ""


class Recognition(SQLModel, table=True):
    """What a coordinator recognised of a project's month; the newest confirmed one counts.

    From the place's threshold on a second person must agree (`state` is `submitted` until then);
    `request` is the object of that approval, the same for amounts asked for together.
    """

    id: int | None = Field(default=None, primary_key=True)
    project_id: int = Field(foreign_key="project.id", index=True)
    month: str = Field(index=True)
    fixed_yuan: int = Field(sa_type=BigInteger)
    other_yuan: int = Field(sa_type=BigInteger)
    basis: str
    reason: str = ""
    state: str = Field(default=ChangeState.PROPOSED, index=True)
    entered_by: int = Field(foreign_key="person.id")
    entered_at: datetime = Field(sa_type=UtcDateTime)
    request: str = Field(default="", index=True)


class ReportReceipt(SQLModel, table=True):
    """One of the two deliveries of a report: to the office, and to the dispatching unit."""

    __tablename__ = "report_receipt"

    report_id: int = Field(foreign_key="report.id", primary_key=True)
    person_id: int = Field(foreign_key="person.id", primary_key=True)
    side: str
    occasion: str
    read_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DaysWord(SQLModel, table=True):
    """The dispatching unit's word on the days of a report: confirmed or disputed."""

    __tablename__ = "days_word"

    report_id: int = Field(foreign_key="report.id", primary_key=True)
    person_id: int = Field(foreign_key="person.id")
    agrees: bool
    note: str = ""
    at: datetime = Field(sa_type=UtcDateTime)


class Bulletin(SQLModel, table=True):
    """A published bulletin never changes. `period` is `2026-03`, `2026Q1`, `2026H1` or `2026`."""

    id: int | None = Field(default=None, primary_key=True)
    period: str = Field(unique=True)
    text: str
    snapshot: str
    content_hash: str
    state: str = "draft"
    drafted_at: datetime = Field(sa_type=UtcDateTime)
    published_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Snooze(SQLModel, table=True):
    """Somebody said 稍后 to a reminder; once a day."""

    team_id: int = Field(foreign_key="field_team.id", primary_key=True)
    day: date = Field(primary_key=True)
    said_at: datetime = Field(sa_type=UtcDateTime)
    until: datetime = Field(sa_type=UtcDateTime)


def latest_report(session: Session, team_id: int, month: str) -> Report | None:
    """The newest version of a team's report for a month."""
    return session.exec(
        select(Report)
        .where(Report.team_id == team_id, Report.month == month)
        .order_by(col(Report.version).desc())
        .limit(1)
    ).first()


def projects_of(session: Session, team_id: int) -> list[Project]:
    """A team's projects that are not merged into others, by code."""
    return list(
        session.exec(
            select(Project)
            .where(Project.team_id == team_id, col(Project.merged_into).is_(None))
            .order_by(col(Project.code))
        )
    )
