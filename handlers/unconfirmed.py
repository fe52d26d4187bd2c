"""A profile that nobody has confirmed for long: asked about once, then confirmed or forgotten."""

from bot.commands import Purpose, command
from bot.context import Context
from bot.errors import UserError
from bot.messages import Reply, say
from handlers.purposes import PROFILE
from storage.profiles import MemberProfile

ASK_AFTER_DAYS = 2 * 365
ERASE_AFTER_DAYS = 3 * 365

PROFILE_CARE = Purpose("profile_care", "档案确认", scope=PROFILE)
"""Keeping a profile right is part of keeping it; it cannot be stopped but by leaving."""


@command("无变化", "没变化", help="确认档案没有变化", section="鸿雁档案", feature="profiles")
def unchanged(context: Context, _argument: str) -> Reply:
    """The member says that everything still stands; the three years begin anew."""
    profile = context.session.get(MemberProfile, context.person_id)
    if profile is None:
        raise UserError("您还没有登记档案。想登记请回「登记」。")
    profile.last_confirmed_at = context.now
    context.session.add(profile)
    context.audit("profile.confirm", f"person:{context.person_id}")
    return say("谢谢，档案已确认无变化。以后有变动随时回「修改」。")
