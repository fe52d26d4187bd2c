"""The address that the platform calls for a smart bot: sealed JSON in, sealed JSON out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from bot.channels.base import Receive
from bot.channels.callback import Door, Patience
from bot.channels.envelope import BadCallback, Envelope
from bot.channels.wecom.bot.memory import Memory
from bot.channels.wecom.bot.reading import NAME, Event, Pressed, Refresh, Told, address_of, read
from bot.channels.wecom.bot.words import AGAIN, LOST, REFUSED, pressed_card, stream
from bot.clock import Clock
from bot.messages import Inbound, Kind, Part, aside
from storage.db import away

WAIT = "正在办理，请稍候……"
STILL = "还没有办好，办好后会再告诉您。"
DONE = "办好了。"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Call:
    """A callback: what it tells, and the nonce that its answer must repeat."""

    event: Event | None
    nonce: str


class BotDoor(Door[Call]):
    """Answers in place: by a text, by a stream that is finished later, or by changing a card.

    A stream's number holds when it was begun and the message it answers, so that whichever replica
    is asked for the rest finds it in the inbox.
    """

    def __init__(
        self,
        envelope: Envelope,
        clock: Clock,
        receive: Receive,
        patience: Patience,
        *,
        account: str,
        base: str,
        memory: Memory,
    ) -> None:
        super().__init__(NAME, envelope, clock, receive, patience)
        self._account = account
        self._base = base
        self._memory = memory

    def verify(self, query: Mapping[str, str], now: datetime) -> str:
        return self.envelope.verify_sealed(query, now)

    def open(self, query: Mapping[str, str], body: bytes, now: datetime) -> Call:
        encrypt = _object(body).get("encrypt")
        if not isinstance(encrypt, str):
            raise BadCallback(400, "no encrypt")
        plain = self.envelope.open_text(encrypt, query, now)
        event = read(_object(plain), self._account, now)
        return Call(event, query.get("nonce", ""))

    async def respond(self, opened: Call, now: datetime) -> Response:
        try:
            answer = await self._answer(opened.event, now)
        except Exception as error:  # noqa: BLE001  # whatever it was, the platform shall try again
            log.error("message_not_taken", channel=NAME, error=type(error).__name__)
            return Response(status_code=503)
        return Response() if answer is None else self._sealed(opened, answer, now)

    async def _answer(self, event: Event | None, now: datetime) -> dict[str, Any] | None:
        if isinstance(event, Pressed):
            return await self._pressed(event)
        if isinstance(event, Refresh):
            return await self._rest(event, now)
        if isinstance(event, Told):
            return await self._told(event, now)
        return None

    async def _told(self, told: Told, now: datetime) -> dict[str, Any] | None:
        await self._keep_url(told)
        work = self._taking(told.inbound)
        await asyncio.wait({work}, timeout=self._patience.one_try)
        if not work.done():
            return self._begun(told, now)
        try:
            parts = work.result()
        except TimeoutError:
            return None  # the answer leaves through the outbox
        return await self._shown(told, parts[0], now) if parts else None

    def _begun(self, told: Told, now: datetime) -> dict[str, Any] | None:
        """The platform asks for the rest; a welcome can only be given at once."""
        if told.inbound.kind is Kind.EVENT:
            return None
        return stream(_stream_of(told.inbound, now), WAIT, finish=False)

    async def _shown(self, told: Told, part: Part, now: datetime) -> dict[str, Any]:
        inbound, text = told.inbound, _text(part)
        if inbound.kind is Kind.EVENT:
            return {"msgtype": "text", "text": {"content": text}}
        answer = stream(_stream_of(inbound, now), text)
        if not part.choices or not inbound.chat.private:
            return answer
        card = await asyncio.to_thread(self._memory.card, inbound.sender, part.choices)
        return answer | {"msgtype": "stream_with_template_card", "template_card": card}

    async def _rest(self, event: Refresh, now: datetime) -> dict[str, Any] | None:
        begun, _, id = event.stream.partition(".")
        if not (begun.isascii() and begun.isdigit() and len(begun) <= 12):
            return None
        key = Inbound(id, address_of(self._account), "", now).key
        parts = await asyncio.to_thread(self._memory.answered, key)
        if parts is None:
            late = now.timestamp() - int(begun) >= self._patience.all_tries
            return stream(event.stream, STILL if late else WAIT, finish=late)
        return stream(event.stream, _text(parts[0]) if parts else DONE)

    async def _pressed(self, event: Pressed) -> dict[str, Any]:
        """A press is told once and never again: whatever happens, the card says how it went."""
        try:
            words = await self._press(event)
        except Exception as error:  # noqa: BLE001  # it could not be taken, and the person is told
            log.error("press_not_taken", channel=NAME, error=type(error).__name__)
            words = LOST
        return pressed_card(event.task_id, event.key, words)

    async def _press(self, event: Pressed) -> str:
        press = await asyncio.to_thread(self._memory.press, event)
        if press.refused:
            return REFUSED[press.refused]
        await self._keep_url(event.told)
        work = self._taking(replace(event.told.inbound, text=press.value))
        await asyncio.wait({work}, timeout=self._patience.one_try)
        if not work.done():
            return AGAIN
        work.result()
        return ""

    def _taking(self, inbound: Inbound) -> asyncio.Future[tuple[Part, ...]]:
        return self._work(inbound.id, lambda: self._receive(inbound, self._patience.all_tries))

    async def _keep_url(self, told: Told) -> None:
        """Only addresses of the platform itself: nothing we say goes anywhere else."""
        if told.answer_url.startswith(f"{self._base}/"):
            try:
                await asyncio.to_thread(self._memory.keep_url, told.where, told.answer_url)
            except SQLAlchemyError as error:
                if not away(error):
                    raise
                later = aside(told.where, {"url": told.answer_url}, told.inbound.received_at)
                await self._receive(later, self._patience.all_tries)
        elif told.answer_url:
            log.warning("answer_url_elsewhere", channel=NAME)

    def _sealed(self, call: Call, answer: Mapping[str, Any], now: datetime) -> Response:
        text = json.dumps(answer, ensure_ascii=False)
        sealed = self.envelope.seal(text, int(now.timestamp()), call.nonce)
        return JSONResponse(
            {
                "encrypt": sealed.encrypt,
                "msgsignature": sealed.signature,
                "timestamp": sealed.timestamp,
                "nonce": sealed.nonce,
            }
        )


def _stream_of(inbound: Inbound, now: datetime) -> str:
    return f"{int(now.timestamp())}.{inbound.id}"


def _text(part: Part) -> str:
    if part.file is None:
        return part.text
    return f"{part.text}\n（文件「{part.file.name}」在这里发不了。）".strip()


def _object(text: str | bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise BadCallback(400, "not JSON") from None
    if not isinstance(found, dict):
        raise BadCallback(400, "not an object")
    return found
