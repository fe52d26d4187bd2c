"""Announcements to internal groups keep to the platform's limits, and their key to themselves."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from sqlmodel import col, select

from bot.app import App, build_channels
from bot.channels.wecom.webhook import Hook, WebhookChannel, read_hooks
from bot.clock import SystemClock
from bot.context import group_row
from bot.errors import SendError
from bot.messages import Address, File, Part, Reply, say
from bot.settings import Settings, demo_settings
from storage import mailbox
from storage.mailbox import Outbox
from storage.states import State
from tests.channels.called import SHORT
from tests.channels.harness import LONG, ODD, installed, settings_for
from tests.emulators.server import Platforms

pytestmark = pytest.mark.anyio

SEND, UPLOAD = "cgi-bin/webhook/send", "cgi-bin/webhook/upload_media"
WORK, TEAM = "招商工作群", "驻点小分队"
REAL = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=693a91f6-7aoc-4bc4-97a0"
SHEET = File("三月台账.xlsx", "application/vnd.ms-excel", "台账".encode() * 10)


class OnWebhook:
    """Two internal groups; announcements are queued and drained."""

    def __init__(
        self, platforms: Platforms, app: App, channel: WebhookChannel, keys: dict[str, str]
    ) -> None:
        self.wecom = platforms.wecom
        self.groups = platforms.wecom_webhook
        self.clock = platforms.clock
        self.app = app
        self.channel = channel
        self.keys = keys

    def address(self, name: str = WORK) -> Address:
        return Address("wecom_webhook", "group", name)

    async def send(self, part: Part | str, name: str = WORK) -> str:
        bubble = Part(part) if isinstance(part, str) else part
        return await self.channel.send(self.address(name), bubble, "1-0")

    async def refused(self, part: Part | str, name: str = WORK) -> SendError:
        with pytest.raises(SendError) as caught:
            await self.send(part, name)
        return caught.value

    async def announce(self, *replies: Reply, name: str = WORK) -> None:
        """Queue announcements and let what may leave leave."""
        now = self.clock.now()
        rows = [
            group_row(self.app.services, self.address(name), reply, f"notice:{number}", now)
            for number, reply in enumerate(replies)
        ]
        with self.app.services.database.session() as session:
            mailbox.enqueue(session.connection(), rows)
        await self.app.delivery.until_idle()

    def states(self) -> list[tuple[str, str]]:
        with self.app.services.database.reading() as session:
            rows = session.exec(select(Outbox).order_by(col(Outbox.id))).all()
            return [(row.state, row.reason) for row in rows]


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[OnWebhook]:
    async with Platforms() as platforms:
        keys = {name: platforms.wecom_webhook.make_group(name) for name in (WORK, TEAM)}
        base = f"{platforms.url}/qy/{SEND}"
        hooks = ",".join(f"{name}={base}?key={key}" for name, key in keys.items())
        settings = settings_for(folder, channels="wecom_webhook", wecom_webhook_url=hooks)
        channel = WebhookChannel(settings, platforms.clock, timeout=SHORT)
        app = installed(settings, platforms.clock, channel)
        yield OnWebhook(platforms, app, channel, keys)
        await channel.close()
        app.close()


@pytest.fixture
async def webhook(tmp_path: Path, anyio_backend: str) -> AsyncIterator[OnWebhook]:
    async with running(tmp_path) as made:
        yield made


async def test_an_announcement_reaches_its_group_and_no_other(webhook: OnWebhook) -> None:
    await webhook.announce(say("3月通报已发布。"))
    assert webhook.groups.heard(WORK) == ["3月通报已发布。"]
    assert webhook.groups.heard(TEAM) == []
    assert webhook.states() == [(State.SENT, "")]


async def test_odd_characters_arrive_as_they_were_sent(webhook: OnWebhook) -> None:
    await webhook.send(ODD)
    assert webhook.groups.heard(WORK) == [ODD]


async def test_fact_50_a_long_announcement_arrives_whole_in_bubbles_of_2048_bytes(
    webhook: OnWebhook,
) -> None:
    short = LONG[:4000]
    await webhook.announce(say(short))
    heard = webhook.groups.heard(WORK)
    assert max(len(text.encode()) for text in heard) <= 2048
    assert "".join(heard).replace("\n", "") == short.replace("\n", "")


async def test_fact_50_the_21st_of_a_minute_waits_and_the_platform_need_not_refuse(
    webhook: OnWebhook,
) -> None:
    replies = [say(f"第{n}条") for n in range(1, 26)]
    await webhook.announce(*replies)
    assert webhook.groups.heard(WORK) == [f"第{n}条" for n in range(1, 21)]
    await webhook.clock.advance(63)
    await webhook.app.delivery.until_idle()
    assert webhook.groups.heard(WORK) == [f"第{n}条" for n in range(1, 26)]
    assert webhook.wecom.calls[SEND] == 25


async def test_fact_50_one_groups_limit_is_not_anothers(webhook: OnWebhook) -> None:
    for number in range(20):
        await webhook.send(f"第{number}条")
    error = await webhook.refused("再一条")
    assert (error.reason, error.only_here) == ("pace", True)
    await webhook.send("给另一个群", TEAM)
    assert webhook.groups.heard(TEAM) == ["给另一个群"]


async def test_fact_50_a_refusal_for_frequency_says_how_long_to_wait(webhook: OnWebhook) -> None:
    webhook.wecom.fail(SEND, "errcode", value=45009)
    error = await webhook.refused("好")
    assert (error.reason, error.retry_after, error.permanent) == ("quota", 60, False)


async def test_a_file_arrives_under_its_name(webhook: OnWebhook) -> None:
    await webhook.announce(Reply((Part("3月台账", file=SHEET),)))
    assert webhook.groups.heard(WORK) == ["3月台账", "[file] 三月台账.xlsx"]


@pytest.mark.parametrize("size", [5, 20 * 1024 * 1024 + 1])
async def test_fact_50_a_file_beyond_20_megabytes_is_not_uploaded(
    webhook: OnWebhook, size: int
) -> None:
    error = await webhook.refused(Part("", file=File("a.bin", "application/x", b"x" * size)))
    assert (error.reason, error.permanent, webhook.wecom.calls[UPLOAD]) == ("too_large", True, 0)


async def test_an_upload_without_an_answer_is_no_unknown_message(webhook: OnWebhook) -> None:
    webhook.wecom.fail(UPLOAD, "cut", "after")
    error = await webhook.refused(Part("", file=SHEET))
    assert (error.unknown, error.permanent) == (False, False)


async def test_what_may_have_left_is_not_sent_again(webhook: OnWebhook) -> None:
    webhook.wecom.fail(SEND, "cut", "after")
    await webhook.announce(say("明天开会"))
    await webhook.clock.advance(3600)
    await webhook.app.delivery.until_idle()
    assert webhook.groups.heard(WORK) == ["明天开会"]
    assert webhook.states() == [(State.UNKNOWN, "no_answer")]


async def test_what_the_platform_was_too_busy_for_is_tried_again(webhook: OnWebhook) -> None:
    webhook.wecom.fail(SEND, "errcode", value=-1)
    await webhook.announce(say("明天开会"))
    await webhook.clock.advance(60)
    await webhook.app.delivery.until_idle()
    assert webhook.groups.heard(WORK) == ["明天开会"]


async def test_a_group_that_removed_us_is_given_up_and_the_others_go_on(
    webhook: OnWebhook,
) -> None:
    webhook.groups.remove(WORK)
    await webhook.announce(say("明天开会"))
    assert webhook.states() == [(State.FAILED, "unreachable")]
    await webhook.send("明天开会", TEAM)


async def test_a_group_that_left_the_settings_is_given_up(webhook: OnWebhook) -> None:
    error = await webhook.refused("好", "从前的群")
    assert (error.reason, error.permanent) == ("unreachable", True)


async def test_the_check_says_nothing_to_anybody(webhook: OnWebhook) -> None:
    findings = await webhook.channel.probe()
    assert [(f.fine, f.what) for f in findings] == [
        (True, f"消息推送「{WORK}」"),
        (True, f"消息推送「{TEAM}」"),
    ]
    assert (webhook.groups.heard(WORK), webhook.groups.heard(TEAM)) == ([], [])


async def test_the_check_says_what_to_do_about_a_dead_address(webhook: OnWebhook) -> None:
    webhook.groups.remove(TEAM)
    _, found = await webhook.channel.probe()
    assert not found.fine
    assert "重新添加" in found.advice


async def test_fact_50_the_key_is_never_logged_shown_or_raised(
    webhook: OnWebhook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    printed = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(printed))
    try:
        for what, when, value in (
            ("cut", "before", 0),
            ("cut", "after", 0),
            ("stall", "after", 0),
            ("html", "before", 0),
            ("status", "before", 502),
            ("errcode", "before", 93000),
            ("errcode", "before", 40014),
        ):
            webhook.wecom.fail(SEND, what, when, 1, value)  # type: ignore[arg-type]  # literals
            error = await webhook.refused("好")
            printed.write("".join(traceback.format_exception(error)) + error.detail)
        webhook.wecom.fail(SEND, "status", times=-1, value=502)
        await webhook.announce(say("好"))
        printed.write(repr(await webhook.channel.probe()))
    finally:
        structlog.reset_defaults()
    shown = (webhook.channel, vars(webhook.channel), webhook.app.services.settings)
    seen = "\n".join((caplog.text, printed.getvalue(), *map(repr, shown)))
    assert [name for name, key in webhook.keys.items() if key in seen] == []


# Settings ----------------------------------------------------------------------------------------


def settings(text: str) -> Settings:
    return demo_settings(channels="wecom_webhook", wecom_webhook_url=text)


def test_one_address_is_a_group_without_a_name() -> None:
    (hook,) = read_hooks(REAL)
    assert (hook.name, hook.base) == ("工作群", "https://qyapi.weixin.qq.com")
    assert hook.key.get_secret_value() == "693a91f6-7aoc-4bc4-97a0"


def test_several_groups_have_names() -> None:
    hooks = read_hooks(f"{WORK}={REAL}，{TEAM} = {REAL}")
    assert [hook.name for hook in hooks] == [WORK, TEAM]


@pytest.mark.parametrize(
    "text",
    [
        "693a91f6-7aoc-4bc4-97a0",
        "https://qyapi.weixin.qq.com/cgi-bin/webhook/send",
        "https://qyapi.weixin.qq.com/cgi-bin/message/send?key=693a91f6",
        REAL.replace("https", "http"),
        f"={REAL}",
        f"{REAL},{REAL}",
        "https://[::1/cgi-bin/webhook/send?key=693a91f6",
    ],
)
def test_an_address_that_cannot_be_read_is_said_without_its_key(text: str) -> None:
    channel = build_channels(settings(text), SystemClock())["wecom_webhook"]
    (line,) = channel.check()
    assert line.startswith("HONGYAN_WECOM_WEBHOOK_URL：")
    assert "693a91f6" not in line


def test_without_an_address_the_channel_says_so() -> None:
    channel = build_channels(settings(""), SystemClock())["wecom_webhook"]
    assert channel.check() == [
        "缺少 HONGYAN_WECOM_WEBHOOK_URL（群里「消息推送」给出的 Webhook 地址）"
    ]


def test_a_hook_does_not_show_its_key() -> None:
    (hook,) = read_hooks(REAL)
    assert isinstance(hook, Hook)
    assert "693a91f6" not in repr(hook)
