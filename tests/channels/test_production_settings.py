"""With the settings of production, a proxy and an authority of the test, every channel works, and
nothing is asked of any other host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.app import CHANNELS, App
from bot.channels.base import Awaiting, Probed
from bot.messages import Address, Part
from storage.customer_groups import live_groups
from tests.channels.on_wecom_bot_socket import until
from tests.channels.production import CASES, GROUP, OURS, Case, Stage, installed, told, way_out_of
from tests.emulators.proxy import Authority, Proxy

pytestmark = pytest.mark.anyio


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
async def way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> AsyncIterator[tuple[Stage, Proxy]]:
    """The platforms, and the proxy behind which they are."""
    async with Stage() as stage, way_out_of(stage, tmp_path, monkeypatch) as proxy:
        yield stage, proxy


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
            await until(lambda: told(case.heard(platforms)))
        channel = app.channels[case.channel]
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
