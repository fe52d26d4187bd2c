"""The emulated customer contact and customer service keep the platform's rules."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulators.conftest import Client, Product
from tests.emulators.server import Platforms
from tests.emulators.test_wecom import Caller
from tests.emulators.wecom_kf import BOT, HUMAN, POOL

pytestmark = pytest.mark.anyio

CHAT, OWNER, WANG = "wrGroup", "zhangsan", "wmWang"
ROOT = "externalcontact"


@pytest.fixture
async def caller(client: Client, product: Product, platforms: Platforms) -> Caller:
    platforms.wecom.connect(f"{product.url}/callback/wecom")
    made = Caller(client)
    await made.log_in()
    return made


async def ask(caller: Caller, **more: Any) -> dict[str, Any]:
    """Make a task for the group's owner."""
    body: dict[str, Any] = {"chat_type": "group", "sender": OWNER, "chat_id_list": [CHAT]}
    return await caller.post(
        f"{ROOT}/add_msg_template", {**body, "text": {"content": "信"}, **more}
    )


async def results(caller: Caller, msgid: str) -> list[dict[str, Any]]:
    body = {"msgid": msgid, "userid": OWNER, "limit": 500}
    answer = await caller.post(f"{ROOT}/get_groupmsg_send_result", body)
    return list(answer["send_list"])


async def test_fact_53_only_what_was_sent_is_among_the_results(
    platforms: Platforms, caller: Caller
) -> None:
    contact = platforms.wecom_contact
    await contact.create(CHAT, "群", OWNER).done()
    msgid = (await ask(caller))["msgid"]
    assert (await results(caller, msgid), contact.heard(CHAT)) == ([], [])
    contact.tap(msgid)
    assert [row["status"] for row in await results(caller, msgid)] == [1]
    assert contact.heard(CHAT) == ["信"]


async def test_fact_53_a_task_needs_its_sender_and_a_group_of_theirs(
    platforms: Platforms, caller: Caller
) -> None:
    await platforms.wecom_contact.create(CHAT, "群", OWNER).done()
    assert (await ask(caller, sender=""))["errcode"] == 40058
    assert (await ask(caller, sender="lisi"))["fail_list"] == [CHAT]


async def test_fact_53_a_sent_task_cannot_be_cancelled_nor_a_cancelled_one_tapped(
    platforms: Platforms, caller: Caller
) -> None:
    contact = platforms.wecom_contact
    await contact.create(CHAT, "群", OWNER).done()
    first, second = [(await ask(caller))["msgid"] for _ in range(2)]
    contact.tap(first)
    refused = await caller.post(f"{ROOT}/cancel_groupmsg_send", {"msgid": first})
    assert refused["errcode"] == contact.rules.already_sent
    done = await caller.post(f"{ROOT}/cancel_groupmsg_send", {"msgid": second})
    assert done["errcode"] == 0
    with pytest.raises(ValueError, match="cancelled"):
        contact.tap(second)


async def test_a_task_is_reminded_of_three_times_a_day(
    platforms: Platforms, caller: Caller
) -> None:
    await platforms.wecom_contact.create(CHAT, "群", OWNER).done()
    msgid = (await ask(caller))["msgid"]
    codes = [
        (await caller.post(f"{ROOT}/remind_groupmsg_send", {"msgid": msgid}))["errcode"]
        for _ in range(4)
    ]
    assert codes == [0, 0, 0, platforms.wecom_contact.rules.too_many_reminders]


async def test_fact_54_a_group_hears_as_much_a_month_as_it_has_days(
    platforms: Platforms, caller: Caller
) -> None:
    contact = platforms.wecom_contact
    await contact.create(CHAT, "群", OWNER).done()
    for _ in range(31):
        msgid = (await ask(caller))["msgid"]
        contact.tap(msgid)
    assert [row["status"] for row in await results(caller, msgid)] == [3]
    assert len(contact.heard(CHAT)) == 30


async def test_fact_55_a_roster_lags_two_seconds_behind_its_event(
    platforms: Platforms, caller: Caller
) -> None:
    contact = platforms.wecom_contact
    await contact.create(CHAT, "群", OWNER).done()
    await platforms.clock.advance(5)
    push = await contact.join(CHAT, WANG, "王小雁", "u1").done()
    body = {"chat_id": CHAT, "need_name": 1}
    before = (await caller.post(f"{ROOT}/groupchat/get", body))["group_chat"]
    await platforms.clock.advance(2)
    after = (await caller.post(f"{ROOT}/groupchat/get", body))["group_chat"]
    assert before["member_version"] == push.fields["LastMemVer"]
    assert after["member_version"] == push.fields["CurMemVer"]
    assert [seat.get("unionid") for seat in after["member_list"]] == [None, "u1"]


async def test_fact_56_a_welcome_code_serves_once_and_for_20_seconds(
    platforms: Platforms, caller: Caller
) -> None:
    contact = platforms.wecom_contact
    body: dict[str, Any] = {"text": {"content": "您好"}}

    async def greet(code: str) -> int:
        answer = await caller.post(f"{ROOT}/send_welcome_msg", {**body, "welcome_code": code})
        return int(answer["errcode"])

    first = (await contact.befriend(OWNER, WANG).done()).fields["WelcomeCode"]
    assert [await greet(first), await greet(first)] == [0, contact.rules.code_expired]
    late = (await contact.befriend(OWNER, WANG).done()).fields["WelcomeCode"]
    await platforms.clock.advance(21)
    assert await greet(late) == contact.rules.code_expired


async def test_fact_57_the_hundred_and_first_template_is_refused(
    platforms: Platforms, caller: Caller
) -> None:
    platforms.wecom_contact.fill_templates(str(number) for number in range(99))
    body = {"text": {"content": "%NICKNAME%，欢迎"}}
    codes = [
        (await caller.post(f"{ROOT}/group_welcome_template/add", body))["errcode"] for _ in range(2)
    ]
    assert codes == [0, platforms.wecom_contact.rules.too_many_templates]


# Customer service --------------------------------------------------------------------------------


async def send(caller: Caller, msgid: str, text: str = "好") -> int:
    body = {"touser": WANG, "open_kfid": "wkHotline0001", "msgid": msgid, "msgtype": "text"}
    return int((await caller.post("kf/send_msg", {**body, "text": {"content": text}}))["errcode"])


async def test_fact_59_the_callback_has_a_token_and_no_content(
    platforms: Platforms, caller: Caller
) -> None:
    push = await platforms.wecom_kf.say(WANG, "你好").done()
    assert set(push.fields) >= {"Token", "OpenKfId"}
    body = {"cursor": "", "open_kfid": "wkHotline0001", "token": push.fields["Token"]}
    answer = await caller.post("kf/sync_msg", body)
    assert [m["text"]["content"] for m in answer["msg_list"]] == ["你好"]
    await platforms.clock.advance(601)
    refused = await caller.post("kf/sync_msg", body)
    assert refused["errcode"] == platforms.wecom_kf.rules.old_token


async def test_fact_60_the_sixth_message_is_accepted_and_fails_afterwards(
    platforms: Platforms, caller: Caller
) -> None:
    kf = platforms.wecom_kf
    await kf.say(WANG, "你好").done()
    assert [await send(caller, f"m{number}") for number in range(6)] == [0] * 6
    assert len(kf.heard(WANG)) == 5
    await platforms.clock.advance(2)
    answer = await caller.post("kf/sync_msg", {"cursor": "", "open_kfid": "wkHotline0001"})
    event = answer["msg_list"][-1]["event"]
    assert (event["event_type"], event["fail_msgid"], event["fail_type"]) == (
        "msg_send_fail",
        "m5",
        6,
    )


async def test_fact_61_a_msgid_serves_once(platforms: Platforms, caller: Caller) -> None:
    kf = platforms.wecom_kf
    await kf.say(WANG, "你好").done()
    assert [await send(caller, "m"), await send(caller, "m")] == [0, kf.rules.msgid_reused]


async def test_fact_62_a_person_leading_shuts_out_the_api(
    platforms: Platforms, caller: Caller
) -> None:
    kf = platforms.wecom_kf
    await kf.say(WANG, "你好").done()
    body = {"open_kfid": "wkHotline0001", "external_userid": WANG}
    moves = [
        (await caller.post("kf/service_state/trans", {**body, "service_state": state}))["errcode"]
        for state in (POOL, BOT, HUMAN)
    ]
    assert moves == [0, kf.rules.wrong_move, kf.rules.not_a_servicer]
    assert await send(caller, "m") == kf.rules.wrong_state
