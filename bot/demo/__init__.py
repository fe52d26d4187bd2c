"""`hongyan demo`: phones on a page, talking to the real bot in an invented county."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import timedelta
from threading import Thread

import typer
from sqlmodel import Session, select

from bot import logs
from bot.app import App, build_channels, facts_of, services_for, tune_interpreter
from bot.catalog import Catalog, collect
from bot.channels.base import Channel
from bot.channels.demo import Board, DemoChannel
from bot.clock import MovableClock, SystemClock
from bot.commands import DemoData
from bot.context import ChannelFacts
from bot.demo.journey import running_clock
from bot.demo.platforms import CHANNELS as PLATFORMS
from bot.demo.platforms import PATH as PHONES
from bot.demo.platforms import Emulators, LeadingClock, emulators
from bot.demo.server import CHANNEL, Demo, routes, screen
from bot.errors import ConfigError
from bot.messages import Address
from bot.settings import demo_settings
from bot.web import address_of, listen, serve
from storage.columns import KeyRing
from storage.people import Contact
from storage.tables import METADATA

HOST = "127.0.0.1"
FACTS = (
    ChannelFacts(CHANNEL, inline=99, label="演示手机"),
    ChannelFacts(
        "wechat",
        buttons=False,
        windowed=True,
        # As the real one: five messages within 48 hours after each that we receive.
        windows={"any": (timedelta(hours=48), 5)},
        label="公众号",
    ),
)


def main(port: int, browser: bool, platforms: bool = False) -> int:
    """Run the demo until Ctrl-C; 0 then, 1 after one clear line if it cannot start.

    Port 0 takes any free one. Everything lives in a temporary folder that is removed at the end.
    With `platforms` the real channels run too, against emulated platforms in a process that ends
    with this one.
    """
    try:
        # The system would quietly take another port instead of one that cannot be.
        if not 0 <= port <= 65535:
            raise ConfigError(f"端口须在 0 到 65535 之间，{port} 不行；请用 --port 换一个。")
        with listen(HOST, port) as listening, _folder() as folder:
            _be_quiet_and_tidy()
            with emulators() if platforms else nullcontext() as emulated:
                _run(folder, listening, browser, emulated)
    except KeyboardInterrupt:
        pass
    except ConfigError as error:
        typer.echo(str(error), err=True)
        return 1
    return 0


def _be_quiet_and_tidy() -> None:
    """Only what concerns the person before the screen is said; every way to end cleans up."""
    logs.configure("ERROR", ())
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="hongyan-demo-", ignore_cleanup_errors=True)
    except OSError as error:
        raise ConfigError(
            "临时文件夹不可写，演示放不下它的数据库；请用 TMPDIR 指定一个可写的文件夹再试"
        ) from error


def _run(folder: str, listening: socket.socket, browser: bool, emulated: Emulators | None) -> None:
    address = address_of(listening)
    demo = build(folder, address, emulated=emulated)
    try:
        tune_interpreter()
        asyncio.run(_live(demo, listening, lambda: _announce(address, browser, emulated), emulated))
    finally:
        demo.app.close()
        # The process ends next: to sort its garbage first would only keep people waiting.
        gc.freeze()


async def _live(
    demo: Demo,
    listening: socket.socket,
    started: Callable[[], None],
    emulated: Emulators | None,
) -> None:
    stop = asyncio.Event()
    # A page's stream is open for ever: it asks this, and ends by itself.
    demo.ending = stop.is_set
    watching = asyncio.create_task(demo.watch())
    try:
        more = routes(demo, emulated)
        await serve(demo.app, listening, more=more, started=started, stop=stop)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def build(
    folder: str,
    address: str,
    clock: MovableClock | None = None,
    emulated: Emulators | None = None,
) -> Demo:
    """A demo with its database in `folder`, seeded; `address` is where its pages are reached.

    With `emulated` platforms the real channels stand beside the phones of the page.
    """
    catalog = collect()
    data = _data(catalog)
    settings = demo_settings(
        database_url=f"sqlite:///{folder}/demo.db",
        public_url=address,
        telegram_policy="full",
        **data.settings,
        **_consoles(emulated),
    )
    if clock is None:
        clock = running_clock(SystemClock(), settings.quiet)
        if emulated is not None:
            clock = LeadingClock(clock.now(), emulated)
    board = Board(clock.now)
    phones = [screen(phone) for phone in data.cast]
    real = build_channels(settings, clock)
    invented = {
        facts.name: DemoChannel(facts, board, data.bot, phones)
        for facts in FACTS
        if facts.name not in real
    }
    channels: dict[str, Channel] = {**invented, **real}
    services = services_for(
        settings, facts_of(channels), keys=KeyRing.generate(), clock=clock, catalog=catalog
    )
    app = App(services, channels, alone=True)
    try:
        METADATA.create_all(services.database.engine)
        with services.database.session() as session:
            data.seed(services, session, clock.now())
            if emulated is not None:
                emulated.settle(address, _followers(session))
    except BaseException:
        app.close()
        raise
    return Demo(app, board, clock, data, invented)


def _consoles(emulated: Emulators | None) -> Mapping[str, str]:
    """What an operator would fill in for the platforms."""
    if emulated is None:
        return {}
    filed = {"channels": ",".join(PLATFORMS), "telegram_filing": "演示，不接真实平台"}
    return {**emulated.settings, **filed}


def _followers(session: Session) -> list[str]:
    """The ids of everybody who is reached by the Official Account."""
    addresses = session.exec(select(Contact.address).where(Contact.channel == "wechat"))
    return [Address.parse(address).user for address in addresses]


def _data(catalog: Catalog) -> DemoData:
    found = catalog.of(DemoData)
    if len(found) != 1:
        raise ConfigError("演示需要恰好一份虚构的人和事（DemoData），这个版本里没有")
    return found[0]


def _announce(address: str, browser: bool, emulated: Emulators | None) -> None:
    page = f"{address}/demo"
    typer.echo(f"演示已经就绪，请用浏览器打开：{page}")
    if emulated is not None:
        typer.echo(f"各平台的手机在：{address}{PHONES}；模拟平台的控制接口：{emulated.url}/control")
    typer.echo("人物全部虚构，数据只在临时文件夹里；按 Ctrl-C 结束并清除。")
    if browser and _has_screen():
        Thread(target=webbrowser.open, args=[page], daemon=True).start()


def _has_screen() -> bool:
    """Without one, Python would open a text browser in this very terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
