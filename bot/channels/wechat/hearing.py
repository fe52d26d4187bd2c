"""What the platform tells beside talk: agreements to notices, and what became of jobs."""

from __future__ import annotations

import json

from bot.channels.envelope import Fields, Value, word
from bot.channels.wechat.notices import Notices
from bot.channels.wechat.reading import CHANGED, NAME, POPUP, SENT
from bot.context import Context
from bot.errors import NotYet
from bot.messages import Address
from storage import covers, gate, mailbox, wechat
from storage.covers import Counts
from storage.states import State

LONGEST_ID = 128  # characters; a template's has 43
_BOXES = {
    POPUP: "SubscribeMsgPopupEvent",
    CHANGED: "SubscribeMsgChangeEvent",
    SENT: "SubscribeMsgSentEvent",
}


class Hearing:
    """Writes down what the platform tells."""

    def __init__(self, account: str, notices: Notices) -> None:
        self._account = account
        self._notices_wanted = notices

    def note(self, context: Context) -> None:
        """Take one event of `AGREEMENTS` or `REPORTS`; see `bot.channels.base.Noting`."""
        fields: Fields = json.loads(context.inbound.text)
        match word(fields, "Event").lower():
            case "subscribe_msg_popup_event" | "subscribe_msg_change_event":
                self._agreements(context, fields)
            case "subscribe_msg_sent_event":
                self._notices(context, fields)
            case "templatesendjobfinish":
                self._report(context, fields, word(fields, "MsgID"), word(fields, "Status"))
            case "masssendjobfinish":
                self._mass(context, fields)

    def _agreements(self, context: Context, fields: Fields) -> None:
        """Those of nobody we know are forgotten."""
        connection, now = context.connection, context.now
        for item in items(fields) if context.person_id else ():
            template = word(item, "TemplateId")
            if not 0 < len(template) <= LONGEST_ID:
                continue
            if word(item, "SubscribeStatusString") == "accept":
                lasting = template in self._notices_wanted.lasting
                wechat.agree(connection, context.person_id, template, now, lasting=lasting)
                # What waited for them to write may now be told.
                purposes = self._notices_wanted.purposes_of(template)
                mailbox.reopen(connection, str(context.inbound.sender), purposes)
            else:
                wechat.refuse(connection, context.person_id, template, now)

    def _notices(self, context: Context, fields: Fields) -> None:
        for item in items(fields):
            code = word(item, "ErrorCode")
            status = "success" if code in ("", "0") else "failed"
            self._report(context, fields, word(item, "MsgID"), status)

    def _report(self, context: Context, fields: Fields, job: str, status: str) -> None:
        """Its words beyond `failed` are not documented, so a block is looked for loosely."""
        state, reason = State.DELIVERED, "notice"
        if status.lower().startswith("failed"):
            state, reason = State.FAILED, "blocked" if "block" in status.lower() else "refused"
        if gate.report(context.connection, NAME, job, state, reason):
            return
        whose = str(Address(NAME, self._account, word(fields, "FromUserName")))
        if wechat.in_flight(context.connection, whose):
            # It may be about a message whose number nobody could write down yet.
            raise NotYet

    def _mass(self, context: Context, fields: Fields) -> None:
        status = word(fields, "Status").replace(" ", "").lower()
        fine = status.startswith("sendsuccess")
        counts = Counts(
            *(
                _number(fields, name)
                for name in ("TotalCount", "SentCount", "FilterCount", "ErrorCount")
            )
        )
        reason = "" if fine else word(fields, "Status")[:60]
        job = word(fields, "MsgID")
        covers.finish(context.connection, NAME, job, fine=fine, reason=reason, counts=counts)


def items(fields: Fields) -> list[Fields]:
    """The entries of a subscription event: one `List` is an element, several are a list."""
    box = fields.get(_BOXES[word(fields, "Event").lower()])
    found: Value = box.get("List", []) if isinstance(box, dict) else []
    entries = found if isinstance(found, list) else [found]
    return [entry for entry in entries if isinstance(entry, dict)]


def _number(fields: Fields, name: str) -> int:
    text = word(fields, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
