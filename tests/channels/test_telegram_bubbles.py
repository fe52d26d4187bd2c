"""What Telegram's bubbles do besides words: share a number, carry files, be renewed."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import pytest

from bot.catalog import Catalog
from bot.channels.base import Fetching
from bot.channels.telegram.sending import UPLOAD
from bot.commands import Command, Greeting, command
from bot.context import Context
from bot.errors import SendError
from bot.forms import OWN_NUMBER, Ask, Asking, Form
from bot.messages import Address, File, Inbound, Media, Part, Reply, say
from bot.normalize import Miss
from handlers.place import PLACES
from handlers.roles import POLICY
from tests.channels.harness import catalog
from tests.channels.on_telegram import LI, WANG, OnTelegram, running

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n and so on"


def read_number(text: str, _asking: Asking) -> str | Miss:
    return text if text.lstrip("+").isdigit() else Miss("请发手机号。")


class NumberForm(Form, name="number", label="电话"):
    """Asks for a number, then for a word."""

    finish = None

    number: Annotated[str, Ask("电话", "请发手机号。", read_number, contact=True)]
    word: Annotated[str, Ask("话", "再说一句。", options=("好", "不好"))]

    def submit(self, context: Context) -> Reply:
        return say(f"{self.number}，{self.word}。").then("完了")


@command("留电话")
def leave_number(context: Context, _argument: str) -> Reply:
    return context.begin(NumberForm)


@pytest.fixture
async def bot(tmp_path: Path, anyio_backend: str) -> AsyncIterator[OnTelegram]:
    plain = catalog(leave_number)
    values = {Command: plain.of(Command), Greeting: plain.of(Greeting)}
    known = Catalog(values, {"number": NumberForm}, POLICY, PLACES)
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(running(tmp_path, known))
        await made.says(WANG, "回声")
        yield made


def at(bot: OnTelegram, who: int = WANG) -> Address:
    return Address.parse(bot.address(who))


# - one's own number -


async def test_the_question_for_a_number_offers_to_share_ones_own(bot: OnTelegram) -> None:
    await bot.says(WANG, "留电话")
    assert bot.telegram.chats[WANG].keyboard == [{"text": OWN_NUMBER, "request_contact": True}]
    bot.telegram.share_contact(WANG, "8613800001234")
    await bot.settle()
    assert bot.heard(WANG)[-1] == "再说一句。"
    await bot.presses(WANG, "好")
    assert bot.heard(WANG)[-2:] == ["+8613800001234，1。", "完了"]


@pytest.mark.parametrize("owner", [LI, 0])
async def test_somebody_elses_number_is_refused_and_the_question_stays(
    bot: OnTelegram, owner: int
) -> None:
    await bot.says(WANG, "留电话")
    bot.telegram.send_contact(WANG, "8613800001234", owner)
    await bot.settle()
    assert bot.heard(WANG)[-2:] == [
        "名片里是别人的信息，我没有保存，麻烦打字告诉我。",
        "请发手机号。",
    ]


async def test_a_number_that_nobody_asked_for_is_not_an_answer(bot: OnTelegram) -> None:
    await bot.says(WANG, "留电话")
    await bot.says(WANG, "13800001234")
    bot.telegram.send_contact(WANG, "8613900001111")
    await bot.settle()
    assert bot.heard(WANG)[-2].startswith("名片")
    assert bot.heard(WANG)[-1] == "再说一句。"


async def test_the_keyboard_is_taken_away_by_the_next_plain_bubble(bot: OnTelegram) -> None:
    await bot.says(WANG, "留电话")
    await bot.says(WANG, "取消")
    assert bot.telegram.chats[WANG].keyboard is None


# - files out -


async def test_a_picture_is_shown_and_any_other_file_is_handed_over(bot: OnTelegram) -> None:
    for name, mime, content in (
        ("入口.png", "image/png", PNG),
        ("不是图.png", "image/png", b"no picture"),
        ("名单.xlsx", "application/octet-stream", b"xlsx"),
    ):
        await bot.channel.send(at(bot), Part("请收", file=File(name, mime, content)), "1-0")
    assert bot.heard(WANG)[-3:] == [
        "[photo] 入口.png 请收",
        "[document] 不是图.png 请收",
        "[document] 名单.xlsx 请收",
    ]


async def test_a_file_that_the_platform_would_refuse_is_not_tried(bot: OnTelegram) -> None:
    file = File("大.zip", "application/zip", b"0" * (UPLOAD + 1))
    with pytest.raises(SendError) as caught:
        await bot.channel.send(at(bot), Part("请收", file=file), "1-0")
    assert (caught.value.reason, caught.value.permanent) == ("too_large", True)
    assert "sendDocument" not in bot.telegram.calls


# - files in -


async def arrived(bot: OnTelegram) -> Media:
    """What somebody has just sent, as the channel reads it."""
    heard: list[Inbound] = []

    async def note(inbound: Inbound, _seconds: float) -> tuple[Part, ...]:
        heard.append(inbound)
        return ()

    await bot.channel.poll(note, 0)
    assert heard[-1].media is not None
    return heard[-1].media


async def test_a_file_that_was_asked_for_is_brought(bot: OnTelegram) -> None:
    bot.telegram.send_document(WANG, "月报.xlsx", "工作簿", "application/vnd.ms-excel")
    channel: Any = bot.channel
    assert isinstance(channel, Fetching)
    file = await channel.fetch(await arrived(bot), 1000)
    assert file == File("月报.xlsx", "application/vnd.ms-excel", "工作簿".encode())


async def test_nothing_is_brought_that_nobody_asked_for(bot: OnTelegram) -> None:
    bot.telegram.send_document(WANG, "月报.xlsx", "工作簿")
    bot.telegram.send_photo(WANG)
    await bot.settle()
    assert "getFile" not in bot.telegram.calls


async def test_a_file_larger_than_was_asked_for_is_refused(bot: OnTelegram) -> None:
    bot.telegram.send_document(WANG, "月报.xlsx", "工作簿" * 100)
    media = await arrived(bot)
    for claimed in (media, Media(media.id)):
        with pytest.raises(SendError) as caught:
            await bot.channel.fetch(claimed, 100)
        assert (caught.value.reason, caught.value.permanent) == ("too_large", True)


async def test_a_file_that_is_gone_says_so(bot: OnTelegram) -> None:
    with pytest.raises(SendError) as caught:
        await bot.channel.fetch(Media("made up"), 100)
    assert caught.value.permanent


# - bubbles that are brought up to date -


async def test_progress_is_one_bubble(bot: OnTelegram) -> None:
    for text in ("已发1封", "已发2封", "已发2封", "已发3封"):
        await bot.channel.send(at(bot), Part(text, replaces="进度"), "1-0")
    assert bot.heard(WANG)[1:] == ["已发1封", "[edit] 已发2封", "[edit] 已发3封"]


async def test_a_bubble_too_old_to_be_edited_is_followed_by_a_new_one(bot: OnTelegram) -> None:
    await bot.channel.send(at(bot), Part("已发1封", replaces="进度"), "1-0")
    await bot.clock.advance(days=3)
    for text in ("已发2封", "已发3封"):
        await bot.channel.send(at(bot), Part(text, replaces="进度"), "1-0")
    assert bot.heard(WANG)[1:] == ["已发1封", "已发2封", "[edit] 已发3封"]


async def test_a_bubble_that_was_deleted_is_followed_by_a_new_one(bot: OnTelegram) -> None:
    number = await bot.channel.send(at(bot), Part("已发1封", replaces="进度"), "1-0")
    del bot.telegram.chats[WANG].messages[int(number)]
    await bot.channel.send(at(bot), Part("已发2封", replaces="进度"), "1-0")
    assert bot.heard(WANG)[1:] == ["已发1封", "已发2封"]


async def test_two_topics_and_two_people_have_bubbles_of_their_own(bot: OnTelegram) -> None:
    await bot.says(LI, "回声")
    for who, topic in ((WANG, "一"), (WANG, "二"), (LI, "一"), (WANG, "一")):
        await bot.channel.send(at(bot, who), Part(f"{topic}在办", replaces=topic), "1-0")
    assert bot.heard(WANG)[1:] == ["一在办", "二在办"]
    assert bot.heard(LI)[1:] == ["一在办"]
