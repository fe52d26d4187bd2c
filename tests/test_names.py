"""Names of any people, and letters that address them as they wish."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.normalize import Miss
from handlers.forms.names import (
    parse_name,
    parse_salutation,
    salutation_line,
    salutation_options,
)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("高远山", "高远山"),
        ("我叫高远山。", "高远山"),
        ("姓名：高 远 山", "高远山"),
        ("巴特尔", "巴特尔"),
        ("阿依古丽•买买提", "阿依古丽·买买提"),
        ("阿依古丽 . 买买提", "阿依古丽·买买提"),
        ("阿依古丽\uff0e买买提", "阿依古丽·买买提"),
        ("叶卡捷琳娜・伊万诺娃", "叶卡捷琳娜·伊万诺娃"),
        ("𠮷田", "𠮷田"),
        ("㛃䶮", "㛃䶮"),
        ("Сайнбаяр Бат", "Сайнбаяр Бат"),
        ("ᠪᠠᠲᠤ ᠪᠠᠶᠠᠷ", "ᠪᠠᠲᠤ ᠪᠠᠶᠠᠷ"),
        ("O'Brien", "O'Brien"),
        ("长" * 50, "长" * 50),
    ],
)
def test_names_of_every_people_pass(said: str, name: str) -> None:
    assert parse_name(said) == name


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("高远山1", "不能有数字"),
        ("a@b", "不能有「@」"),
        ("高远山😀", "不能有「😀」"),
        ("高", "至少两个字"),
        ("", "至少两个字"),
        ("长" * 51, "最多50个字"),
        ("确认", "这里请写姓名"),
        ("「同意」", "这里请写姓名"),
    ],
)
def test_what_is_no_name_is_refused_with_examples(said: str, words: str) -> None:
    missed = parse_name(said)
    assert isinstance(missed, Miss)
    assert words in missed.text
    assert "巴特尔" in missed.text


@given(st.text(max_size=60))
def test_an_accepted_name_is_accepted_again_unchanged(text: str) -> None:
    name = parse_name(text)
    assert isinstance(name, Miss) or 2 <= len(name) <= 50


def test_a_han_name_offers_its_surname_and_its_whole() -> None:
    assert salutation_options("高远山") == (
        "高先生",
        "高女士",
        "高老师",
        "高远山同志",
        "高远山先生",
        "高远山女士",
    )


def test_a_compound_surname_is_not_cut_in_two() -> None:
    assert salutation_options("欧阳静")[:3] == ("欧阳先生", "欧阳女士", "欧阳老师")


def test_a_sinicised_mongolian_surname_offers_both_ways() -> None:
    options = salutation_options("包玉兰")
    assert (options[1], options[5]) == ("包女士", "包玉兰女士")


@pytest.mark.parametrize(
    "name",
    [
        "巴特尔",
        "乌日娜",
        "阿依古丽·买买提",
        "高娃",
        "孟和",
        "白音宝力",
        "斯琴高娃",
        "苏日娜",
        "那日苏",
        "金达来",
        "哈斯",
        "满都拉图",
        "Сайнбаяр",
        "司马",
    ],
)
def test_a_name_without_a_certain_surname_is_never_cut(name: str) -> None:
    assert salutation_options(name) == (f"{name}先生", f"{name}女士", f"{name}老师", f"{name}同志")


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("高先生", "高远山", "尊敬的高先生"),
        ("欧阳老师", "欧阳静", "尊敬的欧阳老师"),
        ("巴特尔先生", "巴特尔", "尊敬的巴特尔先生"),
        ("敬爱的额吉", "乌日娜", "敬爱的额吉"),
        ("尊敬的高老师", "高远山", "尊敬的高老师"),
        ("亲爱的老战友", "高远山", "亲爱的老战友"),
        (None, "乌日娜", "尊敬的乌日娜乡亲"),
        ("", "乌日娜", "尊敬的乌日娜乡亲"),
    ],
)
def test_the_opening_line_honours_once_and_never_guesses(
    text: str | None, name: str, line: str
) -> None:
    assert salutation_line(text, name) == line


@pytest.mark.parametrize(
    ("said", "name", "chosen"),
    [
        ("1", "高远山", "高先生"),
        ("选3吧", "欧阳静", "欧阳老师"),
        ("1", "巴特尔", "巴特尔先生"),
        ("2", "阿依古丽·买买提", "阿依古丽·买买提女士"),
        ("高老师哈哈 不对 还是1吧", "高远山", "高先生"),
        ("老战友", "高远山", "老战友"),
        ("7 老战友", "高远山", "老战友"),
        ("敬爱的额吉", "乌日娜", "敬爱的额吉"),
    ],
)
def test_a_form_of_address_is_chosen_or_written(said: str, name: str, chosen: str) -> None:
    assert parse_salutation(said, name) == chosen


@pytest.mark.parametrize("said", ["7", "8", "0", "自定义", "", "称" * 13, "😀😀"])
def test_an_unclear_form_of_address_is_asked_again(said: str) -> None:
    assert isinstance(parse_salutation(said, "高远山"), Miss)
