"""Announcements to groups: nobody alone, nothing personal; and who in a group has no file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from bot.messages import Address
from handlers.group_notices import LONGEST, unfit
from storage.customer_groups import (
    CustomerGroup,
    Roster,
    Seat,
    StaffTask,
    keep_roster,
    standing,
)
from storage.group_notices import GroupNotice
from storage.people import Contact, Person
from storage.profiles import MemberProfile
from storage.states import State
from storage.wechat import keep_unionid
from tests.people import register_many, who
from tests.playing import Player
from tests.world import World

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
ONE, TWO = "memory:test:group-one", "memory:test:group-two"
STAFF = Address("memory", "test", "staff-group")
TEXT = "周六上午九点在会展中心开恳谈会，欢迎参加。"


@pytest.fixture
def office(make_world: Callable[..., World]) -> World:
    """A coordinator, another one and a leader; one group of three members."""
    world = make_world(start="2026-06-20 10:00")
    for name, role in (("小王", "coordinator"), ("小李", "coordinator"), ("老赵", "leader")):
        world.grant(name, role)
    group(world, ONE, "乡亲一群", 3)
    return world


def group(world: World, address: str, name: str, members: int) -> None:
    """A group of so many members and one of the staff."""
    now = world.clock.now()
    seats = [Seat("zhangsan", True, "", "张三", now)]
    seats += [Seat(f"{name}-{n}", False, f"union-{n}", f"昵称{n}", now) for n in range(members)]
    with world.database.session() as session:
        keep_roster(session, address, Roster(name, "zhangsan", "v1", tuple(seats)), now)


def code(world: World, person: str) -> str:
    """What somebody must say to agree to the newest request."""
    shown = world.says(person, "审批")
    number = shown.split("SP-")[1].partition("\u3000")[0]
    return world.says(person, f"审批 SP-{number}").split("同意 ")[1][:4]


def said_to(world: World, address: str) -> list[str]:
    """What left for a group."""
    return [part.text for to, part in world.channel.sent if str(to) == address]


def test_nobody_speaks_to_a_group_alone(office: World) -> None:
    answer = office.talk("小王", "群公告", TEXT, "提交")
    office.settle()
    assert "另一名统筹员或领导" in answer
    assert said_to(office, ONE) == []
    assert "不能审批自己提交的" in office.says("小王", f"同意 {code(office, '小李')}")
    assert "待员工确认" in office.says("小李", f"同意 {code(office, '小李')}")
    office.settle()
    assert said_to(office, ONE) == [TEXT]


def test_what_was_rejected_goes_nowhere(office: World) -> None:
    office.talk("小王", "群公告", TEXT, "提交")
    office.says("老赵", "驳回 SP-0001 时间没定")
    office.settle()
    assert said_to(office, ONE) == []
    assert "被驳回" in office.says("小王", "群公告 QG-0001")


def test_of_several_groups_those_chosen_are_told(office: World) -> None:
    group(office, TWO, "乡亲二群", 2)
    office.talk("小王", "群公告", "2", TEXT, "提交")
    office.says("小李", f"同意 {code(office, '小李')}")
    office.settle()
    assert (said_to(office, ONE), said_to(office, TWO)) == ([], [TEXT])


def test_all_groups_are_told_when_all_are_meant(office: World) -> None:
    group(office, TWO, "乡亲二群", 2)
    office.talk("小王", "群公告", "全部", TEXT, "提交")
    office.says("小李", f"同意 {code(office, '小李')}")
    office.settle()
    assert (said_to(office, ONE), said_to(office, TWO)) == ([TEXT], [TEXT])


def with_staff_group(world: World) -> World:
    """Settings that name a group of the staff."""
    world.channel.facts = replace(world.channel.facts, groups={STAFF: "招商工作群"})
    world.restart()
    return world


def test_the_staffs_own_group_is_told_without_a_tap(office: World) -> None:
    with_staff_group(office)
    assert "1乡亲一群　2招商工作群" in office.talk("小王", "群公告")
    office.talk("小王", "2", TEXT, "提交")
    assert "发到：招商工作群" in office.says("小李", "审批 SP-0001")
    answer = office.says("小李", f"同意 {code(office, '小李')}")
    assert ("正在发到招商工作群" in answer, "群主" in answer) == (True, False)
    office.settle()
    assert (said_to(office, ONE), said_to(office, str(STAFF))) == ([], [TEXT])
    assert "招商工作群：已发出" in office.says("小王", "群公告 QG-0001")


def test_a_published_bulletin_reaches_the_staffs_group_once(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    talk = (TRANSCRIPTS / "通报_两人发布.txt").read_text("utf-8")
    told = talk.replace("发给4人。", "发给4人，并发到招商工作群。")
    assert told != talk
    path = tmp_path / "talk.txt"
    path.write_text(told, "utf-8")
    player = Player(lambda **options: with_staff_group(make_world(**options)))
    player.play(path)
    player.world.settle()
    (heard,) = said_to(player.world, str(STAFF))
    assert heard.startswith("2026年3月驻点招商情况通报（截至3月31日，4月8日发布）")


def test_what_is_signed_for_a_higher_office_needs_a_leader_and_a_number(office: World) -> None:
    answer = office.talk("小王", "群公告", f"{TEXT}\n某某市人民政府\n市政府")
    assert "批准文号" in answer
    answer = office.talk("小王", "霍政发2026年3号", "提交")
    assert "须领导同意" in answer
    number = code(office, "小李")
    assert "还需一位领导同意" in office.says("小李", f"同意 {number}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("请找王小雁，13812345678", "个人手机号"),
        ("身份证11010519491231002X", "证件号"),
        ("请发到 wang@example.org", "邮箱"),
        ("乡亲 HY-2026-000012 请联系我们", "档案号"),
        ("您的信：http://127.0.0.1:8080/p/abcdefgh12345678", "个人专用的链接"),
        ("字" * (LONGEST + 1), "最多"),
    ],
)
def test_nothing_personal_is_said_in_a_group(office: World, text: str, why: str) -> None:
    assert why in office.talk("小王", "群公告", text)
    assert "公告正文" in office.says("小王", "上一步") or why in unfit(text, "")


def test_the_offices_own_mobile_may_be_said() -> None:
    assert unfit("请打电话 13900000000", "13900000000（工作日）") == ""


def test_whoever_approves_is_shown_names_and_links(office: World) -> None:
    register_many(office, 1)
    with office.database.reading() as session:
        name = session.exec(select(MemberProfile.name)).one()
    office.talk("小王", "群公告", f"感谢{name}，详见 https://example.org/a", "提交")
    shown = office.says("小李", "审批 SP-0001")
    assert (name in shown, "是否经本人同意" in shown, "外链" in shown) == (True, True, True)


def test_a_group_whose_month_is_used_up_is_refused_with_the_reason(office: World) -> None:
    now = office.clock.now()
    with office.database.session() as session:
        place = session.exec(select(CustomerGroup)).one()
        for number in range(30):
            session.add(
                StaffTask(id=f"t{number}", group_id=place.id or 0, owner="zhangsan", made_at=now)
            )
    assert "本月的群发次数都用完了" in office.says("小王", "群公告")
    office.at("2026-07-01 10:00")
    assert "公告正文" in office.says("小王", "群公告")


def test_without_a_group_the_text_is_there_to_be_copied(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.grant("小王", "coordinator")
    world.grant("小李", "coordinator")
    world.talk("小王", "群公告", TEXT, "提交")
    answer = world.says("小李", f"同意 {code(world, '小李')}")
    assert "复制到群里" in answer
    assert TEXT in answer


def test_the_author_hears_what_became_of_it(office: World) -> None:
    office.talk("小王", "群公告", TEXT, "提交")
    office.says("小李", f"同意 {code(office, '小李')}")
    office.settle()
    office.passes(minutes=1)
    assert "乡亲一群：已发出" in "\n".join(office.received("小王"))
    told = len(office.received("小王"))
    office.passes(minutes=1)
    assert len(office.received("小王")) == told


def test_what_has_left_cannot_be_recalled(office: World) -> None:
    office.talk("小王", "群公告", TEXT, "提交")
    assert "还没有批准" in office.says("小王", "群公告 撤回 QG-0001")
    office.says("小李", f"同意 {code(office, '小李')}")
    office.settle()
    assert "撤不回来" in office.says("小王", "群公告 撤回 QG-0001")


def test_what_has_not_left_is_recalled_at_once(office: World) -> None:
    office.talk("小王", "群公告", TEXT, "提交")
    office.says("小李", f"同意 {code(office, '小李')}")
    assert "已停下1个群" in office.says("小王", "群公告 撤回 QG-0001")
    office.settle()
    with office.database.reading() as session:
        assert standing(session, "group_notice:QG-0001") == [(ONE, State.CANCELLED, "cancelled")]
    assert said_to(office, ONE) == []


def test_the_welcome_needs_a_second_person_and_keeps_the_nickname(office: World) -> None:
    assert "%NICKNAME%" in office.says("小王", "群欢迎语")
    office.says("小王", "群欢迎语 用")
    office.says("小李", f"同意 {code(office, '小李')}")
    office.settle()
    (words,) = said_to(office, "memory:test:welcome")
    assert words.startswith("%NICKNAME%，欢迎加入！这里是")
    assert "登记" in words


def test_only_coordinators_use_these_words(office: World) -> None:
    for word in ("群公告", "群欢迎语", "在群未建档"):
        assert "由统筹员使用" in office.says("路人", word)


# - in the group, no file yet -


def test_fact_58_a_member_without_unionid_stays_unlinked(office: World) -> None:
    now = office.clock.now()
    with office.database.session() as session:
        seats = (Seat("w1", False, "", "没绑定的人", now),)
        keep_roster(session, TWO, Roster("乡亲二群", "zhangsan", "v1", seats), now)
    answer = office.says("小王", "在群未建档")
    assert "没对上号1人（多半还没关注公众号）：没绑定的人" in answer


def test_the_list_tells_followers_without_a_file_from_strangers(office: World) -> None:
    register_many(office, 1)
    follower = office.person("路人")
    with office.database.session() as session:
        connection, now = session.connection(), office.clock.now()
        member = session.exec(
            select(Contact.person_id).where(Contact.address == f"memory:test:{who(0)}")
        ).one()
        keep_unionid(connection, member, "union-0", now)
        keep_unionid(connection, follower, "union-1", now)
    answer = office.says("小王", "在群未建档")
    assert "乡亲一群：3人，已建档1人" in answer
    assert "关注了公众号、还没建档1人：昵称1" in answer
    assert "没对上号1人（多半还没关注公众号）：昵称2" in answer
    assert "昵称0" not in answer


def test_who_asked_for_silence_is_on_no_list(office: World) -> None:
    follower = office.person("路人")
    with office.database.session() as session:
        keep_unionid(session.connection(), follower, "union-1", office.clock.now())
    office.says("小王", "在群未建档")
    with office.database.session() as session:
        session.get_one(Person, follower).silent_since = office.clock.now() - timedelta(days=1)
    assert "昵称1" not in office.says("小王", "在群未建档")


def test_a_number_that_nobody_gave_is_refused(office: World) -> None:
    assert "没有编号是" in office.says("小王", "群公告 QG-9999")
    with office.database.reading() as session:
        assert session.exec(select(GroupNotice)).all() == []
