"""How many encrypted WeChat messages a second are answered, durably, by a ten-question form.

Beside WeRoBot with its own SQLite session, as it comes and tuned to WAL; ours runs at synchronous
FULL, remembers every message id and stores every answer. Rounds alternate.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

from benchmarks.figures import Figure, note, ratio
from benchmarks.wechat_load import AES_KEY, APP_ID, QUESTIONS, TOKEN, Load, drive, requests
from bot import web
from bot.app import App, build_channels, facts_of, services_for, tune_interpreter
from bot.catalog import Catalog
from bot.clock import SystemClock
from bot.commands import Command, Greeting, command
from bot.context import Context
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss
from bot.settings import demo_settings
from handlers.place import PLACES
from handlers.roles import POLICY
from handlers.welcome import GREETING
from storage.columns import KeyRing
from storage.tables import METADATA

PEOPLE = 400
CONNECTIONS = 32
ROUNDS = 3
PROMISE = 3.0
PEERS = ("werobot", "werobot_wal")


def digit(text: str, _asking: Asking) -> int | Miss:
    """One number."""
    return int(text) if text.isdigit() else Miss("请回数字。")


def question(number: int) -> object:
    """An annotated field."""
    return Annotated[int, Ask(f"第{number}项", "请回数字。", digit, counted=True)]


class TenQuestions(Form, name="ten_questions", label="十题"):
    """As long as the peer's."""

    finish = None
    q1: question(1)  # type: ignore[valid-type]  # ten alike
    q2: question(2)  # type: ignore[valid-type]
    q3: question(3)  # type: ignore[valid-type]
    q4: question(4)  # type: ignore[valid-type]
    q5: question(5)  # type: ignore[valid-type]
    q6: question(6)  # type: ignore[valid-type]
    q7: question(7)  # type: ignore[valid-type]
    q8: question(8)  # type: ignore[valid-type]
    q9: question(9)  # type: ignore[valid-type]
    q10: question(10)  # type: ignore[valid-type]

    def submit(self, context: Context) -> Reply:
        return say("填完了。")


@command("开始")
def begin(context: Context, _argument: str) -> Reply:
    """Open the form."""
    return context.begin(TenQuestions)


def serve(folder: str, port: int) -> None:
    """Our server in this process: the real channel, dispatcher and storage."""
    settings = demo_settings(
        database_url=f"sqlite:///{folder}/inbound.db",
        channels="wechat",
        wechat_app_id=APP_ID,
        wechat_app_secret="s" * 32,
        wechat_token=TOKEN,
        wechat_aes_key=AES_KEY,
        wechat_api_base="http://127.0.0.1:9",
    )
    clock = SystemClock()
    channels = build_channels(settings, clock)
    declared = {Command: [begin], Greeting: [GREETING]}
    catalog = Catalog(declared, {TenQuestions.name: TenQuestions}, POLICY, PLACES)
    services = services_for(
        settings, facts_of(channels), keys=KeyRing.generate(), clock=clock, catalog=catalog
    )
    METADATA.create_all(services.database.engine)
    app = App(services, channels, alone=True)

    tune_interpreter()
    with asyncio.Runner(loop_factory=web.new_loop) as runner:
        runner.run(web.serve(app, web.listen("127.0.0.1", port), ("web",)))


@contextmanager
def server(name: str, folder: Path) -> Iterator[tuple[int, int]]:
    """(port, process id) of a fresh server on an empty database, pinned to the first core."""
    port = _free_port()
    environment = dict(os.environ)
    if name == "ours":
        words = [sys.executable, "-m", "benchmarks.inbound", str(folder), str(port)]
    else:
        environment |= {"WEROBOT_DATABASE": f"{folder}/werobot.db"}
        environment |= {"WEROBOT_WAL": "1"} if name == "werobot_wal" else {}
        bind = f"127.0.0.1:{port}"
        words = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "4", "-b", bind]
        words += ["--keep-alive", "30", "benchmarks.peers.werobot_form:app"]
    # Set before it starts, so that the workers it starts are pinned too.
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    process = subprocess.Popen(  # our own words
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.sched_setaffinity(0, ours)
    try:
        _wait_for(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(15)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _try in range(600):
        if process.poll() is not None:
            raise RuntimeError("the server ended at once")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not come up")


def measured(name: str) -> tuple[Load, float]:
    """One round: every person fills the form in once; (load, peak memory in MB)."""
    path = "/callback/wechat" if name == "ours" else "/"
    texts = ["开始", *["5"] * QUESTIONS]
    with tempfile.TemporaryDirectory() as folder, server(name, Path(folder)) as (port, process):
        messages = requests(PEOPLE, texts, path, 10**9)
        load = asyncio.run(drive(port, messages, CONNECTIONS))
        if name == "ours" and load.silent:
            raise RuntimeError(f"{load.silent} messages were not answered")
        return load, _peak(process)


def _peak(process: int) -> float:
    """Memory of a server and the workers it started."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if int(status.parent.name) == process or f"PPid:\t{process}\n" in text:
            found = re.search(r"VmHWM:\s+(\d+) kB", text)
            total += int(found[1]) / 1024 if found else 0
    return total


def main() -> bool:
    """Print the figures; True when the promised ratio is reached."""
    note(f"{PEOPLE} 人各填 {QUESTIONS} 题，{CONNECTIONS} 条连接，{ROUNDS} 轮轮流")
    os.sched_setaffinity(0, {1})
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *PEERS)}
    last: Mapping[str, tuple[Load, float]] = {}
    for _round in range(ROUNDS):
        last = {name: measured(name) for name in rates}
        for name, (load, _memory) in last.items():
            rates[name].append(load.rate)
    for name in PEERS:
        load, _memory = last[name]
        note(f"{name}: {median(rates[name]):.0f} 条/秒，p50 {load.p50:.1f} ms，空答 {load.silent}")
        Figure(
            "inbound",
            "msgs_per_s",
            median(rates["ours"]),
            "条/秒",
            name,
            ratio(rates["ours"], rates[name]),
        ).tell()
    load, memory = last["ours"]
    Figure("inbound", "p50_ms", load.p50, "毫秒").tell()
    Figure("inbound", "p99_ms", load.p99, "毫秒").tell()
    Figure("inbound", "rss_mb", memory, "MB").tell()
    return ratio(rates["ours"], rates["werobot"]) >= PROMISE


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
