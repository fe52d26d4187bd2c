"""二维码: codes that bring people to us, and who invited somebody who came by one.

A scene is `u_<unit id>`, `e_<event number>` or `g_<group's name>`.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import segno
from sqlalchemy import func
from sqlmodel import Session, col, select

from bot.clock import show_time
from bot.commands import Retention, command, tick
from bot.context import Context, Services, outbox_row
from bot.errors import UserError
from bot.messages import File, Part, Reply, say
from handlers.events.wording import when
from handlers.purposes import DUTY_NOW
from handlers.roles import STAFF
from storage import mailbox, scenes
from storage.events import event_called
from storage.organisation import Unit
from storage.scenes import LONGEST_SCENE, Arrival, CodeState, SceneCode

UNIT, EVENT, GROUP = "u_", "e_", "g_"
DAYS = 30  # as long as WeChat lets a temporary code live
LASTING = "长期"
KEPT = timedelta(days=30)  # after a code has ended
USAGE = (
    "请说明给谁用：「二维码 单位 工商联」「二维码 活动 HD-2026-01」「二维码 群 上海乡亲群」。"
    f"码{DAYS}天有效；印在海报上的加「{LASTING}」，如「二维码 单位 工商联 {LASTING}」。"
)


@dataclass(frozen=True)
class Wanted:
    """The code a coordinator asks for."""

    scene: str
    label: str
    lasting: bool


# - what coordinators say -


@command(
    "二维码",
    help="二维码：请人扫码来，如「二维码 单位 工商联」「二维码 活动 HD-2026-01」",
    section="统筹",
    roles=STAFF,
)
def ask(context: Context, argument: str) -> Reply:
    """A picture to be scanned; without an argument those there are and how many came by them."""
    if not argument.strip():
        return say(_listed(context))
    channel = next((n for n, facts in context.services.channels.items() if facts.codes), None)
    if channel is None:
        raise UserError("现在启用的渠道都不能做二维码，要接入公众号才行。")
    wanted = _understood(context, argument)
    known = scenes.live_code(
        context.session, channel, wanted.scene, context.now + timedelta(days=1)
    )
    context.audit("code.ask", f"scene:{wanted.scene}")
    if known is not None and (known.expires_at is None or not wanted.lasting):
        return picture_of(known)
    context.session.add(
        SceneCode(
            channel=channel,
            scene=wanted.scene,
            label=wanted.label,
            days=None if wanted.lasting else DAYS,
            asked_by=context.person_id,
            asked_at=context.now,
        )
    )
    return say(f"正在向平台要「{wanted.label}」的二维码，做好就发给您。")


def _understood(context: Context, argument: str) -> Wanted:
    kind, *rest = argument.split()
    lasting = bool(rest) and rest[-1] == LASTING
    named = " ".join(rest[:-1] if lasting else rest)
    if not named:
        raise UserError(USAGE)
    match kind:
        case "单位":
            unit = _unit(context.session, named)
            return Wanted(f"{UNIT}{unit.id}", unit.name, lasting)
        case "活动":
            event = event_called(context.session, named.upper())
            if event is None or event.cancelled_at is not None:
                raise UserError(f"没有编号为「{named}」的活动，或已取消。回「活动」看编号。")
            return Wanted(f"{EVENT}{event.number}", event.title, lasting)
        case "群":
            if len(GROUP + named) > LONGEST_SCENE:
                raise UserError(f"群名太长，最多{LONGEST_SCENE - len(GROUP)}个字。")
            return Wanted(f"{GROUP}{named}", named, lasting)
    raise UserError(USAGE)


def _unit(session: Session, named: str) -> Unit:
    units = session.exec(select(Unit).order_by(col(Unit.name))).all()
    found = next((unit for unit in units if unit.name == named), None)
    if found is None:
        known = "、".join(unit.name for unit in units) or "还没有导入单位"
        raise UserError(f"没有叫「{named}」的单位。现有：{known}。")
    return found


def _listed(context: Context) -> str:
    """Scenes with how many came by them first, the most first."""
    rows = context.session.execute(
        select(col(Arrival.scene), func.count())
        .group_by(col(Arrival.scene))
        .order_by(func.count().desc(), col(Arrival.scene))
        .limit(20)
    ).all()
    if not rows:
        return f"还没有人扫码来过。\n{USAGE}"
    lines = [f"{name_of(context.session, scene) or scene}　{count}人" for scene, count in rows]
    return "\n".join(["扫码来的人（每人只记第一次）：", *lines, USAGE])


def picture_of(code: SceneCode) -> Reply:
    """The code as a picture, with what it is."""
    made = io.BytesIO()
    segno.make(code.url, error="m", micro=False).save(made, kind="png", scale=10, border=4)
    until = f"{show_time(code.expires_at)}前有效" if code.expires_at is not None else "长期有效"
    file = File(f"二维码-{code.label}.png", "image/png", made.getvalue())
    return Reply(
        (Part(f"「{code.label}」的二维码，{until}。扫码关注的人会记在它名下。", file=file),)
    )


# - who invited -


def name_of(session: Session, scene: str) -> str:
    """The unit, event or group that a scene stands for; empty for any other."""
    if scene.startswith(UNIT) and scene[len(UNIT) :].isascii() and scene[len(UNIT) :].isdigit():
        unit = session.get(Unit, int(scene[len(UNIT) :]))
        return unit.name if unit is not None else ""
    if scene.startswith(EVENT):
        event = event_called(session, scene[len(EVENT) :])
        return event.title if event is not None else ""
    return scene[len(GROUP) :] if scene.startswith(GROUP) else ""


def arrived(context: Context) -> str:
    """Remember by whose code somebody came, and say it; empty for one that is not ours."""
    scene = context.inbound.argument
    if not scene or not context.person_id:
        return ""
    name = name_of(context.session, scene)
    if not name:
        return ""
    scenes.remember_arrival(context.session.connection(), context.person_id, scene, context.now)
    if not scene.startswith(EVENT):
        return f"您是应「{name}」的邀请来的，欢迎。"
    event = event_called(context.session, scene[len(EVENT) :])
    assert event is not None, "it has a name"
    if event.cancelled_at is not None or event.ends_on < context.today:
        return f"您扫的是活动「{name}」的码，这个活动已经结束或取消。"
    return f"您扫的是活动「{name}」的码：{when(event)}，{event.venue}。回「活动」看名额和报名办法。"


# - the clock -


@tick("scene_codes", label="二维码做好后发给要的人")
def hand_over(services: Services, session: Session, now: datetime) -> None:
    """Send codes that the platform has made to whoever asked, and say which it will not make."""
    for code in _finished(session):
        words = picture_of(code) if code.state == CodeState.MADE else _refusal(code)
        row = outbox_row(
            services,
            session,
            code.asked_by,
            words,
            occasion=f"code:{code.id}",
            purpose=DUTY_NOW,
            now=now,
        )
        mailbox.enqueue(session.connection(), [row] if row is not None else [])
        code.state = CodeState.HANDED_OVER
        session.add(code)


def _finished(session: Session) -> Sequence[SceneCode]:
    states = [CodeState.MADE, CodeState.FAILED]
    return session.exec(
        select(SceneCode)
        .where(col(SceneCode.state).in_(states))
        .order_by(col(SceneCode.id))
        .with_for_update()
    ).all()


def _refusal(code: SceneCode) -> Reply:
    return say(
        f"「{code.label}」的二维码没有做成：{code.refused}。请管理员运行 hongyan check 查看。"
    )


def _forget(_services: Services, session: Session, now: datetime) -> int:
    return scenes.forget_codes(session.connection(), now - KEPT)


CODES = Retention("scene_codes", "扫码用的二维码，失效后30天", _forget)
