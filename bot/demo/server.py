"""The demo's server: phones, clock and outbox over the real dispatcher, storage and delivery."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from bot.app import App
from bot.catalog import spoken
from bot.channels.demo import ACCOUNT, Board, DemoChannel, Event, as_json
from bot.clock import MovableClock, beijing
from bot.commands import DemoData, DemoPhone
from bot.demo.journey import Journey, destination
from bot.demo.ledger import view
from bot.demo.platforms import PATH, Emulators, pages
from bot.lunar import lunar_text
from bot.messages import PRIVATE, Address, Chat, Inbound, Kind

STATIC = Path(__file__).parents[1] / "static"
ASSETS = {
    "demo.css": "text/css; charset=utf-8",
    "demo.js": "text/javascript; charset=utf-8",
    "demo.svg": "image/svg+xml",
}
CHANNEL = "demo"
GROUP = "group"
ANSWER_SECONDS = 20.0
LONGEST = 4000  # characters a phone may send at once
WATCH_SECONDS = 0.2  # between looks at the outbox while a page is open
WEEKDAYS = "一二三四五六日"
HEADERS = {"Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'"}

log = structlog.get_logger()


@dataclass
class Demo:
    """One running demo. Its event loop owns everything here."""

    app: App
    board: Board
    clock: MovableClock
    data: DemoData
    channels: Mapping[str, DemoChannel]
    ending: Callable[[], bool] = lambda: False
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    moving: float | None = None
    _numbers: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.start = self.clock.now()
        self.journey = Journey(self.app.services, self.clock, self.app.beat)
        self._outbox: Mapping[str, Any] = {"rows": [], "totals": [], "campaign": None}
        for phone in self.data.cast:
            for who, text in phone.opening:
                self.board.said(screen(phone), who or self.data.bot, text, mine=False)

    def phone(self, user: str) -> DemoPhone:
        """The phone that shows this screen; KeyError if none does."""
        return {screen(phone): phone for phone in self.data.cast}[user]

    # - speaking -

    async def say(
        self, phone: DemoPhone, text: str, kind: Kind = Kind.TEXT, shown: str = ""
    ) -> None:
        """Somebody says or presses something; the answer appears on their phone."""
        where = screen(phone)
        # Whoever looks into the group speaks there under their own name.
        names = {each.user: each.title for each in self.data.cast if not each.group}
        self.board.said(where, names.get(phone.user, phone.title), shown or text, mine=True)
        chat, words = PRIVATE, text
        if phone.group:
            chat, words = self._in_group(text)
        inbound = Inbound(
            f"{self.run}-{next(self._numbers)}",
            Address(CHANNEL, ACCOUNT, phone.user),
            words,
            self.clock.now(),
            kind,
            chat,
        )
        try:
            parts = await self.app.receive(inbound, ANSWER_SECONDS)
        except Exception as error:  # noqa: BLE001  # the page stays alive whatever became of a message
            log.warning("demo_message_failed", error=type(error).__name__)
            self.board.said(where, "", "这句话没有送到，请再发一次。", mine=False)
            return
        for part in parts:
            self.board.shown(where, self.data.bot, part, asked=True)

    def _in_group(self, text: str) -> tuple[Chat, str]:
        """In a group the bot hears what mentions it, or is a command."""
        mention = f"@{self.data.bot}"
        words = text.removeprefix(mention).strip()
        known = self.app.services.catalog.match(spoken(words)) is not None
        return Chat(Address(CHANNEL, ACCOUNT, GROUP), mention in text or known), words

    # - the clock -

    async def move(self, name: str) -> None:
        """Move the clock by a shortcut; KeyError if there is none of that name."""
        end = destination(name, self.clock.now(), self.start)
        self._passed(0.0)
        for channel in self.channels.values():
            channel.hurry = True
        try:
            await self.journey.travel(end, self._passed)
        finally:
            self.moving = None
            for channel in self.channels.values():
                channel.hurry = False
            self.board.publish(self.time())

    def _passed(self, share: float) -> None:
        self.moving = share
        self.board.publish(self.time())

    def time(self) -> Event:
        """The clock as the page shows it."""
        local = beijing(self.clock.now())
        return {
            "kind": "clock",
            "at": local.isoformat(),
            "day": f"{local:%Y}年{local.month}月{local.day}日",
            "weekday": f"星期{WEEKDAYS[local.weekday()]}",
            "lunar": f"农历{lunar_text(local.date())}",
            "moving": self.moving,
        }

    # - the stream -

    def snapshot(self) -> Event:
        """Everything a page needs that has just been opened."""
        return {
            "kind": "all",
            "run": self.run,
            "bot": self.data.bot,
            "guide": self.data.guide,
            "phones": [
                {
                    "phone": phone.phone,
                    "tab": phone.tab,
                    "title": phone.title,
                    "subtitle": phone.subtitle,
                    "user": screen(phone),
                    "group": phone.group,
                    "tries": phone.tries,
                }
                for phone in self.data.cast
            ],
            "bubbles": [as_json(bubble) for bubble in self.board.bubbles],
            "clock": self.time(),
            "outbox": self._outbox,
        }

    async def events(self) -> AsyncIterator[str]:
        """What happens, as server-sent events; ends when the server does."""
        with self.board.watching() as queue:
            await self.look()
            yield _event(self.snapshot())
            silent = 0.0
            while not self.ending():
                try:
                    async with asyncio.timeout(WATCH_SECONDS):
                        happened = await queue.get()
                    yield _event(happened)
                except TimeoutError:
                    silent += WATCH_SECONDS
                    if silent > 10:
                        silent = 0.0
                        yield _event(self.time())

    async def look(self) -> None:
        """Read the outbox and tell the pages what changed."""
        seen = await asyncio.to_thread(self._read_outbox)
        if seen != self._outbox:
            self._outbox = seen
            self.board.publish({"kind": "outbox", **seen})

    async def watch(self) -> None:
        """Keep looking while a page is open."""
        while True:
            if self.board.watched:
                try:
                    await self.look()
                except Exception as error:  # noqa: BLE001  # a look that fails is made again
                    log.warning("demo_look_failed", error=type(error).__name__)
            await asyncio.sleep(WATCH_SECONDS)

    def _read_outbox(self) -> Mapping[str, Any]:
        with self.app.services.database.reading() as session:
            return view(self.app.services, session, self.data)


def screen(phone: DemoPhone) -> str:
    """Whose bubbles a phone shows: the group's, or its owner's."""
    return GROUP if phone.group else phone.user


def _event(event: Event) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"


def routes(demo: Demo, emulated: Emulators | None = None) -> list[BaseRoute]:
    """What the demo answers besides the phone pages."""
    one_move = asyncio.Lock()
    guard = [
        # Another site's page must not reach the demo through a name that points here.
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
        Middleware(ExceptionMiddleware),
    ]

    def route(path: str, endpoint: Callable[[Request], Any], method: str = "GET") -> Route:
        return Route(path, endpoint, methods=[method], middleware=guard)

    async def page(_request: Request) -> Response:
        return _asset("demo.html", "text/html; charset=utf-8")

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            raise HTTPException(404)
        return _asset(name, ASSETS[name])

    async def stream(_request: Request) -> Response:
        return StreamingResponse(demo.events(), media_type="text/event-stream")

    async def say(request: Request) -> Response:
        asked = await _body(request)
        text = asked.get("text")
        if not isinstance(text, str) or not text.strip() or len(text) > LONGEST:
            raise HTTPException(400)
        await demo.say(_phone(demo, asked), text.strip())
        return JSONResponse({})

    async def press(request: Request) -> Response:
        asked = await _body(request)
        number, bubble = asked.get("number"), asked.get("bubble")
        if not isinstance(number, int) or not isinstance(bubble, int):
            raise HTTPException(400)
        phone = _phone(demo, asked)
        found = demo.board.find(bubble)
        if found is None or found.user != screen(phone):
            raise HTTPException(404)
        choice = demo.board.press(bubble, number)
        if choice is not None:
            await demo.say(phone, choice.value, Kind.PRESS, choice.label)
        return JSONResponse({})

    async def clock(request: Request) -> Response:
        asked = await _body(request)
        if one_move.locked():
            raise HTTPException(409)
        async with one_move:
            try:
                await demo.move(str(asked.get("to")))
            except KeyError as error:
                raise HTTPException(400) from error
        return JSONResponse({})

    async def file(request: Request) -> Response:
        found = demo.board.find(request.path_params["id"])
        if found is None or found.file is None:
            raise HTTPException(404)
        name = quote(found.file.name)
        return Response(
            found.file.content,
            media_type=found.file.mime,
            headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
        )

    async def home(_request: Request) -> Response:
        return RedirectResponse("/demo")

    more = []
    if emulated is not None:
        show, speak = pages(emulated)
        more = [route(PATH, show), route(PATH, speak, "POST")]
    return [
        *more,
        route("/", home),
        route("/demo", page),
        route("/demo/static/{name}", asset),
        route("/demo/file/{id:int}", file),
        route("/demo/api/stream", stream),
        route("/demo/api/say", say, "POST"),
        route("/demo/api/press", press, "POST"),
        route("/demo/api/clock", clock, "POST"),
    ]


def _asset(name: str, mime: str) -> Response:
    return Response((STATIC / name).read_bytes(), media_type=mime, headers=HEADERS)


async def _body(request: Request) -> Mapping[str, Any]:
    """The JSON object somebody posted; other kinds of form posts could come from any site."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415)
    try:
        asked = await request.json()
    except ValueError as error:
        raise HTTPException(400) from error
    if not isinstance(asked, dict):
        raise HTTPException(400)
    return asked


def _phone(demo: Demo, asked: Mapping[str, Any]) -> DemoPhone:
    try:
        return demo.phone(str(asked.get("user")))
    except KeyError as error:
        raise HTTPException(404) from error
