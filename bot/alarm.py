"""Calls for help: those on duty are told what only a person can mend."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection

from bot.clock import beijing, show_time
from bot.context import Services, channels_for, outbox_row
from bot.messages import say
from bot.purposes import TROUBLE
from storage import mailbox
from storage.db import attached
from storage.people import contact_of

PASSES = timedelta(days=1)


def call_for_help(services: Services, connection: Connection, channel: str, trouble: str) -> None:
    """Tell those on duty, once a day and trouble, by another channel than this where they have one.

    `trouble` follows upon 「微信公众号自…起」; it holds no secret and nobody's words.
    """
    now = services.clock.now()
    occasion = f"stopped:{channel}:{beijing(now).date()}:{trouble}"
    words = f"{_label(services, channel)}自{show_time(now)}起{trouble}"
    _tell(services, connection, channel, words, occasion)


def give_all_clear(services: Services, connection: Connection, channel: str) -> None:
    """Tell those on duty that a channel that was out of order goes on by itself."""
    now = services.clock.now()
    words = f"{_label(services, channel)}已于{show_time(now)}恢复，没发完的接着发。"
    _tell(services, connection, channel, words, f"mended:{channel}:{now.isoformat()}")


def _label(services: Services, channel: str) -> str:
    return services.channels[channel].label or channel


def _tell(
    services: Services, connection: Connection, channel: str, words: str, occasion: str
) -> None:
    now = services.clock.now()
    with attached(connection) as session:
        rows = []
        for person_id in services.catalog.policy.on_duty(session, now):
            ways = channels_for(services, session, person_id, TROUBLE)
            elsewhere = [name for name in ways if name != channel]
            row = outbox_row(
                services,
                session,
                person_id,
                say(words),
                occasion=occasion,
                purpose=TROUBLE,
                now=now,
                expires_at=now + PASSES,
                contact=contact_of(session, person_id, elsewhere),
            )
            if row is not None:
                rows.append(row)
        mailbox.enqueue(connection, rows)
