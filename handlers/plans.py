"""What a campaign would do, before anybody agrees: whom it reaches how, whom not, how soon.

The numbers come from `bot.planning`; here stand this county's rules: how often anybody may be
written to, what the calendar keeps for its letters, and the words for all that.
"""

import json
from collections.abc import Sequence
from datetime import datetime, time
from math import ceil

from sqlmodel import Session

from bot import planning
from bot.clock import BEIJING, beijing
from bot.commands import Purpose
from bot.context import ChannelFacts, Services
from bot.ladder import RUNG_WORDS, Asked, Limit, Rung
from bot.planning import OFTEN, TO_TELEPHONE, Plan
from handlers.cover_words import covers_of
from handlers.festivals import Letter, every_coming
from handlers.place import place_of
from handlers.segments import Segment, people_of
from storage import overview
from storage.campaigns import Campaign, CampaignState
from storage.covers import COUNTED
from storage.quotas import sent_since

ALWAYS_SAID = ("unsubscribed", "consent", "withdrawn", "unreachable")
"""Reasons that are said even of nobody."""

OVER = (CampaignState.CANCELLED, CampaignState.DONE)
DAY_MS = 86_400_000


def purpose_of(services: Services, campaign: Campaign) -> Purpose:
    """Why it is sent: which consent and which topic it needs."""
    return services.catalog.purpose(campaign.purpose)


def asked_of(services: Services, session: Session, campaign: Campaign, now: datetime) -> Asked:
    """What is asked of each of its audience."""
    due = campaign.not_before if campaign.not_before and campaign.not_before > now else now
    return Asked(
        purpose_of(services, campaign),
        now,
        kept=len(promised(services, session, now, but=campaign.occasion)),
        limits=limits_of(services, campaign),
        due=due,
    )


def plan_of(services: Services, session: Session, campaign: Campaign, now: datetime) -> Plan:
    """Who of its audience would get it."""
    asked = asked_of(services, session, campaign, now)
    return planning.plan(services, session, people_of(campaign, now), asked)


# - how often anybody may be written to -


def limits_of(services: Services, campaign: Campaign) -> tuple[Limit, ...]:
    """How often its readers may be written to; what stands in the calendar and what puts something
    right that was wrong leaves all the same, and so does what somebody gave a reason for."""
    corrects = Segment.load(campaign.audience).reached_by is not None
    if campaign.kind == "letter" or corrects or excuse_of(campaign):
        return ()
    return tuple(Limit(one.most, one.days) for one in place_of(services).frequency)


def excuse_of(campaign: Campaign) -> str:
    """Why it leaves however often its readers were written to; approved with the text."""
    excuse: str = json.loads(campaign.facts).get("excuse", "")
    return excuse


def excused(campaign: Campaign, reason: str) -> Campaign:
    """Let an unsaved campaign leave however often its readers were written to."""
    if reason:
        facts = json.loads(campaign.facts) | {"excuse": reason}
        campaign.facts = json.dumps(facts, ensure_ascii=False, sort_keys=True)
    return campaign


# - what the calendar keeps -


def promised(services: Services, session: Session, now: datetime, but: str = "") -> list[Letter]:
    """The letters that leave later this month and whose cover nobody may take away from them.

    `but` is the occasion of a campaign that is not asked to wait for itself.
    """
    place, today = place_of(services), beijing(now).date()
    if "letters" not in place.features:
        return []
    return [
        one.letter
        for one in every_coming(services, session, now)
        if (one.day.year, one.day.month) == (today.year, today.month)
        and one.letter.occasion(one.year) != but
        and _leaves(one.campaign, on=one.letter.is_on(place))
        and not (one.campaign and covers_of(session, one.campaign, *COUNTED))
    ]


def _leaves(campaign: Campaign | None, *, on: bool) -> bool:
    return on if campaign is None else campaign.state not in OVER


def named(letters: Sequence[Letter]) -> str:
    """春节信、元宵信."""
    return "、".join(f"{letter.label}信" for letter in letters)


# - in words -


def counted(services: Services, plan: Plan) -> str:
    """A plan in one line: how many, why not, by which channel."""
    left_out = "、".join(
        f"{planning.REASONS[reason]} {plan.left_out.get(reason, 0)}"
        for reason in (*ALWAYS_SAID, *(r for r in planning.REASONS if r not in ALWAYS_SAID))
        if reason in ALWAYS_SAID or plan.left_out.get(reason)
    )
    channels = " ".join(f"{_channel(services, c)}{n}" for c, n in sorted(plan.now.items()))
    waiting = sum(plan.waiting.values())
    later = f"；顺延 {waiting} 人（待其下次来信时送达）" if waiting else ""
    by_channel = f"（{channels}）" if channels else ""
    return (
        f"命中 {plan.matched} 人；排除：{left_out}。可发 {plan.reachable} 人{by_channel}{later}。"
    )


def plan_words(
    services: Services, session: Session, campaign: Campaign, plan: Plan, now: datetime
) -> str:
    """A plan for whoever decides: the line of `counted`, then only what needs saying."""
    lines = [
        counted(services, plan),
        _by_rung(plan),
        _kept(services, session, campaign, plan, now),
        _excuse(services, campaign, plan),
        _how_long(services, session, plan, now),
        _by_telephone(campaign, plan),
    ]
    return "\n".join(line for line in lines if line)


def _by_rung(plan: Plan) -> str:
    rungs = [rung for rung in Rung if plan.by(rung)]
    if not set(rungs) - {Rung.OPEN}:
        return ""
    listed = "，".join(f"{RUNG_WORDS[rung]} {plan.by(rung)} 人" for rung in rungs)
    return f"怎样送到：{listed}。"


def _kept(
    services: Services, session: Session, campaign: Campaign, plan: Plan, now: datetime
) -> str:
    limits = [facts.covers for facts in services.channels.values() if facts.covers is not None]
    if not limits or not plan.by(Rung.COVER, Rung.WORD):
        return ""
    letters = promised(services, session, now, but=campaign.occasion)
    kept = f"，其中{len(letters)}次给{named(letters)}留着" if letters else ""
    return f"群发封面每人每月最多{limits[0].a_month}次{kept}。"


def _excuse(services: Services, campaign: Campaign, plan: Plan) -> str:
    excuse = excuse_of(campaign)
    if excuse:
        return f"这次不限次数，事由：{excuse}。"
    if not plan.left_out.get(OFTEN):
        return ""
    rules = "、".join(f"{one.days}天{one.most}次" for one in limits_of(services, campaign))
    way_out = "" if campaign.number else "确有必要请回「照发 事由」。"
    return f"{plan.left_out[OFTEN]} 人近期收到的已够多（每人最多{rules}），这次不发。{way_out}"


def _how_long(services: Services, session: Session, plan: Plan, now: datetime) -> str:
    """What the lanes' limits and the day's quota make of it, with what stands before it."""
    before = overview.owed(session.connection(), now)
    longest = max(
        (
            _milliseconds(session, services.channels[name], people, before, now)
            for name, people in plan.now.items()
        ),
        default=0,
    )
    minutes = ceil(longest / 60_000)
    if longest < 60_000:
        return ""
    if minutes < 120:
        return f"按平台限速，约 {minutes} 分钟发完。"
    hours = ceil(minutes / 60)
    return f"按平台限速，约 {hours} 小时发完。" if hours < 48 else f"约 {ceil(hours / 24)} 天发完。"


def _milliseconds(
    session: Session, facts: ChannelFacts, people: int, before: dict[str, int], now: datetime
) -> int:
    lane = facts.lane(urgent=False)
    by_pace = (people + before.get(lane, 0)) * facts.bulk_gap_ms
    if not facts.a_day or people <= facts.a_day // 2:
        return by_pace
    midnight = datetime.combine(beijing(now).date(), time(), BEIJING)
    used = sent_since(session.connection(), facts.name, midnight)
    return max(by_pace, (people + used - 1) // facts.a_day * DAY_MS)


def _by_telephone(campaign: Campaign, plan: Plan) -> str:
    count = sum(plan.left_out.get(reason, 0) for reason in TO_TELEPHONE) + plan.by(Rung.WORD)
    ask = f"回「群发 电话 {campaign.number}」看名单" if campaign.number else "回「电话」看名单"
    if not count:
        return ""
    return f"渠道送不到、要打电话的有 {count} 人，{ask}。"


def _channel(services: Services, name: str) -> str:
    return services.channels[name].label or name
