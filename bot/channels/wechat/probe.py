"""A trial of the account for `hongyan check`: what works, and what to click where it does not."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bot.channels.base import Finding
from bot.channels.calls import Caller
from bot.channels.envelope import Envelope
from bot.channels.wechat.api import Refusal, WeChatApi
from bot.channels.wechat.menu import Button
from bot.channels.wechat.notices import Template
from bot.errors import SendError

BASICS = "公众平台「设置与开发 → 开发接口管理 → 基本配置」"
RIGHTS = "公众平台「设置与开发 → 开发接口管理 → 接口权限」"
NO_MENU = 46003
NO_RIGHT = 48001
FEW = 0.1  # of a day's calls: below it the operator is told

_ADVICE: Mapping[int, str] = {
    40013: f"到{BASICS}核对「开发者ID（AppID）」，填进 HONGYAN_WECHAT_APP_ID",
    40125: f"到{BASICS}重置「开发者密码（AppSecret）」，填进 HONGYAN_WECHAT_APP_SECRET",
    40164: f"到{BASICS}的「IP白名单」点「查看 → 修改」，加上上面写的地址",
    48001: f"到{RIGHTS}看这一项是否「已获得」；认证到期请在「设置与开发 → 认证管理」续办",
    48004: "公众平台首页的「通知中心」写有封禁原因和申诉办法",
    50002: "公众平台首页的「通知中心」写有限制原因和申诉办法",
}
_QUOTAS: Mapping[str, str] = {
    "/cgi-bin/message/custom/send": "客服消息",
    "/cgi-bin/message/mass/send": "按名单群发",
    "/cgi-bin/message/template/send": "模板消息",
}


class Probe:
    """Asks the platform what it would refuse; nothing is sent to anybody."""

    def __init__(
        self,
        api: WeChatApi,
        envelope: Envelope,
        public_url: str,
        menu: Sequence[Button],
        templates: Mapping[str, Template],
    ) -> None:
        self._api = api
        self._envelope = envelope
        self._public_url = public_url
        self._menu = menu
        self._templates = templates

    async def findings(self, path: str, now: datetime) -> list[Finding]:
        """Everything that was found; after a refused token nothing else can be asked."""
        callback = await self._callback(path, now)
        token = await self._token()
        if not token.fine:
            return [token, callback]
        rest = await asyncio.gather(
            self._right("客服消息", "customservice/getkflist"),
            self._right("用户信息", "user/get"),
            self._templates_known(),
            *(self._quota(path, what) for path, what in _QUOTAS.items()),
            self._menu_set(),
        )
        return [token, callback, *rest]

    async def _token(self) -> Finding:
        what = "公众号的令牌"
        try:
            await self._api.with_token(_nothing)
        except SendError as error:
            return _trouble(what, error)
        return Finding(True, f"{what}取到了")

    async def _callback(self, path: str, now: datetime) -> Finding:
        """Call our own address as the console does."""
        what = "微信回调地址"
        if not self._public_url:
            return Finding(
                False, f"{what}：没有设外网地址", "请设 HONGYAN_PUBLIC_URL，微信要从外网访问这里"
            )
        address = f"{self._public_url}{path}"
        stamp, nonce = str(int(now.timestamp())), secrets.token_hex(5)
        echo = {"echo": secrets.token_hex(8)}  # JSON, because that is what a Caller reads
        query = {"timestamp": stamp, "nonce": nonce, "echostr": json.dumps(echo)}
        query["signature"] = self._envelope.sign(stamp, nonce)
        caller = Caller(self._public_url)
        try:
            answer = await caller.get(path.lstrip("/"), query)
        except SendError as error:
            if error.reason != "server_error":
                return Finding(
                    False,
                    f"{what} {address} 从这里打不开（{error.detail or error.reason}）",
                    "请确认 hongyan serve 在运行、域名解析到这台服务器、反向代理转给了它",
                )
            answer = {}
        finally:
            await caller.close()
        if answer != echo:
            return Finding(
                False,
                f"{what} {address} 打得开，但答得不对",
                f"请核对反向代理；{BASICS}里的 Token 要与 HONGYAN_WECHAT_TOKEN 相同",
            )
        return Finding(True, f"{what} {address} 通")

    async def _right(self, what: str, endpoint: str) -> Finding:
        try:
            await self._api.get(endpoint)
        except SendError as error:
            return _trouble(f"接口「{what}」", error)
        return Finding(True, f"接口「{what}」可用")

    async def _templates_known(self) -> Finding:
        what = "模板消息"
        try:
            answer = await self._api.get("template/get_all_private_template")
        except SendError as error:
            if _code(error) == NO_RIGHT and not self._templates:
                return Finding(True, f"接口「{what}」未开通，也没有用到")
            return _trouble(f"接口「{what}」", error)
        there = {str(one.get("template_id")) for one in answer.get("template_list", ())}
        lost = sorted(p for p, template in self._templates.items() if template.id not in there)
        if lost:
            return Finding(
                False,
                f"模板消息：{'、'.join(lost)} 的模板编号在账号里没有",
                "到公众平台「广告与服务 → 模板消息 → 我的模板」核对 HONGYAN_WECHAT_TEMPLATES",
            )
        return Finding(True, f"接口「{what}」可用，已配{len(self._templates)}个")

    async def _quota(self, path: str, what: str) -> Finding:
        try:
            answer = await self._api.post("openapi/quota/get", {"cgi_path": path})
        except SendError as error:
            return Finding(True, f"「{what}」今天的余量没问到（{error.detail or error.reason}）")
        found: dict[str, Any] = answer.get("quota") or {}
        limit, left = int(found.get("daily_limit") or 0), int(found.get("remain") or 0)
        words = f"「{what}」今天还可调用{left}次（共{limit}次）"
        if limit and left < limit * FEW:
            return Finding(False, words, "当天额度快用完，零点（北京时间）恢复；群发请改到明天")
        return Finding(True, words)

    async def _menu_set(self) -> Finding:
        what = "公众号菜单"
        if not self._menu:
            return Finding(True, f"{what}：没有设，也不去动")
        try:
            answer = await self._api.get("menu/get", fine={NO_MENU})
        except SendError as error:
            return _trouble(what, error)
        shown = [one.get("name") for one in (answer.get("menu") or {}).get("button", ())]
        wanted = [button.name for button in self._menu]
        if shown != wanted:
            there = "、".join(map(str, shown)) or "空"
            return Finding(
                False,
                f"{what}现在是「{there}」，应是「{'、'.join(wanted)}」",
                "启动 hongyan serve 时会设好；手机上可能晚一天看到，取消关注再关注可立即看到",
            )
        return Finding(True, f"{what}：{'、'.join(wanted)}")


async def _nothing(_token: str) -> None:
    return None


def _code(error: SendError) -> int:
    return error.code if isinstance(error, Refusal) else 0


def _trouble(what: str, error: SendError) -> Finding:
    advice = _ADVICE.get(_code(error), "")
    if not advice and error.reason in ("no_connection", "no_answer", "no_token", "server_error"):
        advice = "请检查这台服务器能否访问 api.weixin.qq.com，需要代理时设 HTTPS_PROXY"
    return Finding(False, f"{what}：{error.detail or error.reason}", advice)
