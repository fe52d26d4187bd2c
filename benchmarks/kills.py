"""kill -9 at random moments while a letter goes to 2,000 people, over the real Telegram channel.

After each kill a new process takes over the same database. At the end the emulator has seen nobody
twice, everybody has one row, and whoever it did not see is `unknown`.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import insert, select

from benchmarks.figures import Figure, note
from bot import planning
from bot.app import build_channels
from bot.channels.base import Attached
from bot.clock import SystemClock
from bot.commands import Content, Purpose
from bot.context import ChannelFacts
from bot.delivery import IN_FLIGHT, Delivery
from bot.messages import Reply, say
from bot.settings import demo_settings
from storage.campaigns import Campaign
from storage.people import ConsentNow, Person
from tests.bare import NOON, Bare

PEOPLE = 2_000
KILLS = 20
CALL = 0.05  # seconds the emulator takes to answer
LIFE = 0.25  # seconds a process lives at most once its first message was seen
FIRST_CHAT = 1_000_000
TOKEN = "4200:" + "k" * 35
LETTER = Purpose("letter", "信", scope="profile", topic="节日信", quiet=False)


@dataclass(frozen=True)
class Outcome:
    """What was left when every process was dead and the last had finished."""

    kills: int
    people: int
    states: Mapping[str, int]
    doubled: int
    lost: int
    unknown: int
    most_in_doubt: int

    @property
    def kept(self) -> bool:
        """Is the promise kept?"""
        return (
            self.doubled == 0
            and self.lost == 0
            and sum(self.states.values()) == self.people
            and self.most_in_doubt <= IN_FLIGHT
        )


def word(
    _services: object, _session: object, campaign: Campaign, people: Sequence[int]
) -> Mapping[int, Reply]:
    """The letter to each person."""
    return {person: say(f"{campaign.template}第{person}位乡亲") for person in people}


def installation(url: str, api: str) -> tuple[Bare, Any]:
    """Services and the channel, with no rate but the emulator's."""
    settings = demo_settings(
        database_url=url,
        channels="telegram",
        telegram_token=TOKEN,
        telegram_api_base=api,
        telegram_policy="full",
    )
    channel = build_channels(settings, SystemClock())["telegram"]
    facts: ChannelFacts = replace(channel.facts, live_gap_ms=0, bulk_gap_ms=0)
    bare = Bare(url, {"telegram": facts}, [Content("letter", word)])
    if isinstance(channel, Attached):
        channel.attach(bare.services)
    return bare, channel


async def work(url: str, api: str) -> None:
    """A delivery process: it drains until it is killed, or until nothing is left."""
    bare, channel = installation(url, api)
    await Delivery(bare.services, {"telegram": channel}, alone=True).until_idle(120)
    await channel.close()
    bare.close()


def prepare(bare: Bare, people: int) -> None:
    """Members with consent, and a letter released to them."""
    members = bare.people(people, "telegram", lambda person: str(FIRST_CHAT + person))
    agreed = {"scope": "profile", "live": True, "version": "1", "at": NOON}
    with bare.database.session() as session:
        session.execute(insert(ConsentNow), [{"person_id": m, **agreed} for m in members])
        letter = Campaign(
            number="B-1",
            kind="letter",
            title="",
            occasion="letter:kills",
            purpose="letter",
            template="您好，",
            created_at=NOON,
        )
        session.add(letter)
        session.flush()
        moment = planning.Moment(NOON, local=False)
        planning.freeze(
            bare.services,
            session,
            letter,
            select(Person.id),
            LETTER,
            moment,
            NOON,  # type: ignore[call-overload]
        )
        planning.release(bare.services, session, letter, LETTER, NOON)


async def trial(kills: int, people: int, seed: int, url: str) -> Outcome:
    """Run it all; bounded by the number of kills and by 60 seconds for the last process."""
    # Here, so that the processes that are killed need not load the emulators.
    from tests.emulators.clock import VirtualClock
    from tests.emulators.server import Platforms
    from tests.emulators.telegram import Rules, Telegram

    chance = random.Random(seed)  # noqa: S311  # when to kill, not a secret
    clock = VirtualClock(SystemClock().now(), rate=1)
    emulator = Telegram(clock, token=TOKEN, rules=Rules(None, None, None))
    async with Platforms(clock, telegram=emulator) as platforms:
        api = platforms.url
        bare, _channel = installation(url, api)
        prepare(bare, people)
        for row in bare.all():
            emulator.person(_user(row.address), f"乡亲{row.person_id}")
            emulator.start(_user(row.address))
        emulator.fail("sendMessage", "delay", times=-1, value=CALL)
        most, done = 0, 0
        for _kill in range(kills):
            if not await _one_life(url, api, emulator, chance.uniform(0.0, LIFE)):
                break
            done += 1
            most = max(most, bare.states().get("sending", 0))
        last = await _start(url, api)
        await asyncio.wait_for(last.wait(), 60)
        states = bare.states()
        heard = {row.id: len(emulator.heard(_user(row.address))) for row in bare.all()}
        unknown = {row.id for row in bare.all() if row.state == "unknown"}
        bare.close()
    return Outcome(
        done,
        people,
        states,
        sum(1 for count in heard.values() if count > 1),
        sum(1 for row, count in heard.items() if count == 0 and row not in unknown),
        len(unknown),
        most,
    )


def _user(address: str) -> int:
    return int(address.rpartition(":")[2])


async def _one_life(url: str, api: str, emulator: Any, seconds: float) -> bool:
    """Start a process and kill it some time after its first message; False if it finished first."""
    seen = _messages(emulator)
    process = await _start(url, api)
    while _messages(emulator) == seen and process.returncode is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(seconds)
    if process.returncode is not None:
        return False
    process.send_signal(signal.SIGKILL)
    await process.wait()
    return True


def _messages(emulator: Any) -> int:
    return sum(len(chat.transcript) for chat in emulator.chats.values())


async def _start(url: str, api: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.kills", url, api, stdin=asyncio.subprocess.DEVNULL
    )


def main() -> bool:
    """Print the figures; True when nobody got two and nobody was silently left out."""
    note(f"给 {PEOPLE} 人的信，{KILLS} 次 kill -9，SQLite，Telegram 渠道对模拟平台")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(trial(KILLS, PEOPLE, 20260925, f"sqlite:///{folder}/kills.db"))
    note(f"实际杀死 {found.kills} 次；各状态 {dict(found.states)}")
    Figure("kills", "lost", found.lost, "人").tell()
    Figure("kills", "doubled", found.doubled, "人").tell()
    Figure("kills", "unknown", found.unknown, "人").tell()
    return found.kept


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
