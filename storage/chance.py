"""Unpredictable bytes, fetched many at a time: each call to the system costs a thread switch."""

import secrets
import threading

AT_ONCE = 4096  # bytes


class Chance:
    """Gives out random bytes, none of them twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stock = b""
        self._used = 0

    def __call__(self, count: int) -> bytes:
        """So many, as `secrets.token_bytes` would give them."""
        with self._lock:
            begin, end = self._used, self._used + count
            if end > len(self._stock):
                self._stock = secrets.token_bytes(max(AT_ONCE, count))
                begin, end = 0, count
            self._used = end
            return self._stock[begin:end]
