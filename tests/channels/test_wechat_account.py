"""Codes, pictures, menus, union ids, the sign of typing, the shared token, and the trial."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlmodel import col, select

from bot.channels.base import Finding
from bot.channels.wechat.channel import WeChatChannel
from bot.commands import Command, command
from bot.context import Context
from bot.errors import SendError
from bot.messages import Address, Choice, File, Part, Reply, say
from handlers.place import PLACES, SHIPPED
from storage.events import Event
from storage.organisation import Unit
from storage.people import Contact, Grant, Person
from storage.scenes import Arrival, CodeState, SceneCode
from storage.wechat import Follower
from tests.channels.called import PROMPTLY
from tests.channels.on_wechat import (
    SEND,
    TOKEN,
    WANG,
    OnWeChat,
    running,
    wechat_settings,
)
from tests.emulators.clock import VirtualClock
from tests.emulators.server import START, Platforms
from tests.emulators.wechat import Rules, WeChat
from tests.world import whole_catalog

pytestmark = pytest.mark.anyio

UPLOAD, CREATE = "cgi-bin/media/upload", "cgi-bin/qrcode/create"
TYPING, INFO, MENU = "cgi-bin/message/custom/typing", "cgi-bin/user/info", "cgi-bin/menu/create"
LI = "oLiYuangui"
PICTURE = File("码.png", "image/png", b"\x89PNG" + b"x" * 100)


@asynccontextmanager
async def office(
    folder: Path, rules: Rules | None = None, **values: Any
) -> AsyncIterator[OnWeChat]:
    """The whole bot; 王小雁 follows it and is a coordinator."""
    clock = VirtualClock(START)
    platforms = Platforms(clock, wechat=WeChat(clock, rules=rules))
    async with running(folder, platforms=platforms, known=whole_catalog(), **values) as on:
        with on.app.services.database.session() as session:
            address = on.address(WANG)
            mine = session.exec(select(Contact).where(Contact.address == address)).one()
            session.add(Grant(person_id=mine.person_id, role="coordinator", granted_at=START))
            session.add(Unit(id=7, name="工商联"))
            session.add(
                Event(
                    number="HD-2026-01",
                    title="草原那达慕",
                    starts_on=date(2026, 10, 2),
                    ends_on=date(2026, 10, 2),
                    venue="会展中心",
                    capacity=90,
                    deadline=date(2026, 9, 30),
                    created_by=mine.person_id,
                    created_at=START,
                )
            )
        yield on


async def works(on: OnWeChat) -> None:
    assert on.channel.errands is not None
    await on.channel.errands.work()


async def beats(on: OnWeChat) -> None:
    await asyncio.to_thread(on.app.beat)
    await on.app.delivery.until_idle()


def before_the_picture(on: OnWeChat) -> str:
    """What the bubble before the picture says; a coordinator is told of other things as well."""
    heard = on.heard(WANG)
    return heard[heard.index("[image]") - 1]


def codes(on: OnWeChat) -> list[SceneCode]:
    with on.app.services.database.reading() as session:
        return list(session.exec(select(SceneCode).order_by(col(SceneCode.id))).all())


def scenes_of(on: OnWeChat) -> dict[str, str]:
    """By whose code people came, by OpenID."""
    with on.app.services.database.reading() as session:
        rows = session.exec(
            select(Contact.address, Arrival.scene).join(
                Arrival, col(Arrival.person_id) == col(Contact.person_id)
            )
        ).all()
        return {address.rpartition(":")[2]: scene for address, scene in rows}


# Codes -------------------------------------------------------------------------------------------


async def test_a_coordinator_gets_a_picture_that_brings_people_in_a_units_name(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as on:
        await on.says(WANG, "二维码 单位 工商联")
        assert on.heard(WANG)[-1] == "正在向平台要「工商联」的二维码，做好就发给您。"
        await works(on)
        await beats(on)
        assert before_the_picture(on) == (
            "「工商联」的二维码，2026-10-22 09:00前有效。扫码关注的人会记在它名下。"
        )
        picture = next(iter(on.wechat.pictures.values()))
        assert picture.startswith(b"\x89PNG\r\n")
        ticket = codes(on)[0].url.rpartition("/")[2]
        push = await on.done(on.wechat.scan_ticket(LI, ticket))
        assert push.text.startswith("您是应「工商联」的邀请来的，欢迎。\n\n您好，这里是")
        assert scenes_of(on) == {LI: "u_7"}
        await on.says(WANG, "二维码")
        assert "工商联　1人" in on.heard(WANG)[-1]


async def test_fact_30_a_code_ends_and_is_asked_for_anew(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        await on.says(WANG, "二维码 活动 HD-2026-01")
        await works(on)
        await beats(on)
        await on.says(WANG, "二维码 活动 HD-2026-01")
        assert on.wechat.calls[CREATE] == 1  # it lives, so it is shown again
        await on.clock.advance(timedelta(days=30).total_seconds())
        with pytest.raises(ValueError, match="过期"):
            on.wechat.scan_ticket(LI, codes(on)[0].url.rpartition("/")[2])
        with on.app.services.database.session() as session:
            event = session.exec(select(Event)).one()
            event.starts_on = event.ends_on = event.deadline = date(2026, 12, 2)
            session.add(event)
        await on.says(WANG, "二维码 活动 HD-2026-01")
        await works(on)
        assert on.wechat.calls[CREATE] == 2


async def test_fact_30_a_lasting_code_never_ends(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        await on.says(WANG, "二维码 单位 工商联 长期")
        await works(on)
        await beats(on)
        assert "长期有效" in before_the_picture(on)
        await on.clock.advance(timedelta(days=400).total_seconds())
        push = await on.done(on.wechat.scan_ticket(LI, codes(on)[0].url.rpartition("/")[2]))
        assert push.fields["EventKey"] == "qrscene_u_7"


async def test_fact_30_a_scene_of_65_letters_is_never_asked_for(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        await on.says(WANG, f"二维码 群 {'群' * 62}")
        await on.says(WANG, f"二维码 群 {'群' * 63}")
        assert on.heard(WANG)[-1] == "群名太长，最多62个字。"
        await works(on)
        assert [code.state for code in codes(on)] == [CodeState.MADE]


async def test_a_code_that_the_platform_will_not_make_is_said(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        on.wechat.fail(CREATE, "errcode", value=47001)
        await on.says(WANG, "二维码 单位 工商联")
        await works(on)
        await beats(on)
        refusal = "「工商联」的二维码没有做成：errcode 47001。请管理员运行 hongyan check 查看。"
        assert refusal in on.heard(WANG)


async def test_a_platform_in_trouble_is_asked_again_for_a_code(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        on.wechat.fail(CREATE, "cut", "after")
        await on.says(WANG, "二维码 单位 工商联")
        await works(on)
        assert codes(on)[0].state == CodeState.WAITING
        await on.clock.advance(61)
        await works(on)
        assert codes(on)[0].state == CodeState.MADE


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("二维码 单位 没有的", "没有叫「没有的」的单位。现有：工商联。"),
        ("二维码 活动 HD-1", "没有编号为「HD-1」的活动，或已取消。回「活动」看编号。"),
        ("二维码 单位", "请说明给谁用"),
        ("二维码 别的 东西", "请说明给谁用"),
    ],
)
async def test_what_no_code_can_be_made_for_is_said(tmp_path: Path, said: str, answer: str) -> None:
    async with office(tmp_path) as on:
        await on.says(WANG, said)
        assert on.heard(WANG)[-1].startswith(answer)


# Who invited -------------------------------------------------------------------------------------


async def test_fact_9_who_follows_by_an_events_code_is_told_of_the_event(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        push = await on.done(on.wechat.follow(LI, "e_HD-2026-01"))
        assert push.text.startswith(
            "您扫的是活动「草原那达慕」的码：10月2日（周五），会展中心。回「活动」看名额和报名办法。"
        )
        push = await on.done(on.wechat.scan(LI, "g_上海乡亲群"))
        assert push.text == "您是应「上海乡亲群」的邀请来的，欢迎。"
        assert scenes_of(on) == {LI: "e_HD-2026-01"}  # the first one invited


@pytest.mark.parametrize("scene", ["u_99", "u_x", "e_HD-9", "team_3", "g_", ""])
async def test_a_scene_that_is_not_ours_is_only_a_welcome(tmp_path: Path, scene: str) -> None:
    async with office(tmp_path) as on:
        push = await on.done(on.wechat.follow(LI, scene))
        assert push.text.startswith("您好，这里是")
        assert scenes_of(on) == {}


# Pictures ----------------------------------------------------------------------------------------


async def test_fact_25_a_picture_is_uploaded_once_and_again_after_three_days(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as on:
        address = Address.parse(on.address(WANG))
        for hours in (0, 1, 71, 2):
            await on.clock.advance(hours=hours)
            await on.says(WANG, "回声 好")
            await on.channel.send(address, Part("", file=PICTURE), "1-0")
            assert on.heard(WANG)[-1] == "[image]"
        assert on.wechat.calls[UPLOAD] == 2


async def test_fact_25_a_picture_that_the_platform_lost_is_uploaded_again(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        address = Address.parse(on.address(WANG))
        await on.channel.send(address, Part("", file=PICTURE), "1-0")
        on.wechat.fail(SEND, "errcode", value=40007)
        await on.channel.send(address, Part("", file=PICTURE), "2-0")
        assert (on.wechat.calls[UPLOAD], on.heard(WANG)[-1]) == (2, "[image]")


async def test_an_upload_whose_answer_is_lost_has_sent_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        on.wechat.fail(UPLOAD, "cut", "after")
        with pytest.raises(SendError) as caught:
            await on.channel.send(Address.parse(on.address(WANG)), Part("", file=PICTURE), "1-0")
        assert (caught.value.reason, caught.value.unknown) == ("no_media", False)


# Message menus -----------------------------------------------------------------------------------


@command("两样")
def two(context: Context, _argument: str) -> Reply:
    return say("先说一句" + "，" * 700).then("请选", Choice("回声", "回声"), Choice("三句", "三句"))


@pytest.mark.parametrize(("allowed", "kind"), [(True, "msgmenu"), (False, "text")])
async def test_choices_are_tapped_where_the_account_may_and_read_elsewhere(
    tmp_path: Path, allowed: bool, kind: str
) -> None:
    clock = VirtualClock(START)
    wechat = WeChat(clock, rules=Rules(message_menus=allowed))
    platforms = Platforms(clock, wechat=wechat)
    async with running(tmp_path, two, platforms=platforms, wechat_msgmenu=True) as on:
        await on.says(WANG, "两样")
        assert on.wechat.sent[-1]["msgtype"] == kind
        assert "请选" in on.heard(WANG)[-1]


async def test_a_choice_that_shows_something_else_than_it_says_is_text(tmp_path: Path) -> None:
    async with running(tmp_path, wechat_msgmenu=True) as on:
        part = Part("请选", (Choice("来", "出席"),))
        await on.channel.send(Address.parse(on.address(WANG)), part, "1-0")
        assert on.wechat.sent[-1]["msgtype"] == "text"


# The menu below the chat -------------------------------------------------------------------------


def with_menu(folder: Path, menu: str) -> Path:
    """A place like 霍林郭勒 with a menu."""
    place = folder / "place.toml"
    text = (SHIPPED / "huolingol.toml").read_text(encoding="utf-8")
    place.write_text(f'menu = "{menu}"\n{text}', encoding="utf-8")
    return place


async def test_the_place_names_the_menu_and_the_setting_overrides_it(tmp_path: Path) -> None:
    for number, (setting, shown) in enumerate((("", ["登记", "活动"]), ("人工", ["人工"]))):
        folder = tmp_path / str(number)
        folder.mkdir()
        place = with_menu(folder, "登记,活动")
        async with running(folder, place=str(place), wechat_menu=setting) as on:
            await on.channel.set_menu()
            assert [button["name"] for button in on.wechat.menu["button"]] == shown


async def test_a_place_whose_menu_the_platform_would_refuse_is_named_by_check(
    tmp_path: Path,
) -> None:
    place = with_menu(tmp_path, "一,二,三,四")
    async with running(tmp_path) as on:
        settings = on.app.services.settings
        channel = WeChatChannel(settings, on.clock)
        loaded = PLACES.load(str(place), settings.office)
        channel.attach(replace(on.app.services, place=loaded))
        assert any(line.startswith("地方文件的 menu：") for line in channel.check())


# Union ids ---------------------------------------------------------------------------------------


def unionids(on: OnWeChat) -> list[str | None]:
    with on.app.services.database.reading() as session:
        return list(session.exec(select(Follower.unionid).order_by(Follower.person_id)).all())


async def test_a_followers_union_id_is_kept_where_the_account_is_bound(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_unionid=True) as on:
        await on.done(on.wechat.follow(LI, unionid="uLi"))
        await works(on)
        assert unionids(on) == [None, "uLi"]
        calls = on.wechat.calls[INFO]
        await works(on)
        assert on.wechat.calls[INFO] == calls  # nobody is asked for twice


async def test_without_the_setting_nobody_is_looked_up(tmp_path: Path) -> None:
    async with office(tmp_path) as on:
        await works(on)
        assert (unionids(on), on.wechat.calls[INFO]) == ([], 0)


async def test_who_asked_for_silence_is_not_looked_up(tmp_path: Path) -> None:
    async with office(tmp_path, wechat_unionid=True) as on:
        with on.app.services.database.session() as session:
            for person in session.exec(select(Person)):
                person.silent_since = START
                session.add(person)
        on.wechat.calls.clear()
        await works(on)
        assert (unionids(on), on.wechat.calls[INFO]) == ([], 0)


@pytest.mark.parametrize("code", [40003, -1, 48001])
async def test_a_union_id_that_is_refused_stops_nothing(tmp_path: Path, code: int) -> None:
    async with office(tmp_path, wechat_unionid=True) as on:
        on.wechat.fail(INFO, "errcode", times=-1, value=code)
        await works(on)
        await on.says(WANG, "二维码 单位 工商联")
        await works(on)
        assert codes(on)[0].state == CodeState.MADE


# Typing ------------------------------------------------------------------------------------------


class Waiting:
    """A word whose answer takes as long as the test likes."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.free = threading.Event()

    def word(self) -> Command:
        @command("慢")
        def slowly(context: Context, _argument: str) -> Reply:
            self.begun.set()
            self.free.wait(20)
            return say("慢慢来")

        return slowly


async def test_who_waits_is_shown_that_we_are_at_it(tmp_path: Path) -> None:
    waiting = Waiting()
    async with running(tmp_path, waiting.word(), slow=0.01) as on:
        await on.channel.send(Address.parse(on.address(WANG)), Part("一"), "1-0")
        push = on.wechat.say(WANG, "慢")
        async with asyncio.timeout(PROMPTLY):
            while not on.wechat.calls[TYPING]:
                await on.clock.advance(0)
        waiting.free.set()
        await on.done(push)
        assert (push.text, on.wechat.calls[TYPING]) == ("慢慢来", 1)


async def test_a_prompt_answer_shows_no_typing_and_an_event_neither(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        await on.says(WANG, "回声 好")
        await on.done(on.wechat.scan(WANG, "team_3"))
        assert on.wechat.calls[TYPING] == 0


async def test_typing_that_cannot_be_shown_changes_nothing(tmp_path: Path) -> None:
    waiting = Waiting()
    async with running(tmp_path, waiting.word(), slow=0.01) as on:
        await on.channel.send(Address.parse(on.address(WANG)), Part("一"), "1-0")
        on.wechat.fail(TYPING, "errcode", value=45081)
        push = on.wechat.say(WANG, "慢")
        async with asyncio.timeout(PROMPTLY):
            while not on.wechat.calls[TYPING]:
                await on.clock.advance(0)
        waiting.free.set()
        await on.done(push)
        assert push.text == "慢慢来"


# One token for all replicas ----------------------------------------------------------------------


async def test_fact_23_two_replicas_that_renew_at_once_ask_once(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        await on.says(WANG, "回声 好")
        replicas = [WeChatChannel(on.app.services.settings, on.clock) for _ in range(4)]
        for replica in replicas:
            replica.attach(on.app.services)
        address = Address.parse(on.address(WANG))
        on.wechat.calls.clear()
        await asyncio.gather(*(r.send(address, Part("一"), "1-0") for r in replicas))
        assert on.wechat.calls[TOKEN] <= 1
        on.wechat.kill_tokens()
        on.wechat.calls.clear()
        await on.says(WANG, "回声 在")
        await asyncio.gather(*(r.send(address, Part("二"), "2-0") for r in replicas))
        assert on.wechat.calls[TOKEN] == 1
        for replica in replicas:
            await replica.close()


async def test_a_token_in_the_tables_is_sealed(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        await on.says(WANG, "回声 好")
        await on.channel.send(Address.parse(on.address(WANG)), Part("一"), "1-0")
        with on.app.services.database.engine.connect() as connection:
            stored = connection.exec_driver_sql("SELECT token FROM platform_token").scalar_one()
        assert b"tok_" not in bytes(stored)


# The trial of `hongyan check` --------------------------------------------------------------------


async def findings(on: OnWeChat, **settings: Any) -> list[Finding]:
    """What a check says of an account whose address is that of this installation."""
    public = on.webhook.removesuffix("/callback/wechat")
    changed = on.app.services.settings.model_copy(update={"public_url": public, **settings})
    channel = WeChatChannel(changed, on.clock)
    try:
        return list(await channel.probe())
    finally:
        await channel.close()


def wrong(found: list[Finding]) -> list[str]:
    """What is not fine."""
    return [finding.what for finding in found if not finding.fine]


async def test_a_healthy_account_is_fine_in_every_line(tmp_path: Path) -> None:
    async with running(tmp_path, wechat_menu="登记,活动") as on:
        await on.channel.set_menu()
        found = await findings(on)
        assert wrong(found) == []
        words = "\n".join(finding.what for finding in found)
        for part in ("令牌取到了", "/callback/wechat 通", "「客服消息」今天还可调用", "登记、活动"):
            assert part in words
        assert not any(secret in words for secret in (*on.secrets, "tok_"))


async def test_fact_29_each_right_that_is_gone_is_named_with_the_page_to_open(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as on:
        on.wechat.lapse()
        found = [finding for finding in await findings(on) if not finding.fine]
        assert [finding.what.partition("：")[0] for finding in found] == [
            "接口「客服消息」",
            "接口「用户信息」",
        ]
        assert all("接口权限" in finding.advice for finding in found)


async def test_an_address_off_the_allow_list_is_named_with_the_page_to_open(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as on:
        on.wechat.allow_ip(False)
        token, *rest = await findings(on)
        assert "127.0.0.1 不在公众平台的 IP 白名单" in token.what
        assert "IP白名单" in token.advice
        assert len(rest) == 1  # of the rest only our own address can still be tried


@pytest.mark.parametrize(("code", "advice"), [(40013, "AppID"), (40125, "AppSecret")])
async def test_wrong_credentials_are_named_with_the_page_to_open(
    tmp_path: Path, code: int, advice: str
) -> None:
    async with running(tmp_path) as on:
        on.wechat.fail(TOKEN, "errcode", value=code)
        token = (await findings(on))[0]
        assert (token.fine, advice in token.advice) == (False, True)


async def test_an_address_that_answers_otherwise_or_not_at_all_is_named(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        other = (await findings(on, wechat_token=SecretStr("another")))[1]
        assert (other.fine, "答得不对" in other.what) == (False, True)
        nobody = (await findings(on, public_url="http://127.0.0.1:9"))[1]
        assert (nobody.fine, "打不开" in nobody.what) == (False, True)
        unset = (await findings(on, public_url=""))[1]
        assert "HONGYAN_PUBLIC_URL" in unset.advice


async def test_a_spent_quota_and_another_menu_are_named(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        on.wechat.by_day["cgi-bin/message/mass/send", "2026-09-22"] = 95
        wrong = [f.what for f in await findings(on, wechat_menu="登记") if not f.fine]
        assert wrong == [
            "「按名单群发」今天还可调用5次（共100次）",
            "公众号菜单现在是「空」，应是「登记」",
        ]


async def test_a_template_that_the_account_lacks_is_named(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        wrong = [
            f.what for f in await findings(on, wechat_templates="duty=T1:a1=标题") if not f.fine
        ]
        assert wrong == ["模板消息：duty 的模板编号在账号里没有"]


async def test_a_platform_out_of_reach_is_named(tmp_path: Path) -> None:
    async with running(tmp_path) as on:
        settings = wechat_settings(tmp_path, on.account, "http://127.0.0.1:9")
        channel = WeChatChannel(settings, on.clock)
        token = (await channel.probe())[0]
        await channel.close()
        assert (token.fine, "HTTPS_PROXY" in token.advice) == (False, True)
