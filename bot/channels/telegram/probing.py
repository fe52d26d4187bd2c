"""The real try for `hongyan check`: what the platform says of our token, groups and webhook."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from telegram import User as Bot
from telegram import WebhookInfo

from bot.channels.base import Finding
from bot.channels.telegram.wire import InvalidToken, TelegramError, Wire, as_send_error
from bot.clock import show_time
from bot.settings import Settings

RECENT = timedelta(hours=1)
MANY = 100  # updates that wait

POLICIES = {
    "public_only": "只答公开的事，不弹表单，不存任何人",
    "overseas_self": "只为自述在境外、单独同意 S7 的乡亲本人登记；不收手机和敏感项",
    "full": "不设限；须有评估或备案文号",
}


async def probe(
    wire: Wire, settings: Settings, webhook: str, kinds: Sequence[str], now: datetime
) -> Sequence[Finding]:
    """Ask getMe and getWebhookInfo, never for updates: somebody else may be polling."""
    policy = settings.telegram_policy
    found = [Finding(True, f"Telegram 跨境模式 {policy}：{POLICIES[policy]}")]
    try:
        me = await wire.get_me()
        info = await wire.get_webhook_info()
    except InvalidToken:
        return [*found, _REFUSED]
    except TelegramError as error:
        return [*found, _unreachable(error, bool(settings.telegram_proxy))]
    polling = settings.telegram_mode == "polling"
    return [
        *found,
        Finding(True, f"Telegram 令牌有效：@{me.username}"),
        *_groups(me),
        *(_for_polling(info) if polling else _for_webhook(info, webhook, kinds, now)),
    ]


_REFUSED = Finding(
    False,
    "Telegram 不认 HONGYAN_TELEGRAM_TOKEN",
    "在 Telegram 里找 @BotFather，发 /mybots，选这个机器人，点 API Token，"
    "把「数字:字母」整段填进设置；点过 Revoke 的旧令牌不能再用。",
)


_WORDS = {"no_connection": "网络不通", "server_error": "平台故障", "flood": "被限流"}


def _unreachable(error: TelegramError, proxied: bool) -> Finding:
    way = (
        "请核对 HONGYAN_TELEGRAM_PROXY 能否访问 api.telegram.org"
        if proxied
        else "国内网络到不了 api.telegram.org，请填 HONGYAN_TELEGRAM_PROXY（或 HTTPS_PROXY）"
    )
    return Finding(
        False,
        f"连不上 Telegram（{_WORDS.get(as_send_error(error).reason, '没有答复')}）",
        f"{way}。连上之前其他渠道照常服务，本渠道会一直重试。",
    )


def _groups(me: Bot) -> Sequence[Finding]:
    if me.can_read_all_group_messages:
        yours = Finding(
            False,
            "群里每句话都会送到机器人（Group Privacy 是关的）",
            "在 @BotFather 发 /setprivacy，选这个机器人，点 Enable；"
            "然后把机器人移出各群、再拉进来，才会生效。",
        )
    else:
        yours = Finding(True, "在群里只收到指令、提到它和回复它的话（Group Privacy 已开）")
    if me.can_join_groups is False:
        return (
            yours,
            Finding(True, "不能拉进群；要进群，在 @BotFather 发 /setjoingroups 选 Enable"),
        )
    return (yours,)


def _for_polling(info: WebhookInfo) -> Sequence[Finding]:
    if info.url:
        return (
            Finding(
                False,
                f"这个机器人登记着 webhook：{_host(info.url)}",
                "设置是 polling：serve 启动时会取消它。那若是另一套系统，请先把那边停掉，"
                "或另建一个机器人；同一个令牌只能由一处收消息。",
            ),
        )
    return (Finding(True, f"polling 方式，平台上没有登记 webhook{_waiting(info)}"),)


def _for_webhook(
    info: WebhookInfo, webhook: str, kinds: Sequence[str], now: datetime
) -> Sequence[Finding]:
    if not info.url:
        return (Finding(True, "webhook 还没登记，serve 启动时会自动登记"),)
    if info.url != webhook:
        return (
            Finding(
                False,
                f"平台上登记的 webhook 是 {_host(info.url)}，不是本机的 {_host(webhook)}",
                "核对 HONGYAN_PUBLIC_URL 后重启 serve，会重新登记；"
                "若是另一套系统在用这个令牌，请先停掉那边。",
            ),
        )
    found = []
    missing = sorted(set(kinds) - set(info.allowed_updates or ()))
    if missing:
        found.append(
            Finding(
                False, f"登记的 webhook 收不到：{'、'.join(missing)}", "重启 serve，会重新登记。"
            )
        )
    failed = info.last_error_date
    if failed is not None and failed > now - RECENT:
        found.append(
            Finding(
                False,
                f"平台{show_time(failed)}调用 webhook 失败：{info.last_error_message}",
                _remedy(info.last_error_message or ""),
            )
        )
    return found or (Finding(True, f"webhook 已登记，最近一小时没有失败{_waiting(info)}"),)


def _remedy(said: str) -> str:
    if "403" in said:
        return "校验口令对不上：改过 HONGYAN_TELEGRAM_SECRET 后要重启 serve，才会重新登记。"
    if "SSL" in said or "certificate" in said:
        return "HONGYAN_PUBLIC_URL 的证书要由公认机构签发、没有过期，并带上中间证书。"
    if "404" in said:
        return "反向代理没有把 /callback/telegram 转给 serve。"
    return "HONGYAN_PUBLIC_URL 要能从公网访问，端口是443、80、88或8443，并转到 serve。"


def _waiting(info: WebhookInfo) -> str:
    count = info.pending_update_count
    return f"；有{count}条消息在平台上等着收" if count > MANY else ""


def _host(url: str) -> str:
    """Without the path, which in another system may hold its secret."""
    return "/".join(url.split("/", 3)[:3])
