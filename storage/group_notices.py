"""Announcements to groups, and the words that greet newcomers: written, approved, sent."""

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel

from storage.columns import UtcDateTime


class NoticeKind(StrEnum):
    """An announcement is sent once; a welcome is what newcomers are greeted with."""

    ANNOUNCEMENT = "announcement"
    WELCOME = "welcome"


class NoticeState(StrEnum):
    """Where one stands before it leaves; after that the outbox knows."""

    SUBMITTED = "submitted"
    APPROVED = "approved"
    REJECTED = "rejected"
    RECALLED = "recalled"


class GroupNotice(SQLModel, table=True):
    """One text for one or several groups. `addresses` has one a line, `number` is what people say.

    `told_at`: when whoever wrote it was told what had become of it.
    """

    __tablename__ = "group_notice"

    id: int | None = Field(default=None, primary_key=True)
    number: str = Field(unique=True)
    kind: str
    addresses: str
    text: str
    document: str = ""
    content_hash: str
    state: str = Field(default=NoticeState.SUBMITTED, index=True)
    created_by: int = Field(foreign_key="person.id")
    created_at: datetime = Field(sa_type=UtcDateTime)
    told_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    @property
    def occasion(self) -> str:
        """Under which its rows stand in the outbox."""
        return f"group_notice:{self.number}"

    @property
    def groups(self) -> tuple[str, ...]:
        """Addresses of the groups, in order."""
        return tuple(self.addresses.splitlines())
