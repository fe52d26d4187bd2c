"""What a message costs among a thousand members and among a million: `growth` of `inbound`.

The same thousand or fewer write, spread over all; everybody has an address, a profile and a
message in the inbox, a tenth an open form. Processor time, in pairs that take turns question by
question: a machine that is slower for a while is so for both; the median of what they say.
"""

from __future__ import annotations

import tempfile
from itertools import count
from statistics import median

from sqlalchemy import text

from benchmarks.figures import Figure, note
from benchmarks.inbound_app import installation
from benchmarks.servers import OURS, in_turn, path_of
from benchmarks.wechat_load import APP_ID, TEXTS, requests
from bot.clock import SystemClock
from storage.columns import to_millis
from storage.db import Database

SMALL, LARGE = 1_000, 1_000_000
WRITERS = 500
ROUNDS = 7
MOST = 1.15

_EVERYBODY = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :count - 1) "
_FILL = (
    "INSERT INTO person (id, created_at) {n} SELECT i + 1, :now FROM n",
    "INSERT INTO contact (id, person_id, channel, address, reachable, window_left, last_seen_at) "
    "{n} SELECT i + 1, i + 1, 'wechat', 'wechat:{app}:o' || i, 1, 0, :now FROM n",
    "INSERT INTO member_profile (person_id, number, name, hometown_tie, country, province, city, "
    "registered_at, last_confirmed_at) {n} SELECT i + 1, 'HY-' || i, '王小雁', '在外', '中国', "
    "'江苏', '苏州', :now, :now FROM n",
    "INSERT INTO inbox (key, person_id, received_at, reply) "
    "{n} SELECT 'wechat:{app}:' || i, i + 1, :now - i, :sealed FROM n",
    "INSERT INTO draft (person_id, form, parked, state, updated_at, expires_at) "
    "{n} SELECT i + 1, 'details', 1, :sealed, :now, :later FROM n WHERE i % 10 = 0",
    "ANALYZE",
)


def fill(database: Database, members: int) -> None:
    """So many members on SQLite."""
    now = to_millis(SystemClock().now())
    values = {
        "count": members,
        "now": now,
        "later": now + 86_400_000,
        "sealed": database.keys.seal('{"a":{},"f":{},"q":"","p":{},"v":""}'),
    }
    for statement in _FILL:
        with database.transaction() as connection:
            words = text(statement.format(n=_EVERYBODY, app=APP_ID))
            connection.execute(words, {k: v for k, v in values.items() if f":{k}" in words.text})


def main() -> bool:
    """Print the figure; True when it is within its bound."""
    sizes = (SMALL, LARGE)
    ids = count(10**9, WRITERS * len(TEXTS))
    cost: dict[int, list[float]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        urls = {size: f"sqlite:///{folder}/{size}.db" for size in sizes}
        for size, url in urls.items():
            app = installation(url)
            fill(app.services.database, size)
            app.close()
        for _round in range(ROUNDS):
            first = next(ids)
            messages = [
                requests(WRITERS, TEXTS, path_of(OURS), first, size // WRITERS) for size in sizes
            ]
            spent = in_turn([urls[size] for size in sizes], messages, WRITERS)
            for size, one in zip(sizes, spent, strict=True):
                cost[size].append(one)
    for size in sizes:
        listed = "、".join(f"{one:.0f}" for one in cost[size])
        note(f"{size:,} 位乡亲：每条 {listed} 微秒处理器时间")
    growth = median(many / few for few, many in zip(cost[SMALL], cost[LARGE], strict=True))
    Figure("inbound", "growth", growth, "倍").tell()
    return growth <= MOST
