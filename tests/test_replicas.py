"""Several replicas on one PostgreSQL: who does what, whose turn it is, and how one goes home."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from bot.app import App, services_for
from bot.channels.base import Receive
from bot.clock import SystemClock
from bot.commands import command
from bot.context import ChannelFacts, Context
from bot.delivery import Delivery
from bot.messages import Address, Inbound, Reply, say
from bot.metrics import exposition
from bot.settings import demo_settings
from bot.spool import Spool
from storage.mailbox import Inbox
from storage.sequences import next_number
from tests.bare import Bare
from tests.channels.harness import catalog
from tests.laying import lay_tables
from tests.test_outages import Slow, said, until
from tests.test_web import served
from tests.world import KEYS, MemoryChannel

PEOPLE, SENTENCES = 24, 6


@command("数", help="数到几了")
def count(context: Context, _argument: str) -> Reply:
    """Each person counts for themselves."""
    return say(str(next_number(context.session, f"p{context.person_id}")))


def replica(url: str, *channels: MemoryChannel) -> App:
    facts = {channel.facts.name: channel.facts for channel in channels}
    services = services_for(
        demo_settings(database_url=url),
        facts,
        keys=KEYS,
        clock=SystemClock(),
        catalog=catalog(count),
    )
    return App(services, {channel.facts.name: channel for channel in channels}, alone=False)


@pytest.fixture
def pair(postgres_url: str) -> Iterator[Sequence[App]]:
    """Two web replicas on one database."""
    made = [replica(postgres_url, MemoryChannel(ChannelFacts("memory", inline=1))) for _ in "ab"]
    lay_tables(made[0].services.database)
    yield made
    for app in made:
        app.close()


@pytest.mark.anyio
async def test_one_persons_messages_are_answered_in_order_by_whichever_replica(
    pair: Sequence[App],
) -> None:
    """And those of different people together: there are fewer commits than messages."""

    async def talks(person: int) -> list[str]:
        heard = []
        for sentence in range(SENTENCES):
            address = Address("memory", "t", f"p{person}")
            now = SystemClock().now()
            message = Inbound(f"{person}-{sentence}", address, "数", now)
            parts = await pair[(person + sentence) % 2].receive(message, 10)
            heard += [part.text for part in parts]
        return heard

    async with pair[0].running(("web",)), pair[1].running(("web",)):
        before = sum(app.services.database.commits for app in pair)
        heard = await asyncio.gather(*map(talks, range(PEOPLE)))
        commits = sum(app.services.database.commits for app in pair) - before
    assert heard == [[str(n) for n in range(1, SENTENCES + 1)]] * PEOPLE
    assert commits < PEOPLE * SENTENCES / 2


@pytest.mark.anyio
async def test_what_one_person_says_to_both_replicas_at_once_is_done_one_after_the_other(
    pair: Sequence[App],
) -> None:
    address = Address("memory", "t", "wang")
    now = SystemClock().now()
    async with pair[0].running(("web",)), pair[1].running(("web",)):
        await pair[0].receive(Inbound("0", address, "数", now), 10)
        answers = await asyncio.gather(
            *(pair[n % 2].receive(Inbound(str(n), address, "数", now), 10) for n in range(1, 21)),
            # A platform's second try reaches the other replica.
            *(pair[1 - n % 2].receive(Inbound(str(n), address, "数", now), 10) for n in (3, 4)),
        )
    said = [parts[0].text for parts in answers]
    assert sorted(map(int, said[:20])) == list(range(2, 22))
    assert [said[20], said[21]] == [said[2], said[3]]
    with pair[0].services.database.reading() as session:
        assert session.execute(select(func.count()).select_from(Inbox)).scalar_one() == 21


@dataclass
class Polling(MemoryChannel):
    """Notes whether it was asked to live."""

    works: bool = True
    lived: bool = False

    async def run(self, receive: Receive) -> None:
        self.lived = True


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("roles", "lived"), [(("web",), [False, True]), (("worker",), [True, True])]
)
async def test_who_only_answers_callbacks_polls_nothing(
    tmp_path: Path, roles: Sequence[str], lived: list[bool]
) -> None:
    channels = [
        Polling(ChannelFacts("polled")),
        Polling(ChannelFacts("called"), works=False),
    ]
    app = replica(f"sqlite:///{tmp_path}/bot.db", *channels)
    lay_tables(app.services.database)
    async with app.running(roles):
        await until(lambda: channels[1].lived)
        await asyncio.sleep(0)
    assert [channel.lived for channel in channels] == lived
    app.close()


@pytest.mark.anyio
async def test_a_worker_that_goes_home_finishes_its_calls_and_gives_the_rest_back(
    tmp_path: Path,
) -> None:
    bare = Bare(f"sqlite:///{tmp_path}/bare.db")
    bare.lane()
    bare.rows(100)
    channel = Slow()
    delivery = Delivery(bare.services, {"memory": channel}, alone=True, in_flight=8)
    running = asyncio.create_task(delivery.run())
    await until(lambda: bool(channel.sent))
    delivery.retire()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    left = bare.states()
    assert set(left) == {"sent", "queued"}
    assert left["sent"] == len(channel.sent) < 100
    bare.close()


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[App]:
    """An installation whose database is out of reach, and who keeps one message."""
    services = services_for(
        demo_settings(database_url=f"sqlite:///{tmp_path}/gone/bot.db"),
        {},
        keys=KEYS,
        clock=SystemClock(),
        catalog=catalog(),
    )
    spool = Spool(tmp_path / "spool", services.keys)
    spool.keep([said(1)])
    app = App(services, {}, alone=True, spool=spool)
    yield app
    app.close()


def test_figures_are_told_while_the_database_is_away(lost: App) -> None:
    told = exposition(lost).decode()
    assert "hongyan_database_up 0.0" in told
    assert "hongyan_spooled 1.0" in told


@pytest.mark.anyio
async def test_who_asks_whether_a_replica_is_ready_learns_what_it_keeps(lost: App) -> None:
    async with served(lost) as client:
        answer = await client.get("/readyz")
        assert (answer.status, await answer.text()) == (503, "database spool=1")
