"""Composition: a text and a person become the words that leave, and are checked before they do."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlmodel import Session, col, select

from bot.clock import BEIJING, beijing
from bot.commands import Content
from bot.context import Services
from bot.errors import UserError
from bot.lunar import ganzhi_year, lunar_text, upcoming_ganzhi, upcoming_zodiac
from bot.messages import Reply, say
from bot.text import check_template, content_hash, render
from handlers.forms.cities import CHINA
from handlers.forms.names import salutation_line, surname_of
from handlers.place import Place
from storage.campaigns import Campaign
from storage.people import Person
from storage.profiles import MemberCategory, MemberProfile

PERSONAL = ("salutation", "city", "category_paragraph")
DATED = (
    "occasion_phrase",
    "ganzhi",
    "upcoming_ganzhi",
    "upcoming_zodiac",
    "date_gb",
    "date_lunar",
)
MAX_CHARACTERS = 600  # of a mass message's text on an Official Account
MAX_BYTES = 2048  # of a customer service or application message, UTF-8


@dataclass(frozen=True)
class Text:
    """What is to be said to many: a strict template and what fills it besides the person.

    `values` fill the template, `phrases` are the words for the day (see `occasion_phrase`), `day`
    is the festival itself, `document` the 文号 that allows a signature of higher offices.
    """

    kind: str
    title: str
    purpose: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    phrases: Mapping[str, str] = field(default_factory=dict)
    day: date | None = None
    document: str = ""
    object: str = ""

    def facts(self, place: Place) -> str:
        """As JSON for `Campaign.facts`, with the place's paragraphs: they are approved too."""
        facts = {
            "values": dict(self.values),
            "paragraphs": {c.key: c.letter for c in place.profiles.categories},
            "otherwise": place.profiles.categories[-1].letter,
            "phrases": dict(self.phrases),
            "day": self.day.isoformat() if self.day else "",
            "document": self.document,
        }
        return json.dumps(facts, ensure_ascii=False, sort_keys=True)


class ContentChanged(Exception):
    """A campaign is no longer what was approved; nothing of it may leave."""


def fingerprint(campaign: Campaign) -> str:
    """What is approved: text, facts, audience, list of people, purpose and moment (sha256)."""
    moments = [
        moment.astimezone(UTC).isoformat() if moment else ""
        for moment in (campaign.not_before, campaign.expires_at)
    ]
    return content_hash(
        campaign.template,
        campaign.facts,
        campaign.audience,
        campaign.recipients_hash,
        campaign.purpose,
        *moments,
        str(campaign.local_time),
    )


# - one person's words -


@dataclass(frozen=True, slots=True)
class Reader:
    """What a letter needs to know of the person it is for."""

    person_id: int
    name: str
    salutation: str | None
    city: str
    category: str
    zone: ZoneInfo

    @property
    def line(self) -> str:
        """The salutation as it stands in the letter, without its colon."""
        return salutation_line(self.salutation, self.name)


def readers(session: Session, person_ids: Sequence[int]) -> list[Reader]:
    """Everybody of these who has a profile, in two statements."""
    first: dict[int, str] = {}
    categories = session.execute(
        select(MemberCategory.person_id, MemberCategory.category)
        .where(col(MemberCategory.person_id).in_(person_ids))
        .order_by(col(MemberCategory.position))
    )
    for person_id, category in categories:
        first.setdefault(person_id, category)
    rows = session.execute(
        select(  # type: ignore[call-overload]  # more columns than the stubs foresee
            MemberProfile.person_id,
            MemberProfile.name,
            MemberProfile.salutation,
            MemberProfile.country,
            MemberProfile.city,
            Person.timezone,
        )
        .join(Person, col(Person.id) == col(MemberProfile.person_id))
        .where(col(MemberProfile.person_id).in_(person_ids))
    )
    return [
        Reader(
            person_id,
            name,
            salutation,
            city if country in (CHINA, city) else f"{country}{city}",
            first.get(person_id, ""),
            ZoneInfo(zone) if zone else BEIJING,
        )
        for person_id, name, salutation, country, city, zone in rows
    ]


@dataclass(frozen=True)
class Composer:
    """Fills one campaign's text in, reading its facts once and working out each day once."""

    template: str
    facts: Mapping[str, Any]
    planned: date | None
    now: datetime
    days: dict[date, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, campaign: Campaign, now: datetime) -> "Composer":
        """`now` decides the words for the day, unless the campaign is to leave later."""
        planned = beijing(campaign.not_before).date() if campaign.not_before else None
        return cls(campaign.template, json.loads(campaign.facts), planned, now)

    def words(self, reader: Reader) -> str:
        """One person's text; raises UserError when something is missing."""
        today = self.now.astimezone(reader.zone).date()
        day = max(today, self.planned) if self.planned else today
        paragraph = self.facts["paragraphs"].get(reader.category) or self.facts["otherwise"]
        return render(
            self.template,
            {
                **self.facts["values"],
                **self._dated(day),
                "salutation": reader.line,
                "city": reader.city,
                "category_paragraph": paragraph,
            },
        )

    def _dated(self, day: date) -> Mapping[str, str]:
        if day not in self.days:
            festival = date.fromisoformat(self.facts["day"]) if self.facts["day"] else day
            self.days[day] = dated(day, festival, self.facts["phrases"])
        return self.days[day]


def dated(day: date, festival: date, phrases: Mapping[str, str]) -> dict[str, str]:
    """What a text says about the day it leaves on."""
    return {
        "occasion_phrase": occasion_phrase(day, festival, phrases),
        "ganzhi": ganzhi_year(day),
        "upcoming_ganzhi": upcoming_ganzhi(day),
        "upcoming_zodiac": upcoming_zodiac(day),
        "date_gb": f"{day.year}年{day.month}月{day.day}日",
        "date_lunar": lunar_text(day),
    }


def occasion_phrase(day: date, festival: date, phrases: Mapping[str, str]) -> str:
    """即将到来之际 before the festival, 值此…之际 on its day; one for both in the National Day
    week. `phrases` has `before`, `on_day` and perhaps `with_national_day`."""
    if day < festival:
        return phrases.get("before", "")
    # 国庆 is a holiday from 1 to 7 October; 中秋 falls into it about once in four years.
    if (festival.month, festival.day) >= (10, 1) and (festival.month, festival.day) <= (10, 7):
        return phrases.get("with_national_day") or phrases.get("on_day", "")
    return phrases.get("on_day", "")


# - what the delivery asks for -


def rendered(
    services: Services, session: Session, campaign: Campaign, person_ids: Sequence[int]
) -> Mapping[int, Reply]:
    """Everybody's words from the approved campaign, never from a file that may have changed."""
    if not campaign.content_hash or fingerprint(campaign) != campaign.content_hash:
        raise ContentChanged(campaign.number)
    composer = Composer.of(campaign, services.clock.now())
    return {
        reader.person_id: say(composer.words(reader)) for reader in readers(session, person_ids)
    }


LETTER_CONTENT = Content("letter", rendered)
BROADCAST_CONTENT = Content("broadcast", rendered)
INVITATION_CONTENT = Content("invitation", rendered)


# - checking before anything leaves -


@dataclass
class Check:
    """What a dry run over recipients found; it must find nothing wrong."""

    count: int = 0
    unfilled: int = 0
    too_long: int = 0
    without_profile: int = 0
    longest: int = 0
    longest_bytes: int = 0

    @property
    def passed(self) -> bool:
        return not (self.unfilled or self.too_long or self.without_profile)

    def add(self, text: str) -> None:
        """Look at one finished text."""
        size = len(text.encode())
        self.count += 1
        self.unfilled += bool(_UNFILLED.search(text))
        self.too_long += len(text) > MAX_CHARACTERS or size > MAX_BYTES
        self.longest = max(self.longest, len(text))
        self.longest_bytes = max(self.longest_bytes, size)

    def plus(self, other: "Check") -> "Check":
        """Both together."""
        return Check(
            self.count + other.count,
            self.unfilled + other.unfilled,
            self.too_long + other.too_long,
            self.without_profile + other.without_profile,
            max(self.longest, other.longest),
            max(self.longest_bytes, other.longest_bytes),
        )

    @property
    def words(self) -> str:
        """For the coordinator."""
        absent = f"，缺档案 {self.without_profile} 人" if self.without_profile else ""
        return (
            f"试填 {self.count} 份：未填的空 {self.unfilled}，超长 {self.too_long}{absent}；"
            f"最长 {self.longest} 字、{self.longest_bytes} 字节"
            f"（上限 {MAX_CHARACTERS} 字、{MAX_BYTES} 字节）。"
        )


_UNFILLED = re.compile(r"\{\{|\}\}|\{%|None|undefined")


def check(campaign: Campaign, session: Session, person_ids: Sequence[int], now: datetime) -> Check:
    """Fill the text in for each of these people and look at the result."""
    found = Check()
    composer = Composer.of(campaign, now)
    known = readers(session, person_ids)
    found.without_profile = len(set(person_ids)) - len(known)
    for reader in known:
        try:
            found.add(composer.words(reader))
        except UserError:
            found.count += 1
            found.unfilled += 1
    return found


def checked_text(text: Text) -> None:
    """Refuse a template that asks for what nobody will fill in; raises UserError."""
    check_template(text.template, [*PERSONAL, *DATED, *text.values])


# - looking at it before it leaves -


@dataclass(frozen=True)
class Specimen:
    """One real person's text, and why this person was picked."""

    why: str
    reader: Reader
    text: str


def specimens(
    campaign: Campaign, session: Session, person_ids: Sequence[int], now: datetime
) -> list[Specimen]:
    """The shortest, the longest, the emptiest profile and a name without Han surname, each person
    at most once, of those given."""
    composer = Composer.of(campaign, now)
    every = [(reader, composer.words(reader)) for reader in readers(session, person_ids)]
    return list(_picked(every))


def _picked(every: Sequence[tuple[Reader, str]]) -> Iterator[Specimen]:
    seen: set[int] = set()
    wanted = (
        ("最短", sorted(every, key=lambda pair: len(pair[1]))),
        ("最长", sorted(every, key=lambda pair: -len(pair[1]))),
        ("所填最少", sorted(every, key=lambda pair: bool(pair[0].salutation) + bool(pair[0].city))),
        ("整名称呼", [pair for pair in every if surname_of(pair[0].name) is None]),
    )
    for why, ranked in wanted:
        for reader, text in ranked:
            if reader.person_id not in seen:
                seen.add(reader.person_id)
                yield Specimen(why, reader, text)
                break
