"""Broadcasts: the dialogue in which a coordinator says what goes to whom and when."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from bot import planning
from bot.clock import show_time
from bot.commands import command
from bot.context import Context
from bot.dates import parse_when
from bot.errors import UserError
from bot.forms import Answers, Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Explicit, Miss, explicit, is_soft_yes, pick_numbers, tidy
from bot.planning import Moment
from handlers import campaigns
from handlers.campaigns import (
    STAYS_GOOD,
    indented,
    names_higher_office,
    read_text,
)
from handlers.composition import Text, readers
from handlers.invitations import invitation_to, open_events
from handlers.place import Place, here
from handlers.plans import asked_of, excused, plan_of, plan_words
from handlers.purposes import NEWS, POLICY
from handlers.roles import Role
from handlers.segments import Segment, Vocabulary, people_of, short_label, understand
from handlers.telephone import page_of
from storage.campaigns import Campaign, CampaignState

TYPES = ("节日信", "活动邀请", "政策/通知", "家乡动态")
LETTER, INVITATION, POLICIES, HOME = 1, 2, 3, 4
PURPOSES = {POLICIES: POLICY, HOME: NEWS}
LONGEST_TITLE = 40
LIST_MOST = 20

TEMPLATE = """{{ title }}

{{ salutation }}：
{{ text }}

{{ signatory }}
{{ date_gb }}

回复“退订{{ topic }}”，今后不再发送此类消息。"""


# - the questions -


def _read_type(text: str, _asking: Asking) -> int | Miss:
    for number, label in enumerate(TYPES, 1):
        if text and (text == label or text in label.split("/")):
            return number
    picked = pick_numbers(text, len(TYPES))
    if isinstance(picked, Miss):
        return picked
    return picked[0] if len(picked) == 1 else Miss("一次只发一种，请回一个数字。")


def _events(asking: Asking) -> Mapping[str, str]:
    events: Mapping[str, str] = asking.facts["events"]
    return events


def _ask_event(asking: Asking) -> str:
    listed = "　".join(f"{n}{title}" for n, title in enumerate(_events(asking).values(), 1))
    return f"哪个活动？{listed}"


def _read_event(text: str, asking: Asking) -> str | Miss:
    numbers = list(_events(asking))
    if text.upper() in numbers:
        return text.upper()
    picked = pick_numbers(text, len(numbers))
    return picked if isinstance(picked, Miss) else numbers[picked[0] - 1]


def _read_title(text: str, asking: Asking) -> str | Miss:
    if len(text) > LONGEST_TITLE or "\n" in text:
        return Miss(f"标题写一行，最多{LONGEST_TITLE}个字。")
    return read_text(text, asking)


def _vocabulary(asking: Asking) -> Vocabulary:
    return Vocabulary(asking.facts["categories"], asking.facts["ties"])


def _read_segment(text: str, asking: Asking) -> str | Miss:
    found = understand(text, _vocabulary(asking))
    return found if isinstance(found, Miss) else found.dump()


def _ask_segment(asking: Asking) -> str:
    return (
        "对象？可用：类别 城市 渊源 订阅 最近确认。"
        "如「类别 企业家，城市 上海 苏州，订阅 活动」，或「全体」。"
    )


def _writes(asking: Asking) -> bool:
    return asking.get("kind") in PURPOSES


def _signed_above(asking: Asking) -> bool:
    return names_higher_office(asking.facts["signatory"], asking.get("text", ""))


def _ask_next(asking: Asking) -> str:
    if "at" not in asking.facts:
        return (
            "「名单 10」看脱敏样本；「预览」看成品；「改对象」。\n"
            "发送时间？「立即」或「7月1日 10:00」"
        )
    return f"{asking.facts['eyes']}提交审批？请回「提交」（仍可「预览」「改对象」或另发时间）。"


class Broadcast(Form, name="broadcast", label="群发"):
    """What goes to whom and when. A look at the list or the text ends the form for a moment and
    opens it again, for only a handler may look at the tables."""

    finish = None

    kind: Annotated[
        int,
        Ask(
            "类型",
            "类型？" + " ".join(f"{n}{label}" for n, label in enumerate(TYPES, 1)),
            _read_type,
            lambda value, _asking: TYPES[value - 1],
            options=TYPES,
        ),
    ]
    event: Annotated[
        str | None,
        Ask(
            "活动",
            _ask_event,
            _read_event,
            when=lambda asking: asking.get("kind") == INVITATION and len(_events(asking)) > 1,
        ),
    ] = None
    title: Annotated[str | None, Ask("标题", "标题？写一行。", _read_title, when=_writes)] = None
    text: Annotated[
        str | None,
        Ask(
            "正文",
            "正文？称呼、落款、日期和退订说明会自动加上；一段一行。",
            read_text,
            when=_writes,
        ),
    ] = None
    document: Annotated[
        str | None,
        Ask("批准文号", "落款代表上级机关，请写批准文号：", read_text, when=_signed_above),
    ] = None
    segment: Annotated[str, Ask("对象", _ask_segment, _read_segment)]
    word: Annotated[
        str | None,
        Ask(
            "下一步",
            _ask_next,
            when=lambda asking: asking.facts.get("counted") == asking.get("segment"),
        ),
    ] = None

    @classmethod
    def claims(cls, text: str) -> bool:
        """「名单 10」 and 「预览」 are this form's while it is open."""
        return re.fullmatch(r"(?:名单|电话)\s*\d*|预览|提交|立即|照发.*", text) is not None

    @classmethod
    def stop(cls, asking: Asking) -> Reply | None:
        """Festival letters have their own way; without an event there is nothing to invite to."""
        if asking.get("kind") == LETTER:
            return say("节日信按农历自动起草。请回「信件」看将要寄出的信，再预览和送审。")
        if asking.get("kind") == INVITATION and not _events(asking):
            return say("现在没有可以邀请的活动，请先「活动 新建」。")
        return None

    def submit(self, context: Context) -> Reply:
        """One step: count a new segment, look, take a time, or hand it in."""
        if self.word is None:
            return self.count(context)
        word = tidy(self.word).strip("「」")
        listed = re.fullmatch(r"名单\s*(\d*)", word)
        if listed:
            return self._list(context, int(listed[1] or 10))
        telephone = re.fullmatch(r"电话\s*(\d{0,5})", word)
        if telephone:
            unsaved = self._unsaved(context, self._moment(context))
            listed_there = page_of(context, unsaved, int(telephone[1] or 1))
            return self._again(context, before=listed_there)
        if word in ("预览", "看预览", "成品"):
            campaign = self._unsaved(context, self._moment(context))
            shown = campaigns.preview(context, campaign, 3)
            return shown + self._again(context)
        excuse = re.match(r"照发(?:\s|[:：，,])*(.*)", word, re.DOTALL)
        if excuse:
            return self._let_leave(context, excuse[1].strip())
        if "at" in self.began_with and explicit(word) is Explicit.SUBMIT:
            return self._hand_in(context)
        if "at" in self.began_with and is_soft_yes(word):
            return self._again(context, before="送审前最后一步，请回「提交」。")
        return self._schedule(context, word)

    # - steps -

    def _again(self, context: Context, before: str = "", **facts: Any) -> Reply:
        """Open the form again where it was, knowing a little more."""
        answers: Answers = {
            name: value
            for name, value in self.model_dump().items()
            if value is not None and name != "word"
        }
        return context.begin(Broadcast, {**self.began_with, **facts}, answers, before)

    @classmethod
    def reopened(cls, facts: Mapping[str, Any], answers: Answers) -> "Broadcast":
        """The form with everything answered, ready to be counted."""
        form = cls.model_validate(answers)
        form._facts = facts
        return form

    def count(self, context: Context) -> Reply:
        """Say how the segment was understood and how many it reaches, and ask what next."""
        campaign = self._unsaved(context, self._moment(context))
        plan = plan_of(context.services, context.session, campaign, context.now)
        echo = Segment.load(self.segment).echo(here(context))
        words = plan_words(context.services, context.session, campaign, plan, context.now)
        text = f"理解为 {echo} 。\n{words}"
        facts = {"counted": self.segment, "eyes": self._eyes(context, campaign, plan.frozen)}
        return self._again(context, before=text, **facts)

    def _eyes(self, context: Context, campaign: Campaign, count: int) -> str:
        eyes = campaigns.eyes_for(campaign, count, here(context))
        if eyes.needed > 1:
            return f"{count}人，须两人审批，其中一位领导。"
        if eyes.needed:
            who = "领导" if eyes.role else "另一名统筹员或领导"
            return f"{count}人，须{who}审批。"
        return f"{count}人，提交后由您自己凭码确认。"

    def _list(self, context: Context, count: int) -> Reply:
        campaign = self._unsaved(context, None)
        people = planning.sample(
            context.services,
            context.session,
            people_of(campaign, context.now),
            asked_of(context.services, context.session, campaign, context.now),
            min(count, LIST_MOST),
        )
        labels = {c.key: short_label(c.label) for c in here(context).profiles.categories}
        lines = [
            f"{masked(reader.name)}　{reader.city}　{labels.get(reader.category, '未填')}"
            for reader in readers(context.session, people)
        ]
        context.audit("segment.list", f"segment:{self.segment}", f"群发名单样本{len(lines)}人")
        return self._again(context, before="\n".join(lines) or "没有能收到的人。")

    def _let_leave(self, context: Context, reason: str) -> Reply:
        """It leaves however often its readers were written to, for a reason the approvers see."""
        if not reason:
            return self._again(context, before="请写明事由，如「照发 汛情紧急」，审批人会看到。")
        context.audit("campaign.excuse", f"segment:{self.segment}", reason)
        form = Broadcast.reopened(
            {**self.began_with, "excuse": reason},
            {n: v for n, v in self.model_dump().items() if v is not None and n != "word"},
        )
        return form.count(context)

    def _schedule(self, context: Context, word: str) -> Reply:
        moment = parse_when(word, context.now)
        if isinstance(moment, Miss):
            return self._again(context, before=moment.text)
        at_once = moment == context.now
        when = "批准后立即发" if at_once else f"定于 {show_time(moment)}（按收件人时区"
        text = f"{when}，静默时段顺延）。" if not at_once else f"{when}，静默时段顺延。"
        at = "" if at_once else moment.isoformat()
        return self._again(context, before=text, at=at)

    def _hand_in(self, context: Context) -> Reply:
        fresh = self._unsaved(context, self._moment(context))
        words = Segment.load(self.segment).echo(here(context))
        number = self.began_with.get("number")
        if number:
            campaign = campaigns.find(context.session, number)
            campaigns.replace_with(context, campaign, fresh, words)
        else:
            campaign = campaigns.create(
                context.session, fresh, words=words, created_by=context.person_id
            )
        return campaigns.submit(context, campaign)

    # - what it makes -

    def _moment(self, context: Context) -> Moment:
        at = self.began_with.get("at")
        if not at:
            return Moment(context.now, local=False, latest=context.now + STAYS_GOOD)
        moment = datetime.fromisoformat(at)
        if moment <= context.now:
            raise UserError("定的时间已经过去了，请重新「群发」并另定时间。")
        return Moment(moment, local=True, latest=moment + STAYS_GOOD)

    def _unsaved(self, context: Context, moment: Moment | None) -> Campaign:
        place = here(context)
        text = self._text(context, place)
        segment = Segment.load(self.segment)
        campaign = campaigns.unsaved(text, segment, place, moment, context.now)
        return excused(campaign, self.began_with.get("excuse", ""))

    def _text(self, context: Context, place: Place) -> Text:
        if self.kind == INVITATION:
            number = self.event or next(iter(self.began_with["events"]))
            return invitation_to(context.session, number, place)
        purpose = PURPOSES[self.kind]
        return Text(
            kind="broadcast",
            title=self.title or "",
            purpose=purpose.name,
            template=TEMPLATE,
            values={
                "title": self.title or "",
                "text": indented(self.text or ""),
                "signatory": place.office.signatory,
                "topic": purpose.topic,
            },
            document=self.document or "",
        )


def masked(name: str) -> str:
    """A name of which only the first sign is shown."""
    return name[0] + "*" * (len(name) - 1)


def _facts(context: Context) -> dict[str, Any]:
    place = here(context)
    known = Vocabulary.of(place)
    return {
        "categories": dict(known.categories),
        "ties": list(known.ties),
        "signatory": place.office.signatory,
        "events": {e.number: e.title for e in open_events(context.session, context.today)},
    }


# - how it is begun -


@command(
    "群发",
    "/broadcast",
    help="群发：选对象、看成品、送审；群发 进度|暂停|继续|取消 B-0001",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="broadcasts",
)
def broadcast(context: Context, argument: str) -> Reply:
    """Begin; the type may be said at once (`群发 2`)."""
    answers: Answers = {}
    if argument:
        kind = _read_type(tidy(argument), Asking({}, {}, context.today))
        if isinstance(kind, Miss):
            raise UserError(kind.text)
        answers["kind"] = kind
    return context.begin(Broadcast, _facts(context), answers)


def invite(context: Context, number: str) -> Reply:
    """Begin the invitation to an event; for whoever has just made or opened it."""
    facts = _facts(context)
    if number not in facts["events"]:
        raise UserError(f"「{number}」已过回执截止日或已取消，不能再邀请。")
    facts["events"] = {number: facts["events"][number]}
    return context.begin(Broadcast, facts, {"kind": INVITATION})


@command(
    "群发 修改",
    help="群发 修改 B-0001：改对象、正文或时间，须重新审批",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="broadcasts",
    needs_argument=True,
)
def change(context: Context, argument: str) -> Reply:
    """Open what was handed in again; handing it in anew voids what was approved."""
    campaign = campaigns.find(context.session, argument)
    if campaign.kind == "letter" or Segment.load(campaign.audience).reached_by is not None:
        raise UserError(f"{campaign.number} 不能这样改；节日信请用「信件 修改」。")
    if campaign.state in (CampaignState.DONE, CampaignState.CANCELLED):
        raise UserError(f"{campaign.number} 已结束，不能再改。")
    facts = _facts(context)
    answers: Answers = {"segment": campaign.audience}
    if campaign.kind == "invitation":
        facts["events"] = {campaign.object: campaign.title}
        answers["kind"] = INVITATION
    else:
        values = campaigns.values_of(campaign)
        answers["kind"] = POLICIES if campaign.purpose == POLICY.name else HOME
        answers["title"] = values["title"]
        answers["text"] = "\n".join(line.strip("\u3000") for line in values["text"].splitlines())
        document = campaigns.document_of(campaign)
        answers |= {"document": document} if document else {}
    if campaign.local_time and campaign.not_before and campaign.not_before > context.now:
        facts["at"] = campaign.not_before.isoformat()
    facts["number"] = campaign.number
    return Broadcast.reopened(facts, answers).count(context)
