"""The emulated corporation keeps the platform's rules for an app and for message pushes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from aiohttp import FormData
from wechatpy.enterprise.crypto import WeChatCrypto

from tests.emulators.conftest import Client, Product
from tests.emulators.server import Platforms
from tests.emulators.wecom import WeCom

pytestmark = pytest.mark.anyio

WANG, LI = "WangXiaoyan", "LiYuangui"
BUTTONS: dict[str, Any] = {
    "card_type": "button_interaction",
    "sub_title_text": "来不来",
    "button_list": [{"text": "来", "key": "yes"}, {"text": "不来", "key": "no"}],
    "task_id": "t-1",
}


class Caller:
    """Calls the corporation's API as any program would."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._wecom = client.platforms.wecom
        self.token = ""

    async def get(self, endpoint: str, **query: str) -> dict[str, Any]:
        url = f"{self._client.platforms.url}/qy/cgi-bin/{endpoint}"
        async with self._client.session.get(url, params=query) as response:
            return dict(await response.json())

    async def post(self, endpoint: str, body: object, **query: str) -> dict[str, Any]:
        url = f"{self._client.platforms.url}/qy/cgi-bin/{endpoint}"
        how = {"data": body} if isinstance(body, FormData) else {"json": body}
        asked = {"access_token": self.token, **query}
        async with self._client.session.post(url, params=asked, **how) as response:
            return dict(await response.json())

    async def log_in(self, secret: str = "") -> dict[str, Any]:
        ours = self._wecom.corporation
        answer = await self.get("gettoken", corpid=ours.corp_id, corpsecret=secret or ours.secret)
        self.token = str(answer.get("access_token", ""))
        return answer

    async def send(self, to: str, kind: str = "text", part: object = None, **more: Any) -> Any:
        body = {"touser": to, "agentid": self._wecom.corporation.agent_id, "msgtype": kind}
        return await self.post("message/send", body | {kind: part or {"content": "家乡好"}} | more)

    async def upload(self, endpoint: str, size: int, **query: str) -> dict[str, Any]:
        form = FormData()
        form.add_field("media", io.BytesIO(b"x" * size), filename="a.xlsx")
        return await self.post(endpoint, form, type="file", **query)


@pytest.fixture
def wecom(platforms: Platforms) -> WeCom:
    platforms.wecom.hire(WANG, "王小雁")
    platforms.wecom.hire(LI, "李远归")
    return platforms.wecom


@pytest.fixture
async def caller(client: Client, wecom: WeCom) -> Caller:
    made = Caller(client)
    await made.log_in()
    return made


# Tokens ------------------------------------------------------------------------------------------


async def test_while_a_token_lives_it_is_given_again(caller: Caller, wecom: WeCom) -> None:
    first = caller.token
    await wecom.clock.advance(7000)
    answer = await caller.log_in()
    assert (answer["access_token"], answer["expires_in"]) == (first, 200)
    await wecom.clock.advance(200)
    assert (await caller.send(WANG))["errcode"] == 42001
    assert (await caller.log_in())["access_token"] != first


async def test_a_token_may_die_before_its_time(caller: Caller, wecom: WeCom) -> None:
    wecom.kill_tokens()
    assert (await caller.send(WANG))["errcode"] == 40014


async def test_a_wrong_secret_or_corporation_gets_no_token(caller: Caller) -> None:
    assert (await caller.log_in("wrong"))["errcode"] == 40001
    assert (await caller.get("gettoken", corpid="ww0", corpsecret="x"))["errcode"] == 40013


async def test_fact_51_an_address_off_the_list_is_told_its_own(
    caller: Caller, wecom: WeCom
) -> None:
    wecom.allow_ip(False)
    answer = await caller.send(WANG)
    assert answer["errcode"] == 60020
    assert "from ip: 203.0.113.7" in answer["errmsg"]


# Messages ----------------------------------------------------------------------------------------


async def test_fact_47_whom_it_cannot_reach_is_listed_in_lower_case_and_is_no_error(
    caller: Caller,
) -> None:
    answer = await caller.send(f"{WANG}|Nobody")
    assert (answer["errcode"], answer["invaliduser"]) == (0, "nobody")


async def test_fact_47_nobody_at_all_is_an_error(caller: Caller, wecom: WeCom) -> None:
    wecom.member(WANG).visible = False
    assert (await caller.send(f"{WANG}|Nobody"))["errcode"] == 81013


async def test_fact_47_the_31st_of_a_minute_is_dropped_without_a_word(
    caller: Caller, wecom: WeCom
) -> None:
    codes = {(await caller.send(WANG))["errcode"] for _ in range(31)}
    assert (codes, len(wecom.heard(WANG)), wecom.member(WANG).dropped) == ({0}, 30, 1)
    await caller.send(LI)
    await wecom.clock.advance(60)
    await caller.send(WANG)
    assert (len(wecom.heard(LI)), len(wecom.heard(WANG))) == (1, 31)


@pytest.mark.parametrize(("seconds", "times"), [(1799, 1), (1800, 2)])
async def test_fact_48_a_repetition_within_the_interval_is_ok_and_shown_once(
    caller: Caller, wecom: WeCom, seconds: float, times: int
) -> None:
    await caller.send(WANG, enable_duplicate_check=1)
    await wecom.clock.advance(seconds)
    answer = await caller.send(WANG, enable_duplicate_check=1)
    assert (answer["errcode"], len(wecom.heard(WANG))) == (0, times)


async def test_fact_48_without_the_check_a_repetition_is_shown(
    caller: Caller, wecom: WeCom
) -> None:
    for _ in range(2):
        await caller.send(WANG)
    assert wecom.heard(WANG) == ["家乡好", "家乡好"]


async def test_a_text_is_cut_at_2048_bytes(caller: Caller, wecom: WeCom) -> None:
    await caller.send(WANG, part={"content": "家" * 700})
    assert wecom.heard(WANG) == ["家" * 682]


async def test_a_file_is_kept_for_three_days(caller: Caller, wecom: WeCom) -> None:
    media = {"media_id": (await caller.upload("media/upload", 100))["media_id"]}
    await caller.send(WANG, "file", media)
    await wecom.clock.advance(days=3)
    await caller.log_in()
    assert (await caller.send(WANG, "file", media))["errcode"] == 40007
    assert wecom.heard(WANG) == ["[file] a.xlsx"]


@pytest.mark.parametrize("size", [5, 20 * 1024 * 1024 + 1])
async def test_a_file_too_small_or_too_large_is_refused(caller: Caller, size: int) -> None:
    assert (await caller.upload("media/upload", size))["errcode"] == 40006


@pytest.mark.parametrize(
    "card",
    [
        BUTTONS | {"button_list": []},
        BUTTONS | {"button_list": BUTTONS["button_list"] * 4},
        BUTTONS | {"task_id": "家"},
        BUTTONS | {"task_id": ""},
        BUTTONS | {"card_type": "text_notice"},
        BUTTONS | {"card_type": "poster"},
    ],
)
async def test_a_card_that_breaks_the_format_is_refused(
    caller: Caller, card: dict[str, Any]
) -> None:
    assert (await caller.send(WANG, "template_card", card))["errcode"] == 40058


async def test_fact_49_a_response_code_serves_once(caller: Caller, wecom: WeCom) -> None:
    code = (await caller.send(WANG, "template_card", BUTTONS))["response_code"]
    body = {
        "userids": [WANG],
        "agentid": wecom.corporation.agent_id,
        "response_code": code,
        "button": {"replace_name": "已办"},
    }
    assert (await caller.post("message/update_template_card", body))["errcode"] == 0
    refused = await caller.post("message/update_template_card", body)
    assert refused["errcode"] == wecom.rules.card_refused
    assert wecom.transcript(WANG)[-1].text == "[button_interaction] 已办"


async def test_fact_49_a_response_code_lives_72_hours(caller: Caller, wecom: WeCom) -> None:
    code = (await caller.send(WANG, "template_card", BUTTONS))["response_code"]
    await wecom.clock.advance(hours=72)
    await caller.log_in()
    body = {"atall": 1, "agentid": wecom.corporation.agent_id, "response_code": code}
    body["button"] = {"replace_name": "已办"}
    refused = await caller.post("message/update_template_card", body)
    assert refused["errcode"] == wecom.rules.card_refused


# Callbacks ---------------------------------------------------------------------------------------


async def test_fact_33_three_tries_at_0_5_and_10_seconds_each_signed_anew(
    wecom: WeCom, product: Product
) -> None:
    wecom.connect(f"{product.url}/callback/wecom")
    product.answer = product.broken
    push = wecom.say(WANG, "登记")
    for number in (1, 2):
        await product.count(number)
        await wecom.clock.advance(5)
    await product.count(3)
    await wecom.clock.advance(5)
    await push.done()
    assert [attempt.at - push.tries[0].at for attempt in push.tries] == [0, 5, 10]
    assert [attempt.status for attempt in push.tries] == [500, 500, 500]
    signatures = {request.query["msg_signature"] for request, _ in product.received}
    assert len(signatures) == 3


async def test_a_message_opens_with_the_platforms_own_library(
    wecom: WeCom, product: Product
) -> None:
    wecom.connect(f"{product.url}/callback/wecom")
    await wecom.say(WANG, "登记").done()
    ours = wecom.corporation
    ((request, body),) = product.received
    library = WeChatCrypto(ours.token, ours.aes_key, ours.corp_id)
    signed = (request.query[name] for name in ("msg_signature", "timestamp", "nonce"))
    plain = library.decrypt_message(body, *signed)
    assert "<Content><![CDATA[登记]]></Content>" in plain
    assert f"<AgentID>{ours.agent_id}</AgentID>" in plain


async def test_a_tap_tells_the_key_and_a_code(
    caller: Caller, wecom: WeCom, product: Product
) -> None:
    wecom.connect(f"{product.url}/callback/wecom")
    sent = await caller.send(WANG, "template_card", BUTTONS)
    push = await wecom.tap(WANG, "yes").done()
    assert (push.fields["EventKey"], push.fields["TaskId"]) == ("yes", "t-1")
    assert push.fields["ResponseCode"] != sent["response_code"]
    with pytest.raises(ValueError, match="no such button"):
        wecom.tap(LI, "yes")


# Message pushes ----------------------------------------------------------------------------------


async def test_fact_50_the_21st_of_a_minute_is_refused(
    caller: Caller, wecom: WeCom, platforms: Platforms
) -> None:
    key = platforms.wecom_webhook.make_group("工作群")
    text = {"msgtype": "text", "text": {"content": "好"}}
    codes = [(await caller.post("webhook/send", text, key=key))["errcode"] for _ in range(21)]
    assert codes == [0] * 20 + [45009]
    await wecom.clock.advance(60)
    assert (await caller.post("webhook/send", text, key=key))["errcode"] == 0


@pytest.mark.parametrize(("kind", "limit"), [("text", 2048), ("markdown", 4096)])
async def test_fact_50_a_text_beyond_its_limit_is_refused(
    caller: Caller, platforms: Platforms, kind: str, limit: int
) -> None:
    key = platforms.wecom_webhook.make_group("工作群")
    codes = []
    for size in (limit, limit + 1):
        body = {"msgtype": kind, kind: {"content": "x" * size}}
        codes.append((await caller.post("webhook/send", body, key=key))["errcode"])
    assert codes == [0, 45002]


async def test_fact_50_a_file_belongs_to_its_group_and_has_at_most_20_megabytes(
    caller: Caller, platforms: Platforms
) -> None:
    one, two = (platforms.wecom_webhook.make_group(name) for name in ("一群", "二群"))
    media = (await caller.upload("webhook/upload_media", 100, key=one))["media_id"]
    file = {"msgtype": "file", "file": {"media_id": media}}
    assert (await caller.post("webhook/send", file, key=one))["errcode"] == 0
    assert (await caller.post("webhook/send", file, key=two))["errcode"] == 40007
    large = await caller.upload("webhook/upload_media", 20 * 1024 * 1024 + 1, key=one)
    assert large["errcode"] == 40006


async def test_a_key_of_nobody_is_refused(caller: Caller, platforms: Platforms) -> None:
    key = platforms.wecom_webhook.make_group("工作群")
    platforms.wecom_webhook.remove("工作群")
    text = {"msgtype": "text", "text": {"content": "好"}}
    codes = [(await caller.post("webhook/send", text, key=k))["errcode"] for k in (key, "", "x")]
    assert codes == [93000] * 3


async def test_other_processes_ask_for_what_members_do(client: Client, wecom: WeCom) -> None:
    await client.control("wecom", "hire", userid="ZhaoLao")
    key = await client.control("wecom_webhook", "make_group", name="工作群")
    assert await client.control("wecom_webhook", "heard", name="工作群") == []
    assert len(key) == 32
    assert wecom.member("zhaolao").userid == "ZhaoLao"
