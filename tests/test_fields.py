"""Money, days on post and telephones as field teams and members type them."""

# Full-width characters are among the things tested.
# ruff: noqa: RUF001

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.normalize import Ambiguous, Miss
from handlers.forms.fields import (
    parse_days,
    parse_money,
    parse_phone,
    show_days,
    show_money,
    wan,
)

WAN = 10_000


@pytest.mark.parametrize(
    ("said", "wan_yuan"),
    [
        ("8000", 8000),
        ("8000万", 8000),
        ("1.2亿", 12000),
        ("1亿2千万", 12000),
        ("一亿二", 12000),
        ("一亿二千", 12000),
        ("3百万", 300),
        ("１．５亿", 15000),
        ("8,000万元", 8000),
        ("8千万", 8000),
        ("两个亿", 20000),
        ("五百", 500),
        ("约3500万左右", 3500),
        ("￥9500万元", 9500),
        ("8000w", 8000),
        ("1500万元整", 1500),
        ("1400.5", 1400.5),
        ("5000元", 0.5),
        ("5千元", 0.5),
        ("0", 0),
        ("没有", 0),
        ("无", 0),
    ],
)
def test_an_amount_is_in_ten_thousands_unless_it_says_otherwise(said: str, wan_yuan: float) -> None:
    assert parse_money(said) == int(wan_yuan * WAN)


def test_five_thousand_without_a_unit_is_asked_about() -> None:
    assert parse_money("5千") == Ambiguous(
        "「5千」是5000元，还是5000万元？请写明单位，如「5000元」或「5000万」。",
        (5000, 50_000_000),
    )


@pytest.mark.parametrize("said", ["500万美元", "$500", "3亿日元", "200万港币", "100 USD"])
def test_foreign_money_is_never_converted_here(said: str) -> None:
    missed = parse_money(said)
    assert isinstance(missed, Miss)
    assert "折算成人民币" in missed.text


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("-5", "负数"),
        ("50.123", "两位小数"),
        ("12345元", "两位小数"),
        ("很多", "没认出金额"),
        ("", "没认出金额"),
        ("1.2亿 固投9500", "没认出金额"),
    ],
)
def test_what_is_no_amount_is_refused_with_an_example(said: str, words: str) -> None:
    missed = parse_money(said)
    assert isinstance(missed, Miss)
    assert words in missed.text
    assert "1.2亿" in missed.text


@pytest.mark.parametrize(
    ("yuan", "shown"),
    [
        (120_000_000, "12000万元（1.2亿元）"),
        (80_000_000, "8000万元（0.8亿元）"),
        (95_000_000, "9500万元（0.95亿元）"),
        (15_000_000, "1500万元（0.15亿元）"),
        (10_000_000_000, "1000000万元（100亿元）"),
        (5000, "0.5万元（5000元）"),
        (0, "0万元"),
    ],
)
def test_an_amount_is_echoed_in_two_units(yuan: int, shown: str) -> None:
    assert show_money(yuan) == shown


@given(st.integers(min_value=1, max_value=10**9).map(lambda hundreds: hundreds * 100))
def test_what_is_echoed_reads_back_as_the_same_amount(yuan: int) -> None:
    echoed = show_money(yuan).split("（")[0]
    assert parse_money(echoed) == yuan


@pytest.mark.parametrize(
    ("yuan", "places", "shown"),
    [
        (65_500_000, 2, "6550.00"),
        (50, 2, "0.01"),
        (49, 2, "0.00"),
        (14_505_000, 1, "1450.5"),
        (15_000, 0, "2"),
        (0, 2, "0.00"),
    ],
)
def test_tables_show_ten_thousands_with_halves_rounded_up(
    yuan: int, places: int, shown: str
) -> None:
    assert wan(yuan, places) == shown


ROSTER = ("张建国", "李晓东", "王海")


@pytest.mark.parametrize(
    ("said", "half_days"),
    [
        ("老张22 小李21 我20", (44, 42, 40)),
        ("老张22 小李21.5 我十九天半", (44, 43, 39)),
        ("我20 老张22，小李21。", (44, 42, 40)),
        ("张建国22天、李晓东21天半、王海20天", (44, 43, 40)),
        ("晓东21 张队二十 本人：19点5", (40, 42, 39)),
        ("都20天", (40, 40, 40)),
        ("大家都二十天半", (41, 41, 41)),
        ("22、21、20", (44, 42, 40)),
        ("22 20 19点5", (44, 40, 39)),
        ("二十天半 20 0", (41, 40, 0)),
        ("２２ ２１ ２０", (44, 42, 40)),
    ],
)
def test_days_are_read_by_name_for_all_or_in_the_order_of_the_roster(
    said: str, half_days: tuple[int, ...]
) -> None:
    days = parse_days(said, ROSTER, {}, 31, "王海")
    assert days == dict(zip(ROSTER, half_days, strict=True))


def test_a_nickname_of_the_team_is_known() -> None:
    days = parse_days("大刘20 老王19", ("刘德海", "王海"), {"大刘": "刘德海"}, 30)
    assert days == {"刘德海": 40, "王海": 38}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("满勤", "直接写天数"),
        ("老张22 小李全勤 我20", "直接写天数"),
        ("22 21", "花名册上有3人（张建国、李晓东、王海），收到2个数"),
        ("老赵22 小李21 我20", "没看懂「老赵22"),
        ("老张22 小李21", "还差王海的天数"),
        ("老张32 小李21 我20", "本月只有31天，张建国写了32天"),
        ("20.3 20 20", "以半天为单位，张建国的20.3天"),
        ("老张22 老张21 我20", "张建国写了两次"),
        ("", "还差"),
    ],
)
def test_days_that_cannot_be_are_refused_with_what_to_send(said: str, words: str) -> None:
    missed = parse_days(said, ROSTER, {}, 31, "王海")
    assert isinstance(missed, Miss)
    assert words in missed.text


def test_a_surname_that_two_share_is_not_guessed() -> None:
    missed = parse_days("老王22 王海20", ("王山", "王海"), {}, 31)
    assert isinstance(missed, Miss)


def test_nobody_is_me_when_the_reporter_is_not_on_the_roster() -> None:
    missed = parse_days("老张22 小李21 我20", ROSTER, {}, 31, "周平")
    assert isinstance(missed, Miss)


@given(st.lists(st.integers(0, 62), min_size=3, max_size=3))
def test_days_shown_read_back_as_the_same_days(half_days: list[int]) -> None:
    said = " ".join(show_days(days) for days in half_days)
    assert parse_days(said, ROSTER, {}, 31) == dict(zip(ROSTER, half_days, strict=True))


@given(st.text(max_size=30))
def test_no_text_makes_the_readers_fail(text: str) -> None:
    assert isinstance(parse_money(text), int | Miss)
    assert isinstance(parse_days(text, ROSTER, {}, 31, "王海"), dict | Miss)
    assert isinstance(parse_phone(text), str | Miss)


@pytest.mark.parametrize(
    ("half_days", "shown"), [(44, "22天"), (39, "19.5天"), (1, "0.5天"), (0, "0天")]
)
def test_half_days_are_shown_as_days(half_days: int, shown: str) -> None:
    assert show_days(half_days) == shown


@pytest.mark.parametrize(
    "said",
    [
        "13800001234",
        "１３８ ００００ １２３４",
        "138-0000-1234",
        "+86 13800001234",
        "＋８６１３８００００１２３４",
        "0086 138 0000 1234",
        "我的新号是13800001234。",
        "13800001234 身份证要不要",
    ],
)
def test_a_mainland_number_is_kept_as_eleven_digits(said: str) -> None:
    assert parse_phone(said) == "13800001234"


@pytest.mark.parametrize(
    ("said", "kept"),
    [("+976 9911 2233", "+97699112233"), ("001 650 253 0000", "+16502530000")],
)
def test_a_foreign_number_is_kept_as_e164(said: str, kept: str) -> None:
    assert parse_phone(said) == kept


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("１３８ ００００ １２３", "好像少一位（10位）。请再发一次完整的11位号码。"),
        ("138000012345", "好像多了（12位）。第4、5位重复"),
        ("1380000l234", "第8位「l」不是数字"),
        ("12800001234", "第2位是2"),
        ("99112233", "国家区号"),
        ("0475-7920000", "座机"),
        ("+1 23", "不完整"),
        ("好的", "没认出手机号"),
        ("13800001234 13900001234", "只发一个"),
    ],
)
def test_a_wrong_number_is_answered_with_what_is_wrong(said: str, words: str) -> None:
    missed = parse_phone(said)
    assert isinstance(missed, Miss)
    assert words in missed.text
