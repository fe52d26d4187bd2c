"""The real try for `hongyan check`: the app's token, its state, who sees it, its address, and what
it may ask of the platform."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from bot.channels.base import Finding
from bot.channels.envelope import Envelope
from bot.channels.wecom.api import WeComApi
from bot.channels.wecom.callback import PATH
from bot.channels.wecom.reaching import reachable
from bot.clock import Clock
from bot.errors import SendError
from bot.settings import Settings

APP = "企业微信应用"
VISIBLE = "应用的可见范围"
CALLBACK = "应用的回调地址"


async def probe(
    api: WeComApi, settings: Settings, envelope: Envelope, clock: Clock
) -> Sequence[Finding]:
    """Both ways: what we may ask of the platform, and whether it finds us."""
    where = "企业微信管理后台「应用管理 → 自建 → 接收消息 → 设置API接收」"
    return [
        *await _app(api, settings.wecom_agent_id),
        await reachable(CALLBACK, where, settings.public_url, PATH, envelope, clock),
    ]


async def allowed(
    lacking: Sequence[str],
    what: str,
    where: str,
    ask: Callable[[], Awaitable[Sequence[str]]],
) -> tuple[Sequence[str], Finding | None]:
    """What the platform answers; or what is missing, in the settings or, on the page `where` of the
    console, of the app's rights."""
    if lacking:
        return (), Finding(False, "设置", "；".join(lacking))
    try:
        return await ask(), None
    except SendError as error:
        advice = (
            f"{error.detail or error.reason}。请在管理后台「{where}→API→可调用接口的应用」"
            "勾选本应用"
        )
        return (), Finding(False, f"{what}接口", advice)


async def _app(api: WeComApi, agent_id: str) -> Sequence[Finding]:
    try:
        app = await api.call("agent/get", query={"agentid": agent_id})
    except SendError as error:
        return [Finding(False, APP, _advice(error))]
    name = f"{APP}「{app.get('name', '')}」"
    if app.get("close"):
        return [Finding(False, name, "应用已停用：请在企业微信管理后台的应用页启用")]
    return [Finding(True, name), _seen_by(app)]


def _advice(error: SendError) -> str:
    """What to do: our table of the platform's errors says it where a person must act."""
    _, _, words = error.detail.partition("：")
    if words:
        return words
    if error.reason in ("no_connection", "no_answer", "no_token", "server_error"):
        return f"连不上 qyapi.weixin.qq.com（{error.detail}）：请检查外网访问或 HTTPS_PROXY"
    return f"平台拒绝了（{error.detail}），请稍后再试"


def _seen_by(app: dict[str, object]) -> Finding:
    """The platform lists members, departments and tags; without any nobody can be written to."""
    counted = []
    for name, key, unit in (
        ("allow_userinfos", "user", "名成员"),
        ("allow_partys", "partyid", "个部门"),
        ("allow_tags", "tagid", "个标签"),
    ):
        listed = app.get(name)
        found = listed.get(key) if isinstance(listed, dict) else None
        if isinstance(found, list) and found:
            counted.append(f"{len(found)}{unit}")
    if not counted:
        return Finding(False, VISIBLE, "还没有人：请在应用页的「可见范围」里加上要用它的同事")
    return Finding(True, f"{VISIBLE}：{'、'.join(counted)}")
