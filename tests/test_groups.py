"""In any group, on any channel: public words are answered, personal ones lead to the private chat,
and nothing personal is kept or repeated."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import select

from bot.commands import Command
from bot.context import ChannelFacts
from bot.dispatch import GROUP_NUMBER, GROUP_PRIVATE
from bot.messages import Chat, Happening, Kind
from bot.personal_numbers import reaches_somebody
from storage.doors import keep_door
from storage.people import OneTimeCode, Person
from tests.bare import NOON
from tests.people import register_many
from tests.world import GROUP, World, whole_catalog

COMMANDS = whole_catalog().of(Command)
PUBLIC = sorted(one.word for one in COMMANDS if one.group and not one.needs_argument)
PERSONAL = sorted(one.word for one in COMMANDS if not one.group and not one.needs_argument)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One world for what leaves no trace."""
    made = World(tmp_path_factory.mktemp("group"))
    yield made
    made.close()


@pytest.mark.parametrize("word", PERSONAL)
def test_a_personal_command_is_not_answered_in_a_group(shared: World, word: str) -> None:
    assert shared.says_in_group("guo", word) == GROUP_PRIVATE


@pytest.mark.parametrize("word", PUBLIC)
def test_a_public_command_is_answered_in_a_group(shared: World, word: str) -> None:
    answer = shared.says_in_group("guo", word)
    assert answer not in ("", GROUP_PRIVATE)
    assert "出了点问题" not in answer


def test_what_a_group_is_answered_changes_nothing() -> None:
    assert [one.word for one in COMMANDS if one.group and not (one.reads and not one.roles)] == []


def test_after_all_that_nobody_is_known(shared: World) -> None:
    for word in PUBLIC + PERSONAL:
        shared.says_in_group("guo", word)
    with shared.database.reading() as session:
        assert session.exec(select(Person)).all() == []
        assert session.exec(select(OneTimeCode)).all() == []


@pytest.mark.parametrize("text", ["1", "\uff12", "12", "1、3", "好的", "谢谢", "我叫高远山"])
def test_numbers_and_talk_in_a_group_are_left_alone(shared: World, text: str) -> None:
    assert shared.says_in_group("guo", text) == ""


@pytest.mark.parametrize("text", ["登记", "帮助", "电话 13800001234"])
def test_what_is_not_said_to_us_is_left_alone(shared: World, text: str) -> None:
    assert shared.says_in_group("guo", text, addressed=False) == ""


@pytest.mark.parametrize("kind", [Kind.IMAGE, Kind.FILE, Kind.VOICE, Kind.CONTACT, Kind.LOCATION])
def test_pictures_files_and_cards_in_a_group_are_left_alone(shared: World, kind: Kind) -> None:
    inbound = shared.inbound("guo", "", kind=kind, chat=Chat(GROUP))
    assert shared.hears(inbound) == ""


def test_a_card_pressed_in_a_group_says_what_typing_says(shared: World) -> None:
    said = {
        word: shared.hears(shared.inbound("guo", word, kind=Kind.PRESS, chat=Chat(GROUP)))
        for word in ("热线", "登记", "phone=1")
    }
    assert said["热线"] == shared.says_in_group("guo", "热线")
    assert (said["登记"], said["phone=1"]) == (GROUP_PRIVATE, "")


@pytest.mark.parametrize(
    "text",
    [
        "我家老人在霍林郭勒住院想找人帮忙 电话13800001234",
        "帮助 138-0000-1234",
        "登记 身份证11010519491231002X",
        "我在乌兰巴托 +976 9911 2233",
        "邮箱 gaoyuanshan@example.org",
        "家里座机 0475-7920000",
    ],
)
def test_a_number_typed_into_a_group_is_neither_kept_nor_repeated(shared: World, text: str) -> None:
    assert shared.says_in_group("guo", text) == GROUP_NUMBER
    with shared.database.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        kept = "".join(raw.iterdump())
    # Whole numbers only: four digits of one turn up by chance in some key or time of the dump.
    said = ("13800001234", "138-0000-1234", "11010519491231002X", "9911 2233", "99112233")
    said += ("gaoyuanshan", "0475-7920000", "04757920000", "老人")
    assert [piece for piece in said if piece in kept] == []


@pytest.mark.parametrize(
    "text",
    [
        "活动 HD-2026-01",
        "第12届，2026年3月",
        "政策 2025",
        "+5",
        "120",
        "@鸿雁 好",
        "a@b",
        "3.14159265",
    ],
)
def test_ordinary_numbers_reach_nobody(text: str) -> None:
    assert not reaches_somebody(text)


def test_where_a_channel_has_a_way_in_a_group_is_shown_it(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    with world.database.transaction() as connection:
        keep_door(connection, "memory", "https://m.example/bot", "https://m.example/bot?s=", NOON)
    plain, coded = ways(world, "热线 13800001234"), ways(world, "回执 7")
    assert plain == ["https://m.example/bot"]
    assert coded[0].startswith("https://m.example/bot?s=go-")
    code = coded[0].partition("?s=")[2]
    entered = world.inbound("guo", Happening.FOLLOW, kind=Kind.EVENT, argument=code)
    assert world.hears(entered) == world.says("li", "回执 7")


def ways(world: World, text: str) -> list[str]:
    """The links that a group is shown."""
    inbound = world.inbound("guo", text, chat=Chat(GROUP))
    parts = world.app.dispatcher.handle(inbound)
    return [line.partition("：")[2] for part in parts for line in part.text.split("\n")[1:]]


def test_a_link_to_another_channel_carries_the_word_and_no_secret_is_readable(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    other = ChannelFacts("other", label="别处")
    world.app.services.channels["other"] = other  # type: ignore[index]  # one more for this test
    with world.database.transaction() as connection:
        keep_door(connection, "other", "https://o.example/bot", "https://o.example/bot?s=", NOON)
    register_many(world, 1)
    answer = world.says("member-0", "关联")
    found = re.search(r"用 别处 打开：https://o\.example/bot\?s=(go-\S+)", answer)
    assert found is not None
    code = re.search(r"关联码：(\d{6})", answer)
    assert code is not None
    with world.database.reading() as session:
        kept = session.exec(select(OneTimeCode)).all()
    assert len(kept) == 2
    assert [one for one in kept if code[1] in one.payload] == []
    entered = world.inbound("new", Happening.SCANNED, kind=Kind.EVENT, argument=found[1])
    assert "确认关联" in world.hears(entered)
