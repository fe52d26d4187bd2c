"""What is said on PostgreSQL is answered as on SQLite, also when two replicas are told at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import func, select

from bot.app import App
from bot.messages import Inbound
from handlers.approvals import votes_of
from storage.approvals import Approval, ApprovalState
from storage.organisation import FieldTeam, TeamTarget, Unit
from storage.people import Contact, Grant, OneTimeCode, Person
from storage.sequences import next_number
from tests.playing import Player
from tests.world import World

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
PLAYED = [
    "登记_照告知同意",
    "撤回_确认码",
    "撤回_先退订后撤回",
    "删除_档案",
    "角色_两人授权",
    "群发_分群预览审批发送",
    "群发_暂停取消更正",
    "月报_口语填报与更正",
    "月报_冻结后更正与补报",
    "认定_少认要理由",
    "信件_中秋从起草到寄出",
    "通报_两人发布",
    "关联_两个渠道一个人",
    "关联_取消后各归各",
]


@pytest.fixture
def make(tmp_path: Path, new_postgres_url: Callable[[], str]) -> Iterator[Callable[..., World]]:
    """Makes worlds on PostgreSQL."""
    made: list[World] = []

    def new(**options: str) -> World:
        made.append(World(tmp_path, url=new_postgres_url(), **options))
        return made[-1]

    yield new
    for world in made:
        world.close()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()


@pytest.fixture
def replica(world: World) -> Iterator[App]:
    """A second process on the same database."""
    app = world._build()
    yield app
    app.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYED)
def test_the_dialogue_goes_as_on_sqlite(name: str, make: Callable[..., World]) -> None:
    Player(make).play(TRANSCRIPTS / f"{name}.txt")


class Meeting:
    """Lets both replicas come to a statement before either goes on, unless one waits for the
    other's lock: then the first goes on after a moment."""

    def __init__(self, statement: str, *apps: App) -> None:
        self._statement = statement
        self._barrier = threading.Barrier(len(apps))
        for app in apps:
            event.listen(app.services.database.engine, "before_cursor_execute", self._wait)

    def _wait(self, _c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if self._statement in statement:
            try:
                self._barrier.wait(0.5)
            except threading.BrokenBarrierError:
                return


def both(first: Callable[[], Any], second: Callable[[], Any]) -> list[Any]:
    """Do two things at once; what each returned or raised."""
    results: list[Any] = [None, None]

    def run(number: int, work: Callable[[], Any]) -> None:
        try:
            results[number] = work()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            results[number] = error

    threads = [
        threading.Thread(target=run, args=(number, work))
        for number, work in enumerate((first, second))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def told(app: App, inbound: Inbound) -> Callable[[], str]:
    return lambda: "\n".join(part.text for part in app.dispatcher.handle(inbound))


def count(world: World, table: type, *conditions: Any) -> int:
    with world.database.session() as session:
        return session.exec(select(func.count()).select_from(table).where(*conditions)).one()


@pytest.mark.parametrize("known", [True, False], ids=["known", "stranger"])
def test_a_message_given_to_two_replicas_is_answered_alike_and_done_once(
    world: World, replica: App, known: bool
) -> None:
    world.says("别人", "菜单")
    if known:
        world.says("乡亲", "菜单")
    inbound = world.inbound("乡亲", "登记")
    Meeting("INSERT INTO inbox", world.app, replica)
    answers = both(told(world.app, inbound), told(replica, inbound))
    assert answers[0] == answers[1]
    assert "同意" in answers[0]
    assert count(world, Person) == count(world, Contact) == 2


def test_two_votes_at_once_make_the_two_that_are_needed(world: World, replica: App) -> None:
    for who, role in (("甲", "coordinator"), ("乙", "leader"), ("丙", "coordinator")):
        world.grant(who, role)
    assert "已提交" in world.says("丙", "角色 授予 评审员")
    with world.database.session() as session:
        approval = session.exec(select(Approval)).one()
        approval.needed = 2
        session.add(approval)
        code = approval.content_hash[:4]
    Meeting("INSERT INTO approval_vote", world.app, replica)
    both(
        told(world.app, world.inbound("甲", f"同意 {code}")),
        told(replica, world.inbound("乙", f"同意 {code}")),
    )
    with world.database.session() as session:
        approval = session.exec(select(Approval)).one()
        assert len(votes_of(session, approval)) == 2
        assert approval.state == ApprovalState.GRANTED


def test_a_request_that_two_grant_at_once_takes_effect_once(world: World, replica: App) -> None:
    for who in ("甲", "乙", "丙"):
        world.grant(who, "coordinator")
    world.says("丙", "角色 授予 评审员")
    with world.database.session() as session:
        code = session.exec(select(Approval)).one().content_hash[:4]
    Meeting("INSERT INTO approval_vote", world.app, replica)
    answers = both(
        told(world.app, world.inbound("甲", f"同意 {code}")),
        told(replica, world.inbound("乙", f"同意 {code}")),
    )
    assert sorted("已批准" in answer for answer in answers) == [False, True]
    assert count(world, OneTimeCode, OneTimeCode.kind == "role") == 1


def test_a_code_that_two_type_at_once_gives_one_role(world: World, replica: App) -> None:
    for who in ("甲", "乙"):
        world.grant(who, "coordinator")
    for who in ("丁", "戊"):
        world.says(who, "菜单")
    world.says("甲", "角色 授予 评审员")
    with world.database.session() as session:
        hash = session.exec(select(Approval)).one().content_hash[:4]
    world.says("乙", f"同意 {hash}")
    world.drain()
    code = "".join(world.news("甲")).partition("授权码：")[2][:8]
    Meeting("INSERT INTO role_grant", world.app, replica)
    both(
        told(world.app, world.inbound("丁", f"领码 {code}")),
        told(replica, world.inbound("戊", f"领码 {code}")),
    )
    assert count(world, Grant, Grant.role == "reviewer") == 1


def test_the_first_numbers_are_given_out_without_a_quarrel(world: World, replica: App) -> None:
    Meeting("INSERT INTO sequence", world.app, replica)

    def number(app: App) -> Callable[[], int]:
        def take() -> int:
            with app.services.database.session() as session:
                return next_number(session, "a new year")

        return take

    assert sorted(both(number(world.app), number(replica))) == [1, 2]


def test_amounts_beyond_two_thousand_million_yuan_are_kept(world: World) -> None:

    with world.database.session() as session:
        session.add(Unit(name="派出单位甲"))
        session.flush()
        session.add(FieldTeam(code="T1", name="一队", unit_id=1, center="上海市"))
        session.flush()
        session.add(TeamTarget(team_id=1, year=2026, target_yuan=12_000_000_000))
    with world.database.session() as session:
        assert session.exec(select(TeamTarget.target_yuan)).one() == 12_000_000_000
