"""The Telegram channel: updates in by polling or webhook, bubbles out one by one."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from telegram import Update

from bot.channels.base import Finding, Receive
from bot.channels.telegram.keeping import Keeping
from bot.channels.telegram.menus import menus
from bot.channels.telegram.pace import CHAT_GAP, Pace, Sleep
from bot.channels.telegram.probing import probe
from bot.channels.telegram.reading import CHANNEL, Event, Moved, Ourselves, Pressed, read
from bot.channels.telegram.sending import Sending
from bot.channels.telegram.wire import (
    POLL,
    BadRequest,
    ChatMigrated,
    Conflict,
    InvalidToken,
    TelegramError,
    Wire,
    as_send_error,
)
from bot.clock import Clock
from bot.context import ChannelFacts, Services
from bot.errors import SendError
from bot.messages import Address, File, Inbound, Media, Part
from bot.settings import Settings
from storage.db import away

# `chat_member` is left out unless it is asked for by name.
ALLOWED = ("message", "callback_query", "my_chat_member", "chat_member")
HOOK = "/callback/telegram"
MAX_BYTES = 1024 * 1024
ACCEPT_SECONDS = 20.0  # for the writer to take a message; the platform's own patience is longer
TEXT = 4096  # characters, the platform's limit
DOWNLOAD = 20_000_000  # bytes that the platform gives out
LONGEST_WAIT = 60.0
PATIENCE = 20.0
SPOILT_TRIES = 3
LEASE = timedelta(seconds=POLL + 20)  # outlives a poll and its answer
STANDBY = 5.0  # seconds between looks whether the poller has died

EXPIRED = "这个按钮已经失效，请直接打字回复，或回「菜单」。"
AGAIN = "已收到，正在办理。"

log = structlog.get_logger()


class _Unfinished(Exception):
    """Something of a batch could not be taken; it must not be confirmed yet."""


class Telegram:
    """One bot. `sleep` passes time, `patience` is how many seconds an answer may take, `keys` makes
    the short random names of buttons.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        sleep: Sleep = asyncio.sleep,
        patience: float = PATIENCE,
        keys: Callable[[], str] = lambda: secrets.token_urlsafe(9),
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._keys = keys
        self._policy = settings.telegram_policy
        self._secret = settings.telegram_secret.get_secret_value()
        token = settings.telegram_token.get_secret_value()
        self._us = Ourselves(token.partition(":")[0] or "0")
        proxy = settings.telegram_proxy or None
        self._wire = Wire(token or "0:none", settings.telegram_api_base, proxy, patience)
        self._holder = secrets.token_hex(8)
        self._kept: tuple[Services, Keeping, Pace, Sending] | None = None
        self._offset: int | None = None
        self._spoilt = 0
        self._trouble = ""

    @property
    def facts(self) -> ChannelFacts:
        """27 messages a second over both lanes, of the 30 that the platform allows."""
        return ChannelFacts(
            CHANNEL,
            text_chars=TEXT,
            live_gap_ms=60,
            bulk_gap_ms=100,
            label="Telegram",
            links=True,
            edits=True,
            policy=self._policy,
            anonymous=self._policy == "public_only",
        )

    def attach(self, services: Services) -> None:
        """Take the tables in which buttons, turns and the lease are kept."""
        keeping = Keeping(services, self._clock)
        pace = Pace(self._clock, self._sleep, keeping)
        public_url = self._settings.public_url
        sending = Sending(self._wire, pace, keeping, public_url, self._keys)
        self._kept = services, keeping, pace, sending

    @property
    def _attached(self) -> tuple[Services, Keeping, Pace, Sending]:
        assert self._kept is not None, "attach() comes first"
        return self._kept

    @property
    def _keeping(self) -> Keeping:
        return self._attached[1]

    def check(self) -> Sequence[str]:
        """What is missing or wrong in the settings."""
        if self._policy == "off":
            return ()
        given = self._settings
        wrong = []
        if not re.fullmatch(r"\d+:[\w-]{20,}", given.telegram_token.get_secret_value()):
            wrong.append("HONGYAN_TELEGRAM_TOKEN 未填，或不是 BotFather 给的「数字:字母」")
        if self._policy == "full" and not given.telegram_filing:
            wrong.append(
                "HONGYAN_TELEGRAM_POLICY=full 须先填 HONGYAN_TELEGRAM_FILING（评估或备案文号）"
            )
        if given.telegram_mode == "webhook":
            if not given.public_url.startswith("https://"):
                wrong.append("webhook 方式须填 HONGYAN_PUBLIC_URL，并以 https:// 开头")
            if not re.fullmatch(r"[A-Za-z0-9_-]{16,256}", self._secret):
                wrong.append("HONGYAN_TELEGRAM_SECRET 须为16到256个字母、数字、_ 或 -")
        return wrong

    async def close(self) -> None:
        """Give connections back."""
        await self._wire.hang_up()

    # - living -

    @property
    def works(self) -> bool:
        """Polling is for workers; a webhook is told of by whoever answers it."""
        return self._settings.telegram_mode == "polling"

    async def run(self, receive: Receive) -> None:
        """Poll for ever; with a webhook, return as soon as the platform knows it."""
        if self._policy == "off":
            log.info("telegram_off")
            return
        log.info("telegram_policy", policy=self._policy, mode=self._settings.telegram_mode)
        try:
            await self._live(receive)
        finally:
            with contextlib.suppress(SQLAlchemyError):
                await self._keeping.give_back(self._lease, self._holder)

    async def _live(self, receive: Receive) -> None:
        """Of several replicas one polls; the others know who they are, and wait to take over."""
        known = opened = False
        wait = 1.0
        while True:
            try:
                if not known:
                    await self._introduce()
                    known = True
                if self._settings.telegram_mode == "webhook":
                    return await self._open_webhook()
                if not await self._keeping.take_lease(self._lease, self._holder, LEASE):
                    opened = False
                    await self._stand_by()
                    continue
                if not opened:
                    await self._wire.delete_webhook()
                    await self._show_menus()
                    opened = True
                await self.poll(receive)
            except (TelegramError, SQLAlchemyError, _Unfinished) as error:
                # 409 is another system with our token: we wait until it stops, and do not fight.
                self._complain(error)
                await self._sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)
            else:
                self._trouble, wait = "", 1.0

    @property
    def _lease(self) -> str:
        return f"{CHANNEL}:{self._us.id}"

    async def _stand_by(self) -> None:
        if self._trouble != "standby":
            self._trouble = "standby"
            log.info("telegram_standby")
        # The other one has moved on from where we may have stopped.
        self._offset = None
        await self._sleep(STANDBY)

    def _complain(self, error: Exception) -> None:
        """Say in the log what is wrong, once while it stays the same; never the error's words."""
        trouble = type(error).__name__
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if isinstance(error, Conflict):
            log.warning("telegram_other_poller", hint="另有一个程序在用这个机器人收消息，等它停下")
        elif isinstance(error, InvalidToken):
            log.error("telegram_token_refused", hint="请核对 HONGYAN_TELEGRAM_TOKEN")
        elif isinstance(error, BadRequest):
            log.error("telegram_webhook_refused", hint="请核对 HONGYAN_PUBLIC_URL 的域名和端口")
        else:
            log.warning("telegram_unreachable", error=trouble)

    async def _introduce(self) -> None:
        """Learn our own name, and with it the address under which people find us."""
        me = await self._wire.get_me()
        self._us = Ourselves(str(me.id), me.username or "")
        if me.username:
            await self._keeping.keep_door(f"https://t.me/{me.username}")

    async def _open_webhook(self) -> None:
        await self._wire.set_webhook(
            self._webhook, secret_token=self._secret, allowed_updates=list(ALLOWED)
        )
        await self._show_menus()

    @property
    def _webhook(self) -> str:
        return self._settings.public_url.rstrip("/") + HOOK

    async def _show_menus(self) -> None:
        """The lists of commands behind the menu key; the bot works without them."""
        try:
            for scope, commands in menus(self._attached[0].catalog, self.facts.anonymous):
                await self._wire.set_my_commands(commands, scope=scope)
        except TelegramError as error:
            log.warning("telegram_menu_not_set", error=type(error).__name__)

    async def probe(self) -> Sequence[Finding]:
        """Token, privacy mode, webhook and policy, asked of the platform; takes no updates."""
        if self._policy == "off":
            return (Finding(True, "Telegram 已关闭（HONGYAN_TELEGRAM_POLICY=off）"),)
        return await probe(self._wire, self._settings, self._webhook, ALLOWED, self._clock.now())

    async def poll(self, receive: Receive, seconds: int = POLL) -> int:
        """Ask once for updates and take them; returns how many there were.

        They are confirmed by the next call, when all of them are taken: one that could not be is
        told again, and the inbox knows the others. Raises TelegramError, or when one is left.
        """
        batch = await self._wire.raw_updates(self._offset, ALLOWED, seconds)
        if not batch:
            # All is confirmed now. Update ids may begin anew, lower, after a silent week.
            self._offset = None
            return 0
        lines: dict[str, list[Event]] = {}
        for raw in batch:
            for event in self._read(raw):
                lines.setdefault(_line(event), []).append(event)
        taken = await asyncio.gather(
            *(self._take_line(line, receive) for line in lines.values()), return_exceptions=True
        )
        self._judge([error for error in taken if error is not None])
        self._offset = max(int(raw["update_id"]) for raw in batch) + 1
        return len(batch)

    def _judge(self, errors: Sequence[BaseException]) -> None:
        """Go on, or have the batch told again: for ever while the database is away, and a few
        times when one message cannot be taken at all."""
        for error in errors:
            if not isinstance(error, Exception):
                raise error
        if not errors:
            self._spoilt = 0
            return
        self._spoilt += 1
        unreachable = any(away(error) or isinstance(error, TimeoutError) for error in errors)
        if unreachable or self._spoilt < SPOILT_TRIES:
            raise _Unfinished
        log.error("telegram_update_given_up", count=len(errors))
        self._spoilt = 0

    async def _take_line(self, events: Sequence[Event], receive: Receive) -> None:
        """One speaker's events in order."""
        for event in events:
            await self._take(event, receive)

    def _read(self, raw: Mapping[str, Any]) -> tuple[Event, ...]:
        try:
            update = Update.de_json(dict(raw), self._wire)
            return read(update, self._us, self._clock.now())
        except Exception as error:  # noqa: BLE001  # one bad update must not stop those behind it
            log.warning("telegram_unreadable_update", error=type(error).__name__)
            return ()

    async def _take(self, event: Event, receive: Receive) -> None:
        if isinstance(event, Moved):
            await self._keeping.move(event.old, event.new)
        elif isinstance(event, Pressed):
            await self._take_press(event, receive)
        else:
            await receive(event, ACCEPT_SECONDS)

    async def _take_press(self, event: Pressed, receive: Receive) -> None:
        press = await self._keeping.press(event.inbound.sender, event.key, event.query)
        words = {"expired": EXPIRED, "again": AGAIN}.get(press.refused)
        answering = asyncio.create_task(self._answer_query(event.query, words))
        try:
            if not press.refused:
                await receive(replace(event.inbound, text=press.value), ACCEPT_SECONDS)
        finally:
            await answering

    async def _answer_query(self, query: str, words: str | None) -> None:
        """Stop the button's spinner; a query that is too old has stopped by itself."""
        try:
            await self._wire.answer_callback_query(query, words)
        except TelegramError as error:
            log.info("telegram_press_unanswered", error=type(error).__name__)

    # - webhook -

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        """The webhook; in polling mode there is none."""
        if self._policy == "off" or self._settings.telegram_mode != "webhook":
            return ()

        async def hook(request: Request) -> PlainTextResponse:
            return await self._hook(request, receive)

        return (Route(HOOK, hook, methods=["POST"]),)

    async def _hook(self, request: Request, receive: Receive) -> PlainTextResponse:
        given = request.headers.get("X-Telegram-Bot-Api-Secret-Token", "")
        if not self._secret or not hmac.compare_digest(given.encode(), self._secret.encode()):
            return PlainTextResponse("forbidden", 403)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                return PlainTextResponse("too large", 413)
        try:
            raw = json.loads(body)
        except (ValueError, RecursionError):
            return PlainTextResponse("not JSON", 400)
        if not isinstance(raw, dict):
            return PlainTextResponse("not an update", 400)
        try:
            await self._take_line(self._read(raw), receive)
        except Exception as error:  # noqa: BLE001  # the platform brings it again
            log.warning("telegram_update_not_taken", error=type(error).__name__)
            return PlainTextResponse("later", 503)
        return PlainTextResponse("ok")

    # - sending -

    async def send(self, address: Address, part: Part, key: str) -> str:
        """Send one bubble. The Bot API has no idempotency key, so `key` goes unused."""
        return await self._send(address, part, in_turn=False)

    def take_turns(
        self, connection: Connection, addresses: Sequence[Address]
    ) -> frozenset[Address]:
        """Those whose private chat is free now; groups count by the minute and wait in `send`."""
        _services, keeping, pace, _sending = self._attached
        here = {one.user: one for one in addresses if pace.is_free(one.user)}
        taken = keeping.take_turns(connection, list(here), CHAT_GAP)
        return frozenset(here[chat] for chat in taken)

    async def send_in_turn(self, address: Address, part: Part, key: str) -> str:
        """See `bot.channels.base.Paced`."""
        return await self._send(address, part, in_turn=True)

    async def _send(self, address: Address, part: Part, *, in_turn: bool) -> str:
        if self._policy == "off":
            raise SendError("policy", permanent=True)
        _services, keeping, _pace, sending = self._attached
        try:
            try:
                return await sending.send(address, part, in_turn=in_turn)
            except ChatMigrated as moved:
                new = self._us.address(moved.new_chat_id)
                await keeping.move(address, new)
                return await sending.send(new, part)
        except TelegramError as error:
            # Not chained: the transport's errors hold the request, and so the token.
            raise await self._refusal(address, error) from None

    async def _refusal(self, address: Address, error: TelegramError) -> SendError:
        refused = as_send_error(error)
        if refused.retry_after is not None:
            # The platform does not say whether one chat or the whole bot is meant; when it
            # refuses a second chat too, it is the bot.
            chat = address.user.partition("/")[0]
            pace = self._attached[2]
            refused.only_here = not await pace.flooded(chat, refused.retry_after)
        return refused

    async def fetch(self, media: Media, longest: int = DOWNLOAD) -> File:
        """Bring a file that somebody sent, for a step that asked for one; raises SendError."""
        longest = min(longest, DOWNLOAD)
        if media.size > longest:
            raise SendError("too_large", permanent=True)
        try:
            found = await self._wire.get_file(media.id)
            if (found.file_size or 0) > longest:
                raise SendError("too_large", permanent=True)
            content = bytes(await found.download_as_bytearray())
        except TelegramError as error:
            raise as_send_error(error) from None
        if len(content) > longest:
            raise SendError("too_large", permanent=True)
        return File(media.name, media.mime, content)


def _line(event: Event) -> str:
    """Whose events must stay in order."""
    if isinstance(event, Moved):
        return str(event.old)
    inbound: Inbound = event.inbound if isinstance(event, Pressed) else event
    return str(inbound.sender)


def build(settings: Settings, clock: Clock) -> Telegram:
    """The channel as HONGYAN_CHANNELS names it."""
    return Telegram(settings, clock)
