"""入口: a QR code for one person who stands here and wants to do one thing on their own phone."""

from datetime import timedelta
from io import BytesIO
from typing import Final

import segno

from bot.clock import show_time
from bot.commands import command
from bot.context import Context
from bot.entrances import new_code
from bot.errors import UserError
from bot.messages import File, Part, Reply
from handlers.roles import STAFF
from storage.doors import doors

LIFE: Final = timedelta(hours=24)
USUAL: Final = "登记"


@command(
    "入口",
    help="入口：给一位乡亲的一次性二维码，如「入口 登记」「入口 回执」",
    section="统筹",
    roles=STAFF,
)
def entrance(context: Context, argument: str) -> Reply:
    """A picture a channel: scanning it opens a private chat in which the word has been said."""
    services = context.services
    found = services.catalog.match(argument or USUAL)
    if found is None or found.command.roles or not found.command.help:
        raise UserError("请写乡亲自己能说的指令，如「入口 登记」「入口 回执」。")
    ways = doors(context.connection, tuple(services.channels))
    if not ways:
        raise UserError("现在没有能扫码进入私聊的渠道。")
    word, until = found.command.word, show_time(context.now + LIFE)
    context.audit("entrance", word)
    return Reply(
        tuple(
            _picture(
                f"用 {services.channels[channel].label} 扫这个码办「{word}」："
                f"只能用一次，{until}前有效。",
                coded + new_code(context, word, LIFE),
            )
            for channel, (_plain, coded) in ways.items()
        )
    )


def _picture(words: str, address: str) -> Part:
    content = BytesIO()
    segno.make(address, error="m").save(content, kind="png", scale=8, border=4)
    file = File("入口.png", "image/png", content.getvalue())
    return Part(f"{words}\n{address}", file=file)
