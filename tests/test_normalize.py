"""Choices, yes and no, reserved and legal words, and commands that were mistyped."""

# Full-width characters are what these tests are about.
# ruff: noqa: RUF001

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.normalize import (
    Ambiguous,
    Answer,
    Explicit,
    Miss,
    Reserved,
    answer,
    coded,
    explicit,
    is_no,
    is_soft_yes,
    is_yes,
    near_miss,
    pick_numbers,
    reserved,
)

WORDS = """
登记 继续 我的档案 修改 完善 导出 撤回同意 删除档案 退订 订阅 隐私 为什么收到 关闭推荐 绑定
活动 报名 回执 改回执 政策 报线索 我的线索 求助 进度 重开 投诉 申请大使 投稿 人工 帮助 月报
补报 更正 周动态 项目进展 跨区 申报区域 换人 群发 信件 审批 名单 迟报 催报 认定 冻结 通报 排名
"""
COMMANDS = WORDS.split()


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ("1、3", (1, 3)),
        ("1 3", (1, 3)),
        ("１和3", (1, 3)),
        ("１和3吧", (1, 3)),
        ("一和三", (1, 3)),
        ("3,1,3", (3, 1)),
        ("选第2个", (2,)),
        ("1到3", (1, 2, 3)),
        ("全选", (1, 2, 3, 4, 5, 6, 7, 8)),
    ],
)
def test_chosen_numbers_come_in_the_order_said(said: str, numbers: tuple[int, ...]) -> None:
    assert pick_numbers(said, 8) == numbers


def test_thirteen_of_eight_options_is_asked_about() -> None:
    picked = pick_numbers("13", 8)
    assert picked == Ambiguous(
        "「13」是指1和3吗？请用空格隔开再发，如「1 3」。",
        ((1, 3),),
    )


def test_thirteen_of_fourteen_options_is_the_thirteenth() -> None:
    assert pick_numbers("13", 14) == (13,)


def test_a_dash_between_two_numbers_may_mean_two_or_many() -> None:
    picked = pick_numbers("1-3", 8)
    assert isinstance(picked, Ambiguous)
    assert picked.readings == ((1, 3), (1, 2, 3))


@pytest.mark.parametrize("said", ["9", "0", "11", "企业家", "", "1 9", "1和3吧,霍林郭勒"])
def test_numbers_outside_the_options_and_other_talk_are_refused_with_advice(said: str) -> None:
    picked = pick_numbers(said, 8)
    assert isinstance(picked, Miss)
    assert "1到8" in picked.text


@given(st.text(max_size=12), st.integers(min_value=1, max_value=20))
def test_a_pick_never_leaves_the_options(said: str, options: int) -> None:
    picked = pick_numbers(said, options)
    assert isinstance(picked, Miss) or all(1 <= number <= options for number in picked)


@pytest.mark.parametrize(
    "said", ["是", "对的", "好", "嗯", "行", "可以", "ok", "OK", "ＯＫ！", "👌", "👍🏻"]
)
def test_yes_in_all_its_forms(said: str) -> None:
    assert (is_yes(said), is_no(said)) == (True, False)


@pytest.mark.parametrize("said", ["不", "否", "不是", "没有", "别", "算了", "No."])
def test_no_in_all_its_forms(said: str) -> None:
    assert (is_yes(said), is_no(said)) == (False, True)


@pytest.mark.parametrize(
    "said", ["是不是", "对面", "好像不是", "行业", "1", "不知道", "都５５了", "[微笑]"]
)
def test_longer_words_and_bare_numbers_are_neither_yes_nor_no(said: str) -> None:
    assert (is_yes(said), is_no(said)) == (False, False)


def test_a_yes_may_be_followed_by_more_talk() -> None:
    assert answer("对 你们今年活动啥时候") == Answer(True, "你们今年活动啥时候")


def test_a_no_may_be_followed_by_more_talk() -> None:
    assert answer("不是，城市是苏州") == Answer(False, "城市是苏州")


def test_talk_that_only_begins_like_a_yes_is_no_answer() -> None:
    assert answer("对面的 那家公司") is None


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("跳过", Reserved.SKIP),
        ("略", Reserved.SKIP),
        ("-", Reserved.SKIP),
        ("「跳过」", Reserved.SKIP),
        ("上一步", Reserved.BACK),
        ("Back", Reserved.BACK),
        ("取消", Reserved.CANCEL),
        ("不填了", Reserved.CANCEL),
        ("不填", Reserved.SKIP),
        ("ｑ", Reserved.CANCEL),
        ("继续", Reserved.CONTINUE),
        ("人工。", Reserved.HUMAN),
        ("？", Reserved.HELP),
        ("取消剩余", None),
        ("我想取消", None),
        ("无", None),
    ],
)
def test_reserved_words_steer_only_as_whole_texts(said: str, meaning: Reserved | None) -> None:
    assert reserved(said) == meaning


def test_none_skips_an_optional_question_only() -> None:
    assert (reserved("无", optional=True), reserved("无")) == (Reserved.SKIP, None)


def test_never_mind_cancels_except_where_it_answers_no() -> None:
    assert (reserved("算了"), reserved("算了", yes_no=True)) == (Reserved.CANCEL, None)


@pytest.mark.parametrize(
    ("said", "declared"),
    [
        ("同意", Explicit.AGREE),
        ("我同意", Explicit.AGREE),
        ("Agree", Explicit.AGREE),
        ("「同意」", Explicit.AGREE),
        ("同意。", Explicit.AGREE),
        ("不同意", Explicit.DECLINE),
        ("确认", Explicit.CONFIRM),
        ("提交", Explicit.SUBMIT),
        ("同意吧", None),
        ("同意？", None),
        ("不太同意", None),
        ("确认一下", None),
    ],
)
def test_declarations_count_only_word_for_word(said: str, declared: Explicit | None) -> None:
    assert explicit(said) == declared


@pytest.mark.parametrize("said", ["好的", "嗯", "OK", "👍", "1", "可以"])
def test_a_friendly_noise_is_not_consent(said: str) -> None:
    assert (explicit(said), is_soft_yes(said)) == (None, True)


@pytest.mark.parametrize("said", ["同意", "不同意", "不", "活动啥时候"])
def test_a_declaration_or_other_talk_is_not_a_soft_yes(said: str) -> None:
    assert is_soft_yes(said) is False


@pytest.mark.parametrize(
    ("said", "verb", "code"),
    [
        ("同意 3fa9", "同意", ("3FA9", "")),
        ("同意3FA9", "同意", ("3FA9", "")),
        ("确认撤回 ７k3m", "确认撤回", ("7K3M", "")),
        ("同意s6  12号下午3点多", "同意", ("S6", "12号下午3点多")),
        ("「同意S8」", "同意", ("S8", "")),
        ("同意", "同意", None),
        ("同意 13800001234", "同意", None),
        ("不同意 3fa9", "同意", None),
    ],
)
def test_a_verb_with_its_code_is_read_apart(
    said: str, verb: str, code: tuple[str, str] | None
) -> None:
    assert coded(said, verb) == code


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("登计", "登记"),
        ("约报", "月报"),
        ("灯记", "登记"),
        ("dengji", "登记"),
        ("你好 我想登计一下", "登记"),
        ("你好，我想登记一下", "登记"),
        ("我的挡案", "我的档案"),
        ("撒回同意", "撤回同意"),
        ("查我的档案", "我的档案"),
        ("改回值", "改回执"),
        ("记登", "登记"),
        ("登记", "登记"),
    ],
)
def test_a_slip_finds_the_one_command_meant(typed: str, meant: str) -> None:
    assert near_miss(typed, COMMANDS) == meant


@pytest.mark.parametrize("typed", ["今天天气真好", "行动", "1", "", "谢谢", "👍", "高远山"])
def test_ordinary_talk_is_no_command(typed: str) -> None:
    assert near_miss(typed, COMMANDS) is None


def test_two_possible_commands_are_no_answer() -> None:
    assert near_miss("我想登记和报名", COMMANDS) is None


def test_a_long_message_is_never_taken_for_a_command() -> None:
    assert near_miss("前几天有人跟我说起家乡要登计什么的我没太听明白", COMMANDS) is None
