"""Workers that start in a blink: forks of one process that has loaded the whole program.

kill -9 takes everything that a worker has in memory, forked or not, and nothing is opened before
the fork: it only spares the seconds in which Python loads its modules.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Never, Self

Work = Callable[..., Coroutine[Any, Any, None]]
LOOK = 0.002  # seconds between looks whether a worker is gone


class Nest:
    """Starts workers: `python -m` with the given words runs a module that calls `hatch`.

    They end with this process, however it ends.
    """

    def __init__(self, *module: str) -> None:
        self._module = module
        self._source: asyncio.subprocess.Process | None = None
        self._living: set[int] = set()

    async def __aenter__(self) -> Self:
        self._source = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *self._module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._source is not None
        assert self._source.stdin is not None
        for worker in tuple(self._living):
            await self.end(worker)
        self._source.stdin.close()
        await self._source.wait()

    async def start(self, *words: str) -> int:
        """Start a worker with these arguments; returns its process id."""
        assert self._source is not None
        assert self._source.stdin is not None
        assert self._source.stdout is not None
        self._source.stdin.write(json.dumps(words).encode() + b"\n")
        worker = int(await self._source.stdout.readline())
        self._living.add(worker)
        return worker

    async def end(self, worker: int, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a worker a signal that ends it, and return when it is gone."""
        try:
            os.kill(worker, how)
            while True:
                await asyncio.sleep(LOOK)
                os.kill(worker, 0)
        except ProcessLookupError:
            self._living.discard(worker)


def hatch(work: Work) -> None:
    """Fork a worker for each line on stdin, its arguments in JSON, and print its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead vanish; nobody waits for them
    orphaned, held = os.pipe()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.close(held)
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _live(work(*json.loads(line)), orphaned)
        print(child, flush=True)


def _live(working: Coroutine[Any, Any, None], orphaned: int) -> Never:
    """Work until done, or until the process that forked us is gone."""

    async def until_orphaned() -> None:
        task = asyncio.create_task(working)
        asyncio.get_running_loop().add_reader(orphaned, task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    code = 1
    try:
        asyncio.run(until_orphaned())
        code = 0
    except Exception:  # noqa: BLE001  # told here, for nobody waits for this process
        traceback.print_exc()
    finally:
        os._exit(code)
