"""Runs every test of the contract once on each channel."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.channels.harness import Harness

CHANNELS = ("memory", "telegram", "wechat")
"""Each has a module `on_<name>.py` beside this one."""


@pytest.fixture(params=CHANNELS)
async def harness(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Harness]:
    """A channel that runs against its emulator, with a small bot behind it."""
    module = importlib.import_module(f"tests.channels.on_{request.param}")
    async with module.harness(tmp_path) as made:
        yield made
