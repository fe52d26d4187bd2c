"""What our texts tell people to reply must be something the bot understands."""

import re
from pathlib import Path

import pytest

from bot.catalog import spoken
from storage.people import unsubscribed
from tests.people import register_many, who
from tests.world import World, whole_catalog

ROOT = Path(__file__).parents[2]
TEXTS = sorted(
    [
        *ROOT.glob("schedules/letters/*.md"),
        *ROOT.glob("handlers/places/*.toml"),
        *ROOT.glob("handlers/notices/*.md"),
        *ROOT.glob("handlers/*.txt"),
    ]
)
# Said inside the form that the notice opens.
IN_THE_FORM = {"同意", "全文", "不同意"}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_word_a_text_asks_for_is_understood(path: Path) -> None:
    text = path.read_text("utf-8")
    asked = set(re.findall(r"回复?[“「]([^”」]+)[”」]", text)) - IN_THE_FORM
    unknown = {word for word in asked if whole_catalog().match(spoken(word)) is None}
    assert unknown == set()


@pytest.mark.parametrize(
    ("words", "topic"), [("退订节日信", "节日信"), ("退订活动邀请", "活动邀请")]
)
def test_the_printed_words_stop_that_topic_and_no_other(
    world: World, words: str, topic: str
) -> None:
    register_many(world, 1)
    world.says(who(0), "订阅 政策")
    assert "已退订" in world.says(who(0), words)
    with world.database.reading() as session:
        stopped = unsubscribed(session, world.person(who(0)))
    assert topic in stopped
    assert "政策" not in stopped


def test_the_natural_sentence_still_offers_a_choice(world: World) -> None:
    register_many(world, 1)
    answer = world.says(who(0), "别再给我发那些招商的了")
    assert answer.startswith("您可以：1只退订")
