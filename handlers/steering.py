"""Campaigns under way: how far they are; pause, go on, cancel."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from bot import planning
from bot.clock import show_time
from bot.commands import command
from bot.context import Context, Services
from bot.errors import UserError
from bot.messages import Part, Reply, say
from handlers import approvals
from handlers.campaigns import FREEZING, KIND, find, object_of
from handlers.cover_words import last_cover
from handlers.roles import STAFF
from handlers.settling import settle
from handlers.standing import (
    LEFT,
    OPEN_STATES,
    STATE_LABELS,
    by_state,
    count_in,
    sent_of,
    with_reasons,
)
from storage import overview
from storage.campaigns import Campaign, CampaignState
from storage.jobs import Job
from storage.states import STATE_WORDS, WAITING, State


def _pick(context: Context, argument: str, states: Sequence[CampaignState], what: str) -> Campaign:
    """The campaign somebody means; without a number the only one it can be."""
    if argument.strip():
        return find(context.session, argument)
    found = context.session.exec(
        select(Campaign).where(col(Campaign.state).in_(states)).order_by(col(Campaign.id).desc())
    ).all()
    if not found:
        raise UserError(f"现在没有可以{what}的群发。")
    if len(found) > 1:
        listed = "\n".join(f"{c.number}　{c.title}" for c in found[:9])
        raise UserError(f"有{len(found)}个群发，请带上编号再说一次：\n{listed}")
    return find(context.session, found[0].number)


def _pick_in(
    context: Context, argument: str, state: CampaignState, what: str, otherwise: str
) -> Campaign:
    """The same, if it is in that state; else they hear in which it is."""
    campaign = _pick(context, argument, [state], what)
    if campaign.state != state:
        label = STATE_LABELS[CampaignState(campaign.state)]
        raise UserError(f"{campaign.number} {label}，{otherwise}。")
    return campaign


@command("群发 进度", help="群发 进度 B-0001：看发到哪了", section="统筹", roles=STAFF,
         feature="broadcasts", reads=True)  # fmt: skip
def progress(context: Context, argument: str) -> Reply:
    """How far a campaign is; without a number the ones under way, or the last few."""
    if argument:
        campaign = find(context.session, argument)
        words = progress_words(context.services, context.session, campaign, context.now)
        return Reply((Part(words, replaces=progress_topic(campaign)),))
    query = select(Campaign).order_by(col(Campaign.id).desc())
    running = context.session.exec(query.where(col(Campaign.state).in_(OPEN_STATES))).all()
    if running:
        shown = [
            progress_words(context.services, context.session, campaign, context.now)
            for campaign in running[:5]
        ]
        return say("\n".join(shown))
    last = context.session.exec(query.limit(5)).all()
    if not last:
        return say("还没有群发过。回「群发」开始。")
    listed = [f"{c.number}　{c.title}　{STATE_LABELS[CampaignState(c.state)]}" for c in last]
    return say("最近的群发：\n" + "\n".join(listed))


def progress_topic(campaign: Campaign) -> str:
    """The card that says how far a campaign is: brought up to date where a channel can."""
    return f"campaign:{campaign.number}"


def progress_words(services: Services, session: Session, campaign: Campaign, now: datetime) -> str:
    """One campaign's progress with reasons and an estimate."""
    assert campaign.id is not None
    if campaign.state == CampaignState.FREEZING:
        return _frozen_so_far(session, campaign)
    connection = session.connection()
    counts = overview.progress(connection, campaign.id)
    total, standing = sum(counts.values()), by_state(counts)
    sent = sum(standing.get(state, 0) for state in LEFT)
    delivered = standing.get(State.DELIVERED, 0) + standing.get(State.READ, 0)
    words = [f"已发 {sent}/{total}"]
    if delivered:
        words.append(f"送达 {delivered}")
    failed = (State.FAILED, State.DEAD)
    words.append(f"失败 {with_reasons(counts, failed)}")
    for states in ((State.UNKNOWN,), (State.SUPPRESSED,), (State.DEFERRED,), (State.EXPIRED,),
                   (State.CANCELLED,), (State.HELD,)):  # fmt: skip
        if standing.get(states[0]):
            words.append(f"{STATE_WORDS[states[0]]} {with_reasons(counts, states)}")
    state = STATE_LABELS[CampaignState(campaign.state)]
    after = _time_left(services, session, campaign, now) + last_cover(session, campaign)
    return f"{campaign.number}「{campaign.title}」{state}：{'，'.join(words)}。{after}"


def _time_left(services: Services, session: Session, campaign: Campaign, now: datetime) -> str:
    """An estimate from what each channel's slow lane allows."""
    assert campaign.id is not None
    if campaign.state != CampaignState.RUNNING:
        return ""
    if campaign.not_before is not None and campaign.not_before > now:
        return f"定于 {show_time(campaign.not_before)} 开始。"
    lanes = overview.ahead(session.connection(), campaign.id)
    if not lanes:
        return ""
    gaps = {facts.lane(urgent=False): facts.bulk_gap_ms for facts in services.channels.values()}
    seconds = max(count * gaps.get(lane, 0) / 1000 for lane, count in lanes.items())
    minutes = round(seconds / 60)
    return f"预计还需 {minutes} 分钟。" if minutes else "预计不到 1 分钟发完。"


def _frozen_so_far(session: Session, campaign: Campaign) -> str:
    """How far the list is."""
    waiting = session.exec(
        select(Job).where(Job.kind == FREEZING, col(Job.state).in_(["waiting", "running"]))
    )
    payloads = [json.loads(job.payload) for job in waiting]
    whole = [one["count"] for one in payloads if one["campaign"] == campaign.id]
    assert campaign.id is not None
    done = planning.frozen_count(session, campaign.id)
    of = f"，共约{whole[-1]}人" if whole else ""
    return (
        f"{campaign.number}「{campaign.title}」正在锁定名单：已锁定{done}人{of}；还没有送审，"
        "一份也没有发。"
    )


@command("群发 暂停", help="群发 暂停 B-0001：马上停下，「停」也行", section="统筹", roles=STAFF,
         feature="broadcasts")  # fmt: skip
def pause(context: Context, argument: str) -> Reply:
    """Stop at once: one statement, and the gate lets nothing more through."""
    campaign = _pick_in(context, argument, CampaignState.RUNNING, "暂停", "没有在发")
    campaign.state = CampaignState.PAUSED
    settle(context.services, context.session, campaign, context.now)
    context.audit("campaign.pause", object_of(campaign))
    sent = sent_of(context.session, campaign)
    return say(
        f"已暂停 {campaign.number}，已发{sent}份无法撤回。"
        "回「群发 继续」接着发，「取消剩余」不再发，"
        f"或「更正 {campaign.number}」给已收到的人补发更正。"
    )


@command("停")
def stop(context: Context, argument: str) -> Reply:
    """The short word for a coordinator in a hurry; others hear how to stop their letters."""
    if not context.has_role(*STAFF):
        return say("不想再收来信，请回「退订 节日信」「退订 活动邀请」或「退订 全部」。")
    return pause(context, argument)


@command("群发 继续", help="群发 继续 B-0001：暂停的接着发", section="统筹", roles=STAFF,
         feature="broadcasts")  # fmt: skip
def resume(context: Context, argument: str) -> Reply:
    """Go on with what was paused."""
    campaign = _pick_in(context, argument, CampaignState.PAUSED, "继续", "不在暂停中")
    campaign.state = CampaignState.RUNNING
    settle(context.services, context.session, campaign, context.now)
    left = count_in(context.session, campaign, WAITING)
    context.audit("campaign.resume", object_of(campaign))
    return say(f"{campaign.number} 继续发送，还有{left}份。")


@command("群发 取消", "取消剩余", help="群发 取消 B-0001：未发的不再发", section="统筹",
         roles=STAFF, feature="broadcasts")  # fmt: skip
def cancel(context: Context, argument: str) -> Reply:
    """Give up what has not left yet; what has left stays."""
    live = [CampaignState.FREEZING, CampaignState.SUBMITTED, *OPEN_STATES]
    campaign = _pick(context, argument, live, "取消")
    if campaign.state == CampaignState.DONE:
        raise UserError(f"{campaign.number} 已全部发出，无法取消。可发「更正 {campaign.number}」。")
    if campaign.state == CampaignState.CANCELLED:
        raise UserError(f"{campaign.number} 已经取消过了。")
    approvals.void(context.session, KIND, campaign.number)
    campaign.state, campaign.finished_at = CampaignState.CANCELLED, context.now
    settle(context.services, context.session, campaign, context.now)
    context.audit("campaign.cancel", object_of(campaign))
    # Those that are moved after this message too.
    stopped = count_in(context.session, campaign, (*WAITING, State.CANCELLED))
    sent = sent_of(context.session, campaign)
    after = f"已发{sent}份无法撤回，可「更正 {campaign.number}」。" if sent else "一份也没有发出。"
    return say(f"已取消 {campaign.number}，{stopped}份不再发；{after}")
