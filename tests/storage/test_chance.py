"""Chance: bytes of any number, none given out twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from storage.chance import AT_ONCE, Chance


def test_any_number_of_bytes_is_given() -> None:
    chance = Chance()
    assert [len(chance(count)) for count in (0, 1, 16, AT_ONCE, AT_ONCE + 1, 8)] == [
        0,
        1,
        16,
        AT_ONCE,
        AT_ONCE + 1,
        8,
    ]


def test_nothing_is_given_out_twice_whoever_asks() -> None:
    chance = Chance()
    with ThreadPoolExecutor(4) as askers:
        given = list(askers.map(lambda _: chance(12), range(4000)))
    assert len(set(given)) == len(given)
