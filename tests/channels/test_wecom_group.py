"""Customer groups: rosters by version, and sends that are nothing until one of the staff taps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from bot.app import App, services_for
from bot.channels.base import Awaiting
from bot.channels.wecom.callback import PATH
from bot.channels.wecom.group.channel import GroupChannel
from bot.channels.wecom.group.tasks import NOT_DELIVERED
from bot.clock import SystemClock
from bot.context import group_row
from bot.errors import SendError
from bot.messages import Address, File, Part, say
from bot.settings import demo_settings
from storage import mailbox, steering
from storage.campaigns import Campaign, CampaignState
from storage.cursors import read_cursor
from storage.customer_groups import (
    NEWCOMERS,
    PATIENCE,
    CustomerGroup,
    GroupMember,
    StaffTask,
    call_back,
    forget_leavers,
    standing,
)
from storage.mailbox import Outbox
from storage.states import State
from tests.channels.called import PROMPTLY, SHORT
from tests.channels.harness import serving
from tests.channels.on_wecom_kf import wecom_settings
from tests.emulators.pushing import Push
from tests.emulators.server import Platforms
from tests.emulators.wecom_contact import HAD_ANOTHER, NOT_A_FRIEND, Contact
from tests.laying import lay_tables
from tests.world import KEYS, whole_catalog

pytestmark = pytest.mark.anyio

CHAT, OWNER = "wrGroupOfTheCounty", "zhangsan"
TEXT = "周六上午九点在会展中心开恳谈会。"
TASK = "cgi-bin/externalcontact/add_msg_template"
REMIND = "cgi-bin/externalcontact/remind_groupmsg_send"
GET = "cgi-bin/externalcontact/groupchat/get"
GREET = "cgi-bin/externalcontact/send_welcome_msg"


class OnGroup:
    """A customer group whose owner is one of the staff; 王小雁 is in it."""

    def __init__(
        self, platforms: Platforms, contact: Contact, channel: GroupChannel, app: App
    ) -> None:
        self.platforms = platforms
        self.wecom = platforms.wecom
        self.contact = contact
        self.clock = platforms.clock
        self.channel = channel
        self.app = app

    @property
    def address(self) -> Address:
        return Address("wecom_group", self.wecom.corporation.corp_id, CHAT)

    async def done(self, push: Push) -> Push:
        """Wait until an event is answered."""
        async with asyncio.timeout(PROMPTLY):
            return await push.done()

    async def tend(self, **later: float) -> None:
        """One round, after a span."""
        await self.clock.advance(**later)
        await self.channel.tend()

    async def announce(self, text: str = TEXT, number: int = 1, **more: Any) -> None:
        """Queue an announcement, as a handler would, and let it leave."""
        with self.app.services.database.session() as session:
            row = group_row(
                self.app.services, self.address, say(text), f"notice:{number}", self.clock.now()
            )
            mailbox.enqueue(session.connection(), [row | more])
        await self.app.delivery.until_idle()

    def states(self, number: int = 1) -> list[tuple[State, str]]:
        with self.app.services.database.reading() as session:
            return [(state, reason) for _, state, reason in standing(session, f"notice:{number}")]

    def group(self) -> CustomerGroup:
        with self.app.services.database.reading() as session:
            return session.exec(select(CustomerGroup)).one()

    def members(self) -> dict[str, GroupMember]:
        """Who is in the group now, as our tables have it."""
        with self.app.services.database.reading() as session:
            rows = session.exec(select(GroupMember).where(col(GroupMember.left_at).is_(None)))
            return {row.member: row for row in rows}

    def names(self) -> set[str]:
        return set(self.members()) - {OWNER}

    def task(self) -> str:
        (msgid,) = self.contact.waiting()
        return msgid


@asynccontextmanager
async def running(folder: Path, **values: str) -> AsyncIterator[OnGroup]:
    """An installation with the whole catalog, whose rounds are made by the test."""
    async with Platforms() as emulated:
        contact = emulated.wecom_contact
        settings = wecom_settings(
            folder, emulated.wecom.corporation, f"{emulated.url}/qy", **values
        )
        channel = Resting(settings, emulated.clock, timeout=SHORT)
        services = services_for(
            settings,
            {channel.facts.name: channel.facts},
            keys=KEYS,
            clock=emulated.clock,
            catalog=whole_catalog(),
        )
        lay_tables(services.database)
        app = App(services, {channel.facts.name: channel}, alone=True)
        async with serving(app) as url:
            emulated.wecom.connect(f"{url}{PATH}")
            made = OnGroup(emulated, contact, channel, app)
            await made.done(contact.create(CHAT, "乡亲一群", OWNER))
            await made.done(contact.join(CHAT, "wmWang", "王小雁", "union-wang"))
            await made.tend(seconds=2)
            yield made


class Resting(GroupChannel):
    """Tends nothing by itself."""

    async def run(self, receive: Any) -> None:
        return None


@pytest.fixture
async def on(tmp_path: Path, anyio_backend: str) -> AsyncIterator[OnGroup]:
    async with running(tmp_path) as made:
        yield made


# Rosters -----------------------------------------------------------------------------------------


async def test_a_new_group_is_read_with_names_and_unionids(on: OnGroup) -> None:
    wang = on.members()["wmWang"]
    assert (on.group().name, on.group().owner) == ("乡亲一群", OWNER)
    assert (wang.nickname, wang.unionid, wang.staff) == ("王小雁", "union-wang", False)
    assert on.members()[OWNER].staff


async def test_who_joins_and_leaves_in_order_is_known_at_once(on: OnGroup) -> None:
    await on.done(on.contact.join(CHAT, "wmLi", "李元贵"))
    assert on.names() == {"wmWang", "wmLi"}
    await on.done(on.contact.leave(CHAT, "wmWang"))
    assert on.names() == {"wmLi"}
    assert on.group().version == on.contact.groups[CHAT].version


async def test_who_leaves_in_order_costs_no_call(on: OnGroup) -> None:
    before = on.wecom.calls[GET]
    await on.done(on.contact.leave(CHAT, "wmWang"))
    await on.tend(seconds=10)
    assert (on.wecom.calls[GET], on.names()) == (before, set())


async def test_fact_55_after_a_lost_event_the_roster_is_read_again(on: OnGroup) -> None:
    on.contact.lose_next()
    on.contact.join(CHAT, "wmLost", "没听到的人")
    await on.done(on.contact.join(CHAT, "wmLi", "李元贵"))
    assert "wmLost" not in on.names()
    await on.tend(seconds=2)
    assert on.names() == {"wmWang", "wmLost", "wmLi"}
    assert on.group().version == on.contact.groups[CHAT].version


async def test_fact_55_events_out_of_order_end_in_the_true_roster(on: OnGroup) -> None:
    on.wecom.hold_next()
    on.contact.join(CHAT, "wmLi", "李元贵")
    await on.done(on.contact.leave(CHAT, "wmLi"))
    await on.clock.advance(1)
    await on.tend(seconds=120)
    await on.tend(seconds=120)
    assert on.names() == {"wmWang"}
    assert (on.group().due_at, on.group().version) == (None, on.contact.groups[CHAT].version)


async def test_fact_55_an_event_told_twice_is_applied_once(on: OnGroup) -> None:
    on.wecom.repeat_next()
    push = await on.done(on.contact.leave(CHAT, "wmWang"))
    async with asyncio.timeout(PROMPTLY):
        while len(push.tries) < 2 or push.tries[1].status is None:
            await on.clock.advance(0)
    assert on.names() == set()
    assert on.group().due_at is None


async def test_fact_55_a_roster_that_lags_is_read_until_it_is_there(on: OnGroup) -> None:
    before = on.wecom.calls[GET]
    on.contact.lose_next()
    on.contact.join(CHAT, "wmLost", "没听到的人")
    await on.done(on.contact.join(CHAT, "wmLi", "李元贵"))
    # The platform shows the change later than it said.
    at, shown = on.contact.groups[CHAT].versions[-1]
    on.contact.groups[CHAT].versions[-1] = (at + 3, shown)
    await on.tend(seconds=2)
    assert "wmLost" not in on.names()
    await on.tend(seconds=4)
    assert on.names() == {"wmWang", "wmLost", "wmLi"}
    assert on.wecom.calls[GET] == before + 2


async def test_a_version_that_never_comes_is_given_up(on: OnGroup) -> None:
    fields: dict[str, Any] = {"ChatId": CHAT, "ChangeType": "update"}
    fields["UpdateDetail"] = "add_member"
    fields |= {"LastMemVer": "a", "CurMemVer": "b", "MemChangeList": {"Item": ["wmX", "wmY"]}}
    await on.done(on.wecom.announce("change_external_chat", fields))
    for _ in range(PATIENCE + 1):
        await on.tend(minutes=5)
    assert (on.group().due_at, on.names()) == (None, {"wmWang"})


async def test_every_few_hours_all_groups_are_read(on: OnGroup) -> None:
    on.contact.lose_next(2)
    on.contact.leave(CHAT, "wmWang")
    on.contact.create("wrOther", "乡亲二群", OWNER)
    await on.tend(hours=7)
    assert on.names() == set()
    with on.app.services.database.reading() as session:
        names = session.exec(select(CustomerGroup.name).order_by(col(CustomerGroup.id))).all()
    assert list(names) == ["乡亲一群", "乡亲二群"]


async def test_a_dismissed_group_is_empty_and_told_nothing(on: OnGroup) -> None:
    await on.done(on.contact.dismiss(CHAT))
    assert on.members() == {}
    await on.announce()
    assert on.states() == [(State.FAILED, "unreachable")]


async def test_a_roster_that_cannot_be_read_is_read_later(on: OnGroup) -> None:
    on.wecom.fail(GET, "errcode", value=-1)
    await on.done(on.contact.join(CHAT, "wmLi", "李元贵"))
    await on.tend(seconds=2)
    assert on.members()["wmLi"].nickname is None
    await on.tend(seconds=30)
    assert on.members()["wmLi"].nickname == "李元贵"


async def test_fact_58_without_the_binding_nobody_has_a_unionid(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        on.contact.bind(False)
        await on.done(on.contact.join(CHAT, "wmLi", "李元贵", "union-li"))
        await on.tend(seconds=2)
        li = on.members()["wmLi"]
        assert (li.unionid, li.person_id) == (None, None)


async def test_who_left_is_forgotten_in_time(on: OnGroup) -> None:
    await on.done(on.contact.leave(CHAT, "wmWang"))
    now = on.clock.now()
    with on.app.services.database.session() as session:
        assert forget_leavers(session, now) == 0
        assert forget_leavers(session, now + timedelta(seconds=1)) == 1


# Announcements -----------------------------------------------------------------------------------


async def test_fact_53_nothing_is_sent_until_the_staff_tap(on: OnGroup) -> None:
    await on.announce()
    await on.tend(minutes=2)
    assert on.states() == [(State.AWAITING_STAFF, "")]
    assert on.contact.heard(CHAT) == []
    on.contact.tap(on.task())
    assert on.states() == [(State.AWAITING_STAFF, "")]
    await on.tend(minutes=2)
    assert on.states() == [(State.SENT, "")]
    assert on.contact.heard(CHAT) == [TEXT]


async def test_fact_53_send_says_that_it_awaits_a_tap(on: OnGroup) -> None:
    sent = await on.channel.send(on.address, Part(TEXT), "1-0")
    assert sent == Awaiting(on.task())
    assert on.contact.tasks[on.task()].sender == OWNER


@pytest.mark.parametrize(
    ("status", "why"), [(NOT_A_FRIEND, "员工已不在群里"), (HAD_ANOTHER, "群里本月的群发次数已满")]
)
async def test_fact_53_a_tap_in_vain_is_a_failure_with_its_reason(
    on: OnGroup, status: int, why: str
) -> None:
    await on.announce()
    on.contact.tap_in_vain(on.task(), status)
    await on.tend(minutes=2)
    assert on.states() == [(State.FAILED, why)]


async def test_fact_53_a_tap_that_no_result_follows_is_a_failure_after_a_while(
    on: OnGroup,
) -> None:
    await on.announce()
    task = on.contact.tasks[on.task()]
    task.state = "sent"
    await on.tend(minutes=2)
    assert on.states() == [(State.AWAITING_STAFF, "")]
    await on.tend(minutes=11)
    assert on.states() == [(State.FAILED, NOT_DELIVERED)]


async def test_fact_53_who_does_not_tap_is_reminded_by_day_and_not_too_often(
    on: OnGroup,
) -> None:
    await on.announce()
    task = on.contact.tasks[on.task()]
    await on.tend(hours=1)
    assert len(task.reminded) == 0
    await on.tend(hours=2)
    assert len(task.reminded) == 1
    for _ in range(7 * 24):
        await on.tend(hours=1)
    assert len(task.reminded) == 3
    hours = {(timedelta(seconds=at).seconds // 3600 + 8) % 24 for at in task.reminded}
    assert hours <= set(range(8, 22))


async def test_fact_53_what_is_called_back_before_the_tap_is_never_sent(on: OnGroup) -> None:
    await on.announce()
    task = on.contact.tasks[on.task()]
    with on.app.services.database.session() as session:
        assert call_back(session, "notice:1", on.clock.now()) == (0, 1)
    assert on.states() == [(State.AWAITING_STAFF, "")]
    await on.tend()
    assert (on.states(), task.state) == ([(State.CANCELLED, "cancelled")], "cancelled")


async def test_fact_53_what_was_tapped_before_it_was_called_back_is_sent(on: OnGroup) -> None:
    await on.announce()
    on.contact.tap(on.task())
    with on.app.services.database.session() as session:
        call_back(session, "notice:1", on.clock.now())
    await on.tend()
    assert on.states() == [(State.SENT, "")]


async def test_what_nobody_taps_in_time_is_taken_back(on: OnGroup) -> None:
    await on.announce(expires_at=on.clock.now() + timedelta(days=3))
    task = on.contact.tasks[on.task()]
    await on.clock.advance(days=4)
    with on.app.services.database.transaction() as connection:
        steering.expire_overdue(connection, on.clock.now())
    await on.tend()
    assert (on.states(), task.state) == ([(State.EXPIRED, "expired")], "cancelled")


async def test_a_cancelled_campaigns_task_is_taken_back(on: OnGroup) -> None:
    with on.app.services.database.session() as session:
        campaign = Campaign(
            number="B-0001",
            kind="broadcast",
            purpose="news",
            title="t",
            occasion="o",
            audience="{}",
            template="t",
            created_by=None,
            created_at=on.clock.now(),
            state=CampaignState.RUNNING,
        )
        session.add(campaign)
        session.flush()
        number = campaign.id
    await on.announce(campaign_id=number)
    with on.app.services.database.session() as session:
        session.get_one(Campaign, number).state = CampaignState.CANCELLED
    await on.tend(minutes=2)
    assert on.states() == [(State.CANCELLED, "cancelled")]


async def test_fact_54_a_month_has_as_many_sends_as_days(on: OnGroup) -> None:
    for number in range(1, 31):
        await on.announce(f"第{number}条", number)
    assert {on.states(number)[0][0] for number in range(1, 31)} == {State.AWAITING_STAFF}
    await on.announce("第31条", 31)
    assert on.states(31) == [(State.FAILED, "quota")]
    assert on.wecom.calls[TASK] == 30
    await on.clock.advance(days=9)  # 1 October in Beijing
    await on.announce("十月第一条", 32)
    assert on.states(32) == [(State.AWAITING_STAFF, "")]


async def test_fact_54_what_the_platform_counts_itself_is_a_failure_too(on: OnGroup) -> None:
    on.contact.groups[CHAT].received["2026-09"] = 30
    await on.announce()
    on.contact.tap(on.task())
    await on.tend(minutes=2)
    assert on.states() == [(State.FAILED, "群里本月的群发次数已满")]


async def test_a_task_whose_answer_was_lost_is_unknown_and_not_made_twice(on: OnGroup) -> None:
    on.wecom.fail(TASK, "cut", "after")
    await on.announce()
    await on.tend(minutes=5)
    assert on.states() == [(State.UNKNOWN, "no_answer")]
    assert len(on.contact.tasks) == 1


async def test_a_platform_in_trouble_is_asked_after_a_task_again(on: OnGroup) -> None:
    await on.announce()
    on.contact.tap(on.task())
    on.wecom.fail("cgi-bin/externalcontact/get_groupmsg_task", "errcode", value=-1)
    await on.tend(minutes=2)
    assert on.states() == [(State.AWAITING_STAFF, "")]
    await on.tend(minutes=2)
    assert on.states() == [(State.SENT, "")]


async def test_a_result_before_the_row_is_written_is_not_lost(on: OnGroup) -> None:
    sent = await on.channel.send(on.address, Part(TEXT), "1-0")
    assert isinstance(sent, Awaiting)
    on.contact.tap(sent.id)
    await on.tend(minutes=2)
    with on.app.services.database.session() as session:
        row = group_row(on.app.services, on.address, say(TEXT), "notice:1", on.clock.now())
        mailbox.enqueue(session.connection(), [row])
        written = session.exec(select(Outbox)).one()
        written.provider_id = sent.id
        for state in (State.LEASED, State.SENDING, State.AWAITING_STAFF):
            written.state = state
            session.add(written)
            session.flush()
    await on.tend(minutes=2)
    assert on.states() == [(State.SENT, "")]
    with on.app.services.database.reading() as session:
        assert session.get_one(StaffTask, sent.id).due_at is None


async def test_a_file_cannot_go_to_a_group(on: OnGroup) -> None:
    with pytest.raises(SendError) as caught:
        await on.channel.send(on.address, Part("", file=File("a.xlsx", "x", b"x")), "1-0")
    assert (caught.value.reason, caught.value.permanent) == ("no_files", True)


# Welcomes ----------------------------------------------------------------------------------------


async def until(met: Callable[[], bool]) -> None:
    """Give work beside the callback its time."""
    async with asyncio.timeout(PROMPTLY):
        while not met():
            await asyncio.sleep(0.01)


async def test_a_new_friend_of_the_staff_is_shown_the_way(tmp_path: Path) -> None:
    link = "https://mp.weixin.qq.com/hongyan"
    async with running(tmp_path, wecom_group_link=link) as on:
        await on.done(on.contact.befriend(OWNER, "wmNew"))
        await until(lambda: bool(on.contact.greeted))
        (greeting,) = on.contact.greeted
        assert "再对公众号说「登记」" in greeting["text"]["content"]
        assert greeting["attachments"][0]["link"]["url"] == link


async def test_fact_56_after_20_seconds_nobody_is_greeted(on: OnGroup) -> None:
    push = on.contact.befriend(OWNER, "wmNew")
    code = push.fields["WelcomeCode"]
    await on.done(push)
    await until(lambda: bool(on.contact.greeted))
    on.contact._codes[code] = ("wmNew", on.clock.timestamp() + 20)
    await on.clock.advance(21)
    await on.channel._greet(code)
    assert len(on.contact.greeted) == 1


async def test_fact_56_another_app_at_work_means_to_try_again(on: OnGroup) -> None:
    on.wecom.fail(GREET, "errcode", value=41096)
    await on.done(on.contact.befriend(OWNER, "wmNew"))
    await until(lambda: bool(on.contact.greeted))
    assert on.wecom.calls[GREET] == 2


async def test_fact_56_who_has_been_greeted_is_left_alone(on: OnGroup) -> None:
    push = on.contact.befriend(OWNER, "wmNew")
    on.contact.chat_first("wmNew")
    await on.done(push)
    await until(lambda: on.wecom.calls[GREET] == 1)
    await asyncio.sleep(0.1)
    assert (on.contact.greeted, on.wecom.calls[GREET]) == ([], 1)


async def test_fact_57_the_welcome_is_one_material_with_the_nickname(on: OnGroup) -> None:
    home = Address(on.address.channel, on.address.account, NEWCOMERS)
    on.contact.fill_templates(f"别的素材{number}" for number in range(99))
    first = await on.channel.send(home, Part("%NICKNAME%，欢迎"), "1-0")
    second = await on.channel.send(home, Part("%NICKNAME%，您好"), "2-0")
    assert first == second
    assert len(on.contact.templates) == 100
    assert on.contact.templates[str(first)] == "%NICKNAME%，您好"
    with on.app.services.database.reading() as session:
        assert read_cursor(session.connection(), "wecom_group:welcome") == first


async def test_fact_57_a_hundred_materials_are_all_there_can_be(on: OnGroup) -> None:
    home = Address(on.address.channel, on.address.account, NEWCOMERS)
    on.contact.fill_templates(f"别的素材{number}" for number in range(100))
    with pytest.raises(SendError):
        await on.channel.send(home, Part("%NICKNAME%，欢迎"), "1-0")


# Checking ----------------------------------------------------------------------------------------


async def test_probing_tells_groups_and_what_is_left(on: OnGroup) -> None:
    await on.announce()
    lines = [(finding.fine, finding.what) for finding in await on.channel.probe()]
    assert lines == [(True, "客户群1个"), (True, "「乡亲一群」本月群发还可29次")]


async def test_probing_says_where_to_bind_the_account(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        with on.app.services.database.session() as session:
            for member in session.exec(select(GroupMember)):
                member.unionid = None
                session.add(member)
        worst = [finding for finding in await on.channel.probe() if not finding.fine]
        assert "微信开发者ID" in worst[0].advice


async def test_probing_without_the_right_says_where_to_click(on: OnGroup) -> None:
    on.wecom.fail("cgi-bin/externalcontact/groupchat/list", "errcode", value=48002)
    (finding,) = await on.channel.probe()
    assert (finding.fine, "可调用接口的应用" in finding.advice) == (False, True)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    settings = demo_settings(wecom_corp_id="ww1", wecom_aes_key="short")
    lines = GroupChannel(settings, SystemClock()).check()
    assert len(lines) == 3
    assert "43个字符" in lines[-1]
