"""Warnings that the platform is about to suspend the app, or has: only people can prevent it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bot.alarm import call_for_help
from bot.channels.envelope import Fields, word
from bot.channels.wecom.reading import NAME
from bot.clock import show_time
from bot.context import Services
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

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def events(self) -> frozenset[str]:
        return frozenset(TROUBLES)

    async def hear(self, fields: Fields) -> None:
        trouble = TROUBLES[word(fields, "Event")].format(when=_when(fields))
        await asyncio.to_thread(self._tell, trouble)

    def _tell(self, trouble: str) -> None:
        with self._services.database.transaction() as connection:
            call_for_help(self._services, connection, NAME, trouble)


def _when(fields: Fields) -> str:
    seconds = word(fields, "EffectTime")
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= 10):
        return "不久"
    return f"{show_time(from_millis(int(seconds) * 1000))}起"
