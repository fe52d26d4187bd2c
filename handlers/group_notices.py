"""Announcements to groups: one writes, another approves; in members' groups the staff tap."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar

from sqlalchemy import literal
from sqlmodel import Session, col, select

from bot.commands import Approvable, command, tick
from bot.context import Context, Services, outbox_row
from bot.errors import UserError
from bot.forms import Ask, Asking, Form
from bot.messages import Address, Reply, say
from bot.normalize import Miss, pick_numbers
from bot.personal_numbers import find_mobiles, scrub
from bot.text import content_hash
from handlers.approvals import request
from handlers.campaigns import LINK, names_higher_office, read_text
from handlers.place import Place, here
from handlers.purposes import DUTY
from handlers.roles import Role
from handlers.standing import REASON_LABELS
from storage import mailbox
from storage.approvals import Approval
from storage.customer_groups import (
    NEWCOMERS,
    CustomerGroup,
    call_back,
    head_count,
    live_groups,
    room_left,
    standing,
)
from storage.group_notices import GroupNotice, NoticeKind, NoticeState
from storage.profiles import MemberProfile
from storage.sequences import next_number
from storage.states import OPEN, STATE_WORDS, State

KIND = "group_notice"
LONGEST = 900  # characters; the platform's welcome takes 3,000 bytes
STAYS_GOOD = timedelta(days=3)
"""How long staff may take to tap; after that nobody wants it said any more."""
OVER = frozenset(State) - {*OPEN, State.AWAITING_STAFF}
TAP = "请群主在企业微信里打开「群发助手」点发送"

EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")
FILE_NUMBER = re.compile(r"HY-\d{4}-\d+")
PRIVATE_PAGE = re.compile(r"/p/[\w-]{8,}")

WELCOME = (
    "%NICKNAME%，欢迎加入！这里是{title}。登记、报名活动、收家乡的信，"
    "请先关注公众号，再对公众号说「登记」。群里请不要发手机号、证件号。"
)


# - what may be said in a group (requirements §4.6) -


def unfit(text: str, office_phone: str) -> str:
    """Why a text must not be said in a group, in one sentence; "" if it may be."""
    if len(text) > LONGEST:
        return f"群里的话最多{LONGEST}个字，这段有{len(text)}个字。"
    if scrub(text)[1]:
        return "里面有证件号或卡号，不能发到群里。"
    office = re.sub(r"\D", "", office_phone)
    if any(number not in office for number in find_mobiles(text)):
        return "里面有个人手机号，不能发到群里，请改成办公室电话。"
    if EMAIL.search(text):
        return "里面有邮箱，不能发到群里，请改成办公室电话。"
    if FILE_NUMBER.search(text):
        return "里面有乡亲的档案号，不能发到群里。"
    if PRIVATE_PAGE.search(text):
        return "里面有个人专用的链接，不能发到群里。"
    return ""


def _concerns(session: Session, text: str) -> list[str]:
    """What does not forbid a text, and should be seen by whoever approves it."""
    named = session.exec(
        select(MemberProfile.name).where(literal(text).contains(col(MemberProfile.name))).limit(3)
    ).all()
    found = []
    if named:
        found.append(f"文中有登记乡亲的姓名（{'、'.join(named)}），请核对是否经本人同意公开。")
    if LINK.search(text):
        found.append("文中有外链，请核对网址。")
    return found


# - the dialog -


def _groups(asking: Asking) -> Mapping[str, str]:
    groups: Mapping[str, str] = asking.facts["groups"]
    return groups


def _ask_groups(asking: Asking) -> str:
    listed = "　".join(f"{number}{name}" for number, name in enumerate(_groups(asking).values(), 1))
    return f"发到哪些群？{listed}。可回几个数字，或「全部」。"


def _read_groups(text: str, asking: Asking) -> str | Miss:
    addresses = list(_groups(asking))
    if text in ("全部", "都发", "所有"):
        return "\n".join(addresses)
    picked = pick_numbers(text, len(addresses))
    if isinstance(picked, Miss):
        return picked
    return "\n".join(addresses[number - 1] for number in picked)


def _read_notice(text: str, asking: Asking) -> str | Miss:
    read = read_text(text, asking)
    if isinstance(read, Miss):
        return read
    wrong = unfit(read, asking.facts["phone"])
    return Miss(wrong) if wrong else read


class GroupNoticeForm(Form, name="group_notice", label="群公告"):
    """One announcement: where, what, and by whose leave."""

    finish: ClassVar[str | None] = "提交"

    groups: Annotated[
        str | None,
        Ask(
            "发到",
            _ask_groups,
            _read_groups,
            when=lambda asking: len(_groups(asking)) > 1,
            show=lambda value, asking: "、".join(_groups(asking)[a] for a in value.splitlines()),
        ),
    ] = None
    text: Annotated[str, Ask("正文", f"公告正文？最多{LONGEST}个字。", _read_notice)]
    document: Annotated[
        str | None,
        Ask(
            "批准文号",
            "落款代表上级机关，请写批准文号：",
            read_text,
            when=lambda asking: names_higher_office("", asking.get("text", "")),
        ),
    ] = None

    def submit(self, context: Context) -> Reply:
        chosen = self.groups or "\n".join(self.began_with["groups"])
        return _hand_in(context, NoticeKind.ANNOUNCEMENT, chosen, self.text, self.document or "")


@command(
    "群公告",
    help="群公告：写一条发到乡亲群的公告；群公告 QG-0001：看发到哪一步了",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="broadcasts",
)
def group_notice(context: Context, argument: str) -> Reply:
    """Begin one, or look how far one has come."""
    if argument:
        return _progress(context, _find(context.session, argument))
    groups = live_groups(context.session)
    full = [g for g in groups if not room_left(context.session, g.id or 0, context.now)]
    open_to = {g.address: g.name or g.address for g in groups if g not in full}
    open_to |= {str(address): name for address, name in context.services.groups.items()}
    if full and not open_to:
        raise UserError("各群本月的群发次数都用完了（平台按当月天数限次），请下月再发。")
    before = ""
    if full:
        before = f"{'、'.join(g.name for g in full)}本月次数已用完，这次不发。"
    if not open_to:
        before = "还没有接入客户群：审批通过后给您可以复制到群里的文字。"
    phone = here(context).office.phone
    return context.begin(GroupNoticeForm, {"groups": open_to, "phone": phone}, before=before)


def _hand_in(context: Context, kind: NoticeKind, addresses: str, text: str, document: str) -> Reply:
    notice = GroupNotice(
        number=f"QG-{next_number(context.session, KIND):04d}",
        kind=kind,
        addresses=addresses,
        text=text,
        document=document,
        content_hash=content_hash(KIND, kind, addresses, text, document),
        created_by=context.person_id,
        created_at=context.now,
    )
    context.session.add(notice)
    context.session.flush()
    people = _people(context.session, notice)
    needed, role = _eyes(text, people, here(context))
    approval = request(
        context,
        KIND,
        notice.number,
        f"{_title(notice)}（{people}人）" if people else _title(notice),
        notice.content_hash,
        needed=needed,
        role_needed=role,
        reason=document,
    )
    who = "两人（其中一位领导）" if needed > 1 else "领导" if role else "另一名统筹员或领导"
    return say(f"已提交 {notice.number}，审批号 {approval.number}，须{who}同意后才发。")


def _eyes(text: str, people: int, place: Place) -> tuple[int, Role | None]:
    """Nobody speaks to a group alone; the rest is requirements §6.3."""
    if people > place.approvals.leader_above:
        return 2, Role.LEADER
    return 1, Role.LEADER if names_higher_office("", text) else None


def _title(notice: GroupNotice) -> str:
    return "入群欢迎语" if notice.kind == NoticeKind.WELCOME else "群公告"


def _here(session: Session, notice: GroupNotice) -> Sequence[CustomerGroup]:
    return [group for group in live_groups(session) if group.address in notice.groups]


def _of_staff(services: Services, notice: GroupNotice) -> list[str]:
    """Names of the staff's own groups that get it, where nobody need tap."""
    return [name for address, name in services.groups.items() if str(address) in notice.groups]


def _people(session: Session, notice: GroupNotice) -> int:
    return sum(head_count(session, group.id or 0) for group in _here(session, notice))


def _find(session: Session, number: str) -> GroupNotice:
    wanted = number.strip().upper()
    found = session.exec(select(GroupNotice).where(GroupNotice.number == wanted)).first()
    if found is None:
        raise UserError(f"没有编号是「{number}」的群公告。编号形如 QG-0001。")
    return found


# - four eyes -


def _show(context: Context, approval: Approval) -> Reply:
    notice = _find(context.session, approval.object)
    names = [group.name for group in _here(context.session, notice)]
    names += _of_staff(context.services, notice)
    lines = [f"{notice.number}　{_title(notice)}", f"发到：{'、'.join(names) or '未接入的群'}"]
    if notice.document:
        lines.append(f"批准文号：{notice.document}")
    lines += _concerns(context.session, notice.text)
    return say("\n".join(lines)).then(notice.text)


def _granted(context: Context, approval: Approval) -> Reply:
    notice = _find(context.session, approval.object)
    if notice.content_hash != approval.content_hash:
        raise UserError("内容已经改过，请按新的审批编号审批。")
    notice.state = NoticeState.APPROVED
    context.session.add(notice)
    context.audit("group_notice.approve", f"group_notice:{notice.number}", approval_id=approval.id)
    if not notice.groups:
        return say("还没有接入客户群，请把下面这段复制到群里发。").then(notice.text)
    for address in notice.groups:
        context.send_to_group(
            Address.parse(address),
            say(notice.text),
            occasion=notice.occasion,
            expires_at=context.now + STAYS_GOOD,
        )
    if notice.kind == NoticeKind.WELCOME:
        return say("正在更新欢迎语素材。请群主在客户群的「入群欢迎语」里选用，选用后才生效。")
    ours = _of_staff(context.services, notice)
    words = f"正在发到{'、'.join(ours)}。" if ours else ""
    if len(ours) < len(notice.groups):
        words += f"已请群主发送，状态是「{STATE_WORDS[State.AWAITING_STAFF]}」。{TAP}。"
    return say(words)


def _refused(context: Context, approval: Approval) -> Reply:
    notice = _find(context.session, approval.object)
    notice.state = NoticeState.REJECTED
    context.session.add(notice)
    return say("没有发到群里。")


GROUP_NOTICES = Approvable(KIND, "群公告", _show, _granted, _refused)


# - afterwards -


@command(
    "群公告 撤回",
    help="群公告 撤回 QG-0001：群主还没点发送的，撤回",
    section="统筹",
    roles=(Role.COORDINATOR, Role.LEADER),
    feature="broadcasts",
    needs_argument=True,
)
def recall(context: Context, argument: str) -> Reply:
    """Stop what has not left. What waits for a tap is stopped only once the platform says so."""
    notice = _find(context.session, argument)
    if notice.state != NoticeState.APPROVED:
        raise UserError(f"{notice.number} 还没有批准，没有什么可撤回。")
    stopped, asked = call_back(context.session, notice.occasion, context.now)
    if not stopped and not asked:
        raise UserError(f"{notice.number} 已经发出或已经结束，撤不回来了。")
    notice.state = NoticeState.RECALLED
    context.session.add(notice)
    context.audit("group_notice.recall", f"group_notice:{notice.number}")
    waiting = f"正在请平台撤回{asked}个群的待发任务，结果会告诉您。" if asked else ""
    return say(f"{notice.number}：{f'已停下{stopped}个群。' if stopped else ''}{waiting}")


def _progress(context: Context, notice: GroupNotice) -> Reply:
    rows = standing(context.session, notice.occasion)
    if not rows:
        words = {
            NoticeState.SUBMITTED: "等待审批。",
            NoticeState.REJECTED: "被驳回，没有发。",
            NoticeState.APPROVED: "已批准，由您复制到群里发。",
        }
        return say(f"{notice.number}　{words.get(NoticeState(notice.state), '已撤回。')}")
    lines = _lines(context.services, context.session, rows)
    return say("\n".join([f"{notice.number}　{_title(notice)}", *lines]))


def _lines(
    services: Services, session: Session, rows: Sequence[tuple[str, State, str]]
) -> list[str]:
    groups = {group.address: group for group in session.exec(select(CustomerGroup))}
    ours = {str(address): name for address, name in services.groups.items()}
    return [
        _line(groups.get(address), ours.get(address, "欢迎语素材"), state, reason)
        for address, state, reason in rows
    ]


def _line(group: CustomerGroup | None, otherwise: str, state: State, reason: str) -> str:
    name = group.name if group is not None else otherwise
    why = f"（{REASON_LABELS.get(reason, reason)}）" if reason and state is not State.SENT else ""
    if state is State.AWAITING_STAFF and group is not None:
        why = f"（群主账号 {group.owner}）"
    return f"{name}：{STATE_WORDS[state]}{why}"


@tick("group_notices", label="群公告的结果告诉起草人")
def tell_outcomes(services: Services, session: Session, now: datetime) -> None:
    """Once nothing of one is open any more, whoever wrote it hears what became of it."""
    approved = col(GroupNotice.state).in_([NoticeState.APPROVED, NoticeState.RECALLED])
    for notice in session.exec(
        select(GroupNotice).where(approved, col(GroupNotice.told_at).is_(None))
    ).all():
        rows = standing(session, notice.occasion)
        if rows and any(state not in OVER for _address, state, _reason in rows):
            continue
        notice.told_at = now
        session.add(notice)
        if not rows:
            continue
        words = "\n".join([f"{notice.number} 的结果：", *_lines(services, session, rows)])
        row = outbox_row(
            services,
            session,
            notice.created_by,
            say(words),
            occasion=f"group_notice_told:{notice.number}",
            purpose=DUTY,
            now=now,
        )
        if row is not None:
            mailbox.enqueue(session.connection(), [row])


# - what newcomers are greeted with -


@command(
    "群欢迎语",
    help="群欢迎语：看现成的入群欢迎语；群欢迎语 您的文字：换一段，须第二人同意",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="broadcasts",
)
def group_welcome(context: Context, argument: str) -> Reply:
    """Show the ready words, or hand others in."""
    ready = WELCOME.format(title=here(context).title)
    if not argument:
        return say(ready).then(
            "%NICKNAME% 会换成新成员的昵称。用这一段请回「群欢迎语 用」；"
            "要改写，请回「群欢迎语」加您的文字。"
        )
    text = ready if argument in ("用", "就用这段", "使用") else _plain(argument)
    wrong = unfit(text, here(context).office.phone)
    if wrong:
        raise UserError(wrong)
    groups = live_groups(context.session)
    if not groups:
        raise UserError("还没有接入客户群，没有地方放欢迎语。")
    homes = {replace(Address.parse(group.address), user=NEWCOMERS) for group in groups}
    addresses = "\n".join(sorted(str(home) for home in homes))
    return _hand_in(context, NoticeKind.WELCOME, addresses, text, "")


def _plain(text: str) -> str:
    read: Any = read_text(text, None)
    if isinstance(read, Miss):
        raise UserError(read.text)
    return str(read)
