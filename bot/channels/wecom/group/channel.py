"""The channel that the rest of the bot sees: it asks staff to send, and knows who is in a group."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import structlog
from sqlalchemy import exists
from sqlmodel import col
from starlette.routing import BaseRoute

from bot.channels.base import Awaiting, Channel, Finding, Receive
from bot.channels.callback import Patience
from bot.channels.calls import TIMEOUT, Caller
from bot.channels.envelope import Fields
from bot.channels.wecom.api import WeComApi
from bot.channels.wecom.door import door, missing
from bot.channels.wecom.group.reading import (
    FRIENDS,
    GROUPS,
    NAME,
    Befriended,
    Dismissed,
    read,
)
from bot.channels.wecom.group.tasks import LOOK, TaskKeeper
from bot.channels.wecom.group.wire import GroupWire
from bot.channels.wecom.probing import allowed
from bot.clock import Clock
from bot.context import ChannelFacts, Context, Services
from bot.errors import SendError
from bot.ladder import Asked, Rung
from bot.messages import Address, Happening, Inbound, Kind, Part, aside
from bot.settings import Settings
from storage import customer_groups as groups
from storage import leases
from storage.cursors import move_cursor, read_cursor
from storage.customer_groups import NEWCOMERS, CustomerGroup, GroupMember, StaffTask
from storage.db import Database

POLL = 5.0  # seconds between two looks at what is due
EVERY = timedelta(hours=6)  # between two looks at all groups: an event may never have arrived
LEASE = timedelta(seconds=60)
GREETING = timedelta(seconds=20)
PAUSE = 1.0  # seconds until a greeting is tried again

FRIENDS_DOOR = "friends"
"""In whose name a new friend of the staff is announced; nobody is reached there."""


@dataclass(frozen=True)
class InGroups:
    """The way of a task for our staff: they send something to a group, and this person reads it."""

    rung: Rung = Rung.STAFF

    def reaches(self, who: Any, _asked: Asked) -> Any:
        """Who is known to be in one of our groups now."""
        return exists().where(
            col(GroupMember.person_id) == who.c.person_id,
            col(GroupMember.left_at).is_(None),
            col(GroupMember.group_id) == col(CustomerGroup.id),
            col(CustomerGroup.dismissed_at).is_(None),
        )


# Words for a new friend are given back at once, so that they can leave while the code lives.
FACTS = ChannelFacts(
    NAME,
    inline=1,
    text_bytes=4000,
    buttons=False,
    label="企业微信客户群",
    anonymous=True,
    one_way=True,
    ways=(InGroups(),),
)

log = structlog.get_logger()


class GroupChannel:
    """Nobody is heard here. A send is a task for one of the staff, and waits for their tap."""

    events = frozenset({GROUPS, FRIENDS})

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
        api = WeComApi(self._caller, settings.wecom_corp_id, settings.wecom_secret, clock)
        self._wire = GroupWire(api, settings.wecom_group_link)
        self._holder = f"g{secrets.token_hex(6)}"
        self._services: Services | None = None
        self._others: Sequence[Channel] = ()
        self._receive: Receive | None = None
        self._greetings: set[asyncio.Task[None]] = set()

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
        self._receive = receive
        if self.check():
            return ()
        return door(self, self._others, self._settings, self._clock, receive, self._patience)

    def hear(self, fields: Fields, now: datetime) -> Inbound | None:
        """A friend is greeted at once or never; what a group tells is to be written down."""
        told = read(fields, self._settings.wecom_corp_id)
        if isinstance(told, Befriended):
            greeting = asyncio.create_task(self._greet(told.code))
            self._greetings.add(greeting)
            greeting.add_done_callback(self._greetings.discard)
            return None
        return aside(Address.parse(told.address), fields, now) if told is not None else None

    def note(self, context: Context) -> None:
        """Write down what a group tells; what must be asked of the platform is asked by `run`."""
        match read(json.loads(context.inbound.text), context.inbound.sender.account):
            case Dismissed(address):
                groups.dismiss(context.session, address, context.now)
            case groups.RosterChange() as change:
                groups.apply_change(context.session, change, context.now)

    async def _greet(self, code: str) -> None:
        """Welcome a new friend of the staff, while the platform lets us and nobody else does."""
        until = self._clock.now() + GREETING
        while self._clock.now() < until:
            try:
                words = await self._words(Happening.FOLLOW)
                if words:
                    await self._wire.greet(code, words)
            except SendError as error:
                log.warning("not_greeted", channel=NAME, detail=error.detail or error.reason)
                if error.permanent or error.stop_channel:
                    return
            except Exception as error:  # noqa: BLE001  # asked for the words again, while there is time
                log.warning("not_greeted", channel=NAME, detail=type(error).__name__)
            else:
                return
            await asyncio.sleep(PAUSE)

    async def _words(self, happening: Happening) -> str:
        """What the rest of the bot says to somebody who has just come."""
        assert self._receive is not None, "routes come before anything is heard"
        sender = Address(NAME, self._settings.wecom_corp_id, FRIENDS_DOOR)
        now = self._clock.now()
        event = Inbound(secrets.token_hex(8), sender, happening, now, Kind.EVENT)
        parts = await self._receive(event, self._patience.one_try)
        return "\n".join(part.text for part in parts)

    # - looking after it -

    async def run(self, receive: Receive) -> None:
        """Read rosters and ask after tasks whenever they are due; one process does."""
        self._receive = receive
        if self.check():
            return
        while True:
            pause = POLL
            try:
                if await asyncio.to_thread(self._holds):
                    await self.tend()
            except SendError as error:
                pause = error.retry_after or POLL
                log.warning("not_tended", channel=NAME, reason=error.reason)
            await asyncio.sleep(pause)

    def _holds(self) -> bool:
        with self._database.transaction() as connection:
            return leases.take(connection, NAME, self._holder, LEASE)

    async def tend(self) -> None:
        """One round: new groups, rosters that are due, tasks that are due. Raises SendError."""
        if await asyncio.to_thread(self._all_due):
            await self.discover()
        for address in await asyncio.to_thread(self._rosters_due):
            await self._read(address)
        services = self._services
        assert services is not None, "attached before anything else"
        keeper = TaskKeeper(self._wire, self._database, self._clock, services.settings.quiet)
        await keeper.look()

    async def discover(self) -> None:
        """Have the roster of every group read, also of those we never heard of."""
        chats = await self._wire.groups()
        account = self._settings.wecom_corp_id

        def want() -> None:
            now = self._clock.now()
            with self._database.session() as session:
                for chat in chats:
                    groups.want_roster(session, str(Address(NAME, account, chat)), now)
                move_cursor(session.connection(), f"{NAME}:all", now.isoformat(), now)

        await asyncio.to_thread(want)

    def _all_due(self) -> bool:
        with self._database.reading() as session:
            last = read_cursor(session.connection(), f"{NAME}:all")
        return not last or self._clock.now() - datetime.fromisoformat(last) >= EVERY

    def _rosters_due(self) -> Sequence[str]:
        with self._database.reading() as session:
            return groups.rosters_due(session, NAME, self._clock.now())

    async def _read(self, address: str) -> None:
        try:
            roster = await self._wire.roster(Address.parse(address).user)
        except SendError as error:
            if error.stop_channel or error.retry_after is not None:
                raise
            log.warning("roster_not_read", channel=NAME, detail=error.detail or error.reason)
            await asyncio.to_thread(self._read_later, address)
            return

        def keep() -> None:
            with self._database.session() as session:
                groups.keep_roster(session, address, roster, self._clock.now())

        await asyncio.to_thread(keep)

    def _read_later(self, address: str) -> None:
        with self._database.session() as session:
            groups.postpone_roster(session, address, self._clock.now())

    # - sending -

    async def send(self, address: Address, part: Part, key: str) -> str | Awaiting:
        """Ask the group's owner to send it; to `welcome` it is what newcomers are greeted with."""
        if self.check():
            raise SendError("not_configured", permanent=True)
        if part.file is not None:
            raise SendError("no_files", permanent=True)
        if address.user == NEWCOMERS:
            return await self._keep_welcome(part.text)
        group_id, owner = await asyncio.to_thread(self._room_for_one_more, str(address))
        msgid = await self._wire.ask(owner, address.user, part.text)
        await asyncio.to_thread(self._note_task, msgid, group_id, owner)
        return Awaiting(msgid)

    def _room_for_one_more(self, address: str) -> tuple[int, str]:
        """The group's id and owner; raises SendError where the month's sends are used up."""
        now = self._clock.now()
        with self._database.reading() as session:
            group = groups.known_group(session, address)
            if group is None or group.id is None:
                raise SendError("unreachable", permanent=True, detail="no such group")
            if not groups.room_left(session, group.id, now):
                raise SendError("quota", permanent=True, detail="month")
            return group.id, group.owner

    def _note_task(self, msgid: str, group_id: int, owner: str) -> None:
        now = self._clock.now()
        with self._database.session() as session:
            session.add(
                StaffTask(id=msgid, group_id=group_id, owner=owner, made_at=now, due_at=now + LOOK)
            )

    async def _keep_welcome(self, text: str) -> str:
        name = f"{NAME}:{NEWCOMERS}"

        def known() -> str:
            with self._database.reading() as session:
                return read_cursor(session.connection(), name)

        def keep(number: str) -> None:
            with self._database.transaction() as connection:
                move_cursor(connection, name, number, self._clock.now())

        number = await self._wire.keep_welcome(await asyncio.to_thread(known), text)
        await asyncio.to_thread(keep, number)
        return number

    async def close(self) -> None:
        for greeting in self._greetings:
            greeting.cancel()
        await asyncio.gather(*self._greetings, return_exceptions=True)
        await self._caller.close()

    # - checking -

    def check(self) -> Sequence[str]:
        """What is missing in the settings."""
        return missing(self._settings)

    async def probe(self) -> Sequence[Finding]:
        """Rights, groups, what is left of the month, and whether people can be recognised."""
        chats, trouble = await allowed(
            self.check(), "客户联系", "客户与上下游→客户联系", self._wire.groups
        )
        if trouble is not None:
            return [trouble]
        if not chats:
            advice = "请让群主在企业微信里新建客户群，并在「客户联系→权限配置」给群主开通"
            return [Finding(False, "客户群", advice)]
        return [Finding(True, f"客户群{len(chats)}个"), *await asyncio.to_thread(self._known)]

    def _known(self) -> list[Finding]:
        now = self._clock.now()
        found = []
        with self._database.reading() as session:
            for group in groups.live_groups(session):
                left = groups.room_left(session, group.id or 0, now)
                what = f"「{group.name}」本月群发还可{left}次"
                found.append(Finding(left > 0, what, "" if left else "平台按月限次，下月再发"))
            if groups.nobody_recognised(session):
                advice = (
                    "群成员没有 unionid，对不上公众号的关注者。请在「客户联系→客户→API→"
                    "微信开发者ID」绑定公众号所在的开放平台"
                )
                found.append(Finding(False, "对照群成员与关注者", advice))
        return found
