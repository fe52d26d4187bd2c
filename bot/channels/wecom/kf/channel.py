"""The channel that the rest of the bot sees: what came in is fetched, not brought."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import structlog
from sqlalchemy import Connection, update
from sqlmodel import col
from starlette.routing import BaseRoute

from bot.channels.base import Channel, Finding, Receive
from bot.channels.callback import Patience
from bot.channels.calls import TIMEOUT, Caller
from bot.channels.envelope import Fields, word
from bot.channels.wecom.api import WeComApi, code_of
from bot.channels.wecom.door import door, missing
from bot.channels.wecom.kf.reading import (
    FAILURES,
    NAME,
    SHUT,
    STATES,
    Entered,
    Happened,
    NotDelivered,
    NowLed,
    Shuts,
    TakenBack,
    address_of,
    event,
    happened,
    read,
)
from bot.channels.wecom.kf.wire import NOT_OURS_TO_LEAD, KfWire, words
from bot.channels.wecom.probing import allowed
from bot.clock import Clock
from bot.context import ChannelFacts, Services
from bot.errors import SendError
from bot.messages import Address, File, Happening, Inbound, Part
from bot.settings import Settings
from storage import conversations, gate, leases
from storage.conversations import Led, Letter, Standing
from storage.cursors import read_cursor
from storage.db import Database
from storage.hotpath import HotPath
from storage.people import Contact
from storage.states import State

EVENT = "kf_msg_or_event"
WINDOW = (timedelta(hours=48), 5)
NOTHING = (timedelta(0), 0)
GREETING = timedelta(seconds=20)
POLL = 60.0  # seconds between two readings when no callback tells us to
LEASE = timedelta(minutes=3)
TRY_AGAIN = 5.0  # seconds after something went wrong
PATIENCE = 30.0  # seconds for one message to be answered
BATCHES = 100  # in one go; there may be more although one was empty
BACKLOG = timedelta(minutes=10)
"""A first reading brings three days; nobody wants an answer to all of that."""
LOOK_AGAIN = timedelta(minutes=10)
"""How long we believe what we heard of a conversation that a person leads: events get lost."""
NOBODY_CAME = timedelta(hours=12)
"""After so long in the queue a conversation is the bot's again."""

FACTS = ChannelFacts(
    NAME,
    text_bytes=2048,
    windowed=True,
    windows={
        "any": WINDOW,
        Happening.FOLLOW: (GREETING, 1),
        Happening.RECALLED: NOTHING,
        Happening.UNBLOCKED: NOTHING,
    },
    label="微信客服",
    known_for=WINDOW[0],
)

log = structlog.get_logger()


class KfChannel:
    """Everything is taken over into a table with the cursor, and answered from there."""

    events = frozenset({EVENT})

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        patience: Patience | None = None,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._patience = patience or Patience()
        self._caller = Caller(settings.wecom_api_base, timeout=timeout)
        self._wire = KfWire(
            WeComApi(self._caller, settings.wecom_corp_id, settings.wecom_secret, clock)
        )
        self._services: Services | None = None
        self._others: Sequence[Channel] = ()
        self._holder = f"k{secrets.token_hex(6)}"
        self._told: dict[str, str] = {}
        self._standings: dict[str, Standing] = {}
        self._awake = asyncio.Event()
        self._idle = asyncio.Event()

    @property
    def facts(self) -> ChannelFacts:
        return FACTS

    def attach(self, services: Services) -> None:
        self._services = services

    def meet(self, others: Sequence[Channel]) -> None:
        self._others = others

    @property
    def _database(self) -> Database:
        assert self._services is not None, "attached before anything else"
        return self._services.database

    # - being told -

    def routes(self, receive: Receive) -> Sequence[BaseRoute]:
        """The app's callback, unless another channel of the app has it."""
        if self.check():
            return ()
        return door(self, self._others, self._settings, self._clock, receive, self._patience)

    def hear(self, fields: Fields, now: datetime) -> None:
        """Something is to be fetched; nothing is lost if this process dies before it is."""
        account = word(fields, "OpenKfId")
        if not account:
            return
        self._told[account] = word(fields, "Token")
        self._idle.clear()
        self._awake.set()

    async def settled(self) -> None:
        """Return when all that we were told of has been fetched and answered."""
        await self._idle.wait()

    async def run(self, receive: Receive) -> None:
        """Fetch and answer whenever we are told to, and now and then without being told."""
        if self.check():
            return
        while True:
            try:
                await self.round(receive)
                pause = POLL
            except SendError as error:
                pause = error.retry_after or TRY_AGAIN
                log.warning("not_fetched", channel=NAME, reason=error.reason)
            if not self._told:
                self._idle.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._awake.wait()
            self._awake.clear()

    async def round(self, receive: Receive) -> None:
        """Fetch what is new of each account and answer it; raises SendError."""
        told, self._told = self._told, {}
        try:
            for account, token in sorted(told.items()):
                await self.fetch(account, token)
        except SendError:
            self._told = told | self._told
            raise
        if not told and await asyncio.to_thread(self._looks):
            for account in await self._wire.accounts():
                await self.fetch(account)
        await self.answer(receive)

    def _looks(self) -> bool:
        """Looking without being told is limited by the platform: one process does it for all."""
        with self._database.transaction() as connection:
            return leases.take(connection, NAME, self._holder, LEASE)

    # - taking over -

    async def fetch(self, account: str, token: str = "") -> None:
        """Take over what has come, batch by batch, each with its cursor; raises SendError."""
        for _ in range(BATCHES):
            start = await asyncio.to_thread(self._cursor, account)
            batch = await self._wire.read_on(account, start, token)
            await asyncio.to_thread(self._take, account, start, batch.cursor, batch.messages)
            if not batch.more:
                return

    def _cursor(self, account: str) -> str:
        with self._database.reading() as session:
            return read_cursor(session.connection(), f"{NAME}:{account}")

    def _take(
        self, account: str, start: str, end: str, messages: Sequence[Mapping[str, Any]]
    ) -> None:
        now = self._clock.now()
        oldest = now - BACKLOG if not start else datetime.min.replace(tzinfo=UTC)
        letters = [
            Letter(_key(message), str(address_of(message)), json.dumps(message, ensure_ascii=False))
            for message in messages
            if _concerns_us(message, now) and _sent_at(message) >= oldest
        ]
        with self._database.transaction() as connection:
            cursor = (f"{NAME}:{account}", start, end)
            if not conversations.take_over(connection, NAME, cursor, letters, now):
                return
            for message in messages:
                taken_back = happened(message)
                if isinstance(taken_back, TakenBack):
                    conversations.recall(
                        connection, f"{NAME}:{address_of(message).account}:{taken_back.msgid}"
                    )

    # - answering -

    async def answer(self, receive: Receive) -> None:
        """Answer what was taken over: each member's in order, of several members at once."""
        while rows := await asyncio.to_thread(self._waiting):
            mine: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
            for id, message in rows:
                mine.setdefault(str(address_of(message)), []).append((id, message))
            await asyncio.to_thread(self._know, list(mine))
            done = await asyncio.gather(*(self._in_order(receive, of) for of in mine.values()))
            ids = [id for some in done for id in some]
            await asyncio.to_thread(self._done, ids)
            if len(ids) < len(rows):
                raise SendError("not_taken", retry_after=TRY_AGAIN)

    def _waiting(self) -> list[tuple[int, Mapping[str, Any]]]:
        with self._database.reading() as session:
            rows = conversations.waiting(session.connection(), NAME)
        return [(id, json.loads(body)) for id, _key, body in rows]

    def _done(self, ids: Sequence[int]) -> None:
        with self._database.transaction() as connection:
            conversations.answered(connection, ids)

    async def _in_order(
        self, receive: Receive, messages: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> list[int]:
        """Ids of those that are done with; it ends at the first that cannot be taken."""
        done: list[int] = []
        for id, message in messages:
            try:
                await self._one(receive, message)
            except Exception as error:  # noqa: BLE001  # kept, and tried again in a while
                log.error("message_not_taken", channel=NAME, error=type(error).__name__)
                break
            done.append(id)
        return done

    async def _one(self, receive: Receive, message: Mapping[str, Any]) -> None:
        what = happened(message)
        inbound: Inbound | None
        if what is not None:
            inbound = await asyncio.to_thread(self._happened, message, what)
        else:
            # Its window began when it was said, however late it is fetched.
            said = _sent_at(message) if message.get("send_time") else self._clock.now()
            inbound = read(message, said)
            if inbound is not None and await self._left_to_a_person(inbound):
                return
        if inbound is not None:
            await receive(inbound, PATIENCE)

    def _happened(self, message: Mapping[str, Any], what: Happened) -> Inbound | None:
        """Write down what an event tells; what of it the rest of the bot should hear."""
        now = self._clock.now()
        address = str(address_of(message))
        with self._database.transaction() as connection:
            match what:
                case NotDelivered():
                    self._failed(connection, address, what)
                case NowLed():
                    conversations.lead(connection, address, what.by, now)
                    self._standings[address] = Standing(what.by, now)
                case TakenBack():
                    return event(message, Happening.RECALLED, what.msgid, now)
                case Shuts():
                    happening = Happening.BLOCKED if what.out else Happening.UNBLOCKED
                    return event(message, happening, "", now)
                case Entered():
                    until = _sent_at(message) + GREETING
                    heard = HotPath(connection).seen([_key(message)])
                    if what.code and until > now and not heard:
                        conversations.open_pass(connection, address, what.code, until, now)
                        return event(message, Happening.FOLLOW, what.scene, now)
        return None

    def _failed(self, connection: Connection, address: str, what: NotDelivered) -> None:
        reason = FAILURES.get(what.why, f"平台未送达（{what.why}）")
        gate.report(connection, NAME, what.msgid, State.FAILED, reason)
        if what.why in SHUT:
            connection.execute(
                update(Contact).where(col(Contact.address) == address).values(window_left=0)
            )

    # - whose conversation it is -

    async def _left_to_a_person(self, inbound: Inbound) -> bool:
        """Is it for one of the staff? Then it opens our window, and nobody here reads it."""
        address = inbound.sender
        led = await self._led(address)
        if led is Led.BOT:
            return False
        if led is Led.ENDED:
            await self._note(address, Led.BOT)
            return False
        await asyncio.to_thread(self._opens, str(address))
        return True

    async def _led(self, address: Address) -> Led:
        """Who leads it; asked of the platform where what we know may be old."""
        known = self._standings.get(str(address), Standing())
        if known.led in (Led.BOT, Led.ENDED) or known.since is None:
            return known.led
        age = self._clock.now() - known.since
        if known.led is Led.QUEUE and age > NOBODY_CAME:
            with contextlib.suppress(SendError):
                await self._end(address)
                return Led.ENDED
        if age > LOOK_AGAIN:
            with contextlib.suppress(SendError):
                led = STATES.get(await self._wire.state(address), known.led)
                if led is not known.led:
                    await self._note(address, led)
                return led
        return known.led

    async def _end(self, address: Address) -> None:
        """End a queue that nobody came to; its last code lets out what is answered now."""
        code = await self._wire.end(address)
        now = self._clock.now()

        def write() -> None:
            with self._database.transaction() as connection:
                conversations.open_pass(connection, str(address), code, now + GREETING, now)

        await asyncio.to_thread(write)

    def _know(self, addresses: Sequence[str]) -> None:
        """Look up whose conversations these are, for as long as they are being answered."""
        with self._database.reading() as session:
            self._standings = conversations.standings(session.connection(), addresses)

    async def _note(self, address: Address, led: Led) -> None:
        now = self._clock.now()

        def write() -> None:
            with self._database.transaction() as connection:
                conversations.lead(connection, str(address), led, now)

        await asyncio.to_thread(write)
        self._standings[str(address)] = Standing(led, now)

    def _opens(self, address: str) -> None:
        now = self._clock.now()
        with self._database.transaction() as connection:
            hot = HotPath(connection)
            span, left = WINDOW
            contacts = hot.contacts([address])
            hot.open_windows([(id, now + span, left) for id, _ in contacts.values()], now)

    # - sending -

    async def send(self, address: Address, part: Part, key: str) -> str:
        """One text, menu or file. Its id is made of the key: sent twice, it arrives once."""
        if self.check():
            raise SendError("not_configured", permanent=True)
        first = key.rpartition("-")[2] in ("", "0")
        led, code = await asyncio.to_thread(self._before, str(address), first)
        if led in (Led.QUEUE, Led.PERSON):
            raise SendError("window", detail="a person leads the conversation")
        content = words(part)
        msgid = self._msgid(address, part, key)
        if part.file is not None:
            content = {"msgtype": "file", "file": {"media_id": await self._upload(part.file)}}
        elif code and await self._greeted(code, content, msgid):
            return msgid
        try:
            await self._wire.send(address, content, msgid)
        except SendError as error:
            if code_of(error) == NOT_OURS_TO_LEAD:
                await self._note(address, Led.PERSON)
            raise
        if part.hands_over:
            await self._hand_over(address)
        return msgid

    def _before(self, address: str, first: bool) -> tuple[Led, str]:
        """Who leads, and the code to greet with; raises SendError when the window is used up.

        The gate has counted a row's first bubble, the platform counts each.
        """
        with self._database.reading() as session:
            found = conversations.standings(session.connection(), [address])
        known = found.get(address, Standing())
        if first and not known.may_greet:
            return known.led, ""
        with self._database.transaction() as connection:
            if not first and not self._spend(connection, address):
                raise SendError("window", detail="all that may be said has been said")
            return known.led, conversations.use_pass(connection, address, self._clock.now())

    def _spend(self, connection: Connection, address: str) -> bool:
        statement = update(Contact).where(
            col(Contact.address) == address, col(Contact.window_left) > 0
        )
        left = statement.values(window_left=col(Contact.window_left) - 1)
        return bool(connection.execute(left).rowcount)

    async def _upload(self, file: File) -> str:
        try:
            return await self._wire.api.upload(file)
        except SendError as error:
            if error.unknown:  # a file that nobody was sent
                raise SendError("no_answer", detail=error.detail) from None
            raise

    async def _greeted(self, code: str, content: Mapping[str, Any], msgid: str) -> bool:
        """Did it leave by the code? One that was used or came late leaves the ordinary way."""
        try:
            await self._wire.greet(code, content, msgid)
        except SendError as error:
            if error.unknown or error.stop_channel:
                raise
            return False
        return True

    async def _hand_over(self, address: Address) -> None:
        """Give the conversation to the staff; while nobody can take it, it stays the bot's."""
        try:
            led = await self._wire.hand_over(address, self._settings.wecom_kf_servicer)
        except SendError as error:
            log.warning("not_handed_over", channel=NAME, detail=error.detail or error.reason)
            return
        await self._note(address, led)

    def _msgid(self, address: Address, part: Part, key: str) -> str:
        """At most 32 letters and digits, of this installation only: another one counts from 1."""
        return self._database.keys.digest(f"{address}:{key}:{part.text}")[:32]

    async def close(self) -> None:
        await self._caller.close()

    # - checking -

    def check(self) -> Sequence[str]:
        """What is missing in the settings."""
        return missing(self._settings)

    async def probe(self) -> Sequence[Finding]:
        """Token, accounts, and whether anybody would take a conversation."""
        accounts, trouble = await allowed(self.check(), "微信客服", "微信客服", self._wire.accounts)
        if trouble is not None:
            return [trouble]
        if not accounts:
            advice = "请在「微信客服→客服账号」新建账号，并在「API」里交给本应用管理"
            return [Finding(False, "客服账号", advice)]
        found = [Finding(True, f"客服账号{len(accounts)}个")]
        for number, account in enumerate(accounts, 1):
            try:
                count = await self._wire.servicers(account)
            except SendError as error:
                found.append(Finding(False, f"第{number}个账号的接待人员", error.detail))
                continue
            advice = "" if count else "没有人在接待，转人工会失败；请在客服账号里添加接待人员"
            found.append(Finding(bool(count), f"第{number}个账号接待人员{count}人", advice))
        return found


def _concerns_us(message: Mapping[str, Any], now: datetime) -> bool:
    return happened(message) is not None or read(message, now) is not None


def _key(message: Mapping[str, Any]) -> str:
    return f"{NAME}:{address_of(message).account}:{message.get('msgid', '')}"


def _sent_at(message: Mapping[str, Any]) -> datetime:
    moment = message.get("send_time")
    return datetime.fromtimestamp(moment if isinstance(moment, int) else 0, UTC)
