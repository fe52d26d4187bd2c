"""The whole installation behind its HTTP doors, in this process, and a knock at any of them.

A knock is one request made of any bytes: as what somebody says, as what a platform would seal, or
as the bare request. Whatever they are, the installation must answer calmly: see `Knocked.wrong`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlencode
from zlib import crc32

import structlog
from alembic import command
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from sqlmodel import select

from bot import web
from bot.app import CHANNELS, App, build_channels, facts_of, services_for
from bot.channels.envelope import cdata
from bot.clock import BEIJING, MovableClock
from bot.messages import Address
from bot.settings import demo_settings
from storage.db import Database, alembic_config
from storage.people import Contact, Grant, OneTimeCode, Person
from storage.tables import METADATA
from tests import delta_team
from tests.world import KEYS, OFFICE

NOON = datetime(2026, 9, 22, 9, 0, tzinfo=BEIJING)
TOKEN = "QDG6eK"
AES_KEY = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
APP_ID = "wx5823bf96d3bd56c7"
CORP_ID = "ww5823bf96d3bd56c7"
SECRET = "a-secret-of-nobody-at-all"
BOT = "110201543"
PAGE = "a-token-of-nobody-at-all"
NOWHERE = "http://127.0.0.1:9"  # nothing listens there, so that no call leaves
SLOW = 50.0  # milliseconds of processor time that one input may take
REPEATS = 3
PEOPLE = 16
OFFICES = {"领导": "leader", "管理员": "admin", "评审员": "reviewer", "专员": "privacy_officer"}
STAFF = (delta_team.LEADER, delta_team.MEMBER, delta_team.OFFICE, delta_team.LIAISON, *OFFICES)
"""Who the first of the people on WeChat are."""
CALM = frozenset({"info", "debug", "warning"})


class Way(StrEnum):
    """Which door the bytes are carried through, and as what."""

    WECHAT_SAID = "wechat_said"
    WECHAT_SEALED = "wechat_sealed"
    WECHAT_BODY = "wechat_body"
    WECHAT_QUERY = "wechat_query"
    WECOM_SAID = "wecom_said"
    WECOM_SEALED = "wecom_sealed"
    WECOM_BODY = "wecom_body"
    WECOM_QUERY = "wecom_query"
    BOT_SAID = "bot_said"
    BOT_SEALED = "bot_sealed"
    BOT_BODY = "bot_body"
    TELEGRAM_SAID = "telegram_said"
    TELEGRAM_JSON = "telegram_json"
    PAGE = "page"
    HEADERS = "headers"


NEEDS = {
    "wechat": ("wechat", "/callback/wechat", APP_ID),
    "wecom": ("wecom", "/callback/wecom", CORP_ID),
    "bot": ("wecom_bot", "/callback/wecom-bot", ""),
    "telegram": ("telegram", "/callback/telegram", ""),
}
"""By the first word of a way: its channel, its path, and for whom its envelopes are sealed."""


def ways() -> list[Way]:
    """The ways that this version has channels for."""
    absent = {name for name, (channel, *_) in NEEDS.items() if channel not in CHANNELS}
    return [way for way in Way if way.partition("_")[0] not in absent]


@dataclass(frozen=True)
class Call:
    """One request, as ASGI has it."""

    method: str
    path: str
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


@dataclass(frozen=True)
class Knocked:
    """How a request ended: its status, the processor time it took, and what was complained of."""

    status: int
    millis: float
    complaints: tuple[str, ...]

    @property
    def wrong(self) -> str:
        """What must not happen, or nothing. How long it took is judged apart."""
        if self.status >= 500:
            return f"status {self.status} {' '.join(self.complaints)}".strip()
        return " ".join(self.complaints)


@dataclass
class Doors:
    """One installation in `folder`, with every channel that is called from outside."""

    folder: Path
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = MovableClock(NOON)
        settings = demo_settings(
            database_url=f"sqlite:///{self.folder}/doors.db",
            channels=",".join(c for c, *_ in NEEDS.values() if c in CHANNELS),
            public_url="https://bot.example.org",
            wechat_app_id=APP_ID,
            wechat_app_secret=SECRET,
            wechat_token=TOKEN,
            wechat_aes_key=AES_KEY,
            wechat_api_base=NOWHERE,
            wecom_corp_id=CORP_ID,
            wecom_agent_id="1000002",
            wecom_secret=SECRET,
            wecom_token=TOKEN,
            wecom_aes_key=AES_KEY,
            wecom_bot_token=TOKEN,
            wecom_bot_aes_key=AES_KEY,
            wecom_api_base=NOWHERE,
            telegram_token=f"{BOT}:{SECRET}{SECRET}",
            telegram_api_base=NOWHERE,
            telegram_mode="webhook",
            telegram_secret=SECRET,
            telegram_policy="full",
            telegram_filing="演练评估1号",
            **OFFICE,
        )
        channels = build_channels(settings, self.clock)
        services = services_for(settings, facts_of(channels), keys=KEYS, clock=self.clock)
        METADATA.create_all(services.database.engine)
        with services.database.transaction() as connection:
            config = alembic_config()
            config.attributes["connection"] = connection
            command.stamp(config, "head")
        self.app = App(services, channels, alone=True)
        self.app.dispatcher.start()
        self._serve = web.application(self.app)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._complain)
        self._lay_page()
        self._lay_staff()

    @property
    def database(self) -> Database:
        return self.app.services.database

    def grant(self, who: str, role: str, **limits: Any) -> int:
        """Give somebody of `STAFF` a role; returns their id."""
        user = STAFF.index(who)
        address = str(Address("wechat", APP_ID, f"o{user}"))
        self.knock(say(Way.WECHAT_SAID, user, "菜单", 10 + user))
        with self.database.session() as session:
            contact = session.exec(select(Contact).where(Contact.address == address)).one()
            granted = Grant(person_id=contact.person_id, role=role, granted_at=NOON, **limits)
            session.add(granted)
            return contact.person_id

    def _lay_staff(self) -> None:
        """A field team and people of every office, so that the staff's forms are entered too."""
        delta_team.lay(self)  # type: ignore[arg-type]  # all that it asks of a world is above
        for who, role in OFFICES.items():
            self.grant(who, role)

    def _lay_page(self) -> None:
        """A page that is open, so that not every token leads nowhere."""
        now = self.clock.now()
        with self.app.services.database.session() as session:
            person = Person(created_at=now)
            session.add(person)
            session.flush()
            session.add(
                OneTimeCode(
                    kind="page",
                    digest=self.app.services.keys.digest(PAGE),
                    person_id=person.id,
                    payload=json.dumps({"page": "export"}),
                    created_at=now,
                    expires_at=now + timedelta(days=1),
                )
            )

    def _complain(self, _loop: object, context: Mapping[str, Any]) -> None:
        self.complaints.append(f"loop: {context.get('exception') or context.get('message')!r}")

    def knock(self, call: Call) -> Knocked:
        """Make a request and wait for its answer."""
        self.complaints.clear()
        began = time.process_time()
        status = self._loop.run_until_complete(self._asked(call))
        millis = (time.process_time() - began) * 1000
        return Knocked(status, millis, tuple(self.complaints))

    async def _asked(self, call: Call) -> int:
        statuses: list[int] = []
        told = False

        async def receive() -> dict[str, Any]:
            nonlocal told
            if told:
                return {"type": "http.disconnect"}
            told = True
            return {"type": "http.request", "body": call.body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            elif b"Traceback" in message.get("body", b""):
                self.complaints.append("a traceback was shown")

        await self._serve(_scope(call), receive, send)  # type: ignore[arg-type]  # plain dicts serve
        return statuses[0] if statuses else 0

    def close(self) -> None:
        """End the installation."""
        self.app.dispatcher.stop()
        for channel in self.app.channels.values():
            self._loop.run_until_complete(channel.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self.app.close()


def _scope(call: Call) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": call.query,
        "headers": list(call.headers),
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8080),
    }


@contextmanager
def doors(folder: Path) -> Iterator[Doors]:
    """An installation, warm, whose complaints are what it logs as an error or with a traceback."""
    made = Doors(folder)
    root, before = logging.getLogger(), structlog.get_config()

    def keep(_logger: object, method: str, event: dict[str, Any]) -> Any:
        if method not in CALM or event.get("exc_info"):
            made.complaints.append(" ".join(f"{name}={event[name]}" for name in sorted(event)))
        raise structlog.DropEvent

    listening = _Listening(made.complaints)
    root.addHandler(listening)
    structlog.configure(processors=[keep])
    try:
        for way in ways():
            made.knock(dressed(way, "菜单".encode(), 0))
        yield made
    finally:
        made.close()
        structlog.configure(**before)
        root.removeHandler(listening)


class _Listening(logging.Handler):
    """Other people's libraries: an error, or any line with a traceback."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__()
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self._complaints.append(f"{record.name}: {record.getMessage()}")


# - bytes as requests -


def dressed(way: Way, data: bytes, number: int) -> Call:
    """`data` as a request of this kind; `number` makes the id of a message fresh."""
    return _DRESSES[way.partition("_")[2]](way, data, number)


def _said(way: Way, data: bytes, number: int) -> Call:
    """By one of a few people, so that forms are opened, filled in and left."""
    return say(way, crc32(data) % PEOPLE, data.decode("utf-8", "replace"), number)


def say(way: Way, user: int, text: str, number: int) -> Call:
    """Somebody says something, in whatever way their platform tells it."""
    if way is Way.TELEGRAM_SAID:
        return _telegram(json.dumps(telegram_update(number, user, text=text)).encode())
    if way is Way.BOT_SAID:
        return sealed(way, json.dumps(bot_message(number, user, text)).encode())
    return sealed(way, xml_message(number, user, text).encode())


def _sealed(way: Way, data: bytes, _number: int) -> Call:
    return sealed(way, data)


def _body(way: Way, data: bytes, _number: int) -> Call:
    """As the body of a request that is otherwise well signed, as far as that can be."""
    _channel, path, _receive_id = NEEDS[way.partition("_")[0]]
    return Call("POST", path, _signed(""), (), data)


def _query(way: Way, data: bytes, number: int) -> Call:
    """As the console's check of our address, or as the query of a message."""
    _channel, path, _receive_id = NEEDS[way.partition("_")[0]]
    return Call("POST" if number % 4 == 0 else "GET", path, data, (), b"")


def _json(_way: Way, data: bytes, _number: int) -> Call:
    return _telegram(data)


def _page(_way: Way, data: bytes, number: int) -> Call:
    """As the token of a phone page; now and then the one that is open."""
    token = PAGE if number % 8 == 0 else data[:4096].decode("utf-8", "replace")
    return Call("POST" if data[:1] == b"p" else "GET", f"/p/{token}", data[:256])


def _headers(_way: Way, data: bytes, number: int) -> Call:
    """As headers, one a line, of a request to any door."""
    lines = [line.partition(b":") for line in data.split(b"\n")[:64]]
    headers = tuple((name.strip().lower(), value.strip()) for name, _colon, value in lines)
    known = [path for _channel, path, _id in NEEDS.values()]
    path = [*known, "/healthz", "/readyz", "/metrics", f"/p/{PAGE}x", "/"][number % 9]
    method = ("GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "X")[number % 7]
    return Call(method, path, _signed(""), headers, data)


_DRESSES: Mapping[str, Callable[[Way, bytes, int], Call]] = {
    "said": _said,
    "sealed": _sealed,
    "body": _body,
    "query": _query,
    "json": _json,
    "": lambda way, data, number: (_page if way is Way.PAGE else _headers)(way, data, number),
}


def _telegram(body: bytes) -> Call:
    headers = (
        (b"content-type", b"application/json"),
        (b"x-telegram-bot-api-secret-token", SECRET.encode()),
    )
    return Call("POST", "/callback/telegram", b"", headers, body)


def sealed(way: Way, plain: bytes) -> Call:
    """`plain` in a genuine envelope: encrypted and signed by somebody who has the keys."""
    name = way.partition("_")[0]
    _channel, path, receive_id = NEEDS[name]
    encrypt = _encrypted(plain, receive_id.encode())
    if name == "bot":
        body = json.dumps({"encrypt": encrypt}).encode()
    else:
        body = f"<xml><ToUserName>x</ToUserName><Encrypt>{cdata(encrypt)}</Encrypt></xml>".encode()
    return Call("POST", path, _signed(encrypt), (), body)


def _encrypted(plain: bytes, receive_id: bytes) -> str:
    """As the platform does, but of any bytes: our own `Envelope.seal` takes text only."""
    key = base64.b64decode(AES_KEY + "=")
    content = bytes(16) + len(plain).to_bytes(4, "big") + plain + receive_id
    pad = 32 - len(content) % 32
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(content + bytes((pad,)) * pad)).decode()


def _signed(encrypt: str) -> bytes:
    stamp, nonce = str(int(NOON.timestamp())), "n1"
    query = {
        "timestamp": stamp,
        "nonce": nonce,
        "signature": _signature(stamp, nonce),
        "msg_signature": _signature(stamp, nonce, encrypt),
    }
    return urlencode(query).encode()


def _signature(*parts: str) -> str:
    joined = "".join(sorted((TOKEN, *parts))).encode()
    return hashlib.sha1(joined, usedforsecurity=False).hexdigest()


def echo(way: Way, plain: bytes) -> bytes:
    """The query of the console's check, with `plain` as what it wants to read."""
    if way is Way.WECHAT_QUERY:
        return _signed("") + b"&echostr=" + quote_from_bytes(plain).encode()
    encrypt = _encrypted(plain, CORP_ID.encode())
    return _signed(encrypt) + b"&echostr=" + quote_from_bytes(encrypt.encode()).encode()


# - what platforms say when nothing is wrong -


def xml_message(number: int, user: int, text: str) -> str:
    """A text, as WeChat and WeCom tell it."""
    return (
        f"<xml><ToUserName>{cdata('gh_doors')}</ToUserName>"
        f"<FromUserName>{cdata(f'o{user}')}</FromUserName>"
        f"<CreateTime>{int(NOON.timestamp())}</CreateTime><MsgType>{cdata('text')}</MsgType>"
        f"<Content>{cdata(text)}</Content><MsgId>{number}</MsgId><AgentID>1000002</AgentID></xml>"
    )


def xml_event(number: int, user: int, event: str, fields: str = "") -> str:
    """An event of either."""
    return (
        f"<xml><ToUserName>{cdata('gh_doors')}</ToUserName>"
        f"<FromUserName>{cdata(f'o{user}')}</FromUserName>"
        f"<CreateTime>{int(NOON.timestamp()) - number}</CreateTime><MsgType>event</MsgType>"
        f"<Event>{cdata(event)}</Event>{fields}<AgentID>1000002</AgentID></xml>"
    )


def bot_message(number: int, user: int, text: str) -> dict[str, Any]:
    """A text to the smart bot."""
    return {
        "msgid": f"m{number}",
        "aibotid": "bot",
        "chattype": "single",
        "from": {"userid": f"u{user}"},
        "response_url": f"{NOWHERE}/cgi-bin/aibot/response?response_code=r{number}",
        "msgtype": "text",
        "text": {"content": text},
    }


def telegram_update(number: int, user: int, **content: Any) -> dict[str, Any]:
    """A private message of the Bot API."""
    who = {"id": 1000 + user, "is_bot": False, "first_name": "乡亲"}
    message = {
        "message_id": number,
        "date": int(NOON.timestamp()),
        "chat": {"id": 1000 + user, "type": "private", "first_name": "乡亲"},
        "from": who,
        **content,
    }
    return {"update_id": number, "message": message}
