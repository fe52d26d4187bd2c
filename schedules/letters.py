"""Festival letters by the lunar calendar: drafts, reminders, reports; the texts are in letters/."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlmodel import Session, col, select

from bot import planning
from bot.clock import beijing
from bot.commands import CliWord, Tick, tick
from bot.context import Services
from bot.errors import UserError
from bot.heart import fire
from bot.lunar import lunar_text
from handlers import campaigns
from handlers.campaigns import coordinators, receipt_words, tell
from handlers.festivals import (
    WEEKDAYS,
    Coming,
    Letter,
    every_coming,
    firings,
    letters_of,
    load_letters,
    show_day,
)
from handlers.letters import draft
from handlers.place import place_of
from storage.campaigns import Campaign, CampaignState

LETTERS: tuple[Letter, ...] = load_letters(Path(__file__).with_name("letters"))

MORNING = timedelta(hours=9)  # after midnight, when offices open
DRAFT_DAYS = 10
REMIND_DAYS = (5, 3, 1)
SETTLED = (CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.DONE)


def _upcoming(
    services: Services, _session: Session, now: datetime, span: timedelta
) -> Sequence[tuple[datetime, str]]:
    place = place_of(services)
    found = [
        (moment, f"{letter.title}　{'开' if letter.is_on(place) else '关'}")
        for letter in letters_of(services)
        for moment in firings(letter, now, now + span)
    ]
    return sorted(found)


@tick("letters", label="节日信起草与催办", upcoming=_upcoming)
def letters(services: Services, session: Session, now: datetime) -> None:
    """Draft a letter ten days ahead, remind until it is approved, say when it was missed."""
    place = place_of(services)
    if "letters" not in place.features:
        return
    for one in every_coming(services, session, now):
        if one.letter.is_on(place) or one.campaign is not None:
            _prepare(services, session, one, now)
    _report_missed(services, session, now)
    _report_receipts(services, session, now)


def _morning(one: Coming, days_before: int) -> datetime:
    """09:00 in the county, so many days before the letter leaves."""
    day = planning.wall(one.day, datetime.min.time())
    return day - timedelta(days=days_before) + MORNING


def _prepare(services: Services, session: Session, one: Coming, now: datetime) -> None:
    if now < _morning(one, DRAFT_DAYS):
        return
    occasion = one.letter.occasion(one.year)
    if fire(session, "letter.draft", occasion, now):
        if one.campaign is not None:
            return  # somebody was earlier than the clock
        campaign = draft(services, session, one, now)
        text = (
            f"{one.letter.label}信已起草（{campaign.number}），定于 {show_day(one.day)} "
            f"{one.letter.at:%H:%M} 寄出。请回「信件 预览 {one.letter.label}」看成品、核对新闻，"
            f"再回「信件 提交 {one.letter.label}」送审（须两人同意，其中一位领导）。"
        )
        tell(services, session, coordinators(session, now), text, f"{occasion}:draft", now)
        return
    if one.campaign is not None and one.campaign.state not in (
        *SETTLED,
        CampaignState.CANCELLED,
    ):
        _remind(services, session, one, now)


def _remind(services: Services, session: Session, one: Coming, now: datetime) -> None:
    """At most one reminder a beat: the nearest that is due."""
    due = [days for days in REMIND_DAYS if now >= _morning(one, days)]
    if not due:
        return
    occasion = f"{one.letter.occasion(one.year)}:{min(due)}"
    if not fire(session, "letter.remind", occasion, now):
        return
    waits = (
        "正等待审批"
        if one.campaign and one.campaign.state == CampaignState.SUBMITTED
        else "还没有送审"
    )
    text = (
        f"{one.letter.label}信定于 {show_day(one.day)} {one.letter.at:%H:%M} 寄出，{waits}。"
        f"到时没有批准就不会寄。回「信件 提交 {one.letter.label}」或「审批」。"
    )
    tell(services, session, coordinators(session, now), text, f"{occasion}:remind", now)


def _report_missed(services: Services, session: Session, now: datetime) -> None:
    """A letter nobody approved in time is given up, and people are told."""
    overdue = session.exec(
        select(Campaign).where(
            Campaign.kind == "letter",
            col(Campaign.state).in_(
                [
                    CampaignState.DRAFT,
                    CampaignState.FREEZING,
                    CampaignState.SUBMITTED,
                    CampaignState.REJECTED,
                ]
            ),
            col(Campaign.expires_at) <= now,
        )
    ).all()
    for campaign in overdue:
        campaigns.give_up(session, campaign, now)
        if fire(session, "letter.missed", campaign.occasion, now):
            text = (
                f"{campaign.title}（{campaign.number}）没有按时批准，已过时，没有寄出，也不会补寄。"
            )
            occasion = f"{campaign.occasion}:missed"
            tell(services, session, coordinators(session, now), text, occasion, now)


def _report_receipts(services: Services, session: Session, now: datetime) -> None:
    """The morning after: who got it, who did not, and why."""
    since = now - timedelta(days=3)
    sent = session.exec(
        select(Campaign).where(
            Campaign.kind == "letter",
            col(Campaign.state).in_(SETTLED),
            col(Campaign.not_before) > since,
            col(Campaign.not_before) < now,
        )
    ).all()
    for campaign in sent:
        assert campaign.not_before is not None
        day = beijing(campaign.not_before).date() + timedelta(days=1)
        if now < planning.wall(day, datetime.min.time()) + MORNING:
            continue
        if fire(session, "letter.receipts", campaign.occasion, now):
            text = f"信件回执。{receipt_words(services, session, campaign)}"
            occasion = f"{campaign.occasion}:receipts"
            tell(services, session, coordinators(session, now), text, occasion, now)


# - hongyan letters -


def _show_firings(services: Services, arguments: Sequence[str]) -> Sequence[str]:
    """Every schedule that can say when it fires: its name, then one line a firing."""
    found = re.fullmatch(r"(?:--years[ =](\d{1,2}))?", " ".join(arguments).strip())
    if found is None:
        raise UserError("用法：hongyan letters [--years 5]")
    span = timedelta(days=round(365.25 * int(found[1] or 5)))
    now = services.clock.now()
    with services.database.reading() as session:
        # Letters first: who asks for this word asks for them.
        ticks = sorted(services.catalog.of(Tick), key=lambda one: one.name != "letters")
        lines: list[str] = []
        for one in ticks:
            coming = one.upcoming(services, session, now, span) if one.upcoming else ()
            if coming:
                lines.append(f"【{one.label or one.name}】")
                lines += [_firing_line(moment, words) for moment, words in sorted(coming)]
    return lines


def _firing_line(moment: datetime, words: str) -> str:
    local = beijing(moment)
    weekday = WEEKDAYS[local.weekday()]
    return f"{local:%Y-%m-%d} 周{weekday} {lunar_text(local.date())} {local:%H:%M} {words}"


CLI_LETTERS = CliWord("letters", "将要寄出的信和其他定时事项", _show_firings, anywhere=True)
