"""Old rows go a few at a time; what has not ended, what is younger and every count stays."""

from __future__ import annotations

from datetime import timedelta

from sqlmodel import select

from storage import upkeep
from storage.jobs import Firing
from storage.mailbox import INBOX, Outbox
from tests.bare import NOON, Bare

LATER = NOON + timedelta(days=400)


def aged(bare: Bare, *states: str) -> None:
    """A row of no campaign a state, each a day younger than the one before."""
    for day, state in enumerate(states):
        moment = NOON + timedelta(days=day)
        bare.rows(1, recipient=f"x{day}", state=state, created_at=moment, not_before=moment)


def left(bare: Bare) -> list[str]:
    return [row.state for row in bare.all()]


def test_rows_of_no_campaign_go_oldest_first_and_a_few_at_a_time(bare: Bare) -> None:
    aged(bare, "sent", "failed", "queued", "sent", "sent")
    before = NOON + timedelta(days=3)
    with bare.database.transaction() as connection:
        assert upkeep.forget_notices(connection, before, 1) == 1
    assert left(bare) == ["failed", "queued", "sent", "sent"]
    with bare.database.transaction() as connection:
        assert upkeep.forget_notices(connection, before, 9) == 2
        assert upkeep.forget_notices(connection, before, 9) == 0
        assert upkeep.forget_notices(connection, LATER, 9) == 1
    assert left(bare) == ["queued"]


def test_a_body_that_is_still_to_leave_is_kept(bare: Bare) -> None:
    aged(bare, "queued", "sent", "sent")
    with bare.database.transaction() as connection:
        assert upkeep.forget_bodies(connection, LATER, 1) == 1
        assert upkeep.forget_bodies(connection, LATER, 9) == 1
    with bare.database.reading() as session:
        rows = session.exec(select(Outbox).order_by(Outbox.id)).all()  # type: ignore[arg-type]
    assert [row.body is not None for row in rows] == [True, False, False]


def test_answers_go_before_the_keys_that_know_their_messages(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        connection.execute(
            INBOX.insert(),
            [
                {"key": f"k{n}", "received_at": NOON + timedelta(days=n), "reply": "您好"}
                for n in range(3)
            ],
        )
        assert upkeep.forget_replies(connection, NOON + timedelta(days=2), 9) == 2
        assert upkeep.forget_replies(connection, NOON + timedelta(days=2), 9) == 0
        assert upkeep.forget_keys(connection, LATER, 2) == 2
        assert upkeep.forget_keys(connection, LATER, 2) == 1


def test_what_schedules_did_long_ago_is_forgotten(bare: Bare) -> None:
    with bare.database.session() as session:
        for day in range(3):
            session.add(Firing(schedule="s", occasion=f"{day}", at=NOON + timedelta(days=day)))
    with bare.database.transaction() as connection:
        assert upkeep.forget_firings(connection, NOON + timedelta(days=2), 9) == 2
    with bare.database.reading() as session:
        assert [firing.occasion for firing in session.exec(select(Firing))] == ["2"]
