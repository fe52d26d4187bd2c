"""What the platform tells besides talk: agreements to notices, and what became of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from bot.channels.envelope import Fields, Value, word
from bot.channels.wechat.notices import Notices
from bot.channels.wechat.reading import NAME
from bot.context import Services
from bot.messages import Address
from bot.text import content_hash
from storage import covers, mailbox, wechat
from storage.covers import Counts
from storage.mailbox import State

POPUP, CHANGED, SENT = (
    "subscribe_msg_popup_event",
    "subscribe_msg_change_event",
    "subscribe_msg_sent_event",
)
TEMPLATE_DONE, MASS_DONE = "templatesendjobfinish", "masssendjobfinish"
EVENTS = frozenset({POPUP, CHANGED, SENT, TEMPLATE_DONE, MASS_DONE})
LONGEST_ID = 128  # characters; a template's has 43
_BOXES = {
    POPUP: "SubscribeMsgPopupEvent",
    CHANGED: "SubscribeMsgChangeEvent",
    SENT: "SubscribeMsgSentEvent",
}


class Hearing:
    """Writes down what the platform tells; each method may be called again with the same news."""

    def __init__(self, services: Services, account: str, notices: Notices) -> None:
        self._services = services
        self._account = account
        self._notices_wanted = notices

    async def hear(self, fields: Fields) -> None:
        """Take one event of `EVENTS`."""
        await asyncio.to_thread(self._write, fields)

    def _write(self, fields: Fields) -> None:
        match word(fields, "Event").lower():
            case "subscribe_msg_popup_event" | "subscribe_msg_change_event":
                self._agreements(fields)
            case "subscribe_msg_sent_event":
                self._notices(fields)
            case "templatesendjobfinish":
                self._report(word(fields, "MsgID"), word(fields, "Status"))
            case "masssendjobfinish":
                self._mass(fields)

    def _agreements(self, fields: Fields) -> None:
        """Counted once, however often the platform tells of it."""
        now = self._services.clock.now()
        address = str(Address(NAME, self._account, word(fields, "FromUserName")))
        with self._services.database.transaction() as connection:
            if not mailbox.first_time(connection, f"{NAME}:{self._account}:{key_of(fields)}", now):
                return
            person_id = wechat.person_at(connection, address)
            if person_id is None:
                return
            for item in items(fields):
                template = word(item, "TemplateId")
                if not 0 < len(template) <= LONGEST_ID:
                    continue
                if word(item, "SubscribeStatusString") == "accept":
                    lasting = template in self._notices_wanted.lasting
                    wechat.agree(connection, person_id, template, now, lasting=lasting)
                    # What waited for them to write may now be told.
                    purposes = self._notices_wanted.purposes_of(template)
                    mailbox.reopen(connection, address, purposes)
                else:
                    wechat.refuse(connection, person_id, template, now)

    def _notices(self, fields: Fields) -> None:
        for item in items(fields):
            code = word(item, "ErrorCode")
            self._report(word(item, "MsgID"), "success" if code in ("", "0") else "failed")

    def _report(self, job: str, status: str) -> None:
        """Its words beyond `failed` are not documented, so a block is looked for loosely."""
        state, reason = State.DELIVERED, "notice"
        if status.lower().startswith("failed"):
            state, reason = State.FAILED, "blocked" if "block" in status.lower() else "refused"
        with self._services.database.transaction() as connection:
            mailbox.report(connection, NAME, job, state, reason)

    def _mass(self, fields: Fields) -> None:
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
        with self._services.database.transaction() as connection:
            covers.finish(connection, NAME, job, fine=fine, reason=reason, counts=counts)


def concerns(fields: Fields) -> bool:
    """Is this one of them?"""
    return word(fields, "MsgType") == "event" and word(fields, "Event").lower() in EVENTS


def key_of(fields: Fields) -> str:
    """The same for each try of one event; two that differ in anything have two."""
    return f"e{content_hash(*_words(fields))[:40]}"


def items(fields: Fields) -> list[Fields]:
    """The entries of a subscription event: one `List` is an element, several are a list."""
    box = fields.get(_BOXES[word(fields, "Event").lower()])
    found: Value = box.get("List", []) if isinstance(box, dict) else []
    entries = found if isinstance(found, list) else [found]
    return [entry for entry in entries if isinstance(entry, dict)]


def _words(value: Value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _words(each)
    else:
        for name, each in value.items():
            yield name
            yield from _words(each)


def _number(fields: Fields, name: str) -> int:
    text = word(fields, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
