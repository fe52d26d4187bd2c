"""The emulated Bot API keeps the platform's rules."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.error import ChatMigrated, Forbidden, RetryAfter

from tests.emulators.conftest import Client, Product
from tests.emulators.server import Platforms
from tests.emulators.telegram import Markup, Refused

pytestmark = pytest.mark.anyio

WANG = 1001
LI = 1002


@pytest.fixture
def people(platforms: Platforms) -> None:
    platforms.telegram.person(WANG, "王小雁")
    platforms.telegram.person(LI, "李远归")


async def send(client: Client, chat: int, text: str = "信", **more: Any) -> tuple[int, str]:
    """The error code (0: sent) and the description."""
    answer = await client.bot("sendMessage", chat_id=chat, text=text, **more)
    return answer.get("error_code", 0), answer.get("description", "")


async def kinds(client: Client, **query: Any) -> list[str]:
    """What kinds of update wait, all of which are then confirmed."""
    updates = (await client.bot("getUpdates", **query))["result"]
    if updates:
        await client.bot("getUpdates", offset=updates[-1]["update_id"] + 1)
    return [next(key for key in update if key != "update_id") for update in updates]


@pytest.mark.usefixtures("people")
async def test_updates_wait_until_an_offset_confirms_them(
    platforms: Platforms, client: Client
) -> None:
    platforms.telegram.start(WANG, "abc")
    platforms.telegram.say(WANG, "登记")
    first = (await client.bot("getUpdates"))["result"]
    again = (await client.bot("getUpdates", offset=first[0]["update_id"] + 1))["result"]
    assert [update["message"]["text"] for update in first] == ["/start abc", "登记"]
    assert again == first[1:]
    assert platforms.telegram.pending() == 1


@pytest.mark.usefixtures("people")
async def test_a_long_poll_ends_with_an_update_or_its_time(
    platforms: Platforms, client: Client
) -> None:
    poll = asyncio.create_task(client.bot("getUpdates", timeout=30))
    await platforms.telegram.until(lambda: platforms.telegram.waiting_polls == 1)
    platforms.telegram.say(WANG, "在")
    assert len((await poll)["result"]) == 1
    empty = asyncio.create_task(client.bot("getUpdates", timeout=30, offset=2**40))
    await platforms.telegram.until(lambda: platforms.telegram.waiting_polls == 1)
    await platforms.clock.advance(30)
    assert (await empty)["result"] == []


async def test_a_second_poller_ends_the_first_with_409(
    platforms: Platforms, client: Client
) -> None:
    first = asyncio.create_task(client.bot("getUpdates", timeout=30))
    await platforms.telegram.until(lambda: platforms.telegram.waiting_polls == 1)
    second = asyncio.create_task(client.bot("getUpdates", timeout=1))
    answer = await first
    await platforms.clock.advance(1)
    assert (answer["error_code"], (await second)["ok"]) == (409, True)
    assert "terminated by other getUpdates request" in answer["description"]


@pytest.mark.usefixtures("people")
async def test_a_webhook_forbids_polling_and_brings_its_secret(
    platforms: Platforms, client: Client, product: Product
) -> None:
    platforms.telegram.say(WANG, "早")
    url = f"{product.url}/callback/telegram"
    await client.bot("setWebhook", url=url, secret_token="s3cret")
    assert (await client.bot("getUpdates"))["error_code"] == 409
    platforms.telegram.say(WANG, "在")
    await product.count(2)
    texts = [json.loads(body)["message"]["text"] for _, body in product.received]
    secrets = {r.headers["X-Telegram-Bot-Api-Secret-Token"] for r, _ in product.received}
    assert (texts, secrets) == (["早", "在"], {"s3cret"})
    await client.bot("deleteWebhook")
    assert (await client.bot("getUpdates"))["ok"] is True


@pytest.mark.usefixtures("people")
async def test_an_update_refused_by_the_webhook_is_repeated_with_its_id(
    platforms: Platforms, client: Client, product: Product
) -> None:
    telegram = platforms.telegram
    product.answer = product.broken
    await client.bot("setWebhook", url=f"{product.url}/callback/telegram")
    platforms.telegram.say(WANG, "在")
    await product.count(1)
    product.answer = product.success
    await telegram.until(lambda: bool(telegram.last_error))
    await platforms.clock.advance(1)
    await product.count(2)
    await telegram.until(lambda: not telegram.pending())
    bodies = [json.loads(body) for _, body in product.received]
    assert bodies[0] == bodies[1]
    info = (await client.bot("getWebhookInfo"))["result"]
    assert info["last_error_message"].startswith("Wrong response from the webhook: 500")


@pytest.mark.usefixtures("people")
async def test_updates_can_come_twice_and_out_of_order(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    telegram.hold_next()
    telegram.say(WANG, "一")
    telegram.duplicate_next()
    telegram.say(WANG, "二")
    updates = (await client.bot("getUpdates"))["result"]
    assert [update["message"]["text"] for update in updates] == ["二", "二", "一"]
    assert updates[0]["update_id"] == updates[1]["update_id"] > updates[2]["update_id"]


@pytest.mark.usefixtures("people")
async def test_nobody_can_be_written_to_before_they_start_or_after_they_block(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    codes = [await send(client, 4711), await send(client, WANG)]
    telegram.start(WANG)
    codes.append(await send(client, WANG))
    telegram.block(WANG)
    codes.append(await send(client, WANG))
    telegram.unblock(WANG)
    telegram.deactivate(WANG)
    codes.append(await send(client, WANG))
    assert codes == [
        (400, "Bad Request: chat not found"),
        (403, "Forbidden: bot can't initiate conversation with a user"),
        (0, ""),
        (403, "Forbidden: bot was blocked by the user"),
        (403, "Forbidden: user is deactivated"),
    ]
    assert await kinds(client) == ["message", "my_chat_member", "my_chat_member"]


@pytest.mark.usefixtures("people")
async def test_a_chat_takes_one_message_a_second(platforms: Platforms, client: Client) -> None:
    platforms.telegram.start(WANG)
    platforms.telegram.start(LI)
    first = await client.bot("sendMessage", chat_id=WANG, text="一")
    second = await client.bot("sendMessage", chat_id=WANG, text="二")
    other = await client.bot("sendMessage", chat_id=LI, text="一")
    assert (first["ok"], other["ok"]) == (True, True)
    assert second == {
        "ok": False,
        "error_code": 429,
        "description": "Too Many Requests: retry after 1",
        "parameters": {"retry_after": 1},
    }
    await platforms.clock.advance(1)
    assert await send(client, WANG) == (0, "")


@pytest.mark.usefixtures("people")
async def test_a_group_takes_twenty_messages_a_minute(platforms: Platforms, client: Client) -> None:
    group = platforms.telegram.group("鸿雁群", [WANG, LI])
    for _ in range(20):
        assert await send(client, group) == (0, "")
        await platforms.clock.advance(1)
    assert await send(client, group) == (429, "Too Many Requests: retry after 40")
    await platforms.clock.advance(39)
    assert await send(client, group) == (429, "Too Many Requests: retry after 1")
    await platforms.clock.advance(1)
    assert await send(client, group) == (0, "")


async def test_the_bot_sends_thirty_a_second_in_all(platforms: Platforms, client: Client) -> None:
    for number in range(31):
        platforms.telegram.person(number + 1, "雁")
        platforms.telegram.start(number + 1)
    codes = [(await send(client, number + 1))[0] for number in range(31)]
    assert codes == [0] * 30 + [429]


@pytest.mark.usefixtures("people")
async def test_a_flood_wait_holds_until_it_is_over(platforms: Platforms, client: Client) -> None:
    platforms.telegram.start(WANG)
    platforms.telegram.flood(10, WANG)
    codes = [await send(client, WANG)]
    await platforms.clock.advance(9.5)
    codes.append(await send(client, WANG))
    await platforms.clock.advance(1)
    codes.append(await send(client, WANG))
    assert [code for code, _ in codes] == [429, 429, 0]
    assert codes[0][1] == "Too Many Requests: retry after 10"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>王</b>&lt;<a href='https://x.cn'>信</a>", "王<信"),
        ("<b>王", None),
        ("<b><i>王</b></i>", None),
        ("<h1>王</h1>", None),
        ("3 < 5", None),
        ("<!-- 注 -->", None),
        ("<span>王</span>", None),
        ("王</b>", None),
    ],
)
async def test_html_is_read_or_refused(text: str, shown: str | None) -> None:
    if shown is not None:
        assert Markup.read(text) == shown
        return
    with pytest.raises(Refused, match="can't parse entities"):
        Markup.read(text)


KEYBOARD = {"inline_keyboard": [[{"text": "参加", "callback_data": "雁" * 21 + "a"}]]}


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("body", "description"),
    [
        ({"text": "雁" * 4096}, ""),
        ({"text": "雁" * 4097}, "Bad Request: message is too long"),
        ({"text": "<b>" + "雁" * 4096 + "</b>", "parse_mode": "HTML"}, ""),
        ({"text": " "}, "Bad Request: message text is empty"),
        ({"text": "信", "reply_markup": KEYBOARD}, ""),
        (
            {"text": "信", "reply_markup": {"inline_keyboard": [[{"text": "参加"}]]}},
            "Bad Request: can't parse inline keyboard button: Text buttons are unallowed in the "
            "inline keyboard",
        ),
        (
            {
                "text": "信",
                "reply_markup": {
                    "inline_keyboard": [[{"text": "参加", "callback_data": "雁" * 22}]]
                },
            },
            "Bad Request: BUTTON_DATA_INVALID",
        ),
        ({"text": "信", "reply_markup": "{"}, "Bad Request: can't parse reply_markup JSON object"),
    ],
)
async def test_a_message_is_measured_before_it_is_sent(
    platforms: Platforms, client: Client, body: dict[str, Any], description: str
) -> None:
    platforms.telegram.start(WANG)
    answer = await client.bot("sendMessage", chat_id=WANG, **body)
    assert answer.get("description", "") == description


@pytest.mark.usefixtures("people")
async def test_a_press_arrives_with_its_data_and_can_be_answered_for_a_while(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    telegram.start(WANG)
    sent = await client.bot("sendMessage", chat_id=WANG, text="来吗？", reply_markup=KEYBOARD)
    query = telegram.press(WANG, "参加")
    update = (await client.bot("getUpdates"))["result"][-1]["callback_query"]
    assert (update["id"], update["data"], update["from"]["id"]) == (query, "雁" * 21 + "a", WANG)
    assert (await client.bot("answerCallbackQuery", callback_query_id=query))["ok"]
    place = {"chat_id": WANG, "message_id": sent["result"]["message_id"]}
    edits = [await client.bot("editMessageText", **place, text="已记下。") for _ in range(2)]
    assert edits[0]["result"]["text"] == "已记下。"
    assert edits[1]["description"].startswith("Bad Request: message is not modified")
    with pytest.raises(LookupError):
        telegram.press(WANG, "参加")
    await platforms.clock.advance(61)
    late = await client.bot("answerCallbackQuery", callback_query_id=query)
    assert late["description"].startswith("Bad Request: query is too old")


@pytest.mark.usefixtures("people")
async def test_in_a_group_the_bot_reads_only_what_is_meant_for_it(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    group = telegram.group("鸿雁群", [WANG, LI])
    sent = await client.bot("sendMessage", chat_id=group, text="请看公告")
    telegram.say(WANG, "你们好", group)
    telegram.say(WANG, "/help", group)
    telegram.say(WANG, "/help@other_bot", group)
    telegram.say(WANG, "看到了", group, sent["result"]["message_id"])
    telegram.other_bot_speaks(group)
    telegram.say(WANG, "/me", group)
    telegram.say(WANG, "/event@hongyan_bot", group)
    telegram.join(LI, group)
    updates = (await client.bot("getUpdates"))["result"][1:]
    texts = [update["message"].get("text", "joined") for update in updates]
    assert texts == ["/help", "看到了", "/event@hongyan_bot", "joined"]


@pytest.mark.usefixtures("people")
async def test_fact_74_membership_is_told_only_to_an_admin_who_asked(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    group = telegram.group("鸿雁群", [WANG])
    telegram.promote_bot(group)
    telegram.join(LI, group)
    before = await kinds(client)
    await client.bot("getUpdates", allowed_updates=["message", "chat_member"])
    telegram.leave(LI, group)
    assert (before, await kinds(client)) == (
        ["my_chat_member", "message"],
        ["message", "chat_member"],
    )


@pytest.mark.usefixtures("people")
async def test_a_group_that_becomes_a_supergroup_names_its_new_id(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    old = telegram.group("鸿雁群", [WANG])
    new = telegram.migrate(old, WANG)
    answer = await client.bot("sendMessage", chat_id=old, text="信")
    assert answer["parameters"] == {"migrate_to_chat_id": new}
    assert await send(client, new) == (0, "")
    updates = (await client.bot("getUpdates"))["result"][1:]
    moves = [
        {key: value for key, value in update["message"].items() if key.startswith("migrate")}
        for update in updates
    ]
    assert moves == [{"migrate_to_chat_id": new}, {"migrate_from_chat_id": old}]
    telegram.kick_bot(new, WANG)
    assert await send(client, new) == (403, "Forbidden: bot was kicked from the supergroup chat")


@pytest.mark.usefixtures("people")
async def test_a_stalled_answer_may_hide_a_message_that_was_sent(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    telegram.start(WANG)
    telegram.fail("sendMessage", "stall", "after")
    url = f"{platforms.url}/bot{telegram.token}/sendMessage"
    timeout = aiohttp.ClientTimeout(total=0.2)
    with pytest.raises(TimeoutError):
        await client.session.post(url, json={"chat_id": WANG, "text": "信"}, timeout=timeout)
    assert telegram.heard(WANG) == ["信"]
    telegram.fail("sendMessage", "status", value=502)
    with pytest.raises(aiohttp.ContentTypeError):
        await send(client, WANG)


async def test_commands_files_and_tokens_are_checked(platforms: Platforms, client: Client) -> None:
    good = await client.bot("setMyCommands", commands=[{"command": "start", "description": "开始"}])
    bad = await client.bot("setMyCommands", commands=[{"command": "登记", "description": "登记"}])
    assert (good["ok"], bad["description"]) == (True, "Bad Request: BOT_COMMAND_INVALID")
    platforms.telegram.person(WANG, "王小雁")
    platforms.telegram.send_document(WANG, "月报.xlsx", "工作簿")
    document = (await client.bot("getUpdates"))["result"][0]["message"]["document"]
    path = (await client.bot("getFile", file_id=document["file_id"]))["result"]["file_path"]
    url = f"{platforms.url}/file/bot{platforms.telegram.token}/{path}"
    async with client.session.get(url) as response:
        assert await response.text() == "工作簿"
    async with client.session.get(f"{platforms.url}/bot1:x/getMe") as response:
        assert response.status == 401


@pytest.fixture
async def library(platforms: Platforms) -> AsyncIterator[Bot]:
    base = f"{platforms.url}/bot"
    bot = Bot(platforms.telegram.token, base_url=base, base_file_url=f"{platforms.url}/file/bot")
    async with bot:
        yield bot


@pytest.mark.filterwarnings("ignore:Deprecated since version v22.2")
@pytest.mark.usefixtures("people")
async def test_the_library_of_the_product_understands_every_answer(
    platforms: Platforms, library: Bot
) -> None:
    telegram = platforms.telegram
    telegram.start(WANG)
    buttons = InlineKeyboardMarkup([[InlineKeyboardButton("参加", callback_data="go")]])
    await library.send_message(WANG, "<b>来吗？</b>", parse_mode="HTML", reply_markup=buttons)
    with pytest.raises(RetryAfter):
        await library.send_message(WANG, "再问一次")
    await platforms.clock.advance(1)
    sent = await library.send_document(WANG, "表".encode(), filename="月报.xlsx", caption="请收")
    assert sent.document is not None
    stored = await library.get_file(sent.document.file_id)
    assert bytes(await stored.download_as_bytearray()) == "表".encode()
    telegram.press(WANG, "参加")
    updates: tuple[Update, ...] = await library.get_updates()
    assert updates[-1].callback_query is not None
    await updates[-1].callback_query.answer("好的")
    telegram.block(WANG)
    with pytest.raises(Forbidden):
        await library.send_message(WANG, "信")
    group = telegram.group("鸿雁群", [LI])
    new = telegram.migrate(group, LI)
    with pytest.raises(ChatMigrated) as moved:
        await library.send_message(group, "信")
    assert moved.value.new_chat_id == new
    assert telegram.heard(WANG) == ["来吗？", "[document] 月报.xlsx 请收"]


async def test_an_update_that_nobody_can_read_is_delivered_as_it_is(
    platforms: Platforms, client: Client, product: Product
) -> None:
    async def fine(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response()

    product.answer = fine
    await client.bot("setWebhook", url=f"{product.url}/callback/telegram")
    platforms.telegram.poison()
    await product.count(1)
    assert re.fullmatch(rb'\{"update_id": \d+, "message": \{\}\}', product.received[0][1])


async def test_only_a_supergroup_has_topics_and_they_are_named_by_thread(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    telegram.person(WANG, "王小雁")
    with pytest.raises(ValueError, match="supergroup"):
        telegram.topic(telegram.group("小群", [WANG]), "活动")
    group = telegram.group("鸿雁群", [WANG], supergroup=True)
    topic = telegram.topic(group, "活动")
    telegram.say(WANG, "/help", group, topic=topic)
    message = (await client.bot("getUpdates"))["result"][-1]["message"]
    assert (message["message_thread_id"], message["is_topic_message"]) == (topic, True)
    assert message["chat"]["is_forum"]
    sent = await client.bot("sendMessage", chat_id=group, text="信", message_thread_id=topic)
    gone = await client.bot("sendMessage", chat_id=group, text="信", message_thread_id=99)
    assert sent["result"]["message_thread_id"] == topic
    assert gone["description"] == "Bad Request: message thread not found"
    assert (telegram.heard_in(group, topic), telegram.heard_in(group, None)) == (["信"], [])


CONTACT_KEY = {"keyboard": [[{"text": "发送我的手机号", "request_contact": True}]]}


@pytest.mark.usefixtures("people")
async def test_a_number_is_shared_by_a_key_in_a_private_chat_only(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    telegram.start(WANG)
    with pytest.raises(LookupError):
        telegram.share_contact(WANG, "8613800001234")
    await client.bot("sendMessage", chat_id=WANG, text="请发", reply_markup=CONTACT_KEY)
    telegram.share_contact(WANG, "8613800001234")
    contact = (await client.bot("getUpdates"))["result"][-1]["message"]["contact"]
    assert (contact["user_id"], contact["phone_number"]) == (WANG, "8613800001234")
    assert telegram.chats[WANG].keyboard is None
    group = telegram.group("鸿雁群", [WANG])
    refused = await client.bot("sendMessage", chat_id=group, text="请发", reply_markup=CONTACT_KEY)
    assert "private chats only" in refused["description"]


@pytest.mark.usefixtures("people")
async def test_a_keyboard_stays_until_it_is_taken_away(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    telegram.start(WANG)
    await client.bot("sendMessage", chat_id=WANG, text="请发", reply_markup=CONTACT_KEY)
    await platforms.clock.advance(1)
    await client.bot("sendMessage", chat_id=WANG, text="别的")
    assert telegram.chats[WANG].keyboard is not None
    await platforms.clock.advance(1)
    away = {"remove_keyboard": True}
    await client.bot("sendMessage", chat_id=WANG, text="好了", reply_markup=away)
    assert telegram.chats[WANG].keyboard is None


@pytest.mark.usefixtures("people")
async def test_a_link_to_the_bot_starts_it_with_what_the_link_carries(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    group = telegram.group("鸿雁群", [WANG])
    link = {"text": "私聊", "url": "https://t.me/hongyan_bot?start=go-1"}
    markup = {"inline_keyboard": [[link]]}
    await client.bot("sendMessage", chat_id=group, text="请私聊", reply_markup=markup)
    telegram.follow_link(WANG, "私聊", group)
    telegram.scan(LI, "https://t.me/hongyan_bot")
    texts = [update["message"]["text"] for update in (await client.bot("getUpdates"))["result"][1:]]
    assert texts == ["/start go-1", "/start"]
    with pytest.raises(ValueError, match="does not lead"):
        telegram.scan(WANG, "https://t.me/other_bot?start=1")
    with pytest.raises(ValueError, match="payload"):
        telegram.start(WANG, "太" * 3)


@pytest.mark.usefixtures("people")
async def test_what_is_no_picture_is_refused_as_one(platforms: Platforms, client: Client) -> None:
    platforms.telegram.start(WANG)
    url = f"{platforms.url}/bot{platforms.telegram.token}/sendPhoto"
    said = []
    for content in (b"\x89PNG", b"text", b"\x89PNG" + b"0" * (10 * 1024 * 1024)):
        form = aiohttp.FormData({"chat_id": str(WANG)})
        form.add_field("photo", io.BytesIO(content), filename="a.png")
        async with client.session.post(url, data=form) as response:
            said.append((await response.json()).get("description", ""))
    assert said == [
        "",
        "Bad Request: IMAGE_PROCESS_FAILED",
        "Bad Request: file is too big",
    ]


@pytest.mark.usefixtures("people")
async def test_an_old_message_can_no_longer_be_edited(platforms: Platforms, client: Client) -> None:
    platforms.telegram.start(WANG)
    sent = (await client.bot("sendMessage", chat_id=WANG, text="信"))["result"]["message_id"]
    await platforms.clock.advance(platforms.telegram.rules.edit_life + 1)
    late = await client.bot("editMessageText", chat_id=WANG, message_id=sent, text="新")
    assert late["description"] == "Bad Request: message can't be edited"


async def test_each_scope_has_a_menu_of_its_own(client: Client) -> None:
    group = {"type": "all_group_chats"}
    help = [{"command": "help", "description": "帮助"}]
    await client.bot("setMyCommands", commands=help, scope=group)
    found = [
        (await client.bot("getMyCommands", **more))["result"] for more in ({"scope": group}, {})
    ]
    assert found == [help, []]


@pytest.mark.usefixtures("people")
async def test_a_changed_privacy_takes_effect_when_the_bot_is_added_again(
    platforms: Platforms, client: Client
) -> None:
    telegram = platforms.telegram
    group = telegram.group("鸿雁群", [WANG])
    telegram.set_privacy(False)
    telegram.say(WANG, "一", group)
    telegram.add_bot(group, WANG)
    telegram.say(WANG, "二", group)
    updates = (await client.bot("getUpdates"))["result"]
    assert [update["message"]["text"] for update in updates if "message" in update] == ["二"]
    assert (await client.bot("getMe"))["result"]["can_read_all_group_messages"] is True


@pytest.mark.usefixtures("people")
async def test_botfather_keeps_the_bot_out_of_groups_and_changes_its_token(
    platforms: Platforms, client: Client
) -> None:
    platforms.telegram.set_join_groups(False)
    with pytest.raises(ValueError, match="groups"):
        platforms.telegram.group("鸿雁群", [WANG])
    old = platforms.telegram.token
    fresh = platforms.telegram.revoke()
    assert old != fresh
    async with client.session.get(f"{platforms.url}/bot{old}/getMe") as response:
        assert response.status == 401
