"""Four eyes: one mechanism for letters, broadcasts, amounts and roles."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from storage.columns import UtcDateTime


class ApprovalState(StrEnum):
    """Where a request for approval stands."""

    OPEN = "open"
    GRANTED = "granted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"


class Approval(SQLModel, table=True):
    """A request: `kind` and `object` say what, `content_hash` what exactly it looked like.

    `needed` people other than the applicant must agree, one of them holding `role_needed`.
    `number` is what people say (`B-0001`).
    """

    id: int | None = Field(default=None, primary_key=True)
    number: str = Field(unique=True)
    kind: str
    object: str = Field(index=True)
    title: str
    content_hash: str
    needed: int = 1
    role_needed: str | None = None
    reason: str = ""
    asked_by: int = Field(foreign_key="person.id")
    asked_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
    state: str = ApprovalState.OPEN


class ApprovalVote(SQLModel, table=True):
    """One person's word on a request, with the role they spoke in."""

    __tablename__ = "approval_vote"
    __table_args__ = (UniqueConstraint("approval_id", "person_id"),)

    id: int | None = Field(default=None, primary_key=True)
    approval_id: int = Field(foreign_key="approval.id", index=True)
    person_id: int = Field(foreign_key="person.id")
    role: str
    agrees: bool
    content_hash: str
    reason: str = ""
    at: datetime = Field(sa_type=UtcDateTime)
