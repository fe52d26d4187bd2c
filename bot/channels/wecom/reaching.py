"""Is our callback reached from outside? Asked as WeCom's console does, for `hongyan check`."""

from __future__ import annotations

import secrets
import ssl

import aiohttp

from bot.channels.base import Finding
from bot.channels.calls import authorities
from bot.channels.envelope import Envelope
from bot.clock import Clock

TIMEOUT = aiohttp.ClientTimeout(total=5)


async def reachable(
    what: str, where: str, public_url: str, path: str, envelope: Envelope, clock: Clock
) -> Finding:
    """Ask our own address for an echo sealed with our own key; the platform waits one second.

    `what` is the callback's name for people, `where` the page of the console that names it.
    """
    # On this machine there is nobody in between who could read along.
    if not public_url.startswith(("https://", "http://127.")):
        return Finding(False, what, "HONGYAN_PUBLIC_URL 未填，或不是 https:// 开头")
    url = f"{public_url.rstrip('/')}{path}"
    echo = str(secrets.randbelow(10**18))
    sealed = envelope.seal(echo, int(clock.now().timestamp()), secrets.token_hex(5))
    query = {
        "msg_signature": sealed.signature,
        "timestamp": str(sealed.timestamp),
        "nonce": sealed.nonce,
        "echostr": sealed.encrypt,
    }
    try:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authorities()))
        async with (
            aiohttp.ClientSession(trust_env=True, timeout=TIMEOUT, connector=connector) as session,
            session.get(url, params=query, allow_redirects=False) as response,
        ):
            status, answer = response.status, await response.text(errors="replace")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Finding(
            False,
            what,
            f"访问 {url} 不通（{type(error).__name__}）："
            "请启动 hongyan serve，并检查反向代理与证书",
        )
    if status != 200 or answer != echo:
        return Finding(
            False,
            what,
            f"{url} 答得不对（HTTP {status}）：请确认反向代理把它转给 hongyan serve，"
            "且正在运行的程序用的是同一份设置",
        )
    return Finding(True, what, f"{where}里的 URL 应填 {url}")
