"""Numbers people can say: counted in the database, never twice."""

from sqlmodel import Field, Session, SQLModel

from storage.driver import on_conflict_nothing


class Sequence(SQLModel, table=True):
    """Counters behind the numbers people see (`HY-2026-000001`), without gaps or races."""

    name: str = Field(primary_key=True)
    value: int = 0


def next_number(session: Session, name: str) -> int:
    """The next value of a counter, from 1; the row is locked until the transaction ends."""
    counter = session.get(Sequence, name, with_for_update=True)
    if counter is None:
        # Two may want the first number at once: the second waits here for the first.
        begun = on_conflict_nothing(session.connection(), Sequence.__table__)  # type: ignore[attr-defined]
        session.connection().execute(begun, {"name": name, "value": 0})
        counter = session.get_one(Sequence, name, with_for_update=True)
    counter.value += 1
    session.add(counter)
    session.flush()
    return counter.value
