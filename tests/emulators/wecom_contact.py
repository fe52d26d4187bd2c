"""WeCom's customer contact (客户联系) on 127.0.0.1: customer groups, and sends that staff must tap.

As of 2026-11-21, after developer.work.weixin.qq.com/document/path: 92122 (客户群), 92130 (事件),
92135 (创建企业群发), 93338 (群发结果), 97610 (提醒), 92366 (入群欢迎语), 92137 (新客户欢迎语).
"Fact n" is a line of the project's list of platform facts. What could not be confirmed there stands
in `ContactRules` with the mark [from memory].
"""

from __future__ import annotations

import calendar
import secrets
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from aiohttp import web

from tests.emulators.control import control
from tests.emulators.pushing import Push
from tests.emulators.wechat import Refused
from tests.emulators.wecom import DAY, Json, WeCom

BEIJING = ZoneInfo("Asia/Shanghai")
UNSENT, SENT, NOT_A_FRIEND, HAD_ANOTHER = range(4)
"""`status` of one recipient of a task."""
STAFF, CUSTOMER = 1, 2


@dataclass(frozen=True, slots=True)
class ContactRules:
    """The platform's numbers; seconds unless they say otherwise."""

    lag: float = 2
    code_life: int = 20
    text_bytes: int = 4000
    welcome_bytes: int = 3000
    templates: int = 100
    reminders: int = 3  # for each task in 24 hours [from memory]
    too_many_reminders: int = 41093  # [from memory]
    too_many_templates: int = 41097  # [from memory]
    code_expired: int = 41050  # [from memory]
    already_greeted: int = 41051
    no_such_task: int = 41063  # [from memory]
    already_sent: int = 41064  # [from memory]
    no_such_group: int = 40050  # [from memory]


@dataclass(slots=True)
class Seat:
    """One member of a group."""

    userid: str
    type: int
    name: str = ""
    unionid: str = ""
    join_time: int = 0


@dataclass(slots=True)
class Group:
    """A customer group. `versions` is what could be read since when: the newest lags behind."""

    chat_id: str
    name: str
    owner: str
    seats: dict[str, Seat] = field(default_factory=dict)
    version: str = ""
    versions: list[tuple[float, Json]] = field(default_factory=list)
    received: Counter[str] = field(default_factory=Counter)
    heard: list[str] = field(default_factory=list)
    dismissed: bool = False


@dataclass(slots=True)
class Task:
    """A send that waits for one member's tap."""

    msgid: str
    sender: str
    chats: list[str]
    text: str
    made_at: float
    state: str = "waiting"
    results: dict[str, tuple[int, int]] = field(default_factory=dict)
    reminded: list[float] = field(default_factory=list)


class Contact:
    """The customer groups of the corporation `wecom`, whose callback and tokens it shares."""

    def __init__(self, wecom: WeCom, *, rules: ContactRules | None = None) -> None:
        self.wecom = wecom
        self.clock = wecom.clock
        self.rules = rules or ContactRules()
        self.groups: dict[str, Group] = {}
        self.tasks: dict[str, Task] = {}
        self.templates: dict[str, str] = {}
        self.greeted: list[Json] = []
        self.bound = True
        self._codes: dict[str, tuple[str, float]] = {}
        self._lost = 0
        wecom.open_doors(
            {
                "externalcontact/groupchat/list": self._list,
                "externalcontact/groupchat/get": self._get,
                "externalcontact/add_msg_template": self._add_task,
                "externalcontact/remind_groupmsg_send": self._remind,
                "externalcontact/cancel_groupmsg_send": self._cancel,
                "externalcontact/get_groupmsg_task": self._task,
                "externalcontact/get_groupmsg_send_result": self._result,
                "externalcontact/group_welcome_template/add": self._add_template,
                "externalcontact/group_welcome_template/edit": self._edit_template,
                "externalcontact/send_welcome_msg": self._greet,
            }
        )

    # What members and staff do -------------------------------------------------------------------

    @control
    def create(self, chat_id: str, name: str, owner: str) -> Push:
        group = self.groups[chat_id] = Group(chat_id, name, owner)
        group.seats[owner] = Seat(owner, STAFF, owner, join_time=int(self._now()))
        self._turn(group)
        return self._tell(group, "create", {})

    @control
    def join(
        self, chat_id: str, user: str, name: str = "", unionid: str = "", staff: bool = False
    ) -> Push:
        group = self.groups[chat_id]
        kind = STAFF if staff else CUSTOMER
        group.seats[user] = Seat(user, kind, name, unionid, int(self._now()))
        return self._update(group, "add_member", [user], {"JoinScene": 3})

    @control
    def leave(self, chat_id: str, user: str) -> Push:
        group = self.groups[chat_id]
        del group.seats[user]
        return self._update(group, "del_member", [user], {"QuitScene": 0})

    @control
    def rename(self, chat_id: str, name: str) -> Push:
        group = self.groups[chat_id]
        group.name = name
        return self._update(group, "change_name", [], {})

    @control
    def dismiss(self, chat_id: str) -> Push:
        self.groups[chat_id].dismissed = True
        return self._tell(self.groups[chat_id], "dismiss", {})

    @control
    def befriend(self, userid: str, user: str, state: str = "") -> Push:
        """Somebody adds a member of the staff as a friend; the code greets them for 20 s."""
        code = f"welcome-{secrets.token_hex(8)}"
        self._codes[code] = (user, self._now() + self.rules.code_life)
        fields = {"ChangeType": "add_external_contact", "UserID": userid, "ExternalUserID": user}
        return self.wecom.announce(
            "change_external_contact", {**fields, "State": state, "WelcomeCode": code}
        )

    @control
    def chat_first(self, user: str) -> None:
        """The staff member has already written to a new friend: no greeting any more."""
        self._codes = {
            code: ("", until) if who == user else (who, until)
            for code, (who, until) in self._codes.items()
        }

    @control
    def tap(self, msgid: str) -> None:
        """The member of the staff sends the task: only now anybody sees anything (fact 53)."""
        task = self.tasks[msgid]
        if task.state != "waiting":
            raise ValueError(f"the task is {task.state}")
        task.state = "sent"
        for chat_id in task.chats:
            group = self.groups[chat_id]
            if group.received[self._month()] >= self._days():  # fact 54
                task.results[chat_id] = (HAD_ANOTHER, 0)
                continue
            group.received[self._month()] += 1
            group.heard.append(task.text)
            task.results[chat_id] = (SENT, int(self._now()))

    @control
    def tap_in_vain(self, msgid: str, status: int = NOT_A_FRIEND) -> None:
        """The tap is made, but the platform lets the message not through."""
        task = self.tasks[msgid]
        task.state = "sent"
        task.results = {chat_id: (status, 0) for chat_id in task.chats}

    # What tests and operators do -----------------------------------------------------------------

    @control
    def lose_next(self, times: int = 1) -> None:
        """The next events never arrive (fact 55)."""
        self._lost += times

    @control
    def bind(self, bound: bool) -> None:
        """Whether the corporation has bound its WeChat developer id: else no unionid (fact 58)."""
        self.bound = bound

    @control
    def heard(self, chat_id: str) -> list[str]:
        """What a group was shown of us, in order."""
        return self.groups[chat_id].heard

    @control
    def waiting(self) -> list[str]:
        """The tasks that nobody has tapped."""
        return [task.msgid for task in self.tasks.values() if task.state == "waiting"]

    # Events --------------------------------------------------------------------------------------

    def _update(self, group: Group, detail: str, who: list[str], more: Json) -> Push:
        before = group.version
        self._turn(group)
        fields = {"UpdateDetail": detail, **more, "LastMemVer": before, "CurMemVer": group.version}
        if who:
            fields |= {"MemChangeCnt": len(who), "MemChangeList": {"Item": who}}
        return self._tell(group, "update", fields)

    def _turn(self, group: Group) -> None:
        group.version = secrets.token_hex(16)
        shown = {"member_version": group.version, "name": group.name, "owner": group.owner}
        seats = [deepcopy(seat) for seat in group.seats.values()]
        group.versions.append((self._now(), {**shown, "seats": seats}))

    def _tell(self, group: Group, change: str, fields: Json) -> Push:
        told = {"ChatId": group.chat_id, "ChangeType": change, **fields}
        if self._lost:
            self._lost -= 1
            lost = Push("sys", told)
            lost.over.set()
            return lost
        return self.wecom.announce("change_external_chat", told)

    def _now(self) -> float:
        return self.clock.timestamp()

    def _today(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC).astimezone(BEIJING)

    def _month(self) -> str:
        return f"{self._today():%Y-%m}"

    def _days(self) -> int:
        return calendar.monthrange(self._today().year, self._today().month)[1]

    # Groups --------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> Json:
        given = await request.json()
        start = int(given.get("cursor") or 0)
        end = start + min(int(given.get("limit", 100)), 1000)
        living = [group for group in self.groups.values() if not group.dismissed]
        answer: Json = {
            "group_chat_list": [{"chat_id": g.chat_id, "status": 0} for g in living[start:end]]
        }
        return answer | ({"next_cursor": str(end)} if end < len(living) else {})

    async def _get(self, request: web.Request) -> Json:
        given = await request.json()
        group = self.groups.get(str(given.get("chat_id")))
        if group is None or group.dismissed:
            raise Refused(self.rules.no_such_group)
        settled = self._now() - self.rules.lag
        old = [shown for at, shown in group.versions if at <= settled]
        shown = old[-1] if old else group.versions[0][1]
        members = [self._seat(seat, bool(given.get("need_name"))) for seat in shown["seats"]]
        return {
            "group_chat": {
                "chat_id": group.chat_id,
                "name": shown["name"],
                "owner": shown["owner"],
                "member_version": shown["member_version"],
                "member_list": members,
            }
        }

    def _seat(self, seat: Seat, named: bool) -> Json:
        shown: Json = {"userid": seat.userid, "type": seat.type, "join_time": seat.join_time}
        if seat.unionid and self.bound and seat.type == CUSTOMER:
            shown["unionid"] = seat.unionid
        return shown | ({"name": seat.name, "group_nickname": ""} if named else {})

    # Sends that staff must tap -------------------------------------------------------------------

    async def _add_task(self, request: web.Request) -> Json:
        given = await request.json()
        if given.get("chat_type") != "group" or not given.get("sender"):
            raise Refused(40058)
        text = given["text"]["content"]
        if not 0 < len(text.encode()) <= self.rules.text_bytes:
            raise Refused(45002)
        chats = given.get("chat_id_list") or [
            group.chat_id for group in self.groups.values() if group.owner == given["sender"]
        ]
        wrong = [chat for chat in chats if self._not_theirs(chat, given["sender"])]
        good = [chat for chat in chats if chat not in wrong]
        if not good:
            return {"fail_list": wrong, "msgid": ""}
        msgid = f"msgGCAAAXtWyujaWJHDDGi0mAAA{next(self.wecom.numbers)}"
        self.tasks[msgid] = Task(msgid, given["sender"], good, text, self._now())
        return {"fail_list": wrong, "msgid": msgid}

    def _not_theirs(self, chat: str, sender: str) -> bool:
        group = self.groups.get(chat)
        return group is None or group.dismissed or group.owner != sender

    def _open(self, msgid: object) -> Task:
        task = self.tasks.get(str(msgid))
        if task is None:
            raise Refused(self.rules.no_such_task)
        return task

    async def _remind(self, request: web.Request) -> Json:
        task = self._open((await request.json()).get("msgid"))
        recent = [at for at in task.reminded if at > self._now() - DAY]
        if len(recent) >= self.rules.reminders:
            raise Refused(self.rules.too_many_reminders)
        task.reminded.append(self._now())
        return {}

    async def _cancel(self, request: web.Request) -> Json:
        task = self._open((await request.json()).get("msgid"))
        if task.state == "sent":
            raise Refused(self.rules.already_sent)
        task.state = "cancelled"
        return {}

    async def _task(self, request: web.Request) -> Json:
        task = self._open((await request.json()).get("msgid"))
        status = 2 if task.state == "sent" else 0
        return {"task_list": [{"userid": task.sender, "status": status}]}

    async def _result(self, request: web.Request) -> Json:
        """In a group's task only the rows that were dealt with are told (fact 53)."""
        given = await request.json()
        task = self._open(given.get("msgid"))
        rows = [
            {"chat_id": chat, "userid": task.sender, "status": status, "send_time": at}
            for chat, (status, at) in task.results.items()
            if status != UNSENT and given.get("userid") == task.sender
        ]
        return {"send_list": rows}

    # Welcomes ------------------------------------------------------------------------------------

    async def _add_template(self, request: web.Request) -> Json:
        text = self._welcome_text(await request.json())
        if len(self.templates) >= self.rules.templates:  # fact 57
            raise Refused(self.rules.too_many_templates)
        number = f"template-{next(self.wecom.numbers)}"
        self.templates[number] = text
        return {"template_id": number}

    async def _edit_template(self, request: web.Request) -> Json:
        given = await request.json()
        if given["template_id"] not in self.templates:
            raise Refused(40058)
        self.templates[given["template_id"]] = self._welcome_text(given)
        return {}

    def _welcome_text(self, given: Json) -> str:
        text = str(given["text"]["content"])
        if not 0 < len(text.encode()) <= self.rules.welcome_bytes:
            raise Refused(45002)
        return text

    async def _greet(self, request: web.Request) -> Json:
        """Once, and within 20 s (fact 56)."""
        given = await request.json()
        user, until = self._codes.pop(str(given.get("welcome_code")), (None, 0.0))
        if user is None or self._now() > until:
            raise Refused(self.rules.code_expired)
        if not user:
            raise Refused(self.rules.already_greeted)
        self.greeted.append({"user": user, **given})
        return {}

    def fill_templates(self, texts: Iterable[str]) -> None:
        """Templates that the corporation made in its console."""
        for text in texts:
            self.templates[f"template-{next(self.wecom.numbers)}"] = text
