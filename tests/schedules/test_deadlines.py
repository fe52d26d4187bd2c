"""The monthly report's calendar, beat by beat: once each, in time, to those who owe."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from bot.context import Services
from handlers.place import SHIPPED
from schedules.deadlines import upcoming
from storage.organisation import DayOverride, FieldTeam, TeamMember, TeamTarget, Unit
from storage.reports import Report
from tests.filing import Filed, file_report
from tests.world import World

LEADER, LIAISON, COORDINATOR = "带队", "联络", "统筹"
EVERYTHING = (
    *("03-25 09:30", "03-30 10:00", "03-31 10:00", "03-31 17:00"),
    *("04-01 09:30", "04-03 09:30", "04-05 18:00", "04-08 10:00"),
)


@pytest.fixture
def county(make_world: Callable[..., World]) -> World:
    """One team with its leader, its unit's liaison and a coordinator, on 20 March 2026."""
    return with_team(make_world(place="gongan", start="2026-03-20 09:00"))


def with_team(world: World) -> World:
    with world.database.session() as session:
        unit = Unit(name="派出单位甲")
        session.add(unit)
        session.flush()
        team = FieldTeam(code="T1", name="长三角驻点小分队", unit_id=unit.id or 0, center="上海市")
        session.add(team)
        session.flush()
        session.add(TeamMember(team_id=team.id or 0, name="A1", leads=True))
        session.add(TeamTarget(team_id=team.id or 0, year=2026, target_yuan=100_000_000))
        ids = {"team_id": team.id, "unit_id": unit.id}
    world.grant(LEADER, "team_leader", team_id=ids["team_id"])
    world.grant(LIAISON, "unit_liaison", unit_id=ids["unit_id"])
    world.grant(COORDINATOR, "coordinator")
    return world


def file_march(world: World) -> None:
    file_report(world, LEADER, Filed("T1", "2026-03", [20]))


def arrivals(world: World, who: str, *moments: str) -> list[tuple[str, int]]:
    """How many messages arrived at each moment."""
    world.news(who)
    found = []
    for moment in moments:
        world.at(f"2026-{moment}")
        found.append((moment, len(world.news(who))))
    return found


def test_a_leader_who_does_not_file_is_reminded_four_times(county: World) -> None:
    assert arrivals(
        county,
        LEADER,
        *("03-25 09:29", "03-25 09:30", "03-26 10:00", "03-30 10:00"),
        *("03-31 09:59", "03-31 10:00", "03-31 17:00", "03-31 20:00", "03-31 23:59"),
    ) == [
        ("03-25 09:29", 0),
        ("03-25 09:30", 1),
        ("03-26 10:00", 0),
        ("03-30 10:00", 1),
        ("03-31 09:59", 0),
        ("03-31 10:00", 1),
        ("03-31 17:00", 1),
        ("03-31 20:00", 0),
        ("03-31 23:59", 0),
    ]


def test_any_number_of_beats_says_each_thing_once(county: World) -> None:
    for moment in EVERYTHING:
        county.at(f"2026-{moment}")
        county.settle()
        county.passes(minutes=40)
    said = county.received(LEADER)
    assert len(said) == len(set(said)) == 5
    assert len([t for t in county.received(COORDINATOR) if "迟报清单" in t]) == 1
    assert len([t for t in county.received(COORDINATOR) if "已冻结" in t]) == 1
    assert len(county.received(LIAISON)) == 2


def test_another_process_on_the_same_tables_repeats_nothing(county: World) -> None:
    county.at("2026-03-25 09:30")
    county.restart()
    county.settle()
    assert len(county.received(LEADER)) == 1


def test_whoever_filed_is_left_in_peace(county: World) -> None:
    county.at("2026-03-25 09:30")
    county.news(LEADER)
    file_march(county)
    assert arrivals(county, LEADER, "03-30 10:00", "03-31 10:00", "03-31 17:00", "04-01 09:30") == [
        ("03-30 10:00", 0),
        ("03-31 10:00", 0),
        ("03-31 17:00", 0),
        ("04-01 09:30", 0),
    ]


def test_later_moves_the_afternoon_reminder_to_eight_once(county: World) -> None:
    county.at("2026-03-31 10:00")
    answer = county.says(LEADER, "稍后")
    again = county.says(LEADER, "稍后")
    assert answer == again == "好，已记为「稍后」，今晚20:00只再提醒您这一次。"
    assert arrivals(county, LEADER, "03-31 17:00", "03-31 20:00", "03-31 20:30") == [
        ("03-31 17:00", 0),
        ("03-31 20:00", 1),
        ("03-31 20:30", 0),
    ]


def test_later_on_every_day_never_makes_more_than_five(county: World) -> None:
    county.at("2026-03-25 09:30")
    county.says(LEADER, "稍后")
    for moment in ("03-25 20:00", "03-30 10:00"):
        county.at(f"2026-{moment}")
    refused = county.says(LEADER, "稍后")
    for moment in ("03-30 20:00", "03-31 10:00"):
        county.at(f"2026-{moment}")
    county.says(LEADER, "稍后")
    for moment in ("03-31 17:00", "03-31 20:00"):
        county.at(f"2026-{moment}")
    assert refused == "本月最多提醒5次，今晚不再另提；下次提醒照常。随时回「月报」填报。"
    assert len(county.received(LEADER)) == 5


def test_later_means_nothing_after_the_report_is_in(county: World) -> None:
    county.at("2026-03-31 10:00")
    file_march(county)
    assert county.says(LEADER, "稍后") == "3月月报已经收到，不会再提醒您。"


def test_a_month_that_ends_on_a_rest_day_reminds_on_the_working_day_before(
    make_world: Callable[..., World],
) -> None:
    # 31 May 2026 is a Sunday; the last working day of the month is Friday the 29th.
    world = with_team(make_world(place="gongan", start="2026-05-20 09:00"))
    assert arrivals(
        world, LEADER, "05-25 09:30", "05-28 10:00", "05-29 10:00", "05-31 10:00", "05-31 17:00"
    ) == [
        ("05-25 09:30", 1),
        ("05-28 10:00", 0),
        ("05-29 10:00", 1),
        ("05-31 10:00", 1),
        ("05-31 17:00", 1),
    ]


def test_an_imported_day_off_moves_the_second_reminder(county: World) -> None:
    with county.database.session() as session:
        session.add(DayOverride(day="2026-03-30", working=False, reason="本县活动"))
    assert arrivals(county, LEADER, "03-27 10:00", "03-30 10:00") == [
        ("03-27 10:00", 1),
        ("03-30 10:00", 0),
    ]


def test_a_reminder_that_is_days_late_is_not_sent(county: World) -> None:
    county.at("2026-03-27 10:00")
    assert county.received(LEADER) == []


def test_coming_back_in_the_evening_of_the_last_day_sends_one_reminder(county: World) -> None:
    county.at("2026-03-31 18:30")
    assert len(county.received(LEADER)) == 1


def test_nobody_is_written_to_in_the_quiet_hours(county: World) -> None:
    for moment in ("03-31 22:00", "04-01 00:30", "04-01 08:00"):
        county.at(f"2026-{moment}")
    assert county.channel.sent == []


def test_the_first_tells_coordinators_leader_and_unit(county: World) -> None:
    county.at("2026-04-01 09:30")
    assert county.received(COORDINATOR) == [
        "2026年3月月报迟报清单（截至4月1日09:30）\n"
        "应报1队，已报0队，未报1队。\n"
        "1.长三角驻点小分队（派出单位甲）：未报"
    ]
    assert county.received(LEADER) == [
        "您好，3月月报尚未提交，已记为迟报。今天补上仍计入本月统计，回「月报」即可。"
        "需要帮忙回「人工」。"
    ]
    assert county.received(LIAISON) == [
        "您单位派出的长三角驻点小分队3月月报未提交（已催办带队人）。"
    ]


def test_a_late_start_on_the_second_still_sends_the_list_once(county: World) -> None:
    county.at("2026-04-02 14:00")
    county.at("2026-04-02 15:00")
    assert len(county.received(COORDINATOR)) == 1


def test_the_third_asks_the_unit_only(county: World) -> None:
    county.at("2026-04-01 09:30")
    for who in (LEADER, LIAISON, COORDINATOR):
        county.news(who)
    county.at("2026-04-03 09:30")
    assert county.news(LIAISON) == [
        "您单位派出的长三角驻点小分队3月月报至今未交，4月5日18:00冻结后记为缺报，请协助督促。"
    ]
    assert county.news(LEADER) == county.news(COORDINATOR) == []


def test_the_fifth_locks_what_was_filed(county: World) -> None:
    county.at("2026-03-31 12:00")
    file_march(county)
    county.at("2026-04-05 17:59")
    assert locked(county) == [False]
    county.at("2026-04-05 18:00")
    assert locked(county) == [True]


def test_a_freeze_missed_for_a_month_is_made_up_for_in_silence(county: World) -> None:
    county.clock.advance(days=11)
    file_march(county)
    county.at("2026-05-20 10:00")
    assert locked(county) == [True]
    assert [text for text in county.received(COORDINATOR) if "冻结" in text] == []


def locked(world: World) -> list[bool]:
    with world.database.reading() as session:
        return [each.locked_at is not None for each in session.exec(select(Report))]


def test_the_eighth_drafts_the_longest_bulletin_due(county: World) -> None:
    county.at("2026-03-31 12:00")
    file_march(county)
    county.at("2026-04-08 10:00")
    *_, text, words = county.received(COORDINATOR)
    assert text.startswith("2026年第一季度驻点招商情况通报（截至3月31日，草稿）")
    assert words == (
        "通报草稿已备好，请核对。看草稿回「通报 3月」、「通报 第一季度」，"
        "发布回「通报 发布 第一季度」，第二人同意后发布。"
    )


def test_a_month_nobody_reported_drafts_nothing(county: World) -> None:
    county.at("2026-04-08 10:00")
    assert [text for text in county.received(COORDINATOR) if "草稿" in text] == []


def test_a_place_without_monthly_reports_hears_nothing(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    shipped = (SHIPPED / "gongan.toml").read_text(encoding="utf-8")
    place = tmp_path / "quiet.toml"
    place.write_text(shipped.replace(', "monthly_reports"', ""), encoding="utf-8")
    world = with_team(make_world(place=str(place), start="2026-03-20 09:00"))
    for moment in EVERYTHING:
        world.at(f"2026-{moment}")
    assert world.channel.sent == []


def test_an_unannounced_year_is_named_in_the_coordinators_list(
    make_world: Callable[..., World],
) -> None:
    world = with_team(make_world(place="gongan", start="2035-03-20 09:00"))
    world.at("2035-03-31 10:00")
    world.at("2035-04-01 09:30")
    assert world.received(COORDINATOR)[0].splitlines()[-1] == (
        "2035年放假安排尚未公布，工作日暂按周一至周五算；公布后请导入假日表。"
    )


def test_the_coming_moments_are_listed(county: World) -> None:
    services: Services = county.app.services
    with county.database.reading() as session:
        coming = upcoming(services, session, county.clock.now(), timedelta(days=12))
    assert [(f"{at:%m-%d %H:%M}", words) for at, words in coming] == [
        ("03-25 09:30", "3月：月报开放，第一次提醒"),
        ("03-30 10:00", "3月：第二次提醒（未报者）"),
        ("03-31 10:00", "3月：当日提醒（未报者）"),
        ("03-31 17:00", "3月：当日再提醒（未报者）"),
        ("03-31 23:59", "3月：月报截止"),
    ]


def test_a_coordinator_reminds_a_team_once_a_day(county: World) -> None:
    county.at("2026-03-28 10:00")
    first = county.says(COORDINATOR, "催报")
    second = county.says(COORDINATOR, "催报 3月")
    county.drain()
    assert first == "已催报1队：长三角驻点小分队。"
    assert second == "没有新催的小分队。今天已提醒过或本月已满5次：长三角驻点小分队。"
    assert len(county.received(LEADER)) == 1


def test_the_late_list_is_one_command_away(county: World) -> None:
    county.at("2026-04-02 09:00")
    answer = county.says(COORDINATOR, "迟报")
    assert re.findall(r"^1\..*", answer, re.MULTILINE) == ["1.长三角驻点小分队（派出单位甲）：未报"]


def test_no_reminder_names_anybody(county: World) -> None:
    for moment in EVERYTHING:
        county.at(f"2026-{moment}")
    said = [part.text for _address, part in county.channel.sent]
    assert [text for text in said if "A1" in text] == []
    assert len(said) == 9
