"""The calls of customer contact: rosters, sends that staff must tap, and welcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from bot.channels.wecom.api import WeComApi, code_of
from bot.errors import SendError
from storage.customer_groups import Roster, Seat

STAFF = 1
AT_ONCE = 100  # groups in one page of the list
GREETED_ALREADY = frozenset({41050, 41051})  # the first of them [from memory]
TITLE = "点这里关注公众号"


class Outcome(Enum):
    """What became of a group in a task; numbers as the platform's `status`, 0 is not told."""

    SENT = 1
    NOT_A_FRIEND = 2
    HAD_ANOTHER = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """Has the member of the staff tapped, and what became of the group (None: not told)?"""

    tapped: bool
    outcome: Outcome | None


class GroupWire:
    """Customer contact over one app's API; `link` is what welcomes lead to. Raises SendError."""

    def __init__(self, api: WeComApi, link: str) -> None:
        self._api = api
        self._link = link

    async def groups(self) -> list[str]:
        """Ids of all groups of all staff that the app may see."""
        found: list[str] = []
        cursor = ""
        while True:
            body = {"status_filter": 0, "limit": AT_ONCE, **({"cursor": cursor} if cursor else {})}
            answer = await self._call("groupchat/list", body)
            found += [str(one["chat_id"]) for one in answer.get("group_chat_list") or ()]
            cursor = str(answer.get("next_cursor") or "")
            if not cursor:
                return found

    async def roster(self, chat: str) -> Roster:
        """A group as the platform shows it, perhaps two seconds behind its events."""
        answer = await self._call("groupchat/get", {"chat_id": chat, "need_name": 1})
        try:
            return self._roster(answer["group_chat"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise SendError("server_error", detail="not understood") from None

    def _roster(self, group: Mapping[str, Any]) -> Roster:
        seats = tuple(
            Seat(
                member=str(one["userid"]),
                staff=one.get("type") == STAFF,
                unionid=str(one.get("unionid") or ""),
                nickname=str(one.get("group_nickname") or one.get("name") or ""),
                joined_at=datetime.fromtimestamp(int(one.get("join_time") or 0), UTC),
            )
            for one in group.get("member_list", ())
        )
        return Roster(
            str(group.get("name") or ""),
            str(group.get("owner") or ""),
            str(group.get("member_version") or ""),
            seats,
        )

    async def ask(self, owner: str, chat: str, text: str) -> str:
        """Ask a member of the staff to send this to their group; the id of the task."""
        answer = await self._call(
            "add_msg_template",
            {
                "chat_type": "group",
                "sender": owner,
                "chat_id_list": [chat],
                "text": {"content": text},
            },
        )
        msgid = str(answer.get("msgid") or "")
        if not msgid or chat in answer.get("fail_list", ()):
            raise SendError("unreachable", permanent=True, detail="fail_list")
        return msgid

    async def remind(self, msgid: str) -> None:
        """Nudge whoever has not tapped yet."""
        await self._call("remind_groupmsg_send", {"msgid": msgid})

    async def cancel(self, msgid: str) -> None:
        """Take a task back before the tap."""
        await self._call("cancel_groupmsg_send", {"msgid": msgid})

    async def progress(self, msgid: str, owner: str, chat: str) -> Progress:
        """How a task stands. In a group's task the platform tells only of what was sent."""
        body = {"msgid": msgid, "limit": 500}
        tasks = await self._call("get_groupmsg_task", body)
        tapped = any(one.get("status") == 2 for one in tasks.get("task_list", ()))
        if not tapped:
            return Progress(tapped=False, outcome=None)
        results = await self._call("get_groupmsg_send_result", {**body, "userid": owner})
        for one in results.get("send_list", ()):
            if one.get("chat_id") == chat and one.get("status") in (1, 2, 3):
                return Progress(tapped=True, outcome=Outcome(one["status"]))
        return Progress(tapped=True, outcome=None)

    async def greet(self, code: str, text: str) -> bool:
        """Greet a new friend of the staff, within 20 s; False when it was done already."""
        try:
            await self._call("send_welcome_msg", {"welcome_code": code, **self._welcome(text)})
        except SendError as error:
            if code_of(error) in GREETED_ALREADY:
                return False
            raise
        return True

    async def keep_welcome(self, number: str, text: str) -> str:
        """Make the material that greets newcomers, or change the one of that number."""
        body = self._link_only(text)
        if number and await self._changed(number, body):
            return number
        answer = await self._call("group_welcome_template/add", {**body, "notify": 1})
        return str(answer["template_id"])

    async def _changed(self, number: str, body: Mapping[str, Any]) -> bool:
        """False where somebody has deleted the material in the console."""
        try:
            await self._call("group_welcome_template/edit", {"template_id": number, **body})
        except SendError as error:
            if not error.permanent:
                raise
            return False
        return True

    def _welcome(self, text: str) -> dict[str, Any]:
        content: dict[str, Any] = {"text": {"content": text}}
        if self._link:
            link = {"title": TITLE, "url": self._link}
            content["attachments"] = [{"msgtype": "link", "link": link}]
        return content

    def _link_only(self, text: str) -> dict[str, Any]:
        content: dict[str, Any] = {"text": {"content": text}}
        if self._link:
            content["link"] = {"title": TITLE, "url": self._link}
        return content

    async def _call(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._api.call(f"externalcontact/{name}", body)
