"""Words for claimed rows: stored ones, or their campaign's template as it now stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from bot.clock import BEIJING
from bot.commands import Purpose
from bot.context import Services
from bot.messages import Part, Reply, load_reply
from bot.text import content_hash, merged, shape
from storage import claims
from storage.campaigns import Campaign
from storage.claims import Claimed
from storage.people import Contact, Person

AWAKE = timedelta(minutes=10)  # after their last word; until then nothing disturbs anybody's night

log = structlog.get_logger()


class Ready(NamedTuple):
    """A claimed row with the bubbles that are still to leave."""

    row: Claimed
    parts: tuple[Part, ...]
    digest: str
    due: float
    """When its slot is, by a clock that only goes forward."""
    zone: ZoneInfo | None = None
    """Whose quiet hours it keeps, None for what keeps none."""
    noticed: bool = False
    """Its reader's window is closed: they are only told that it waits."""
    in_turn: bool = False
    """Its chat's turn was taken as it passed the gate."""

    def late(self, now: float) -> bool:
        """Has its slot gone by? Sent then, it would crowd those that come after it."""
        return now > self.row.until


class Wording:
    """Makes of a worker's claimed rows the bubbles that are to leave."""

    def __init__(self, services: Services, worker: str) -> None:
        self._services = services
        self._database = services.database
        self._worker = worker

    def render(self, rows: Sequence[Claimed]) -> list[Ready]:
        """Words for each row: stored ones, or its campaign's template as it now stands."""
        stored = [row for row in rows if row.body is not None]
        replies = self._opened(stored)
        by_campaign: dict[int, list[Claimed]] = defaultdict(list)
        for row in rows:
            if row.body is None and row.campaign_id is not None:
                by_campaign[row.campaign_id].append(row)
        for campaign_id, members in by_campaign.items():
            rendered = self._render_campaign(campaign_id, members)
            for row in members:
                if row.person_id is not None and row.person_id in rendered:
                    replies[row.id] = rendered[row.person_id]
        self._give_up([row.id for row in stored if row.id not in replies], "unreadable")
        self._give_up(
            [row.id for row in rows if row.body is None and row.id not in replies], "render"
        )
        zones = self._quiet_zones(rows)
        return [
            self._shaped(row, replies[row.id], zones.get(row.id))
            for row in rows
            if row.id in replies
        ]

    def _opened(self, rows: Sequence[Claimed]) -> dict[int, Reply]:
        """The stored words of those rows whose words can be read."""
        replies: dict[int, Reply] = {}
        for row in rows:
            try:
                replies[row.id] = load_reply(self._database.keys.open(bytes(row.body or b"")))
            except Exception as error:  # noqa: BLE001  # a spoilt row must not stop its lane
                log.error("body_unreadable", row=row.id, error=type(error).__name__)
        return replies

    def _give_up(self, ids: Sequence[int], reason: str) -> None:
        if ids:
            with self._database.transaction() as connection:
                claims.fail_leased(connection, self._worker, ids, reason)

    def _quiet_zones(self, rows: Sequence[Claimed]) -> dict[int, ZoneInfo]:
        """By row whose quiet hours it keeps; those who have just written are awake anyway."""
        quiet = {p.name for p in self._services.catalog.of(Purpose) if p.quiet}
        mine = [row for row in rows if row.purpose in quiet]
        if not mine:
            return {}
        query = (
            select(col(Contact.address), col(Person.timezone), col(Contact.last_seen_at))
            .join(Person, col(Person.id) == col(Contact.person_id))
            .where(col(Contact.address).in_({row.address for row in mine}))
        )
        with self._database.engine.connect() as connection:
            known = {row.address: row for row in connection.execute(query)}
        zones: dict[int, ZoneInfo] = {}
        for row in mine:
            found = known.get(row.address)
            if row.windowed and found and self._services.clock.now() < found.last_seen_at + AWAKE:
                continue
            zones[row.id] = ZoneInfo(found.timezone) if found and found.timezone else BEIJING
        return zones

    def _render_campaign(self, campaign_id: int, rows: Sequence[Claimed]) -> Mapping[int, Reply]:
        with self._database.reading() as session:
            campaign = session.get(Campaign, campaign_id)
            content = self._services.catalog.content(campaign.kind) if campaign else None
            if campaign is None or content is None:
                return {}
            people = [row.person_id for row in rows if row.person_id is not None]
            try:
                return content.render(self._services, session, campaign, people)
            except DBAPIError:
                raise  # a database in trouble says nothing about the words
            except Exception as error:  # noqa: BLE001  # one broken campaign must not stop others
                log.error("render_failed", campaign=campaign_id, error=type(error).__name__)
        if len(rows) == 1:
            return {}
        # One person's file may be what broke it: the others get theirs.
        alone = [self._render_campaign(campaign_id, [row]) for row in rows]
        return {person: reply for found in alone for person, reply in found.items()}

    def _shaped(self, row: Claimed, reply: Reply, zone: ZoneInfo | None) -> Ready:
        facts = self._services.channels[row.lane.partition(":")[0]]
        parts = shape(reply, facts, self._services.settings.public_url)
        if facts.windowed:
            parts = merged(parts, facts)  # its platform counts bubbles
        return Ready(row, parts, content_hash(reply.text), row.due, zone)
