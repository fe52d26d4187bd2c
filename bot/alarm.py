"""Calls for help: those on duty are told what only a person can mend."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection

from bot.clock import beijing, show_time
from bot.context import Services, outbox_row
from bot.messages import say
from bot.purposes import TROUBLE
from storage import mailbox
from storage.db import attached

PASSES = timedelta(days=1)


def call_for_help(services: Services, connection: Connection, channel: str, trouble: str) -> None:
    """Tell those on duty, once a day and trouble, by whichever channel they used last.

    `trouble` follows upon 「微信公众号自…起」; it holds no secret and nobody's words.
    """
    now = services.clock.now()
    label = services.channels[channel].label or channel
    words = f"{label}自{show_time(now)}起{trouble}"
    with attached(connection) as session:
        rows = [
            outbox_row(
                services,
                session,
                person_id,
                say(words),
                occasion=f"stopped:{channel}:{beijing(now).date()}:{trouble}",
                purpose=TROUBLE,
                now=now,
                expires_at=now + PASSES,
            )
            for person_id in services.catalog.policy.on_duty(session, now)
        ]
        mailbox.enqueue(connection, [row for row in rows if row is not None])
