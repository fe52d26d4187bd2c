"""The form engine: a dialog is its answers, so restarts, corrections and releases lose nothing."""

# Full-width characters are among the things tested.
# ruff: noqa: RUF001
# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.dispatch import dump_draft, load_draft
from bot.forms import Answers, Ask, Asking, Dialog, DraftState, Form, Step, put, take, template_of
from bot.messages import Kind
from bot.normalize import Miss
from handlers.forms.member_profile import MemberForm, facts_of
from handlers.place import PLACES
from tests.world import OFFICE

TODAY = date(2026, 3, 12)
FACTS = facts_of(PLACES.load("huolingol", {**OFFICE}))


def whole_number(text: str, _asking: Asking) -> "int | Miss":
    return int(text) if text.isdecimal() else Miss("请回数字。")


class Stop(Form, name="test_stop", label="一站"):
    where: Annotated[str, Ask("地点", "去哪里？")]
    visits: Annotated[int, Ask("家数", "走访几家？", whole_number)]

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> "Answers | Miss | None":
        found = re.fullmatch(r"(\D+?)\s*(\d+)家", text)
        return {"where": found[1], "visits": int(found[2])} if found else None


class Funds(Form, name="test_funds", label="到位"):
    amount: Annotated[int, Ask("金额", lambda asking: f"{asking.item} 到位多少？", whole_number)]


class Trip(Form, name="test_trip", label="出差单"):
    days: Annotated[int, Ask("天数", "几天？", whole_number, counted=True)]
    reason: Annotated[
        str | None,
        Ask("事由", "为什么不足20天？", when=lambda asking: asking.get("days", 20) < 20),
    ] = None
    stops: Annotated[
        dict[str, Any],
        Ask("行程", "去了哪里？逐条发「上海 3家」。", rows=Stop, counted=True),
    ]
    funds: Annotated[
        dict[str, Any],
        Ask("资金", "", rows=Funds, each=lambda asking: ("P01", "P02"), counted=True),
    ]
    city: Annotated[str, Ask("城市", "住在哪里？")]
    zone: Annotated[str, Ask("时区", "哪个时区？", follows=("city",))]
    note: Annotated[str | None, Ask("备注", "还有吗？", optional=True)] = None


class Small(Form, name="test_small", label="小表"):
    first: Annotated[str, Ask("甲", "甲？")]
    second: Annotated[int, Ask("乙", "乙？", whole_number)]
    third: Annotated[str, Ask("丙", "丙？")]


def begun(form: type[Form], facts: Mapping[str, Any] | None = None) -> Step:
    return Dialog.begin(form, facts or {}, TODAY).next_step()


def said(form: type[Form], state: DraftState, text: str, kind: Kind = Kind.TEXT) -> Step:
    return Dialog.resume(form, state, TODAY).hear(text, kind)


def told(form: type[Form], *texts: str, facts: Mapping[str, Any] | None = None) -> Step:
    """Begin a form and say these things; the last step."""
    step = begun(form, facts)
    for text in texts:
        assert step.draft is not None, f"the form was over before {text}"
        step = said(form, step.draft, text)
    return step


def transcript(form: type[Form], texts: Sequence[str], *, restarts: bool) -> list[str]:
    """What the form answers to a random talk; after its end it begins anew."""
    step, heard = begun(form, FACTS), []
    for text in texts:
        state = step.draft
        if state is None:
            step = begun(form, FACTS)
            state = step.draft
            assert state is not None
        if restarts:
            state = load_draft(form.name, dump_draft(state))
        step = said(form, state, text)
        heard.append(step.reply.text + ("" if step.done is None else repr(step.done)))
    return heard


WORDS = st.sampled_from(
    [
        *("1", "2", "3", "7", "8", "1 3", "13", "０", "对", "不对", "好", "ok", "是", "没有", "0"),
        *("跳过", "上一步", "取消", "帮助", "继续", "确认", "提交", "改 1", "改 2", "改 9", "算了"),
        *("修改 城市 北京", "修改 姓名 巴特尔", "城市 苏州", "修改 生日 1", "改", "还是1吧"),
        *("上海", "美国春田", "北京朝阳", "高远山", "巴特尔", "阿依古丽·买买提", "上海 3家"),
        *("１和3吧,现在上海开公司,叫高远山", "类别：1\n渊源：2\n姓名：高娃\n城市：上海", "", "？"),
    ]
)


@pytest.mark.parametrize("form", [MemberForm, Trip])
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(WORDS | st.text(max_size=6), max_size=25))
def test_a_restart_before_every_message_changes_no_answer(
    form: type[Form], texts: list[str]
) -> None:
    assert transcript(form, texts, restarts=True) == transcript(form, texts, restarts=False)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(WORDS, max_size=30))
def test_no_talk_brings_the_form_out_of_step(texts: list[str]) -> None:
    step = begun(MemberForm, FACTS)
    for text in texts:
        if step.draft is None:
            break
        step = said(MemberForm, step.draft, text)
        assert step.reply.text or step.done
    if isinstance(step.done, MemberForm):
        assert 1 <= len(step.done.categories) <= 3


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers()),
    st.sampled_from(["a", "rows[1].x", "rows[3].x", "each[P01].x", "each[P01].deep[2].y"]),
    st.integers(),
)
def test_what_is_put_can_be_taken(answers: Answers, path: str, value: int) -> None:
    with_value = put({**answers, "rows": {"rows": [], "closed": False}}, path, value)
    assert put(take(with_value, path), path, value) == with_value


def test_back_asks_the_question_before_again() -> None:
    step = told(Small, "一", "2", "上一步")
    assert step.reply.text == "好的，回到上一题。\n乙？"
    assert told(Small, "上一步").reply.text == "已经是第一题了。\n甲？"


def test_back_from_the_review_takes_the_last_answer_up() -> None:
    assert told(Small, "一", "2", "三", "上一步").reply.text == "好的，回到上一题。\n丙？"


def test_a_number_redoes_an_item_of_the_review() -> None:
    step = told(Small, "一", "2", "三", "改 2")
    assert step.reply.text == "好的，重新填这一项。\n乙？"
    assert step.draft is not None
    review = said(Small, step.draft, "5")
    assert "2. 乙：5" in review.reply.text
    assert "3. 丙：三" in review.reply.text


def test_a_named_item_takes_its_new_value_at_once() -> None:
    step = told(Small, "一", "2", "三", "修改 乙 7")
    assert step.reply.text.startswith("已改：乙=7。")


def test_a_value_that_does_not_fit_leaves_the_old_one() -> None:
    step = told(Small, "一", "2", "三", "修改 乙 很多")
    assert step.reply.text.startswith("请回数字。")
    assert step.draft is not None
    assert step.draft.answers["second"] == 2


def test_a_required_question_is_not_skipped() -> None:
    assert told(Small, "跳过").reply.text.startswith("这一题是必填的，不能跳过。")


def test_a_skipped_question_is_answered_with_nothing() -> None:
    step = told(Trip, "20", "上海 3家", "没有", "1", "2", "上海", "东八", "跳过")
    assert "备注：未填" in step.reply.text


def test_a_filled_in_template_is_read_as_one_message() -> None:
    filled = template_of(Small).replace("甲：", "甲：一").replace("乙：", "乙：很多")
    step = told(Small, filled.replace("丙：", "丙：三"))
    assert step.reply.text == "收到整张表。这几项还需要您看一下：\n乙：请回数字。\n乙？"


def test_the_change_of_an_answer_voids_what_followed_from_it() -> None:
    step = told(Trip, "20", "没有", "1", "2", "纽约", "东五", "跳过", "修改 城市 上海")
    assert step.reply.text == "已改：城市=上海。\n哪个时区？"


def test_an_answer_goes_when_its_question_no_longer_applies() -> None:
    step = told(Trip, "19", "回县开会", "没有", "1", "2", "上海", "东八", "跳过", "修改 天数 21")
    assert step.draft is not None
    assert "reason" not in step.draft.answers


def test_rows_are_asked_for_until_there_are_no_more() -> None:
    step = told(Trip, "20", "上海 3家", "苏州 2家", "没有")
    assert step.draft is not None
    assert step.draft.answers["stops"] == {
        "rows": [{"where": "上海", "visits": 3}, {"where": "苏州", "visits": 2}],
        "closed": True,
    }
    assert step.reply.text.endswith("P01 到位多少？")


def test_a_button_of_an_earlier_question_is_not_an_answer() -> None:
    step = told(Small, "一")
    assert step.draft is not None
    late = said(Small, step.draft, "first=1", Kind.PRESS)
    assert late.reply.text == "这个按钮是前面问题的，请看下面这一题。\n乙？"


@pytest.mark.parametrize("word", ["ok", "好的", "1", "👌"])
def test_only_the_final_word_finishes(word: str) -> None:
    step = told(Small, "一", "2", "三", word)
    assert step.done is None
    assert "「确认」" in step.reply.text


def test_the_final_word_gives_the_whole_form() -> None:
    step = told(Small, "一", "2", "三", "确认")
    assert step.done == Small(first="一", second=2, third="三")
    assert step.draft is None


def test_a_release_that_adds_a_question_asks_it_and_keeps_the_rest() -> None:
    class Before(Form, name="test_release", label="旧表"):
        first: Annotated[str, Ask("甲", "甲？")]
        third: Annotated[str, Ask("丙", "丙？")]

    step = told(Before, "一", "三")
    assert step.draft is not None
    again = Dialog.resume(Small, step.draft, TODAY).again()
    assert again.reply.text == "乙？"
    assert again.draft is not None
    assert again.draft.answers == {"first": "一", "third": "三"}


def test_a_release_that_changes_a_question_asks_it_again() -> None:
    class Before(Form, name="test_release_type", label="旧表"):
        first: Annotated[str, Ask("甲", "甲？")]
        second: Annotated[str, Ask("乙", "乙？")]

    step = told(Before, "一", "两个")
    assert step.draft is not None
    again = Dialog.resume(Small, step.draft, TODAY).again()
    assert again.reply.text == "乙？"


def test_several_answers_at_once_are_confirmed_before_they_count() -> None:
    step = told(MemberForm, "1和3,现在上海开公司,叫高远山", facts=FACTS)
    assert step.draft is not None
    assert step.draft.answers == {}
    corrected = said(MemberForm, step.draft, "城市 苏州")
    assert corrected.draft is not None
    done = said(MemberForm, corrected.draft, "对")
    assert done.draft is not None
    assert done.draft.answers["city"]["city"] == "苏州"
    assert done.draft.answers["full_name"] == "高远山"


def test_what_is_known_is_not_asked_again() -> None:
    step = told(MemberForm, "1和3,现在上海开公司,叫高远山", "对", "3", facts=FACTS)
    assert step.reply.text.startswith("第5/5题 信里怎样称呼您？")


def test_three_categories_are_the_most() -> None:
    assert told(MemberForm, "1 2 3 4", facts=FACTS).reply.text.startswith("最多选3类")
