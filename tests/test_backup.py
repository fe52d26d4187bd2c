"""Holds that a backup is whole, stays sealed, fits either database, and is never half restored."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlmodel import select

from bot.backup import Content, backup, check, restore
from bot.errors import ConfigError
from storage.columns import KeyRing
from storage.db import Database
from storage.dialogs import Draft
from storage.people import Contact, Person
from tests.serving import laid
from tests.world import KEYS

NOW = datetime(2026, 3, 12, 2, 0, tzinfo=UTC)
SECRET = "沈某某，手机13812345678"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Database]:
    """A SQLite installation with two people, one of them in the middle of a form."""
    database = laid(f"sqlite:///{tmp_path / 'full.db'}")
    with database.session() as session:
        people = [Person(created_at=NOW, called="甲"), Person(created_at=NOW)]
        session.add_all(people)
        session.flush()
        for number, person in enumerate(people):
            assert person.id is not None
            contact = Contact(
                person_id=person.id, channel="wechat", address=f"w:a:{number}", last_seen_at=NOW
            )
            session.add(contact)
        assert people[0].id is not None
        draft = Draft(
            person_id=people[0].id, form="f", state=SECRET, updated_at=NOW, expires_at=NOW
        )
        session.add(draft)
    yield database
    database.close()


@pytest.fixture
def empty(database_url: str) -> Iterator[Database]:
    """An empty installation with the same keys, on each kind of database."""
    database = laid(database_url)
    yield database
    database.close()


def rows(database: Database) -> int:
    """How many people there are."""
    with database.reading() as session:
        return len(session.exec(select(Person)).all())


def test_what_was_backed_up_is_restored_to_the_last_value(
    full: Database, empty: Database, tmp_path: Path
) -> None:
    written = backup(full, tmp_path / "b")
    assert restore(empty, tmp_path / "b", verify=True) == written
    assert written["person"].rows == 2
    with empty.session() as session:
        draft = session.exec(select(Draft)).one()
        assert (draft.state, draft.updated_at) == (SECRET, NOW)
        newcomer = Person(created_at=NOW)
        session.add(newcomer)
        session.flush()
        assert newcomer.id == 3


def test_a_backup_is_for_its_owner_only_and_keeps_sealed_what_is_sealed(
    full: Database, tmp_path: Path
) -> None:
    backup(full, tmp_path / "b")
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0
    text = gzip.decompress((tmp_path / "b").read_bytes()).decode()
    assert "13812345678" not in text
    assert KEYS.partition(":")[2] not in text


def test_a_backup_never_overwrites(full: Database, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("older", "utf-8")
    with pytest.raises(ConfigError, match="已经存在，没有覆盖"):
        backup(full, tmp_path / "b")
    assert (tmp_path / "b").read_text("utf-8") == "older"


def test_a_backup_sees_one_moment_while_others_write(full: Database, tmp_path: Path) -> None:
    with full.transaction() as connection:
        connection.execute(Person.__table__.insert(), {"created_at": NOW})  # type: ignore[attr-defined]
        held = backup(full, tmp_path / "b")
    assert held["person"].rows == 2


def somebody_registers(database: Database, number: int) -> None:
    with database.session() as session:
        person = Person(created_at=NOW)
        session.add(person)
        session.flush()
        assert person.id is not None
        contact = Contact(
            person_id=person.id, channel="wechat", address=f"w:b:{number}", last_seen_at=NOW
        )
        session.add(contact)


def test_what_is_committed_between_two_tables_is_in_neither(
    empty: Database, tmp_path: Path
) -> None:
    """On each kind of database: people, then their addresses, are read while one more comes."""
    somebody_registers(empty, 1)
    others = Database(empty.url.render_as_string(hide_password=False), KeyRing(KEYS))
    came: list[int] = []

    def come(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if "FROM contact" in statement and not came:
            came.append(2)
            somebody_registers(others, 2)

    event.listen(empty.engine, "before_cursor_execute", come)
    held = backup(empty, tmp_path / "b")
    event.remove(empty.engine, "before_cursor_execute", come)
    others.close()
    assert (came, rows(empty)) == ([2], 2)
    assert (held["person"].rows, held["contact"].rows) == (1, 1)
    assert check(tmp_path / "b") == held
    fresh = laid(f"sqlite:///{tmp_path / 'fresh.db'}")
    assert restore(fresh, tmp_path / "b", verify=True) == held
    fresh.close()


@pytest.mark.parametrize("damage", ["cut", "altered", "row lost"])
def test_a_backup_that_will_not_restore_is_found_by_reading_it(
    full: Database, tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "b"
    backup(full, file)
    text = gzip.decompress(file.read_bytes()).decode()
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith('["draft"')]
    broken = {
        "cut": file.read_bytes()[:-20],
        "altered": gzip.compress(text.replace("甲", "乙").encode()),
        "row lost": gzip.compress("".join(kept).encode()),
    }
    file.write_bytes(broken[damage])
    with pytest.raises(ConfigError):
        check(file)


def test_only_an_empty_database_is_restored_into(full: Database, tmp_path: Path) -> None:
    backup(full, tmp_path / "b")
    with pytest.raises(ConfigError, match="数据库不是空的"):
        restore(full, tmp_path / "b", verify=False)
    assert rows(full) == 2


@pytest.mark.parametrize("damage", ["cut", "altered", "row lost", "not one"])
def test_a_damaged_backup_is_refused_whole(full: Database, tmp_path: Path, damage: str) -> None:
    backup(full, tmp_path / "b")
    file = tmp_path / "b"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines(keepends=True)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "altered":
        file.write_bytes(gzip.compress("".join(lines).replace("甲", "乙").encode()))
    elif damage == "row lost":
        kept = [line for line in lines if not line.startswith('["draft"')]
        file.write_bytes(gzip.compress("".join(kept).encode()))
    else:
        file.write_text("hello", "utf-8")
    fresh = laid(f"sqlite:///{tmp_path / 'fresh.db'}")
    with pytest.raises(ConfigError, match=r"没有写入任何内容|不是 hongyan backup"):
        restore(fresh, file, verify=True)
    assert rows(fresh) == 0
    fresh.close()


def test_the_wrong_keys_are_found_before_the_first_member_does(
    full: Database, tmp_path: Path
) -> None:
    backup(full, tmp_path / "b")
    laid(f"sqlite:///{tmp_path / 'other.db'}").close()
    other = Database(f"sqlite:///{tmp_path / 'other.db'}", KeyRing("k1:another-key-0123456789"))
    with pytest.raises(ConfigError, match="HONGYAN_KEYS 打不开"):
        restore(other, tmp_path / "b", verify=True)
    assert rows(other) == 0
    other.close()


def test_the_checksum_of_a_table_does_not_depend_on_the_order_of_rows() -> None:
    assert Content().plus("a").plus("b") == Content().plus("b").plus("a")
    assert Content().plus("a").plus("b") != Content().plus("a").plus("c")
