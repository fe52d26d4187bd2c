"""After a campaign: whom it reached, whom not and why, and what may be done about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import col, func, select

from bot.clock import show_time
from bot.commands import command
from bot.context import Context, Services
from bot.errors import UserError
from bot.messages import Reply, say
from handlers.campaigns import find
from handlers.roles import STAFF, Role
from handlers.standing import LEFT, REASON_LABELS, STATE_LABELS
from storage import mailbox, overview, steering
from storage.audit import VIEWED
from storage.campaigns import Campaign, CampaignState
from storage.profiles import MemberProfile
from storage.states import STATE_WORDS, TRANSITIONS, State

PAGE = 30  # names in one answer
FAILED = (State.FAILED, State.DEAD)
OVER = (CampaignState.RUNNING, CampaignState.DONE)
BEGUN = (*OVER, CampaignState.PAUSED, CampaignState.CANCELLED)


def _which(context: Context, words: str) -> tuple[Campaign, int]:
    """The campaign of a number or of a word of its title; the last one without either."""
    if any(character.isdigit() for character in words):
        campaign = find(context.session, words)
    else:
        query = select(Campaign).where(col(Campaign.state).in_(BEGUN))
        if words:
            query = query.where(col(Campaign.title).contains(words, autoescape=True))
        last = context.session.exec(query.order_by(col(Campaign.id).desc()).limit(1)).first()
        if last is None:
            raise UserError("没有找到发过的这一次群发。回「群发 进度」看最近几次。")
        campaign = find(context.session, last.number)
    assert campaign.id is not None
    return campaign, campaign.id


@command("群发 未达", "谁还没收到", "还有谁没收到", "谁没收到", "哪些人没收到",
         help="群发 未达 B-0001：谁还没收到和原因", section="统筹",
         roles=(Role.COORDINATOR,), feature="broadcasts", reads=True)  # fmt: skip
def missed(context: Context, argument: str) -> Reply:
    """`群发 未达 B-0001 2` is the second page; `群发 未达 B-0001 电话 事由` shows phones too."""
    return _listed(context, argument, MISSED)


@command("群发 收到", "谁收到了", "谁收到", "哪些人收到了",
         help="群发 收到 B-0001：谁收到了、何时、从哪个渠道", section="统筹",
         roles=(Role.COORDINATOR,), feature="broadcasts", reads=True)  # fmt: skip
def reached(context: Context, argument: str) -> Reply:
    """Who got it, by name; in pages as well."""
    return _listed(context, argument, REACHED)


@command("群发 失败", "失败原因", "谁没发成", help="群发 失败 B-0001：没发成的人和原因",
         section="统筹", roles=(Role.COORDINATOR,), feature="broadcasts", reads=True)  # fmt: skip
def failed(context: Context, argument: str) -> Reply:
    """Whom it failed to reach, and those of whom nobody can say."""
    return _listed(context, argument, FAILURES)


@dataclass(frozen=True)
class _List:
    """A kind of list: its word, which rows stand in it, and what is said when there are none."""

    word: str
    title: str
    states: Sequence[State]
    nobody: str


REACHED = _List("收到", "收到的", LEFT, "还没有人收到")
MISSED = _List(
    "未达", "还没收到的", [state for state in State if state not in LEFT], "名单上的人都收到了"
)
FAILURES = _List("失败", "没发成的", (*FAILED, State.UNKNOWN), "没有失败的")


def _listed(context: Context, argument: str, what: _List) -> Reply:
    number, _, rest = argument.strip().partition(" ")
    page, why = _page_and_why(rest.strip())
    campaign, id = _which(context, number)
    rows = overview.standing(id, what.states)
    count = context.session.execute(select(func.count()).select_from(rows.subquery())).scalar_one()
    if not count:
        return say(f"{campaign.number}「{campaign.title}」{what.nobody}。{_forgotten(context, id)}")
    pages = -(-count // PAGE)
    if not 1 <= page <= pages:
        raise UserError(f"只有{pages}页，如「群发 {what.word} {campaign.number} {pages}」。")
    shown = context.session.execute(rows.offset((page - 1) * PAGE).limit(PAGE)).all()
    profiles = _profiles(context, [row.person_id for row in shown])
    lines = []
    for row in shown:
        profile = profiles.get(row.person_id)
        lines.append(f"{_who(profile, phones=bool(why))}：{_standing(context, row)}")
        if profile is not None:
            reason = f"{campaign.number} {what.word}名单{f'，电话：{why}' if why else ''}"
            context.audit(VIEWED, f"person:{profile.person_id}", reason)
    head = f"{campaign.number}「{campaign.title}」{what.title}{count}人"
    head += f"（第{page}/{pages}页）：" if pages > 1 else "："
    return say("\n".join([head, *lines, *_next(campaign, what, page, pages, why)]))


def _forgotten(context: Context, id: int) -> str:
    """Of an old campaign only the numbers are left."""
    there = select(mailbox.TABLE.c.id).where(mailbox.TABLE.c.campaign_id == id).limit(1)
    if context.session.execute(there).first() is not None:
        return ""
    counts = overview.progress(context.session.connection(), id)
    return "明细已按期清除，只留人数，请回「群发 回执」。" if counts else ""


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


def result_words(state: str, reason: str) -> str:
    """How a row ended, in words."""
    word = STATE_WORDS[State(state)]
    return f"{word}，{REASON_LABELS.get(reason, reason)}" if reason else word


def channel_words(services: Services, lane: str) -> str:
    """The channel of a lane, as people call it."""
    channel = services.channels.get(lane.partition(":")[0])
    return (channel.label or channel.name) if channel else ""


def _standing(context: Context, row: Any) -> str:
    words = result_words(row.state, row.reason)
    if row.sent_at is None or State(row.state) not in LEFT:
        return words
    return f"{words}，{channel_words(context.services, row.lane)} {show_time(row.sent_at)}"


def _next(campaign: Campaign, what: _List, page: int, pages: int, why: str) -> list[str]:
    more = f"{' 电话 ' + why if why else ''}"
    again = f"群发 {what.word} {campaign.number}"
    lines = [f"下一页请回「{again} {page + 1}{more}」。"] if page < pages else []
    if not why and what is not REACHED:
        lines.append(f"要逐一电话通知，请回「{again} 电话 事由」，查看会留痕。")
    if pages > 1:
        lines.append(f"要整份名单，请回「群发 导出 {campaign.number} 事由」。")
    return lines


@command("群发 重发", "只重发失败的", "重发失败的", help="群发 重发 B-0001：只重发失败的",
         section="统筹", roles=(Role.COORDINATOR,), feature="broadcasts")  # fmt: skip
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
            f"{campaign.number} 有{sum(counts.values())}人没有发成（{_reasons(counts)}），"
            "内容不变，只发给他们；已收到的人不会再收到。"
            f"确定请回「群发 重发 {campaign.number} 确认」。"
        )
    count = steering.try_again(context.session.connection(), id, FAILED)
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
        steering.try_again(context.session.connection(), id, (State.UNKNOWN,))
        _go_on(context, campaign)
        context.audit("campaign.unknown.again", f"campaign:{campaign.number}", f"{count}人")
        return say(f"好的，{count}人再发一次。其中有人可能收到两封。")
    if word.strip() in ("算送达", "算已送达"):
        steering.count_as_sent(context.session.connection(), id)
        context.audit("campaign.unknown.sent", f"campaign:{campaign.number}", f"{count}人")
        return say(f"好的，{count}人记为已发出。")
    return say(
        f"{campaign.number} 有{count}人说不准到没到：发出后网络断了，平台没有答复，"
        f"我们不会擅自再发。先看是谁：「群发 未达 {campaign.number}」。"
        f"要再发一次（有人可能收到两封），回「群发 未知 {campaign.number} 再发」；"
        f"问过本人已经收到，回「群发 未知 {campaign.number} 算送达」。"
    )


def _counted(context: Context, id: int, states: Sequence[State]) -> dict[str, int]:
    counts = overview.progress(context.session.connection(), id)
    found: dict[str, int] = {}
    for (state, reason), count in counts.items():
        if state in states:
            found[reason] = found.get(reason, 0) + count
    return found


def _reasons(counts: Mapping[str, int]) -> str:
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
