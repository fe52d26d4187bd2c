"""Whatever goes wrong, on any channel, no secret stands in a log, an error, a page or a report."""

from __future__ import annotations

import io
import re
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from starlette.routing import Route

from bot import logs
from bot.app import CHANNELS, App
from bot.check import inspect, lines, try_channel
from bot.doctor import report
from bot.installation import secrets_of
from bot.messages import Part
from bot.settings import Settings
from tests.channels.production import CASES, Case, Stage, configure, installed, way_out_of
from tests.emulators.proxy import Authority, Proxy
from tests.serving import logging_restored
from tests.world import whole_catalog

pytestmark = pytest.mark.anyio

NOWHERE = "http://127.0.0.1:1"
PATIENCE = 2.0
METRICS = "a-token-for-the-metrics-page"
WORDS = Part("明天上午座谈。")
GIVEN_OUT = re.compile(r"(?:access_token|key|secret|/bot)=?[\w-]{16,}(?::[\w-]{20,})?")
"""What a platform gave us, or what stands in an address: as good as a secret."""


class Gossip:
    """Stands for every platform, and repeats in its answers whatever it was told."""

    def __init__(self) -> None:
        self.manner = "page"
        self.heard = 0

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[str]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes([web.route("*", "/{path:.*}", self._serve)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.heard += 1
        body = (await request.read()).decode("utf-8", "replace")
        told = f"{request.method} {request.path_qs} {dict(request.headers)} {body}"
        if self.manner == "cut":
            assert request.transport is not None
            request.transport.abort()
        if self.manner == "page":
            return web.Response(status=502, text=f"<html>{told}</html>", content_type="text/html")
        if self.manner == "prose":
            return web.Response(text=told)
        refused = {"errcode": 40013, "errmsg": "invalid", "ok": False, "error_code": 401}
        return web.json_response({**refused, "description": "Unauthorized"})


MANNERS = ("page", "prose", "refusal", "cut")


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What is logged."""
    with logging_restored():
        yield io.StringIO()


@pytest.fixture
async def stage(anyio_backend: str) -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


async def everything_said(case: Case, stage: Stage, app: App, url: str) -> list[str]:
    """Send, try, knock wrongly, look at every page and report: all texts that come of it."""
    channel = app.channels[case.channel]
    texts = [repr(channel), str(channel), repr(channel.facts), *channel.check()]
    texts += [repr(app.services), repr(app.services.settings), str(app.services.settings)]
    try:
        await channel.send(case.unasked(stage), WORDS, "key-1")
    except Exception as error:  # noqa: BLE001  # any error's text is looked at
        texts += [*traceback.format_exception(error), repr(error), getattr(error, "detail", "")]
    found = await try_channel(channel, app.services, PATIENCE)
    texts += [f"{finding.what} {finding.advice}" for finding in found]
    texts += report(app.services, app.channels)
    settings = app.services.settings
    texts += lines(await inspect(settings, whole_catalog(), stage.clock, patience=PATIENCE))
    async with aiohttp.ClientSession() as session:
        for route in channel.routes(app.receive):
            assert isinstance(route, Route)
            texts += await _knock(session, f"{url}{route.path}")
        headers = {"Authorization": f"Bearer {METRICS}"}
        async with session.get(f"{url}/metrics", headers=headers) as answer:
            assert answer.status == 200
            texts.append(await answer.text())
    return texts


async def _knock(session: aiohttp.ClientSession, url: str) -> list[str]:
    """Callbacks that are wrong in several ways."""
    query = {"msg_signature": "0" * 40, "timestamp": "1", "nonce": "n", "echostr": "e"}
    heard = []
    for body in (b"<xml><Encrypt>x</Encrypt></xml>", b'{"encrypt": "x"}', b"{", b"\xff\x00"):
        async with session.post(url, params=query, data=body) as answer:
            heard.append(await answer.text())
    async with session.get(url, params=query) as answer:
        heard.append(await answer.text())
    return heard


def leaks(settings: Settings, texts: list[str]) -> list[str]:
    """The secrets that stand in texts, and what is as good as one."""
    everything = "\n".join(texts)
    found = [secret for secret in secrets_of(settings) if secret in everything]
    return found + GIVEN_OUT.findall(everything)


async def test_a_platform_that_repeats_what_it_was_told_makes_us_repeat_nothing(
    case: Case,
    stage: Stage,
    written: io.StringIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gossip = Gossip()
    async with (
        gossip.standing() as target,
        way_out_of(stage, tmp_path, monkeypatch, target) as proxy,
    ):
        monkeypatch.setenv("HONGYAN_METRICS_TOKEN", METRICS)
        texts = []
        async with installed(case, stage, proxy, monkeypatch) as app:
            settings = app.services.settings
            logs.configure("DEBUG", secrets_of(settings), written)
            url = _address(proxy)
            for gossip.manner in MANNERS:
                texts += await everything_said(case, stage, app, url)
    # By URL the bot answers in place and calls nobody by itself.
    assert gossip.heard >= len(MANNERS) or case.name == "wecom_bot"
    assert len(secrets_of(settings)) >= 3
    assert leaks(settings, [*texts, written.getvalue()]) == []


def _address(proxy: Proxy) -> str:
    return proxy.behind_name("bot.example.org")


# `websockets` fails in a callback of its own when a proxied certificate is refused.
SHUT = [
    pytest.param(case, way, id=f"{case.name}-{way}")
    for case in CASES
    for way in ("no_proxy_there", "stranger")
    if (case.name, way) != ("wecom_bot_socket", "stranger")
]


@pytest.mark.parametrize(("case", "way"), SHUT)
async def test_a_way_that_is_shut_names_no_secret(
    case: Case,
    way: str,
    stage: Stage,
    written: io.StringIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with way_out_of(stage, tmp_path, monkeypatch) as proxy:
        monkeypatch.setenv("HONGYAN_METRICS_TOKEN", METRICS)
        if way == "stranger":
            (tmp_path / "stranger").mkdir()
            monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path / "stranger").file))
        else:
            monkeypatch.setenv("HTTPS_PROXY", NOWHERE)
        async with installed(case, stage, proxy, monkeypatch) as app:
            settings = app.services.settings
            logs.configure("DEBUG", secrets_of(settings), written)
            texts = await everything_said(case, stage, app, _address(proxy))
    assert leaks(settings, [*texts, written.getvalue()]) == []


async def test_what_is_logged_would_be_clean_even_without_the_redactor(
    case: Case,
    stage: Stage,
    written: io.StringIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gossip = Gossip()
    async with (
        gossip.standing() as target,
        way_out_of(stage, tmp_path, monkeypatch, target) as proxy,
    ):
        monkeypatch.setenv("HONGYAN_METRICS_TOKEN", METRICS)
        async with installed(case, stage, proxy, monkeypatch) as app:
            logs.configure("INFO", (), written)
            await everything_said(case, stage, app, _address(proxy))
            settings = app.services.settings
    assert leaks(settings, [written.getvalue()]) == []


async def test_a_leak_would_be_seen(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with way_out_of(stage, tmp_path, monkeypatch):
        settings = configure(CASES[0], stage, monkeypatch)
    secret = settings.wechat_app_secret.get_secret_value()
    assert leaks(settings, [f"refused: {secret}!"]) == [secret]
    assert leaks(settings, ["GET /x?access_token=abcdefghijklmnopqrst"]) != []


def test_no_channel_is_left_out() -> None:
    assert {case.channel for case in CASES} == set(CHANNELS)
