"""While a campaign leaves, one card tells its author how far it is, where a channel can edit."""

from datetime import datetime

from sqlmodel import Session, select

from bot.commands import tick
from bot.context import Services, outbox_row
from bot.messages import Part, Reply
from handlers.purposes import DUTY_NOW
from handlers.steering import progress_topic, progress_words
from storage import mailbox, overview
from storage.campaigns import Campaign, CampaignState
from storage.people import contact_of


@tick("progress", label="群发进度卡")
def renew_cards(services: Services, session: Session, now: datetime) -> None:
    """A new text for the card whenever more has left; elsewhere people ask with 群发 进度."""
    editing = [name for name, facts in services.channels.items() if facts.edits]
    if not editing:
        return
    for campaign in session.exec(select(Campaign).where(Campaign.state == CampaignState.RUNNING)):
        author = campaign.created_by
        contact = author and contact_of(session, author, list(services.channels))
        if not author or not contact or contact.channel not in editing:
            continue
        left = overview.departed(session.connection(), campaign.id or 0)
        if not left:
            continue
        words = progress_words(services, session, campaign, now)
        row = outbox_row(
            services,
            session,
            author,
            Reply((Part(words, replaces=progress_topic(campaign)),)),
            occasion=f"progress:{campaign.number}:{left}",
            purpose=DUTY_NOW,
            now=now,
            contact=contact,
        )
        if row is not None:
            mailbox.enqueue(session.connection(), [row])
