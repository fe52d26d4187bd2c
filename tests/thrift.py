"""How much work something may be, whatever else goes on in the process."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_more_than(seconds: float) -> Iterator[None]:
    """This thread works no longer than that: others, and the collector's rounds, do not count."""
    gc.disable()
    began = time.thread_time()
    try:
        yield
        spent = time.thread_time() - began
    finally:
        gc.enable()
    assert spent < seconds
