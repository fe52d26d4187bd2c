"""Lists what the county owes a field team for being away: the sums due, never who was paid."""

from __future__ import annotations

from dataclasses import dataclass

START_UP_YUAN_A_TEAM = 20_000
POST_YUAN_A_MEMBER_AND_MONTH = 5_000


@dataclass(frozen=True, slots=True)
class AllowanceRates:
    """What a place grants, in 元: once a team, and for each member and month."""

    start_up_yuan: int = START_UP_YUAN_A_TEAM
    member_month_yuan: int = POST_YUAN_A_MEMBER_AND_MONTH


@dataclass(frozen=True, slots=True)
class Allowance:
    """The two sums due, in 元."""

    start_up_yuan: int
    post_yuan: int

    @property
    def total_yuan(self) -> int:
        return self.start_up_yuan + self.post_yuan


def allowance_due(*, new_teams: int, members: int, months: int, rates: AllowanceRates) -> Allowance:
    """Return what is due for `members` over `months`, and for `new_teams` that start up."""
    return Allowance(
        start_up_yuan=new_teams * rates.start_up_yuan,
        post_yuan=members * months * rates.member_month_yuan,
    )
