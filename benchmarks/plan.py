"""How long it takes to plan a broadcast to 100,000 of 1,000,000 members, and to freeze its list.

Consent, suppression, addresses and windows are asked of each; on SQLite and on PostgreSQL. Growth
is the cost a person at 1,000,000 members against that at 10,000, a tenth of them being meant.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from sqlalchemy import text
from sqlmodel import Session

from benchmarks.figures import Figure, note
from bot.commands import Purpose
from bot.planning import Moment, freeze, plan
from handlers.purposes import NEWS
from handlers.segments import Segment
from storage.campaigns import Campaign
from tests.bare import NOON, Bare
from tests.postgres import running_server

LARGE, SMALL = 1_000_000, 10_000
SHARE = 10  # one in so many is meant
MOST_SECONDS = 3.0
MOST_MB = 200.0
MOST_GROWTH = 1.2
ROUNDS = 3
CITY = "苏州"

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


def planned(url: str, count: int, report: Connection) -> None:
    """(seconds of each round, people frozen, peak memory in MB) in a process of its own."""
    bare = Bare(url)
    fill(bare, count)
    seconds, frozen = [], 0
    for number in range(ROUNDS):
        with bare.database.session() as session:
            started = time.perf_counter()
            frozen = _once(bare, session, number, NEWS)
            session.flush()
            seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report.send((seconds, frozen, peak))
    bare.close()


def _once(bare: Bare, session: Session, number: int, purpose: Purpose) -> int:
    people = Segment(cities=(CITY,)).people(NOON)
    numbers = plan(bare.services, session, people, purpose, NOON)
    campaign = Campaign(
        number=f"B-{number}",
        kind="broadcast",
        title="测量",
        purpose=purpose.name,
        template="",
        occasion=f"bench:{number}",
        created_at=NOON,
    )
    session.add(campaign)
    session.flush()
    moment = Moment(NOON, local=False)
    count = freeze(bare.services, session, campaign, people, purpose, moment, NOON)
    assert count == numbers.frozen
    return count


def measured(url: str, count: int) -> tuple[float, int, float]:
    """(median seconds, people frozen, peak memory in MB)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=planned, args=(url, count, theirs))
    process.start()
    seconds, frozen, peak = ours.recv()
    process.join()
    return median(seconds), frozen, peak


def _tell(engine: str, small_url: str, large_url: str) -> bool:
    small, few, _peak = measured(small_url, SMALL)
    large, many, peak = measured(large_url, LARGE)
    growth = (large / many) / (small / few)
    note(f"{engine}：{many} 人（{LARGE} 中），每人 {large / many * 1e6:.1f} 微秒")
    Figure("plan", "seconds" if engine == "sqlite" else f"{engine}_seconds", large, "秒").tell()
    Figure("plan", "rss_mb" if engine == "sqlite" else f"{engine}_rss_mb", peak, "MB").tell()
    Figure("plan", "growth" if engine == "sqlite" else f"{engine}_growth", growth, "倍").tell()
    return large <= MOST_SECONDS and peak <= MOST_MB and growth <= MOST_GROWTH


def main() -> bool:
    """Print the figures; True when both databases keep the promises."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"sqlite:///{Path(folder) / name}.db" for name in ("small", "large")]
        kept = [_tell("sqlite", *paths)]
    with running_server() as server:
        urls = [server.url(server.create()) for _ in range(2)]
        kept.append(_tell("postgresql", *urls))
    return all(kept)
