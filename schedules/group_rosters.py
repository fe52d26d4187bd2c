"""Forgets in time who left the members' groups, whose conversations ended, and old tasks."""

from datetime import datetime, timedelta

from sqlmodel import Session

from bot.commands import Retention
from bot.context import Services
from storage.conversations import forget_conversations, forget_taken
from storage.customer_groups import forget_leavers, forget_tasks


def _leavers(_services: Services, session: Session, now: datetime) -> int:
    return forget_leavers(session, now - timedelta(days=30))


def _conversations(_services: Services, session: Session, now: datetime) -> int:
    connection = session.connection()
    taken = forget_taken(connection, now - timedelta(days=3))
    return taken + forget_conversations(connection, now - timedelta(days=30))


def _tasks(_services: Services, session: Session, now: datetime) -> int:
    return forget_tasks(session, now - timedelta(days=366))


LEAVERS = Retention("group_leavers", "退出乡亲群的人，30天", _leavers)
CONVERSATIONS = Retention("conversations", "客服会话的状态30天、没办成的来信3天", _conversations)
TASKS = Retention("staff_tasks", "请员工代发的任务12个月", _tasks)
