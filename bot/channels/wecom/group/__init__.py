"""WeCom customer groups (客户群): people with WeChat and one of our staff, whose tap sends."""

from bot.channels.wecom.group.channel import GroupChannel
from bot.clock import Clock
from bot.settings import Settings


def build(settings: Settings, clock: Clock) -> GroupChannel:
    """The channel, as the settings describe it."""
    return GroupChannel(settings, clock)
