"""The calls of customer service: reading on, sending, and whose conversation it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.channels.wecom.api import WeComApi, code_of
from bot.errors import SendError
from bot.messages import Address, Choice, Part
from storage.conversations import Led

LIMIT = 1000  # messages in one reading, as many as the platform gives
MENU_HEAD = 1024  # bytes of the text above a menu
MENU_ITEM = 128  # bytes of an item and of what it stands for
MENU_MOST = 10

OLD_TOKEN = 95007
SHUT = frozenset({95001, 95002, 95013, 95018})
"""Nothing can be said now: too much was, too long ago, it is over, or a person leads."""
NOT_OURS_TO_LEAD = 95018
SAID_BEFORE = 40058  # [from memory]: the documents promise an error and do not name its code

_QUEUE, _PERSON, _ENDED = 2, 3, 4


@dataclass(frozen=True, slots=True)
class Batch:
    """What one reading gave, and where the next begins."""

    messages: Sequence[Mapping[str, Any]]
    cursor: str
    more: bool


class KfWire:
    """Customer service over one app's API. All of it raises SendError."""

    def __init__(self, api: WeComApi) -> None:
        self.api = api

    async def accounts(self) -> list[str]:
        """Ids of the service accounts that the app may manage."""
        answer = await self.api.call("kf/account/list", {"offset": 0, "limit": 100})
        return [str(one["open_kfid"]) for one in _objects(answer, "account_list", "open_kfid")]

    async def servicers(self, account: str) -> int:
        """How many people take conversations of an account now."""
        answer = await self.api.call("kf/servicer/list", query={"open_kfid": account})
        return sum(one.get("status") == 0 for one in _objects(answer, "servicer_list"))

    async def read_on(self, account: str, cursor: str, token: str) -> Batch:
        """What has come since the cursor; the token of a callback makes it cheap for 10 minutes."""
        body = {"cursor": cursor, "limit": LIMIT, "voice_format": 0, "open_kfid": account}
        try:
            answer = await self.api.call("kf/sync_msg", {**body, **_if("token", token)})
        except SendError as error:
            if not token or code_of(error) != OLD_TOKEN:
                raise
            answer = await self.api.call("kf/sync_msg", body)
        return Batch(
            _objects(answer, "msg_list"),
            str(answer.get("next_cursor") or cursor),
            bool(answer.get("has_more")),
        )

    async def send(self, address: Address, content: Mapping[str, Any], msgid: str) -> None:
        """One message; sent before under this id, it is not sent again."""
        body = {"touser": address.user, "open_kfid": address.account, "msgid": msgid, **content}
        try:
            await self.api.call("kf/send_msg", body)
        except SendError as error:
            if code_of(error) == SAID_BEFORE:
                return
            if code_of(error) in SHUT:
                raise SendError("window", detail=error.detail) from None
            raise

    async def greet(self, code: str, content: Mapping[str, Any], msgid: str) -> None:
        """The one message that an event's code lets out within 20 seconds."""
        await self.api.call("kf/send_msg_on_event", {"code": code, "msgid": msgid, **content})

    async def state(self, address: Address) -> int:
        """The number of a session's state."""
        body = {"open_kfid": address.account, "external_userid": address.user}
        answer = await self.api.call("kf/service_state/get", body)
        return int(answer.get("service_state", 0))

    async def hand_over(self, address: Address, servicer: str) -> Led:
        """Give a conversation to a person, or to whoever of the staff takes it first."""
        state = _PERSON if servicer else _QUEUE
        await self._move(address, state, _if("servicer_userid", servicer))
        return Led.PERSON if servicer else Led.QUEUE

    async def end(self, address: Address) -> str:
        """End a session that nobody has taken; the member's next words begin a new one.

        Returns a code by which one last message may still leave, "" without one.
        """
        answer = await self._move(address, _ENDED, {})
        return str(answer.get("msg_code") or "")

    async def _move(self, address: Address, state: int, more: Mapping[str, str]) -> dict[str, Any]:
        body = {"open_kfid": address.account, "external_userid": address.user}
        moved = {**body, "service_state": state, **more}
        return await self.api.call("kf/service_state/trans", moved)


def words(part: Part) -> dict[str, Any]:
    """A bubble as the platform wants it: a menu where it has few and short choices, else a text."""
    if not part.choices or not _fits_a_menu(part):
        return {"msgtype": "text", "text": {"content": part.text}}
    items = [
        {"type": "click", "click": {"id": choice.value, "content": choice.label}}
        for choice in part.choices
    ]
    return {"msgtype": "msgmenu", "msgmenu": {"head_content": part.text, "list": items}}


def _fits_a_menu(part: Part) -> bool:
    return (
        len(part.choices) <= MENU_MOST
        and len(part.text.encode()) <= MENU_HEAD
        and all(_short(choice) for choice in part.choices)
    )


def _short(choice: Choice) -> bool:
    return all(0 < len(text.encode()) <= MENU_ITEM for text in (choice.value, choice.label))


def _objects(answer: Mapping[str, Any], name: str, *needed: str) -> list[dict[str, Any]]:
    """The objects of a list that have all that is needed; whatever else is in it is left out."""
    listed = answer.get(name)
    return [
        one
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and all(key in one for key in needed)
    ]


def _if(name: str, value: str) -> dict[str, str]:
    return {name: value} if value else {}
