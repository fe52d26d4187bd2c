"""Festival letters: how coordinators look at one, edit it and submit it."""

from datetime import datetime
from typing import Annotated, Any

from sqlmodel import Session

from bot.commands import command
from bot.context import Context, Services
from bot.errors import UserError
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss
from handlers import campaigns
from handlers.festivals import Coming, coming, every_coming, letters_of, plain_news, show_day
from handlers.place import Place, here, place_of
from handlers.plans import plan_of, plan_words
from handlers.roles import STAFF, Role
from handlers.standing import STATE_LABELS
from storage.campaigns import Campaign, CampaignState

MOST_NEWS = 4


def draft(services: Services, session: Session, one: Coming, now: datetime) -> Campaign:
    """The campaign of a coming letter, made from its file if there is none yet."""
    if one.campaign is not None:
        return one.campaign
    place = place_of(services)
    return campaigns.create(
        session,
        _fresh(one, place, now),
        words=one.letter.audience,
        occasion=one.letter.occasion(one.year),
    )


def _fresh(one: Coming, place: Place, now: datetime) -> Campaign:
    text = one.letter.text(place, one.year)
    return campaigns.unsaved(text, one.letter.segment(place), place, one.moment, now)


# - what coordinators say -


def _named(context: Context, argument: str) -> Coming:
    word = argument.strip().removesuffix("信")
    for letter in letters_of(context.services):
        if word in (letter.label, letter.name, *letter.also):
            return coming(context.services, context.session, letter, context.now)
    labels = "、".join(letter.label for letter in letters_of(context.services))
    raise UserError(f"没有叫「{argument}」的信；现有：{labels}。")


@command(
    "信件",
    "/letter",
    help="信件：看将要寄出的节日信；信件 预览|修改|提交 中秋",
    section="统筹",
    roles=STAFF,
    feature="letters",
    reads=True,
)
def letters(context: Context, _argument: str) -> Reply:
    """The coming letters with their state."""
    lines = []
    for one in every_coming(context.services, context.session, context.now):
        state = _state(one, here(context))
        lines.append(f"{one.letter.label}　{show_day(one.day)} {one.letter.at:%H:%M}　{state}")
    return say(
        "将要寄出的信（按收信人当地时间）：\n"
        + "\n".join(lines)
        + "\n回「信件 预览 中秋」看成品，「信件 修改 中秋」改家乡新闻，「信件 提交 中秋」送审。"
    )


def _state(one: Coming, place: Place) -> str:
    if one.campaign is None:
        return "开，提前十天起草" if one.letter.is_on(place) else "关"
    return f"{one.campaign.number} {STATE_LABELS[CampaignState(one.campaign.state)]}"


@command("信件 预览", roles=STAFF, feature="letters", needs_argument=True, section="统筹")
def preview(context: Context, argument: str) -> Reply:
    """The letter as four real people would get it."""
    one = _named(context, argument)
    campaign = one.campaign or _fresh(one, here(context), context.now)
    plan = plan_of(context.services, context.session, campaign, context.now)
    words = plan_words(context.services, context.session, campaign, plan, context.now)
    return (
        campaigns.preview(context, campaign)
        .then(words)
        .then(
            f"定于 {show_day(one.day)} {one.letter.at:%H:%M}（收信人当地时间）寄出，"
            f"{one.letter.latest:%H:%M} 后不再寄。"
            f"「信件 修改 {one.letter.label}」改新闻，「信件 提交 {one.letter.label}」送审。"
        )
    )


@command(
    "信件 提交",
    roles=(Role.COORDINATOR,),
    feature="letters",
    needs_argument=True,
    section="统筹",
)
def submit(context: Context, argument: str) -> Reply:
    """`信件 提交 中秋 [文号]`: check all, freeze, ask for approval."""
    word, _, document = argument.partition(" ")
    one = _named(context, word)
    campaign = draft(context.services, context.session, one, context.now)
    if document.strip():
        campaigns.rewrite(context, campaign, document=document.strip())
    return campaigns.submit(context, campaign)


@command(
    "信件 修改",
    roles=(Role.COORDINATOR,),
    feature="letters",
    needs_argument=True,
    section="统筹",
)
def edit(context: Context, argument: str) -> Reply:
    """Set the news a coming letter carries."""
    one = _named(context, argument)
    campaign = draft(context.services, context.session, one, context.now)
    campaigns.must_be_unsent(context, campaign)
    news = campaigns.values_of(campaign)["news"]
    facts = {"label": one.letter.label, "news": news}
    return context.begin(LetterNews, {**facts, "campaign": campaign.number})


def _read_news(text: str, _asking: Asking) -> Any:
    if text.strip() in ("无", "没有", "清空"):
        return []
    lines = [plain_news(line) for line in text.splitlines() if line.strip()]
    if len(lines) > MOST_NEWS:
        return Miss(f"最多{MOST_NEWS}条，一行一条。")
    if any("{" in line or "}" in line for line in lines):
        return Miss("新闻里不能有花括号。")
    return lines


def _ask_news(asking: Asking) -> str:
    listed = "\n".join(asking.facts["news"]) or "（没有）"
    return (
        f"{asking.facts['label']}信里现在的家乡新闻：\n{listed}\n"
        f"请发新的，一行一条，最多{MOST_NEWS}条，数字请先核实；不要新闻回「清空」。"
    )


class LetterNews(Form, name="letter_news", label="信件新闻"):
    """What is new at home, one line each."""

    finish = None

    news: Annotated[
        list[str],
        Ask("新闻", _ask_news, _read_news, lambda value, _asking: "；".join(value) or "无"),
    ]

    def submit(self, context: Context) -> Reply:
        """Put them into the campaign; whatever was approved is void."""
        campaign = campaigns.find(context.session, self.began_with["campaign"])
        approved = campaign.state not in (CampaignState.DRAFT, CampaignState.REJECTED)
        campaigns.rewrite(context, campaign, values={"news": self.news})
        again = "原来的审批已失效，" if approved else ""
        return say(
            f"已改，共{len(self.news)}条新闻。{again}请用「信件 预览」看成品，再「信件 提交」送审。"
        )
