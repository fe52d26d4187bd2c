"""What may be said on a channel whose servers are abroad, and the consent that comes before.

The four policies and their reasons stand in docs/channels/telegram.md.
"""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
from collections.abc import Collection
from typing import Annotated

from bot.boundary import Boundary
from bot.catalog import spoken
from bot.commands import Command
from bot.context import Context
from bot.forms import WITHHELD, Ask, Asking, Form
from bot.messages import SILENCE, Happening, Kind, Reply, say
from bot.normalize import Explicit, Miss, coded, explicit, is_no, tidy
from bot.personal_numbers import find_mobiles
from handlers.consent import note_consent
from handlers.place import here
from storage.people import has_consent

PUBLIC_ONLY = "public_only"
OVERSEAS_SELF = "overseas_self"
ABROAD = "S7"

STATEMENT = "我在中国大陆以外"
AT_HOME = "我在中国大陆"
AGREED = f"同意{ABROAD}"

_PUBLIC = frozenset({"帮助", "政策", "活动", "热线", "隐私", "菜单"})
_NOT_ABROAD = frozenset({"求助", "报线索", "代已故亲属", "领码", "绑定", "关联"})
"""They carry other people's or sensitive data, or lead to work that is not done here."""
_NOT_ASKED = ("手机", "电话", "随行", "同行", "儿童")
"""Questions with these words in their label are not asked abroad; nor are sensitive ones."""


def elsewhere(context: Context, what: str = "这件事") -> Reply:
    """Where it can be done instead."""
    office = here(context).office
    return say(f"{what}请在我们的微信公众号或企业微信里办理，也可以打电话 {office.phone}。")


def _message(context: Context) -> Reply | None:
    policy = _policy(context)
    if policy == PUBLIC_ONLY:
        return _public(context)
    if policy == OVERSEAS_SELF and find_mobiles(context.inbound.text):
        return say(
            "这里不收手机号，刚才那条没有保存，建议您撤回。"
            f"要留联系电话，请到我们的微信公众号，或打电话 {here(context).office.phone}。"
        )
    return None


def _public(context: Context) -> Reply | None:
    inbound = context.inbound
    if inbound.kind is Kind.EVENT:
        return None if inbound.text == Happening.FOLLOW else SILENCE
    found = context.services.catalog.match(spoken(inbound.text))
    if found is not None and found.command.word in _PUBLIC:
        return None
    return elsewhere(context, "这里只答公开的事（帮助、政策、活动、热线、隐私），其他")


def _command(context: Context, command: Command) -> Reply | None:
    policy = _policy(context)
    if policy == PUBLIC_ONLY and command.word not in _PUBLIC:
        return elsewhere(context)
    if policy != OVERSEAS_SELF:
        return None
    if command.roles or command.word in _NOT_ABROAD or "手机" in command.word:
        return elsewhere(context, f"「{command.word}」")
    if command.reads or command.wins or not context.person_id:
        return None
    if has_consent(context.session, context.person_id, ABROAD):
        return None
    return context.begin(AbroadForm, {"word": command.word})


def _form(context: Context, form: type[Form]) -> Reply | None:
    if _policy(context) != OVERSEAS_SELF or form is AbroadForm:
        return None
    required = [n for n in _withheld(context, form) if form.model_fields[n].is_required()]
    begun_here = form.name in context.drafts and _begun_abroad(context, form)
    if required or (form.name in context.drafts and not begun_here):
        return elsewhere(context, f"「{form.label}」")
    return None


def _begun_abroad(context: Context, form: type[Form]) -> bool:
    """A form that was opened elsewhere may hold answers that must not come back here."""
    return WITHHELD in context.drafts[form.name].facts


def _withheld(context: Context, form: type[Form]) -> Collection[str]:
    if _policy(context) != OVERSEAS_SELF:
        return ()
    return {
        name
        for name, ask in form.asks().items()
        if ask.sensitive or any(word in ask.label for word in _NOT_ASKED)
    }


def _policy(context: Context) -> str:
    return context.services.channels[context.inbound.sender.channel].policy


BOUNDARY = Boundary(_message, _command, _form, _withheld, {OVERSEAS_SELF: ABROAD})


# --- S7 ---------------------------------------------------------------------------------------


def _read_place(text: str, _asking: Asking) -> "bool | Miss":
    said = tidy(text).strip('「」“”"。.')
    if said == STATEMENT:
        return True
    if said == AT_HOME or is_no(text):
        return False
    return Miss(f"请原样回「{STATEMENT}」；您在大陆境内的，请回「{AT_HOME}」。")


def _read_consent(text: str, _asking: Asking) -> "bool | Miss":
    found = coded(text, "同意")
    if (found is not None and found[0] == ABROAD) or explicit(text) is Explicit.AGREE:
        return True
    if is_no(text) or explicit(text) is Explicit.DECLINE:
        return False
    return Miss(f"这一项要单独同意。请回「{AGREED}」或「不同意」。")


class AbroadForm(Form, name="abroad", label="境外渠道单独同意"):
    """Are they abroad, and do they agree that what they write here is carried abroad?"""

    finish = None

    abroad: Annotated[
        bool,
        Ask(
            "所在地",
            "这个渠道的服务器在境外，按规定只为身在境外的乡亲本人登记。"
            f"您如果在境外，请回「{STATEMENT}」；不在，请回「{AT_HOME}」。",
            _read_place,
            options=(STATEMENT, AT_HOME),
            verbatim=True,
        ),
    ]
    agreed: Annotated[
        bool,
        Ask(
            "单独同意",
            "【单独同意 S7·境外渠道】\n"
            "接收方：Telegram 通讯平台的运营者，服务器在境外，联系方式见 telegram.org/privacy。\n"
            "目的和方式：由该平台在您和我们之间传递消息。\n"
            "内容：您在这里发给我们的话，和我们回给您本人的话；不问手机和敏感信息，"
            "不谈别人的事。\n"
            "您的权利：可向该平台查阅、删除聊天记录；随时回「撤回同意 S7」，我们即停用这个渠道。\n"
            f"同意请回「{AGREED}」，不同意请回「不同意」。",
            _read_consent,
            options=(AGREED, "不同意"),
            verbatim=True,
        ),
    ]

    @classmethod
    def stop(cls, asking: Asking) -> Reply | None:
        """At home there is nothing to consent to."""
        if asking.answers.get("abroad") is False:
            return say(
                "谢谢告知。您在大陆境内，请关注我们的微信公众号，或用企业微信办理；"
                "这里仍可以看「政策」「活动」「隐私」。"
            )
        return None

    @classmethod
    def claims(cls, text: str) -> bool:
        """「同意 S7」 is an answer here, not an approver's word."""
        return coded(text, "同意") is not None

    def submit(self, context: Context) -> Reply:
        """Write the consent down, then do what was asked for first."""
        words = f"{STATEMENT}；{context.inbound.text}"
        note_consent(context, ABROAD, "granted" if self.agreed else "refused", words)
        if not self.agreed:
            return elsewhere(context, "好的，不在这里登记。需要时")
        waiting = context.services.catalog.words[self.began_with["word"]]
        return say("已记录您的单独同意（S7），随时可撤回。") + waiting(context, "")
