"""退订, 订阅 and 为什么收到: which letters one wants, and why one got the last."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
from collections.abc import Iterable, Sequence
from typing import Annotated

from bot.clock import show_time
from bot.commands import command
from bot.context import Context
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss, is_no, pick_numbers, tidy
from handlers.leaving import WithdrawForm
from handlers.place import here
from handlers.purposes import NEWS, POLICY, TOPICS
from handlers.segments import Segment
from storage import steering
from storage.people import ALL_TOPICS, subscribe, unsubscribe, unsubscribed
from storage.privacy import last_campaign
from storage.profiles import MemberProfile

_PROMOTION = (str(POLICY.topic), str(NEWS.topic))
"""What people mean by 那些招商的: policies and news from home."""

_EVERYTHING = frozenset(("全部", "所有", "全停", "all", "一切"))
_ALSO = {"活动": "活动邀请", "邀请": "活动邀请", "节日": "节日信", "信": "节日信", "招商": "政策"}


def _topics(words: str) -> list[str]:
    """The topics that words name; empty when one of them is unknown."""
    found = []
    for word in tidy(words).replace("、", " ").replace("，", " ").split():
        topic = word if word in TOPICS else _ALSO.get(word)
        if topic is None:
            return []
        found.append(topic)
    return found


def _read_choice(text: str, _asking: Asking) -> "int | Miss":
    if is_no(text):
        return NOTHING
    picked = pick_numbers(text, 3)
    if isinstance(picked, Miss) or len(picked) != 1:
        return Miss("请回一个数字：1只退订政策与招商动态 2退订全部 3撤回同意；不退了回「算了」。")
    return picked[0]


NOTHING = 0


class StopForm(Form, name="stop_letters", label="退订"):
    """Less, nothing, or out altogether."""

    finish = None

    choice: Annotated[
        int,
        Ask(
            "怎样退订",
            "您可以：1只退订“政策与招商动态” 2退订全部推送（档案保留） 3撤回同意并删除档案。"
            "回数字。",
            _read_choice,
            options=("只退订政策与招商动态", "退订全部推送", "撤回同意并删除档案"),
            yes_no=True,
        ),
    ]

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """Nothing was going to be saved."""
        return "好的，一切照旧。"

    def submit(self, context: Context) -> Reply:
        """Do what was chosen."""
        match self.choice:
            case 1:
                return _stop(context, _PROMOTION)
            case 2:
                return _stop(context, (ALL_TOPICS,))
            case 3:
                return context.begin(WithdrawForm)
        return say("好的，一切照旧。")


@command(
    "退订",
    "TD",
    "unsubscribe",
    "别再给我发",
    "别给我发",
    "别再发",
    "别发了",
    "不要再发",
    "不要发了",
    "不想收",
    "停止推送",
    help="退订：停收某类或全部来信，如「退订 节日信」",
    section="书信与活动",
    wins=True,
    glued=True,
    guess=True,
)
def stop(context: Context, argument: str) -> Reply:
    """`退订`, `退订 全部`, `退订 节日信`."""
    if context.session.get(MemberProfile, context.person_id) is None:
        return say("您没有建档，我们不会主动给您写信。要是收到过来信，请回「人工」告诉我们。")
    if tidy(argument) in _EVERYTHING:
        return _stop(context, (ALL_TOPICS,))
    topics = _topics(argument)
    if topics:
        return _stop(context, topics)
    unknown = f"没有叫「{argument}」的一类。" if argument else ""
    return context.begin(StopForm, before=unknown)


def _stop(context: Context, topics: Sequence[str]) -> Reply:
    for topic in topics:
        unsubscribe(context.session, context.person_id, topic, context.now)
        one = None if topic == ALL_TOPICS else topic
        steering.suppress_person(
            context.session.connection(), context.person_id, "unsubscribed", one
        )
    context.audit("topics.stop", f"person:{context.person_id}", "、".join(topics))
    wanted = _wanted(context)
    if not wanted:
        return say("已退订全部推送，档案保留。想恢复时回「订阅 节日信」即可。")
    return say(f"已退订。{'和'.join(wanted)}仍会发，回「退订 全部」可全停。")


def _wanted(context: Context) -> list[str]:
    stopped = unsubscribed(context.session, context.person_id)
    return [topic for topic in TOPICS if topic not in stopped and ALL_TOPICS not in stopped]


@command("订阅", "恢复订阅", help="订阅：如「订阅 政策」", section="书信与活动", glued=True)
def take_up(context: Context, argument: str) -> Reply:
    """`订阅` shows, `订阅 政策` takes up."""
    if context.session.get(MemberProfile, context.person_id) is None:
        return say("订阅要先建档，好知道寄给谁。回「登记」开始。")
    topics = list(TOPICS) if tidy(argument) in _EVERYTHING else _topics(argument)
    if not topics:
        return say(_states(context, argument))
    if ALL_TOPICS in unsubscribed(context.session, context.person_id):
        # Only what is named comes back; the rest stays as quiet as it was.
        for topic in TOPICS:
            unsubscribe(context.session, context.person_id, topic, context.now)
    subscribe(context.session, context.person_id, topics)
    context.audit("topics.take_up", f"person:{context.person_id}", "、".join(topics))
    return say(f"已订阅{_quoted(topics)}。不想收时回「退订 {topics[0]}」。")


def _states(context: Context, argument: str) -> str:
    wanted = _wanted(context)
    listed = "　".join(f"{topic}：{'收' if topic in wanted else '不收'}" for topic in TOPICS)
    unknown = f"没有叫「{argument}」的一类。" if argument else ""
    return f"{unknown}{listed}\n要收哪一类，如「订阅 政策」；不收，如「退订 节日信」。"


def _quoted(topics: Iterable[str]) -> str:
    return "".join(f"“{topic}”" for topic in topics)


@command(
    "为什么收到",
    "为啥收到",
    "为什么给我发",
    help="为什么收到：来信的原因",
    section="书信与活动",
    reads=True,
)
def why(context: Context, _argument: str) -> Reply:
    """The conditions under which the last letter went to this person."""
    found = last_campaign(context.session, context.person_id)
    if found is None:
        return say("最近没有群发给您的信件。如有疑问请回「人工」。")
    campaign, left_at = found
    when = f"（{show_time(left_at)}）" if left_at else ""
    purpose = context.services.catalog.purpose(campaign.purpose)
    audience = Segment.load(campaign.audience).echo(here(context))
    stop = f"不想再收请回「退订 {purpose.topic}」。" if purpose.topic else ""
    return say(
        f"您最近收到的是《{campaign.title}》{when}，属于“{purpose.label}”。"
        f"发送范围：{audience}。您同意过登记，又符合这个范围，所以寄给了您。{stop}"
    )
