"""The same form as it is mostly written: an ORM session a message, each with a commit of its own.

Our tables, our envelope and our server around it, six threads: what differs is the writing.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import uvicorn
from sqlmodel import Session, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.wechat_load import AES_KEY, APP_ID, QUESTIONS, TOKEN
from bot import web
from bot.channels.envelope import Envelope, text_answer, word
from storage.columns import KeyRing
from storage.db import Database
from storage.dialogs import Draft
from storage.mailbox import Inbox
from storage.people import Contact, Person

FORM = "ten_questions"


class Robot:
    """Answers one message after another, each in its own session."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._envelope = Envelope(TOKEN, AES_KEY, APP_ID)

    async def __call__(self, request: Request) -> Response:
        query = dict(parse_qsl(request.url.query))
        now = datetime.now(UTC)
        fields = self._envelope.open(query, await request.body(), now)
        said = {name: word(fields, name) for name in ("MsgId", "FromUserName", "Content")}
        text = await asyncio.to_thread(self._answer, said, now)
        stamp = int(now.timestamp())
        sealed = self._envelope.seal(text_answer(fields, text, stamp), stamp, secrets.token_hex(8))
        return Response(sealed.as_xml(), media_type="application/xml")

    def _answer(self, said: Mapping[str, str], now: datetime) -> str:
        key = f"wechat:{APP_ID}:{said['MsgId']}"
        with self._database.session() as session:
            known = session.get(Inbox, key)
            if known is not None:
                return known.reply or ""
            contact = self._contact(session, f"wechat:{APP_ID}:{said['FromUserName']}", now)
            contact.window_until, contact.window_left = now + timedelta(hours=48), 5
            contact.last_seen_at = now
            session.add(contact)
            text = self._next(session, contact.person_id, said["Content"], now)
            session.add(Inbox(key=key, person_id=contact.person_id, received_at=now, reply=text))
        return text

    def _contact(self, session: Session, address: str, now: datetime) -> Contact:
        found = session.exec(select(Contact).where(Contact.address == address)).first()
        if found is not None:
            return found
        person = Person(created_at=now)
        session.add(person)
        session.flush()
        assert person.id is not None
        return Contact(
            person_id=person.id, channel="wechat", address=address, last_seen_at=now, reachable=True
        )

    def _next(self, session: Session, person_id: int, content: str, now: datetime) -> str:
        draft = session.get(Draft, (person_id, FORM))
        answers = json.loads(draft.state) if draft is not None else []
        if content != "开始":
            if not content.isdigit():
                return "请回数字。"
            answers.append(int(content))
        if len(answers) == QUESTIONS:
            session.delete(draft)
            return "填完了。"
        draft = draft or Draft(
            person_id=person_id, form=FORM, state="", updated_at=now, expires_at=now
        )
        draft.state, draft.updated_at = json.dumps(answers), now
        draft.expires_at = now + timedelta(days=7)
        session.add(draft)
        return f"第{len(answers) + 1}/{QUESTIONS}题：请回数字。"


def serve(url: str, port: int) -> None:
    """The peer's server in this process."""
    database = Database(url, KeyRing(KeyRing.generate()))
    database.migrate()
    asgi = Starlette(routes=[Route("/", Robot(database).__call__, methods=["POST"])])
    with asyncio.Runner(loop_factory=web.new_loop) as runner:
        config = uvicorn.Config(asgi, access_log=False, log_config=None, lifespan="off", ws="none")
        listening = web.listen("127.0.0.1", port)
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    serve(os.environ["ORM_DATABASE"], int(sys.argv[1]))
