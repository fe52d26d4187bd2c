"""WeCom's customer service (微信客服) on 127.0.0.1: one account, its customers and its staff.

As of 2026-11-21, after developer.work.weixin.qq.com/document/path: 94638 (概述), 94670 (接收消息),
94677 (发送消息), 95122 (事件响应消息), 94669 (分配客服会话). "Fact n" is a line of the project's
list of platform facts. What could not be confirmed there stands in `KfRules` with the mark
[from memory].
"""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.emulators.control import control
from tests.emulators.pushing import Push
from tests.emulators.wechat import Line, Refused
from tests.emulators.wecom import DAY, HOUR, Json, WeCom

NEW, BOT, POOL, HUMAN, ENDED = range(5)
MOVES = {
    NEW: (BOT, POOL, HUMAN, ENDED),
    BOT: (BOT, POOL, HUMAN, ENDED),
    POOL: (POOL, HUMAN, ENDED),
    HUMAN: (HUMAN, ENDED),
    ENDED: (),
}
EXPIRED, TOO_MANY, REJECTED = 4, 6, 10
"""`fail_type` of a message that was accepted and did not arrive."""


@dataclass(frozen=True, slots=True)
class KfRules:
    """The platform's numbers; seconds unless they say otherwise."""

    window: int = 48 * HOUR
    messages: int = 5
    history: int = 3 * DAY
    token_life: int = 600
    code_life: int = 20
    text_bytes: int = 2048
    menu_items: int = 10
    menu_head: int = 1024
    menu_item: int = 128
    fail_delay: float = 1  # until msg_send_fail [from memory]
    tokenless_per_minute: int = 5  # readings without a callback's token [from memory]
    old_token: int = 95007  # [from memory]
    msgid_reused: int = 40058  # [from memory]
    code_refused: int = 95015  # a welcome code that is used or old [from memory]
    wrong_state: int = 95018
    session_over: int = 95013
    wrong_move: int = 95016  # [from memory]
    not_a_servicer: int = 95014


@dataclass(slots=True)
class Customer:
    """Somebody with WeChat who found the account."""

    external_userid: str
    state: int = NEW
    servicer: str = ""
    left: int = 0
    said_at: float = 0.0
    rejects: bool = False
    transcript: list[Line] = field(default_factory=list)


class Kf:
    """One service account of the corporation `wecom`, whose callback and tokens it shares."""

    def __init__(
        self, wecom: WeCom, *, account: str = "wkHotline0001", rules: KfRules | None = None
    ) -> None:
        self.wecom = wecom
        self.clock = wecom.clock
        self.account = account
        self.rules = rules or KfRules()
        self.customers: dict[str, Customer] = {}
        self.servicers: dict[str, bool] = {}
        self.sent: list[Json] = []
        self.muted = False
        self._log: list[Json] = []
        self._tokens: dict[str, float] = {}
        self._codes: dict[str, tuple[Customer, float]] = {}
        self._msgids: set[str] = set()
        self._stutters = 0
        self._readings: dict[str, list[float]] = defaultdict(list)
        wecom.open_doors(
            {
                "kf/account/list": self._accounts,
                "kf/servicer/list": self._servicers,
                "kf/sync_msg": self._sync,
                "kf/send_msg": self._send,
                "kf/send_msg_on_event": self._send_on_event,
                "kf/service_state/get": self._state,
                "kf/service_state/trans": self._trans,
            }
        )

    # What customers do ---------------------------------------------------------------------------

    @control
    def find(self, user: str) -> None:
        """Somebody has the link; nothing happens yet."""
        self.customers.setdefault(user, Customer(user))

    @control
    def enter(self, user: str, scene_param: str = "") -> Push:
        """Open the conversation; a code to greet with comes unless they wrote lately."""
        self.find(user)
        customer = self.customers[user]
        fields = {"scene": "123", "scene_param": scene_param}
        quiet = not customer.said_at or self._now() - customer.said_at > self.rules.window
        if quiet and customer.state not in (POOL, HUMAN):
            code = f"code-{secrets.token_hex(8)}"
            self._codes[code] = (customer, self._now() + self.rules.code_life)
            fields["welcome_code"] = code
        return self._event(customer, "enter_session", fields)

    @control
    def say(self, user: str, text: str, menu_id: str = "") -> Push:
        """Type a text, or tap an item of a menu, which is a message like any other."""
        said = {"content": text, **({"menu_id": menu_id} if menu_id else {})}
        return self._message(user, "text", said, text)

    @control
    def tap(self, user: str, content: str) -> Push:
        """Tap the item of the newest menu that shows `content`."""
        for sent in reversed(self.sent):
            if sent["touser"] != user or sent["msgtype"] != "msgmenu":
                continue
            for item in sent["msgmenu"]["list"]:
                if item["click"]["content"] == content:
                    return self.say(user, content, item["click"]["id"])
        raise ValueError(f"{user} was sent no such item: {content}")

    @control
    def send_file(self, user: str, name: str = "名单.xlsx") -> Push:
        media = self.wecom.keep(b"file of a member")
        return self._message(user, "file", {"media_id": media, "filename": name}, f"[文件] {name}")

    @control
    def send_voice(self, user: str) -> Push:
        return self._message(user, "voice", {"media_id": self.wecom.keep(b"voice")}, "[语音]")

    @control
    def recall(self, user: str) -> Push:
        """Take the last message back (fact 63)."""
        last = next(
            m for m in reversed(self._log) if m["origin"] == 3 and m["external_userid"] == user
        )
        fields = {"recall_msgid": last["msgid"]}
        return self._event(self.customers[user], "user_recall_msg", fields)

    @control
    def reject(self, user: str, rejects: bool = True) -> Push:
        """The customer's own switch: no more messages of this account."""
        self.customers[user].rejects = rejects
        fields = {"reject_switch": 1 if rejects else 0}
        return self._event(self.customers[user], "reject_customer_msg_switch_change", fields)

    # What the staff do ---------------------------------------------------------------------------

    @control
    def serve(self, userid: str, active: bool = True) -> None:
        """A member of the staff takes conversations, or has a break."""
        self.servicers[userid] = active

    @control
    def take(self, user: str, userid: str) -> Push:
        """Somebody takes a customer out of the pool."""
        customer = self.customers[user]
        customer.state, customer.servicer = HUMAN, userid
        return self._changed(customer, 1)

    @control
    def staff_says(self, user: str, text: str) -> None:
        customer = self.customers[user]
        self._note(customer, customer.servicer, "text", text)
        self._keep(customer, {"origin": 5, "msgtype": "text", "text": {"content": text}})

    @control
    def finish(self, user: str) -> Push:
        """The person ends the conversation."""
        customer = self.customers[user]
        customer.state, customer.servicer = ENDED, ""
        return self._changed(customer, 3)

    # What tests and operators do -----------------------------------------------------------------

    @control
    def stutter(self, times: int = 1) -> None:
        """The next readings are empty although there is more (fact 59)."""
        self._stutters += times

    @control
    def mute(self, muted: bool = True) -> None:
        """Callbacks are lost from here on."""
        self.muted = muted

    @control
    def transcript(self, user: str) -> list[Line]:
        return self.customers[user].transcript

    @control
    def heard(self, user: str) -> list[str]:
        """What a customer's phone showed of the account and its staff, in order."""
        lines = self.customers[user].transcript
        return [line.text for line in lines if line.by not in ("customer", "platform")]

    # Callbacks -----------------------------------------------------------------------------------

    def poke(self) -> Push:
        """The callback, which has no content: what is new must be fetched (fact 59)."""
        token = secrets.token_hex(16)
        self._tokens[token] = self._now() + self.rules.token_life
        fields = {"Token": token, "OpenKfId": self.account}
        if self.muted:
            lost = Push("sys", fields)
            lost.over.set()
            return lost
        return self.wecom.announce("kf_msg_or_event", fields)

    def _message(self, user: str, kind: str, content: Json, shown: str) -> Push:
        self.find(user)
        customer = self.customers[user]
        if customer.state == ENDED:
            customer.state = NEW
        customer.left, customer.said_at = self.rules.messages, self._now()
        self._note(customer, "customer", kind, shown)
        self._keep(customer, {"origin": 3, "msgtype": kind, kind: content})
        return self.poke()

    def _event(self, customer: Customer, kind: str, fields: Json) -> Push:
        who = {"open_kfid": self.account, "external_userid": customer.external_userid}
        told = {"event_type": kind, **who, **fields}
        self._keep(customer, {"origin": 4, "msgtype": "event", "event": told}, bare=True)
        return self.poke()

    def _changed(self, customer: Customer, change: int) -> Push:
        fields = {"change_type": change, "new_servicer_userid": customer.servicer}
        return self._event(customer, "session_status_change", fields)

    def _keep(self, customer: Customer, message: Json, *, bare: bool = False) -> None:
        """An event names its customer inside only."""
        who = {"open_kfid": self.account, "external_userid": customer.external_userid}
        number = f"msg-{len(self._log)}-{secrets.token_hex(4)}"
        common = {"msgid": number, "send_time": int(self._now()), **({} if bare else who)}
        self._log.append({**common, **message})

    def _note(self, customer: Customer, by: str, kind: str, text: str) -> None:
        customer.transcript.append(Line(self._now(), by, kind, text))

    def _now(self) -> float:
        return self.clock.timestamp()

    # The API -------------------------------------------------------------------------------------

    async def _accounts(self, request: web.Request) -> Json:
        one = {"open_kfid": self.account, "name": "鸿雁热线", "manage_privilege": True}
        return {"account_list": [one]}

    async def _servicers(self, request: web.Request) -> Json:
        self._check_account(request.query.get("open_kfid"))
        people = [
            {"userid": userid, "status": 0 if active else 1}
            for userid, active in self.servicers.items()
        ]
        return {"servicer_list": people}

    def _check_account(self, account: object) -> None:
        if account != self.account:
            raise Refused(95000)

    async def _sync(self, request: web.Request) -> Json:
        given = await request.json()
        self._check_account(given.get("open_kfid"))
        token = given.get("token")
        if token is None:
            self._limit(self.account)
        elif self._tokens.get(token, 0.0) < self._now():
            raise Refused(self.rules.old_token)
        start = int(str(given.get("cursor") or "c0.").removeprefix("c").partition(".")[0])
        limit = min(int(given.get("limit", 1000)), 1000)
        oldest = self._now() - self.rules.history
        if self._stutters:
            self._stutters -= 1
            cursor = f"c{start}.{secrets.token_hex(2)}"
            return {"next_cursor": cursor, "has_more": 1, "msg_list": []}
        end = min(len(self._log), start + limit)
        messages = [m for m in self._log[start:end] if m["send_time"] >= oldest]
        more = 1 if end < len(self._log) else 0
        return {"next_cursor": f"c{end}.", "has_more": more, "msg_list": messages}

    def _limit(self, name: str) -> None:
        recent = [at for at in self._readings[name] if at > self._now() - 60]
        self._readings[name] = [*recent, self._now()]
        if len(recent) >= self.rules.tokenless_per_minute:
            raise Refused(45009)

    async def _send(self, request: web.Request) -> Json:
        given = await request.json()
        self._check_account(given.get("open_kfid"))
        customer = self.customers.get(str(given.get("touser")))
        if customer is None:
            raise Refused(40003)
        if customer.state in (POOL, HUMAN):  # fact 62
            raise Refused(self.rules.wrong_state)
        if customer.state == ENDED:
            raise Refused(self.rules.session_over)
        shown = self._check_content(given)
        msgid = self._number(given)
        why = self._obstacle(customer)
        if why:
            self._fails(customer, msgid, why)
        else:
            customer.left -= 1
            self._deliver(customer, given, shown)
        return {"msgid": msgid}

    def _obstacle(self, customer: Customer) -> int:
        if customer.rejects:
            return REJECTED
        if not customer.said_at or self._now() - customer.said_at > self.rules.window:
            return EXPIRED
        return 0 if customer.left else TOO_MANY  # fact 60

    def _number(self, given: Json) -> str:
        """The message's own number, which serves once (fact 61)."""
        msgid = str(given.get("msgid") or secrets.token_hex(16))
        if not re.fullmatch(r"[0-9A-Za-z_\-]{1,32}", msgid):
            raise Refused(40058)
        if msgid in self._msgids:
            raise Refused(self.rules.msgid_reused)
        self._msgids.add(msgid)
        return msgid

    def _fails(self, customer: Customer, msgid: str, why: int) -> None:
        async def tell() -> None:
            await self.clock.wait(self.rules.fail_delay)
            self._event(customer, "msg_send_fail", {"fail_msgid": msgid, "fail_type": why})

        self.wecom.pushes.start(tell())

    def _deliver(self, customer: Customer, given: Json, shown: str) -> None:
        self.sent.append({"touser": customer.external_userid, **given})
        self._note(customer, "account", str(given["msgtype"]), shown)

    def _check_content(self, given: Json) -> str:
        """What a phone shows of a message."""
        content: Any = given.get(str(given.get("msgtype")))
        match given.get("msgtype"):
            case "text":
                text: str = content["content"]
                if not text:
                    raise Refused(44004)
                return text.encode()[: self.rules.text_bytes].decode(errors="ignore")
            case "msgmenu":
                return self._menu(content)
            case "file" | "image" | "voice" | "video":
                name, _content, until = self.wecom.media[content["media_id"]]
                if until <= self._now():
                    raise Refused(40007)
                return f"[文件] {name}"
            case _:
                raise Refused(40008)

    def _menu(self, menu: Json) -> str:
        items = [item["click"] for item in menu["list"]]
        longest = max(len(text.encode()) for item in items for text in item.values())
        if len(items) > self.rules.menu_items or longest > self.rules.menu_item:
            raise Refused(40058)
        if len(menu.get("head_content", "").encode()) > self.rules.menu_head:
            raise Refused(45002)
        return str(menu.get("head_content", ""))

    async def _send_on_event(self, request: web.Request) -> Json:
        """The greeting: once, within 20 s, and no message before it is needed."""
        given = await request.json()
        customer, until = self._codes.pop(str(given.get("code")), (None, 0.0))
        if customer is None or self._now() > until:
            raise Refused(self.rules.code_refused)
        if given.get("msgtype") not in ("text", "msgmenu"):
            raise Refused(40008)
        shown = self._check_content(given)
        msgid = self._number(given)
        self._deliver(customer, given, shown)
        return {"msgid": msgid}

    async def _state(self, request: web.Request) -> Json:
        given = await request.json()
        customer = self.customers[given["external_userid"]]
        return {"service_state": customer.state, "servicer_userid": customer.servicer}

    async def _trans(self, request: web.Request) -> Json:
        given = await request.json()
        customer = self.customers[given["external_userid"]]
        state = int(given["service_state"])
        if state not in MOVES[customer.state]:
            raise Refused(self.rules.wrong_move)
        if state == HUMAN and not self.servicers.get(given.get("servicer_userid", "")):
            raise Refused(self.rules.not_a_servicer)
        customer.state, customer.servicer = state, str(given.get("servicer_userid", ""))
        code = f"code-{secrets.token_hex(8)}"
        if state == ENDED:
            self._codes[code] = (customer, self._now() + self.rules.code_life)
        return {"msg_code": code}
