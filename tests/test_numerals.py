"""Plain characters and exact numbers out of everything a keyboard can produce."""

# Full-width characters are what these tests are about.
# ruff: noqa: RUF001

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.numerals import read_integer, read_number, tidy


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("１３８\u3000００００ ", "138 0000"),
        ("ＯＫ", "OK"),
        ("好的，谢谢！", "好的，谢谢！"),
        ("a\u200bb\x00c\r\nd", "abc\nd"),
        ("①③", "13"),
        ("㈠", "㈠"),
        ("阿依古丽•买买提", "阿依古丽•买买提"),
        ("\u0438\u0306", "\u0439"),
        ("𠮷田\ud800", "𠮷田"),
    ],
)
def test_digits_letters_and_spaces_become_plain_and_the_rest_stays(typed: str, plain: str) -> None:
    assert tidy(typed) == plain


def test_traditional_mongolian_keeps_its_vowel_separator_and_narrow_space() -> None:
    hello = "ᠰᠠᠶᠢᠨ ᠪᠠᠶᠢᠨ\u180eᠠ\u202fᠤᠤ"
    assert tidy(hello) == hello


def test_a_family_emoji_keeps_its_joiners() -> None:
    assert tidy("👨\u200d👩\u200d👧") == "👨\u200d👩\u200d👧"


@given(st.text())
def test_tidying_twice_changes_nothing_more(text: str) -> None:
    assert tidy(tidy(text)) == tidy(text)


@given(st.text())
def test_tidied_text_can_always_be_stored(text: str) -> None:
    assert tidy(text).encode().decode() == tidy(text)


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("8000", "8000"),
        ("8,000", "8000"),
        ("１．５", "1.5"),
        ("十九点五", "19.5"),
        ("19点5", "19.5"),
        ("一百零五", "105"),
        ("一百五", "150"),
        ("一百一十", "110"),
        ("三千五", "3500"),
        ("二十五", "25"),
        ("十", "10"),
        ("二〇二六", "2026"),
        ("1亿2千万", "120000000"),
        ("一亿二", "120000000"),
        ("一亿零五百万", "105000000"),
        ("一亿半", "150000000"),
        ("两个亿", "200000000"),
        ("一点二亿", "120000000"),
        ("3百万", "3000000"),
        ("二十万五千", "205000"),
        ("两万五", "25000"),
        ("壹佰贰拾", "120"),
        ("半", "0.5"),
        ("零", "0"),
    ],
)
def test_numbers_are_read_as_people_say_them(said: str, number: str) -> None:
    assert read_number(said) == Decimal(number)


@pytest.mark.parametrize("said", ["", "几个", "1.2.3", "8,00", "百", "12十", "一千一万亿点", "3瓶"])
def test_what_is_not_one_number_is_none(said: str) -> None:
    assert read_number(said) is None


def test_a_whole_number_is_asked_for_and_a_half_is_refused() -> None:
    assert (read_integer("十二"), read_integer("1.5")) == (12, None)


def chinese(number: int) -> str:
    """Spell a number below one hundred million the way schools teach it."""
    if number >= 10_000:
        high, low = divmod(number, 10_000)
        gap = "零" if 0 < low < 1000 else ""
        return chinese(high) + "万" + gap + (chinese(low) if low else "")
    digits, words, pending = "零一二三四五六七八九", "", False
    for size, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // size % 10
        if digit:
            words += ("零" if pending else "") + digits[digit] + unit
        pending = bool(words) and digit == 0
    return words


@given(st.integers(min_value=1, max_value=99_999_999))
def test_every_properly_spelt_number_is_read_back(number: int) -> None:
    assert read_number(chinese(number)) == number


@given(st.text(max_size=20))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    number = read_number(text)
    assert number is None or number >= 0
