"""Every channel as an operator sets it up, and its platform behind TLS under its real name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from bot import web
from bot.app import App, build_channels, facts_of, services_for
from bot.commands import command
from bot.context import Context
from bot.installation import load_settings
from bot.messages import Address, Reply, say
from bot.settings import Settings
from tests.channels.harness import catalog
from tests.emulators.clock import VirtualClock
from tests.emulators.proxy import Authority, Proxy
from tests.emulators.server import START, Platforms
from tests.emulators.wecom_contact import Contact
from tests.emulators.wecom_kf import Kf
from tests.laying import lay_tables
from tests.world import KEYS, OFFICE

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

    def __init__(self, start: datetime = START, rate: float = RATE) -> None:
        super().__init__(VirtualClock(start, rate=rate))
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
    unasked: Callable[[Stage], Address]
    say: Callable[[Stage, str], object] | None = None
    heard: Callable[[Stage], list[str]] = lambda _stage: []
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


def told(heard: list[str]) -> bool:
    return all(piece in "".join(heard) for piece in TALE)


CASES = [
    Case(
        "wechat",
        frozenset({MP}),
        _wechat,
        _follow,
        lambda stage: Address("wechat", stage.wechat.account.app_id, WANG),
        lambda stage, text: stage.wechat.say(WANG, text),
        lambda stage: stage.wechat.heard(WANG),
    ),
    Case(
        "telegram",
        frozenset({TELEGRAM}),
        _telegram,
        lambda stage, _url: stage.telegram.person(NUMBER, "王小雁"),
        lambda stage: Address("telegram", stage.telegram.token.partition(":")[0], str(NUMBER)),
        lambda stage, text: stage.telegram.say(NUMBER, text),
        lambda stage: stage.telegram.heard(NUMBER),
    ),
    Case(
        "wecom",
        frozenset({QY}),
        _wecom,
        _hire,
        lambda stage: Address("wecom", stage.wecom.corporation.corp_id, WANG),
        lambda stage, text: stage.wecom.say(WANG, text),
        lambda stage: stage.wecom.heard(WANG),
    ),
    Case(
        "wecom_bot",
        frozenset({QY}),
        _wecom_bot,
        _meet_bot,
        lambda stage: Address("wecom_bot", stage.wecom_bot.account.bot_id, WANG),
        lambda stage, text: stage.wecom_bot.say(WANG, text),
        lambda stage: stage.wecom_bot.heard(WANG),
    ),
    Case(
        "wecom_bot_socket",
        frozenset({SOCKET}),
        _wecom_bot_socket,
        _hold_line,
        lambda stage: Address("wecom_bot", stage.wecom_bot.account.bot_id, WANG),
        lambda stage, text: stage.wecom_bot.say(WANG, text),
        lambda stage: stage.wecom_bot.heard(WANG),
        ready=lambda stage: stage.wecom_bot.live is not None,
    ),
    Case(
        "wecom_kf",
        frozenset({QY}),
        _wecom,
        _find,
        lambda stage: Address("wecom_kf", stage.kf.account, WANG),
        lambda stage, text: stage.kf.say(WANG, text),
        lambda stage: stage.kf.heard(WANG),
    ),
    Case(
        "wecom_group",
        frozenset({QY}),
        _wecom,
        _gather,
        lambda stage: Address("wecom_group", stage.wecom.corporation.corp_id, GROUP),
    ),
    Case(
        "wecom_webhook",
        frozenset({QY}),
        _wecom_webhook,
        lambda _stage, _url: None,
        lambda _stage: Address("wecom_webhook", "group", "工作群"),
    ),
]


def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's settings, and no way out but the one that is named."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HONGYAN_{name.upper()}", raising=False)
    for name in ("NO_PROXY", "no_proxy", "https_proxy", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def way_out_of(
    stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch, target: str = ""
) -> AsyncIterator[Proxy]:
    """A folder and an environment that knows the platforms only behind a proxy.

    `target` is a server that answers in their place.
    """
    behind = {
        MP: target or f"{stage.url}/mp",
        QY: target or f"{stage.url}/qy",
        TELEGRAM: target or stage.url,
        SOCKET: target or f"{stage.url}/openws",
    }
    stage.wecom_bot.url = f"https://{QY}"
    async with Proxy(Authority(folder), behind) as proxy:
        unset(monkeypatch)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(proxy.authority.file))
        monkeypatch.chdir(folder)
        yield proxy


def configure(case: Case, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of production: no address of any platform among them."""
    given = {
        "DATABASE_URL": "sqlite:///bot.db",
        "KEYS": KEYS,
        "PUBLIC_URL": f"https://{OURS}",
        "CHANNELS": case.channel,
        **{name.upper(): value for name, value in OFFICE.items()},
        **case.settings(stage),
    }
    assert [name for name in given if name.endswith(("_BASE", "_PROXY", "BOT_URL"))] == []
    for name, value in given.items():
        monkeypatch.setenv(f"HONGYAN_{name}", value)
    return load_settings()


@asynccontextmanager
async def installed(
    case: Case, stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[App]:
    """The channel as `hongyan serve` would build it, and its platform calling it."""
    settings = configure(case, stage, monkeypatch)
    channels = build_channels(settings, stage.clock)
    services = services_for(
        settings, facts_of(channels), keys=KEYS, clock=stage.clock, catalog=catalog(tell)
    )
    lay_tables(services.database)
    app = App(services, channels, alone=True)
    door, stop = web.listen("127.0.0.1", 0), asyncio.Event()
    url = web.address_of(door)
    served = asyncio.create_task(web.serve(app, door, ["web", "worker"], stop=stop))
    try:
        await proxy.stand_for(OURS, url)
        case.begin(stage, url)
        yield app
    finally:
        stop.set()
        await served
        app.close()
