"""What has been used up of what one person may get, as expressions on a column of person ids."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select
from sqlmodel import col

from storage.covers import COUNTED, Cover, CoverRecipient
from storage.mailbox import TABLE
from storage.states import State

ON_ITS_WAY = (State.QUEUED, State.LEASED, State.SENDING, State.AWAITING_STAFF)
CAME = (State.SENT, State.DELIVERED, State.READ, State.UNKNOWN)


def covers_received(person_id: Any, channel: str, month: str) -> Any:
    """How many covers of a month (`2026-09`) somebody has got or will get."""
    return (
        select(func.count())
        .select_from(CoverRecipient)
        .join(Cover, col(Cover.id) == col(CoverRecipient.cover_id))
        .where(
            col(CoverRecipient.person_id) == person_id,
            col(Cover.channel) == channel,
            col(Cover.month) == month,
            ~col(Cover.preview),
            col(Cover.state).in_(COUNTED),
        )
        .correlate(person_id.table)
        .scalar_subquery()
    )


def received_since(person_id: Any, moment: datetime) -> Any:
    """How many things that can be unsubscribed from somebody has got since, or is about to get."""
    lately = TABLE.alias("lately")
    return (
        select(func.count())
        .select_from(lately)
        .where(
            lately.c.person_id == person_id,
            lately.c.topic.is_not(None),
            lately.c.state.in_((*ON_ITS_WAY, *CAME)),
            func.coalesce(lately.c.sent_at, lately.c.not_before) > moment,
        )
        .correlate(person_id.table)
        .scalar_subquery()
    )


def sent_since(connection: Connection, channel: str, moment: datetime) -> int:
    """How much has left on a channel since; reads the whole outbox, so ask only when it matters."""
    query = select(func.count()).where(
        TABLE.c.sent_at >= moment, TABLE.c.lane.startswith(f"{channel}:", autoescape=True)
    )
    return int(connection.execute(query).scalar_one())
