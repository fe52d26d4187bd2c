"""What coordinators do with an event: make it, invite to it, change its seats, call it off."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import re
from collections.abc import Sequence
from typing import Annotated

from sqlmodel import col, select

from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss
from handlers import broadcasts, steering
from handlers.events import seats, wording
from handlers.forms.event import EventForm, read_seats
from handlers.purposes import EVENT_SERVICE
from handlers.roles import Role
from storage.campaigns import Campaign, CampaignState
from storage.events import Event, Rsvp, RsvpState, event_called, locked_event, rsvps_of

NUMBER = re.compile(r"HD-?(\d{4})-?(\d{1,3})", re.IGNORECASE)
LONGEST_REASON = 100


def number_in(text: str) -> str | None:
    """The event number in what somebody typed (hd2026-1), as it is stored."""
    found = NUMBER.search(text)
    return f"HD-{found[1]}-{int(found[2]):02d}" if found else None


def find(context: Context, text: str) -> Event:
    """The event somebody names; raises UserError."""
    number = number_in(text)
    event = event_called(context.session, number) if number else None
    if event is None:
        raise UserError(f"没有编号为「{text.strip()}」的活动。回「活动」看编号。")
    return event


def _still_on(context: Context, text: str) -> Event:
    event = find(context, text)
    if event.cancelled_at is not None:
        raise UserError(f"{event.number}「{event.title}」已经取消了。")
    if event.ends_on < context.today:
        raise UserError(f"{event.number}「{event.title}」已经结束了。")
    return event


def tell_moved_up(context: Context, event: Event, lucky: Sequence[Rsvp]) -> None:
    """Tell each party that has just got its seats, once."""
    for rsvp in lucky:
        context.send(
            rsvp.person_id,
            wording.moved_up(event, rsvp),
            occasion=wording.moved_up_occasion(rsvp),
            purpose=EVENT_SERVICE,
        )


@command(
    "活动 新建",
    help="活动 新建：建一场活动；活动 邀请|修改|取消 HD-2026-01",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="events",
)
def create(context: Context, _argument: str) -> Reply:
    """Begin the form."""
    return context.begin(EventForm)


@command(
    "活动 邀请",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="events",
    needs_argument=True,
)
def invite(context: Context, argument: str) -> Reply:
    """`活动 邀请 HD-2026-01`: choose whom; from there on it is a campaign like any other."""
    return broadcasts.invite(context, _still_on(context, argument).number)


@command(
    "活动 修改",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="events",
    needs_argument=True,
)
def change(context: Context, argument: str) -> Reply:
    """`活动 修改 HD-2026-01 名额 60`; more seats go to those who wait."""
    said = re.search(r"名额\s*(?:改[为成到])?\s*(\S+)\s*$", argument)
    event = _still_on(context, argument)
    if not said:
        raise UserError(
            f"可以改名额，如「活动 修改 {event.number} 名额 60」。"
            "改时间地点请先「活动 取消」再新建，好让已回执的人知道。"
        )
    capacity = read_seats(said[1])
    if isinstance(capacity, Miss):
        raise UserError(capacity.text)
    assert event.id is not None
    event = locked_event(context.session, event.id)
    taken, before = seats.taken(rsvps_of(context.session, event.id or 0)), event.capacity
    if capacity < taken:
        raise UserError(f"已有{taken}位定下出席，名额不能少于{taken}。")
    event.capacity = capacity
    context.session.add(event)
    lucky = seats.move_up(context.session, event, context.today)
    tell_moved_up(context, event, lucky)
    context.audit("event.change", f"event:{event.number}", f"名额{before}改为{capacity}")
    up = f"候补中{len(lucky)}人已递补，正在通知。" if lucky else ""
    return say(f"{event.number} 名额 {before}→{capacity}。{up}")


# - calling it off -


@command(
    "活动 取消",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="events",
    needs_argument=True,
)
def cancel(context: Context, argument: str) -> Reply:
    """`活动 取消 HD-2026-01`: asks why, shows whom it concerns, and wants a last word."""
    event = _still_on(context, argument)
    rsvps = rsvps_of(context.session, event.id or 0)
    facts = {
        "event": event.id,
        "title": f"{event.number}「{event.title}」",
        "coming": f"{_count(rsvps, RsvpState.COMING)}人（共{seats.taken(rsvps)}位）",
        "waiting": _count(rsvps, RsvpState.WAITING),
        "undecided": _count(rsvps, RsvpState.UNDECIDED),
    }
    return context.begin(CancelEvent, facts)


def _count(rsvps: Sequence[Rsvp], state: RsvpState) -> int:
    return sum(rsvp.state == state for rsvp in rsvps)


def _read_reason(text: str, _asking: Asking) -> str | Miss:
    if len(text) > LONGEST_REASON or "\n" in text:
        return Miss(f"请写一行，最多{LONGEST_REASON}个字。")
    return text


class CancelEvent(Form, name="cancel_event", label="取消活动"):
    """Why an event is called off; the reason is told to those who answered."""

    reason: Annotated[
        str,
        Ask(
            "原因",
            lambda asking: f"要取消{asking.facts['title']}，请写明原因（会告诉已回执的人）：",
            _read_reason,
        ),
    ]

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """Nothing was called off."""
        return f"好的，{asking.facts['title']}照常。"

    @classmethod
    def review(cls, asking: Asking, lines: Sequence[tuple[str, str]]) -> str:
        """Whom it concerns."""
        facts = asking.facts
        return (
            f"取消后不能恢复：{facts['title']}\n"
            f"出席 {facts['coming']}、候补 {facts['waiting']}人、待定 {facts['undecided']}人，"
            f"将逐一私聊通知。\n原因：{lines[0][1]}"
        )

    def submit(self, context: Context) -> Reply:
        """Call it off, tell those who answered, and stop invitations that have not left."""
        event = locked_event(context.session, self.began_with["event"])
        if event.cancelled_at is not None:
            raise UserError(f"{event.number} 已经取消了。")
        event.cancelled_at = context.now
        context.session.add(event)
        told = 0
        for rsvp in rsvps_of(context.session, event.id or 0):
            if rsvp.state != RsvpState.NOT_COMING:
                told += context.send(
                    rsvp.person_id,
                    wording.cancelled(event, self.reason),
                    occasion=f"event.cancelled:{event.number}",
                    purpose=EVENT_SERVICE,
                )
        context.audit("event.cancel", f"event:{event.number}", self.reason)
        return say(
            f"已取消 {event.number}「{event.title}」，正在通知{told}人。"
        ) + _stop_invitations(context, event)


def _stop_invitations(context: Context, event: Event) -> Reply:
    """Campaigns that invite to it, as far as they have not left; the others can be corrected."""
    found = context.session.exec(
        select(Campaign)
        .where(Campaign.kind == "invitation", Campaign.object == event.number)
        .order_by(col(Campaign.id))
    ).all()
    reply = Reply()
    for campaign in found:
        if campaign.state in (
            CampaignState.SUBMITTED,
            CampaignState.RUNNING,
            CampaignState.PAUSED,
        ):
            reply += steering.cancel(context, campaign.number)
        elif campaign.state == CampaignState.DONE:
            reply += say(f"收到邀请还没回执的人，可发「更正 {campaign.number}」告诉他们。")
    return reply
