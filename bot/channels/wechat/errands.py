"""What is asked of the platform while nobody waits: covers to many, scene codes, union ids.

One process of an installation does it at a time, by a lease, so that nothing is asked twice and the
platform's limits a minute hold without counting.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from bot.alarm import call_for_help
from bot.channels.wechat.api import WeChatApi
from bot.channels.wechat.reading import NAME
from bot.clock import beijing
from bot.context import Covers, Services
from bot.errors import SendError
from bot.messages import Address
from storage import covers, leases, scenes, wechat
from storage.covers import Counts, Cover, CoverState
from storage.people import contact_of
from storage.scenes import CodeState, SceneCode

POLL = 2.0  # seconds between two looks
HOLD = timedelta(seconds=60)
AT_ONCE = 20  # union ids asked for in one round
PAUSE = 60.0  # seconds after a call that failed and said nothing
TRIES = 5
EXPECTED = timedelta(minutes=10)  # how soon the platform usually says that a push is over
HOPELESS = timedelta(days=2)
SAME_KEY = frozenset({45065})
PUSHES_A_MINUTE = 60

T = TypeVar("T")

log = structlog.get_logger()


class Errands:
    """Does what stands in the tables, kind by kind; a kind that failed rests for a while."""

    def __init__(
        self, services: Services, api: WeChatApi, account: str, limits: Covers, *, unionids: bool
    ) -> None:
        self._services = services
        self._api = api
        self._account = account
        self._limits = limits
        self._unionids = unionids
        self._holder = secrets.token_hex(8)
        self._holds = False
        self._working = asyncio.Lock()
        self._resting: dict[str, datetime] = {}
        self._pushed: deque[datetime] = deque(maxlen=PUSHES_A_MINUTE)

    async def run(self) -> None:
        """Until cancelled; a database or a platform in trouble does not end it."""
        pause = POLL
        try:
            while True:
                await asyncio.sleep(pause)
                try:
                    await self.work()
                    pause = POLL
                except (SQLAlchemyError, OSError) as error:
                    log.warning("errands_failed", channel=NAME, error=type(error).__name__)
                    pause = PAUSE
        finally:
            await asyncio.to_thread(self._let_go)

    async def work(self) -> None:
        """Do what is due now, once."""
        async with self._working:
            await self._each("covers", self._covers_due, self._cover)
            await self._each("codes", self._codes_due, self._make)
            await self._each("unionids", self._unasked, self._ask_unionid)

    async def _each(
        self, kind: str, due: Callable[[], Sequence[T]], do: Callable[[T], Awaitable[None]]
    ) -> None:
        """Do what is due of a kind, unless it rests or another process is at it."""
        if self._is_resting(kind):
            return
        if not await asyncio.to_thread(due) or not await asyncio.to_thread(self._take):
            return
        try:
            # Looked at again: until now another process may have been at it.
            for one in await asyncio.to_thread(due):
                await do(one)
        except SendError as error:
            await self._rest(kind, error)

    # - who works, and when not -

    def _take(self) -> bool:
        with self._services.database.transaction() as connection:
            self._holds = leases.take(connection, f"{NAME}:errands", self._holder, HOLD)
        return self._holds

    def _let_go(self) -> None:
        if not self._holds:
            return
        try:
            with self._services.database.transaction() as connection:
                leases.give_back(connection, f"{NAME}:errands", self._holder)
        except SQLAlchemyError:
            log.info("lease_runs_out", channel=NAME)

    def _is_resting(self, kind: str) -> bool:
        until = self._resting.get(kind)
        return until is not None and self._services.clock.now() < until

    async def _rest(self, kind: str, error: SendError) -> None:
        """Wait as long as the platform asks; those on duty hear of what only they can mend."""
        seconds = PAUSE if error.retry_after is None else error.retry_after
        self._resting[kind] = self._services.clock.now() + timedelta(seconds=seconds)
        log.warning("errand_failed", channel=NAME, kind=kind, reason=error.reason)
        if error.stop_channel:
            await asyncio.to_thread(self._call_for_help, error)

    def _call_for_help(self, error: SendError) -> None:
        trouble = f"有事办不成：{error.detail or error.reason}"
        with self._services.database.transaction() as connection:
            call_for_help(self._services, connection, NAME, trouble)

    # - covers -

    async def _cover(self, cover: Cover) -> None:
        if cover.preview:
            await self._preview(cover)
        elif cover.state == CoverState.ACCEPTED:
            await self._look(cover)
        else:
            await self._push(cover)

    def _covers_due(self) -> list[Cover]:
        now = self._services.clock.now()
        states = (CoverState.WAITING, CoverState.SENDING, CoverState.ACCEPTED)
        with self._services.database.engine.connect() as connection:
            found = covers.covers_in(connection, NAME, *states)
        return [
            cover
            for cover in found
            if cover.state != CoverState.ACCEPTED
            or cover.looked_at is None
            or now - cover.looked_at >= EXPECTED
        ]

    async def _push(self, cover: Cover) -> None:
        """Hand a push to the platform; again, with the same key, if nobody knows whether it came.

        The platform takes a key once, so that whatever happens nobody gets the cover twice.
        """
        self._keep_pace()
        addresses = await asyncio.to_thread(self._begin, cover)
        if len(addresses) < self._limits.least:
            await self._move(cover, CoverState.FAILED, reason="too_few")
            return
        body = {
            "touser": [Address.parse(address).user for address in addresses],
            "msgtype": "text",
            "text": {"content": cover.text},
            "clientmsgid": cover.key,
            "send_ignore_reprint": 1,
        }
        try:
            answer = await self._api.post("message/mass/send", body, fine=SAME_KEY)
        except SendError as error:
            await self._not_pushed(cover, error)
            return
        job = str(answer.get("msg_id") or "")
        known = CoverState.ACCEPTED if job else CoverState.UNKNOWN
        # Of one taken before, the platform may have told the end while we did not know its number.
        again = answer.get("errcode") in SAME_KEY
        looked_at = None if again else self._services.clock.now()
        await self._move(cover, known, job=job, looked_at=looked_at, total=len(addresses))

    def _keep_pace(self) -> None:
        """Raises SendError where the platform would refuse one more in this minute."""
        now, minute = self._services.clock.now(), timedelta(minutes=1)
        if len(self._pushed) == PUSHES_A_MINUTE and now - self._pushed[0] < minute:
            wait = self._pushed[0] + minute - now
            raise SendError("quota", retry_after=wait.total_seconds())
        self._pushed.append(now)

    def _begin(self, cover: Cover) -> list[str]:
        now = self._services.clock.now()
        month = f"{beijing(now):%Y-%m}"
        with self._services.database.transaction() as connection:
            return list(covers.begin(connection, cover, month, self._limits.a_month, now))

    async def _not_pushed(self, cover: Cover, error: SendError) -> None:
        """What a failed call makes of a push; raises what must keep the others waiting too."""
        if error.permanent:
            await self._move(cover, CoverState.FAILED, reason=error.reason)
            return
        tried = error.unknown or not (error.stop_channel or error.retry_after is not None)
        if tried and cover.tries + 1 >= TRIES:
            state = CoverState.UNKNOWN if error.unknown else CoverState.FAILED
            await self._move(cover, state, reason=error.reason)
            return
        raise error

    async def _look(self, cover: Cover) -> None:
        """Ask about a push whose end the platform should have told by now."""
        answer = await self._api.post("message/mass/get", {"msg_id": cover.job})
        now, status = self._services.clock.now(), str(answer.get("msg_status") or "")
        if status in ("SEND_SUCCESS", "SEND_FAIL", "DELETE"):
            await asyncio.to_thread(self._finish, cover, status)
        elif now - cover.created_at > HOPELESS:
            await self._move(cover, CoverState.UNKNOWN, reason="no_word")
        else:
            await self._move(cover, CoverState.ACCEPTED, looked_at=now)

    def _finish(self, cover: Cover, status: str) -> None:
        fine = status == "SEND_SUCCESS"
        reason = "" if fine else status.lower()
        with self._services.database.transaction() as connection:
            covers.finish(connection, NAME, cover.job, fine=fine, reason=reason, counts=Counts())

    async def _preview(self, cover: Cover) -> None:
        address = await asyncio.to_thread(self._own_address, cover)
        if address is None:
            await self._move(cover, CoverState.FAILED, reason="unreachable")
            return
        body = {"touser": address, "msgtype": "text", "text": {"content": cover.text}}
        try:
            await self._api.post("message/mass/preview", body)
        except SendError as error:
            await self._move(cover, CoverState.FAILED, reason=error.reason)
            if not error.permanent:
                raise
            return
        await self._move(cover, CoverState.DONE)

    def _own_address(self, cover: Cover) -> str | None:
        with self._services.database.reading() as session:
            contact = contact_of(session, cover.asked_by, [NAME])
            return Address.parse(contact.address).user if contact is not None else None

    async def _move(
        self, cover: Cover, state: CoverState, *, reason: str = "", **values: object
    ) -> None:
        def write() -> None:
            assert cover.id is not None
            with self._services.database.transaction() as connection:
                covers.move(connection, cover.id, state, reason=reason, **values)

        await asyncio.to_thread(write)

    # - scene codes -

    def _codes_due(self) -> Sequence[SceneCode]:
        with self._services.database.engine.connect() as connection:
            return scenes.codes_in(connection, NAME, CodeState.WAITING)

    async def _make(self, code: SceneCode) -> None:
        scene = {"scene": {"scene_str": code.scene}}
        body: dict[str, object] = {"action_name": "QR_LIMIT_STR_SCENE", "action_info": scene}
        if code.days is not None:
            body["action_name"] = "QR_STR_SCENE"
            body["expire_seconds"] = code.days * 86400
        now = self._services.clock.now()
        try:
            answer = await self._api.post("qrcode/create", body)
        except SendError as error:
            if not error.permanent and error.reason != "refused":
                raise
            await asyncio.to_thread(self._keep, code, "", None, error.detail or error.reason)
            return
        seconds = int(answer.get("expire_seconds") or 0)
        ends = now + timedelta(seconds=seconds) if code.days is not None else None
        await asyncio.to_thread(self._keep, code, str(answer.get("url") or ""), ends, "")

    def _keep(self, code: SceneCode, url: str, ends: datetime | None, refused: str) -> None:
        assert code.id is not None
        with self._services.database.transaction() as connection:
            if url:
                scenes.made(connection, code.id, url, ends)
            else:
                scenes.not_made(connection, code.id, refused or "no url")

    # - union ids -

    def _unasked(self) -> Sequence[tuple[int, str]]:
        if not self._unionids:
            return ()
        with self._services.database.engine.connect() as connection:
            return wechat.never_asked(connection, NAME, AT_ONCE)

    async def _ask_unionid(self, who: tuple[int, str]) -> None:
        """There is none where the account is bound to no owner."""
        person_id, address = who
        try:
            answer = await self._api.get(
                "user/info", openid=Address.parse(address).user, lang="zh_CN"
            )
        except SendError as error:
            if not error.permanent:
                raise
            answer = {}
        unionid = str(answer.get("unionid") or "") or None
        await asyncio.to_thread(self._keep_unionid, person_id, unionid)

    def _keep_unionid(self, person_id: int, unionid: str | None) -> None:
        now = self._services.clock.now()
        with self._services.database.transaction() as connection:
            wechat.keep_unionid(connection, person_id, unionid, now)
