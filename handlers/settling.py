"""Bringing a campaign's rows where its state wants them: a few thousand at once, the rest as a job.

What was said holds from the moment it is said: it is the state that the gate asks for.
"""

import json
from datetime import datetime

from sqlmodel import Session, col, select

from bot import planning
from bot.commands import JobKind
from bot.context import Services
from handlers.plans import asked_of
from storage import gate
from storage.campaigns import Campaign
from storage.jobs import Job

SETTLING = "campaign_settle"


def settle(services: Services, session: Session, campaign: Campaign, now: datetime) -> None:
    """Let a campaign's rows follow its new state; nothing starts against it once this commits."""
    assert campaign.id is not None
    session.add(campaign)
    session.flush()
    gate.fence(session.connection(), campaign.id)
    if not _some(services, session, campaign, now):
        payload = json.dumps({"campaign": campaign.id})
        session.add(Job(kind=SETTLING, payload=payload, created_at=now))


def _settle_some(services: Services, session: Session, job: Job, now: datetime) -> bool:
    """The next few thousand; said otherwise meanwhile, they go the other way."""
    number = json.loads(job.payload)["campaign"]
    campaign = session.exec(
        select(Campaign).where(col(Campaign.id) == number).with_for_update(key_share=True)
    ).one()
    return _some(services, session, campaign, now)


def _some(services: Services, session: Session, campaign: Campaign, now: datetime) -> bool:
    return planning.settle(services, session, campaign, asked_of(services, session, campaign, now))


JOB = JobKind(SETTLING, _settle_some)
