"""One address for an app and for whoever listens there: each event finds its channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlmodel import select

from bot.app import App, build_channels, facts_of, services_for
from bot.channels.wecom.callback import PATH
from storage.customer_groups import CustomerGroup
from tests.channels.called import PROMPTLY
from tests.channels.harness import catalog, serving
from tests.channels.on_wecom_kf import WANG, wecom_settings
from tests.emulators.server import Platforms
from tests.laying import lay_tables
from tests.world import KEYS

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def living(folder: Path, channels: str) -> AsyncIterator[tuple[App, Platforms]]:
    """An installation with these channels, at the one address of the app."""
    async with Platforms() as emulated:
        corporation, base = emulated.wecom.corporation, f"{emulated.url}/qy"
        settings = wecom_settings(folder, corporation, base, channels=channels)
        built = build_channels(settings, emulated.clock)
        services = services_for(
            settings, facts_of(built), keys=KEYS, clock=emulated.clock, catalog=catalog()
        )
        lay_tables(services.database)
        app = App(services, built, alone=True)
        async with serving(app) as url:
            emulated.wecom.connect(f"{url}{PATH}")
            yield app, emulated


async def heard_all(app: App, emulated: Platforms) -> tuple[list[str], list[str]]:
    """What a customer was answered, and the groups that are known, after one event of each."""
    async with asyncio.timeout(PROMPTLY):
        await emulated.wecom_contact.create("wrOne", "乡亲一群", "zhangsan").done()
        await emulated.wecom_kf.say(WANG, "回声 家乡好").done()
        while not emulated.wecom_kf.heard(WANG):
            await app.delivery.until_idle()
            await asyncio.sleep(0.01)
    with app.services.database.reading() as session:
        groups = session.exec(select(CustomerGroup.address)).all()
    return emulated.wecom_kf.heard(WANG), [address.rpartition(":")[2] for address in groups]


@pytest.mark.parametrize(
    "channels", ["wecom,wecom_group,wecom_kf", "wecom_group,wecom_kf", "wecom_kf,wecom_group"]
)
async def test_each_event_finds_its_channel(tmp_path: Path, channels: str) -> None:
    async with living(tmp_path, channels) as (app, emulated):
        assert await emulated.wecom.verify_url()
        assert await heard_all(app, emulated) == (["家乡好"], ["wrOne"])


async def test_without_the_apps_channel_nobody_answers_the_staff(tmp_path: Path) -> None:
    async with living(tmp_path, "wecom_kf") as (_app, emulated):
        emulated.wecom.hire("zhangsan")
        async with asyncio.timeout(PROMPTLY):
            push = await emulated.wecom.say("zhangsan", "回声 有人吗").done()
        assert push.tries[-1].status == 200
        assert emulated.wecom.heard("zhangsan") == []
