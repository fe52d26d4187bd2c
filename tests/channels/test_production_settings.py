"""With the settings of production, a proxy and an authority of the test, every channel works, and
nothing is asked of any other host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot import web
from bot.app import CHANNELS, App, build_channels, facts_of, services_for
from bot.channels.base import Awaiting, Probed
from bot.commands import command
from bot.context import Context
from bot.installation import load_settings
from bot.messages import Address, Part, Reply, say
from bot.settings import Settings
from storage.customer_groups import live_groups
from storage.tables import METADATA
from tests.channels.harness import catalog
from tests.channels.on_wecom_bot_socket import until
from tests.emulators.clock import VirtualClock
from tests.emulators.proxy import Authority, Proxy
from tests.emulators.server import START, Platforms
from tests.emulators.wecom_contact import Contact
from tests.emulators.wecom_kf import Kf
from tests.world import KEYS, OFFICE

pytestmark = pytest.mark.anyio

WANG = "oWangXiaoyan"
NUMBER = 1001
GROUP = "wrCustomers"
RATE = 10.0  # virtual seconds a second, or a channel that keeps a pace would wait for ever
OURS = "bot.example.org"
MP, QY = "api.weixin.qq.com", "qyapi.weixin.qq.com"
TELEGRAM, SOCKET = "api.telegram.org", "openws.work.weixin.qq.com"
TALE = [sign * 600 for sign in "草羊雁"]  # more than one bubble holds


class Stage(Platforms):
    """The platforms, with a service account and a customer group."""

    def __init__(self) -> None:
        super().__init__(VirtualClock(START, rate=RATE))
        self.kf = Kf(self.wecom)
        self.contact = Contact(self.wecom)


@dataclass(frozen=True)
class Case:
    """How one channel is configured and spoken to on its platform.

    `hosts` are the platform's own, all of which must have been asked. Nobody can `say` anything
    where the bot is not spoken to. `unasked` is whom it writes to by itself at the end.
    """

    name: str
    hosts: frozenset[str]
    settings: Callable[[Stage], Mapping[str, str]]
    begin: Callable[[Stage, str], object]
    say: Callable[[Stage, str], object] | None = None
    heard: Callable[[Stage], list[str]] = lambda _stage: []
    unasked: Callable[[Stage], Address] | None = None
    ready: Callable[[Stage], bool] = lambda _stage: True

    @property
    def channel(self) -> str:
        return self.name.removesuffix("_socket")


def _wechat(stage: Stage) -> dict[str, str]:
    account = stage.wechat.account
    return {
        "WECHAT_APP_ID": account.app_id,
        "WECHAT_APP_SECRET": account.secret,
        "WECHAT_TOKEN": account.token,
        "WECHAT_AES_KEY": account.aes_key,
    }


def _telegram(stage: Stage) -> dict[str, str]:
    return {
        "TELEGRAM_TOKEN": stage.telegram.token,
        "TELEGRAM_POLICY": "full",
        "TELEGRAM_FILING": "演练评估1号",
    }


def _wecom(stage: Stage) -> dict[str, str]:
    ours = stage.wecom.corporation
    return {
        "WECOM_CORP_ID": ours.corp_id,
        "WECOM_AGENT_ID": str(ours.agent_id),
        "WECOM_SECRET": ours.secret,
        "WECOM_TOKEN": ours.token,
        "WECOM_AES_KEY": ours.aes_key,
    }


def _wecom_bot(stage: Stage) -> dict[str, str]:
    account = stage.wecom_bot.account
    return {
        "WECOM_BOT_ID": account.bot_id,
        "WECOM_BOT_TOKEN": account.token,
        "WECOM_BOT_AES_KEY": account.aes_key,
    }


def _wecom_bot_socket(stage: Stage) -> dict[str, str]:
    account = stage.wecom_bot.account
    return {"WECOM_BOT_ID": account.bot_id, "WECOM_BOT_SECRET": account.secret}


def _wecom_webhook(stage: Stage) -> dict[str, str]:
    key = stage.wecom_webhook.make_group("工作群")
    return {"WECOM_WEBHOOK_URL": f"https://{QY}/cgi-bin/webhook/send?key={key}"}


def _follow(stage: Stage, url: str) -> None:
    stage.wechat.connect(f"{url}/callback/wechat")
    stage.wechat.follow(WANG)


def _hire(stage: Stage, url: str) -> None:
    stage.wecom.hire(WANG, "王小雁")
    stage.wecom.connect(f"{url}/callback/wecom")


def _find(stage: Stage, url: str) -> None:
    _hire(stage, url)
    stage.kf.find(WANG)
    stage.kf.servicers[WANG] = True


def _gather(stage: Stage, url: str) -> None:
    _hire(stage, url)
    stage.contact.create(GROUP, "在沪乡亲", WANG)


def _meet_bot(stage: Stage, url: str) -> None:
    stage.wecom_bot.hire(WANG)
    stage.wecom_bot.connect(f"{url}/callback/wecom-bot")


def _hold_line(stage: Stage, _url: str) -> None:
    stage.wecom_bot.mode = "socket"
    stage.wecom_bot.hire(WANG)


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
        lambda stage, text: stage.wechat.say(WANG, text),
        lambda stage: stage.wechat.heard(WANG),
    ),
    Case(
        "telegram",
        frozenset({TELEGRAM}),
        _telegram,
        lambda stage, _url: stage.telegram.person(NUMBER, "王小雁"),
        lambda stage, text: stage.telegram.say(NUMBER, text),
        lambda stage: stage.telegram.heard(NUMBER),
    ),
    Case(
        "wecom",
        frozenset({QY}),
        _wecom,
        _hire,
        lambda stage, text: stage.wecom.say(WANG, text),
        lambda stage: stage.wecom.heard(WANG),
    ),
    Case(
        "wecom_bot",
        frozenset({QY}),
        _wecom_bot,
        _meet_bot,
        lambda stage, text: stage.wecom_bot.say(WANG, text),
        lambda stage: stage.wecom_bot.heard(WANG),
        lambda stage: Address("wecom_bot", stage.wecom_bot.account.bot_id, WANG),
    ),
    Case(
        "wecom_bot_socket",
        frozenset({SOCKET}),
        _wecom_bot_socket,
        _hold_line,
        lambda stage, text: stage.wecom_bot.say(WANG, text),
        lambda stage: stage.wecom_bot.heard(WANG),
        ready=lambda stage: stage.wecom_bot.live is not None,
    ),
    Case(
        "wecom_kf",
        frozenset({QY}),
        _wecom,
        _find,
        lambda stage, text: stage.kf.say(WANG, text),
        lambda stage: stage.kf.heard(WANG),
    ),
    Case(
        "wecom_group",
        frozenset({QY}),
        _wecom,
        _gather,
        unasked=lambda stage: Address("wecom_group", stage.wecom.corporation.corp_id, GROUP),
    ),
    Case(
        "wecom_webhook",
        frozenset({QY}),
        _wecom_webhook,
        lambda _stage, _url: None,
        unasked=lambda _stage: Address("wecom_webhook", "group", "工作群"),
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
async def way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> AsyncIterator[tuple[Stage, Proxy]]:
    """The platforms behind their real names; the environment knows nothing but the proxy."""
    async with Stage() as platforms:
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
    case: Case, platforms: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
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
    door, stop = web.listen("127.0.0.1", 0), asyncio.Event()
    url = web.address_of(door)
    served = asyncio.create_task(web.serve(app, door, ["web", "worker"], stop=stop))
    try:
        await proxy.stand_for(OURS, url)
        case.begin(platforms, url)
        yield app
    finally:
        stop.set()
        await served
        app.close()


def _groups(app: App) -> list[str]:
    """The groups whose roster has been read."""
    with app.services.database.reading() as session:
        return [Address.parse(group.address).user for group in live_groups(session)]


async def test_a_channel_talks_through_the_proxy_and_to_nobody_else(
    case: Case, way_out: tuple[Stage, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    platforms, proxy = way_out
    async with installed(case, platforms, proxy, monkeypatch) as app:
        if case.say is not None:
            await until(lambda: case.ready(platforms))
            case.say(platforms, "讲故事")
            await until(lambda: _told(case.heard(platforms)))
        channel = app.channels[case.channel]
        if case.unasked is not None:
            by_tap = case.channel == "wecom_group"
            await until(lambda: _groups(app) == [GROUP] * by_tap)
            sent = await channel.send(case.unasked(platforms), Part("明天上午座谈。"), "notice-1")
            assert isinstance(sent, Awaiting) == by_tap
        assert isinstance(channel, Probed)
        findings = await channel.probe()
    assert proxy.refused == []
    assert case.hosts <= set(proxy.asked) <= case.hosts | {OURS}
    assert findings != ()
    assert [finding for finding in findings if not finding.fine] == []


# `websockets` tells of a refused certificate behind a proxy, and then fails in a callback of its
# own, which anyio counts as a failure of the test.
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.name != "wecom_bot_socket"],
    ids=lambda case: case.name,
)
async def test_a_certificate_of_nobody_is_not_believed(
    case: Case,
    way_out: tuple[Stage, Proxy],
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


def test_no_channel_is_left_out() -> None:
    assert {case.channel for case in CASES} == set(CHANNELS)
