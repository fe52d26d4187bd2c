"""What can go wrong on the way to a platform and back, on request and counted."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from tests.emulators.clock import VirtualClock
from tests.emulators.control import control

What = Literal["cut", "stall", "delay", "status", "html", "errcode"]
When = Literal["before", "after"]


@dataclass(slots=True)
class Fault:
    """One way to fail, `times` times (-1: for ever).

    `cut` closes the connection, `stall` never answers, `delay` answers after `value` virtual
    seconds, `status` answers with HTTP status `value`, `html` with a page instead of JSON,
    `errcode` with the platform's own error `value`. `when="after"`: the platform has done what was
    asked, and only the answer is lost.
    """

    what: What
    when: When = "before"
    times: int = 1
    value: float = 0


class Faults:
    """The faults laid for one platform, by endpoint (`*` for any), in the order they were laid."""

    def __init__(self) -> None:
        self._laid: dict[str, list[Fault]] = defaultdict(list)

    def lay(self, endpoint: str, fault: Fault) -> None:
        self._laid[endpoint].append(fault)

    def clear(self) -> None:
        self._laid.clear()

    def take(self, endpoint: str) -> Fault | None:
        for name in (endpoint, "*"):
            for fault in self._laid[name]:
                if fault.times:
                    fault.times -= 1 if fault.times > 0 else 0
                    return fault
        return None


class Fallible:
    """A platform whose endpoints fail on request."""

    def __init__(self) -> None:
        self.faults = Faults()

    @control
    def fail(
        self, endpoint: str, what: What, when: When = "before", times: int = 1, value: float = 0
    ) -> None:
        """Lay a fault for a path such as `cgi-bin/message/send`, a method or a command."""
        self.faults.lay(endpoint, Fault(what, when, times, value))

    @control
    def mend(self) -> None:
        """Take every fault away."""
        self.faults.clear()


async def answer_with(
    fault: Fault | None,
    request: web.Request,
    clock: VirtualClock,
    answer: Callable[[], Awaitable[web.StreamResponse]],
    error: Callable[[int], web.StreamResponse],
) -> web.StreamResponse:
    """The answer to a request, spoiled as `fault` says; `error` makes the platform's error."""
    if fault is None:
        return await answer()
    if fault.what == "delay":
        if fault.when == "before":
            await clock.wait(fault.value)
            return await answer()
        done = await answer()
        await clock.wait(fault.value)
        return done
    if fault.when == "after":
        await answer()
    if fault.what == "errcode":
        return error(int(fault.value))
    if fault.what == "stall":
        await asyncio.Event().wait()
    if fault.what == "cut" and request.transport is not None:
        request.transport.abort()
    status = int(fault.value) if fault.what == "status" else 200
    page = "<html><head><title>Bad Gateway</title></head><body>nginx</body></html>"
    return web.Response(status=status, text=page, content_type="text/html")
