"""One person, many channels: 关联 makes two accounts one, 取消关联 parts them, 我的渠道 shows them.

Why it works as it does stands in docs/decisions/0011-one-person-many-channels.md.
"""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated

from sqlmodel import Session, col, delete

from bot.clock import show_time
from bot.commands import Purpose, Retention, command
from bot.context import Context, Services
from bot.entrances import ways_elsewhere
from bot.errors import UserError
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss, is_no, pick_numbers, tidy
from handlers import codes
from handlers.cross_border import OVERSEAS_SELF, PUBLIC_ONLY
from handlers.events import seats
from handlers.events.organising import tell_moved_up
from handlers.forms.member_profile import MemberForm
from handlers.place import here
from handlers.purposes import DUTY_NOW
from handlers.registration import ConsentForm, OfAge
from handlers.role_codes import describe
from storage import linking
from storage.dialogs import Draft
from storage.events import locked_event
from storage.linking import Merged, PersonLink, Said
from storage.people import (
    Contact,
    OneTimeCode,
    consents_of,
    contact_of,
    contacts_of,
    grants_of,
)
from storage.profiles import MemberProfile

LINKING = Purpose("linking", "账号关联通知", quiet=False, urgent=True, repeatable=True)
"""To the addresses that did not speak, so that nobody is linked without noticing."""

AGREE = "确认关联"
PART = "确认取消关联"
GIVE_UP = "确认解除"
LEAVE_IT = "算了"
DAYS = linking.UNDO_WITHIN.days


# - the code -


def link(context: Context, argument: str) -> Reply:
    """`关联` asks for a code, `关联 123456` uses the one asked for in another channel."""
    said = "".join(argument.split())
    if not said:
        return _hand_out(context)
    if not (said.isdigit() and len(said) == codes.LINK_LENGTH):
        return say(
            f"关联码是{codes.LINK_LENGTH}位数字，如「关联 123456」。"
            "还没有的话，请到您已经在用的那个渠道发「关联」领取。"
        )
    return _try(context, said)


LINK = command(
    "关联",
    "关联账号",
    "关联渠道",
    help="关联：换了渠道也是同一个您，先取码，再到另一个渠道输入",
    section="鸿雁档案",
    glued=True,
    digits=codes.LINK_LENGTH,
)(link)
BIND = command("绑定", "绑定账号", "绑定渠道", glued=True, digits=codes.LINK_LENGTH)(link)


def _hand_out(context: Context) -> Reply:
    if not _has_something(context):
        return say(
            "这个渠道里还没有您的档案、工作角色或没填完的表。"
            "请到您已经在用的那个渠道发「关联」领码，再回到这里发「关联 六位数字」。"
        )
    code = codes.link_code(context.session, context.services.keys, context.person_id, context.now)
    context.audit("person.link_code", f"person:{context.person_id}")
    minutes = codes.LINK_LIFE // timedelta(minutes=1)
    ways = ways_elsewhere(context, f"关联 {code}", codes.LINK_LIFE, _open_to_all(context))
    return say(
        f"关联码：{code}，{minutes}分钟内有效，只能用一次。\n"
        f"请到您的另一个渠道，私聊我发「关联 {code}」。\n"
        "这个码只给您自己用：谁输入它，谁就能看到您的档案。工作人员也不会向您要。",
        link=next(iter(ways), None),
    )


def _open_to_all(context: Context) -> Sequence[str]:
    """The channels on which linking is not barred for being abroad."""
    barred = (PUBLIC_ONLY, OVERSEAS_SELF)
    return [n for n, facts in context.services.channels.items() if facts.policy not in barred]


def _has_something(context: Context) -> bool:
    return bool(
        context.roles
        or any(name != LinkForm.name for name in context.drafts)
        or context.session.get(MemberProfile, context.person_id)
    )


def _try(context: Context, typed: str) -> Reply:
    session, keys = context.session, context.services.keys
    sender = str(context.inbound.sender)
    until = codes.locked_until(session, keys, sender, context.now)
    if until is not None:
        return say(f"试错的次数太多，{show_time(until)} 以后才能再试。")
    found = codes.live_link_code(session, keys, typed, context.now)
    if found is None:
        return _wrong(context, sender)
    codes.forgive(session, keys, sender)
    if found.person_id == context.person_id:
        return say("这个码就是在您这个账号领的，请到另一个渠道输入。")
    assert found.person_id is not None
    _refuse_four_eyes(context, found.person_id)
    return _preview(context, found)


def _wrong(context: Context, sender: str) -> Reply:
    left = codes.wrong_try(
        context.session, context.services.keys, sender, context.person_id, context.now
    )
    context.audit("person.link_wrong", f"person:{context.person_id}")
    if left:
        return say(
            f"关联码不对、已用过或已过期，还可以试{left}次。请到另一个渠道核对，或重新领码。"
        )
    context.audit("person.link_locked", f"person:{context.person_id}")
    hours = codes.LINK_LOCK // timedelta(hours=1)
    return say(f"关联码{codes.LINK_TRIES}次不对，这个账号{hours}小时内不能再试。")


def _refuse_four_eyes(context: Context, other: int) -> None:
    numbers = linking.voted_twice(context.session, context.person_id, other)
    if numbers:
        listed = "、".join(sorted(numbers))
        raise UserError(
            f"这两个账号在同一件审批里都表过态（{listed}），审批要两个人，所以不能关联。"
            f"请与管理员联系，电话 {here(context).office.phone}。"
        )


# - what will happen -


def _preview(context: Context, code: OneTimeCode) -> Reply:
    other = code.person_id or 0
    theirs, mine = _profile(context, other), _profile(context, context.person_id)
    files: list[str] = []
    if theirs is not None and mine is not None:
        differ = linking.differing(context.session, theirs, mine)
        if differ:
            files = [_file(theirs), _file(mine)]
    facts = {
        "code": code.id,
        "files": files,
        "card": _card(context, other, theirs, mine),
    }
    context.audit("person.link_shown", f"person:{other}")
    return context.begin(LinkForm, facts)


def _profile(context: Context, person_id: int) -> MemberProfile | None:
    return context.session.get(MemberProfile, person_id)


def _file(profile: MemberProfile) -> str:
    masked = profile.name[:1] + "*" * (len(profile.name) - 1)
    return f"{profile.number[:-4]}**{profile.number[-2:]}（{masked}）"


def _card(
    context: Context, other: int, theirs: MemberProfile | None, mine: MemberProfile | None
) -> str:
    lines = [
        "要把两个账号合成一个人，请核对：",
        f"领码的账号：{_who(context, other, theirs)}",
        f"这个账号：{_who(context, context.person_id, mine)}",
        "合并后：两边看到同一份档案，没填完的表两边都能接着填，一封信只寄一次；"
        "退订和撤回以两边中较严的为准。",
        *_stricter(context, other),
        f"不是您本人的账号，请不要关联。{DAYS}天内可以回「取消关联」。",
    ]
    return "\n".join(lines)


def _who(context: Context, person_id: int, profile: MemberProfile | None) -> str:
    named = "、".join(_labels(context, contacts_of(context.session, person_id)))
    held = [f"档案 {_file(profile)}" if profile else "没有档案"]
    for grant in grants_of(context.session, person_id, context.now):
        held.append(describe(context.session, grant.role, grant.unit_id, grant.team_id))
    return f"{named}，{'，'.join(held)}"


def _labels(context: Context, contacts: Sequence[Contact]) -> list[str]:
    return [_label(context, contact.channel) for contact in contacts]


def _label(context: Context, channel: str) -> str:
    facts = context.services.channels.get(channel)
    return facts.label or channel if facts is not None else channel


def _stricter(context: Context, other: int) -> list[str]:
    """What one of them agreed to and the other took back."""
    one = consents_of(context.session, context.person_id)
    two = consents_of(context.session, other)
    split = sorted(scope for scope in one.keys() & two.keys() if one[scope].live != two[scope].live)
    if not split:
        return []
    return ["注意：其中一边撤回过同意，合并后先按撤回处理；想恢复来信请回「登记」重新同意。"]


def _read_file(text: str, _asking: Asking) -> "int | Miss":
    picked = pick_numbers(text, 2)
    if isinstance(picked, Miss) or len(picked) != 1:
        return Miss("请回数字1或2；不想合并请回「取消」。")
    return picked[0]


def _which_file(asking: Asking) -> str:
    one, two = asking.facts["files"]
    return (
        f"{asking.facts['card']}\n"
        "两个账号各有一份内容不同的档案，只能留一份，另一份会删除、找不回来。"
        f"留哪一份？1领码的账号的 {one} 2这个账号的 {two}"
    )


def _last_word(word: str, before: "Callable[[Asking], str]", asks: str = "确定") -> Ask:
    """A question to which only this very word says yes."""

    def read(text: str, _asking: Asking) -> "bool | Miss":
        said = tidy(text).strip("「」“”。.")
        if said == word:
            return True
        if said in (LEAVE_IT, "不办") or is_no(text):
            return False
        return Miss(f"请原样回「{word}」，不办请回「{LEAVE_IT}」。")

    return Ask(
        "确认",
        lambda asking: f"{before(asking)}{asks}请回「{word}」，不办请回「{LEAVE_IT}」。",
        read,
        options=(word, LEAVE_IT),
        verbatim=True,
    )


class LinkForm(Form, name="link_accounts", label="账号关联"):
    """Which file stays, where both have one; then the word itself."""

    finish = None
    expires = codes.LINK_LIFE

    file: Annotated[
        int | None,
        Ask(
            "留哪一份档案",
            _which_file,
            _read_file,
            options=lambda asking: tuple(asking.facts["files"]),
            when=lambda asking: bool(asking.facts["files"]),
        ),
    ] = None
    agreed: Annotated[
        bool,
        _last_word(
            AGREE,
            lambda asking: "" if asking.facts["files"] else f"{asking.facts['card']}\n",
            asks="同意",
        ),
    ]

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """Nothing was changed."""
        return "好的，没有关联。"

    def submit(self, context: Context) -> Reply:
        """Make them one, if the code still stands."""
        if not self.agreed:
            return say(self.cancelled(Asking({}, {}, context.today)))
        return _become_one(context, int(self.began_with["code"]), self.file)


# - one -


def _become_one(context: Context, code_id: int, file: int | None) -> Reply:
    session = context.session
    code = session.get(OneTimeCode, code_id)
    if code is None or code.person_id in (None, context.person_id):
        return say(_TOO_LATE)
    mine, other = context.person_id, code.person_id
    assert other is not None
    if not linking.hold(session, mine, other):
        raise UserError(f"那边的账号正在办别的事，请过几秒再回一次「{AGREE}」。")
    if not codes.use_link_code(session, code_id, context.now):
        return say(_TOO_LATE)
    _refuse_four_eyes(context, other)
    files = {1: other, 2: mine}
    kept = _who_stays(context, mine, other, files.get(file or 0))
    gone = mine if kept == other else other
    if _two_files(context, mine, other) and file is None:
        raise UserError("有一边刚刚登记了档案，请重新发「关联」看一遍再定。")
    _forget_codes(session, (mine, other))
    context.discard(LinkForm)
    _forget_drafts(context, mine, other)
    merged = linking.merge(session, kept, gone, context.now, _said(context), file_of=kept)
    context.merged |= {kept, gone}
    context.become(kept)
    context.audit("person.linked", f"person:{kept}", f"person:{gone}")
    _fill_seats(context, merged)
    _tell_others(
        context,
        f"linked:{merged.link.id}",
        f"您的账号刚刚（{show_time(context.now)}）与{_label(context, _here(context))}的一个账号"
        f"合成了一个人。是您本人办的就不用理会；不是您本人，请马上在这里回「取消关联」，"
        f"并拨打 {here(context).office.phone}。",
    )
    _tell_on_duty(context, merged)
    return say(_done(context, merged))


_TOO_LATE = "这个关联码已经用过，或者过了十分钟。请到另一个渠道重新发「关联」领码。"


def _here(context: Context) -> str:
    return context.inbound.sender.channel


def _said(context: Context) -> Said:
    return Said(_here(context), context.inbound.id, context.inbound.text)


def _who_stays(context: Context, mine: int, other: int, chosen: int | None) -> int:
    """Whose number stays: the file's, or else the roles', or else whoever asked for the code."""
    if chosen is not None:
        return chosen
    files = [_profile(context, person) is not None for person in (other, mine)]
    roles = [bool(grants_of(context.session, person, context.now)) for person in (other, mine)]
    for theirs, own in (files, roles):
        if theirs != own:
            return other if theirs else mine
    return other


def _two_files(context: Context, mine: int, other: int) -> bool:
    one, two = _profile(context, mine), _profile(context, other)
    return bool(one and two and linking.differing(context.session, one, two))


def _forget_codes(session: Session, people: Sequence[int]) -> None:
    """Confirmations asked for by either are void; a page's link goes on."""
    session.exec(
        delete(OneTimeCode).where(
            col(OneTimeCode.person_id).in_(people), col(OneTimeCode.kind) != "page"
        )
    )


_REGISTERING = (ConsentForm.name, OfAge.name, MemberForm.name)


def _forget_drafts(context: Context, mine: int, other: int) -> None:
    """This dialog's own draft, and a registration that is not needed where there is a file."""
    people = (mine, other)
    done = any(_profile(context, person) is not None for person in people)
    over = (LinkForm.name, *(_REGISTERING if done else ()))
    context.session.exec(
        delete(Draft).where(col(Draft.person_id).in_(people), col(Draft.form).in_(over))
    )


def _fill_seats(context: Context, merged: Merged) -> None:
    """An answer that was given twice may have held seats that others wait for."""
    for event_id in merged.events:
        event = locked_event(context.session, event_id)
        if event.cancelled_at is None:
            lucky = seats.move_up(context.session, event, context.today)
            tell_moved_up(context, event, lucky)


def _tell_others(context: Context, occasion: str, words: str) -> None:
    for contact in contacts_of(context.session, context.person_id):
        if contact.id != context.contact_id and contact.reachable:
            _tell(context, contact, occasion, words)


def _tell_on_duty(context: Context, merged: Merged) -> None:
    """Whoever holds a role holds it on the other channel too: those in charge may ask them."""
    held = grants_of(context.session, context.person_id, context.now)
    if not held:
        return
    roles = "、".join(
        dict.fromkeys(describe(context.session, one.role, one.unit_id, one.team_id) for one in held)
    )
    called = context.person.called or "未留称呼"
    for person_id in context.services.catalog.policy.on_duty(context.session, context.now):
        if person_id != context.person_id:
            context.send(
                person_id,
                say(
                    f"{called}（{roles}）把账号与{_label(context, _here(context))}的一个账号合成了"
                    "一个人，两边都能使用这些角色。如有疑问请与本人核对，必要时「角色 撤销」。"
                ),
                occasion=f"linked_role:{merged.link.id}",
                purpose=DUTY_NOW,
            )


def _tell(context: Context, contact: Contact, occasion: str, words: str) -> None:
    if contact.channel in context.services.channels:
        context.send(
            contact.person_id,
            say(words),
            occasion=f"{occasion}:{contact.id}",
            purpose=LINKING,
            contact=contact,
        )


def _done(context: Context, merged: Merged) -> str:
    channels = "、".join(
        dict.fromkeys(_labels(context, contacts_of(context.session, context.person_id)))
    )
    lines = [f"已关联：{channels}现在是同一个您。"]
    profile = _profile(context, context.person_id)
    if profile is not None:
        lines.append(f"档案号 {profile.number}，两边都能看、能改。")
    catalog = context.services.catalog
    labels = [catalog.form(name).label for name in merged.forms if name in catalog.forms]
    if labels:
        lines.append(f"两边都有没填完的{'、'.join(labels)}，留下了较新的一份。")
    if merged.events:
        lines.append("同一场活动两边都回过执，以较晚的那次为准。")
    if merged.doubles:
        lines.append(f"有{merged.doubles}封两边都要寄的信，只寄一次。")
    lines.append(
        "没填完的表可以在这里回「继续」；「我的渠道」看全部渠道、选首选。"
        f"不是您要办的，{DAYS}天内回「取消关联」。"
    )
    return "\n".join(lines)


# - and two again -


@command(
    "取消关联",
    "解除关联",
    "取消绑定",
    "解除绑定",
    help=f"取消关联：{DAYS}天内把合起来的账号分开",
    section="鸿雁档案",
    wins=True,
)
def unlink(context: Context, _argument: str) -> Reply:
    """Say what will come of it, and ask for the word."""
    found = linking.last_link(context.session, context.person_id, context.now)
    if found is None:
        return say(f"{DAYS}天之内没有关联过账号。要让某个渠道不再是您，请回「我的渠道」。")
    return context.begin(PartForm, {"link": found.id, "at": show_time(found.linked_at)})


class PartForm(Form, name="part_accounts", label="取消关联"):
    """What goes back, what does not, and the word."""

    finish = None
    expires = timedelta(hours=1)

    agreed: Annotated[
        bool,
        _last_word(
            PART,
            lambda asking: (
                f"取消{asking.facts['at']}的关联：并进来的账号重新成为另一个人，"
                "它带来的档案、角色、报名、没填完的表跟它回去。\n"
                "分不回去的：关联之后说过、办过的事留在原来的档案；"
                "合并时舍掉的档案、较早的草稿和回执；两边停订的照旧停订。\n"
            ),
        ),
    ]

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """Nothing was changed."""
        return "好的，关联照旧。"

    def submit(self, context: Context) -> Reply:
        """Part them, if the link still stands."""
        if not self.agreed:
            return say(self.cancelled(Asking({}, {}, context.today)))
        found = linking.last_link(context.session, context.person_id, context.now)
        if found is None or found.id != self.began_with["link"]:
            return say("这次关联已经取消，或者过了能取消的时候。")
        return _part(context, found)


def _part(context: Context, found: PersonLink) -> Reply:
    session, kept, other = context.session, found.person_id, found.other_id
    context.discard(PartForm)
    everybody = contacts_of(session, kept)
    linking.part(session, found, context.now, _said(context))
    theirs = contacts_of(session, other)
    for contact in theirs:
        _redirect(context, kept, contact)
    context.audit("person.link_undone", f"person:{kept}", f"person:{other}")
    context.merged |= {kept, other}
    words = (
        f"{show_time(found.linked_at)}的账号关联已经取消，两边重新是两个人。"
        f"有疑问请拨 {here(context).office.phone}。"
    )
    for contact in everybody:
        if contact.id != context.contact_id:
            fresh = session.get_one(Contact, contact.id)
            _tell(context, fresh, f"parted:{found.id}", words)
    if any(contact.id == context.contact_id for contact in theirs):
        context.become(other)
    return say(words)


def _redirect(context: Context, person_id: int, lost: Contact) -> None:
    """What waits for a person at an address that is theirs no more goes where they still are."""
    open_to_all = [name for name, scope in context.services.proactive.items() if not scope]
    instead = contact_of(context.session, person_id, open_to_all)
    windowed = instead is not None and context.services.channels[instead.channel].windowed
    linking.redirect(context.session, person_id, lost, instead, windowed=windowed)


# - 我的渠道 -


@command("我的渠道", "我的账号", help="我的渠道：看、选首选、解除", section="鸿雁档案", reads=True)
def channels(context: Context, _argument: str) -> Reply:
    """Every address of the speaker, without its id."""
    mine = contacts_of(context.session, context.person_id)
    lines = [_line(context, number, contact) for number, contact in enumerate(mine, 1)]
    listed = "\n".join(["您的渠道：", *lines])
    if len(mine) == 1:
        return say(f"{listed}\n要让另一个渠道也是您，请回「关联」。")
    return say(f"{listed}\n选首选：「首选渠道 1」。不再用哪个：「解除渠道 2」。")


def _line(context: Context, number: int, contact: Contact) -> str:
    notes = [f"{show_time(contact.last_seen_at)}用过"]
    if contact.id == context.contact_id:
        notes.append("就是这里")
    if contact.preferred_at is not None:
        notes.append("首选")
    if not contact.reachable:
        notes.append("现在寄不到")
    return f"{number}. {_label(context, contact.channel)}（{'，'.join(notes)}）"


def _numbered(context: Context, argument: str) -> Contact:
    mine = contacts_of(context.session, context.person_id)
    picked = pick_numbers(argument, len(mine))
    if isinstance(picked, Miss) or len(picked) != 1:
        raise UserError(f"请写渠道的编号（1到{len(mine)}），编号回「我的渠道」可以看到。")
    return mine[picked[0] - 1]


@command("首选渠道", "我的渠道 首选", needs_argument=True)
def prefer(context: Context, argument: str) -> Reply:
    """`首选渠道 2`: the address that is tried first from now on."""
    chosen = _numbered(context, argument)
    for contact in contacts_of(context.session, context.person_id):
        contact.preferred_at = context.now if contact.id == chosen.id else None
        context.session.add(contact)
    context.audit("person.preferred", f"person:{context.person_id}", chosen.channel)
    return say(f"好的，以后先往{_label(context, chosen.channel)}给您写；那里寄不到时再用别的。")


@command("解除渠道", "我的渠道 解除", needs_argument=True)
def give_up(context: Context, argument: str) -> Reply:
    """`解除渠道 2`: the address becomes a stranger's."""
    if len(contacts_of(context.session, context.person_id)) == 1:
        raise UserError("您只有这一个渠道，不能解除。想离开请回「撤回同意」或「删除档案」。")
    _refuse_while_fresh(context)
    chosen = _numbered(context, argument)
    facts = {"contact": chosen.id, "label": _label(context, chosen.channel)}
    return context.begin(GiveUpForm, facts)


def _refuse_while_fresh(context: Context) -> None:
    """Who got in by somebody's code must not throw them out before they have noticed."""
    fresh = linking.last_link(context.session, context.person_id, context.now)
    if fresh is not None:
        raise UserError(
            f"{show_time(fresh.linked_at)} 刚关联过账号，{DAYS}天之内不能解除渠道，"
            "只能「取消关联」。"
        )


class GiveUpForm(Form, name="give_up_channel", label="解除渠道"):
    """What comes of it, and the word."""

    finish = None
    expires = timedelta(hours=1)

    agreed: Annotated[
        bool,
        _last_word(
            GIVE_UP,
            lambda asking: (
                f"解除后，{asking.facts['label']}的这个账号就是一个新来的人，"
                "看不到您的档案，也不再收到给您的信；档案和角色留在其余渠道。\n"
            ),
        ),
    ]

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """Nothing was changed."""
        return "好的，渠道照旧。"

    def submit(self, context: Context) -> Reply:
        """Let the address go."""
        if not self.agreed:
            return say(self.cancelled(Asking({}, {}, context.today)))
        return _give_up(context, int(self.began_with["contact"]))


def _give_up(context: Context, contact_id: int) -> Reply:
    mine = contacts_of(context.session, context.person_id)
    lost = next((contact for contact in mine if contact.id == contact_id), None)
    if lost is None or len(mine) == 1:
        raise UserError("这个渠道已经不在您名下，回「我的渠道」再看一遍。")
    _refuse_while_fresh(context)
    before = context.person_id
    context.discard(GiveUpForm)
    alone = linking.leave_alone(context.session, lost, context.now)
    _redirect(context, before, lost)
    context.audit("person.unlinked", f"person:{before}", f"person:{alone}")
    context.merged |= {before, alone}
    label = _label(context, lost.channel)
    occasion = f"unlinked:{alone}"
    words = f"{label}的一个账号刚刚从您名下解除。不是您办的，请拨 {here(context).office.phone}。"
    _tell_others(context, occasion, words)
    if lost.id == context.contact_id:
        context.become(alone)
    else:
        _tell(context, lost, occasion, f"这个{label}账号已经从原来的档案解除，是一个新来的人了。")
    return say(f"已解除{label}的那个账号，以后给您的信不再往那里寄。")


# - what is forgotten when -


def _forget(_services: Services, session: Session, now: datetime) -> int:
    return linking.forget_links(session, now)


LINKS = Retention("links", f"账号关联的撤销记录{DAYS}天", _forget)
