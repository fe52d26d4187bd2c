"""A schedule's occasion is claimed once, on either database, whoever beats."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from threading import Barrier, Thread

from bot.heart import fire
from tests.bare import NOON, Bare


def test_an_occasion_is_claimed_once_by_whoever_ends_what_it_began(database_url: str) -> None:
    bare = Bare(database_url)
    with suppress(InterruptedError), bare.database.session() as session:
        fire(session, "letter", "spring", NOON)
        raise InterruptedError
    claims = []
    for hours in (0, 1):
        with bare.database.session() as session:
            claims.append(fire(session, "letter", "spring", NOON + timedelta(hours=hours)))
    assert claims == [True, False]
    bare.close()


def test_of_three_that_beat_at_once_one_claims_the_occasion(database_url: str) -> None:
    bare, ready, claims = Bare(database_url), Barrier(3), list[bool]()

    def beat() -> None:
        ready.wait()
        with bare.database.session() as session:
            claims.append(fire(session, "letter", "spring", NOON))

    threads = [Thread(target=beat) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == [False, False, True]
    bare.close()
