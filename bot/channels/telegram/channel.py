"""The Telegram channel: updates in by polling or webhook, bubbles out one by one."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.exc import OperationalError
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from telegram import (
    BotCommand,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    Update,
)

from bot.channels.base import Receive
from bot.channels.telegram.pace import Pace, Sleep
from bot.channels.telegram.reading import CHANNEL, Event, Moved, Ourselves, Pressed, read
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
from bot.messages import Address, Choice, Inbound, Part
from bot.settings import Settings
from storage import bubbles, groups

# `chat_member` is left out unless it is asked for by name.
ALLOWED = ("message", "callback_query", "my_chat_member", "chat_member")
HOOK = "/callback/telegram"
MAX_BYTES = 1024 * 1024
ACCEPT_SECONDS = 20.0  # for the writer to take a message; the platform's own patience is longer
TEXT, CAPTION, COMMANDS = 4096, 1024, 100  # the platform's limits
LABEL = 60  # characters of a label; longer ones are cut on every phone
ROW, ROW_WIDTH, BUTTONS = 8, 26, 100  # eight a row and a hundred are the platform's limits
BUTTON_LIFE = timedelta(days=30)
BUBBLE_LIFE = timedelta(days=90)
TIDY = timedelta(hours=1)
LONGEST_WAIT = 60.0
PATIENCE = 20.0
SPOILT_TRIES = 3

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
        self._pace = Pace(clock, sleep)
        self._services: Services | None = None
        self._offset: int | None = None
        self._spoilt = 0
        self._trouble = ""
        self._tidied = clock.now() - TIDY

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
            policy=self._policy,
            anonymous=self._policy == "public_only",
        )

    def attach(self, services: Services) -> None:
        """Take the tables in which buttons are kept."""
        self._services = services

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

    async def run(self, receive: Receive) -> None:
        """Poll for ever; with a webhook, return as soon as the platform knows it."""
        if self._policy == "off":
            log.info("telegram_off")
            return
        log.info("telegram_policy", policy=self._policy, mode=self._settings.telegram_mode)
        prepared, wait = False, 1.0
        while True:
            try:
                if not prepared:
                    await self._prepare()
                    prepared = True
                    if self._settings.telegram_mode == "webhook":
                        return
                await self.poll(receive)
            except (TelegramError, _Unfinished) as error:
                # 409 is another poller, or a webhook that somebody set: ours again when it is gone.
                prepared = prepared and not isinstance(error, Conflict)
                self._complain(error)
                await self._sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)
            else:
                self._trouble, wait = "", 1.0

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
        else:
            log.warning("telegram_unreachable", error=trouble)

    async def _prepare(self) -> None:
        me = await self._wire.get_me()
        self._us = Ourselves(str(me.id), me.username or "")
        if self._settings.telegram_mode == "polling":
            await self._wire.delete_webhook()
        elif self._settings.public_url:
            await self._wire.set_webhook(
                self._settings.public_url.rstrip("/") + HOOK,
                secret_token=self._secret,
                allowed_updates=list(ALLOWED),
            )
        try:
            await self._wire.set_my_commands(self._menu())
        except TelegramError as error:
            log.warning("telegram_menu_not_set", error=type(error).__name__)

    def _menu(self) -> list[BotCommand]:
        """The commands anybody may say that have a Latin alias."""
        words = self._attached.catalog.words.items()
        return [
            BotCommand(word[1:], command.help[:256])
            for word, command in words
            if re.fullmatch(r"/[a-z0-9_]{1,32}", word) and command.help and not command.roles
        ][:COMMANDS]

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
        away = any(isinstance(error, OperationalError | TimeoutError) for error in errors)
        if away or self._spoilt < SPOILT_TRIES:
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
            await asyncio.to_thread(self._move, event.old, event.new)
        elif isinstance(event, Pressed):
            await self._take_press(event, receive)
        else:
            await receive(event, ACCEPT_SECONDS)

    async def _take_press(self, event: Pressed, receive: Receive) -> None:
        press = await asyncio.to_thread(self._press, event)
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
        if self._policy == "off":
            raise SendError("policy", permanent=True)
        try:
            try:
                return await self._send(address, part)
            except ChatMigrated as moved:
                new = self._us.address(moved.new_chat_id)
                await asyncio.to_thread(self._move, address, new)
                return await self._send(new, part)
        except TelegramError as error:
            # Not chained: the transport's errors hold the request, and so the token.
            raise self._refusal(address.user, error) from None

    def _refusal(self, chat: str, error: TelegramError) -> SendError:
        refused = as_send_error(error)
        if refused.retry_after is not None:
            # The platform does not say whether one chat or the whole bot is meant; when it
            # refuses a second chat too, it is the bot.
            refused.only_here = not self._pace.flooded(chat, refused.retry_after)
        return refused

    async def _send(self, address: Address, part: Part) -> str:
        chat = int(address.user)
        keyboard = await asyncio.to_thread(self._keyboard, address, part)
        if part.file is not None and len(part.text) > CAPTION:
            await self._send(address, replace(part, file=None, choices=(), link=None))
            part = replace(part, text="")
        async with self._pace.turn(address.user):
            if part.file is not None:
                sent = await self._wire.send_document(
                    chat,
                    part.file.content,
                    filename=part.file.name,
                    caption=part.text or None,
                    reply_markup=keyboard,
                )
                return str(sent.message_id)
            if part.replaces is not None:
                return await self._renew(address, part, part.replaces, keyboard)
            return await self._say(chat, part.text, keyboard)

    async def _say(self, chat: int, text: str, keyboard: InlineKeyboardMarkup | None) -> str:
        """A message without markup: nothing in it needs escaping and no slip in it can lose it."""
        sent = await self._wire.send_message(
            chat,
            text,
            reply_markup=keyboard,
            # A preview would have the platform open pages that are meant for one person.
            link_preview_options=LinkPreviewOptions(is_disabled=True),
        )
        return str(sent.message_id)

    async def _renew(
        self, address: Address, part: Part, topic: str, keyboard: InlineKeyboardMarkup | None
    ) -> str:
        """Bring the bubble of a topic up to date, or send a first one."""
        known = await asyncio.to_thread(self._bubble, address, topic)
        if known is not None:
            try:
                await self._wire.edit_message_text(
                    part.text, int(address.user), int(known), reply_markup=keyboard
                )
            except BadRequest as error:
                if "not modified" in error.message:
                    return known
                if "not found" not in error.message and "can't be edited" not in error.message:
                    raise
            else:
                return known
        message = await self._say(int(address.user), part.text, keyboard)
        await asyncio.to_thread(self._keep_bubble, address, topic, message)
        return message

    # - tables; called in threads -

    @property
    def _attached(self) -> Services:
        assert self._services is not None, "attach() comes first"
        return self._services

    def _owner(self, address: Address) -> str:
        return self._attached.keys.digest(str(address))

    def _keyboard(self, address: Address, part: Part) -> InlineKeyboardMarkup | None:
        """Buttons for a private chat; what a group shows anybody could press."""
        if address.user.startswith("-"):
            return None
        rows: list[list[InlineKeyboardButton]] = []
        named = [(self._keys(), choice) for choice in part.choices[:BUTTONS]]
        for row in _rows(named):
            rows.append([InlineKeyboardButton(_label(c), callback_data=key) for key, c in row])
        if part.link is not None:
            url = self._settings.public_url + part.link.path
            rows.append([InlineKeyboardButton(part.link.label[:LABEL], url=url)])
        if named:
            now = self._clock.now()
            values = [(key, choice.value) for key, choice in named]
            with self._attached.database.transaction() as connection:
                if now - self._tidied >= TIDY:
                    self._tidied = now
                    bubbles.forget_bubbles(connection, now, now - BUBBLE_LIFE)
                bubbles.keep_buttons(connection, self._owner(address), values, now + BUTTON_LIFE)
        return InlineKeyboardMarkup(rows) if rows else None

    def _press(self, event: Pressed) -> bubbles.Press:
        now, owner = self._clock.now(), self._owner(event.inbound.sender)
        with self._attached.database.transaction() as connection:
            return bubbles.press_button(connection, event.key, owner, event.query, now)

    def _bubble(self, address: Address, topic: str) -> str | None:
        with self._attached.database.reading() as session:
            return bubbles.bubble_of(session.connection(), self._owner(address), topic)

    def _keep_bubble(self, address: Address, topic: str, message: str) -> None:
        now = self._clock.now()
        with self._attached.database.transaction() as connection:
            bubbles.keep_bubble(connection, self._owner(address), topic, message, now)

    def _move(self, old: Address, new: Address) -> None:
        with self._attached.database.transaction() as connection:
            groups.move_group(connection, str(old), str(new))


def _line(event: Event) -> str:
    """Whose events must stay in order."""
    if isinstance(event, Moved):
        return str(event.old)
    inbound: Inbound = event.inbound if isinstance(event, Pressed) else event
    return str(inbound.sender)


def _label(choice: Choice) -> str:
    return choice.label[:LABEL] or choice.value[:LABEL] or "·"


def _rows(named: Sequence[tuple[str, Choice]]) -> list[list[tuple[str, Choice]]]:
    """Buttons in rows that a phone shows without cutting labels."""
    rows: list[list[tuple[str, Choice]]] = []
    room = 0
    for key, choice in named:
        width = 2 + sum(1 if char.isascii() else 2 for char in choice.label)
        if not rows or len(rows[-1]) == ROW or width > room:
            rows.append([])
            room = ROW_WIDTH
        rows[-1].append((key, choice))
        room -= width
    return rows


def build(settings: Settings, clock: Clock) -> Telegram:
    """The channel as HONGYAN_CHANNELS names it."""
    return Telegram(settings, clock)
