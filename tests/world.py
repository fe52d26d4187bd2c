"""A small world for tests: people speak, time passes, letters arrive; everything else is real."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlmodel import select
from starlette.routing import BaseRoute

from bot.app import App, services_for
from bot.catalog import Catalog, collect
from bot.channels.base import Receive
from bot.clock import BEIJING, MovableClock, beijing
from bot.context import ChannelFacts
from bot.errors import SendError
from bot.messages import Address, Chat, Inbound, Kind, Part
from bot.settings import demo_settings
from storage.db import Database
from storage.people import Contact, Grant
from tests.laying import lay_tables

KEYS = "k1:0123456789abcdef0123456789abcdef"
GROUP = Address("memory", "test", "group-1")


@cache
def whole_catalog() -> Catalog:
    """Collected once a test run."""
    return collect()


@dataclass
class MemoryChannel:
    """Carries everything, keeps what it was given, and fails on demand."""

    facts: ChannelFacts = field(default_factory=lambda: ChannelFacts("memory", inline=99))
    sent: list[tuple[Address, Part]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        return ()

    async def run(self, receive: Receive) -> None:
        return None

    async def send(self, address: Address, part: Part, key: str) -> str:
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append((address, part))
        return f"m{len(self.sent)}"

    async def close(self) -> None:
        return None

    def check(self) -> Sequence[str]:
        return ()


class World:
    """One installation on a temporary SQLite file (or `url`), with a clock that stands still."""

    def __init__(
        self,
        folder: Path,
        *,
        start: str = "2026-03-12 10:00",
        place: str = "huolingol",
        url: str = "",
        office: Mapping[str, str] | None = None,
    ) -> None:
        self.clock = MovableClock(_moment(start))
        self.channel = MemoryChannel()
        self.settings = demo_settings(
            database_url=url or f"sqlite:///{folder}/world.db",
            place=place,
            public_url="http://127.0.0.1:8080",
            **(office or OFFICE),
        )
        self._numbers = 0
        self._read: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self.app = self._build()
        lay_tables(self.app.services.database)

    def _build(self) -> App:
        services = services_for(
            self.settings,
            {"memory": self.channel.facts},
            keys=KEYS,
            clock=self.clock,
            catalog=whole_catalog(),
        )
        return App(services, {"memory": self.channel}, alone=True)

    @property
    def database(self) -> Database:
        return self.app.services.database

    def copy(self, folder: Path) -> World:
        """Another installation that has lived through the same; this one stays as it is."""
        path = self.database.url.database
        assert path is not None, "only a world on a file can be copied"
        self.app.close()
        shutil.copy(path, folder / "world.db")
        self.app = self._build()
        other = World(folder, place=self.settings.place, start=f"{beijing(self.clock.now()):%F %T}")
        other.channel.sent = list(self.channel.sent)
        other._numbers, other._read = self._numbers, dict(self._read)
        return other

    def restart(self) -> None:
        """The process ends and another one begins on the same database."""
        self.app.close()
        self.app = self._build()

    def close(self) -> None:
        """End the installation."""
        self.app.close()
        self._loop.close()

    # - people speak -

    def inbound(self, who: str, text: str, **more: Any) -> Inbound:
        """A message with a fresh id, not yet handed over."""
        self._numbers += 1
        return Inbound(
            f"{self._numbers}", Address("memory", "test", who), text, self.clock.now(), **more
        )

    def counted(self, number: int) -> None:
        """Number the messages from here on after `number`: another world used those before."""
        self._numbers = number

    def hears(self, inbound: Inbound) -> str:
        """Hand a message over; returns the whole answer as one text."""
        parts = self.app.dispatcher.handle(inbound)
        return "\n".join(part.text for part in parts)

    def says(self, who: str, text: str, kind: Kind = Kind.TEXT) -> str:
        """Somebody says something in private and is answered."""
        return self.hears(self.inbound(who, text, kind=kind))

    def says_in_group(self, who: str, text: str, *, addressed: bool = True) -> str:
        """Somebody says something in the group."""
        return self.hears(self.inbound(who, text, chat=Chat(GROUP, addressed)))

    def talk(self, who: str, *texts: str) -> str:
        """Say several things in turn; returns the last answer."""
        answer = ""
        for text in texts:
            answer = self.says(who, text)
        return answer

    # - time passes -

    def at(self, moment: str) -> None:
        """Set the clock to a Beijing time and let the heart beat and the outbox drain."""
        self.clock.set(_moment(moment))
        self.settle()

    def passes(self, **span: float) -> None:
        """Let a span pass (timedelta keywords), then beat and drain."""
        self.clock.advance(**span)
        self.settle()

    def steps(self, until: str, **stride: float) -> None:
        """Go to a Beijing time in strides, beating and draining at each."""
        end = _moment(until)
        while self.clock.now() < end:
            self.clock.set(min(end, self.clock.now() + timedelta(**stride)))
            self.settle()

    def settle(self) -> None:
        """Beat once and send what is due."""
        self.app.beat()
        self.drain()

    def drain(self) -> None:
        """Send what is due."""
        self._loop.run_until_complete(self.app.delivery.until_idle())

    # - what arrived -

    def received(self, who: str) -> list[str]:
        """Every unasked message somebody got, in order."""
        return [part.text for address, part in self.channel.sent if address.user == who]

    def news(self, who: str) -> list[str]:
        """What arrived for somebody since this was last asked."""
        everything = self.received(who)
        fresh = everything[self._read.get(who, 0) :]
        self._read[who] = len(everything)
        return fresh

    def fails_next(self, *errors: SendError) -> None:
        """Let the next sends fail."""
        self.channel.failures += errors

    # - set-up -

    def person(self, who: str) -> int:
        """The person's id, made if they have never spoken."""
        address = str(Address("memory", "test", who))
        with self.database.session() as session:
            found = session.exec(select(Contact).where(Contact.address == address)).first()
            if found is not None:
                return found.person_id
        self.says(who, "菜单")
        return self.person(who)

    def grant(self, who: str, role: str, **limits: Any) -> int:
        """Give somebody a role without the codes; returns their id."""
        person_id = self.person(who)
        with self.database.session() as session:
            session.add(
                Grant(person_id=person_id, role=role, granted_at=self.clock.now(), **limits)
            )
        return person_id


OFFICE = {
    "office_name": "区域经济合作服务中心",
    "office_phone": "0475-0000000",
    "signatory": "区域经济合作服务中心",
}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BEIJING)
