"""Turn what a keyboard, a phone or a habit produces into plain characters and exact numbers."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Miss:
    """An answer that was not understood; `text` is the Chinese sentence to say back."""

    text: str


@dataclass(frozen=True)
class Ambiguous(Miss):
    """An answer with several readings, most likely first; `text` asks which one is meant.

    Readings of a choice are tuples of option numbers, readings of money are yuan.
    """

    readings: tuple[object, ...] = ()


# Everything outside plain ASCII, the common ideographs and Chinese punctuation is looked at.
_UNUSUAL = re.compile("[^\u0021-\u007e\u4e00-\u9fff，。、：；？！（）《》“”‘’「」【】]+")
_COMBINING = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u04ff][\u0300-\u036f]+")
_MONGOLIAN = re.compile("[\u1800-\u18af]")
# Mongolian needs its vowel separator, Persian-style joiners and emoji theirs.
_KEPT_FORMATS = frozenset("\u180e\u200c\u200d")


def tidy(text: str) -> str:
    """Return the text with half-width digits, letters and spaces, and no control characters.

    Chinese punctuation, rare ideographs, traditional Mongolian and emoji stay as they were;
    line breaks stay inside the text, and both ends are stripped.
    """
    if _UNUSUAL.search(text) is None:
        return text
    text = _COMBINING.sub(lambda found: unicodedata.normalize("NFC", found[0]), text)
    mongolian = _MONGOLIAN.search(text) is not None
    return _UNUSUAL.sub(lambda found: _plain(found[0], mongolian), text).strip()


def _plain(run: str, mongolian: bool) -> str:
    return "".join(_plain_character(character, mongolian) for character in run)


def _plain_character(character: str, mongolian: bool) -> str:
    if character == "\n" or character in _KEPT_FORMATS:
        return character
    if mongolian and character == "\u202f":
        # The narrow no-break space joins Mongolian suffixes to their word.
        return character
    if character in "\t\u2028\u2029":
        return " "
    category = unicodedata.category(character)
    if category in ("Cc", "Cf", "Cs"):
        return ""
    if category in ("Lu", "Ll", "Nd", "No", "Zs"):
        plain = unicodedata.normalize("NFKC", character)
        # A bracketed number such as ㈠ would bring its brackets along.
        return plain if plain.isalnum() or plain == " " else character
    return character


DIGITS = {
    "零": 0,
    "\u3007": 0,
    "\u25cb": 0,
    "一": 1,
    "二": 2,
    "两": 2,
    "俩": 2,
    "三": 3,
    "仨": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
    "壹": 1,
    "贰": 2,
    "叁": 3,
    "肆": 4,
    "伍": 5,
    "陆": 6,
    "柒": 7,
    "捌": 8,
    "玖": 9,
}
_FORMAL_UNITS = str.maketrans("拾佰仟萬億點", "十百千万亿点")
NUMERAL = "0-9.零\u3007一二两三四五六七八九十百千万亿点半"
_ARABIC = re.compile(r"\d+(?:\.\d+)?")
_THOUSANDS = re.compile(r"(?<=\d)[,，](?=\d{3}(?!\d))")
# One digit in Chinese, or a plain number.
_ONE = f"(?:[{''.join(DIGITS)}]|\\d+(?:\\.\\d+)?)"
_SECTION = re.compile(
    f"(?:(?P<thousands>{_ONE})千)?"
    f"(?:零?(?P<hundreds>{_ONE})百)?"
    f"(?:零?(?P<tens>{_ONE})?(?P<ten>十))?"
    f"(?P<zero>零)?(?P<ones>{_ONE})?"
)


def read_number(text: str) -> Decimal | None:
    """Return the exact number a whole text stands for, or None when it is not one number.

    Understands `8,000`, `1.5` in full width, `十九点五`, `19点5`, `一百零五`, `1亿2千万`, `一亿二`,
    `两个亿`, `半`, and digit by digit as in `二零二六`.
    """
    plain = tidy(text).replace("\uff0e", ".").translate(_FORMAL_UNITS).replace(" ", "")
    plain = _THOUSANDS.sub("", plain).replace("个亿", "亿").replace("个万", "万")
    if not plain:
        return None
    if plain == "半":
        return Decimal("0.5")
    return _with_large_units(plain)


def _with_large_units(text: str) -> Decimal | None:
    for unit, size in (("亿", 10**8), ("万", 10**4)):
        if unit in text:
            before, _, after = text.rpartition(unit)
            many = _with_large_units(before)
            rest = _after_unit(after, size)
            return None if many is None or rest is None else many * size + rest
    return _below_ten_thousand(text)


def _after_unit(text: str, size: int) -> Decimal | None:
    """Read what follows 亿 or 万, where a lone digit counts tenths: 一亿二 is 1.2亿."""
    if not text:
        return Decimal(0)
    if text == "半":
        return Decimal(size) / 2
    if len(text) == 1:
        digit = _digit(text)
        return None if digit is None else digit * size / 10
    rest = _with_large_units(text)
    return rest if rest is not None and rest < size else None


def _below_ten_thousand(text: str) -> Decimal | None:
    whole, point, fraction = text.partition("点")
    if point:
        head, tail = _below_ten_thousand(whole), _digits_in_a_row(fraction)
        if head is None or tail is None or head != int(head):
            return None
        return head + Decimal(f"0.{tail}")
    if _ARABIC.fullmatch(text):
        return Decimal(text)
    row = _digits_in_a_row(text)
    if row is not None:
        return Decimal(row)
    found = _SECTION.fullmatch(text)
    return _section_value(found) if found else None


def _section_value(found: re.Match[str]) -> Decimal | None:
    value = Decimal(0)
    smallest = 10_000
    for name, size in (("thousands", 1000), ("hundreds", 100)):
        if found[name]:
            value += _one(found[name]) * size
            smallest = size
    if found["ten"]:
        tens = _one(found["tens"]) if found["tens"] else Decimal(1)
        if tens >= 10:
            return None
        value += tens * 10
        smallest = 10
    if not found["ones"]:
        return None if found["zero"] else value
    ones = _one(found["ones"])
    if ones >= smallest:
        return None
    colloquial = smallest > 10 and ones < 10 and not found["zero"]
    return value + (ones * smallest / 10 if colloquial else ones)


def _one(text: str) -> Decimal:
    digit = _digit(text)
    return Decimal(text) if digit is None else digit


def _digit(character: str) -> Decimal | None:
    if character in DIGITS:
        return Decimal(DIGITS[character])
    return Decimal(character) if character.isascii() and character.isdigit() else None


def _digits_in_a_row(text: str) -> str | None:
    digits = [_digit(character) for character in text]
    return "".join(str(digit) for digit in digits) if digits and None not in digits else None


def read_integer(text: str) -> int | None:
    """Return the whole number a text stands for, or None."""
    number = read_number(text)
    return int(number) if number is not None and number == int(number) else None
