"""Find identity, bank card and mobile numbers in what people write, whatever their dress."""

from __future__ import annotations

import re
from datetime import date

# An identity card has 18 places; people group its digits with spaces or dashes.
_LONG_NUMBER = re.compile(
    r"\d(?:[ \u00a0\u3000.·\-]?\d){13,}[ \u00a0\u3000.·\-]?[\dXx\uff38\uff58]"
)
_SHORTEST = 15
# 「身份证」 left behind alone would pass for an answer, even for a part of a name.
_ITS_NAME = re.compile(r"(?:身份证|证件|银行卡|卡)(?:号码?)?(?:是|为)?[:：]?\s*$")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK = "10X98765432"
# Card numbers begin with their network's digit; times written out (2026…) do not.
_CARD = re.compile(r"(?:[3-9]|2[2-7])\d{15,18}")
_MOBILE = re.compile(r"(?<!\d)(?:(?:\+|00)?86[ \-]?)?(1[3-9]\d(?:[ \u3000\-]?\d){8})(?!\d)")

_ABROAD = re.compile(r"\+\d(?:[ ()\-\u3000]*\d){6,14}")
_LANDLINE = re.compile(r"(?<!\d)0\d{2,3}[ \-]?\d{7,8}(?!\d)")
_MAIL = re.compile(r"[\w.+\-]+@[\w\-]+\.[a-zA-Z]{2,}", re.ASCII)

_WIDE_DIGITS = {0xFF10 + digit: str(digit) for digit in range(10)}


def is_identity_number(number: str) -> bool:
    """Say whether 18 plain characters are a mainland identity number with a true check digit."""
    if not re.fullmatch(r"[1-9][0-9]{16}[0-9X]", number):
        return False
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, _WEIGHTS, strict=False))
    return born.year >= 1850 and number[17] == _CHECK[total % 11]


def is_bank_card_number(number: str) -> bool:
    """Say whether 16 to 19 plain digits pass the Luhn test as card numbers do."""
    if not _CARD.fullmatch(number):
        return False
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(number))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def scrub(text: str) -> tuple[str, bool]:
    """Return the text without identity and bank card numbers, and whether there were any.

    Full-width digits, spaces and dashes between groups, and either case of X are seen through.
    """
    if len(text) < _SHORTEST:
        return text, False
    pieces, kept_to = [], 0
    for found in _LONG_NUMBER.finditer(text):
        for start, end in _numbers_within(found[0]):
            pieces.append(_ITS_NAME.sub("", text[kept_to : found.start() + start]))
            kept_to = found.start() + end
    if not kept_to:
        return text, False
    pieces.append(text[kept_to:])
    return "".join(pieces), True


def _numbers_within(run: str) -> list[tuple[int, int]]:
    """Return the spans of forbidden numbers in a run of digits and separators."""
    places = [place for place, character in enumerate(run) if character.isalnum()]
    plain = "".join(_plain(run[place]) for place in places)
    spans, at = [], 0
    while at < len(places):
        size = _size_at(run, places, plain, at)
        if size:
            spans.append((places[at], places[at + size - 1] + 1))
        at += size or 1
    return spans


def _plain(character: str) -> str:
    return str(int(character)) if character.isdecimal() else "X"


def _size_at(run: str, places: list[int], plain: str, at: int) -> int:
    """Return how many digits from `at` on make a forbidden number, or 0."""
    # A telephone number may stand right before it, so the identity number is looked for anywhere.
    if is_identity_number(plain[at : at + 18]):
        return 18
    begins = at == 0 or places[at - 1] + 1 < places[at]
    if not begins:
        return 0
    for size in (19, 18, 17, 16):
        last = at + size - 1
        ends = last == len(places) - 1 or (
            last < len(places) and places[last] + 1 < places[last + 1]
        )
        if ends and is_bank_card_number(plain[at : at + size]):
            return size
    return 0


def find_mobiles(text: str) -> tuple[str, ...]:
    """Return the mainland mobile numbers in a text, each as eleven plain digits."""
    if len(text) < 11:
        return ()
    found = _MOBILE.findall(text.translate(_WIDE_DIGITS))
    return tuple(re.sub(r"\D", "", number) for number in found)


def reaches_somebody(text: str) -> bool:
    """Say whether a telephone number or a mail address stands in a text: anybody's, of any land."""
    if len(text) < 6:
        return False
    plain = text.translate(_WIDE_DIGITS)
    return any(form.search(plain) for form in (_MOBILE, _ABROAD, _LANDLINE, _MAIL))


def mask_phone(number: str) -> str:
    """Return a telephone number with its middle hidden, as in `138****1234`."""
    if len(number) < 8:
        return "*" * len(number)
    return f"{number[:4] if number.startswith('+') else number[:3]}****{number[-4:]}"
