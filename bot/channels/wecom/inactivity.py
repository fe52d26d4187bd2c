"""Warnings that the platform is about to suspend the app, or has: only people can prevent it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from bot.alarm import call_for_help
from bot.channels.envelope import Fields, word
from bot.channels.wecom.reading import NAME
from bot.clock import show_time
from bot.context import Context
from bot.messages import Address, Inbound, aside
from storage.columns import from_millis

_USE_IT = "请几位同事在企业微信里打开它，说一句话"
_REOPEN = "请管理员在企业微信管理后台的「应用管理」里重新启用"

TROUBLES: Mapping[str, str] = {
    "inactive_alert": f"收到平台预警：应用长期没有人用，{{when}}将被停用。{_USE_IT}",
    "close_inactive_agent": f"被平台停用：应用长期没有人用，消息发不出去。{_REOPEN}",
    "low_active_alert": f"收到平台预警：应用用的人太少，{{when}}将被限制。{_USE_IT}",
    "low_active": f"被平台限制：应用用的人太少。{_USE_IT}",
}
"""By the event; that all is well again (reopen_inactive_agent, active_restored) is no news."""


class Inactivity:
    """Hears such warnings and tells those on duty."""

    events = frozenset(TROUBLES)

    def __init__(self, account: str) -> None:
        self._line = Address(NAME, account, "")

    def hear(self, fields: Fields, now: datetime) -> Inbound:
        return aside(self._line, fields, now)

    def note(self, context: Context) -> None:
        """Tell those on duty of one; see `bot.channels.base.Noting`."""
        fields: Fields = json.loads(context.inbound.text)
        trouble = TROUBLES[word(fields, "Event")].format(when=_when(fields))
        call_for_help(context.services, context.connection, NAME, trouble)


def _when(fields: Fields) -> str:
    seconds = word(fields, "EffectTime")
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= 10):
        return "不久"
    return f"{show_time(from_millis(int(seconds) * 1000))}起"
