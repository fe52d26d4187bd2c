"""What registration, correction and withdrawal leave in the tables."""

import json
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from sqlmodel import Session, col, select

from bot.clock import BEIJING
from bot.errors import UserError
from bot.text import content_hash
from handlers.notices import LONGEST_CARD, current
from handlers.place import PLACES
from handlers.role_codes import INVITE
from storage.audit import AuditEntry
from storage.campaigns import Campaign
from storage.dialogs import Draft
from storage.mailbox import Outbox
from storage.organisation import FieldTeam, TeamMember, Unit
from storage.people import (
    ConsentEntry,
    ConsentNow,
    Contact,
    Grant,
    Person,
    unsubscribed,
)
from storage.profiles import MemberProfile, ProfileChange, categories_of
from storage.states import State
from tests.playing import Player
from tests.world import OFFICE, World

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
REGISTER = ("登记", "同意", "是", "1", "3", "高远山", "上海", "1", "确认", "2")


def played(make_world: Callable[..., World], name: str) -> World:
    player = Player(make_world)
    player.play(TRANSCRIPTS / f"{name}.txt")
    return player.world


def registered(world: World, who: str = "乡亲", *more: str) -> int:
    world.talk(who, *REGISTER, *more)
    return world.person(who)


def letter(session: Session, world: World, person_id: int, due: str, **more: object) -> None:
    campaign = Campaign(
        number="X-0001",
        kind="letter",
        title="2026年中秋信",
        occasion="letter:sample",
        purpose="letter",
        template="",
        audience=json.dumps({"cities": ["上海"]}, ensure_ascii=False),
        created_at=world.clock.now(),
    )
    session.add(campaign)
    session.flush()
    row = {
        "occasion": campaign.occasion,
        "recipient": f"p{person_id}",
        "campaign_id": campaign.id,
        "person_id": person_id,
        "address": "memory:test:乡亲",
        "purpose": "letter",
        "scope": "profile",
        "topic": "节日信",
        "lane": "memory:bulk",
        "not_before": datetime.fromisoformat(due).replace(tzinfo=BEIJING),
        "created_at": world.clock.now(),
    }
    session.add(Outbox(**(row | more)))


def test_the_sample_dialogue_leaves_one_consent_and_no_age(
    make_world: Callable[..., World],
) -> None:
    world = played(make_world, "登记_照告知同意")
    with world.database.reading() as session:
        consents = session.exec(select(ConsentEntry)).all()
        profile = session.exec(select(MemberProfile)).one()
        drafts = session.exec(select(Draft)).all()
        categories = categories_of(session, profile.person_id)
    assert [(c.scope, c.action, c.words, c.version) for c in consents] == [
        ("profile", "granted", "同意", "1")
    ]
    assert (profile.name, profile.city, profile.salutation) == ("高远山", "上海", "高先生")
    assert categories == ["entrepreneur", "alumnus"]
    assert drafts == []
    assert [w for w in ("都55", "都５５") if w in _whole_file(world)] == []


def test_the_sample_dialogue_needs_no_more_than_ten_effective_messages() -> None:
    text = (TRANSCRIPTS / "登记_照告知同意.txt").read_text("utf-8")
    said = [line[2:] for line in text.split("建档完成")[0].splitlines() if line.startswith("> ")]
    # Stickers, voice, 好的, ok and the change of mind about the salutation do not count.
    beside = {"[sticker]", "[voice]", "好的", "ok", "上一步", "高老师哈哈 不对 还是1吧"}
    assert len([words for words in said if words not in beside]) <= 10


def test_the_ledger_holds_the_hash_of_the_words_shown(world: World) -> None:
    registered(world)
    told = current(PLACES.load("huolingol", {**OFFICE}))
    with world.database.reading() as session:
        entry = session.exec(select(ConsentEntry)).one()
    assert entry.notice_hash == content_hash(told.card, told.full)
    assert (entry.channel, entry.source) == ("memory", "2")


@pytest.mark.parametrize("name", PLACES.names())
def test_the_notice_card_fits_a_first_screen_in_every_place(name: str) -> None:
    place = PLACES.load(name, {**OFFICE})
    assert len(current(place).card) <= LONGEST_CARD
    assert place.office.name in current(place).full


def test_nothing_but_the_choice_is_kept_of_who_declines(world: World) -> None:
    world.talk("乡亲", "登记", "不同意")
    with world.database.reading() as session:
        entry = session.exec(select(ConsentEntry)).one()
        assert session.exec(select(Draft)).all() == []
        assert session.exec(select(MemberProfile)).all() == []
    assert (entry.action, entry.words) == ("refused", "不同意")


@pytest.mark.parametrize("word", ["好的", "OK", "👍", "1", "嗯", "可以", "[微笑]", "同意吗"])
def test_only_the_word_itself_is_consent(world: World, word: str) -> None:
    world.talk("乡亲", "登记", word)
    with world.database.reading() as session:
        assert session.exec(select(ConsentEntry)).all() == []


@pytest.mark.parametrize("word", ["同意", "我同意", "「同意」", "同意。", "agree"])
def test_the_word_counts_with_quotes_and_full_stop(world: World, word: str) -> None:
    assert world.talk("乡亲", "登记", word).startswith("已记录（告知 v1")


@pytest.mark.parametrize("word", ["我十六岁", "15", "未成年", "否", "还没到呢", "17岁"])
def test_whoever_is_not_grown_up_leaves_no_file_draft_or_live_consent(
    world: World, word: str
) -> None:
    answer = world.talk("乡亲", "登记", "同意", word)
    assert "0475-0000000" in answer
    with world.database.reading() as session:
        assert session.exec(select(Draft)).all() == []
        assert session.exec(select(MemberProfile)).all() == []
        assert not session.exec(select(ConsentNow)).one().live


@pytest.mark.parametrize("word", ["是", "都55了", "五十五", "成年了", "早过了", "18", "满了"])
def test_whoever_is_grown_up_goes_on(world: World, word: str) -> None:
    assert "第1/5题" in world.talk("乡亲", "登记", "同意", word)


def test_registration_is_refused_while_the_office_has_no_telephone(
    make_world: Callable[..., World],
) -> None:
    world = make_world(office={"office_name": "某中心", "signatory": "某中心"})
    assert world.says("乡亲", "登记") == (
        "登记还没有开通：本处尚未填写HONGYAN_OFFICE_PHONE（办公室电话）。"
        "请稍后再来，或转告工作人员。"
    )
    with world.database.reading() as session:
        assert session.exec(select(Draft)).all() == []


def test_a_newer_notice_is_agreed_to_before_new_purposes(world: World) -> None:
    person_id = registered(world)
    with world.database.session() as session:
        session.get_one(ConsentNow, (person_id, "profile")).version = "0"
    assert "告知有更新，请您先过目" in world.says("乡亲", "完善")
    assert "谢谢您，档案照旧" in world.says("乡亲", "同意")
    assert "手机号" in world.says("乡亲", "完善")
    with world.database.reading() as session:
        actions = session.exec(select(ConsentEntry.action).order_by(col(ConsentEntry.id))).all()
    assert actions == ["granted", "renewed"]


def test_refusing_a_newer_notice_leaves_the_old_consent_alone(world: World) -> None:
    person_id = registered(world)
    with world.database.session() as session:
        session.get_one(ConsentNow, (person_id, "profile")).version = "0"
    world.talk("乡亲", "登记", "不同意")
    with world.database.reading() as session:
        assert session.get_one(ConsentNow, (person_id, "profile")).live


def test_file_numbers_count_up_and_begin_anew_each_year(make_world: Callable[..., World]) -> None:
    world = make_world(start="2026-12-31 10:00")
    registered(world, "甲")
    registered(world, "乙")
    world.at("2027-01-01 09:00")
    registered(world, "丙")
    with world.database.reading() as session:
        numbers = session.exec(select(MemberProfile.number).order_by("person_id")).all()
    assert numbers == ["HY-2026-000001", "HY-2026-000002", "HY-2027-000001"]


def test_new_members_get_festival_letters_and_invitations_only(world: World) -> None:
    person_id = registered(world)
    with world.database.reading() as session:
        assert unsubscribed(session, person_id) == {"政策", "家乡动态"}


def test_a_member_abroad_keeps_the_zone_they_chose(make_world: Callable[..., World]) -> None:
    world = played(make_world, "登记_境外多时区")
    with world.database.reading() as session:
        person = session.get_one(Person, world.person("乡亲"))
        profile = session.exec(select(MemberProfile)).one()
    assert person.timezone == "America/Los_Angeles"
    assert (profile.country, profile.city) == ("美国", "春田")


def test_a_correction_seals_what_was_there_before(make_world: Callable[..., World]) -> None:
    world = played(make_world, "修改_手机和城市")
    with world.database.reading() as session:
        changes = session.exec(select(ProfileChange).order_by(col(ProfileChange.id))).all()
        separate = session.get_one(ConsentNow, (world.person("乡亲"), "S8"))
        profile = session.exec(select(MemberProfile)).one()
    assert [(change.name, change.before) for change in changes] == [
        ("phone", "13900002345"),
        ("city", "上海"),
    ]
    assert not separate.live
    assert profile.phone_digest == world.database.keys.digest("13800001234")
    assert profile.phone_tail_digest == world.database.keys.digest("1234")
    file = _whole_file(world)
    assert [n for n in ("13900002345", "13800001234", "152322190001010016") if n in file] == []


def test_nothing_reaches_who_withdrew(world: World) -> None:
    person_id = registered(world)
    world.at("2026-09-25 10:41")
    with world.database.session() as session:
        letter(session, world, person_id, "2026-09-25T19:00")
    code = _code(world.talk("乡亲", "撤回同意", "2"))
    answer = world.says("乡亲", f"确认撤回 {code.lower()}")
    assert answer.startswith(
        "已撤回并停止使用（编号 QX-0001，10:41）。您原定今晚的2026年中秋信已取消。"
    )
    world.steps("2026-10-02 10:00", hours=6)
    assert world.received("乡亲") == []
    with world.database.reading() as session:
        row = session.exec(select(Outbox)).one()
        person = session.get_one(Person, person_id)
        now = session.get_one(ConsentNow, (person_id, "profile"))
        assert session.exec(select(MemberProfile)).all() == []
        assert len(session.exec(select(Contact)).all()) == 1
    assert (row.state, row.reason, row.address) == (State.SUPPRESSED, "withdrawn", None)
    assert (now.live, person.silent_since is not None) == (False, True)


def test_coming_back_needs_consent_anew_and_ends_the_silence(world: World) -> None:
    person_id = registered(world)
    code = _code(world.talk("乡亲", "撤回同意", "2"))
    world.says("乡亲", f"确认撤回{code}")
    assert "先花一分钟看个告知" in world.says("乡亲", "登记")
    world.talk("乡亲", *REGISTER[1:])
    with world.database.reading() as session:
        assert session.get_one(Person, person_id).silent_since is None
        assert session.get_one(MemberProfile, person_id).number == "HY-2026-000002"


def test_the_way_out_is_open_in_the_middle_of_any_form(world: World) -> None:
    registered(world)
    world.talk("乡亲", "完善", "13800001234")
    assert "撤回全部同意会" in world.says("乡亲", "撤回同意")


def test_who_works_for_the_office_keeps_their_role_when_they_leave_as_a_member(
    world: World,
) -> None:
    world.grant("林主任", "coordinator")
    registered(world, "林主任")
    code = _code(world.talk("林主任", "删除档案", "2"))
    answer = world.says("林主任", f"确认删除 {code}")
    assert "工作角色不受影响" in answer
    assert "现有角色" in world.says("林主任", "角色")


def test_why_names_the_segment_of_the_last_letter(world: World) -> None:
    person_id = registered(world)
    with world.database.session() as session:
        sent_at = world.clock.now()
        letter(session, world, person_id, "2026-03-12T09:00", state=State.SENT, sent_at=sent_at)
    assert world.says("乡亲", "为什么收到") == (
        "您最近收到的是《2026年中秋信》（2026-03-12 10:00），属于“节日信”。"
        "发送范围：城市∈{上海}。您同意过登记，又符合这个范围，所以寄给了您。"
        "不想再收请回「退订 节日信」。"
    )


def test_unsubscribing_stops_what_waits_of_that_topic(world: World) -> None:
    person_id = registered(world)
    with world.database.session() as session:
        letter(session, world, person_id, "2026-09-25T10:00")
    world.says("乡亲", "退订 节日信")
    with world.database.reading() as session:
        row = session.exec(select(Outbox)).one()
    assert (row.state, row.reason) == (State.SUPPRESSED, "unsubscribed")


def test_a_definite_project_is_a_coordinators_task_at_once(world: World) -> None:
    world.grant("林主任", "coordinator")
    registered(world, "乡亲", "完善", "跳过", "跳过", "跳过", "1", "跳过", "确认")
    world.drain()
    assert world.received("林主任") == [
        "待办：HY-2026-000001 高远山 有明确的回乡项目，请尽快联系。"
    ]


# --- roles by code ----------------------------------------------------------------------------


def test_the_command_line_makes_one_coordinator_and_no_second(world: World) -> None:
    lines = INVITE.run(world.app.services, ["coordinator"])
    code = lines[0].rpartition("：")[2]
    world.talk("林主任", f"领码{code.lower()}", "林主任")
    assert "现有角色" in world.says("林主任", "角色")
    with pytest.raises(UserError, match="已经有统筹员了"):
        INVITE.run(world.app.services, ["coordinator"])


def test_two_codes_for_the_first_coordinator_make_only_one(world: World) -> None:
    codes = [INVITE.run(world.app.services, ["coordinator"])[0].rpartition("：")[2] for _ in "12"]
    world.talk("甲", f"领码 {codes[0]}", "甲主任")
    assert "这个码作废" in world.says("乙", f"领码 {codes[1]}")


def test_a_role_code_dies_after_seven_days(world: World) -> None:
    code = INVITE.run(world.app.services, ["admin"])[0].rpartition("：")[2]
    world.at("2026-03-19 10:00")
    assert world.says("甲", f"领码 {code}").startswith("授权码不对、已用过或已过期")


def test_a_team_leader_takes_their_line_of_the_roster(world: World) -> None:
    with world.database.session() as session:
        unit = Unit(name="教体局")
        session.add(unit)
        session.flush()
        team = FieldTeam(code="T1", name="第一小分队", unit_id=unit.id or 0, center="上海")
        session.add(team)
        session.flush()
        session.add(TeamMember(team_id=team.id or 0, name="张某", leads=True))
        session.add(TeamMember(team_id=team.id or 0, name="李某", position=1))
        team_id = team.id
    code = INVITE.run(world.app.services, ["team_leader", "--team", "t1"])[0].rpartition("：")[2]
    assert world.says("张队", f"领码 {code}").splitlines() == [
        "您已领取角色：带队人（T1 第一小分队）。",
        "您是花名册上的哪一位？1张某 2李某 3都不是",
    ]
    world.talk("张队", "1", "张队")
    with world.database.reading() as session:
        grant = session.exec(select(Grant)).one()
        member = session.exec(select(TeamMember).where(TeamMember.name == "张某")).one()
        person = session.get_one(Person, world.person("张队"))
    assert (grant.role, grant.team_id) == ("team_leader", team_id)
    assert (member.person_id, person.called) == (person.id, "张队")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["king"], "请写明角色"),
        ([], "用法"),
        (["unit_liaison", "--unit", "火星局"], "请写明单位"),
        (["team_leader"], "请写明小分队编号"),
        (["team_leader", "--team"], "后面要写名称"),
    ],
)
def test_a_wrong_invitation_is_refused_with_the_right_words(
    world: World, arguments: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        INVITE.run(world.app.services, arguments)


def test_the_last_coordinator_stays(world: World) -> None:
    world.grant("林主任", "coordinator")
    assert world.says("林主任", "角色 撤销 1").startswith("这是最后一位统筹员")


def test_roles_and_consents_leave_an_audit_trail(make_world: Callable[..., World]) -> None:
    world = played(make_world, "角色_两人授权")
    with world.database.reading() as session:
        actions = session.exec(select(AuditEntry.action).order_by(col(AuditEntry.id))).all()
    wanted = ["approval.request", "approval.agree", "role.code", "role.taken", "role.revoke"]
    places = [actions.index(action) for action in wanted]
    assert all(before < after for before, after in pairwise(places))


def _code(answer: str) -> str:
    """The code in 「确认撤回 7K3M」."""
    return answer.partition("「")[2].split("」")[0].split()[-1]


def _whole_file(world: World) -> str:
    path = world.database.url.database
    assert path is not None
    return "".join(
        file.read_bytes().decode("utf-8", "ignore") for file in Path(path).parent.glob("world.db*")
    )
