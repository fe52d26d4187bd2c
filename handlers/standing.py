"""How a campaign stands, in numbers and in words."""

from collections.abc import Mapping, Sequence

from sqlmodel import Session

from bot import planning
from storage import overview
from storage.campaigns import Campaign, CampaignState
from storage.states import State

STATE_LABELS: Mapping[CampaignState, str] = {
    CampaignState.DRAFT: "草稿",
    CampaignState.FREEZING: "锁定名单中",
    CampaignState.SUBMITTED: "待审批",
    CampaignState.RUNNING: "已批准",
    CampaignState.PAUSED: "已暂停",
    CampaignState.CANCELLED: "已取消",
    CampaignState.REJECTED: "被驳回",
    CampaignState.DONE: "已完成",
}
REASON_LABELS: Mapping[str, str] = {
    "blocked": "取关",
    "unsubscribed": "退订",
    "consent": "撤回同意",
    "withdrawn": "撤回同意",
    "erased": "已删除档案",
    "window": "待其来信",
    "quota": "额度用完",
    "rate": "限流",
    "expired": "过时",
    "render": "内容对不上",
    "cancelled": "人工取消",
    "worker_lost": "发送中断",
    "timeout": "超时",
    "no_answer": "平台没有答复",
    "no_connection": "连不上平台",
    "server_error": "平台故障",
    "database": "数据库没有答复",
    "too_large": "文件太大",
    "rights": "没有发言权限",
    "moved": "群已换号",
    "policy": "渠道已关闭",
    "unreachable": "渠道不可达",
    "unreadable": "正文打不开",
    "linked": "已由另一渠道收到",
    "unlinked": "渠道已解除",
    "bug": "程序出错",
    "vouched": "经核实",
    "notice": "以通知送达",
    planning.OFTEN: planning.REASONS[planning.OFTEN],
}
LEFT = (State.SENT, State.DELIVERED, State.READ)
ON_ITS_WAY = (State.QUEUED, State.LEASED, State.SENDING, State.AWAITING_STAFF)
OPEN_STATES = (CampaignState.RUNNING, CampaignState.PAUSED)


def by_state(counts: Mapping[tuple[State, str], int]) -> dict[State, int]:
    """How many stand in each state."""
    found: dict[State, int] = {}
    for (state, _reason), count in counts.items():
        found[state] = found.get(state, 0) + count
    return found


def with_reasons(counts: Mapping[tuple[State, str], int], states: Sequence[State]) -> str:
    """How many stand in any of these states, and why."""
    mine = {reason: n for (state, reason), n in counts.items() if state in states}
    listed = "、".join(
        f"{REASON_LABELS.get(reason, reason)}{n}" for reason, n in sorted(mine.items()) if reason
    )
    return f"{sum(mine.values())}{f'（{listed}）' if listed else ''}"


def count_in(session: Session, campaign: Campaign, states: Sequence[State]) -> int:
    """How many of a campaign stand in any of these states."""
    assert campaign.id is not None
    counts = by_state(overview.progress(session.connection(), campaign.id))
    return sum(counts.get(state, 0) for state in states)


def sent_of(session: Session, campaign: Campaign) -> int:
    """How many have left; a call under way cannot be called back either."""
    return count_in(session, campaign, (*LEFT, State.SENDING, State.UNKNOWN))
