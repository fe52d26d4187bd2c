"""The WeChat Official Account (认证服务号): sealed callbacks in, customer-service texts out."""

from bot.channels.wechat.channel import WeChatChannel
from bot.clock import Clock
from bot.settings import Settings


def build(settings: Settings, clock: Clock) -> WeChatChannel:
    """The channel, as the settings describe it."""
    return WeChatChannel(settings, clock)
