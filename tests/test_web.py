"""Holds what is answered over HTTP: health, figures, phone pages, and no traceback for anybody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from alembic import command
from playwright.async_api import async_playwright
from pydantic import SecretStr
from sqlalchemy import text
from sqlmodel import Session, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from bot import logs, web
from bot.app import App
from bot.commands import Page
from bot.context import Services
from bot.errors import ConfigError, UserError
from bot.messages import File, Part, say
from storage.columns import KeyRing
from storage.db import Database, alembic_config
from storage.people import OneTimeCode, Unsubscription
from tests.serving import logging_restored
from tests.world import KEYS, World, whole_catalog

pytestmark = pytest.mark.anyio

TOKEN = "figures-are-for-the-operator"


def _show(_services: Services, _session: Session, code: OneTimeCode) -> Part:
    return say("张先生，您好：\n\n<b>中秋</b>将至。", "不再收信").parts[0]


def _stop(services: Services, session: Session, code: OneTimeCode) -> Part:
    assert code.person_id is not None
    session.add(Unsubscription(person_id=code.person_id, topic="*", at=services.clock.now()))
    return Part("好的，不再打扰。")


def _refuse(_services: Services, session: Session, code: OneTimeCode) -> Part:
    raise UserError("活动已经结束，不能再改了。")


def _hand_over(_services: Services, _session: Session, _code: OneTimeCode) -> Part:
    return Part("给您", file=File("我的档案.xlsx", "application/octet-stream", b"sheet"))


PAGES = (
    Page("letter", _show, _stop),
    Page("closed", _show, _refuse),
    Page("export", _show, _hand_over),
    Page("reading", _show),
)


async def _broken(request: Request) -> Response:
    raise RuntimeError("张三 13812345678")


async def _echo(request: Request) -> Response:
    return Response(str(len(await request.body())))


@pytest.fixture
def app(world: World) -> App:
    """The world's installation with a few pages and a token for its figures."""
    catalog = whole_catalog()
    catalog = replace(catalog, values={**catalog.values, Page: PAGES})
    settings = world.settings.model_copy(update={"metrics_token": SecretStr(TOKEN)})
    services = replace(world.app.services, catalog=catalog, settings=settings)
    return App(services, {"memory": world.channel}, alone=True)


@asynccontextmanager
async def served(app: App) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the app on a port of its own; the server is stopped after."""
    listening = web.listen("127.0.0.1", 0)
    address = web.address_of(listening)
    stop = asyncio.Event()
    more = [Route("/broken", _broken), Route("/echo", _echo, methods=["POST"])]
    server = asyncio.create_task(web.serve(app, listening, ["web"], more=more, stop=stop))
    try:
        async with aiohttp.ClientSession(address) as client:
            yield client
    finally:
        stop.set()
        async with asyncio.timeout(5):
            await server


def link(app: App, kind: str, person_id: int, **age: float) -> str:
    """A page's address as a chat would give it, made `age` ago."""
    made = app.services.clock.now() - timedelta(**age)
    token = f"token-for-{kind}-{person_id}"
    with app.services.database.session() as session:
        session.add(
            OneTimeCode(
                kind="page",
                digest=app.services.keys.digest(token),
                person_id=person_id,
                payload=json.dumps({"page": kind}),
                created_at=made,
                expires_at=made + timedelta(days=7),
            )
        )
    return f"/p/{token}"


def stops(app: App) -> int:
    """How often somebody's subscriptions were stopped by a page."""
    with app.services.database.reading() as session:
        return len(session.exec(select(Unsubscription)).all())


# - health and figures -


def stamped(database: Database) -> None:
    """Tables that were laid whole, marked as what the migrations lead to."""
    with database.transaction() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.stamp(config, "head")


async def test_a_running_installation_is_alive_and_ready(app: App) -> None:
    stamped(app.services.database)
    async with served(app) as client:
        for path in ("/healthz", "/readyz"):
            answer = await client.get(path)
            assert (answer.status, await answer.text()) == (200, "ok")


async def test_tables_of_another_version_are_named_as_the_reason(app: App) -> None:
    with app.services.database.transaction() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)"))
        connection.execute(text("DELETE FROM alembic_version"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('of-long-ago')"))
    async with served(app) as client:
        answer = await client.get("/readyz")
        assert (answer.status, await answer.text()) == (503, "migrations")


async def test_a_database_out_of_reach_is_named_but_the_process_is_alive(
    app: App, tmp_path: Path
) -> None:
    lost = Database(f"sqlite:///{tmp_path}/no-such-folder/x.db", KeyRing(KEYS))
    away = App(replace(app.services, database=lost), {}, alone=True)
    async with served(away) as client:
        ready, alive = await client.get("/readyz"), await client.get("/healthz")
        assert (ready.status, await ready.text()) == (503, "database")
        assert alive.status == 200
    away.close()


async def test_figures_are_only_for_who_holds_the_token(app: App) -> None:
    async with served(app) as client:
        without = await client.get("/metrics")
        wrong = await client.get("/metrics", headers={"Authorization": "Bearer figures"})
        right = await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert [without.status, wrong.status, right.status] == [401, 401, 200]
        body = await right.text()
        assert "hongyan_oldest_unsent_seconds 0.0" in body
        assert 'hongyan_sends_total{result="sent"} 0.0' in body
        assert TOKEN not in body


async def test_without_a_token_there_are_no_figures(world: World) -> None:
    async with served(App(world.app.services, {}, alone=True)) as client:
        assert (await client.get("/metrics")).status == 404
        given = await client.get("/metrics", headers={"Authorization": "Bearer "})
        assert given.status == 404


# - phone pages -


async def test_looking_at_a_page_uses_nothing_up_and_its_button_works_once(
    app: App, world: World
) -> None:
    path = link(app, "letter", world.person("张三"))
    async with served(app) as client:
        for _look in range(3):
            answer = await client.get(path)
            assert answer.status == 200
            assert "不再收信</button>" in await answer.text()
        assert stops(app) == 0
        pressed = await client.post(path)
        assert "好的，不再打扰。" in await pressed.text()
        assert stops(app) == 1
        again, look = await client.post(path), await client.get(path)
        assert [again.status, look.status] == [404, 404]
        assert stops(app) == 1


async def test_a_button_pressed_many_times_at_once_acts_once(app: App, world: World) -> None:
    path = link(app, "letter", world.person("张三"))
    async with served(app) as client:
        answers = await asyncio.gather(*(client.post(path) for _ in range(8)))
        assert sorted(answer.status for answer in answers) == [200, *[404] * 7]


async def test_used_expired_and_unknown_links_are_answered_alike(app: App, world: World) -> None:
    used = link(app, "letter", world.person("张三"))
    expired = link(app, "letter", world.person("李四"), days=8)
    strange = link(app, "of-another-release", world.person("王五"))
    async with served(app) as client:
        await client.post(used)
        seen = set()
        for path in (used, expired, strange, "/p/never-issued", f"/p/{'x' * 3000}"):
            for ask in (client.get, client.post):
                answer = await ask(path)
                seen.add((answer.status, await answer.text()))
        assert len(seen) == 1
        status, body = seen.pop()
        assert status == 404
        assert web.GONE in body


async def test_a_refused_action_changes_nothing_and_may_be_tried_again(
    app: App, world: World
) -> None:
    path = link(app, "closed", world.person("张三"))
    async with served(app) as client:
        refused = await client.post(path)
        assert refused.status == 409
        assert "活动已经结束，不能再改了。" in await refused.text()
        assert (await client.get(path)).status == 200


async def test_an_export_is_handed_over_by_the_button_once(app: App, world: World) -> None:
    path = link(app, "export", world.person("张三"))
    async with served(app) as client:
        looked = await client.get(path)
        assert "sheet" not in await looked.text()
        taken = await client.post(path)
        assert await taken.read() == b"sheet"
        assert taken.content_disposition is not None
        assert taken.content_disposition.filename == "我的档案.xlsx"
        assert (await client.post(path)).status == 404


async def test_a_page_only_to_be_read_has_no_button(app: App, world: World) -> None:
    path = link(app, "reading", world.person("张三"))
    async with served(app) as client:
        assert "<button" not in await (await client.get(path)).text()
        assert (await client.post(path)).status == 404
        assert (await client.get(path)).status == 200


async def test_a_page_takes_nothing_from_elsewhere_and_shows_words_as_words(
    app: App, world: World
) -> None:
    path = link(app, "letter", world.person("张三"))
    async with served(app) as client:
        answer = await client.get(path)
        body = await answer.text()
        assert "&lt;b&gt;中秋&lt;/b&gt;" in body
        assert not re.search(r"https?:|src=|<script|<link|@import|url\(", body)
        assert 'name="viewport" content="width=device-width, initial-scale=1"' in body
        style = re.search(r"<style>(.*)</style>", body, re.DOTALL)
        assert style
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        policy = answer.headers["content-security-policy"]
        assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.slow
async def test_a_page_fits_a_narrow_phone_and_its_button_can_be_pressed(
    app: App, world: World, chromium: str
) -> None:
    path = link(app, "letter", world.person("张三"))
    async with served(app) as client, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 360, "height": 640})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        await page.goto(str(client._build_url(path)))
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        box = await page.get_by_role("button", name="不再收信").bounding_box()
        assert box is not None
        assert box["height"] >= 48  # the style was let through, and a thumb can hit it
        await page.get_by_role("button", name="不再收信").click()
        assert await page.get_by_role("paragraph").all_inner_texts() == ["好的，不再打扰。"]
        assert complaints == []
        await browser.close()


# - bad requests and bugs -


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[str]]]:
    """What is logged meanwhile."""
    stream = io.StringIO()
    with logging_restored():
        logs.configure("INFO", (), stream)
        yield lambda: stream.getvalue().splitlines()


async def test_a_bug_is_answered_with_a_number_that_the_log_knows(
    app: App, log_lines: Callable[[], list[str]]
) -> None:
    async with served(app) as client:
        answer = await client.get("/broken")
        body = await answer.text()
    assert answer.status == 503
    number = re.fullmatch(r"暂时无法处理，请稍后再试（编号([0-9A-F]{6})）。", body)
    assert number
    told = [json.loads(line) for line in log_lines()]
    failures = [line for line in told if line["event"] == "request_failed"]
    assert [(line["id"], line["error"]) for line in failures] == [(number[1], "RuntimeError")]
    assert "13812345678" not in "".join(log_lines())
    assert "张三" not in "".join(log_lines())


async def test_a_body_that_is_too_large_is_refused_however_it_is_sent(app: App) -> None:
    async def in_pieces() -> AsyncIterator[bytes]:
        for _piece in range(web.BODY_LIMIT // 1024 + 1):
            yield b"x" * 1024

    async with served(app) as client:
        fits = await client.post("/echo", data=b"x" * web.BODY_LIMIT)
        assert await fits.text() == str(web.BODY_LIMIT)
        assert (await client.post("/echo", data=b"x" * (web.BODY_LIMIT + 1))).status == 413
        assert (await client.post("/echo", data=in_pieces())).status == 413


async def test_a_body_that_does_not_come_is_given_up_and_costs_no_endpoint() -> None:
    told: list[Message] = []

    async def endpoint(*_asgi: object) -> None:
        raise AssertionError("asked without a body")

    async def never() -> Message:
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        told.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await web.Guard(endpoint, seconds=0.02)(scope, never, send)
    assert told[0]["status"] == 408
    assert (b"connection", b"close") in told[0]["headers"]


@pytest.mark.parametrize("path", ["/", "/callback/unknown", "/p/", "/p/a/b", "/docs", "/%00"])
async def test_unknown_addresses_are_not_found_and_carry_the_same_headers(
    app: App, path: str
) -> None:
    async with served(app) as client:
        answer = await client.get(path)
        assert answer.status == 404
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


async def test_bytes_that_are_no_request_are_answered_with_400(app: App) -> None:
    async with served(app) as client:
        address = client._base_url
        assert address is not None
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 400")


# - starting and stopping -


async def test_a_taken_port_is_named_in_one_line() -> None:
    with web.listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            web.listen("127.0.0.1", port)
    assert str(refused.value) == f"端口 {port} 正被另一个程序使用；请停掉它，或用 --port 换一个。"


async def test_a_request_under_way_is_answered_before_the_server_stops(app: App) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        await go_on.wait()
        return Response("done")

    listening = web.listen("127.0.0.1", 0)
    address, stop = web.address_of(listening), asyncio.Event()
    more = [Route("/slow", slow)]
    server = asyncio.create_task(web.serve(app, listening, ["web"], more=more, stop=stop))
    async with aiohttp.ClientSession(address) as client, asyncio.timeout(5):
        asked = asyncio.create_task(client.get("/slow"))
        await begun.wait()
        stop.set()
        go_on.set()
        assert await (await asked).text() == "done"
        await server
