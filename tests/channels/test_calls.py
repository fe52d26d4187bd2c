"""Calls to platforms go through the operator's proxy and trust the authorities they name."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bot.channels.calls import Caller
from bot.channels.wechat.menu import Button, client, create_menu
from bot.errors import SendError

pytestmark = pytest.mark.anyio

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts until they name it, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "authority.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@asynccontextmanager
async def platform(pem: Path | None = None) -> AsyncIterator[tuple[str, list[str]]]:
    """Answers every POST; yields its address and the request lines it saw."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(f"{request.method} {request.raw_path}")
        return web.json_response({"errcode": 0})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    context = None
    if pem is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    scheme = "http" if pem is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("variable", VARIABLES)
async def test_an_authority_that_the_operator_names_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    pem = certificate(tmp_path)
    for each in VARIABLES:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(variable, str(pem))
    async with platform(pem) as (url, seen):
        caller = Caller(url)
        assert await caller.post("send", {"a": 1}) == {"errcode": 0}
        await caller.close()
        made = client(url, "wx1", "tok_1", (1, 3))
        assert await asyncio.to_thread(create_menu, made, [Button("登记")]) == (0, "ok")
        assert seen == ["POST /send", "POST /cgi-bin/menu/create?access_token=tok_1"]


async def test_an_authority_that_nobody_named_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in VARIABLES:
        monkeypatch.delenv(each, raising=False)
    async with platform(certificate(tmp_path)) as (url, seen):
        caller = Caller(url)
        with pytest.raises(SendError) as caught:
            await caller.post("send", {"a": 1})
        await caller.close()
        assert (caught.value.reason, caught.value.unknown, seen) == ("no_connection", False, [])


async def test_a_proxy_that_the_operator_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with platform() as (url, seen):
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("http_proxy", url)
        caller = Caller("http://platform.invalid")
        assert await caller.post("send", {"a": 1}) == {"errcode": 0}
        await caller.close()
        assert seen == ["POST http://platform.invalid/send"]


async def test_what_is_sent_is_not_escaped() -> None:
    bodies: list[bytes] = []

    async def keep(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.read())
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/send", keep)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    caller = Caller(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await caller.post("send", {"content": "家乡\ud800"})
    await caller.close()
    await runner.cleanup()
    assert bodies == ['{"content": "家乡?"}'.encode()]
