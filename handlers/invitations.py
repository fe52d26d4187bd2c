"""Invitations to events: the text of one, made from the event; sent like any other campaign."""

from collections.abc import Sequence
from datetime import date

from sqlmodel import Session, col, select

from bot.errors import UserError
from handlers.composition import Text
from handlers.place import Place
from handlers.purposes import INVITATION
from storage.events import Event

TEMPLATE = """{{ title }}
邀请函

{{ salutation }}：
　　为共叙乡情、共谋发展，兹定于{{ span }}在{{ venue }}举办“{{ title }}”，诚邀您拨冗出席。
{% if note %}　　{{ note }}
{% endif %}　　敬请于{{ deadline }}前回复“回执”，按提示告知是否出席、随行人数及到达信息。\
所填信息仅用于本次接待，活动结束30日内删除。
　　联系{% if contact_surname %}人：{{ contact_surname }}同志，{% endif %}\
电话：{{ contact_phone }}。
　　{{ season }}，家乡人民期盼您的归来！
　　此致
敬礼！

{{ signatory }}
{{ date_gb }}

回复“退订活动邀请”，今后不再发送此类信件。"""

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
            "deadline": _day(event.deadline),
            "contact_surname": place.office.contact_surname,
            "contact_phone": place.office.phone,
            "season": SEASONS[event.starts_on.month - 1],
            "signatory": place.office.signatory,
        },
        object=event.number,
    )


def _day(day: date) -> str:
    return f"{day.month}月{day.day}日"


def _span(event: Event) -> str:
    first = f"{event.starts_on.year}年{_day(event.starts_on)}"
    clock = event.starts_at
    if event.ends_on == event.starts_on:
        return f"{first}{clock}"
    last = event.ends_on
    shown = f"{last.day}日" if last.month == event.starts_on.month else _day(last)
    return f"{first}至{shown}"
