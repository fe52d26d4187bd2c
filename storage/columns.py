"""Column types and marks: UTC moments, encrypted text, and the mark for personal data."""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import BigInteger, Dialect, LargeBinary
from sqlalchemy.types import TypeDecorator

from storage.chance import Chance

NONCE = 12  # bytes; the size NIST SP 800-38D recommends for GCM


class KeyRing:
    """Named keys: the first seals, any of them opens, so that a key can be rotated.

    Written `id:secret,id:secret`; a bare secret has the id `1`. The keyed digest always uses the
    *last* key of the list (the oldest), because digests are looked up and cannot be re-sealed.
    """

    def __init__(self, text: str) -> None:
        pairs = [part.strip().partition(":") for part in text.split(",") if part.strip()]
        keys = {(name if sep else "1"): (rest if sep else name) for name, sep, rest in pairs}
        if not keys or any(len(secret) < 16 for secret in keys.values()):
            raise ValueError("keys must be `id:secret` with secrets of at least 16 characters")
        self._ciphers = {
            name: AESGCM(hashlib.sha256(b"hongyan-seal:" + secret.encode()).digest())
            for name, secret in keys.items()
        }
        current = next(iter(keys))
        self._cipher = self._ciphers[current]
        self._prefix = current.encode() + b":"
        self._random = Chance()
        self._digest_key = hashlib.sha256(b"hongyan-digest:" + list(keys.values())[-1].encode())

    @classmethod
    def generate(cls) -> str:
        """The text of a new ring with one key."""
        return f"k1:{secrets.token_urlsafe(32)}"

    def seal(self, text: str) -> bytes:
        """Encrypt and authenticate; the key's id stands in front."""
        nonce = self._random(NONCE)
        return self._prefix + nonce + self._cipher.encrypt(nonce, text.encode(), None)

    def open(self, sealed: bytes) -> str:
        """Decrypt; raises `InvalidTag` when altered, KeyError without the key."""
        name, _, rest = sealed.partition(b":")
        cipher = self._ciphers[name.decode()]
        return cipher.decrypt(rest[:NONCE], rest[NONCE:], None).decode()

    def digest(self, text: str) -> str:
        """A keyed hash to find equal values by, without keeping the value."""
        return hmac.new(self._digest_key.digest(), text.encode(), "sha256").hexdigest()


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment, kept as whole milliseconds since 1970 in UTC.

    An integer compares and indexes alike on both databases and cannot lose its zone.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_millis(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_millis(value)


class EncryptedText(TypeDecorator[str]):
    """Text that only this installation's keys can read; it cannot be searched.

    The key ring hangs on the engine's dialect (`storage.db` puts it there), so no global holds it.
    """

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else ring_of(dialect).seal(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else ring_of(dialect).open(bytes(value))


def ring_of(dialect: Dialect) -> KeyRing:
    """The key ring of the engine this dialect belongs to."""
    ring: KeyRing = dialect.hongyan_keys  # type: ignore[attr-defined]  # set in storage.db
    return ring


def to_millis(moment: datetime) -> int:
    """Milliseconds since 1970-01-01 UTC; a naive moment is a bug and raises."""
    if moment.tzinfo is None:
        raise ValueError("a naive datetime has no place in the database")
    return round(moment.timestamp() * 1000)


def from_millis(millis: int) -> datetime:
    """The inverse of `to_millis`, in UTC."""
    return datetime.fromtimestamp(millis / 1000, UTC)


def personal(purpose: str, label: str, *, sensitive: bool = False) -> dict[str, Any]:
    """Marks a column as personal data: `Field(sa_column_kwargs=personal("活动联系", "手机"))`.

    `purpose` is what the notice says it is for, `label` what the export calls it. The privacy walk
    demands that each marked column is exported, erased and named in the notice.
    """
    return {"info": {"personal": purpose, "label": label, "sensitive": sensitive}}
