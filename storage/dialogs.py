"""Forms in progress: what was answered and which question was asked last."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from storage.columns import EncryptedText, UtcDateTime, personal


class Draft(SQLModel, table=True):
    """One form a person has begun. `state` is JSON (answers, facts, the name last asked).

    At most one draft of a person is open; opening another form parks it.
    """

    __table_args__ = {"info": {"erase": "delete"}}

    person_id: int = Field(foreign_key="person.id", primary_key=True)
    form: str = Field(primary_key=True)
    parked: bool = False
    state: str = Field(sa_type=EncryptedText, sa_column_kwargs=personal("填写到一半的内容", "草稿"))
    updated_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
