"""Covers: one text to many at once, so that those whose letter waits write and get theirs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from bot.channels.wechat.channel import COVERS, WeChatChannel
from bot.context import outbox_row
from bot.messages import say
from handlers.covers import divided
from handlers.purposes import NEWS
from storage import covers, mailbox
from storage.audit import AuditEntry
from storage.campaigns import Campaign, CampaignState
from storage.covers import Cover, CoverRecipient, CoverState
from storage.mailbox import Outbox
from storage.people import ConsentEntry, Contact, Grant, record_consent, unsubscribe
from storage.states import State
from tests.channels.called import PROMPTLY
from tests.channels.on_wechat import WANG, OnWeChat, running
from tests.emulators.clock import VirtualClock
from tests.emulators.server import START, Platforms
from tests.emulators.wechat import Rules, WeChat
from tests.world import whole_catalog

pytestmark = pytest.mark.anyio

MASS = "cgi-bin/message/mass/send"
COVER = "家乡有消息寄给您，回复『信』领取。"
CHEN, LIN = "oChenTongchou", "oLinLingdao"
MEMBERS = (WANG, "oLiYuangui", "oZhaoMeixia")


class Office:
    """A coordinator, a leader and three members, whose news waits until they write."""

    def __init__(self, on: OnWeChat) -> None:
        self.on = on
        self.wechat = on.wechat
        self.clock = on.clock

    async def hears(self, who: str, text: str) -> str:
        """What somebody is answered."""
        push = await self.on.done(self.wechat.say(who, text))
        return push.text

    async def works(self) -> None:
        """The channel does what nobody waits for."""
        assert self.on.channel.errands is not None
        await self.on.channel.errands.work()

    async def beats(self) -> None:
        await asyncio.to_thread(self.on.app.beat)
        await self.on.app.delivery.until_idle()

    async def is_over(self, state: CoverState) -> None:
        """The platform has told how a push ended."""
        await self.clock.advance(5)
        async with asyncio.timeout(PROMPTLY):
            while self.covers()[-1].state != state:
                await self.clock.advance(0)

    async def is_approved(self) -> None:
        """A cover is submitted, and the leader agrees to it."""
        said = await self.hears(CHEN, "群发 封面 送审 B-0001")
        code = re.search(r"哈希 (\w{4})", said)
        assert code is not None, said
        await self.hears(LIN, f"同意 {code[1]}")

    def covers(self) -> list[Cover]:
        with self.on.app.services.database.engine.connect() as connection:
            return covers.covers_in(connection, "wechat", *CoverState)

    def person(self, who: str) -> int:
        with self.on.app.services.database.reading() as session:
            address = self.on.address(who)
            return session.exec(select(Contact).where(Contact.address == address)).one().person_id

    def states(self) -> dict[str, str]:
        with self.on.app.services.database.reading() as session:
            rows = session.exec(select(Outbox).where(col(Outbox.campaign_id).is_not(None))).all()
            return {str(row.address).rpartition(":")[2]: row.state for row in rows}

    def add_past_covers(self, who: str, count: int, month: str = "2026-09") -> None:
        """Somebody has had so many this month."""
        with self.on.app.services.database.session() as session:
            for number in range(count):
                cover = Cover(
                    key=f"past-{who}-{month}-{number}",
                    channel="wechat",
                    text="",
                    asked_by=self.person(CHEN),
                    created_at=START,
                    state=CoverState.DONE,
                    month=month,
                    told=True,
                )
                session.add(cover)
                session.flush()
                session.add(CoverRecipient(cover_id=cover.id or 0, person_id=self.person(who)))


@asynccontextmanager
async def office(folder: Path, rules: Rules | None = None, **values: Any) -> AsyncIterator[Office]:
    clock = VirtualClock(START)
    platforms = Platforms(clock, wechat=WeChat(clock, rules=rules))
    async with running(folder, platforms=platforms, known=whole_catalog(), **values) as on:
        made = Office(on)
        for who in (CHEN, LIN, *MEMBERS[1:]):
            await on.done(on.wechat.follow(who))
        await clock.advance(timedelta(minutes=2).total_seconds())
        campaign(made)
        await on.app.delivery.until_idle()
        yield made


def campaign(made: Office) -> None:
    """News to the three, released."""
    services, now = made.on.app.services, made.clock.now()
    people = {who: made.person(who) for who in (CHEN, LIN, *MEMBERS)}
    with services.database.session() as session:
        session.add(Grant(person_id=people[CHEN], role="coordinator", granted_at=now))
        session.add(Grant(person_id=people[LIN], role="leader", granted_at=now))
        news = Campaign(
            number="B-0001",
            kind="broadcast",
            title="家乡近况",
            occasion="campaign:B-0001",
            purpose=NEWS.name,
            template="",
            facts='{"values": {}, "document": ""}',
            audience='{"ties": ["在霍服役"]}',
            created_by=people[CHEN],
            created_at=now,
            state=CampaignState.RUNNING,
        )
        session.add(news)
        session.flush()
        rows = []
        for who in MEMBERS:
            entry = ConsentEntry(
                person_id=people[who],
                scope="profile",
                action="granted",
                version="1",
                notice_hash="",
                at=now,
                channel="wechat",
                source="",
                words="同意",
            )
            record_consent(session, entry)
            row = outbox_row(
                services,
                session,
                people[who],
                say(f"{who}，家乡的草绿了。"),
                occasion="campaign:B-0001",
                purpose=NEWS,
                now=now,
            )
            assert row is not None
            rows.append({**row, "campaign_id": news.id})
        mailbox.enqueue(session.connection(), rows)


# The whole way -----------------------------------------------------------------------------------


async def test_a_cover_brings_those_who_wait_to_write_and_get_theirs(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        assert set(made.states().values()) == {State.DEFERRED}
        shown = await made.hears(CHEN, "群发 封面 B-0001")
        assert shown.splitlines()[:4] == [
            "B-0001「家乡近况」：要等来信才能送达的有 3 人。",
            f"封面：{COVER}",
            "每人每月最多收4次群发，本月：还剩4次 3人。",
            "这次发给 3 人，用掉他们本月一次；内容对所有人相同。",
        ]
        await made.is_approved()
        assert made.wechat.calls[MASS] == 0
        await made.works()
        await made.is_over(CoverState.DONE)
        assert [made.on.heard(who)[-1] for who in MEMBERS] == [COVER] * 3
        await made.beats()
        told = "B-0001 的封面：平台已发完：名单3人，送到3人。"
        assert told in made.on.heard(CHEN)[-1]
        assert await made.hears(WANG, "信") == "您的信这就到，请看下一条。"
        assert made.on.heard(WANG)[-1] == f"{WANG}，家乡的草绿了。"
        assert made.states() == {
            WANG: State.SENT,
            MEMBERS[1]: State.DEFERRED,
            MEMBERS[2]: State.DEFERRED,
        }


async def test_the_state_is_said_as_it_is(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        assert "封面：等候发送。" in await made.hears(CHEN, "群发 进度 B-0001")
        await made.works()
        assert "封面：平台已受理，结果未到。" in await made.hears(CHEN, "群发 进度 B-0001")
        await made.is_over(CoverState.DONE)
        assert "封面：平台已发完：名单3人，送到3人。" in await made.hears(CHEN, "群发 进度 B-0001")


async def test_nobody_gets_the_cover_of_one_letter_twice(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        await made.works()
        await made.is_over(CoverState.DONE)
        again = await made.hears(CHEN, "群发 封面 送审 B-0001")
        assert again.startswith("能发的不足2人")
        assert "其中 3 人已发过这封的封面，不再发。" in again


async def test_one_alone_may_not_push(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        said = await made.hears(CHEN, "群发 封面 送审 B-0001")
        code = re.search(r"哈希 (\w{4})", said)
        assert code is not None
        assert "不能审批自己提交的事项" in await made.hears(CHEN, f"同意 {code[1]}")
        await made.works()
        assert made.wechat.calls[MASS] == 0


async def test_a_rejected_cover_is_forgotten(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.hears(CHEN, "群发 封面 送审 B-0001")
        number = re.search(r"SP-\d+", await made.hears(LIN, "审批"))
        assert number is not None
        await made.hears(LIN, f"驳回 {number[0]} 改日再发")
        assert made.covers() == []


async def test_who_has_written_or_unsubscribed_meanwhile_is_left_out(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        await made.hears(MEMBERS[1], "在")
        await made.works()
        await made.is_over(CoverState.DONE)
        assert COVER not in made.on.heard(MEMBERS[1])
        assert made.covers()[-1].total == 2


async def test_too_few_are_not_pushed_to(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        with made.on.app.services.database.session() as session:
            for who in MEMBERS[1:]:
                unsubscribe(session, made.person(who), "家乡动态", made.clock.now())
        await made.works()
        await made.beats()
        assert (made.wechat.calls[MASS], made.covers()[-1].state) == (0, CoverState.FAILED)
        assert "还在等的人不足两位" in made.on.heard(CHEN)[-1]


async def test_the_preview_goes_to_whoever_asked(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.hears(CHEN, "群发 封面 预览 B-0001")
        await made.works()
        assert made.on.heard(CHEN)[-1] == COVER
        assert not made.wechat.members[CHEN].mass_received
        assert made.on.heard(WANG)[-1] != COVER


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(2, [2]), (10_000, [10_000]), (10_001, [5001, 5000]), (20_002, [6668] * 2 + [6666])],
)
def test_fact_17_a_long_list_is_divided_and_no_push_is_too_small(
    count: int, sizes: list[int]
) -> None:
    pushes = divided(range(count), COVERS)
    assert [len(push) for push in pushes] == sizes
    assert [person for push in pushes for person in push] == list(range(count))


# The platform's rules ----------------------------------------------------------------------------


async def test_fact_17_the_fifth_of_a_month_is_kept_from_that_member_alone(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        made.add_past_covers(WANG, 4)
        made.add_past_covers(MEMBERS[1], 2)
        shown = await made.hears(CHEN, "群发 封面 B-0001")
        assert "还剩4次 1人、还剩2次 1人、已满4次 1人（不发）" in shown
        await made.is_approved()
        await made.works()
        await made.is_over(CoverState.DONE)
        assert [made.on.heard(who)[-1] == COVER for who in MEMBERS] == [False, True, True]


async def test_what_the_calendar_needs_is_kept_from_other_covers(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        for who in MEMBERS:
            made.add_past_covers(who, 3)
        assert (await made.hears(CHEN, "群发 封面 送审 B-0001")).splitlines() == [
            "剩下的次数要留给中秋信，这次不能发。B-0001「家乡近况」：要等来信才能送达的有 3 人。",
            f"封面：{COVER}",
            "每人每月最多收4次群发，本月：还剩1次 3人（留给中秋信，不发）。",
            "本月还要寄中秋信，每人留1次，不能用在这里。",
            "这次发给 0 人，用掉他们本月一次；内容对所有人相同。",
            "确有必要，请领导回「群发 封面 占用 B-0001 事由」。",
        ]


async def test_a_leader_uses_what_is_kept_for_a_reason_and_another_agrees(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        for who in MEMBERS:
            made.add_past_covers(who, 3)
        assert "由领导使用" in await made.hears(CHEN, "群发 封面 占用 B-0001 汛情紧急")
        assert "须写事由" in await made.hears(LIN, "群发 封面 占用 B-0001")
        said = await made.hears(LIN, "群发 封面 占用 B-0001 汛情紧急")
        code = re.search(r"哈希 (\w{4})", said)
        assert code is not None
        shown = await made.hears(CHEN, "审批 SP-0001")
        assert "本月还要寄中秋信，每人留1次；这次动用留着的，事由：汛情紧急。" in shown
        await made.hears(CHEN, f"同意 {code[1]}")
        await made.works()
        await made.is_over(CoverState.DONE)
        assert made.covers()[-1].sent == 3
        with made.on.app.services.database.reading() as session:
            noted = select(AuditEntry.reason).where(AuditEntry.action == "cover.excuse")
            assert session.exec(noted).all() == ["汛情紧急"]


async def test_an_account_that_has_used_up_its_calls_of_the_day_is_not_asked_again(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as made:
        made.add_past_covers(WANG, COVERS.a_day, month="2026-08")
        assert await made.hears(CHEN, "群发 封面 送审 B-0001") == (
            "账号一天最多群发100批，今天已有100批，这次还要1批。请明天再送审。"
        )


async def test_fact_17_a_new_month_gives_four_more(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        made.add_past_covers(WANG, 4)
        await made.clock.advance(timedelta(days=9).total_seconds())  # 2026-10-01 in Beijing
        assert "还剩4次 3人" in await made.hears(CHEN, "群发 封面 B-0001")


async def test_fact_17_what_the_platform_filters_is_not_counted_as_sent(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        made.wechat.members[WANG].mass_received["2026-09"] = 4  # pushed from the console
        await made.is_approved()
        await made.works()
        await made.is_over(CoverState.DONE)
        cover = made.covers()[-1]
        assert (cover.total, cover.filtered, cover.sent, cover.errors) == (3, 2, 2, 0)


async def test_fact_17_accepted_is_not_done(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        await made.works()
        cover = made.covers()[-1]
        assert (cover.state, cover.job != "") == (CoverState.ACCEPTED, True)


async def test_fact_17_the_minutes_limit_is_kept_by_us(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        errands = made.on.channel.errands
        assert errands is not None
        for _push in range(60):
            errands._pushed.append(made.clock.now())
        await made.is_approved()
        await made.works()
        assert (made.wechat.calls[MASS], made.covers()[-1].state) == (0, CoverState.WAITING)
        await made.clock.advance(61)
        await made.works()
        assert made.covers()[-1].state == CoverState.ACCEPTED


async def test_fact_18_a_push_whose_answer_is_lost_is_made_once(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        made.wechat.fail(MASS, "cut", "after")
        await made.works()
        assert made.covers()[-1].state == CoverState.SENDING
        await made.clock.advance(61)  # the platform tells the end of a job unknown to us
        await made.works()
        await made.works()
        assert made.covers()[-1].state == CoverState.DONE
        assert made.wechat.calls[MASS] == 2
        assert [made.on.heard(who).count(COVER) for who in MEMBERS] == [1, 1, 1]


async def test_fact_18_another_process_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        database, now = made.on.app.services.database, made.clock.now()
        with database.transaction() as connection:  # begun, and then the process was gone
            cover = covers.covers_in(connection, "wechat", CoverState.WAITING)[0]
            covers.begin(connection, cover, "2026-09", 4, now)
        await made.works()
        await made.is_over(CoverState.DONE)
        assert [made.on.heard(who).count(COVER) for who in MEMBERS] == [1, 1, 1]


async def test_fact_18_a_repeat_that_names_no_job_is_not_called_done(tmp_path: Path) -> None:
    async with office(tmp_path, Rules(repeats_name_the_job=False)) as made:
        await made.is_approved()
        made.wechat.fail(MASS, "cut", "after")
        await made.works()
        await made.clock.advance(61)
        await made.works()
        await made.beats()
        assert made.covers()[-1].state == CoverState.UNKNOWN
        assert "不知是否发出" in made.on.heard(CHEN)[-1]
        assert [made.on.heard(who).count(COVER) for who in MEMBERS] == [1, 1, 1]


async def test_fact_19_a_push_that_no_administrator_taps_has_failed(tmp_path: Path) -> None:
    async with office(tmp_path, Rules(mass_protects_lists=True)) as made:
        await made.is_approved()
        await made.works()
        await made.clock.advance(minutes=7)
        await made.hears(CHEN, "菜单")
        await made.beats()
        assert "请管理员在手机上确认" in made.on.heard(CHEN)[-1]
        assert made.covers()[-1].state == CoverState.ACCEPTED
        await made.clock.advance(minutes=24)
        await made.is_over(CoverState.FAILED)
        assert COVER not in made.on.heard(WANG)
        with made.on.app.services.database.engine.connect() as connection:
            assert covers.received(connection, "wechat", "2026-09") == {}


async def test_fact_19_a_tap_in_time_lets_it_go(tmp_path: Path) -> None:
    async with office(tmp_path, Rules(mass_protects_lists=True)) as made:
        await made.is_approved()
        await made.works()
        await made.clock.advance(minutes=7)
        made.wechat.approve_mass(int(made.covers()[-1].job))
        await made.is_over(CoverState.DONE)
        assert made.on.heard(WANG)[-1] == COVER


async def test_a_lost_result_is_asked_for(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        await made.works()
        made.wechat.connect("http://127.0.0.1:9/nowhere")
        await made.clock.advance(minutes=11)
        made.wechat.connect(made.on.webhook)
        await made.works()
        assert made.covers()[-1].state == CoverState.DONE


@pytest.mark.parametrize(
    ("code", "words"), [(45028, "账号本月的群发次数用完了"), (87014, "平台认为内容有风险")]
)
async def test_a_refused_push_says_why_and_costs_nobody_anything(
    tmp_path: Path, code: int, words: str
) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        made.wechat.fail(MASS, "errcode", value=code)
        await made.works()
        await made.beats()
        assert words in made.on.heard(CHEN)[-1]
        with made.on.app.services.database.engine.connect() as connection:
            assert covers.received(connection, "wechat", "2026-09") == {}


async def test_fact_24_a_spent_quota_puts_the_push_off_until_midnight(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        made.wechat.by_day[MASS, "2026-09-22"] = 100
        await made.works()
        calls = made.wechat.calls[MASS]
        await made.clock.advance(hours=14)
        await made.works()
        assert made.wechat.calls[MASS] == calls
        await made.clock.advance(hours=1)
        await made.works()
        assert made.covers()[-1].state == CoverState.ACCEPTED


async def test_fact_29_a_lapsed_right_raises_one_alarm_and_is_not_tried_again_at_once(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        made.wechat.lapse()
        await made.works()
        await made.works()
        calls = made.wechat.calls[MASS]
        with made.on.app.services.database.reading() as session:
            told = session.exec(select(Outbox).where(Outbox.purpose == "trouble")).all()
        assert (calls, len(told)) == (1, 1)


async def test_two_processes_at_once_push_once(tmp_path: Path) -> None:
    async with office(tmp_path) as made:
        await made.is_approved()
        other = WeChatChannel(made.on.app.services.settings, made.clock)
        other.attach(made.on.app.services)
        assert other.errands is not None
        await asyncio.gather(made.works(), other.errands.work(), made.works())
        assert made.wechat.calls[MASS] == 1
        await other.close()
