"""The WeCom platform (企业微信) on 127.0.0.1: one corporation and one self-built app of it.

As of 2026-11-21, after developer.work.weixin.qq.com/document/path: 90238 (回调), 90239, 90240
(消息与事件), 90241 (被动回复), 90236 (发送应用消息), 94945 (更新模版卡片消息), 91039 (gettoken).
"Fact n" is a line of the project's list of platform facts. What could not be confirmed in those
pages stands in `Rules` with the mark [from memory].

Other products of the platform live in files beside this one and share the members, the tokens, the
faults and the app's callback: they add their endpoints with `open_doors` and their events with
`push`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xmltodict
from aiohttp import web
from wechatpy.crypto import PrpCrypto

from tests.emulators.clock import VirtualClock
from tests.emulators.control import control
from tests.emulators.faults import Fallible, answer_with
from tests.emulators.pushing import Push, Pusher, Signed
from tests.emulators.wechat import Line, Refused, elements

Json = dict[str, Any]
Door = Callable[[web.Request], Awaitable[Json]]
"""Answers one endpoint; raises Refused with the platform's errcode."""

HOUR, DAY = 3600, 86400

ERRORS = {
    -1: "system busy",
    40001: "invalid credential",
    40004: "invalid media type",
    40006: "invalid file size",
    40007: "invalid media_id",
    40008: "invalid message type",
    40009: "invalid image size",
    40013: "invalid corpid",
    40014: "invalid access_token",
    40031: "invalid user list",
    40056: "invalid agentid",
    40058: "invalid parameter",
    42001: "access_token expired",
    44004: "empty content",
    45002: "content size out of limit",
    45009: "api freq out of limit",
    45033: "api concurrent out of limit",
    47001: "data format error",
    48002: "api forbidden for apps",
    50003: "app is disabled",
    60020: "not allow to access from your ip, hint: [1], from ip: 203.0.113.7",
    93000: "invalid webhook url, hint: [1], from ip: 203.0.113.7",
    81013: "user & party & tag all invalid",
    301002: "no permission to operate this agent",
}


@dataclass(frozen=True, slots=True)
class Corporation:
    """What the admin console shows; the product is configured with the same values."""

    corp_id: str = "ww5823bf96d3bd56c7"
    agent_id: int = 1000002
    secret: str = "an-app-secret-of-nobody"
    token: str = "QDG6eK"
    aes_key: str = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"


@dataclass(frozen=True, slots=True)
class Rules:
    """The platform's numbers; seconds unless they say otherwise."""

    tries: int = 3
    patience: float = 5
    token_life: int = 7200
    text_bytes: int = 2048
    file_bytes: int = 20 * 1024 * 1024
    image_bytes: int = 10 * 1024 * 1024  # [from memory]
    file_least: int = 6
    media_life: int = 3 * DAY
    per_minute: int | None = 30
    per_hour: int | None = 1000
    duplicate_check: int = 1800
    duplicate_most: int = 4 * HOUR
    card_life: int = 72 * HOUR
    card_refused: int = 40058  # a response_code that is used, old or unknown [from memory]
    resigned_per_try: bool = True  # [from memory]


@dataclass(slots=True)
class Member:
    """One member of the staff; `visible`: the app may reach them."""

    userid: str
    name: str = ""
    visible: bool = True
    sends: list[float] = field(default_factory=list)
    dropped: int = 0
    transcript: list[Line] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Card:
    """A template card with buttons, and who was sent it."""

    shown: Json
    people: list[str]

    @property
    def keys(self) -> list[str]:
        """Of its buttons."""
        return _keys(self.shown)


class Tokens:
    """Access tokens of each secret: while one lives, it is given again."""

    def __init__(self, clock: VirtualClock, life: int) -> None:
        self._clock = clock
        self._life = life
        self._by_secret: dict[str, tuple[str, float]] = {}
        self._valid: dict[str, tuple[str, float]] = {}

    def give(self, secret: str) -> tuple[str, int]:
        """The token of a secret and the seconds that it still lives."""
        now = self._clock.timestamp()
        token, until = self._by_secret.get(secret, ("", 0.0))
        if until <= now:
            token, until = f"wtok_{secrets.token_hex(64)}", now + self._life
            self._by_secret[secret] = (token, until)
            self._valid[token] = (secret, until)
        return token, int(until - now)

    def owner(self, token: str) -> str:
        """The secret that a token was given for; raises Refused."""
        secret, until = self._valid.get(token, ("", 0.0))
        if not secret:
            raise Refused(40014)
        if self._clock.timestamp() >= until:
            raise Refused(42001)
        return secret

    def kill(self) -> None:
        """All tokens die before their time, as the platform reserves itself."""
        self._by_secret.clear()
        self._valid.clear()


class WeCom(Fallible):
    """One corporation, its members, and the API at `<url>/qy/cgi-bin/…`.

    `secrets` are those of all its apps that may ask for a token.
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        callback_url: str = "",
        corporation: Corporation | None = None,
        rules: Rules | None = None,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.corporation = corporation or Corporation()
        self.rules = rules or Rules()
        self.secrets: set[str] = {self.corporation.secret}
        self.members: dict[str, Member] = {}
        self.tokens = Tokens(clock, self.rules.token_life)
        self.calls: Counter[str] = Counter()
        self.sent: list[Json] = []
        self.ip_allowed = True
        self.enabled = True
        self.numbers = itertools.count(7_100_000_000_000_001)
        self.media: dict[str, tuple[str, bytes, float]] = {}
        self._doors: dict[str, Door] = {}
        self._without_token = {"gettoken"}
        self.cards: list[Card] = []
        self._codes: dict[str, tuple[Card, float]] = {}
        self._seen: dict[tuple[str, str], float] = {}
        self._crypto = PrpCrypto(base64.b64decode(self.corporation.aes_key + "="))
        self.pushes = Pusher(
            clock,
            tries=self.rules.tries,
            patience=self.rules.patience,
            seal=self._seal,
            take=self._take,
            gave_up=lambda push: None,
            resigned=self.rules.resigned_per_try,
        )
        self.pushes.url = callback_url
        self.open_doors(
            {
                "gettoken": self._gettoken,
                "agent/get": self._agent_get,
                "media/upload": self._media_upload,
                "message/send": self._message_send,
                "message/update_template_card": self._update_card,
            }
        )

    async def close(self) -> None:
        await self.pushes.close()

    def open_doors(self, doors: Mapping[str, Door], *, without_token: bool = False) -> None:
        """Answer more endpoints, named as after `/qy/cgi-bin/`."""
        self._doors |= doors
        if without_token:
            self._without_token |= set(doors)

    # What members do -----------------------------------------------------------------------------

    @control
    def hire(self, userid: str, name: str = "", visible: bool = True) -> None:
        """A new member of the staff; the platform tells nobody of it."""
        self.members[userid.lower()] = Member(userid, name, visible)

    def member(self, userid: str) -> Member:
        """A member by UserID, in either case; raises KeyError."""
        return self.members[userid.lower()]

    @control
    def show_app(self, userid: str, visible: bool = True) -> Push:
        """The administrator changes the app's visible range: (un)subscribe."""
        self.member(userid).visible = visible
        return self.event(userid, "subscribe" if visible else "unsubscribe", {"EventKey": ""})

    @control
    def enter(self, userid: str) -> Push:
        return self.event(userid, "enter_agent", {"EventKey": ""})

    @control
    def say(self, userid: str, text: str) -> Push:
        return self._message(userid, "text", {"Content": text}, text)

    @control
    def send_image(self, userid: str) -> Push:
        fields = {"PicUrl": "http://127.0.0.1/p.jpg", "MediaId": self.keep(b"image")}
        return self._message(userid, "image", fields, "[图片]")

    @control
    def send_voice(self, userid: str) -> Push:
        return self._message(
            userid, "voice", {"MediaId": self.keep(b"voice"), "Format": "amr"}, "[语音]"
        )

    @control
    def send_location(self, userid: str, lat: float, lon: float, label: str = "") -> Push:
        fields = {"Location_X": str(lat), "Location_Y": str(lon), "Scale": "16", "Label": label}
        return self._message(userid, "location", {**fields, "AppType": "wxwork"}, f"[位置] {label}")

    @control
    def click(self, userid: str, key: str) -> Push:
        """Tap an item of the app's menu."""
        return self.event(userid, "click", {"EventKey": key})

    @control
    def tap(self, userid: str, key: str, task_id: str = "") -> Push:
        """Tap a button of a card, the newest one that has it unless `task_id` names one."""
        for card in reversed(self.cards):
            fits = not task_id or card.shown["task_id"] == task_id
            if fits and userid.lower() in card.people and key in card.keys:
                break
        else:
            raise ValueError(f"{userid} was sent no such button: {key}")
        fields = {
            "EventKey": key,
            "TaskId": card.shown["task_id"],
            "CardType": card.shown["card_type"],
            "ResponseCode": self._response_code(card),
        }
        return self.event(userid, "template_card_event", fields)

    # What tests and operators do -----------------------------------------------------------------

    @control
    def kill_tokens(self) -> None:
        self.tokens.kill()

    @control
    def allow_ip(self, allowed: bool) -> None:
        """企业可信IP; without it every call ends as 60020 (fact 51)."""
        self.ip_allowed = allowed

    @control
    def enable(self, enabled: bool) -> None:
        """The administrator switches the app on or off."""
        self.enabled = enabled

    @control
    def repeat_next(self, times: int = 1) -> None:
        self.pushes.repeat_next(times)

    @control
    def hold_next(self, times: int = 1) -> None:
        self.pushes.hold_next(times)

    @control
    def connect(self, callback_url: str) -> None:
        self.pushes.url = callback_url

    @control
    def transcript(self, userid: str) -> list[Line]:
        return self.member(userid).transcript

    @control
    def heard(self, userid: str) -> list[str]:
        """What a member's phone showed of us, in order."""
        return [line.text for line in self.member(userid).transcript if line.by == "app"]

    @control
    def counters(self) -> dict[str, int]:
        """Calls by endpoint since the start."""
        return dict(self.calls)

    @control
    async def verify_url(self) -> bool:
        """The console's check of our address: the echo decrypted, within 1 s, and nothing else."""
        echo = str(secrets.randbelow(10**18))
        encrypt = self._crypto.encrypt(echo, self.corporation.corp_id).decode()
        query = {**self._signed(encrypt), "echostr": encrypt}
        async with self.pushes.client().get(self.pushes.url, params=query) as response:
            return response.status == 200 and await response.read() == echo.encode()

    # Callbacks -----------------------------------------------------------------------------------

    def event(self, userid: str, event: str, fields: Mapping[str, Any] | None = None) -> Push:
        """Something that a member did in the app."""
        told = dict(fields or {})
        self.note(userid, "member", "event", f"[{event}] {told.get('EventKey', '')}".strip())
        agent = {"AgentID": self.corporation.agent_id}
        return self.push({"MsgType": "event", "Event": event, **told, **agent}, userid)

    @control
    def announce(self, event: str, fields: dict[str, Any] | None = None) -> Push:
        """An event that no member did: inactive_alert, change_external_chat, kf_msg_or_event …"""
        return self.push({"MsgType": "event", "Event": event, **(fields or {})}, "sys")

    def push(self, fields: Mapping[str, Any], sender: str, tries: int | None = None) -> Push:
        """Send any callback to the app's address: 0, 5 and 10 s, signed anew (fact 33)."""
        common = {
            "ToUserName": self.corporation.corp_id,
            "FromUserName": sender,
            "CreateTime": int(self.clock.timestamp()),
        }
        return self.pushes.push(Push(sender, {**common, **fields}), tries)

    def _message(self, userid: str, kind: str, fields: Json, shown: str) -> Push:
        if not self.member(userid).visible:
            raise ValueError(f"{userid} does not see the app")
        self.note(userid, "member", kind, shown)
        number = {"MsgId": next(self.numbers), "AgentID": self.corporation.agent_id}
        return self.push({"MsgType": kind, **fields, **number}, userid)

    def _seal(self, push: Push) -> Signed:
        plain = f"<xml>{elements(push.fields)}</xml>"
        encrypt = self._crypto.encrypt(plain, self.corporation.corp_id).decode()
        outer: Json = {"ToUserName": self.corporation.corp_id, "Encrypt": encrypt}
        outer["AgentID"] = push.fields.get("AgentID", "")
        return self._signed(encrypt), f"<xml>{elements(outer)}</xml>".encode()

    def _signed(self, encrypt: str) -> dict[str, str]:
        stamp, nonce = str(int(self.clock.timestamp())), str(secrets.randbelow(10**10))
        return {
            "msg_signature": self._sign(stamp, nonce, encrypt),
            "timestamp": stamp,
            "nonce": nonce,
        }

    def _sign(self, *parts: str) -> str:
        joined = "".join(sorted((self.corporation.token, *parts)))
        return hashlib.sha1(joined.encode(), usedforsecurity=False).hexdigest()

    def _take(self, push: Push, body: bytes) -> None:
        """Read a passive answer; one that cannot be read is shown to nobody."""
        if body in (b"", b"success"):
            return
        try:
            push.answer = self._read_answer(body)
        except Exception as error:  # noqa: BLE001 (whatever is wrong, the member sees nothing)
            push.tries[-1].error = f"unusable answer: {error}"
            return
        kind = str(push.answer["MsgType"])
        shown = push.text or f"[{kind}] {_button_name(push.answer)}".strip()
        self.note(push.openid, "app", kind, shown)

    def _read_answer(self, body: bytes) -> Json:
        sealed: Json = xmltodict.parse(body)["xml"]
        encrypt, stamp, nonce = sealed["Encrypt"], sealed["TimeStamp"], sealed["Nonce"]
        if not hmac.compare_digest(self._sign(stamp, nonce, encrypt), sealed["MsgSignature"]):
            raise ValueError("MsgSignature does not fit")
        answer: Json = xmltodict.parse(self._crypto.decrypt(encrypt, self.corporation.corp_id))
        found: Json = answer["xml"]
        known = ("text", "image", "voice", "video", "news", "update_button", "update_template_card")
        if found["MsgType"] not in known:
            raise ValueError(f"MsgType {found['MsgType']} cannot be answered")
        return found

    def note(self, userid: str, by: str, kind: str, text: str) -> None:
        """A line of the transcript of a member; of nobody for what no member did."""
        member = self.members.get(userid.lower())
        if member is not None:
            member.transcript.append(Line(self.clock.timestamp(), by, kind, text))

    # The API -------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/qy/{endpoint:.+}", self._serve)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        endpoint = request.match_info["endpoint"]
        self.calls[endpoint] += 1

        async def answer() -> web.StreamResponse:
            return await self._answer(endpoint, request)

        fault = self.faults.take(endpoint)
        return await answer_with(fault, request, self.clock, answer, self.error)

    def error(self, code: int) -> web.StreamResponse:
        """The platform's refusal, which has HTTP status 200."""
        return web.json_response({"errcode": code, "errmsg": ERRORS.get(code, "error")})

    async def _answer(self, endpoint: str, request: web.Request) -> web.StreamResponse:
        name = endpoint.removeprefix("cgi-bin/")
        door = self._doors.get(name)
        if door is None:
            return web.Response(status=404, text="404 page not found")
        try:
            if name not in self._without_token:
                self.check_token(request)
            return web.json_response({"errcode": 0, "errmsg": "ok", **await door(request)})
        except Refused as refused:
            return self.error(refused.code)
        except (ValueError, KeyError, TypeError):
            return self.error(47001)

    def check_token(self, request: web.Request) -> str:
        """The secret whose token a call bears; raises Refused."""
        if not self.ip_allowed:
            raise Refused(60020)
        return self.tokens.owner(request.query.get("access_token", ""))

    async def _gettoken(self, request: web.Request) -> Json:
        if request.query.get("corpid") != self.corporation.corp_id:
            raise Refused(40013)
        secret = request.query.get("corpsecret", "")
        if secret not in self.secrets:
            raise Refused(40001)
        token, life = self.tokens.give(secret)
        return {"access_token": token, "expires_in": life}

    async def _agent_get(self, request: web.Request) -> Json:
        self._check_agent(request.query.get("agentid"))
        seen = [{"userid": m.userid} for m in self.members.values() if m.visible]
        return {
            "agentid": self.corporation.agent_id,
            "name": "鸿雁回通",
            "close": int(not self.enabled),
            "allow_userinfos": {"user": seen},
        }

    def _check_agent(self, agent: object) -> None:
        if str(agent) != str(self.corporation.agent_id):
            raise Refused(40056)

    # Media ---------------------------------------------------------------------------------------

    def keep(self, content: bytes, name: str = "", life: float | None = None) -> str:
        """The media id of something that the platform keeps for three days."""
        media = f"media_{next(self.numbers)}"
        until = self.clock.timestamp() + (self.rules.media_life if life is None else life)
        self.media[media] = (name, content, until)
        return media

    def fetch(self, media: object) -> tuple[str, bytes]:
        """Name and content of what is still kept; raises Refused."""
        name, content, until = self.media.get(str(media), ("", b"", 0.0))
        if until <= self.clock.timestamp():
            raise Refused(40007)
        return name, content

    async def read_upload(self, request: web.Request) -> tuple[str, bytes]:
        """Name and content of the form field `media`; raises Refused for a wrong size."""
        form = await request.post()
        file = form["media"]
        if not isinstance(file, web.FileField):
            raise Refused(40058)
        content = file.file.read()
        if not self.rules.file_least <= len(content) <= self.rules.file_bytes:
            raise Refused(40006)
        return file.filename, content

    async def _media_upload(self, request: web.Request) -> Json:
        kind = request.query.get("type", "")
        if kind not in ("image", "voice", "video", "file"):
            raise Refused(40004)
        name, content = await self.read_upload(request)
        if kind == "image" and len(content) > self.rules.image_bytes:
            raise Refused(40009)
        created = str(int(self.clock.timestamp()))
        return {"type": kind, "media_id": self.keep(content, name), "created_at": created}

    # Messages of the app -------------------------------------------------------------------------

    async def _message_send(self, request: web.Request) -> Json:
        """Whoever cannot be reached is listed; only if nobody can it is an error (fact 47)."""
        given = await request.json()
        self._check_agent(given["agentid"])
        if not self.enabled:
            raise Refused(50003)
        kind, shown = self._check_content(given)
        asked = str(given.get("touser", "")).split("|")
        if asked == ["@all"]:
            asked = [member.userid for member in self.members.values() if member.visible]
        if len(asked) > 1000:
            raise Refused(40031)
        reached = [name for name in asked if self._visible(name)]
        if not reached:
            raise Refused(81013)
        answer: Json = {"msgid": f"msg_{next(self.numbers)}"}
        missed = [name.lower() for name in asked if name not in reached]
        if missed:
            answer["invaliduser"] = "|".join(missed)
        if kind == "template_card" and _keys(given[kind]):
            self.cards.append(Card(given[kind], [name.lower() for name in reached]))
            answer["response_code"] = self._response_code(self.cards[-1])
        for name in reached:
            if not self._repeats(given, name):
                self._deliver(given, name, kind, shown)
        return answer

    def _visible(self, userid: str) -> bool:
        member = self.members.get(userid.lower())
        return member is not None and member.visible

    def _repeats(self, given: Json, userid: str) -> bool:
        """The same content to the same member again, if the caller asked to look (fact 48)."""
        if not given.get("enable_duplicate_check"):
            return False
        span = int(given.get("duplicate_check_interval", self.rules.duplicate_check))
        if not 0 < span <= self.rules.duplicate_most:
            raise Refused(40058)
        now = self.clock.timestamp()
        key = (userid.lower(), hashlib.sha256(_content(given).encode()).hexdigest())
        seen = now - self._seen.get(key, -float("inf")) < span
        if not seen:
            self._seen[key] = now
        return seen

    def _deliver(self, given: Json, userid: str, kind: str, shown: str) -> None:
        """Beyond 30 a minute or 1,000 an hour it is dropped, and nobody is told (fact 47)."""
        member, now = self.member(userid), self.clock.timestamp()
        member.sends = [at for at in member.sends if at > now - HOUR]
        minute = sum(at > now - 60 for at in member.sends)
        if _full(minute, self.rules.per_minute) or _full(len(member.sends), self.rules.per_hour):
            member.dropped += 1
            return
        member.sends.append(now)
        self.sent.append(given)
        self.note(userid, "app", kind, shown)

    def _check_content(self, given: Json) -> tuple[str, str]:
        """The kind of a message and what a phone shows of it."""
        kind = given.get("msgtype")
        part: Any = given.get(str(kind))
        match kind:
            case "text" | "markdown":
                content = part["content"]
                if not content:
                    raise Refused(44004)
                shown = content.encode()[: self.rules.text_bytes].decode("utf-8", "ignore")
            case "file" | "image" | "voice" | "video":
                name, _ = self.fetch(part["media_id"])
                shown = f"[{kind}] {name}".strip()
            case "textcard":
                shown = f"{part['title']}\n{part['description']} {part['url']}"
            case "template_card":
                shown = check_card(part)
            case _:
                raise Refused(40008)
        return str(kind), shown

    def _response_code(self, card: Card) -> str:
        """One for each sending and each tap; each serves once, within 72 hours (fact 49)."""
        code = f"rc_{next(self.numbers)}"
        self._codes[code] = (card, self.clock.timestamp() + self.rules.card_life)
        return code

    async def _update_card(self, request: web.Request) -> Json:
        given = await request.json()
        self._check_agent(given["agentid"])
        card, until = self._codes.pop(given["response_code"], (None, 0.0))
        if card is None or until <= self.clock.timestamp():
            raise Refused(self.rules.card_refused)
        wanted = card.people
        if not given.get("atall"):
            wanted = [name.lower() for name in given["userids"]]
        if "button" in given:
            shown = f"[{card.shown['card_type']}] {given['button']['replace_name']}"
        else:
            shown = check_card(given["template_card"])
        for name in wanted:
            if name in card.people:
                self.note(name, "update", "template_card", shown)
        return {"invaliduser": [name for name in wanted if name not in card.people]}


def check_card(card: Json) -> str:
    """What a phone shows of a template card; raises Refused for one that breaks the format."""
    title = card.get("main_title", {})
    buttons = card.get("button_list", [])
    if card["card_type"] not in ("text_notice", "news_notice", "button_interaction"):
        raise Refused(40058)
    if card["card_type"] == "button_interaction" and not 1 <= len(buttons) <= 6:
        raise Refused(40058)
    if card["card_type"] != "button_interaction" and "card_action" not in card:
        raise Refused(40058)
    task = card.get("task_id", "")
    if buttons and not (0 < len(task) <= 128 and set(task) <= _TASK):
        raise Refused(40058)
    if any(not 0 < len(button["key"].encode()) <= 1024 for button in buttons):
        raise Refused(40058)
    lines = (title.get("title", ""), title.get("desc", ""), card.get("sub_title_text", ""))
    names = (f"[{button['text']}]" for button in buttons)
    return "\n".join(filter(None, (*lines, " ".join(names))))


_TASK = set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-@")


def _keys(card: Json) -> list[str]:
    return [button["key"] for button in card.get("button_list", [])]


def _button_name(answer: Json) -> str:
    return str((answer.get("Button") or {}).get("ReplaceName") or "")


def _content(given: Json) -> str:
    kind = given["msgtype"]
    return f"{kind}:{given[kind]!r}"


def _full(sent: int, most: int | None) -> bool:
    return most is not None and sent >= most
