"""Every marked column is exported, erased and named in the notice, and no log knows a person."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, String, Table
from sqlmodel import Session, SQLModel, col, select

from handlers import codes
from handlers.my_data import EXPORT, EXPORT_PAGE
from handlers.notices import current
from handlers.place import PLACES
from storage.campaigns import Campaign
from storage.conversations import Conversation, Taken
from storage.customer_groups import CustomerGroup, GroupMember
from storage.events import Event, Rsvp
from storage.jobs import Job
from storage.letter_replies import LetterReply
from storage.mailbox import Inbox, Outbox
from storage.people import ConsentEntry, Contact, OneTimeCode, Person
from storage.privacy import export_person, is_text, tables_of_people
from storage.profiles import MemberProfile
from storage.scenes import Arrival
from storage.states import State
from storage.tables import METADATA
from storage.wechat import Follower, NoticeGrant
from tests.playing import Player, parse
from tests.world import OFFICE, World

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
MINE = re.compile("登记|修改|撤回|删除|退订|人工|角色")

NAME, CITY, PHONE, OTHER_PHONE = "欧阳思齐", "鄂尔多斯", "13812345678", "13998765432"
ORG, TITLE, NOTE = "某某蓝天新材料公司", "首席农艺师", "想给母校捐一批图书"
UNION, NICKNAME = "union-of-思齐", "草原上的齐"
CALLED, ADDRESS, LETTER = "齐工", "memory:test:思齐的微信", "盼您中秋回家看看"

TALKS_OF_PEOPLE = re.compile(
    r"name|phone|mobile|address|mail|city|birth|salutation|called|org$|^title$|note|words|body"
    r"|contact|answer|reply|^text$|content$|reason"
)

NOT_ABOUT_ONE_PERSON = {
    "approval_vote.reason": "an official's ground for an official act",
    "days_word.note": "a unit's official word on a report",
    "outbox.reason": "why a row is in its state",
    "outbox.body_hash": "a fingerprint",
    "profile_change.name": "which field was corrected",
}
"""Columns of tables with a person that sound personal and are not, with the reason."""


def lived_through(world: World) -> int:
    """Somebody with every field filled in, a letter sent, a reply stored, a form half way."""
    who = "思齐的微信"
    world.talk(who, "登记", "同意", "是", "1 3", "7", "2", NAME, "美国春田", "3", "3", "确认", "1")
    world.talk(who, OTHER_PHONE, ORG, TITLE, "2", NOTE, "确认", "同意S8")
    world.talk(who, "修改 手机", PHONE, "确认", "修改 城市", CITY, "确认", "退订 节日信")
    world.talk(who, "修改 职务", "总农艺师来了又走", "取消", "导出")
    person_id = world.person(who)
    now = world.clock.now()
    with world.database.session() as session:
        person = session.get_one(Person, person_id)
        person.called, person.timezone = CALLED, "Asia/Ulaanbaatar"
        session.add(_sent(person_id, now))
        session.add(Job(kind="x", person_id=person_id, result=NOTE, created_at=now, state="done"))
        event = Event(
            number="HD-1",
            title="座谈会",
            starts_on=now.date(),
            ends_on=now.date(),
            venue="会展中心",
            capacity=9,
            deadline=now.date(),
            created_by=person_id,
            created_at=now,
        )
        session.add(event)
        session.flush()
        session.add(_rsvp(event.id or 0, person_id, now))
        session.add_all(_on_other_channels(session, person_id, now))
    world.talk(who, "修改 单位", "另一家公司")
    return person_id


def _on_other_channels(session: Session, person_id: int, now: Any) -> list[SQLModel]:
    """What the channels know of them: a follower, in a customer group, talking to the hotline."""
    group = CustomerGroup(address="wecom_group:ww:wr", name="乡亲一群", owner="zhangsan")
    session.add(group)
    session.flush()
    return [
        Follower(person_id=person_id, unionid=UNION, asked_at=now),
        NoticeGrant(person_id=person_id, template="t1", left=1, changed_at=now),
        Arrival(person_id=person_id, scene="unit-3", at=now),
        GroupMember(
            group_id=group.id or 0,
            member="wm思齐",
            unionid=UNION,
            nickname=NICKNAME,
            person_id=person_id,
            joined_at=now,
        ),
        Conversation(address="wecom_kf:wk:思齐", person_id=person_id, seen_at=now),
        Taken(key="wecom_kf:wk:1", channel="wecom_kf", person_id=person_id, body=NOTE, at=now),
        *_answers_to_a_letter(session, person_id, now),
    ]


def _answers_to_a_letter(session: Session, person_id: int, now: Any) -> list[SQLModel]:
    letter = Campaign(
        number="B-9", kind="letter", title="", occasion="l", purpose="letter", template="",
        created_at=now,
    )  # fmt: skip
    session.add(letter)
    session.flush()
    kept = {
        "campaign_id": letter.id or 0,
        "person_id": person_id,
        "key": "k",
        "kind": "words",
        "at": now,
    }
    return [LetterReply(**kept, text=NOTE, answer=LETTER)]


def _sent(person_id: int, now: Any) -> Outbox:
    return Outbox(
        occasion="letter:sample",
        recipient=f"p{person_id}",
        person_id=person_id,
        address=ADDRESS,
        purpose="letter",
        scope="profile",
        lane="memory:bulk",
        state=State.SENT,
        body=json.dumps([{"t": LETTER}], ensure_ascii=False),
        not_before=now,
        created_at=now,
        sent_at=now,
    )


def _rsvp(event_id: int, person_id: int, now: Any) -> Rsvp:
    return Rsvp(
        number="HZ-1",
        event_id=event_id,
        person_id=person_id,
        state="coming",
        heads=3,
        queued_at=now,
        answered_at=now,
    )


def _filled(session: Session, person_id: int) -> set[str]:
    """Marked columns that hold something of this person."""
    found = set()
    for table, whose, columns in tables_of_people():
        for row in session.execute(table.select().where(whose == person_id)).mappings():
            found |= {
                f"{table.name}.{column.name}"
                for column in columns
                if row[column.name] not in (None, "")
            }
    return found


STAFF_ONLY = {"team_member.name", "team_member.nickname"}


def test_the_sample_person_fills_every_marked_column(world: World) -> None:
    person_id = lived_through(world)
    every = {
        f"{table.name}.{column.name}"
        for table, _whose, columns in tables_of_people()
        for column in columns
    }
    with world.database.reading() as session:
        filled = _filled(session, person_id)
    # One tie leads to a banner and another to a subdistrict; nobody has both.
    assert every - filled - STAFF_ONLY - {"member_profile.subdistrict"} == set()


def test_every_marked_column_is_in_the_export(world: World) -> None:
    person_id = lived_through(world)
    with world.database.reading() as session:
        sections = export_person(session, person_id)
        filled = _filled(session, person_id)
    assert {held.column for section in sections for held in section.entries} == filled
    values = {held.value for section in sections for held in section.entries}
    assert {NAME, CITY, PHONE, OTHER_PHONE, ORG, TITLE, NOTE, CALLED, ADDRESS} <= values


def test_the_export_page_hands_over_text_and_file_once_asked(world: World) -> None:
    person_id = lived_through(world)
    services = world.app.services
    with world.database.session() as session:
        token = codes.page_token(session, services.keys, EXPORT_PAGE, person_id, world.clock.now())
        code = session.exec(
            select(OneTimeCode).where(OneTimeCode.digest == services.keys.digest(token))
        ).one()
        assert NAME not in EXPORT.show(services, session, code).text
        assert EXPORT.act is not None
        part = EXPORT.act(services, session, code)
    assert part.file is not None
    kept = json.loads(part.file.content)
    assert NAME in part.text
    assert PHONE in json.dumps(kept, ensure_ascii=False)
    assert code.expires_at - code.created_at == timedelta(hours=24)


def _leave(world: World, word: str) -> None:
    who = "思齐的微信"
    answer = world.talk(who, word, "2")
    world.says(who, answer.partition("「")[2].split("」")[0])


def test_nothing_marked_is_left_after_erasure(world: World) -> None:
    person_id = lived_through(world)
    _leave(world, "删除档案")
    with world.database.reading() as session:
        left = _filled(session, person_id)
        entries = session.exec(select(ConsentEntry).order_by(col(ConsentEntry.id))).all()
        contacts = session.exec(select(Contact).where(Contact.person_id == person_id)).all()
    # The answer to the last message is kept for a day, for the platform's second try.
    assert left - {"inbox.key", "inbox.reply"} == set()
    assert contacts == []
    assert [(e.scope, e.action, e.version, e.words) for e in entries] == [
        ("profile", "granted", "1", ""),
        ("S8", "granted", "1", ""),
        ("S8", "withdrawn", "1", ""),
        ("profile", "withdrawn", "1", ""),
    ]


def test_the_one_reply_kept_after_erasure_names_nobody(world: World) -> None:
    person_id = lived_through(world)
    _leave(world, "删除档案")
    with world.database.reading() as session:
        rows = session.exec(select(Inbox).where(Inbox.person_id == person_id)).all()
    assert len(rows) == 1
    assert [w for w in _secrets() if w in (rows[0].reply or "")] == []


def test_the_database_file_has_no_byte_of_who_was_erased(world: World) -> None:
    lived_through(world)
    assert NAME.encode() in _bytes(world)
    _leave(world, "删除档案")
    left = _bytes(world)
    assert [word for word in _secrets() if word.encode() in left] == []


def test_withdrawing_erases_all_but_the_bare_address(world: World) -> None:
    person_id = lived_through(world)
    _leave(world, "撤回同意")
    with world.database.reading() as session:
        left = _filled(session, person_id)
    assert left - {"inbox.key", "inbox.reply"} == {"contact.address"}


def test_a_name_does_not_outlive_erasure_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    world = World(tmp_path, url=postgres_url)
    try:
        person_id = lived_through(world)
        _leave(world, "删除档案")
        with world.database.reading() as session:
            left = _filled(session, person_id)
    finally:
        world.close()
    assert left - {"inbox.key", "inbox.reply"} == set()


def _secrets() -> tuple[str, ...]:
    return (
        NAME,
        "春田",
        CITY,
        PHONE,
        OTHER_PHONE,
        ORG,
        TITLE,
        NOTE,
        CALLED,
        LETTER,
        "思齐的微信",
        UNION,
        NICKNAME,
    )


def _bytes(world: World) -> bytes:
    with world.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql("BEGIN")
    folder = Path(str(world.database.url.database)).parent
    return b"".join(path.read_bytes() for path in sorted(folder.glob("world.db*")))


@pytest.mark.parametrize("name", PLACES.names())
def test_the_notice_names_every_purpose(name: str) -> None:
    full = current(PLACES.load(name, {**OFFICE})).full
    purposes = {
        column.info["personal"]
        for _table, _whose, columns in tables_of_people()
        for column in columns
    }
    assert [purpose for purpose in sorted(purposes) if purpose not in full] == []


def test_the_notice_lists_every_label_of_the_profile() -> None:
    full = current(PLACES.load("huolingol", {**OFFICE})).full
    asked = ("类别", "渊源", "姓名", "城市", "称呼", "手机", "单位", "职务", "回乡意愿", "想说的话")
    assert [label for label in asked if label not in full] == []


# --- columns that somebody forgot to mark -----------------------------------------------------


def unmarked(metadata: MetaData) -> Iterator[str]:
    """Text columns of tables with a person that sound personal and bear no mark."""
    for table in metadata.sorted_tables:
        if "person_id" not in table.columns and table.name != "person":
            continue
        for column in table.columns:
            if (
                is_text(column)
                and TALKS_OF_PEOPLE.search(column.name)
                and "personal" not in column.info
            ):
                yield f"{table.name}.{column.name}"


def test_no_column_about_a_person_is_unmarked() -> None:
    assert [name for name in unmarked(METADATA) if name not in NOT_ABOUT_ONE_PERSON] == []


def test_a_forgotten_mark_is_caught() -> None:
    metadata = MetaData()
    Table("guest", metadata, Column("person_id"), Column("nick_name", String))
    assert list(unmarked(metadata)) == ["guest.nick_name"]


def test_every_marked_table_knows_whose_it_is() -> None:
    strangers = [
        table.name
        for table in METADATA.sorted_tables
        if any("personal" in column.info for column in table.columns)
        and table.name != "person"
        and "person_id" not in table.columns
    ]
    assert strangers == []


# --- logs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [p for p in TRANSCRIPTS if MINE.match(p.stem)], ids=lambda path: path.stem
)
def test_no_log_line_repeats_what_people_say(
    path: Path,
    make_world: Callable[..., World],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    Player(make_world).play(path)
    streams = capfd.readouterr()
    logged = streams.out + streams.err + "".join(record.getMessage() for record in caplog.records)
    said = {s.line.text for s in parse(path.read_text("utf-8")) if s.line.op == ">"}
    assert [words for words in said if len(words) > 1 and words in logged] == []
    assert re.findall(r"1[3-9]\d{9}|\d{17}[\dXx]", logged) == []


def _namesake(person_id: int, now: Any) -> MemberProfile:
    return MemberProfile(
        person_id=person_id,
        number="HY-2026-000001",
        name="别人",
        hometown_tie="",
        city="上海",
        registered_at=now,
        last_confirmed_at=now,
    )


def test_a_bug_in_the_middle_of_an_answer_logs_no_words(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.talk("乡亲", "登记", "同意", "是", "1", "3", NAME, CITY, "1")
    other = world.person("别人")
    with world.database.session() as session:
        # The number that comes next is taken: the file cannot be written.
        session.add(_namesake(other, world.clock.now()))
    assert world.says("乡亲", "确认").startswith("出了点问题")
    streams = capfd.readouterr()
    assert "handler_failed" in streams.out + streams.err
    assert [w for w in (NAME, CITY) if w in streams.out + streams.err] == []
