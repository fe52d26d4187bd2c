"""What a channel brings to be held to the contract, and the small bot that talks through it.

To plug a channel in: a module `on_<name>.py` here with a function
`harness(folder) -> AbstractAsyncContextManager[Harness]`, and its name in `conftest.CHANNELS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from bot import web
from bot.app import App, services_for
from bot.catalog import Catalog
from bot.channels.base import Channel
from bot.clock import Clock
from bot.commands import Command, Greeting, command
from bot.context import Context
from bot.messages import Kind, Reply, say
from bot.settings import Settings, demo_settings
from handlers.place import PLACES
from handlers.roles import POLICY
from tests.laying import lay_tables
from tests.world import KEYS, OFFICE

LONG = "".join(f"第{number}句话，家乡的草绿了。\n" for number in range(1, 301)).strip()
"""Over 5,000 characters, each line of it different."""

SAID = "登记]]></Content><MsgType>evil</MsgType>& <b>粗</b> 🐎🏳️‍🌈 𠮷 _*`[x](y)"
"""What breaks XML, HTML and Markdown, and what is more than one unit of UTF-16."""

ODD = f"{SAID} \u202eرتل\u202c"
"""The same with a change of direction, which the bot does not hear but may say."""


class Trouble(StrEnum):
    """What can happen to a call on its way; the harness makes its emulator do it once."""

    BUSY = "busy"
    QUOTA = "quota"
    SERVER_ERROR = "server_error"
    HTML = "html"
    NOT_SENT = "not_sent"
    ANSWER_LOST = "answer_lost"
    NO_ANSWER = "no_answer"


class Harness(Protocol):
    """One channel, running against its emulator, with a member `WANG` who follows the bot."""

    app: App
    channel: Channel
    secrets: tuple[str, ...]
    """What must never be seen in a log or an error."""
    troubles: frozenset[Trouble]
    """Which of them the platform knows."""
    webhook: str
    """The address of its callback; empty for a channel that has none."""

    async def says(self, who: str, text: str) -> None:
        """Somebody says something; returns when it is answered, outbox and all."""

    async def says_twice(self, who: str, text: str) -> None:
        """The same message arrives two times."""

    async def presses(self, who: str, value: str) -> None:
        """Somebody presses a button, or a key of the menu, that stands for `value`."""

    async def sends_voice(self, who: str) -> None:
        """Somebody sends a voice message."""

    async def happens(self) -> int:
        """Something that the bot does not know happens; the HTTP status (200 without a webhook)."""

    async def forges(self) -> list[int]:
        """Statuses of callbacks with a wrong signature, an old one, and none."""

    def heard(self, who: str) -> list[str]:
        """Everything that somebody was told, in order."""

    def offered(self, who: str) -> list[str]:
        """What the last bubble lets them choose: its buttons, or its text."""

    async def blocks(self, who: str) -> None:
        """Somebody blocks or leaves the bot."""

    def meets(self, trouble: Trouble) -> None:
        """The next send meets this."""

    def address(self, who: str) -> str:
        """Where somebody is reached, as the outbox has it."""


Harnessed = Callable[[Path], AbstractAsyncContextManager[Harness]]


@command("回声", help="说一遍")
def echo(context: Context, argument: str) -> Reply:
    return say(argument or "（没有话）")


@command("很长")
def at_length(context: Context, _argument: str) -> Reply:
    return say(LONG)


@command("三句")
def three(context: Context, _argument: str) -> Reply:
    return say("一").then("二").then("三")


@command("选")
def choose(context: Context, _argument: str) -> Reply:
    return say("请选：1. 回声；2. 三句", "回声", "三句")


def _event(context: Context) -> Reply:
    return say(f"{context.inbound.text}：{context.inbound.argument}")


def _unknown(context: Context, _suggestion: str | None) -> Reply:
    kind = context.inbound.kind
    return say("没听懂" if kind is Kind.TEXT else f"没听懂：{kind}")


def catalog(*more: Command) -> Catalog:
    """A few words of no meaning, so that a channel is not held to what geese say."""
    commands = (echo, at_length, three, choose, *more)
    values: Mapping[type, Any] = {Command: commands, Greeting: (Greeting(_event, _unknown),)}
    return Catalog(values, {}, POLICY, PLACES)


def settings_for(folder: Path, **values: Any) -> Settings:
    """Settings for a temporary installation."""
    return demo_settings(database_url=f"sqlite:///{folder}/bot.db", **OFFICE, **values)


def installed(
    settings: Settings,
    clock: Clock,
    channel: Channel,
    *more: Command,
    known: Catalog | None = None,
) -> App:
    """An installation with this channel alone and empty tables; it knows `more`, or `known`."""
    name = channel.facts.name
    services = services_for(
        settings, {name: channel.facts}, keys=KEYS, clock=clock, catalog=known or catalog(*more)
    )
    lay_tables(services.database)
    return App(services, {name: channel}, alone=True)


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[str]:
    """The installation as `hongyan serve --role web` runs it, on 127.0.0.1; yields the address.

    The outbox is drained by whoever asks: `await app.delivery.until_idle()`.
    """
    door, stop = web.listen("127.0.0.1", 0), asyncio.Event()
    served = asyncio.create_task(web.serve(app, door, ["web"], stop=stop))
    try:
        yield web.address_of(door)
    finally:
        stop.set()
        await served
        app.close()
