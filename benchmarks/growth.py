"""What the ledger costs as it grows: 10,000, 1,000,000 and (asked for) 10,000,000 rows.

A finished history of letters and answers is laid in bulk, one row in ten a member's worth of
files, consents and addresses. On top of it, in transactions that commit: claim, gate and
acknowledgement of a batch, one inbound message through the real handlers, one campaign's receipts,
and the night's forgetting of 100,000 rows. On SQLite and on PostgreSQL (which here need not wait
for the disk); the history grows in place, so every size is the same installation later on.
Beside the time on the wall stands the processor's, of this process and of the database's own: it
tells the same whoever else is at work on the machine, and is what is judged.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.schema import CreateIndex, DropIndex

from benchmarks.figures import Figure, note
from bot.app import services_for
from bot.catalog import collect
from bot.clock import MovableClock
from bot.context import ChannelFacts, Services, new_row
from bot.dispatch import Dispatcher
from bot.messages import Address, Inbound
from bot.settings import demo_settings
from schedules.retention import BATCH as FORGOTTEN
from storage import claims, gate, lanes, mailbox, overview, upkeep
from storage.columns import from_millis, to_millis
from storage.gate import Outcome
from storage.mailbox import INBOX, TABLE
from storage.states import State
from tests.laying import lay_tables
from tests.postgres import FLEETING, running_server
from tests.world import OFFICE

SMALL, MIDDLE = 10_000, 1_000_000
LETTER = 10_000  # recipients of one campaign
ROWS_A_MEMBER = 10
BATCH = 64  # rows claimed at once
ROUNDS = 40
RECEIPTS = 5
PRUNED = 100_000
CHUNK = 1_000_000  # rows laid in one transaction
MOST_MS = 200.0  # of work in one transaction of the night's forgetting
MOST_GROWTH = 3.0  # claim, gate and acknowledgement against the smallest size
LAYING_KB, USUAL_KB = 1_000_000, 2000
QUEUED_FROM = 100_000_000  # numbers of the letters that are still to leave
STEP_MS = 3_000  # between two rows of the history
ROOMY = "-c shared_buffers=1GB -c maintenance_work_mem=512MB -c max_wal_size=8GB"
NOW = datetime(2026, 9, 25, 12, 0, tzinfo=UTC)
LANE = "memory:bulk"
KEYS = "k1:0123456789abcdef0123456789abcdef"

_NUMBERS = {
    "sqlite": (
        "WITH RECURSIVE n(i) AS (SELECT {low} UNION ALL SELECT i + 1 FROM n WHERE i < {high}) "
        "SELECT i FROM n"
    ),
    "postgresql": "SELECT i::bigint FROM generate_series({low}::bigint, {high}) AS n(i)",
}
_MEMBERS = (
    "INSERT INTO person (id, created_at) SELECT i, {then} FROM ({numbers}) AS s",
    "INSERT INTO contact (person_id, channel, address, reachable, window_left, last_seen_at) "
    "SELECT i, 'memory', 'memory:t:u' || i, {yes}, 0, {then} FROM ({numbers}) AS s",
    "INSERT INTO consent_now (person_id, scope, live, version, at) "
    "SELECT i, 'profile', {yes}, '1', {then} FROM ({numbers}) AS s",
    "INSERT INTO member_profile (person_id, number, name, hometown_tie, country, province, city, "
    "registered_at, last_confirmed_at) SELECT i, 'HY-' || i, '王小雁', '在外', '中国', '江苏', "
    "'苏州', {then}, {then} FROM ({numbers}) AS s",
)
_CAMPAIGNS = (
    "INSERT INTO campaign (id, number, kind, title, occasion, purpose, template, facts, audience, "
    "words, content_hash, recipients_hash, object, created_at, local_time, state) "
    "SELECT i, 'B-' || i, 'letter', '中秋', 'letter:' || i, 'letter', '', '{{}}', '{{}}', '', '', "
    "'', '', {then} + i * {letter} * {step}, {yes}, 'done' FROM ({numbers}) AS s"
)
# Of five rows four are of letters, one is an answer; of a hundred three did not arrive.
_HISTORY: Mapping[str, str] = {
    "id": "i",
    "occasion": "CASE WHEN i % 5 = 0 THEN 'answer:' || i ELSE 'letter:' || (i / {letter}) END",
    "recipient": "'p' || (i % {members} + 1)",
    "campaign_id": "CASE WHEN i % 5 = 0 THEN NULL ELSE i / {letter} END",
    "person_id": "i % {members} + 1",
    "address": "'memory:t:u' || (i % {members} + 1)",
    "purpose": "CASE WHEN i % 5 = 0 THEN 'answer' ELSE 'letter' END",
    "scope": "CASE WHEN i % 5 = 0 THEN NULL ELSE 'profile' END",
    "topic": "CASE WHEN i % 5 = 0 THEN NULL ELSE '节日信' END",
    "lane": "'memory:bulk'",
    "windowed": "{no}",
    "repeatable": "{no}",
    "state": "CASE WHEN i % 100 < 97 THEN 'sent' WHEN i % 100 = 97 THEN 'suppressed' "
    "ELSE 'failed' END",
    "reason": "CASE WHEN i % 100 < 97 THEN '' WHEN i % 100 = 97 THEN 'consent' ELSE 'blocked' END",
    "not_before": "{then} + i * {step}",
    "attempts": "1",
    "parts_sent": "1",
    "owner": "'w0'",
    "body_hash": "'0123456789abcdef'",
    "provider_id": "'m' || i",
    "created_at": "{then} + i * {step}",
    "sent_at": "{then} + i * {step}",
}
_INBOX = (
    "INSERT INTO inbox (key, person_id, received_at) SELECT 'memory:t:old' || i, i % {members} + 1,"
    " {then} + i * {step} FROM ({numbers}) AS s"
)


@dataclass
class Spent:
    """Seconds of several rounds, by the clock on the wall and of the processor's work."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


@dataclass
class Ledger:
    """One installation that grows, and the ways to time it."""

    services: Services
    rows: int = 0
    members: int = 0
    letters: int = 0
    backends: Sequence[Path] = ()
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.database = self.services.database
        self.engine = self.database.engine.dialect.name
        self.dispatcher = Dispatcher(self.services)
        # So far back that whatever is laid is done with, and has no place in anybody's window.
        self.then = NOW - timedelta(days=400)
        lay_tables(self.database)
        with self.database.transaction() as connection:
            lanes.ensure_lane(connection, LANE, 9, 0, 1)

    # - growing -

    def grow(self, rows: int) -> None:
        """Lay history up to so many rows, and members and letters in proportion."""
        members = max(LETTER, rows // ROWS_A_MEMBER)
        low = self._first_free()
        high = low + rows - self.rows - 1
        with self._without_indexes():
            for statement in _MEMBERS:
                self._lay(statement, self.members + 1, members)
            self.members = members
            self._lay(_CAMPAIGNS, low // LETTER, high // LETTER)
            self.letters = high // LETTER
            names = ", ".join(_HISTORY)
            history = f"INSERT INTO outbox ({names}) SELECT {', '.join(_HISTORY.values())}"
            for start in range(low, high + 1, CHUNK):
                chunk = f"{history} FROM ({{numbers}}) AS s"
                self._lay(chunk, start, min(start + CHUNK - 1, high))
            self._lay(_INBOX, self.rows // ROWS_A_MEMBER + 1, rows // ROWS_A_MEMBER)
        self.rows = rows
        self._tidy()

    def _first_free(self) -> int:
        """The number at which the next letter's rows begin."""
        with self.database.engine.connect() as connection:
            last = connection.execute(text("SELECT coalesce(max(id), 0) FROM outbox")).scalar_one()
        return int(last // LETTER + 1) * LETTER

    def _lay(self, statement: str, low: int, high: int) -> None:
        words = {
            "numbers": _NUMBERS[self.engine].format(low=low, high=high),
            "then": to_millis(self.then),
            "now": to_millis(NOW),
            "yes": "TRUE" if self.engine == "postgresql" else "1",
            "no": "FALSE" if self.engine == "postgresql" else "0",
            "letter": LETTER,
            "step": STEP_MS,
            "members": max(self.members, 1),
        }
        if low <= high:
            with self.database.transaction() as connection:
                connection.execute(text(statement.format(**words)))

    @contextmanager
    def _without_indexes(self) -> Iterator[None]:
        """Indexes are built once at the end of a growth, which is how one loads much at once."""
        indexes: list[Index] = [*TABLE.indexes, *INBOX.indexes]
        self._cache(LAYING_KB)
        with self.database.transaction() as connection:
            for index in indexes:
                connection.execute(DropIndex(index))
        yield
        for index in indexes:
            with self.database.transaction() as connection:
                connection.execute(CreateIndex(index))
        self._cache(USUAL_KB)

    def _cache(self, kilobytes: int) -> None:
        """How much SQLite keeps in memory: much to lay quickly, what is usual to be timed."""
        if self.engine == "sqlite":
            with self.database.engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA cache_size = -{kilobytes}")

    def _tidy(self) -> None:
        """What autovacuum would have done by the time so much has been sent."""
        with self.database.engine.connect() as connection:
            if self.engine == "postgresql":
                alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                alone.exec_driver_sql("SELECT setval('outbox_id_seq', max(id)) FROM outbox")
                alone.exec_driver_sql("VACUUM ANALYZE")
                query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                found = alone.exec_driver_sql(query).scalars().all()
                self.backends = [Path(f"/proc/{pid}/schedstat") for pid in found]
                return
        with self.database.transaction() as connection:
            connection.exec_driver_sql("ANALYZE")

    def megabytes(self) -> float:
        """How much room the database takes."""
        query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        if self.engine == "postgresql":
            query = "SELECT pg_database_size(current_database())"
        with self.database.engine.connect() as connection:
            return float(connection.exec_driver_sql(query).scalar_one()) / 2**20

    # - timing -

    def drain(self) -> dict[str, float]:
        """What claim, gate and acknowledgement of a batch cost, commit included."""
        campaign = self._queue(ROUNDS * BATCH)
        spent = {name: Spent() for name in ("claim", "gate", "ack")}
        for _ in range(ROUNDS):
            rows = self._timed(spent["claim"], claims.claim, LANE, "w1", NOW, BATCH)
            ids = [row.id for row in rows]
            assert len(ids) == BATCH
            passed = self._timed(spent["gate"], gate.gate, ids, "w1", NOW)
            assert passed == set(ids)
            outcomes = [Outcome(id, State.SENT, sent_at=NOW, provider_id=f"n{id}") for id in ids]
            self._timed(spent["ack"], gate.acknowledge, "w1", outcomes)
        with self.database.reading() as session:
            counts = overview.progress(session.connection(), campaign)
        assert counts == {(State.SENT, ""): ROUNDS * BATCH}
        return _told(spent)

    def _timed(self, into: Spent, work: Callable[..., Any], *arguments: Any) -> Any:
        with self._watched(into), self.database.transaction() as connection:
            return work(connection, *arguments)

    @contextmanager
    def _watched(self, into: Spent) -> Iterator[None]:
        started, worked = time.perf_counter(), self._processor_time()
        yield
        into.clock.append(time.perf_counter() - started)
        into.processor.append(self._processor_time() - worked)

    def _processor_time(self) -> float:
        """Seconds that this process and the database's own have worked, whoever else is about."""
        theirs = sum(int(path.read_text().split()[0]) for path in self.backends) / 1e9
        return time.process_time() + theirs

    def _queue(self, rows: int) -> int:
        """A new campaign to members all over the table, ready to leave."""
        campaign = QUEUED_FROM + next(self._numbers)
        self._lay(_CAMPAIGNS.replace("{then} + i * {letter} * {step}", "{now}"), campaign, campaign)
        stride = self.members // rows
        values = [
            new_row(
                occasion=f"letter:{campaign}",
                recipient=f"p{person}",
                campaign_id=campaign,
                person_id=person,
                address=f"memory:t:u{person}",
                purpose="letter",
                scope="profile",
                topic="节日信",
                lane=LANE,
                not_before=NOW,
                created_at=NOW,
            )
            for person in range(1, rows * stride + 1, stride)
        ]
        with self.database.transaction() as connection:
            mailbox.enqueue(connection, values)
        return campaign

    def talk(self) -> dict[str, float]:
        """What one message of a known member costs, and one letter's receipts."""
        spent = {"inbound": Spent(), "receipt": Spent()}
        for number in range(ROUNDS):
            sender = Address("memory", "t", f"u{number * (self.members // ROUNDS) + 1}")
            message = Inbound(f"{next(self._numbers)}", sender, "我的档案", NOW)
            with self._watched(spent["inbound"]):
                parts = self.dispatcher.handle(message)
            assert parts[0].text.startswith("档案号：HY-")
        for campaign in range(self.letters, max(self.letters - RECEIPTS, 0), -1):
            with self._watched(spent["receipt"]), self.database.reading() as session:
                counts = overview.progress(session.connection(), campaign)
            assert sum(counts.values()) == LETTER * 4 // 5
        return _told(spent)

    def prune(self) -> dict[str, float]:
        """What a transaction that forgets the oldest rows costs, as a rule and at worst, a look
        that finds nothing, and 100,000 rows."""
        with self.database.engine.connect() as connection:
            nth = min(PRUNED, self.rows // 10)
            oldest = f"SELECT created_at FROM outbox ORDER BY id LIMIT 1 OFFSET {nth}"  # noqa: S608
            before = from_millis(connection.execute(text(oldest)).scalar_one())
        spent, gone = {"prune": Spent(), "prune_nothing": Spent()}, 0
        for rule in (upkeep.settle_campaigns, upkeep.forget_notices):  # once to be warm
            self._timed(Spent(), rule, self.then, FORGOTTEN)
        for rule in (upkeep.settle_campaigns, upkeep.forget_notices):
            count = FORGOTTEN
            while count == FORGOTTEN:
                count = self._timed(spent["prune"], rule, before, FORGOTTEN)
                gone += count
        for look in (upkeep.settle_campaigns, upkeep.forget_notices, upkeep.forget_bodies):
            assert self._timed(spent["prune_nothing"], look, before, FORGOTTEN) == 0
        times = spent["prune"]
        return _told(spent) | {
            "prune_slowest_ms": max(times.clock) * 1000,
            "prune_slowest_cpu_ms": max(times.processor) * 1000,
            "prune_100k_cpu_ms": sum(times.processor) * 1000 * PRUNED / gone,
        }


def _told(spent: Mapping[str, Spent]) -> dict[str, float]:
    told = {f"{name}_ms": _usual(one.clock) for name, one in spent.items()}
    return told | {f"{name}_cpu_ms": _usual(one.processor) for name, one in spent.items()}


def _usual(times: Sequence[float]) -> float:
    """Milliseconds in the better half, whose median a busy neighbour hardly moves."""
    return median(sorted(times)[: (len(times) + 1) // 2]) * 1000


def _services(url: str) -> Services:
    return services_for(
        demo_settings(database_url=url, **OFFICE),
        {"memory": ChannelFacts("memory", inline=99)},
        keys=KEYS,
        clock=MovableClock(NOW),
        catalog=collect(),
    )


def _measured(url: str, sizes: Sequence[int]) -> bool:
    ledger = Ledger(_services(url))
    engine = "sqlite" if ledger.engine == "sqlite" else "pg"
    by_size: list[dict[str, float]] = []
    kept = True
    for size in sizes:
        started = time.perf_counter()
        ledger.grow(size)
        note(
            f"{engine} {size} 行、{ledger.members} 人：{ledger.megabytes():.0f} MB，"
            f"铺开用了 {time.perf_counter() - started:.0f} 秒"
        )
        spent = ledger.drain() | ledger.talk() | ledger.prune()
        for name, value in spent.items():
            Figure("growth", f"{engine}_{name}_{size}", value, "毫秒").tell()
        by_size.append(spent)
        kept = kept and spent["prune_slowest_cpu_ms"] <= MOST_MS
    for name in ("claim", "gate", "ack", "inbound"):
        growth = by_size[-1][f"{name}_cpu_ms"] / by_size[0][f"{name}_cpu_ms"]
        Figure("growth", f"{engine}_{name}_growth", growth, "倍").tell()
        kept = kept and growth <= MOST_GROWTH
    ledger.database.close()
    return kept


def main(most: int = MIDDLE) -> bool:
    """Print the figures up to so many rows; True when both databases keep the promises."""
    sizes = sorted({SMALL, min(MIDDLE, most), most})
    with tempfile.TemporaryDirectory() as folder:
        kept = [_measured(f"sqlite:///{Path(folder) / 'growth.db'}", sizes)]
    with running_server(f"{FLEETING} {ROOMY}") as server:
        kept.append(_measured(server.url(server.create()), sizes))
    return all(kept)
