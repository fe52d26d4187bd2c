"""The WeChat Official Account platform (认证服务号) on 127.0.0.1.

As of 2026-11-21, after developers.weixin.qq.com/doc/service: 接收普通消息, 接收事件推送, 被动回复,
客服消息 (api_sendcustommessage), api_getstableaccesstoken, Template_Message_Interface, Batch_Sends.
"Fact n" is a line of the project's list of platform facts. What could not be confirmed in those
pages stands in `Rules` with the mark [from memory].
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import math
import secrets
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

import xmltodict
from aiohttp import web
from wechatpy.crypto import PrpCrypto

from tests.emulators.clock import VirtualClock
from tests.emulators.control import control
from tests.emulators.faults import Fallible, answer_with
from tests.emulators.pushing import Push, Pusher, Signed

BEIJING = ZoneInfo("Asia/Shanghai")
UNAVAILABLE = "该公众号暂时无法提供服务，请稍后再试"

MESSAGE = (5, 48 * 3600)
"""A member's message opens 5 messages for 48 hours (fact 11)."""
TAP = (3, 60)
"""Following, scanning or a click opens 3 messages for a minute (facts 10, 12)."""

ERRORS = {
    -1: "system error",
    40001: "invalid credential, access_token is invalid or not latest",
    40003: "invalid openid",
    40007: "invalid media_id",
    40008: "invalid message type",
    40013: "invalid appid",
    40037: "invalid template_id",
    40125: "invalid appsecret",
    40130: "invalid openid list size, at least two openid",
    40164: "invalid ip 127.0.0.1, not in whitelist",
    42001: "access_token expired",
    43004: "require subscribe",
    43101: "user refuse to accept the msg",
    44004: "empty content",
    45002: "content size out of limit",
    45008: "article size out of limit",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    45015: "response out of time limit or subscription is canceled",
    45028: "has no masssend quota",
    45047: "out of response count limit",
    45065: "clientmsgid exist",
    47001: "data format error",
    47003: "argument invalid",
    48001: "api unauthorized",
    46003: "menu no exist",
    48002: "user block receive message",
    48008: "no permission for this msgtype",
}


@dataclass(frozen=True, slots=True)
class Account:
    """What the console shows of an account; the product is configured with the same values."""

    app_id: str = "wx5823bf96d3bd56c7"
    secret: str = "a-secret-of-nobody"
    token: str = "QDG6eK"
    aes_key: str = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
    gh_id: str = "gh_hongyan"


@dataclass(frozen=True, slots=True)
class Rules:
    """The platform's numbers; seconds unless they say otherwise."""

    tries: int = 3
    patience: float = 5
    token_life: int = 7200
    token_overlap: int = 300  # for the classic token [from memory]
    classic_per_day: int = 2000
    forced_per_day: int = 20
    forced_gap: int = 30
    custom_per_day: int = 500_000
    custom_per_minute: int = 100_000  # [from memory]
    text_bytes: int = 2048  # [from memory]
    media_life: int = 3 * 86400
    mass_per_minute: int = 60
    mass_per_month: int = 4
    mass_delay: float = 5  # until MASSSENDJOBFINISH [from memory]
    mass_protected: bool = False  # the console's API 群发保护
    approval_life: float = 1800
    refused_status: str = "err(10001)"  # [from memory]
    previews_per_day: int = 100  # [from memory]
    template_delay: float = 1  # until TEMPLATESENDJOBFINISH [from memory]
    resigned_per_try: bool = True  # [from memory]
    mass_protects_lists: bool = False  # 群发保护 for sends to a list as well [from memory]
    repeats_name_the_job: bool = True  # 45065 tells the msg_id of the first [from memory]
    message_menus: bool = True  # may the account send msgmenu?
    image_bytes: int = 10 * 1024 * 1024  # [from memory]
    template_per_day: int = 100_000


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that a member's phone shows, or that the member did."""

    at: float
    by: str
    kind: str
    text: str


@dataclass(slots=True)
class Window:
    """How many customer-service messages may still be sent until when."""

    left: int
    until: float


@dataclass(slots=True)
class Member:
    """One person's WeChat."""

    openid: str
    unionid: str = ""
    following: bool = False
    accepts_messages: bool = True
    blocked: bool = False
    scene: str = ""
    windows: list[Window] = field(default_factory=list)
    grants: Counter[str] = field(default_factory=Counter)
    lasting: set[str] = field(default_factory=set)
    mass_received: Counter[str] = field(default_factory=Counter)
    transcript: list[Line] = field(default_factory=list)


class Refused(Exception):
    """The platform's own error code."""

    def __init__(self, code: int, **more: Any) -> None:
        super().__init__(code)
        self.code = code
        self.more = more


class Tokens:
    """Access tokens of both kinds, which know nothing of each other (facts 20, 21)."""

    def __init__(self, clock: VirtualClock, rules: Rules) -> None:
        self._clock = clock
        self._rules = rules
        self._valid_until: dict[str, float] = {}
        self._killed: set[str] = set()
        self._stable = self._classic = ""
        self._forced_at: list[float] = []

    def check(self, token: str) -> None:
        until = self._valid_until.get(token)
        if until is None or token in self._killed:
            raise Refused(40001)
        if self._clock.timestamp() >= until:
            raise Refused(42001)

    def kill(self) -> None:
        """All tokens die at once, as after a change of the secret."""
        self._killed.update(self._valid_until)
        self._stable = self._classic = ""

    def stable(self, *, force: bool) -> tuple[str, int]:
        """The same token on each call; renewed in its last 5 minutes, the old one then living on.

        So `expires_in` is never below 300. Forcing kills the old one: 20 a day, 30 s apart.
        """
        now = self._clock.timestamp()
        if force:
            self._force(now)
        until = self._valid_until.get(self._stable, 0.0)
        if until - now < 300:
            self._stable = self._issue(now)
            until = self._valid_until[self._stable]
        return self._stable, int(until - now)

    def classic(self) -> tuple[str, int]:
        """A new token on each call; the one before lives a few minutes more."""
        now = self._clock.timestamp()
        if self._classic:
            until = self._valid_until[self._classic]
            self._valid_until[self._classic] = min(until, now + self._rules.token_overlap)
        self._classic = self._issue(now)
        return self._classic, self._rules.token_life

    def _issue(self, now: float) -> str:
        token = f"tok_{secrets.token_hex(64)}"
        self._valid_until[token] = now + self._rules.token_life
        return token

    def _force(self, now: float) -> None:
        today = _day(self._clock)
        recent = [at for at in self._forced_at if at > now - 86400]
        self._forced_at = recent
        if recent and now - recent[-1] < self._rules.forced_gap:
            raise Refused(45011)
        if sum(_day_of(at) == today for at in recent) >= self._rules.forced_per_day:
            raise Refused(45009)
        self._forced_at.append(now)
        self._killed.add(self._stable)
        self._stable = ""


def _day(clock: VirtualClock) -> str:
    return clock.now().astimezone(BEIJING).date().isoformat()


def _day_of(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).astimezone(BEIJING).date().isoformat()


class WeChat(Fallible):
    """One Official Account, its members, and the API at `<url>/mp/cgi-bin/…`.

    `callback_url` is the product's address; `mode` is the console's 安全模式 (`safe`), 兼容模式
    (`compatible`) or 明文模式 (`plain`).
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        callback_url: str = "",
        account: Account | None = None,
        rules: Rules | None = None,
        mode: str = "safe",
    ) -> None:
        super().__init__()
        self.clock = clock
        self.account = account or Account()
        self.rules = rules or Rules()
        self.mode = mode
        self.members: dict[str, Member] = {}
        self.tokens = Tokens(clock, self.rules)
        self.calls: Counter[str] = Counter()
        self.by_day: Counter[tuple[str, str]] = Counter()
        self.sent: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self._template_keys: dict[tuple[str, str], tuple[datetime, str]] = {}
        self.templates: set[str] = set()
        self.menu: dict[str, Any] = {}
        self.pictures: dict[str, bytes] = {}
        self.verified = True
        self.ip_allowed = True
        self._minutes: dict[str, list[float]] = defaultdict(list)
        self._media: dict[str, float] = {}
        self._jobs: dict[str, int] = {}
        self._job_status: dict[int, str] = {}
        self._approvals: dict[int, asyncio.Event] = {}
        self._codes: dict[str, tuple[str, float]] = {}
        self._numbers = itertools.count(24_000_000_000_000_001)
        self._crypto = PrpCrypto(base64.b64decode(self.account.aes_key + "="))
        self._pushes = Pusher(
            clock,
            tries=self.rules.tries,
            patience=self.rules.patience,
            seal=self._seal,
            take=self._take,
            gave_up=self._show_unavailable,
            resigned=self.rules.resigned_per_try,
        )
        self._pushes.url = callback_url

    async def close(self) -> None:
        await self._pushes.close()

    # What members do -----------------------------------------------------------------------------

    @control
    def follow(self, openid: str, scene: str = "", unionid: str = "") -> Push:
        """Follow, perhaps by a parameter QR: then EventKey has the prefix `qrscene_` (fact 9)."""
        member = self.members.setdefault(openid, Member(openid))
        member.following = True
        member.unionid = unionid or member.unionid
        member.scene = scene
        self._open(member, TAP)
        extra = {"EventKey": f"qrscene_{scene}", "Ticket": f"ticket-{scene}"} if scene else {}
        return self._event(member, "subscribe", {"EventKey": "", **extra})

    @control
    def followed(self, openids: list[str]) -> None:
        """They followed long ago and wrote lately; nothing is told of it any more."""
        for openid in openids:
            member = self.members.setdefault(openid, Member(openid))
            member.following = True
            self._open(member, MESSAGE)

    @control
    def unfollow(self, openid: str) -> Push:
        member = self.members[openid]
        member.following = False
        member.windows.clear()
        return self._event(member, "unsubscribe", {"EventKey": ""})

    @control
    def scan(self, openid: str, scene: str) -> Push:
        """Scan a parameter QR; for a follower a SCAN event without prefix (fact 9)."""
        member = self.members.get(openid)
        if member is None or not member.following:
            return self.follow(openid, scene)
        self._open(member, TAP)
        return self._event(member, "SCAN", {"EventKey": scene, "Ticket": f"ticket-{scene}"})

    @control
    def scan_ticket(self, openid: str, ticket: str) -> Push:
        """Scan a code that `qrcode/create` made; an expired one does nothing (fact 30)."""
        scene, until = self._codes[ticket]
        if self.clock.timestamp() >= until:
            raise ValueError("二维码已过期")
        return self.scan(openid, scene)

    @control
    def say(self, openid: str, text: str, menu_id: str = "") -> Push:
        """Type a text, or (with `menu_id`) tap an item of a message menu, which counts as a tap."""
        fields = {"Content": text, **({"bizmsgmenuid": menu_id} if menu_id else {})}
        return self._message(openid, "text", fields, text, TAP if menu_id else MESSAGE)

    @control
    def send_image(self, openid: str, url: str = "http://127.0.0.1/p.jpg") -> Push:
        return self._message(openid, "image", {"PicUrl": url, "MediaId": self._keep()}, "[图片]")

    @control
    def send_voice(self, openid: str) -> Push:
        fields = {"MediaId": self._keep(), "Format": "amr"}
        return self._message(openid, "voice", fields, "[语音]")

    @control
    def send_video(self, openid: str) -> Push:
        fields = {"MediaId": self._keep(), "ThumbMediaId": self._keep()}
        return self._message(openid, "video", fields, "[视频]")

    @control
    def send_location(self, openid: str, lat: float, lon: float, label: str = "") -> Push:
        fields = {"Location_X": str(lat), "Location_Y": str(lon), "Scale": "16", "Label": label}
        return self._message(openid, "location", fields, f"[位置] {label}")

    @control
    def send_link(self, openid: str, title: str, url: str) -> Push:
        fields = {"Title": title, "Description": "", "Url": url}
        return self._message(openid, "link", fields, f"[链接] {title}")

    @control
    def send_file(self, openid: str, title: str) -> Push:
        """A file, which the platform's documents do not name; some clients send it so."""
        return self._message(openid, "file", {"Title": title, "Description": ""}, f"[文件] {title}")

    @control
    def click(self, openid: str, key: str) -> Push:
        member = self.members[openid]
        self._open(member, TAP)
        return self._event(member, "CLICK", {"EventKey": key})

    @control
    def view(self, openid: str, url: str) -> Push:
        """Tap a menu item that is a link: an event, but no window (fact 12)."""
        return self._event(self.members[openid], "VIEW", {"EventKey": url})

    @control
    def report_location(self, openid: str, lat: float, lon: float) -> Push:
        fields = {"Latitude": str(lat), "Longitude": str(lon), "Precision": "30"}
        return self._event(self.members[openid], "LOCATION", fields)

    @control
    def grant(
        self, openid: str, templates: list[str], accept: bool = True, lasting: bool = False
    ) -> Push:
        """Answer the pop-up that asks for subscription notices (fact 16)."""
        member = self.members[openid]
        if accept and lasting:
            member.lasting.update(templates)
        elif accept:
            member.grants.update(templates)
        status = "accept" if accept else "reject"
        items = [
            {"TemplateId": name, "SubscribeStatusString": status, "PopupScene": "1"}
            for name in templates
        ]
        popup = {"SubscribeMsgPopupEvent": {"List": items}}
        return self._event(member, "subscribe_msg_popup_event", popup)

    @control
    def take_back(self, openid: str, templates: list[str]) -> Push:
        """Switch notices off in the account's settings; only refusals are pushed."""
        member = self.members[openid]
        for name in templates:
            member.lasting.discard(name)
            del member.grants[name]
        items = [{"TemplateId": name, "SubscribeStatusString": "reject"} for name in templates]
        change = {"SubscribeMsgChangeEvent": {"List": items}}
        return self._event(member, "subscribe_msg_change_event", change)

    @control
    def accept_messages(self, openid: str, accepts: bool) -> None:
        """The member's own switch 接收消息; off means 48002."""
        self.members[openid].accepts_messages = accepts

    @control
    def block(self, openid: str, blocked: bool = True) -> None:
        """Notices by template then end as `failed:user block` (fact 14)."""
        self.members[openid].blocked = blocked

    def happen(self, openid: str, event: str, fields: Mapping[str, Any] | None = None) -> Push:
        """Any other event, with its extra fields (nested dicts and lists allowed)."""
        return self._event(self.members[openid], event, dict(fields or {}))

    # What tests and operators do -----------------------------------------------------------------

    @control
    def kill_tokens(self) -> None:
        self.tokens.kill()

    @control
    def lapse(self, verified: bool = False) -> None:
        """The yearly verification runs out: advanced rights are gone (fact 29)."""
        self.verified = verified

    @control
    def allow_ip(self, allowed: bool) -> None:
        self.ip_allowed = allowed

    @control
    def approve_mass(self, job: int) -> None:
        """The administrator taps 同意 on the phone."""
        self._approvals.pop(job).set()

    @control
    def repeat_next(self, times: int = 1) -> None:
        """The next pushes arrive twice although they were answered."""
        self._pushes.repeat_next(times)

    @control
    def hold_next(self, times: int = 1) -> None:
        """The next pushes arrive after the one that follows them."""
        self._pushes.hold_next(times)

    @control
    def connect(self, callback_url: str) -> None:
        self._pushes.url = callback_url

    @control
    def transcript(self, openid: str) -> list[Line]:
        return self.members[openid].transcript

    @control
    def heard(self, openid: str) -> list[str]:
        """The texts that a member received, in order."""
        lines = self.members[openid].transcript
        return [line.text for line in lines if line.by != "member"]

    @control
    def counters(self) -> dict[str, int]:
        """Calls by endpoint since the start."""
        return dict(self.calls)

    @control
    async def verify_url(self) -> bool:
        """The console's check of our address: true when it answers the echostr and nothing else."""
        stamp, nonce = self._stamp(), secrets.token_hex(5)
        echo = str(secrets.randbelow(10**18))
        query = {"timestamp": stamp, "nonce": nonce, "echostr": echo}
        query["signature"] = self._sign(stamp, nonce)
        async with self._pushes.client().get(self._pushes.url, params=query) as response:
            return response.status == 200 and await response.text() == echo

    # Callbacks -----------------------------------------------------------------------------------

    def _event(self, member: Member, event: str, fields: dict[str, Any]) -> Push:
        self._note(member, "member", "event", f"[{event}] {fields.get('EventKey', '')}".strip())
        return self._push(member.openid, {"MsgType": "event", "Event": event, **fields})

    def _message(
        self,
        openid: str,
        kind: str,
        fields: dict[str, str],
        shown: str,
        window: tuple[int, int] = MESSAGE,
    ) -> Push:
        member = self.members[openid]
        if not member.following:
            raise ValueError(f"{openid} does not follow the account and cannot write to it")
        self._open(member, window)
        self._note(member, "member", kind, shown)
        return self._push(openid, {"MsgType": kind, **fields, "MsgId": str(next(self._numbers))})

    def _push(self, openid: str, fields: dict[str, Any]) -> Push:
        common = {
            "ToUserName": self.account.gh_id,
            "FromUserName": openid,
            "CreateTime": self._stamp(),
        }
        return self._pushes.push(Push(openid, {**common, **fields}))

    def _seal(self, push: Push) -> Signed:
        plain = f"<xml>{elements(push.fields)}</xml>"
        stamp, nonce = self._stamp(), str(secrets.randbelow(10**10))
        query = {
            "signature": self._sign(stamp, nonce),
            "timestamp": stamp,
            "nonce": nonce,
            "openid": push.openid,
        }
        if self.mode == "plain":
            return query, plain.encode()
        encrypt = self._crypto.encrypt(plain, self.account.app_id).decode()
        query |= {"encrypt_type": "aes", "msg_signature": self._sign(stamp, nonce, encrypt)}
        outer = {"ToUserName": self.account.gh_id, "Encrypt": encrypt}
        if self.mode == "compatible":
            outer = {**push.fields, "Encrypt": encrypt}
        return query, f"<xml>{elements(outer)}</xml>".encode()

    def _sign(self, *parts: str) -> str:
        joined = "".join(sorted((self.account.token, *parts)))
        return hashlib.sha1(joined.encode(), usedforsecurity=False).hexdigest()

    def _stamp(self) -> str:
        return str(int(self.clock.timestamp()))

    def _take(self, push: Push, body: bytes) -> None:
        """Read a passive answer as strictly as the platform; else the member sees the apology."""
        if body in (b"", b"success"):  # fact 7
            return
        try:
            push.answer = self._read_answer(push, body)
        except Exception as error:  # noqa: BLE001 (whatever is wrong, the member sees one thing)
            push.tries[-1].error = f"unusable answer: {error}"
            self._show_unavailable(push)
            return
        member = self.members[push.openid]
        kind = str(push.answer["MsgType"])
        self._note(member, "account", kind, push.text or f"[{kind}]")

    def _read_answer(self, push: Push, body: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = xmltodict.parse(body)["xml"]  # JSON ends here (fact 8)
        if self.mode != "plain":
            encrypt, stamp, nonce = answer["Encrypt"], answer["TimeStamp"], answer["Nonce"]
            signature = self._sign(stamp, nonce, encrypt)
            if not hmac.compare_digest(signature, answer["MsgSignature"]):
                raise ValueError("MsgSignature does not fit")
            plain = self._crypto.decrypt(encrypt, self.account.app_id)
            answer = xmltodict.parse(plain)["xml"]
        if (answer["ToUserName"], answer["FromUserName"]) != (push.openid, self.account.gh_id):
            raise ValueError("ToUserName or FromUserName is wrong")
        if not str(answer["CreateTime"]).isdigit():
            raise ValueError("CreateTime is not a number")
        kind = answer["MsgType"]
        known = {"text", "image", "voice", "video", "music", "news", "transfer_customer_service"}
        if kind not in known:
            raise ValueError(f"MsgType {kind} cannot be answered")
        if kind == "text" and not 0 < len((answer["Content"] or "").encode()) <= (
            self.rules.text_bytes
        ):
            raise ValueError("Content is empty or too long")
        if kind == "news" and int(answer["ArticleCount"]) != 1:
            raise ValueError("more than one article")
        return answer

    def _show_unavailable(self, push: Push) -> None:
        push.unavailable = True
        if push.fields.get("Event") != "unsubscribe":
            self._note(self.members[push.openid], "platform", "unavailable", UNAVAILABLE)

    def _note(self, member: Member, by: str, kind: str, text: str) -> None:
        member.transcript.append(Line(self.clock.timestamp(), by, kind, text))

    # Windows -------------------------------------------------------------------------------------

    def _open(self, member: Member, allowance: tuple[int, int]) -> None:
        """Allowances do not add up: each message counts against every open window."""
        left, seconds = allowance
        now = self.clock.timestamp()
        new = Window(left, now + seconds)
        member.windows = [
            old
            for old in member.windows
            if old.until > now and (old.left > new.left or old.until > new.until)
        ]
        member.windows.append(new)

    def _spend(self, member: Member) -> None:
        now = self.clock.timestamp()
        open_windows = [w for w in member.windows if w.until > now]
        if not member.following or not open_windows:
            raise Refused(45015)
        if not any(w.left for w in open_windows):
            raise Refused(45047)
        for window in open_windows:
            window.left = max(0, window.left - 1)

    # The API -------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/mp/{endpoint:.+}", self._serve)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        endpoint = request.match_info["endpoint"]
        self.calls[endpoint] += 1
        self.by_day[endpoint, _day(self.clock)] += 1

        async def answer() -> web.StreamResponse:
            return await self._answer(endpoint, request)

        return await answer_with(
            self.faults.take(endpoint), request, self.clock, answer, self._error
        )

    def _error(self, code: int, more: Mapping[str, Any] | None = None) -> web.StreamResponse:
        message = f"{ERRORS.get(code, 'error')} rid: {secrets.token_hex(8)}"
        return web.json_response({"errcode": code, "errmsg": message, **(more or {})})

    async def _answer(self, endpoint: str, request: web.Request) -> web.StreamResponse:
        doors: dict[str, Callable[[web.Request], Awaitable[dict[str, Any]]]] = {
            "cgi-bin/token": self._token,
            "cgi-bin/stable_token": self._stable_token,
            "cgi-bin/message/custom/send": self._custom_send,
            "cgi-bin/message/custom/typing": self._typing,
            "cgi-bin/message/template/send": self._template_send,
            "cgi-bin/message/subscribe/bizsend": self._bizsend,
            "cgi-bin/message/mass/send": self._mass_send,
            "cgi-bin/message/mass/sendall": self._mass_send_all,
            "cgi-bin/message/mass/preview": self._mass_preview,
            "cgi-bin/message/mass/get": self._mass_get,
            "cgi-bin/user/info": self._user_info,
            "cgi-bin/media/upload": self._media_upload,
            "cgi-bin/qrcode/create": self._qrcode_create,
            "cgi-bin/menu/create": self._menu_create,
            "cgi-bin/menu/get": self._menu_get,
            "cgi-bin/customservice/getkflist": self._accepted,
            "cgi-bin/user/get": self._user_get,
            "cgi-bin/template/get_all_private_template": self._all_templates,
            "cgi-bin/openapi/quota/get": self._quota,
            "cgi-bin/clear_quota": self._accepted,
        }
        door = doors.get(endpoint)
        if door is None:
            return web.Response(status=404, text="404 page not found")
        try:
            if endpoint not in ("cgi-bin/token", "cgi-bin/stable_token"):
                self.tokens.check(request.query.get("access_token", ""))
                if not self.verified:
                    raise Refused(48001)
            return web.json_response(await door(request))
        except Refused as refused:
            return self._error(refused.code, refused.more)
        except (ValueError, KeyError, TypeError):
            return self._error(47001)

    def _check_secret(self, given: Mapping[str, str]) -> None:
        if given.get("appid") != self.account.app_id:
            raise Refused(40013)
        if given.get("secret") != self.account.secret:
            raise Refused(40125)
        if not self.ip_allowed:
            raise Refused(40164)

    def _limit(self, endpoint: str, per_day: int, per_minute: int | None = None) -> None:
        if self.by_day[endpoint, _day(self.clock)] > per_day:  # fact 24: until midnight in Beijing
            raise Refused(45009)
        if per_minute is not None:
            now = self.clock.timestamp()
            calls = [at for at in self._minutes[endpoint] if at > now - 60]
            self._minutes[endpoint] = [*calls, now]
            if len(calls) >= per_minute:
                raise Refused(45011)

    async def _accepted(self, request: web.Request) -> dict[str, Any]:
        return {"errcode": 0, "errmsg": "ok"}

    async def _menu_create(self, request: web.Request) -> dict[str, Any]:
        self.menu = await request.json()
        return {"errcode": 0, "errmsg": "ok"}

    async def _menu_get(self, request: web.Request) -> dict[str, Any]:
        if not self.menu:
            raise Refused(46003)
        return {"menu": self.menu}

    async def _user_get(self, request: web.Request) -> dict[str, Any]:
        people = [member.openid for member in self.members.values() if member.following]
        return {"total": len(people), "count": len(people), "data": {"openid": people}}

    async def _all_templates(self, request: web.Request) -> dict[str, Any]:
        return {"template_list": [{"template_id": name} for name in sorted(self.templates)]}

    async def _quota(self, request: web.Request) -> dict[str, Any]:
        path = (await request.json())["cgi_path"].lstrip("/")
        limits = {
            "cgi-bin/message/custom/send": self.rules.custom_per_day,
            "cgi-bin/message/mass/send": 100,
            "cgi-bin/message/template/send": self.rules.template_per_day,
        }
        limit, used = limits[path], self.by_day[path, _day(self.clock)]
        quota = {"daily_limit": limit, "used": used, "remain": max(0, limit - used)}
        return {"errcode": 0, "errmsg": "ok", "quota": quota}

    async def _token(self, request: web.Request) -> dict[str, Any]:
        self._check_secret(request.query)
        self._limit("cgi-bin/token", self.rules.classic_per_day)  # fact 21
        token, life = self.tokens.classic()
        return {"access_token": token, "expires_in": life}

    async def _stable_token(self, request: web.Request) -> dict[str, Any]:
        given = await request.json()
        self._check_secret(given)
        token, life = self.tokens.stable(force=bool(given.get("force_refresh")))
        return {"access_token": token, "expires_in": life}

    def _member(self, openid: object) -> Member:
        member = self.members.get(str(openid))
        if member is None:
            raise Refused(40003)
        return member

    async def _custom_send(self, request: web.Request) -> dict[str, Any]:
        given = await request.json()
        endpoint = "cgi-bin/message/custom/send"
        self._limit(endpoint, self.rules.custom_per_day, self.rules.custom_per_minute)
        member = self._member(given.get("touser"))
        kind, shown = self._check_content(given)
        if not member.accepts_messages and member.following:
            raise Refused(48002)
        self._spend(member)
        self.sent.append(given)
        self._note(member, "account", kind, shown)
        return {"errcode": 0, "errmsg": "ok"}

    def _check_content(self, given: dict[str, Any]) -> tuple[str, str]:
        """The kind of a message and what a phone shows of it; there is no kind `file`."""
        kind = given.get("msgtype")
        part: Any = given.get(str(kind))
        match kind:
            case "text":
                shown = part["content"]
                if not shown:
                    raise Refused(44004)
            case "image" | "voice" | "video":
                self._check_media(part["media_id"])
                shown = f"[{kind}]"
            case "news":
                if len(part["articles"]) != 1:
                    raise Refused(45008)
                article = part["articles"][0]
                shown = f"{article.get('title', '')} {article.get('url', '')}".strip()
            case "msgmenu":
                if not self.rules.message_menus:
                    raise Refused(48008)
                items = [item["content"] for item in part["list"]]
                shown = "\n".join([part["head_content"], *items, part.get("tail_content", "")])
            case "mpnews" | "mpnewsarticle" | "miniprogrampage" | "wxcard" | "music":
                shown = f"[{kind}]"
            case _:
                raise Refused(40008)
        if len(shown.encode()) > self.rules.text_bytes:  # fact 26
            raise Refused(45002)
        return str(kind), shown

    async def _typing(self, request: web.Request) -> dict[str, Any]:
        given = await request.json()
        self._member(given["touser"])
        return {"errcode": 0, "errmsg": "ok"}

    async def _user_info(self, request: web.Request) -> dict[str, Any]:
        member = self._member(request.query.get("openid"))
        if not member.following:
            return {"subscribe": 0, "openid": member.openid}
        info: dict[str, Any] = {"subscribe": 1, "openid": member.openid, "nickname": ""}
        info |= {"language": "zh_CN", "tagid_list": [], "qr_scene_str": member.scene}
        return info | ({"unionid": member.unionid} if member.unionid else {})

    # Media and QR codes --------------------------------------------------------------------------

    def _keep(self) -> str:
        media = f"media_{next(self._numbers)}"
        self._media[media] = self.clock.timestamp() + self.rules.media_life
        return media

    def _check_media(self, media_id: str) -> None:
        if self._media.get(media_id, 0) <= self.clock.timestamp():  # fact 25
            raise Refused(40007)

    async def _media_upload(self, request: web.Request) -> dict[str, Any]:
        sent = (await request.post())["media"]
        kind = request.query.get("type", "")
        if kind not in ("image", "voice", "video", "thumb"):
            raise Refused(40008)
        content = sent.file.read() if isinstance(sent, web.FileField) else b""
        if not 0 < len(content) <= self.rules.image_bytes:
            raise Refused(45002)
        media_id = self._keep()
        self.pictures[media_id] = content
        return {"type": kind, "media_id": media_id, "created_at": int(self._stamp())}

    async def _qrcode_create(self, request: web.Request) -> dict[str, Any]:
        given = await request.json()
        scene = given["action_info"]["scene"]["scene_str"]
        if not 1 <= len(scene) <= 64:  # fact 30
            raise Refused(47001)
        if given["action_name"] not in ("QR_STR_SCENE", "QR_LIMIT_STR_SCENE"):
            raise Refused(47001)
        ticket = f"ticket-{next(self._numbers)}"
        answer: dict[str, Any] = {"ticket": ticket, "url": f"http://127.0.0.1/q/{ticket}"}
        until = math.inf
        if given["action_name"] == "QR_STR_SCENE":
            seconds = min(int(given.get("expire_seconds", 60)), 2_592_000)
            answer["expire_seconds"] = seconds
            until = self.clock.timestamp() + seconds
        self._codes[ticket] = (scene, until)
        return answer

    # Notices and mass sends ----------------------------------------------------------------------

    async def _template_send(self, request: web.Request) -> dict[str, Any]:
        given = await request.json()
        member = self._member(given["touser"])
        self._limit("cgi-bin/message/template/send", self.rules.template_per_day)
        if given["template_id"] not in self.templates:
            raise Refused(40037)
        if not given["data"] or not all(item["value"] for item in given["data"].values()):
            raise Refused(47003)
        if not member.following:  # fact 13
            raise Refused(43004)
        # Ten minutes for one reader and id: a repetition is taken for the first.
        key, now = (member.openid, str(given.get("client_msg_id", ""))), self.clock.now()
        known = self._template_keys.get(key)
        if key[1] and known and now - known[0] < timedelta(minutes=10):
            return {"errcode": 0, "errmsg": "ok", "msgid": int(known[1])}
        job = str(next(self._numbers))
        self._template_keys[key] = (now, job)
        status = "failed:user block" if member.blocked else "success"
        if not member.blocked:
            self.told.append(given)
            self._note(member, "account", "template", _values(given["data"]))
        self._later(self.rules.template_delay, member, job, status)
        return {"errcode": 0, "errmsg": "ok", "msgid": int(job)}

    def _later(self, seconds: float, member: Member, job: str, status: str) -> None:
        async def tell() -> None:
            await self.clock.wait(seconds)
            fields = {"MsgID": job, "Status": status}
            self._push(
                member.openid, {"MsgType": "event", "Event": "TEMPLATESENDJOBFINISH", **fields}
            )

        self._pushes.start(tell())

    async def _bizsend(self, request: web.Request) -> dict[str, Any]:
        given = await request.json()
        member, template = self._member(given["touser"]), given["template_id"]
        if template not in member.lasting:
            if not member.grants[template]:  # fact 15
                raise Refused(43101)
            member.grants[template] -= 1
        self.told.append(given)
        self._note(member, "account", "notice", _values(given["data"]))
        job = str(next(self._numbers))
        self._pushes.start(self._tell_of_notice(member, template, job))
        return {"errcode": 0, "errmsg": "ok", "msgid": int(job)}  # msgid [from memory]

    async def _tell_of_notice(self, member: Member, template: str, job: str) -> None:
        await self.clock.wait(self.rules.template_delay)
        item = {"TemplateId": template, "MsgID": job, "ErrorCode": "0", "ErrorStatus": "success"}
        event = {"MsgType": "event", "Event": "subscribe_msg_sent_event"}
        self._push(member.openid, {**event, "SubscribeMsgSentEvent": {"List": item}})

    async def _mass_send(self, request: web.Request) -> dict[str, Any]:
        """Two to 10 000 people, 60 calls a minute, 4 a month each (facts 17, 18)."""
        given = await request.json()
        self._limit("cgi-bin/message/mass/send", 100, self.rules.mass_per_minute)
        people = given["touser"]
        if not isinstance(people, list) or not 2 <= len(people) <= 10_000:
            raise Refused(40130)
        return self._mass(given, people, protected=self.rules.mass_protects_lists)

    async def _mass_send_all(self, request: web.Request) -> dict[str, Any]:
        """To everybody; with protection on it waits for an administrator's tap (fact 19)."""
        given = await request.json()
        self._limit("cgi-bin/message/mass/sendall", 100, self.rules.mass_per_minute)
        if given["filter"].get("is_to_all") is not True:
            raise ValueError("tags are not emulated")
        people = [member.openid for member in self.members.values() if member.following]
        return self._mass(given, people, protected=self.rules.mass_protected)

    def _mass(self, given: dict[str, Any], people: list[str], *, protected: bool) -> dict[str, Any]:
        key = given.get("clientmsgid")
        if key is not None and key in self._jobs:
            first = {"msg_id": self._jobs[key]} if self.rules.repeats_name_the_job else {}
            raise Refused(45065, **first)
        _, shown = self._check_content(given)
        job = next(self._numbers)
        if key is not None:
            self._jobs[key] = job
        approval = asyncio.Event()
        if protected:
            self._approvals[job] = approval
        else:
            approval.set()
        self._pushes.start(self._mass_run(job, people, shown, approval))
        return {"errcode": 0, "errmsg": "send job submission success", "msg_id": job}

    async def _mass_run(
        self, job: int, people: list[str], shown: str, approval: asyncio.Event
    ) -> None:
        self._job_status[job] = "SENDING"
        tap = asyncio.ensure_future(approval.wait())
        late = asyncio.ensure_future(self.clock.wait(self.rules.approval_life))
        await asyncio.wait({tap, late}, return_when=asyncio.FIRST_COMPLETED)
        tap.cancel()
        late.cancel()
        if approval.is_set():
            counts = self._mass_deliver(people, shown)
            status, self._job_status[job] = "send success", "SEND_SUCCESS"
        else:
            counts = self._mass_deliver([], shown)
            status, self._job_status[job] = self.rules.refused_status, "SEND_FAIL"
        await self.clock.wait(self.rules.mass_delay)
        told = {"MsgID": str(job), "Status": status, **{k: str(n) for k, n in counts.items()}}
        event = {"MsgType": "event", "Event": "MASSSENDJOBFINISH", **told}
        self._push(next(iter(self.members)), event)

    def _mass_deliver(self, people: list[str], shown: str) -> dict[str, int]:
        month = _day(self.clock)[:7]
        counts = {"TotalCount": len(people), "FilterCount": 0, "SentCount": 0, "ErrorCount": 0}
        for openid in people:
            member = self.members.get(openid)
            if member is None or not member.following:
                counts["ErrorCount"] += 1
                continue
            if member.mass_received[month] >= self.rules.mass_per_month:
                continue
            member.mass_received[month] += 1
            counts["FilterCount"] += 1
            counts["SentCount"] += 1
            self._note(member, "account", "mass", shown)
        return counts

    async def _mass_get(self, request: web.Request) -> dict[str, Any]:
        given = await request.json()
        job = int(given["msg_id"])
        return {"msg_id": job, "msg_status": self._job_status[job]}

    async def _mass_preview(self, request: web.Request) -> dict[str, Any]:
        given = await request.json()
        self._limit("cgi-bin/message/mass/preview", self.rules.previews_per_day)
        member = self._member(given["touser"])
        _, shown = self._check_content(given)
        self._note(member, "account", "preview", shown)
        return {"errcode": 0, "errmsg": "preview success", "msg_id": next(self._numbers)}


def _values(data: Mapping[str, Mapping[str, str]]) -> str:
    return "\n".join(item["value"] for item in data.values())


def elements(fields: Mapping[str, Any]) -> str:
    """Fields as XML; the platform writes numbers bare and everything else as CDATA."""
    parts = []
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                inner = elements(item)
            elif name in ("CreateTime", "MsgId", "AgentID"):
                inner = escape(str(item))
            else:
                inner = f"<![CDATA[{str(item).replace(']]>', ']]]]><![CDATA[>')}]]>"
            parts.append(f"<{name}>{inner}</{name}>")
    return "".join(parts)
