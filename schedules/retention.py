"""Forgets what is past its time, every night, and keeps the audit log sealed and checked."""

import json
from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, update
from sqlmodel import Session, col

from bot.clock import beijing
from bot.commands import JobKind, Retention, tick
from bot.context import Services, outbox_row
from bot.heart import fire
from bot.messages import say
from handlers.purposes import DUTY
from storage import audit, mailbox, upkeep
from storage.dialogs import Draft
from storage.jobs import Job
from storage.people import OneTimeCode

HOUR = 3  # Beijing; nobody writes then
SEALS = 50  # checked in one chunk
BATCH = 500  # rows forgotten in one transaction
FIRINGS_KEPT = timedelta(days=1461)  # longer than any schedule looks back

log = structlog.get_logger()


# - what is forgotten when -


def _replies(_services: Services, session: Session, now: datetime) -> int:
    return upkeep.forget_replies(session.connection(), now - timedelta(days=1), BATCH)


def _keys(_services: Services, session: Session, now: datetime) -> int:
    return upkeep.forget_keys(session.connection(), now - timedelta(days=30), BATCH)


def _bodies(_services: Services, session: Session, now: datetime) -> int:
    return upkeep.forget_bodies(session.connection(), now - timedelta(days=7), BATCH)


def _drafts(_services: Services, session: Session, now: datetime) -> int:
    return session.exec(delete(Draft).where(col(Draft.expires_at) <= now)).rowcount


def _codes(_services: Services, session: Session, now: datetime) -> int:
    gone = now - timedelta(days=1)
    return session.exec(delete(OneTimeCode).where(col(OneTimeCode.expires_at) <= gone)).rowcount


def _results(_services: Services, session: Session, now: datetime) -> int:
    return session.exec(
        update(Job)
        .where(col(Job.result).is_not(None), col(Job.expires_at) <= now)
        .values(result=None)
    ).rowcount


def _jobs(_services: Services, session: Session, now: datetime) -> int:
    finished = col(Job.state).in_(["done", "failed"])
    old = col(Job.created_at) <= now - timedelta(days=30)
    return session.exec(delete(Job).where(finished, old)).rowcount


def _sent_before(services: Services, now: datetime) -> datetime:
    return now - timedelta(days=services.settings.keep_sent_days)


def _campaigns(services: Services, session: Session, now: datetime) -> int:
    return upkeep.settle_campaigns(session.connection(), _sent_before(services, now), BATCH)


def _notices(services: Services, session: Session, now: datetime) -> int:
    return upkeep.forget_notices(session.connection(), _sent_before(services, now), BATCH)


def _firings(_services: Services, session: Session, now: datetime) -> int:
    return upkeep.forget_firings(session.connection(), now - FIRINGS_KEPT, BATCH)


REPLIES = Retention("replies", "存下的回复1天", _replies, BATCH)
KEYS = Retention("keys", "收件去重键30天", _keys, BATCH)
BODIES = Retention("bodies", "发件正文7天", _bodies, BATCH)
DRAFTS = Retention("drafts", "到期的草稿", _drafts)
CODES = Retention("codes", "一次性授权码与页面链接，失效后1天", _codes)
RESULTS = Retention("results", "到期的导出内容", _results)
JOBS = Retention("jobs", "办完的后台任务30天", _jobs)
CAMPAIGNS = Retention("campaigns", "群发送达明细12个月（可设），之后只留人数", _campaigns, BATCH)
NOTICES = Retention("notices", "非群发的发件记录12个月（可设）", _notices, BATCH)
FIRINGS = Retention("firings", "定时事项做过的记号4年", _firings, BATCH)


# - every night -


@tick("retention", "每天凌晨清理到期的数据、核对审计链")
def retention(_services: Services, session: Session, now: datetime) -> None:
    """Begin the night's work once a day; it goes on in chunks."""
    local = beijing(now)
    if local.hour >= HOUR and fire(session, "retention", local.date().isoformat(), now):
        session.add(Job(kind=NIGHT.kind, created_at=now))
        session.add(Job(kind=CHECK.kind, created_at=now))


def _next_rule(services: Services, session: Session, job: Job, now: datetime) -> bool:
    """One batch of one rule a chunk; a rule that fails is logged and does not keep the others."""
    rules = services.catalog.of(Retention)
    done = int(json.loads(job.cursor).get("done", 0))
    if done < len(rules):
        rule, count = rules[done], 0
        try:
            with session.begin_nested():
                count = rule.run(services, session, now)
        except Exception as error:  # noqa: BLE001  # the other rules are due all the same
            log.error("retention_failed", rule=rule.name, error=type(error).__name__)
        if rule.batch and count >= rule.batch:
            return False
    job.cursor = json.dumps({"done": done + 1})
    return done + 1 >= len(rules)


NIGHT = JobKind("retention", _next_rule)


# - the audit log -


@tick("audit_seal", "给审计记录加封")
def audit_seal(_services: Services, session: Session, now: datetime) -> None:
    """Seal what has settled; whoever claims the end of the chain first is the one to do it."""
    last = audit.last_seal(session)
    with session.begin_nested() as savepoint:
        claimed = fire(session, "audit_seal", str(last.id if last else 0), now)
        if not claimed or not audit.seal(session, now):
            savepoint.rollback()


def _next_seals(services: Services, session: Session, job: Job, now: datetime) -> bool:
    after = int(json.loads(job.cursor).get("after", 0))
    broken, more = audit.check_seals(session, after, SEALS)
    if broken is not None:
        log.error("audit_chain_broken", seal=broken)
        _alarm(services, session, broken, now)
    job.cursor = json.dumps({"after": more or 0})
    return more is None


def _alarm(services: Services, session: Session, broken: int, now: datetime) -> None:
    words = say(f"审计记录的第{broken}号封签对不上，可能有人改动过数据库。请立即核查。")
    rows = (
        outbox_row(
            services,
            session,
            person_id,
            words,
            occasion=f"audit-broken:{broken}:{beijing(now).date()}",
            purpose=DUTY,
            now=now,
        )
        for person_id in services.catalog.policy.on_duty(session, now)
    )
    mailbox.enqueue(session.connection(), [row for row in rows if row is not None])


CHECK = JobKind("audit_check", _next_seals)
