"""How long it takes to plan a broadcast to 100,000 of 1,000,000 members, and to freeze its list.

Consent, suppression, rungs (windows, agreements, covers of the month) and how often each was
written to are asked of everybody meant; on SQLite and on PostgreSQL. Growth is the cost a person at
1,000,000 members against that at 10,000, a tenth of them being meant. Beside it, in the same run, a
bare INSERT … SELECT of as many rows.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import TypeVar

from sqlalchemy import Connection as Database
from sqlalchemy import text

from benchmarks.figures import Figure, note
from bot import planning
from bot.channels.wechat.notices import ByAgreement
from bot.context import ChannelFacts, Covers
from bot.ladder import Asked, Limit
from bot.planning import Moment
from handlers.purposes import NEWS
from handlers.segments import Segment
from storage.campaigns import Campaign
from tests.bare import FACTS, NOON, Bare
from tests.postgres import running_server

T = TypeVar("T")

LARGE, SMALL = 1_000_000, 10_000
SHARE = 10  # one in so many is meant
MOST_SECONDS = 3.0
MOST_MB = 200.0
MOST_GROWTH = 1.2
MOST_CHUNK = 0.2  # seconds of one transaction while a list is frozen
ROUNDS = 3
CITY = "苏州"
AGREED = {NEWS.name: "T"}
CHANNELS = {
    "memory": FACTS,
    "window": ChannelFacts(
        "window",
        windowed=True,
        windows={"any": (timedelta(hours=48), 5)},
        covers=Covers(4, 2, 10_000),
        ways=(ByAgreement(AGREED, lasting=True), ByAgreement(AGREED)),
    ),
}
ASKED = Asked(NEWS, NOON, kept=1, limits=(Limit(3, 7), Limit(8, 30)))

_NUMBERS = {
    "sqlite": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
        "SELECT i FROM n"
    ),
    "postgresql": "SELECT i FROM generate_series(1, {count}) AS n(i)",
}
_MEMBERS = (
    "INSERT INTO person (id, created_at) SELECT i, {now} FROM ({numbers}) AS s",
    "INSERT INTO contact (person_id, channel, address, reachable, window_until, window_left, "
    "last_seen_at) SELECT i, CASE WHEN i % 3 = 0 THEN 'window' ELSE 'memory' END, "
    "'memory:t:u' || i, {yes}, CASE WHEN i % 6 = 0 THEN {later} END, 5, {now} "
    "FROM ({numbers}) AS s",
    "INSERT INTO consent_now (person_id, scope, live, version, at) "
    "SELECT i, 'profile', CASE WHEN i % 50 = 0 THEN {no} ELSE {yes} END, '1', {now} "
    "FROM ({numbers}) AS s",
    "INSERT INTO unsubscription (person_id, topic, at) SELECT i, '家乡动态', {now} "
    "FROM ({numbers}) AS s WHERE i % 33 = 0",
    "INSERT INTO member_profile (person_id, number, name, hometown_tie, country, province, city, "
    "registered_at, last_confirmed_at) SELECT i, 'HY-' || i, '王小雁', '在外', '中国', '江苏', "
    "CASE WHEN i % {share} = 0 THEN '{city}' ELSE '北京' END, {now}, {now} FROM ({numbers}) AS s",
    'INSERT INTO wechat_notice_grant (person_id, template, "left", lasting, changed_at) '
    "SELECT i, 'T', i % 2, CASE WHEN i % 15 = 0 THEN {yes} ELSE {no} END, {now} "
    "FROM ({numbers}) AS s WHERE i % 5 = 0",
    "INSERT INTO cover (id, key, channel, text, preview, asked_by, created_at, state, reason, "
    "month, job, tries, total, sent, filtered, errors, told, excuse) SELECT i, 'k' || i, 'window', "
    "'', {no}, 1, {now}, 'done', '', '2026-03', '', 0, -1, -1, -1, -1, {yes}, '' "
    "FROM ({numbers}) AS s WHERE i <= 3",
    "INSERT INTO cover_recipient (cover_id, person_id) SELECT c.id, i FROM ({numbers}) AS s "
    "JOIN cover AS c ON c.id <= i % 4 WHERE i % 3 = 0",
    "INSERT INTO outbox (occasion, recipient, person_id, purpose, topic, lane, windowed, "
    "repeatable, state, reason, not_before, sent_at, attempts, parts_sent, owner, body_hash, "
    "provider_id, created_at) SELECT 'before' || b.n, 'p' || i, i, 'news', '家乡动态', "
    "'memory:bulk', {no}, {no}, 'sent', '', {now} - 86400000, {now} - 86400000, 1, 1, '', '', '', "
    "{now} "
    "FROM ({numbers}) AS s JOIN (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3) AS b "
    "ON b.n <= i % 40 / 10 WHERE i % {share} = 0",
)


def fill(bare: Bare, count: int) -> None:
    """So many members: some without consent, some unsubscribed, some outside their window."""
    now = round(NOON.timestamp() * 1000)
    engine = bare.database.engine.dialect.name
    numbers = _NUMBERS[engine].format(count=count)
    words = {
        "now": now,
        "later": now + 3_600_000,
        "yes": "TRUE" if engine == "postgresql" else "1",
        "no": "FALSE" if engine == "postgresql" else "0",
        "share": SHARE,
        "city": CITY,
        "numbers": numbers,
    }
    with bare.database.transaction() as connection:
        for statement in _MEMBERS:
            connection.execute(text(statement.format(**words)))
    with bare.database.transaction() as connection:
        connection.execute(text("ANALYZE"))


@dataclass(frozen=True)
class Measured:
    """Medians over the rounds: seconds to plan, to freeze, of the middle chunk, and of the bare
    INSERT; the people meant; the peak memory in MB."""

    plan: float
    freeze: float
    chunk: float
    bare: float
    people: int
    peak_mb: float


def planned(url: str, count: int, report: Connection) -> None:
    """Fill a database and measure, in a process of its own."""
    bare = Bare(url, channels=CHANNELS)
    fill(bare, count)
    rounds = [_once(bare, number) for number in range(ROUNDS)]
    plans, chunks, inserts, people = zip(*rounds, strict=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report.send(
        Measured(
            median(plans),
            median(sum(some) for some in chunks),
            median(median(some) for some in chunks),
            median(inserts),
            people[0],
            peak,
        )
    )
    bare.close()


def _once(bare: Bare, number: int) -> tuple[float, list[float], float, int]:
    """Plan, freeze chunk by chunk as the job does, and write as many rows with nothing asked."""
    segment = Segment(cities=(CITY,)).people(NOON)
    with bare.database.reading() as session:
        seconds, found = _timed(lambda: planning.plan(bare.services, session, segment, ASKED))
    with bare.database.session() as session:
        campaign = Campaign(
            number=f"B-{number}",
            kind="broadcast",
            title="测量",
            purpose=NEWS.name,
            template="",
            occasion=f"bench:{number}",
            created_at=NOON,
        )
        session.add(campaign)
    chunks, after = [], 0

    def chunk() -> int | None:
        with bare.database.session() as session:
            return planning.freeze_some(
                bare.services, session, campaign, segment, ASKED, MOMENT, after
            )

    while after is not None:
        took, after = _timed(chunk)
        chunks.append(took)
    with bare.database.session() as session:
        closing, frozen = _timed(lambda: planning.close_list(session, campaign, MOMENT))
    assert frozen == found.frozen
    with bare.database.transaction() as connection:
        plain, _ = _timed(lambda: _bare_insert(connection))
    return seconds, [*chunks[:-1], chunks[-1] + closing], plain, found.matched


MOMENT = Moment(NOON, local=False)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done


def _bare_insert(connection: Database) -> None:
    """As many rows of about that size, with no question asked and no index kept."""
    made = (
        "CREATE TEMPORARY TABLE bare AS "  # noqa: S608  # no word of anybody's in it
        "SELECT k.person_id, k.address, k.channel FROM contact AS k "
        f"JOIN member_profile AS m ON m.person_id = k.person_id WHERE m.city = '{CITY}'"
    )
    connection.execute(text(made))
    connection.execute(text("DROP TABLE bare"))


def measured(url: str, count: int) -> Measured:
    """What a process of its own found."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=planned, args=(url, count, theirs))
    process.start()
    found: Measured = ours.recv()
    process.join()
    return found


def _tell(engine: str, small_url: str, large_url: str) -> bool:
    small, large = measured(small_url, SMALL), measured(large_url, LARGE)
    growth = (large.plan / large.people) / (small.plan / small.people)
    each = large.plan / large.people * 1e6
    note(f"{engine}：{large.people} 人（{LARGE} 中），每人 {each:.1f} 微秒")
    first = "" if engine == "sqlite" else f"{engine}_"
    beside = large.plan / large.bare
    Figure("plan", f"{first}seconds", large.plan, "秒", "bare_insert_select", beside).tell()
    Figure("plan", f"{first}rss_mb", large.peak_mb, "MB").tell()
    Figure("plan", f"{first}growth", growth, "倍").tell()
    Figure("plan", f"{first}freeze_seconds", large.freeze, "秒").tell()
    Figure("plan", f"{first}chunk_ms", large.chunk * 1000, "毫秒").tell()
    kept = (
        large.plan <= MOST_SECONDS,
        large.peak_mb <= MOST_MB,
        growth <= MOST_GROWTH,
        large.chunk <= MOST_CHUNK,
    )
    return all(kept)


def main() -> bool:
    """Print the figures; True when both databases keep the promises."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"sqlite:///{Path(folder) / name}.db" for name in ("small", "large")]
        kept = [_tell("sqlite", *paths)]
    with running_server() as server:
        urls = [server.url(server.create()) for _ in range(2)]
        kept.append(_tell("postgresql", *urls))
    return all(kept)
