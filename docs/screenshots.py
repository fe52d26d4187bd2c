"""Takes the pictures of the demo for README: `python -m docs.screenshots` writes docs/images/."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from threading import Thread

from playwright.sync_api import Locator, Page, expect, sync_playwright

from bot.clock import BEIJING, MovableClock
from bot.demo import build
from bot.demo.server import Demo, routes
from bot.web import address_of, listen, serve

IMAGES = Path(__file__).parent / "images"
START = datetime(2026, 9, 21, 9, 30, tzinfo=BEIJING)
SIZES = {"demo-1440.png": (1440, 900), "demo-390.png": (390, 844)}


def main() -> int:
    """Play the same short story at both widths; 1 where there is no browser."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("没有找到 Chromium；Debian、Ubuntu：apt-get install chromium\n")
        return 1
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (width, height) in SIZES.items():
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, reduced_motion="reduce")  # type: ignore[arg-type]
            with_demo(lambda address, page=page, name=name: picture(page, address, name))
        browser.close()
    return 0


def with_demo(use: Callable[[str], None]) -> None:
    """Run a demo in a thread of its own while `use` looks at its address."""
    with tempfile.TemporaryDirectory() as folder, listen("127.0.0.1", 0) as listening:
        address = address_of(listening)
        demo = build(folder, address, MovableClock(START, running=True))
        stops: list[Callable[[], None]] = []
        thread = Thread(target=lambda: asyncio.run(live(demo, listening, stops.append)))
        thread.start()
        try:
            use(f"{address}/demo")
        finally:
            for stop in stops:
                stop()
            thread.join()
            demo.app.close()


async def live(demo: Demo, listening: object, hand_out: Callable[..., None]) -> None:
    """Serve until the function that is handed out is called, from any thread."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    demo.ending = stop.is_set
    hand_out(lambda: loop.call_soon_threadsafe(stop.set))
    watching = asyncio.create_task(demo.watch())
    await serve(demo.app, listening, more=routes(demo), stop=stop)  # type: ignore[arg-type]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def picture(page: Page, address: str, name: str) -> None:
    """A member registers, a letter is approved by two, and 中秋 comes."""
    page.goto(address)
    expect(page.locator(".bubble").first).to_be_visible()
    for text in ("登记", "同意", "是"):
        say(page, "member", "高远山", text)
    for text in ("月报", "我的进度"):
        say(page, "leader", "", text)
    say(page, "coordinator", "林清", "信件 提交 中秋")
    code = last(page, "coordinator").inner_text().split("哈希 ")[1][:4]
    for who in ("陈默", "苏和"):
        say(page, "coordinator", who, f"同意 {code}")
    say(page, "group", "", "我的档案")
    tab(page, "member")
    page.locator("[data-to=mid_autumn]").click()
    expect(page.locator("#lunar")).to_have_text("农历八月十五", timeout=20_000)
    expect(page.locator("[data-to=mid_autumn]")).to_be_enabled(timeout=20_000)
    show(page, "member", "乌日娜")
    expect(last(page, "member")).to_contain_text("中秋问候")
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / name)


def tab(page: Page, key: str) -> None:
    """Bring a phone forward where only one is shown at a time."""
    button = page.locator(f"#tabs [data-tab={key}]")
    if button.is_visible():
        button.click()


def show(page: Page, key: str, who: str) -> None:
    """Let somebody have the phone they share."""
    tab(page, key)
    if who:
        page.locator(f"[data-phone={key}] .switch button", has_text=who).click()


def say(page: Page, key: str, who: str, text: str) -> None:
    """Say something on a phone and wait for the answer."""
    show(page, key, who)
    box = page.locator(f"[data-phone={key}] textarea")
    box.fill(text)
    with page.expect_response(lambda response: response.url.endswith("/api/say")):
        box.press("Enter")
    page.wait_for_timeout(300)


def last(page: Page, key: str) -> Locator:
    """The newest bubble of the bot on a phone."""
    return page.locator(f"[data-phone={key}] .said:not(.mine) .bubble").last


if __name__ == "__main__":
    sys.exit(main())
