"""What platforms tell beside the conversation is taken in once, though the database was away."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlmodel import col, select

from bot.app import App, services_for
from bot.channels.base import Channel
from bot.channels.wechat.channel import WeChatChannel
from bot.channels.wecom.bot.url import PATH as BOT_PATH
from bot.channels.wecom.bot.url import UrlBot
from bot.channels.wecom.channel import WeComChannel
from bot.channels.wecom.group.channel import GroupChannel
from bot.channels.wecom.kf.channel import KfChannel
from bot.messages import Address, Inbound, aside, load_reply
from bot.settings import Settings
from bot.spool import Spool
from storage import customer_groups
from storage.covers import Cover, CoverState
from storage.customer_groups import CustomerGroup, GroupMember, Roster, Seat
from storage.mailbox import Outbox
from storage.people import Contact, Grant
from storage.states import State
from storage.wechat import NoticeGrant
from tests.channels.called import PROMPTLY, SHORT
from tests.channels.harness import serving
from tests.channels.on_wechat import WANG, wechat_settings
from tests.channels.on_wecom import wecom_settings
from tests.channels.on_wecom_bot import bot_settings
from tests.cutting import Door
from tests.emulators.pushing import Push
from tests.emulators.server import START, Platforms
from tests.laying import lay_tables
from tests.postgres import Server
from tests.world import KEYS, whole_catalog

pytestmark = pytest.mark.anyio

LI = "oLiYuangui"
LETTERS, DUTIES = "N-letter", "N-duty"
CHAT, OWNER = "wrGroupOfTheCounty", "zhangsan"
JOB, COVER_JOB = "3001", "4001"


@dataclass
class On:
    """An installation whose database is behind a door, and the platform that calls it."""

    platforms: Platforms
    app: App
    door: Door
    folder: Path

    @property
    def spool(self) -> Spool:
        assert self.app.spool is not None
        return self.app.spool

    def session(self) -> Any:
        return self.app.services.database.session()

    def all(self, what: Any, *order: Any) -> list[Any]:
        with self.app.services.database.reading() as session:
            return list(session.exec(select(what).order_by(*order)).all())

    async def answered(self, push: Push, count: int = 3) -> list[int | None]:
        """How the tries of a push were answered, each as soon as the platform makes it."""
        for number in range(count):
            await until(lambda at=number: len(push.tries) > at and push.tries[at].status)
            if push.tries[number].status == 200:
                break
            await self.platforms.clock.advance(5)
        return [one.status for one in push.tries]

    async def taken_in(self) -> None:
        """Everything that was kept is in the database."""
        await until(lambda: not list(self.folder.iterdir()))
        assert self.spool.depth == 0

    async def again(self, left_behind: Path) -> None:
        """What stood on the disk is taken over as if its process had died before it could say that
        it had been taken in."""
        await asyncio.to_thread(self.app.dispatcher.stop)
        shutil.copy(left_behind, self.folder / "00000009-dead.spool")
        assert self.spool.adopt() == 1
        self.app.dispatcher.start()
        await self.taken_in()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PROMPTLY):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture
def door(postgres_server: Server) -> Iterator[Door]:
    with Door(postgres_server.socket_folder) as made:
        yield made


@pytest.fixture
def behind(postgres_url: str, door: Door) -> str:
    """The address of the database behind the door."""
    return door.url(make_url(postgres_url).database or "")


def installed(settings: Settings, platforms: Platforms, folder: Path, *channels: Channel) -> App:
    facts = {channel.facts.name: channel.facts for channel in channels}
    services = services_for(
        settings, facts, keys=KEYS, clock=platforms.clock, catalog=whole_catalog()
    )
    lay_tables(services.database)
    named = {channel.facts.name: channel for channel in channels}
    return App(services, named, alone=False, spool=Spool(folder, services.keys))


@asynccontextmanager
async def on_wechat(
    behind: str, door: Door, folder: Path, *, state: State = State.SENT, job: str = JOB
) -> AsyncIterator[On]:
    """王小雁 follows; a notice and a cover of hers have left, and their end is not told yet."""
    async with Platforms() as platforms:
        wechat = platforms.wechat
        settings = wechat_settings(
            folder,
            wechat.account,
            f"{platforms.url}/mp",
            public_url="https://bot.example.org",
            wechat_notices=f"letter={LETTERS}:thing1=标题;duty={DUTIES}:thing1=标题",
        ).model_copy(update={"database_url": behind})
        channel = WeChatChannel(settings, platforms.clock, timeout=SHORT)
        app = installed(settings, platforms, folder / "spool", channel)
        async with serving(app) as url:
            wechat.connect(f"{url}/callback/wechat")
            on = On(platforms, app, door, folder / "spool")
            await wechat.follow(WANG).done()
            await wechat.grant(WANG, [DUTIES, LETTERS]).done()
            with on.session() as session:
                person = session.exec(select(Contact.person_id)).one()
                session.add(
                    Outbox(
                        occasion="notice:1",
                        recipient=f"p{person}",
                        person_id=person,
                        address=f"wechat:{wechat.account.app_id}:{WANG}",
                        purpose="duty",
                        lane="wechat:live",
                        not_before=START,
                        created_at=START,
                        state=state,
                        provider_id=job,
                    )
                )
                session.add(
                    Cover(
                        key="k1",
                        channel="wechat",
                        text="",
                        asked_by=person,
                        created_at=START,
                        state=CoverState.ACCEPTED,
                        job=COVER_JOB,
                    )
                )
            yield on


@asynccontextmanager
async def on_wecom(behind: str, door: Door, folder: Path) -> AsyncIterator[On]:
    """The app and customer contact; 张三 is on duty, and owns a group in which 王小雁 is."""
    async with Platforms() as platforms:
        wecom = platforms.wecom
        settings = wecom_settings(
            folder, wecom.corporation, f"{platforms.url}/qy", channels="wecom,wecom_group"
        ).model_copy(update={"database_url": behind})
        app = installed(
            settings,
            platforms,
            folder / "spool",
            WeComChannel(settings, platforms.clock, timeout=SHORT),
            GroupChannel(settings, platforms.clock, timeout=SHORT),
        )
        async with serving(app) as url:
            wecom.hire(OWNER, "张三")
            wecom.connect(f"{url}/callback/wecom")
            on = On(platforms, app, door, folder / "spool")
            await wecom.say(OWNER, "你好").done()
            contact = platforms.wecom_contact
            await contact.create(CHAT, "乡亲一群", OWNER).done()
            await contact.join(CHAT, "wmWang").done()
            with on.session() as session:
                person = session.exec(select(Contact.person_id)).one()
                session.add(Grant(person_id=person, role="admin", granted_at=START))
                group = contact.groups[CHAT]
                seats = (Seat("wmWang", False, "", "", START),)
                customer_groups.keep_roster(
                    session,
                    f"wecom_group:{wecom.corporation.corp_id}:{CHAT}",
                    Roster("乡亲一群", OWNER, group.version, seats),
                    START,
                )
            yield on


# What there is -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One kind of aside: what tells it, what shows that it was taken in, and how that changes."""

    tell: Callable[[Platforms], Push]
    shown: Callable[[On], object]
    before: object
    after: object


def grants(on: On) -> dict[str, int]:
    return {one.template: one.left for one in on.all(NoticeGrant)}


def notices(on: On) -> list[tuple[str, str]]:
    return [(one.state, one.reason) for one in on.all(Outbox) if one.purpose == "duty"]


def covers(on: On) -> list[tuple[str, int]]:
    return [(one.state, one.sent) for one in on.all(Cover)]


def warnings(on: On) -> list[str]:
    said = [load_reply(one.body or "").text for one in on.all(Outbox) if one.purpose == "trouble"]
    return [text.partition("起")[2] for text in said if "恢复" not in text]


def members(on: On) -> list[str]:
    return [one.member for one in on.all(GroupMember, GroupMember.member) if not one.left_at]


def dismissed(on: On) -> list[bool]:
    return [one.dismissed_at is not None for one in on.all(CustomerGroup)]


def sent_notice(platforms: Platforms) -> Push:
    item = {"TemplateId": LETTERS, "MsgID": JOB, "ErrorCode": "0", "ErrorStatus": "success"}
    return platforms.wechat.happen(
        WANG, "subscribe_msg_sent_event", {"SubscribeMsgSentEvent": {"List": item}}
    )


def template_done(platforms: Platforms, status: str = "success") -> Push:
    return platforms.wechat.happen(WANG, "TEMPLATESENDJOBFINISH", {"MsgID": JOB, "Status": status})


def mass_done(platforms: Platforms) -> Push:
    counts = {"TotalCount": "9", "FilterCount": "8", "SentCount": "7", "ErrorCount": "1"}
    return platforms.wechat.happen(
        WANG, "MASSSENDJOBFINISH", {"MsgID": COVER_JOB, "Status": "send success", **counts}
    )


WECHAT = {
    "agreement": Case(
        lambda p: p.wechat.grant(WANG, [LETTERS]),
        grants,
        {DUTIES: 1, LETTERS: 1},
        {DUTIES: 1, LETTERS: 2},
    ),
    "taken back": Case(
        lambda p: p.wechat.take_back(WANG, [LETTERS]),
        grants,
        {DUTIES: 1, LETTERS: 1},
        {DUTIES: 1, LETTERS: 0},
    ),
    "notice sent": Case(sent_notice, notices, [(State.SENT, "")], [(State.DELIVERED, "notice")]),
    "template done": Case(
        template_done, notices, [(State.SENT, "")], [(State.DELIVERED, "notice")]
    ),
    "mass done": Case(mass_done, covers, [(CoverState.ACCEPTED, -1)], [(CoverState.DONE, 7)]),
}
WECOM = {
    "joined": Case(
        lambda p: p.wecom_contact.join(CHAT, "wmLi"), members, ["wmWang"], ["wmLi", "wmWang"]
    ),
    "left": Case(lambda p: p.wecom_contact.leave(CHAT, "wmWang"), members, ["wmWang"], []),
    "dismissed": Case(lambda p: p.wecom_contact.dismiss(CHAT), dismissed, [False], [True]),
    "inactive": Case(
        lambda p: p.wecom.announce("low_active", {}),
        warnings,
        [],
        ["被平台限制：应用用的人太少。请几位同事在企业微信里打开它，说一句话"],
    ),
}


CASES = WECHAT | WECOM


def running(kind: str) -> Callable[[str, Door, Path], AbstractAsyncContextManager[On]]:
    """The platform that tells it, with an installation behind it."""
    return on_wechat if kind in WECHAT else on_wecom


@pytest.mark.parametrize("kind", CASES)
async def test_what_is_told_while_the_database_is_away_is_taken_in_once(
    behind: str, door: Door, tmp_path: Path, kind: str
) -> None:
    case = CASES[kind]
    async with running(kind)(behind, door, tmp_path) as on:
        assert case.shown(on) == case.before
        door.shut()
        push = case.tell(on.platforms)
        assert await on.answered(push) == [200]
        assert on.spool.depth == 1
        (kept,) = on.folder.iterdir()
        copy = Path(shutil.copy(kept, tmp_path))
        door.open()
        await on.taken_in()
        assert case.shown(on) == case.after
        # Whoever is killed before it can say so has it taken in by the next.
        await on.again(copy)
        assert case.shown(on) == case.after


@pytest.mark.parametrize("kind", CASES)
async def test_what_is_told_twice_is_taken_in_once(
    behind: str, door: Door, tmp_path: Path, kind: str
) -> None:
    case = CASES[kind]
    async with running(kind)(behind, door, tmp_path) as on:
        on.platforms.wechat.repeat_next()
        on.platforms.wecom.repeat_next()
        push = case.tell(on.platforms)
        await until(lambda: [one.status for one in push.tries] == [200, 200])
        assert case.shown(on) == case.after


# What is fetched, said or greeted beside it -------------------------------------------------------


async def test_what_is_asked_of_a_smart_bot_is_answered_where_it_said(
    behind: str, door: Door, tmp_path: Path
) -> None:
    async with Platforms() as platforms:
        bot = platforms.wecom_bot
        settings = bot_settings(tmp_path, bot.account, platforms.url)
        settings = settings.model_copy(update={"database_url": behind})
        app = installed(
            settings,
            platforms,
            tmp_path / "spool",
            UrlBot(settings, platforms.clock, timeout=SHORT),
        )
        async with serving(app) as url:
            bot.hire(WANG)
            bot.connect(f"{url}{BOT_PATH}")
            on = On(platforms, app, door, tmp_path / "spool")
            door.shut()
            push = bot.say(WANG, "菜单")
            await until(lambda: push.tries and push.tries[0].status == 200)
            assert on.spool.depth == 2
            door.open()
            await on.taken_in()
            await app.delivery.until_idle()
            assert [one.state for one in on.all(Outbox)] == [State.SENT]
            assert "登记" in bot.offered(WANG)


async def test_what_waits_at_the_platform_is_fetched_when_the_database_is_back(
    behind: str, door: Door, tmp_path: Path
) -> None:
    async with Platforms() as platforms:
        wecom, kf = platforms.wecom, platforms.wecom_kf
        settings = wecom_settings(
            tmp_path, wecom.corporation, f"{platforms.url}/qy", channels="wecom_kf"
        ).model_copy(update={"database_url": behind})
        channel = KfChannel(settings, platforms.clock, timeout=SHORT)
        app = installed(settings, platforms, tmp_path / "spool", channel)
        async with serving(app) as url:
            wecom.connect(f"{url}/callback/wecom")
            kf.find(WANG)
            on = On(platforms, app, door, tmp_path / "spool")
            await channel.settled()
            door.shut()
            assert await on.answered(kf.say(WANG, "菜单")) == [200]
            door.open()
            await until(lambda: [one for one in on.all(Outbox) if one.purpose == "answer"])
            await app.delivery.until_idle()
            assert ["回「登记」" in text for text in kf.heard(WANG)] == [True]


async def test_a_new_friend_is_greeted_if_the_database_is_back_while_the_code_lives(
    behind: str, door: Door, tmp_path: Path, logged: list[str]
) -> None:
    async with on_wecom(behind, door, tmp_path) as on:
        door.shut()
        push = on.platforms.wecom_contact.befriend(OWNER, "wmNew")
        assert await on.answered(push) == [200]
        await until(lambda: any("not_greeted" in line for line in logged))
        assert on.spool.depth == 0
        door.open()
        await until(lambda: on.platforms.wecom_contact.greeted)


# In order ----------------------------------------------------------------------------------------


async def test_who_follows_and_agrees_during_an_outage_has_agreed(
    behind: str, door: Door, tmp_path: Path
) -> None:
    async with on_wechat(behind, door, tmp_path) as on:
        door.shut()
        for push in (
            on.platforms.wechat.follow(LI),
            on.platforms.wechat.grant(LI, [LETTERS]),
            on.platforms.wechat.grant(LI, [DUTIES], accept=False),
        ):
            assert await on.answered(push) == [200]
        door.open()
        await on.taken_in()
        assert [one.left for one in on.all(NoticeGrant, col(NoticeGrant.person_id))] == [1, 1, 1]
        assert len(on.all(Contact)) == 2


async def test_who_changes_their_mind_during_an_outage_is_believed_the_last_time(
    behind: str, door: Door, tmp_path: Path
) -> None:
    async with on_wechat(behind, door, tmp_path) as on:
        door.shut()
        assert await on.answered(on.platforms.wechat.grant(WANG, [LETTERS])) == [200]
        assert await on.answered(on.platforms.wechat.take_back(WANG, [LETTERS])) == [200]
        door.open()
        await on.taken_in()
        assert grants(on) == {DUTIES: 1, LETTERS: 0}


@pytest.mark.parametrize("status", ["success", "failed:user block"])
async def test_the_end_of_a_notice_waits_until_its_number_is_written_down(
    behind: str, door: Door, tmp_path: Path, status: str
) -> None:
    """The database went away between the call and its result, which its sender still holds."""
    async with on_wechat(behind, door, tmp_path, state=State.SENDING, job="") as on:
        door.shut()
        assert await on.answered(template_done(on.platforms, status)) == [200]
        door.open()
        # It keeps nobody waiting meanwhile.
        await on.platforms.wechat.say(WANG, "菜单").done()
        await until(lambda: on.spool.depth == 1)
        assert notices(on) == [(State.SENDING, "")]
        write_down(on)
        await on.taken_in()
        ends = {
            "success": (State.DELIVERED, "notice"),
            "failed:user block": (State.FAILED, "blocked"),
        }
        assert notices(on) == [ends[status]]


async def test_the_end_of_a_notice_that_comes_before_its_number_is_told_again(
    behind: str, door: Door, tmp_path: Path
) -> None:
    async with on_wechat(behind, door, tmp_path, state=State.SENDING, job="") as on:
        push = template_done(on.platforms)
        await until(lambda: push.tries and push.tries[0].status == 503)
        write_down(on)
        assert await on.answered(push) == [503, 200]
        assert notices(on) == [(State.DELIVERED, "notice")]


async def test_the_end_of_somebody_elses_notice_is_taken_and_forgotten(
    behind: str, door: Door, tmp_path: Path
) -> None:
    async with on_wechat(behind, door, tmp_path, job="another") as on:
        assert await on.answered(template_done(on.platforms)) == [200]
        assert notices(on) == [(State.SENT, "")]


def write_down(on: On) -> None:
    """The sender writes down what the platform said."""
    with on.session() as session:
        found = session.exec(select(Outbox).where(Outbox.purpose == "duty")).one()
        found.state, found.provider_id = State.SENT, JOB
        session.add(found)


def agreement(on: On, number: int) -> Inbound:
    """王小雁 agrees to one more letter, as the platform tells it."""
    item = {"TemplateId": LETTERS, "SubscribeStatusString": "accept"}
    told = {
        "CreateTime": f"{number}",
        "Event": "subscribe_msg_popup_event",
        "SubscribeMsgPopupEvent": {"List": item},
    }
    return aside(Address("wechat", on.app.services.settings.wechat_app_id, WANG), told, START)


# What cannot be taken in -------------------------------------------------------------------------


async def test_what_can_never_be_taken_in_stops_nothing_behind_it(
    behind: str, door: Door, tmp_path: Path, logged: list[str]
) -> None:
    async with on_wechat(behind, door, tmp_path) as on:
        spoilt = replace(agreement(on, 1), text="[]")
        door.shut()
        assert await on.app.receive(spoilt, 5) == ()
        on.spool.keep([aside(Address("gone", "", ""), {}, START)])
        assert await on.answered(on.platforms.wechat.grant(WANG, [LETTERS])) == [200]
        door.open()
        await until(lambda: grants(on) == {DUTIES: 1, LETTERS: 2})
        await on.taken_in()
        assert sum("handler_failed" in line for line in logged) == 1
        assert sum("spool_given_up" in line for line in logged) == 1


async def test_a_mistake_over_an_aside_is_answered_by_nothing(
    behind: str, door: Door, tmp_path: Path, logged: list[str]
) -> None:
    async with on_wechat(behind, door, tmp_path) as on:
        spoilt = replace(agreement(on, 1), text="[]")
        assert await on.app.receive(spoilt, 5) == ()
        assert sum("handler_failed" in line for line in logged) == 1


async def test_a_connection_cut_at_any_byte_loses_and_doubles_no_aside(
    behind: str, door: Door, tmp_path: Path
) -> None:
    async with on_wechat(behind, door, tmp_path) as on:

        def hear(number: int) -> None:
            assert on.app.dispatcher.handle(agreement(on, number)) == ()

        number = door.cut_everywhere(hear)
        assert door.cuts > 15
        door.open()
        assert grants(on) == {DUTIES: 1, LETTERS: number + 2}


async def test_a_full_spool_has_the_platform_tell_again(
    behind: str, door: Door, tmp_path: Path
) -> None:
    async with on_wechat(behind, door, tmp_path) as on:
        on.spool._most = 10
        door.shut()
        push = on.platforms.wechat.grant(WANG, [LETTERS])
        await until(lambda: push.tries and push.tries[0].status == 503)
        on.spool._most = 10_000
        assert await on.answered(push) == [503, 200]
        door.open()
        await on.taken_in()
        assert grants(on) == {DUTIES: 1, LETTERS: 2}


async def test_a_database_that_hangs_leaves_no_aside_without_a_place(
    behind: str, door: Door, tmp_path: Path
) -> None:
    async with on_wechat(behind, door, tmp_path) as on:
        door.jam()
        with pytest.raises(TimeoutError):
            await on.app.receive(agreement(on, 1), 0.2)
        assert on.spool.depth == 1
        door.open()
        await on.taken_in()
        assert grants(on) == {DUTIES: 1, LETTERS: 2}
