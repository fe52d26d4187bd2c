"""The notice's promise: asked once after two years, forgotten after three."""

from sqlmodel import select

from storage.people import ConsentEntry, Person
from storage.profiles import MemberProfile
from tests.people import register_many, who
from tests.world import World

MEMBER = who(0)


def profiles(world: World) -> int:
    with world.database.reading() as session:
        return len(session.exec(select(MemberProfile)).all())


def ledger(world: World) -> int:
    with world.database.reading() as session:
        return len(session.exec(select(ConsentEntry)).all())


def asked(world: World, member: str) -> int:
    return len([text for text in world.received(member) if "两年没有更新" in text])


def test_a_member_is_asked_once_after_two_years(world: World) -> None:
    register_many(world, 1)
    world.at("2028-03-10 10:30")
    assert asked(world, MEMBER) == 0
    world.steps("2028-03-20 10:30", days=1)
    assert asked(world, MEMBER) == 1


def test_who_says_that_nothing_changed_is_kept(world: World) -> None:
    register_many(world, 1)
    world.at("2028-03-12 10:30")
    assert "已确认" in world.says(MEMBER, "无变化")
    world.at("2029-03-20 10:30")
    assert profiles(world) == 1


def test_who_never_answers_is_forgotten_after_three_years(world: World) -> None:
    register_many(world, 1)
    world.at("2029-03-05 10:30")
    assert profiles(world) == 1
    world.at("2029-03-20 10:30")
    assert profiles(world) == 0
    before = len(world.received(MEMBER))
    world.at("2029-09-22 10:30")
    assert len(world.received(MEMBER)) == before


def test_what_proves_consent_goes_three_years_after_leaving(world: World) -> None:
    world.talk(MEMBER, "登记", "不同意")
    person = world.person(MEMBER)
    with world.database.session() as session:
        session.get_one(Person, person).silent_since = world.clock.now()
    world.at("2029-03-05 10:30")
    assert ledger(world) == 1
    world.at("2029-03-20 10:30")
    assert ledger(world) == 0


def test_who_has_no_profile_is_told_how_to_register(world: World) -> None:
    assert "登记" in world.says("外人", "无变化")
