"""The codes people come by: which ones were made, and by whose code somebody came first.

A scene is a short word inside a code: `u_<unit id>`, `e_<event number>`, `g_<group>`.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, delete, insert, or_, select, update
from sqlmodel import Field, Session, SQLModel, col

from storage.columns import UtcDateTime, personal
from storage.driver import on_conflict_nothing

LONGEST_SCENE = 64  # characters; WeChat refuses longer ones


class CodeState(StrEnum):
    """Where a code that somebody asked for stands."""

    WAITING = "waiting"
    MADE = "made"
    FAILED = "failed"
    HANDED_OVER = "handed_over"


class Arrival(SQLModel, table=True):
    """By whose code somebody came first; a later code changes nothing."""

    __table_args__ = {"info": {"erase": "delete"}}

    person_id: int = Field(foreign_key="person.id", primary_key=True)
    scene: str = Field(index=True, sa_column_kwargs=personal("收发消息", "您来时扫的二维码"))
    at: datetime = Field(sa_type=UtcDateTime)


class SceneCode(SQLModel, table=True):
    """A code for a scene. `url` is what its picture holds, once the platform has said it.

    `days`: how long it lives, None for one that never ends. `refused` is why there is none.
    """

    __tablename__ = "scene_code"

    id: int | None = Field(default=None, primary_key=True)
    channel: str
    scene: str = Field(index=True)
    label: str
    days: int | None = None
    asked_by: int = Field(foreign_key="person.id")
    asked_at: datetime = Field(sa_type=UtcDateTime)
    state: str = Field(default=CodeState.WAITING, index=True)
    url: str = ""
    refused: str = ""
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


def remember_arrival(connection: Connection, person_id: int, scene: str, now: datetime) -> bool:
    """Keep the scene somebody came by; True if it is their first."""
    statement = on_conflict_nothing(connection, Arrival.__table__)  # type: ignore[attr-defined]
    row = {"person_id": person_id, "scene": scene[:LONGEST_SCENE], "at": now}
    kept = connection.execute(statement.returning(col(Arrival.person_id)), row)
    return kept.first() is not None


def live_code(session: Session, channel: str, scene: str, now: datetime) -> SceneCode | None:
    """A code of this scene that still lives at `now`, the one that lives longest."""
    return session.execute(
        select(SceneCode)
        .where(
            col(SceneCode.channel) == channel,
            col(SceneCode.scene) == scene,
            col(SceneCode.url) != "",
            or_(col(SceneCode.expires_at).is_(None), col(SceneCode.expires_at) > now),
        )
        .order_by(col(SceneCode.expires_at).desc().nulls_first())
        .limit(1)
    ).scalar()


def codes_in(connection: Connection, channel: str, state: CodeState) -> Sequence[SceneCode]:
    """Codes in a state, the oldest first; not bound to any session."""
    rows = connection.execute(
        select(SceneCode.__table__)  # type: ignore[attr-defined]
        .where(col(SceneCode.channel) == channel, col(SceneCode.state) == state)
        .order_by(col(SceneCode.id))
    )
    return [SceneCode(**row) for row in rows.mappings()]


def made(connection: Connection, code_id: int, url: str, expires_at: datetime | None) -> None:
    """The platform has made a code."""
    connection.execute(
        update(SceneCode)
        .where(col(SceneCode.id) == code_id, col(SceneCode.state) == CodeState.WAITING)
        .values(state=CodeState.MADE, url=url, expires_at=expires_at)
    )


def not_made(connection: Connection, code_id: int, refused: str) -> None:
    """The platform will not make it."""
    connection.execute(
        update(SceneCode)
        .where(col(SceneCode.id) == code_id, col(SceneCode.state) == CodeState.WAITING)
        .values(state=CodeState.FAILED, refused=refused)
    )


def forget_codes(connection: Connection, before: datetime) -> int:
    """Forget codes that ended before a moment, and those that were never made."""
    gone = or_(
        col(SceneCode.expires_at) < before,
        (col(SceneCode.url) == "") & (col(SceneCode.asked_at) < before),
    )
    return connection.execute(delete(SceneCode).where(gone)).rowcount


INSERT_CODE = insert(SceneCode)
