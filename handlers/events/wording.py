"""How events, answers and notices about them are put into words."""

from datetime import date

from bot.dates import WEEKDAYS
from bot.messages import Reply, say
from handlers.place import Place
from storage.events import Event, Rsvp, RsvpState

ANSWERS = {
    RsvpState.COMING: "出席",
    RsvpState.WAITING: "候补",
    RsvpState.NOT_COMING: "不能来",
    RsvpState.UNDECIDED: "待定",
}


def show_day(day: date) -> str:
    """8月12日."""
    return f"{day.month}月{day.day}日"


def when(event: Event) -> str:
    """8月12日（周三）9:00, or 8月12日至14日."""
    if event.starts_on == event.ends_on:
        weekday = WEEKDAYS[event.starts_on.weekday()]
        return f"{show_day(event.starts_on)}（周{weekday}）{event.starts_at}"
    same_month = event.starts_on.month == event.ends_on.month
    last = f"{event.ends_on.day}日" if same_month else show_day(event.ends_on)
    return f"{show_day(event.starts_on)}至{last}"


def answer_words(rsvp: Rsvp) -> str:
    """出席3位, or 待定."""
    heads = f"{rsvp.heads}位" if rsvp.state in (RsvpState.COMING, RsvpState.WAITING) else ""
    return f"{ANSWERS[RsvpState(rsvp.state)]}{heads}"


def call(place: Place) -> str:
    """Whom to call."""
    return f"请致电{place.office.name or '办公室'} {place.office.phone}。"


def moved_up(event: Event, rsvp: Rsvp) -> Reply:
    """To a party that waited and has seats now."""
    return say(
        f"好消息：「{event.title}」有名额了，已为您递补，一行{rsvp.heads}位"
        f"（{when(event)}，{event.venue}）。回执 {rsvp.number}。"
        "来不了请早些回「改回执」，让给下一位。"
    )


def moved_up_occasion(rsvp: Rsvp) -> str:
    """Once for each time that seats are asked for."""
    return f"event.moved_up:{rsvp.number}:{rsvp.queued_at.timestamp():.3f}"


def cancelled(event: Event, reason: str) -> Reply:
    """To those who come, wait or have not decided."""
    return say(
        f"很抱歉，原定{when(event)}在{event.venue}举办的「{event.title}」取消了。原因：{reason}\n"
        "您的回执已自动作废，不用再回复；给您添了不便，敬请谅解。"
    )


def reminder(event: Event, rsvp: Rsvp, place: Place) -> Reply:
    """To a party that comes, the day before."""
    clock = (
        f"{event.starts_at}开始，" if event.starts_on != event.ends_on and event.starts_at else ""
    )
    return say(
        f"温馨提醒：「{event.title}」{when(event)}在{event.venue}举办，{clock}"
        f"您登记了{rsvp.heads}位出席（{rsvp.number}），我们恭候您。\n"
        f"临时来不了请回「改回执」；有事{call(place)}"
    )
