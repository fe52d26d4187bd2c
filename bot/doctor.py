"""What `hongyan doctor` tells: queues, clock, lanes, workers, consents, and what is due to go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from sqlmodel import Session, col, func, select

from bot.channels.base import Channel
from bot.clock import show_time
from bot.commands import Retention
from bot.context import Services
from bot.metrics import figures
from storage.claims import Worker
from storage.columns import from_millis
from storage.driver import database_millis
from storage.lanes import Lane
from storage.people import ConsentNow, Contact, Person
from storage.states import STATE_WORDS, State

SKEW_SECONDS = 5
JOB_WORDS: Mapping[str, str] = {
    "waiting": "等候",
    "running": "进行中",
    "done": "办完",
    "failed": "失败",
}


def report(services: Services, channels: Mapping[str, Channel]) -> Iterator[str]:
    """Lines for an operator; nothing personal, nothing is changed."""
    now = services.clock.now()
    with services.database.reading() as session:
        yield from _queues(session, now)
        yield from _clock(session, now)
        yield from _lanes(session)
        yield from _people(session)
    for name, channel in channels.items():
        lacking = "；".join(channel.check())
        yield f"渠道 {name}：{lacking or '设置齐全'}"
    yield from _due_to_go(services, now)


def _queues(session: Session, now: datetime) -> Iterator[str]:
    found = figures(session, now)
    rows = [f"{STATE_WORDS[State(state)]}{count}" for state, count in sorted(found.outbox.items())]
    yield f"发件：{'、'.join(rows) or '空'}"
    yield f"最久未发出：{_span(found.oldest_seconds)}"
    jobs = [f"{JOB_WORDS.get(state, state)}{n}" for state, n in sorted(found.jobs.items())]
    yield f"后台任务：{'、'.join(jobs) or '空'}"


def _span(seconds: float) -> str:
    if seconds < 1:
        return "没有"
    if seconds < 120:
        return f"{seconds:.0f}秒"
    return f"{seconds / 60:.0f}分钟" if seconds < 7200 else f"{seconds / 3600:.0f}小时"


def _clock(session: Session, now: datetime) -> Iterator[str]:
    theirs = from_millis(database_millis(session.connection()))
    skew = abs((theirs - now).total_seconds())
    words = "一致" if skew < SKEW_SECONDS else f"相差{skew:.0f}秒，请核对两边的时间"
    yield f"时钟：{show_time(now)}（北京时间），与数据库{words}"
    beats = session.exec(select(Worker.beat)).all()
    alive = [beat for beat in beats if (theirs - from_millis(beat)).total_seconds() < 30]
    yield f"投递进程：{len(alive)}个在运行"


def _lanes(session: Session) -> Iterator[str]:
    theirs = database_millis(session.connection())
    for lane in session.exec(select(Lane).order_by(Lane.key)):
        if lane.paused:
            yield f"通道 {lane.key}：已暂停"
        elif lane.broken_at:
            since = show_time(from_millis(lane.broken_at))
            yield f"通道 {lane.key}：自{since}起没有回音，隔一会儿试一条"
        elif lane.blocked_until > theirs:
            yield f"通道 {lane.key}：平台要求等到{show_time(from_millis(lane.blocked_until))}"


def _people(session: Session) -> Iterator[str]:
    people = session.exec(
        select(func.count(col(Person.id))).where(col(Person.merged_into).is_(None))
    ).one()
    reachable = session.exec(
        select(Contact.channel, func.count())
        .where(col(Contact.reachable))
        .group_by(Contact.channel)
    )
    by_channel = "、".join(f"{channel}{count}" for channel, count in reachable)
    yield f"人数：{people}；可达：{by_channel or '无'}"
    consents = session.exec(
        select(ConsentNow.scope, ConsentNow.live, func.count())
        .group_by(ConsentNow.scope, col(ConsentNow.live))
        .order_by(ConsentNow.scope)
    )
    rows = [
        f"{scope}{'有效' if live else '已撤回或拒绝'}{count}" for scope, live, count in consents
    ]
    yield f"同意：{'、'.join(rows) or '无'}"


class _Undone(Exception):
    """Takes back what was only tried."""


def _due_to_go(services: Services, now: datetime) -> Iterator[str]:
    """What each rule would remove now: run, counted, and taken back."""
    counted: list[str] = []
    try:
        with services.database.session() as session:
            for rule in services.catalog.of(Retention):
                count = rule.run(services, session, now)
                if count:
                    more = "以上" if count == rule.batch else ""
                    counted.append(f"{rule.help}{count}行{more}")
            raise _Undone
    except _Undone:
        yield f"到期待清理：{'、'.join(counted) or '没有'}"
