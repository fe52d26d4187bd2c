"""Many invented people at once, straight into the tables: names, cities, categories, consent."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, insert, text
from sqlmodel import select

from storage.people import ConsentNow, Contact, Person, Unsubscription
from storage.profiles import MemberCategory, MemberProfile, keep_phone
from tests.world import World

SURNAMES = "高林沈叶程方苏陆唐韩曹许邓萧冯曾"
GIVEN = ("远山", "静宜", "望舒", "知秋", "若谷", "清和", "长河", "晓月", "思源", "一帆")
MONGOLIAN = ("巴特尔", "乌日娜", "斯琴高娃", "特木尔", "其木格")
HOMES = (
    ("上海", "上海", "中国", None),
    ("浙江", "杭州", "中国", None),
    ("北京", "北京", "中国", None),
    ("江苏", "苏州", "中国", None),
    ("内蒙古", "呼和浩特", "中国", None),
    ("", "洛杉矶", "美国", "America/Los_Angeles"),
)
CATEGORIES = (
    "entrepreneur",
    "expert",
    "alumnus",
    "educated_youth",
    "served_here",
    "graduate",
    "public_sector",
    "other",
)
TIES = ("霍林郭勒户籍或曾经户籍", "在霍读过书", "在霍工作/投资过")


def name_of(index: int) -> str:
    """The index-th invented name; every fifth is Mongolian and has no surname."""
    if index % 5 == 4:
        return MONGOLIAN[index // 5 % len(MONGOLIAN)]
    surname = SURNAMES[index % len(SURNAMES)]
    return surname + GIVEN[index // len(SURNAMES) % len(GIVEN)]


def who(index: int) -> str:
    """How the world addresses the index-th of them."""
    return f"member-{index}"


def register_many(
    world: World,
    count: int,
    *,
    first: int = 0,
    homes: Sequence[tuple[str, str, str, str | None]] = HOMES,
    categories: Sequence[str] = CATEGORIES,
    channel: str = "memory",
) -> list[int]:
    """Register people as the form would; returns their ids. `homes` and `categories` go in turn."""
    now = world.clock.now()
    people, contacts, profiles, chosen, consents, stopped = [], [], [], [], [], []
    with world.database.session() as session:
        last = session.exec(select(func.max(Person.id))).one() or 0
        for index, home, category in zip(
            range(first, first + count),
            itertools.cycle(homes),
            itertools.cycle(categories),
            strict=False,
        ):
            person_id = last + 1 + index - first
            province, city, country, zone = home
            name = name_of(index)
            people.append({"id": person_id, "created_at": now, "timezone": zone})
            contacts.append(
                {
                    "person_id": person_id,
                    "channel": channel,
                    "address": f"{channel}:test:{who(index)}",
                    "reachable": True,
                    "window_left": 0,
                    "last_seen_at": now,
                }
            )
            profiles.append(
                {
                    "person_id": person_id,
                    "number": f"HY-2026-{person_id:06d}",
                    "name": name,
                    "hometown_tie": TIES[index % len(TIES)],
                    "country": country,
                    "province": province,
                    "city": city,
                    "salutation": None if index % 3 == 2 else f"{name}老师",
                    "registered_at": now,
                    "last_confirmed_at": now - timedelta(days=index % 700),
                }
            )
            chosen.append({"person_id": person_id, "category": category, "position": 0})
            consents.append(
                {
                    "person_id": person_id,
                    "scope": "profile",
                    "live": True,
                    "version": "1",
                    "at": now,
                }
            )
            stopped.append({"person_id": person_id, "topic": "家乡动态", "at": now})
        for table, rows in (
            (Person, people),
            (Contact, contacts),
            (MemberProfile, profiles),
            (MemberCategory, chosen),
            (ConsentNow, consents),
            (Unsubscription, stopped),
        ):
            session.execute(insert(table), rows)
        if not world.database.sqlite:
            session.execute(text("SELECT setval('person_id_seq', max(id)) FROM person"))
    return [row["id"] for row in people]


def lose(world: World, who: str, phone: str = "") -> None:
    """Somebody's address is lost; `phone` is what they gave."""
    person_id = world.person(who)
    with world.database.session() as session:
        session.exec(select(Contact).where(Contact.person_id == person_id)).one().reachable = False
        keep_phone(session.get_one(MemberProfile, person_id), phone or None, world.database.keys)
