"""Who holds what only one process may hold: a platform's single connection, a poller."""

from datetime import timedelta

from sqlalchemy import BigInteger, Connection, or_
from sqlmodel import Field, SQLModel, col, delete

from storage.driver import database_millis, on_conflict_base

LONGEST = 2 * 3600 * 1000  # ms; leases last seconds or minutes


class Lease(SQLModel, table=True):
    """A name, its holder, and until when (epoch ms, by the database's clock)."""

    name: str = Field(primary_key=True)
    holder: str
    until: int = Field(sa_type=BigInteger)


def take(connection: Connection, name: str, holder: str, ttl: timedelta) -> bool:
    """Take a lease or keep it; False while somebody else holds it.

    One that lasts longer than any could was reckoned by a clock that has been set back since.
    """
    now = database_millis(connection)
    until = now + round(ttl.total_seconds() * 1000)
    table = Lease.__table__  # type: ignore[attr-defined]  # SQLModel sets it
    statement = on_conflict_base(connection, table).values(name=name, holder=holder, until=until)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=[col(Lease.name)],
            set_={"holder": holder, "until": until},
            where=or_(
                col(Lease.holder) == holder,
                col(Lease.until) <= now,
                col(Lease.until) > now + LONGEST,
            ),
        ).returning(col(Lease.name))
    ).first()
    return taken is not None


def give_back(connection: Connection, name: str, holder: str) -> None:
    """Let others have it at once."""
    connection.execute(delete(Lease).where(col(Lease.name) == name, col(Lease.holder) == holder))
