"""The sealed envelope: what it opens, and all that it refuses without falling over."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
import xmltodict
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from wechatpy.crypto import WeChatCrypto
from wechatpy.enterprise.crypto import WeChatCrypto as EnterpriseCrypto

from bot.channels.envelope import BadCallback, Envelope, Fields, cdata, parse, text_answer, word
from tests.thrift import no_more_than

TOKEN = "QDG6eK"
AES_KEY = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
APP_ID = "wx5823bf96d3bd56c7"
NOW = datetime(2026, 9, 25, 9, 0, tzinfo=UTC)
STAMP = int(NOW.timestamp())

# The platform's published sample of 2014.
SAMPLE_ECHO = (
    "P9nAzCzyDtyTWESHep1vC5X9xho/qYX3Zpb4yKa9SKld1DsH3Iyt3tP3zNdtp+4RPcs8TgAE7OaBO+FZXvnaqQ=="
)
SAMPLE_ENCRYPT = (
    "RypEvHKD8QQKFhvQ6QleEB4J58tiPdvo+rtK1I9qca6aM/wvqnLSV5zEPeusUiX5L5X/0lWfrf0QADHHhGd3QczcdCUpj"
    "911L3vg3W/sYYvuJTs3TUUkSUXxaccAS0qhxchrRYt66wiSpGLYL42aM6A8dTT+6k4aSknmPj48kzJs8qLjvd4Xgpue06"
    "DOdnLxAUHzM6+kDZ+HMZfJYuR+LtwGc2hgf5gsijff0ekUNXZiqATP7PF5mZxZ3Izoun1s4zG4LUMnvw2r+KqCKIw+3IQ"
    "H03v+BCA9nMELNqbSf6tiWSrXJB3LAVGUcallcrw8V2t9EL4EhzJWrQUax5wLVMNS0+rUPA3k22Ncx4XXZS9o0MBH27Bo"
    "6BpNelZpS+/uh9KsNlY6bHCmJU9p8g7m3fVKn28H3KDYA5Pl/T8Z1ptDAVe0lXdQ2YoyyH2uyPIGHBZZIs2pDBS8R07+q"
    "N+E7Q=="
)

TEXT = (
    "<xml><ToUserName><![CDATA[gh_hongyan]]></ToUserName>"
    "<FromUserName><![CDATA[oWangXiaoyan]]></FromUserName>"
    "<CreateTime>1790326800</CreateTime><MsgType><![CDATA[text]]></MsgType>"
    "<Content><![CDATA[登记]]></Content><MsgId>4561255354251345929</MsgId></xml>"
)

Query = Mapping[str, str]


@pytest.fixture
def envelope() -> Envelope:
    return Envelope(TOKEN, AES_KEY, APP_ID)


def sealed(text: str, *, receive_id: str = APP_ID, stamp: int = STAMP) -> tuple[Query, bytes]:
    """A callback with `text` inside, as the platform would send it."""
    letter = Envelope(TOKEN, AES_KEY, receive_id).seal(text, stamp, "n1")
    query = {"timestamp": str(stamp), "nonce": "n1", "msg_signature": letter.signature}
    return query, letter.as_xml().encode()


def sealed_raw(plain: bytes) -> tuple[Query, bytes]:
    """A correctly signed callback around any plaintext of whole blocks, padding and all."""
    key = base64.b64decode(AES_KEY + "=")
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    return signed(base64.b64encode(encryptor.update(plain) + encryptor.finalize()).decode())


def signed(encrypt: str) -> tuple[Query, bytes]:
    signature = Envelope(TOKEN, AES_KEY, APP_ID).sign(str(STAMP), "n1", encrypt)
    query = {"timestamp": str(STAMP), "nonce": "n1", "msg_signature": signature}
    return query, f"<xml><Encrypt><![CDATA[{encrypt}]]></Encrypt></xml>".encode()


def refusal(envelope: Envelope, query: Query, body: bytes, now: datetime = NOW) -> tuple[int, str]:
    with pytest.raises(BadCallback) as caught:
        envelope.open(query, body, now)
    return caught.value.status, caught.value.reason


def test_the_published_sample_of_an_address_check_opens(envelope: Envelope) -> None:
    query = {
        "msg_signature": "5c45ff5e21c57e6ad56bac8758b79b1d9ac89fd3",
        "timestamp": "1409659589",
        "nonce": "263014780",
        "echostr": SAMPLE_ECHO,
    }
    now = datetime.fromtimestamp(1409659590, UTC)
    assert envelope.verify_sealed(query, now) == "1616140317555161061"


def test_the_published_sample_of_a_message_opens(envelope: Envelope) -> None:
    query = {
        "msg_signature": "477715d11cdb4164915debcba66cb864d751f3e6",
        "timestamp": "1409659813",
        "nonce": "1372623149",
    }
    body = (
        f"<xml><ToUserName><![CDATA[{APP_ID}]]></ToUserName>"
        f"<Encrypt><![CDATA[{SAMPLE_ENCRYPT}]]></Encrypt>"
        "<AgentID><![CDATA[218]]></AgentID></xml>"
    ).encode()
    assert envelope.open(query, body, datetime.fromtimestamp(1409659813, UTC)) == {
        "ToUserName": APP_ID,
        "FromUserName": "mycreate",
        "CreateTime": "1409659813",
        "MsgType": "text",
        "Content": "hello",
        "MsgId": "4561255354251345929",
        "AgentID": "218",
    }


def test_an_address_check_answers_the_echostr_only_to_the_right_signature(
    envelope: Envelope,
) -> None:
    query = {"timestamp": str(STAMP), "nonce": "n1", "echostr": "8261"}
    good = {**query, "signature": envelope.sign(str(STAMP), "n1")}
    assert envelope.verify(good, NOW) == "8261"
    with pytest.raises(BadCallback, match="403 wrong signature"):
        envelope.verify({**query, "signature": "0" * 40}, NOW)


@given(st.text())
def test_what_wechatpy_seals_we_open(text: str) -> None:
    stamp = str(STAMP)
    body = WeChatCrypto(TOKEN, AES_KEY, APP_ID).encrypt_message(text, "n1", stamp)
    outer = xmltodict.parse(body)["xml"]
    query = {"timestamp": stamp, "nonce": "n1", "msg_signature": outer["MsgSignature"]}
    assert Envelope(TOKEN, AES_KEY, APP_ID).open_text(outer["Encrypt"], query, NOW) == text


@given(st.text())
def test_what_we_seal_wechatpy_opens(text: str) -> None:
    letter = Envelope(TOKEN, AES_KEY, APP_ID).seal(text, STAMP, "n1")
    opened = WeChatCrypto(TOKEN, AES_KEY, APP_ID).decrypt_message(
        letter.as_xml(), letter.signature, str(STAMP), "n1"
    )
    assert opened == text


def test_a_robots_empty_receiver_is_kept_apart_from_any_other() -> None:
    robot = Envelope(TOKEN, AES_KEY, "")
    letter = robot.seal('{"msgtype":"text"}', STAMP, "n1")
    query = {"timestamp": str(STAMP), "nonce": "n1", "msg_signature": letter.signature}
    assert robot.open_text(letter.encrypt, query, NOW) == '{"msgtype":"text"}'
    with pytest.raises(BadCallback, match="403 meant for another account"):
        Envelope(TOKEN, AES_KEY, APP_ID).open_text(letter.encrypt, query, NOW)
    oracle = EnterpriseCrypto(TOKEN, AES_KEY, "")
    again = oracle.decrypt_message({"Encrypt": letter.encrypt}, letter.signature, str(STAMP), "n1")
    assert again == '{"msgtype":"text"}'


def test_the_random_prefix_is_what_was_passed_in() -> None:
    def seal(prefix: bytes) -> str:
        envelope = Envelope(TOKEN, AES_KEY, APP_ID, random=lambda size: prefix[:size])
        return envelope.seal(TEXT, STAMP, "n1").encrypt

    assert seal(b"a" * 16) == seal(b"a" * 16)
    assert seal(b"a" * 16) != seal(b"b" * 16)


def test_a_key_of_the_wrong_length_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="43 characters"):
        Envelope(TOKEN, AES_KEY[:-4], APP_ID)


@pytest.mark.parametrize("name", ["timestamp", "nonce", "msg_signature"])
@pytest.mark.parametrize("value", [None, "", "1", "f" * 40, "签名", "\uff11\uff17", "9" * 5000])
def test_a_query_that_was_touched_is_forbidden(
    envelope: Envelope, name: str, value: str | None
) -> None:
    query, body = sealed(TEXT)
    touched = {key: text for key, text in query.items() if key != name}
    if value is not None:
        touched[name] = value
    assert refusal(envelope, touched, body)[0] == 403


def test_a_body_that_was_touched_is_forbidden(envelope: Envelope) -> None:
    query, body = sealed(TEXT)
    middle = len(body) // 3
    other = b"A" if body[middle : middle + 1] != b"A" else b"B"
    touched = body[:middle] + other + body[middle + 1 :]
    assert refusal(envelope, query, touched) == (403, "wrong signature")


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_callback_older_or_newer_than_five_minutes_is_forbidden(
    envelope: Envelope, seconds: int
) -> None:
    query, body = sealed(TEXT)
    assert refusal(envelope, query, body, NOW + timedelta(seconds=seconds)) == (403, "too old")
    nearly = NOW + timedelta(seconds=seconds // 301 * 300)
    assert envelope.open(query, body, nearly)["Content"] == "登记"


def test_plain_mode_is_forbidden_because_no_signature_covers_its_body(envelope: Envelope) -> None:
    query = {"timestamp": str(STAMP), "nonce": "n1", "signature": envelope.sign(str(STAMP), "n1")}
    assert refusal(envelope, query, TEXT.encode()) == (403, "plain mode")


def test_compatible_mode_reads_only_what_was_signed(envelope: Envelope) -> None:
    query, body = sealed(TEXT)
    mixed = body.replace(b"<xml>", b"<xml><MsgType>text</MsgType><Content>forged</Content>")
    assert envelope.open(query, mixed, NOW)["Content"] == "登记"


def test_a_message_for_another_account_is_forbidden(envelope: Envelope) -> None:
    query, body = sealed(TEXT, receive_id="wx0000000000000000")
    assert refusal(envelope, query, body) == (403, "meant for another account")


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{}", b"<xml></xml>", b"<Encrypt></Encrypt>"])
def test_a_body_without_an_envelope_is_malformed(envelope: Envelope, body: bytes) -> None:
    assert refusal(envelope, {}, body)[0] == 400


@pytest.mark.parametrize("encrypt", ["A", "AAAA", "A===", "=AAA", "AB==CD==", "AAAA" * 11])
def test_a_signed_envelope_that_holds_no_cipher_text_is_malformed(
    envelope: Envelope, encrypt: str
) -> None:
    assert refusal(envelope, *signed(encrypt))[0] == 400


HEAD = bytes(16)


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        (HEAD + bytes(16), "bad padding"),
        (HEAD + bytes(15) + b"\x21", "bad padding"),
        (HEAD + bytes(14) + b"\x01\x02", "bad padding"),
        (HEAD + b"\xff\xff\xff\xff" + b"\x0c" * 12, "bad length"),
        (HEAD + b"\x00\x00\x00\x01" + b"\x0c" * 12, "bad length"),
        (b"\x10" * 16, "bad length"),
        (b"\x20" * 32, "bad length"),
        (HEAD + b"\x00\x00\x00\x02\xff\xfe" + APP_ID.encode() + b"\x08" * 8, "not UTF-8"),
    ],
)
def test_a_signed_plain_text_that_lies_about_itself_is_malformed(
    envelope: Envelope, plain: bytes, reason: str
) -> None:
    assert refusal(envelope, *sealed_raw(plain)) == (400, reason)


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "雁雁雁雁雁雁雁雁">'
    + "".join(
        f'<!ENTITY {b} "&{a};&{a};&{a};&{a};">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)


@pytest.mark.parametrize(
    "inner",
    [
        "",
        "登记",
        "<xml>",
        "<xml></xml>",
        "<xml>登记</xml>",
        "<root><MsgType>text</MsgType></root>",
        "<xml><Content>登记</Content></xml>",
        "<xml><MsgType></MsgType></xml>",
        "<xml><MsgType><a>text</a></MsgType></xml>",
        "<xml><MsgType>text</MsgType><MsgType>event</MsgType></xml>",
        "<xml><MsgType>text</MsgType><Content>&i;</Content></xml>",
        "<xml><MsgType>text</MsgType><!-- 注 --></xml>",
        "<xml><MsgType>text</MsgType></xml><xml></xml>",
        "<xml><MsgType>text</MsgType><a></b></xml>",
        f"{BOMB}<xml><MsgType>text</MsgType><Content>&i;</Content></xml>",
        f"<xml>{BOMB}<MsgType>text</MsgType><Content>&i;</Content></xml>",
        f"<?pi <![CDATA[?>{BOMB}<xml><MsgType>text</MsgType><Content>&i;]]></Content></xml>",
        '<!DOCTYPE x SYSTEM "file:///etc/hostname"><xml><MsgType>text</MsgType></xml>',
        "<xml><MsgType>text</MsgType>" + "<a>" * 20 + "</a>" * 20 + "</xml>",
        "<xml>" + "<a>" * 4000 + "</a>" * 4000 + "</xml>",
    ],
)
def test_a_genuine_envelope_around_nonsense_is_malformed(envelope: Envelope, inner: str) -> None:
    assert refusal(envelope, *sealed(inner))[0] == 400


def test_large_deep_and_exploding_bodies_are_refused_cheaply(envelope: Envelope) -> None:
    query, _ = sealed(TEXT)
    deep = b"<xml>" + b"<a>" * 200_000 + b"</a>" * 200_000 + b"</xml>"
    bodies = (b"<Encrypt>" + b"A" * 1_000_000, deep, BOMB.encode() + TEXT.encode())
    with no_more_than(0.1):
        refused = [refusal(envelope, query, body)[0] for body in bodies]
    assert refused == [413, 413, 403]


def test_a_largest_allowed_body_of_opening_tags_takes_no_time(envelope: Envelope) -> None:
    with no_more_than(0.5):
        for piece in (b"<Encrypt>", b"<Encrypt><![CDATA[", b"<Encrypt> ", b"<xml>"):
            query, _ = sealed(TEXT)
            body = piece * (60_000 // len(piece))
            with pytest.raises(BadCallback):
                envelope.open(query, body, NOW)
        stuck = "<a><![CDATA["
        for inner in ("<a>" * 16_000, stuck * 4_000, stuck + "]" * 40_000, "<a>" + " " * 40_000):
            with pytest.raises(BadCallback):
                parse(f"<xml>{inner}</xml>")


@given(st.binary(max_size=200))
def test_any_bytes_end_in_one_kind_of_refusal(body: bytes) -> None:
    query, _ = sealed(TEXT)
    refusal(Envelope(TOKEN, AES_KEY, APP_ID), query, body)


@given(st.binary(min_size=1, max_size=12).map(lambda head: head.ljust(32, b"\x04")))
def test_any_signed_plain_text_ends_in_one_kind_of_refusal(plain: bytes) -> None:
    refusal(Envelope(TOKEN, AES_KEY, APP_ID), *sealed_raw(plain))


MARKUP = st.lists(
    st.sampled_from(
        ["<xml>", "</xml>", "<a>", "</a>", "<a/>", "<MsgType>", "</MsgType>", "<![CDATA[", "]]>",
         "]", "<!", "<!DOCTYPE x []>", "<?p ?>", "&", "&lt;", "=", '"', "雁", "\x00", " ", "\n"]
    )
).map("".join)  # fmt: skip


@given(MARKUP)
def test_any_markup_is_read_or_refused_in_one_way(inner: str) -> None:
    for text in (inner, f"<xml>{inner}</xml>"):
        try:
            kinds = {type(value) for value in parse(text).values()}
        except BadCallback:
            continue
        assert kinds <= {str, dict}


@given(st.dictionaries(st.sampled_from(["Content", "MsgId", "EventKey"]), st.text()))
def test_fields_are_read_as_xmltodict_reads_them(said: dict[str, str]) -> None:
    text = "".join(f"<{name}>{cdata(value)}</{name}>" for name, value in said.items())
    document = f"<xml><MsgType>text</MsgType>{text}</xml>"
    oracle = xmltodict.parse(document, strip_whitespace=False)["xml"]
    ours = {name: normal(value) for name, value in parse(document).items()}
    assert ours == {name: value or "" for name, value in oracle.items()}


def normal(value: object) -> str:
    """Line ends as every XML parser reports them; ours keeps what the member typed."""
    assert isinstance(value, str)
    return value.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    "said", ["<!DOCTYPE x>", "]]>", "]]></Content><MsgType>evil", "a]b]]c", "<!"]
)
def test_markup_typed_by_a_member_is_only_text(envelope: Envelope, said: str) -> None:
    query, body = sealed(TEXT.replace("<![CDATA[登记]]>", cdata(said)))
    fields = envelope.open(query, body, NOW)
    assert fields["Content"] == said
    answer = xmltodict.parse(text_answer(fields, f"您说：{said}", STAMP))["xml"]
    assert answer == {
        "ToUserName": "oWangXiaoyan",
        "FromUserName": "gh_hongyan",
        "CreateTime": str(STAMP),
        "MsgType": "text",
        "Content": f"您说：{said}",
    }


def test_characters_that_xml_cannot_carry_are_left_out() -> None:
    assert cdata("雁\x00\x0b\ud800归🪿") == "<![CDATA[雁归🪿]]>"
    assert parse("<xml><Content>雁\x00归</Content></xml>") == {"Content": "雁归"}


def test_an_empty_text_is_empty_and_not_missing(envelope: Envelope) -> None:
    fields = envelope.open(*sealed(TEXT.replace("<![CDATA[登记]]>", "")), NOW)
    assert (word(fields, "Content"), word(fields, "EventKey")) == ("", "")


@pytest.mark.parametrize(("count", "expected"), [(1, dict), (2, list)])
def test_one_list_is_a_mapping_and_several_are_a_list(count: int, expected: type) -> None:
    item = "<List><TemplateId>t</TemplateId></List>"
    fields: Fields = parse(
        f"<xml><MsgType>event</MsgType><SubscribeMsgPopupEvent>{item * count}"
        "</SubscribeMsgPopupEvent></xml>"
    )
    popup = fields["SubscribeMsgPopupEvent"]
    assert isinstance(popup, dict)
    assert isinstance(popup["List"], expected)
    assert word(fields, "SubscribeMsgPopupEvent") == ""


def test_a_sealed_answer_opens_again_with_its_own_signature(envelope: Envelope) -> None:
    letter = envelope.seal("好的", STAMP, "]]>nonce")
    outer = xmltodict.parse(letter.as_xml())["xml"]
    assert outer["Nonce"] == "]]>nonce"
    query = {"timestamp": outer["TimeStamp"], "nonce": outer["Nonce"]}
    query["msg_signature"] = outer["MsgSignature"]
    assert envelope.open_text(outer["Encrypt"], query, NOW) == "好的"
