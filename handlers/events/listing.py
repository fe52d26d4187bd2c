"""What is on, for everybody; and who comes, for those who organise it."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.messages import Reply, say
from handlers import campaigns
from handlers.events import seats, wording
from handlers.events.organising import find, number_in
from handlers.place import here
from handlers.roles import STAFF, Role
from handlers.segments import REACHED
from storage import overview
from storage.campaigns import Campaign
from storage.events import Event, Rsvp, RsvpState, coming_events, heads_coming, rsvp_of, rsvps_of
from storage.profiles import MemberProfile

LIST_MOST = 9


@command(
    "活动",
    "/event",
    help="活动：家乡近期的活动和余下的名额",
    section="书信与活动",
    group=True,
    reads=True,
    feature="events",
)
def events(context: Context, argument: str) -> Reply:
    """Date, place and seats left; in private also what one has answered oneself."""
    coming = coming_events(context.session, context.today)
    number = number_in(argument)
    if number:
        coming = [event for event in coming if event.number == number]
    if not coming:
        return say(_none_yet(context))
    taken = heads_coming(context.session, [event.id or 0 for event in coming])
    lines = [
        _line(context, event, event.capacity - taken.get(event.id or 0, 0))
        for event in coming[:LIST_MOST]
    ]
    private = context.inbound.chat.private
    how = "要参加请回「回执」。" if private else "要参加请私聊我回「回执」。"
    return say("\n".join(["近期活动：", *lines, how]))


def _none_yet(context: Context) -> str:
    usual = here(context).events.usual
    often = f"主题活动一般在{usual}举办，" if usual else ""
    return f"眼下没有定下来的活动。{often}定了会给登记过的乡亲发邀请，回「活动」随时可看。"


def _line(context: Context, event: Event, left: int) -> str:
    free = f"余{left}席" if left else "名额已满，可候补"
    if event.deadline < context.today:
        free = "回执已截止"
    else:
        free += f"，{wording.show_day(event.deadline)}前回执"
    line = f"{event.number}「{event.title}」　{wording.when(event)}　{event.venue}　{free}"
    return f"{line}{_my_answer(context, event)}"


def _my_answer(context: Context, event: Event) -> str:
    if not context.inbound.chat.private or not context.person_id:
        return ""
    mine = rsvp_of(context.session, event.id or 0, context.person_id)
    return f"（您：{wording.answer_words(mine)}）" if mine else ""


# - who comes -


@command(
    "名单",
    help="名单 HD-2026-01：谁来、谁候补、谁还没回",
    section="统筹",
    roles=STAFF,
    feature="events",
    needs_argument=True,
)
def attendance(context: Context, argument: str) -> Reply:
    """`名单 HD-2026-01`."""
    return who_comes(context, argument)


def receipts(context: Context, argument: str) -> Reply:
    """`回执 B-0001` and `回执 HD-2026-01` of staff."""
    if number_in(argument):
        return who_comes(context, argument)
    return campaigns.receipts(context, argument)


def who_comes(context: Context, argument: str) -> Reply:
    """Each answer with its count; the names are for coordinators alone, and noted."""
    event = find(context, argument)
    assert event.id is not None
    named = context.has_role(Role.COORDINATOR)
    if not named and not context.has_role(Role.LEADER):
        raise UserError("名单只给统筹员看。")
    rsvps = rsvps_of(context.session, event.id)
    groups: list[tuple[str, list[str]]] = [
        (_counted(state, rsvps), [_heads(rsvp) for rsvp in rsvps if rsvp.state == state])
        for state in RsvpState
    ]
    people = [[r.person_id for r in rsvps if r.state == state] for state in RsvpState]
    silent = _silent(context.session, event, rsvps)
    groups.append((f"未回 {len(silent)}人", ["" for _ in silent]))
    names = _names(context.session, [p for group in (*people, silent) for p in group])
    lines = [_head(event, rsvps)]
    for (count, heads), members in zip(groups, (*people, silent), strict=True):
        listed = "、".join(
            f"{names.get(p, '无名')}{h}" for p, h in zip(members, heads, strict=True)
        )
        lines.append(f"{count}：{listed}" if named and listed else count)
    if named:
        context.audit("event.list", f"event:{event.number}", "活动名单")
    return say("\n".join(lines))


def _head(event: Event, rsvps: Sequence[Rsvp]) -> str:
    state = "（已取消）" if event.cancelled_at else ""
    came = f"，到会{event.came}位（名单已按期清除）" if event.came is not None else ""
    left = event.capacity - seats.taken(rsvps)
    free = (
        f"名额{event.capacity}，余{left}" if event.came is None else f"名额{event.capacity}{came}"
    )
    return f"{event.number}「{event.title}」{state}{wording.when(event)}　{free}"


def _counted(state: RsvpState, rsvps: Sequence[Rsvp]) -> str:
    mine = [rsvp for rsvp in rsvps if rsvp.state == state]
    heads = sum(rsvp.heads for rsvp in mine)
    together = f"（共{heads}位）" if heads else ""
    return f"{wording.ANSWERS[state]} {len(mine)}人{together}"


def _heads(rsvp: Rsvp) -> str:
    return f"{rsvp.heads}位" if rsvp.heads else ""


def _silent(session: Session, event: Event, rsvps: Sequence[Rsvp]) -> list[int]:
    """Those an invitation has reached and who have not answered."""
    if event.came is not None:
        return []
    return sorted(invited(session, event) - {rsvp.person_id for rsvp in rsvps})


def invited(session: Session, event: Event) -> set[int]:
    """Those an invitation to the event has reached."""
    campaign_ids = session.exec(
        select(Campaign.id).where(Campaign.kind == "invitation", Campaign.object == event.number)
    ).all()
    return {
        person_id
        for campaign_id in campaign_ids
        for (person_id,) in session.execute(overview.people_in(campaign_id or 0, REACHED))
    }


def _names(session: Session, people: Sequence[int]) -> dict[int, str]:
    rows = session.execute(
        select(MemberProfile.person_id, MemberProfile.name).where(
            col(MemberProfile.person_id).in_(people)
        )
    )
    return {person_id: name for person_id, name in rows}
