"""One's own data: seen, corrected, taken along."""

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from bot.clock import show_time
from bot.commands import Page, command
from bot.context import Context, Services
from bot.messages import File, Link, Part, Reply, say
from handlers import codes
from handlers.forms.cities import zone_city
from handlers.forms.correction import ITEMS, begin_correction, item_called, shown
from handlers.purposes import PROFILE, TOPICS
from handlers.roles import ROLE_WORDS, Role
from storage.audit import VIEWED, AuditEntry
from storage.people import ALL_TOPICS, ConsentNow, OneTimeCode, ids_of, unsubscribed
from storage.privacy import Section, export_person
from storage.profiles import MemberProfile

VIEWS_SHOWN = timedelta(days=365)
EXPORT_PAGE = "export"
_PLUMBING = re.compile(r"(?:inbox|outbox|draft|job)\.|.*_digest$")
"""Columns that only the attached file lists."""

_NO_FILE = "您还没有建档。回「登记」开始。"


@command(
    "我的档案",
    "/me",
    "查看",
    "我的资料",
    help="我的档案：看自己的档案",
    section="鸿雁档案",
    reads=True,
)
def my_file(context: Context, _argument: str) -> Reply:
    """The whole file with the phone masked, the topics, the consent, and who has read it."""
    profile = context.session.get(MemberProfile, context.person_id)
    if profile is None:
        return say(_NO_FILE)
    values = shown(context, profile)
    lines = [f"{ask.label}：{values[name]}" for name, ask in ITEMS.items()]
    more = [f"{label}：{v}" for label, v in _smaller(context, profile) if v]
    text = "\n".join([f"档案号：{profile.number}", *lines, *more])
    return say(f"{text}\n回「修改」更正，「完善」补充，「导出」带走一份。")


def _smaller(context: Context, profile: MemberProfile) -> Sequence[tuple[str, str | None]]:
    stopped = unsubscribed(context.session, context.person_id)
    topics = [t for t in TOPICS if t not in stopped and ALL_TOPICS not in stopped]
    agreed = context.session.get(ConsentNow, (context.person_id, PROFILE))
    return (
        ("旗县市区", profile.banner),
        ("苏木街道", profile.subdistrict),
        ("所在时区", f"与{zone_city(zone)}相同" if (zone := context.person.timezone) else None),
        ("想收到", "、".join(topics) or "无"),
        ("同意", f"告知 v{agreed.version}，{show_time(agreed.at)}" if agreed else None),
        ("谁看过（近12个月）", _viewers(context)),
    )


def _viewers(context: Context) -> str:
    entries = context.session.exec(
        select(AuditEntry)
        .where(
            col(AuditEntry.object).in_(
                [f"person:{number}" for number in ids_of(context.session, context.person_id)]
            ),
            AuditEntry.action == VIEWED,
            col(AuditEntry.at) > context.now - VIEWS_SHOWN,
        )
        .order_by(col(AuditEntry.id))
    ).all()
    said = [f"{_role_words(e.role)} {show_time(e.at)} {e.reason}".strip() for e in entries]
    return "；".join(said) or "无"


def _role_words(roles: str) -> str:
    return "、".join(ROLE_WORDS[Role(role)] for role in roles.split(",") if role in set(Role))


@command("显示手机", help="显示手机：看自己登记的完整号码", section="鸿雁档案", reads=True)
def show_phone(context: Context, _argument: str) -> Reply:
    """One's own number in full."""
    profile = context.session.get(MemberProfile, context.person_id)
    if profile is None:
        return say(_NO_FILE)
    if profile.phone is None:
        return say("您没有登记手机。回「修改 手机」可以补上。")
    return say(f"您登记的手机：{profile.phone}")


@command("修改", "更改资料", help="修改：更正一项，如「修改 城市 北京」", section="鸿雁档案")
def correct(context: Context, argument: str) -> Reply:
    """`修改`, `修改 城市`, `修改 城市 北京`."""
    label, _, words = argument.partition(" ")
    item = item_called(label) if label else None
    if label and item is None:
        labels = "、".join(ask.label for ask in ITEMS.values())
        return say(f"没有叫「{label}」的一项。可以改：{labels}。如「修改 城市 北京」。")
    return begin_correction(context, item, words.strip())


@command("换手机", "手机换了", "换号了", "改手机", "换手机号", guess=True)
def new_phone(context: Context, _argument: str) -> Reply:
    """What people say instead of 修改 手机."""
    return begin_correction(context, "phone")


# --- 导出 -------------------------------------------------------------------------------------


@command("导出", "导出档案", help="导出：带走自己的全部资料", section="鸿雁档案")
def export(context: Context, _argument: str) -> Reply:
    """A link that opens once within a day, or the file itself where there is no web address."""
    return export_reply(context)


def export_reply(context: Context) -> Reply:
    """The answer to 导出; also offered before leaving."""
    context.audit("profile.export", f"person:{context.person_id}")
    if not context.services.settings.public_url:
        part = _delivered(context.session, context.person_id, context.now)
        return Reply((part,))
    token = codes.page_token(
        context.session, context.services.keys, EXPORT_PAGE, context.person_id, context.now
    )
    return say(
        "已生成（链接24小时内有效，仅可打开一次，请勿转给别人）。",
        link=Link("打开导出", f"/p/{token}"),
    )


def _show_export(_services: Services, _session: Session, _code: OneTimeCode) -> Part:
    return Part("这里是您本人资料的导出，只能取一次。按下面的按钮下载，取走后链接失效。")


def _hand_over(services: Services, session: Session, code: OneTimeCode) -> Part:
    assert code.person_id is not None, "an export belongs to somebody"
    return _delivered(session, code.person_id, services.clock.now())


EXPORT = Page(EXPORT_PAGE, _show_export, _hand_over)


def _delivered(session: Session, person_id: int, now: datetime) -> Part:
    sections = export_person(session, person_id)
    content = json.dumps(_as_json(sections, now), ensure_ascii=False, indent=2)
    return Part(
        readable(sections, now),
        file=File("我的鸿雁档案.json", "application/json", content.encode()),
    )


def _as_json(sections: Sequence[Section], now: datetime) -> dict[str, Any]:
    return {
        "导出时间": show_time(now),
        "内容": [
            {
                "目的": section.purpose,
                "项目": [
                    {"名称": held.label, "内容": held.value, "字段": held.column}
                    for held in section.entries
                ],
            }
            for section in sections
        ],
    }


def readable(sections: Sequence[Section], now: datetime) -> str:
    """The export for people: one block a purpose, without the mail room's own numbers."""
    blocks = []
    for section in sections:
        lines = [f"{h.label}：{h.value}" for h in section.entries if not _PLUMBING.match(h.column)]
        if lines:
            blocks.append("\n".join([f"【{section.purpose}】", *lines]))
    head = f"您的资料（{show_time(now)}导出；全部内容见附件）"
    return "\n\n".join([head, *blocks])
