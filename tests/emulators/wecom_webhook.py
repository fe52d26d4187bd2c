"""WeCom's 消息推送 (the former 群机器人) on 127.0.0.1: one-way messages to internal groups.

As of 2026-11-21, after developer.work.weixin.qq.com/document/path/99110. The group's address is
`<url>/qy/cgi-bin/webhook/send?key=…`; nobody needs a token, and whoever knows the key may speak.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.emulators.control import control
from tests.emulators.wechat import Line, Refused
from tests.emulators.wecom import WeCom

LIMITS = {"text": 2048, "markdown": 4096, "markdown_v2": 4096}
PER_MINUTE = 20
GONE = 93000  # invalid webhook url


@dataclass(slots=True)
class Group:
    """An internal group and the key of its message push."""

    name: str
    key: str
    sends: list[float] = field(default_factory=list)
    media: set[str] = field(default_factory=set)
    transcript: list[Line] = field(default_factory=list)


class WeComWebhook:
    """The message push of one corporation's groups; shares its clock, its media and its faults."""

    def __init__(self, wecom: WeCom) -> None:
        self._wecom = wecom
        self.groups: dict[str, Group] = {}
        doors = {"webhook/send": self._send, "webhook/upload_media": self._upload}
        wecom.open_doors(doors, without_token=True)

    @control
    def make_group(self, name: str) -> str:
        """Add 消息推送 to a group; returns the key, which stands in the address."""
        self.groups[name] = Group(name, secrets.token_hex(16))
        return self.groups[name].key

    @control
    def remove(self, name: str) -> None:
        """Somebody in the group removes it: the address is dead."""
        self.groups[name].key = ""

    @control
    def heard(self, name: str) -> list[str]:
        """What the group shows, in order."""
        return [line.text for line in self.groups[name].transcript]

    def _group(self, request: web.Request) -> Group:
        key = request.query.get("key", "")
        for group in self.groups.values():
            if key and secrets.compare_digest(group.key, key):
                return group
        raise Refused(GONE)

    async def _send(self, request: web.Request) -> dict[str, Any]:
        group = self._group(request)
        given = await request.json()
        kind, shown = self._check(group, given)
        now = self._wecom.clock.timestamp()
        group.sends = [at for at in group.sends if at > now - 60]
        if len(group.sends) >= PER_MINUTE:  # fact 50
            raise Refused(45009)
        group.sends.append(now)
        group.transcript.append(Line(now, "push", kind, shown))
        return {}

    def _check(self, group: Group, given: dict[str, Any]) -> tuple[str, str]:
        """The kind of a message and what the group shows of it."""
        kind = str(given.get("msgtype"))
        part: Any = given.get(kind)
        if kind in LIMITS:
            if not part["content"]:
                raise Refused(44004)
            if len(part["content"].encode()) > LIMITS[kind]:
                raise Refused(45002)
            return kind, part["content"]
        if kind == "file":
            if part["media_id"] not in group.media:  # of another group, or of the app
                raise Refused(40007)
            return kind, f"[file] {self._wecom.fetch(part['media_id'])[0]}"
        raise Refused(40008)

    async def _upload(self, request: web.Request) -> dict[str, Any]:
        group = self._group(request)
        if request.query.get("type") not in ("file", "voice"):
            raise Refused(40004)
        name, content = await self._wecom.read_upload(request)
        media = self._wecom.keep(content, name)
        group.media.add(media)
        created = str(int(self._wecom.clock.timestamp()))
        return {"type": request.query["type"], "media_id": media, "created_at": created}
