"""The ladder: by which of a channel's ways somebody can be reached unasked, the best first.

Channels say which ways they have; what a way needs is a condition in SQL, so that a hundred
thousand people are asked in one statement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import and_, true

from bot.clock import beijing
from storage.quotas import covers_received

if TYPE_CHECKING:
    from bot.commands import Purpose


class Rung(IntEnum):
    """How well somebody can be reached; the smaller the better."""

    OPEN = 1
    WINDOW = 2
    LASTING = 3
    ONCE = 4
    COVER = 5
    WORD = 6
    STAFF = 7


RUNG_WORDS: Mapping[Rung, str] = {
    Rung.OPEN: "随时可发",
    Rung.WINDOW: "在回复时限内直接发",
    Rung.LASTING: "凭长期订阅通知",
    Rung.ONCE: "凭一次性订阅通知",
    Rung.COVER: "等群发封面",
    Rung.WORD: "只能等其来信",
    Rung.STAFF: "只能由员工在客户群里转告",
}

LEAVING = (Rung.OPEN, Rung.WINDOW, Rung.LASTING, Rung.ONCE)
"""A row of theirs leaves by itself."""

WAITING = (Rung.COVER, Rung.WORD)
"""A row of theirs waits until they write; on `COVER` we can ask them to."""


@dataclass(frozen=True)
class Limit:
    """At most so many messages that can be unsubscribed from, to one person in so many days."""

    most: int
    days: int


@dataclass(frozen=True)
class Asked:
    """What a plan is for: the purpose and the moment.

    `kept` of each person's covers of this month are promised to others; `limits` say how often
    anybody may be written to, counted back from when it leaves (`due`; now if not given).
    """

    purpose: Purpose
    now: datetime
    kept: int = 0
    limits: tuple[Limit, ...] = ()
    due: datetime | None = None


class Way(Protocol):
    """One way of a channel, to be named in its facts."""

    @property
    def rung(self) -> Rung:
        """How good it is."""

    def reaches(self, who: Any, asked: Asked) -> Any:
        """Whom it reaches, as a condition; None where it never serves this purpose.

        `who` has the columns of `storage.people.Contact`; where a channel has no addresses of
        people (`ChannelFacts.anonymous`) only `person_id`.
        """


@dataclass(frozen=True)
class Openly:
    """A channel on which one may speak whenever one wants."""

    rung: Rung = Rung.OPEN

    def reaches(self, _who: Any, _asked: Asked) -> Any:
        """Everybody."""
        return true()


@dataclass(frozen=True)
class InWindow:
    """Within a reply window that still takes a message."""

    rung: Rung = Rung.WINDOW

    def reaches(self, who: Any, asked: Asked) -> Any:
        """Who has written lately."""
        return and_(who.c.window_until > asked.now, who.c.window_left > 0)


@dataclass(frozen=True)
class ByCover:
    """Waiting for a cover, of which each person gets at most `a_month`."""

    channel: str
    a_month: int
    rung: Rung = Rung.COVER

    def reaches(self, who: Any, asked: Asked) -> Any:
        """Who has one left this month that is not promised."""
        month = f"{beijing(asked.now):%Y-%m}"
        spent = covers_received(who.c.person_id, self.channel, month)
        return spent < self.a_month - asked.kept


@dataclass(frozen=True)
class WhenTheyWrite:
    """Waiting until they write of themselves."""

    rung: Rung = Rung.WORD

    def reaches(self, _who: Any, _asked: Asked) -> Any:
        """Everybody, some day."""
        return true()
