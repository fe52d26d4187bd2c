"""Read money, days, names and telephones as people type them, or say what to type instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal

import phonenumbers

from bot.normalize import Ambiguous, Miss, read_number, tidy
from bot.personal_numbers import find_mobiles
from handlers.forms.cities import City, parse_city
from handlers.forms.names import (
    parse_name,
    parse_salutation,
    salutation_line,
    salutation_options,
)
from handlers.forms.understanding import understand_member

__all__ = [
    "City",
    "parse_city",
    "parse_days",
    "parse_money",
    "parse_name",
    "parse_phone",
    "parse_salutation",
    "salutation_line",
    "salutation_options",
    "show_days",
    "show_money",
    "understand_member",
    "wan",
]

WAN = 10_000
YI = 100_000_000
_FOREIGN = re.compile(
    r"美元|美金|美刀|刀|\$|usd|欧元|€|eur|英镑|£|gbp|日元|日币|jpy|港币|港元|港纸|hkd|台币|澳元|加元"
    r"|卢布|韩元|韩币|图格里克|新币|泰铢|外币|外汇",
    re.IGNORECASE,
)
_NOTHING = frozenset(("没有", "没", "无", "暂无", "零"))
_ABOUT = re.compile(r"^(?:大约|大概|差不多|约|共|一共|总共|人民币|￥|¥)+|(?:左右|上下|吧|人民币)+$")
_MONEY_EXAMPLE = "「8000」（即8000万元）「1.2亿」或「3500万」"


MOST_YUAN = 10**16
"""Sums of hundreds of these still fit into the 64 bits of a database's number."""


def parse_money(text: str) -> int | Miss:
    """Return an amount in yuan; a bare number means 万元, as reports do.

    Foreign currency is refused (nobody here converts it), `5千` comes back as Ambiguous with both
    readings in yuan, and amounts are kept to two decimals of 万元.
    """
    plain = tidy(text).replace(" ", "").rstrip("。.！!")
    if plain in _NOTHING:
        return 0
    if _FOREIGN.search(plain):
        return Miss("外币请按当时汇率折算成人民币再报，单位万元，如「3500万」；这里不代为换汇。")
    # 8000w is how phones write 8000万.
    plain = re.sub(r"(?<=\d)[wW]", "万", _ABOUT.sub("", plain)).removesuffix("整")
    if re.match(r"[-－—负]", plain):
        return Miss(f"金额不能是负数，请重新发，如{_MONEY_EXAMPLE}。")
    yuan = _yuan(plain)
    if yuan is None:
        return Miss(f"没认出金额，请发数字，单位万元，如{_MONEY_EXAMPLE}。")
    if isinstance(yuan, Miss):
        return yuan
    if yuan >= MOST_YUAN:
        return Miss(f"金额大得不像真的，请核对后重新发，如{_MONEY_EXAMPLE}。")
    if yuan % 100:
        return Miss(f"金额以万元为单位，最多两位小数，请重新发，如{_MONEY_EXAMPLE}。")
    return int(yuan)


def _yuan(text: str) -> Decimal | Miss | None:
    in_yuan = text.endswith(("元", "块", "块钱"))
    bare = re.sub(r"(?:元|块钱?)$", "", text)
    if re.search(r"亿[^万亿]*[千百]$", bare):
        # 一亿二千 is said for 1亿2千万: nobody counts single thousands beside 亿.
        bare += "万"
    number = read_number(bare)
    if number is None or in_yuan or re.search("[万萬亿億]", bare):
        return number
    if re.search("[千仟]", bare):
        return _ask_thousands(text, number)
    return number * WAN


def _ask_thousands(said: str, number: Decimal) -> Ambiguous:
    plain = f"{number.normalize():f}"
    return Ambiguous(
        f"「{said}」是{plain}元，还是{plain}万元？请写明单位，如「{plain}元」或「{plain}万」。",
        (int(number), int(number) * WAN),
    )


def show_money(yuan: int) -> str:
    """Return an amount in two units, as in `12000万元（1.2亿元）`; small ones as 万元 and 元."""
    if yuan == 0:
        return "0万元"
    other = f"{yuan}元" if yuan < 100 * WAN else f"{_short(yuan, YI)}亿元"
    return f"{_short(yuan, WAN)}万元（{other}）"


def _short(yuan: int, unit: int) -> str:
    return f"{(Decimal(yuan) / unit).normalize():f}"


def wan(yuan: int, places: int = 2) -> str:
    """Return an amount in 万元 with fixed decimals, halves rounded up, as in `6550.00`."""
    step = Decimal(1).scaleb(-places)
    return f"{(Decimal(yuan) / WAN).quantize(step, ROUND_HALF_UP):f}"


_DAY_NUMBER = (
    r"(?:\d+(?:[.．点]\d+)?|[零\u3007一二两三四五六七八九十]+(?:点[零一二三四五六七八九])?)?"  # noqa: RUF001
    r"\s*(?:天|日)?\s*半?\s*天?"
)
_FULL = re.compile("满勤|全勤|满员|天天都在|一天没落|整月|满月")
_EVERYONE = re.compile(
    rf"(?:我们)?(?:都是|都|全部|全都|全是|每人|每个人|人均|大家都?|各)\s*(?:是|驻点|在)?\s*({_DAY_NUMBER})"
)
_LIST_GAP = re.compile(r"[\s、,，;；/。]+")
_OWN_WORDS = ("本人", "我")


def parse_days(
    text: str,
    roster: Sequence[str],
    nicknames: Mapping[str, str],
    month_days: int,
    reporter: str | None = None,
) -> dict[str, int] | Miss:
    """Return half days on post for each name of the roster.

    `老张22 小李21 我20` goes by name (`nicknames` maps what is said to a roster name, `reporter` is
    who 我 is), `都20天` counts for all, and bare numbers follow the roster's order.
    """
    plain = tidy(text).rstrip("。.！!")
    if _FULL.search(plain):
        return Miss(f"满勤是几天各月不同，请直接写天数，如「{_days_example(roster)}」。")
    everyone = _EVERYONE.fullmatch(plain)
    if everyone:
        return _checked(dict.fromkeys(roster, everyone[1]), month_days)
    parts = [part for part in _LIST_GAP.split(plain) if part]
    if parts and all(_days(part) is not None for part in parts):
        if len(parts) != len(roster):
            names = "、".join(roster)
            return Miss(
                f"花名册上有{len(roster)}人（{names}），收到{len(parts)}个数，"
                f"请按这个顺序重发，如「{_days_example(roster)}」。"
            )
        return _checked(dict(zip(roster, parts, strict=True)), month_days)
    named = _by_name(plain, roster, _known_as(roster, nicknames, reporter))
    return named if isinstance(named, Miss) else _checked(named, month_days)


def _known_as(
    roster: Sequence[str], nicknames: Mapping[str, str], reporter: str | None
) -> dict[str, str]:
    """Return every form of address that can only mean one person of the roster."""
    known: dict[str, set[str]] = {}
    for name in roster:
        surname = name[:1]
        forms = {name, *(f"{prefix}{surname}" for prefix in "老小大")}
        forms |= {
            f"{surname}{suffix}" for suffix in ("某", "队", "工", "哥", "姐", "局", "主任", "科")
        }
        if len(name) == 3:
            forms.add(name[1:])
        for form in forms:
            known.setdefault(form, set()).add(name)
    certain = {form: names.pop() for form, names in known.items() if len(names) == 1}
    if reporter is not None and reporter in roster:
        certain |= dict.fromkeys(_OWN_WORDS, reporter)
    return certain | {name: name for name in roster} | dict(nicknames)


def _by_name(text: str, roster: Sequence[str], known: Mapping[str, str]) -> dict[str, str] | Miss:
    names = "|".join(re.escape(form) for form in sorted(known, key=len, reverse=True))
    pair = re.compile(rf"\s*({names})\s*[:：是]?\s*({_DAY_NUMBER})\s*[、,，;；/和。]*\s*")
    said: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = pair.match(text, at)
        if not found or _days(found[2]) is None:
            return Miss(
                f"没看懂「{text[at : at + 8]}」，花名册上是{'、'.join(roster)}，"
                f"请写成「{_days_example(roster, named=True)}」。"
            )
        name = known[found[1]]
        if name in said:
            return Miss(f"{name}写了两次，请重发，如「{_days_example(roster, named=True)}」。")
        said[name] = found[2]
        at = found.end()
    absent = [name for name in roster if name not in said]
    if absent:
        example = _days_example(roster, named=True)
        return Miss(f"还差{'、'.join(absent)}的天数，请一次写全，如「{example}」。")
    return {name: said[name] for name in roster}


def _days(text: str) -> Decimal | None:
    """Read `22`, `19点5`, `二十天半`, `半天`; None where it is no number of days."""
    plain = re.sub(r"[\s天日]", "", text)
    half = plain.endswith("半")
    whole = read_number(plain.removesuffix("半")) if plain != "半" else Decimal(0)
    if whole is None:
        return None
    return whole + (Decimal("0.5") if half else 0)


def _checked(said: Mapping[str, str], month_days: int) -> dict[str, int] | Miss:
    result = {}
    for name, words in said.items():
        days = _days(words)
        if days is None:
            return Miss(f"没认出{name}的天数，请写数字，如「20」或「19.5」。")
        if days > month_days:
            return Miss(f"本月只有{month_days}天，{name}写了{_plain(days)}天，请更正。")
        if days * 2 != int(days * 2):
            return Miss(
                f"天数以半天为单位，{name}的{_plain(days)}天请改成整数或「.5」，如「19.5」。"
            )
        result[name] = int(days * 2)
    return result


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _days_example(roster: Sequence[str], *, named: bool = False) -> str:
    days = [str(max(22 - place, 1)) for place in range(len(roster))]
    if not named:
        return " ".join(days)
    return " ".join(f"{name}{day}" for name, day in zip(roster, days, strict=True))


def show_days(half_days: int) -> str:
    """Return half days as words, as in `22天` or `19.5天`."""
    return f"{half_days // 2}{'.5' if half_days % 2 else ''}天"


_PHONE_EXAMPLE = "「138 0000 1234」"
_PHONE_NOISE = re.compile(r"[\s\-()（）.·\u2010-\u2015\uff0d]")
_PHONE_WORDS = re.compile(
    r"^(?:我的?|新的?|手机|电话|号码?|联系方式|是|改成|换成|改为|[:：，,])+|[。！!，,]+$"
)


def parse_phone(text: str) -> str | Miss:
    """Return a mainland mobile number as eleven digits, or a foreign one as E.164 with its plus.

    A miss says which digit looks wrong; foreign numbers need their country code.
    """
    plain = _PHONE_WORDS.sub("", tidy(text).replace("\uff0b", "+"))
    mobiles = tuple(dict.fromkeys(find_mobiles(plain)))
    if len(mobiles) > 1:
        return Miss("一次请只发一个手机号。")
    if mobiles:
        return mobiles[0]
    compact = _PHONE_NOISE.sub("", plain)
    national = re.sub(r"^(?:\+|00)86", "", compact)
    if national == compact and compact.startswith(("+", "00")):
        return _abroad(compact)
    return Miss(_what_is_wrong(national))


def _abroad(compact: str) -> str | Miss:
    miss = Miss("这个境外号码不完整，请带国家区号重发，如「+976 9911 2233」。")
    try:
        number = phonenumbers.parse(re.sub(r"^00", "+", compact), None)
    except phonenumbers.NumberParseException:
        return miss
    if not phonenumbers.is_valid_number(number):
        return miss
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _what_is_wrong(national: str) -> str:
    """Say what keeps a text without separators from being a mainland mobile number."""
    strange = [place for place, sign in enumerate(national, 1) if not sign.isdecimal()]
    digits = len(national) - len(strange)
    if digits < 7:
        return f"没认出手机号，请发11位号码，如{_PHONE_EXAMPLE}；境外号码请带国家区号。"
    if strange:
        sign = national[strange[0] - 1]
        return f"第{strange[0]}位「{sign}」不是数字，请核对后再发一次完整的11位号码。"
    if national.startswith("0"):
        return f"这像是座机号，请发11位手机号，如{_PHONE_EXAMPLE}。"
    if not national.startswith("1"):
        return (
            f"第1位是{national[0]}，国内手机号以1开头；境外号码请带国家区号，如「+976 9911 2233」。"
        )
    if digits < 11:
        return f"好像少{'一二三四'[10 - digits]}位（{digits}位）。请再发一次完整的11位号码。"
    if digits > 11:
        return _one_too_many(national)
    return f"第2位是{national[1]}，国内手机号第2位是3到9，请核对后再发一次。"


def _one_too_many(national: str) -> str:
    twins = [place for place in range(1, len(national)) if national[place] == national[place - 1]]
    hint = f"第{twins[0]}、{twins[0] + 1}位重复，可能多按了一次。" if twins else ""
    return f"好像多了（{len(national)}位）。{hint}请再发一次完整的11位号码。"
