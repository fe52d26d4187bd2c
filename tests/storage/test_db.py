"""The database file itself."""

import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

from storage.columns import KeyRing
from storage.db import LOG, Database, Kept


def test_a_new_database_file_is_for_its_owner_only(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/new.db", KeyRing(KeyRing.generate()))
    database.migrate()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    database.close()
    assert modes == {0o600}


def test_the_log_is_taken_over_before_it_is_long(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/long.db", KeyRing(KeyRing.generate()))
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE long (number INTEGER PRIMARY KEY, body BLOB)"))
    log = tmp_path / "long.db-wal"
    for _time in range(20):
        with database.transaction() as connection:
            connection.execute(text("INSERT OR REPLACE INTO long VALUES (1, zeroblob(1000000))"))
    most = log.stat().st_size
    database.close()
    assert LOG * 4096 < most < (LOG + 1000) * 4096


WAYS: list[Callable[[Kept], AbstractContextManager[Connection]]] = [
    Kept.transaction,
    Kept.unhurried,
]


@pytest.mark.parametrize("way", WAYS)
def test_a_kept_connection_forgets_what_failed_and_goes_on(
    tmp_path: Path, way: Callable[[Kept], AbstractContextManager[Connection]]
) -> None:
    database = Database(f"sqlite:///{tmp_path}/kept.db", KeyRing(KeyRing.generate()))
    kept = Kept(database)
    with way(kept) as connection:
        connection.execute(text("CREATE TABLE kept (number INTEGER UNIQUE)"))
    with pytest.raises(IntegrityError), way(kept) as connection:
        connection.execute(text("INSERT INTO kept VALUES (1), (1)"))
    with way(kept) as connection:
        connection.execute(text("INSERT INTO kept VALUES (2)"))
    kept.close()
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT number FROM kept")).scalars().all() == [2]
    assert database.commits == 2
    database.close()


def test_whoever_has_a_connection_next_waits_for_the_disk(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/disk.db", KeyRing(KeyRing.generate()), pool_size=1)
    kept, how = Kept(database), text("PRAGMA synchronous")
    with kept.unhurried() as connection:
        assert connection.execute(how).scalar_one() == 1  # NORMAL
    with kept.transaction() as connection:
        assert connection.execute(how).scalar_one() == 2  # FULL

    def refuse(_connection: Connection) -> None:
        raise ZeroDivisionError

    event.listen(database.engine, "commit", refuse)
    with pytest.raises(ZeroDivisionError), kept.unhurried() as connection:
        connection.execute(text("CREATE TABLE half (number INTEGER)"))
    event.remove(database.engine, "commit", refuse)
    kept.close()
    with database.transaction() as connection:
        assert connection.execute(how).scalar_one() == 2
        assert connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one() == 0
    database.close()
