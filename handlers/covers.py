"""群发 封面: a short text to many at once, for those whose letter waits until they write.

On such a channel nobody can be written to unasked but by a cover, of which each person gets a few a
month; whoever answers it has theirs at once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from sqlalchemy import select
from sqlmodel import Session, col

from bot.clock import BEIJING, beijing
from bot.commands import Approvable, Retention, command, tick
from bot.context import Context, Covers, Services
from bot.errors import UserError
from bot.heart import fire
from bot.messages import Reply, say
from bot.text import content_hash
from handlers import approvals
from handlers.campaigns import eyes_for, find, tell
from handlers.cover_words import cover_words, covers_of
from handlers.festivals import Letter
from handlers.place import here
from handlers.plans import named, promised
from handlers.roles import STAFF, Role
from storage import covers
from storage.approvals import Approval
from storage.campaigns import Campaign, CampaignState
from storage.covers import COUNTED, UNFINISHED, Cover, CoverRecipient, CoverState
from storage.overview import waiting_for_a_word

KIND = "cover"
WORDS: Mapping[str, str] = {
    "letter": "您有一封鸿雁来信，回复『信』领取。",
    "invitation": "您有一封家乡的邀请函，回复『信』领取。",
}
WORDS_ELSE = "家乡有消息寄给您，回复『信』领取。"
SLOW = timedelta(minutes=6)  # after which a push probably waits for an administrator's tap


@dataclass(frozen=True)
class Outlook:
    """Who waits for a cover of a campaign: how many each may still get this month.

    `kept` are the letters of this month for which each person keeps one, unless there is an
    `excuse` for using theirs.
    """

    channel: str
    limits: Covers
    left: Mapping[int, int]
    had_it: int
    kept: Sequence[Letter] = ()
    excuse: str = ""

    @property
    def spare(self) -> int:
        """How many of the month's each person keeps."""
        return 0 if self.excuse else len(self.kept)

    @property
    def people(self) -> list[int]:
        """Those it would go to."""
        return sorted(person for person, left in self.left.items() if left > self.spare)


def _channel(services: Services) -> tuple[str, Covers]:
    for name, facts in services.channels.items():
        if facts.covers is not None:
            return name, facts.covers
    raise UserError("现在启用的渠道都不用封面：信会直接送到。")


def _look(context: Context, campaign: Campaign, excuse: str = "") -> Outlook:
    if campaign.state != CampaignState.RUNNING:
        raise UserError(f"{campaign.number} 不在发送中，没有要发的封面。")
    assert campaign.id is not None
    channel, limits = _channel(context.services)
    connection = context.session.connection()
    waiting = connection.execute(
        waiting_for_a_word(campaign.id, channel), {"now": context.now}
    ).all()
    spent = covers.received(connection, channel, _month(context.now))
    had_it = {
        person
        for (person,) in connection.execute(
            select(col(CoverRecipient.person_id))
            .join(Cover, col(Cover.id) == col(CoverRecipient.cover_id))
            .where(col(Cover.campaign_id) == campaign.id, col(Cover.state).in_(COUNTED))
        )
    }
    people = {row.person_id for row in waiting}
    left = {p: max(0, limits.a_month - spent.get(p, 0)) for p in people - had_it}
    kept = promised(context.services, context.session, context.now, but=campaign.occasion)
    return Outlook(channel, limits, left, len(people & had_it), kept, excuse)


def _month(now: datetime) -> str:
    return f"{beijing(now):%Y-%m}"


def _text(campaign: Campaign) -> str:
    return WORDS.get(campaign.kind, WORDS_ELSE)


def _words(campaign: Campaign, seen: Outlook) -> str:
    by_left = Counter(seen.left.values())
    spread = "、".join(
        _left_words(seen, left, by_left[left]) for left in sorted(by_left, reverse=True)
    )
    concerned = any(0 < left <= len(seen.kept) for left in by_left)
    kept = f"本月还要寄{named(seen.kept)}，每人留{len(seen.kept)}次" if concerned else ""
    waiting = len(seen.left) + seen.had_it
    lines = [
        f"{campaign.number}「{campaign.title}」：要等来信才能送达的有 {waiting} 人。",
        f"封面：{_text(campaign)}",
        f"每人每月最多收{seen.limits.a_month}次群发，本月：{spread or '没有人要发'}。",
        f"{kept}；这次动用留着的，事由：{seen.excuse}。" if kept and seen.excuse else "",
        f"{kept}，不能用在这里。" if kept and not seen.excuse else "",
        f"其中 {seen.had_it} 人已发过这封的封面，不再发。" if seen.had_it else "",
        f"这次发给 {len(seen.people)} 人，用掉他们本月一次；内容对所有人相同。",
    ]
    return "\n".join(line for line in lines if line)


def _left_words(seen: Outlook, left: int, people: int) -> str:
    if not left:
        return f"已满{seen.limits.a_month}次 {people}人（不发）"
    kept = f"（留给{named(seen.kept)}，不发）" if left <= seen.spare else ""
    return f"还剩{left}次 {people}人{kept}"


# - what coordinators say -


@command("群发 封面", help="群发 封面 B-0001：提醒等着领信的人", section="统筹", roles=STAFF,
         feature="broadcasts", needs_argument=True)  # fmt: skip
def show(context: Context, argument: str) -> Reply:
    """How many wait, what the cover says, and how many of the month's each has left."""
    campaign = find(context.session, argument)
    seen = _look(context, campaign)
    words = _words(campaign, seen)
    if len(seen.people) < seen.limits.least and seen.spare and any(seen.left.values()):
        return say(f"{words}{_way_out(campaign, seen)}")
    if len(seen.people) < seen.limits.least:
        return say(f"{words}\n平台一次至少要{seen.limits.least}人，请改用电话联系。")
    number = campaign.number
    return say(
        f"{words}\n「群发 封面 预览 {number}」先发给自己看；「群发 封面 送审 {number}」送审。"
    )


@command("群发 封面 预览", roles=STAFF, feature="broadcasts", needs_argument=True, section="统筹")
def preview(context: Context, argument: str) -> Reply:
    """The cover on one's own phone; it costs nobody anything."""
    campaign = find(context.session, argument)
    channel, _limits = _channel(context.services)
    _add(context, campaign, channel, CoverState.WAITING, (), preview=True)
    return say("样子稍后发到您的手机上，只发给您自己。")


@command("群发 封面 送审", roles=(Role.COORDINATOR,), feature="broadcasts", needs_argument=True,
         section="统筹")  # fmt: skip
def submit(context: Context, argument: str) -> Reply:
    """Ask a second person: what has been pushed cannot be called back."""
    return _hand_in(context, find(context.session, argument))


@command("群发 封面 占用", roles=(Role.LEADER,), feature="broadcasts", needs_argument=True,
         section="统筹")  # fmt: skip
def submit_all_the_same(context: Context, argument: str) -> Reply:
    """`群发 封面 占用 B-0001 事由`: a leader takes what the month's letters would need."""
    number, _, reason = argument.strip().partition(" ")
    campaign = find(context.session, number)
    if not reason.strip():
        raise UserError(f"动用给节日信留的次数须写事由，如「群发 封面 占用 {number} 汛情紧急」。")
    context.audit("cover.excuse", f"campaign:{campaign.number}", reason.strip())
    return _hand_in(context, campaign, reason.strip())


def _hand_in(context: Context, campaign: Campaign, excuse: str = "") -> Reply:
    assert campaign.id is not None
    seen = _look(context, campaign, excuse)
    if len(seen.people) < seen.limits.least:
        raise UserError(f"{_too_few(seen)}{_words(campaign, seen)}{_way_out(campaign, seen)}")
    if covers_of(context.session, campaign, *(s for s in UNFINISHED if s != "submitted")):
        raise UserError(f"{campaign.number} 的封面已批准，正在发送。回「群发 进度」查看。")
    covers.forget(context.session.connection(), campaign.id)
    pushes = divided(seen.people, seen.limits)
    _must_fit_today(context, seen, len(pushes))
    for people in pushes:
        _add(context, campaign, seen.channel, CoverState.SUBMITTED, people, excuse=excuse)
    eyes = eyes_for(campaign, len(seen.people), here(context))
    approval = approvals.request(
        context,
        KIND,
        campaign.number,
        f"{campaign.title} 的封面（{len(seen.people)}人）",
        _fingerprint(context.session, campaign),
        needed=max(1, eyes.needed),
        role_needed=eyes.role,
        reason=excuse,
    )
    code = approval.content_hash[: approvals.CODE_LENGTH]
    return say(f"已送审 {approval.number}，须另一人同意后发出。哈希 {code}。")


def _too_few(seen: Outlook) -> str:
    if seen.spare and any(seen.left.values()):
        return f"剩下的次数要留给{named(seen.kept)}，这次不能发。"
    return f"能发的不足{seen.limits.least}人，平台不收。"


def _way_out(campaign: Campaign, seen: Outlook) -> str:
    if not seen.spare or not any(seen.left.values()):
        return ""
    return f"\n确有必要，请领导回「群发 封面 占用 {campaign.number} 事由」。"


def _must_fit_today(context: Context, seen: Outlook, pushes: int) -> None:
    """The platform counts calls; an account that has used up its day's is refused."""
    midnight = datetime.combine(context.today, time(), BEIJING)
    used = covers.pushed_since(context.session.connection(), seen.channel, midnight)
    if used + pushes > seen.limits.a_day:
        raise UserError(
            f"账号一天最多群发{seen.limits.a_day}批，今天已有{used}批，这次还要{pushes}批。"
            "请明天再送审。"
        )


def divided(people: Sequence[int], limits: Covers) -> list[Sequence[int]]:
    """As few pushes as possible, none smaller than the platform takes."""
    count = -(-len(people) // limits.most)
    size = -(-len(people) // count)
    return [people[start : start + size] for start in range(0, len(people), size)]


def _add(
    context: Context,
    campaign: Campaign,
    channel: str,
    state: CoverState,
    people: Sequence[int],
    *,
    preview: bool = False,
    excuse: str = "",
) -> None:
    first = str(people[0]) if people else "preview"
    key = content_hash(KIND, campaign.number, context.now.isoformat(), first, context.inbound.key)
    cover = Cover(
        key=key[:32],
        channel=channel,
        campaign_id=campaign.id,
        text=_text(campaign),
        preview=preview,
        excuse=excuse,
        asked_by=context.person_id,
        created_at=context.now,
        state=state,
    )
    context.session.add(cover)
    context.session.flush()
    assert cover.id is not None
    covers.add_recipients(context.session.connection(), cover.id, people)


def _fingerprint(session: Session, campaign: Campaign) -> str:
    """Of what was submitted: the words and the people."""
    submitted = covers_of(session, campaign, CoverState.SUBMITTED)
    people = session.execute(
        select(col(CoverRecipient.person_id))
        .where(col(CoverRecipient.cover_id).in_([cover.id for cover in submitted]))
        .order_by(col(CoverRecipient.person_id))
    ).scalars()
    said = [words for cover in submitted for words in (cover.text, cover.excuse)]
    return content_hash(campaign.number, *said, *map(str, people))


# - approval -


def _shown(context: Context, approval: Approval) -> Reply:
    campaign = find(context.session, approval.object)
    seen = _look(context, campaign, approval.reason)
    return say(
        f"{approval.number}：{approval.title}\n{_words(campaign, seen)}\n费用：0；群发后无法撤回。"
    )


def _granted(context: Context, approval: Approval) -> Reply:
    campaign = find(context.session, approval.object)
    if _fingerprint(context.session, campaign) != approval.content_hash:
        raise UserError(f"{campaign.number} 的封面在送审后有变动，不能发。请重新送审。")
    if campaign.state != CampaignState.RUNNING:
        raise UserError(f"{campaign.number} 已不在发送中，封面不发了。")
    for cover in covers_of(context.session, campaign, CoverState.SUBMITTED):
        cover.state, cover.month = CoverState.WAITING, _month(context.now)
        context.session.add(cover)
    context.audit("cover.release", f"campaign:{campaign.number}", approval_id=approval.id)
    return say(
        f"{campaign.number} 的封面交给平台去发。平台受理不等于发完，发完会告诉送审的人；"
        f"回「群发 进度 {campaign.number}」也能看。"
    )


def _refused(context: Context, approval: Approval) -> Reply:
    campaign = find(context.session, approval.object)
    assert campaign.id is not None
    covers.forget(context.session.connection(), campaign.id)
    return say(f"{campaign.number} 的封面没有发。信还在等，成员来信时照常送达。")


APPROVABLE = Approvable(KIND, "群发封面", _shown, _granted, _refused)


# - the clock -


@tick("covers", label="群发封面的结果告诉送审的人")
def watch(services: Services, session: Session, now: datetime) -> None:
    """Tell what became of each push, once, and when one seems to wait for an administrator."""
    over = (CoverState.DONE, CoverState.FAILED, CoverState.UNKNOWN)
    found = session.execute(
        select(Cover).where(col(Cover.state).in_((*over, CoverState.ACCEPTED)), ~col(Cover.told))
    )
    for cover in found.scalars().all():
        number = _number(session, cover)
        if cover.state != CoverState.ACCEPTED:
            if not (cover.preview and cover.state == CoverState.DONE):
                words = f"{number} 的封面{'预览' if cover.preview else ''}：{cover_words(cover)}。"
                tell(services, session, [cover.asked_by], words, f"cover:{cover.key}", now)
            cover.told = True
            session.add(cover)
        elif now - cover.created_at >= SLOW and fire(session, "cover.slow", cover.key, now):
            words = (
                f"{number} 的封面平台还没有发完。若公众平台开着「群发保护」，请管理员在手机上确认，"
                "30分钟内不确认即作废。"
            )
            tell(services, session, [cover.asked_by], words, f"cover.slow:{cover.key}", now)


def _number(session: Session, cover: Cover) -> str:
    campaign = session.get(Campaign, cover.campaign_id) if cover.campaign_id else None
    return campaign.number if campaign is not None else "群发"


def _forget(_services: Services, session: Session, now: datetime) -> int:
    """Who was meant by pushes older than last month."""
    last = beijing(now).date().replace(day=1) - timedelta(days=1)
    return covers.forget_recipients(session.connection(), f"{last:%Y-%m}")


RECIPIENTS = Retention("covers", "群发封面发给谁，下下月起只留人数", _forget)
