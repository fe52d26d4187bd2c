"""The HTTP server: the channels' webhooks, phone pages, and what an operator's tools ask."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import hmac
import importlib
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from urllib.parse import quote

import structlog
import uvicorn
from jinja2 import Environment, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, select
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.app import App
from bot.commands import Page
from bot.context import Services
from bot.errors import ConfigError, UserError
from bot.logs import incident, places
from bot.messages import Part
from bot.metrics import exposition
from bot.watching import Stretches
from storage.people import OneTimeCode

BODY_LIMIT = 256 * 1024  # bytes; a platform's callback is a few kilobytes
BODY_SECONDS = 10.0  # for a whole request body; WeChat itself gives up after 5
REQUEST_SECONDS = 3  # that requests under way get when the server is asked to stop
STOP_SECONDS = 10.0  # after which a stop no longer waits for anybody
READY_SECONDS = 3.0

GONE = "这个页面已经打不开了：链接可能过了期，或者已经用过。需要时请回到聊天里再要一次，谢谢。"

log = structlog.get_logger()


def _resource(name: str) -> str:
    return resources.files("bot.pages").joinpath(name).read_text(encoding="utf-8")


_STYLE = _resource("page.css")
_TEMPLATE = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
).from_string(_resource("page.html"))
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
}
"""Set on every answer that does not say otherwise itself."""

_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
_HEADER_NAMES = frozenset(name for name, _ in _RAW_HEADERS)


def application(app: App, more: Sequence[BaseRoute] = ()) -> ASGIApp:
    """Everything this installation answers over HTTP; `more` are routes of the demo or console.

    A router behind the guard and nothing else: Starlette's own layers would catch what the guard
    catches already, on every callback.
    """
    doors = [route for channel in app.channels.values() for route in channel.routes(app.receive)]
    routes = [
        *doors,
        Route("/healthz", _alive),
        Route("/readyz", _ready),
        Route("/metrics", _metrics),
        Route("/p/{token}", _page, methods=["GET", "POST"]),
        *more,
    ]
    return Guard(_looked_up(doors, Router(routes=routes)), app)


def _looked_up(doors: Iterable[BaseRoute], router: ASGIApp) -> ASGIApp:
    """The platforms' plain paths are looked up; the router tries one pattern after another."""
    plain = {
        route.path: route.handle
        for route in doors
        if isinstance(route, Route) and not route.param_convertors
    }

    def find(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return plain.get(scope["path"], router)(scope, receive, send)

    return find


# - around every request -


class Guard:
    """Bounds each request, sets the headers, and lets no exception become a traceback or a 500.

    The body is read before the endpoint runs: an endless or stalled one costs no endpoint's time.
    """

    def __init__(
        self,
        inner: ASGIApp,
        app: App | None = None,
        limit: int = BODY_LIMIT,
        seconds: float = BODY_SECONDS,
    ) -> None:
        self._inner = inner
        self._app = app
        self._limit = limit
        self._reading = Stretches(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        scope["installation"] = self._app
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": _with_defaults(message.get("headers", ()))}
            await send(message)

        try:
            body = await self._body(scope, receive)
            if isinstance(body, Response):
                await body(scope, receive, sending)
            elif body is not None:
                await self._inner(scope, _replaying(body, receive), sending)
        except Exception as error:  # noqa: BLE001  # a bug must not tell anybody how we are made
            number = incident()
            log.error(
                "request_failed",
                id=number,
                method=scope["method"],
                error=type(error).__name__,
                at=places(error.__traceback__),
            )
            if not begun:
                words = f"暂时无法处理，请稍后再试（编号{number}）。"
                await PlainTextResponse(words, 503)(scope, receive, sending)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Response | None:
        """The whole body, or what to answer instead; None when the caller has gone away."""
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._limit:
            return _refused(413)
        pieces: list[bytes] = []
        size = 0
        try:
            with self._reading.begin():
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > self._limit:
                        return _refused(413)
                    if not message.get("more_body"):
                        return b"".join(pieces)
        except TimeoutError:
            return _refused(408)


def _refused(status: int) -> Response:
    # The rest of the body is not read, so the connection cannot be used again.
    return PlainTextResponse("", status, headers={"connection": "close"})


def _replaying(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_defaults(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    given = list(headers)
    names = {name.lower() for name, _ in given}
    if _HEADER_NAMES.isdisjoint(names):
        return given + _RAW_HEADERS
    return given + [pair for pair in _RAW_HEADERS if pair[0] not in names]


# - for the operator's tools -


def _app(request: Request) -> App:
    app: App = request.scope["installation"]
    return app


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def _ready(request: Request) -> Response:
    """200 `ok`, or 503 with one word: what it waits for; and how many messages are spooled."""
    app = _app(request)
    depth = app.spool.depth if app.spool is not None else 0
    spooled = f" spool={depth}" if depth else ""
    try:
        async with asyncio.timeout(READY_SECONDS):
            current = await asyncio.to_thread(app.services.database.current)
    except (SQLAlchemyError, OSError, TimeoutError):
        return PlainTextResponse(f"database{spooled}", 503)
    word, status = ("ok", 200) if current else ("migrations", 503)
    return PlainTextResponse(f"{word}{spooled}", status)


async def _metrics(request: Request) -> Response:
    app = _app(request)
    token = app.services.settings.metrics_token.get_secret_value()
    if not token:
        return PlainTextResponse("Not Found", 404)
    given = request.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        return PlainTextResponse("", 401, headers={"www-authenticate": "Bearer"})
    text = await asyncio.to_thread(exposition, app)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


# - phone pages -


async def _page(request: Request) -> Response:
    services = _app(request).services
    token = request.path_params["token"]
    work = _act if request.method == "POST" else _show
    return await asyncio.to_thread(work, services, token)


def _show(services: Services, token: str) -> Response:
    """What GET (and a messenger's preview of the link) sees: nothing is used up."""
    with services.database.reading() as session:
        code, page = _live(services, session, token)
        if code is None or page is None:
            return _gone()
        part = page.show(services, session, code)
        button = part.choices[0].label if part.choices else "确定"
        return _html(part, button if page.act else "")


def _act(services: Services, token: str) -> Response:
    """The button: the token is used up in the transaction of what it did."""
    try:
        with services.database.session() as session:
            code, page = _live(services, session, token, lock=True)
            if code is None or page is None or page.act is None:
                return _gone()
            code.used_at = services.clock.now()
            session.add(code)
            part = page.act(services, session, code)
    except UserError as error:
        return _html(Part(str(error)), status=409)
    if part.file is not None:
        return _download(part)
    return _html(part)


def _live(
    services: Services, session: Session, token: str, *, lock: bool = False
) -> tuple[OneTimeCode | None, Page | None]:
    query = select(OneTimeCode).where(
        OneTimeCode.kind == "page", OneTimeCode.digest == services.keys.digest(token)
    )
    code = session.exec(query.with_for_update() if lock else query).first()
    if code is None or code.used_at is not None or code.expires_at <= services.clock.now():
        return None, None
    kind = json.loads(code.payload).get("page")
    return code, next((p for p in services.catalog.of(Page) if p.kind == kind), None)


def _gone() -> Response:
    """Used, expired and never issued look alike: a stranger learns nothing by trying."""
    return _html(Part(GONE), status=404)


def _html(part: Part, button: str = "", status: int = 200) -> Response:
    picture = part.file if part.file and part.file.mime.startswith("image/") else None
    address = ""
    if picture:
        address = f"data:{picture.mime};base64,{base64.b64encode(picture.content).decode()}"
    text = _TEMPLATE.render(
        title=part.text.split("\n", 1)[0][:30],
        style=_STYLE,
        paragraphs=[block for block in part.text.split("\n\n") if block.strip()],
        picture=address,
        picture_name=picture.name if picture else "",
        link=part.link,
        button=button,
    )
    return HTMLResponse(text, status)


def _download(part: Part) -> Response:
    assert part.file is not None
    name = quote(part.file.name)
    return Response(
        part.file.content,
        media_type=part.file.mime,
        headers={"content-disposition": f"attachment; filename*=UTF-8''{name}"},
    )


# - the server -


def new_loop() -> asyncio.AbstractEventLoop:
    """The quick event loop where there is one for this system, Python's own elsewhere."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; raises ConfigError with one line when the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"地址 {host}:{port} 不能用，请检查 --host 与 --port。") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # Now, not when uvicorn starts: on Linux only listening finds out that the port is taken.
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(_why_not(error, host, port)) from error
    return listening


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"端口 {port} 正被另一个程序使用；请停掉它，或用 --port 换一个。"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"没有权限使用端口 {port}；请用 --port 换一个 1024 以上的。"
    return f"地址 {host}:{port} 不能用，请检查 --host 与 --port。"


def address_of(listening: socket.socket) -> str:
    """`http://127.0.0.1:8080`."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn in a loop that belongs to `serve`, which also owns the signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: App,
    listening: socket.socket | None,
    roles: Iterable[str] = ("web", "worker"),
    *,
    more: Sequence[BaseRoute] = (),
    started: Callable[[], None] = lambda: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Live until SIGINT, SIGTERM or `stop`; then requests, calls and the writer finish first.

    Without `listening` there is no HTTP (a mere worker). A second signal ends it at once.
    """
    stop = stop or asyncio.Event()
    with _signals(stop):
        async with app.running(roles):
            started()
            if listening is None:
                await stop.wait()
                app.retire()
            else:
                await _answer(application(app, more), listening, stop, app.retire)


async def _answer(
    asgi: ASGIApp, listening: socket.socket, stop: asyncio.Event, retire: Callable[[], None]
) -> None:
    server = _Server(
        uvicorn.Config(
            asgi,
            access_log=False,
            log_config=None,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=REQUEST_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    retire()
    server.should_exit = True
    await serving


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            _give_up()
        stop.set()
        loop.call_later(STOP_SECONDS, _give_up)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked)
    except (RuntimeError, ValueError):  # not the main thread: whoever started us stops us
        yield
        return
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _give_up() -> None:
    """End now: what was being sent is found `unknown` by the next start, and never sent twice."""
    log.warning("stopped_without_waiting")
    os._exit(1)
