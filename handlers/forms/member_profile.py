"""鸿雁档案: the five questions of the first session, and the optional ones after it."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, ClassVar

from bot.clock import BEIJING
from bot.context import Context
from bot.errors import UserError
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Ambiguous, Miss, is_no, is_yes, pick_numbers, tidy
from bot.personal_numbers import mask_phone
from handlers import consent
from handlers.forms.cities import zone_city
from handlers.forms.fields import (
    City,
    parse_city,
    parse_name,
    parse_phone,
    parse_salutation,
    salutation_options,
    understand_member,
)
from handlers.place import Place
from handlers.purposes import DEFAULT_TOPICS, DUTY_NOW, TOPICS
from handlers.roles import Role
from storage.people import Person, people_with_role, subscribe, unsubscribe
from storage.profiles import MemberProfile, keep_categories, keep_phone
from storage.sequences import next_number

MOST_CATEGORIES = 3
LONGEST_ORG = 60
LONGEST_TITLE = 30
LONGEST_NOTE = 200
FORGOTTEN = "不记得"
ONLY_THE_CITY = "只记到城市"  # the remark of `parse_city` on a district or an address
INTENTS = ("有明确项目", "有意向", "愿牵线", "保持联系")


def facts_of(place: Place) -> dict[str, Any]:
    """What the questions need to know of the place (kept in the draft)."""
    profiles = place.profiles
    return {
        "categories": [[category.key, category.label] for category in profiles.categories],
        "ties": list(profiles.ties),
        "tie_with_banner": profiles.tie_with_banner,
        "ties_with_subdistrict": list(profiles.ties_with_subdistrict),
        "banners": list(profiles.banners),
        "subdistricts": list(profiles.subdistricts),
        "phone_required": profiles.phone_required,
    }


# --- reading ----------------------------------------------------------------------------------


def numbered(labels: Sequence[str]) -> str:
    """`1企业家 2校友`: options as they stand in a question."""
    return " ".join(f"{number}{label}" for number, label in enumerate(labels, 1))


def short_label(label: str) -> str:
    """A category's label without its explanation: 企业家/经商 → 企业家."""
    return re.split("[/（]", label)[0]


def _category_labels(asking: Asking) -> tuple[str, ...]:
    return tuple(label for _key, label in asking.facts["categories"])


def _short_labels(asking: Asking) -> tuple[str, ...]:
    return tuple(short_label(label) for label in _category_labels(asking))


def _read_categories(text: str, asking: Asking) -> "list[str] | Miss":
    labels = _short_labels(asking)
    named = _by_label(text, labels)
    picked = named or pick_numbers(text, len(labels))
    if isinstance(picked, Miss):
        return picked
    if len(picked) > MOST_CATEGORIES:
        return Miss(f"最多选{MOST_CATEGORIES}类，请选最贴切的，如「1 3」。")
    return [asking.facts["categories"][number - 1][0] for number in picked]


def _by_label(text: str, labels: Sequence[str]) -> tuple[int, ...]:
    """Option numbers of words that all begin some label, or nothing."""
    words = [word for word in re.split(r"[\s、,，;；和]+", tidy(text)) if word]
    found = []
    for word in words:
        hits = [n for n, label in enumerate(labels, 1) if len(word) > 1 and label.startswith(word)]
        if len(hits) != 1:
            return ()
        found.append(hits[0])
    return tuple(dict.fromkeys(found))


def _show_categories(keys: Any, asking: Asking) -> str:
    labels = {key: short_label(label) for key, label in asking.facts["categories"]}
    return "、".join(labels.get(key, key) for key in keys)


def one_of(text: str, labels: Sequence[str]) -> "str | Miss":
    """The one label that a text means, by its number or its first characters."""
    named = _by_label(text, labels)
    if len(named) == 1:
        return labels[named[0] - 1]
    if text in labels:
        return text
    picked = pick_numbers(text, len(labels))
    if isinstance(picked, Miss) and not isinstance(picked, Ambiguous):
        return Miss(f"请回选项前的数字（1到{len(labels)}），如「1」。")
    if isinstance(picked, Miss) or len(picked) != 1:
        return Miss("这一题只选一项，请回一个数字。")
    return labels[picked[0] - 1]


def _subdistricts(asking: Asking) -> tuple[str, ...]:
    return (*asking.facts["subdistricts"], FORGOTTEN)


def _read_subdistrict(text: str, asking: Asking) -> "str | Miss | None":
    found = one_of(text, _subdistricts(asking))
    return None if found == FORGOTTEN else found


def read_city(text: str, _asking: Asking) -> "dict[str, Any] | Miss":
    """A city as JSON: the fields of `City`."""
    found = parse_city(text)
    return found if isinstance(found, Miss) else city_json(found)


def city_json(city: City) -> dict[str, Any]:
    """A city as a draft keeps it."""
    return {**asdict(city), "zones": list(city.zones)}


def city_text(value: Mapping[str, Any]) -> str:
    """上海, 蒙古国乌兰巴托."""
    return City(value["province"], value["city"], value["country"]).text


def _city_echo(value: Any, _asking: Asking) -> str:
    note = value["note"]
    if not note:
        return ""
    return (
        f"{note}：{city_text(value)}。" if note == "只记到城市" else f"{note}，不对请回「上一步」。"
    )


def zone_ask(source: str) -> Ask:
    """Asks for the time zone where the city answered to `source` leaves several."""

    def zones(asking: Asking) -> list[str]:
        city = asking.get(source)
        return list(city.get("zones", ())) if isinstance(city, dict) else []

    def cities(asking: Asking) -> tuple[str, ...]:
        return tuple(zone_city(zone) for zone in zones(asking))

    def read(text: str, asking: Asking) -> "str | Miss":
        found = one_of(text, cities(asking))
        return found if isinstance(found, Miss) else zones(asking)[cities(asking).index(found)]

    return Ask(
        "所在时区",
        lambda asking: (
            "这个国家有好几个时区。您那里的钟点与哪座城市相同？（只用来在您的白天寄信）\n"
            + numbered(cities(asking))
        ),
        read,
        show=lambda value, _asking: f"与{zone_city(value)}相同",
        options=cities,
        when=lambda asking: len(zones(asking)) > 1,
        follows=(source,),
    )


def salutation_ask(source: str, *, when: Any = None, counted: bool = False) -> Ask:
    """Asks how letters address the bearer of the name answered to `source`."""

    def options(asking: Asking) -> tuple[str, ...]:
        return (*salutation_options(asking.answers[source]), "自定义")

    return Ask(
        "称呼",
        lambda asking: f"信里怎样称呼您？\n{numbered(options(asking))}（可「跳过」）",
        lambda text, asking: parse_salutation(text, asking.answers[source]),
        show=lambda value, _asking: f"“{value}”",
        options=options,
        optional=True,
        counted=counted,
        follows=(source,),
        when=when,
    )


def _at_most(length: int, thing: str) -> Any:
    def read(text: str, _asking: Asking) -> "str | Miss":
        if len(text) > length:
            return Miss(f"{thing}最多{length}个字，现在是{len(text)}个字，请写短一些。")
        return text if text.strip() else Miss(f"请写{thing}，或回「跳过」。")

    return read


# --- 登记 -------------------------------------------------------------------------------------

CATEGORIES = Ask(
    "类别",
    lambda asking: f"您属于哪一类？可多选，如「1 3」\n{numbered(_short_labels(asking))}",
    _read_categories,
    show=_show_categories,
    options=_category_labels,
    counted=True,
    hint="回数字就行，比如「1」。",
)
TIE = Ask(
    "渊源",
    lambda asking: f"您与家乡的渊源？\n{numbered(asking.facts['ties'])}",
    lambda text, asking: one_of(text, asking.facts["ties"]),
    options=lambda asking: tuple(asking.facts["ties"]),
    counted=True,
    hint="回数字就行，比如「1」。",
)
NAME = Ask(
    "姓名",
    "请问您的姓名？",
    lambda text, _asking: parse_name(text),
    counted=True,
)
CITY = Ask(
    "城市",
    "您现在住在哪座城市？写到城市就行，如「上海」「蒙古国乌兰巴托」。",
    read_city,
    show=lambda value, _asking: city_text(value),
    echo=_city_echo,
    counted=True,
)


PHONE = Ask(
    "手机",
    "请发手机号（只用于活动接待，仅中心可见）。",
    lambda text, _asking: parse_phone(text),
    show=lambda value, _asking: mask_phone(value),
    echo=lambda value, _asking: f"手机记作 {mask_phone(value)}。",
    optional=True,
    contact=True,
)


class MemberForm(Form, name="member_profile", label="鸿雁档案登记"):
    """The first session: five questions, with a branch for some ties and some countries."""

    confirm_extracted: ClassVar[bool] = True

    categories: Annotated[list[str], CATEGORIES]
    hometown_tie: Annotated[str, TIE]
    banner: Annotated[
        str | None,
        Ask(
            "旗县市区",
            lambda asking: f"是哪个旗县市区？{numbered(asking.facts['banners'])}",
            lambda text, asking: one_of(text, asking.facts["banners"]),
            options=lambda asking: tuple(asking.facts["banners"]),
            when=lambda asking: (
                bool(asking.facts["banners"])
                and asking.get("hometown_tie") == asking.facts["tie_with_banner"]
            ),
        ),
    ] = None
    subdistrict: Annotated[
        str | None,
        Ask(
            "苏木街道",
            lambda asking: f"哪个苏木、街道？{numbered(_subdistricts(asking))}（可「跳过」）",
            _read_subdistrict,
            options=_subdistricts,
            optional=True,
            when=lambda asking: (
                bool(asking.facts["subdistricts"])
                and asking.get("hometown_tie") in asking.facts["ties_with_subdistrict"]
            ),
        ),
    ] = None
    full_name: Annotated[str, NAME]
    city: Annotated[dict[str, Any], CITY]
    timezone: Annotated[str | None, zone_ask("city")] = None
    salutation: Annotated[str | None, salutation_ask("full_name", counted=True)] = None
    phone: Annotated[
        str | None,
        replace(PHONE, optional=False, when=lambda asking: asking.facts["phone_required"]),
    ] = None

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> "dict[str, Any] | Miss | None":
        """Categories, name and city out of one message, where they are certain."""
        found = understand_member(text, asked)
        answers: dict[str, Any] = {}
        if "categories" in found:
            every = asking.facts["categories"]
            numbers = found["categories"]
            assert isinstance(numbers, tuple)
            answers["categories"] = [every[n - 1][0] for n in numbers if n <= len(every)]
        if isinstance(found.get("name"), str):
            answers["full_name"] = found["name"]
        if isinstance(found.get("city"), City):
            answers["city"] = city_json(found["city"])  # type: ignore[arg-type]  # just checked
        return answers or None

    def submit(self, context: Context) -> Reply:
        """Write the file and give it its number."""
        session, person = context.session, context.person
        if session.get(MemberProfile, context.person_id) is not None:
            raise UserError("您已经建过档了，回「我的档案」查看，回「修改」更正。")
        if not consent.up_to_date(context):
            raise UserError("您的同意已撤回，不能建档。想登记请重新发「登记」。")
        number = (
            f"HY-{context.today.year}-{next_number(session, f'profile:{context.today.year}'):06d}"
        )
        profile = MemberProfile(
            person_id=context.person_id,
            number=number,
            name=self.full_name,
            hometown_tie=self.hometown_tie,
            banner=self.banner,
            subdistrict=self.subdistrict,
            salutation=self.salutation,
            city="",
            registered_at=context.now,
            last_confirmed_at=context.now,
        )
        live_in(profile, person, self.city, self.timezone)
        if self.phone:
            keep_phone(profile, self.phone, context.services.keys)
        session.add(profile)
        keep_categories(session, context.person_id, self.categories)
        subscribe(session, context.person_id, DEFAULT_TOPICS)
        for topic in TOPICS:
            if topic not in DEFAULT_TOPICS:
                unsubscribe(session, context.person_id, topic, context.now)
        context.audit("profile.register", f"person:{context.person_id}", number)
        return context.begin(DetailsOffer, before=f"建档完成，档案号 {number}。")


def live_in(
    profile: MemberProfile, person: Person, city: Mapping[str, Any], chosen: str | None
) -> None:
    """Set where a member lives and, abroad, by which clock."""
    profile.country, profile.province = city["country"], city["province"]
    profile.city = city["city"]
    zone = chosen or city["timezone"]
    person.timezone = None if zone == BEIJING.key else zone


# --- 完善 -------------------------------------------------------------------------------------


def _read_intent(text: str, _asking: Asking) -> "str | Miss":
    return one_of(text, INTENTS)


class DetailsForm(Form, name="member_details", label="补充资料"):
    """What helps at a reception or for a project; every question may be skipped."""

    phone: Annotated[str | None, PHONE] = None
    org: Annotated[
        str | None,
        Ask("单位", "您的单位或企业？（可「跳过」）", _at_most(LONGEST_ORG, "单位"), optional=True),
    ] = None
    title: Annotated[
        str | None,
        Ask("职务", "职务或职称？（可「跳过」）", _at_most(LONGEST_TITLE, "职务"), optional=True),
    ] = None
    return_intent: Annotated[
        str | None,
        Ask(
            "回乡意愿",
            f"有没有回乡发展的打算？{numbered(INTENTS)}（可「跳过」）",
            _read_intent,
            options=INTENTS,
            optional=True,
        ),
    ] = None
    note: Annotated[
        str | None,
        Ask(
            "想说的话",
            "还有什么想对家乡说的？（可「跳过」）",
            _at_most(LONGEST_NOTE, "留言"),
            optional=True,
        ),
    ] = None

    def submit(self, context: Context) -> Reply:
        """Add to the file what was answered."""
        profile = context.session.get_one(MemberProfile, context.person_id)
        if self.phone:
            keep_phone(profile, self.phone, context.services.keys)
        profile.org = self.org or profile.org
        profile.title = self.title or profile.title
        profile.return_intent = self.return_intent or profile.return_intent
        profile.note = self.note or profile.note
        context.session.add(profile)
        context.audit("profile.complete", f"person:{context.person_id}")
        if self.return_intent == INTENTS[0]:
            _tell_of_project(context, profile)
        noted = "已补充好，谢谢您。随时回「我的档案」查看，「修改」更正。"
        if self.phone and not consent.asked_before(context, "S8"):
            return context.begin(consent.DriverConsent, before=noted)
        return say(noted)


def _tell_of_project(context: Context, profile: MemberProfile) -> None:
    """Who has a project in mind is heard of at once."""
    for person_id in people_with_role(context.session, Role.COORDINATOR, context.now):
        context.send(
            person_id,
            say(f"待办：{profile.number} {profile.name} 有明确的回乡项目，请尽快联系。"),
            occasion=f"project_in_mind:{context.person_id}:{context.today}",
            purpose=DUTY_NOW,
        )


class DetailsOffer(Form, name="details_offer", label="补充资料"):
    """Offers the optional questions once, by the way."""

    finish = None
    passing = True

    now: Annotated[
        bool,
        Ask(
            "现在补充",
            "再用1分钟补充手机、单位方便接待吗？1现在 2以后",
            lambda text, _asking: _now_or_later(text),
            options=("现在", "以后"),
        ),
    ]

    def submit(self, context: Context) -> Reply:
        """Begin, or leave it at that."""
        if self.now:
            return context.begin(DetailsForm)
        return say("好的，以后随时回「完善」。逢年过节给您写信。")


_LATER = re.compile("以后|回头|改天|再说|算了|不用|不填")


def _now_or_later(text: str) -> "bool | Miss":
    if text in ("1", "现在") or is_yes(text):
        return True
    if text == "2" or is_no(text) or _LATER.search(text):
        return False
    return Miss("回「1」现在补充，回「2」以后再说。")
