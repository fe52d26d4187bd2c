"""Whatever statement or call fails, the platform's retry heals it: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError

from bot.commands import Content
from bot.delivery import Delivery
from bot.errors import SendError
from bot.messages import say
from storage.campaigns import Campaign
from tests.bare import NOON, Bare
from tests.world import MemoryChannel, World

MEMBER = "乡亲"
BEFORE = ("登记", "同意", "是", "1", "2", "跳过", "高远山", "上海", "1")
LAST = ("确认", "2", "修改 城市 北京", "确认", "退订 政策", "我的档案")
TABLES = ("member_profile", "member_category", "consent_entry", "draft", "profile_change")


class Fault:
    """Raises at the n-th statement or commit on an engine; counts them all."""

    def __init__(self, engine: Engine, nth: int) -> None:
        self.count, self.nth = 0, nth
        event.listen(engine, "before_cursor_execute", self._statement)
        event.listen(engine, "commit", self._commit)

    def _statement(self, *_arguments: object) -> None:
        self._pass("statement")

    def _commit(self, *_arguments: object) -> None:
        self._pass("commit")

    def _pass(self, what: str) -> None:
        self.count += 1
        if self.count == self.nth:
            raise OperationalError(what, {}, Exception("the disk, the network, the server"))


@pytest.fixture(scope="module")
def half_registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world in which somebody has answered everything and only has to confirm."""
    folder = tmp_path_factory.mktemp("half")
    world = World(folder)
    answer = world.talk(MEMBER, *BEFORE)
    world.close()
    assert "请核对" in answer
    return folder


@contextmanager
def copy_of(folder: Path, tmp_path: Path, number: int) -> Iterator[World]:
    copied = tmp_path / f"copy{number}"
    shutil.copytree(folder, copied)
    world = World(copied)
    world.counted(1000)
    yield world
    world.close()
    shutil.rmtree(copied)


def insistently(world: World, words: str) -> str:
    """Say something as a platform does: the same message again until it is answered."""
    inbound = world.inbound(MEMBER, words)
    for _try in range(3):
        try:
            return world.hears(inbound)
        except OperationalError:
            continue
    raise AssertionError("three tries were not enough")


def everything(world: World) -> list[object]:
    """The rows that the dialogue is about, without what is sealed under a fresh nonce."""
    with world.database.engine.connect() as connection:
        return [
            [
                tuple(value for value in row if not isinstance(value, bytes))
                for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))  # noqa: S608
            ]
            for table in TABLES
        ]


def played(folder: Path, tmp_path: Path, nth: int) -> tuple[list[str], list[object], int]:
    with copy_of(folder, tmp_path, nth) as world:
        fault = Fault(world.database.engine, nth)
        answers = [insistently(world, words) for words in LAST]
        count, fault.nth = fault.count, 0
        return answers, everything(world), count


@pytest.mark.slow
def test_any_failing_statement_is_healed_by_the_platforms_retry(
    half_registered: Path, tmp_path: Path
) -> None:
    answers, rows, count = played(half_registered, tmp_path, 0)
    assert "HY-2026-000001" in answers[0]
    assert "北京" in answers[-1]
    for nth in range(1, count + 1):
        assert played(half_registered, tmp_path, nth)[:2] == (answers, rows), f"statement {nth}"


def word(
    _services: object, _session: object, campaign: Campaign, people: Sequence[int]
) -> dict[int, Any]:
    return {person: say(f"{campaign.template}{person}") for person in people}


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[Callable[[], Bare]]:
    """Makes installations with a letter to three people, ready to go."""
    made: list[Bare] = []

    def make() -> Bare:
        bare = Bare(
            f"sqlite:///{tmp_path}/letter{len(made)}.db", contents=[Content("letter", word)]
        )
        made.append(bare)
        with bare.database.session() as session:
            letter = Campaign(
                number="B-1",
                kind="letter",
                title="",
                occasion="letter",
                purpose="letter",
                template="您好",
                created_at=NOON,
            )
            session.add(letter)
            session.flush()
            number = letter.id
        for person in bare.people(3):
            bare.rows(
                1,
                occasion="letter",
                recipient=f"p{person}",
                campaign_id=number,
                person_id=person,
                address=f"memory:t:p{person}",
                body=None,
            )
        return bare

    yield make
    for bare in made:
        bare.close()


def drained(bare: Bare, channel: MemoryChannel) -> None:
    """Deliver as a process does that is looked at again a little later."""
    for _look in range(4):
        delivery = Delivery(bare.services, {"memory": channel}, alone=True)
        try:
            asyncio.run(delivery.until_idle())
        except OperationalError:
            continue
        bare.clock.advance(minutes=10)


def test_any_failing_statement_sends_each_letter_once(letters: Callable[[], Bare]) -> None:
    bare, channel = letters(), MemoryChannel()
    fault = Fault(bare.database.engine, 0)
    drained(bare, channel)
    assert len(channel.sent) == 3
    statements = fault.count
    for nth in range(1, statements + 1):
        bare, channel = letters(), MemoryChannel()
        fault = Fault(bare.database.engine, nth)
        drained(bare, channel)
        fault.nth = 0
        assert bare.states() == {"sent": 3}, f"statement {nth}"
        assert len({address for address, _part in channel.sent}) == len(channel.sent) == 3


@pytest.mark.parametrize("nth", [0, 1, 2])
@pytest.mark.parametrize(
    ("error", "states", "seen"),
    [
        (SendError("busy"), {"sent": 3}, 3),
        (SendError("timeout", unknown=True), {"sent": 2, "unknown": 1}, 2),
        (SendError("blocked", permanent=True), {"sent": 2, "failed": 1}, 2),
        (SendError("flood", retry_after=0.001), {"sent": 3}, 3),
        (ConnectionResetError(), {"sent": 2, "unknown": 1}, 2),
    ],
    ids=["busy", "timeout", "blocked", "flood", "bug"],
)
def test_any_failing_call_ends_in_a_state_that_says_what_happened(
    letters: Callable[[], Bare], nth: int, error: Exception, states: dict[str, int], seen: int
) -> None:
    bare = letters()

    class Failing(MemoryChannel):
        calls = 0

        async def send(self, address: Any, part: Any, key: str) -> str:
            self.calls += 1
            if self.calls == nth + 1:
                raise error
            return await super().send(address, part, key)

    channel = Failing()
    drained(bare, channel)
    assert bare.states() == states
    assert len(channel.sent) == seen
