"""A fresh set of platforms, a client that calls them, and a small product that answers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.emulators.server import Platforms

Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


class Product:
    """Stands where the product would: keeps what it is sent and answers as it is told."""

    def __init__(self) -> None:
        self.received: list[tuple[web.Request, bytes]] = []
        self.arrived = asyncio.Event()
        self.answer: Answer = self.success
        self.url = ""

    async def success(self, request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(text="success")

    async def never(self, request: web.Request, body: bytes) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async def broken(self, request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=500)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append((request, body))
        self.arrived.set()
        return await self.answer(request, body)

    async def count(self, number: int) -> None:
        """Return when so many callbacks have arrived."""
        while len(self.received) < number:
            self.arrived.clear()
            await self.arrived.wait()


class Client:
    """Calls the platforms' APIs as any program would."""

    def __init__(self, session: aiohttp.ClientSession, platforms: Platforms) -> None:
        self.session = session
        self.platforms = platforms

    async def mp(self, endpoint: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
        """POST to the WeChat API."""
        url = f"{self.platforms.url}/mp/cgi-bin/{endpoint}"
        async with self.session.post(url, params={"access_token": token}, json=body) as response:
            return dict(await response.json(content_type=None))

    async def mp_get(self, endpoint: str, **query: str) -> dict[str, Any]:
        url = f"{self.platforms.url}/mp/cgi-bin/{endpoint}"
        async with self.session.get(url, params=query) as response:
            return dict(await response.json(content_type=None))

    async def stable_token(self, *, force: bool = False) -> dict[str, Any]:
        account = self.platforms.wechat.account
        who = {"grant_type": "client_credential", "appid": account.app_id, "secret": account.secret}
        return await self.mp("stable_token", {**who, "force_refresh": force})

    async def send_text(self, openid: str, text: str, token: str | None = None) -> int:
        """The errcode of a customer-service text."""
        if token is None:
            token = (await self.stable_token())["access_token"]
        body = {"touser": openid, "msgtype": "text", "text": {"content": text}}
        return int((await self.mp("message/custom/send", body, str(token)))["errcode"])

    async def bot(self, method: str, **body: Any) -> dict[str, Any]:
        """POST to the Bot API."""
        url = f"{self.platforms.url}/bot{self.platforms.telegram.token}/{method}"
        async with self.session.post(url, json=body) as response:
            return dict(await response.json())

    async def control(self, emulator: str, verb: str, **body: Any) -> Any:
        url = f"{self.platforms.url}/control/{emulator}/{verb}"
        async with self.session.post(url, json=body) as response:
            return (await response.json())["result"]


@pytest.fixture
async def platforms(anyio_backend: str) -> AsyncIterator[Platforms]:
    async with Platforms() as running:
        yield running


@pytest.fixture
async def client(platforms: Platforms) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, platforms)


@pytest.fixture
async def product(platforms: Platforms) -> AsyncIterator[Product]:
    standing = Product()
    app = web.Application()
    app.add_routes([web.route("*", "/callback/{platform}", standing.serve)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    standing.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    platforms.wechat.connect(f"{standing.url}/callback/wechat")
    yield standing
    await runner.cleanup()
