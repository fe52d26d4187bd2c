"""Looks after what staff must still tap: asks, reminds, takes back, and reports what came of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from sqlmodel import Session

from bot.channels.wecom.group.reading import NAME
from bot.channels.wecom.group.wire import GroupWire, Outcome, Progress
from bot.clock import BEIJING, Clock, QuietHours
from bot.errors import SendError
from bot.messages import Address
from storage import gate, mailbox
from storage.customer_groups import Pending, StaffTask, tasks_due
from storage.db import Database
from storage.states import State

LOOK = timedelta(minutes=1)
REMIND_AFTER = (timedelta(hours=2), timedelta(hours=24), timedelta(hours=48))
RESULT_LATE = timedelta(minutes=10)
"""How long after the tap a group may be missing among the results."""
NOBODY_WAITS = timedelta(days=7)
"""After so long a task whose row is not waiting is looked at no more."""

REASONS = {
    Outcome.NOT_A_FRIEND: "员工已不在群里",
    Outcome.HAD_ANOTHER: "群里本月的群发次数已满",
}
NOT_DELIVERED = "员工点了发送，平台没有送达"

log = structlog.get_logger()


class TaskKeeper:
    """One round of `look` deals with every task that is due."""

    def __init__(
        self, wire: GroupWire, database: Database, clock: Clock, quiet: QuietHours
    ) -> None:
        self._wire = wire
        self._database = database
        self._clock = clock
        self._quiet = quiet

    async def look(self) -> None:
        """Ask after each task; one that cannot be asked after is asked again in a while."""
        for pending in await asyncio.to_thread(self._due):
            try:
                await self._one(pending)
            except SendError as error:
                log.warning("task_not_asked", channel=NAME, reason=error.reason)
                await asyncio.to_thread(self._later, pending.task)

    def _due(self) -> list[Pending]:
        with self._database.reading() as session:
            return tasks_due(session, NAME, self._clock.now())

    async def _one(self, pending: Pending) -> None:
        task = pending.task
        chat = Address.parse(pending.address).user
        progress = await self._wire.progress(task.id, task.owner, chat)
        if progress.outcome is not None:
            await asyncio.to_thread(self._settle, task, *_verdict(progress.outcome))
        elif self._lost(task, progress):
            await asyncio.to_thread(self._settle, task, State.FAILED, NOT_DELIVERED)
        elif pending.stopped and not progress.tapped:
            await self._wire.cancel(task.id)
            await asyncio.to_thread(self._settle, task, State.CANCELLED, "cancelled")
        else:
            reminded = not progress.tapped and await self._remind(task)
            await asyncio.to_thread(self._later, task, progress, reminded)

    def _lost(self, task: StaffTask, progress: Progress) -> bool:
        return (
            progress.tapped
            and task.tapped_at is not None
            and self._clock.now() - task.tapped_at >= RESULT_LATE
        )

    async def _remind(self, task: StaffTask) -> bool:
        """Nudge them by day, a few times; the platform allows three a day."""
        now = self._clock.now()
        if task.reminders >= len(REMIND_AFTER) or self._quiet.after(now, BEIJING) > now:
            return False
        if now - task.made_at < REMIND_AFTER[task.reminders]:
            return False
        await self._wire.remind(task.id)
        return True

    def _later(
        self, task: StaffTask, progress: Progress | None = None, reminded: bool = False
    ) -> None:
        now = self._clock.now()
        with self._database.session() as session:
            kept = session.get_one(StaffTask, task.id)
            if progress is not None and progress.tapped:
                kept.tapped_at = kept.tapped_at or now
            if reminded:
                kept.reminders, kept.reminded_at = kept.reminders + 1, now
            kept.due_at = now + LOOK
            session.add(kept)

    def _settle(self, task: StaffTask, state: State, reason: str) -> None:
        """Tell the outbox; a row that has not been written down yet is told in a while."""
        now = self._clock.now()
        with self._database.session() as session:
            moved = gate.report(session.connection(), NAME, task.id, state, reason)
            kept = session.get_one(StaffTask, task.id)
            too_early = not moved and _unwritten(session, task.id)
            waits = too_early and now - kept.made_at < NOBODY_WAITS
            kept.due_at = now + LOOK if waits else None
            kept.outcome = "" if waits else state
            session.add(kept)


def _verdict(outcome: Outcome) -> tuple[State, str]:
    if outcome is Outcome.SENT:
        return State.SENT, ""
    return State.FAILED, REASONS[outcome]


def _unwritten(session: Session, provider_id: str) -> bool:
    """Does no row bear this id yet? It is written after the call that gave it."""
    query = mailbox.TABLE.select().where(mailbox.TABLE.c.provider_id == provider_id).limit(1)
    return session.connection().execute(query).first() is None
