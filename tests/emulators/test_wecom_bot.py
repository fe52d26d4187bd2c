"""The emulated smart bot keeps the platform's rules: what a bare client sees of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.emulators.conftest import Client, Product
from tests.emulators.server import Platforms
from tests.emulators.wecom_bot import Push, WeComBot, check_card, shown

pytestmark = pytest.mark.anyio

WANG, GROUP = "WangXiaoyan", "wrGroup"
OVER = 6 * 60 + 1


class Raw:
    """One WebSocket, with nothing between it and the test."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, bot: WeComBot) -> None:
        self.socket = socket
        self.bot = bot
        self._number = 0

    async def ask(self, cmd: str, body: Any = None, req_id: str = "") -> dict[str, Any]:
        """The ack of a command."""
        self._number += 1
        req_id = req_id or f"r{self._number}"
        await self.socket.send_json({"cmd": cmd, "headers": {"req_id": req_id}, "body": body})
        answer: dict[str, Any] = await self.socket.receive_json(timeout=5)
        assert (answer.get("cmd"), answer["headers"]["req_id"]) == (None, req_id)
        return answer

    async def code(self, cmd: str, body: Any = None, req_id: str = "") -> int:
        return int((await self.ask(cmd, body, req_id))["errcode"])

    async def subscribe(self, secret: str = "") -> int:
        account = self.bot.account
        body = {"bot_id": account.bot_id, "secret": secret or account.secret}
        return await self.code("aibot_subscribe", body)

    async def told(self, push: Push | None) -> tuple[str, dict[str, Any]]:
        """The req_id and body under which a push arrives."""
        assert push is not None
        frame = await self.socket.receive_json(timeout=5)
        return frame["headers"]["req_id"], frame["body"]

    async def push(self, text: str, chat: str = WANG, kind: int = 1) -> int:
        body = {"chatid": chat, "chat_type": kind, "msgtype": "markdown"}
        return await self.code("aibot_send_msg", body | {"markdown": {"content": text}})


@pytest.fixture
def bot(platforms: Platforms) -> WeComBot:
    made = platforms.wecom_bot
    made.hire(WANG)
    made.group(GROUP)
    return made


@asynccontextmanager
async def connected(platforms: Platforms, *, subscribe: bool = True) -> AsyncIterator[Raw]:
    platforms.wecom_bot.mode = "socket"
    url = f"{platforms.url}/openws"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        raw = Raw(socket, platforms.wecom_bot)
        if subscribe:
            assert await raw.subscribe() == 0
        yield raw


async def responds(client: Client, push: Push, content: str = "家乡好") -> int:
    """What the platform says to a later answer."""
    body = {"msgtype": "markdown", "markdown": {"content": content}}
    url = push.fields["response_url"]
    async with client.session.post(url, json=body) as response:
        return int((await response.json())["errcode"])


def test_a_phone_shows_markdown_and_what_is_escaped_as_it_is() -> None:
    seen = "**粗** `x` [链接](http://a) <b>b</b>\n# 题\n\\*星\\* 1\\_2 \\[x\\]"
    assert shown(seen) == "粗 x 链接 b\n题\n*星* 1_2 [x]"


@pytest.mark.parametrize(
    "broken",
    [
        {"card_type": "button"},
        {"task_id": ""},
        {"task_id": "不行"},
        {"main_title": {"title": "长" * 27}},
        {"sub_title_text": "长" * 113},
        {"button_list": []},
        {"button_list": [{"text": "好", "key": "k"}] * 7},
        {"button_list": [{"text": "十个字以上的按钮不行的", "key": "k"}]},
        {"button_list": [{"text": "好", "key": "k" * 1025}]},
        {"button_list": [{"text": "好", "key": "k", "style": 5}]},
    ],
)
def test_a_card_beyond_the_limits_is_refused(broken: dict[str, Any]) -> None:
    good = {
        "card_type": "button_interaction",
        "main_title": {"title": "请选"},
        "button_list": [{"text": "好", "key": "k"}],
        "task_id": "t-1",
    }
    check_card(good)
    with pytest.raises(Exception, match="40058"):
        check_card(good | broken)


async def test_fact_34_a_press_is_told_once_and_never_again(
    platforms: Platforms, bot: WeComBot, product: Product
) -> None:
    bot.connect(f"{product.url}/callback/wecom-bot")
    card = {
        "card_type": "button_interaction",
        "main_title": {"title": "请选"},
        "button_list": [{"text": "好", "key": "k"}],
        "task_id": "t-1",
    }
    bot._show_card(bot.chats[WANG], card)
    product.answer = product.broken
    push = await bot.press(WANG, "好").done()
    assert [attempt.status for attempt in push.tries] == [500]


async def test_a_message_is_tried_three_times(
    platforms: Platforms, bot: WeComBot, product: Product
) -> None:
    bot.connect(f"{product.url}/callback/wecom-bot")
    product.answer = product.broken
    push = bot.say(WANG, "你好")
    while not push.over.is_set():
        await platforms.clock.advance(1)
        await asyncio.sleep(0.001)
    began = push.tries[0].at
    assert [(one.status, one.at - began) for one in push.tries] == [(500, 0), (500, 5), (500, 10)]


async def test_fact_35_a_response_url_is_good_once_and_for_an_hour(
    platforms: Platforms, bot: WeComBot, product: Product, client: Client
) -> None:
    bot.connect(f"{product.url}/callback/wecom-bot")
    first, second = bot.say(WANG, "一"), bot.say(WANG, "二")
    assert [await responds(client, first) for _time in range(2)] == [0, 41051]
    await platforms.clock.advance(3600)
    assert await responds(client, second) == 41051


async def test_fact_35_a_response_url_takes_no_plain_text(
    platforms: Platforms, bot: WeComBot, client: Client
) -> None:
    push = bot.say(WANG, "一")
    url = push.fields["response_url"]
    async with client.session.post(url, json={"msgtype": "text", "text": {}}) as response:
        assert (await response.json())["errcode"] == 40008


async def test_fact_36_a_stream_on_the_connection_is_over_after_six_minutes(
    platforms: Platforms, bot: WeComBot
) -> None:
    async with connected(platforms) as raw:
        req_id, _body = await raw.told(bot.say(WANG, "你好"))
        part = {"msgtype": "stream", "stream": {"id": "s", "finish": False, "content": "一"}}
        assert await raw.code("aibot_respond_msg", part, req_id) == 0
        part["stream"] = {"id": "s", "finish": True, "content": "一二"}
        assert await raw.code("aibot_respond_msg", part, req_id) == 0
        assert bot.heard(WANG) == ["一二"]
        await platforms.clock.advance(OVER)
        assert await raw.code("aibot_respond_msg", part, req_id) == 846608
        assert await raw.code("aibot_respond_msg", part, "another") == 846605


async def test_fact_37_a_fourth_message_in_flight_is_refused(
    platforms: Platforms, bot: WeComBot, product: Product
) -> None:
    bot.connect(f"{product.url}/callback/wecom-bot")
    product.answer = product.never
    assert [bot.say(WANG, "再来").refused for _time in range(4)] == [False, False, False, True]
    await product.count(3)


async def test_fact_38_a_picture_or_file_in_a_group_never_arrives(
    platforms: Platforms, bot: WeComBot
) -> None:
    async with connected(platforms) as raw:
        kinds = ("image", "voice", "file", "video")
        assert [bot.send(WANG, kind, GROUP) for kind in kinds] == [None] * 4
        _id, body = await raw.told(bot.send_mixed(WANG, "看图", GROUP))
        assert [item["msgtype"] for item in body["mixed"]["msg_item"]] == ["text", "image"]


async def test_fact_39_a_second_subscription_ends_the_first_politely(
    platforms: Platforms, bot: WeComBot
) -> None:
    async with connected(platforms) as older, connected(platforms) as newer:
        frame = await older.socket.receive_json(timeout=5)
        assert frame["body"]["event"] == {"eventtype": "disconnected_event"}
        closed = await older.socket.receive(timeout=5)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1000)
        assert await newer.code("ping") == 0


async def test_fact_43_a_wrong_secret_is_refused(platforms: Platforms, bot: WeComBot) -> None:
    async with connected(platforms, subscribe=False) as raw:
        assert await raw.subscribe("wrong") == bot.rules.refused_secret
        assert await raw.push("家乡好") == 846607


async def test_url_callbacks_and_the_connection_exclude_each_other(
    platforms: Platforms, bot: WeComBot
) -> None:
    async with connected(platforms, subscribe=False) as raw:
        bot.mode = "url"
        assert await raw.subscribe() != 0


async def test_fact_44_a_push_needs_a_word_before_and_the_right_address(
    platforms: Platforms, bot: WeComBot
) -> None:
    async with connected(platforms) as raw:
        assert await raw.push("家乡好") == bot.rules.stranger
        await raw.told(bot.say(WANG, "你好"))
        await raw.told(bot.say(WANG, "你好", GROUP))
        assert await raw.push("家乡好") == 0
        assert await raw.push("家乡好", WANG.lower()) == 93006
        assert await raw.push("家乡好", GROUP, 2) == 0
        assert await raw.push("家乡好", GROUP.upper(), 2) == 93006
        text = {"chatid": WANG, "chat_type": 1, "msgtype": "text", "text": {"content": "好"}}
        assert await raw.code("aibot_send_msg", text) == 40008


async def test_fact_45_the_thirty_first_message_of_a_minute_is_refused(
    platforms: Platforms, bot: WeComBot
) -> None:
    async with connected(platforms) as raw:
        req_id, _body = await raw.told(bot.say(WANG, "你好"))
        answer = {"msgtype": "stream", "stream": {"id": "s", "finish": True, "content": "好"}}
        assert await raw.code("aibot_respond_msg", answer, req_id) == 0
        codes = [await raw.push(str(number)) for number in range(30)]
        assert codes == [0] * 29 + [bot.rules.too_often]
        await platforms.clock.advance(60)
        assert await raw.push("又一分钟") == 0


async def test_fact_45_a_thousand_an_hour(platforms: Platforms, bot: WeComBot) -> None:
    chat = bot.chats[WANG]
    chat.spoken = True
    chat.sent.extend(platforms.clock.timestamp() - 61 for _time in range(1000))
    async with connected(platforms) as raw:
        assert await raw.push("第一千零一条") == bot.rules.too_often


def pieces(content: bytes, size: int) -> list[dict[str, Any]]:
    cut = [content[at : at + size] for at in range(0, len(content), size)]
    return [
        {"chunk_index": number, "base64_data": base64.b64encode(piece).decode()}
        for number, piece in enumerate(cut)
    ]


async def begin(raw: Raw, content: bytes, total: int, md5: str = "") -> str:
    body = {
        "type": "file",
        "filename": "月报.xlsx",
        "total_size": len(content),
        "total_chunks": total,
        "md5": md5 or hashlib.md5(content, usedforsecurity=False).hexdigest(),
    }
    return str((await raw.ask("aibot_upload_media_init", body))["body"]["upload_id"])


async def test_fact_46_pieces_come_in_any_order_and_over_two_connections(
    platforms: Platforms, bot: WeComBot
) -> None:
    content = bytes(range(256)) * 10
    parts = pieces(content, 1024)
    async with connected(platforms) as raw:
        upload = await begin(raw, content, len(parts))
        for part in (parts[2], parts[0], parts[0]):
            assert await raw.code("aibot_upload_media_chunk", part | {"upload_id": upload}) == 0
        assert await raw.code("aibot_upload_media_finish", {"upload_id": upload}) == 40058
    async with connected(platforms) as raw:
        assert await raw.code("aibot_upload_media_chunk", parts[1] | {"upload_id": upload}) == 0
        done = await raw.ask("aibot_upload_media_finish", {"upload_id": upload})
        media = done["body"]["media_id"]
        await raw.told(bot.say(WANG, "你好"))
        body = {"chatid": WANG, "chat_type": 1, "msgtype": "file", "file": {"media_id": media}}
        assert (await raw.code("aibot_send_msg", body), bot.files[media]) == (0, content)
        await platforms.clock.advance(3 * 86400)
        assert await raw.code("aibot_send_msg", body) == 40007


async def test_fact_46_a_wrong_sum_or_too_large_a_piece_is_refused(
    platforms: Platforms, bot: WeComBot
) -> None:
    async with connected(platforms) as raw:
        upload = await begin(raw, b"not this", 1, md5="0" * 32)
        part = pieces(b"not this", 1024)[0] | {"upload_id": upload}
        assert await raw.code("aibot_upload_media_chunk", part) == 0
        assert await raw.code("aibot_upload_media_finish", {"upload_id": upload}) == 40058
        big = pieces(b"x" * (512 * 1024 + 1), 1024 * 1024)[0] | {"upload_id": upload}
        assert await raw.code("aibot_upload_media_chunk", big) == 40009
