"""回信, as members mean it: what they say to a letter is kept for the coordinators to read.

Words that are no command, said within two days of a letter or in reply to its bubble, are for the
people behind it. A courtesy is thanked for, a question is promised an answer.
"""

import re
from datetime import datetime, timedelta

from sqlmodel import Session, select

from bot.commands import Retention, command
from bot.context import Context, Services
from bot.messages import SILENCE, Happening, Kind, Reply, say
from handlers.place import here
from handlers.purposes import PROFILE
from handlers.roles import Role
from storage import letter_replies
from storage.campaigns import Campaign
from storage.events import Event, rsvp_of
from storage.letter_replies import LetterReply, ReplyKind
from storage.people import has_consent

ANSWERED_WITHIN = timedelta(hours=48)  # words after that are about something else
NAMED_WITHIN = timedelta(days=60)  # 「回信 …」 says itself what it is
IN_ONE_BREATH = timedelta(minutes=10)
MOST = 20  # answers of one person to one letter
KEPT = timedelta(days=366)
BATCH = 500

_STOP = re.compile(
    "[别不甭](?:用|要|想)?再?(?:给我)?(?:发|寄|推送|收)|退订|取消订阅|骚扰|打扰|拉黑|举报"
)
_ASKS = re.compile(
    "[?？]|[吗嘛呢么](?:[。.!！~]|$)|怎么|怎样|如何|什么|哪[里儿个些天]|几[时点号月]|何时|能不能"
    "|能否|可不可以|可否|请问|咨询|想问|打听|多少|有没有|是不是"
)
_COURTESY = re.compile(
    "已?收到了?|收悉|已?阅|看到了|知道了?|明白了?|好[的嘞哒]?|嗯+|哦+|行|可以|ok(?:ay)?|没问题"
    "|非?常?感谢?|谢谢?|多谢|有心了?|辛苦了?|费心了?|感动|感恩|温暖|亲切"
    "|新[年春]|春节|过年|元宵|端午|中秋|重阳|国庆|元旦|节日|双节|佳节|龙年|蛇年|马年|羊年"
    "|快乐|安康|吉祥|如意|万事|恭喜|发财|同[喜乐]|好运|幸福|平安|健康|顺[利遂]|兴[旺隆]|繁荣"
    "|昌盛|昌隆|越来越好|蒸蒸日上|欣欣向荣|阖家|合家|全家|身体|工作|生活|美满|团圆|大吉|大利"
    "|祝愿?|愿|家乡|父老|乡亲|领导|各位|大家|你们?|您|我们?|也|都|的|们|和|及|啊|呀|哈+|啦|了|是"
    "|问[候好]|祝福|惦记|关心|挂念|心意|非常|十分|很|真|太|好|来?信|替我|代我|向|明天|未来|更|美",
    re.IGNORECASE,
)
_BEREAVED = re.compile("去世|过世|逝世|病逝|辞世|仙逝|离世|亡故")
# What messengers write for a little picture: [强], /:rose.
_PICTURES = re.compile(r"\[[\u4e00-\u9fffA-Za-z]{1,8}\]|/:[a-z@\-~()*&!|>,'\"$#+]{1,8}")
_LONGEST_COURTESY = 40


def meant(words: str) -> ReplyKind:
    """What somebody means by an answer; news of a death wants an answer too."""
    if _ASKS.search(words) or _BEREAVED.search(words):
        return ReplyKind.QUESTION
    bare = re.sub(r"[\W_]", "", _COURTESY.sub("", _PICTURES.sub("", words)))
    short = len(words) <= _LONGEST_COURTESY
    return ReplyKind.COURTESY if short and not bare else ReplyKind.WORDS


def heard(context: Context) -> Reply:
    """Take words as an answer to a letter; silence where they are none.

    A reply to the letter's own bubble is one even while a form is open.
    """
    inbound = context.inbound
    if inbound.kind is Kind.EVENT and inbound.text == Happening.RECALLED:
        return _taken_back(context)
    if inbound.kind is not Kind.TEXT or not context.person_id:
        return SILENCE
    words = inbound.text.strip()
    named = inbound.reply_to and letter_replies.letter_at(
        context.connection, str(inbound.sender), inbound.reply_to
    )
    if not named and context.open_form is not None:
        return SILENCE
    letter = named or letter_replies.last_letter(
        context.connection, context.person_id, context.now - ANSWERED_WITHIN
    )
    if not letter or not _says_something(words) or not _may_be_kept(context):
        return SILENCE
    return _keep(context, letter, words)


def _taken_back(context: Context) -> Reply:
    sender, number = context.inbound.sender, context.inbound.argument
    key = f"{sender.channel}:{sender.account}:{number}"
    if letter_replies.take_back(context.session, context.person_id, key):
        return say("您撤回的那条回信已删去。")
    return SILENCE


def _says_something(words: str) -> bool:
    """A lone digit or full stop answers a question nobody remembers, not a letter."""
    return bool(re.search(r"[^\W\d_]|[\U0001f300-\U0001faff❤✌]", _PICTURES.sub("心", words)))


def _may_be_kept(context: Context) -> bool:
    """Only of who agreed to be written to, and over a channel that may carry it."""
    scope = context.services.proactive.get(context.inbound.sender.channel)
    wanted = [PROFILE, scope] if scope else [PROFILE]
    return scope is not None and all(
        has_consent(context.session, context.person_id, each) for each in wanted
    )


def _keep(context: Context, letter: int, words: str) -> Reply:
    bereaved = bool(_BEREAVED.search(words))
    if _STOP.search(words) and not bereaved:
        return say("不想再收来信，请回「退订」，马上生效；您刚才的话没有转给别人。", "退订")
    count, last = letter_replies.latest(context.session, letter, context.person_id)
    if count >= MOST:
        return say(f"您的回信已收下{count}条，再多请打电话 {here(context).office.phone}。")
    kind = meant(words)
    context.session.add(
        LetterReply(
            campaign_id=letter,
            person_id=context.person_id,
            key=context.inbound.key,
            kind=kind,
            text=words,
            at=context.now,
            read_at=context.now if kind is ReplyKind.COURTESY else None,
        )
    )
    context.session.flush()
    if bereaved:
        return say(
            "请您节哀。您说的已转给工作人员，会尽快与您联系、妥善办理。"
            f"也可以打电话 {here(context).office.phone}。"
        )
    if last is not None and context.now - last < IN_ONE_BREATH and kind is not ReplyKind.QUESTION:
        return say("这句也收下了。")
    return say(_thanks(context, kind) + _still_to_answer(context, letter))


def _thanks(context: Context, kind: ReplyKind) -> str:
    if kind is ReplyKind.COURTESY:
        return "谢谢您的回音，也祝您一切顺遂。"
    if kind is ReplyKind.QUESTION:
        return (
            "您问的已转给工作人员，答复会从这里发给您。"
            f"急事请打电话 {here(context).office.phone}，或回「人工」。"
        )
    return "您的回信收下了，会转给工作人员。要办事请回「菜单」，找人请回「人工」。"


def _still_to_answer(context: Context, letter: int) -> str:
    """Who says only 收到 to an invitation has not said whether they come."""
    campaign = context.session.get_one(Campaign, letter)
    if campaign.kind != "invitation":
        return ""
    event = context.session.exec(select(Event).where(Event.number == campaign.object)).first()
    if event is None or rsvp_of(context.session, event.id or 0, context.person_id) is not None:
        return ""
    return "能不能来，请回「回执」告诉我们。"


@command(
    "回信",
    help="回信：给家乡的来信回几句，如「回信 收到了，谢谢」",
    section="书信与活动",
)
def reply(context: Context, argument: str) -> Reply:
    """A member's words to the last letter; for coordinators, the letters' box."""
    if context.has_role(Role.COORDINATOR):
        return context.services.catalog.words["回信箱"](context, argument)
    if not has_consent(context.session, context.person_id, PROFILE):
        return say("您没有建档，我们没有给您写过信。找工作人员请回「人工」。")
    since = context.now - NAMED_WITHIN
    letter = letter_replies.last_letter(context.connection, context.person_id, since)
    if letter is None:
        return say("最近没有寄给您的信。有话对工作人员说，请回「人工」。")
    if not _says_something(argument):
        return say("请把要说的写在后面，如「回信 收到了，谢谢」。")
    if not _may_be_kept(context):
        return say("这个渠道现在不收回信。找工作人员请回「人工」。")
    return _keep(context, letter, as_written(context, 1) or argument)


def as_written(context: Context, heads: int) -> str:
    """What somebody wrote after the first words, with its own full stop and spaces."""
    return "".join(context.inbound.text.split(None, heads)[heads:]).strip()


def _forget(_services: Services, session: Session, now: datetime) -> int:
    return letter_replies.forget_replies(session, now - KEPT, BATCH)


LETTER_REPLIES = Retention("letter_replies", "回信和答复12个月", _forget, BATCH)
