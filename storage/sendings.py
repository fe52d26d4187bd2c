"""What was said to whom a moment ago, for a platform that drops what it takes for a repetition."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_
from sqlmodel import Field, SQLModel, col, delete, select, update

from storage.columns import UtcDateTime
from storage.driver import on_conflict_base

KEPT = timedelta(days=1)


class Sending(SQLModel, table=True):
    """The last time that one reader (`owner`) was sent one content, both as keyed digests.

    `key` is the bubble's own, the same for each of its tries; `checked`: the platform was asked to
    drop a repetition of it. `media` is the platform's name of the file in it, `message` its name of
    the message, once it has given them.
    """

    owner: str = Field(primary_key=True)
    content: str = Field(primary_key=True)
    key: str
    checked: bool
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    media: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Try:
    """What is known of a bubble that is about to leave; `begun`: when it was first tried, `again`:
    that was before.
    """

    checked: bool
    begun: datetime
    media: str = ""
    message: str = ""
    again: bool = False


def begin(
    connection: Connection, owner: str, content: str, key: str, now: datetime, span: timedelta
) -> Try:
    """Begin a try, or find the one before.

    Within `span` of the same content under another key the repetition is meant: then the platform
    must not be asked to drop it.
    """
    found = connection.execute(
        select(Sending.__table__).where(  # type: ignore[attr-defined]  # SQLModel sets it
            col(Sending.owner) == owner, col(Sending.content) == content
        )
    ).first()
    if found is not None and found.key == key:
        return Try(found.checked, found.at, found.media, found.message, again=True)
    checked = found is None or found.at <= now - span
    values = {"key": key, "checked": checked, "at": now, "media": "", "message": ""}
    statement = on_conflict_base(connection, Sending).values(owner=owner, content=content, **values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["owner", "content"], set_=values)
    )
    return Try(checked, now)


def note(
    connection: Connection, owner: str, content: str, *, media: str = "", message: str = ""
) -> None:
    """Remember what the platform called the file or the message."""
    named = {"media": media} if media else {"message": message}
    connection.execute(update(Sending).where(_of(owner, content)).values(**named))


def refused(connection: Connection, owner: str, content: str) -> None:
    """The platform said no: the next try is a first one."""
    connection.execute(delete(Sending).where(_of(owner, content)))


def forget_sendings(connection: Connection, now: datetime) -> int:
    """Forget what no try can be a repetition of any more; returns how many."""
    return connection.execute(delete(Sending).where(col(Sending.at) <= now - KEPT)).rowcount


def _of(owner: str, content: str) -> ColumnElement[bool]:
    return and_(col(Sending.owner) == owner, col(Sending.content) == content)
