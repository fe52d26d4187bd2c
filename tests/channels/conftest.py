"""Runs every test of the contract once on each channel."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.channels.harness import Harness

CHANNELS = ("memory", "telegram", "wechat", "wecom_bot", "wecom_bot_socket", "wecom", "wecom_kf")
"""Each has a module `on_<name>.py` beside this one."""


@pytest.fixture(params=CHANNELS)
async def harness(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Harness]:
    """A channel that runs against its emulator, with a small bot behind it."""
    module = importlib.import_module(f"tests.channels.on_{request.param}")
    async with module.harness(tmp_path) as made:
        yield made


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what a platform does not know: a trouble it never makes, a webhook it lacks."""
    left_out = [item for item in items if not _fits(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _fits(item: pytest.Item) -> bool:
    chosen = getattr(getattr(item, "callspec", None), "params", {})
    if "harness" not in chosen:
        return True
    platform = importlib.import_module(f"tests.channels.on_{chosen['harness']}")
    if item.get_closest_marker("webhook") is not None and not platform.WEBHOOK:
        return False
    if getattr(item, "originalname", "") in getattr(platform, "CANNOT", ()):
        return False
    return chosen.get("trouble") is None or chosen["trouble"] in platform.TROUBLES
