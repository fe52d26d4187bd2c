"""What `hongyan check` tries for real: settings, database, keys, disk, clock, address, channels."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import aiohttp
from alembic.util import CommandError
from cryptography.exceptions import InvalidTag
from pydantic import SecretStr
from sqlalchemy import Column, Engine, Table, select
from sqlalchemy.exc import SQLAlchemyError

from bot.app import build_channels
from bot.catalog import Catalog
from bot.channels.base import Attached, Channel, Finding, Probed
from bot.channels.calls import authorities
from bot.clock import Clock
from bot.context import Services
from bot.errors import ConfigError
from bot.installation import open_services, problems, secrets_of, sqlite_file
from bot.logs import Redactor
from bot.settings import PREFIX, Settings
from bot.web import GONE
from storage.columns import EncryptedText, from_millis
from storage.driver import database_millis
from storage.tables import METADATA

PATIENCE = 20.0  # seconds for one channel, which may ask its platform several things
CONNECTING = aiohttp.ClientTimeout(total=8)
ROOM = 512 * 1024 * 1024  # bytes; below this a backup may no longer fit
NO_PAGE = "/p/check"
"""A proxy need not let more through than pages and callbacks; our own 404 is known by its words."""
SKEW = 60  # seconds; WeChat and WeCom sign the time, and far ones are refused


@dataclass(frozen=True, slots=True)
class Chapter:
    """What was found under one heading."""

    title: str
    findings: tuple[Finding, ...]


async def inspect(
    settings: Settings,
    catalog: Catalog,
    clock: Clock,
    *,
    offline: bool = False,
    patience: float = PATIENCE,
) -> Sequence[Chapter]:
    """Look at everything; what needs the network is left out if `offline`.

    Never raises for what is wrong, and shows no secret. `patience`: seconds a channel may take.
    """
    found = [Chapter("设置", _settings(settings, catalog)), Chapter("本机", _machine(settings))]
    with _installation(settings, catalog, clock) as (services, of_database):
        found.append(Chapter("数据库", of_database))
        if not offline:
            found.append(Chapter("外网地址", await _address(settings.public_url, clock.now())))
            found += await _channels(settings, services, clock, patience)
    hide = Redactor(secrets_of(settings)).secrets_out
    return [
        Chapter(one.title, tuple(_hidden(finding, hide) for finding in one.findings))
        for one in found
    ]


def _hidden(finding: Finding, hide: Callable[[str], str]) -> Finding:
    return Finding(finding.fine, hide(finding.what), hide(finding.advice))


def lines(chapters: Sequence[Chapter]) -> Iterator[str]:
    """One line a finding, and one more for what to do about it."""
    for chapter in chapters:
        if chapter.findings:
            yield f"【{chapter.title}】"
        for finding in chapter.findings:
            yield f"{'✓' if finding.fine else '✗'} {finding.what}"
            if finding.advice:
                yield f"  → {finding.advice}"


def wrong(chapters: Sequence[Chapter]) -> int:
    """How many findings are not fine."""
    return sum(not finding.fine for chapter in chapters for finding in chapter.findings)


# - here -


def _settings(settings: Settings, catalog: Catalog) -> tuple[Finding, ...]:
    lacking = problems(settings, catalog)
    if lacking:
        return tuple(Finding(False, line, _where(line)) for line in lacking)
    named = "、".join(settings.enabled)
    return (Finding(True, f"设置齐全：地方 {settings.place}，渠道 {named}"),)


def _where(line: str) -> str:
    """Where a setting is filled in, if the line does not say it itself."""
    return "" if "请" in line or "hongyan.env" in line else "请在 hongyan.env 里填写，改后再查一次"


def _machine(settings: Settings) -> tuple[Finding, ...]:
    file = sqlite_file(settings)
    folder = file.absolute().parent if file is not None else Path.cwd()
    free = shutil.disk_usage(folder).free
    shown = f"{free / 1024**3:.1f} GB"
    if free < ROOM:
        return (
            Finding(
                False,
                f"磁盘只剩 {shown}（{folder}）",
                "请清理或扩大磁盘；写满之后收到的消息存不下来，也做不了备份",
            ),
        )
    return (Finding(True, f"磁盘还有 {shown}"),)


# - the database -


@contextmanager
def _installation(
    settings: Settings, catalog: Catalog, clock: Clock
) -> Iterator[tuple[Services | None, tuple[Finding, ...]]]:
    """The services on the real database where it can be used as it is, else on an empty one.

    A channel that keeps something in tables can be tried before anything is installed.
    """
    real, told = _opened(settings, catalog)
    if real is not None:
        try:
            yield real, (*told, *_database(real, clock))
        finally:
            real.database.close()
        return
    with TemporaryDirectory() as folder:
        try:
            empty = open_services(_elsewhere(settings, folder), catalog, {}, create=True)
        except ConfigError:  # the place's file is wrong, which stands among the settings
            yield None, told
            return
        METADATA.create_all(empty.database.engine)
        try:
            yield empty, told
        finally:
            empty.database.close()


def _elsewhere(settings: Settings, folder: str) -> Settings:
    changed = {"database_url": f"sqlite:///{folder}/empty.db", "keys": SecretStr("")}
    return settings.model_copy(update=changed)


def _opened(settings: Settings, catalog: Catalog) -> tuple[Services | None, tuple[Finding, ...]]:
    file = sqlite_file(settings)
    if file is not None and not (file.is_file() and file.stat().st_size):
        return None, (Finding(True, f"数据库 {file} 还没有建，第一次启动时自动建好"),)
    try:
        services = open_services(settings, catalog, {})
    except ConfigError:
        return None, ()  # told among the settings
    try:
        if services.database.current():
            return services, (Finding(True, "数据库能用，表是这个版本的"),)
        newer = services.database.newer()
    except SQLAlchemyError:
        services.database.close()
        return None, ()
    except CommandError:
        newer = True
    services.database.close()
    if newer:
        advice = "请升级程序，或者恢复到升级前的备份"
        return None, (Finding(False, "数据库是更新版本的程序建的，这个版本不能用它", advice),)
    return None, (Finding(True, "数据库是旧版本的，启动时自动升级（也可先运行 hongyan migrate）"),)


def _database(services: Services, clock: Clock) -> tuple[Finding, ...]:
    with services.database.reading() as session:
        theirs = from_millis(database_millis(session.connection()))
    found = [_keys(services)]
    if not services.database.sqlite:
        found.append(_skew("数据库", theirs, clock.now()))
    return tuple(found)


def _keys(services: Services) -> Finding:
    """Does the newest sealed value of each column open?"""
    shut = [
        f"{table.name}.{column.name}"
        for table, column in _sealed()
        if not _opens(services.database.engine, table, column)
    ]
    if shut:
        return Finding(
            False,
            f"有加密的内容用现在的密钥打不开（{'、'.join(shut)}）",
            f"请把原来的密钥加回 {PREFIX}KEYS（新的在前，旧的在后），或从备份里找回密钥文件",
        )
    return Finding(True, "密钥能打开加密的内容")


def _sealed() -> Iterator[tuple[Table, Column[str]]]:
    for table in METADATA.sorted_tables:
        for column in table.columns:
            if isinstance(column.type, EncryptedText):
                yield table, column


def _opens(engine: Engine, table: Table, column: Column[str]) -> bool:
    keys = [key.desc() for key in table.primary_key]
    newest = select(column).where(column.is_not(None)).order_by(*keys).limit(1)
    with engine.connect() as connection:
        try:
            connection.execute(newest).first()
        except (InvalidTag, KeyError, ValueError):
            return False
    return True


def _skew(whose: str, theirs: datetime, ours: datetime) -> Finding:
    seconds = abs((theirs - ours).total_seconds())
    if seconds < SKEW:
        return Finding(True, f"时钟与{whose}一致")
    return Finding(
        False,
        f"时钟与{whose}相差{seconds:.0f}秒",
        "请打开自动对时（timedatectl set-ntp true）：平台的签名按时间核对，差多了会被拒收",
    )


# - outside -


async def _address(url: str, now: datetime) -> tuple[Finding, ...]:
    """Is the public address really ours, behind a certificate that is believed?"""
    if not url.startswith("https://"):
        return ()  # told among the settings
    host = urlsplit(url).hostname or ""
    trust = ssl.create_default_context(cafile=authorities())
    try:
        async with (
            aiohttp.ClientSession(
                trust_env=True, timeout=CONNECTING, connector=aiohttp.TCPConnector(ssl=trust)
            ) as session,
            session.get(f"{url.rstrip('/')}{NO_PAGE}", allow_redirects=False) as answer,
        ):
            status, dated = answer.status, answer.headers.get("Date", "")
            body = (await answer.content.read(65536)).decode("utf-8", "replace")
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return (_unreachable(host, error),)
    found = [_answered(host, status, body)]
    if dated:
        found.append(_skew(host, parsedate_to_datetime(dated), now))
    return tuple(found)


def _answered(host: str, status: int, body: str) -> Finding:
    if status == 404 and GONE in body:
        return Finding(True, f"{host} 能从外网打开，证书有效")
    if status in (502, 503, 504):
        return Finding(True, f"{host} 证书有效；后面的 hongyan 没有在运行，启动后请再查一次")
    return Finding(
        False,
        f"{host} 打开的不是 hongyan（HTTP {status}）",
        "请核对反向代理：至少把 /callback/ 和 /p/ 转到 hongyan serve 的端口",
    )


def _unreachable(host: str, error: Exception) -> Finding:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return Finding(
            False,
            f"{host} 的证书不被信任",
            "请换成受信任机构签发、没有过期、域名相符的证书，并在反向代理里配上完整证书链",
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        advice = "请核对 HONGYAN_PUBLIC_URL 的域名和它的解析；这台机器没有网络时也会这样"
        return Finding(False, f"{host} 解析不到地址", advice)
    if isinstance(error, TimeoutError):
        return Finding(False, f"{host} 没有回应", "请在云主机的安全组和防火墙里放行443端口")
    advice = "请确认反向代理在运行、443端口已放行；这台机器不能访问自己的外网地址时，请换一台再查"
    return Finding(False, f"{host} 连不上（{type(error).__name__}）", advice)


# - the channels -


async def _channels(
    settings: Settings, services: Services | None, clock: Clock, patience: float
) -> Sequence[Chapter]:
    try:
        channels = build_channels(settings, clock)
    except ConfigError:
        return ()  # told among the settings
    try:
        tried = await asyncio.gather(
            *(try_channel(channel, services, patience) for channel in channels.values())
        )
    finally:
        await asyncio.gather(
            *(channel.close() for channel in channels.values()), return_exceptions=True
        )
    return [
        Chapter(f"渠道 {_named(name, channel)}", findings)
        for (name, channel), findings in zip(channels.items(), tried, strict=True)
    ]


def _named(name: str, channel: Channel) -> str:
    label = channel.facts.label
    return f"{name} {label}" if label and label != name else name


async def try_channel(
    channel: Channel, services: Services | None, patience: float
) -> tuple[Finding, ...]:
    """Ask the platform, unless the settings are not even whole."""
    lacking = channel.check()
    if lacking:
        return tuple(Finding(False, line) for line in lacking)
    if not isinstance(channel, Probed):
        return (Finding(True, "设置齐全（这个渠道不用联网检查）"),)
    try:
        if isinstance(channel, Attached) and services is not None:
            channel.attach(services)
        async with asyncio.timeout(patience):
            return tuple(await channel.probe())
    except TimeoutError:
        return (
            Finding(
                False,
                f"平台{patience:.0f}秒没有答复",
                "请确认这台机器能访问外网；要走代理的话请设 HTTPS_PROXY",
            ),
        )
    except Exception as error:  # noqa: BLE001  # one channel in trouble must not hide the others
        kind = type(error).__name__
        return (Finding(False, f"检查时出了意外（{kind}）", "请把这一行告诉维护的人"),)
