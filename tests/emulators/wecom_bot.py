"""WeCom's smart bot (智能机器人) on 127.0.0.1: callbacks to a URL, or the connection `/openws`.

As of 2026-11-21, after developer.work.weixin.qq.com: 接收消息 (100719), 接收事件 (101027), 被动回复
(101031), 模板卡片 (101032), 加解密 (101033), 主动回复 (101138), 长连接 (101463). "Fact n" is a line
of the project's list of platform facts. What could not be confirmed in those pages stands in
`Rules` with the mark [from memory].
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import html
import itertools
import json
import re
import secrets
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web
from wechatpy.crypto import PrpCrypto

from tests.emulators.clock import VirtualClock
from tests.emulators.control import control
from tests.emulators.faults import Fallible, Fault, answer_with

Json = dict[str, Any]

RESPONSE = "cgi-bin/aibot/response"

ERRORS = {
    -1: "system error",
    40001: "invalid credential",
    40004: "invalid media type",
    40007: "invalid media_id",
    40008: "invalid message type",
    40009: "invalid media size",
    40058: "invalid Request Parameter",
    41051: "response_code has been used or is expired",
    45002: "content size out of limit",
    45009: "api freq out of limit",
    45033: "api concurrent out of limit",
    93006: "invalid chatid",
    846605: "invalid req_id",
    846607: "not subscribed",
    846608: "stream message update expired",
}

PRIVATE_ONLY = frozenset({"image", "voice", "file", "video"})
MEDIA = frozenset({"file", "image", "voice", "video"})


@dataclass(frozen=True, slots=True)
class Account:
    """What the console shows of a bot; the product is configured with the same values."""

    bot_id: str = "aibNobodysBot0001"
    secret: str = "a-bots-secret-of-nobody"
    token: str = "hYbOtTok3n"
    aes_key: str = "kWxPHL1Dux3ZFzIrdLeNKUHgQb9Qu0lmuHLUbnaTPAd"
    name: str = "鸿雁回通"


@dataclass(frozen=True, slots=True)
class Rules:
    """The platform's numbers; seconds and bytes unless they say otherwise."""

    tries: int = 3  # of a message's callback [from memory]
    patience: float = 5
    verify_patience: float = 1
    stream_life: float = 360
    poll_every: float = 1  # between two refreshes of a stream [from memory]
    response_life: float = 3600
    answer_life: float = 24 * 3600
    in_flight: int = 3
    content_bytes: int = 20480
    per_minute: int = 30
    per_hour: int = 1000
    subscribes_per_minute: int = 60  # [from memory]
    refused_secret: int = 40001  # [from memory]
    stranger: int = 93006  # aibot_send_msg to whoever never wrote [from memory]
    too_often: int = 45009  # [from memory]
    used_url: int = 41051  # [from memory]
    chunk_bytes: int = 512 * 1024
    chunks: int = 100
    upload_life: float = 1800
    media_life: float = 3 * 86400
    media_bytes: Mapping[str, int] = field(
        default_factory=lambda: {
            "file": 20 * 1024 * 1024,
            "image": 10 * 1024 * 1024,
            "video": 10 * 1024 * 1024,
            "voice": 2 * 1024 * 1024,
        }
    )


@dataclass(slots=True)
class Line:
    """One thing that a conversation shows."""

    at: float
    by: str
    kind: str
    text: str


@dataclass(slots=True)
class Card:
    """A template card as it stands in a conversation."""

    content: Json

    @property
    def task_id(self) -> str:
        return str(self.content.get("task_id", ""))

    @property
    def labels(self) -> dict[str, tuple[str, str, str]]:
        """What may be pressed: label → (event key, question key, option id)."""
        card = self.content
        found = {b["text"]: (b["key"], "", "") for b in card.get("button_list", ())}
        box = card.get("checkbox")
        if box:
            key = card["submit_button"]["key"]
            found |= {o["text"]: (key, box["question_key"], o["id"]) for o in box["option_list"]}
        return found


@dataclass(slots=True)
class Chat:
    """A conversation with the bot: of one employee, or of an internal group."""

    id: str
    group: bool = False
    bot_inside: bool = True
    spoken: bool = False
    transcript: list[Line] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    sent: deque[float] = field(default_factory=deque)


@dataclass(slots=True)
class Try:
    """One delivery of a callback: when it began and how it ended."""

    at: float
    status: int | None = None
    error: str = ""


@dataclass(slots=True)
class Push:
    """Something on its way to the product, and what came back in the HTTP answer."""

    user: str
    chat: Chat
    fields: Json
    tries: list[Try] = field(default_factory=list)
    answers: list[Json] = field(default_factory=list)
    refused: bool = False
    stream: str = ""
    finished: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def kind(self) -> str:
        """A message's type, or an event's."""
        return str(self.fields.get("event", {}).get("eventtype") or self.fields["msgtype"])

    def shown(self) -> Json:
        """As the control API shows it."""
        return {"answers": self.answers, "refused": self.refused,
                "tries": [asdict(attempt) for attempt in self.tries]}  # fmt: skip

    async def done(self) -> Push:
        """Wait until the last try, and the last refresh of its stream, is over."""
        await self.over.wait()
        return self


@dataclass(slots=True)
class Heard:
    """A callback that went over the long connection; answers name it by its req_id."""

    push: Push
    at: float
    streams: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Upload:
    """A file that arrives in pieces."""

    kind: str
    size: int
    total: int
    md5: str
    until: float
    pieces: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket; `subscribed` once its secret was right."""

    socket: web.WebSocketResponse
    request: web.Request
    subscribed: bool = False


class Refused(Exception):
    """The platform's own error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def shown(markdown: str) -> str:
    """How a phone shows a text: marks take effect and are gone, what is escaped is itself."""
    text = re.sub(r"\\([!-/:-@\[-`{-~])", lambda found: chr(0xE000 + ord(found[1])), markdown)
    text = re.sub(r"(?m)^(#{1,6} |> ?)", "", text)
    text = re.sub(r"!?\[([^\]]*)\]\(([^)]*)\)", r"\1", text)
    text = re.sub(r"</?[A-Za-z][^>]*>", "", text)
    text = re.sub(r"(\*\*|~~|[*_`])(?=\S)(.+?)(?<=\S)\1", r"\2", text)
    text = re.sub(r"(?m)^[-*+] ", "• ", html.unescape(text))
    return re.sub("[\ue021-\ue07e]", lambda found: chr(ord(found[0]) - 0xE000), text)


def check_card(card: Json) -> None:
    """Refuse a card that breaks the limits of WC-101032."""
    kind = card.get("card_type")
    title, desc = (str(card.get("main_title", {}).get(name, "")) for name in ("title", "desc"))
    wrong = [
        kind not in {"text_notice", "news_notice", "button_interaction", "vote_interaction",
                     "multiple_interaction"},
        len(title) > 26 or len(desc) > 30,
        len(str(card.get("sub_title_text", ""))) > 112,
        len(card.get("horizontal_content_list", ())) > 6,
        len(card.get("jump_list", ())) > 3,
    ]  # fmt: skip
    if kind in ("text_notice", "news_notice"):
        wrong.append(not card.get("card_action"))
    else:
        wrong.append(not re.fullmatch(r"[0-9A-Za-z_\-@]{1,128}", str(card.get("task_id", ""))))
        wrong.append(not title)
    if kind == "button_interaction":
        buttons = card.get("button_list", ())
        wrong.append(not 1 <= len(buttons) <= 6)
        wrong += [
            not 0 < len(b["text"]) <= 10
            or not 0 < len(b["key"].encode()) <= 1024
            or b.get("style", 1) not in (1, 2, 3, 4)
            for b in buttons
        ]
    if kind == "vote_interaction":
        options = card.get("checkbox", {}).get("option_list", ())
        wrong.append(not 1 <= len(options) <= 20 or not card.get("submit_button", {}).get("key"))
        wrong.append(card.get("checkbox", {}).get("mode", 0) not in (0, 1))
    if any(wrong):
        raise Refused(40058)


class WeComBot(Fallible):
    """One bot of one enterprise, its employees and internal groups.

    `mode` is what the administrator chose: `url` (callbacks to `callback_url`) or `socket`; each
    turns the other off.
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        callback_url: str = "",
        account: Account | None = None,
        rules: Rules | None = None,
        mode: str = "url",
    ) -> None:
        super().__init__()
        self.clock = clock
        self.callback_url = callback_url
        self.account = account or Account()
        self.rules = rules or Rules()
        self.mode = mode
        self.url = ""
        self.chats: dict[str, Chat] = {}
        self.calls: Counter[str] = Counter()
        self.media: dict[str, float] = {}
        self.files: dict[str, bytes] = {}
        self.live: Connection | None = None
        self.connections = 0
        self._heard: dict[str, Heard] = {}
        self._uploads: dict[str, Upload] = {}
        self._codes: dict[str, tuple[Chat, float]] = {}
        self._tasks_seen: set[str] = set()
        self._subscribed_at: deque[float] = deque()
        self._flying: dict[str, list[Push]] = {}
        self._numbers = itertools.count(1)
        self._crypto = PrpCrypto(base64.b64decode(self.account.aes_key + "="))
        self._repeats = 0
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.live is not None:
            await self.live.socket.close()
        if self._session is not None:
            await self._session.close()

    # What people do ------------------------------------------------------------------------------

    @control
    def hire(self, user: str) -> None:
        """An employee who may see the bot."""
        self.chats.setdefault(user, Chat(user))

    @control
    def group(self, chatid: str) -> None:
        """An internal group with the bot in it."""
        self.chats.setdefault(chatid, Chat(chatid, group=True))

    @control
    def say(self, user: str, text: str, group: str = "") -> Push:
        """Type a text; in a group it mentions the bot, or it would not reach it."""
        content = f"@{self.account.name} {text}" if group else text
        return self._message(user, "text", {"text": {"content": content}}, text, group)

    @control
    def say_as_typed(self, user: str, content: str, group: str = "") -> Push:
        """A text that holds the mention where the person put it."""
        return self._message(user, "text", {"text": {"content": content}}, content, group)

    @control
    def send(self, user: str, kind: str, group: str = "") -> Push | None:
        """A picture, voice message, file or video; in a group it never arrives (fact 38)."""
        body = {"content": "听到的话"} if kind == "voice" else {"url": self._media_url()}
        if group and kind in PRIVATE_ONLY:
            self._note(self.chats[group], user, kind, f"[{kind}]")
            return None
        return self._message(user, kind, {kind: body}, f"[{kind}]", group)

    @control
    def send_mixed(self, user: str, text: str, group: str = "") -> Push:
        """A text with a picture in it."""
        content = f"@{self.account.name} {text}" if group else text
        items = [
            {"msgtype": "text", "text": {"content": content}},
            {"msgtype": "image", "image": {"url": self._media_url()}},
        ]
        return self._message(user, "mixed", {"mixed": {"msg_item": items}}, text, group)

    @control
    def press(self, user: str, label: str, group: str = "") -> Push:
        """Press a button of the newest card that has it; told once, 5 s, never again (fact 34)."""
        chat = self.chats[group or user]
        card = next(card for card in reversed(chat.cards) if label in card.labels)
        key, question, option = card.labels[label]
        event: Json = {
            "card_type": card.content["card_type"],
            "event_key": key,
            "task_id": card.task_id,
        }
        if question:
            picked = [{"question_key": question, "option_ids": {"option_id": [option]}}]
            event["selected_items"] = {"selected_item": picked}
        return self._event(user, "template_card_event", event, group)

    @control
    def enter(self, user: str) -> Push:
        """Open the conversation for the first time that day."""
        return self._event(user, "enter_chat", {})

    @control
    def rate(self, user: str, answer: str = "stream-1") -> Push:
        """A thumb up; the answer must be empty."""
        return self._event(user, "feedback_event", {"id": answer, "type": 1})

    @control
    def happen(self, user: str, event: str, group: str = "") -> Push:
        """Any other event."""
        return self._event(user, event, {}, group)

    @control
    def leave(self, chat: str) -> None:
        """The bot is taken out of a group, or of what an employee may see."""
        self.chats[chat].bot_inside = False

    # What tests and operators do -----------------------------------------------------------------

    @control
    def connect(self, callback_url: str) -> None:
        self.callback_url = callback_url

    @control
    def repeat_next(self, times: int = 1) -> None:
        """The next pushes arrive twice although they were answered."""
        self._repeats += times

    @control
    async def hang_up(self, code: int = 1000) -> None:
        """The server closes the connection cleanly."""
        if self.live is not None:
            await self.live.socket.close(code=code)

    @control
    def cut(self) -> None:
        """The connection is gone without a word (1006)."""
        if self.live is not None and self.live.request.transport is not None:
            self.live.request.transport.abort()

    @control
    def transcript(self, chat: str) -> list[Line]:
        return self.chats[chat].transcript

    @control
    def heard(self, chat: str) -> list[str]:
        """The texts that a conversation received from the bot, in order, as a phone shows them."""
        kinds = {"text", "markdown", "stream"}
        lines = self.chats[chat].transcript
        return [shown(line.text) for line in lines if line.by == "bot" and line.kind in kinds]

    @control
    def offered(self, chat: str) -> list[str]:
        """What may be pressed on the newest card."""
        cards = self.chats[chat].cards
        return list(cards[-1].labels) if cards else []

    @control
    def counters(self) -> dict[str, int]:
        return dict(self.calls)

    @control
    async def verify_url(self) -> bool:
        """The console's check: the plain echostr in a second and not a letter more (fact 31)."""
        plain = str(secrets.randbelow(10**18))
        encrypt = self._crypto.encrypt(plain, "").decode()
        query = self._query(encrypt) | {"echostr": encrypt}
        timeout = aiohttp.ClientTimeout(total=self.rules.verify_patience)
        call = self._client().get(self.callback_url, params=query, timeout=timeout)
        try:
            async with call as response:
                return response.status == 200 and await response.text() == plain
        except TimeoutError:
            return False

    # Callbacks -----------------------------------------------------------------------------------

    def _message(self, user: str, kind: str, fields: Json, text: str, group: str) -> Push:
        chat = self.chats[group or user]
        self._note(chat, user, kind, text)
        push = Push(user, chat, self._common(user, chat) | {"msgtype": kind, **fields})
        flying = [one for one in self._flying.get(user, ()) if not one.over.is_set()]
        if self.mode == "url" and len(flying) >= self.rules.in_flight:  # fact 37
            push.refused = True
            push.over.set()
            self._note(chat, "platform", "busy", "机器人正在处理，请稍后再试")
            return push
        self._flying[user] = [*flying, push]
        chat.spoken = True
        return self._push(push)

    def _event(self, user: str, kind: str, fields: Json, group: str = "") -> Push:
        chat = self.chats[group or user]
        self._note(chat, user, "event", f"[{kind}]")
        event = {"eventtype": kind, **({kind: fields} if fields else {})}
        common = self._common(user, chat) | {"create_time": int(self.clock.timestamp())}
        if kind != "template_card_event":
            common.pop("response_url", None)
        return self._push(Push(user, chat, common | {"msgtype": "event", "event": event}))

    def _common(self, user: str, chat: Chat) -> Json:
        fields: Json = {
            "msgid": f"CAIQ/{next(self._numbers):08d}+{secrets.token_hex(4)}=",
            "aibotid": self.account.bot_id,
            "chattype": "group" if chat.group else "single",
            "from": {"userid": user},
        }
        if chat.group:
            fields["chatid"] = chat.id
        if self.mode == "url":
            code = secrets.token_urlsafe(24)
            self._codes[code] = (chat, self.clock.timestamp() + self.rules.response_life)
            fields["response_url"] = f"{self.url}/{RESPONSE}?response_code={code}"
        return fields

    def _push(self, push: Push) -> Push:
        times = 1
        if self._repeats:
            self._repeats -= 1
            times = 2
        for _time in range(times):
            if self.mode == "url":
                self._start(self._deliver(push))
            else:
                self._start(self._tell(push))
        return push

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, push: Push) -> None:
        """Messages are tried again, events of cards are not."""
        tries = 1 if push.kind == "template_card_event" else self.rules.tries
        for number in range(tries):
            if number:
                rest = push.tries[-1].at + self.rules.patience - self.clock.timestamp()
                await self.clock.wait(max(rest, 0.0))
            body = await self._attempt(push, push.fields)
            if body is not None:
                self._take(push, body)
                break
        if push.stream and not push.finished:
            await self._refresh(push)
        push.over.set()

    async def _refresh(self, push: Push) -> None:
        """Ask for the rest of a stream until it is finished or 6 minutes old (fact 36)."""
        until = self.clock.timestamp() + self.rules.stream_life
        common = {k: v for k, v in push.fields.items() if k in ("aibotid", "chatid", "chattype",
                                                                "from")}  # fmt: skip
        while not push.finished and self.clock.timestamp() < until:
            await self.clock.wait(self.rules.poll_every)
            ask = common | {"msgtype": "stream", "stream": {"id": push.stream}}
            ask["msgid"] = f"REFRESH/{next(self._numbers)}"
            body = await self._attempt(push, ask)
            if body:
                self._take(push, body)

    async def _attempt(self, push: Push, fields: Json) -> tuple[bytes, str] | None:
        """The body of a 200 and the nonce it must repeat; None for all else, or too late."""
        attempt = Try(self.clock.timestamp())
        push.tries.append(attempt)
        encrypt = self._crypto.encrypt(json.dumps(fields, ensure_ascii=False), "").decode()
        query = self._query(encrypt)
        call = asyncio.ensure_future(self._post(query, {"encrypt": encrypt}))
        pause = asyncio.ensure_future(self.clock.wait(self.rules.patience))
        try:
            await asyncio.wait({call, pause}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                attempt.error = "timeout"
                return None
            attempt.status, body = call.result()
        except (aiohttp.ClientError, OSError) as error:
            attempt.error = type(error).__name__
            return None
        finally:
            call.cancel()
            pause.cancel()
        return (body, query["nonce"]) if attempt.status == 200 else None

    async def _post(self, query: dict[str, str], body: Json) -> tuple[int, bytes]:
        async with self._client().post(self.callback_url, params=query, json=body) as response:
            return response.status, await response.read()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None)
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self._session

    def _query(self, encrypt: str) -> dict[str, str]:
        stamp, nonce = str(int(self.clock.timestamp())), str(secrets.randbelow(10**10))
        signature = self._sign(stamp, nonce, encrypt)
        return {"msg_signature": signature, "timestamp": stamp, "nonce": nonce}

    def _sign(self, *parts: str) -> str:
        joined = "".join(sorted((self.account.token, *parts)))
        return hashlib.sha1(joined.encode(), usedforsecurity=False).hexdigest()

    def _take(self, push: Push, received: tuple[bytes, str]) -> None:
        """Read an HTTP answer as strictly as the platform; a bad one shows nothing."""
        body, nonce = received
        if not body:
            return
        try:
            answer = self._open(body, nonce)
            self._show_answer(push, answer)
        except Exception as error:  # noqa: BLE001  # whatever is wrong, nothing is shown
            push.tries[-1].error = f"unusable answer: {error!r}"
            return
        push.answers.append(answer)

    def _open(self, body: bytes, nonce: str) -> Json:
        sealed = json.loads(body)
        signature = self._sign(str(sealed["timestamp"]), sealed["nonce"], sealed["encrypt"])
        if not hmac.compare_digest(signature, sealed["msgsignature"]):
            raise ValueError("msgsignature does not fit")
        if not isinstance(sealed["timestamp"], int) or sealed["nonce"] != nonce:
            raise ValueError("timestamp or nonce is wrong")
        found: Json = json.loads(self._crypto.decrypt(sealed["encrypt"], ""))
        return found

    def _show_answer(self, push: Push, answer: Json) -> None:
        kind = push.kind
        if kind == "feedback_event":
            raise ValueError("feedback must be answered with nothing")
        if kind == "template_card_event":
            self._update_card(push, answer)
            return
        form = answer["msgtype"]
        allowed = {"stream", "template_card", "stream_with_template_card"}
        if kind == "enter_chat":
            allowed = {"text", "template_card"}
        if form not in allowed:
            raise ValueError(f"{kind} cannot be answered with {form}")
        if form == "text":
            self._note(push.chat, "bot", "text", answer["text"]["content"])
        if "stream" in form:
            self._show_stream(push, answer["stream"])
        if "template_card" in form:
            self._show_card(push.chat, answer["template_card"])

    def _show_stream(self, push: Push, stream: Json) -> None:
        if push.stream and stream["id"] != push.stream:
            raise ValueError("another stream")
        content = self._content(stream.get("content", ""))
        if push.stream:
            line = next(x for x in reversed(push.chat.transcript) if x.kind == "stream")
            line.text = content
        else:
            self._note(push.chat, "bot", "stream", content)
        push.stream, push.finished = stream["id"], bool(stream["finish"])

    def _content(self, text: str) -> str:
        if not text or len(text.encode()) > self.rules.content_bytes:
            raise Refused(45002)
        return text

    def _show_card(self, chat: Chat, card: Json) -> None:
        check_card(card)
        if card.get("task_id"):
            if card["task_id"] in self._tasks_seen:
                raise Refused(40058)
            self._tasks_seen.add(card["task_id"])
        chat.cards.append(Card(card))
        self._note(chat, "bot", "card", card["main_title"]["title"])

    def _update_card(self, push: Push, answer: Json) -> None:
        if answer.get("response_type") != "update_template_card":
            raise Refused(40058)
        card = answer["template_card"]
        check_card(card)
        wanted = push.fields["event"]["template_card_event"]["task_id"]
        if card["task_id"] != wanted:
            raise Refused(40058)
        standing = next(one for one in push.chat.cards if one.task_id == wanted)
        standing.content = card
        text = f"{card['main_title']['title']} {card.get('sub_title_text', '')}".strip()
        self._note(push.chat, "bot", "update", text)

    def _note(self, chat: Chat, by: str, kind: str, text: str) -> None:
        chat.transcript.append(Line(self.clock.timestamp(), by, kind, text))

    def _media_url(self) -> str:
        return f"{self.url}/media/{secrets.token_hex(8)}"

    # The later answer: response_url --------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"/qy/{RESPONSE}", self._serve_response),
            web.get("/openws", self._serve_socket),
        ]

    async def _serve_response(self, request: web.Request) -> web.StreamResponse:
        self.calls[RESPONSE] += 1

        async def answer() -> web.StreamResponse:
            try:
                self._respond_later(request.query.get("response_code", ""), await request.json())
            except Refused as refused:
                return _error(refused.code)
            except (KeyError, TypeError, ValueError):
                return _error(40058)
            return _error(0)

        fault = self.faults.take(RESPONSE)
        return await answer_with(fault, request, self.clock, answer, _error)

    def _respond_later(self, code: str, body: Json) -> None:
        """Once, within the hour (fact 35)."""
        chat, until = self._codes.get(code, (None, 0.0))
        if chat is None or self.clock.timestamp() >= until:
            raise Refused(self.rules.used_url)
        if not chat.bot_inside:
            raise Refused(93006)
        if body["msgtype"] not in ("markdown", "template_card"):
            raise Refused(40008)
        self._count(chat)
        self._show(chat, body)
        del self._codes[code]

    def _show(self, chat: Chat, body: Json) -> None:
        kind = body["msgtype"]
        if kind == "markdown":
            self._note(chat, "bot", kind, self._content(body["markdown"]["content"]))
        elif kind == "template_card":
            self._show_card(chat, body["template_card"])
        elif kind in MEDIA:
            media = body[kind]["media_id"]
            if self.media.get(media, 0.0) <= self.clock.timestamp():
                raise Refused(40007)
            self._note(chat, "bot", kind, media)
        else:
            raise Refused(40008)

    def _count(self, chat: Chat) -> None:
        """Answers and pushes together, by conversation (fact 45)."""
        now = self.clock.timestamp()
        while chat.sent and chat.sent[0] <= now - 3600:
            chat.sent.popleft()
        in_minute = sum(at > now - 60 for at in chat.sent)
        if in_minute >= self.rules.per_minute or len(chat.sent) >= self.rules.per_hour:
            raise Refused(self.rules.too_often)
        chat.sent.append(now)

    # The long connection -------------------------------------------------------------------------

    async def _tell(self, push: Push) -> None:
        event = push.fields["msgtype"] == "event"
        req_id = secrets.token_hex(12)
        attempt = Try(self.clock.timestamp())
        push.tries.append(attempt)
        if self.live is None:
            attempt.error = "not connected"
        else:
            self._heard[req_id] = Heard(push, self.clock.timestamp())
            cmd = "aibot_event_callback" if event else "aibot_msg_callback"
            frame = {"cmd": cmd, "headers": {"req_id": req_id}, "body": push.fields}
            await self.live.socket.send_json(frame, dumps=_dumps)
        push.over.set()

    @control
    async def garble(self, text: str = "{not json") -> None:
        """A frame that nobody understands."""
        assert self.live is not None
        await self.live.socket.send_str(text)

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        self.calls["openws"] += 1
        if (fault := self.faults.take("openws")) is not None:
            return await answer_with(fault, request, self.clock, _nothing, _error)
        socket = web.WebSocketResponse(max_msg_size=2 * 1024 * 1024)
        await socket.prepare(request)
        self.connections += 1
        connection = Connection(socket, request)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    # Not awaited: a stalled command must not hold up the ones behind it.
                    self._start(self._command(connection, json.loads(message.data)))
        finally:
            if self.live is connection:
                self.live = None
        return socket

    async def _command(self, connection: Connection, frame: Json) -> None:
        cmd, req_id = frame["cmd"], frame["headers"]["req_id"]
        self.calls[cmd] += 1
        fault = self.faults.take(cmd)
        if fault is not None and fault.when == "before" and not await self._spoil(fault, frame):
            if fault.what == "cut" and connection.request.transport is not None:
                connection.request.transport.abort()
            if fault.what == "errcode":
                await _ack(connection, req_id, int(fault.value))
            return
        code, body = 0, None
        try:
            body = await self._obey(connection, cmd, req_id, frame.get("body") or {})
        except Refused as refused:
            code = refused.code
        except (KeyError, TypeError, ValueError):
            code = 40058
        if fault is not None and fault.when == "after":
            if fault.what == "cut" and connection.request.transport is not None:
                connection.request.transport.abort()
            return
        await _ack(connection, req_id, code, body)

    async def _spoil(self, fault: Fault, frame: Json) -> bool:
        """Wait out a delay; True if the command then goes on."""
        if fault.what == "delay":
            await self.clock.wait(fault.value)
        return fault.what == "delay"

    async def _obey(self, connection: Connection, cmd: str, req_id: str, body: Json) -> Json | None:
        if cmd == "aibot_subscribe":
            await self._subscribe(connection, body)
            return None
        if cmd == "ping":
            return None
        if not connection.subscribed:
            raise Refused(846607)
        commands: dict[str, Callable[[str, Json], Json | None]] = {
            "aibot_send_msg": self._send_msg,
            "aibot_respond_msg": self._respond_msg,
            "aibot_respond_welcome_msg": self._respond_welcome,
            "aibot_respond_update_msg": self._respond_update,
            "aibot_upload_media_init": self._upload_init,
            "aibot_upload_media_chunk": self._upload_chunk,
            "aibot_upload_media_finish": self._upload_finish,
        }
        if cmd not in commands:
            raise Refused(40058)
        return commands[cmd](req_id, body)

    async def _subscribe(self, connection: Connection, body: Json) -> None:
        """One live connection a bot: a newer one ends the older, politely (fact 39)."""
        now = self.clock.timestamp()
        while self._subscribed_at and self._subscribed_at[0] <= now - 60:
            self._subscribed_at.popleft()
        self._subscribed_at.append(now)
        if len(self._subscribed_at) > self.rules.subscribes_per_minute:
            raise Refused(45033)
        if (body["bot_id"], body["secret"]) != (self.account.bot_id, self.account.secret):
            raise Refused(self.rules.refused_secret)
        if self.mode != "socket":
            raise Refused(40058)
        older, self.live = self.live, connection
        connection.subscribed = True
        if older is not None and older is not connection:
            event = {"eventtype": "disconnected_event"}
            body = {"msgtype": "event", "event": event, "aibotid": self.account.bot_id}
            frame = {"cmd": "aibot_event_callback", "headers": {"req_id": "x"}, "body": body}
            older.subscribed = False
            await older.socket.send_json(frame)
            self._start(_close(older.socket))

    def _send_msg(self, _req_id: str, body: Json) -> None:
        chat = self.chats.get(body["chatid"])
        if chat is None or chat.group != (body["chat_type"] == 2) or not chat.bot_inside:
            raise Refused(93006)
        if not chat.spoken:
            raise Refused(self.rules.stranger)  # fact 44
        self._count(chat)
        self._show(chat, body)

    def _heard_by(self, req_id: str, life: float, *kinds: str) -> Heard:
        heard = self._heard.get(req_id)
        if heard is None or (kinds and heard.push.kind not in kinds):
            raise Refused(846605)
        if self.clock.timestamp() > heard.at + life:
            raise Refused(846605)
        return heard

    def _respond_msg(self, req_id: str, body: Json) -> None:
        heard = self._heard_by(req_id, self.rules.answer_life)
        if heard.push.fields["msgtype"] == "event":
            raise Refused(846605)
        if not heard.push.chat.bot_inside:
            raise Refused(93006)
        self._count(heard.push.chat)
        if body["msgtype"] == "stream":
            self._respond_stream(heard, body["stream"])
        else:
            self._show(heard.push.chat, body)

    def _respond_stream(self, heard: Heard, stream: Json) -> None:
        """Content replaces what stood there; 6 minutes after the first part it is over."""
        if "msg_item" in stream:
            raise Refused(40058)
        content, now = self._content(stream["content"]), self.clock.timestamp()
        begun = heard.streams.get(stream["id"])
        if begun is None:
            heard.streams[stream["id"]] = now
            self._note(heard.push.chat, "bot", "stream", content)
            return
        if now > begun + self.rules.stream_life:
            raise Refused(846608)
        lines = heard.push.chat.transcript
        line = next(x for x in reversed(lines) if (x.kind, x.at) == ("stream", begun))
        line.text = content

    def _respond_welcome(self, req_id: str, body: Json) -> None:
        heard = self._heard_by(req_id, self.rules.patience, "enter_chat")
        if body["msgtype"] == "text":
            self._note(heard.push.chat, "bot", "text", body["text"]["content"])
        else:
            self._show_card(heard.push.chat, body["template_card"])

    def _respond_update(self, req_id: str, body: Json) -> None:
        heard = self._heard_by(req_id, self.rules.patience, "template_card_event")
        self._update_card(heard.push, body)

    # Files in pieces (fact 46) -------------------------------------------------------------------

    def _upload_init(self, _req_id: str, body: Json) -> Json:
        kind, size, total = body["type"], int(body["total_size"]), int(body["total_chunks"])
        if kind not in self.rules.media_bytes or not body["filename"]:
            raise Refused(40004)
        if not 5 < size <= self.rules.media_bytes[kind] or not 1 <= total <= self.rules.chunks:
            raise Refused(40009)
        upload_id = secrets.token_hex(8)
        until = self.clock.timestamp() + self.rules.upload_life
        self._uploads[upload_id] = Upload(kind, size, total, body["md5"], until)
        return {"upload_id": upload_id}

    def _upload(self, body: Json) -> Upload:
        upload = self._uploads.get(body["upload_id"])
        if upload is None or self.clock.timestamp() >= upload.until:
            raise Refused(40058)
        return upload

    def _upload_chunk(self, _req_id: str, body: Json) -> None:
        upload, index = self._upload(body), int(body["chunk_index"])
        piece = base64.b64decode(body["base64_data"], validate=True)
        if not 0 <= index < upload.total or not 0 < len(piece) <= self.rules.chunk_bytes:
            raise Refused(40009)
        upload.pieces.setdefault(index, piece)

    def _upload_finish(self, _req_id: str, body: Json) -> Json:
        upload = self._upload(body)
        if len(upload.pieces) != upload.total:
            raise Refused(40058)
        content = b"".join(upload.pieces[index] for index in range(upload.total))
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if len(content) != upload.size or digest != upload.md5:
            raise Refused(40058)
        del self._uploads[body["upload_id"]]
        media, now = f"media-{secrets.token_hex(8)}", self.clock.timestamp()
        self.media[media], self.files[media] = now + self.rules.media_life, content
        return {"type": upload.kind, "media_id": media, "created_at": int(now)}


async def _ack(connection: Connection, req_id: str, code: int, body: Json | None = None) -> None:
    if connection.socket.closed:
        return
    frame: Json = {"headers": {"req_id": req_id}, "errcode": code,
                   "errmsg": "ok" if not code else ERRORS.get(code, "error")}  # fmt: skip
    if body is not None:
        frame["body"] = body
    await connection.socket.send_json(frame)


async def _close(socket: web.WebSocketResponse) -> None:
    await socket.close(code=WSCloseCode.OK)


async def _nothing() -> web.StreamResponse:
    return web.Response(status=503)


def _error(code: int) -> web.Response:
    return web.json_response({"errcode": code, "errmsg": ERRORS.get(code, "ok")})


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
