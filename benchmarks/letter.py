"""One letter over the real Telegram channel, and the worker that the trials kill while it leaves.

The worker is what `hongyan serve --role worker` runs, the whole App with delivery, heart and
polling; only the letter's words, the call slots and the lane's pace are given here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import anyio
from sqlalchemy import insert, select

from benchmarks.warm import hatch
from bot import logs, planning, web
from bot.app import App, build_channels, services_for
from bot.catalog import Catalog
from bot.channels.base import Channel
from bot.clock import SystemClock
from bot.commands import Content, Purpose
from bot.context import Services
from bot.delivery import Delivery
from bot.ladder import Asked
from bot.messages import Reply, say
from bot.settings import demo_settings
from handlers.place import PLACES
from handlers.roles import POLICY
from storage.campaigns import Campaign, CampaignState
from storage.people import ConsentNow, Contact, Person

TOKEN = "4200:" + "k" * 35
KEYS = "k1:0123456789abcdef0123456789abcdef"
FIRST_CHAT = 1_000_000
LETTER = Purpose("letter", "信", scope="profile", topic="节日信", quiet=False)
CHUNK = 1_000
PACED = "paced"


def words(
    _services: object, _session: object, campaign: Campaign, people: Sequence[int]
) -> Mapping[int, Reply]:
    """The letter to each person."""
    return {person: say(f"{campaign.template}第{person}位乡亲") for person in people}


def installation(
    url: str, api: str = "", *, paced: bool = False
) -> tuple[Services, dict[str, Channel]]:
    """Services on a database and a platform's channel, at the channel's own pace or at none."""
    settings = demo_settings(
        database_url=url,
        channels="telegram",
        telegram_token=TOKEN,
        telegram_api_base=api,
        telegram_policy="full",
    )
    channels = build_channels(settings, SystemClock())
    facts = channels["telegram"].facts
    if not paced:
        facts = replace(facts, live_gap_ms=0, bulk_gap_ms=0)
    catalog = Catalog({Content: [Content("letter", words)]}, {}, POLICY, PLACES)
    return services_for(settings, {"telegram": facts}, keys=KEYS, catalog=catalog), channels


async def work(services: Services, channels: Mapping[str, Channel], slots: int, name: str) -> None:
    """Be a worker of this name, with so many calls at once, until told to stop."""
    alone = services.database.sqlite
    delivery = Delivery(services, channels, alone=alone, worker=name, in_flight=slots)
    app = App(services, channels, alone=alone, delivery=delivery)
    await web.serve(app, None, ("worker",))
    app.close()


def post(services: Services, people: int) -> None:
    """So many members who have agreed, and a letter released to them."""
    now = services.clock.now()
    everybody = range(1, people + 1)
    with services.database.session() as session:
        for first in range(0, people, CHUNK):
            some = everybody[first : first + CHUNK]
            session.execute(insert(Person), [{"id": one, "created_at": now} for one in some])
            session.execute(
                insert(Contact),
                [
                    {
                        "person_id": one,
                        "channel": "telegram",
                        "address": f"telegram:4200:{FIRST_CHAT + one}",
                        "last_seen_at": now,
                    }
                    for one in some
                ],
            )
            agreed = {"scope": "profile", "live": True, "version": "1", "at": now}
            session.execute(insert(ConsentNow), [{"person_id": one, **agreed} for one in some])
        letter = Campaign(
            number="B-1",
            kind="letter",
            title="",
            occasion="letter:kills",
            purpose="letter",
            template="您好，",
            created_at=now,
        )
        session.add(letter)
        session.flush()
        moment = planning.Moment(now, local=False)
        asked = Asked(LETTER, now)
        planning.freeze(services, session, letter, select(Person.id), asked, moment)  # type: ignore[call-overload]
        letter.state = CampaignState.RUNNING
        while not planning.settle(services, session, letter, asked):
            pass


def main(url: str, api: str, slots: str, pace: str) -> None:
    """Make workers; what is built before they part has no connection open yet."""
    logs.configure("ERROR", ())
    anyio.run(anyio.sleep, 0)  # loads what would otherwise be loaded in every worker
    hatch(partial(work, *installation(url, api, paced=pace == PACED), int(slots)))


if __name__ == "__main__":
    main(*sys.argv[1:])
