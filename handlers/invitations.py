"""Invitations to events: the text of one, made from the event; sent like any other campaign."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from sqlmodel import Session, col, select

from bot.errors import UserError
from handlers.composition import Text
from handlers.events.wording import show_day
from handlers.place import Place
from handlers.purposes import INVITATION
from storage.events import Event

TEMPLATE = (Path(__file__).parent / "invitation.txt").read_text(encoding="utf-8")

SEASONS = (
    "冬日暖阳，岁首春近",
    "冰雪初融，春意渐近",
    "春回大地，万物更新",
    "春光正好，草木新绿",
    "初夏时节，满目新绿",
    "盛夏将至，绿意正浓",
    "七月盛夏，绿意正浓",
    "八月时节，天高气爽",
    "九月金秋，风清气爽",
    "十月金秋，层林尽染",
    "初冬时节，暖意在心",
    "岁末时节，归心似箭",
)


def open_events(session: Session, today: date) -> Sequence[Event]:
    """Events that can still be answered, the nearest first."""
    return session.exec(
        select(Event)
        .where(col(Event.cancelled_at).is_(None), Event.deadline >= today)
        .order_by(col(Event.starts_on), col(Event.id))
    ).all()


def invitation_to(session: Session, number: str, place: Place) -> Text:
    """The invitation to an event; its campaign's `object` is the event's number."""
    event = session.exec(select(Event).where(Event.number == number)).first()
    if event is None or event.cancelled_at is not None:
        raise UserError(f"没有编号为「{number}」的活动，或已取消。")
    month = event.starts_on.month
    return Text(
        kind="invitation",
        title=f"{event.title}·邀请函",
        purpose=INVITATION.name,
        template=TEMPLATE,
        values={
            "title": event.title,
            "span": _span(event),
            "venue": event.venue,
            "note": event.note,
            "deadline": show_day(event.deadline),
            "contact_surname": place.office.contact_surname,
            "contact_phone": place.office.phone,
            "season": place.events.seasons.get(month, SEASONS[month - 1]),
            "signatory": place.office.signatory,
        },
        object=event.number,
    )


def _span(event: Event) -> str:
    first = f"{event.starts_on.year}年{show_day(event.starts_on)}"
    clock = event.starts_at
    if event.ends_on == event.starts_on:
        return f"{first}{clock}"
    last = event.ends_on
    shown = f"{last.day}日" if last.month == event.starts_on.month else show_day(last)
    return f"{first}至{shown}"
