"""With the settings of production, a proxy and an authority of the test, every channel works, and
nothing is asked of any other host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.app import CHANNELS, App, build_channels, facts_of, services_for
from bot.channels.base import Awaiting, Probed
from bot.commands import command
from bot.context import Context
from bot.installation import load_settings
from bot.messages import Address, Part, Reply, say
from bot.settings import Settings
from storage.tables import METADATA
from tests.channels.harness import catalog, serving
from tests.channels.on_wecom_bot_socket import until
from tests.emulators.clock import VirtualClock
from tests.emulators.proxy import Authority, Proxy
from tests.emulators.server import START, Platforms
from tests.world import KEYS, OFFICE

pytestmark = pytest.mark.anyio

WANG = "oWangXiaoyan"
NUMBER = 1001
RATE = 10.0  # virtual seconds a second, or a channel that keeps a pace would wait for ever
OURS = "bot.example.org"
MP, QY = "api.weixin.qq.com", "qyapi.weixin.qq.com"
TELEGRAM, SOCKET = "api.telegram.org", "openws.work.weixin.qq.com"
TALE = [sign * 600 for sign in "草羊雁"]  # more than one bubble holds


@dataclass(frozen=True)
class Case:
    """How one channel is configured and spoken to on its platform.

    `hosts` are the platform's own, all of which must have been asked.
    """

    channel: str
    hosts: frozenset[str]
    settings: Callable[[Platforms], Mapping[str, str]]
    begin: Callable[[Platforms, str], None]
    say: Callable[[Platforms, str], object] | None = None
    heard: Callable[[Platforms], list[str]] = lambda _platforms: []


def _wechat(platforms: Platforms) -> dict[str, str]:
    account = platforms.wechat.account
    return {
        "WECHAT_APP_ID": account.app_id,
        "WECHAT_APP_SECRET": account.secret,
        "WECHAT_TOKEN": account.token,
        "WECHAT_AES_KEY": account.aes_key,
    }


def _telegram(platforms: Platforms) -> dict[str, str]:
    return {
        "TELEGRAM_TOKEN": platforms.telegram.token,
        "TELEGRAM_POLICY": "full",
        "TELEGRAM_FILING": "演练评估1号",
    }


def _wecom(platforms: Platforms) -> dict[str, str]:
    ours = platforms.wecom.corporation
    return {
        "WECOM_CORP_ID": ours.corp_id,
        "WECOM_AGENT_ID": str(ours.agent_id),
        "WECOM_SECRET": ours.secret,
        "WECOM_TOKEN": ours.token,
        "WECOM_AES_KEY": ours.aes_key,
    }


def _follow(platforms: Platforms, url: str) -> None:
    platforms.wechat.connect(f"{url}/callback/wechat")
    platforms.wechat.follow(WANG)


def _hire(platforms: Platforms, url: str) -> None:
    platforms.wecom.hire(WANG, "王小雁")
    platforms.wecom.connect(f"{url}/callback/wecom")


@command("讲故事")
def tell(context: Context, _argument: str) -> Reply:
    return say(TALE[0]).then(TALE[1]).then(TALE[2])


def _told(heard: list[str]) -> bool:
    return all(piece in "".join(heard) for piece in TALE)


CASES = [
    Case(
        "wechat",
        frozenset({MP}),
        _wechat,
        _follow,
        lambda platforms, text: platforms.wechat.say(WANG, text),
        lambda platforms: platforms.wechat.heard(WANG),
    ),
    Case(
        "telegram",
        frozenset({TELEGRAM}),
        _telegram,
        lambda platforms, _url: platforms.telegram.person(NUMBER, "王小雁") and None,
        lambda platforms, text: platforms.telegram.say(NUMBER, text),
        lambda platforms: platforms.telegram.heard(NUMBER),
    ),
    Case(
        "wecom",
        frozenset({QY}),
        _wecom,
        _hire,
        lambda platforms, text: platforms.wecom.say(WANG, text),
        lambda platforms: platforms.wecom.heard(WANG),
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.channel)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
async def way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> AsyncIterator[tuple[Platforms, Proxy]]:
    """The platforms behind their real names; the environment knows nothing but the proxy."""
    async with Platforms(VirtualClock(START, rate=RATE)) as platforms:
        behind = {
            MP: f"{platforms.url}/mp",
            QY: f"{platforms.url}/qy",
            TELEGRAM: platforms.url,
            SOCKET: f"{platforms.url}/openws",
        }
        platforms.wecom_bot.url = f"https://{QY}"
        async with Proxy(Authority(tmp_path), behind) as proxy:
            for name in Settings.model_fields:
                monkeypatch.delenv(f"HONGYAN_{name.upper()}", raising=False)
            for name in ("NO_PROXY", "no_proxy", "https_proxy", "REQUESTS_CA_BUNDLE"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            monkeypatch.setenv("SSL_CERT_FILE", str(proxy.authority.file))
            monkeypatch.chdir(tmp_path)
            yield platforms, proxy


@asynccontextmanager
async def installed(
    case: Case, platforms: Platforms, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[App]:
    """The channel as `hongyan serve` would build it, and its platform calling it."""
    given = {
        "DATABASE_URL": "sqlite:///bot.db",
        "KEYS": KEYS,
        "PUBLIC_URL": f"https://{OURS}",
        "CHANNELS": case.channel,
        **{name.upper(): value for name, value in OFFICE.items()},
        **case.settings(platforms),
    }
    assert [name for name in given if name.endswith(("_BASE", "_PROXY", "BOT_URL"))] == []
    for name, value in given.items():
        monkeypatch.setenv(f"HONGYAN_{name}", value)
    settings = load_settings()
    channels = build_channels(settings, platforms.clock)
    services = services_for(
        settings, facts_of(channels), keys=KEYS, clock=platforms.clock, catalog=catalog(tell)
    )
    METADATA.create_all(services.database.engine)
    app = App(services, channels, alone=True)
    async with serving(app) as url:
        await proxy.stand_for(OURS, url)
        case.begin(platforms, url)
        yield app


async def test_a_channel_talks_through_the_proxy_and_to_nobody_else(
    case: Case, way_out: tuple[Platforms, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    platforms, proxy = way_out
    async with installed(case, platforms, proxy, monkeypatch) as app:
        if case.say is not None:
            case.say(platforms, "讲故事")
            await until(lambda: _told(case.heard(platforms)), app.delivery.until_idle)
        channel = app.channels[case.channel]
        assert isinstance(channel, Probed)
        findings = await channel.probe()
    assert proxy.refused == []
    assert case.hosts <= set(proxy.asked) <= case.hosts | {OURS}
    assert findings != ()
    assert [finding for finding in findings if not finding.fine] == []


async def test_a_certificate_of_nobody_is_not_believed(
    case: Case,
    way_out: tuple[Platforms, Proxy],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    platforms, proxy = way_out
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(stranger).file))
    async with installed(case, platforms, proxy, monkeypatch) as app:
        channel = app.channels[case.channel]
        assert isinstance(channel, Probed)
        findings = await channel.probe()
    assert [finding for finding in findings if not finding.fine] != []
    assert proxy.refused == []


_ = (Awaiting, Address, Part, CHANNELS)
