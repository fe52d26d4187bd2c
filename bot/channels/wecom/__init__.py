"""WeCom (企业微信): the self-built app of the staff, and what its other products share with it."""

from bot.channels.wecom.channel import WeComChannel
from bot.clock import Clock
from bot.settings import Settings


def build(settings: Settings, clock: Clock) -> WeComChannel:
    """The app's channel, as the settings describe it."""
    return WeComChannel(settings, clock)
