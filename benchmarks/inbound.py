"""How many encrypted WeChat messages a second are answered, durably, by a ten-question form.

Beside WeRoBot with its own SQLite session, as it comes and tuned to WAL; ours runs at synchronous
FULL, remembers every message id and stores every answer. On PostgreSQL beside an ORM session and a
commit for each message. Rounds alternate; a ratio is the median of the rounds'. Then what a message
costs among many members, and how many instructions it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from benchmarks import instructions, members
from benchmarks.figures import Figure, note, ratio
from benchmarks.servers import CONNECTIONS, ORM, OURS, Measured, fresh, measured, path_of
from benchmarks.wechat_load import TEXTS, requests
from tests.postgres import running_server

PEOPLE = 200
ROUNDS = 3
PROMISES = {"werobot": 5.0, "werobot_wal": 2.0, ORM: 3.5}


def _side_by_side(names: list[str], once: Callable[[str], Measured]) -> dict[str, list[Measured]]:
    """The rounds of each, in turn."""
    rounds: dict[str, list[Measured]] = {name: [] for name in names}
    for _round in range(ROUNDS):
        for name in names:
            rounds[name].append(once(name))
    return rounds


def _compare(rounds: dict[str, list[Measured]], database: str = "") -> bool:
    """Tell the ratios to each peer; True when every promise is kept."""
    ours = rounds.pop(OURS)
    rates = [one.load.rate for one in ours]
    kept = True
    for name, theirs in rounds.items():
        ratios = [a.load.rate / b.load.rate for a, b in zip(ours, theirs, strict=True)]
        cpu = [b.cpu_us / a.cpu_us for a, b in zip(ours, theirs, strict=True)]
        note(
            f"{name}：{_middle([one.load.rate for one in theirs]):.0f} 条/秒，"
            f"每条 {min(one.cpu_us for one in theirs):.0f} 微秒处理器时间；"
            f"速度比 {min(ratios):.2f} 至 {max(ratios):.2f}，处理器时间比 {_middle(cpu):.2f}"
        )
        reached = ratio(rates, [one.load.rate for one in theirs])
        Figure("inbound", "msgs_per_s", _middle(rates), "条/秒", name, reached).tell()
        kept = kept and reached >= PROMISES[name]
    Figure("inbound", f"{database}cpu_us", min(one.cpu_us for one in ours), "微秒").tell()
    return kept


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def on_sqlite() -> bool:
    """Beside WeRoBot."""

    def once(name: str) -> Measured:
        return fresh(name, requests(PEOPLE, TEXTS, path_of(name), 10**9))

    rounds = _side_by_side([OURS, "werobot", "werobot_wal"], once)
    last = rounds[OURS][-1]
    kept = _compare(rounds)
    Figure("inbound", "p50_ms", last.load.p50, "毫秒").tell()
    Figure("inbound", "p99_ms", last.load.p99, "毫秒").tell()
    Figure("inbound", "rss_mb", last.rss_mb, "MB").tell()
    return kept


def on_postgresql() -> bool:
    """Beside one ORM commit a message; every commit reaches the disk."""
    with running_server("") as postgres:
        urls = {name: postgres.url(postgres.create()) for name in (OURS, ORM)}
        ids = count(10**9, PEOPLE * len(TEXTS))

        def once(name: str) -> Measured:
            return measured(name, urls[name], requests(PEOPLE, TEXTS, path_of(name), next(ids)))

        return _compare(_side_by_side([OURS, ORM], once), "postgresql_")


def main() -> bool:
    """Print the figures; True when the promises are kept."""
    note(f"{PEOPLE} 人各填一张十题的表，{CONNECTIONS} 条连接，{ROUNDS} 轮轮流")
    kept = [on_sqlite(), on_postgresql(), members.main(), instructions.main()]
    return all(kept)
