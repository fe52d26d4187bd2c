"""An installation on this machine: its settings file, its database, its lock, and what it lacks."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from alembic.util import CommandError
from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from bot.app import build_channels, facts_of, missing_of, services_for
from bot.catalog import Catalog
from bot.channels.base import Channel
from bot.clock import SystemClock
from bot.context import Services
from bot.errors import ConfigError
from bot.logs import Redactor
from bot.settings import FILE, PREFIX, Settings, key_file, read_or_make_keys
from storage.columns import KeyRing
from storage.db import Database

POLICIES: Mapping[str, str] = {
    "off": "不收也不发",
    "public_only": "只答公开信息，不登记",
    "overseas_self": "只收自述在境外者本人的非敏感信息",
    "full": "全部功能",
}


# - settings -


def load_settings() -> Settings:
    """From the environment and `hongyan.env`; raises ConfigError with names, never with values."""
    overridden: dict[str, Any] = {}
    try:
        settings = Settings(**overridden)
        assert settings.quiet
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        lines = [_plain(str(one["loc"][0]), one["type"], one.get("ctx", {})) for one in found]
        raise ConfigError("；".join(lines)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{FILE} 不是 UTF-8 编码的文本。") from error
    except ValueError as error:
        raise ConfigError(f"{PREFIX}QUIET_HOURS 写法不对，应如 21:30-08:30。") from error
    if settings.log_level.upper() not in logging.getLevelNamesMapping():
        raise ConfigError(f"{PREFIX}LOG_LEVEL 只能是 DEBUG、INFO、WARNING 或 ERROR。")
    try:
        ZoneInfo(settings.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"{PREFIX}TIMEZONE 不认得，应如 Asia/Shanghai。") from error
    database_address(settings)
    return settings


def _plain(name: str, kind: str, context: Mapping[str, object]) -> str:
    words = f"{PREFIX}{name.upper()}"
    if kind == "literal_error":
        return f"{words} 只能是 {context['expected']}".replace(" or ", " 或 ")
    if kind == "value_error":
        return f"{words}：{context['error']}"
    return f"{words} 写法不对"


def database_address(settings: Settings) -> URL:
    """The database's URL; raises ConfigError for one that this version cannot use."""
    try:
        url = make_url(settings.database_url)
    except ArgumentError as error:
        raise ConfigError(
            f"{PREFIX}DATABASE_URL 写法不对，应如 sqlite:///hongyan.db"
            " 或 postgresql+psycopg://用户:密码@主机/库名。"
        ) from error
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise ConfigError(
            f"{PREFIX}DATABASE_URL 不能用「{url.drivername}」；可用 sqlite、postgresql+psycopg。"
        )
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError(f"{PREFIX}DATABASE_URL 要指明一个文件，如 sqlite:///hongyan.db。")
    return url


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Every secret, the parts of those made of several, and the keys beside a SQLite file."""
    found = list(settings.secrets())
    beside = key_file(settings.database_url)
    kept = beside.read_text(encoding="utf-8").strip() if beside and beside.exists() else ""
    for ring in (settings.keys.get_secret_value(), kept):
        found += [ring, *(part.strip().rpartition(":")[2] for part in ring.split(","))]
    found.append(make_url(settings.database_url).password or "")
    return tuple(filter(None, found))


def write_settings(path: Path, place: str, keys: str) -> None:
    """A commented file with every setting, readable by its owner only; never overwrites."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} 已经存在，没有改动。") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(settings_text({"place": place, "keys": keys}))


def settings_text(values: Mapping[str, str]) -> str:
    """The file: what is given or must be filled in stands open, defaults are commented out."""
    lines = ["# 去掉行首的 # 即生效；同名的环境变量优先。改后请运行 hongyan check。"]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = default.get_secret_value() if isinstance(default, SecretStr) else str(default)
        mark = "" if name in values or name in REQUIRED else "# "
        value = values.get(name, shown)
        if not value.isascii() or any(sign in value for sign in " #'\"\\"):
            value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        lines += ["", f"# {field.description}", f"{mark}{PREFIX}{name.upper()}={value}"]
    return "\n".join(lines) + "\n"


REQUIRED = ("office_name", "office_phone", "signatory", "public_url", "channels")
"""Settings without a useful default: `hongyan check` fails until they are filled in."""


def unknown_names(path: Path) -> list[str]:
    """Names in the file that no setting has: mostly slips of the pen."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    named = dotenv_values(path, interpolate=False) if path.is_file() else {}
    return [name for name in named if name.upper() not in known]


# - the database -


def sqlite_file(settings: Settings) -> Path | None:
    """The file of a SQLite installation; None on PostgreSQL.

    Raises ConfigError when its folder is not there.
    """
    url = database_address(settings)
    if url.get_backend_name() != "sqlite":
        return None
    file = Path(url.database or "")
    if not file.parent.is_dir():
        raise ConfigError(f"数据库的文件夹 {file.parent} 不存在，请先建好。")
    return file


def open_services(
    settings: Settings, catalog: Catalog, channels: Mapping[str, Channel], *, create: bool = False
) -> Services:
    """Open the database and load the place. Only with `create` is a new SQLite file made.

    Keys are made along with a new SQLite file; lost keys are never replaced by new ones.
    """
    file = sqlite_file(settings)
    held = file is not None and file.is_file() and file.stat().st_size > 0
    if file is not None and not held and not create:
        raise ConfigError(f"没有数据库 {file}；请先运行 hongyan migrate 或 hongyan serve。")
    beside = key_file(settings.database_url)
    if held and not settings.keys.get_secret_value() and not (beside and beside.exists()):
        raise ConfigError(
            f"数据库 {file} 的密钥文件 {beside} 不见了；没有它，加密的内容打不开。请从备份里找回。"
        )
    keys = read_or_make_keys(settings, KeyRing.generate)
    return services_for(settings, facts_of(channels), keys=keys, catalog=catalog)


def ready_services(settings: Settings, catalog: Catalog) -> Services:
    """For words that work on an existing installation: open it, and insist that it is migrated."""
    services = open_services(settings, catalog, build_channels(settings, SystemClock()))
    if not services.database.current():
        services.database.close()
        raise ConfigError("数据库不是这个版本的；请先运行 hongyan migrate。")
    return services


def migrate(services: Services) -> None:
    """Bring the tables to this version; raises ConfigError where they are newer than it."""
    try:
        services.database.migrate()
    except CommandError as error:
        raise ConfigError("数据库是更新版本的程序建的，这个版本不能用它；请升级程序。") from error


@contextmanager
def alone_on(settings: Settings) -> Iterator[None]:
    """On SQLite: be the only worker of this database for as long as this lasts.

    The operating system lets the lock go however the process ends.
    """
    file = sqlite_file(settings)
    if file is None:
        yield
        return
    with Path(f"{file}.lock").open("a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"另一个 hongyan 正在使用数据库 {file}，请先停掉它；"
                "要同时运行几个，请改用 PostgreSQL。"
            ) from error
        yield


def explain(error: Exception, secrets: tuple[str, ...] = ()) -> str:
    """One line for an operator about a database or file that does not work."""
    if isinstance(error, DBAPIError):
        reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "没有说明"
        return f"数据库用不了：{Redactor(secrets).secrets_out(reason)}"
    if isinstance(error, SQLAlchemyError):
        return f"数据库用不了（{type(error).__name__}）。"
    if isinstance(error, PermissionError):
        return f"没有权限读写 {error.filename}。"
    if isinstance(error, OSError) and error.filename:
        return f"读写 {error.filename} 不成：{error.strerror}。"
    return f"系统拒绝了这个操作：{type(error).__name__}。"


# - what is missing -


def problems(settings: Settings, catalog: Catalog) -> list[str]:
    """What keeps `serve` from starting or would make it refuse something it offers."""
    found = [f"{FILE} 里的 {name} 不认得，是不是写错了" for name in unknown_names(Path(FILE))]
    found += _of_place(settings, catalog)
    if not settings.enabled:
        found.append(f"{PREFIX}CHANNELS 没有启用任何渠道")
    if not settings.public_url:
        found.append(f"{PREFIX}PUBLIC_URL（外网地址）未设置，信里的链接打不开")
    elif not settings.public_url.startswith("https://"):
        found.append(f"{PREFIX}PUBLIC_URL 应以 https:// 开头")
    try:
        found += missing_of(build_channels(settings, SystemClock()))
    except ConfigError as error:
        found.append(str(error))
    return found + _of_database(settings)


def _of_place(settings: Settings, catalog: Catalog) -> list[str]:
    try:
        place = catalog.places.load(settings.place, settings.office)
    except ConfigError as error:
        return [str(error)]
    return [f"{name}未设置，登记、信件、群发都会被拒绝" for name in place.missing()]


def _of_database(settings: Settings) -> list[str]:
    file, given = sqlite_file(settings), settings.keys.get_secret_value()
    if file is not None and not file.exists():
        folder = file.absolute().parent
        return [] if os.access(folder, os.W_OK) else [f"文件夹 {folder} 不可写，数据库建不起来"]
    beside = key_file(settings.database_url)
    if not given and beside and beside.exists():
        given = beside.read_text(encoding="utf-8").strip()
    try:
        database = Database(settings.database_url, KeyRing(given))
    except ValueError:
        return [f"{PREFIX}KEYS 未设置或太短；请运行 hongyan init 生成"]
    try:
        database.current()
    except SQLAlchemyError as error:
        return [explain(error, secrets_of(settings)).rstrip("。")]
    finally:
        database.close()
    return []
