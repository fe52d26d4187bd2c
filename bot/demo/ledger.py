"""The outbox as the demo's page shows it: newest rows in Chinese words, and totals by state."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session, col

from bot.catalog import Catalog
from bot.clock import beijing
from bot.commands import DemoData
from bot.context import Services
from bot.planning import REASONS
from bot.purposes import ANSWER, TROUBLE
from storage import overview
from storage.campaigns import Campaign, CampaignState
from storage.mailbox import TABLE
from storage.states import STATE_WORDS, State

NEWEST = 40
WORDS = {**REASONS, "blocked": "对方已拉黑", "window": "等对方来信", "quota": "额度用完"}
TONES = {
    State.HELD: "wait",
    State.QUEUED: "wait",
    State.DEFERRED: "wait",
    State.LEASED: "move",
    State.SENDING: "move",
    State.AWAITING_STAFF: "wait",
    State.SENT: "good",
    State.DELIVERED: "good",
    State.READ: "good",
    State.FAILED: "bad",
    State.DEAD: "bad",
    State.UNKNOWN: "bad",
    State.SUPPRESSED: "past",
    State.CANCELLED: "past",
    State.EXPIRED: "past",
}
"""Which colour a state has on the page."""
_TONES_FROM_THE_LEFT = ("good", "bad", "past", "move", "wait")
FROM_THE_LEFT = sorted(State, key=lambda state: _TONES_FROM_THE_LEFT.index(TONES[state]))
"""The order of a campaign's bar: what is settled, then what is under way, then what waits."""


def view(services: Services, session: Session, data: DemoData) -> dict[str, Any]:
    """`{"rows": […], "totals": […], "campaign": …}`, what happened last first.

    `campaign` is the one under way, or the last one that was, and how its rows stand; or None.
    """
    rows = session.execute(
        select(
            TABLE.c.id,
            TABLE.c.purpose,
            TABLE.c.person_id,
            TABLE.c.lane,
            TABLE.c.state,
            TABLE.c.reason,
            TABLE.c.not_before,
            TABLE.c.sent_at,
            col(Campaign.title),
        )
        .outerjoin(Campaign, col(Campaign.id) == TABLE.c.campaign_id)
        .order_by(
            # What is under way, then what happened last, whenever it was planned.
            TABLE.c.state.in_([State.LEASED, State.SENDING]).desc(),
            func.coalesce(TABLE.c.sent_at, TABLE.c.created_at).desc(),
            TABLE.c.id.desc(),
        )
        .limit(NEWEST)
    ).all()
    people = [row.person_id for row in rows if row.person_id is not None]
    names = data.names(session, people)
    counted = session.execute(select(TABLE.c.state, func.count()).group_by(TABLE.c.state))
    totals: dict[str, int] = {state: count for state, count in counted}
    return {
        "rows": [_row(services, row, names.get(row.person_id, "群")) for row in rows],
        "totals": [
            {"state": STATE_WORDS[state], "tone": TONES[state], "count": totals[state]}
            for state in State
            if state in totals
        ],
        "campaign": _campaign(session),
    }


def _campaign(session: Session) -> dict[str, Any] | None:
    """`{"title", "total", "parts": [{"state", "tone", "count"}]}`, in the order of the states."""
    begun = (CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.DONE)
    found = session.execute(
        select(Campaign)
        .where(col(Campaign.state).in_(begun))
        .order_by(col(Campaign.state) == CampaignState.DONE, col(Campaign.id).desc())
        .limit(1)
    ).scalar()
    if found is None:
        return None
    counts: Counter[State] = Counter()
    for (state, _reason), count in overview.progress(session.connection(), found.id or 0).items():
        counts[state] += count
    return {
        "title": f"{found.number} {found.title}",
        "total": counts.total(),
        "parts": [
            {"state": STATE_WORDS[state], "tone": TONES[state], "count": counts[state]}
            for state in FROM_THE_LEFT
            if counts[state]
        ],
    }


def _row(services: Services, row: Any, name: str) -> dict[str, Any]:
    state = State(row.state)
    moment = beijing(row.sent_at or row.not_before)
    channel = services.channels.get(row.lane.partition(":")[0])
    return {
        "id": row.id,
        "what": row.title or _purpose(services.catalog, row.purpose),
        "to": name,
        "by": channel.label if channel else "",
        "state": STATE_WORDS[state],
        "tone": TONES[state],
        "reason": WORDS.get(row.reason, row.reason),
        "at": f"{moment:%m-%d %H:%M}",
    }


def _purpose(catalog: Catalog, name: str) -> str:
    known = {purpose.name: purpose.label for purpose in (ANSWER, TROUBLE)}
    if name in known:
        return known[name]
    try:
        return catalog.purpose(name).label
    except KeyError:
        return "群通知" if name == "group" else name
