"""What the smart bot keeps in tables: what its buttons say, and where it may answer later."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from bot.channels.wecom.bot.reading import Pressed
from bot.channels.wecom.bot.words import OPTIONS, choice_card, short_key
from bot.clock import Clock
from bot.context import Services
from bot.messages import Address, Choice, Part, load_reply
from storage import answer_urls, bubbles
from storage.hotpath import HotPath

BUTTON_LIFE = timedelta(days=30)
BUBBLE_LIFE = timedelta(days=90)
URL_LIFE = timedelta(minutes=59)  # the platform says an hour
TIDY = timedelta(hours=1)


def new_key() -> str:
    """A short random name."""
    return secrets.token_urlsafe(9)


class Memory:
    """Its methods wait for the database: call them in threads."""

    def __init__(self, clock: Clock, keys: Callable[[], str]) -> None:
        self._clock = clock
        self._keys = keys
        self._services: Services | None = None
        self._tidied = clock.now() - TIDY

    def attach(self, services: Services) -> None:
        """Take the tables."""
        self._services = services

    @property
    def attached(self) -> bool:
        """Have we tables at all? `hongyan check` may ask without."""
        return self._services is not None

    @property
    def services(self) -> Services:
        assert self._services is not None, "attach() comes first"
        return self._services

    def card(self, address: Address, choices: Sequence[Choice], words: str = "") -> Any:
        """A card that offers the choices to this one person."""
        named = [(self._keys(), choice) for choice in choices[:OPTIONS]]
        now = self._clock.now()
        values = [(key, choice.value) for key, choice in named]
        with self.services.database.transaction() as connection:
            if now - self._tidied >= TIDY:
                self._tidied = now
                bubbles.forget_bubbles(connection, now, now - BUBBLE_LIFE)
            bubbles.keep_buttons(connection, self._owner(address), values, now + BUTTON_LIFE)
        return choice_card(named, self._keys(), words)

    def press(self, pressed: Pressed) -> bubbles.Press:
        """What a press says, or why it is refused."""
        inbound = pressed.told.inbound
        owner, now = self._owner(inbound.sender), self._clock.now()
        with self.services.database.transaction() as connection:
            return bubbles.press_button(connection, short_key(pressed.key), owner, inbound.id, now)

    def keep_url(self, where: Address, url: str, until: datetime | None = None) -> None:
        """Remember where one later answer may be given."""
        with self.services.database.transaction() as connection:
            self.write_url(connection, where, url, until or self._clock.now() + URL_LIFE)

    def write_url(self, connection: Connection, where: Address, url: str, until: datetime) -> None:
        """The same in somebody's transaction."""
        id, now = self.services.keys.digest(url), self._clock.now()
        answer_urls.keep_answer_url(connection, id, self._owner(where), url, now, until)

    def take_url(self, where: Address) -> tuple[str, datetime] | None:
        """One of them, and until when it is good; nobody else is given it."""
        with self.services.database.transaction() as connection:
            return answer_urls.take_answer_url(connection, self._owner(where), self._clock.now())

    def answered(self, key: str) -> tuple[Part, ...] | None:
        """What a message was answered with; None while it is not."""
        with self.services.database.reading() as session:
            seen = HotPath(session.connection()).seen([key])
        if key not in seen:
            return None
        reply = seen[key]
        return load_reply(reply).parts if reply else ()

    def _owner(self, address: Address) -> str:
        return self.services.keys.digest(str(address))
