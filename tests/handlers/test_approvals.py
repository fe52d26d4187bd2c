"""Four eyes: whose voice counts, and what is meant by a code."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from sqlmodel import col, select

from storage.approvals import Approval
from storage.people import Grant
from tests.people import HOMES, register_many
from tests.world import World


@pytest.fixture
def office(make_world: Callable[..., World]) -> World:
    world = make_world(start="2026-09-24 10:00")
    register_many(world, 51, homes=HOMES[:1])
    for clerk in ("小王", "小李", "小周"):
        world.grant(clerk, "coordinator")
    world.grant("老赵", "leader")
    return world


def code_in(answer: str) -> str:
    found = re.search(r"(?:哈希|确认发送) (\w{4})", answer)
    assert found, answer
    return found[1]


def test_the_voice_of_somebody_who_has_lost_the_role_no_longer_counts(office: World) -> None:
    code = code_in(office.says("小王", "信件 提交 中秋"))
    assert "还需1人同意" in office.says("小李", f"同意 {code}")
    person = office.person("小李")
    with office.database.session() as session:
        left = session.exec(select(Grant).where(Grant.person_id == person)).one()
        left.revoked_at = office.clock.now()
        session.add(left)
    assert "还需1人同意" in office.says("老赵", f"同意 {code}")
    assert "已批准" in office.says("小周", f"同意 {code}")


def test_a_code_that_fits_two_requests_asks_which(office: World) -> None:
    for title in ("政策更新", "园区开工"):
        office.talk("小王", "群发", "3", title, f"{title}，请看。", "全体", "立即", "提交")
    with office.database.session() as session:
        first, second = session.exec(select(Approval).order_by(col(Approval.number))).all()
        code, longer = first.content_hash[:4], first.content_hash[:8]
        second.content_hash = f"{code}{'0' * 60}"
        session.add(second)
    answer = office.says("小李", f"同意 {code}")
    assert f"政策更新（51人）：同意 {longer}" in answer
    assert f"同意 {code}0000" in answer
    assert "已批准" in office.says("小李", f"同意 {longer}")
