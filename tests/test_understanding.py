"""Several answers in one message, and the restraint not to see answers that are not there."""

# Full-width characters are among the things tested.
# ruff: noqa: RUF001

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.forms.cities import City
from handlers.forms.understanding import understand_member

SHANGHAI = City("上海", "上海")


def test_one_message_may_answer_three_questions() -> None:
    said = "１和3吧,霍林郭勒一中毕业的,现在上海开公司,叫高远山"
    assert understand_member(said, "categories") == {
        "categories": (1, 3),
        "name": "高远山",
        "city": SHANGHAI,
    }


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("1 3", {"categories": (1, 3)}),
        ("3", {"categories": (3,)}),
        ("1，3，我叫巴特尔", {"categories": (1, 3), "name": "巴特尔"}),
        ("8 姓名乌日娜", {"categories": (8,), "name": "乌日娜"}),
        ("我是高远山，住在上海", {"name": "高远山", "city": SHANGHAI}),
        ("姓名：阿依古丽•买买提 现居上海", {"name": "阿依古丽·买买提", "city": SHANGHAI}),
        ("我在上海工作", {"city": SHANGHAI}),
        ("1 现居苏州市吴中区", {"categories": (1,), "city": City("江苏", "苏州")}),
    ],
)
def test_what_is_certain_is_taken(said: str, found: dict[str, object]) -> None:
    assert understand_member(said, "categories") == found


@pytest.mark.parametrize(
    "said",
    [
        "我是老师",
        "我是霍林郭勒人",
        "我是校友",
        "在霍林郭勒出生的",
        "在上海读过书",
        "3家公司",
        "55岁了",
        "都55了",
        "13",
        "1 2 3 4",
        "9",
        "叫什么呢",
        "他叫什么名字",
        "现在忙",
        "现在合作办厂",
        "现在中山大学",
        "",
    ],
)
def test_what_is_uncertain_is_left_for_its_own_question(said: str) -> None:
    assert understand_member(said, "categories") == {}


def test_numbers_answer_only_the_question_that_was_asked() -> None:
    assert understand_member("1 3 叫高远山", "hometown_tie") == {"name": "高远山"}


@given(st.text(max_size=40))
def test_no_text_makes_the_understanding_fail(text: str) -> None:
    assert set(understand_member(text, "categories")) <= {"categories", "name", "city"}
