"""What a platform keeps for us is taken over once; who leads a conversation is not forgotten."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from storage import conversations
from storage.conversations import Conversation, Led, Letter, Taken
from storage.cursors import read_cursor
from tests.bare import NOON, Bare

NAME = "desk:one"
ADDRESS = "desk:one:wang"


def letters(*texts: str) -> list[Letter]:
    return [Letter(f"{NAME}:{text}", ADDRESS, text) for text in texts]


def take(bare: Bare, start: str, end: str, *texts: str) -> bool:
    with bare.database.transaction() as connection:
        cursor = (NAME, start, end)
        return conversations.take_over(connection, "desk", cursor, letters(*texts), NOON)


def waiting(bare: Bare) -> list[str]:
    with bare.database.engine.connect() as connection:
        return [body for _, _, body in conversations.waiting(connection, "desk")]


def at_once(work: Callable[[], Any], threads: int = 4) -> list[Any]:
    """The same from several threads at the same moment; what each got."""
    barrier, got = threading.Barrier(threads), list[Any]()

    def run() -> None:
        barrier.wait()
        got.append(work())

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return got


def test_fact_59_a_batch_is_taken_by_one_of_many(bare: Bare) -> None:
    assert take(bare, "", "c1", "一")
    got = at_once(lambda: take(bare, "c1", "c2", "二", "三"))
    assert sorted(got) == [False, False, False, True]
    assert waiting(bare) == ["一", "二", "三"]
    with bare.database.engine.connect() as connection:
        assert read_cursor(connection, NAME) == "c2"


def test_what_was_taken_from_an_old_place_is_left_alone(bare: Bare) -> None:
    assert take(bare, "", "c1", "一")
    assert not take(bare, "", "c1", "一")
    assert waiting(bare) == ["一"]


def test_what_is_done_with_waits_no_more(bare: Bare) -> None:
    take(bare, "", "c1", "一", "二")
    with bare.database.transaction() as connection:
        first, *_ = conversations.waiting(connection, "desk")
        conversations.answered(connection, [first[0]])
    assert waiting(bare) == ["二"]


def test_fact_63_what_is_taken_back_in_time_is_gone(bare: Bare) -> None:
    take(bare, "", "c1", "一", "二")
    with bare.database.transaction() as connection:
        assert conversations.recall(connection, f"{NAME}:一")
        assert not conversations.recall(connection, f"{NAME}:三")
    assert waiting(bare) == ["二"]


def test_bodies_are_sealed(bare: Bare) -> None:
    take(bare, "", "c1", "悄悄话")
    with bare.database.engine.connect() as connection:
        raw = connection.exec_driver_sql("SELECT body FROM taken_message").scalar_one()
    assert "悄悄话".encode() not in bytes(raw)


def test_a_pass_serves_once_and_not_too_late(bare: Bare) -> None:
    for wait, code in ((timedelta(seconds=19), "code"), (timedelta(seconds=21), "")):
        with bare.database.transaction() as connection:
            until = NOON + timedelta(seconds=20)
            conversations.open_pass(connection, ADDRESS, "code", until, NOON)
            assert conversations.use_pass(connection, ADDRESS, NOON + wait) == code
            assert conversations.use_pass(connection, ADDRESS, NOON) == ""


def test_of_many_who_want_a_pass_one_has_it(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        conversations.open_pass(connection, ADDRESS, "code", NOON + timedelta(seconds=20), NOON)

    def use() -> str:
        with bare.database.transaction() as connection:
            return conversations.use_pass(connection, ADDRESS, NOON)

    assert sorted(at_once(use)) == ["", "", "", "code"]


def test_who_leads_is_remembered_with_the_moment(bare: Bare) -> None:
    with bare.database.transaction() as connection:
        conversations.lead(connection, ADDRESS, Led.QUEUE, NOON)
        conversations.lead(connection, ADDRESS, Led.PERSON, NOON + timedelta(minutes=1))
        found = conversations.standings(connection, [ADDRESS, "desk:one:nobody"])
    assert list(found) == [ADDRESS]
    assert (found[ADDRESS].led, found[ADDRESS].since) == (Led.PERSON, NOON + timedelta(minutes=1))


def test_old_conversations_and_old_mail_are_forgotten(bare: Bare) -> None:
    take(bare, "", "c1", "一")
    with bare.database.transaction() as connection:
        conversations.lead(connection, ADDRESS, Led.BOT, NOON)
        later = NOON + timedelta(seconds=1)
        assert conversations.forget_taken(connection, later) == 1
        assert conversations.forget_conversations(connection, later) == 1
        for table in (Taken, Conversation):
            assert connection.execute(select(col(table.person_id))).all() == []
