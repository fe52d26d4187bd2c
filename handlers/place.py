"""The place: what differs from county to county, one TOML file each, checked when it loads."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.context import Context, Services
from bot.errors import ConfigError

SHIPPED = Path(__file__).parent / "places"

Feature = Literal[
    "profiles", "letters", "broadcasts", "events", "monthly_reports", "hundred_points"
]


class _Table(BaseModel):
    """A table of the file: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Office(_Table):
    """Who handles the data and signs the letters. Empty ones must be set by the operator."""

    name: str = ""
    phone: str = ""
    signatory: str = ""
    contact_surname: str = ""


class Category(_Table):
    """A kind of member: `key` is stored, `label` shown, `unit` is who looks after them."""

    key: str
    label: str
    unit: str = ""
    letter: str = ""
    """The category paragraph of the letters."""


class Profiles(_Table):
    """What the member profile asks here. `here` is the short name in 「曾在霍服役」."""

    county: str
    here: str
    categories: tuple[Category, ...] = Field(min_length=2, max_length=9)
    ties: tuple[str, ...] = Field(min_length=2, max_length=9)
    tie_with_banner: str = ""
    ties_with_subdistrict: tuple[str, ...] = ()
    banners: tuple[str, ...] = ()
    subdistricts: tuple[str, ...] = ()
    phone_required: bool = False


class Letters(_Table):
    """Which festival letters go out, and the news they carry (approved with the letter).

    `on` names letters; without it each letter's own file says whether it goes out.
    """

    on: tuple[str, ...] | None = None
    mongolian_hello: bool = False
    news: tuple[str, ...] = ()


class Events(_Table):
    """How events are spoken of: `usual` is when they mostly are, `seasons` a line by month."""

    usual: str = ""
    seasons: Mapping[int, str] = Field(default_factory=dict)


class Reports(_Table):
    """The monthly report's numbers; days are whole days."""

    minimum_days: int = 20
    area: str = "全县"
    second_person_from_wan: int = 1000


class Frequency(_Table):
    """Nobody gets more than `most` messages that one can unsubscribe from in `days` days."""

    most: int = Field(ge=1)
    days: int = Field(ge=1, le=366)


class Approvals(_Table):
    """From how many recipients on a second and a third pair of eyes are needed."""

    second_person_above: int = 50
    leader_above: int = 1000
    hours: int = 24


class Place(_Table):
    """One county."""

    name: str
    title: str
    menu: str = ""
    """The buttons below a chat: 「登记,活动,更多=我的档案/人工」."""
    feature_list: tuple[Feature, ...] = Field(alias="features")
    office: Office = Office()
    profiles: Profiles
    letters: Letters = Letters()
    events: Events = Events()
    reports: Reports = Reports()
    approvals: Approvals = Approvals()
    frequency: tuple[Frequency, ...] = ()

    @property
    def features(self) -> frozenset[str]:
        return frozenset(self.feature_list)

    def missing(self) -> Sequence[str]:
        """What the operator still owes; while anything is missing nobody is registered."""
        owed = {
            "HONGYAN_OFFICE_NAME（办公室全称）": self.office.name,
            "HONGYAN_OFFICE_PHONE（办公室电话）": self.office.phone,
            "HONGYAN_SIGNATORY（信件落款）": self.office.signatory,
        }
        return [name for name, value in owed.items() if not value]


class Places:
    """Loads places by name, or from a path to a file."""

    def names(self) -> list[str]:
        """The places that ship with the product."""
        return sorted(path.stem for path in SHIPPED.glob("*.toml"))

    def load(self, name: str, overrides: Mapping[str, str]) -> Place:
        """Read and check; raises ConfigError naming file, line and key."""
        path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
        if not path.is_file():
            raise ConfigError(
                f"没有叫「{name}」的地方；可用：{'、'.join(self.names())}，或一份 TOML 文件的路径"
            )
        text = path.read_text(encoding="utf-8")
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}：{error}") from error
        names = {"office_name": "name", "office_phone": "phone", "signatory": "signatory"}
        office = table.setdefault("office", {})
        office.update({names[key]: value for key, value in overrides.items()})
        try:
            return Place.model_validate(table)
        except ValidationError as error:
            raise ConfigError(_first_error(path, text, error)) from error


def _first_error(path: Path, text: str, error: ValidationError) -> str:
    first = error.errors()[0]
    keys = [str(key) for key in first["loc"]]
    named = [key for key in keys if not key.isdigit()]
    line = _line_of(text, named)
    return f"{path} 第{line}行 {'.'.join(keys)}：{first['msg']}"


def _line_of(text: str, keys: Sequence[str]) -> int:
    """The line where the innermost key that can be found stands, inside its table."""
    lines = text.splitlines()
    start = 0
    for key in keys:
        table = re.compile(rf"\s*\[+(?:\S+\.)?{re.escape(key)}\]+")
        pair = re.compile(rf"\s*(?:.*[{{,]\s*)?{re.escape(key)}\s*=")
        for number in range(start, len(lines)):
            if table.match(lines[number]) or pair.match(lines[number]):
                start = number
                break
    return start + 1


PLACES = Places()


def place_of(services: Services) -> Place:
    """The place of this installation, with its own type."""
    return cast(Place, services.place)


def here(context: Context) -> Place:
    """The place the conversation is in."""
    return place_of(context.services)
