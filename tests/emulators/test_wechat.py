"""The emulated Official Account keeps the platform's rules."""

from __future__ import annotations

from datetime import UTC, datetime

import aiohttp
import pytest
import xmltodict
from aiohttp import web
from wechatpy.crypto import WeChatCrypto

from bot.channels.envelope import Envelope, text_answer, word
from tests.emulators.clock import VirtualClock
from tests.emulators.conftest import Client, Product
from tests.emulators.server import START, Platforms
from tests.emulators.wechat import UNAVAILABLE, Rules, WeChat

pytestmark = pytest.mark.anyio

WANG = "oWangXiaoyan"
LI = "oLiYuangui"


def envelope(platforms: Platforms) -> Envelope:
    account = platforms.wechat.account
    return Envelope(account.token, account.aes_key, account.app_id)


async def test_a_signed_and_sealed_text_arrives_and_its_answer_is_shown(
    platforms: Platforms, product: Product
) -> None:
    async def echo(request: web.Request, body: bytes) -> web.StreamResponse:
        fields = envelope(platforms).open(request.query, body, platforms.clock.now())
        stamp = int(platforms.clock.timestamp())
        answer = text_answer(fields, f"您说：{fields['Content']}", stamp)
        return web.Response(text=envelope(platforms).seal(answer, stamp, "n1").as_xml())

    product.answer = echo
    wechat = platforms.wechat
    wechat.follow(WANG)
    push = await wechat.say(WANG, "登记]]>").done()
    assert push.text == "您说：登记]]>"
    assert wechat.heard(WANG)[-1] == "您说：登记]]>"
    assert len(push.tries) == 1


async def test_wechatpy_opens_what_the_platform_sends(
    platforms: Platforms, product: Product
) -> None:
    platforms.wechat.follow(WANG)
    push = await platforms.wechat.say(WANG, "登记").done()
    request, body = product.received[-1]
    account, query = platforms.wechat.account, request.query
    opened = WeChatCrypto(account.token, account.aes_key, account.app_id).decrypt_message(
        body, query["msg_signature"], query["timestamp"], query["nonce"]
    )
    assert xmltodict.parse(opened)["xml"] == push.fields


async def test_fact_5_a_slow_answer_brings_three_tries_with_one_id_and_new_signatures(
    platforms: Platforms, product: Product
) -> None:
    await platforms.wechat.follow(WANG).done()
    product.answer = product.never
    before = len(product.received)
    push = platforms.wechat.say(WANG, "登记")
    began = platforms.clock.timestamp()
    for number in (1, 2, 3):
        await product.count(before + number)
        await platforms.clock.advance(5)
    await push.done()
    assert [attempt.at - began for attempt in push.tries] == [0, 5, 10]
    tries = [
        (envelope(platforms).open(request.query, body, platforms.clock.now())["MsgId"])
        for request, body in product.received[before:]
    ]
    assert tries == [push.fields["MsgId"]] * 3
    assert len({r.query["msg_signature"] for r, _ in product.received[before:]}) == 3
    assert push.unavailable
    assert platforms.wechat.heard(WANG)[-1] == UNAVAILABLE


async def test_fact_7_an_error_is_tried_again_and_success_ends_the_tries(
    platforms: Platforms, product: Product
) -> None:
    product.answer = product.broken
    push = platforms.wechat.follow(WANG)
    await product.count(1)
    product.answer = product.success
    while not push.tries[0].status:
        await product_settles(platforms)
    await platforms.clock.advance(5)
    await push.done()
    assert [attempt.status for attempt in push.tries] == [500, 200]
    assert not push.unavailable


async def product_settles(platforms: Platforms) -> None:
    await platforms.clock.advance(0)


@pytest.mark.parametrize(
    "body", ['{"errcode":0}', "ok", "<xml><MsgType>text</MsgType></xml>", "<xml>", " "]
)
async def test_fact_8_an_answer_that_is_not_sealed_xml_shows_the_apology(
    platforms: Platforms, product: Product, body: str
) -> None:
    async def wrong(request: web.Request, _: bytes) -> web.StreamResponse:
        return web.Response(text=body)

    product.answer = wrong
    push = await platforms.wechat.follow(WANG).done()
    assert push.unavailable
    assert platforms.wechat.heard(WANG) == [UNAVAILABLE]


async def test_an_answer_with_another_signature_or_for_another_member_shows_the_apology(
    platforms: Platforms, product: Product
) -> None:
    async def wrong(request: web.Request, body: bytes) -> web.StreamResponse:
        stamp = int(platforms.clock.timestamp())
        other = text_answer({"FromUserName": LI, "ToUserName": "gh_hongyan"}, "好", stamp)
        return web.Response(text=envelope(platforms).seal(other, stamp, "n1").as_xml())

    product.answer = wrong
    push = await platforms.wechat.follow(WANG).done()
    assert push.unavailable
    assert "ToUserName" in push.tries[-1].error


@pytest.mark.parametrize(("mode", "sealed"), [("plain", False), ("compatible", True)])
async def test_fact_2_the_other_modes_leave_the_body_readable(
    platforms: Platforms, product: Product, mode: str, sealed: bool
) -> None:
    platforms.wechat.mode = mode
    await platforms.wechat.follow(WANG).done()
    body = xmltodict.parse(product.received[0][1])["xml"]
    assert body["Event"] == "subscribe"
    assert ("Encrypt" in body) is sealed


async def test_fact_9_a_parameter_code_has_its_prefix_only_for_who_did_not_follow(
    platforms: Platforms, product: Product
) -> None:
    first = await platforms.wechat.scan(WANG, "group_1").done()
    second = await platforms.wechat.scan(WANG, "group_1").done()
    assert (first.fields["Event"], first.fields["EventKey"]) == ("subscribe", "qrscene_group_1")
    assert (second.fields["Event"], second.fields["EventKey"]) == ("SCAN", "group_1")


async def test_repeated_and_held_callbacks_arrive_twice_and_late(
    platforms: Platforms, product: Product
) -> None:
    wechat = platforms.wechat
    wechat.hold_next()
    wechat.follow(WANG)
    wechat.repeat_next()
    await wechat.say(WANG, "一").done()
    await product.count(3)
    opened = [
        envelope(platforms).open(request.query, body, platforms.clock.now())
        for request, body in product.received
    ]
    assert sorted(word(fields, "Event") or "text" for fields in opened) == [
        "subscribe",
        "text",
        "text",
    ]
    assert opened[0]["MsgType"] == "text"


async def test_fact_1_the_console_accepts_only_the_bare_echo(
    platforms: Platforms, product: Product
) -> None:
    async def verify(request: web.Request, body: bytes) -> web.StreamResponse:
        echo = envelope(platforms).verify(request.query, platforms.clock.now())
        return web.Response(text=echo)

    product.answer = verify
    assert await platforms.wechat.verify_url() is True
    product.answer = product.success
    assert await platforms.wechat.verify_url() is False


async def test_fact_10_a_follower_can_be_sent_three_messages_in_a_minute(
    platforms: Platforms, client: Client
) -> None:
    platforms.wechat.follow(WANG)
    codes = [await client.send_text(WANG, "欢迎") for _ in range(4)]
    await platforms.clock.advance(60)
    codes.append(await client.send_text(WANG, "欢迎"))
    assert codes == [0, 0, 0, 45047, 45015]


async def test_fact_11_a_message_opens_five_for_two_days_and_a_new_one_starts_over(
    platforms: Platforms, client: Client
) -> None:
    platforms.wechat.follow(WANG)
    await platforms.clock.advance(minutes=2)
    platforms.wechat.say(WANG, "在")
    codes = [await client.send_text(WANG, "信") for _ in range(6)]
    platforms.wechat.say(WANG, "还在")
    codes += [await client.send_text(WANG, "信") for _ in range(6)]
    await platforms.clock.advance(hours=48)
    codes.append(await client.send_text(WANG, "信"))
    assert codes == [0] * 5 + [45047] + [0] * 5 + [45047, 45015]


async def test_fact_12_a_click_opens_three_for_a_minute_and_a_view_nothing(
    platforms: Platforms, client: Client
) -> None:
    platforms.wechat.follow(WANG)
    await platforms.clock.advance(61)
    platforms.wechat.view(WANG, "http://127.0.0.1/")
    codes = [await client.send_text(WANG, "信")]
    platforms.wechat.click(WANG, "letter")
    codes += [await client.send_text(WANG, "信") for _ in range(4)]
    assert codes == [45015, 0, 0, 0, 45047]


async def test_allowances_do_not_add_up(platforms: Platforms, client: Client) -> None:
    platforms.wechat.follow(WANG)
    platforms.wechat.say(WANG, "在")
    platforms.wechat.click(WANG, "letter")
    codes = [await client.send_text(WANG, "信") for _ in range(6)]
    assert codes == [0, 0, 0, 0, 0, 45047]


async def test_fact_13_who_left_switched_off_or_never_was_there_cannot_be_written_to(
    platforms: Platforms, client: Client
) -> None:
    wechat = platforms.wechat
    for openid in (WANG, LI):
        wechat.follow(openid)
        wechat.say(openid, "在")
    wechat.unfollow(WANG)
    wechat.accept_messages(LI, False)
    codes = [await client.send_text(openid, "信") for openid in (WANG, LI, "oNobody")]
    assert codes == [45015, 48002, 40003]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"msgtype": "text", "text": {"content": "雁" * 682 + "ab"}}, 0),
        ({"msgtype": "text", "text": {"content": "雁" * 682 + "abc"}}, 45002),
        ({"msgtype": "text", "text": {"content": ""}}, 44004),
        ({"msgtype": "news", "news": {"articles": [{"title": "信"}] * 2}}, 45008),
        ({"msgtype": "file", "file": {"media_id": "m"}}, 40008),
        ({"msgtype": "image", "image": {"media_id": "nothing"}}, 40007),
        ({"msgtype": "text"}, 47001),
    ],
)
async def test_content_that_is_not_allowed_has_its_own_code(
    platforms: Platforms, client: Client, message: dict[str, object], code: int
) -> None:
    platforms.wechat.follow(WANG)
    token = (await client.stable_token())["access_token"]
    answer = await client.mp("message/custom/send", {"touser": WANG, **message}, token)
    assert answer["errcode"] == code


async def test_fact_20_the_stable_token_is_renewed_in_its_last_five_minutes_with_overlap(
    platforms: Platforms, client: Client
) -> None:
    first = await client.stable_token()
    again = await client.stable_token()
    assert (again["access_token"], first["expires_in"]) == (first["access_token"], 7200)
    await platforms.clock.advance(6900)
    assert await client.stable_token() == {"access_token": first["access_token"], "expires_in": 300}
    await platforms.clock.advance(1)
    second = await client.stable_token()
    assert second["access_token"] != first["access_token"]
    platforms.wechat.follow(WANG)
    both = [await client.send_text(WANG, "信", t["access_token"]) for t in (first, second)]
    await platforms.clock.advance(299)
    platforms.wechat.click(WANG, "letter")
    later = [await client.send_text(WANG, "信", t["access_token"]) for t in (first, second)]
    assert (both, later) == ([0, 0], [42001, 0])


async def test_fact_20_forcing_a_token_kills_the_old_one_and_is_rationed(
    platforms: Platforms, client: Client
) -> None:
    first = await client.stable_token(force=True)
    too_soon = await client.stable_token(force=True)
    await platforms.clock.advance(30)
    await client.stable_token(force=True)
    platforms.wechat.follow(WANG)
    dead = await client.send_text(WANG, "信", first["access_token"])
    for _ in range(18):
        await platforms.clock.advance(30)
        assert "access_token" in await client.stable_token(force=True)
    await platforms.clock.advance(30)
    too_many = await client.stable_token(force=True)
    assert (too_soon["errcode"], dead, too_many["errcode"]) == (45011, 40001, 45009)


async def test_fact_21_the_classic_token_is_new_each_time_and_2000_a_day(
    platforms: Platforms, client: Client
) -> None:
    account = platforms.wechat.account

    async def fetch() -> dict[str, object]:
        return await client.mp_get("token", appid=account.app_id, secret=account.secret)

    first, second = await fetch(), await fetch()
    assert first["access_token"] != second["access_token"]
    platforms.wechat.follow(WANG)
    assert await client.send_text(WANG, "信", str(first["access_token"])) == 0
    await platforms.clock.advance(300)
    platforms.wechat.click(WANG, "letter")
    assert await client.send_text(WANG, "信", str(first["access_token"])) == 42001
    today = ("cgi-bin/token", "2026-09-22")
    platforms.wechat.by_day[today] = 2000
    assert (await fetch())["errcode"] == 45009
    await platforms.clock.advance(hours=15)
    assert "access_token" in await fetch()


async def test_wrong_credentials_and_addresses_are_told_apart(
    platforms: Platforms, client: Client
) -> None:
    account = platforms.wechat.account
    wrong = [
        await client.mp_get("token", appid="wx0", secret=account.secret),
        await client.mp_get("token", appid=account.app_id, secret="x"),
    ]
    platforms.wechat.allow_ip(False)
    wrong.append(await client.stable_token())
    platforms.wechat.allow_ip(True)
    token = (await client.stable_token())["access_token"]
    platforms.wechat.lapse()
    wrong.append(await client.mp_get("user/info", access_token=token, openid=WANG))
    platforms.wechat.kill_tokens()
    wrong.append(await client.mp_get("user/info", access_token=token, openid=WANG))
    assert [answer["errcode"] for answer in wrong] == [40013, 40125, 40164, 48001, 40001]


async def test_user_info_tells_follower_and_union(platforms: Platforms, client: Client) -> None:
    platforms.wechat.follow(WANG, unionid="uWang")
    platforms.wechat.follow(LI)
    platforms.wechat.unfollow(LI)
    token = (await client.stable_token())["access_token"]
    wang = await client.mp_get("user/info", access_token=token, openid=WANG)
    li = await client.mp_get("user/info", access_token=token, openid=LI)
    assert (wang["subscribe"], wang["unionid"]) == (1, "uWang")
    assert li == {"subscribe": 0, "openid": LI}


async def test_an_answer_that_is_cut_after_commit_has_reached_the_member(
    platforms: Platforms, client: Client
) -> None:
    wechat, endpoint = platforms.wechat, "cgi-bin/message/custom/send"
    wechat.follow(WANG)
    token = (await client.stable_token())["access_token"]
    wechat.fail(endpoint, "cut", "before")
    wechat.fail(endpoint, "cut", "after")
    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            await client.send_text(WANG, "信", token)
    assert wechat.heard(WANG) == ["信"]


async def test_faults_are_counted_and_then_over(platforms: Platforms, client: Client) -> None:
    wechat, endpoint = platforms.wechat, "cgi-bin/message/custom/send"
    wechat.follow(WANG)
    token = (await client.stable_token())["access_token"]
    wechat.fail(endpoint, "errcode", value=-1, times=2)
    codes = [await client.send_text(WANG, "信", token) for _ in range(3)]
    wechat.fail(endpoint, "html")
    with pytest.raises(ValueError, match="Expecting value"):
        await client.send_text(WANG, "信", token)
    wechat.fail(endpoint, "status", value=502)
    with pytest.raises(ValueError, match="Expecting value"):
        await client.send_text(WANG, "信", token)
    assert codes == [-1, -1, 0]
    assert wechat.counters()[endpoint] == 5


async def test_fact_24_a_daily_quota_is_back_at_midnight_in_beijing(
    platforms: Platforms, client: Client
) -> None:
    wechat = platforms.wechat
    wechat.follow(WANG)
    wechat.say(WANG, "在")
    wechat.by_day["cgi-bin/message/custom/send", "2026-09-22"] = 500_000
    before = await client.send_text(WANG, "信")
    midnight = datetime(2026, 9, 22, 16, 0, tzinfo=UTC)
    await platforms.clock.advance((midnight - platforms.clock.now()).total_seconds())
    assert (before, await client.send_text(WANG, "信")) == (45009, 0)


async def test_fact_15_a_notice_needs_a_grant_and_uses_it_up(
    platforms: Platforms, client: Client
) -> None:
    platforms.wechat.follow(WANG)
    token = (await client.stable_token())["access_token"]
    body = {"touser": WANG, "template_id": "letter", "data": {"thing1": {"value": "一封信"}}}
    codes = [(await client.mp("message/subscribe/bizsend", body, token))["errcode"]]
    platforms.wechat.grant(WANG, ["letter"])
    codes += [
        (await client.mp("message/subscribe/bizsend", body, token))["errcode"] for _ in range(2)
    ]
    assert codes == [43101, 0, 43101]


async def test_fact_14_a_template_result_comes_later_and_names_a_block(
    platforms: Platforms, product: Product, client: Client
) -> None:
    wechat = platforms.wechat
    wechat.templates.add("rsvp")
    await wechat.follow(WANG).done()
    wechat.block(WANG)
    token = (await client.stable_token())["access_token"]
    body = {"touser": WANG, "template_id": "rsvp", "data": {"k": {"value": "已报名"}}}
    answer = await client.mp("message/template/send", body, token)
    await platforms.clock.advance(1)
    await product.count(2)
    request, sealed = product.received[-1]
    fields = envelope(platforms).open(request.query, sealed, platforms.clock.now())
    assert (fields["MsgID"], fields["Status"]) == (str(answer["msgid"]), "failed:user block")
    wechat.unfollow(WANG)
    assert (await client.mp("message/template/send", body, token))["errcode"] == 43004


async def test_facts_17_and_18_a_mass_send_wants_two_and_gives_each_four_a_month(
    platforms: Platforms, client: Client
) -> None:
    wechat = platforms.wechat
    for openid in (WANG, LI):
        wechat.follow(openid)
    token = (await client.stable_token())["access_token"]

    async def send(people: list[str], key: str) -> int:
        text = {"msgtype": "text", "text": {"content": "中秋"}, "clientmsgid": key}
        return int(
            (await client.mp("message/mass/send", {"touser": people, **text}, token))["errcode"]
        )

    assert await send([WANG], "a") == 40130
    codes = [await send([WANG, LI], f"m{number}") for number in range(5)]
    await platforms.clock.advance(0)
    assert (codes, await send([WANG, LI], "m0")) == ([0] * 5, 45065)
    assert wechat.heard(WANG) == ["中秋"] * 4


async def test_fact_19_a_protected_mass_send_waits_for_a_tap_and_fails_after_half_an_hour(
    product: Product,
) -> None:
    clock = VirtualClock(START)
    rules = Rules(mass_protected=True)
    wechat = WeChat(clock, callback_url=f"{product.url}/callback/wechat", rules=rules)
    async with Platforms(clock, wechat=wechat) as platforms, aiohttp.ClientSession() as session:
        client = Client(session, platforms)
        await wechat.follow(WANG).done()
        token = (await client.stable_token())["access_token"]

        async def send_all(text: str) -> int:
            body = {"filter": {"is_to_all": True}, "msgtype": "text", "text": {"content": text}}
            return int((await client.mp("message/mass/sendall", body, token))["msg_id"])

        late, tapped = await send_all("端午"), await send_all("中秋")
        wechat.approve_mass(tapped)
        await clock.advance(minutes=31)
        await product.count(3)
        states = [
            (await client.mp("message/mass/get", {"msg_id": job}, token))["msg_status"]
            for job in (late, tapped)
        ]
    assert states == ["SEND_FAIL", "SEND_SUCCESS"]
    assert wechat.heard(WANG) == ["中秋"]


async def test_fact_30_a_temporary_code_expires_and_a_long_scene_is_refused(
    platforms: Platforms, client: Client
) -> None:
    token = (await client.stable_token())["access_token"]

    async def create(scene: str) -> dict[str, object]:
        info = {"scene": {"scene_str": scene}}
        body = {"action_name": "QR_STR_SCENE", "action_info": info, "expire_seconds": 600}
        return await client.mp("qrcode/create", body, token)

    ticket = str((await create("群" * 64))["ticket"])
    assert platforms.wechat.scan_ticket(WANG, ticket).fields["EventKey"] == "qrscene_" + "群" * 64
    await platforms.clock.advance(600)
    with pytest.raises(ValueError, match="过期"):
        platforms.wechat.scan_ticket(WANG, ticket)
    assert (await create("群" * 65))["errcode"] == 47001


async def test_a_preview_reaches_one_member_and_no_quota(
    platforms: Platforms, client: Client
) -> None:
    platforms.wechat.follow(WANG)
    token = (await client.stable_token())["access_token"]
    body = {"touser": WANG, "msgtype": "text", "text": {"content": "样稿"}}
    assert (await client.mp("message/mass/preview", body, token))["errcode"] == 0
    assert platforms.wechat.heard(WANG) == ["样稿"]
    assert not platforms.wechat.members[WANG].mass_received


async def test_fact_16_one_answer_is_an_element_and_several_are_a_list(
    platforms: Platforms, product: Product
) -> None:
    wechat = platforms.wechat
    await wechat.follow(WANG).done()
    for templates in (["a"], ["a", "b"]):
        await wechat.grant(WANG, templates).done()
    shapes = []
    for request, body in product.received[1:]:
        fields = envelope(platforms).open(request.query, body, platforms.clock.now())
        box = fields["SubscribeMsgPopupEvent"]
        assert isinstance(box, dict)
        shapes.append(type(box["List"]))
    assert shapes == [dict, list]


async def test_fact_17_the_bounds_of_a_mass_send(platforms: Platforms, client: Client) -> None:
    wechat = platforms.wechat
    wechat.follow(WANG)
    token = (await client.stable_token())["access_token"]

    async def send(count: int) -> int:
        people = [WANG, *(f"o{number}" for number in range(count - 1))]
        body = {"touser": people, "msgtype": "text", "text": {"content": "中秋"}}
        return int((await client.mp("message/mass/send", body, token))["errcode"])

    assert [await send(count) for count in (1, 2, 10_000, 10_001)] == [40130, 0, 0, 40130]
    codes = [await send(2) for _ in range(57)]
    await platforms.clock.advance(60)
    assert ([*codes, await send(2)], wechat.members[WANG].mass_received["2026-09"]) == (
        [0] * 56 + [45011, 0],
        4,
    )


async def test_fact_25_media_are_dead_after_three_days(
    platforms: Platforms, client: Client
) -> None:
    platforms.wechat.follow(WANG)
    token = (await client.stable_token())["access_token"]
    form = aiohttp.FormData()
    form.add_field("media", b"x", filename="x.png", content_type="image/png")
    address = f"{platforms.url}/mp/cgi-bin/media/upload"
    query = {"access_token": token, "type": "image"}
    async with client.session.post(address, params=query, data=form) as response:
        media = (await response.json())["media_id"]
    codes = []
    for hours in (0, 71, 1):
        await platforms.clock.advance(hours=hours)
        platforms.wechat.say(WANG, "在")
        token = (await client.stable_token())["access_token"]
        body = {"touser": WANG, "msgtype": "image", "image": {"media_id": media}}
        codes.append((await client.mp("message/custom/send", body, token))["errcode"])
    assert codes == [0, 0, 40007]


async def test_a_lasting_agreement_is_not_used_up(platforms: Platforms, client: Client) -> None:
    wechat = platforms.wechat
    wechat.follow(WANG)
    wechat.grant(WANG, ["letter"], lasting=True)
    token = (await client.stable_token())["access_token"]
    body = {"touser": WANG, "template_id": "letter", "data": {"thing1": {"value": "一封信"}}}

    async def send() -> int:
        return int((await client.mp("message/subscribe/bizsend", body, token))["errcode"])

    codes = [await send() for _ in range(3)]
    wechat.take_back(WANG, ["letter"])
    assert [*codes, await send()] == [0, 0, 0, 43101]
