"""登记: the notice, the word 同意, the question of age, and then the member profile."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import re
from typing import Annotated, Literal

from bot.clock import show_time
from bot.commands import command
from bot.context import Context
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Explicit, Miss, answer, explicit, is_soft_yes, read_integer
from handlers import consent
from handlers.forms.member_profile import DetailsForm, MemberForm, facts_of
from handlers.place import here
from handlers.purposes import PROFILE
from storage.profiles import MemberProfile

ADULT = 18  # years; nobody younger is registered, and nobody's age is written down


@command(
    "登记",
    "/register",
    "建档",
    "注册",
    help="登记：建立鸿雁档案，常收家乡的信",
    section="鸿雁档案",
    guess=True,
    feature="profiles",
)
def register(context: Context, _argument: str) -> Reply:
    """Go on where the person stands: missing settings, already registered, half-way, or new."""
    missing = here(context).missing()
    if missing:
        listed = "、".join(missing)
        return say(f"登记还没有开通：本处尚未填写{listed}。请稍后再来，或转告工作人员。")
    profile = context.session.get(MemberProfile, context.person_id)
    if profile is not None and consent.up_to_date(context):
        return say(
            f"您已建档，档案号 {profile.number}。回「我的档案」查看，回「修改」更正，"
            "回「完善」补充。"
        )
    if profile is not None:
        return ask_consent(context, f"您已建档（{profile.number}）。告知有更新，请您过目：")
    for form in (MemberForm, OfAge, ConsentForm):
        if form.name in context.drafts:
            return context.resume(form, "接着上次的来。")
    if consent.up_to_date(context):
        told = consent.notice(context)
        return context.begin(OfAge, before=f"您已同意过告知 v{told.version}，咱们直接登记。")
    hello = "赛白努！" if here(context).letters.mongolian_hello else "您好！"
    return ask_consent(context, f"{hello}先花一分钟看个告知：")


@command("完善", "补充资料", help="完善：补充手机、单位等", section="鸿雁档案", feature="profiles")
def complete(context: Context, _argument: str) -> Reply:
    """The optional questions, under the notice in force."""
    if context.session.get(MemberProfile, context.person_id) is None:
        return say("您还没有建档。回「登记」开始。")
    if not consent.up_to_date(context):
        return ask_consent(context, "告知有更新，请您先过目：")
    return context.begin(DetailsForm, facts_of(here(context)))


_HOW = "回「同意」开始；「全文」看完整规则；「不同意」退出。"


def _read_consent(text: str, asking: Asking) -> "str | Miss":
    said = explicit(text)
    if said is Explicit.AGREE:
        return "agree"
    if said is Explicit.DECLINE:
        return "decline"
    if text.strip("「」“”。") == "全文":
        return Miss(f"{asking.facts['full']}\n\n{_HOW}")
    # 好的, OK and 👍 are not consent; they are asked about once more, never taken for it.
    return "unclear" if is_soft_yes(text) else Miss(f"请{_HOW}")


_OPTIONS = ("同意", "全文", "不同意")


class ConsentForm(Form, name="consent", label="登记"):
    """Asks for the word itself, and once more where somebody only sounded willing."""

    finish = None

    word: Annotated[
        Literal["agree", "decline", "unclear"],
        Ask(
            "是否同意",
            _HOW,
            _read_consent,
            options=_OPTIONS,
            verbatim=True,
            hint="登记需要您明确回复「同意」或「不同意」。",
        ),
    ]
    once_more: Annotated[
        Literal["agree", "decline", "unclear"] | None,
        Ask(
            "是否同意",
            "为尊重您的选择，请回「同意」或「不同意」两个字。",
            _read_consent,
            options=_OPTIONS,
            verbatim=True,
            when=lambda asking: asking.get("word") == "unclear",
            hint="登记需要您明确回复「同意」或「不同意」。",
        ),
    ] = None

    def submit(self, context: Context) -> Reply:
        """Record the choice; whoever agreed goes on to the registration."""
        said = self.word if self.once_more is None else self.once_more
        if said == "unclear":
            return say("没有收到明确的「同意」，先不登记，什么都没有保存。想好了随时发「登记」。")
        if said == "decline":
            return _declined(context)
        return _agreed(context)


def ask_consent(context: Context, before: str) -> Reply:
    """Show the card and wait for the word."""
    told = consent.notice(context)
    return context.begin(ConsentForm, facts={"full": told.full}, before=f"{before}\n{told.card}")


def _declined(context: Context) -> Reply:
    words = context.inbound.text
    if context.session.get(MemberProfile, context.person_id) is None:
        consent.note_consent(context, PROFILE, "refused", words)
        first = "好的，尊重您的选择。除了这次的选择，什么都没有保存，也不会再问您。"
    else:
        first = "好的，尊重您的选择。新增的用途对您不生效，原来的同意照旧；想撤回请回「撤回同意」。"
    return say(
        f"{first}\n查政策、看活动照常，回「政策」「活动」即可；"
        f"有事请拨 {here(context).office.phone}。想登记时随时发「登记」。"
    )


def _agreed(context: Context) -> Reply:
    registered = context.session.get(MemberProfile, context.person_id) is not None
    consent.note_consent(
        context, PROFILE, "renewed" if registered else "granted", context.inbound.text
    )
    context.person.silent_since = None
    noted = f"已记录（告知 v{consent.notice(context).version}，{show_time(context.now)}）。"
    if registered:
        return say(f"{noted}谢谢您，档案照旧。")
    return context.begin(OfAge, before=noted)


# --- 18 ---------------------------------------------------------------------------------------

_GROWN = re.compile(r"成年了|已成年|成年人|满了|早(?:就)?(?:过|满)了?|当然")
_YOUNG = re.compile(r"未成年|没成年|没满|未满|不满|还?没到|还小")
_YEARS = re.compile(
    r"(?:都|我|今年|已经|快|刚)*([\d一二三四五六七八九十]{1,4})(?:多|周)*岁?了?[。！]?"
)


def _read_age(text: str) -> "bool | Miss":
    said = answer(text)
    if said is not None:
        return said.yes
    if _YOUNG.search(text):
        return False
    if _GROWN.search(text):
        return True
    years = _YEARS.fullmatch(text)
    number = read_integer(years[1]) if years else None
    if number is not None and 1 <= number <= 120 and text not in ("1", "2"):
        return number >= ADULT
    return Miss("请回「是」或「否」：您已满18周岁吗？")


class OfAge(Form, name="of_age", label="登记"):
    """Grown up or not; only the answer 是 or 否 is kept, and only until the next message."""

    finish = None

    grown: Annotated[
        bool,
        Ask(
            "已满18周岁",
            "您已满18周岁吗？回「是」或「否」。",
            lambda text, _asking: _read_age(text),
            options=("是", "否"),
            verbatim=True,
            yes_no=True,
        ),
    ]

    def submit(self, context: Context) -> Reply:
        """Go on with the questions, or end here without a trace of age."""
        if self.grown:
            return context.begin(MemberForm, facts_of(here(context)), before="好的。")
        consent.note_consent(context, PROFILE, "withdrawn", "")
        phone = here(context).office.phone
        return say(
            "谢谢您惦记家乡。登记只对年满18周岁的乡亲开放，刚才填的没有保存。"
            f"需要帮忙请拨 {phone}，查政策、看活动不受影响。"
        )
