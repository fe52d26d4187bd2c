"""The platform's API: one access token for all calls, and what each of its errors means to us."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Container, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import SecretStr

from bot.channels.calls import Caller
from bot.channels.tokens import DeadToken, Tokens, Vault
from bot.clock import Clock, beijing
from bot.errors import SendError
from bot.messages import File

T = TypeVar("T")

DEAD_TOKEN = frozenset({40001, 40014, 42001})

# The platform renews a stable token in its last 300 s and lets the old one live as long; asked for
# earlier it gives the old one again, so nothing is won by asking sooner.
RENEW_BEFORE = timedelta(seconds=240)
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
    40130: "too_few",
    45028: "cover_quota",
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


class Refusal(SendError):
    """The platform's own error `code`."""

    code = 0


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
        self._tokens = Tokens(self._fetch, clock, renew_before=RENEW_BEFORE)

    def share(self, vault: Vault) -> None:
        """From now on, all replicas have one token."""
        self._tokens.share(vault)

    async def post(
        self, endpoint: str, body: Mapping[str, Any], *, fine: Container[int] = ()
    ) -> dict[str, Any]:
        """The answer of an endpoint such as `message/custom/send`; raises SendError.

        An answer with one of the errcodes `fine` is returned like any other.
        """

        async def once(token: str) -> dict[str, Any]:
            answer = await self._caller.post(
                f"cgi-bin/{endpoint}", body, query={"access_token": token}
            )
            return self._checked(answer, fine)

        return await self.with_token(once)

    async def get(
        self, endpoint: str, *, fine: Container[int] = (), **query: str
    ) -> dict[str, Any]:
        """The same for what is asked by GET."""

        async def once(token: str) -> dict[str, Any]:
            answer = await self._caller.get(f"cgi-bin/{endpoint}", {"access_token": token, **query})
            return self._checked(answer, fine)

        return await self.with_token(once)

    async def upload(self, file: File, kind: str) -> str:
        """The media id of a file, good for three days; raises SendError, never `unknown`."""

        async def once(token: str) -> dict[str, Any]:
            asked = {"access_token": token, "type": kind}
            return self._checked(await self._caller.upload("cgi-bin/media/upload", file, asked))

        try:
            return str((await self.with_token(once))["media_id"])
        except SendError as error:
            if error.unknown:  # the upload, not the message
                raise SendError("no_media", detail=error.detail) from None
            raise
        except KeyError:
            raise SendError("no_media", detail="not understood") from None

    def _checked(self, answer: dict[str, Any], fine: Container[int] = ()) -> dict[str, Any]:
        code = answer.get("errcode")
        if code not in fine:
            self.check(code, answer.get("errmsg"))
        return answer

    async def with_token(self, call: Callable[[str], Awaitable[T]]) -> T:
        """Call with the token; once more with another one if the platform does not take it."""
        return await self._tokens.use(call)

    def check(self, code: object, message: object) -> None:
        """Return if the platform did what it was asked; else raise DeadToken or SendError.

        Its errors come with HTTP status 200.
        """
        number = int(str(code or 0))
        if number in DEAD_TOKEN:
            raise DeadToken
        if number:
            raise refusal(number, str(message), self._clock.now())

    async def _fetch(self) -> tuple[str, int]:
        body = {
            "grant_type": "client_credential",
            "appid": self._app_id,
            "secret": self._secret.get_secret_value(),
        }
        answer = await self._caller.post("cgi-bin/stable_token", body)
        try:
            self.check(answer.get("errcode"), answer.get("errmsg"))
        except DeadToken:
            raise refusal(40125, "", self._clock.now()) from None
        return str(answer["access_token"]), int(answer["expires_in"])


def refusal(code: int, message: str, now: datetime) -> Refusal:
    """What an `errcode` means for the message in hand and for the channel."""
    error = _meaning(code, message, now)
    error.code = code
    return error


def _meaning(code: int, message: str, now: datetime) -> Refusal:
    detail = f"errcode {code}"
    if code in _PERMANENT:
        return Refusal(_PERMANENT[code], permanent=True, detail=detail)
    if code in _STOPPING:
        found = _IP.search(message)
        words = _STOPPING[code].format(ip=found[1] if found else "（未知）")
        return Refusal(
            "stopped", stop_channel=True, retry_after=STOPPED, detail=f"{detail}：{words}"
        )
    if code == 45009:
        return Refusal("quota", retry_after=_until_midnight(now), detail=detail)
    if code == 45011:
        return Refusal("quota", retry_after=60.0 - now.second, detail=detail)
    return Refusal("busy" if code == -1 else "refused", detail=detail)


def _until_midnight(now: datetime) -> float:
    """Seconds until the platform's day ends, which is Beijing's."""
    here = beijing(now)
    morrow = (here + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (morrow - here).total_seconds()
