"""Turns by chat, as all replicas count them."""

from datetime import UTC, datetime, timedelta

from sqlmodel import col, select

from storage.pace import ChatPace, forget_paces, leave_alone, take_turn, take_turns
from tests.bare import Bare

NOW = datetime(2026, 3, 12, 2, 0, tzinfo=UTC)
MOST = (20, 60_000)


def after(**span: float) -> datetime:
    return NOW + timedelta(**span)


def test_a_chat_has_one_turn_a_second(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        waits = [
            take_turn(connection, "chat", moment, 1000)
            for moment in (NOW, NOW, after(milliseconds=400), after(seconds=1), after(seconds=1))
        ]
        other = take_turn(connection, "other", NOW, 1000)
    assert (waits, other) == ([0, 1000, 600, 0, 1000], 0)


def test_no_minute_has_more_than_twenty(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        taken = [
            step
            for step in range(0, 300_000, 500)
            if take_turn(connection, "group", after(milliseconds=step), 1000, MOST) == 0
        ]
    assert all(taken[n + 20] - taken[n] >= 60_000 for n in range(len(taken) - 20))
    assert len(taken) == 100


def test_a_full_minute_says_how_long_to_wait(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        for second in range(20):
            take_turn(connection, "group", after(seconds=second), 1000, MOST)
        assert take_turn(connection, "group", after(seconds=20), 1000, MOST) == 40_000


def test_a_chat_is_left_alone_as_long_as_was_asked(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        leave_alone(connection, "chat", NOW, 30_000)
        leave_alone(connection, "chat", NOW, 5_000)
        assert take_turn(connection, "chat", after(seconds=10), 1000) == 20_000
        assert take_turn(connection, "chat", after(seconds=30), 1000) == 0


def test_a_clock_that_was_set_back_silences_no_chat(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        assert take_turn(connection, "chat", after(days=1), 1000, MOST) == 0
        assert take_turn(connection, "chat", NOW, 1000, MOST) == 0
        assert take_turn(connection, "chat", NOW, 1000, MOST) == 1000


def test_chats_long_free_are_forgotten(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        take_turn(connection, "old", NOW, 1000)
        take_turn(connection, "new", after(hours=2), 1000, MOST)
        assert forget_paces(connection, after(hours=2)) == 1
        assert connection.execute(select(col(ChatPace.chat))).scalars().all() == ["new"]


def test_many_chats_take_their_turns_at_once(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        assert take_turns(connection, [], NOW, 1000) == frozenset()
        assert take_turns(connection, ["a", "b", "a"], NOW, 1000) == {"a", "b"}
        assert take_turns(connection, ["b", "c"], NOW, 1000) == {"c"}
        assert take_turn(connection, "a", NOW, 1000) == 1000
        assert take_turns(connection, ["a", "b"], after(seconds=1), 1000) == {"a", "b"}
