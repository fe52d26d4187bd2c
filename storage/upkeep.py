"""Forgets old rows a few at a time, so that nobody who writes meanwhile waits for long.

Each function takes at most `most` rows in the transaction it is given and says how many it took;
as long as it took that many there may be more.
"""

from collections import Counter
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, delete, func, literal, select, tuple_, update
from sqlmodel import col

from storage.campaigns import Campaign, CampaignTotal
from storage.driver import on_conflict_base
from storage.jobs import Firing
from storage.mailbox import INBOX, TABLE, not_in_state
from storage.states import OPEN

_TOTALS: Any = CampaignTotal.__table__  # type: ignore[attr-defined]  # SQLModel sets it
_FIRINGS: Any = Firing.__table__  # type: ignore[attr-defined]
_OVER = not_in_state(*OPEN)
_NO_END = literal(2**62, BigInteger())


def forget_bodies(connection: Connection, before: datetime, most: int) -> int:
    """Blank the bodies of rows that are done with and were made before; their hash stays."""
    old = (
        select(TABLE.c.id)
        .where(TABLE.c.body.is_not(None), TABLE.c.created_at < before, _OVER)
        .order_by(TABLE.c.created_at)
        .limit(most)
    )
    return connection.execute(update(TABLE).where(TABLE.c.id.in_(old)).values(body=None)).rowcount


def settle_campaigns(connection: Connection, before: datetime, most: int) -> int:
    """Of campaigns made before keep how many rows ended how, not whose: the rows go.

    What of them has not ended stays. Counts grow as rows go, so a sum over both is always right.
    """
    taken = 0
    while taken < most:
        gone = _some_of_the_oldest(connection, before, most - taken)
        if not gone:
            break
        _keep_counts(connection, gone)
        taken += gone.total()
    return taken


def _some_of_the_oldest(
    connection: Connection, before: datetime, most: int
) -> Counter[tuple[int, str, str]]:
    """Delete ended rows of one campaign; returns how many went by (campaign, state, reason)."""
    ended = TABLE.c.created_at <= before, _OVER
    campaign = connection.execute(
        select(col(Campaign.id))
        .where(
            col(Campaign.created_at) <= before,
            select(TABLE.c.id).where(TABLE.c.campaign_id == col(Campaign.id), *ended).exists(),
        )
        .order_by(col(Campaign.id))
        .limit(1)
    ).scalar()
    mine = select(TABLE.c.id).where(TABLE.c.campaign_id == campaign, *ended).limit(most)
    if campaign is None:
        return Counter()
    rows = connection.execute(
        delete(TABLE).where(TABLE.c.id.in_(mine)).returning(TABLE.c.state, TABLE.c.reason)
    )
    return Counter((campaign, state, reason) for state, reason in rows)


def _keep_counts(connection: Connection, gone: Counter[tuple[int, str, str]]) -> None:
    statement = on_conflict_base(connection, _TOTALS)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["campaign_id", "state", "reason"],
            set_={"count": _TOTALS.c.count + statement.excluded.count},
        ),
        [
            {"campaign_id": campaign, "state": state, "reason": reason, "count": count}
            for (campaign, state, reason), count in sorted(gone.items())
        ],
    )


def forget_notices(connection: Connection, before: datetime, most: int) -> int:
    """Delete rows of no campaign that have ended and were made before."""
    # Rows are numbered as they are made: behind the first younger one nothing is looked for.
    younger = (
        select(TABLE.c.id)
        .where(TABLE.c.created_at > before)
        .order_by(TABLE.c.id)
        .limit(1)
        .scalar_subquery()
    )
    old = (
        select(TABLE.c.id)
        .where(
            TABLE.c.id < func.coalesce(younger, _NO_END),
            TABLE.c.campaign_id.is_(None),
            TABLE.c.created_at <= before,
            _OVER,
        )
        .order_by(TABLE.c.id)
        .limit(most)
    )
    return connection.execute(delete(TABLE).where(TABLE.c.id.in_(old))).rowcount


def forget_replies(connection: Connection, before: datetime, most: int) -> int:
    """Blank the stored answers to what came before; a message told again is answered no more."""
    old = (
        select(INBOX.c.key)
        .where(INBOX.c.reply.is_not(None), INBOX.c.received_at < before)
        .order_by(INBOX.c.received_at)
        .limit(most)
    )
    return connection.execute(update(INBOX).where(INBOX.c.key.in_(old)).values(reply=None)).rowcount


def forget_keys(connection: Connection, before: datetime, most: int) -> int:
    """Delete what is known of messages that came before."""
    old = (
        select(INBOX.c.key)
        .where(INBOX.c.received_at < before)
        .order_by(INBOX.c.received_at)
        .limit(most)
    )
    return connection.execute(delete(INBOX).where(INBOX.c.key.in_(old))).rowcount


def forget_firings(connection: Connection, before: datetime, most: int) -> int:
    """Delete what schedules did before; the occasions of that time do not come again."""
    key = tuple_(_FIRINGS.c.schedule, _FIRINGS.c.occasion)
    old = select(_FIRINGS.c.schedule, _FIRINGS.c.occasion).where(_FIRINGS.c.at < before).limit(most)
    return connection.execute(delete(_FIRINGS).where(key.in_(old))).rowcount
