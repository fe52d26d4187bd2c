"""WeCom's smart bot (智能机器人) for staff: alone with it, and by @ in internal groups."""

from collections.abc import Sequence

from bot.channels.wecom.bot.socket import SocketBot
from bot.channels.wecom.bot.url import UrlBot
from bot.clock import Clock
from bot.settings import Settings


class _BothWays(UrlBot):
    """Settings of both ways: the platform lets a bot have one, and we do not guess which."""

    def check(self) -> Sequence[str]:
        return (
            "智能机器人只能选一种方式：填了 HONGYAN_WECOM_BOT_SECRET（长连接）就请清空 "
            "HONGYAN_WECOM_BOT_TOKEN（URL 回调），或反过来",
        )


def build(settings: Settings, clock: Clock) -> SocketBot | UrlBot:
    """The bot as the settings have it: by the long connection if its secret is given."""
    if settings.wecom_bot_secret and settings.wecom_bot_token:
        return _BothWays(settings, clock)
    if settings.wecom_bot_secret:
        return SocketBot(settings, clock)
    return UrlBot(settings, clock)
