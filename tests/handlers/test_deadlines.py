"""Every moment of the report month, in months that end on odd days too."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from bot.clock import BEIJING, QuietHours
from handlers.deadlines import (
    FilingState,
    Step,
    WorkingDayRule,
    counted_from,
    days_late,
    filing_state,
    freeze,
    moments,
    reminders,
    snooze,
)
from handlers.periods import Month
from tests.handlers.first_quarter import at

FEBRUARY = Month(2026, 2)
MARCH = Month(2026, 3)
MAY = Month(2026, 5)
QUIET = QuietHours()

# The State Council's notice for 2026: 15 to 23 February are free, 14 and 28 February are worked.
HOLIDAYS = {date(2026, 2, 15) + timedelta(days=each) for each in range(9)}
WORKED_WEEKENDS = {date(2026, 2, 14), date(2026, 2, 28)}


def works(day: date) -> bool:
    return day in WORKED_WEEKENDS or (day.weekday() < 5 and day not in HOLIDAYS)


def shown(month: Month, snoozed: str | None = None) -> list[tuple[str, str]]:
    said_at = None if snoozed is None else at(snoozed)
    return [
        (each.step.value, f"{each.at:%m-%d %H:%M}") for each in reminders(month, works, said_at)
    ]


def free_from(first: date) -> WorkingDayRule:
    """Weekdays are worked until a long holiday begins on `first`."""
    return lambda day: day < first and day.weekday() < 5


def test_march_2026_has_all_its_moments_in_beijing_time() -> None:
    due = [(each.step, each.at.isoformat()) for each in moments(MARCH, works)]
    assert due == [
        (Step.OPENING, "2026-03-25T09:30:00+08:00"),
        (Step.SECOND_REMINDER, "2026-03-30T10:00:00+08:00"),
        (Step.LAST_DAY_MORNING, "2026-03-31T10:00:00+08:00"),
        (Step.LAST_DAY_AFTERNOON, "2026-03-31T17:00:00+08:00"),
        (Step.CUT_OFF, "2026-03-31T23:59:59+08:00"),
        (Step.LATE_LIST, "2026-04-01T09:30:00+08:00"),
        (Step.ESCALATION, "2026-04-03T09:30:00+08:00"),
        (Step.FREEZE, "2026-04-05T18:00:00+08:00"),
        (Step.BULLETIN, "2026-04-08T10:00:00+08:00"),
    ]


def test_february_2026_ends_on_a_worked_saturday() -> None:
    assert shown(FEBRUARY) == [
        ("opening", "02-25 09:30"),
        ("second_reminder", "02-27 10:00"),
        ("last_day_morning", "02-28 10:00"),
        ("last_day_afternoon", "02-28 17:00"),
    ]


def test_may_2026_ends_on_a_sunday_and_reminds_on_friday_instead_of_thursday() -> None:
    assert shown(MAY) == [
        ("opening", "05-25 09:30"),
        ("working_day_before", "05-29 10:00"),
        ("last_day_morning", "05-31 10:00"),
        ("last_day_afternoon", "05-31 17:00"),
    ]


def test_december_runs_into_the_next_year() -> None:
    due = {each.step: each.at for each in moments(Month(2026, 12), works)}
    assert f"{due[Step.BULLETIN]:%Y-%m-%d}" == "2027-01-08"


def test_a_reminder_before_the_report_is_open_is_left_out() -> None:
    steps = [each.step for each in reminders(MAY, free_from(date(2026, 5, 23)))]
    assert steps == [Step.OPENING, Step.LAST_DAY_MORNING, Step.LAST_DAY_AFTERNOON]


def test_a_reminder_on_the_opening_day_itself_is_left_out() -> None:
    steps = [each.step for each in reminders(MAY, free_from(date(2026, 5, 26)))]
    assert steps == [Step.OPENING, Step.LAST_DAY_MORNING, Step.LAST_DAY_AFTERNOON]


def test_a_month_without_working_days_still_has_its_last_day() -> None:
    steps = [each.step for each in reminders(MAY, lambda day: False)]
    assert steps == [Step.OPENING, Step.LAST_DAY_MORNING, Step.LAST_DAY_AFTERNOON]


def test_later_on_the_last_day_moves_the_afternoon_reminder_to_20_00() -> None:
    assert shown(MARCH, "2026-03-31T10:02") == [
        ("opening", "03-25 09:30"),
        ("second_reminder", "03-30 10:00"),
        ("last_day_morning", "03-31 10:00"),
        ("snoozed", "03-31 20:00"),
    ]


def test_later_on_an_earlier_day_adds_one_reminder_and_makes_five_at_most() -> None:
    assert shown(MARCH, "2026-03-25T09:40") == [
        ("opening", "03-25 09:30"),
        ("snoozed", "03-25 20:00"),
        ("second_reminder", "03-30 10:00"),
        ("last_day_morning", "03-31 10:00"),
        ("last_day_afternoon", "03-31 17:00"),
    ]


@pytest.mark.parametrize("month", [Month(2026, number) for number in range(1, 13)], ids=str)
def test_no_leader_is_reminded_more_than_five_times_or_at_a_quiet_hour(month: Month) -> None:
    opened = reminders(month, works)[0].at
    for hours in range(7 * 24):
        planned = reminders(month, works, opened + timedelta(hours=hours))
        assert len(planned) <= 5
        assert [each for each in planned if QUIET.after(each.at, BEIJING) != each.at] == []
        assert list(planned) == sorted(planned, key=lambda each: each.at)


@pytest.mark.parametrize(
    "said_at",
    ["2026-03-24T12:00", "2026-03-31T20:00", "2026-03-31T22:00", "2026-04-01T09:40"],
)
def test_later_means_nothing_before_opening_after_20_00_or_after_the_end(said_at: str) -> None:
    assert snooze(at(said_at), MARCH) is None
    assert len(reminders(MARCH, works, at(said_at))) == 4


@pytest.mark.parametrize(
    ("filed_at", "expected"),
    [
        ("2026-03-30T16:20:00", 0),
        ("2026-03-31T23:59:59", 0),
        ("2026-04-01T00:00:00", 1),
        ("2026-04-02T09:12:00", 2),
    ],
)
def test_lateness_is_counted_in_calendar_days_after_the_last_day(
    filed_at: str, expected: int
) -> None:
    assert days_late(at(filed_at), MARCH) == expected


def test_lateness_is_counted_in_beijing_whatever_the_zone_of_the_moment() -> None:
    assert days_late(datetime(2026, 3, 31, 15, 59, 59, tzinfo=UTC), MARCH) == 0
    assert days_late(datetime(2026, 3, 31, 16, 0, tzinfo=UTC), MARCH) == 1


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        days_late(at("2026-03-31T12:00").replace(tzinfo=None), MARCH)


@pytest.mark.parametrize(
    ("entered_at", "expected"),
    [
        ("2026-03-03T09:00", "2026-02"),
        ("2026-03-05T18:00:00", "2026-02"),
        ("2026-03-05T18:00:01", "2026-03"),
        ("2026-04-15T10:00", "2026-04"),
    ],
)
def test_what_arrives_after_the_freeze_counts_in_the_next_open_month(
    entered_at: str, expected: str
) -> None:
    assert str(counted_from(FEBRUARY, at(entered_at))) == expected


@pytest.mark.parametrize(
    ("filed_at", "now", "expected"),
    [
        (None, "2026-03-31T23:59:59", FilingState.NOT_DUE),
        (None, "2026-04-01T09:30", FilingState.OUTSTANDING),
        (None, "2026-04-05T18:00:01", FilingState.MISSING),
        ("2026-03-31T23:59:59", "2026-04-08T10:00", FilingState.ON_TIME),
        ("2026-04-02T09:12", "2026-04-08T10:00", FilingState.LATE),
        ("2026-04-02T09:12", "2026-04-01T09:30", FilingState.OUTSTANDING),
        ("2026-04-15T10:00", "2026-04-16T10:00", FilingState.BACKFILLED),
    ],
)
def test_a_team_stands_with_its_report_as_the_calendar_says(
    filed_at: str | None, now: str, expected: FilingState
) -> None:
    first_filed_at = None if filed_at is None else at(filed_at)
    assert filing_state(first_filed_at, MARCH, at(now)) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-03-31T21:29", "03-31 21:29"),
        ("2026-03-31T21:30", "04-01 08:30"),
        ("2026-04-01T00:05", "04-01 08:30"),
        ("2026-04-01T08:29", "04-01 08:30"),
        ("2026-04-01T08:30", "04-01 08:30"),
    ],
)
def test_quiet_hours_put_a_message_off_until_morning(moment: str, expected: str) -> None:
    assert f"{QUIET.after(at(moment), BEIJING):%m-%d %H:%M}" == expected


def test_the_freeze_is_at_18_00_on_the_fifth() -> None:
    assert freeze(FEBRUARY) == datetime(2026, 3, 5, 10, 0, tzinfo=UTC)
