"""What the process tells about itself: one JSON line an event, without secrets or people's words.

Our own events are English words and ids. Libraries say what they like, and an exception's text may
quote a row, so everything passes here: secrets are cut out, Chinese and long texts become their
length, long numbers vanish, and an exception is told by its type and where it happened.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, TextIO

import structlog

HIDDEN = "[redacted]"
LONGEST = 300  # characters of one value
FRAMES = 12  # innermost places told of an exception

_TALKATIVE = (
    "httpx",
    "httpcore",
    "aiohttp",
    "telegram",
    "wechatpy",
    "uvicorn",
    "apscheduler",
    "alembic",
    "sqlalchemy",
    "asyncio",
    "urllib3",
    "requests",
)
_IN_URLS = (
    (re.compile(r"/bot\d+:[\w-]+"), f"/bot{HIDDEN}"),
    (re.compile(r"/p/[\w-]{8,}"), f"/p/{HIDDEN}"),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), rf"\1:{HIDDEN}@"),
    (
        re.compile(
            r"(?i)\b([\w-]*(?:token|secret|key|(?<!err)code|ticket|signature|password|openid))"
            r"(=|%3D|[\"']\s*:\s*[\"'])[^&\s\"']+"
        ),
        rf"\1\2{HIDDEN}",
    ),
)
_SPOKEN = re.compile(r"[\u3400-\u9fff\u1800-\u18af]")
_LONG_NUMBER = re.compile(r"\d{7,}")
Event = MutableMapping[str, Any]


def incident() -> str:
    """A number that a person is told and the log knows; too short to be taken for a telephone's."""
    return secrets.token_hex(3).upper()


class Redactor:
    """Cuts what must not be read out of whatever is about to be written."""

    def __init__(self, secrets: Sequence[str]) -> None:
        # The longest first: one secret may be a part of another.
        self._secrets = sorted({s for s in secrets if s}, key=len, reverse=True)

    def secrets_out(self, text: str) -> str:
        """The text without any configured secret, and without those that stand in addresses."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for pattern, instead in _IN_URLS:
            text = pattern.sub(instead, text)
        return text

    def text(self, text: str) -> str:
        """A value fit for a log: no secret, nobody's words, no telephone or identity number."""
        if len(text) > LONGEST or _SPOKEN.search(text):
            return f"[{len(text)} characters]"
        return _LONG_NUMBER.sub("[number]", self.secrets_out(text))

    def value(self, value: Any) -> Any:
        """The same for anything a log call was given."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.value(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        if isinstance(value, BaseException):
            return type(value).__name__
        return self.text(str(value))

    def __call__(self, _logger: object, _method: str, event: Event) -> Event:
        """As a structlog processor."""
        return {
            name: value if name.startswith("_") else self.value(value)
            for name, value in event.items()
        }


def configure(level: str, secrets: Sequence[str], stream: TextIO | None = None) -> None:
    """Send our own events and every library's to `stream` (default: stderr).

    Pretty on a terminal, JSON elsewhere. May be called again; the last call holds.
    """
    stream = stream or sys.stderr
    redactor = Redactor(secrets)
    before: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if stream.isatty():
        render = structlog.dev.ConsoleRenderer(exception_formatter=lambda *_: None)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            told_without_words,
            redactor,
            render,
        ],
        # Off: it would put the exception's own text, which may quote a row, back in.
        keep_exc_info=False,
        use_get_message=True,
    )
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # A log call with wrong arguments would otherwise print them, unredacted, to stderr.
    logging.raiseExceptions = False


def told_without_words(_logger: object, _method: str, event: Event) -> Event:
    """Tell an exception by type and places; its own text may hold anything."""
    told = event.pop("exc_info", None)
    error = told[1] if isinstance(told, tuple) else told
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["at"] = places(error.__traceback__)
    event.pop("stack_info", None)
    return event


def places(trace: TracebackType | None) -> list[str]:
    """`file:line function`, outermost first, at most the last few."""
    frames = traceback.extract_tb(trace)[-FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
