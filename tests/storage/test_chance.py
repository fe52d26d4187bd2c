"""Chance: bytes of any number, none given out twice."""

from __future__ import annotations

import subprocess
import sys
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


FORKING = """
import os
from storage.chance import Chance
chance = Chance()
chance(1)
child = os.fork()
if child:
    os.waitpid(child, 0)
print(chance(16).hex(), flush=True)
"""


def test_a_copy_of_the_process_has_bytes_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True)
    there, here = done.stdout.split()
    assert len(there) == len(here) == 32
    assert there != here
