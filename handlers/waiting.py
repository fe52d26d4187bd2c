"""What waits for somebody who has not written for a while: 「信」, and the page of a notice."""

import json

from sqlmodel import Session

from bot.commands import Page, command
from bot.context import Context, Services
from bot.messages import Part, Reply, load_reply, say
from storage import overview
from storage.campaigns import Campaign
from storage.mailbox import Outbox
from storage.people import OneTimeCode

GONE = "这条消息已过保存期限，内容清除了。需要请回到聊天里回「人工」。"


@command("信", "『信』", "「信」", "领信", "领取", "来信", reads=True)
def fetch(context: Context, _argument: str) -> Reply:
    """The word that a cover asks for; saying anything lets what waits leave."""
    if overview.waits_for(context.session.connection(), str(context.inbound.sender)):
        return say("您的信这就到，请看下一条。")
    return say("眼下没有等您领取的信；有了会告诉您。")


def _show(services: Services, session: Session, code: OneTimeCode) -> Part:
    """The whole message of a row, for the person it was written to."""
    row = session.get(Outbox, json.loads(code.payload)["row"])
    if row is None or row.person_id != code.person_id:
        return Part(GONE)
    said = _said(services, session, row)
    if said is None:
        return Part(GONE)
    picture = next((part.file for part in said if part.file is not None), None)
    text = "\n\n".join(part.text for part in said if part.text)
    return Part(text, file=picture)


def _said(services: Services, session: Session, row: Outbox) -> Reply | None:
    if row.body is not None:
        return load_reply(row.body)
    campaign = session.get(Campaign, row.campaign_id) if row.campaign_id is not None else None
    content = services.catalog.content(campaign.kind) if campaign is not None else None
    if campaign is None or content is None or row.person_id is None:
        return None
    return content.render(services, session, campaign, [row.person_id]).get(row.person_id)


NOTICE = Page("notice", _show)
