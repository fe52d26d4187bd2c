"""Correcting one item of the member profile: which, its new value, and the word 确认."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import re
from collections.abc import Mapping
from typing import Annotated, Any

from bot.context import Context
from bot.errors import UserError
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Explicit, Miss, explicit, is_no, is_soft_yes
from bot.personal_numbers import mask_phone
from handlers import consent
from handlers.forms.cities import City
from handlers.forms.member_profile import (
    CATEGORIES,
    CITY,
    NAME,
    PHONE,
    TIE,
    DetailsForm,
    facts_of,
    live_in,
    numbered,
    one_of,
    salutation_ask,
    short_label,
    zone_ask,
)
from handlers.place import here
from storage.profiles import (
    MemberProfile,
    ProfileChange,
    categories_of,
    keep_categories,
    keep_phone,
)

ITEMS: Mapping[str, Ask] = {
    "full_name": NAME,
    "city": CITY,
    "salutation": salutation_ask("full_name"),
    "categories": CATEGORIES,
    "hometown_tie": TIE,
    "phone": PHONE,
    "org": DetailsForm.asks()["org"],
    "title": DetailsForm.asks()["title"],
    "return_intent": DetailsForm.asks()["return_intent"],
    "note": DetailsForm.asks()["note"],
}
"""What may be corrected, by the name of its question, with the question that reads it."""

_ALSO = {"名字": "full_name", "现居地": "city", "电话": "phone", "手机号": "phone", "企业": "org"}


def item_called(word: str) -> str | None:
    """The item a label means (城市, 手机号), or None."""
    by_label = {ask.label: name for name, ask in ITEMS.items()} | _ALSO
    return by_label.get(word.strip("：: "))


def _item(asking: Asking) -> Ask:
    return ITEMS[asking.answers["item"]]


def _read_item(text: str, _asking: Asking) -> "str | Miss":
    labels = [ask.label for ask in ITEMS.values()]
    named = item_called(text)
    if named is not None:
        return named
    found = one_of(text, labels)
    return found if isinstance(found, Miss) else list(ITEMS)[labels.index(found)]


def _asking_value(asking: Asking) -> str:
    ask, now = _item(asking), asking.facts["shown"][asking.answers["item"]]
    if ask.label == "手机":
        return "请发新手机号（只用于活动接待，仅中心可见）。"
    words = numbered(ask.labels(_as_now(asking)))
    return f"{ask.label}现在是{now}，请发新的{ask.label}。{words}".strip()


def _as_now(asking: Asking) -> Asking:
    """The asking in which the item's own question is read: with the name on file."""
    answers = {"full_name": asking.facts["shown"]["full_name"], **asking.answers}
    return Asking(answers, asking.facts, asking.today)


def _change(asking: Asking) -> str:
    ask, item = _item(asking), asking.answers["item"]
    new = ask.show(asking.answers["value"], asking)
    if item == "phone":
        return f"手机记作 {new}。"
    note = asking.answers["value"].get("note", "") if item == "city" else ""
    return f"{f'{note}：' if note else ''}{ask.label} {asking.facts['shown'][item]}→{new}。"


_KEEP = re.compile(r"等等|等一下|改回来|不改了?|先不改|别改|算了")


def _read_sure(text: str, _asking: Asking) -> "bool | Miss":
    if explicit(text) is Explicit.CONFIRM:
        return True
    if is_no(text) or _KEEP.search(text):
        return False
    if is_soft_yes(text):
        return Miss("改之前最后一步，请回「确认」。")
    return Miss("请回「确认」生效，或「取消」不改。")


def _listed(asking: Asking) -> list[str]:
    return [
        f"{number}{ask.label}：{asking.facts['shown'][name]}"
        for number, (name, ask) in enumerate(ITEMS.items(), 1)
    ]


class CorrectionForm(Form, name="profile_correction", label="修改档案"):
    """One item, its new value, and the word 确认; `facts` has the values on file."""

    finish = None

    item: Annotated[
        str,
        Ask(
            "要改的项",
            lambda asking: "\n".join(["要改哪一项？", *_listed(asking)]),
            _read_item,
            options=tuple(ask.label for ask in ITEMS.values()),
        ),
    ]
    value: Annotated[
        Any,
        Ask(
            "新的内容",
            _asking_value,
            lambda text, asking: _item(asking).parse(text, _as_now(asking)),
            options=lambda asking: _item(asking).labels(_as_now(asking)),
            follows=("item",),
            contact=lambda asking: _item(asking).wants_contact(_as_now(asking)),
        ),
    ]
    timezone: Annotated[
        str | None,
        zone_ask("value"),
    ] = None
    new_salutation: Annotated[
        str | None,
        salutation_ask("value", when=lambda asking: asking.get("item") == "full_name"),
    ] = None
    sure: Annotated[
        bool,
        Ask(
            "确认",
            lambda asking: (
                f"{_change(asking)}确认改{_item(asking).label}吗？回「确认」生效，「取消」不改。"
            ),
            _read_sure,
            options=("确认", "取消"),
            verbatim=True,
            yes_no=True,
            follows=("item", "value"),
        ),
    ]

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """Says what stays."""
        item = asking.get("item")
        if item is None:
            return "好的，没有改动。"
        return f"已取消，{ITEMS[item].label}仍为{asking.facts['shown'][item]}。"

    def submit(self, context: Context) -> Reply:
        """Change the file, or leave it."""
        profile = context.session.get_one(MemberProfile, context.person_id)
        ask = ITEMS[self.item]
        before = shown(context, profile)[self.item]
        if not self.sure:
            return say(f"已取消，{ask.label}仍为{before}。")
        had_phone = profile.phone is not None
        context.session.add(
            ProfileChange(
                person_id=context.person_id,
                name=self.item,
                before=profile.phone if self.item == "phone" else before,
                at=context.now,
            )
        )
        self._write(context, profile)
        profile.last_confirmed_at = context.now
        context.session.add(profile)
        context.audit("profile.correct", f"person:{context.person_id}", self.item)
        if self.item != "phone":
            return say(f"已更新，{ask.label}：{shown(context, profile)[self.item]}。")
        noted = "已更新。原号码已停用。" if had_phone else "已更新。"
        if consent.asked_before(context, "S8"):
            return say(noted)
        return context.begin(consent.DriverConsent, before=noted)

    def _write(self, context: Context, profile: MemberProfile) -> None:
        match self.item:
            case "full_name":
                profile.name, profile.salutation = self.value, self.new_salutation
            case "city":
                live_in(profile, context.person, self.value, self.timezone)
            case "categories":
                keep_categories(context.session, context.person_id, self.value)
            case "hometown_tie":
                profile.hometown_tie = self.value
                profile.banner = profile.subdistrict = None
            case "phone":
                keep_phone(profile, self.value, context.services.keys)
            case "salutation" | "org" | "title" | "return_intent" | "note":
                setattr(profile, self.item, self.value)
            case _:
                raise ValueError(f"nothing on file is called {self.item}")


def shown(context: Context, profile: MemberProfile) -> dict[str, str]:
    """The file as people read it, by the names of `ITEMS`; the telephone is masked."""
    keys = categories_of(context.session, profile.person_id)
    labels = {c.key: short_label(c.label) for c in here(context).profiles.categories}
    found = {
        "full_name": profile.name,
        "city": City(profile.province, profile.city, profile.country).text,
        "salutation": f"“{profile.salutation}”" if profile.salutation else None,
        "categories": "、".join(labels.get(key, key) for key in keys),
        "hometown_tie": profile.hometown_tie,
        "phone": mask_phone(profile.phone) if profile.phone else None,
        "org": profile.org,
        "title": profile.title,
        "return_intent": profile.return_intent,
        "note": profile.note,
    }
    return {name: value or "未填" for name, value in found.items()}


def begin_correction(context: Context, item: str | None = None, words: str = "") -> Reply:
    """Open the form, as far along as the person's words go."""
    profile = context.session.get(MemberProfile, context.person_id)
    if profile is None:
        raise UserError("您还没有建档。回「登记」开始。")
    facts = facts_of(here(context)) | {"shown": shown(context, profile)}
    answers: dict[str, Any] = {"item": item} if item else {}
    before = ""
    if item and words:
        asking = Asking(answers, facts, context.today)
        value = CorrectionForm.asks()["value"].parse(words, asking)
        if isinstance(value, Miss):
            before = value.text
        else:
            answers["value"] = value
    return context.begin(CorrectionForm, facts, answers, before)
