"""The privacy notice: numbered texts beside this module, filled in from the place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from bot.text import content_hash, render
from handlers.place import Place

_HEAD = re.compile(r"# (\S+) · (\d{4}-\d\d-\d\d) · (.+)")
LONGEST_CARD = 300  # characters as rendered: a phone's first screen


@dataclass(frozen=True, slots=True)
class Notice:
    """One version as it reads in one place; `hash` is the sha256 of exactly these words."""

    version: str
    since: date
    change: str
    card: str
    full: str

    @property
    def hash(self) -> str:
        return content_hash(self.card, self.full)


@dataclass(frozen=True, slots=True)
class _Source:
    version: str
    since: date
    change: str
    card: str
    full: str


@cache
def _sources() -> tuple[_Source, ...]:
    """Every version, oldest first."""
    found = [_read(path) for path in Path(__file__).parent.glob("v*.md")]
    return tuple(sorted(found, key=lambda source: int(source.version)))


def _read(path: Path) -> _Source:
    head, card, full = re.split(r"\n## \S+\n", path.read_text(encoding="utf-8"))
    found = _HEAD.match(head)
    if found is None:
        raise ValueError(f"{path.name}: the first line must be `# version · date · change`")
    return _Source(
        found[1], date.fromisoformat(found[2]), found[3], card.strip("\n"), full.strip("\n")
    )


def notices(place: Place) -> Sequence[Notice]:
    """All versions filled in for a place, oldest first; the last one is in force."""
    units = dict.fromkeys(
        unit for category in place.profiles.categories for unit in category.unit.split("、") if unit
    )
    values = {
        "office": place.office.name,
        "phone": place.office.phone,
        "units": "、".join(units),
    }
    return [
        Notice(
            source.version,
            source.since,
            source.change,
            render(source.card, values),
            render(source.full, values),
        )
        for source in _sources()
    ]


def current(place: Place) -> Notice:
    """The version in force."""
    return notices(place)[-1]
