"""The platforms as a process of their own, to be tried by hand or by another program.

    python -m tests.emulators --port 9000

serves WeChat, WeCom and Telegram on 127.0.0.1 until Ctrl-C. The first line printed is JSON: `url`,
`port`, and `settings`, which is what an operator would copy from the platforms' consoles; put it
into `HONGYAN_…` variables, and any installation on this machine talks to the emulators:

    HONGYAN_CHANNELS=telegram HONGYAN_TELEGRAM_API_BASE=http://127.0.0.1:9000 … hongyan serve

What people and consoles do is asked by `POST /control/<emulator>/<verb>` with the verb's keywords
as JSON (`{}` for none); the answer is `{"result": …}`, or `{"error": …}` with status 400 or 404.
The verbs are the methods marked `@control` in the modules beside this one. A few:

    curl -d '{"callback_url": "http://127.0.0.1:8080/callback/wechat"}' $URL/control/wechat/connect
    curl -d '{"openid": "oWang"}'                   $URL/control/wechat/follow
    curl -d '{"openid": "oWang", "text": "登记"}'    $URL/control/wechat/say
    curl -d '{"openid": "oWang"}'                   $URL/control/wechat/transcript
    curl -d '{"id": 1001, "name": "王小雁"}'         $URL/control/telegram/person
    curl -d '{"user": 1001, "text": "/start"}'      $URL/control/telegram/say
    curl -d '{"userid": "wang"}'                    $URL/control/wecom/hire
    curl -d '{"userid": "wang", "text": "菜单"}'     $URL/control/wecom/say
    curl -d '{"hours": 48}'                         $URL/control/clock/advance
    curl -d '{}'                                    $URL/control/platforms/transcripts

To make a platform fail, name the endpoint as its own documents do, what goes wrong (see
`tests.emulators.faults`), whether before or after the platform has done its work, and how often:

    curl -d '{"endpoint": "cgi-bin/message/custom/send", "what": "cut", "when": "after"}' \
        $URL/control/wechat/fail
    curl -d '{"endpoint": "sendMessage", "what": "errcode", "value": 429, "times": 3}' \
        $URL/control/telegram/fail
    curl -d '{}' $URL/control/wechat/kill_tokens
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys

from bot.clock import SystemClock
from tests.emulators.clock import VirtualClock
from tests.emulators.server import Platforms
from tests.emulators.telegram import Rules, Telegram
from tests.emulators.wechat import Account, WeChat


async def run(given: argparse.Namespace) -> None:
    """Serve on 127.0.0.1, until cancelled or, if attached, until standard input ends."""
    clock = VirtualClock(SystemClock().now(), rate=given.rate)
    rules = Rules(per_chat=None, per_group=None, overall=None) if given.unlimited else Rules()
    platforms = Platforms(
        clock,
        telegram=Telegram(clock, rules=rules),
        wechat=WeChat(clock, account=Account(app_id=given.app_id)),
        port=given.port,
    )
    for name in given.group:
        platforms.wecom_webhook.make_group(name)
    async with platforms:
        port = int(platforms.url.rsplit(":", 1)[1])
        line = {"port": port, "url": platforms.url, "settings": platforms.settings()}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        if given.attached:
            await _end_of_input()
        else:
            await platforms.serve_for_ever()


async def _end_of_input() -> None:
    """Return when whoever started us has closed our standard input, or is gone."""
    ended = asyncio.Event()
    loop, source = asyncio.get_running_loop(), sys.stdin.fileno()

    def look() -> None:
        if not os.read(source, 4096):
            loop.remove_reader(source)
            ended.set()

    loop.add_reader(source, look)
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.emulators",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--rate", type=float, default=1.0, help="virtual seconds per real one")
    parser.add_argument("--unlimited", action="store_true", help="no 429 from Telegram")
    parser.add_argument("--app-id", default=Account().app_id, help="of the Official Account")
    parser.add_argument(
        "--group", action="append", default=[], help="name of a group with message push"
    )
    parser.add_argument("--attached", action="store_true", help="end with standard input")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(given))


if __name__ == "__main__":
    main()
