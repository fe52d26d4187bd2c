"""Holds that logs carry neither secrets nor people's words, whoever writes them and however."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError

from bot import logs
from bot.installation import explain, secrets_of
from bot.settings import Settings, demo_settings
from tests.serving import logging_restored

SECRETS = {
    name: f"{name.replace('_', '-')}-0123456789abcdef"
    for name, field in Settings.model_fields.items()
    if field.annotation is SecretStr
}
PASSWORD = "database-password-0123456789"
SPOKEN = "张三，手机13812345678，住在上海"


@pytest.fixture
def settings() -> Settings:
    """Every secret set to a text of its own."""
    ring = {"keys": "k2:the-newer-key-0123456789,k1:the-older-key-0123456789"}
    url = f"postgresql+psycopg://u:{PASSWORD}@127.0.0.1/d"
    return demo_settings(**{**SECRETS, **ring}, database_url=url)


@pytest.fixture
def written(settings: Settings) -> Iterator[io.StringIO]:
    """What is logged meanwhile."""
    stream = io.StringIO()
    with logging_restored():
        logs.configure("DEBUG", secrets_of(settings), stream)
        yield stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Each line as JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_kind_of_secret_is_known(settings: Settings) -> None:
    known = secrets_of(settings)
    assert {*SECRETS.values()} - {SECRETS["keys"]} <= {*known}
    assert {PASSWORD, "the-newer-key-0123456789", "the-older-key-0123456789"} <= {*known}


def test_no_secret_is_logged_by_us_or_by_a_library_or_in_an_error(
    settings: Settings, written: io.StringIO
) -> None:
    ours, theirs = structlog.get_logger(), logging.getLogger("some.library")
    for secret in secrets_of(settings):
        ours.warning("event", value=secret, nested={"a": [secret, (f"x{secret}y",)]})
        ours.warning(f"in the event {secret}")
        theirs.warning("GET https://example.org/?a=%s", secret)
        theirs.error("failed", extra={"value": secret})
        try:
            raise ValueError(f"rejected {secret}")
        except ValueError as error:
            ours.error("event", exc_info=True)
            ours.error("event", error=error)
            theirs.exception("it failed: %r", error)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"deprecated {secret}", stacklevel=1)
    text = written.getvalue()
    assert len(lines(written)) == 8 * len(secrets_of(settings))
    assert [secret for secret in secrets_of(settings) if secret in text] == []


def test_settings_never_show_a_secret(settings: Settings) -> None:
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert [secret for secret in SECRETS.values() if secret in shown] == []


def test_a_database_that_refuses_is_explained_without_its_password(settings: Settings) -> None:
    error = IntegrityError("INSERT", {}, Exception(f"no access for {PASSWORD}\nsecond line"))
    assert explain(error, secrets_of(settings)) == "数据库用不了：no access for [redacted]"


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("POST https://api.telegram.org/bot123:AAbb-cc_dd/getMe", "/bot[redacted]/getMe"),
        ("GET /cgi-bin/token?appid=wx1&secret=abc&x=1", "appid=wx1&secret=[redacted]&x=1"),
        ("/cgi-bin/x?access_token=abc", "access_token=[redacted]"),
        ("GET /p/abcdefgh12345678", "/p/[redacted]"),
        ("proxy http://me:word@proxy:80/", "http://me:[redacted]@proxy:80/"),
        ('{"access_token": "abc", "errcode": 1}', '{"access_token": "[redacted]", "errcode": 1}'),
        ("errcode=40001 invalid", "errcode=40001 invalid"),
    ],
)
def test_secrets_in_addresses_are_cut_out_even_if_nobody_configured_them(
    written: io.StringIO, said: str, logged: str
) -> None:
    logging.getLogger("some.library").warning(said)
    assert logged in lines(written)[0]["event"]


def test_nobody_s_words_or_numbers_are_logged(written: io.StringIO) -> None:
    ours = structlog.get_logger()
    ours.warning("heard", text=SPOKEN, phone="13812345678", long="x" * 1000, id=17)
    try:
        raise ValueError(SPOKEN)
    except ValueError as error:
        ours.error("event", exc_info=True, error=error, cause=repr(error))
        logging.getLogger("some.library").exception("failed with %s", SPOKEN)
    text = written.getvalue()
    for part in ("张三", "上海", "13812345678", "xxxx"):
        assert part not in text
    heard = lines(written)[0]
    assert (heard["text"], heard["phone"], heard["id"]) == ("[21 characters]", "[number]", 17)


def test_an_error_is_told_by_its_type_and_place(written: io.StringIO) -> None:
    try:
        raise KeyError(SPOKEN)
    except KeyError:
        structlog.get_logger().exception("event")
    told = lines(written)[0]
    assert told["error"] == "KeyError"
    assert told["level"] == "error"
    assert told["at"][-1].endswith("test_an_error_is_told_by_its_type_and_place")


def test_a_wrong_log_call_says_nothing_to_anybody(
    written: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("some.library").warning("%d", SPOKEN)
    assert written.getvalue() + capsys.readouterr().err == ""


def test_talkative_libraries_are_heard_only_when_they_warn(written: io.StringIO) -> None:
    for name in ("httpx", "httpcore.http11", "aiohttp.access", "telegram.ext", "uvicorn.error"):
        logging.getLogger(name).info("GET /?x=1")
        logging.getLogger(name).warning("slow")
    assert [line["event"] for line in lines(written)] == ["slow"] * 5
