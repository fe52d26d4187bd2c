"""Leaving: withdrawing one's consent or erasing one's file, by a code typed back."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from bot.clock import beijing
from bot.commands import command
from bot.context import Context
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss, is_no, pick_numbers
from handlers import codes, consent
from handlers.my_data import export_reply
from storage.people import consents_of, grants_of, has_consent
from storage.privacy import erase_person, waiting_letters
from storage.profiles import MemberProfile
from storage.sequences import next_number

WITHDRAWN = "withdrawn"
ERASED = "erased"
EXPORT_FIRST, AT_ONCE, LEAVE_IT = 1, 2, 3


class _Leaving(Form):
    """The three ways out of a question about leaving; `kind` is the code's kind."""

    finish = None

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """Nothing was going to be saved."""
        return "好的，一切照旧。"

    def _go_on(self, context: Context, choice: int, kind: str, word: str) -> Reply:
        if choice == LEAVE_IT:
            return say("好的，一切照旧。")
        code = codes.confirmation(
            context.session, context.services.keys, kind, context.person_id, context.now
        )
        then = f"回「{word} {code}」，十分钟内有效。"
        if choice == AT_ONCE:
            return say(f"请{then}", f"{word} {code}")
        return export_reply(context).ending(f"请先保存好，再继续：{then}")


def _read_choice(text: str, _asking: Asking) -> "int | Miss":
    if is_no(text) or text == "算了":
        return LEAVE_IT
    if text.startswith("直接"):
        return AT_ONCE
    if text in ("先导出", "导出"):
        return EXPORT_FIRST
    picked = pick_numbers(text, 3)
    if isinstance(picked, Miss) or len(picked) != 1:
        return Miss("请回数字：1先导出 2直接办 3算了。")
    return picked[0]


class WithdrawForm(_Leaving, name="withdraw", label="撤回同意"):
    """What withdrawal does, before the code."""

    choice: Annotated[
        int,
        Ask(
            "怎样撤回",
            "撤回全部同意会：停止使用您的档案，取消已排队的信件和邀请，15天内从主库删除"
            "（备份90天内滚动清除）；不影响此前已发生的处理，也不影响您查政策、打热线。\n"
            "要先导出一份吗？1先导出 2直接撤回 3算了",
            _read_choice,
            options=("先导出", "直接撤回", "算了"),
            yes_no=True,
        ),
    ]

    def submit(self, context: Context) -> Reply:
        """Hand out the code."""
        return self._go_on(context, self.choice, "withdraw", "确认撤回")


class EraseForm(_Leaving, name="erase", label="删除档案"):
    """What erasure does, before the code."""

    choice: Annotated[
        int,
        Ask(
            "怎样删除",
            "删除档案会：立即停用并删除您的全部资料和渠道标识，取消已排队的信件和邀请"
            "（备份90天内滚动清除），不能恢复。\n要先导出一份吗？1先导出 2直接删除 3算了",
            _read_choice,
            options=("先导出", "直接删除", "算了"),
            yes_no=True,
        ),
    ]

    def submit(self, context: Context) -> Reply:
        """Hand out the code."""
        return self._go_on(context, self.choice, "erase", "确认删除")


def _nothing_held(context: Context) -> bool:
    return not any(now.live for now in consents_of(context.session, context.person_id).values())


@command("撤回同意", "撤回", help="撤回全部同意，停止一切来信", section="鸿雁档案", wins=True)
def withdraw(context: Context, argument: str) -> Reply:
    """All of it by a code; one separate consent at once (`撤回同意 S8`)."""
    scope = argument.strip().upper()
    if scope in consent.SEPARATE:
        return consent.withdraw_one(context, scope)
    if _nothing_held(context):
        return say("您没有生效中的同意，我们也没有您的档案，不会主动联系您。")
    given = [s for s in consent.SEPARATE if has_consent(context.session, context.person_id, s)]
    before = "".join(
        f"只撤回“{consent.SEPARATE[s]}”请回「撤回同意 {s}」。\n" for s in given
    ).rstrip("\n")
    return context.begin(WithdrawForm, before=before)


@command("删除档案", "删除", "注销", help="删除自己的全部资料", section="鸿雁档案", wins=True)
def erase(context: Context, _argument: str) -> Reply:
    """All data of one's own, by a code."""
    if _nothing_held(context) and context.session.get(MemberProfile, context.person_id) is None:
        return say("我们没有您的档案，不需要删除。")
    return context.begin(EraseForm)


@command("确认撤回", wins=True, needs_argument=True)
def confirm_withdrawal(context: Context, argument: str) -> Reply:
    """`确认撤回 7K3M`."""
    wrong = codes.confirm(
        context.session, context.services.keys, "withdraw", context.person_id, argument, context.now
    )
    if wrong is not None:
        return say(f"{wrong}。需要时请重新发「撤回同意」。" if "试" not in wrong else f"{wrong}。")
    number, cancelled = _leave(context, WITHDRAWN)
    return say(
        f"已撤回并停止使用（编号 {number}，{_clock(context.now)}）。{cancelled}"
        "我们不会再主动联系您；想回来时发「登记」即可。祝一切顺利。" + _staff_line(context)
    )


@command("确认删除", wins=True, needs_argument=True)
def confirm_erasure(context: Context, argument: str) -> Reply:
    """`确认删除 7K3M`."""
    wrong = codes.confirm(
        context.session, context.services.keys, "erase", context.person_id, argument, context.now
    )
    if wrong is not None:
        return say(f"{wrong}。需要时请重新发「删除档案」。" if "试" not in wrong else f"{wrong}。")
    number, cancelled = _leave(context, ERASED)
    return say(
        f"已删除（编号 {number}，{_clock(context.now)}）。{cancelled}"
        "我们不会再主动联系您；想回来时发「登记」即可。祝一切顺利。" + _staff_line(context)
    )


def _clock(moment: datetime) -> str:
    return beijing(moment).strftime("%H:%M")


def _staff_line(context: Context) -> str:
    if not grants_of(context.session, context.person_id, context.now):
        return ""
    return "您的工作角色不受影响，工作通知照常。"


def _leave(context: Context, reason: str) -> tuple[str, str]:
    """Withdraw every consent, stop what waits, erase the file; the number and what was stopped."""
    session, person_id = context.session, context.person_id
    for scope, now in sorted(consents_of(session, person_id).items()):
        if now.live:
            consent.note_consent(context, scope, "withdrawn", context.inbound.text)
    letters = waiting_letters(session, person_id)
    number = f"QX-{next_number(session, 'leaving'):04d}"
    context.audit(f"profile.{reason}", f"person:{person_id}", number)
    context.person.silent_since = context.now
    erase_person(session, person_id, context.now, reason=reason, keep_contact=reason == WITHDRAWN)
    context.drafts.clear()
    context.open_form = None
    return number, _cancelled(letters, context.now)


def _cancelled(letters: Sequence[tuple[str, datetime]], now: datetime) -> str:
    if not letters:
        return ""
    title, moment = letters[0]
    when = "今晚" if _tonight(moment, now) else f"{beijing(moment).month}月{beijing(moment).day}日"
    more = f"等{len(letters)}封" if len(letters) > 1 else ""
    return f"您原定{when}的{title}{more}已取消。"


def _tonight(moment: datetime, now: datetime) -> bool:
    local = beijing(moment)
    return local.date() == beijing(now).date() and local.hour >= 18
