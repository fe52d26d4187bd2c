"""Consent: the notice in force, the ledger of what was agreed to, and separate consents."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
from collections.abc import Sequence
from typing import Annotated

from sqlmodel import col, select

from bot.commands import command
from bot.context import Context
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Explicit, Miss, coded, explicit, is_no
from bot.purposes import ANSWER
from handlers.notices import Notice, current, notices
from handlers.place import here
from handlers.purposes import PROFILE
from storage import steering
from storage.people import (
    ConsentEntry,
    ConsentNow,
    has_consent,
    ids_of,
    record_consent,
)

SEPARATE = {
    "S1": "把您的登记信息提供给归口单位",
    "S2": "把您的登记信息报送市级平台",
    "S3": "公开宣传您的事迹",
    "S4": "记录您的服役经历",
    "S5": "记录饮食、健康、行动方面的需要",
    "S6": "记录行程信息",
    "S7": "经境外渠道收发消息",
    "S8": "把手机号提供给活动接站司机",
}


def notice(context: Context) -> Notice:
    """The notice in force here."""
    return current(here(context))


def up_to_date(context: Context) -> bool:
    """Has the person agreed to the notice in force? Only then do its new purposes hold."""
    consent = context.session.get(ConsentNow, (context.person_id, PROFILE))
    return consent is not None and consent.live and consent.version == notice(context).version


def note_consent(context: Context, scope: str, action: str, words: str) -> None:
    """Append a line to the ledger: what was said, to which words of ours, in which message."""
    told = notice(context)
    record_consent(
        context.session,
        ConsentEntry(
            person_id=context.person_id,
            scope=scope,
            action=action,
            version=told.version,
            notice_hash=told.hash,
            at=context.now,
            channel=context.inbound.sender.channel,
            source=context.inbound.id,
            words=words,
        ),
    )
    context.audit(f"consent.{action}", f"person:{context.person_id}", scope)
    if action == "withdrawn":
        _stop_channels(context, scope)


def _stop_channels(context: Context, scope: str) -> None:
    """Stop what waits on channels that carry nothing unasked without this consent."""
    lanes = [
        context.services.channels[name].lane(urgent=urgent)
        for name, needed in context.services.proactive.items()
        if needed == scope
        for urgent in (True, False)
    ]
    steering.suppress_channel(
        context.session.connection(), context.person_id, lanes, "consent", ANSWER.name
    )


# --- separate consents ------------------------------------------------------------------------


def _read_driver(text: str, _asking: Asking) -> "bool | Miss":
    found = coded(text, "同意")
    if found is not None and found[0] == "S8":
        return True
    if is_no(text) or explicit(text) is Explicit.DECLINE or text in ("2", "不同意S8"):
        return False
    return Miss("这一项要单独同意。愿意请回「同意S8」，不愿意请回「不用」。")


class DriverConsent(Form, name="driver_consent", label="单独同意"):
    """May a driver who meets people at the station see this phone number?"""

    finish = None
    passing = True

    agreed: Annotated[
        bool,
        Ask(
            "司机可见手机",
            "要把手机给活动接站司机看吗？这需要您单独同意（S8），回「同意S8」或「不用」。",
            _read_driver,
            options=("同意S8", "不用"),
            verbatim=True,
        ),
    ]

    @classmethod
    def claims(cls, text: str) -> bool:
        """「同意 S8」 is an answer here, not an approver's word."""
        return coded(text, "同意") is not None

    def submit(self, context: Context) -> Reply:
        """Write the answer into the ledger."""
        note_consent(context, "S8", "granted" if self.agreed else "refused", context.inbound.text)
        if self.agreed:
            return say("已记录您的单独同意（S8），随时可回「撤回同意」单独撤回。")
        return say("好的，手机号不给司机看，接站由工作人员联系您。")


def asked_before(context: Context, scope: str) -> bool:
    """Has this separate consent been given or refused already? Nobody is asked twice."""
    return context.session.get(ConsentNow, (context.person_id, scope)) is not None


def withdraw_one(context: Context, scope: str) -> Reply:
    """Take one separate consent back."""
    if not has_consent(context.session, context.person_id, scope):
        return say(f"您没有同意过“{SEPARATE[scope]}”（{scope}），不用撤回。")
    note_consent(context, scope, "withdrawn", context.inbound.text)
    return say(f"已撤回“{SEPARATE[scope]}”（{scope}），即刻生效。其他同意照旧。")


# --- 隐私 -------------------------------------------------------------------------------------


@command(
    "隐私",
    "隐私政策",
    "个人信息",
    help="隐私：个人信息怎样处理，附历次版本",
    group=True,
    reads=True,
)
def privacy(context: Context, _argument: str) -> Reply:
    """The whole notice with its history; in a group only the card."""
    every = notices(here(context))
    told = every[-1]
    if not context.inbound.chat.private:
        return say(told.card)
    history = "\n".join(f"v{n.version}　{n.since:%Y-%m-%d}　{n.change}" for n in every)
    reply = say(told.full).then(f"历次版本：\n{history}\n现行版本校验值（sha256）：{told.hash}")
    return reply.then(_telegram_line(context)) if "telegram" in context.services.channels else reply


def _telegram_line(context: Context) -> str:
    words = {
        "off": "未启用",
        "public_only": "只提供公共信息，不收集个人信息",
        "overseas_self": "只服务自述在境外的乡亲本人，须单独同意（S7）",
        "full": "全部功能（已完成评估或备案）",
    }
    policy = context.services.settings.telegram_policy
    return f"Telegram 的服务器在境外，本处的使用方式：{words[policy]}。"


def entries_of(context: Context) -> Sequence[ConsentEntry]:
    """The person's own lines of the ledger, oldest first."""
    return context.session.exec(
        select(ConsentEntry)
        .where(col(ConsentEntry.person_id).in_(ids_of(context.session, context.person_id)))
        .order_by(col(ConsentEntry.id))
    ).all()
