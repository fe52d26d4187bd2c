"""An installation with nothing declared in it: storage, outbox and delivery on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from bot.catalog import Catalog
from bot.clock import BEIJING, MovableClock
from bot.commands import Content
from bot.context import ChannelFacts, Services, new_row
from bot.settings import demo_settings
from handlers.place import PLACES
from handlers.roles import POLICY
from storage import mailbox
from storage.columns import KeyRing
from storage.db import Database
from storage.lanes import ensure_lane
from storage.people import Contact, Person
from tests.laying import lay_tables

NOON = datetime(2026, 3, 12, 12, 0, tzinfo=BEIJING)
FACTS = ChannelFacts("memory")
WINDOWED = ChannelFacts("window", windowed=True, windows={"any": (timedelta(hours=48), 5)})


@dataclass
class Bare:
    """Services on an empty database, and a few ways to fill it."""

    url: str
    channels: Mapping[str, ChannelFacts] = field(
        default_factory=lambda: {"memory": FACTS, "window": WINDOWED}
    )
    contents: Sequence[Content] = ()

    def __post_init__(self) -> None:
        self.clock = MovableClock(NOON)
        self.database = Database(self.url, KeyRing("k1:0123456789abcdef0123456789abcdef"))
        lay_tables(self.database)
        self.services = Services(
            self.database,
            self.clock,
            demo_settings(database_url=self.url),
            Catalog({Content: list(self.contents)}, {}, POLICY, PLACES),
            PLACES.load("huolingol", {}),
            self.channels,
        )

    def lane(
        self, key: str = "memory:bulk", gap_ms: int = 0, burst: int = 1, known_ms: int = 0
    ) -> None:
        """Have a lane with these limits."""
        with self.database.transaction() as connection:
            ensure_lane(connection, key, 9, gap_ms, burst, known_ms)

    def rows(self, count: int, **values: Any) -> list[int]:
        """Queue so many messages to as many strangers; returns the ids of all rows."""
        self.queue(range(count), **values)
        return [row.id for row in self.all()]

    def queue(self, strangers: Iterable[int], **values: Any) -> None:
        """Queue a message to each of these strangers."""
        row = {
            "occasion": "test",
            "purpose": "answer",
            "lane": "memory:bulk",
            "body": '[{"t":"您好"}]',
            "not_before": NOON,
            "created_at": NOON,
        }
        with self.database.transaction() as connection:
            mailbox.enqueue(
                connection,
                [
                    new_row(**row | {"recipient": f"x{n}", "address": f"memory:t:u{n}"} | values)
                    for n in strangers
                ],
            )

    def people(
        self,
        count: int,
        channel: str = "memory",
        user: Callable[[int], str] = lambda person: f"p{person}",
        **contact: Any,
    ) -> list[int]:
        """So many people with one address each; returns their ids."""
        with self.database.session() as session:
            found = [Person(created_at=NOON) for _ in range(count)]
            session.add_all(found)
            session.flush()
            for person in found:
                address = f"{channel}:t:{user(person.id or 0)}"
                session.add(
                    Contact(
                        person_id=person.id or 0,
                        channel=channel,
                        address=address,
                        last_seen_at=NOON,
                        **contact,
                    )
                )
            return [person.id or 0 for person in found]

    def all(self) -> Sequence[Any]:
        """Every outbox row, by id."""
        with self.database.engine.connect() as connection:
            return connection.execute(mailbox.TABLE.select().order_by(mailbox.TABLE.c.id)).all()

    def states(self) -> dict[str, int]:
        """How many rows are in which state."""
        state = mailbox.TABLE.c.state
        with self.database.engine.connect() as connection:
            found = connection.execute(select(state, func.count()).group_by(state))
            return {str(name): count for name, count in found}

    def close(self) -> None:
        self.database.close()
