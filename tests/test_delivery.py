"""The delivery loop: what a channel's answer makes of a row, in order, once, and after trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import col, update

from bot.commands import Content, Purpose
from bot.context import ChannelFacts
from bot.courier import TRIES
from bot.delivery import Delivery, _Leave, most_sending
from bot.errors import SendError
from bot.messages import Address, Part, dump_reply, say
from bot.wording import Ready
from storage import claims, steering
from storage.campaigns import Campaign
from storage.people import Person
from tests.bare import NOON, Bare
from tests.world import MemoryChannel


@dataclass
class Line(MemoryChannel):
    """A channel that can hold its calls back."""

    gate: asyncio.Event | None = None
    seen: list[str] = field(default_factory=list)

    async def send(self, address: Address, part: Part, key: str) -> str:
        self.seen.append(key)
        if self.gate is not None:
            await self.gate.wait()
        return await super().send(address, part, key)


def greet(_services: object, _session: object, campaign: Campaign, people: object) -> object:
    return {person: say(f"{campaign.template}{person}") for person in people}  # type: ignore[attr-defined]


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    made = Bare(f"sqlite:///{tmp_path}/bare.db", contents=[Content("greeting", greet)])  # type: ignore[arg-type]
    made.lane()
    yield made
    made.close()


def drain(bare: Bare, channel: MemoryChannel) -> Delivery:
    delivery = Delivery(bare.services, {"memory": channel}, alone=True, chance=lambda: 0.5)
    asyncio.run(delivery.until_idle())
    return delivery


def test_every_row_is_sent_once(bare: Bare) -> None:
    bare.rows(300)
    channel = MemoryChannel()
    drain(bare, channel)
    drain(bare, channel)
    assert len({address for address, _part in channel.sent}) == len(channel.sent) == 300
    assert bare.states() == {"sent": 300}


def test_two_rows_to_one_person_arrive_in_order(bare: Bare) -> None:
    for number in range(5):
        body = dump_reply(say(str(number)))
        bare.rows(1, occasion=f"o{number}", body=body)
    channel = MemoryChannel()
    drain(bare, channel)
    assert [part.text for _address, part in channel.sent] == ["0", "1", "2", "3", "4"]


def test_a_passing_fault_is_tried_again_later(bare: Bare) -> None:
    bare.rows(1)
    channel = MemoryChannel(failures=[SendError("busy")])
    drain(bare, channel)
    assert [(row.state, row.attempts) for row in bare.all()] == [("queued", 1)]
    assert bare.all()[0].not_before == NOON + timedelta(seconds=2)
    bare.clock.advance(seconds=3)
    drain(bare, channel)
    assert bare.states() == {"sent": 1}


def test_it_gives_up_after_some_tries(bare: Bare) -> None:
    bare.rows(1)
    channel = MemoryChannel(failures=[SendError("busy") for _ in range(TRIES)])
    for _try in range(TRIES):
        drain(bare, channel)
        bare.clock.advance(minutes=10)
    assert [(row.state, row.reason) for row in bare.all()] == [("dead", "busy")]


def test_a_permanent_fault_is_not_tried_again(bare: Bare) -> None:
    bare.rows(1)
    drain(bare, MemoryChannel(failures=[SendError("too_long", permanent=True)]))
    assert [(row.state, row.reason) for row in bare.all()] == [("failed", "too_long")]


def test_what_may_have_left_is_unknown_and_not_sent_again(bare: Bare) -> None:
    bare.rows(1)
    channel = MemoryChannel(failures=[SendError("timeout", unknown=True)])
    drain(bare, channel)
    bare.clock.advance(days=1)
    drain(bare, channel)
    assert bare.states() == {"unknown": 1}
    assert channel.sent == []


def test_an_answer_that_may_have_left_is_rather_said_twice(bare: Bare) -> None:
    bare.rows(1, repeatable=True)
    channel = MemoryChannel(failures=[SendError("timeout", unknown=True)])
    drain(bare, channel)
    bare.clock.advance(minutes=1)
    drain(bare, channel)
    assert bare.states() == {"sent": 1}


def test_patience_asked_for_is_not_a_try(bare: Bare) -> None:
    bare.rows(1)
    drain(bare, MemoryChannel(failures=[SendError("flood", retry_after=30.0)]))
    assert [(row.state, row.attempts) for row in bare.all()] == [("queued", 0)]
    assert bare.all()[0].not_before == NOON + timedelta(seconds=30)


def test_a_closed_window_defers(bare: Bare) -> None:
    bare.rows(1)
    drain(bare, MemoryChannel(failures=[SendError("window", permanent=True)]))
    assert [(row.state, row.reason) for row in bare.all()] == [("deferred", "window")]


def test_the_rest_of_several_bubbles_is_sent_after_a_fault(bare: Bare) -> None:
    bare.rows(1, body=dump_reply(say("一").then("二").then("三")))
    channel = MemoryChannel()
    drain_once = [None, SendError("busy")]

    @dataclass
    class Second(MemoryChannel):
        async def send(self, address: Address, part: Part, key: str) -> str:
            if drain_once and (error := drain_once.pop(0)) is not None:
                raise error
            return await channel.send(address, part, key)

    drain(bare, Second())
    assert bare.all()[0].parts_sent == 1
    bare.clock.advance(minutes=1)
    drain(bare, Second())
    assert [part.text for _address, part in channel.sent] == ["一", "二", "三"]


def test_a_channels_bug_leaves_the_row_unknown(bare: Bare) -> None:
    bare.rows(1)
    drain(bare, MemoryChannel(failures=[ZeroDivisionError()]))
    assert [(row.state, row.reason) for row in bare.all()] == [("unknown", "bug")]


def letter(bare: Bare, kind: str = "greeting") -> int:
    with bare.database.session() as session:
        row = Campaign(
            number="B-1",
            kind=kind,
            title="",
            occasion="b:1",
            purpose="letter",
            template="您好",
            created_at=NOON,
        )
        session.add(row)
        session.flush()
        return row.id or 0


def test_a_campaign_is_worded_when_it_leaves(bare: Bare) -> None:
    number = letter(bare)
    [person] = bare.people(1)
    bare.rows(1, campaign_id=number, person_id=person, body=None)
    channel = MemoryChannel()
    drain(bare, channel)
    assert [part.text for _address, part in channel.sent] == [f"您好{person}"]
    assert len(bare.all()[0].body_hash) == 64


def test_what_cannot_be_worded_fails_and_says_so(bare: Bare) -> None:
    number = letter(bare, "nobody knows this kind")
    [person] = bare.people(1)
    bare.rows(1, campaign_id=number, person_id=person, body=None)
    drain(bare, MemoryChannel())
    assert [(row.state, row.reason) for row in bare.all()] == [("failed", "render")]


async def stopped_amid_calls(bare: Bare, channel: Line) -> None:
    """Stop the loop while eight calls are held back, then let them go."""
    channel.gate = asyncio.Event()
    delivery = Delivery(bare.services, {"memory": channel}, alone=True, in_flight=8)
    task = asyncio.create_task(delivery.run())
    while len(channel.seen) < 8:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0)
    channel.gate.set()
    await asyncio.gather(task, return_exceptions=True)


def test_stopping_finishes_the_calls_under_way_and_gives_the_rest_back(bare: Bare) -> None:
    bare.rows(500)
    asyncio.run(stopped_amid_calls(bare, Line()))
    assert bare.states() == {"sent": 8, "queued": 492}


@pytest.mark.parametrize("later", range(5))
def test_stopping_while_somebody_calls_stops_all_the_same(bare: Bare, later: int) -> None:
    async def run() -> None:
        delivery = Delivery(bare.services, {"memory": MemoryChannel()}, alone=True)
        task = asyncio.create_task(delivery.run())
        await asyncio.sleep(0.1)
        delivery.wake()
        for _ in range(later):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        assert task.done()

    asyncio.run(run())


def test_never_more_calls_than_slots(bare: Bare) -> None:
    bare.rows(100)
    channel = Line()
    most = 0

    async def run() -> None:
        nonlocal most
        channel.gate = asyncio.Event()
        delivery = Delivery(bare.services, {"memory": channel}, alone=True, in_flight=8)
        task = asyncio.create_task(delivery.until_idle())
        while len(channel.seen) < 8:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        most = len(channel.seen)
        assert bare.states()["sending"] == 8
        channel.gate.set()
        await task

    asyncio.run(run())
    assert most == 8
    assert bare.states() == {"sent": 100}


@dataclass
class Counted(MemoryChannel):
    """A quick channel that counts its calls under way."""

    now: int = 0
    most: int = 0

    async def send(self, address: Address, part: Part, key: str) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.003)
        self.now -= 1
        return await super().send(address, part, key)


def test_quick_calls_are_never_more_than_their_slots(bare: Bare) -> None:
    bare.rows(600)
    channel = Counted()
    delivery = Delivery(bare.services, {"memory": channel}, alone=True, in_flight=8)
    delivery._ending_soon = lambda now: 4  # type: ignore[method-assign]
    asyncio.run(delivery.until_idle())
    assert 0 < channel.most <= 8
    assert bare.states() == {"sent": 600}


def let_more_pass(delivery: Delivery, more: int) -> None:
    """Let so many rows more pass the gate than there are calls for, once."""
    expected = [more]

    def soon(now: float) -> int:
        return expected.pop() if expected and len(delivery._lines) == 8 else 0

    delivery._ending_soon = soon  # type: ignore[method-assign]


def test_what_passed_the_gate_and_finds_no_call_free_asks_again(bare: Bare) -> None:
    """Two calls were about to end, so two rows more passed the gate; then nothing ends."""
    bare.rows(100)
    channel = Line()

    async def run() -> None:
        channel.gate = asyncio.Event()
        delivery = Delivery(bare.services, {"memory": channel}, alone=True, in_flight=8)
        let_more_pass(delivery, 2)
        task = asyncio.create_task(delivery.until_idle())
        while bare.states().get("sending") != 10:
            await asyncio.sleep(0.001)
        assert len(channel.seen) == 8
        while bare.states()["sending"] != 8:
            await asyncio.sleep(0.01)
        assert len(channel.seen) == 8
        channel.gate.set()
        await task

    asyncio.run(run())
    assert bare.states() == {"sent": 100}
    assert len(channel.seen) == len(set(channel.seen)) == 100


def test_nothing_leaves_that_waited_for_a_call_until_others_may_have_judged_it(bare: Bare) -> None:
    """A process that stood still: what had passed its gate by then asks again."""
    bare.rows(20)
    beyond: list[bool] = []

    class Watched(Line):
        async def send(self, address: Address, part: Part, key: str) -> str:
            beyond.append(delivery._fenced())
            return await super().send(address, part, key)

    channel = Watched()
    delivery = Delivery(bare.services, {"memory": channel}, alone=True, in_flight=8)

    async def run() -> None:
        channel.gate = asyncio.Event()
        let_more_pass(delivery, 2)
        task = asyncio.create_task(delivery.until_idle())
        while bare.states().get("sending") != 10:
            await asyncio.sleep(0.001)
        delivery._lived -= 60
        channel.gate.set()
        await task

    asyncio.run(run())
    assert beyond == [False] * 20
    assert len(set(channel.seen)) == 20
    assert bare.states() == {"sent": 20}


def test_what_was_taken_back_while_no_call_was_free_leaves_once(bare: Bare) -> None:
    """The answer to a gate's COMMIT is lost; the row is claimed anew before a call is free."""
    bare.rows(9)
    channel, lost = Line(), list[int]()
    delivery = Delivery(bare.services, {"memory": channel}, alone=True, in_flight=8)
    let_more_pass(delivery, 1)
    real = delivery._write

    def write(outcomes: Any, ripe: Any, *rest: Any) -> Any:
        leave = real(outcomes, ripe, *rest)
        if len(delivery._lines) == 8 and ripe and not lost:
            lost.append(ripe[0].row.id)
            raise OperationalError("COMMIT", None, Exception("gone"))
        return leave

    async def run() -> None:
        channel.gate = asyncio.Event()
        delivery._write = write  # type: ignore[method-assign]
        task = asyncio.create_task(delivery.run())
        while not lost:
            await asyncio.sleep(0.01)
        while bare.states() != {"sending": 8, "leased": 1} or delivery._doubtful:
            await asyncio.sleep(0.01)
        channel.gate.set()
        while bare.states() != {"sent": 9}:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert len(channel.seen) == len(set(channel.seen)) == 9


def test_what_was_taken_from_us_while_its_call_lasts_is_not_called_again(bare: Bare) -> None:
    """Others thought us dead, the row waited again and became ours again; then the call ends."""
    bare.rows(1, repeatable=True)
    channel = Line()
    delivery = Delivery(bare.services, {"memory": channel}, alone=False, in_flight=8)

    async def run() -> None:
        channel.gate = asyncio.Event()
        task = asyncio.create_task(delivery.run())
        while not channel.seen:
            await asyncio.sleep(0.001)
        with bare.database.transaction() as connection:
            swept = claims.sweep(connection, "another", timedelta(seconds=10), alone=True)
        assert swept == 1
        while bare.states() != {"sending": 1}:
            delivery.wake()
            await asyncio.sleep(0.001)
        channel.gate.set()
        while bare.states() != {"sent": 1}:
            await asyncio.sleep(0.001)
        bare.queue(range(1), occasion="the next to the same address")
        while bare.states() != {"sent": 2}:
            delivery.wake()
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert channel.seen == ["1-0", "2-0"]


def test_of_two_copies_of_a_row_that_passed_the_one_claimed_last_leaves(bare: Bare) -> None:
    """An exchange that failed put one back, while a claim brought the row anew."""
    bare.rows(1)
    delivery = Delivery(bare.services, {"memory": MemoryChannel()}, alone=True)
    with bare.database.transaction() as connection:
        [row] = claims.claim(connection, "memory:bulk", delivery.worker, NOON, 1)
    taken: list[Ready] = []
    delivery._lines.take = taken.append  # type: ignore[method-assign, assignment]
    older, newer = (
        Ready(row._replace(attempts=tries, parts_sent=tries), (), "", 0.0) for tries in (0, 1)
    )
    delivery._launch([older, newer], _Leave(passed=frozenset({row.id})))
    assert taken == [newer]


@pytest.mark.parametrize("address", ["memory:4200:somebody", "nowhere"])
def test_what_breaks_on_its_way_to_the_platform_is_unknown(bare: Bare, address: str) -> None:
    class Broken(MemoryChannel):
        async def send(self, address: Address, part: Part, key: str) -> str:
            raise asyncio.CancelledError

    bare.rows(1, address=address)
    drain(bare, Broken())
    assert [(row.state, row.reason) for row in bare.all()] == [("unknown", "bug")]


def test_when_time_is_up_what_follows_a_call_that_hangs_waits_again(
    bare: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.delivery.FINISH", 0.3)
    for occasion in range(3):
        bare.rows(1, occasion=f"{occasion}")
    channel = Line()

    async def run() -> None:
        channel.gate = asyncio.Event()
        delivery = Delivery(bare.services, {"memory": channel}, alone=True, in_flight=8)
        task = asyncio.create_task(delivery.run())
        while bare.states() != {"sending": 3}:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert bare.states() == {"sending": 1, "queued": 2}
        channel.gate.set()
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert channel.seen == ["1-0"]


def test_a_call_that_hangs_does_not_keep_the_others_from_being_written_down(
    bare: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.delivery.FINISH", 0.3)
    bare.rows(8)

    class OneHangs(Line):
        async def send(self, address: Address, part: Part, key: str) -> str:
            sent = await super().send(address, part, key)
            if key == self.seen[0]:
                await asyncio.sleep(3600)
            return sent

    asyncio.run(stopped_amid_calls(bare, OneHangs()))
    assert bare.states() == {"sent": 7, "sending": 1}


def test_more_pass_the_gate_only_while_calls_end_quickly(bare: Bare) -> None:
    delivery = Delivery(bare.services, {"memory": MemoryChannel()}, alone=True, in_flight=8)
    delivery._gating_takes.note(0.005)
    assert delivery._ending_soon(100.0) == 0  # nobody knows how long a call takes
    delivery._lines.usual.note(0.020)
    assert delivery._ending_soon(100.0) == 2
    delivery._lines._since[1] = 99.0
    assert delivery._ending_soon(100.0) == 0
    delivery._lines._since.clear()
    counted = SimpleNamespace(row=SimpleNamespace(windowed=True))
    delivery._ready = [counted]  # type: ignore[list-item]
    assert delivery._ending_soon(100.0) == 0
    delivery._ready.clear()
    delivery._gating_takes.note(10.0)
    assert 8 + delivery._ending_soon(100.0) == most_sending(8) == 12


def test_a_database_in_trouble_loses_no_result(bare: Bare) -> None:
    """The acknowledgement fails; it is kept and written when the database is back."""
    bare.rows(3)
    channel = MemoryChannel()
    delivery = Delivery(bare.services, {"memory": channel}, alone=True)
    broken = {"times": 2}
    real = delivery._write

    def write(*arguments: object) -> object:
        if arguments[0] and broken["times"]:
            broken["times"] -= 1
            raise OSError("disk")
        return real(*arguments)  # type: ignore[arg-type]

    delivery._write = write  # type: ignore[method-assign, assignment]  # the disk, not our code
    asyncio.run(delivery.until_idle())
    assert bare.states() == {"sent": 3}
    assert len(channel.sent) == 3


# - what may have arrived -

HALF_AN_HOUR = timedelta(minutes=30)
SURE = ChannelFacts("memory", known_for=HALF_AN_HOUR)


@pytest.fixture
def sure(tmp_path: Path) -> Iterator[Bare]:
    """Its platform takes a message of the same key for the one that it has, for half an hour."""
    made = Bare(f"sqlite:///{tmp_path}/sure.db", {"memory": SURE})
    made.lane(known_ms=1_800_000)
    yield made
    made.close()


def test_what_may_have_arrived_is_said_again_under_its_key(sure: Bare) -> None:
    sure.rows(1)
    line = Line(failures=[SendError("timeout", unknown=True)])
    drain(sure, line)
    assert sure.states() == {"queued": 1}
    sure.clock.advance(minutes=1)
    drain(sure, line)
    assert sure.states() == {"sent": 1}
    assert len(line.seen) == 2
    assert len(set(line.seen)) == 1


def test_after_the_platform_has_forgotten_the_key_a_person_decides(sure: Bare) -> None:
    sure.rows(1)
    line = Line(failures=[SendError("timeout", unknown=True)])
    drain(sure, line)
    sure.clock.advance(minutes=30)
    drain(sure, line)
    assert [(row.state, row.reason) for row in sure.all()] == [("unknown", "no_answer")]
    assert len(line.seen) == 1


def test_a_definite_failure_after_an_uncertain_one_stays_uncertain(sure: Bare) -> None:
    sure.rows(1)
    busy = [SendError("busy") for _ in range(TRIES)]
    line = Line(failures=[SendError("timeout", unknown=True), *busy])
    for _try in range(TRIES):
        drain(sure, line)
        sure.clock.advance(minutes=2)
    assert [(row.state, row.attempts) for row in sure.all()] == [("unknown", TRIES)]


def test_what_certainly_did_not_arrive_may_wait_longer_than_keys_are_known(sure: Bare) -> None:
    sure.rows(1)
    line = Line(failures=[SendError("busy")])
    drain(sure, line)
    sure.clock.advance(days=1)
    drain(sure, line)
    assert sure.states() == {"sent": 1}


@pytest.mark.parametrize("stop", ["cancelled", "expired"])
def test_of_what_may_have_arrived_nobody_says_that_it_never_left(sure: Bare, stop: str) -> None:
    number = letter(sure)
    sure.rows(1, campaign_id=number, expires_at=NOON + timedelta(minutes=1))
    drain(sure, Line(failures=[SendError("timeout", unknown=True)]))
    with sure.database.transaction() as connection:
        if stop == "cancelled":
            steering.cancel(connection, number)
        else:
            steering.expire_overdue(connection, NOON + timedelta(minutes=1))
    assert sure.states() == {"unknown": 1}


# - slots -


@dataclass
class Slow(MemoryChannel):
    """Notes when its calls began."""

    began: list[float] = field(default_factory=list)

    async def send(self, address: Address, part: Part, key: str) -> str:
        self.began.append(time.monotonic())
        return ""


def test_a_row_that_missed_its_slot_asks_for_another_instead_of_crowding(tmp_path: Path) -> None:
    """The loop is held up for five slots: the rows of those do not all leave at once after it."""
    facts = ChannelFacts("memory", bulk_gap_ms=20)
    bare = Bare(f"sqlite:///{tmp_path}/slots.db", {"memory": facts})
    bare.rows(20)
    line = Slow()

    async def run() -> Delivery:
        delivery = Delivery(bare.services, {"memory": line}, alone=True)
        draining = asyncio.create_task(delivery.until_idle())
        while len(line.began) < 5:
            await asyncio.sleep(0.001)
        time.sleep(0.1)  # noqa: ASYNC251  # what is held up is the loop itself
        await draining
        return delivery

    delivery = asyncio.run(run())
    assert bare.states() == {"sent": 20}
    assert delivery.counters.late > 0
    # In any span of so many slots no more than one row too many.
    spans = [line.began[n + 6] - line.began[n] for n in range(14)]
    assert min(spans) >= 5 * 0.020
    bare.close()


# - the night -


def test_when_its_readers_night_comes_a_row_waits_and_those_abroad_get_theirs(
    tmp_path: Path,
) -> None:
    """Half past nine in Beijing: a drain that has gone on till now stops there, by each zone."""
    bare = Bare(f"sqlite:///{tmp_path}/night.db")
    letters = replace(bare.services.catalog, values={Purpose: [Purpose("letter", "信")]})
    services = replace(bare.services, catalog=letters)
    bare.lane()
    here, there = bare.people(2)
    with bare.database.transaction() as connection:
        abroad = update(Person).where(col(Person.id) == there)
        connection.execute(abroad.values(timezone="Europe/Zurich"))
    for person in (here, there):
        address = f"memory:t:p{person}"
        bare.rows(1, recipient=f"p{person}", person_id=person, purpose="letter", address=address)
    bare.clock.advance(hours=9, minutes=30)
    delivery = Delivery(services, {"memory": MemoryChannel()}, alone=True)
    asyncio.run(delivery.until_idle())
    morning = NOON + timedelta(hours=20, minutes=30)
    assert [(row.state, row.not_before) for row in bare.all()] == [
        ("queued", morning),
        ("sent", NOON),
    ]
    bare.clock.advance(hours=11)
    asyncio.run(delivery.until_idle())
    assert bare.states() == {"sent": 2}
    bare.close()
