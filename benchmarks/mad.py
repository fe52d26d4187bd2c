"""Mad input for the doors, by hypothesis: shaped as the platforms' own, and wrong somewhere."""

from __future__ import annotations

import json
from typing import Any
from xml.sax.saxutils import escape

from hypothesis import strategies as st

from benchmarks import doors
from benchmarks.doors import Way
from tests.world import whole_catalog

ANSWERS = (
    "登记", "同意", "不同意", "是", "否", "1", "2", "1 3", "高远山", "上海", "跳过", "确认",
    "上一步", "取消", "菜单", "帮助", "隐私", "我的档案", "修改", "完善", "查看", "导出", "撤回",
    "删除", "活动", "月报", "稍后", "继续", "以后", "关联", "退订", "订阅", "人工", "政策", "群发",
    "预览", "审批", "迟报", "通报", "认定", "角色", "报名 E-1", "改 2", "对", "城市 苏州",
    "/start", "/start x", "/help@hongyan_bot", "@鸿雁回通", "100万元", "三万五", "2026年2月30日",
    "下下周三", "腊月三十", "13800000000", "11010519491231002X", "一亿", "0", "-1", "1e9",
    "\uff11\uff12\uff13",
)  # fmt: skip

WORDS = (*ANSWERS, *sorted(whole_catalog().words))
"""What people do say, so that the madness reaches the rooms behind the doors."""

ODD = (
    "]]>", "<![CDATA[", "<!DOCTYPE x>", "&#x0;", "&amp;", "\x00", "\ufeff", "\u202e", "\ud7ff",
    "👨‍👩‍👧‍👦", "𠮷", "%", "%s", "{0}", "{{x}}", "\\", "'", '"', "\r\n", "\u2028", "　", "٣", "⑨",
    "㈠", "½", "\U0001d7d9",
    "İ", "ß", "ﷺ", "é", "－", "—", "·", "/", "*", "_", "[x](y)", "<b>", "`",
)  # fmt: skip

EVENTS = (
    "subscribe", "unsubscribe", "SCAN", "CLICK", "VIEW", "LOCATION", "subscribe_msg_popup_event",
    "subscribe_msg_change_event", "subscribe_msg_sent_event", "TEMPLATESENDJOBFINISH",
    "MASSSENDJOBFINISH", "enter_agent", "template_card_event", "change_external_chat",
    "change_external_contact", "kf_msg_or_event", "inactive_alert", "enter_chat",
)  # fmt: skip

FIELDS = (
    "ToUserName", "FromUserName", "CreateTime", "MsgType", "Content", "MsgId", "Event", "EventKey",
    "Ticket", "MediaId", "PicUrl", "Location_X", "Title", "Url", "bizmsgmenuid", "TaskId",
    "ResponseCode", "CardType", "MsgID", "Status", "TotalCount", "SubscribeMsgPopupEvent", "List",
    "TemplateId", "SubscribeStatusString", "AgentID", "ChatId", "ChangeType", "UserID", "Token",
    "OpenKfId", "State", "WelcomeCode", "ExternalUserID", "SelectedItems",
)  # fmt: skip

KEYS = (
    "update_id", "message", "callback_query", "my_chat_member", "chat_member", "message_id", "date",
    "chat", "from", "id", "type", "title", "is_bot", "first_name", "username", "text", "caption",
    "entities", "offset", "length", "contact", "phone_number", "user_id", "photo", "document",
    "file_id", "file_unique_id", "file_size", "voice", "location", "latitude", "longitude", "data",
    "chat_instance", "new_chat_members", "left_chat_member", "migrate_to_chat_id", "sticker",
    "migrate_from_chat_id", "reply_to_message", "is_topic_message", "message_thread_id", "status",
    "old_chat_member", "new_chat_member", "user", "until_date", "dice", "venue",
    "inline_message_id", "msgid", "msgtype", "chattype", "chatid", "content", "event", "eventtype",
    "stream", "mixed", "msg_item", "template_card_event", "event_key", "task_id", "selected_items",
    "selected_item", "option_ids", "option_id", "response_url", "quote", "userid",
    "image", "url", "file",
)  # fmt: skip

numbers = st.integers(1, 2**40)
people = st.integers(0, doors.PEOPLE - 1)

words = st.one_of(
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(WORDS + ODD), max_size=6).map("".join),
    st.lists(st.sampled_from(WORDS), min_size=2, max_size=5).map("，".join),
    st.text(max_size=40),
)
"""What somebody says."""


@st.composite
def long_words(draw: st.DrawFn, most: int = 48_000) -> str:
    """One thing many times, which finds what takes the square of the time."""
    unit = draw(st.one_of(st.sampled_from(WORDS + ODD + tuple("1 一a.@#年月日号万。，")), words))
    end = draw(words)
    return unit * (draw(st.integers(1, most)) // max(1, len(unit.encode()))) + end


said = st.one_of(words, words, words, long_words())


def _markup(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "".join(f"<{name}>{_markup(inner)}</{name}>" for name, inner in value)


_names = st.one_of(st.sampled_from(FIELDS), st.sampled_from(FIELDS), st.text(max_size=8))
_contents = st.one_of(
    words.map(escape),
    words.map(lambda text: f"<![CDATA[{text}]]>"),
    words,
    st.sampled_from(EVENTS),
    long_words(8_000),
)
_fields = st.recursive(
    _contents,
    lambda inner: st.lists(st.tuples(_names, inner), max_size=6),
    max_leaves=12,
)


@st.composite
def xml(draw: st.DrawFn) -> bytes:
    """A document of WeChat or WeCom: right, or with one thing changed, or all made up."""
    number, user = draw(numbers), draw(people)
    form = draw(st.integers(0, 3))
    if form == 0:
        made = doors.xml_event(number, user, draw(st.sampled_from(EVENTS)), _markup(draw(_fields)))
    elif form == 1:
        made = doors.xml_message(number, user, draw(said))
    elif form == 2:
        kind = draw(st.sampled_from(("image", "voice", "location", "link", "file", "x", "event")))
        made = f"<xml><MsgType>{kind}</MsgType><MsgId>{number}</MsgId>"
        made += f"<FromUserName>o{user}</FromUserName>{_markup(draw(_fields))}</xml>"
    else:
        made = f"<xml>{_markup(draw(_fields))}</xml>"
    return _spoilt(draw, made.encode("utf-8", "surrogatepass"))


def _spoilt(draw: st.DrawFn, made: bytes) -> bytes:
    """Now and then something is put in, taken out, or cut off."""
    if draw(st.integers(0, 2)):
        return made
    at = draw(st.integers(0, len(made)))
    put = draw(st.one_of(st.binary(max_size=8), st.sampled_from(ODD).map(str.encode)))
    return made[:at] + put + made[at + draw(st.integers(0, 12)) :]


_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    words,
    st.sampled_from(("private", "group", "supergroup", "member", "kicked", "left", "single")),
    st.sampled_from(EVENTS),
    st.just("\ud800"),
)
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    ),
    max_leaves=16,
)


@st.composite
def _nested(draw: st.DrawFn) -> bytes:
    """Deeper than anybody reads."""
    opening = draw(st.sampled_from(("[", '{"message":', '{"a":[')))
    return (opening * draw(st.integers(1, 20_000))).encode()


@st.composite
def telegram(draw: st.DrawFn) -> bytes:
    """An update: right with something odd in it, or made up."""
    if draw(st.integers(0, 9)) == 0:
        return draw(_nested())
    number, user = draw(numbers), draw(people)
    update = doors.telegram_update(number, user, text=draw(said))
    more = draw(st.dictionaries(st.sampled_from(KEYS), _values, max_size=4))
    match draw(st.integers(0, 4)):
        case 0:
            update["message"] |= more
        case 1:
            update = {"update_id": number, **more}
        case 2:
            update["message"]["from"] |= more
        case 3:
            query = {"id": str(number), "from": update["message"]["from"], "data": draw(words)}
            update = {"update_id": number, "callback_query": query | more}
        case 4:
            group = {"id": -1000, "type": "supergroup", "title": draw(words)}
            update["message"] |= {"chat": group, **more}
    return _spoilt(draw, json.dumps(update).encode())


@st.composite
def smart_bot(draw: st.DrawFn) -> bytes:
    """A callback of the smart bot."""
    if draw(st.integers(0, 9)) == 0:
        return draw(_nested())
    body = doors.bot_message(draw(numbers), draw(people), draw(said))
    if draw(st.booleans()):
        body |= {"chattype": "group", "chatid": "wr1"}
    more = draw(st.dictionaries(st.sampled_from(KEYS), _values, max_size=5))
    return _spoilt(draw, json.dumps(body | more).encode())


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """What an unsigned hand would send."""
    encrypt = draw(st.one_of(st.text("ABab01+/=\n", max_size=64), long_words(), words))
    made = draw(
        st.sampled_from(
            (
                f"<xml><Encrypt><![CDATA[{encrypt}]]></Encrypt></xml>",
                f"<Encrypt>{encrypt}",
                json.dumps({"encrypt": encrypt}),
                json.dumps([encrypt]),
                encrypt,
            )
        )
    )
    return _spoilt(draw, made.encode("utf-8", "surrogatepass"))


@st.composite
def queries(draw: st.DrawFn, way: Way) -> bytes:
    """A query of the console's check, or something of the sort."""
    made = doors.echo(way, draw(st.one_of(words.map(lambda w: w.encode("utf-8", "replace")),
                                          st.binary(max_size=64))))  # fmt: skip
    return _spoilt(draw, made)


_header_lines = st.one_of(
    st.sampled_from(
        (
            b"content-length: -1", b"content-length: 99999999999999999999", b"content-length: \xb2",
            b"content-length: 1, 1", b"content-length:", b"transfer-encoding: chunked",
            b"content-type: application/json", b"content-type: multipart/form-data",
            b"x-telegram-bot-api-secret-token: \xff\xfe", b"authorization: Bearer \xe4",
            b"host: [::1", b"host: \x00", b"cookie: a=b; c", b"range: bytes=0-,1-",
            b"x-forwarded-for: 1", b"accept-encoding: \xf0",
        )
    ),
    st.binary(max_size=64).map(lambda line: line.replace(b"\n", b" ")),
)  # fmt: skip
headers = st.lists(_header_lines, max_size=8).map(b"\n".join)


def data_for(way: Way) -> st.SearchStrategy[bytes]:
    """Bytes for one way in."""
    as_bytes = said.map(lambda text: text.encode("utf-8", "surrogatepass"))
    match way.partition("_")[2]:
        case "said":
            return as_bytes
        case "sealed":
            return smart_bot() if way is Way.BOT_SEALED else st.one_of(xml(), st.binary())
        case "body":
            return bodies()
        case "query":
            return queries(way)
        case "json":
            return telegram()
    if way is Way.PAGE:
        return st.one_of(as_bytes.map(lambda data: data[:2000]), st.binary(max_size=64))
    return headers


def knocks() -> st.SearchStrategy[tuple[Way, bytes, int]]:
    """A way in, what to carry through it, and a number."""
    return st.sampled_from(doors.ways()).flatmap(
        lambda way: st.tuples(st.just(way), data_for(way), numbers)
    )
