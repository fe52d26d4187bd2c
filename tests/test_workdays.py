"""Working days: announced years, imported years, and years nobody knows yet."""

from datetime import date, timedelta

import pytest

from bot.workdays import NotAnnounced, is_announced, is_working_day, nth_last_working_day


@pytest.mark.parametrize(
    ("day", "works"),
    [
        (date(2026, 2, 14), True),  # a Saturday made up for
        (date(2026, 2, 28), True),
        (date(2026, 2, 16), False),
        (date(2026, 2, 23), False),
        (date(2026, 3, 31), True),
        (date(2026, 3, 28), False),
        (date(2026, 10, 1), False),
    ],
)
def test_the_announced_year_is_known(day: date, works: bool) -> None:
    assert is_working_day(day, {}) is works


def test_an_override_goes_before_the_announcement() -> None:
    assert is_working_day(date(2026, 3, 31), {date(2026, 3, 31): False}) is False


def test_a_year_without_data_is_not_guessed() -> None:
    with pytest.raises(NotAnnounced) as caught:
        is_working_day(date(2099, 3, 31), {})
    assert caught.value.year == 2099


def test_one_local_exception_does_not_make_a_year_announced() -> None:
    overrides = {date(2099, 3, 30): False}
    assert is_working_day(date(2099, 3, 30), overrides) is False
    with pytest.raises(NotAnnounced):
        is_working_day(date(2099, 3, 31), overrides)


def test_an_imported_notice_makes_the_whole_year_known() -> None:
    notice = {date(2099, 1, 1): False, date(2099, 10, 1): False, date(2099, 10, 10): True}
    known = [date(2099, 10, 1), date(2099, 10, 10), date(2099, 3, 31), date(2099, 3, 29)]
    assert [is_working_day(day, notice) for day in known] == [False, True, True, False]


def test_whether_a_year_is_announced_can_be_asked() -> None:
    notice = {date(2099, 1, 1): False, date(2099, 10, 1): False}
    assert [is_announced(2026, {}), is_announced(2099, {}), is_announced(2099, notice)] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("year", "month", "n", "day"),
    [
        (2026, 3, 2, date(2026, 3, 30)),
        (2026, 2, 1, date(2026, 2, 28)),
        (2026, 2, 2, date(2026, 2, 27)),
        (2026, 5, 1, date(2026, 5, 29)),
        (2026, 5, 2, date(2026, 5, 28)),
    ],
)
def test_working_days_are_counted_from_the_end_of_a_month(
    year: int, month: int, n: int, day: date
) -> None:
    assert nth_last_working_day(year, month, n, {}) == (day, True)


def test_in_an_unknown_year_monday_to_friday_count_and_the_answer_says_so() -> None:
    found = nth_last_working_day(2099, 5, 1, {})
    assert (found.day, found.announced) == (date(2099, 5, 29), False)


def test_asking_for_more_days_than_a_month_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="fewer than 40"):
        nth_last_working_day(2026, 3, 40, {})


def test_a_month_of_holidays_has_no_working_day() -> None:
    closed = {date(2026, 3, 1) + timedelta(days=step): False for step in range(31)}
    with pytest.raises(ValueError, match="fewer than 1"):
        nth_last_working_day(2026, 3, 1, closed)
