"""Forms in progress: what was answered and which question was asked last."""

from datetime import datetime

from sqlalchemy import Connection, select
from sqlmodel import Field, SQLModel, col

from storage.columns import EncryptedText, UtcDateTime, personal
from storage.mailbox import Inbox


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


def answered_last(connection: Connection, person_id: int, form: str, key: str) -> bool:
    """Was this message (by its inbox key) the last to change a draft? Both bear one moment."""
    query = (
        select(col(Draft.form))
        .join(Inbox, col(Inbox.received_at) == col(Draft.updated_at))
        .where(
            col(Draft.person_id) == person_id,
            col(Draft.form) == form,
            col(Inbox.key) == key,
            col(Inbox.person_id) == person_id,
        )
    )
    return connection.execute(query).first() is not None
