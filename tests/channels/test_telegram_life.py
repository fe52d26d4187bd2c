"""How the Telegram channel lives: one poller of many, rates they share, webhook, proxy, check."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr
from sqlmodel import update

from bot.channels.telegram import Telegram
from bot.errors import SendError
from bot.messages import Address, Media, Part
from storage.driver import database_millis
from storage.leases import Lease
from tests.channels.harness import catalog
from tests.channels.on_telegram import BOT, LI, WANG, OnTelegram, running

pytestmark = pytest.mark.anyio

HOUR = 3_600_000  # ms

SECRET = "a-secret-of-some-length"
Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Start]:
    """Starts an installation; it ends with the test."""
    async with AsyncExitStack() as stack:

        async def begin(**values: Any) -> OnTelegram:
            return await stack.enter_async_context(running(tmp_path, catalog(), **values))

        yield begin


@pytest.fixture
async def bot(start: Start) -> OnTelegram:
    made: OnTelegram = await start()
    return made


@asynccontextmanager
async def replica(bot: OnTelegram, **values: Any) -> AsyncIterator[Telegram]:
    """The channel once more, in another process on the same database."""
    settings = bot.settings.model_copy(update=values)
    made = Telegram(settings, bot.clock, sleep=bot.clock.advance, patience=0.3)
    made.attach(bot.app.services)
    try:
        yield made
    finally:
        await made.close()


# - one poller -


@pytest.fixture
def patient(bot: OnTelegram) -> Callable[[Telegram], Any]:
    """Runs a replica that waits in real time, so that nobody spins on the virtual clock."""

    @asynccontextmanager
    async def lives(channel: Telegram) -> AsyncIterator[None]:
        looked = asyncio.Event()

        async def sleep(_seconds: float) -> None:
            looked.set()
            await asyncio.sleep(0.005)

        channel._sleep = sleep
        task = asyncio.create_task(channel.run(bot.app.receive))
        try:
            await looked.wait()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return lives


async def test_fact_76_of_two_replicas_one_polls_and_the_other_takes_over(
    bot: OnTelegram, patient: Callable[[Telegram], Any]
) -> None:
    async with replica(bot) as second:
        async with bot.living(), patient(second):
            assert bot.telegram.calls["getUpdates"] == 1
        # The first one has given its turn back.
        task = asyncio.create_task(second.run(bot.app.receive))
        await bot.telegram.until(lambda: bot.telegram.waiting_polls == 1)
        bot.telegram.say(WANG, "回声 在")
        await bot.telegram.until(lambda: bot.telegram.calls["getUpdates"] == 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await bot.drain()
    assert bot.heard(WANG) == ["在"]


async def test_fact_76_the_lease_of_a_dead_poller_runs_out(
    bot: OnTelegram, patient: Callable[[Telegram], Any]
) -> None:
    with bot.app.services.database.transaction() as connection:
        connection.execute(
            Lease.__table__.insert().values(  # type: ignore[attr-defined]  # SQLModel sets it
                name=f"telegram:{BOT}", holder="dead", until=database_millis(connection) + HOUR
            )
        )
    async with patient(bot.channel):
        assert bot.telegram.calls["getUpdates"] == 0
        with bot.app.services.database.transaction() as connection:
            connection.execute(update(Lease).values(until=0))
        await bot.telegram.until(lambda: bot.telegram.waiting_polls == 1)


# - rates -


async def test_fact_68_two_replicas_write_to_one_chat_once_a_second(bot: OnTelegram) -> None:
    await bot.says(WANG, "回声")
    address = Address.parse(bot.address(WANG))
    async with replica(bot) as second:
        for number, channel in enumerate([bot.channel, second] * 3):
            await channel.send(address, Part(f"第{number}封"), "1-0")
    lines = [line for line in bot.telegram.transcript(WANG) if line.by == "bot"]
    gaps = [after.at - before.at for before, after in itertools.pairwise(lines)]
    assert len(lines) == 7
    assert all(gap >= 1 for gap in gaps)


async def test_fact_68_two_replicas_write_to_a_group_twenty_times_a_minute(bot: OnTelegram) -> None:
    group = bot.telegram.group("乡亲", [WANG])
    address = Address("telegram", BOT, str(group))
    async with replica(bot) as second:
        for number, channel in enumerate([bot.channel, second] * 10):
            await channel.send(address, Part(f"第{number}条"), "1-0")
        for channel in (bot.channel, second):
            with pytest.raises(SendError) as caught:
                await channel.send(address, Part("太多"), "1-0")
            assert (caught.value.reason, caught.value.only_here) == ("pace", True)
    assert len(bot.heard(group)) == 20


async def test_fact_67_what_one_replica_is_told_to_wait_the_other_waits_too(
    bot: OnTelegram,
) -> None:
    await bot.says(WANG, "回声")
    await bot.clock.advance(5)
    bot.telegram.flood(30, WANG)
    address = Address.parse(bot.address(WANG))
    async with replica(bot) as second:
        before = bot.telegram.calls["sendMessage"]
        waits = []
        for channel in (bot.channel, second):
            with pytest.raises(SendError) as caught:
                await channel.send(address, Part("信"), "1-0")
            waits.append((caught.value.reason, caught.value.only_here))
    assert waits == [("flood", True), ("pace", True)]
    assert bot.telegram.calls["sendMessage"] == before + 1


async def test_a_message_that_could_not_even_wait_its_turn_is_tried_again(bot: OnTelegram) -> None:
    bot.telegram.start(WANG)
    with bot.app.services.database.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE chat_pace")
    with pytest.raises(SendError) as caught:
        await bot.channel.send(Address.parse(bot.address(WANG)), Part("信"), "1-0")
    assert (caught.value.reason, caught.value.unknown) == ("database", False)
    assert "sendMessage" not in bot.telegram.calls


# - webhook -


async def test_polling_takes_away_a_webhook_that_was_set(bot: OnTelegram) -> None:
    bot.telegram.webhook = "https://bot.example.org/callback/telegram"
    async with bot.living():
        assert bot.telegram.webhook == ""


async def test_fact_76_a_webhook_that_another_system_sets_later_is_waited_out(
    bot: OnTelegram,
) -> None:
    async with bot.living():
        bot.telegram._allow(None)
        await bot.telegram._set_webhook({"url": "https://other.example.org/hook"})
        while bot.telegram.calls["getUpdates"] < 4:
            await asyncio.sleep(0.001)
        assert bot.telegram.webhook == "https://other.example.org/hook"
        assert bot.telegram.calls["deleteWebhook"] == 1


async def test_fact_74_the_kinds_of_updates_are_asked_for_by_name(bot: OnTelegram) -> None:
    async with bot.living():
        assert bot.telegram._allowed == {
            "message",
            "callback_query",
            "my_chat_member",
            "chat_member",
        }


# - proxies -


class Proxy:
    """A forward proxy that notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.session: aiohttp.ClientSession | None = None

    async def forward(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.raw_path)
        assert self.session is not None
        async with self.session.request(
            request.method,
            request.raw_path,
            data=await request.read(),
            headers={"Content-Type": request.headers.get("Content-Type", "text/plain")},
        ) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )


@pytest.fixture
async def proxy(anyio_backend: str) -> AsyncIterator[tuple[Proxy, str]]:
    made = Proxy()
    runner = web.ServerRunner(web.Server(made.forward))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.session = aiohttp.ClientSession()
    yield made, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await made.session.close()
    await runner.cleanup()


async def test_every_call_goes_through_the_proxy_that_is_set(
    bot: OnTelegram, proxy: tuple[Proxy, str]
) -> None:
    made, address = proxy
    bot.telegram.start(WANG)
    async with replica(bot, telegram_proxy=address) as behind:
        await behind.poll(bot.app.receive, 0)
        await behind.send(Address.parse(bot.address(WANG)), Part("信"), "1-0")
    methods = [path.rpartition("/")[2] for path in made.asked]
    assert methods == ["getUpdates", "sendMessage"]
    assert bot.heard(WANG)[-1] == "信"


async def test_the_systems_proxy_is_used_where_none_is_set(
    bot: OnTelegram, proxy: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, address = proxy
    # The emulator speaks plain HTTP; for the platform itself the variable is HTTPS_PROXY.
    monkeypatch.setenv("HTTP_PROXY", address)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with replica(bot) as behind:
        await behind.poll(bot.app.receive, 0)
    assert [path.rpartition("/")[2] for path in made.asked] == ["getUpdates"]


# - hongyan check -


async def findings(channel: Telegram) -> tuple[list[str], list[str]]:
    """What is fine, and what is not with its advice."""
    found = await channel.probe()
    wrong = [f"{one.what} → {one.advice}" for one in found if not one.fine]
    return [one.what for one in found if one.fine], wrong


async def test_the_check_says_who_we_are_and_what_the_groups_send(bot: OnTelegram) -> None:
    fine, wrong = await findings(bot.channel)
    assert wrong == []
    assert fine == [
        "Telegram 跨境模式 full：不设限；须有评估或备案文号",
        "Telegram 令牌有效：@hongyan_bot",
        "在群里只收到指令、提到它和回复它的话（Group Privacy 已开）",
        "polling 方式，平台上没有登记 webhook",
    ]
    assert "getUpdates" not in bot.telegram.calls


async def test_the_check_names_botfathers_words_for_what_is_wrong(bot: OnTelegram) -> None:
    bot.telegram.set_privacy(False)
    bot.telegram.set_join_groups(False)
    bot.telegram.webhook = "https://elsewhere.example.org/secret-path"
    fine, wrong = await findings(bot.channel)
    assert "/setjoingroups" in fine[-1]
    assert [line.partition(" → ")[0] for line in wrong] == [
        "群里每句话都会送到机器人（Group Privacy 是关的）",
        "这个机器人登记着 webhook：https://elsewhere.example.org",
    ]
    assert "/setprivacy" in wrong[0]
    assert "secret-path" not in "".join(wrong)


async def test_the_check_tells_a_refused_token_from_a_network_that_is_away(
    bot: OnTelegram,
) -> None:
    fresh = bot.telegram.revoke()
    _fine, refused = await findings(bot.channel)
    bot.telegram.fail("getMe", "cut", times=-1)
    _fine, away = await findings(bot.channel)
    assert refused[0].startswith("Telegram 不认 HONGYAN_TELEGRAM_TOKEN → ")
    assert "API Token" in refused[0]
    assert away[0].startswith("连不上 Telegram")
    assert "HONGYAN_TELEGRAM_PROXY" in away[0]
    bot.telegram.mend()
    async with replica(bot, telegram_token=SecretStr(fresh)) as mended:
        assert (await findings(mended))[1] == []


@pytest.fixture
async def hooked(start: Start) -> OnTelegram:
    made: OnTelegram = await start(
        telegram_mode="webhook", telegram_secret=SECRET, public_url="https://bot.example.org"
    )
    return made


async def test_the_check_reads_what_the_platform_says_of_the_webhook(hooked: OnTelegram) -> None:
    before = await findings(hooked.channel)
    await hooked.channel.run(hooked.app.receive)
    after = await findings(hooked.channel)
    assert (before[0][-1], before[1]) == ("webhook 还没登记，serve 启动时会自动登记", [])
    assert (after[0][-1], after[1]) == ("webhook 已登记，最近一小时没有失败", [])


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("Wrong response from the webhook: 403 Forbidden", "HONGYAN_TELEGRAM_SECRET"),
        ("SSL error {error:0A000086:SSL routines::certificate verify failed}", "证书"),
        ("Wrong response from the webhook: 404 Not Found", "反向代理"),
        ("Connection refused", "端口"),
    ],
)
async def test_the_check_says_what_to_do_about_a_failing_webhook(
    hooked: OnTelegram, said: str, advice: str
) -> None:
    await hooked.channel.run(hooked.app.receive)
    at = int(hooked.clock.timestamp())
    hooked.telegram.last_error = {"last_error_date": at, "last_error_message": said}
    _fine, wrong = await findings(hooked.channel)
    assert len(wrong) == 1
    assert said in wrong[0]
    assert advice in wrong[0].partition(" → ")[2]
    await hooked.clock.advance(hours=2)
    assert (await findings(hooked.channel))[1] == []


async def test_the_check_finds_a_webhook_of_another_and_kinds_that_are_left_out(
    hooked: OnTelegram,
) -> None:
    await hooked.channel.run(hooked.app.receive)
    hooked.telegram._allow(["message"])
    _fine, narrow = await findings(hooked.channel)
    hooked.telegram.webhook = "https://other.example.org/hook"
    _fine, other = await findings(hooked.channel)
    assert "callback_query、chat_member、my_chat_member" in narrow[0]
    assert "https://other.example.org，不是本机的 https://bot.example.org" in other[0]


async def test_a_channel_that_is_off_has_nothing_to_check(start: Start) -> None:
    bot = await start(telegram_policy="off")
    assert [one.fine for one in await bot.channel.probe()] == [True]
    assert bot.telegram.calls == {}


async def test_fact_77_the_token_is_in_no_finding_and_no_error(
    bot: OnTelegram, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    for method in ("getMe", "getWebhookInfo", "getFile", "sendMessage"):
        bot.telegram.fail(method, "cut", times=-1)
    shown += [repr(one) for one in await bot.channel.probe()]
    for call in (
        bot.channel.fetch(Media("file")),
        bot.channel.send(Address.parse(bot.address(LI)), Part("信"), "1-0"),
    ):
        with pytest.raises(SendError) as caught:
            await call
        shown.append(f"{caught.value!r} {caught.value.__cause__!r}")
    everything = caplog.text + "".join(shown)
    assert [secret for secret in bot.secrets if secret in everything] == []
