"""How it is said where a cover stands: accepted is not done, and a failure has its reason."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlmodel import Session, col

from storage.campaigns import Campaign
from storage.covers import COVER_WORDS, Cover, CoverState

REASONS: Mapping[str, str] = {
    "too_few": "还在等的人不足两位，平台不收",
    "cover_quota": "账号本月的群发次数用完了",
    "content": "平台认为内容有风险",
    "refused": "平台没有受理",
    "unreachable": "您在这个渠道没有可用的地址",
    "send_fail": "平台没有发出，可能是管理员没有在30分钟内确认",
    "delete": "已在公众平台后台删除",
    "no_word": "平台两天没有回音",
}


def cover_words(cover: Cover) -> str:
    """Where a push stands, with the platform's counts or the reason."""
    words = COVER_WORDS[CoverState(cover.state)]
    if cover.state == CoverState.DONE and cover.sent >= 0:
        errors = f"，{cover.errors}人没有收到" if cover.errors > 0 else ""
        return f"{words}：名单{cover.total}人，送到{cover.sent}人{errors}"
    if cover.reason:
        return f"{words}（{REASONS.get(cover.reason, cover.reason)}）"
    return words


def covers_of(session: Session, campaign: Campaign, *states: CoverState) -> Sequence[Cover]:
    """A campaign's pushes in some states, in any if none is named; no previews."""
    query = select(Cover).where(col(Cover.campaign_id) == campaign.id, ~col(Cover.preview))
    if states:
        query = query.where(col(Cover.state).in_(states))
    return session.execute(query.order_by(col(Cover.id))).scalars().all()


def last_cover(session: Session, campaign: Campaign) -> str:
    """Where a campaign's last push stands; empty while there was none."""
    found = covers_of(session, campaign)
    return f"封面：{cover_words(found[-1])}。" if found else ""
