"""Unpredictable bytes, fetched many at a time: each call to the system costs a thread switch."""

import os
import secrets
import threading
from weakref import WeakSet

AT_ONCE = 4096  # bytes


class Chance:
    """Gives out random bytes, none of them twice."""

    def __init__(self) -> None:
        self.forget()
        _everyone.add(self)

    def forget(self) -> None:
        """Begin with new bytes."""
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


def _forget_all() -> None:
    for one in _everyone:
        one.forget()


# A copy of this process would give out the same bytes again.
_everyone: WeakSet[Chance] = WeakSet()
os.register_at_fork(after_in_child=_forget_all)
