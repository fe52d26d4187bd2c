"""The sealed envelope of WeChat and WeCom callbacks: safe mode only, and cheap to refuse."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from storage.chance import Chance

MAX_BYTES = 64 * 1024
MAX_AGE_SECONDS = 300
MAX_DEPTH = 8
BLOCK = 32  # the platforms pad to 32, though AES works in blocks of 16

Value: TypeAlias = "str | dict[str, Value] | list[Value]"
Fields: TypeAlias = "dict[str, Value]"
"""The elements of a callback by name; an element that occurs twice below another is a list."""

_ENCRYPT = re.compile(rb"<Encrypt>\s*(?:<!\[CDATA\[)?([A-Za-z0-9+/=]+)")
_FLAT = re.compile(
    r"\s*<(\w+)>(?:<!\[CDATA\[([^\]]*(?:\](?!\]>)[^\]]*)*)\]\]>|([^<&]*))</\1>\s*|(?s:.+)",
    re.ASCII,
)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class BadCallback(Exception):
    """A callback that is not answered: the HTTP `status` (403, 400 or 413) and why, for the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted answer; XML and JSON channels write the same four values differently."""

    encrypt: str
    signature: str
    timestamp: int
    nonce: str

    def as_xml(self) -> str:
        return (
            f"<xml><Encrypt><![CDATA[{self.encrypt}]]></Encrypt>"
            f"<MsgSignature><![CDATA[{self.signature}]]></MsgSignature>"
            f"<TimeStamp>{self.timestamp}</TimeStamp>"
            f"<Nonce>{cdata(self.nonce)}</Nonce></xml>"
        )


class Envelope:
    """Opens and seals for one account.

    `aes_key` is the console's EncodingAESKey (43 letters); `receive_id` the appid, the corpid, or
    empty for a WeCom bot. `random` gives that many unpredictable bytes: the scheme's only
    randomness, as its IV is fixed. Raises ValueError for a key of another length.
    """

    def __init__(
        self,
        token: str,
        aes_key: str,
        receive_id: str,
        *,
        random: Callable[[int], bytes] | None = None,
    ) -> None:
        key = base64.b64decode(aes_key + "=")
        if len(key) != 32:
            raise ValueError("EncodingAESKey must have 43 characters")
        self._token = token
        self._receive_id = receive_id.encode()
        self._random = random or Chance()
        cipher = Cipher(algorithms.AES(key), modes.CBC(key[:16]))
        # Setting one up costs more than a message. What was chained to before spoils the first
        # block alone, whose random bytes nobody reads: on with these two, message after message.
        self._encrypt_on, self._decrypt_on = cipher.encryptor().update, cipher.decryptor().update

    def sign(self, *parts: str) -> str:
        """The platforms' signature: SHA-1 of the token and the parts, sorted and joined."""
        joined = "".join(sorted((self._token, *parts))).encode("utf-8", "surrogatepass")
        return hashlib.sha1(joined, usedforsecurity=False).hexdigest()

    def verify(self, query: Mapping[str, str], now: datetime) -> str:
        """The echostr to answer when an Official Account's console checks our address."""
        stamp = _fresh(query, now)
        expected = self.sign(stamp, query.get("nonce", ""))
        _same(expected, query.get("signature", ""))
        return query.get("echostr", "")

    def verify_sealed(self, query: Mapping[str, str], now: datetime) -> str:
        """The same for WeCom, which encrypts the echostr."""
        return self.open_text(query.get("echostr", ""), query, now)

    def open(self, query: Mapping[str, str], body: bytes, now: datetime) -> Fields:
        """What an XML callback says; only `<Encrypt>` is read of what was not signed."""
        if len(body) > MAX_BYTES:
            raise BadCallback(413, "body too large")
        found = _ENCRYPT.search(body)
        if found is None:
            # A plain body is covered by no signature: whoever saw one query can forge it.
            if b"<MsgType>" in body:
                raise BadCallback(403, "plain mode")
            raise BadCallback(400, "no Encrypt")
        fields = parse(self.open_text(found[1].decode(), query, now))
        kind = fields.get("MsgType")
        if not isinstance(kind, str) or not kind:
            raise BadCallback(400, "no MsgType")
        return fields

    def nonce(self) -> str:
        """One to seal an answer with."""
        return self._random(8).hex()

    def open_text(self, encrypt: str, query: Mapping[str, str], now: datetime) -> str:
        """The text inside an `encrypt` value that `query` signs."""
        if len(encrypt) > MAX_BYTES:
            raise BadCallback(413, "Encrypt too large")
        stamp = _fresh(query, now)
        expected = self.sign(stamp, query.get("nonce", ""), encrypt)
        _same(expected, query.get("msg_signature", ""))
        return self._decrypt(encrypt)

    def seal(self, text: str, timestamp: int, nonce: str) -> Sealed:
        """`text` encrypted and signed as of `timestamp` (seconds)."""
        content = text.encode()
        plain = b"".join(
            (self._random(16), len(content).to_bytes(4, "big"), content, self._receive_id)
        )
        pad = BLOCK - len(plain) % BLOCK
        sealed = self._encrypt_on(plain + bytes((pad,)) * pad)
        encrypt = binascii.b2a_base64(sealed, newline=False).decode()
        return Sealed(encrypt, self.sign(str(timestamp), nonce, encrypt), timestamp, nonce)

    def _decrypt(self, encrypt: str) -> str:
        try:
            sealed = binascii.a2b_base64(encrypt, strict_mode=True)
        except ValueError as error:
            raise BadCallback(400, "not Base64") from error
        if not sealed or len(sealed) % 16:
            raise BadCallback(400, "not whole blocks")
        plain = self._decrypt_on(sealed)
        pad = plain[-1]
        if not 1 <= pad <= BLOCK or not plain.endswith(bytes((pad,)) * pad):
            raise BadCallback(400, "bad padding")
        end = len(plain) - pad
        stop = 20 + int.from_bytes(plain[16:20], "big")
        if stop > end:
            raise BadCallback(400, "bad length")
        if not hmac.compare_digest(plain[stop:end], self._receive_id):
            raise BadCallback(403, "meant for another account")
        try:
            return plain[20:stop].decode()
        except UnicodeDecodeError as error:
            raise BadCallback(400, "not UTF-8") from error


def parse(text: str) -> Fields:
    """The elements of `<xml>…</xml>`; raises BadCallback(400) for anything else.

    A DTD can only stand before the root, so a text that begins with its root declares no entity.
    """
    text = _cleared(text.strip())
    if not text.startswith("<xml>") or not text.endswith("</xml>"):
        raise BadCallback(400, "not an xml element")
    flat = _parse_flat(text)
    return flat if flat is not None else _parse_nested(text)


def word(fields: Fields, name: str) -> str:
    """The text of the element `name`, or an empty one where it is absent or holds elements."""
    value = fields.get(name, "")
    return value if isinstance(value, str) else ""


def cdata(text: str) -> str:
    """`text` as XML that says exactly this, less the characters that XML cannot carry.

    A `]]>` typed by a member would otherwise end the section and let them write our answer.
    """
    return f"<![CDATA[{_cleared(text).replace(']]>', ']]]]><![CDATA[>')}]]>"


def text_answer(fields: Fields, text: str, timestamp: int) -> str:
    """The passive answer to the callback `fields`, to be sealed: one text message."""
    return (
        f"<xml><ToUserName>{cdata(word(fields, 'FromUserName'))}</ToUserName>"
        f"<FromUserName>{cdata(word(fields, 'ToUserName'))}</FromUserName>"
        f"<CreateTime>{timestamp}</CreateTime><MsgType>text</MsgType>"
        f"<Content>{cdata(text)}</Content></xml>"
    )


def _cleared(text: str) -> str:
    """Without the characters that XML cannot carry; none of them is printable."""
    return text if text.isprintable() else _NOT_XML.sub("", text)


def _fresh(query: Mapping[str, str], now: datetime) -> str:
    stamp = query.get("timestamp", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise BadCallback(403, "no timestamp")
    if abs(now.timestamp() - int(stamp)) > MAX_AGE_SECONDS:
        raise BadCallback(403, "too old")
    return stamp


def _same(expected: str, given: str) -> None:
    # As bytes, because compare_digest raises TypeError for text beyond ASCII.
    if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass")):
        raise BadCallback(403, "wrong signature")


def _parse_flat(text: str) -> Fields | None:
    """Nearly every callback is flat; this takes a third of the time of the XML parser."""
    found = _FLAT.findall(text, len("<xml>"), len(text) - len("</xml>"))
    fields: Fields = {name: marked or plain for name, marked, plain in found}
    # Whatever is not flat has no name.
    return fields if len(fields) == len(found) and "" not in fields else None


def _parse_nested(text: str) -> Fields:
    first, *sections = text.split("<![CDATA[")
    outside = (first, *(section.partition("]]>")[2] for section in sections))
    if any("<!" in piece for piece in outside):
        raise BadCallback(400, "declarations are not read")
    try:
        root = ET.fromstring(text)  # noqa: S314 (no DTD, bounded size)
    except ET.ParseError as error:
        raise BadCallback(400, "not XML") from error
    fields = _children(root, MAX_DEPTH)
    if any(isinstance(value, list) for value in fields.values()):
        raise BadCallback(400, "an element occurs twice")
    return fields


def _children(parent: ET.Element, depth: int) -> Fields:
    if not depth:
        raise BadCallback(400, "nested too deep")
    fields: Fields = {}
    for child in parent:
        value: Value = _children(child, depth - 1) if len(child) else child.text or ""
        before = fields.get(child.tag)
        if before is None:
            fields[child.tag] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            fields[child.tag] = [before, value]
    return fields
