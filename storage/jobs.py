"""Long work: one row a job, done in short transactions by a worker."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from storage.columns import EncryptedText, UtcDateTime, personal


class Job(SQLModel, table=True):
    """`state`: waiting, running, done, failed. `cursor` is where the next chunk begins (JSON).

    `result` is what the asker gets (encrypted: an export is personal data).
    """

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    person_id: int | None = Field(default=None, foreign_key="person.id", index=True)
    payload: str = "{}"
    cursor: str = "{}"
    state: str = Field(default="waiting", index=True)
    error: str = ""
    result: str | None = Field(
        default=None, sa_type=EncryptedText, sa_column_kwargs=personal("您要的导出", "导出内容")
    )
    owner: str = ""
    leased_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Firing(SQLModel, table=True):
    """What a schedule has done: the key is unique, so any number of replicas may tick."""

    schedule: str = Field(primary_key=True)
    occasion: str = Field(primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime)
    note: str = ""
