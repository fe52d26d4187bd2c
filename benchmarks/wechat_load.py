"""Encrypted WeChat messages made beforehand, and a client that keeps so many connections busy."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from bot.channels.envelope import Envelope, cdata

APP_ID = "wx5823bf96d3bd56c7"
TOKEN = "QDG6eK"
AES_KEY = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
QUESTIONS = 10
TEXTS = ("开始", *["5"] * QUESTIONS)


@dataclass(frozen=True)
class Load:
    """What a run measured: messages a second, latencies in milliseconds, answers without words."""

    rate: float
    p50: float
    p99: float
    silent: int


def requests(
    people: int, texts: Sequence[str], path: str, first: int, stride: int = 1
) -> list[bytes]:
    """Everybody says the first text, then everybody the second …: whole HTTP requests.

    `first` is the first message's number; of the possible people every `stride`-th writes.
    """
    envelope = Envelope(TOKEN, AES_KEY, APP_ID)
    made = []
    for number, text in enumerate(texts):
        for person in range(people):
            made.append(
                _request(
                    envelope, path, f"o{person * stride}", text, first + number * people + person
                )
            )
    return made


def _request(envelope: Envelope, path: str, user: str, text: str, message_id: int) -> bytes:
    now, nonce = int(time.time()), secrets.token_hex(5)
    plain = (
        f"<xml><ToUserName>{cdata('gh_bench')}</ToUserName>"
        f"<FromUserName>{cdata(user)}</FromUserName><CreateTime>{now}</CreateTime>"
        f"<MsgType>{cdata('text')}</MsgType><Content>{cdata(text)}</Content>"
        f"<MsgId>{message_id}</MsgId></xml>"
    )
    sealed = envelope.seal(plain, now, nonce)
    body = (
        f"<xml><ToUserName>{cdata('gh_bench')}</ToUserName>"
        f"<Encrypt>{cdata(sealed.encrypt)}</Encrypt></xml>"
    ).encode()
    query = urlencode(
        {
            "signature": envelope.sign(str(now), nonce),
            "timestamp": now,
            "nonce": nonce,
            "openid": user,
            "encrypt_type": "aes",
            "msg_signature": sealed.signature,
        }
    )
    head = (
        f"POST {path}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/xml\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def drive(port: int, messages: Sequence[bytes], connections: int) -> Load:
    """Send all, each connection waiting for its answer; raises unless every answer is 200."""
    pending = iter(messages)
    latencies: list[float] = []
    silent = 0

    async def one() -> None:
        nonlocal silent
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for message in pending:
            started = time.perf_counter()
            writer.write(message)
            silent += not await _answered(reader)
            latencies.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    seconds = time.perf_counter() - started
    latencies.sort()
    return Load(
        len(messages) / seconds,
        latencies[len(latencies) // 2] * 1000,
        latencies[len(latencies) * 99 // 100] * 1000,
        silent,
    )


async def _answered(reader: asyncio.StreamReader) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.split(b"\r\n")[0].decode())
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            body = await reader.readexactly(int(line.split(b":")[1]))
            return b"Encrypt" in body
    raise RuntimeError("an answer without a length")
