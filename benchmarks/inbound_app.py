"""Our side of the inbound measurements: everything that is declared, and a ten-question form."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Annotated

from benchmarks.wechat_load import AES_KEY, APP_ID, TOKEN
from bot import web
from bot.app import App, facts_of, services_for, tune_interpreter
from bot.catalog import Catalog, collect
from bot.channels.base import Channel
from bot.channels.callback import Patience
from bot.channels.wechat.callback import SLOW
from bot.channels.wechat.channel import WeChatChannel
from bot.clock import SystemClock
from bot.commands import Command, command
from bot.context import Context
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss
from bot.settings import demo_settings

PATH = "/callback/wechat"
KEYS = "k1:0123456789abcdef0123456789abcdef"


def digit(text: str, _asking: Asking) -> int | Miss:
    """One number."""
    return int(text) if text.isdigit() else Miss("请回数字。")


def question(number: int) -> object:
    """An annotated field."""
    return Annotated[int, Ask(f"第{number}项", "请回数字。", digit, counted=True)]


class TenQuestions(Form, name="ten_questions", label="十题"):
    """As long as the peer's."""

    finish = None
    q1: question(1)  # type: ignore[valid-type]  # ten alike
    q2: question(2)  # type: ignore[valid-type]
    q3: question(3)  # type: ignore[valid-type]
    q4: question(4)  # type: ignore[valid-type]
    q5: question(5)  # type: ignore[valid-type]
    q6: question(6)  # type: ignore[valid-type]
    q7: question(7)  # type: ignore[valid-type]
    q8: question(8)  # type: ignore[valid-type]
    q9: question(9)  # type: ignore[valid-type]
    q10: question(10)  # type: ignore[valid-type]

    def submit(self, context: Context) -> Reply:
        return say("填完了。")


@command("开始")
def begin(context: Context, _argument: str) -> Reply:
    """Open the form."""
    return context.begin(TenQuestions)


def everything() -> Catalog:
    """All handlers of this release, and the form beside them."""
    known = collect()
    commands = {**known.values, Command: [*known.of(Command), begin]}
    return replace(known, values=commands, forms={**known.forms, TenQuestions.name: TenQuestions})


def installation(url: str, *, hurried: bool = True) -> App:
    """A migrated installation whose one channel is an Official Account in safe mode.

    Not `hurried`, it waits an hour where a platform waits for seconds.
    """
    settings = demo_settings(
        database_url=url,
        channels="wechat",
        wechat_app_id=APP_ID,
        wechat_app_secret="s" * 32,
        wechat_token=TOKEN,
        wechat_aes_key=AES_KEY,
        wechat_api_base="http://127.0.0.1:9",
    )
    clock = SystemClock()
    patience, slow = (Patience(), SLOW) if hurried else (Patience(3600, 3600), 3600.0)
    channels: dict[str, Channel] = {
        "wechat": WeChatChannel(settings, clock, patience=patience, slow=slow)
    }
    services = services_for(
        settings,
        facts_of(channels),
        keys=KEYS,
        clock=clock,
        catalog=everything(),
    )
    services.database.migrate()
    return App(services, channels, alone=services.database.sqlite)


def serve(url: str, port: int) -> None:
    """Our server in this process: the real channel, dispatcher and storage."""
    app = installation(url)
    tune_interpreter()
    with asyncio.Runner(loop_factory=web.new_loop) as runner:
        runner.run(web.serve(app, web.listen("127.0.0.1", port), ("web",)))


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
