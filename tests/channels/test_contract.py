"""What every channel keeps, whatever its platform: nothing lost, nothing twice, nothing leaked."""

from __future__ import annotations

import asyncio
import io
import logging
import traceback

import pytest
import structlog

from bot.errors import SendError
from bot.messages import Address, Part
from tests.channels.harness import LONG, ODD, SAID, Harness, Trouble

pytestmark = pytest.mark.anyio

WANG = "oWangXiaoyan"
LI = "oLiYuangui"


async def send(harness: Harness, text: str = "家乡的信", who: str = WANG) -> str:
    """One bubble straight through the channel."""
    return await harness.channel.send(Address.parse(harness.address(who)), Part(text), "1-0")


async def refused(harness: Harness, text: str = "家乡的信", who: str = WANG) -> SendError:
    with pytest.raises(SendError) as caught:
        await send(harness, text, who)
    return caught.value


async def test_what_somebody_says_is_answered(harness: Harness) -> None:
    await harness.says(WANG, "回声 家乡好")
    assert harness.heard(WANG)[-1] == "家乡好"


async def test_what_arrives_twice_is_answered_once(harness: Harness) -> None:
    before = len(harness.heard(WANG))
    await harness.says_twice(WANG, "回声 一次")
    assert harness.heard(WANG)[before:] == ["一次"]


async def test_the_same_words_said_again_are_answered_again(harness: Harness) -> None:
    before = len(harness.heard(WANG))
    await harness.says(WANG, "回声 好")
    await harness.says(WANG, "回声 好")
    assert harness.heard(WANG)[before:] == ["好", "好"]


async def test_several_bubbles_arrive_in_their_order(harness: Harness) -> None:
    before = len(harness.heard(WANG))
    await harness.says(WANG, "三句")
    assert "".join(harness.heard(WANG)[before:]).replace("\n", "") == "一二三"


async def test_a_long_answer_arrives_whole(harness: Harness) -> None:
    before = len(harness.heard(WANG))
    await harness.says(WANG, "很长")
    assert lines("\n".join(harness.heard(WANG)[before:])) == lines(LONG)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


async def test_no_bubble_is_longer_than_the_platform_takes(harness: Harness) -> None:
    facts = harness.channel.facts
    await harness.says(WANG, "很长")
    for text in harness.heard(WANG):
        assert facts.text_bytes is None or len(text.encode()) <= facts.text_bytes
        assert facts.text_chars is None or len(text) <= facts.text_chars


async def test_odd_characters_come_back_as_they_were_said(harness: Harness) -> None:
    await harness.says(WANG, f"回声 {SAID}")
    assert harness.heard(WANG)[-1] == SAID


async def test_odd_characters_arrive_as_they_were_sent(harness: Harness) -> None:
    await harness.says(WANG, "回声")
    await send(harness, ODD)
    assert harness.heard(WANG)[-1] == ODD


async def test_choices_are_offered(harness: Harness) -> None:
    await harness.says(WANG, "选")
    assert all(word in "".join(harness.offered(WANG)) for word in ("回声", "三句"))


async def test_a_press_says_what_the_button_stands_for(harness: Harness) -> None:
    await harness.says(WANG, "选")
    await harness.presses(WANG, "回声")
    assert harness.heard(WANG)[-1] == "（没有话）"


async def test_a_voice_message_is_told_from_words(harness: Harness) -> None:
    await harness.sends_voice(WANG)
    assert harness.heard(WANG)[-1] == "没听懂：voice"


async def test_an_unknown_happening_is_taken_and_not_answered(harness: Harness) -> None:
    before = len(harness.heard(WANG))
    assert await harness.happens() == 200
    assert len(harness.heard(WANG)) == before


@pytest.mark.webhook
async def test_what_is_forged_is_forbidden_and_not_answered(harness: Harness) -> None:
    before = len(harness.heard(WANG))
    statuses = await harness.forges()
    assert set(statuses) == {403}
    assert len(harness.heard(WANG)) == before


async def test_a_sent_bubble_has_the_platforms_id_or_none(harness: Harness) -> None:
    await harness.says(WANG, "回声")
    first, second = await send(harness, "一"), await send(harness, "二")
    assert harness.heard(WANG)[-2:] == ["一", "二"]
    assert first != second or first == ""


async def test_who_has_blocked_the_bot_is_given_up(harness: Harness) -> None:
    await harness.says(WANG, "回声")
    await harness.blocks(WANG)
    error = await refused(harness)
    assert (error.permanent, error.unknown, error.stop_channel) == (True, False, False)


@pytest.mark.parametrize("trouble", [Trouble.QUOTA])
async def test_a_quota_says_how_long_to_wait(harness: Harness, trouble: Trouble) -> None:
    await harness.says(WANG, "回声")
    harness.meets(trouble)
    error = await refused(harness)
    assert error.retry_after is not None
    assert error.retry_after > 0
    assert not error.permanent


@pytest.mark.parametrize(
    "trouble", [Trouble.BUSY, Trouble.SERVER_ERROR, Trouble.HTML, Trouble.NOT_SENT]
)
async def test_what_did_not_leave_is_tried_again(harness: Harness, trouble: Trouble) -> None:
    await harness.says(WANG, "回声")
    harness.meets(trouble)
    error = await refused(harness)
    assert (error.permanent, error.unknown, error.stop_channel) == (False, False, False)
    await send(harness, "第二次")
    assert harness.heard(WANG)[-1] == "第二次"


@pytest.mark.parametrize("trouble", [Trouble.ANSWER_LOST, Trouble.NO_ANSWER])
async def test_what_may_have_left_is_unknown(harness: Harness, trouble: Trouble) -> None:
    await harness.says(WANG, "回声")
    harness.meets(trouble)
    assert (await refused(harness)).unknown


async def test_no_secret_is_logged_shown_or_raised(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    printed = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(printed))
    try:
        await harness.says(WANG, "回声 悄悄话")
        await harness.forges()
        for trouble in sorted(harness.troubles):
            harness.meets(trouble)
            error = await refused(harness, "悄悄话")
            printed.write("".join(traceback.format_exception(error)))
    finally:
        structlog.reset_defaults()
    seen = "\n".join((caplog.text, printed.getvalue(), repr(harness.channel)))
    assert [secret for secret in (*harness.secrets, "悄悄话") if secret in seen] == []


async def test_a_channel_ends_at_once_when_it_is_cancelled(harness: Harness) -> None:
    running = asyncio.create_task(harness.channel.run(harness.app.receive))
    await asyncio.sleep(0)
    running.cancel()
    async with asyncio.timeout(1):
        await asyncio.gather(running, return_exceptions=True)
    assert running.done()


async def test_a_channel_that_runs_misses_no_setting(harness: Harness) -> None:
    assert list(harness.channel.check()) == []


async def test_closing_twice_harms_nothing(harness: Harness) -> None:
    await harness.channel.close()
    await harness.channel.close()
