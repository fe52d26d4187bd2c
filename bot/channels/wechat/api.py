"""The platform's API: one access token for all calls, and what each of its errors means to us."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import SecretStr

from bot.channels.calls import Caller
from bot.clock import Clock, beijing
from bot.errors import SendError

T = TypeVar("T")

DEAD_TOKEN = frozenset({40001, 40014, 42001})

# The platform renews a stable token in its last 300 s and lets the old one live as long; asked for
# earlier it gives the old one again, so nothing is won by asking sooner.
RENEW_BEFORE = timedelta(seconds=240)
AT_LEAST = timedelta(seconds=60)
PAUSE_AFTER_REFUSAL = timedelta(seconds=30)
STOPPED = 300.0  # seconds between two looks whether a person has mended the account

_PERMANENT: Mapping[int, str] = {
    40003: "unreachable",
    43004: "unreachable",
    43019: "unreachable",
    48002: "unreachable",
    45015: "window",
    45047: "window",
    40007: "media",
    40008: "kind",
    48008: "kind",
    40037: "template",
    47003: "template",
    43101: "no_grant",
    44004: "empty",
    45002: "too_long",
    45008: "too_long",
    47001: "format",
    87014: "content",
}
_STOPPING: Mapping[int, str] = {
    40013: "AppID 不对，请核对 HONGYAN_WECHAT_APP_ID",
    40125: "AppSecret 不对，请核对 HONGYAN_WECHAT_APP_SECRET",
    40164: "服务器地址 {ip} 不在公众平台的 IP 白名单里，请到「开发接口管理」添加",
    48001: "公众号没有这项接口的权限，认证可能已经到期，请到公众平台查看",
    48004: "公众号的接口已被平台封禁，请到公众平台查看",
    50002: "公众号已被平台限制使用，请到公众平台查看",
}
_IP = re.compile(r"invalid ip ([0-9A-Fa-f.:]+)")


class DeadToken(Exception):
    """The platform does not take this access token (any more)."""


class WeChatApi:
    """Calls with the account's token, which is renewed in time and never by two at once.

    The token is the platform's *stable* one: every replica that asks is given the same, so that
    nobody's renewal ends anybody else's token.
    """

    def __init__(self, caller: Caller, app_id: str, secret: SecretStr, clock: Clock) -> None:
        self._caller = caller
        self._app_id = app_id
        self._secret = secret
        self._clock = clock
        self._renewing = asyncio.Lock()
        self._token = ""
        self._renew_at: datetime | None = None
        self._refused_at: datetime | None = None

    async def post(self, endpoint: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of an endpoint such as `message/custom/send`; raises SendError."""

        async def once(token: str) -> dict[str, Any]:
            answer = await self._caller.post(
                f"cgi-bin/{endpoint}", body, query={"access_token": token}
            )
            self.check(answer.get("errcode"), answer.get("errmsg"))
            return answer

        return await self.with_token(once)

    async def with_token(self, call: Callable[[str], Awaitable[T]]) -> T:
        """Call with the token; once more with another one if the platform does not take it."""
        token = await self._current()
        try:
            return await call(token)
        except DeadToken:
            token = await self._after(token)
        try:
            return await call(token)
        except DeadToken:
            raise SendError("token", retry_after=PAUSE_AFTER_REFUSAL.total_seconds()) from None

    def check(self, code: object, message: object) -> None:
        """Return if the platform did what it was asked; else raise DeadToken or SendError.

        Its errors come with HTTP status 200.
        """
        number = int(str(code or 0))
        if number in DEAD_TOKEN:
            raise DeadToken
        if number:
            raise refusal(number, str(message), self._clock.now())

    async def _current(self) -> str:
        if self._fresh():
            return self._token
        async with self._renewing:
            if not self._fresh():
                await self._renew()
            return self._token

    async def _after(self, refused: str) -> str:
        """Another token than `refused`, asked for once however many calls it failed."""
        async with self._renewing:
            if self._token != refused:
                return self._token
            now = self._clock.now()
            if self._refused_at is not None and now - self._refused_at < PAUSE_AFTER_REFUSAL:
                raise SendError("token", retry_after=PAUSE_AFTER_REFUSAL.total_seconds())
            self._refused_at = now
            await self._renew()
            return self._token

    def _fresh(self) -> bool:
        return self._renew_at is not None and self._clock.now() < self._renew_at

    async def _renew(self) -> None:
        body = {
            "grant_type": "client_credential",
            "appid": self._app_id,
            "secret": self._secret.get_secret_value(),
        }
        try:
            answer = await self._caller.post("cgi-bin/stable_token", body)
            self.check(answer.get("errcode"), answer.get("errmsg"))
            token, seconds = str(answer["access_token"]), int(answer["expires_in"])
        except SendError as error:
            if error.unknown:  # the request for a token, not the message
                raise SendError("no_token", detail=error.detail) from None
            raise
        except DeadToken:
            raise refusal(40125, "", self._clock.now()) from None
        except (KeyError, ValueError):
            raise SendError("no_token", detail="not understood") from None
        self._token = token
        life = timedelta(seconds=seconds) - RENEW_BEFORE
        self._renew_at = self._clock.now() + max(life, AT_LEAST)


def refusal(code: int, message: str, now: datetime) -> SendError:
    """What an `errcode` means for the message in hand and for the channel."""
    detail = f"errcode {code}"
    if code in _PERMANENT:
        return SendError(_PERMANENT[code], permanent=True, detail=detail)
    if code in _STOPPING:
        found = _IP.search(message)
        words = _STOPPING[code].format(ip=found[1] if found else "（未知）")
        return SendError(
            "stopped", stop_channel=True, retry_after=STOPPED, detail=f"{detail}：{words}"
        )
    if code == 45009:
        return SendError("quota", retry_after=_until_midnight(now), detail=detail)
    if code == 45011:
        return SendError("quota", retry_after=60.0 - now.second, detail=detail)
    return SendError("busy" if code == -1 else "refused", detail=detail)


def _until_midnight(now: datetime) -> float:
    """Seconds until the platform's day ends, which is Beijing's."""
    here = beijing(now)
    morrow = (here + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (morrow - here).total_seconds()
