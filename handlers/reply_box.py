"""回信箱: what members answered to the letters, read, marked and answered by coordinators."""

import re
from collections.abc import Sequence
from datetime import timedelta

from sqlmodel import col, select

from bot.clock import show_time
from bot.commands import command
from bot.context import Context
from bot.errors import UserError
from bot.messages import Reply, say
from handlers.campaigns import find
from handlers.letter_replies import as_written
from handlers.place import here
from handlers.purposes import LETTER_ANSWER, PROFILE
from handlers.roles import Role
from storage import letter_replies
from storage.audit import VIEWED
from storage.campaigns import Campaign
from storage.letter_replies import LetterReply, ReplyKind, Tally
from storage.people import contact_of, has_consent
from storage.profiles import MemberProfile

PAGE = 10  # answers in one bubble
SHOWN = 200  # characters of one answer in a list
LETTERS = 10  # letters in the overview
ANSWER_KEPT = timedelta(days=7)  # how long an answer may wait for somebody's reply window
LONGEST_ANSWER = 600
COURTESIES = "问候"
_NUMBER = re.compile(r"[Bb]\s*[-－—]?\s*\d{1,8}")


@command("回信箱", help="回信箱：乡亲对来信的回话；回信箱 中秋、回信箱 B-0001", section="统筹",
         roles=(Role.COORDINATOR,), reads=True)  # fmt: skip
def box(context: Context, argument: str) -> Reply:
    """`回信箱`, `回信箱 中秋 2`, `回信箱 B-0001 问候`, `回信箱 12`."""
    words = argument.strip()
    if not words:
        return _overview(context)
    if words.isdecimal():
        return _whole(context, int(words))
    courtesies, page = False, 1
    while True:
        head, _, last = words.rpartition(" ")
        if head and last.isdecimal() and len(last) < 6:
            page = int(last)
        elif head and last == COURTESIES:
            courtesies = True
        else:
            break
        words = head.strip()
    return _listed(context, _letter(context, words), page, courtesies=courtesies)


def _overview(context: Context) -> Reply:
    tallies = letter_replies.tallies(context.session)
    if not tallies:
        return say("还没有人回信。乡亲收到来信后说的话，会收在这里。")
    waiting = sum(tally.unread for tally in tallies.values())
    newest = sorted(tallies, key=lambda id: (not tallies[id].unread, -id))[:LETTERS]
    campaigns = context.session.exec(select(Campaign).where(col(Campaign.id).in_(newest))).all()
    by_id = {campaign.id: campaign for campaign in campaigns}
    lines = [_line(by_id[id], tallies[id]) for id in newest]
    head = f"未读回信{waiting}条：" if waiting else "回信都看过了："
    return say("\n".join([head, *lines, "看内容请回「回信箱 编号」，如「回信箱 B-0001」。"]))


def _line(campaign: Campaign, tally: Tally) -> str:
    unread = f"，未读{tally.unread}" if tally.unread else ""
    courtesies = f"，问候{tally.courtesies}" if tally.courtesies else ""
    return f"{campaign.number}「{campaign.title}」回信{tally.words}{unread}{courtesies}"


def _letter(context: Context, words: str) -> Campaign:
    """The campaign somebody names by number or by a word of its title; raises UserError."""
    if _NUMBER.fullmatch(words):
        return find(context.session, words)
    found = letter_replies.campaigns_called(context.session, words)
    if not found:
        raise UserError(f"没有人回过叫「{words}」的信。回「回信箱」看都有哪些。")
    return found[0]


def _listed(context: Context, campaign: Campaign, page: int, *, courtesies: bool) -> Reply:
    assert campaign.id is not None
    tally = letter_replies.tallies(context.session, [campaign.id]).get(campaign.id, Tally())
    count = tally.courtesies if courtesies else tally.words
    what = COURTESIES if courtesies else "回信"
    if not count:
        if not courtesies and tally.courtesies:
            more = f"「回信箱 {campaign.number} {COURTESIES}」"
            return say(f"{_line(campaign, tally)}。要看问候请回{more}。")
        return say(f"{campaign.number}「{campaign.title}」还没有{what}。")
    pages = -(-count // PAGE)
    if not 1 <= page <= pages:
        raise UserError(f"只有{pages}页。")
    rows = letter_replies.page_of(
        context.session, campaign.id, (page - 1) * PAGE, PAGE, courtesies=courtesies
    )
    names = _names(context, rows)
    lines = [_words_of(row, names) for row in rows]
    _note_looks(context, rows, campaign.number)
    head = f"{_line(campaign, tally)}" + (f"（第{page}/{pages}页）" if pages > 1 else "")
    return say("\n".join([f"{head}：", *lines, *_what_next(campaign, tally, page, pages, what)]))


def _what_next(campaign: Campaign, tally: Tally, page: int, pages: int, what: str) -> Sequence[str]:
    kind = f" {COURTESIES}" if what == COURTESIES else ""
    more = f"下一页「回信箱 {campaign.number}{kind} {page + 1}」。" if page < pages else ""
    read = f"都看过了请回「回信 已读 {campaign.number}」。" if tally.unread else ""
    answer = "" if kind else "答复请回「回信 答复 编号 您的话」。"
    return [line for line in (more, f"{answer}{read}") if line]


def _names(context: Context, rows: Sequence[LetterReply]) -> dict[int, str]:
    people = [row.person_id for row in rows]
    found = context.session.exec(
        select(MemberProfile).where(col(MemberProfile.person_id).in_(people))
    )
    return {profile.person_id: f"{profile.name}（{profile.city}）" for profile in found}


def _words_of(row: LetterReply, names: dict[int, str], most: int = SHOWN) -> str:
    new = "●" if row.read_at is None else ""
    asks = "问：" if row.kind == ReplyKind.QUESTION else "："
    text = row.text if len(row.text) <= most else f"{row.text[:most]}…（全文「回信箱 {row.id}」）"
    answer = f"（已答复：{row.answer}）" if row.answer else ""
    who = names.get(row.person_id, "已删除档案的人")
    return f"{new}{row.id}　{who} {show_time(row.at)}{asks}{text}{answer}"


def _note_looks(context: Context, rows: Sequence[LetterReply], number: str) -> None:
    for person in dict.fromkeys(row.person_id for row in rows):
        context.audit(VIEWED, f"person:{person}", f"{number} 回信")


def _found(context: Context, id: int) -> LetterReply:
    row = context.session.get(LetterReply, id)
    if row is None:
        raise UserError(f"没有编号为{id}的回信，可能本人已经删除。回「回信箱」再看看。")
    return row


def _whole(context: Context, id: int) -> Reply:
    row = _found(context, id)
    campaign = context.session.get_one(Campaign, row.campaign_id)
    _note_looks(context, [row], campaign.number)
    words = _words_of(row, _names(context, [row]), most=len(row.text))
    return say(f"{campaign.number}「{campaign.title}」\n{words}")


@command("回信 已读", "回信箱 已读", help="回信 已读 B-0001：记为看过；也可写回信的编号",
         section="统筹", roles=(Role.COORDINATOR,), needs_argument=True)  # fmt: skip
def read(context: Context, argument: str) -> Reply:
    """`回信 已读 B-0001`, `回信 已读 中秋`, `回信 已读 12 13`."""
    words = argument.replace("、", " ").replace("，", " ").split()
    if all(word.isdecimal() for word in words):
        ids = [int(word) for word in words]
        done = letter_replies.mark_read(context.session, context.now, ids=ids)
    else:
        campaign = _letter(context, argument.strip())
        done = letter_replies.mark_read(context.session, context.now, campaign_id=campaign.id)
    left = letter_replies.unread(context.session)
    return say(f"{done}条记为已读，" + (f"还有{left}条未读。" if left else "没有未读的了。"))


@command("回信 答复", "回信箱 答复", help="回信 答复 12 您的话：经机器人答复本人", section="统筹",
         roles=(Role.COORDINATOR,), needs_argument=True)  # fmt: skip
def answer(context: Context, argument: str) -> Reply:
    """`回信 答复 12 您好，……`: to the person who wrote, who must still agree to be written to."""
    number, _, words = argument.strip().partition(" ")
    words = words and as_written(context, 3)
    if not number.isdecimal() or not words:
        raise UserError("写法是「回信 答复 编号 您的话」，如「回信 答复 12 您好，名额还有」。")
    if len(words) > LONGEST_ANSWER:
        raise UserError(f"答复请不超过{LONGEST_ANSWER}字。")
    row = _found(context, int(number))
    if row.answered_at is not None:
        raise UserError(f"{number} 已经答复过：{row.answer}")
    if not has_consent(context.session, row.person_id, PROFILE):
        raise UserError("本人已经撤回同意，不能再写给他。")
    campaign = context.session.get_one(Campaign, row.campaign_id)
    letter = say(f"您给「{campaign.title}」的回信，{here(context).office.name}答复：\n{words}")
    sent = context.send(
        row.person_id,
        letter,
        occasion=f"letter_answer:{row.id}",
        purpose=LETTER_ANSWER,
        expires_at=context.now + ANSWER_KEPT,
    )
    if not sent:
        raise UserError("本人眼下没有能收到消息的渠道，请改用电话。")
    row.answer, row.answered_at = words, context.now
    row.read_at = row.read_at or context.now
    context.session.add(row)
    why = f"{campaign.number} 回信 {row.id}"
    context.audit("letter_reply.answer", f"person:{row.person_id}", why)
    who = _names(context, [row]).get(row.person_id, "本人")
    return say(f"已答复{who}。{_when(context, row)}")


def _when(context: Context, row: LetterReply) -> str:
    """When it will arrive, where that is not at once."""
    contact = contact_of(context.session, row.person_id, list(context.services.proactive))
    if contact is None or not context.services.channels[contact.channel].windowed:
        return ""
    if contact.window_until is not None and contact.window_until > context.now:
        return ""
    days = ANSWER_KEPT.days
    return f"他有48小时没说话，平台不许主动发：等他{days}天内再来信时送到，急的话请打电话。"
