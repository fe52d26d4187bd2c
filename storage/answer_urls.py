"""Addresses at which one later answer may be given; each is a secret, and good for one use."""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection, delete, select
from sqlmodel import Field, SQLModel, col

from storage.columns import EncryptedText, UtcDateTime
from storage.driver import on_conflict_base


class AnswerUrl(SQLModel, table=True):
    """One such address. `owner` and `id` are keyed digests: of who is answered there, and of it."""

    __tablename__ = "answer_url"

    id: str = Field(primary_key=True)
    owner: str = Field(index=True)
    url: str = Field(sa_type=EncryptedText)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


def keep_answer_url(
    connection: Connection, id: str, owner: str, url: str, now: datetime, expires_at: datetime
) -> None:
    """Remember one (told twice it is one), and forget those that have expired."""
    connection.execute(delete(AnswerUrl).where(col(AnswerUrl.expires_at) <= now))
    row = {"id": id, "owner": owner, "url": url, "expires_at": expires_at}
    statement = on_conflict_base(connection, AnswerUrl)
    connection.execute(statement.on_conflict_do_nothing(index_elements=["id"]), [row])


def take_answer_url(
    connection: Connection, owner: str, now: datetime
) -> tuple[str, datetime] | None:
    """The one that expires first, and when; whoever takes it is alone in having it."""
    for id in list(_waiting(connection, owner, now)):
        taken = connection.execute(
            delete(AnswerUrl)
            .where(col(AnswerUrl.id) == id)
            .returning(col(AnswerUrl.url), col(AnswerUrl.expires_at))
        ).first()
        if taken is not None:
            return taken.url, taken.expires_at
    return None


def _waiting(connection: Connection, owner: str, now: datetime) -> Iterator[str]:
    found = connection.execute(
        select(col(AnswerUrl.id))
        .where(col(AnswerUrl.owner) == owner, col(AnswerUrl.expires_at) > now)
        .order_by(col(AnswerUrl.expires_at), col(AnswerUrl.id))
    )
    return (row.id for row in found)
