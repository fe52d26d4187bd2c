"""Identity, card and mobile numbers are found however they are written."""

# Full-width digits are among the things tested.
# ruff: noqa: RUF001

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.personal_numbers import (
    find_mobiles,
    is_bank_card_number,
    is_identity_number,
    mask_phone,
    scrub,
)

WEIGHTS = [2 ** (17 - place) % 11 for place in range(17)]
WIDE = str.maketrans("0123456789X", "０１２３４５６７８９Ｘ")


def identity(area: int, born: date, order: int) -> str:
    """Make a number by the standard's own formula: no person is meant."""
    body = f"{area:06d}{born:%Y%m%d}{order:03d}"
    remainder = sum(int(digit) * weight for digit, weight in zip(body, WEIGHTS, strict=True)) % 11
    return body + "10X98765432"[remainder]


def card(body: str) -> str:
    """Append the digit that makes the Luhn sum come out."""
    return next(body + str(digit) for digit in range(10) if luhn(body + str(digit)))


def luhn(number: str) -> bool:
    table = {False: "0123456789", True: "0246813579"}
    digits = (int(table[place % 2 == 1][int(d)]) for place, d in enumerate(reversed(number)))
    return sum(digits) % 10 == 0


IDENTITY = identity(152322, date(1971, 5, 6), 12)
WITH_X = next(
    number
    for number in (identity(152322, date(1971, 5, 6), order) for order in range(1, 99))
    if number.endswith("X")
)
CARD = card("622202100000000001")

identities = st.builds(
    identity,
    st.integers(110000, 659999),
    st.dates(date(1900, 1, 1), date(2026, 12, 31)),
    st.integers(0, 999),
)


@given(identities)
def test_every_well_formed_identity_number_is_taken_out(number: str) -> None:
    assert scrub(f"我的证件是{number}，要不要") == ("我的，要不要", True)


@given(identities, st.integers(0, 16), st.integers(1, 9))
def test_one_wrong_digit_makes_it_no_identity_number(number: str, place: int, step: int) -> None:
    wrong = str((int(number[place]) + step) % 10)
    assert is_identity_number(number[:place] + wrong + number[place + 1 :]) is False


@pytest.mark.parametrize(
    "written",
    [
        IDENTITY,
        WITH_X,
        WITH_X.lower(),
        IDENTITY.translate(WIDE),
        WITH_X.translate(WIDE),
        f"{IDENTITY[:6]} {IDENTITY[6:14]} {IDENTITY[14:]}",
        "-".join([IDENTITY[:6], IDENTITY[6:14], IDENTITY[14:]]),
        " ".join(IDENTITY),
        CARD,
        " ".join([CARD[:4], CARD[4:8], CARD[8:12], CARD[12:16], CARD[16:]]),
        card("411111111111111"),
    ],
)
def test_a_number_is_seen_through_its_dress(written: str) -> None:
    assert scrub(f"号码 {written} 收好") == ("号码  收好", True)


def test_a_phone_number_beside_an_identity_number_stays() -> None:
    assert scrub(f"13800001234 身份证{IDENTITY}要不要") == ("13800001234 要不要", True)


@pytest.mark.parametrize("gap", ["", " ", " - "])
def test_a_phone_number_right_before_an_identity_number_stays(gap: str) -> None:
    text, found = scrub(f"13800001234{gap}{IDENTITY}")
    assert (text, found) == (f"13800001234{gap}", True)


def test_two_numbers_in_one_message_both_go() -> None:
    assert scrub(f"{IDENTITY} {CARD}，{WITH_X}") == (" ，", True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "138 0000 1234",
        "2026-03-12 10:02 到 2026-03-31 17:55",
        "P01 1400 100 P02 1500 300 P03 800 200",
        "HY-2026-000123 QZ-2026-0457 HZ-0815-042",
        "22 20 19.5 18 12 11 10 9",
        "152322197105060129999999",
        "投资方：某食品公司；速冻玉米；8千万",
    ],
)
def test_ordinary_figures_stay(text: str) -> None:
    assert scrub(text) == (text, False)


@given(st.text(max_size=60))
def test_scrubbing_never_fails_and_never_adds(text: str) -> None:
    left, found = scrub(text)
    assert len(left) < len(text) if found else left == text


@given(st.text(alphabet="0123456789 -Xx，a", max_size=80))
def test_nothing_is_left_to_scrub_at_the_same_place(text: str) -> None:
    left, _ = scrub(text)
    assert all(not is_identity_number(word) for word in left.split("，"))


def test_a_card_number_needs_its_luhn_digit() -> None:
    wrong = CARD[:-1] + str((int(CARD[-1]) + 1) % 10)
    assert (is_bank_card_number(CARD), is_bank_card_number(wrong)) == (True, False)


@pytest.mark.parametrize(
    "text",
    [
        "电话13800001234",
        "１３８ ００００ １２３４",
        "138-0000-1234。",
        "+86 13800001234",
        "008613800001234",
    ],
)
def test_a_mobile_number_is_found_in_any_dress(text: str) -> None:
    assert find_mobiles(text) == ("13800001234",)


@pytest.mark.parametrize("text", ["12800001234", "1380000123", "138000012345", "0475-7920000", ""])
def test_other_numbers_are_no_mobiles(text: str) -> None:
    assert find_mobiles(text) == ()


@pytest.mark.parametrize(
    ("number", "masked"),
    [("13800001234", "138****1234"), ("+97699112233", "+976****2233"), ("110", "***")],
)
def test_a_masked_number_shows_only_its_ends(number: str, masked: str) -> None:
    assert mask_phone(number) == masked
