"""What a member may be told outside the reply window: by their own agreement, or as a service.

A template message is for service notices only; the platform bans accounts that greet or advertise
by it. What can be unsubscribed from is therefore told by subscription notices alone, of which each
takes an agreement that the member gave.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import exists
from sqlmodel import col

from bot.alarm import call_for_help
from bot.channels.base import Notice
from bot.channels.wechat.api import Refusal, WeChatApi
from bot.channels.wechat.reading import NAME
from bot.clock import beijing
from bot.commands import Purpose
from bot.context import Services
from bot.errors import SendError
from bot.ladder import Asked, Rung
from bot.messages import Address
from bot.settings import Settings
from storage import wechat as ledger
from storage.people import OneTimeCode
from storage.wechat import NoticeGrant

PAGE = "notice"
PAGE_LIFE = timedelta(days=7)  # as long as the message itself is kept
MUTED = timedelta(hours=1)
LASTING = "长期"

TEMPLATE_WRONG = frozenset({40037, 47003, 48001})
NO_AGREEMENT = frozenset({43101})

# The longest value of a field by the kind that its name begins with, in characters.
_LONGEST: Mapping[str, int] = {"short_thing": 5, "phrase": 5, "name": 10, "character_string": 32}
_LONGEST_ELSE = 20
_ENTRY = re.compile(
    rf"\s*(\w+)\s*=\s*({LASTING}\s)?\s*([\w-]+)\s*(?::(.*))?\s*", re.ASCII | re.DOTALL
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Template:
    """One of the account's templates: its id, and by field what stands there."""

    id: str
    fields: tuple[tuple[str, str], ...]
    lasting: bool = False

    def data(self, notice: Notice, office: str, now: datetime) -> dict[str, dict[str, str]]:
        """The fields filled in, each no longer than the platform takes it."""
        known = {
            "标题": notice.text.strip().split("\n", 1)[0],
            "内容": " ".join(notice.text.split()),
            "时间": f"{beijing(now):%Y年%m月%d日 %H:%M}",
            "单位": office,
        }
        return {
            name: {"value": _cut(known.get(value, value), _longest(name))}
            for name, value in self.fields
        }


def read_templates(text: str) -> Mapping[str, Template]:
    """`用途=编号:字段=值,字段=值;用途=长期 编号:…` by purpose; raises ValueError with words.

    A value is 标题, 内容, 时间, 单位, or words that always stand there.
    """
    found: dict[str, Template] = {}
    for entry in filter(str.strip, text.replace("；", ";").split(";")):
        whole = _ENTRY.fullmatch(entry)
        if whole is None:
            raise ValueError(f"「{entry.strip()}」应写成 用途=模板编号:字段=值,字段=值")
        purpose, lasting, number, rest = whole.groups()
        pairs = [pair.partition("=") for pair in (rest or "").replace("，", ",").split(",")]
        fields = tuple((name.strip(), value.strip()) for name, _, value in pairs if name.strip())
        if not fields or any(not value for _name, value in fields):
            raise ValueError(f"「{purpose}」的模板要写明每个字段填什么，如 thing1=标题")
        found[purpose] = Template(number, fields, lasting is not None)
    return found


def _longest(field: str) -> int:
    kind = field.rstrip("0123456789")
    return _LONGEST.get(kind, _LONGEST_ELSE)


@dataclass(frozen=True)
class ByAgreement:
    """The way of a notice that somebody has agreed to: for good (`lasting`), or still so often.

    `templates` are the ids by purpose.
    """

    templates: Mapping[str, str]
    lasting: bool = False

    @property
    def rung(self) -> Rung:
        """A lasting agreement is not used up by it."""
        return Rung.LASTING if self.lasting else Rung.ONCE

    def reaches(self, who: Any, asked: Asked) -> Any:
        """Who has agreed to the purpose's template; None where there is none."""
        template = self.templates.get(asked.purpose.name)
        if template is None:
            return None
        given = col(NoticeGrant.lasting) if self.lasting else col(NoticeGrant.left) > 0
        return exists().where(
            col(NoticeGrant.person_id) == who.c.person_id,
            col(NoticeGrant.template) == template,
            given,
        )


def agreements(settings: Settings) -> tuple[ByAgreement, ...]:
    """How followers are told beyond the window, as the settings have it; none where they are
    malformed, which `check` tells, or where the page of a notice cannot be opened."""
    try:
        found = read_templates(settings.wechat_notices)
    except ValueError:
        return ()
    if not found or not opens(settings.public_url):
        return ()
    ids = {purpose: template.id for purpose, template in found.items()}
    return (ByAgreement(ids, lasting=True), ByAgreement(ids))


def opens(public_url: str) -> bool:
    """Can a follower open a page of ours?"""
    return public_url.startswith(("https://", "http://127."))


def _cut(value: str, longest: int) -> str:
    return value if len(value) <= longest else f"{value[: longest - 1]}…"


class Notices:
    """Tells members what waits for them, by the way that they or the platform's rules allow."""

    def __init__(self, services: Services, settings: Settings, api: WeChatApi) -> None:
        self._services = services
        self._api = api
        self._public_url = settings.public_url
        self._office = settings.office_name or services.place.name
        self._muted: dict[str, datetime] = {}
        purposes = {purpose.name: purpose for purpose in services.catalog.of(Purpose)}
        self._services_by_purpose = {
            name: template
            for name, template in read_templates(settings.wechat_templates).items()
            if name in purposes and purposes[name].service
        }
        self._agreed = {
            name: template
            for name, template in read_templates(settings.wechat_notices).items()
            if name in purposes
        }
        told = frozenset({*self._services_by_purpose, *self._agreed})
        self.purposes = told if opens(self._public_url) else frozenset()

    @property
    def lasting(self) -> frozenset[str]:
        """Ids of the templates that members agree to for good."""
        return frozenset(template.id for template in self._agreed.values() if template.lasting)

    def purposes_of(self, template: str) -> frozenset[str]:
        """What members want to be told who agree to a template."""
        return frozenset(name for name, one in self._agreed.items() if one.id == template)

    @property
    def templates(self) -> Mapping[str, Template]:
        """The service templates by purpose, for whoever checks them."""
        return self._services_by_purpose

    async def tell(self, address: Address, notice: Notice, key: str) -> str:
        """Raises SendError; `window` where this member cannot be told now."""
        agreed = self._agreed.get(notice.purpose)
        if agreed is not None and not self._is_muted(agreed):
            told = await self._by_agreement(address, notice, agreed)
            if told is not None:
                return told
        service = self._services_by_purpose.get(notice.purpose)
        if service is not None and not self._is_muted(service):
            return await self._by_template(address, notice, service, key)
        raise SendError("window", permanent=True)

    async def _by_agreement(
        self, address: Address, notice: Notice, template: Template
    ) -> str | None:
        """None where there is no agreement, or none that the platform knows of."""
        if not await asyncio.to_thread(self._use_up, notice, template):
            return None
        body = await self._body(address, notice, template, "page")
        try:
            answer = await self._api.post("message/subscribe/bizsend", body)
        except SendError as error:
            if error.unknown:
                raise  # it may have left: then the agreement is used up
            code = error.code if isinstance(error, Refusal) else 0
            if code in NO_AGREEMENT:
                await asyncio.to_thread(self._refused, notice, template)
                return None
            await asyncio.to_thread(self._put_back, notice, template)
            if code in TEMPLATE_WRONG:
                await self._mute(template, notice.purpose, error)
                return None
            raise
        return str(answer.get("msgid") or "")

    async def _by_template(
        self, address: Address, notice: Notice, template: Template, key: str
    ) -> str:
        body = await self._body(address, notice, template, "url")
        body["client_msg_id"] = f"hy-{key}"
        try:
            answer = await self._asked_twice("message/template/send", body)
        except Refusal as error:
            if error.code in TEMPLATE_WRONG:
                await self._mute(template, notice.purpose, error)
                raise SendError("window", permanent=True, detail=error.detail) from None
            raise
        return str(answer.get("msgid") or "")

    async def _asked_twice(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Once more at once where no answer came: for ten minutes the platform knows the id."""
        try:
            return await self._api.post(path, body)
        except SendError as error:
            if not error.unknown:
                raise
        return await self._api.post(path, body)

    async def _body(
        self, address: Address, notice: Notice, template: Template, link: str
    ) -> dict[str, object]:
        page = await asyncio.to_thread(self._page, notice)
        return {
            "touser": address.user,
            "template_id": template.id,
            link: page,
            "data": template.data(notice, self._office, self._services.clock.now()),
        }

    # - the tables, in a thread -

    def _use_up(self, notice: Notice, template: Template) -> bool:
        now = self._services.clock.now()
        with self._services.database.transaction() as connection:
            return ledger.use_up(connection, notice.person_id, template.id, now)

    def _put_back(self, notice: Notice, template: Template) -> None:
        now = self._services.clock.now()
        with self._services.database.transaction() as connection:
            ledger.put_back(connection, notice.person_id, template.id, now)

    def _refused(self, notice: Notice, template: Template) -> None:
        now = self._services.clock.now()
        with self._services.database.transaction() as connection:
            ledger.refuse(connection, notice.person_id, template.id, now)

    def _page(self, notice: Notice) -> str:
        """The address of a page that shows the message, for whoever holds the link."""
        token, now = secrets.token_urlsafe(16), self._services.clock.now()
        with self._services.database.session() as session:
            session.add(
                OneTimeCode(
                    kind="page",
                    digest=self._services.keys.digest(token),
                    person_id=notice.person_id,
                    payload=json.dumps({"page": PAGE, "row": notice.row}),
                    created_at=now,
                    expires_at=now + PAGE_LIFE,
                )
            )
        return f"{self._public_url}/p/{token}"

    # - a template that the platform will not have -

    def _is_muted(self, template: Template) -> bool:
        until = self._muted.get(template.id)
        return until is not None and self._services.clock.now() < until

    async def _mute(self, template: Template, purpose: str, error: SendError) -> None:
        """Leave a template alone for a while and say so: what it was for waits for the member."""
        self._muted[template.id] = self._services.clock.now() + MUTED
        log.error("template_refused", purpose=purpose, detail=error.detail)
        await asyncio.to_thread(self._call_for_help, purpose, error)

    def _call_for_help(self, purpose: str, error: SendError) -> None:
        label = self._services.catalog.purpose(purpose).label
        trouble = f"发不出「{label}」的模板通知，改为等成员来信：{error.detail}"
        with self._services.database.transaction() as connection:
            call_for_help(self._services, connection, NAME, trouble)
