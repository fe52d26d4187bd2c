"""The Telegram channel over the emulated Bot API, polled and drained by whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bot.app import App, services_for
from bot.catalog import Catalog
from bot.channels.telegram import Telegram
from bot.messages import Address
from bot.settings import Settings
from tests.channels.harness import Trouble, catalog, settings_for
from tests.emulators import telegram as emulated
from tests.emulators.faults import What, When
from tests.emulators.server import Platforms
from tests.laying import lay_tables
from tests.world import KEYS

WANG, LI = 1001, 1002
BOT = emulated.TOKEN.partition(":")[0]
PEOPLE = {"oWangXiaoyan": WANG, "oLiYuangui": LI}

FAULTS: dict[Trouble, tuple[What, When, float]] = {
    Trouble.BUSY: ("errcode", "before", 500),
    Trouble.QUOTA: ("errcode", "before", 429),
    Trouble.SERVER_ERROR: ("status", "before", 502),
    Trouble.ANSWER_LOST: ("cut", "after", 0),
    Trouble.NO_ANSWER: ("stall", "after", 0),
}
TROUBLES = frozenset(FAULTS)
WEBHOOK = False


def telegram_settings(folder: Path, api_base: str, **values: str) -> Settings:
    """Settings with the token that BotFather gave."""
    given = {
        "telegram_token": emulated.TOKEN,
        "telegram_api_base": api_base,
        "telegram_policy": "full",
        "telegram_filing": "演练评估1号",
        **values,
    }
    return settings_for(folder, channels="telegram", **given)


class OnTelegram:
    """People use their phones; updates are fetched and the outbox is drained in one go."""

    secrets = (emulated.TOKEN, emulated.TOKEN.partition(":")[2])
    troubles = TROUBLES
    webhook = ""

    def __init__(self, platforms: Platforms, folder: Path, known: Catalog, **values: str) -> None:
        self.platforms = platforms
        self.telegram = platforms.telegram
        self.clock = platforms.clock
        self.settings = telegram_settings(folder, platforms.url, **values)
        self.channel = Telegram(self.settings, self.clock, sleep=self.clock.advance, patience=0.3)
        services = services_for(
            self.settings,
            {"telegram": self.channel.facts},
            keys=KEYS,
            clock=self.clock,
            catalog=known,
        )
        lay_tables(services.database)
        self.app = App(services, {"telegram": self.channel}, alone=True)

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """The channel runs by itself, and its poll waits for news."""
        task = asyncio.create_task(self.channel.run(self.app.receive))
        try:
            await self.telegram.until(lambda: self.telegram.waiting_polls == 1)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def settle(self) -> None:
        """Fetch what was said and drain the outbox, until there is nothing more."""
        while await self.channel.poll(self.app.receive, 0):
            await self.drain()

    async def drain(self) -> None:
        await self.app.delivery.until_idle()

    async def says(self, who: str | int, text: str) -> None:
        self.telegram.say(person(who), text)
        await self.settle()

    async def says_twice(self, who: str | int, text: str) -> None:
        self.telegram.duplicate_next()
        await self.says(who, text)

    async def presses(self, who: str | int, value: str) -> None:
        self.telegram.press(person(who), value)
        await self.settle()

    async def sends_voice(self, who: str) -> None:
        self.telegram.send_voice(person(who))
        await self.settle()

    async def happens(self) -> int:
        self.telegram.poison({"poll": {"id": "1"}})
        await self.settle()
        return 200

    async def forges(self) -> list[int]:
        return []

    def heard(self, who: str | int) -> list[str]:
        return self.telegram.heard(person(who))

    def offered(self, who: str | int) -> list[str]:
        """The labels under the newest message that has buttons."""
        return [button["text"] for button in self.buttons(person(who))]

    def buttons(self, chat: int) -> list[dict[str, str]]:
        for message in reversed(self.telegram.chats[chat].messages.values()):
            rows = message.get("reply_markup", {}).get("inline_keyboard", [])
            if rows:
                return [button for row in rows for button in row]
        return []

    async def blocks(self, who: str) -> None:
        self.telegram.block(person(who))

    def meets(self, trouble: Trouble) -> None:
        what, when, value = FAULTS[trouble]
        self.telegram.fail("sendMessage", what, when, 1, value)

    def address(self, who: str | int) -> str:
        return str(Address("telegram", BOT, str(person(who))))


def person(who: str | int) -> int:
    """Their number; the contract names people by words."""
    return PEOPLE[who] if isinstance(who, str) else who


@asynccontextmanager
async def running(
    folder: Path, known: Catalog, platforms: Platforms | None = None, **values: str
) -> AsyncIterator[OnTelegram]:
    """An installation with this one channel; 王小雁 and 李远归 have Telegram."""
    async with platforms or Platforms() as served:
        served.telegram.person(WANG, "王小雁")
        served.telegram.person(LI, "李远归")
        made = OnTelegram(served, folder, known, **values)
        made.app.dispatcher.start()
        try:
            yield made
        finally:
            made.app.dispatcher.stop()
            await made.channel.close()
            made.app.close()


@asynccontextmanager
async def harness(folder: Path) -> AsyncIterator[OnTelegram]:
    """For the contract, which all channels keep."""
    async with running(folder, catalog()) as made:
        yield made
