"""Marks what may be asked of an emulator over HTTP, and answers such requests."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

from aiohttp import web

Verb = TypeVar("Verb", bound=Callable[..., Any])


def control(verb: Verb) -> Verb:
    """Let other processes call this method: `POST /control/<emulator>/<method>`, JSON keywords."""
    verb.__dict__["control"] = True
    return verb


def control_route(emulators: Mapping[str, object]) -> web.RouteDef:
    """The one route of the control API; a push is answered when its last try is over."""

    async def serve(request: web.Request) -> web.Response:
        target = emulators.get(request.match_info["emulator"])
        verb = getattr(target, request.match_info["verb"], None)
        if not getattr(verb, "control", False) or verb is None:
            return web.json_response({"error": "no such verb"}, status=404)
        try:
            result = verb(**(await request.json() if request.can_read_body else {}))
            if inspect.isawaitable(result):
                result = await result
            if hasattr(result, "done"):
                result = await result.done()
        except (TypeError, ValueError, KeyError, LookupError) as error:
            return web.json_response({"error": repr(error)}, status=400)
        return web.json_response({"result": result}, dumps=_dumps)

    return web.post("/control/{emulator}/{verb}", serve)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "shown"):
        return value.shown()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
