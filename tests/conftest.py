"""What every test may ask for: databases, a browser, and a guard on the network."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.network import Guard
from tests.postgres import Server, running_server
from tests.world import World

INSTALL_CHROMIUM = "apt-get install chromium fonts-noto-cjk"

CHROMIUM_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)

_guard = Guard()


# Databases of tests live for a second: in memory, where there is room, they cost a tenth.
MEMORY = Path("/dev/shm")  # noqa: S108
ROOM = 4 << 30


def pytest_configure() -> None:
    """Puts the guard up before the first module is imported; Python has no way to take it down."""
    sys.addaudithook(_guard.audit)
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by what they ask for, so that `-m "not browser"` needs no list."""
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "chromium" in asked:
            item.add_marker(pytest.mark.browser)
        if "postgres_url" in asked or "postgresql" in parameters.values():
            item.add_marker(pytest.mark.postgresql)


@pytest.fixture(autouse=True)
def refused_addresses() -> Iterator[list[str]]:
    """The addresses off this machine that were tried and refused; a test that leaves any fails."""
    _guard.refused.clear()
    yield _guard.refused
    assert _guard.refused == []


# What people of the tests are called and tell; the log of no test may hold any of it.
PERSONAL = re.compile(
    r"高远山|乌日娜|巴特尔|阿依古丽|欧阳静|(?<!\d)1[3-9]\d{9}(?!\d)|(?<!\d)\d{17}[\dXx](?!\w)"
)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[str]]:
    """Everything a test logs, by either library; a test that logs something personal fails."""
    lines: list[str] = []
    handler = _Keeper(lines)
    logging.getLogger().addHandler(handler)
    before = structlog.get_config()

    def keep(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Any:
        lines.append(str(dict(event)))
        return event

    structlog.configure(processors=[keep, *before["processors"]])
    yield lines
    structlog.configure(**before)
    logging.getLogger().removeHandler(handler)
    assert [line for line in lines if PERSONAL.search(line)] == []


class _Keeper(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the bot does."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One PostgreSQL for this process's whole run."""
    with running_server() as server:
        yield server


@pytest.fixture
def new_postgres_url(postgres_server: Server) -> Iterator[Callable[[], str]]:
    """Makes empty PostgreSQL databases, one a call, gone after the test."""
    names: list[str] = []

    def make() -> str:
        names.append(postgres_server.create())
        return postgres_server.url(names[-1])

    yield make
    for name in names:
        postgres_server.drop(name)


@pytest.fixture
def postgres_url(new_postgres_url: Callable[[], str]) -> str:
    """A new, empty PostgreSQL database."""
    return new_postgres_url()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database; the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hongyan.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium to drive; the test is skipped without one, but never in CI."""
    named = os.environ.get("HONGYAN_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found:
        return found
    reason = f"no Chromium here; install it with: {INSTALL_CHROMIUM}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds on fresh SQLite files; they are closed after the test."""
    made: list[World] = []

    def make(**options: str) -> World:
        folder = tmp_path / f"world{len(made)}"
        folder.mkdir()
        made.append(World(folder, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world in 霍林郭勒 on 2026-03-12."""
    return make_world()
