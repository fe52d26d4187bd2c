"""How many instructions a message takes from the opened request to the sealed answer.

Counted by callgrind, so that neighbours and disks do not matter: two runs differ by less than one
in a hundred. The whole path but the sockets, on one thread, in batches of a fixed size. Reviews
compare the count with `instructions.json`, which `python -m benchmarks.instructions renew` writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, note
from benchmarks.inbound_app import PATH, installation
from benchmarks.wechat_load import TEXTS, requests
from bot.app import App, tune_interpreter
from bot.dispatch import Dispatcher, Waiting
from bot.messages import Inbound, Part
from bot.web import application, new_loop

RECORD = Path(__file__).with_suffix(".json")
BATCH = 16
WARM, COUNTED = 1, 2  # batches of people who fill the whole form in
MORE = 1.05  # times the recorded count that passes
SECONDS = 600.0


def main() -> bool:
    """Print the figure; True unless it is clearly more than recorded."""
    counted = measured()
    if counted is None:
        note("没有 valgrind（apt install valgrind），不数指令。")
        return True
    Figure("inbound", "instructions_per_message", counted, "条指令").tell()
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    before = recorded.get("instructions_per_message")
    if before is None or recorded["python"] != platform.python_version():
        note("没有同一版本 Python 的记录可比。")
        return True
    note(f"记录为 {before:,} 条，现在是它的 {counted / before:.3f} 倍")
    return bool(counted <= before * MORE)


def measured() -> int | None:
    """Instructions a message; None without valgrind, RuntimeError when the run fails."""
    valgrind, control = shutil.which("valgrind"), shutil.which("callgrind_control")
    if valgrind is None or control is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        words = [valgrind, "--tool=callgrind", "--instr-atstart=no"]
        words += [
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            "-m",
            "benchmarks.instructions",
        ]
        done = subprocess.run(  # our own words
            [*words, "count", control, folder],
            env=dict(os.environ) | {"PYTHONHASHSEED": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    found = re.search(r"Collected : (\d+)", done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(done.stdout[-2000:])
    return round(int(found[1]) / (COUNTED * BATCH * len(TEXTS)))


class Stepwise(Dispatcher):
    """Does what it was given when it is told to, in the thread that tells it."""

    def __init__(self, app: App) -> None:
        super().__init__(app.services)
        self._given: list[Waiting] = []

    def submit(
        self, inbound: Inbound, answer: asyncio.Future[tuple[Part, ...]] | None = None
    ) -> Waiting:
        waiting = Waiting(inbound) if answer is None else Waiting(inbound, answer)
        self._given.append(waiting)
        return waiting

    def step(self) -> None:
        """Answer all of them in one batch."""
        given, self._given = self._given, []
        self.work(given)


def count(control: str, folder: str) -> None:
    """Inside valgrind: a batch to warm up, then those that are counted."""
    app = installation(f"sqlite:///{folder}/counted.db", hurried=False)
    app.dispatcher = dispatcher = Stepwise(app)
    asgi = application(app)
    people = (WARM + COUNTED) * BATCH
    messages = requests(people, TEXTS, PATH, 10**9)
    # Everybody's messages in order, some people before the others.
    ahead = [m for at in range(0, len(messages), people) for m in messages[at:][: WARM * BATCH]]
    behind = [
        m for at in range(0, len(messages), people) for m in messages[at:][WARM * BATCH : people]
    ]
    tune_interpreter()
    loop = new_loop()
    loop.run_until_complete(_answered(dispatcher, asgi, ahead))
    _instrument(control, "on")
    loop.run_until_complete(_answered(dispatcher, asgi, behind))
    _instrument(control, "off")
    loop.close()
    app.close()


def _instrument(control: str, word: str) -> None:
    subprocess.run(  # our own words
        [control, "-i", word, str(os.getpid())], check=True, stdout=subprocess.DEVNULL
    )


async def _answered(dispatcher: Stepwise, asgi: Any, messages: Sequence[bytes]) -> None:
    for start in range(0, len(messages), BATCH):
        calls = [asyncio.ensure_future(_call(asgi, raw)) for raw in messages[start:][:BATCH]]
        for _turn in range(3):
            await asyncio.sleep(0)  # until each has handed its message over
        dispatcher.step()
        await asyncio.gather(*calls)


async def _call(asgi: Any, raw: bytes) -> None:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    path, _, query = first.split(b" ")[1].partition(b"?")
    pairs = (line.partition(b":") for line in lines)
    headers = [(name.lower(), value.strip()) for name, _, value in pairs]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path.decode(),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
    }
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    await asgi(scope, receive, send)
    if told[0]["status"] != 200 or b"Encrypt" not in told[1]["body"]:
        raise RuntimeError(f"not answered: {told[0]['status']}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["count", control, folder]:
            count(control, folder)
        case ["renew"]:
            fresh = measured()
            record = {"instructions_per_message": fresh, "python": platform.python_version()}
            RECORD.write_text(json.dumps(record) + "\n")
            note(f"{fresh:,}" if fresh else "没有 valgrind")
        case _:
            raise SystemExit(0 if main() else 1)
