"""Each morning coordinators hear of answers to letters that came since and wait to be read."""

from datetime import datetime, timedelta

from sqlmodel import Session

from bot.clock import beijing
from bot.commands import tick
from bot.context import Services
from bot.heart import fire
from handlers.campaigns import coordinators, tell
from storage import letter_replies

HOUR = 9  # Beijing
SINCE = timedelta(days=1)


@tick("letter_replies", label="每天上午告知未读的回信")
def morning(services: Services, session: Session, now: datetime) -> None:
    """Once a day, if anything new came."""
    local = beijing(now)
    if local.hour < HOUR or not letter_replies.unread(session, since=now - SINCE):
        return
    day = local.date().isoformat()
    if fire(session, "letter_replies", day, now):
        words = f"有{letter_replies.unread(session)}条乡亲的回信未读，请回「回信箱」查看。"
        tell(services, session, coordinators(session, now), words, f"letter_replies:{day}", now)
