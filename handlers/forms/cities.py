"""Where a person lives, down to the city and never further, with the time zone that follows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bot.normalize import Miss, near_miss, tidy

CHINA = "中国"
_MAINLAND_ZONE = "Asia/Shanghai"
_LONGEST_PLACE = 14


@dataclass(frozen=True)
class City:
    """A city of residence.

    `timezone` is an IANA name, or None where the country has several and `zones` are to be
    offered. `note` is a Chinese remark for the person when less or other than typed was kept.
    """

    province: str
    city: str
    country: str = CHINA
    timezone: str | None = _MAINLAND_ZONE
    zones: tuple[str, ...] = ()
    note: str = ""

    @property
    def text(self) -> str:
        """The words for lists and letters: 上海, 蒙古国乌兰巴托."""
        abroad = self.country not in (CHINA, self.city)
        return f"{self.country}{self.city}" if abroad else self.city


@dataclass(frozen=True)
class _Gazetteer:
    chinese: Mapping[str, City]
    provinces: tuple[str, ...]
    countries: Mapping[str, tuple[str, tuple[str, ...]]]
    foreign: Mapping[str, City]


_SUFFIX = re.compile("(?:市|盟|州|地区|林区|新区)$")


@cache
def _gazetteer() -> _Gazetteer:
    tables = tomllib.loads(Path(__file__).with_name("cities.toml").read_text(encoding="utf-8"))
    chinese = {name: City(name, name) for name in tables["municipalities"]}
    for kind in ("prefectures", "counties"):
        for province, names in tables[kind].items():
            zone = tables["regions"].get(province, _MAINLAND_ZONE)
            for name in names.split():
                city = City(province, name, timezone=zone)
                chinese.setdefault(name, city)
                chinese.setdefault(_SUFFIX.sub("", name), city)
    for name, zone in tables["regions"].items():
        if name != "台湾":
            chinese[name] = City(name, name, timezone=zone)
    chinese |= {alias: chinese[name] for alias, name in tables["aliases"].items()}
    countries = {name: (name, tuple(zones.split())) for name, zones in tables["countries"].items()}
    countries |= {alias: countries[name] for alias, name in tables["country_aliases"].items()}
    foreign = {
        name: City("", name, country, zone)
        for country, zones in tables["foreign_cities"].items()
        for zone, names in zones.items()
        for name in names.split()
    }
    return _Gazetteer(chinese, tuple(tables["prefectures"]), countries, foreign)


_EXAMPLE = "「上海」「苏州」「蒙古国乌兰巴托」"
_LEAD = re.compile(
    r"^(?:我|人|就|一直|目前|现在|现居|现住|常住|居住|定居|住|在|于|地|是|城市|[:：，,])+"
)
_TALK = re.compile(
    r"^(?:这边|这里|那边|这儿|工作|上班|生活|居住|定居|发展|打工|读书|上学|开公司|做生意|经商|呢|啊|吧|哈|了|呀)+$"
)
_PROVINCE_END = r"(?:省|市|壮族自治区|回族自治区|维吾尔自治区|自治区|特别行政区)?"
_DISTRICT = re.compile("[区县镇乡村路街旗]")
_NOT_THE_CITY = ("区", "县", "镇", "乡", "路", "街", "人", "话")
_SEVERAL = re.compile(r"^(?:市)?(?:和|跟|与|及|或|、|/|，|,)")


def parse_city(text: str) -> City | Miss:
    """Return the city a text names, Chinese or abroad (country and city).

    Districts and addresses are dropped with a note; a province or country alone is asked about.
    """
    plain = _LEAD.sub("", re.sub(r"\s+", "", tidy(text)).strip("。！!~「」“”"))
    if not plain:
        return Miss(f"请写现在居住的城市，如{_EXAMPLE}。")
    return _abroad(plain) or _in_china(plain) or _guess(plain)


def find_city(text: str) -> tuple[City, str] | None:
    """Return the known city a text begins with and what follows it, or None; nothing is guessed."""
    for size in range(min(len(text), _LONGEST_PLACE), 1, -1):
        found = _abroad(text[:size]) or _in_china(text[:size])
        if isinstance(found, City) and not found.note and _is_listed(found):
            return found, text[size:]
    return None


def zone_city(zone: str) -> str:
    """The best known city that keeps a time zone's clock: America/New_York → 纽约."""
    cities = _gazetteer().foreign.values()
    named = next((city.city for city in cities if city.timezone == zone), None)
    return named or zone.rpartition("/")[2].replace("_", " ")


def find_province(text: str) -> tuple[str, str] | None:
    """Return the province a text begins with (short, as stored) and what follows it, or None."""
    for name in _gazetteer().provinces:
        if text.startswith(name):
            return name, re.sub(f"^{_PROVINCE_END}", "", text[len(name) :])
    return None


def _is_listed(city: City) -> bool:
    return city.country in (CHINA, city.city) or city.city in _gazetteer().foreign


def _longest_prefix(text: str, names: Mapping[str, object]) -> str | None:
    for size in range(min(len(text), 12), 1, -1):
        if text[:size] in names:
            return text[:size]
    return None


def _abroad(text: str) -> City | Miss | None:
    gazetteer = _gazetteer()
    name = _longest_prefix(text, gazetteer.countries)
    if name is None:
        city = _longest_prefix(text, gazetteer.foreign)
        return gazetteer.foreign[city] if city and len(text) - len(city) <= 6 else None
    country, zones = gazetteer.countries[name]
    rest = re.sub(r"^[的·,，、\-]|(?:市)$", "", text[len(name) :])
    if country == "新加坡":
        return City("", country, country, zones[0])
    if not rest or _TALK.match(rest):
        return Miss(f"请把城市也写上，如「{country}{_some_city(country)}」。")
    known = _longest_prefix(rest, gazetteer.foreign)
    if known and gazetteer.foreign[known].country == country:
        return gazetteer.foreign[known]
    if len(rest) > 20 or any(sign.isdigit() for sign in rest):
        return Miss(f"只写到城市就好，如「{country}{_some_city(country)}」。")
    one = zones[0] if len(zones) == 1 else None
    return City("", rest, country, one, () if one else zones)


def _some_city(country: str) -> str:
    cities = _gazetteer().foreign.values()
    return next((city.city for city in cities if city.country == country), "某市")


def _in_china(text: str) -> City | Miss | None:
    gazetteer = _gazetteer()
    plain = re.sub(r"^中国(?:大陆)?", "", text)
    province = next((name for name in gazetteer.provinces if plain.startswith(name)), None)
    if province is not None:
        return _within(province, plain)
    return _plain_city(plain)


def _within(province: str, text: str) -> City | Miss | None:
    """Read a text that begins with a province; some cities share its name."""
    ending = re.match(province + _PROVINCE_END, text)
    rest = text[ending.end() :] if ending else ""
    if text.startswith(f"{province}市"):
        return _plain_city(text)
    name = _longest_prefix(rest, _gazetteer().chinese)
    if name is not None and _gazetteer().chinese[name].province == province:
        return _plain_city(rest)
    if rest and not _TALK.match(rest):
        return Miss(f"没认出{province}的这个地方，请写到地级市或盟州，如{_EXAMPLE}。")
    return Miss(f"请写到城市，如「{province}{_first_city(province)}」。")


def _first_city(province: str) -> str:
    return next(city.city for city in _gazetteer().chinese.values() if city.province == province)


def _plain_city(text: str) -> City | Miss | None:
    name = _longest_prefix(text, _gazetteer().chinese)
    if name is None:
        return None
    city = _gazetteer().chinese[name]
    rest = text[len(name) :]
    if _SEVERAL.match(rest):
        return Miss("请只写常住的一个城市。")
    # 朝阳区 is in Beijing and Changchun, the city of 朝阳 is not meant.
    if rest.startswith(_NOT_THE_CITY) and name not in ("北京", "天津", "上海", "重庆"):
        return _district(city, rest)
    rest = re.sub(r"^(?:市|盟|自治州|州|地区|县|特别行政区)", "", rest)
    if not rest or _TALK.match(rest):
        return city
    if len(rest) > 15 and not _DISTRICT.search(rest):
        return None
    return replace(city, note="只记到城市")


def _district(city: City, rest: str) -> City | Miss:
    if rest == "县" or (rest == "区" and city.city.endswith("新区")):
        return city
    return Miss(f"请写到城市，如{_EXAMPLE}。")


def _guess(text: str) -> City | Miss:
    """Take a slip of the keyboard for the one city that sounds or looks the same."""
    stem = _SUFFIX.sub("", text)
    gazetteer = _gazetteer()
    hit = near_miss(stem, gazetteer.chinese) if 2 <= len(stem) <= 6 else None
    if hit is None or abs(len(hit) - len(stem)) > 1:
        return Miss(f"没认出这个城市，请写到地级市，境外写国家加城市，如{_EXAMPLE}。")
    city = gazetteer.chinese[hit]
    return replace(city, note=f"按「{city.city}」记")
