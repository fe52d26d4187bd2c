"""Roles by one-time code: proposed by one, approved by another, taken by the person meant."""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

from sqlmodel import Session, col, select

from bot.clock import beijing, show_time
from bot.commands import Approvable, CliWord, command
from bot.context import Context, Services
from bot.errors import UserError
from bot.forms import Ask, Asking, Form
from bot.messages import SILENCE, Reply, say
from bot.normalize import Miss
from bot.text import content_hash
from handlers import codes
from handlers.approvals import request
from handlers.forms.member_profile import numbered, one_of
from handlers.purposes import DUTY_NOW
from handlers.roles import FIELD, ROLE_WORDS, Role
from storage.approvals import Approval
from storage.audit import AuditEntry
from storage.organisation import FieldTeam, TeamMember, Unit, roster
from storage.people import Grant, Person, live_grant, people_with_role

GIVERS = (Role.COORDINATOR, Role.ADMIN)
BOOTSTRAP = (Role.COORDINATOR, Role.ADMIN)
"""Of these the command line makes only the first one."""

LONGEST_CALLED = 20
_GRANT = re.compile(r"[0-9]{1,9}")
NOBODY = "都不是"


@dataclass(frozen=True, slots=True)
class Offer:
    """A role as a code or a request carries it; `first`: made by the command line."""

    role: str
    unit_id: int | None = None
    team_id: int | None = None
    first: bool = False

    def dump(self) -> str:
        """As JSON, always the same for the same offer."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Self:
        """The inverse of `dump`."""
        return cls(**json.loads(text))


def read_offer(session: Session, words: Sequence[str]) -> Offer:
    """`统筹员`, `带队人 T1`, `单位联络员 教体局`; raises UserError with what is missing."""
    by_word = {word: role for role, word in ROLE_WORDS.items()} | {str(r): r for r in Role}
    role = by_word.get(words[0]) if words else None
    if role is None:
        raise UserError(f"请写明角色：{'、'.join(ROLE_WORDS.values())}。")
    named = words[1] if len(words) > 1 else ""
    if role in FIELD:
        return Offer(role, team_id=_team(session, named).id)
    if role is Role.UNIT_LIAISON:
        return Offer(role, unit_id=_unit(session, named).id)
    return Offer(role)


def _team(session: Session, named: str) -> FieldTeam:
    teams = session.exec(select(FieldTeam).order_by(col(FieldTeam.code))).all()
    for team in teams:
        if (named and named.upper() == team.code.upper()) or named == team.name:
            return team
    known = "、".join(f"{team.code}（{team.name}）" for team in teams) or "还没有导入小分队"
    raise UserError(f"请写明小分队编号，如「带队人 T1」。现有：{known}。")


def _unit(session: Session, named: str) -> Unit:
    units = session.exec(select(Unit).order_by(col(Unit.name))).all()
    for unit in units:
        if named == unit.name:
            return unit
    known = "、".join(unit.name for unit in units) or "还没有导入单位"
    raise UserError(f"请写明单位，如「单位联络员 教体局」。现有：{known}。")


def describe(session: Session, role: str, unit_id: int | None, team_id: int | None) -> str:
    """带队人（T1 第一小分队）, 单位联络员（教体局）, 统筹员."""
    word = ROLE_WORDS[Role(role)]
    if team_id is not None:
        team = session.get_one(FieldTeam, team_id)
        return f"{word}（{team.code} {team.name}）"
    if unit_id is not None:
        return f"{word}（{session.get_one(Unit, unit_id).name}）"
    return word


def _named(session: Session, offer: Offer) -> str:
    return describe(session, offer.role, offer.unit_id, offer.team_id)


# --- proposing --------------------------------------------------------------------------------


@command("角色", help="角色：看谁有什么角色，授予或撤销", section="统筹", roles=GIVERS)
def roles(context: Context, _argument: str) -> Reply:
    """Every live grant with its number, and how to change them."""
    grants = context.session.exec(
        select(Grant).where(*live_grant(context.now)).order_by(col(Grant.id))  # type: ignore[arg-type]
    ).all()
    lines = [_grant_line(context.session, grant) for grant in grants]
    return say(
        "现有角色：\n" + "\n".join(lines) + "\n授予：「角色 授予 带队人 T1」，须另一人审批。"
        "撤销：「角色 撤销 编号」。"
    )


def _grant_line(session: Session, grant: Grant) -> str:
    role = describe(session, grant.role, grant.unit_id, grant.team_id)
    since = f"{beijing(grant.granted_at):%Y-%m-%d}"
    return f"{grant.id}　{role}　{_called(session, grant.person_id)}　{since}起"


def _called(session: Session, person_id: int) -> str:
    # Not the name on file: an administrator does not read profiles.
    return session.get_one(Person, person_id).called or "未留称呼"


@command("角色 授予", "授予角色", section="统筹", roles=GIVERS)
def propose(context: Context, argument: str) -> Reply:
    """Ask a second person for a role's code."""
    offer = read_offer(context.session, argument.split())
    named = _named(context.session, offer)
    # Two codes for the same role may be wanted at once: each request is a thing of its own.
    object = f"{offer.dump()}#{context.inbound.key}"
    asked = request(
        context, "role", object, f"授予一个{named}授权码", content_hash(object), reason=named
    )
    return say(
        f"已提交 {asked.number}：授予{named}。须另一位统筹员或领导审批，批准后把授权码发给您。"
    )


def _show_request(context: Context, approval: Approval) -> Reply:
    applicant = _called(context.session, approval.asked_by)
    return say(f"{approval.number}：{applicant}申请{approval.title}，7天内有效，一人一码。")


def _granted(context: Context, approval: Approval) -> Reply:
    offer = Offer.load(approval.object.partition("#")[0])
    payload = {**asdict(offer), "by": approval.asked_by, "confirmed": context.person_id}
    code = codes.role_code(context.session, context.services.keys, context.now, payload)
    context.audit("role.code", f"role:{offer.role}", approval_id=approval.id)
    context.send(
        approval.asked_by,
        say(
            f"{_named(context.session, offer)}授权码：{code}\n7天内有效，只能用一次。"
            f"请当面或电话告诉本人，由本人私聊我回「领码 {code}」。"
        ),
        occasion=f"role_code:{approval.id}",
        purpose=DUTY_NOW,
    )
    return SILENCE


def _refused(_context: Context, _approval: Approval) -> Reply:
    return SILENCE


ROLE_REQUEST = Approvable("role", "授予角色", _show_request, _granted, _refused)


@command("角色 撤销", "撤销角色", section="统筹", roles=GIVERS)
def take_back(context: Context, argument: str) -> Reply:
    """`角色 撤销 3`: at once, by the grant's number."""
    number = argument.strip()
    grant = context.session.get(Grant, int(number)) if _GRANT.fullmatch(number) else None
    if grant is None or grant.revoked_at is not None:
        raise UserError("请写编号，如「角色 撤销 3」；编号回「角色」可以看到。")
    if grant.role == Role.COORDINATOR:
        others = people_with_role(context.session, Role.COORDINATOR, context.now)
        if others == [grant.person_id]:
            raise UserError("这是最后一位统筹员，不能撤销。请先授予另一位。")
    grant.revoked_at = context.now
    context.session.add(grant)
    named = describe(context.session, grant.role, grant.unit_id, grant.team_id)
    context.audit("role.revoke", f"grant:{grant.id}", named)
    if grant.person_id != context.person_id:
        context.send(
            grant.person_id,
            say(f"您的{named}角色已于 {show_time(context.now)} 撤销。有疑问请拨办公室电话。"),
            occasion=f"role_revoked:{grant.id}",
            purpose=DUTY_NOW,
        )
    return say(f"已撤销：{_called(context.session, grant.person_id)}的{named}。")


# --- taking -----------------------------------------------------------------------------------


@command("领码", "授权码", help="领码：用授权码领取工作角色", section="常用", needs_argument=True)
def take(context: Context, argument: str) -> Reply:
    """Use a code up and have its role; then say how one is called."""
    payload = codes.take_role_code(context.session, context.services.keys, argument, context.now)
    if payload is None:
        context.audit("role.code_wrong", f"person:{context.person_id}")
        return say("授权码不对、已用过或已过期。请向给您授权码的人核对。")
    offer = Offer(payload["role"], payload["unit_id"], payload["team_id"], payload["first"])
    if offer.first and people_with_role(context.session, offer.role, context.now):
        return say(f"已经有{ROLE_WORDS[Role(offer.role)]}了，这个码作废。请由他在聊天里授予。")
    grant = Grant(
        person_id=context.person_id,
        role=offer.role,
        unit_id=offer.unit_id,
        team_id=offer.team_id,
        granted_at=context.now,
        granted_by=payload.get("by"),
        confirmed_by=payload.get("confirmed"),
    )
    context.session.add(grant)
    context.session.flush()
    context.audit("role.taken", f"grant:{grant.id}", offer.role)
    named = _named(context.session, offer)
    facts = {"team": offer.team_id, "free": _free_seats(context.session, offer)}
    return context.begin(CalledForm, facts, before=f"您已领取角色：{named}。")


def _free_seats(session: Session, offer: Offer) -> list[str]:
    if offer.team_id is None:
        return []
    return [member.name for member in roster(session, offer.team_id) if member.person_id is None]


def _seats(asking: Asking) -> tuple[str, ...]:
    return (*asking.facts["free"], NOBODY)


def _read_called(text: str, _asking: Asking) -> "str | Miss":
    plain = text.strip("。！!，,「」")
    if not 1 < len(plain) <= LONGEST_CALLED or any(sign.isdigit() for sign in plain):
        return Miss(f"请写2到{LONGEST_CALLED}个字的称呼，如「林主任」。")
    return plain


class CalledForm(Form, name="called", label="工作称呼"):
    """Which line of the roster somebody is, and how colleagues call them."""

    finish = None

    seat: Annotated[
        str | None,
        Ask(
            "花名册",
            lambda asking: f"您是花名册上的哪一位？{numbered(_seats(asking))}",
            lambda text, asking: one_of(text, _seats(asking)),
            options=_seats,
            when=lambda asking: bool(asking.facts["free"]),
        ),
    ] = None
    called: Annotated[
        str,
        Ask(
            "称呼",
            "工作消息里怎样称呼您？如「林主任」。",
            _read_called,
        ),
    ]

    def submit(self, context: Context) -> Reply:
        """Remember both."""
        context.person.called = self.called
        if self.seat not in (None, NOBODY):
            for member in context.session.exec(
                select(TeamMember).where(
                    TeamMember.name == self.seat,
                    col(TeamMember.person_id).is_(None),
                    col(TeamMember.team_id).in_(
                        [role.team_id for role in context.roles if role.team_id is not None]
                    ),
                )
            ):
                member.person_id = context.person_id
                context.session.add(member)
        return say(f"好的，{self.called}。回「帮助」看您能用的指令。")


# --- the first ones, from the command line ----------------------------------------------------


def _invite(services: Services, arguments: Sequence[str]) -> Sequence[str]:
    """`ROLE [--unit 单位] [--team 编号]`."""
    words, options = _split(arguments)
    now = services.clock.now()
    named = options.get("--team") or options.get("--unit")
    with services.database.session() as session:
        offer = read_offer(session, [*words, named] if named else words)
        word = _named(session, offer)
        if offer.role in BOOTSTRAP and people_with_role(session, offer.role, now):
            raise UserError(
                f"已经有{word}了；请由现任统筹员或管理员在聊天里发「角色 授予 {word}」，"
                "经另一人审批后领取。"
            )
        payload = {**asdict(offer), "first": offer.role in BOOTSTRAP}
        code = codes.role_code(session, services.keys, now, payload)
        session.add(
            AuditEntry(at=now, channel="cli", action="role.code", object=f"role:{offer.role}")
        )
    return [f"{word}授权码：{code}", f"7天内有效，只能用一次。请本人私聊机器人回「领码 {code}」。"]


def _split(arguments: Sequence[str]) -> tuple[list[str], Mapping[str, Any]]:
    words: list[str] = []
    options: dict[str, str] = {}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word in ("--unit", "--team"):
            if not waiting:
                raise UserError(f"{word} 后面要写名称。")
            options[word] = waiting.pop(0)
        else:
            words.append(word)
    if len(words) != 1:
        raise UserError("用法：hongyan invite 角色 [--unit 单位] [--team 小分队编号]")
    return words, options


INVITE = CliWord("invite", "一次性授权码：首位统筹员、管理员，或带队人、联络员", _invite)
