"""群发 导出: how a campaign ended for each person, as a workbook, for coordinators only."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert
from sqlmodel import Session, col, func, select

from bot.clock import beijing, show_time
from bot.commands import CliWord, Page, command
from bot.context import Context, Services
from bot.errors import UserError
from bot.messages import File, Link, Part, Reply, say
from handlers import codes
from handlers.campaigns import find
from handlers.receipts import channel_words
from handlers.roles import Role
from handlers.standing import REASON_LABELS
from handlers.workbook import XLSX, Sheet
from storage import mailbox, overview
from storage.audit import VIEWED, AuditEntry
from storage.campaigns import Campaign
from storage.people import OneTimeCode, people_with_role
from storage.profiles import MemberProfile
from storage.states import STATE_WORDS, State

PAGE = "receipts"
MOST = 2000  # rows in a workbook made while others wait; more is for the command line
BATCH = 500
HEADS = (("档案号", 18), ("姓名", 12), ("城市", 12), ("渠道", 14), ("结果", 12), ("原因", 16),
         ("时间", 18))  # fmt: skip
ACTION = "campaign.export"


@command("群发 导出", "导出回执", help="群发 导出 B-0001 事由：每个人的送达结果，Excel",
         section="统筹", roles=(Role.COORDINATOR,), feature="broadcasts",
         needs_argument=True)  # fmt: skip
def export(context: Context, argument: str) -> Reply:
    """A link that opens once within a day, or the file itself where there is no web address."""
    number, _, why = argument.strip().partition(" ")
    campaign = find(context.session, number)
    if not why.strip():
        raise UserError(f"导出名单须写事由，如「群发 导出 {campaign.number} 核对中秋信」，会留痕。")
    count = _count(context.session, campaign)
    if not count:
        raise UserError(f"{campaign.number} 没有可导出的名单；人数请回「群发 回执」。")
    if count > MOST:
        raise UserError(
            f"{campaign.number} 名单有{count}人，聊天里一次最多导出{MOST}人。"
            f"请管理员在服务器上运行 hongyan receipts {campaign.number} 回执.xlsx。"
        )
    context.audit(ACTION, f"campaign:{campaign.number}", f"{count}人，{why.strip()}")
    services = context.services
    if not services.settings.public_url:
        return Reply(
            (_handed(services, context.session, campaign, context.person_id, context.now),)
        )
    token = codes.page_token(
        context.session, services.keys, PAGE, context.person_id, context.now, campaign.number
    )
    return say(
        f"{campaign.number} 的回执已备好，{count}人（链接24小时内有效，仅可打开一次，请勿转发）。",
        link=Link("打开回执", f"/p/{token}"),
    )


def _count(session: Session, campaign: Campaign) -> int:
    rows = overview.standing(campaign.id or 0).subquery()
    return int(session.execute(select(func.count()).select_from(rows)).scalar_one())


def _show(_services: Services, _session: Session, code: OneTimeCode) -> Part:
    return Part(f"{about(code)} 的回执名单，只能取一次。按下面的按钮下载，取走后链接失效。")


def _take(services: Services, session: Session, code: OneTimeCode) -> Part:
    now = services.clock.now()
    if code.person_id not in people_with_role(session, Role.COORDINATOR, now):
        raise UserError("您已不是统筹员，不能取这份名单。")
    return _handed(services, session, find(session, about(code)), code.person_id, now)


def about(code: OneTimeCode) -> str:
    """The number of what a page's token is about."""
    number: str = json.loads(code.payload)["about"]
    return number


RECEIPTS = Page(PAGE, _show, _take)


def _handed(
    services: Services, session: Session, campaign: Campaign, reader: int | None, now: datetime
) -> Part:
    """The workbook; that its people were looked at is noted in the file of each."""
    people: list[int] = []
    sheet = _sheet(campaign, now)
    for row, person in _rows(services, session, campaign):
        sheet.append(row)
        people.append(person)
    _note_looks(session.connection(), people, campaign, reader, now, "page")
    name = f"{campaign.number} 回执 {beijing(now):%Y-%m-%d}.xlsx"
    return Part(
        f"{campaign.number}「{campaign.title}」回执，{len(people)}人。",
        file=File(name, XLSX, sheet.bytes()),
    )


def _sheet(campaign: Campaign, now: datetime) -> Sheet:
    title = f"{campaign.number}「{campaign.title}」回执，截至{show_time(now)}"
    return Sheet("回执", title, HEADS, now)


def _rows(
    services: Services, session: Session, campaign: Campaign
) -> Iterator[tuple[Sequence[str], int]]:
    """Each recipient's line with their person id, a batch at a time."""
    after = 0
    while True:
        query = overview.standing(campaign.id or 0).where(mailbox.TABLE.c.id > after).limit(BATCH)
        found = session.execute(query).all()
        if not found:
            return
        profiles = _profiles(session, [row.person_id for row in found])
        for row in found:
            yield _line(services, row, profiles.get(row.person_id)), row.person_id
        after = found[-1].id


def _profiles(session: Session, people: Sequence[int]) -> Mapping[int, Any]:
    rows = session.execute(
        select(
            MemberProfile.person_id, MemberProfile.number, MemberProfile.name, MemberProfile.city
        ).where(col(MemberProfile.person_id).in_(people))
    )
    return {row.person_id: row for row in rows}


def _line(services: Services, row: Any, profile: Any) -> Sequence[str]:
    who = (profile.number, profile.name, profile.city) if profile else ("", "已删除档案的人", "")
    return (
        *who,
        channel_words(services, row.lane),
        STATE_WORDS[State(row.state)],
        REASON_LABELS.get(row.reason, row.reason),
        f"{beijing(row.sent_at):%Y-%m-%d %H:%M}" if row.sent_at else "",
    )


def _note_looks(
    connection: Connection,
    people: Sequence[int],
    campaign: Campaign,
    reader: int | None,
    now: datetime,
    channel: str,
) -> None:
    if not people:
        return
    role = str(Role.COORDINATOR) if reader else "operator"
    entry = {
        "at": now,
        "actor_id": reader,
        "role": role,
        "channel": channel,
        "action": VIEWED,
        "result": "ok",
        "reason": f"{campaign.number} 回执导出",
        "source": "",
    }
    connection.execute(
        insert(AuditEntry), [entry | {"object": f"person:{person}"} for person in people]
    )


# - on the server, whatever the size -


def _write(services: Services, arguments: Sequence[str]) -> Sequence[str]:
    """`hongyan receipts B-0001 回执.xlsx`, read beside everybody's work, noted in batches."""
    if len(arguments) != 2:
        raise UserError("写法：hongyan receipts 群发编号 文件名.xlsx")
    number, path = arguments[0], Path(arguments[1])
    if path.exists():
        raise UserError(f"{path} 已经存在，没有覆盖；请换一个文件名。")
    now, people = services.clock.now(), []
    with services.database.session() as session:
        campaign = find(session, number)
        session.expunge(campaign)
        session.add(
            AuditEntry(
                at=now,
                role="operator",
                channel="cli",
                action=ACTION,
                object=f"campaign:{campaign.number}",
            )
        )
    sheet = _sheet(campaign, now)
    with services.database.reading() as session:
        for row, person in _rows(services, session, campaign):
            sheet.append(row)
            people.append(person)
    for start in range(0, len(people), BATCH):
        with services.database.transaction() as connection:
            _note_looks(connection, people[start : start + BATCH], campaign, None, now, "cli")
    path.touch(mode=0o600)
    path.write_bytes(sheet.bytes())
    return [f"{campaign.number}「{campaign.title}」{len(people)}人 → {path}"]


WRITE = CliWord("receipts", "一次群发每个人的送达结果，写成 Excel", _write)
