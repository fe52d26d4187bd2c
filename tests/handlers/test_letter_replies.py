"""What members say to a letter: kept for the coordinators, thanked for, answered, forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import select

from bot.messages import Happening, Kind
from handlers.letter_replies import meant
from storage.audit import VIEWED, AuditEntry
from storage.letter_replies import LetterReply, ReplyKind
from storage.mailbox import Outbox
from tests.people import HOMES, register_many, who
from tests.world import World

READER = who(0)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A notice that has reached two members, lived through once for all tests."""
    world = World(tmp_path_factory.mktemp("read"), start="2026-06-20 10:00")
    register_many(world, 2, homes=HOMES[:1])
    world.grant("小王", "coordinator")
    answer = world.talk("小王", "群发", "3", "政策更新", "已更新。", "全体", "立即", "提交")
    found = re.search(r"确认发送 (\w{4})", answer)
    assert found, answer
    world.says("小王", f"确认发送 {found[1]}")
    world.drain()
    yield world
    world.close()


@pytest.fixture
def read(once: World, tmp_path: Path) -> Iterator[World]:
    """A copy of that world."""
    world = once.copy(tmp_path)
    yield world
    world.close()


def kept(world: World) -> list[tuple[str, str, bool]]:
    with world.database.reading() as session:
        rows = session.exec(select(LetterReply).order_by(LetterReply.id)).all()  # type: ignore[arg-type]
    return [(row.kind, row.text, row.read_at is None) for row in rows]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("收到", "courtesy"),
        ("收到，谢谢！", "courtesy"),
        ("新年好", "courtesy"),
        ("祝家乡父老新春快乐，万事如意🎉", "courtesy"),
        ("[强][抱拳]", "courtesy"),
        ("👍👍", "courtesy"),
        ("好的 辛苦了", "courtesy"),
        ("收到信了，替我向家乡父老问好", "courtesy"),
        ("今年还有恳谈会吗", "question"),
        ("想打听一下人才公寓", "question"),
        ("收到了？", "question"),
        ("我父亲去世了，以后不用寄了", "question"),
        ("我母亲也看了信，很高兴", "words"),
        ("我搬到苏州了", "words"),
        ("收到，下个月我回去一趟", "words"),
    ],
)
def test_a_courtesy_a_question_and_other_words_are_told_apart(words: str, kind: str) -> None:
    assert meant(words) == ReplyKind(kind)


def test_a_bare_thank_you_is_thanked_for_and_bothers_nobody(read: World) -> None:
    assert read.says(READER, "收到，谢谢") == "谢谢您的回音，也祝您一切顺遂。"
    assert kept(read) == [("courtesy", "收到，谢谢", False)]
    assert "问候1" in read.says("小王", "回信箱")
    assert "收到，谢谢" in read.says("小王", "回信箱 政策 问候")


def test_a_question_is_promised_an_answer_and_gets_it_once(read: World) -> None:
    assert "答复会从这里发给您" in read.says(READER, "人才公寓怎样申请")
    box = read.says("小王", "回信 政策")
    assert re.search(r"●1　.+问：人才公寓怎样申请", box)
    assert read.says("小王", "回信 答复 1 请带毕业证到办公室。").startswith("已答复")
    read.drain()
    assert read.received(READER)[-1].endswith("请带毕业证到办公室。")
    assert "已经答复过" in read.says("小王", "回信 答复 1 再来一遍")
    assert "（已答复：请带毕业证到办公室。）" in read.says("小王", "回信箱 1")


def test_words_are_unread_until_marked_and_each_look_is_noted(read: World) -> None:
    read.says(READER, "我母亲也看了信")
    assert read.says(READER, "她很高兴") == "这句也收下了。"
    assert read.says("小王", "回信箱").startswith("未读回信2条：\nB-0001「政策更新」回信2，未读2")
    read.says("小王", "回信箱 b1")
    assert read.says("小王", "回信 已读 1") == "1条记为已读，还有1条未读。"
    assert read.says("小王", "回信 已读 B-0001") == "1条记为已读，没有未读的了。"
    with read.database.reading() as session:
        looks = session.exec(select(AuditEntry).where(AuditEntry.action == VIEWED)).all()
    assert [look.reason for look in looks if "回信" in look.reason] == ["B-0001 回信"]


def test_the_receipts_say_how_many_answered(read: World) -> None:
    read.talk(READER, "我母亲也看了信", "谢谢")
    assert "回信1（未读1），问候1" in read.says("小王", "群发 回执 B-0001")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("菜单", "您好，这里是"),
        ("1", "这句话我没看懂"),
        ("。", "这句话我没看懂"),
        ("别再给我寄信了", "退订"),
        ("人工", "已转告工作人员"),
    ],
)
def test_what_is_no_answer_to_the_letter_is_not_kept(words: str, answer: str, read: World) -> None:
    assert answer in read.says(READER, words)
    assert kept(read) == []


def test_words_long_after_the_letter_are_not_for_it_unless_they_say_so(read: World) -> None:
    read.passes(hours=49)
    assert "这句话我没看懂" in read.says(READER, "家乡变化真大")
    assert "收下了" in read.says(READER, "回信 家乡变化真大")
    assert kept(read) == [("words", "家乡变化真大", True)]


def test_a_form_hears_its_answers_but_a_reply_to_the_letter_s_bubble_is_for_the_letter(
    read: World,
) -> None:
    with read.database.reading() as session:
        row = session.exec(select(Outbox).where(Outbox.address == f"memory:test:{READER}",
                                                Outbox.campaign_id == 1)).one()  # fmt: skip
    read.says(READER, "修改 单位")
    inbound = read.inbound(READER, "信写得真好，念给孩子听了", reply_to=row.provider_id)
    assert "收下了" in read.hears(inbound)
    assert "蓝天公司" in read.says(READER, "蓝天公司")
    assert kept(read) == [("words", "信写得真好，念给孩子听了", True)]


def test_an_identity_number_is_not_kept(read: World) -> None:
    answer = read.says(READER, "我的身份证是11010519491231002X，帮我办一下")
    assert answer.startswith("证件号或卡号我们不需要")
    assert "11010519491231002X" not in kept(read)[0][1]


def test_nothing_is_kept_of_groups_pictures_strangers_and_who_withdrew(read: World) -> None:
    read.says_in_group(READER, "家乡变化真大", addressed=True)
    read.says(READER, "", kind=Kind.IMAGE)
    read.says("路人", "家乡变化真大")
    answer = read.talk(READER, "撤回同意", "2")
    read.says(READER, answer.partition("「")[2].split("」")[0])
    read.says(READER, "家乡变化真大")
    assert kept(read) == []


def test_an_answer_to_who_withdrew_is_refused(read: World) -> None:
    read.says(READER, "人才公寓怎样申请")
    answer = read.talk(READER, "撤回同意", "2")
    read.says(READER, answer.partition("「")[2].split("」")[0])
    assert kept(read) == []
    assert "没有编号为1的回信" in read.says("小王", "回信 答复 1 您好")


def test_only_coordinators_see_the_box(read: World) -> None:
    read.says(READER, "我母亲也看了信")
    assert "由统筹员使用" in read.says(who(1), "回信箱")
    assert "由统筹员使用" in read.says(who(1), "回信 已读 B-0001")
    assert "母亲" not in read.says(who(1), "回信")


def test_who_writes_of_a_death_is_met_with_sympathy_and_heard(read: World) -> None:
    assert read.says(READER, "我父亲去世了，以后不用寄了").startswith("请您节哀。")
    assert kept(read) == [("question", "我父亲去世了，以后不用寄了", True)]


def test_a_sentence_that_merely_mentions_a_command_is_for_the_letter(read: World) -> None:
    assert read.says(READER, "我想报名") == "您是要「回执」吗？回「是」。"
    assert read.says(READER, "不是").startswith("您的回信收下了")
    read.says(READER, "人工智能的企业能回来落户吗")
    assert [text for _kind, text, _new in kept(read)] == ["我想报名", "人工智能的企业能回来落户吗"]


def test_what_is_said_instead_of_yes_or_no_is_heard_anew(read: World) -> None:
    read.says(READER, "我想报名")
    assert "您好，这里是" in read.says(READER, "菜单")
    read.says(READER, "我想报名")
    assert "手机" in read.says(READER, "我换手机号了")


def test_an_answer_that_is_taken_back_is_gone(read: World) -> None:
    said = read.inbound(READER, "我母亲也看了信")
    read.hears(said)
    recalled = read.inbound(READER, Happening.RECALLED, kind=Kind.EVENT, argument=said.id)
    assert read.hears(recalled) == "您撤回的那条回信已删去。"
    assert kept(read) == []


def test_nobody_fills_the_box_alone(read: World) -> None:
    for number in range(20):
        read.says(READER, f"第{number}次想起小时候")
    assert "已收下20条" in read.says(READER, "再想起一次")
    assert len(kept(read)) == 20


def test_coordinators_hear_of_new_answers_in_the_morning(read: World) -> None:
    read.says(READER, "我母亲也看了信")
    read.at("2026-06-21 09:01")
    read.at("2026-06-21 10:00")
    told = [words for words in read.received("小王") if "回信箱" in words]
    assert told == ["有1条乡亲的回信未读，请回「回信箱」查看。"]


def test_answers_are_forgotten_after_a_year(read: World) -> None:
    read.says(READER, "我母亲也看了信")
    read.at("2027-06-23 04:00")
    assert kept(read) == []
