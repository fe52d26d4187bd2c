"""What every message reads and writes, in the driver's own words.

A handful of statements a batch, written out once. Rows go in and come out as tuples in the order
of the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection

from storage.columns import ring_of, to_millis
from storage.driver import execute
from storage.states import State
from storage.wakeups import announce

_SEEN = "SELECT key, reply FROM inbox WHERE key IN ({among})"
_CONTACTS = "SELECT address, id, person_id FROM contact WHERE address IN ({among})"
_PERSON = "INSERT INTO person (created_at) VALUES (?) RETURNING id"
_CONTACT = (
    "INSERT INTO contact (person_id, channel, address, reachable, window_left, last_seen_at) "
    "VALUES (?, ?, ?, ?, 0, ?) RETURNING id"
)
# A row of the outbox for somebody who is just speaking need not wait for them: NO KEY.
# Asked again once the lock is given, so somebody who was merged while we waited is not found.
_LOCK = (
    "SELECT id FROM person WHERE id IN ({among}) AND merged_into IS NULL "
    "ORDER BY id FOR NO KEY UPDATE"
)
_ROLES = (
    "SELECT person_id, role, unit_id, team_id, expires_at FROM role_grant "
    "WHERE person_id IN ({among}) AND revoked_at IS NULL"
)
_DRAFTS = (
    "SELECT person_id, form, parked, state, expires_at FROM draft "
    "WHERE person_id IN ({among}) ORDER BY updated_at"
)
_FORGET = "DELETE FROM draft WHERE person_id = ? AND form = ?"
_KEEP = (
    "INSERT INTO draft (person_id, form, parked, state, updated_at, expires_at) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (person_id, form) DO UPDATE SET "
    "parked = excluded.parked, state = excluded.state, updated_at = excluded.updated_at, "
    "expires_at = excluded.expires_at"
)
# A tap on a menu opens a minute; it must not end the two days that a message opened.
_WINDOW = (
    "UPDATE contact SET "
    "window_left = CASE WHEN window_until > ? AND window_left > ? THEN window_left ELSE ? END, "
    "window_until = CASE WHEN window_until > ? THEN window_until ELSE ? END, "
    "last_seen_at = ?, reachable = ? WHERE id = ?"
)
_REOPEN = (
    f"UPDATE outbox SET state = '{State.QUEUED}', reason = '' "  # noqa: S608  # our own words
    "WHERE address IN ({among}) "
    f"AND outbox.state IN ('{State.DEFERRED}') AND reason = 'window'"
)
_REMEMBER = "INSERT INTO inbox (key, person_id, received_at, reply) VALUES (?, ?, ?, ?)"


def _among(statement: str, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """A statement about these, and its arguments.

    The last is said again until there are 1, 2, 4, 8 …: the driver keeps few statements prepared,
    and would have to prepare one for each number of them.
    """
    given = tuple(values)
    count = 1 << (len(given) - 1).bit_length()
    return _worded(statement, count), given + given[-1:] * (count - len(given))


@cache
def _worded(statement: str, count: int) -> str:
    return statement.format(among=", ".join("?" * count))


class HotPath:
    """The statements on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._ring = ring_of(connection.dialect)

    def seen(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Of these inbox keys those known, with the reply that was given."""
        rows = self._among(_SEEN, keys)
        return {key: None if reply is None else self._opened(reply) for key, reply in rows}

    def contacts(self, addresses: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Address → (contact id, person id), where known."""
        rows = self._among(_CONTACTS, addresses)
        return {address: (contact, person) for address, contact, person in rows}

    def newcomer(self, channel: str, address: str, now: datetime) -> tuple[int, int]:
        """(contact id, person id) of somebody who writes for the first time."""
        moment = to_millis(now)
        (person,) = self._run(_PERSON, (moment,)).fetchone()
        (contact,) = self._run(_CONTACT, (person, channel, address, True, moment)).fetchone()
        return contact, person

    def lock(self, people: Sequence[int]) -> bool:
        """Hold these people until the transaction ends; SQLite's one writer holds everybody.

        False: one of them has become part of somebody else meanwhile.
        """
        return self._sqlite or len(self._among(_LOCK, people)) == len(people)

    def roles(self, people: Sequence[int], now: datetime) -> list[tuple[Any, ...]]:
        """(person, role, unit, team) of every live grant."""
        moment = to_millis(now)
        return [row[:4] for row in self._among(_ROLES, people) if row[4] is None or row[4] > moment]

    def drafts(self, people: Sequence[int], now: datetime) -> Iterable[tuple[int, str, bool, str]]:
        """(person, form, parked, state) of every draft that has not expired, oldest first."""
        moment = to_millis(now)
        for person, form, parked, state, expires in self._among(_DRAFTS, people):
            opened = self._opened(state) if expires > moment else None
            if opened is not None:
                yield person, form, bool(parked), opened

    def _opened(self, sealed: bytes) -> str | None:
        """What is sealed; None where no key opens it, so that nobody is stuck behind it."""
        try:
            return self._ring.open(bytes(sealed))
        except (InvalidTag, LookupError, ValueError):
            return None

    def forget_drafts(self, rows: Sequence[tuple[int, str]]) -> None:
        """Delete drafts by (person, form)."""
        self._many(_FORGET, rows)

    def keep_drafts(
        self, rows: Sequence[tuple[int, str, bool, str, datetime]], now: datetime
    ) -> None:
        """Insert or bring up to date (person, form, parked, state, expires)."""
        seal, moment = self._ring.seal, to_millis(now)
        self._many(
            _KEEP,
            [
                (person, form, parked, seal(state), moment, to_millis(expires))
                for person, form, parked, state, expires in rows
            ],
        )

    def open_windows(self, rows: Sequence[tuple[int, datetime, int]], now: datetime) -> None:
        """(contact, until, messages left): a larger window that still stands is kept."""
        made, moment = [], to_millis(now)
        for contact, until, left in rows:
            end = to_millis(until)
            made.append((moment, left, left, end, end, moment, True, contact))
        self._many(_WINDOW, made)

    def reopen(self, addresses: Sequence[str]) -> bool:
        """What waited for these people to speak may go; was there anything?"""
        if not addresses:
            return False
        waited = bool(self._run(*_among(_REOPEN, addresses)).rowcount > 0)
        if waited:
            announce(self._connection)
        return waited

    def remember(self, rows: Sequence[tuple[str, int | None, str | None]], now: datetime) -> None:
        """Write (key, person, reply) into the inbox; a known key is an error."""
        seal, moment = self._ring.seal, to_millis(now)
        self._many(
            _REMEMBER,
            [
                (key, person, moment, None if reply is None else seal(reply))
                for key, person, reply in rows
            ],
        )

    def _among(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if not values:
            return []
        rows: list[tuple[Any, ...]] = self._run(*_among(statement, values)).fetchall()
        return rows

    def _many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._run(statement, list(rows))

    def _run(self, statement: str, arguments: Any) -> Any:
        return execute(self._connection, statement, arguments)
