"""`hongyan demo --platforms`: the real channels, talking to platforms that run on this machine."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl
from urllib.request import ProxyHandler, Request, build_opener

from jinja2 import Environment, StrictUndefined
from starlette.requests import Request as Asked
from starlette.responses import HTMLResponse, RedirectResponse, Response

from bot.channels.demo import ACCOUNT
from bot.clock import MovableClock, show_time
from bot.errors import ConfigError

CHECKOUT = Path(__file__).parents[2]
EMULATORS = CHECKOUT / "tests" / "emulators" / "__main__.py"
CHANNELS = ("wechat", "telegram", "wecom", "wecom_bot", "wecom_webhook", "wecom_kf")
GROUP = "工作群"
PATIENCE = 5.0  # seconds for the emulators to answer one control call
ENDING = 5.0  # seconds for their process to end by itself

PEOPLE: Mapping[str, Sequence[tuple[str, str]]] = {
    "wechat": (("oWang", "王小雁"), ("oLi", "李远归")),
    "telegram": (("1001", "阿古拉"),),
    "wecom": (("bao", "包统筹"),),
    "wecom_bot": (("bao", "包统筹"),),
    "wecom_kf": (("wmZhao", "赵来电"),),
}
"""Who may speak on the page, by channel: their id there and an invented name."""

LABELS = {
    "wechat": "微信公众号",
    "telegram": "Telegram",
    "wecom": "企业微信",
    "wecom_bot": "企业微信智能机器人",
    "wecom_kf": "微信客服",
    "wecom_webhook": "企业微信工作群",
}


# Whatever proxy this machine uses: the emulators are on it.
_ASK = build_opener(ProxyHandler({})).open

PATH = "/demo/platforms"
HEADERS = {"Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'"}
_PAGE = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
).from_string(resources.files("bot.demo").joinpath("platforms.html").read_text(encoding="utf-8"))


class Emulators:
    """The emulators' process at `url`, with the `settings` that its consoles show."""

    def __init__(self, url: str, settings: Mapping[str, str]) -> None:
        self.url = url
        self.settings = settings

    def control(self, emulator: str, verb: str, **keywords: Any) -> Any:
        """Ask it for a verb; raises ValueError with its own words where it refuses."""
        request = Request(  # noqa: S310  # our own child, on this machine
            f"{self.url}/control/{emulator}/{verb}", json.dumps(keywords).encode()
        )
        try:
            with _ASK(request, timeout=PATIENCE) as response:
                return json.load(response)["result"]
        except HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None

    def settle(self, address: str, followers: Sequence[str]) -> None:
        """People move in, and the consoles are told where we are called."""
        self.control("wechat", "connect", callback_url=f"{address}/callback/wechat")
        self.control("wecom", "connect", callback_url=f"{address}/callback/wecom")
        self.control("wecom_bot", "connect", callback_url=f"{address}/callback/wecom-bot")
        followed = [*followers, *(user for user, _name in PEOPLE["wechat"])]
        self.control("wechat", "followed", openids=followed)
        for user, name in PEOPLE["telegram"]:
            self.control("telegram", "person", id=int(user), name=name)
        for user, name in PEOPLE["wecom"]:
            self.control("wecom", "hire", userid=user, name=name)
        for user, _name in PEOPLE["wecom_bot"]:
            self.control("wecom_bot", "hire", user=user)
        for user, _name in PEOPLE["wecom_kf"]:
            self.control("wecom_kf", "find", user=user)

    def say(self, channel: str, user: str, text: str) -> None:
        """Let one of `PEOPLE` write; raises ValueError where their platform does not let them."""
        match channel:
            case "wechat":
                self.control(channel, "say", openid=user, text=text)
            case "telegram":
                self.control(channel, "say", user=int(user), text=text)
            case "wecom":
                self.control(channel, "say", userid=user, text=text)
            case _:
                self.control(channel, "say", user=user, text=text)


@contextmanager
def emulators() -> Iterator[Emulators]:
    """Their process, which ends with ours; raises ConfigError where there is none to start."""
    if not EMULATORS.is_file():
        raise ConfigError(
            "模拟平台（tests/emulators）不在这里：--platforms 要在源代码目录里运行，"
            "如 make demo ARGS=--platforms"
        )
    command = [sys.executable, "-m", "tests.emulators", "--attached", "--unlimited"]
    process = subprocess.Popen(  # noqa: S603  # our own program, with fixed words
        [*command, "--app-id", ACCOUNT, "--group", GROUP],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        if not first:
            raise ConfigError("模拟平台没有起来；请运行 python -m tests.emulators 看它缺什么。")
        told = json.loads(first)
        yield Emulators(told["url"], told["settings"])
    finally:
        process.stdin.close()
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class LeadingClock(MovableClock):
    """The demo's clock, which the platforms follow when it is set."""

    def __init__(self, start: datetime, platforms: Emulators) -> None:
        self._platforms = platforms
        super().__init__(start, running=True)
        self._lead()

    def set(self, moment: datetime) -> None:
        super().set(moment)
        self._lead()

    def _lead(self) -> None:
        self._platforms.control("clock", "move_to", moment=self.now().isoformat())


# - the page -


def pages(platforms: Emulators) -> tuple[Callable[[Asked], Any], Callable[[Asked], Any]]:
    """Endpoints of `PATH`: GET shows every phone, POST lets one of `PEOPLE` speak."""
    token = secrets.token_urlsafe(16)

    async def show(request: Asked) -> Response:
        return await _shown(platforms, token, "")

    async def say(request: Asked) -> Response:
        given = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        # Another site's form could post here too, but knows no token.
        if not hmac.compare_digest(given.get("token", "").encode(), token.encode()):
            return await _shown(platforms, token, "这一页已经过时，请重新发送。")
        channel, user, text = (given.get(name, "") for name in ("channel", "user", "text"))
        if not text.strip() or user not in dict(PEOPLE.get(channel, ())):
            return await _shown(platforms, token, "没有这个人，或没有写字。")
        try:
            await asyncio.to_thread(platforms.say, channel, user, text.strip()[:1000])
        except (ValueError, OSError) as error:
            return await _shown(platforms, token, str(error))
        return RedirectResponse(PATH, 303)

    return show, say


async def _shown(platforms: Emulators, token: str, refused: str) -> Response:
    found = await asyncio.to_thread(platforms.control, "platforms", "transcripts")
    phones = [(c, LABELS[c], _people(c, found.get(c, {}))) for c in CHANNELS]
    text = _PAGE.render(phones=phones, url=platforms.url, token=token, refused=refused, path=PATH)
    return HTMLResponse(text, 400 if refused else 200, headers=HEADERS)


def _people(channel: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Any]:
    """Those who can speak, then everybody else who was written to."""
    names = dict(PEOPLE.get(channel, ()))
    others = [user for user, lines in found.items() if user not in names and lines]
    return [
        (user, names.get(user, user), _lines(found.get(user, ())), user in names)
        for user in (*names, *others)
    ]


def _lines(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (show_time(datetime.fromtimestamp(line["at"], UTC)), line["by"], line["text"])
        for line in lines
    ]
