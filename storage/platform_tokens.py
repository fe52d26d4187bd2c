"""Access tokens that the replicas of one installation share, so that one of them asks for all."""

from datetime import datetime

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection, delete, insert, select
from sqlmodel import Field, SQLModel, col

from storage.columns import EncryptedText, UtcDateTime


class PlatformToken(SQLModel, table=True):
    """The token of one account at one platform (`name`) and when the next one is to be had."""

    __tablename__ = "platform_token"

    name: str = Field(primary_key=True)
    token: str = Field(sa_type=EncryptedText)
    renew_at: datetime = Field(sa_type=UtcDateTime)


def token_of(connection: Connection, name: str) -> tuple[str, datetime] | None:
    """The token and when to renew it; None where there is none, or none that our keys open."""
    query = select(col(PlatformToken.token), col(PlatformToken.renew_at)).where(
        col(PlatformToken.name) == name
    )
    try:
        found = connection.execute(query).first()
    except (InvalidTag, LookupError, ValueError):
        return None
    return (found.token, found.renew_at) if found is not None else None


def keep_token(connection: Connection, name: str, token: str, renew_at: datetime) -> None:
    """Let the other replicas have it."""
    connection.execute(delete(PlatformToken).where(col(PlatformToken.name) == name))
    connection.execute(insert(PlatformToken).values(name=name, token=token, renew_at=renew_at))
