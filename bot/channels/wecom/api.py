"""WeCom's API: one access token for all calls of an app, and what its errors mean to us."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import SecretStr

from bot.channels.calls import Caller
from bot.channels.tokens import DeadToken, Tokens
from bot.clock import Clock
from bot.errors import SendError
from bot.messages import File

DEAD_TOKEN = frozenset({40001, 40014, 42001})

# Asked for again while it lives, the platform gives the same token: asking sooner wins nothing.
RENEW_BEFORE = timedelta(0)
STOPPED = 300.0  # seconds between two looks whether a person has mended the app
FULL = 60.0  # seconds until a frequency limit is tried again

_PERMANENT: Mapping[int, str] = {
    40003: "unreachable",  # no such member
    40031: "unreachable",
    60011: "unreachable",  # a member beyond what the app may see
    60111: "unreachable",
    81013: "unreachable",  # nobody of those addressed is in the app's visible range
    86001: "unreachable",  # no such group
    86008: "unreachable",
    40004: "kind",
    40008: "kind",
    40007: "media",
    40009: "too_large",
    40006: "too_large",
    45001: "too_large",
    44004: "empty",
    40058: "format",
    47001: "format",
    45002: "too_long",
    45008: "too_long",
}
_STOPPING: Mapping[int, str] = {
    40001: "Secret 不对，请在企业微信管理后台的应用页重新复制到 HONGYAN_WECOM_SECRET",
    40013: "企业ID 不对，请在「我的企业」页核对 HONGYAN_WECOM_CORP_ID",
    40056: "AgentId 不对，请在应用页核对 HONGYAN_WECOM_AGENT_ID",
    48002: "应用没有这项接口的权限，请在企业微信管理后台的应用页查看",
    50001: "应用的可信域名未设置，请在应用页设置",
    50003: "应用已被停用，请在企业微信管理后台的应用页启用",
    60020: "服务器地址 {ip} 不在应用的「企业可信IP」里，请到应用页底部添加",
    301002: "这个 Secret 与 AgentId 不是同一个应用的，请在应用页一并重新复制",
}
_BUSY: Mapping[int, float] = {45009: FULL, 45033: 5.0}
_IP = re.compile(r"from ip: ?([0-9A-Fa-f.:]+)")


class WeComApi:
    """Calls with the token of one app; the token and the secret stand in no error and no log."""

    def __init__(self, caller: Caller, corp_id: str, secret: SecretStr, clock: Clock) -> None:
        self._caller = caller
        self._corp_id = corp_id
        self._secret = secret
        self._tokens = Tokens(self._fetch, clock, renew_before=RENEW_BEFORE)

    async def call(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """POST `body` (or GET, without one) to a path such as `message/send`; raises SendError."""

        async def once(token: str) -> dict[str, Any]:
            asked = {"access_token": token, **(query or {})}
            if body is None:
                answer = await self._caller.get(f"cgi-bin/{path}", asked)
            else:
                answer = await self._caller.post(f"cgi-bin/{path}", body, asked)
            return check(answer)

        return await self._tokens.use(once)

    async def upload(self, file: File, kind: str = "file") -> str:
        """The media id of a file (5 bytes to 20 MB, for 3 days); raises SendError."""

        async def once(token: str) -> dict[str, Any]:
            asked = {"access_token": token, "type": kind}
            return check(await self._caller.upload("cgi-bin/media/upload", file, asked))

        return str((await self._tokens.use(once))["media_id"])

    async def _fetch(self) -> tuple[str, int]:
        asked = {"corpid": self._corp_id, "corpsecret": self._secret.get_secret_value()}
        answer = await self._caller.get("cgi-bin/gettoken", asked)
        try:
            check(answer)
        except DeadToken:
            raise refusal(40001, "") from None
        return str(answer["access_token"]), int(answer["expires_in"])


def check(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, if the platform did what it was asked; else raises DeadToken or SendError.

    Its errors come with HTTP status 200.
    """
    code = int(str(answer.get("errcode") or 0))
    if code in DEAD_TOKEN:
        raise DeadToken
    if code:
        raise refusal(code, str(answer.get("errmsg")))
    return answer


def refusal(code: int, message: str) -> SendError:
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
    if code in _BUSY:
        return SendError("quota", retry_after=_BUSY[code], detail=detail)
    return SendError("busy" if code == -1 else "refused", detail=detail)


def code_of(error: SendError) -> int:
    """The platform's own number of an error, 0 without one."""
    number = error.detail.removeprefix("errcode ").partition("：")[0]
    return int(number) if number.lstrip("-").isdigit() else 0
