"""Four eyes: asking for approval, showing what is asked, taking votes (requirements §6.3)."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from bot.catalog import Catalog
from bot.clock import show_time
from bot.commands import Approvable, command, tick
from bot.context import Context, Services, outbox_row
from bot.errors import UserError
from bot.messages import Reply, say
from handlers.place import here
from handlers.purposes import DUTY_NOW
from handlers.roles import ROLE_WORDS, STAFF, Role
from storage import mailbox
from storage.approvals import Approval, ApprovalState, ApprovalVote
from storage.people import Person, people_with_role
from storage.sequences import next_number

CODE_LENGTH = 4  # hex characters of the hash that an approver types back


def request(
    context: Context,
    kind: str,
    object: str,
    title: str,
    content_hash: str,
    *,
    needed: int = 1,
    role_needed: str | None = None,
    reason: str = "",
    number: str = "",
) -> Approval:
    """Ask for approval and tell those who may give it; an older request for the same is void.

    `content_hash` is what is approved: change the thing and the approval no longer fits.
    """
    void(context.session, kind, object)
    approval = Approval(
        number=number or f"SP-{next_number(context.session, 'approval'):04d}",
        kind=kind,
        object=object,
        title=title,
        content_hash=content_hash,
        needed=needed,
        role_needed=role_needed,
        reason=reason,
        asked_by=context.person_id,
        asked_at=context.now,
        expires_at=context.now + timedelta(hours=here(context).approvals.hours),
    )
    context.session.add(approval)
    context.session.flush()
    context.audit("approval.request", f"{kind}:{object}", reason, approval_id=approval.id)
    for person_id in _may_approve(context.session, approval, context.now):
        context.send(
            person_id,
            say(f"{approval.number} 等您审批：{title}。回「审批 {approval.number}」查看内容。"),
            occasion=f"approval:{approval.id}",
            purpose=DUTY_NOW,
            expires_at=approval.expires_at,
        )
    return approval


def void(session: Session, kind: str, object: str) -> None:
    """Take back open or granted requests for a thing that has changed."""
    for older in session.exec(
        select(Approval).where(
            Approval.kind == kind,
            Approval.object == object,
            col(Approval.number).not_like("%#%"),
        )
    ).all():
        if older.state in (ApprovalState.OPEN, ApprovalState.GRANTED):
            older.state = ApprovalState.VOID
        # The number is free again for the next request for the same thing.
        older.number = f"{older.number}#{older.id}"
        session.add(older)
    session.flush()


def granted(session: Session, kind: str, object: str, content_hash: str) -> bool:
    """Does an approval stand for exactly this content?"""
    found = session.exec(
        select(Approval).where(
            Approval.kind == kind,
            Approval.object == object,
            Approval.state == ApprovalState.GRANTED,
            Approval.content_hash == content_hash,
        )
    ).first()
    return found is not None


def _may_approve(session: Session, approval: Approval, now: datetime) -> list[int]:
    people: list[int] = []
    for role in STAFF:
        people += people_with_role(session, role, now)
    return [person for person in dict.fromkeys(people) if person != approval.asked_by]


def votes_of(session: Session, approval: Approval) -> Sequence[ApprovalVote]:
    """Votes so far, in order."""
    return session.exec(
        select(ApprovalVote)
        .where(ApprovalVote.approval_id == approval.id)
        .order_by(col(ApprovalVote.id))
    ).all()


def _open(context: Context) -> Sequence[Approval]:
    return context.session.exec(
        select(Approval)
        .where(Approval.state == ApprovalState.OPEN, col(Approval.expires_at) > context.now)
        .order_by(col(Approval.id))
    ).all()


def _approvable(catalog: Catalog, kind: str) -> Approvable:
    return next(value for value in catalog.of(Approvable) if value.kind == kind)


@command(
    "审批",
    help="审批：看等您审批的事项；审批 编号：看内容",
    section="统筹",
    roles=STAFF,
)
def approvals(context: Context, argument: str) -> Reply:
    """List what waits, or show one request whole."""
    waiting = _open(context)
    if not argument:
        if not waiting:
            return say("没有等待审批的事项。")
        lines = [f"{a.number}　{a.title}（{show_time(a.expires_at)}前有效）" for a in waiting]
        return say("等待审批：\n" + "\n".join(lines) + "\n回「审批 编号」查看内容。")
    found = [a for a in waiting if a.number.upper() == argument.upper()]
    if not found:
        return say(f"没有等待审批的「{argument}」，可能已经批过、驳回或过期。回「审批」看清单。")
    return _shown(context, found[0])


def _shown(context: Context, approval: Approval) -> Reply:
    shown = _approvable(context.services.catalog, approval.kind).show(context, approval)
    if approval.asked_by == context.person_id:
        return shown.then("这是您自己提交的，须由另一位统筹员或领导审批。")
    code = approval.content_hash[:CODE_LENGTH]
    done = len([vote for vote in votes_of(context.session, approval) if vote.agrees])
    needed = f"（需{approval.needed}人，已{done}人）" if approval.needed > 1 else ""
    return shown.then(f"通过请回「同意 {code}」，驳回请回「驳回 {approval.number} 原因」。{needed}")


@command("同意", section="统筹", roles=STAFF, needs_argument=True)
def agree(context: Context, argument: str) -> Reply:
    """`同意 3fa9`: the code is the beginning of the content's hash, so it fits one content only."""
    code = argument.strip().lower()
    if len(code) < CODE_LENGTH:
        raise UserError(f"请回「同意」加审批消息里的{CODE_LENGTH}位码，如「同意 3fa9」。")
    found = [a for a in _open(context) if a.content_hash.startswith(code)]
    if not found:
        raise UserError(
            f"没有等待审批的内容对得上「{argument}」。内容可能改过，请回「审批」重新查看。"
        )
    if len(found) > 1:
        lines = [f"{a.number}　{a.title}：同意 {a.content_hash[: 2 * CODE_LENGTH]}" for a in found]
        raise UserError("这个码对得上好几项，请回其中一行的「同意」和码：\n" + "\n".join(lines))
    return _vote(context, found[0], agrees=True, reason="")


@command("驳回", section="统筹", roles=STAFF, needs_argument=True)
def reject(context: Context, argument: str) -> Reply:
    """`驳回 B-0001 原因`; with one request waiting the number may be left out."""
    number, _, reason = argument.partition(" ")
    waiting = [a for a in _open(context) if a.asked_by != context.person_id]
    found = [a for a in waiting if a.number.upper() == number.upper()]
    if not found and len(waiting) == 1:
        found, reason = waiting, argument
    if not found:
        raise UserError("请回「驳回 编号 原因」，编号在审批消息里。")
    if not reason.strip():
        raise UserError(f"驳回须写明原因，如「驳回 {found[0].number} 时间不合适」。")
    return _vote(context, found[0], agrees=False, reason=reason.strip())


def _vote(context: Context, seen: Approval, *, agrees: bool, reason: str) -> Reply:
    approval = _held(context.session, seen)
    if approval.state != ApprovalState.OPEN:
        raise UserError(f"{approval.number.partition('#')[0]} 刚才已经有人办了。回「审批」看清单。")
    if approval.asked_by == context.person_id:
        raise UserError("不能审批自己提交的事项，须由另一位统筹员或领导审批。")
    votes = votes_of(context.session, approval)
    if any(vote.person_id == context.person_id for vote in votes):
        raise UserError(f"您已经审批过 {approval.number}，还差其他人。")
    # Whoever is both speaks as a leader: that is the rarer voice.
    role = Role.LEADER if context.has_role(Role.LEADER) else Role.COORDINATOR
    vote = ApprovalVote(
        approval_id=approval.id or 0,
        person_id=context.person_id,
        role=role,
        agrees=agrees,
        content_hash=approval.content_hash,
        reason=reason,
        at=context.now,
    )
    context.session.add(vote)
    context.audit(
        "approval.agree" if agrees else "approval.reject",
        f"{approval.kind}:{approval.object}",
        reason,
        approval_id=approval.id,
    )
    kind = _approvable(context.services.catalog, approval.kind)
    if not agrees:
        approval.state = ApprovalState.REJECTED
        context.session.add(approval)
        _tell_applicant(context, approval, f"{approval.number} 被驳回：{reason}")
        return say(f"已驳回 {approval.number}。") + kind.refused(context, approval)
    standing = [one for one in votes if _still_may(context.session, one, context.now)]
    lacking = _lacking(approval, [*standing, vote])
    if lacking:
        return say(f"已记下您的同意。{approval.number} 还需{lacking}。")
    approval.state = ApprovalState.GRANTED
    context.session.add(approval)
    context.session.flush()
    done = kind.granted(context, approval)
    text = f"{approval.number} 已批准并锁定内容；任何改动都会使审批失效。"
    _tell_applicant(context, approval, text)
    return say(text) + done


def _held(session: Session, approval: Approval) -> Approval:
    """The request as it stands now, held: two votes at once are counted one after the other."""
    return session.exec(
        select(Approval)
        .where(Approval.id == approval.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def _still_may(session: Session, vote: ApprovalVote, now: datetime) -> bool:
    """Does the voter still hold the role they spoke in? Who has left approves nothing any more."""
    return vote.person_id in people_with_role(session, vote.role, now)


def _lacking(approval: Approval, votes: Sequence[ApprovalVote]) -> str:
    agreed = [vote for vote in votes if vote.agrees]
    if len(agreed) < approval.needed:
        return f"{approval.needed - len(agreed)}人同意"
    if approval.role_needed and all(vote.role != approval.role_needed for vote in agreed):
        return f"一位{ROLE_WORDS[Role(approval.role_needed)]}同意"
    return ""


def _tell_applicant(context: Context, approval: Approval, text: str) -> None:
    context.send(
        approval.asked_by,
        say(text),
        occasion=f"approval:{approval.id}:{approval.state}",
        purpose=DUTY_NOW,
    )


@tick("approvals", label="过期审批作废")
def expire_approvals(services: Services, session: Session, now: datetime) -> None:
    """Close requests nobody answered in time and tell the applicant."""
    for approval in session.exec(
        select(Approval).where(
            Approval.state == ApprovalState.OPEN, col(Approval.expires_at) <= now
        )
    ).all():
        approval.state = ApprovalState.EXPIRED
        session.add(approval)
        if session.get(Person, approval.asked_by) is None:
            continue
        row = outbox_row(
            services,
            session,
            approval.asked_by,
            say(f"{approval.number}（{approval.title}）到期未批，已作废。需要请重新提交。"),
            occasion=f"approval:{approval.id}:expired",
            purpose=DUTY_NOW,
            now=now,
        )
        if row is not None:
            mailbox.enqueue(session.connection(), [row])
