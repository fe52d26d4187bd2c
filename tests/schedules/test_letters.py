"""Festival letters: their days over decades, their texts for everybody, and their way to people."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from borax.calendars.lunardate import LunarDate
from sqlmodel import select

from bot.clock import BEIJING, beijing
from bot.commands import CliWord
from bot.errors import ConfigError
from bot.text import render
from handlers.composition import MAX_BYTES, MAX_CHARACTERS, dated, occasion_phrase
from handlers.festivals import Letter, load_letter
from handlers.forms.names import salutation_line, salutation_options
from handlers.place import PLACES, Place
from schedules.letters import LETTERS
from storage.campaigns import Campaign, CampaignState
from storage.mailbox import Outbox
from storage.people import Contact, unsubscribe
from storage.states import State
from tests.people import name_of, register_many, who
from tests.world import World

NAMES = {letter.name: letter for letter in LETTERS}
COLUMNS = {
    "spring_festival": "除夕",
    "lantern_festival": "元宵",
    "dragon_boat": "端午",
    "mid_autumn": "中秋",
    "double_ninth": "重阳",
}
TABLE = Path(__file__).parents[1] / "data" / "festivals.csv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))


# --- days ---


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["year"])
def test_letters_leave_on_the_days_of_the_reference_table(row: dict[str, str]) -> None:
    found = {name: NAMES[name].sending_day(int(row["year"])).isoformat() for name in COLUMNS}
    assert found == {name: row[column] for name, column in COLUMNS.items()}


@pytest.mark.parametrize("year", range(2025, 2051))
def test_letters_leave_on_the_days_a_second_library_knows(year: int) -> None:
    expected = {
        "spring_festival": LunarDate(year, 1, 1).to_solar_date() - timedelta(days=1),
        "lantern_festival": LunarDate(year, 1, 15).to_solar_date(),
        "dragon_boat": LunarDate(year, 5, 5).to_solar_date(),
        "mid_autumn": LunarDate(year, 8, 15).to_solar_date(),
        "double_ninth": LunarDate(year, 9, 9).to_solar_date(),
    }
    assert {name: letter.sending_day(year) for name, letter in NAMES.items()} == expected


def test_hongyan_letters_prints_each_letter_once_a_year_even_in_leap_years(world: World) -> None:
    word = next(w for w in world.app.services.catalog.of(CliWord) if w.word == "letters")
    lines = [line for line in word.run(world.app.services, ["--years", "10"]) if "一封信" in line]
    assert lines[:3] == [
        "2026-06-19 周五 五月初五 10:00 端午·致鸿雁一封信　关",
        "2026-09-25 周五 八月十五 10:00 中秋·致鸿雁一封信　开",
        "2026-10-18 周日 九月初九 10:00 重阳·致鸿雁一封信　关",
    ]
    assert len(lines) == 50
    assert len({(line.split()[0][:4], line.split()[4]) for line in lines}) == 50
    assert "2030-02-02 周六 腊月三十 10:00 春节·致鸿雁一封信　开" in lines


def test_the_catalog_lists_every_letter_with_its_file(world: World) -> None:
    listed = {
        found.name: (found.help, Path(found.source.rpartition(":")[0]).name)
        for found in world.app.services.catalog.declared()
        if found.kind == "letter"
    }
    assert listed == {letter.name: (letter.label, f"{letter.name}.md") for letter in LETTERS}


# --- texts ---


def _values(letter: Letter, place: Place, year: int, day: date) -> dict[str, object]:
    text = letter.text(place, year)
    return {**text.values, **dated(day, letter.festival(year), text.phrases)}


@pytest.mark.parametrize("place_name", PLACES.names())
@pytest.mark.parametrize("letter", LETTERS, ids=lambda letter: letter.name)
def test_a_letter_fits_everybody(letter: Letter, place_name: str) -> None:
    place = PLACES.load(place_name, {"signatory": "霍林郭勒市区域经济合作服务中心"})
    values = _values(letter, place, 2026, letter.sending_day(2026))
    people = [name_of(index) for index in range(60)] + ["阿依古丽·买买提", "欧阳静"]
    salutations = {
        salutation_line(chosen, name)
        for name in people
        for chosen in (None, *salutation_options(name))
    }
    cities = ("", "上海", "蒙古国乌兰巴托", "克孜勒苏柯尔克孜自治州")
    paragraphs = {category.letter for category in place.profiles.categories}
    for salutation, city, paragraph in itertools.product(salutations, cities, paragraphs):
        words = render(
            letter.body,
            {**values, "salutation": salutation, "city": city, "category_paragraph": paragraph},
        )
        assert len(words) <= MAX_CHARACTERS
        assert len(words.encode()) <= MAX_BYTES
        assert not re.search(r"\{\{|None|^[ \t]", words, re.MULTILINE)


@pytest.mark.parametrize("letter", LETTERS, ids=lambda letter: letter.name)
def test_paragraphs_begin_with_two_wide_spaces(letter: Letter) -> None:
    paragraphs = letter.body.split("：\n", 1)[1].split("\n\n")[0].splitlines()
    assert [line[:2] for line in paragraphs] == ["\u3000\u3000"] * len(paragraphs)


def test_dragon_boat_wishes_health_and_nobody_is_wished_fun() -> None:
    assert "端午安康" in NAMES["dragon_boat"].body
    assert [letter.name for letter in LETTERS if "快乐" in letter.body] == []


@pytest.mark.parametrize(
    ("name", "day", "phrase"),
    [
        ("spring_festival", date(2026, 2, 16), "值此新春佳节即将到来之际"),
        ("spring_festival", date(2026, 2, 17), "值此新春佳节之际"),
        ("mid_autumn", date(2026, 9, 24), "中秋佳节即将到来之际"),
        ("mid_autumn", date(2026, 9, 25), "值此中秋佳节之际"),
        ("mid_autumn", date(2025, 10, 6), "值此国庆、中秋双节同庆之际"),
        ("mid_autumn", date(2028, 10, 3), "值此国庆、中秋双节同庆之际"),
        ("mid_autumn", date(2031, 10, 1), "值此国庆、中秋双节同庆之际"),
    ],
)
def test_the_words_fit_the_day(name: str, day: date, phrase: str) -> None:
    letter = NAMES[name]
    assert occasion_phrase(day, letter.festival(day.year), letter.phrases) == phrase


FRONT = """+++
label = "立夏"
title = "立夏·致鸿雁一封信"
audience = "全体"
on = false
lunar = "04-08"
at = 10:00:00
latest = 21:30:00
[phrases]
before = "立夏将至"
on_day = "值此立夏"
+++
"""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("致鸿雁", "第1行：信件须以两行 +++ 之间的说明开头"),
        (FRONT.replace("on = false", "on = perhaps") + "好", "第5行"),
        (FRONT.replace("on = false", "open = false") + "好", "第1行 on：Field required"),
        (FRONT.replace("04-08", "13-08") + "好", '第6行：lunar 要写成 "08-15"'),
        (
            FRONT + "{{ salutation }}：\n\u3000\u3000{{ nickname }}好",
            "第14行：模板里有认不得的空：nickname。",
        ),
        (FRONT + "{{ salutation }}：\n{% if %}", "第14行：模板写法有误。"),
        (FRONT + "{{ salutation }}：\n{{ city.upper() }}", "第14行：模板用了不允许的写法"),
        (FRONT + "{{ salutation }}：\n  您好", "第14行：段首要空两个全角空格，不用别的空格"),
    ],
)
def test_a_broken_letter_is_refused_with_file_and_line(
    text: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "beginning_of_summer.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_letter(path)
    assert str(refused.value).startswith(f"{path} {complaint}")


# --- the way to people ---


def _office(make_world: Callable[..., World], start: str, people: int = 12) -> World:
    world = make_world(start=start)
    register_many(world, people)
    world.grant("小王", "coordinator")
    world.grant("小李", "coordinator")
    world.grant("老赵", "leader")
    return world


def _approve(world: World, label: str) -> None:
    handed_in = world.says("小王", f"信件 提交 {label}")
    found = re.search(r"哈希 (\w{4})", handed_in)
    assert found, handed_in
    world.says("小李", f"同意 {found[1]}")
    assert "已批准" in world.says("老赵", f"同意 {found[1]}")


def _letters(world: World, index: int) -> list[str]:
    return [text for text in world.received(who(index)) if "致鸿雁一封信" in text]


def _rows(world: World) -> list[Outbox]:
    with world.database.reading() as session:
        return list(session.exec(select(Outbox).where(Outbox.campaign_id != None)))  # noqa: E711


def test_a_letter_is_drafted_ten_days_ahead_and_coordinators_are_told(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, "2026-09-15 08:00")
    world.at("2026-09-15 08:59")
    assert world.news("小王") == []
    world.at("2026-09-15 09:00")
    world.at("2026-09-15 09:01")
    [told] = world.news("小王")
    assert told.startswith("中秋信已起草（B-0001），定于 2026-09-25 周五 八月十五 10:00 寄出。")
    assert world.news("小李") == [told]


def test_reminders_come_until_it_is_approved_and_a_missed_letter_is_told(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, "2026-09-15 09:00")
    world.steps("2026-09-26 09:30", hours=6)
    told = world.news("小王")
    assert [text[:12] for text in told] == [
        "中秋信已起草（B-000",
        *["中秋信定于 2026-0"] * 3,
        "中秋·致鸿雁一封信（B-",
    ]
    assert told[-1].endswith("没有按时批准，已过时，没有寄出，也不会补寄。")
    assert [_letters(world, index) for index in range(12)] == [[]] * 12


def test_the_mid_autumn_letter_reaches_each_once_at_ten_in_their_own_zone(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, "2026-09-20 10:00")
    _approve(world, "中秋")
    world.at("2026-09-25 09:59")
    assert sum(len(_letters(world, index)) for index in range(12)) == 0
    world.at("2026-09-25 10:00")
    abroad = [index for index in range(12) if index % 6 == 5]
    assert [len(_letters(world, index)) for index in range(12)] == [
        0 if index in abroad else 1 for index in range(12)
    ]
    world.steps("2026-09-26 00:59", hours=3)
    assert [_letters(world, index) for index in abroad] == [[], []]
    # Los Angeles is fifteen hours behind in September.
    world.at("2026-09-26 01:00")
    assert [len(_letters(world, index)) for index in range(12)] == [1] * 12
    assert "2026年9月25日（农历八月十五）" in _letters(world, abroad[0])[0]
    world.restart()
    world.at("2026-09-26 03:00")
    assert [len(_letters(world, index)) for index in range(12)] == [1] * 12


def test_the_spring_letter_leaves_on_the_eve_with_the_coming_year(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, "2026-02-10 10:00")
    _approve(world, "除夕")
    world.at("2026-02-16 10:00")
    [letter] = _letters(world, 0)
    assert letter.startswith("致鸿雁一封信\n——丙午马年新春问候\n\n尊敬的高远山老师：\n")
    assert "赛白努！值此新春佳节即将到来之际，我们谨代表家乡父老，向身在上海的您" in letter
    assert "2026年2月16日" in letter


def test_a_late_start_on_the_day_still_sends(make_world: Callable[..., World]) -> None:
    world = _office(make_world, "2026-09-24 10:00")
    _approve(world, "中秋")
    world.restart()
    world.at("2026-09-25 15:00")
    assert "值此中秋佳节之际" in _letters(world, 0)[0]
    assert len(_letters(world, 0)) == 1


@pytest.mark.parametrize(
    ("approved", "label", "started"),
    [
        ("2026-09-24 10:00", "中秋", "2026-09-26 13:00"),
        ("2026-02-15 12:00", "春节", "2026-02-17 10:30"),
    ],
)
def test_a_letter_is_never_sent_a_day_late_and_coordinators_hear_of_it(
    approved: str, label: str, started: str, make_world: Callable[..., World]
) -> None:
    world = _office(make_world, approved)
    _approve(world, label)
    world.news("小王")
    world.restart()
    world.at(started)
    assert [_letters(world, index) for index in range(12)] == [[]] * 12
    assert {(row.state, row.reason) for row in _rows(world)} == {(State.EXPIRED, "expired")}
    told = "".join(world.news("小王"))
    assert "已过期 12（过时12）" in told


def test_who_unsubscribes_after_approval_gets_nothing(make_world: Callable[..., World]) -> None:
    world = _office(make_world, "2026-09-24 10:00")
    _approve(world, "中秋")
    with world.database.session() as session:
        contact = session.exec(select(Contact).where(Contact.address.contains(who(0)))).one()
        unsubscribe(session, contact.person_id, "节日信", world.clock.now())
    world.at("2026-09-25 10:00")
    assert (_letters(world, 0), len(_letters(world, 1))) == ([], 1)


def test_a_letter_to_all_needs_two_others_one_of_them_a_leader(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, "2026-09-24 10:00")
    world.grant("小孙", "coordinator")
    handed_in = world.says("小王", "信件 提交 中秋")
    assert "须2人同意，其中一位领导。" in handed_in
    code = re.search(r"哈希 (\w{4})", handed_in)[1]  # type: ignore[index]
    assert world.says("小王", f"同意 {code}").startswith("不能审批自己提交的事项")
    assert world.says("小李", f"同意 {code}") == "已记下您的同意。B-0001 还需1人同意。"
    assert world.says("小孙", f"同意 {code}") == "已记下您的同意。B-0001 还需一位领导同意。"
    assert "已批准并锁定内容" in world.says("老赵", f"同意 {code}")


def test_changing_the_news_after_approval_voids_it(make_world: Callable[..., World]) -> None:
    world = _office(make_world, "2026-09-24 10:00")
    _approve(world, "中秋")
    world.says("小王", "信件 修改 中秋")
    assert "原来的审批已失效" in world.says("小王", "铁路客运站投入使用。\n西湖公园开放，")
    world.at("2026-09-25 10:00")
    assert _letters(world, 0) == []
    _approve(world, "中秋")
    world.drain()
    [letter] = _letters(world, 0)
    assert "可喜之事：铁路客运站投入使用；西湖公园开放。乡亲们常说" in letter


def test_a_text_changed_behind_the_approval_leaves_for_nobody(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, "2026-09-24 10:00")
    _approve(world, "中秋")
    with world.database.session() as session:
        campaign = session.exec(select(Campaign)).one()
        campaign.template = campaign.template.replace("亲切", "热烈")
        session.add(campaign)
    world.at("2026-09-25 10:00")
    assert _letters(world, 0) == []
    assert {row.reason for row in _rows(world) if row.state == State.FAILED} == {"render"}


def test_receipts_come_the_morning_after(make_world: Callable[..., World]) -> None:
    world = _office(make_world, "2026-09-24 10:00", people=5)
    _approve(world, "中秋")
    world.at("2026-09-25 10:00")
    world.news("小李")
    world.at("2026-09-26 09:00")
    assert world.news("小李") == [
        "信件回执。B-0001「中秋·致鸿雁一封信」已完成，名单5人：\n已发出 5"
    ]


def test_nothing_is_submitted_while_the_office_owes_its_name(
    make_world: Callable[..., World],
) -> None:
    world = make_world(start="2026-09-24 10:00", office={"office_phone": "0475-0000000"})
    register_many(world, 3)
    world.grant("小王", "coordinator")
    assert world.says("小王", "信件 提交 中秋").startswith("还缺设置：HONGYAN_OFFICE_NAME")


def test_a_letter_signed_for_a_higher_office_needs_its_number(
    make_world: Callable[..., World],
) -> None:
    office = {
        "office_name": "服务中心",
        "office_phone": "0475-0000000",
        "signatory": "某市招商引资工作领导小组",
    }
    world = make_world(start="2026-09-24 10:00", office=office)
    register_many(world, 3)
    world.grant("小王", "coordinator")
    assert world.says("小王", "信件 提交 中秋").startswith("落款代表上级机关，须写明批准文号")
    assert world.says("小王", "信件 提交 中秋 某招办字9号").startswith("已送审 B-0001")


def test_the_preview_shows_four_real_people_and_notes_who_was_looked_at(
    make_world: Callable[..., World],
) -> None:
    world = _office(make_world, "2026-09-18 10:00", people=30)
    shown = world.says("小王", "信件 预览 中秋")
    assert re.findall(r"【(\S+)　\d+ 字、\d+ 字节】", shown) == [
        "最短",
        "最长",
        "所填最少",
        "整名称呼",
    ]
    assert "试填 30 份：未填的空 0，超长 0；" in shown


def test_the_list_of_letters_says_how_each_stands(make_world: Callable[..., World]) -> None:
    world = _office(make_world, "2026-09-18 10:00")
    _approve(world, "中秋")
    lines = world.says("小王", "信件").splitlines()
    assert lines[1:3] == [
        "中秋　2026-09-25 周五 八月十五 10:00　B-0001 已批准",
        "重阳　2026-10-18 周日 九月初九 10:00　关",
    ]
    with world.database.reading() as session:
        assert session.exec(select(Campaign.state)).all() == [CampaignState.RUNNING]


def test_moments_of_a_letter_are_wall_clock_times() -> None:
    moment = NAMES["mid_autumn"].moment(2026)
    assert moment.at == datetime(2026, 9, 25, 10, tzinfo=BEIJING)
    assert moment.latest is not None
    assert f"{beijing(moment.latest):%F %T}" == "2026-09-25 21:30:00"
