"""How long it takes to pause, resume and cancel a letter of 100,000 rows while it is being sent.

By SQLite in one process, and by PostgreSQL with two workers at it: until the word is committed and
until all rows have followed it; and how many calls begin, of rows that had not passed the gate,
after the word was committed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import median

from sqlalchemy import String, bindparam, select, text

from benchmarks.figures import Figure, note
from bot import planning
from bot.app import tune_interpreter
from bot.delivery import Delivery
from bot.ladder import Asked
from bot.messages import Address, Part
from handlers.purposes import LETTER
from storage import gate, mailbox
from storage.campaigns import Campaign, CampaignState
from tests.bare import NOON, Bare
from tests.postgres import FLEETING, running_server
from tests.world import MemoryChannel

ROWS = 100_000
SOME = 1_000  # of them are written one by one, the others copied
CALL = 0.020  # seconds the sink takes
WORKERS = 2
MEMORY = "-c shared_buffers=128MB"  # as PostgreSQL comes; the tests' server has less
PAUSES = 3
WATCHED = 1.0  # seconds that the workers are watched after each word
MOST = {"sqlite": 1.0, "postgresql": 2.5}  # seconds
_COLUMNS = [column for column in mailbox.TABLE.c if column.name != "id"]
_ANOTHER = [
    (column + bindparam("copy", type_=String)).label(column.name)
    if column.name in ("recipient", "address")
    else column
    for column in _COLUMNS
]
_COPY = mailbox.TABLE.insert().from_select(
    [column.name for column in _COLUMNS],
    select(*_ANOTHER).where(mailbox.TABLE.c.id <= bindparam("some")),
)
WORDS = {
    "pause": CampaignState.PAUSED,
    "resume": CampaignState.RUNNING,
    "cancel": CampaignState.CANCELLED,
}
ASKED = Asked(LETTER, NOON)


@dataclass
class Sink(MemoryChannel):
    """Takes 20 ms; notes when each row's call began, by the machine's one monotonic clock."""

    began: dict[int, float] = field(default_factory=dict)

    async def send(self, address: Address, part: Part, key: str) -> str:
        self.began[int(key.partition("-")[0])] = time.monotonic()
        await asyncio.sleep(CALL)
        return ""


def letter(bare: Bare, rows: int) -> int:
    """A letter with so many queued rows; its number."""
    with bare.database.session() as session:
        campaign = Campaign(
            number="B-1",
            kind="letter",
            title="",
            occasion="b:1",
            purpose="letter",
            template="",
            created_at=NOON,
        )
        session.add(campaign)
        session.flush()
        number = campaign.id or 0
    bare.lane()
    bare.queue(range(SOME), campaign_id=number)
    with bare.database.transaction() as connection:
        for copy in range(1, rows // SOME):
            connection.execute(_COPY, {"copy": f"-{copy}", "some": SOME})
    if not bare.database.sqlite:
        with bare.database.transaction() as connection:
            connection.execute(text("ANALYZE outbox"))
    return number


def work(url: str, alone: bool, pipe: Connection) -> None:
    """Drain until told to stop; then tell when which row's call began."""
    bare, sink = Bare(url), Sink()
    tune_interpreter()

    async def drain() -> None:
        delivery = Delivery(bare.services, {"memory": sink}, alone=alone)
        running = asyncio.create_task(delivery.run())
        await asyncio.to_thread(pipe.recv)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(drain())
    pipe.send(sink.began)
    bare.close()


def say_word(bare: Bare, word: str, number: int) -> tuple[float, float, set[int]]:
    """Seconds it took, when it was committed, and the rows that were being sent at that moment."""
    started = time.monotonic()
    with bare.database.session() as session:
        campaign = session.get_one(Campaign, number)
        campaign.state = WORDS[word]
        session.flush()
        gate.fence(session.connection(), number)
        planning.settle(bare.services, session, campaign, ASKED)
        found = session.execute(text("SELECT id FROM outbox WHERE state = 'sending'"))
        sending = {row.id for row in found}
    return time.monotonic() - started, time.monotonic(), sending


def settle(bare: Bare, number: int) -> float:
    """Seconds until all rows are where the word wants them, as the job brings them there."""
    started, settled = time.monotonic(), False
    while not settled:
        with bare.database.session() as session:
            campaign = session.get_one(Campaign, number)
            settled = planning.settle(bare.services, session, campaign, ASKED)
    return time.monotonic() - started


@dataclass
class Trial:
    """What a trial found: seconds by word, and rows that began to leave after a word."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    settled: list[float] = field(default_factory=list)
    started_after: int = 0
    sent: int = 0


def trial(url: str, rows: int, workers: int, watched: float = WATCHED) -> Trial:
    """Pause and resume a few times, then cancel, with workers at it all the time."""
    bare = Bare(url)
    number = letter(bare, rows)
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(workers)]
    processes = [
        context.Process(target=work, args=(url, workers == 1, theirs)) for _ours, theirs in pipes
    ]
    for process in processes:
        process.start()
    while not bare.states().get("sent", 0):
        time.sleep(0.05)
    found, quiet = Trial(), []
    for word in [*["pause", "resume"] * PAUSES, "cancel"]:
        seconds, at, sending = say_word(bare, word, number)
        found.seconds.setdefault(word, []).append(seconds)
        found.settled.append(settle(bare, number))
        time.sleep(watched)
        if word != "resume":
            quiet.append((at, time.monotonic(), sending))
    began: dict[int, list[float]] = {}
    for ours, _theirs in pipes:
        ours.send("stop")
    for ours, _theirs in pipes:
        for id, moment in ours.recv().items():
            began.setdefault(id, []).append(moment)
    for process in processes:
        process.join()
    found.started_after = sum(
        id not in sending and at < moment < until
        for at, until, sending in quiet
        for id, moments in began.items()
        for moment in moments
    )
    found.sent = bare.states().get("sent", 0)
    bare.close()
    return found


def tell(engine: str, found: Trial) -> bool:
    """Print one engine's figures; True when they keep the promise."""
    slowest = max(max(times) for times in found.seconds.values())
    for word, times in found.seconds.items():
        Figure("pause", f"{engine}_{word}_s", median(times), "秒").tell()
    Figure("pause", f"{engine}_settled_s", max(found.settled), "秒").tell()
    Figure("pause", f"{engine}_started_after", found.started_after, "条").tell()
    note(f"{engine}：最慢 {slowest:.2f} 秒，其间发出 {found.sent} 条")
    return slowest <= MOST[engine] and found.started_after == 0 and found.sent > 0


def main() -> bool:
    """Print the figures; True when both engines are fast enough and nothing starts afterwards."""
    note(f"正在发的 {ROWS} 行，暂停、恢复各 {PAUSES} 次，再取消")
    with tempfile.TemporaryDirectory() as folder:
        kept = tell("sqlite", trial(f"sqlite:///{folder}/pause.db", ROWS, 1))
    with running_server(f"{FLEETING} {MEMORY}") as server:
        kept &= tell("postgresql", trial(server.url(server.create()), ROWS, WORKERS))
    return kept
