"""Events by the clock: the reminder on the day before, seats that fell free, and forgetting."""

from datetime import date, datetime, time, timedelta

from sqlalchemy import delete
from sqlmodel import Session, col, select

from bot.clock import beijing
from bot.commands import Retention, tick
from bot.context import Services, outbox_row
from bot.heart import fire
from bot.messages import Reply
from bot.planning import wall
from handlers.events import seats, wording
from handlers.place import place_of
from handlers.purposes import EVENT_SERVICE
from storage import mailbox
from storage.events import Event, Rsvp, RsvpState, locked_event, rsvps_of

REMINDER = time(18)  # on the day before, by the county's clock
LAST_REMINDER = time(12)  # on the day itself; later it would only annoy
KEPT = timedelta(days=30)  # after the last day: what the invitation promises


@tick("event_reminder", "活动前一天18:00提醒出席的人")
def remind(services: Services, session: Session, now: datetime) -> None:
    """Remind those who come, once an event; each recipient's quiet hours are kept."""
    tomorrow = beijing(now).date() + timedelta(days=1)
    if beijing(now).time() < REMINDER:
        return
    due = select(Event).where(col(Event.cancelled_at).is_(None), Event.starts_on == tomorrow)
    for event in session.exec(due).all():
        if not fire(session, "event_reminder", event.number, now):
            continue
        for rsvp in rsvps_of(session, event.id or 0):
            if rsvp.state == RsvpState.COMING:
                words = wording.reminder(event, rsvp, place_of(services))
                occasion = f"event.reminder:{event.number}"
                _send(services, session, rsvp, words, occasion, now, _noon(event.starts_on))


def _noon(day: date) -> datetime:
    return wall(day, LAST_REMINDER)


@tick("event_seats", "有人退出后递补候补的人")
def fill_seats(services: Services, session: Session, now: datetime) -> None:
    """Give on the seats of those who left without a word: by erasing their file."""
    today = beijing(now).date()
    queued = select(Rsvp.event_id).where(Rsvp.state == RsvpState.WAITING)
    events = session.exec(
        select(Event.id).where(
            col(Event.id).in_(queued),
            col(Event.cancelled_at).is_(None),
            col(Event.starts_on) > today,
        )
    ).all()
    for event_id in events:
        event = locked_event(session, event_id or 0)
        for rsvp in seats.move_up(session, event, today):
            words, occasion = wording.moved_up(event, rsvp), wording.moved_up_occasion(rsvp)
            _send(services, session, rsvp, words, occasion, now)


def _send(
    services: Services,
    session: Session,
    rsvp: Rsvp,
    words: Reply,
    occasion: str,
    now: datetime,
    expires_at: datetime | None = None,
) -> None:
    row = outbox_row(
        services,
        session,
        rsvp.person_id,
        words,
        occasion=occasion,
        purpose=EVENT_SERVICE,
        now=now,
        expires_at=expires_at,
    )
    if row is not None:
        mailbox.enqueue(session.connection(), [row])


# - what is forgotten -


def _forget(_services: Services, session: Session, now: datetime) -> int:
    """Answers go thirty days after the event; how many came stays."""
    last = beijing(now).date() - KEPT
    old = select(Event).where(col(Event.ends_on) < last, col(Event.came).is_(None))
    forgotten = 0
    for event in session.exec(old).all():
        event.came = seats.taken(rsvps_of(session, event.id or 0))
        session.add(event)
        forgotten += session.exec(delete(Rsvp).where(col(Rsvp.event_id) == event.id)).rowcount
    return forgotten


RSVPS = Retention("rsvps", "活动回执，活动结束后30天，只留到会人数", _forget)
