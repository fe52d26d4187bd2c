"""The tests' own PostgreSQL: a fresh database each time, and nothing left when we are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

ROOT = Path(__file__).resolve().parents[1]
KILLED_WHILE_RUNNING = """
import os, signal, sys
from tests.postgres import running_server
with running_server() as server:
    print(server.socket_folder, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_each_database_starts_empty(new_postgres_url: Callable[[], str]) -> None:
    tables = []
    for url in (new_postgres_url(), new_postgres_url()):
        engine = sa.create_engine(url)
        tables.append(sa.inspect(engine).get_table_names())
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE letter (id int)")
        engine.dispose()
    assert tables == [[], []]


def test_the_server_ends_with_a_killed_test_run() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_WHILE_RUNNING],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        folder = run.stdout.readline().strip()
        with psycopg.connect(
            host=folder, port=5432, user="postgres", autocommit=True
        ) as connection:
            run.communicate("die\n")
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT pg_sleep(30)")
    assert run.returncode == -signal.SIGKILL
