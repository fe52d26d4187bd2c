"""Telegram by python-telegram-bot, which only carries calls: dialogs, timing and rates are ours."""

from bot.channels.telegram.channel import Telegram, build

__all__ = ["Telegram", "build"]
