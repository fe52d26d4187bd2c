"""WeCom customer service (微信客服): anybody with WeChat writes, nobody need be a friend first."""

from bot.channels.wecom.kf.channel import KfChannel
from bot.clock import Clock
from bot.settings import Settings


def build(settings: Settings, clock: Clock) -> KfChannel:
    """The channel, as the settings describe it."""
    return KfChannel(settings, clock)
