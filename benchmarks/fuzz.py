"""Mad requests at every door of the whole installation: by hypothesis, and guided by coverage.

None may be answered with a 5xx, leave a traceback or an error in the log, or take more than 50 ms
of processor time. The guided part needs atheris, which has wheels for Linux on x86-64 only; without
it hypothesis takes the whole time.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, note

SECONDS = 600  # in all
GRACE = 60.0  # seconds that the guided part may take to end
LONGEST = 4096  # bytes of a guided input
WHOLE = 64 * 1024  # bytes of an input of hypothesis at most
GUIDED = "benchmarks.fuzz"
WATCHED = ("bot", "handlers", "storage.people", "storage.mailbox", "telegram._update")
"""Packages whose branches the guided part counts."""


@dataclass
class Findings:
    """What was seen: how many knocks, answers by class, what went wrong, what was slow."""

    knocks: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    """By what it was, the first input, as `way base64`."""
    slow: dict[str, float] = field(default_factory=dict)
    """Milliseconds by input, repeated and still slow."""
    slowest: float = 0.0

    def add(self, other: Findings) -> None:
        """Take another's in."""
        self.knocks += other.knocks
        for answer, count in other.answers.items():
            self.answers[answer] = self.answers.get(answer, 0) + count
        self.wrong |= other.wrong
        self.slow |= other.slow
        self.slowest = max(self.slowest, other.slowest)

    @property
    def kept(self) -> bool:
        """Is the promise kept?"""
        return not self.wrong and not self.slow


class Prober:
    """Knocks at one installation and writes down what it finds."""

    def __init__(self, made: Any) -> None:
        # The doors are imported late: the guided part watches the import of everything else.
        from benchmarks import doors

        self._doors = doors
        self._made = made
        self._number = 0
        self.found = Findings()

    def knock(self, way: Any, data: bytes) -> None:
        """Carry `data` through; a slow one is repeated before it is called slow."""
        answered = self._knocked(way, data)
        self.found.knocks += 1
        answer = f"{answered.status // 100}xx"
        self.found.answers[answer] = self.found.answers.get(answer, 0) + 1
        if answered.wrong:
            self.found.wrong.setdefault(f"{way} {answered.wrong}", _written(way, data))
        millis = answered.millis
        if millis > self._doors.SLOW:
            millis = min(millis, self._repeated(way, data))
        self.found.slowest = max(self.found.slowest, millis)
        if millis > self._doors.SLOW:
            self.found.slow[_written(way, data)] = round(millis, 1)

    def _knocked(self, way: Any, data: bytes) -> Any:
        self._number += 1
        return self._made.knock(self._doors.dressed(way, data, self._number))

    def _repeated(self, way: Any, data: bytes) -> float:
        """The best of three, here with another id, and in new installations that have not heard it.

        Whichever is slower counts: only here is somebody in the middle of a form, and only there is
        it not a repetition.
        """
        here = min(self._knocked(way, data).millis for _ in range(self._doors.REPEATS))
        return max(here, min(_anew(way, data) for _ in range(self._doors.REPEATS)))


def _anew(way: Any, data: bytes) -> float:
    from benchmarks import doors

    with tempfile.TemporaryDirectory() as folder, doors.doors(Path(folder)) as made:
        millis: float = made.knock(doors.dressed(way, data, 1)).millis
        return millis


def _written(way: Any, data: bytes) -> str:
    return f"{way} {base64.b64encode(data).decode()}"


def by_hypothesis(seconds: float, seed: int, most: int = 10**9) -> Findings:
    """Knock for so long, or so many times, with shaped madness; the same again for one `seed`."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from benchmarks import doors, mad

    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, doors.doors(Path(folder)) as made:
        prober = Prober(made)

        @settings(
            max_examples=min(most, 400),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(mad.knocks())
        def some(knock: tuple[Any, bytes, int]) -> None:
            way, data, _number = knock
            if time.monotonic() < until:
                prober.knock(way, data[:WHOLE])

        turn = 0
        while time.monotonic() < until and prober.found.knocks < most:
            seeded(seed + turn)(some)()
            turn += 1
    return prober.found


def guided(seconds: float, seed: int) -> Findings | None:
    """The same by atheris in a process of its own, which it ends itself; None without it."""
    if importlib.util.find_spec("atheris") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        corpus, told = Path(folder, "corpus"), Path(folder, "found.json")
        corpus.mkdir()
        for number, sample in enumerate(samples()):
            (corpus / str(number)).write_bytes(sample)
        words = Path(folder, "words")
        words.write_text("\n".join(dictionary()), encoding="utf-8")
        subprocess.run(
            [
                *(sys.executable, "-m", GUIDED, str(told), str(corpus)),
                *(f"-max_total_time={int(seconds)}", f"-max_len={LONGEST}", f"-seed={seed}"),
                *(f"-dict={words}", "-timeout=60", "-rss_limit_mb=0", "-verbosity=0"),
                *("-print_final_stats=0", f"-artifact_prefix={folder}/"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds + GRACE,
            check=False,
        )
        found = Findings(**json.loads(told.read_text(encoding="utf-8")))
    return _judged(found)


def _judged(found: Findings) -> Findings:
    """Counting branches takes time: what was slow there is tried again without."""
    from benchmarks import doors

    again = {entry: min(_anew(*_read(entry)) for _ in range(doors.REPEATS)) for entry in found.slow}
    found.slow = {entry: round(took, 1) for entry, took in again.items() if took > doors.SLOW}
    found.slowest = max(again.values(), default=0.0)
    return found


def _read(entry: str) -> tuple[Any, bytes]:
    from benchmarks.doors import Way

    way, _space, data = entry.partition(" ")
    return Way(way), base64.b64decode(data)


def samples() -> Iterator[bytes]:
    """What platforms say when nothing is wrong: a byte for the way, then the data."""
    from benchmarks import doors, mad

    for index, way in enumerate(doors.ways()):
        for data in _examples(way, doors, mad):
            yield bytes((index,)) + data


def _examples(way: Any, doors: Any, mad: Any) -> Iterator[bytes]:
    match way.partition("_")[2]:
        case "said":
            yield from (word.encode() for word in mad.WORDS)
        case "sealed" if way is doors.Way.BOT_SEALED:
            yield json.dumps(doors.bot_message(1, 1, "菜单")).encode()
        case "sealed":
            yield doors.xml_message(1, 1, "菜单").encode()
            for event in mad.EVENTS:
                yield doors.xml_event(1, 1, event, "<EventKey>x</EventKey>").encode()
        case "query":
            yield doors.echo(way, b"8261")
        case "json":
            yield json.dumps(doors.telegram_update(1, 1, text="/start x")).encode()
        case "body":
            yield b"<xml><Encrypt><![CDATA[AAAA]]></Encrypt></xml>"
        case _:
            yield b"content-length: 3\ncontent-type: text/xml"


def dictionary() -> Iterator[str]:
    """Words to mutate with, as libFuzzer reads them."""
    from benchmarks import mad

    for word in (*mad.WORDS, *mad.ODD, *mad.FIELDS, *mad.KEYS, *mad.EVENTS):
        quoted = "".join(f"\\x{byte:02x}" for byte in word.encode("utf-8", "surrogatepass"))
        yield f'"{quoted}"'


def _be_guided(told: str, arguments: list[str]) -> None:
    """The process that atheris drives; it never returns."""
    import atheris

    with atheris.instrument_imports(include=list(WATCHED), enable_loader_override=False):
        from benchmarks import doors

    folder = tempfile.mkdtemp(dir=Path(told).parent)
    known = doors.ways()
    with doors.doors(Path(folder)) as made:
        prober = Prober(made)
        last = time.monotonic()

        def one(data: bytes) -> None:
            nonlocal last
            if data:
                prober.knock(known[data[0] % len(known)], data[1:])
            if time.monotonic() - last > 1:
                last = time.monotonic()
                _write_down(told, prober.found)

        _write_down(told, prober.found)
        atheris.Setup([sys.argv[0], *arguments], one)
        atheris.Fuzz()


def _write_down(told: str, found: Findings) -> None:
    beside = Path(f"{told}.new")
    values: Mapping[str, Any] = vars(found)
    beside.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    os.replace(beside, told)


def main(seconds: int = SECONDS) -> bool:
    """Print the figures; True when nothing was found."""
    seed = 20260922
    note(
        f"向每个入口发乱写的请求，共 {seconds} 秒：一半由 hypothesis，一半由 atheris（按覆盖引导）"
    )
    led = guided(seconds / 2, seed)
    if led is None:
        note("没有装 atheris（只有 Linux x86-64 有现成的包：pip install atheris），全由 hypothesis")
    found = by_hypothesis(seconds if led is None else seconds / 2, seed)
    Figure("fuzz", "by_hypothesis", found.knocks, "次").tell()
    if led is not None:
        Figure("fuzz", "guided", led.knocks, "次").tell()
        found.add(led)
    note(f"回答 {dict(sorted(found.answers.items()))}")
    Figure("fuzz", "wrong", len(found.wrong), "种").tell()
    Figure("fuzz", "slow", len(found.slow), "个").tell()
    Figure("fuzz", "slowest", found.slowest, "ms").tell()
    for what, entry in found.wrong.items():
        note(f"错 {what}\n   {entry[:400]}")
    for entry, millis in found.slow.items():
        note(f"慢 {millis} ms {entry[:400]}")
    return found.kept


if __name__ == "__main__":
    _be_guided(sys.argv[1], sys.argv[2:])
