"""The smart bot by the long connection: one process holds it, hears everything and speaks.

The platform allows one connection a bot, and a newer one ends the older. Among our own processes a
lease decides whose it is; against a stranger's we do not fight.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, auto
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.routing import BaseRoute

from bot.alarm import call_for_help
from bot.channels.base import Finding, Receive
from bot.channels.wecom.bot.lease import HOLD, RENEW, Lease
from bot.channels.wecom.bot.memory import Memory, new_key
from bot.channels.wecom.bot.reading import NAME, Pressed, Replaced, Told, read
from bot.channels.wecom.bot.speaking import Speaker
from bot.channels.wecom.bot.wire import ACK, NotConnected, Sleep, Wire, wired
from bot.channels.wecom.bot.words import AGAIN, LOST, REFUSED, pressed_card
from bot.clock import Clock
from bot.context import ChannelFacts, Services
from bot.errors import SendError
from bot.messages import Address, Inbound, Part
from bot.settings import Settings

# 20,480 bytes is the platform's limit; escaping may double a text.
FACTS = ChannelFacts(
    NAME, text_bytes=10_000, label="企业微信智能机器人", captions=False, gives_up=True
)

ACCEPT = 20.0  # seconds for the writer to take a message
PRESS = 4.0  # seconds: a card must be changed within 5
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
STEADY = timedelta(minutes=1)  # a connection that lived so long begins the waits anew
REFUSALS = 5  # wrong secrets after which a person must look
LONG_PAUSE = 3600.0  # seconds until we try again where a person must look
HEARINGS = 60  # tries to take a message, about an hour: the platform tells it once
LEAVING = 5.0  # seconds to take what was heard before we go
WHAT = "智能机器人的长连接"

_COME_AGAIN = frozenset({-1, 45009, 45033})  # busy, and too often

log = structlog.get_logger()


class End(Enum):
    """How a connection ended."""

    LOST = auto()
    REFUSED = auto()
    REPLACED = auto()


@dataclass(slots=True)
class Holding:
    """A connection that the platform has accepted, until a newer one takes its place."""

    wire: Wire
    replaced: bool = False


class SocketBot:
    """`sleep` passes time, `chance` spreads waits, `ack` is how long a command waits for its ack,
    `keys` makes the short random names of buttons.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        sleep: Sleep = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        ack: float = ACK,
        keys: Callable[[], str] = new_key,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._ack = ack
        self._account = settings.wecom_bot_id
        self._memory = Memory(clock, keys)
        self._speaker = Speaker(clock, self._memory, self._wire)
        self._held: Holding | None = None
        self._lines: dict[str, asyncio.Task[None]] = {}

    @property
    def facts(self) -> ChannelFacts:
        return FACTS

    def attach(self, services: Services) -> None:
        """Take the tables."""
        self._memory.attach(services)

    def check(self) -> Sequence[str]:
        """What is missing or malformed in the settings."""
        given = self._settings
        wrong = []
        if not given.wecom_bot_id:
            wrong.append("缺少 HONGYAN_WECOM_BOT_ID（智能机器人「API模式 → 长连接」的 BotID）")
        if not given.wecom_bot_secret:
            wrong.append("缺少 HONGYAN_WECOM_BOT_SECRET（同一页的 Secret）")
        if not given.wecom_bot_url.startswith(("wss://", "ws://127.0.0.1:")):
            wrong.append("HONGYAN_WECOM_BOT_URL 须以 wss:// 开头")
        return wrong

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        """None: the platform is heard over the connection."""
        return ()

    async def send(self, address: Address, part: Part, key: str) -> str:
        """Say a bubble: its text, its file, a card for its choices; the platform names no id."""
        if self.check():
            raise SendError("not_configured", permanent=True)
        await self._speaker.say(address, part, key)
        return ""

    async def close(self) -> None:
        """The connection belongs to `run`."""

    # - living -

    def may_speak(self) -> bool:
        """While we hold the connection."""
        return self._held is not None

    async def run(self, receive: Receive) -> None:
        """Hold the connection whenever the lease is ours; for ever."""
        if self.check():
            return
        lease = Lease(self._memory, f"{NAME}:{self._account}")
        try:
            while True:
                if await lease.take():
                    await self._while_ours(lease, receive)
                await self._sleep(RENEW)
        finally:
            await self._finish()
            await lease.give_back()

    async def _while_ours(self, lease: Lease, receive: Receive) -> None:
        """Talk until the lease is lost."""
        keeping = asyncio.create_task(self._keep(lease), name="wecom-bot-lease")
        talking = asyncio.create_task(self._talk(receive), name="wecom-bot")
        try:
            await asyncio.wait({keeping, talking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (keeping, talking):
                task.cancel()
            await asyncio.gather(keeping, talking, return_exceptions=True)
        if not talking.cancelled():
            talking.result()  # a bug: whoever runs us says so and begins anew

    async def _keep(self, lease: Lease) -> None:
        """Renew the lease; returns when somebody else may have it."""
        good_until = self._clock.now() + HOLD
        while self._clock.now() < good_until:
            await self._sleep(RENEW)
            try:
                ours = await lease.take()
            except SQLAlchemyError as error:
                log.warning("lease_not_renewed", channel=NAME, error=type(error).__name__)
                continue
            if not ours:
                log.warning("lease_lost", channel=NAME)
                return
            good_until = self._clock.now() + HOLD

    async def _talk(self, receive: Receive) -> None:
        """Connect and connect again, with ever longer waits while it does not go well."""
        failed = refused = 0
        while True:
            began = self._clock.now()
            end = await self._connection(receive)
            if self._clock.now() - began >= STEADY:
                failed = 0
            refused = refused + 1 if end is End.REFUSED else 0
            if end is End.REPLACED:
                await self._wait_for_a_person(
                    "另有一个程序用同一个机器人建立了长连接，本程序已让出"
                )
            elif refused >= REFUSALS:
                await self._wait_for_a_person("平台不接受 BotID 或 Secret，请核对设置后重启")
                refused = REFUSALS - 1
            else:
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2**failed) * (0.5 + self._chance())
                failed = min(failed + 1, 10)
                await self._sleep(wait)

    async def _wait_for_a_person(self, trouble: str) -> None:
        """Tell those on duty, leave the platform alone for long, then try once more."""
        log.error("connection_given_up", channel=NAME, trouble=trouble)
        with suppress(SQLAlchemyError):
            await asyncio.to_thread(self._call_for_help, trouble)
        await self._sleep(LONG_PAUSE)

    def _call_for_help(self, trouble: str) -> None:
        services = self._memory.services
        with services.database.transaction() as connection:
            call_for_help(services, connection, NAME, f"断开：{trouble}。")

    async def _connection(self, receive: Receive) -> End:
        """One connection from its beginning to its end."""
        heard: list[tuple[str, Mapping[str, Any]]] = []
        holding: Holding | None = None

        def hear(req_id: str, body: Mapping[str, Any]) -> None:
            # Callbacks may come in one breath with the ack of our subscription.
            if holding is None:
                heard.append((req_id, body))
            else:
                self._hear(holding, req_id, body, receive)

        try:
            async with wired(self._settings.wecom_bot_url, hear, self._sleep, self._ack) as wire:
                await self._subscribe(wire)
                holding = self._held = Holding(wire)
                log.info("connected", channel=NAME)
                for req_id, body in heard:
                    self._hear(holding, req_id, body, receive)
                try:
                    await asyncio.wait({wire.ended})
                finally:
                    self._held = None
        except NotConnected as error:
            log.warning("not_connected", channel=NAME, error=str(error))
        except SendError as error:
            log.warning("not_subscribed", channel=NAME, reason=error.reason, detail=error.detail)
            return End.REFUSED if error.permanent else End.LOST
        return End.REPLACED if holding is not None and holding.replaced else End.LOST

    async def _subscribe(self, wire: Wire) -> None:
        """Raises SendError, permanent where the platform does not want us."""
        secret = self._settings.wecom_bot_secret.get_secret_value()
        answer = await wire.ask("aibot_subscribe", {"bot_id": self._account, "secret": secret})
        code = answer.get("errcode")
        if code != 0:
            final = code not in _COME_AGAIN
            raise SendError("refused", permanent=final, detail=f"errcode {code}")

    async def ping(self) -> None:
        """Ask for a sign of life; by then all that was told before it has been heard."""
        await self._wire().ask("ping")

    async def settled(self) -> None:
        """Return when everything heard so far is taken."""
        while self._lines:
            await asyncio.wait(set(self._lines.values()))

    async def _finish(self) -> None:
        """Take what was heard; nobody will tell it again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVING):
                await self.settled()

    # - hearing -

    def _hear(
        self, holding: Holding, req_id: str, body: Mapping[str, Any], receive: Receive
    ) -> None:
        """Take a callback; one person's in their order."""
        event = read(body, self._account, self._clock.now())
        if isinstance(event, Replaced):
            holding.replaced = True
        elif isinstance(event, Told):
            self._speaker.opened(req_id, event)
            self._line_up(event.inbound, self._take(event.inbound, receive))
        elif isinstance(event, Pressed):
            self._line_up(event.told.inbound, self._press(holding, req_id, event, receive))

    def _line_up(self, inbound: Inbound, work: Awaitable[None]) -> None:
        line = str(inbound.sender)
        before = self._lines.get(line)

        async def behind() -> None:
            if before is not None:
                await asyncio.wait({before})
            await work

        task = asyncio.create_task(behind(), name="wecom-bot-heard")
        self._lines[line] = task
        task.add_done_callback(lambda done: self._left(line, done))

    def _left(self, line: str, task: asyncio.Task[None]) -> None:
        if self._lines.get(line) is task:
            del self._lines[line]
        if not task.cancelled() and task.exception() is not None:
            log.error("message_not_taken", channel=NAME, error=type(task.exception()).__name__)

    async def _take(self, inbound: Inbound, receive: Receive) -> None:
        """Hand a message over, again and again: the platform does not tell it twice."""
        wait = FIRST_WAIT
        for number in range(1, HEARINGS + 1):
            try:
                await receive(inbound, ACCEPT)
            except Exception as error:
                if number == HEARINGS:
                    raise
                log.warning("message_waits", channel=NAME, error=type(error).__name__)
            else:
                return
            await self._sleep(wait)
            wait = min(LONGEST_WAIT, wait * 2)

    async def _press(self, holding: Holding, req_id: str, event: Pressed, receive: Receive) -> None:
        words = ""
        try:
            press = await asyncio.to_thread(self._memory.press, event)
            if press.refused:
                words = REFUSED[press.refused]
            else:
                await receive(replace(event.told.inbound, text=press.value), PRESS)
        except TimeoutError:
            words = AGAIN
        except Exception as error:  # noqa: BLE001  # it could not be taken, and the person is told
            log.error("press_not_taken", channel=NAME, error=type(error).__name__)
            words = LOST
        card = pressed_card(event.task_id, event.key, words)
        try:
            await holding.wire.ask("aibot_respond_update_msg", card, req_id)
        except SendError as error:
            log.info("card_not_changed", channel=NAME, reason=error.reason)

    def _wire(self) -> Wire:
        if self._held is None:
            # No try of the message: nothing was tried.
            raise SendError("no_connection", retry_after=RENEW, only_here=True)
        return self._held.wire

    # - trying -

    async def probe(self) -> Sequence[Finding]:
        """Is the platform reached, and does it take our BotID and Secret?

        A second connection would end the one that a process of ours may hold: the secret is only
        tried with the lease in hand.
        """
        missing = self.check()
        if missing:
            return [Finding(False, WHAT, "；".join(missing))]
        if not self._memory.attached:
            return [await self._try(secret=False)]
        lease = Lease(self._memory, f"{NAME}:{self._account}")
        if not await lease.take():
            return [Finding(True, f"{WHAT}：正由运行中的 hongyan serve 保持")]
        try:
            return [await self._try(secret=True)]
        finally:
            await lease.give_back()

    async def _try(self, *, secret: bool) -> Finding:
        url = self._settings.wecom_bot_url
        try:
            async with wired(url, lambda _id, _body: None, self._sleep, self._ack) as wire:
                if secret:
                    await self._subscribe(wire)
        except NotConnected as error:
            return Finding(False, WHAT, f"连不上 {url}（{error}）：请检查网络、代理与证书")
        except SendError as error:
            advice = (
                f"平台不接受（{error.detail or error.reason}）：请到管理后台"
                "「智能机器人 → API模式」核对 BotID 与 Secret，并确认选的是长连接而不是 URL 回调"
            )
            return Finding(False, WHAT, advice)
        return Finding(True, WHAT if secret else f"{WHAT}：连得上（密钥到启动时才试）")
