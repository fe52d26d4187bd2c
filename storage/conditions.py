"""What is asked of outbox rows in more than one place, as SQL."""

from typing import Any

from sqlalchemy import and_, bindparam, case, exists, not_, or_
from sqlmodel import col

from storage.columns import UtcDateTime
from storage.mailbox import TABLE, in_state
from storage.people import ALL_TOPICS, ConsentNow, Unsubscription
from storage.states import State

CONSENTED = or_(
    TABLE.c.scope.is_(None),
    exists().where(
        col(ConsentNow.person_id) == TABLE.c.person_id,
        col(ConsentNow.scope) == TABLE.c.scope,
        col(ConsentNow.live),
    ),
)

WANTED = or_(
    TABLE.c.topic.is_(None),
    not_(
        exists().where(
            col(Unsubscription.person_id) == TABLE.c.person_id,
            col(Unsubscription.topic).in_([TABLE.c.topic, ALL_TOPICS]),
        )
    ),
)

ALIVE = or_(TABLE.c.expires_at.is_(None), TABLE.c.expires_at > bindparam("now", type_=UtcDateTime))

# What may have arrived may be said again only while its platform takes it for the same message.
MAY_HAVE_ARRIVED = and_(TABLE.c.tried_at.is_not(None), not_(TABLE.c.repeatable))

# Said beside the narrower condition, or the partial index of what is in flight is not used.
IN_FLIGHT = in_state(State.LEASED, State.SENDING)


def unless_tried(state: State) -> Any:
    """Of what may have arrived nobody can say that it never left."""
    return case((MAY_HAVE_ARRIVED, State.UNKNOWN), else_=state)
