"""A channel that owes messages and sends none is noticed, whatever the wall clock does."""

from __future__ import annotations

from bot.context import outbox_row
from bot.messages import say
from bot.stalls import PATIENCE, Stalls
from handlers.purposes import DUTY
from storage import mailbox
from tests.people import who
from tests.world import World

LONG = PATIENCE.total_seconds() + 1


def owing(world: World) -> Stalls:
    """The member is owed a message that nobody sends; its watch, having looked once."""
    world.grant("小王", "admin")
    world.grant("小王", "coordinator")
    world.says(who(0), "菜单")
    world.says("小王", "菜单")
    member = world.person(who(0))
    with world.database.session() as session:
        row = outbox_row(
            world.app.services,
            session,
            member,
            say("在吗"),
            occasion="owed",
            purpose=DUTY,
            now=world.clock.now(),
        )
        assert row is not None
        mailbox.enqueue(session.connection(), [row])
    watch = Stalls(world.app.services, world.app.delivery.counters.moved)
    watch.look(0)
    return watch


def told(world: World) -> int:
    return len([text for text in world.news("小王") if "十分钟没有动静" in text])


def test_ten_minutes_without_a_move_reach_those_on_duty_once(world: World) -> None:
    watch = owing(world)
    watch.look(LONG)
    watch.look(2 * LONG)
    world.drain()
    assert told(world) == 1


def test_a_jump_of_the_wall_clock_is_no_stall(world: World) -> None:
    watch = owing(world)
    world.clock.advance(days=1)
    watch.look(30)
    world.drain()
    assert told(world) == 0


def test_what_moves_is_no_stall(world: World) -> None:
    watch = owing(world)
    lane = world.channel.facts.lane(urgent=False)
    for minute in range(1, 30):
        world.app.delivery.counters.moved[lane] += 1
        watch.look(minute * 60)
    world.drain()
    assert told(world) == 0
