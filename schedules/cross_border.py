"""Counts once a day whose messages went abroad this year, and warns before the legal threshold."""

from datetime import UTC, datetime

from sqlalchemy import distinct, func
from sqlmodel import Session, col, select

from bot.clock import BEIJING, beijing
from bot.commands import tick
from bot.context import Services, outbox_row
from bot.heart import fire
from bot.messages import say
from handlers.cross_border import ABROAD
from handlers.purposes import DUTY
from storage import mailbox
from storage.people import ConsentEntry

# From 100,000 people a year on, carrying data abroad needs a standard contract or certification
# (促进和规范数据跨境流动规定, 2024-03-22); we warn at four fifths of it.
THRESHOLD = 100_000
WARN_AT = 80_000


def abroad_this_year(session: Session, now: datetime) -> int:
    """How many people have agreed since 1 January, Beijing time, to write by a channel abroad."""
    new_year = datetime(beijing(now).year, 1, 1, tzinfo=BEIJING).astimezone(UTC)
    return session.exec(
        select(func.count(distinct(col(ConsentEntry.person_id)))).where(
            ConsentEntry.scope == ABROAD,
            ConsentEntry.action == "granted",
            ConsentEntry.at >= new_year,
        )
    ).one()


@tick("cross_border", "本年累计出境人数")
def watch(services: Services, session: Session, now: datetime) -> None:
    """Once a day: tell those on duty, once a year, that the number comes near."""
    today = beijing(now).date()
    if not fire(session, "cross_border", f"{today}", now):
        return
    count = abroad_this_year(session, now)
    if count < WARN_AT:
        return
    words = say(
        f"本年累计出境人数已到{count}人（{THRESHOLD}人起须订立标准合同或通过认证），"
        "请与网信、法制部门商定后续做法。"
    )
    for person_id in services.catalog.policy.on_duty(session, now):
        row = outbox_row(
            services,
            session,
            person_id,
            words,
            occasion=f"cross_border:{today.year}",
            purpose=DUTY,
            now=now,
        )
        if row is not None:
            mailbox.enqueue(session.connection(), [row])
