"""The form of a new event: what, when, where, how many, and until when people may answer."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Any

from bot.context import Context
from bot.dates import LunarGuess, parse_date, read_time
from bot.forms import Answers, Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss, is_yes, read_integer, tidy
from handlers.events.wording import show_day
from storage.events import Event
from storage.sequences import next_number

MOST_SEATS = 5000
LONGEST_EVENT = timedelta(days=30)
_RANGE = re.compile(r"^(.+?)\s*(?:到|至|—+|\u2013|~|\uff5e|-)\s*(.+)$")
_UNCLEAR_HOURS = range(1, 7)


def _line(longest: int) -> Callable[[str, Asking], str | Miss]:
    def read(text: str, _asking: Asking) -> str | Miss:
        if "\n" in text or len(text) > longest:
            return Miss(f"请写一行，最多{longest}个字。")
        if re.search("[{}]", text):
            return Miss("里面有花括号，请去掉再发。")
        return text

    return read


def read_seats(text: str) -> int | Miss:
    """A number of seats, from 1."""
    seats = read_integer(re.sub("[个位人席名座]+$", "", tidy(text)))
    if seats is None or not 1 <= seats <= MOST_SEATS:
        return Miss(f"请回一个数字，1到{MOST_SEATS}，如「60」。")
    return seats


def _read_time(text: str, _asking: Asking) -> str | Miss:
    clock = read_time(text)
    if clock is None or clock.hour is None or clock.vague:
        return Miss("请写明几点，如「9:00」「下午2点半」；没定请回「跳过」。")
    if not clock.part and clock.hour in _UNCLEAR_HOURS and not re.search("[:：]", text):
        return Miss(f"{clock.hour}点是上午还是下午？如「下午{clock.hour}点」。")
    return f"{clock.hour}:{clock.minute:02d}"


# - days: 8月12日, 8月12日到14日, and 腊月二十五, which is converted and confirmed -


def _known(asking: Asking, name: str) -> date:
    return date.fromisoformat(asking.answers[name])


def _lunar_key(name: str) -> str:
    return f"{name}_lunar"


def _day(text: str, asking: Asking, name: str) -> date | Miss:
    """The day of a question; 是 takes the day that a lunar date was converted to."""
    guess = asking.get(_lunar_key(name))
    if guess is not None and is_yes(text):
        return date.fromisoformat(guess)
    return parse_date(text, asking.today, prefer="future")


def _read_start(text: str, asking: Asking) -> str | Miss:
    day = _day(text, asking, "starts_on")
    if isinstance(day, Miss):
        return day
    return Miss("这一天已经过去了，请写以后的日期。") if day < asking.today else day.isoformat()


def _read_end(text: str, asking: Asking) -> str | Miss:
    first = _known(asking, "starts_on")
    if re.search("当天|一天|同一天|当日", text):
        return first.isoformat()
    day = _day(_with_month(text, first), asking, "ends_on")
    if isinstance(day, Miss):
        return day
    if not first <= day <= first + LONGEST_EVENT:
        return Miss(f"结束要在{show_day(first)}或之后、{LONGEST_EVENT.days}天以内。")
    return day.isoformat()


def _with_month(text: str, first: date) -> str:
    """「14日」 after 「8月12日」 is in August."""
    only = re.fullmatch(r"(\d{1,2})\s*[日号]?", tidy(text))
    return f"{first.year}年{first.month}月{only[1]}日" if only else text


def _read_deadline(text: str, asking: Asking) -> str | Miss:
    first = _known(asking, "starts_on")
    before = re.fullmatch(r"(?:活动)?(?:提)?前\s*(\S+?)\s*天", tidy(text))
    days = read_integer(before[1]) if before else None
    day = first - timedelta(days=days) if days else _day(text, asking, "answers_by")
    if isinstance(day, Miss):
        return day
    if not asking.today <= day <= first:
        return Miss(f"截止日要在今天之后、{show_day(first)}之前。")
    return day.isoformat()


def _show_day(value: Any, _asking: Asking) -> str:
    day = date.fromisoformat(value)
    return f"{day.year}年{show_day(day)}"


def _ask_day(name: str, words: str) -> Callable[[Asking], str]:
    """The question, or what a lunar date was taken for."""

    def ask(asking: Asking) -> str:
        guess = asking.get(_lunar_key(name))
        if guess is None:
            return words
        return f"您说的农历日子是公历{_show_day(guess, asking)}，对吗？回「是」，或直接发公历日期。"

    return ask


def _pending(name: str) -> Callable[[Asking], bool]:
    return lambda asking: name not in asking.answers and _lunar_key(name) in asking.answers


class EventForm(Form, name="event", label="新建活动"):
    """One event. The `_lunar` fields only live until the converted day is confirmed."""

    title: Annotated[str, Ask("活动名称", "活动叫什么？如「2026年家乡恳谈会」。", _line(30))]
    starts_on_lunar: Annotated[str | None, Ask("开始日换算", "", when=_pending("starts_on"))] = None
    starts_on: Annotated[
        date,
        Ask(
            "开始日期",
            _ask_day(
                "starts_on", "哪天？如「8月12日」「8月12日到14日」，农历也行，如「腊月二十五」。"
            ),
            _read_start,
            _show_day,
        ),
    ]
    ends_on_lunar: Annotated[str | None, Ask("结束日换算", "", when=_pending("ends_on"))] = None
    ends_on: Annotated[
        date,
        Ask(
            "结束日期",
            _ask_day("ends_on", "哪天结束？只有一天请回「当天」。"),
            _read_end,
            _show_day,
            follows=("starts_on",),
        ),
    ]
    starts_at: Annotated[
        str | None,
        Ask("开始时间", "几点开始？如「9:00」；没定请回「跳过」。", _read_time, optional=True),
    ] = None
    venue: Annotated[str, Ask("地点", "在哪里？如「市会展中心」。", _line(40))]
    capacity: Annotated[
        int,
        Ask(
            "名额",
            "一共多少个名额（含随行）？",
            lambda text, _asking: read_seats(text),
            lambda value, _asking: f"{value}位",
        ),
    ]
    answers_by_lunar: Annotated[str | None, Ask("截止日换算", "", when=_pending("answers_by"))] = (
        None
    )
    answers_by: Annotated[
        date,
        Ask(
            "回执截止日",
            _ask_day("answers_by", "回执截止到哪天（含当天）？如「7月20日」或「前21天」。"),
            _read_deadline,
            _show_day,
            follows=("starts_on",),
        ),
    ]
    note: Annotated[
        str | None,
        Ask(
            "说明",
            "要写进邀请函的说明？如内容、报到、食宿用车，一行写完；没有请回「跳过」。",
            _line(150),
            optional=True,
        ),
    ] = None

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> Answers | Miss | None:
        """Both days of 「8月12日到14日」; a lunar date with what it stands for."""
        if asked not in ("starts_on", "ends_on", "answers_by"):
            return None
        guess = parse_date(text, asking.today, prefer="future")
        if isinstance(guess, LunarGuess):
            return {_lunar_key(asked): guess.day.isoformat()}
        span = _RANGE.match(tidy(text))
        if asked != "starts_on" or not span:
            return None
        first = _read_start(span[1], asking)
        if isinstance(first, Miss):
            return first
        last = _read_end(span[2], _after(asking, first))
        return last if isinstance(last, Miss) else {"starts_on": first, "ends_on": last}

    @classmethod
    def remarks(cls, asking: Asking) -> Sequence[str]:
        """What people may have meant otherwise."""
        left = (_known(asking, "starts_on") - _known(asking, "answers_by")).days
        return ["截止日离活动不到三天，名单可能来不及定。"] if left < 3 else []

    def submit(self, context: Context) -> Reply:
        """Give it a number; nobody is told before an invitation is sent."""
        year = context.today.year
        event = Event(
            number=f"HD-{year}-{next_number(context.session, f'event:{year}'):02d}",
            title=self.title,
            starts_on=self.starts_on,
            ends_on=self.ends_on,
            starts_at=self.starts_at or "",
            venue=self.venue,
            capacity=self.capacity,
            deadline=self.answers_by,
            note=self.note or "",
            created_by=context.person_id,
            created_at=context.now,
        )
        context.session.add(event)
        context.audit("event.create", f"event:{event.number}")
        return say(
            f"已建 {event.number}「{event.title}」，乡亲回「活动」就能看到。\n"
            f"回「活动 邀请 {event.number}」发邀请函，「回执 {event.number}」看名单，"
            f"「活动 修改 {event.number} 名额 60」改名额，「活动 取消 {event.number}」取消。"
        )


def _after(asking: Asking, first: str) -> Asking:
    """What may be looked at once the first day is known."""
    answers: Mapping[str, Any] = {**asking.answers, "starts_on": first}
    return Asking(answers, asking.facts, asking.today)
