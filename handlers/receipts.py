"""After a campaign: whom it did not reach and why, and what may be done about it."""

from collections.abc import Mapping, Sequence

from sqlmodel import col, func, select

from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.messages import Reply, say
from handlers.campaigns import REASON_LABELS, STATE_LABELS, find
from handlers.roles import STAFF, Role
from storage import mailbox
from storage.audit import VIEWED
from storage.campaigns import Campaign, CampaignState
from storage.mailbox import STATE_WORDS, TRANSITIONS, State
from storage.profiles import MemberProfile

PAGE = 30  # names in one answer
FAILED = (State.FAILED, State.DEAD)
OVER = (CampaignState.RUNNING, CampaignState.DONE)


def _which(context: Context, number: str) -> tuple[Campaign, int]:
    campaign = find(context.session, number)
    assert campaign.id is not None
    return campaign, campaign.id


@command("群发 未达", "谁还没收到", help="群发 未达 B-0001：还没收到的人和原因", section="统筹",
         roles=(Role.COORDINATOR,), feature="broadcasts", needs_argument=True,
         reads=True)  # fmt: skip
def missed(context: Context, argument: str) -> Reply:
    """`群发 未达 B-0001 2` is the second page; `群发 未达 B-0001 电话 事由` shows phones too."""
    number, _, rest = argument.strip().partition(" ")
    page, why = _page_and_why(rest.strip())
    campaign, id = _which(context, number)
    rows = mailbox.missed(id)
    count = context.session.execute(select(func.count()).select_from(rows.subquery())).scalar_one()
    if not count:
        return say(f"{campaign.number}「{campaign.title}」名单上的人都收到了。")
    pages = -(-count // PAGE)
    if not 1 <= page <= pages:
        raise UserError(f"只有{pages}页，如「群发 未达 {campaign.number} {pages}」。")
    shown = context.session.execute(rows.offset((page - 1) * PAGE).limit(PAGE)).all()
    profiles = _profiles(context, [row.person_id for row in shown])
    lines = []
    for row in shown:
        profile = profiles.get(row.person_id)
        lines.append(f"{_who(profile, phones=bool(why))}：{_state(row.state, row.reason)}")
        if profile is not None:
            reason = f"{campaign.number} 未达名单{f'，电话：{why}' if why else ''}"
            context.audit(VIEWED, f"person:{profile.person_id}", reason)
    head = f"{campaign.number}「{campaign.title}」还没收到的{count}人"
    head += f"（第{page}/{pages}页）：" if pages > 1 else "："
    return say("\n".join([head, *lines, *_next(campaign, page, pages, why)]))


def _page_and_why(rest: str) -> tuple[int, str]:
    """The page, and why phones are wanted; raises UserError where no reason is given."""
    page, why = 1, ""
    first, _, more = rest.partition(" ")
    if first.isdecimal() and len(first) < 6:
        page, rest = int(first), more.strip()
    if rest.startswith("电话"):
        why = rest.removeprefix("电话").strip(" ：:")
        if not why:
            raise UserError("看电话须写事由，如「群发 未达 B-0001 电话 逐一电话通知」。")
    elif rest:
        raise UserError("写法是「群发 未达 B-0001」，或「群发 未达 B-0001 电话 事由」。")
    return page, why


def _profiles(context: Context, people: Sequence[int]) -> Mapping[int, MemberProfile]:
    found = context.session.exec(
        select(MemberProfile).where(col(MemberProfile.person_id).in_(people))
    )
    return {profile.person_id: profile for profile in found}


def _who(profile: MemberProfile | None, *, phones: bool) -> str:
    if profile is None:
        return "已删除档案的人"
    phone = f"，{profile.phone or '没有留电话'}" if phones else ""
    return f"{profile.name}（{profile.city}{phone}）"


def _state(state: str, reason: str) -> str:
    word = STATE_WORDS[State(state)]
    return f"{word}，{REASON_LABELS.get(reason, reason)}" if reason else word


def _next(campaign: Campaign, page: int, pages: int, why: str) -> list[str]:
    more = f"{' 电话 ' + why if why else ''}"
    lines = (
        [f"下一页请回「群发 未达 {campaign.number} {page + 1}{more}」。"] if page < pages else []
    )
    if not why:
        lines.append(f"要逐一电话通知，请回「群发 未达 {campaign.number} 电话 事由」，查看会留痕。")
    return lines


@command("群发 重发", help="群发 重发 B-0001：只重发失败的", section="统筹",
         roles=(Role.COORDINATOR,), feature="broadcasts", needs_argument=True)  # fmt: skip
def send_failed_again(context: Context, argument: str) -> Reply:
    """Only to those whom it failed to reach: the same words, and the gate asks everything again."""
    number, _, word = argument.strip().partition(" ")
    campaign, id = _which(context, number)
    counts = _counted(context, id, FAILED)
    if not counts:
        return say(f"{campaign.number} 没有失败的，不用重发。")
    _must_be_under_way(context, campaign)
    if word.strip() != "确认":
        return say(
            f"{campaign.number} 有{sum(counts.values())}人没有发成（{_listed(counts)}），"
            "内容不变，只发给他们；已收到的人不会再收到。"
            f"确定请回「群发 重发 {campaign.number} 确认」。"
        )
    count = mailbox.try_again(context.session.connection(), id, FAILED)
    if not count:
        raise UserError(
            f"{campaign.number} 没发成的都是平台收下又退回的，不能原样重发；"
            f"请回「群发 未达 {campaign.number}」看名单，逐一联系。"
        )
    _go_on(context, campaign)
    context.audit("campaign.retry", f"campaign:{campaign.number}", f"{count}人")
    return say(f"已重发给{count}人，随时回「群发 进度 {campaign.number}」查看。")


@command("群发 未知", help="群发 未知 B-0001：说不准到没到的，再发一次或算送达", section="统筹",
         roles=STAFF, feature="broadcasts", needs_argument=True)  # fmt: skip
def uncertain(context: Context, argument: str) -> Reply:
    """What may have left and nobody can say: a person decides, for all of one campaign."""
    number, _, word = argument.strip().partition(" ")
    campaign, id = _which(context, number)
    count = sum(_counted(context, id, (State.UNKNOWN,)).values())
    if not count:
        return say(f"{campaign.number} 没有说不准的。")
    if word.strip() in ("再发", "再发一次"):
        _must_be_under_way(context, campaign)
        mailbox.try_again(context.session.connection(), id, (State.UNKNOWN,))
        _go_on(context, campaign)
        context.audit("campaign.unknown.again", f"campaign:{campaign.number}", f"{count}人")
        return say(f"好的，{count}人再发一次。其中有人可能收到两封。")
    if word.strip() in ("算送达", "算已送达"):
        mailbox.count_as_sent(context.session.connection(), id)
        context.audit("campaign.unknown.sent", f"campaign:{campaign.number}", f"{count}人")
        return say(f"好的，{count}人记为已发出。")
    return say(
        f"{campaign.number} 有{count}人说不准到没到：发出后网络断了，平台没有答复，"
        f"我们不会擅自再发。先看是谁：「群发 未达 {campaign.number}」。"
        f"要再发一次（有人可能收到两封），回「群发 未知 {campaign.number} 再发」；"
        f"问过本人已经收到，回「群发 未知 {campaign.number} 算送达」。"
    )


def _counted(context: Context, id: int, states: Sequence[State]) -> dict[str, int]:
    counts = mailbox.progress(context.session.connection(), id)
    found: dict[str, int] = {}
    for (state, reason), count in counts.items():
        if state in states:
            found[reason] = found.get(reason, 0) + count
    return found


def _listed(counts: Mapping[str, int]) -> str:
    return "、".join(
        f"{REASON_LABELS.get(reason, reason) or '未说明'}{count}"
        for reason, count in sorted(counts.items())
    )


def _must_be_under_way(context: Context, campaign: Campaign) -> None:
    if campaign.state not in OVER:
        raise UserError(
            f"{campaign.number} {STATE_LABELS[CampaignState(campaign.state)]}，不能再发。"
        )
    if campaign.expires_at is not None and campaign.expires_at <= context.now:
        raise UserError(
            f"{campaign.number} 的时间已过，不再发送；可「群发 未达」看名单，电话联系。"
        )


def _go_on(context: Context, campaign: Campaign) -> None:
    """It is under way again, until nothing of it is left to send."""
    campaign.state, campaign.finished_at = CampaignState.RUNNING, None
    context.session.add(campaign)
    context.session.flush()


assert all(State.QUEUED in TRANSITIONS[state] for state in (*FAILED, State.UNKNOWN))
