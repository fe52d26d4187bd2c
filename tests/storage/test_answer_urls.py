"""One-time addresses for later answers, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from storage.answer_urls import keep_answer_url, take_answer_url
from tests.bare import Bare
from tests.emulators.server import START

HOUR = timedelta(hours=1)


def keep(bare: Bare, name: str, minutes: int = 60, owner: str = "wang") -> None:
    until = START + timedelta(minutes=minutes)
    with bare.database.transaction() as connection:
        keep_answer_url(connection, name, owner, f"https://answer/{name}", START, until)


def taken(bare: Bare, owner: str = "wang", minutes: int = 0) -> str | None:
    with bare.database.transaction() as connection:
        found = take_answer_url(connection, owner, START + timedelta(minutes=minutes))
    return None if found is None else found[0].rpartition("/")[2]


def test_the_one_that_expires_first_is_taken_first_and_each_once(bare: Bare) -> None:
    keep(bare, "late", 50)
    keep(bare, "soon", 40)
    keep(bare, "soon", 40)
    keep(bare, "li's", owner="li")
    assert [taken(bare) for _time in range(3)] == ["soon", "late", None]


def test_what_has_expired_is_neither_taken_nor_kept(bare: Bare) -> None:
    keep(bare, "short", 10)
    assert taken(bare, minutes=10) is None
    later = START + HOUR
    with bare.database.transaction() as connection:
        keep_answer_url(connection, "new", "li", "https://answer/new", later, later + HOUR)
        left = connection.exec_driver_sql("SELECT id FROM answer_url").scalars().all()
    assert left == ["new"]


def test_of_many_who_take_at_once_nobody_is_given_the_same(bare: Bare) -> None:
    names = [f"n{number}" for number in range(8)]
    for name in names:
        keep(bare, name)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _number: taken(bare), range(10)))
    assert sorted(filter(None, found)) == names
    assert found.count(None) == 2
