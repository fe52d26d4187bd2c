"""The life of a campaign: preview, dry run, freezing, approval, release, receipts.

Letters, invitations and broadcasts differ in who writes them; from here on they are the same.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from bot import planning
from bot.clock import show_time
from bot.commands import Approvable, JobKind, command, tick
from bot.context import Context, Sender, Services, outbox_row
from bot.errors import UserError
from bot.forms import Ask, Form
from bot.heart import fire
from bot.messages import Address, Inbound, Part, Reply, say
from bot.normalize import Miss
from bot.planning import Moment
from handlers import approvals
from handlers.approvals import CODE_LENGTH
from handlers.composition import Check, Text, check, checked_text, fingerprint, specimens
from handlers.place import Place, here, place_of
from handlers.plans import asked_of, plan_of, plan_words
from handlers.purposes import DUTY, DUTY_NOW
from handlers.roles import STAFF, Role
from handlers.segments import Segment, people_of
from handlers.settling import settle
from handlers.standing import OPEN_STATES, STATE_LABELS, sent_of, with_reasons
from storage import mailbox, overview, steering
from storage.approvals import Approval
from storage.audit import VIEWED
from storage.campaigns import Campaign, CampaignState
from storage.columns import from_millis, to_millis
from storage.events import Event, Rsvp, RsvpState
from storage.jobs import Job
from storage.letter_replies import tallies
from storage.people import Role as Held
from storage.people import grants_of, people_with_role
from storage.sequences import next_number
from storage.states import STATE_WORDS, WAITING, State

KIND = "campaign"
AT_ONCE = 500  # recipients that are checked while the coordinator waits; more is a job
SAMPLED = 300  # recipients among whom the shortest and the longest text are looked for
STAYS_GOOD = timedelta(days=7)  # how long a broadcast may wait for somebody's reply window
HIGHER_OFFICES = re.compile("市委|市政府|县委|县政府|旗委|旗政府|领导小组")
LONGEST_SIGNATURE = 24  # a longer line is a sentence that only mentions an office
LINK = re.compile(r"https?://|www\.|\b[\w-]+\.(?:com|cn|net|org|gov)\b", re.IGNORECASE)


# - making and changing one -


def unsaved(
    text: Text, segment: Segment, place: Place, moment: Moment | None, now: datetime
) -> Campaign:
    """A campaign that only stands in memory, to be looked at."""
    checked_text(text)
    return Campaign(
        number="",
        kind=text.kind,
        title=text.title,
        occasion="",
        purpose=text.purpose,
        template=text.template,
        facts=text.facts(place),
        audience=segment.dump(),
        object=text.object,
        created_at=now,
        not_before=moment.at if moment else None,
        local_time=moment.local if moment else True,
        expires_at=moment.latest if moment else None,
    )


def create(
    session: Session,
    campaign: Campaign,
    *,
    words: str = "",
    occasion: str = "",
    created_by: int | None = None,
) -> Campaign:
    """Keep an unsaved campaign as a draft with a number.

    `words` are how the coordinator named the segment; `occasion` is the key under which nobody gets
    it twice.
    """
    campaign.number = f"B-{next_number(session, KIND):04d}"
    campaign.occasion = occasion or f"{KIND}:{campaign.number}"
    campaign.words, campaign.created_by = words, created_by
    session.add(campaign)
    session.flush()
    return campaign


def values_of(campaign: Campaign) -> dict[str, Any]:
    """What fills the campaign's template besides the person."""
    values: dict[str, Any] = json.loads(campaign.facts)["values"]
    return values


def document_of(campaign: Campaign) -> str:
    """The 文号 under which it may be signed for a higher office."""
    document: str = json.loads(campaign.facts)["document"]
    return document


def must_be_unsent(context: Context, campaign: Campaign) -> None:
    """Take a campaign's rows back to change it; raises UserError once anything has left."""
    if campaign.state in (CampaignState.DONE, CampaignState.CANCELLED):
        raise UserError(
            f"{campaign.number} {STATE_LABELS[CampaignState(campaign.state)]}，不能再改。"
        )
    if campaign.id is None or campaign.state not in OPEN_STATES:
        return
    steering.hold(context.session.connection(), campaign.id)
    counts = overview.progress(context.session.connection(), campaign.id)
    gone = sum(n for (state, _why), n in counts.items() if state not in WAITING)
    if gone:
        raise UserError(
            f"{campaign.number} 已开始发送，不能再改。"
            f"可「群发 取消 {campaign.number}」停下未发的，或「更正 {campaign.number}」。"
        )


def rewrite(
    context: Context,
    campaign: Campaign,
    *,
    values: Mapping[str, Any] | None = None,
    document: str = "",
) -> None:
    """Change what a campaign says; whatever was approved of it is void."""
    facts = json.loads(campaign.facts)
    facts["values"] |= values or {}
    if document:
        facts["document"] = document
    back_to_draft(context, campaign)
    campaign.facts = json.dumps(facts, ensure_ascii=False, sort_keys=True)
    context.session.add(campaign)
    context.audit("campaign.change", object_of(campaign))


def replace_with(context: Context, campaign: Campaign, fresh: Campaign, words: str) -> None:
    """Let a campaign say what an unsaved one says; whatever was approved of it is void."""
    back_to_draft(context, campaign)
    for name in ("kind", "title", "purpose", "template", "facts", "audience", "object"):
        setattr(campaign, name, getattr(fresh, name))
    for name in ("not_before", "local_time", "expires_at"):
        setattr(campaign, name, getattr(fresh, name))
    campaign.words = words
    context.session.add(campaign)
    context.audit("campaign.change", object_of(campaign))


def back_to_draft(context: Context, campaign: Campaign) -> None:
    """Undo submission and approval: the list is forgotten, the code fits nothing any more."""
    must_be_unsent(context, campaign)
    approvals.void(context.session, KIND, campaign.number)
    _reset(context.session, campaign, CampaignState.DRAFT)


def _reset(session: Session, campaign: Campaign, state: CampaignState) -> None:
    planning.thaw(session, campaign)
    campaign.state, campaign.content_hash, campaign.recipients_hash = state, "", ""
    session.add(campaign)
    session.flush()


def object_of(campaign: Campaign) -> str:
    return f"{KIND}:{campaign.number}"


def find(session: Session, said: str) -> Campaign:
    """A campaign by what somebody typed (B-0001, b1, 1), held until it is done with.

    Raises UserError.
    """
    found = re.fullmatch(r"[Bb]?\s*[-－—]?\s*(\d{1,8})", said.strip())
    campaign = (
        found
        and session.exec(
            select(Campaign)
            .where(Campaign.number == f"B-{int(found[1]):04d}")
            .with_for_update(key_share=True)  # its rows may be written meanwhile
            .execution_options(populate_existing=True)
        ).first()
    )
    if not campaign:
        raise UserError(f"没有编号为「{said}」的群发。回「群发 进度」看最近几次。")
    return campaign


# - looking at it -


def recipients(
    services: Services, session: Session, campaign: Campaign, now: datetime, count: int
) -> Sequence[int]:
    """Some of those who would get it."""
    asked = asked_of(services, session, campaign, now)
    return planning.sample(services, session, people_of(campaign, now), asked, count)


def preview(context: Context, campaign: Campaign, count: int = 4) -> Reply:
    """The text as real people would get it, and whether anything is wrong with it.

    Looking at somebody's letter is looking at their file, so each is noted in the audit log.
    """
    session, now = context.session, context.now
    people = recipients(context.services, session, campaign, now, SAMPLED)
    if not people:
        raise UserError("这个对象里眼下没有能收到的人，没有可预览的。")
    parts = []
    for one in specimens(campaign, session, people, now)[:count]:
        size = f"{len(one.text)} 字、{len(one.text.encode())} 字节"
        parts.append(Part(f"【{one.why}　{size}】\n{one.text}"))
        context.audit(VIEWED, f"person:{one.reader.person_id}", f"预览 {campaign.number or '草稿'}")
    return Reply((*parts, Part(check(campaign, session, people, now).words)))


# - submitting -


@dataclass(frozen=True)
class Eyes:
    """How many others must agree, and whether one of them must be a leader."""

    needed: int
    role: Role | None = None


def eyes_for(campaign: Campaign, count: int, place: Place) -> Eyes:
    """The rules of requirements §6.3."""
    to_all = campaign.kind == "letter" and campaign.audience == Segment().dump()
    if to_all or count > place.approvals.leader_above:
        return Eyes(2, Role.LEADER)
    if _higher_office(campaign):
        return Eyes(1, Role.LEADER)
    linked = LINK.search(campaign.template + json.dumps(values_of(campaign), ensure_ascii=False))
    if count > place.approvals.second_person_above or linked:
        return Eyes(1)
    return Eyes(0)


def _higher_office(campaign: Campaign) -> bool:
    values = values_of(campaign)
    return names_higher_office(values.get("signatory", ""), values.get("text", ""))


def names_higher_office(signatory: str, text: str = "") -> bool:
    """Is it signed, below or in its own last lines, for the party committee, the government or a
    leading group?"""
    last = text.strip().splitlines()[-2:]
    signed = [signatory, *(line for line in last if len(line.strip()) <= LONGEST_SIGNATURE)]
    return any(HIGHER_OFFICES.search(line) for line in signed)


def submit(context: Context, campaign: Campaign) -> Reply:
    """Fill it in for every recipient, freeze the list, and ask those who must agree."""
    owed = here(context).missing()
    if owed:
        raise UserError(f"还缺设置：{'、'.join(owed)}。补齐前不能群发，请告诉管理员。")
    if _higher_office(campaign) and not document_of(campaign):
        raise UserError("落款代表上级机关，须写明批准文号，如「信件 提交 中秋 文号」。")
    if campaign.expires_at is not None and _too_late(campaign, context.now):
        raise UserError("已经过了最晚的发送时间，不能再送审。")
    back_to_draft(context, campaign)
    services, session, now = context.services, context.session, context.now
    plan = plan_of(services, session, campaign, now)
    if not plan.frozen:
        raise UserError(f"没有能发的人。{plan_words(services, session, campaign, plan, now)}")
    if plan.frozen > AT_ONCE:
        return _submit_later(context, campaign, plan.frozen)
    asked = asked_of(services, session, campaign, now)
    people = people_of(campaign, now)
    planning.freeze(services, session, campaign, people, asked, _moment(campaign))
    frozen = planning.frozen_people(session, campaign)
    return _seal(context, campaign, check(campaign, session, frozen, now))


def _moment(campaign: Campaign) -> Moment:
    assert campaign.not_before is not None
    return Moment(campaign.not_before, campaign.local_time, campaign.expires_at)


def _too_late(campaign: Campaign, now: datetime) -> bool:
    """Even in the westernmost zone its last hour is over."""
    assert campaign.expires_at is not None
    west = timedelta(hours=20) if campaign.local_time else timedelta()
    return campaign.expires_at + west <= now


def _seal(context: Context, campaign: Campaign, found: Check) -> Reply:
    """The list is frozen and passed its dry run: ask for approval."""
    if not found.passed:
        raise UserError(f"没有送审：{found.words}请改好再提交。")
    now, session = context.now, context.session
    assert campaign.id is not None
    count = planning.frozen_count(session, campaign.id)
    campaign.content_hash = fingerprint(campaign)
    campaign.state, campaign.submitted_at = CampaignState.SUBMITTED, now
    campaign.created_by = context.person_id
    session.add(campaign)
    context.audit("campaign.submit", object_of(campaign), f"{count}人")
    eyes = eyes_for(campaign, count, here(context))
    code = campaign.content_hash[:CODE_LENGTH]
    if not eyes.needed:
        return say(
            f"{campaign.number}：{found.words}\n"
            f"{count}人，不超过{here(context).approvals.second_person_above}人，由您自己确认。"
            f"请回「确认发送 {code}」。"
        )
    approvals.request(
        context,
        KIND,
        campaign.number,
        f"{campaign.title}（{count}人）",
        campaign.content_hash,
        needed=eyes.needed,
        role_needed=eyes.role,
        number=campaign.number,
    )
    return say(
        f"已送审 {campaign.number}，等待审批（{here(context).approvals.hours}小时）。"
        f"{_who(eyes)}哈希 {code}。\n{found.words}"
    )


def _who(eyes: Eyes) -> str:
    if eyes.needed > 1:
        return f"须{eyes.needed}人同意，其中一位领导。"
    return "须一位领导同意。" if eyes.role else "须另一名统筹员或领导同意。"


def _submit_later(context: Context, campaign: Campaign, count: int) -> Reply:
    at = from_millis(to_millis(context.now))
    campaign.state, campaign.submitted_at = CampaignState.FREEZING, at
    context.session.add(campaign)
    payload = {
        "campaign": campaign.id,
        "by": context.person_id,
        "at": at.isoformat(),
        "count": count,
    }
    job = Job(
        kind=FREEZING,
        person_id=context.person_id,
        payload=json.dumps(payload),
        created_at=context.now,
    )
    context.session.add(job)
    return say(
        f"{campaign.number}：正在逐份核对 {count} 份，完成后告诉您并送审；"
        f"在那之前一份也不发。回「群发 进度 {campaign.number}」看到哪一步了。"
    )


def _freeze_chunk(services: Services, session: Session, job: Job, now: datetime) -> bool:
    """Freeze the next few hundred and fill the text in for them; after the last ask for approval.

    Who can be reached how is judged as of the moment it was handed in. A chunk that is done twice
    writes nobody twice.
    """
    payload, cursor = json.loads(job.payload), json.loads(job.cursor)
    at = datetime.fromisoformat(payload["at"])
    campaign = session.exec(
        select(Campaign).where(Campaign.id == payload["campaign"]).with_for_update(key_share=True)
    ).one()
    if campaign.state != CampaignState.FREEZING or campaign.submitted_at != at:
        return True  # it was changed or cancelled meanwhile
    found, after = Check(**cursor.get("found", {})), cursor.get("after", 0)
    people, asked = people_of(campaign, at), asked_of(services, session, campaign, at)
    moment = _moment(campaign)
    last = planning.freeze_some(services, session, campaign, people, asked, moment, after, AT_ONCE)
    if last is not None:
        frozen = planning.frozen_people(session, campaign, after, last)
        found = found.plus(check(campaign, session, frozen, at))
        job.cursor = json.dumps({"after": last, "found": asdict(found)})
        return False
    planning.close_list(session, campaign, moment)
    session.flush()
    context = _in_the_name_of(services, session, payload["by"], f"job-{job.id}", now)
    try:
        with context.work():
            fresh = context.session.get_one(Campaign, payload["campaign"])
            reply = _seal(context, fresh, found)
    except UserError as error:
        _reset(session, campaign, CampaignState.DRAFT)
        reply = say(str(error))
    with context.work():
        context.send(payload["by"], reply, occasion=f"{FREEZING}:{job.id}", purpose=DUTY_NOW)
    mailbox.enqueue(session.connection(), context.outgoing)
    session.expire_all()
    return True


FREEZING = "campaign_freeze"
JOB = JobKind(FREEZING, _freeze_chunk)


def _in_the_name_of(
    services: Services, session: Session, person_id: int, source: str, now: datetime
) -> Context:
    """A context for work that somebody asked for and that is finished while they are away."""
    held = [Held(g.role, g.unit_id, g.team_id) for g in grants_of(session, person_id, now)]
    inbound = Inbound(source, Address("job", "", ""), "", now)
    return Context(services, session.connection(), inbound, Sender(person_id, roles=held), now)


# - approval -


def _show(context: Context, approval: Approval) -> Reply:
    campaign = find(context.session, approval.object)
    segment = Segment.load(campaign.audience)
    services, session, now = context.services, context.session, context.now
    plan = plan_of(services, session, campaign, now)
    counts = plan_words(services, session, campaign, plan, now)
    document = document_of(campaign)
    assert campaign.id is not None
    frozen = planning.frozen_count(context.session, campaign.id)
    lines = [
        f"{campaign.number}「{campaign.title}」",
        f"条件：{segment.echo(here(context))}",
        f"名单已锁定 {frozen} 人。眼下：{counts}",
        f"时间：{_when(campaign)}",
        f"批准文号：{document}" if document else "",
        "费用：0（不用短信和付费模板）",
        f"内容哈希 {campaign.content_hash[:CODE_LENGTH]}",
    ]
    return preview(context, campaign, 3).then("\n".join(line for line in lines if line))


def _when(campaign: Campaign) -> str:
    assert campaign.not_before is not None
    if not campaign.local_time:
        return "批准后立即发（静默时段顺延）"
    latest = campaign.expires_at
    until = f"，{show_time(latest)}后不再发" if latest else ""
    return f"{show_time(campaign.not_before)}（收件人当地时间，静默时段顺延）{until}"


def _granted(context: Context, approval: Approval) -> Reply:
    return launch(context, find(context.session, approval.object), approval.content_hash)


def _refused(context: Context, approval: Approval) -> Reply:
    campaign = find(context.session, approval.object)
    _reset(context.session, campaign, CampaignState.REJECTED)
    return say(f"{campaign.number} 没有发出，改好后可重新提交。")


APPROVABLE = Approvable(KIND, "群发", _show, _granted, _refused)


def launch(context: Context, campaign: Campaign, approved: str) -> Reply:
    """Release the frozen rows, if everything is still what was approved."""
    assert campaign.id is not None
    intact = (
        campaign.state == CampaignState.SUBMITTED
        and fingerprint(campaign) == campaign.content_hash == approved
        and planning.recipients_hash(context.session, campaign.id) == campaign.recipients_hash
    )
    if not intact:
        raise UserError(f"{campaign.number} 在送审后有变动，不能发。请重新提交。")
    if campaign.expires_at is not None and _too_late(campaign, context.now):
        raise UserError(f"{campaign.number} 已过最晚发送时间，不能再发。")
    campaign.state = CampaignState.RUNNING
    settle(context.services, context.session, campaign, context.now)
    context.audit("campaign.release", object_of(campaign))
    return say(f"{campaign.number}「{campaign.title}」：{_when(campaign)}。")


@command("确认发送", roles=(Role.COORDINATOR,), needs_argument=True, section="统筹")
def confirm(context: Context, argument: str) -> Reply:
    """`确认发送 3fa9`: one's own word for a small campaign."""
    code = argument.strip().lower()
    waiting = context.session.exec(
        select(Campaign).where(
            Campaign.state == CampaignState.SUBMITTED, Campaign.created_by == context.person_id
        )
    ).all()
    found = [c for c in waiting if len(code) >= CODE_LENGTH and c.content_hash.startswith(code)]
    if not found:
        raise UserError(f"没有等您确认的内容对得上「{argument}」。内容可能改过，请重新提交。")
    campaign = found[0]
    assert campaign.id is not None
    count = planning.frozen_count(context.session, campaign.id)
    if eyes_for(campaign, count, here(context)).needed:
        raise UserError(f"{campaign.number} 须由另一位统筹员或领导审批，不能自己确认。")
    return launch(context, campaign, campaign.content_hash)


# - afterwards -


@command("群发 回执", help="群发 回执 B-0001：看每种结果多少人", section="统筹", roles=STAFF,
         feature="broadcasts", needs_argument=True, reads=True)  # fmt: skip
def receipt(context: Context, argument: str) -> Reply:
    """The receipts of one campaign."""
    return receipts(context, argument)


def receipts(context: Context, number: str) -> Reply:
    """How many recipients are in which state and why; also for 「回执 B-0001」 of coordinators."""
    campaign = find(context.session, number)
    return say(receipt_words(context.services, context.session, campaign))


def receipt_words(services: Services, session: Session, campaign: Campaign) -> str:
    """A campaign's receipts, state by state."""
    assert campaign.id is not None
    counts = overview.progress(session.connection(), campaign.id)
    state = STATE_LABELS[CampaignState(campaign.state)]
    head = f"{campaign.number}「{campaign.title}」{state}，名单{sum(counts.values())}人："
    lines = [
        f"{STATE_WORDS[state]} {with_reasons(counts, (state,))}"
        for state in State
        if any(found is state for found, _reason in counts)
    ]
    answers = [_answers(session, campaign), _replies(session, campaign.id)]
    return "\n".join([head, *lines, *(words for words in answers if words)])


def _replies(session: Session, campaign_id: int) -> str:
    """How many have written back."""
    tally = tallies(session, [campaign_id]).get(campaign_id)
    if tally is None:
        return ""
    unread = f"（未读{tally.unread}）" if tally.unread else ""
    return f"回信{tally.words}{unread}，问候{tally.courtesies}"


def _answers(session: Session, campaign: Campaign) -> str:
    """What the invited have answered."""
    if campaign.kind != "invitation":
        return ""
    rows = session.exec(
        select(Rsvp.state, func.count())
        .join(Event, col(Event.id) == col(Rsvp.event_id))
        .where(Event.number == campaign.object)
        .group_by(Rsvp.state)
    ).all()
    count = dict(rows)
    answered = sum(count.values())
    assert campaign.id is not None
    silent = max(0, sent_of(session, campaign) - answered)
    return (
        f"活动回执：出席{count.get(RsvpState.COMING, 0)} 候补{count.get(RsvpState.WAITING, 0)} "
        f"不能{count.get(RsvpState.NOT_COMING, 0)} 待定{count.get(RsvpState.UNDECIDED, 0)} "
        f"未回{silent}"
    )


@command("更正", "群发 更正", section="统筹", roles=STAFF, feature="broadcasts",
         needs_argument=True)  # fmt: skip
def correct(context: Context, argument: str) -> Reply:
    """`更正 B-0001`: write to those who got it that something in it was wrong."""
    campaign = find(context.session, argument)
    if not sent_of(context.session, campaign):
        raise UserError(f"{campaign.number} 还没有发出，可以直接修改，不用更正。")
    return context.begin(Correction, {"title": campaign.title, "campaign": campaign.number})


CORRECTION = """更正

{{ salutation }}：
　　此前寄给您的“{{ title }}”有误，特此更正，谨致歉意。
{{ text }}

{{ signatory }}
{{ date_gb }}"""


def read_text(text: str, _asking: Any) -> str | Miss:
    """A text people wrote: as it is, but without anything that looks like a template."""
    if "{{" in text or "{%" in text or "}}" in text:
        return Miss("正文里有花括号，像是没填完的模板，请改好再发。")
    if not text.strip():
        return Miss("请写正文。")
    return text.strip()


def indented(text: str) -> str:
    """Paragraphs as letters set them: two ideographic spaces before each."""
    lines = [line.strip(" \t\u3000") for line in text.splitlines()]
    return "\n".join(f"\u3000\u3000{line}" for line in lines if line)


class Correction(Form, name="correction", label="更正"):
    """What was wrong, to the same people."""

    finish = None

    text: Annotated[
        str,
        Ask(
            "更正内容",
            lambda asking: f"给已收到「{asking.facts['title']}」的人补发更正。请写更正内容：",
            read_text,
        ),
    ]

    def submit(self, context: Context) -> Reply:
        """A campaign of its own, which needs the same eyes."""
        wrong = find(context.session, self.began_with["campaign"])
        place = here(context)
        text = Text(
            kind="broadcast",
            title=f"更正：{wrong.title}",
            purpose=wrong.purpose,
            template=CORRECTION,
            values={
                "title": wrong.title,
                "text": indented(self.text),
                "signatory": place.office.signatory,
            },
            document=document_of(wrong),
            object=wrong.number,
        )
        moment = Moment(context.now, local=False, latest=context.now + STAYS_GOOD)
        fresh = create(
            context.session,
            unsaved(text, Segment(reached_by=wrong.id), place, moment, context.now),
            words=f"收到过 {wrong.number} 的人",
            created_by=context.person_id,
        )
        return submit(context, fresh)


# - the clock -


@tick("campaigns", label="群发完成与到期")
def watch(services: Services, session: Session, now: datetime) -> None:
    """Close campaigns that have nothing left to send, and those nobody approved in time."""
    live = session.exec(
        select(Campaign).where(col(Campaign.state).in_([CampaignState.SUBMITTED, *OPEN_STATES]))
    ).all()
    if any(c.expires_at is not None and c.expires_at <= now for c in live):
        steering.expire_overdue(session.connection(), now)
    for campaign in live:
        if campaign.state == CampaignState.SUBMITTED:
            _give_up_waiting(services, session, campaign, now)
        elif not overview.unfinished(session.connection(), campaign.id or 0):
            _finish(services, session, campaign, now)


def _give_up_waiting(
    services: Services, session: Session, campaign: Campaign, now: datetime
) -> None:
    """Nobody agreed within the day: a draft again, to be submitted anew."""
    hours = timedelta(hours=place_of(services).approvals.hours)
    if campaign.submitted_at is not None and campaign.submitted_at + hours <= now:
        _reset(session, campaign, CampaignState.DRAFT)


def give_up(session: Session, campaign: Campaign, now: datetime) -> None:
    """A campaign whose moment has passed before anybody approved it."""
    approvals.void(session, KIND, campaign.number)
    _reset(session, campaign, CampaignState.CANCELLED)
    campaign.finished_at = now


def _finish(services: Services, session: Session, campaign: Campaign, now: datetime) -> None:
    campaign.state, campaign.finished_at = CampaignState.DONE, now
    session.add(campaign)
    session.flush()
    if fire(session, "campaign.done", campaign.number, now):
        words = receipt_words(services, session, campaign)
        text = f"完成。{words}"
        people = [campaign.created_by] if campaign.created_by else coordinators(session, now)
        tell(services, session, people, text, f"campaign.done:{campaign.number}", now)


def coordinators(session: Session, now: datetime) -> Sequence[int]:
    """Everybody who coordinates."""
    return people_with_role(session, Role.COORDINATOR, now)


def tell(
    services: Services,
    session: Session,
    people: Sequence[int],
    text: str,
    occasion: str,
    now: datetime,
) -> None:
    """Queue a work notice to each of these people, once per occasion."""
    rows = [
        outbox_row(services, session, person, say(text), occasion=occasion, purpose=DUTY, now=now)
        for person in people
    ]
    mailbox.enqueue(session.connection(), [row for row in rows if row is not None])
