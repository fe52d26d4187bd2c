"""The way out of an office: a CONNECT proxy on 127.0.0.1, and platforms behind TLS with real names.

The proxy lets nothing out. Behind the names it knows stand servers on 127.0.0.1 with certificates
of an authority made for the test; every name that is asked for is written down.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from multidict import CIMultiDict

from bot.clock import SystemClock

DAY = timedelta(days=1)
HOP_BY_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Host", "Upgrade")


class Authority:
    """Signs certificates that nobody but this test believes; `file` is what SSL_CERT_FILE names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of a test")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self._own = (
            self._begun(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> Any:
        now = SystemClock().now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )

    def server(self, host: str) -> ssl.SSLContext:
        """What a server needs to be believed under this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._begun(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(issuer, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{host}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


class _StandIn:
    """One host name: speaks TLS and hands every request to a plain server on 127.0.0.1."""

    def __init__(self, target: str, trust: ssl.SSLContext) -> None:
        self._target = target.rstrip("/")
        self._trust = trust
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.port = 0

    async def open(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes([web.route("*", "/{path:.*}", self._serve)])
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._trust).start()
        self.port = self._runner.addresses[0][1]
        self._session = aiohttp.ClientSession(auto_decompress=False)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._bridge(request, self._session)
        try:
            async with self._session.request(
                request.method,
                self._address(request),
                data=await request.read(),
                headers=_onward(request.headers),
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
        except aiohttp.ClientError:
            # Cut as it was cut behind us.
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)
        return web.Response(status=answer.status, body=body, headers=_onward(answer.headers))

    def _address(self, request: web.Request) -> str:
        path = "" if request.raw_path == "/" else request.raw_path
        return f"{self._target}{path}"

    async def _bridge(
        self, request: web.Request, session: aiohttp.ClientSession
    ) -> web.StreamResponse:
        near = web.WebSocketResponse(autoping=False)
        await near.prepare(request)
        async with session.ws_connect(self._address(request), autoping=False) as far:
            both = [asyncio.create_task(_pass_on(*pair)) for pair in ((near, far), (far, near))]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            await near.close(code=far.close_code or 1000)
        return near


async def _pass_on(source: Any, target: Any) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.PING:
            await target.ping(message.data)
        elif message.type is aiohttp.WSMsgType.PONG:
            await target.pong(message.data)


def _onward(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in HOP_BY_HOP:
        kept.popall(name, None)
    return kept


@dataclass
class Proxy:
    """`async with Proxy(authority, {"api.example.org": "http://127.0.0.1:…"}) as proxy:`.

    `asked` are the names that were asked for, `refused` those of them that nobody stands for.
    """

    authority: Authority
    behind: Mapping[str, str]
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    url: str = ""
    _ports: dict[str, int] = field(default_factory=dict)
    _targets: dict[str, str] = field(default_factory=dict)
    _open: AsyncExitStack = field(default_factory=AsyncExitStack)
    _tunnels: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        for host, target in self.behind.items():
            await self.stand_for(host, target)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._open.push_async_callback(self._shut, server)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    def behind_name(self, host: str) -> str:
        """The plain server on 127.0.0.1 that stands behind a name."""
        return self._targets[host]

    async def stand_for(self, host: str, target: str) -> None:
        """From now on a plain server on 127.0.0.1 answers under this name."""
        stand_in = _StandIn(target, self.authority.server(host))
        await stand_in.open()
        self._open.push_async_callback(stand_in.close)
        self._ports[host], self._targets[host] = stand_in.port, target

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnel = asyncio.current_task()
        assert tunnel is not None
        self._tunnels.add(tunnel)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._connect(reader, writer)
        finally:
            self._tunnels.discard(tunnel)
            writer.close()

    async def _shut(self, server: asyncio.Server) -> None:
        server.close()
        tunnels = list(self._tunnels)
        for tunnel in tunnels:
            tunnel.cancel()
        await asyncio.gather(*tunnels, return_exceptions=True)
        await server.wait_closed()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, address, _version = head.split(b"\r\n", 1)[0].decode("ascii").split()
        tunnel = method == "CONNECT"
        host = address.rpartition(":")[0] if tunnel else (urlsplit(address).hostname or address)
        self.asked.append(host)
        port = self._ports.get(host) if tunnel and address.endswith(":443") else None
        if port is None:
            self.refused.append(host)
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
