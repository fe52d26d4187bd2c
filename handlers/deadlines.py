"""Tells when a month's report opens, is reminded of, falls due, freezes and is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from bot.clock import BEIJING
from handlers.periods import Month

OPENING_DAY = 25
LATE_LIST_DAY = 1
ESCALATION_DAY = 3
FREEZE_DAY = 5
BULLETIN_DAY = 8
SNOOZED_UNTIL = time(20, 0)

WorkingDayRule = Callable[[date], bool]


class Step(StrEnum):
    """One thing the clock does for a report month, in the order of the calendar."""

    OPENING = "opening"
    SECOND_REMINDER = "second_reminder"
    WORKING_DAY_BEFORE = "working_day_before"
    LAST_DAY_MORNING = "last_day_morning"
    LAST_DAY_AFTERNOON = "last_day_afternoon"
    SNOOZED = "snoozed"
    CUT_OFF = "cut_off"
    LATE_LIST = "late_list"
    ESCALATION = "escalation"
    FREEZE = "freeze"
    BULLETIN = "bulletin"


@dataclass(frozen=True, slots=True)
class Moment:
    """A step and the aware Beijing time at which it is due."""

    step: Step
    at: datetime


class FilingState(StrEnum):
    """How a team stands with one month's report at a given time."""

    NOT_DUE = "not_due"
    OUTSTANDING = "outstanding"
    MISSING = "missing"
    ON_TIME = "on_time"
    LATE = "late"
    BACKFILLED = "backfilled"


def opening(month: Month) -> datetime:
    """Return when the report opens, which is also the first reminder."""
    return _at(month.first_day.replace(day=OPENING_DAY), time(9, 30))


def cut_off(month: Month) -> datetime:
    """Return the month's last second, after which a report is late."""
    return _at(month.last_day, time(23, 59, 59))


def freeze(month: Month) -> datetime:
    """Return when what was not filed becomes missing and what was filed is locked."""
    return _at(_day_after(month, FREEZE_DAY), time(18, 0))


def bulletin_due(month: Month) -> datetime:
    """Return when the coordinator receives the draft of the bulletin."""
    return _at(_day_after(month, BULLETIN_DAY), time(10, 0))


def reminders(
    month: Month, is_working_day: WorkingDayRule, snoozed_at: datetime | None = None
) -> tuple[Moment, ...]:
    """Return the reminders for a leader who has not filed, in order and never more than five.

    `snoozed_at` is the moment the leader first said 稍后, if ever. Then 20:00 stands in the place
    of whatever that day still had in store, such as the last day's 17:00.
    """
    planned = [
        Moment(Step.OPENING, opening(month)),
        *_working_day_reminder(month, is_working_day),
        Moment(Step.LAST_DAY_MORNING, _at(month.last_day, time(10, 0))),
        Moment(Step.LAST_DAY_AFTERNOON, _at(month.last_day, time(17, 0))),
    ]
    again = None if snoozed_at is None else snooze(snoozed_at, month)
    if snoozed_at is None or again is None:
        return tuple(planned)
    kept = [each for each in planned if each.at <= snoozed_at or each.at.date() != again.date()]
    return tuple(sorted([*kept, Moment(Step.SNOOZED, again)], key=lambda each: each.at))


def moments(month: Month, is_working_day: WorkingDayRule) -> tuple[Moment, ...]:
    """Return everything the clock does for `month`, in order, nobody having said 稍后."""
    return (
        *reminders(month, is_working_day),
        Moment(Step.CUT_OFF, cut_off(month)),
        Moment(Step.LATE_LIST, _at(_day_after(month, LATE_LIST_DAY), time(9, 30))),
        Moment(Step.ESCALATION, _at(_day_after(month, ESCALATION_DAY), time(9, 30))),
        Moment(Step.FREEZE, freeze(month)),
        Moment(Step.BULLETIN, bulletin_due(month)),
    )


def snooze(said_at: datetime, month: Month) -> datetime | None:
    """Return 20:00 of the day on which 稍后 was said.

    None when that has passed, when the report is not open yet, or when it is already due:
    then there is no reminder left to put off.
    """
    local = _in_zone(said_at, BEIJING)
    again = _at(local.date(), SNOOZED_UNTIL)
    if local >= again or not opening(month) <= local <= cut_off(month):
        return None
    return again


def days_late(filed_at: datetime, month: Month) -> int:
    """Return by how many Beijing calendar days `filed_at` lies after the month's last day.

    A report filed on the last day, up to midnight, is 0 days late.
    """
    return max(0, (_in_zone(filed_at, BEIJING).date() - month.last_day).days)


def counted_from(month: Month, entered_at: datetime) -> Month:
    """Return the first month whose figures include what was entered about `month`.

    A published bulletin never changes: what arrives after the freeze counts in the next period.
    """
    counted = month
    while entered_at > freeze(counted):
        counted = counted.next
    return counted


def filing_state(first_filed_at: datetime | None, month: Month, now: datetime) -> FilingState:
    """Tell how a report that was first filed at `first_filed_at` (None: never) stands at `now`."""
    if first_filed_at is None or first_filed_at > now:
        if now > freeze(month):
            return FilingState.MISSING
        overdue = days_late(now, month) > 0
        return FilingState.OUTSTANDING if overdue else FilingState.NOT_DUE
    if first_filed_at > freeze(month):
        return FilingState.BACKFILLED
    return FilingState.LATE if days_late(first_filed_at, month) else FilingState.ON_TIME


def _working_day_reminder(month: Month, is_working_day: WorkingDayRule) -> tuple[Moment, ...]:
    """Return the second reminder, or none if it would come before the report has been open a day.

    That happens when a long holiday ends the month.
    """
    first = month.first_day
    days = (first + timedelta(days=each) for each in range(month.last_day.day))
    working = [day for day in days if is_working_day(day)]
    if working and working[-1] != month.last_day:
        step, day = Step.WORKING_DAY_BEFORE, working[-1]
    elif len(working) > 1:
        step, day = Step.SECOND_REMINDER, working[-2]
    else:
        return ()
    return (Moment(step, _at(day, time(10, 0))),) if day.day > OPENING_DAY else ()


def _day_after(month: Month, day: int) -> date:
    return month.next.first_day.replace(day=day)


def _at(day: date, clock_time: time) -> datetime:
    return datetime.combine(day, clock_time, BEIJING)


def _in_zone(moment: datetime, zone: ZoneInfo) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone could be anywhere; pass an aware datetime")
    return moment.astimezone(zone)
