"""Backups: one portable file of all tables, taken while the bot runs, restored with proof.

Rows are written as they lie in the tables, so sealed columns stay sealed and the keys are not in
the file. The same file restores into SQLite and into PostgreSQL. A checksum a table, independent
of the rows' order, shows that what was read back is what was written.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import IO, Any

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    TypeDecorator,
    func,
    insert,
    select,
    text,
    type_coerce,
)
from sqlalchemy.types import TypeEngine

from bot.errors import ConfigError
from storage.db import Database
from storage.tables import METADATA

FORMAT = 1
BATCH = 500  # rows a statement
SUM = 2**256


@dataclass(frozen=True)
class Content:
    """What a table holds: how many rows, and the sum of their sha256."""

    rows: int = 0
    digest: int = 0

    def plus(self, line: str) -> Content:
        """With one more row."""
        number = int.from_bytes(hashlib.sha256(line.encode()).digest())
        return Content(self.rows + 1, (self.digest + number) % SUM)


def backup(database: Database, path: Path) -> Mapping[str, Content]:
    """Write everything to a new file readable by its owner only; returns what each table held.

    All tables are read in one snapshot, and nobody waits for it. Raises ConfigError if the file is
    there already.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} 已经存在，没有覆盖；请换一个文件名。") from error
    try:
        with os.fdopen(handle, "wb") as raw, gzip.open(raw, "wt", encoding="utf-8") as file:
            written = _write(database, file)
            file.flush()
        return written
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write(database: Database, file: IO[str]) -> Mapping[str, Content]:
    _line(file, {"hongyan": FORMAT, "revision": database.revision()})
    held: dict[str, Content] = {}
    with _snapshot(database) as connection:
        for table in METADATA.sorted_tables:
            content = Content()
            for values in _rows(connection, table):
                content = content.plus(_json(values))
                _line(file, [table.name, values])
            held[table.name] = content
    _line(file, {"held": {name: [c.rows, f"{c.digest:x}"] for name, c in held.items()}})
    return held


def check(path: Path) -> Mapping[str, Content]:
    """Read a backup from end to end; returns what each table in it holds.

    Raises ConfigError if it is cut short, or does not hold what it says.
    """
    found: dict[str, Content] = {}
    for line in _lines(path):
        if isinstance(line, list):
            name, values = line
            found[name] = found.get(name, Content()).plus(_json(values))
        elif "held" in line:
            expected = _expected(line)
            if all(found.get(name, Content()) == held for name, held in expected.items()):
                return expected
    raise ConfigError(f"{path} 不完整或有改动，不能用来恢复。")


def _expected(line: Mapping[str, Any]) -> dict[str, Content]:
    """What the last line says each table must hold."""
    held = line["held"].items()
    return {name: Content(rows, int(digest, 16)) for name, (rows, digest) in held}


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    """A connection that sees one moment; on SQLite in WAL mode any reading transaction does."""
    with database.engine.connect() as connection:
        if not database.sqlite:
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


def _rows(connection: Connection, table: Table) -> Iterator[list[Any]]:
    columns = [type_coerce(column, _plain(column.type)) for column in table.columns]
    result = connection.execution_options(yield_per=BATCH).execute(select(*columns))
    for row in result:
        yield [_packed(value) for value in row]


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type as it lies in the database: sealed bytes stay sealed."""
    return kind.impl_instance if isinstance(kind, TypeDecorator) else kind


def _packed(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return {"b": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, date | time):
        return {"d": value.isoformat()}
    return value


def _unpacked(value: Any, column: Column[Any]) -> Any:
    if not isinstance(value, dict):
        return value
    if "b" in value:
        return base64.b64decode(value["b"])
    kind: type[date | datetime | time] = column.type.python_type
    return kind.fromisoformat(value["d"])


def restore(database: Database, path: Path, *, verify: bool) -> Mapping[str, Content]:
    """Fill an empty database, all or nothing; returns what each table now holds.

    The counts are always compared; with `verify` every row is read back and its checksum compared,
    and the keys must open what is sealed. Raises ConfigError and changes nothing otherwise.
    """
    lines = _lines(path)
    head = next(lines, None)
    if not isinstance(head, dict) or head.get("hongyan") != FORMAT:
        raise ConfigError(f"{path} 不是 hongyan backup 写的备份。")
    if database.revision() != head["revision"]:
        raise ConfigError(
            f"备份来自数据库版本 {head['revision']}，这个程序是 {database.revision()}；"
            "请用备份时的程序版本恢复，再升级。"
        )
    with database.transaction() as connection:
        _refuse_unless_empty(connection)
        if database.sqlite:
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        expected = _fill(connection, lines, path)
        if not database.sqlite:
            _continue_numbering(connection)
        found = _held(connection, whole=verify)
        for name, content in expected.items():
            now = found.get(name, Content())
            if content.rows != now.rows or (verify and content != now):
                raise ConfigError(
                    f"恢复后 {name} 有 {now.rows} 行，与备份的 {content.rows} 行对不上；"
                    "没有写入任何内容。"
                )
        if verify:
            _refuse_unless_opened(connection)
    return found


def _lines(path: Path) -> Iterator[Any]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise ConfigError(f"{path} 损坏或不是备份，没有写入任何内容。") from error


def _refuse_unless_empty(connection: Connection) -> None:
    for table in METADATA.sorted_tables:
        if connection.execute(select(table.columns.values()[0]).limit(1)).first() is not None:
            raise ConfigError(f"数据库不是空的（{table.name} 里有内容）；备份只恢复到空数据库。")


def _fill(connection: Connection, lines: Iterable[Any], path: Path) -> dict[str, Content]:
    """Insert all rows; returns what the last line says each table must hold."""
    tables = {table.name: _bare(table) for table in METADATA.sorted_tables}
    waiting: list[dict[str, Any]] = []
    current = ""
    for line in lines:
        if isinstance(line, dict):
            _insert(connection, tables.get(current), waiting)
            return _expected(line)
        name, values = line
        if name != current or len(waiting) >= BATCH:
            _insert(connection, tables.get(current), waiting)
            current, waiting = name, []
        table = tables[name]
        pairs = zip(table.columns, values, strict=True)
        waiting.append({column.name: _unpacked(value, column) for column, value in pairs})
    raise ConfigError(f"{path} 不完整，没有写入任何内容。")


def _insert(connection: Connection, table: Table | None, rows: list[dict[str, Any]]) -> None:
    if table is not None and rows:
        connection.execute(insert(table), rows)


def _bare(table: Table) -> Table:
    columns = [Column(column.name, _plain(column.type)) for column in table.columns]
    return Table(table.name, MetaData(), *columns)


def _continue_numbering(connection: Connection) -> None:
    """Let PostgreSQL number new rows after the restored ones."""
    for table in METADATA.sorted_tables:
        key = table.columns.get("id")
        if key is not None and isinstance(key.type, Integer):
            top = select(func.max(key)).scalar_subquery()
            sequence = func.pg_get_serial_sequence(f'"{table.name}"', "id")
            connection.execute(
                select(func.setval(sequence, top)).where(sequence.is_not(None), top.is_not(None))
            )


def _held(connection: Connection, *, whole: bool) -> dict[str, Content]:
    held: dict[str, Content] = {}
    for table in METADATA.sorted_tables:
        if whole:
            content = Content()
            for values in _rows(connection, table):
                content = content.plus(_json(values))
        else:
            rows = connection.execute(select(func.count()).select_from(table)).scalar_one()
            content = Content(rows)
        held[table.name] = content
    return held


def _refuse_unless_opened(connection: Connection) -> None:
    """Open one sealed value a column; a wrong key would otherwise be found by the first member."""
    for table in METADATA.sorted_tables:
        for column in table.columns:
            if isinstance(column.type, TypeDecorator):
                sample = select(column).where(column.is_not(None)).limit(1)
                try:
                    connection.execute(sample).first()
                except Exception as error:
                    raise ConfigError(
                        "HONGYAN_KEYS 打不开备份里的加密内容；请用备份时的密钥。没有写入任何内容。"
                    ) from error


def _line(file: IO[str], value: Any) -> None:
    file.write(_json(value) + "\n")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
