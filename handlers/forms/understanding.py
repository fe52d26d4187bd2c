"""Take several answers of a member profile out of one message, but only the certain ones."""

from __future__ import annotations

import re

from bot.normalize import Miss, pick_numbers, tidy
from handlers.forms.cities import City, find_city
from handlers.forms.names import parse_name, surname_of

CATEGORY_COUNT = 8
MOST_CATEGORIES = 3
_LEADING_NUMBERS = re.compile(
    r"\s*(?:我?选)?\s*(?:\d{1,2}|[一二三四五六七八](?![\u4e00-\u9fff]|$)|[一二三四五六七八](?=[和、跟与]))"
    r"(?:\s*(?:[、,，;；/和跟与及.]|\s)\s*(?:\d{1,2}|[一二三四五六七八])(?![\d年月日岁级届个家人万亿点.]))*"
)
_CLAUSE = r"[^\s,，。；;、|！!？?]"
_CALLED = re.compile(
    rf"(?:^|[\s,，。；;、|我])(?:叫做?|姓名(?:是|叫)?[:：]?|名字(?:是|叫)?[:：]?)\s*({_CLAUSE}+)"
)
_I_AM = re.compile(
    rf"(?:^|[\s,，。；;、|])(?:我是|本人)\s*({_CLAUSE}{{2,4}})(?=$|[\s,，。；;、|！!])"
)
_NOT_A_NAME_END = (
    "人",
    "的",
    "者",
    "生",
    "师",
    "家",
    "户",
    "兵",
    "员",
    "长",
    "友",
    "授",
    "工",
    "青",
)
_NOT_A_NAME = re.compile("什么|啥|名字|怎么|他|她|你")
_LIVES = re.compile(
    r"(?:现居住?(?:地是?|在|于)?|现住(?:在)?|居住(?:在|地是?|于)|常住(?:在|地是?)?|定居(?:在|于)?|住在|人在|"
    r"现在(?:就?在|人在|住在?)?|目前(?:在|住在?)?|城市(?:是|[:：])?)\s*[:：]?\s*"
)
_WORKS = re.compile(
    r"(?:^|[\s,，。；;我])在(?=(?P<place>[^\s,，。；;]+?)(?:工作|上班|生活|定居|居住|开公司|开厂|做生意|经商|打工|发展))"
)


# Cities whose names are also ordinary words: 现在合作 says nothing about 甘肃.
_EVERYDAY_WORDS = frozenset(("合作", "东方", "新星", "安宁"))
_GOES_ON = re.compile(
    "开|做|办|工作|上班|上学|当|教|搞|经营|创业|打拼|打工|读|这|那|生活|定居|发展|养老|带|住|的"
    "|[^\\s大学公司]{1,6}[区县旗镇]"
)


def understand_member(text: str, asked: str) -> dict[str, object]:
    """Return the answers found in a message, by the names of their questions.

    `categories` is a tuple of 1 to 3 option numbers, read only while they are being asked about;
    `name` is a str, `city` a City. What is not certain is left for its own question.
    """
    plain = tidy(text)
    found: dict[str, object] = {}
    if asked == "categories":
        numbers = _categories(plain)
        if numbers:
            found["categories"] = numbers
    name = _name(plain)
    if name:
        found["name"] = name
    city = _city(plain)
    if city:
        found["city"] = city
    return found


def _categories(text: str) -> tuple[int, ...] | None:
    leading = _LEADING_NUMBERS.match(text)
    if not leading:
        return None
    # A quantity such as 3家公司 or 55岁 is no choice.
    if re.match(r"[\d年月日岁级届个家人万亿点.]", text[leading.end() :]):
        return None
    picked = pick_numbers(leading[0], CATEGORY_COUNT)
    if isinstance(picked, Miss) or len(picked) > MOST_CATEGORIES:
        return None
    return picked


def _name(text: str) -> str | None:
    for pattern, introduced in ((_CALLED, True), (_I_AM, False)):
        for found in pattern.finditer(text):
            name = parse_name(found[1].rstrip("吧呢啊哈呀"))
            if isinstance(name, str) and _is_surely_a_name(name, introduced=introduced):
                return name
    return None


def _is_surely_a_name(name: str, *, introduced: bool) -> bool:
    if _NOT_A_NAME.search(name):
        return False
    if introduced:
        return len(name) <= 4 or "·" in name or (surname_of(name) is None and len(name) <= 8)
    plausible = surname_of(name) is not None and find_city(name) is None
    return plausible and not name.endswith(_NOT_A_NAME_END)


def _city(text: str) -> City | None:
    for found in _LIVES.finditer(text):
        city = _surely_a_city(_clause_after(text, found.end()))
        if city:
            return city
    for found in _WORKS.finditer(text):
        city = _surely_a_city(found["place"])
        if city:
            return city
    return None


def _surely_a_city(clause: str) -> City | None:
    """Return the city of a clause unless its name goes on into something else, as in 中山大学."""
    found = find_city(clause)
    if found is None or found[0].city in _EVERYDAY_WORDS:
        return None
    return found[0] if not found[1] or _GOES_ON.match(found[1]) else None


def _clause_after(text: str, start: int) -> str:
    clause = re.match(_CLAUSE + "+", text[start:])
    return clause[0] if clause else ""
