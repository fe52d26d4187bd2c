"""Campaigns: one text to many people, from draft over approval to receipts."""

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel

from storage.columns import UtcDateTime


class CampaignState(StrEnum):
    """Where a campaign stands; its rows in the outbox have states of their own."""

    DRAFT = "draft"
    FREEZING = "freezing"
    SUBMITTED = "submitted"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    DONE = "done"


class Campaign(SQLModel, table=True):
    """A letter, an invitation or a broadcast.

    `template` is strict Jinja, `facts` JSON with what the template needs besides the person.
    `content_hash` covers template, facts, audience, purpose, moment and the frozen recipients: what
    was approved.
    `audience` is the segment as it was understood (JSON), `words` as the coordinator said it.
    `local_time`: `not_before` was meant as a wall-clock time in each recipient's own zone.
    """

    id: int | None = Field(default=None, primary_key=True)
    number: str = Field(unique=True)
    kind: str
    title: str
    occasion: str = Field(unique=True)
    purpose: str
    template: str
    facts: str = "{}"
    audience: str = "{}"
    words: str = ""
    content_hash: str = ""
    recipients_hash: str = ""
    object: str = ""
    created_by: int | None = Field(default=None, foreign_key="person.id")
    created_at: datetime = Field(sa_type=UtcDateTime)
    submitted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    not_before: datetime | None = Field(default=None, sa_type=UtcDateTime)
    local_time: bool = True
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    state: str = Field(default=CampaignState.DRAFT, index=True)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class CampaignTotal(SQLModel, table=True):
    """How many rows of a campaign had ended how when they were forgotten."""

    __tablename__ = "campaign_total"

    campaign_id: int = Field(foreign_key="campaign.id", primary_key=True)
    state: str = Field(primary_key=True)
    reason: str = Field(primary_key=True)
    count: int
