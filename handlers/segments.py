"""Segments: whom a coordinator means by 「企业家 上海的和杭州的」, as conditions and as SQL."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import Select, exists, or_, select
from sqlmodel import col

from bot.normalize import Miss, read_integer, tidy
from handlers.forms.cities import City, find_city, find_province
from handlers.place import Place
from storage import overview
from storage.campaigns import Campaign
from storage.people import ALL_TOPICS, Unsubscription
from storage.profiles import MemberCategory, MemberProfile
from storage.states import State

REACHED = (State.SENT, State.DELIVERED, State.READ, State.UNKNOWN)
"""States in which a message has, or may have, arrived."""


@dataclass(frozen=True)
class Vocabulary:
    """What can be said of members in a place: its categories (label by key) and its ties."""

    categories: Mapping[str, str]
    ties: Sequence[str]

    @classmethod
    def of(cls, place: Place) -> Self:
        """The place's own."""
        labels = {category.key: category.label for category in place.profiles.categories}
        return cls(labels, place.profiles.ties)


@dataclass(frozen=True)
class Segment:
    """Conditions on members. Values of one field are alternatives, fields all apply; a segment
    without any condition is everybody.

    `confirmed_days`: confirmed their profile within so many days. `reached_by`: the id of a
    campaign whose recipients are meant.
    """

    categories: tuple[str, ...] = ()
    cities: tuple[str, ...] = ()
    provinces: tuple[str, ...] = ()
    ties: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    confirmed_days: int | None = None
    reached_by: int | None = None

    def dump(self) -> str:
        """As JSON for `Campaign.audience`; the same segment always gives the same text."""
        given = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(given, ensure_ascii=False, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Self:
        """The inverse of `dump`."""
        raw: dict[str, Any] = json.loads(text)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return cls(**values)

    def people(self, now: datetime) -> Select[Any]:
        """A SELECT of person ids, each once."""
        person = col(MemberProfile.person_id)
        query = select(person)
        if self.categories:
            query = query.where(
                exists().where(
                    col(MemberCategory.person_id) == person,
                    col(MemberCategory.category).in_(self.categories),
                )
            )
        # An empty list beside the other would make the database read every profile.
        where = [
            column.in_(values)
            for column, values in (
                (col(MemberProfile.city), self.cities),
                (col(MemberProfile.province), self.provinces),
            )
            if values
        ]
        if where:
            query = query.where(or_(*where))
        if self.ties:
            query = query.where(col(MemberProfile.hometown_tie).in_(self.ties))
        for topic in self.topics:
            stopped = exists().where(
                col(Unsubscription.person_id) == person,
                col(Unsubscription.topic).in_([topic, ALL_TOPICS]),
            )
            query = query.where(~stopped)
        if self.confirmed_days is not None:
            since = now - timedelta(days=self.confirmed_days)
            query = query.where(col(MemberProfile.last_confirmed_at) >= since)
        if self.reached_by is not None:
            query = query.where(person.in_(overview.people_in(self.reached_by, REACHED)))
        return query

    def echo(self, place: Place) -> str:
        """How it was understood: 类别∈{企业家} 且 城市∈{上海，杭州}."""
        labels = {key: short_label(label) for key, label in Vocabulary.of(place).categories.items()}
        where = (*self.provinces, *self.cities)
        parts = [
            _among("类别", [labels.get(key, key) for key in self.categories]),
            _among("城市", where),
            _among("渊源", self.ties),
            _among("订阅", self.topics),
            f"{self.confirmed_days}天内确认过" if self.confirmed_days is not None else "",
            "收到过原消息的人" if self.reached_by is not None else "",
        ]
        return " 且 ".join(part for part in parts if part) or "全体"


def _among(label: str, values: Sequence[str]) -> str:
    return f"{label}∈{{{'，'.join(values)}}}" if values else ""


def people_of(campaign: Campaign, now: datetime) -> Select[Any]:
    """The SELECT of a campaign's audience."""
    return Segment.load(campaign.audience).people(now)


def short_label(label: str) -> str:
    """A category's name without its second half or brackets: 企业家/经商 → 企业家."""
    return re.split(r"[/（(]", label)[0]


# - understanding words -

_ALSO: Mapping[str, str] = {
    "entrepreneur": "企业家 经商 老板",
    "expert": "专家 学者",
    "educated_youth": "知青",
    "served_here": "服役 老兵 退役军人",
    "graduate": "毕业生 大学生",
    "public_sector": "机关 事业单位",
    "other": "其他 其他类",
}
_TOPIC_WORDS = {
    "节日信": "节日信",
    "节日": "节日信",
    "活动邀请": "活动邀请",
    "活动": "活动邀请",
    "政策": "政策",
    "家乡动态": "家乡动态",
    "动态": "家乡动态",
}
_EVERYBODY = re.compile(
    "全体(?:会员|乡亲|鸿雁|人员)?|所有(?:会员|乡亲|鸿雁|的?人)?|全部(?:会员|人)?|大家|全员"
)
_LABEL = re.compile("(类别|城市|现居地|省份|渊源|订阅)(?:是|为|了|过)?[:：]?")
_CONFIRMED = re.compile(
    r"(?:最近|近)?\s*(?P<count>[\d一二两三四五六七八九十半]+)\s*个?(?P<unit>年|月|周|天|日)[以之]?内?"
    r"\s*(?:确认)(?:过)?(?:档案)?"
    r"|最近确认[:：]?\s*(?P<count2>[\d一二两三四五六七八九十半]+)\s*个?(?P<unit2>年|月|周|天|日)[以之]?内?"
)
_DAYS = {"年": 365, "月": 365 / 12, "周": 7, "天": 1, "日": 1}
_EITHER = re.compile("或者|或是|或")
_FILLER = re.compile(
    r"[\s,，、;；:：/+。和跟与及且的在是人]|并且|而且|以及|还有|居住|现居|住|那些|们|乡亲|同时|身"
)
_HELP = (
    "可用：类别 城市 渊源 订阅 最近确认，如「类别 企业家，城市 上海 苏州，订阅 活动」，或「全体」。"
)


@dataclass(frozen=True)
class _Token:
    """A piece of what was said: a field's value, the word 或, or something unknown."""

    field: str
    value: str


def understand(text: str, known: Vocabulary) -> Segment | Miss:
    """Read a segment. A word that is not understood is asked about, never left out."""
    tokens = list(_read(tidy(text), _words(known)))
    unknown = "」「".join(token.value for token in tokens if token.field == "?")
    if unknown:
        return Miss(f"没看懂「{unknown}」，没有按它筛选。请换个说法。{_HELP}")
    crossed = _crossed(tokens)
    if crossed is not None:
        return crossed
    values: dict[str, list[str]] = {}
    for token in tokens:
        values.setdefault(token.field, []).append(token.value)
    if not values:
        return Miss(f"请说明发给谁。{_HELP}")
    days = [int(value) for value in values.get("confirmed", ())]
    return Segment(
        categories=_once(values.get("categories")),
        cities=_once(values.get("cities")),
        provinces=_once(values.get("provinces")),
        ties=_once(values.get("ties")),
        topics=_once(values.get("topics")),
        confirmed_days=min(days) if days else None,
    )


def _once(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values or ()))


def _crossed(tokens: Sequence[_Token]) -> Miss | None:
    """「企业家或上海」 cannot be said with one segment; to read it as 且 would drop people."""
    places = {"cities": "where", "provinces": "where"}
    for before, word, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if word.field != "或":
            continue
        if places.get(before.field, before.field) != places.get(after.field, after.field):
            return Miss("「或」只能用在同一类条件里，如「上海或苏州」；不同条件请分两次群发。")
    return None


def _words(known: Vocabulary) -> list[tuple[str, _Token]]:
    words: dict[str, _Token] = {}
    for key, label in known.categories.items():
        plain = re.sub(r"（.*?）|\(.*?\)", "", label)
        for word in (*plain.split("/"), plain, *_ALSO.get(key, "").split()):
            words[word] = _Token("categories", key)
    for tie in known.ties:
        words[tie] = _Token("ties", tie)
    return sorted(words.items(), key=lambda pair: -len(pair[0]))


def _read(text: str, words: Sequence[tuple[str, _Token]]) -> Iterator[_Token]:
    label, unknown, rest = "", "", text
    while rest:
        found = _head(rest, label, words)
        if found is None:
            unknown, rest = unknown + rest[0], rest[1:]
            continue
        if unknown:
            yield _Token("?", unknown)
            unknown = ""
        token, rest = found
        if token.field == "label":
            label = token.value
        elif token.field:
            yield token
    if unknown:
        yield _Token("?", unknown)


def _head(rest: str, label: str, words: Sequence[tuple[str, _Token]]) -> tuple[_Token, str] | None:
    """The token a text begins with, and what follows; None where nothing is known."""
    confirmed = _CONFIRMED.match(rest)
    if confirmed:
        return _confirmed(confirmed), rest[confirmed.end() :]
    said = _LABEL.match(rest)
    if said:
        return _Token("label", said[1]), rest[said.end() :]
    if label == "订阅":
        for word, topic in _TOPIC_WORDS.items():
            if rest.startswith(word):
                return _Token("topics", topic), rest[len(word) :]
    for word, token in words:
        if rest.startswith(word):
            return token, rest[len(word) :]
    everybody = _EVERYBODY.match(rest)
    if everybody:
        return _Token("everybody", ""), rest[everybody.end() :]
    city = _city(rest)
    if city is not None:
        return city
    province = find_province(rest)
    if province is not None:
        return _Token("provinces", province[0]), province[1]
    for pattern, field in ((_EITHER, "或"), (_FILLER, "")):
        skipped = pattern.match(rest)
        if skipped:
            return _Token(field, ""), rest[skipped.end() :]
    return None


def _city(rest: str) -> tuple[_Token, str] | None:
    found = find_city(rest)
    if found is None:
        return None
    # A place abroad takes the talk after it along; here what follows may be another condition.
    size = next(n for n in range(2, len(rest) + 1) if _same_city(rest[:n], found[0]))
    return _Token("cities", found[0].city), re.sub("^(?:市|盟|州|地区)", "", rest[size:])


def _same_city(text: str, city: City) -> bool:
    again = find_city(text)
    return again is not None and again[0].city == city.city and not again[1]


def _confirmed(found: re.Match[str]) -> _Token:
    count, unit = found["count"] or found["count2"], found["unit"] or found["unit2"]
    times = 0.5 if count == "半" else read_integer(count) or 0
    return _Token("confirmed", str(round(times * _DAYS[unit])))
