"""What `hongyan check` says when all is well, and of each thing that is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from bot.app import CHANNELS
from bot.channels.base import Finding
from bot.check import Chapter, inspect, lines, try_channel, wrong
from bot.cli import run
from bot.clock import MovableClock, SystemClock
from bot.installation import load_settings, secrets_of
from storage.dialogs import Draft
from tests.channels.production import CASES, Case, Stage, installed, unset, way_out_of
from tests.emulators.proxy import Authority, Proxy
from tests.serving import laid, logging_restored, one_line
from tests.world import KEYS, OFFICE, MemoryChannel, whole_catalog

NOWHERE = "http://127.0.0.1:1"
OTHER_KEYS = "k9:fedcba9876543210fedcba9876543210"
TELEGRAM = "1234567:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def of(chapters: Sequence[Chapter], title: str) -> tuple[Finding, ...]:
    """The findings of the chapter whose title begins so."""
    return next(one.findings for one in chapters if one.title.startswith(title))


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with whole settings for Telegram and no way to any network."""
    unset(monkeypatch)
    given = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/hongyan.db",
        "KEYS": KEYS,
        "CHANNELS": "telegram",
        "TELEGRAM_TOKEN": TELEGRAM,
        "PUBLIC_URL": "https://bot.example.org",
        **{name.upper(): value for name, value in OFFICE.items()},
    }
    for name, value in given.items():
        monkeypatch.setenv(f"HONGYAN_{name}", value)
    monkeypatch.setenv("HTTPS_PROXY", NOWHERE)
    monkeypatch.chdir(tmp_path)
    with logging_restored():
        yield tmp_path


def inspected(**more: bool) -> Sequence[Chapter]:
    return asyncio.run(inspect(load_settings(), whole_catalog(), SystemClock(), **more))


# - with every platform there -

EVERY = Case(
    ",".join(CHANNELS),
    frozenset(),
    lambda stage: {
        name: value
        for case in CASES
        if case.name != "wecom_bot_socket"
        for name, value in case.settings(stage).items()
    },
    lambda stage, url: [case.begin(stage, url) for case in CASES if "socket" not in case.name],
    CASES[0].unasked,
)


@pytest.fixture
async def stage(anyio_backend: str) -> AsyncIterator[Stage]:
    """The platforms, in the time that certificates and other servers know."""
    async with Stage(SystemClock().now(), rate=1.0) as stage:
        yield stage


@pytest.fixture
async def proxy(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Proxy]:
    async with way_out_of(stage, tmp_path, monkeypatch) as proxy:
        yield proxy


@pytest.mark.anyio
async def test_an_installation_where_all_is_well_has_nothing_but_ticks(
    stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with installed(EVERY, stage, proxy, monkeypatch):
        settings = load_settings()
        found = await inspect(settings, whole_catalog(), stage.clock)
    printed = list(lines(found))
    assert [line for line in printed if line.startswith("✗")] == []
    assert wrong(found) == 0
    assert [one.title.split()[0] for one in found] == [
        *("设置", "本机", "数据库", "外网地址"),
        *["渠道"] * len(CHANNELS),
    ]
    assert "✓ bot.example.org 能从外网打开，证书有效" in printed
    assert [secret for secret in secrets_of(settings) if secret in "\n".join(printed)] == []
    assert proxy.refused == []


@pytest.mark.anyio
async def test_what_is_wrong_on_one_platform_hides_nothing_of_the_others(
    stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with installed(EVERY, stage, proxy, monkeypatch):
        monkeypatch.setenv("HONGYAN_WECHAT_APP_SECRET", "a-secret-of-yesterday")
        found = await inspect(load_settings(), whole_catalog(), stage.clock)
    mistaken = [finding for finding in of(found, "渠道 wechat") if not finding.fine]
    assert mistaken != []
    assert all(finding.advice for finding in mistaken)
    assert "a-secret-of-yesterday" not in "\n".join(lines(found))
    assert [f for f in of(found, "渠道 telegram") if not f.fine] == []


@pytest.mark.anyio
async def test_a_public_address_that_leads_elsewhere_is_told(
    stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with installed(CASES[1], stage, proxy, monkeypatch):
        await proxy.stand_for("bot.example.org", f"{stage.url}/nothing/of/ours")
        found = await inspect(load_settings(), whole_catalog(), stage.clock)
        told = of(found, "外网地址")[0]
        assert (told.fine, told.what) == (False, "bot.example.org 打开的不是 hongyan（HTTP 404）")
        monkeypatch.setenv("HONGYAN_PUBLIC_URL", "https://other.example.org")
        unknown = of(await inspect(load_settings(), whole_catalog(), stage.clock), "外网地址")[0]
        assert not unknown.fine
        assert "other.example.org" in unknown.what


@pytest.mark.anyio
async def test_a_certificate_and_a_clock_that_are_wrong_are_told(
    stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with installed(CASES[1], stage, proxy, monkeypatch):
        late = MovableClock(SystemClock().now() + timedelta(minutes=7))
        skewed = of(await inspect(load_settings(), whole_catalog(), late), "外网地址")
        assert [finding.fine for finding in skewed] == [True, False]
        assert "相差4" in skewed[1].what
        assert "timedatectl" in skewed[1].advice
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        monkeypatch.setenv("SSL_CERT_FILE", str(Authority(stranger).file))
        found = of(await inspect(load_settings(), whole_catalog(), stage.clock), "外网地址")
    assert [finding.what for finding in found] == ["bot.example.org 的证书不被信任"]


# - with no network -


def test_without_a_network_everything_else_is_still_looked_at(
    configured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check"], whole_catalog()) == 1
    heard = capsys.readouterr()
    assert "✓ 设置齐全：地方 huolingol，渠道 telegram" in heard.out
    assert "✗ 连不上 Telegram" in heard.out
    assert "✗ bot.example.org 连不上" in heard.out
    assert one_line(heard.err, "还有2项要处理")
    assert "Traceback" not in heard.out + heard.err
    assert TELEGRAM not in heard.out + heard.err


def test_offline_it_asks_nobody(configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--offline"], whole_catalog()) == 0
    assert "渠道 telegram Telegram" not in capsys.readouterr().out


def test_a_check_makes_no_files(configured: Path) -> None:
    inspected()
    assert list(configured.iterdir()) == []


# - the database, the keys, the disk -


def test_a_database_that_is_not_there_yet_is_no_fault(configured: Path) -> None:
    (told,) = of(inspected(offline=True), "数据库")
    assert told.fine
    assert "第一次启动时自动建好" in told.what


def test_a_database_of_this_version_is_fine_and_of_a_newer_one_is_not(configured: Path) -> None:
    database = laid(load_settings().database_url)
    assert [finding.fine for finding in of(inspected(offline=True), "数据库")] == [True, True]
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    told = of(inspected(offline=True), "数据库")[0]
    assert (told.fine, "更新版本" in told.what) == (False, True)
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    database.close()
    assert "自动升级" in of(inspected(offline=True), "数据库")[0].what


def test_keys_that_open_nothing_are_told(configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = laid(load_settings().database_url)
    now = SystemClock().now()
    with database.session() as session:
        session.execute(text("INSERT INTO person (id, created_at) VALUES (1, 0)"))
        session.add(Draft(person_id=1, form="x", state="{}", updated_at=now, expires_at=now))
    database.close()
    assert wrong(inspected(offline=True)) == 0
    monkeypatch.setenv("HONGYAN_KEYS", OTHER_KEYS)
    told = of(inspected(offline=True), "数据库")[1]
    assert not told.fine
    assert "draft.state" in told.what
    assert "HONGYAN_KEYS" in told.advice


def test_a_full_disk_is_told(configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: _Usage())
    found = asyncio.run(inspect(settings, whole_catalog(), SystemClock(), offline=True))
    told = of(found, "本机")[0]
    assert (told.fine, "磁盘只剩 0.0 GB" in told.what) == (False, True)


@dataclass(frozen=True)
class _Usage:
    free: int = 1024


# - channels of any kind -


@dataclass
class Probing(MemoryChannel):
    """Has a probe that does as it is told."""

    does: Exception | None = None
    wants: list[str] = field(default_factory=list)

    async def probe(self) -> Sequence[Finding]:
        if self.does is not None:
            raise self.does
        await asyncio.Event().wait()
        return ()

    def check(self) -> Sequence[str]:
        return self.wants


@pytest.mark.anyio
async def test_a_channel_without_a_probe_is_as_good_as_its_settings() -> None:
    (told,) = await try_channel(MemoryChannel(), None, 1)
    assert told == Finding(True, "设置齐全（这个渠道不用联网检查）")


@pytest.mark.anyio
async def test_a_probe_that_never_ends_is_ended() -> None:
    (told,) = await try_channel(Probing(), None, 0.01)
    assert (told.fine, "没有答复" in told.what) == (False, True)


@pytest.mark.anyio
async def test_a_probe_that_fails_is_told_without_its_words() -> None:
    (told,) = await try_channel(Probing(does=RuntimeError("a-secret")), None, 1)
    assert (told.fine, told.what) == (False, "检查时出了意外（RuntimeError）")


@pytest.mark.anyio
async def test_what_lacks_settings_is_not_tried() -> None:
    found = await try_channel(Probing(wants=["缺少 X"]), None, 1)
    assert found == (Finding(False, "缺少 X"),)


def test_each_finding_is_one_line_and_its_advice_another() -> None:
    both = Finding(True, "好"), Finding(False, "坏", "点这里")
    found = [Chapter("甲", both), Chapter("乙", ())]
    assert list(lines(found)) == ["【甲】", "✓ 好", "✗ 坏", "  → 点这里"]
