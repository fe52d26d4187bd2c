"""回执 and 改回执: whether one comes, with how many, and what becomes of the seats."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Annotated, Any

from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.forms import Answers, Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss, answer, is_yes, pick_numbers, tidy
from bot.planning import wall
from handlers.events import listing, seats, wording
from handlers.events.organising import find, number_in, tell_moved_up
from handlers.events.seats import MOST_HEADS, Wish
from handlers.forms.heads import count_heads
from handlers.place import here
from handlers.purposes import PROFILE
from handlers.roles import STAFF
from storage.events import (
    Event,
    Rsvp,
    RsvpState,
    coming_events,
    heads_coming,
    locked_event,
    rsvp_of,
)
from storage.people import has_consent

_MAYBE = re.compile(
    "待定|不一定|不确定|不好说|说不准|说不定|看情况|再说|再看|没定|未定|可能|也许|到时"
)
_NOT = re.compile(
    "不能|不来|不去|[来去到]不了|赶不|不参加|不出席|没空|没时间|有事|请假|不行|无法|不方?便|不了"
)
_COMING = re.compile("能|来|去|参加|出席|可以|会|到|好|行|是|带|没问题")
_LONGEST_WORD = 12
CHOICES = (RsvpState.COMING, RsvpState.NOT_COMING, RsvpState.UNDECIDED)


# - understanding -


def _said(text: str) -> RsvpState | None:
    """Whether somebody comes, from any sentence."""
    if _MAYBE.search(text):
        return RsvpState.UNDECIDED
    if _NOT.search(text):
        return RsvpState.NOT_COMING
    return RsvpState.COMING if _COMING.search(text) else None


def _read_going(text: str, asking: Asking) -> str | Miss:
    number = re.fullmatch("[123][.、。]?", text)
    if number:
        return _allowed(CHOICES[int(text[0]) - 1], asking)
    if count_heads(text) is None and len(text) <= _LONGEST_WORD:
        state = _said(text)
        if state is not None:
            return _allowed(state, asking)
    return Miss(_again(asking))


def _allowed(state: RsvpState, asking: Asking) -> str | Miss:
    if asking.facts["closed"] and state is not RsvpState.NOT_COMING:
        return Miss(_again(asking))
    return state.value


def _again(asking: Asking) -> str:
    if asking.facts["closed"]:
        return "回执已截止，只能取消。来不了请回「不能来」，照旧来请回「取消」退出。"
    return "请回数字：1能 2不能 3待定；带人来也可以直说，如「能，带媳妇和娃」。"


def _ask_going(asking: Asking) -> str:
    facts = asking.facts
    now = f"您现在登记的是：{facts['mine']}。" if facts["mine"] else ""
    if facts["closed"]:
        return (
            f"「{facts['title']}」的回执已于{facts['deadline']}截止，人数不能再改。{now}\n"
            f"来不了请回「不能来」，照旧来请回「取消」退出。要加人{facts['call']}"
        )
    head = f"「{facts['title']}」{facts['when']}，{facts['venue']}，{facts['left']}。"
    question = "改成？1能来 2不能来 3待定" if now else "您能来吗？1能 2不能 3待定"
    return f"{head}\n{now}{question}"


def _comes(asking: Asking) -> bool:
    return bool(asking.get("going") == RsvpState.COMING)


def _ask_heads(asking: Asking) -> str:
    guess = asking.get("guess")
    if guess is None:
        return "一共几位（含您）？只报人数，不必留姓名。"
    return f"随行只按人数登记：一共{guess}位（含您），对吗？（不必留姓名、年龄）"


def _read_heads(text: str, asking: Asking) -> int | Miss:
    guess, said = asking.get("guess"), answer(text)
    if guess is not None and (is_yes(text) or (said is not None and said.yes)):
        return guess  # type: ignore[no-any-return]  # what extract put there
    if guess is not None and said is not None and not said.rest:
        return Miss("那请告诉我一共几位（含您），回数字就行。")
    heads = count_heads(said.rest if said is not None and said.rest else text)
    if heads is None:
        return Miss("请告诉我一共几位（含您），回数字就行，如「3」。")
    return _sensible(heads)


def _sensible(heads: int) -> int | Miss:
    if heads < 1:
        return Miss("连您自己至少是1位。来不了请回「上一步」再选2。")
    if heads > MOST_HEADS:
        return Miss(f"一次最多登记{MOST_HEADS}位；人更多请回「人工」，由工作人员安排。")
    return heads


class RsvpForm(Form, name="rsvp", label="回执"):
    """One answer to one event. `guess` is how many a sentence seemed to mean, until confirmed."""

    going: Annotated[
        str,
        Ask(
            "出席",
            _ask_going,
            _read_going,
            lambda value, _asking: wording.ANSWERS[RsvpState(value)],
            options=("能来", "不能来", "待定"),
        ),
    ]
    guess: Annotated[
        int | None,
        Ask("人数猜测", "", when=lambda a: "guess" in a.answers and "heads" not in a.answers),
    ] = None
    heads: Annotated[
        int | None,
        Ask("人数", _ask_heads, _read_heads, lambda value, _asking: f"{value}位", when=_comes),
    ] = None

    @classmethod
    def deadline(cls, facts: Mapping[str, Any], now: datetime) -> datetime:
        """A draft lives until the answer is due, but at least a day."""
        due = wall(date.fromisoformat(facts["until"]), time(23, 59))
        return min(now + cls.expires, due) if due > now else now + cls.expires

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> Answers | Miss | None:
        """「能，带媳妇和娃」: coming, and three as it seems."""
        if asked != "going":
            return None
        heads, said = count_heads(text), _said(text)
        if heads is not None and (said is None or said is RsvpState.COMING):
            going, count = _allowed(RsvpState.COMING, asking), _sensible(heads)
            if isinstance(going, Miss):
                return going
            return count if isinstance(count, Miss) else {"going": going, "guess": count}
        if said is None:
            return None
        state = _allowed(said, asking)
        return state if isinstance(state, Miss) else {"going": state}

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """What stands, stands."""
        mine = asking.facts["mine"]
        return f"好的，照旧：{mine}。" if mine else "好的，没有登记。要参加随时回「回执」。"

    @classmethod
    def review(cls, asking: Asking, lines: Sequence[tuple[str, str]]) -> str:
        """One line: 出席|3位."""
        values = "|".join(value for _label, value in lines)
        who = "（含您）" if _comes(asking) else ""
        return f"请核对：「{asking.facts['title']}」\n{values}{who}"

    def submit(self, context: Context) -> Reply:
        """Take or give back the seats, and tell those who move up."""
        event = locked_event(context.session, self.began_with["event"])
        before = rsvp_of(context.session, event.id or 0, context.person_id)
        state = RsvpState(self.going)
        _refuse_late(context, event, before, state)
        wish = Wish(state, self.heads or 0)
        mine = seats.answer(context.session, event, context.person_id, wish, context.now)
        lucky = seats.move_up(context.session, event, context.today)
        tell_moved_up(context, event, lucky)
        return say(_settled(context, event, mine))


def _refuse_late(context: Context, event: Event, mine: Rsvp | None, state: RsvpState) -> None:
    if event.cancelled_at is not None:
        raise UserError(f"「{event.title}」已经取消，不用再回执了。")
    leaves = mine is not None and state is RsvpState.NOT_COMING
    if event.deadline < context.today and not leaves:
        raise UserError(_closed(context, event))


def _closed(context: Context, event: Event) -> str:
    return (
        f"「{event.title}」的回执已于{wording.show_day(event.deadline)}截止。"
        f"还想参加，{wording.call(here(context))}"
    )


def _settled(context: Context, event: Event, mine: Rsvp) -> str:
    head = f"回执 {mine.number} 已收："
    until = f"{wording.show_day(event.deadline)}前"
    if mine.state == RsvpState.COMING:
        return f"{head}出席，{mine.heads}位，名额已留。变动随时发「改回执」。"
    if mine.state == RsvpState.WAITING:
        place = seats.position(context.session, mine)
        return (
            f"{head}剩下的名额不够您一行{mine.heads}位，先为您排候补第{place}位，还没有留座。"
            "有人退出时按先后递补，您一行坐得下就给您，并马上告诉您。不想等了回「改回执」。"
        )
    if mine.state == RsvpState.UNDECIDED:
        return f"{head}待定，暂不占名额。定了请在{until}回「改回执」。"
    changed = f"改主意了请在{until}回「改回执」。" if event.deadline >= context.today else ""
    return f"{head}这次不能来，谢谢您告诉我们，盼下次相见。{changed}"


# - which event -


@command(
    "回执",
    "报名",
    help="回执：告诉我们您能不能来、来几位",
    section="书信与活动",
    feature="events",
)
def respond(context: Context, argument: str) -> Reply:
    """Answer an event; with a campaign's or event's number staff see who has answered."""
    staff = context.has_role(*STAFF)
    if staff and (number_in(argument) or re.match(r"[Bb]-?\d", argument.strip())):
        return listing.receipts(context, argument)
    _need_consent(context)
    if number_in(argument):
        return _answer(context, find(context, argument))
    coming = coming_events(context.session, context.today)
    still_open = [event for event in coming if event.deadline >= context.today]
    if not still_open:
        raise UserError(_too_late(context, coming))
    mine = [e for e in still_open if context.person_id in listing.invited(context.session, e)]
    if len(mine) == 1 or len(still_open) == 1:
        return _answer(context, (mine if len(mine) == 1 else still_open)[0], argument)
    return _choose(context, still_open, argument)


@command(
    "改回执",
    help="改回执：变动人数，或来不了了",
    section="书信与活动",
    feature="events",
)
def respond_again(context: Context, argument: str) -> Reply:
    """Change or take back an answer, also after the last day for answers."""
    _need_consent(context)
    if number_in(argument):
        return _answer(context, find(context, argument))
    answered = [
        event
        for event in coming_events(context.session, context.today)
        if rsvp_of(context.session, event.id or 0, context.person_id)
    ]
    if not answered:
        raise UserError("您还没有可以改的回执。要参加活动请回「回执」。")
    if len(answered) == 1:
        return _answer(context, answered[0], argument)
    return _choose(context, answered, argument)


def _need_consent(context: Context) -> None:
    if not has_consent(context.session, context.person_id, PROFILE):
        raise UserError("回执要先登记，好知道是哪位乡亲来。回「登记」开始，约一分钟。")


def _too_late(context: Context, coming: Sequence[Event]) -> str:
    if not coming:
        return "眼下没有可以回执的活动。有了会发邀请，回「活动」随时可看。"
    mine = any(rsvp_of(context.session, e.id or 0, context.person_id) for e in coming)
    return _closed(context, coming[0]) + ("来不了请回「改回执」。" if mine else "")


def _answer(context: Context, event: Event, words: str = "") -> Reply:
    mine = rsvp_of(context.session, event.id or 0, context.person_id)
    closed = event.deadline < context.today
    if event.cancelled_at is not None or event.ends_on < context.today:
        over = "已经取消" if event.cancelled_at else "已经结束"
        raise UserError(f"「{event.title}」{over}，不用再回执了。")
    if closed and (mine is None or mine.state == RsvpState.NOT_COMING):
        raise UserError(_closed(context, event))
    facts = _facts(context, event, mine, closed=closed)
    return context.begin(RsvpForm, facts, _already(words, facts, context.today))


def _already(words: str, facts: Mapping[str, Any], today: date) -> Answers:
    """What was said along with the word: 「回执 能，带媳妇和娃」."""
    asking = Asking({}, facts, today)
    text = tidy(words)
    going = _read_going(text, asking) if text else Miss("")
    if not isinstance(going, Miss):
        return {"going": going}
    found = RsvpForm.extract(text, "going", asking) if text else None
    return found if isinstance(found, dict) else {}


def _facts(context: Context, event: Event, mine: Rsvp | None, *, closed: bool) -> dict[str, Any]:
    left = event.capacity - heads_coming(context.session, [event.id or 0]).get(event.id or 0, 0)
    return {
        "event": event.id,
        "title": event.title,
        "when": wording.when(event),
        "venue": event.venue,
        "left": f"余{left}席" if left else "名额已满，可登记候补",
        "deadline": wording.show_day(event.deadline),
        "until": event.deadline.isoformat(),
        "closed": closed,
        "mine": wording.answer_words(mine) if mine else "",
        "call": wording.call(here(context)),
    }


# - several at once -


def _choose(context: Context, events: Sequence[Event], words: str) -> Reply:
    listed = {event.number: f"{event.title}（{wording.when(event)}）" for event in events}
    return context.begin(WhichEvent, {"events": listed, "words": words})


def _read_which(text: str, asking: Asking) -> str | Miss:
    numbers: list[str] = list(asking.facts["events"])
    said = number_in(text)
    if said is not None and said in numbers:
        return said
    picked = pick_numbers(text, len(numbers))
    if isinstance(picked, Miss) or len(picked) != 1:
        return Miss(f"请回一个数字，1到{len(numbers)}。")
    return numbers[picked[0] - 1]


def _ask_which(asking: Asking) -> str:
    events: Mapping[str, str] = asking.facts["events"]
    listed = "\n".join(f"{n} {title}" for n, title in enumerate(events.values(), 1))
    return f"有几场活动，您回的是哪一场？\n{listed}"


class WhichEvent(Form, name="which_event", label="选活动"):
    """Which of several events is meant."""

    finish = None
    passing = True

    event: Annotated[str, Ask("活动", _ask_which, _read_which)]

    def submit(self, context: Context) -> Reply:
        """Go on with that one."""
        return _answer(context, find(context, self.event), self.began_with["words"])
