"""Keeps the notice's word: asks about a profile after two years, forgets it after three."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlmodel import Session, col, delete, select

from bot.clock import beijing
from bot.commands import Retention, tick
from bot.context import Services, outbox_row
from bot.heart import fire
from bot.messages import say
from handlers.unconfirmed import ASK_AFTER_DAYS, ERASE_AFTER_DAYS, PROFILE_CARE
from storage import mailbox
from storage.people import ConsentEntry, Person
from storage.privacy import erase_person
from storage.profiles import MemberProfile

AT_ONCE = 100  # profiles a beat: a transaction stays short
HOUR = 10

QUESTION = (
    "您的鸿雁档案已有两年没有更新。信息还准吗？\n"
    "没有变化请回「无变化」；有变动请回「修改」；不想再保留请回「删除档案」。\n"
    "一直没有确认的，满三年会自动删除。"
)


def _unconfirmed(session: Session, before: datetime) -> Sequence[MemberProfile]:
    return session.exec(
        select(MemberProfile)
        .where(col(MemberProfile.last_confirmed_at) <= before)
        .order_by(col(MemberProfile.last_confirmed_at))
        .limit(AT_ONCE)
    ).all()


@tick("unconfirmed", "两年未确认的档案问一次")
def ask_unconfirmed(services: Services, session: Session, now: datetime) -> None:
    """By day, each member once for each time they last confirmed."""
    if beijing(now).hour < HOUR:
        return
    after = now - timedelta(days=ERASE_AFTER_DAYS)
    for profile in _newly_due(session, now - timedelta(days=ASK_AFTER_DAYS), after):
        asked = f"{profile.person_id}:{profile.last_confirmed_at:%Y-%m-%d}"
        if not fire(session, "unconfirmed", asked, now):
            continue
        row = outbox_row(
            services,
            session,
            profile.person_id,
            say(QUESTION, "无变化", "修改"),
            occasion=f"unconfirmed:{asked}",
            purpose=PROFILE_CARE,
            now=now,
        )
        if row is not None:
            mailbox.enqueue(session.connection(), [row])


def _newly_due(session: Session, before: datetime, after: datetime) -> Sequence[MemberProfile]:
    """Due since yesterday's beats, or missed while we were away: at most a month back."""
    since = max(after, before - timedelta(days=31))
    return session.exec(
        select(MemberProfile).where(
            col(MemberProfile.last_confirmed_at) <= before,
            col(MemberProfile.last_confirmed_at) > since,
        )
    ).all()


def _forget(_services: Services, session: Session, now: datetime) -> int:
    due = _unconfirmed(session, now - timedelta(days=ERASE_AFTER_DAYS))
    for profile in due:
        person = session.get_one(Person, profile.person_id)
        person.silent_since = now
        session.add(person)
        erase_person(session, profile.person_id, now, reason="unconfirmed", keep_contact=False)
    return len(due)


def _let_go(_services: Services, session: Session, now: datetime) -> int:
    """What proves the consent of those who left, once nobody can sue any more."""
    gone = select(Person.id).where(
        col(Person.silent_since) <= now - timedelta(days=ERASE_AFTER_DAYS)
    )
    return session.exec(delete(ConsentEntry).where(col(ConsentEntry.person_id).in_(gone))).rowcount


PROFILES = Retention("profiles", "三年未确认的档案", _forget)
CONSENTS = Retention("consents", "同意台账，离开后三年", _let_go)
