"""Festival letters as their files say them: what one is, when it leaves, and for whom."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlmodel import Session, select

from bot import planning
from bot.commands import Declaration
from bot.context import Services
from bot.errors import ConfigError, UserError
from bot.lunar import lunar_text, lunar_to_date, parse_lunar
from bot.normalize import Miss
from handlers.composition import Text, checked_text
from handlers.place import Place
from handlers.purposes import LETTER
from handlers.segments import Segment, Vocabulary, understand
from storage.campaigns import Campaign

WEEKDAYS = "一二三四五六日"
FACTS = ("news", "signatory", "mongolian_hello")


class _Phrases(BaseModel):
    """The words for the day: before the festival, on it, and in the National Day week."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    before: str
    on_day: str
    with_national_day: str = ""


class _FrontMatter(BaseModel):
    """What stands between the +++ lines; unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    title: str
    audience: str
    on: bool
    at: time
    latest: time
    phrases: _Phrases
    lunar: str = ""
    eve_of: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Letter(Declaration):
    """A festival letter as its file says it. `month` and `day` are the festival's in the lunar
    calendar; with `eve` it leaves the day before. `at` and `latest` are wall-clock times of the
    reader; `audience` are words for `segments.understand`.
    """

    name: str
    label: str
    title: str
    audience: str
    month: int
    day: int
    eve: bool
    at: time
    latest: time
    on: bool
    phrases: dict[str, str] = field(compare=False)
    body: str = field(compare=False)
    also: tuple[str, ...] = ()
    source: str = ""

    def festival(self, year: int) -> date:
        """The festival's day in a Gregorian year; leap months never count, so it comes once."""
        for lunar_year in (year, year - 1):
            found = lunar_to_date(lunar_year, self.month, self.day)
            if found.year == year:
                return found
        raise ValueError(f"{self.name} does not fall into {year}")

    def sending_day(self, year: int) -> date:
        """The day the letter leaves."""
        return self.festival(year) - timedelta(days=self.eve)

    def moment(self, year: int) -> planning.Moment:
        """When it leaves and after what time not any more, by each reader's own clock."""
        day = self.sending_day(year)
        return planning.Moment(
            planning.wall(day, self.at), local=True, latest=planning.wall(day, self.latest)
        )

    def occasion(self, year: int) -> str:
        """The key under which nobody gets it twice."""
        return f"letter:{self.name}:{year}"

    def is_on(self, place: Place) -> bool:
        """Does it go out here by itself?"""
        return self.on if place.letters.on is None else self.name in place.letters.on

    def text(self, place: Place, year: int) -> Text:
        """The letter with this place's news and signature."""
        return Text(
            kind="letter",
            title=self.title,
            purpose=LETTER.name,
            template=self.body,
            values={
                "news": [plain_news(line) for line in place.letters.news],
                "signatory": place.office.signatory,
                "mongolian_hello": place.letters.mongolian_hello,
            },
            phrases=self.phrases,
            day=self.festival(year),
            object=self.name,
        )

    def segment(self, place: Place) -> Segment:
        """Whom it is for; raises UserError where this place has no such people."""
        found = understand(self.audience, Vocabulary.of(place))
        if isinstance(found, Miss):
            raise UserError(f"{self.label}信写给「{self.audience}」，这里没有这样的类别。")
        return found


def plain_news(line: str) -> str:
    """A line of news without the punctuation at its end: the letter sets its own."""
    return line.strip().rstrip("，。；,;.、")


# - reading the files -


def load_letters(folder: Path) -> tuple[Letter, ...]:
    """Every letter of a folder, checked; raises ConfigError naming file and line."""
    return tuple(load_letter(path) for path in sorted(folder.glob("*.md")))


def load_letter(path: Path) -> Letter:
    """One letter: TOML between two +++ lines, then the text as a strict template."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != "+++" or "+++" not in lines[1:]:
        raise ConfigError(f"{path} 第1行：信件须以两行 +++ 之间的说明开头")
    end = lines.index("+++", 1)
    front = _front(path, lines[1:end])
    body = "\n".join(lines[end + 1 :]).strip("\n")
    try:
        month, day = parse_lunar(front.eve_of or front.lunar)
    except ValueError as error:
        key = "eve_of" if front.eve_of else "lunar"
        raise ConfigError(f'{path} 第{_line(lines, key)}行：{key} 要写成 "08-15"') from error
    letter = Letter(
        name=path.stem,
        label=front.label,
        title=front.title,
        audience=front.audience,
        month=month,
        day=day,
        eve=bool(front.eve_of),
        at=front.at,
        latest=front.latest,
        on=front.on,
        phrases=front.phrases.model_dump(),
        body=body,
        also=front.also,
        source=f"{path}:1",
    )
    _check_body(path, body, first=end + 2)
    return letter


def _front(path: Path, lines: Sequence[str]) -> _FrontMatter:
    try:
        return _FrontMatter.model_validate(tomllib.loads("\n".join(lines)))
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise ConfigError(f"{path} 第{int(found[1]) + 1 if found else 1}行：{error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][-1])
        number = _line(["+++", *lines], key)
        raise ConfigError(f"{path} 第{number}行 {key}：{first['msg']}") from error


def _line(lines: Sequence[str], key: str) -> int:
    """The number of the line that sets a key, or the first."""
    return next((n for n, line in enumerate(lines, 1) if re.match(rf"{key}\s*=", line)), 1)


def _check_body(path: Path, body: str, first: int) -> None:
    values = dict.fromkeys(FACTS, "")
    try:
        checked_text(Text("letter", "", LETTER.name, body, values=values))
    except UserError as error:
        raise ConfigError(_located(path, str(error), body, first)) from error
    for number, line in enumerate(body.splitlines(), first):
        if re.match(r"[ \t]|\u3000(?!\u3000\S)", line):
            raise ConfigError(f"{path} 第{number}行：段首要空两个全角空格，不用别的空格")


def _located(path: Path, message: str, body: str, first: int) -> str:
    """A template's complaint with the line counted from the top of the file."""
    inside = re.search(r"第(\d+)行", message)
    if inside:
        number = int(inside[1]) + first - 1
        return f"{path} 第{number}行：{message.replace(inside[0], '')}"
    unknown = re.findall(r"[a-z_]\w*", message)
    for number, line in enumerate(body.splitlines(), first):
        if unknown and re.search(rf"\b{unknown[0]}\b", line):
            return f"{path} 第{number}行：{message}"
    return f"{path} 第{first}行：{message}"


# - which letter, which year -


@dataclass(frozen=True)
class Coming:
    """A letter in a year, with its campaign if there is one."""

    letter: Letter
    year: int
    campaign: Campaign | None

    @property
    def day(self) -> date:
        return self.letter.sending_day(self.year)

    @property
    def moment(self) -> planning.Moment:
        return self.letter.moment(self.year)


def letters_of(services: Services) -> Sequence[Letter]:
    """Every letter that is declared."""
    return services.catalog.of(Letter)


def coming(services: Services, session: Session, letter: Letter, now: datetime) -> Coming:
    """The letter's next occasion, today's until its last hour is over."""
    year = now.year
    while (letter.moment(year).latest or now) <= now:
        year += 1
    campaign = session.exec(
        select(Campaign).where(Campaign.occasion == letter.occasion(year))
    ).first()
    return Coming(letter, year, campaign)


def every_coming(services: Services, session: Session, now: datetime) -> list[Coming]:
    """All letters' next occasions, the nearest first."""
    found = [coming(services, session, letter, now) for letter in letters_of(services)]
    return sorted(found, key=lambda one: one.day)


def firings(letter: Letter, after: datetime, until: datetime) -> Iterator[datetime]:
    """When a letter leaves by the county's clock, within a span."""
    for year in range(after.year - 1, until.year + 2):
        moment = letter.moment(year).at
        if after <= moment < until:
            yield moment


def show_day(day: date) -> str:
    """2026-09-25 周五 八月十五."""
    return f"{day.isoformat()} 周{WEEKDAYS[day.weekday()]} {lunar_text(day)}"
