"""The demo: an invented county, a clock that can be moved, and a page tried in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlmodel import Session, select

from bot.catalog import spoken
from bot.clock import BEIJING, MovableClock, QuietHours, beijing
from bot.context import outbox_row
from bot.demo import build, main
from bot.demo.journey import destination, first_moment
from bot.demo.ledger import view
from bot.demo.server import STATIC, Demo
from bot.ladder import Asked
from bot.messages import say
from bot.planning import plan
from handlers.purposes import DUTY, LETTER
from handlers.segments import Segment
from storage import mailbox
from storage.people import Contact

ROOT = Path(__file__).parents[1]
START = "2026-11-22 09:30"
SMALL_TALK = "大家好"
WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}
expect.set_options(timeout=30_000)  # a machine busy with other tests is no fault of the page


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BEIJING)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    built = build(str(tmp_path), "http://127.0.0.1:1", MovableClock(moment(START)))
    yield built
    built.app.close()


# - the county -


def test_some_of_the_three_hundred_are_left_out_for_each_reason(demo: Demo) -> None:
    now = demo.clock.now()
    with demo.app.services.database.reading() as session:
        planned = plan(demo.app.services, session, Segment().people(now), Asked(LETTER, now))
    assert planned.matched > 280
    assert set(planned.now) == {"demo", "wechat"}
    assert set(planned.waiting) == {"wechat"}
    assert set(planned.left_out) == {"withdrawn", "unsubscribed", "unreachable", "nowhere"}


def test_every_start_shows_the_same_county(tmp_path: Path, demo: Demo) -> None:
    (tmp_path / "again").mkdir()
    again = build(str(tmp_path / "again"), "http://127.0.0.1:1", MovableClock(moment(START)))
    try:
        lists = []
        for each in (demo, again):
            with each.app.services.database.reading() as session:
                lists.append(session.exec(select(Contact.address).order_by(Contact.address)).all())
    finally:
        again.app.close()
    assert lists[0] == lists[1]


def test_every_word_offered_for_tapping_is_understood(demo: Demo) -> None:
    offered = {text for phone in demo.data.cast for text in phone.tries}
    offered |= {step[2] for step in demo.data.guide}
    catalog = demo.app.services.catalog
    unknown = {
        text
        for text in offered - {SMALL_TALK}
        if catalog.match(spoken(text.removeprefix(f"@{demo.data.bot}"))) is None
    }
    assert unknown == set()


# - the clock -


@pytest.mark.parametrize(
    ("name", "now", "leads_to"),
    [
        ("hour", "2026-11-22 09:30", "2026-11-22 10:30"),
        ("day", "2026-11-22 09:30", "2026-11-23 09:30"),
        ("month_end", "2026-11-22 09:30", "2026-11-30 10:00"),
        ("month_end", "2026-11-30 10:00", "2026-12-31 10:00"),
        ("mid_autumn", "2026-03-12 10:00", "2026-09-25 10:00"),
        ("mid_autumn", "2026-11-22 09:30", "2027-09-15 10:00"),
        ("new_year_eve", "2026-11-22 09:30", "2027-02-05 10:00"),
        ("now", "2027-02-05 10:00", START),
    ],
)
def test_a_shortcut_leads_to_the_next_such_morning(name: str, now: str, leads_to: str) -> None:
    assert destination(name, moment(now), moment(START)) == moment(leads_to)


@pytest.mark.parametrize(
    ("now", "begins"),
    [
        ("2026-11-22 15:04", "2026-11-22 15:04"),
        ("2026-11-22 23:10", "2026-11-23 09:00"),
        ("2026-11-22 03:00", "2026-11-22 09:00"),
    ],
)
def test_the_demo_never_begins_in_the_quiet_hours(now: str, begins: str) -> None:
    assert first_moment(moment(now), QuietHours()) == moment(begins)


def somebody(session: Session, user: str) -> int:
    address = f"demo:demo:{user}"
    return session.exec(select(Contact.person_id).where(Contact.address == address)).one()


def travelled(demo: Demo, name: str) -> None:
    async def go() -> None:
        async with demo.app.running():
            await demo.move(name)

    asyncio.run(go())


def test_what_falls_due_on_the_way_leaves_at_its_own_time(demo: Demo) -> None:
    services = demo.app.services
    due = moment("2026-12-20 11:11")
    with services.database.session() as session:
        person_id = somebody(session, "wang")
        row = outbox_row(
            services,
            session,
            person_id,
            say("到点了"),
            occasion="test:on-the-way",
            purpose=DUTY,
            now=demo.clock.now(),
            not_before=due,
        )
        assert row is not None
        mailbox.enqueue(session.connection(), [row])
    travelled(demo, "new_year_eve")
    shown = [bubble for bubble in demo.board.bubbles if bubble.text == "到点了"]
    assert [(bubble.user, bubble.at) for bubble in shown] == [("wang", due)]
    assert beijing(demo.clock.now()) == moment("2027-02-05 10:00")


def test_the_outbox_names_people_by_half_and_says_states_in_words(demo: Demo) -> None:
    services = demo.app.services
    with services.database.session() as session:
        for user in ("wang", "wurina", "u003-gone"):
            person_id = somebody(session, user)
            row = outbox_row(
                services,
                session,
                person_id,
                say("你好"),
                occasion="test:names",
                purpose=DUTY,
                now=demo.clock.now(),
            )
            assert row is not None
            mailbox.enqueue(session.connection(), [row])
    travelled(demo, "hour")
    with services.database.reading() as session:
        seen = view(services, session, demo.data)
    told = ("带队人", "乌**", "郑**")
    rows = {r["to"]: (r["what"], r["state"], r["reason"]) for r in seen["rows"] if r["to"] in told}
    assert rows == {
        "带队人": ("工作通知", "已发出", ""),
        "乌**": ("工作通知", "已发出", ""),
        "郑**": ("工作通知", "失败", "对方已拉黑"),
    }


def test_a_letter_that_two_approved_arrives_on_the_morning_of_the_festival(demo: Demo) -> None:
    async def go() -> None:
        async with demo.app.running():
            await demo.say(demo.phone("lin"), "信件 提交 中秋")
            code = re.findall(r"哈希 (\w{4})", demo.board.bubbles[-1].text)[0]
            await demo.say(demo.phone("lin"), f"同意 {code}")
            assert "不能审批自己提交的事项" in demo.board.bubbles[-1].text
            await demo.say(demo.phone("chen"), f"同意 {code}")
            await demo.say(demo.phone("suhe"), f"同意 {code}")
            await demo.move("mid_autumn")

    asyncio.run(go())
    letters = [b for b in demo.board.bubbles if b.user == "wurina" and "中秋问候" in b.text]
    assert [letter.at for letter in letters] == [moment("2027-09-15 10:00")]
    assert "尊敬的乌日娜乡亲" in letters[0].text
    with demo.app.services.database.reading() as session:
        bar = view(demo.app.services, session, demo.data)["campaign"]
    assert bar["title"] == "B-0001 中秋·致鸿雁一封信"
    assert sum(part["count"] for part in bar["parts"]) == bar["total"] > 100
    assert [part["tone"] for part in bar["parts"]] == ["good", "bad", "wait"]


# - starting and ending -


def test_a_port_that_cannot_be_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(70000, browser=False) == 1
    assert capsys.readouterr().err.splitlines() == [
        "端口须在 0 到 65535 之间，70000 不行；请用 --port 换一个。"
    ]


def test_a_busy_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(port, browser=False) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"端口 {port} 正被另一个程序使用；请停掉它，或用 --port 换一个。"
    ]


@contextmanager
def running(folder: Path, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The demo in a process of its own, with `folder` for its temporary files."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; from bot.demo import main; sys.exit(main({port}, False))",
        ],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        found = re.search(r"http://\S+", first)
        assert found is not None, first
        yield found[0], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=10)
        process.stdout.close()


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
            "from bot.demo import main; sys.exit(main(0, False))",
            str(tmp_path / "nowhere"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "临时文件夹不可写，演示放不下它的数据库；请用 TMPDIR 指定一个可写的文件夹再试"
    ]


def test_it_ends_within_two_seconds_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        running(tmp_path / "temporary") as (address, process),
        urlopen(f"{address}/api/stream") as stream,  # noqa: S310  # our own address
    ):
        stream.readline()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=2)
    assert process.returncode == 0
    assert list((tmp_path / "temporary").iterdir()) == []


# - the page -


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("demo") / "temporary") as (address, _process):
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    yield from opened(browser, address, WIDE)


@pytest.fixture
def narrow(browser: Browser, address: str) -> Iterator[Page]:
    yield from opened(browser, address, NARROW)


def opened(browser: Browser, address: str, size: dict[str, int]) -> Iterator[Page]:
    context = browser.new_context(viewport=size, reduced_motion="reduce")  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    expect(page.locator(".bubble").first).to_be_attached()
    yield page
    context.close()
    assert complaints == []


def phone(page: Page, key: str) -> Page:
    return page.locator(f'[data-phone="{key}"]')  # type: ignore[return-value]  # used alike


def tell(page: Page, key: str, text: str, *, answers: int = 1) -> None:
    """Say something by Enter, and wait until it and its answer stand on the phone."""
    said = phone(page, key).locator(".said")
    before = said.count()
    box = phone(page, key).locator("textarea")
    box.fill(text)
    box.press("Enter")
    expect(said.nth(before + answers)).to_be_attached()


def answer(page: Page, key: str, words: str) -> Page:
    """What came with these words after what was said last, whatever else came meanwhile."""
    said = phone(page, key).locator(".said.mine").last
    after = said.locator("xpath=following-sibling::*[contains(@class, 'said')]")
    return after.locator(".bubble", has_text=words).first  # type: ignore[return-value]


def test_what_is_typed_is_answered_by_the_real_bot(page: Page) -> None:
    tell(page, "member", "菜单")
    expect(answer(page, "member", "回「隐私」看我们怎样保护您的信息")).to_be_attached()
    expect(phone(page, "member").locator(".said.mine .bubble").last).to_have_text("菜单")


def test_buttons_are_past_once_something_else_was_said(page: Page) -> None:
    tell(page, "member", "菜单")
    expect(answer(page, "member", "帮助")).to_be_attached()
    buttons = phone(page, "member").locator(".choices").last.locator("button")
    expect(buttons.first).to_be_enabled()
    buttons.filter(has_text="隐私").click()
    expect(buttons.first).to_be_disabled()
    expect(phone(page, "member").locator(".said.mine .bubble").last).to_have_text("隐私")


def test_the_group_hears_only_what_is_public(page: Page) -> None:
    tell(page, "group", "大家好", answers=0)
    tell(page, "group", "我的档案")
    expect(answer(page, "group", "涉及个人信息")).to_have_text("涉及个人信息，请私聊我办理。")
    said = phone(page, "group").locator(".said .bubble").all_text_contents()
    assert said[-3:] == ["大家好", "我的档案", "涉及个人信息，请私聊我办理。"]
    tell(page, "group", "@鸿雁 菜单")
    expect(answer(page, "group", "您好")).to_be_attached()


def test_people_who_share_a_phone_have_talks_of_their_own(page: Page) -> None:
    tell(page, "coordinator", "帮助")
    expect(answer(page, "coordinator", "审批")).to_be_attached()
    phone(page, "coordinator").get_by_role("button", name="苏和").click()
    expect(phone(page, "coordinator").locator("h2")).to_have_text("苏和")
    expect(phone(page, "coordinator").locator(".said.mine")).to_have_count(0)


def test_the_clock_moves_and_shows_the_lunar_day(page: Page) -> None:
    before = page.locator("#day").text_content()
    page.get_by_role("button", name="快进到除夕").click()
    expect(page.locator("#lunar")).to_have_text(re.compile("农历腊月(廿九|三十)"))
    expect(page.get_by_role("button", name="快进到除夕")).to_be_enabled()
    expect(page.locator("#time")).to_have_text("10:00")
    page.get_by_role("button", name="回到现在").click()
    expect(page.locator("#day")).to_have_text(before or "")


def test_reminders_on_the_way_are_rows_of_the_outbox(page: Page) -> None:
    page.get_by_role("button", name="快进到月末").click()
    rows = page.locator("#rows tr").filter(has_text="带队人")
    expect(rows.first).to_contain_text("已发出", timeout=15_000)
    expect(page.locator("#totals")).to_contain_text("已发出")
    expect(phone(page, "leader").locator(".bubble").last).to_contain_text("月报")


def test_a_narrow_page_shows_one_phone_and_reaches_the_rest(narrow: Page) -> None:
    expect(phone(narrow, "member")).to_be_visible()
    expect(phone(narrow, "group")).to_be_hidden()
    narrow.locator("#tabs").get_by_role("button", name="群").click()
    expect(phone(narrow, "group")).to_be_visible()
    expect(phone(narrow, "member")).to_be_hidden()
    narrow.locator("#tabs").get_by_role("button", name="发件箱").click()
    expect(narrow.locator("#outbox")).to_be_visible()
    expect(narrow.get_by_role("button", name="+1天")).to_be_visible()
    assert narrow.evaluate("document.documentElement.scrollWidth") == NARROW["width"]


def test_everything_can_be_done_from_the_keyboard(page: Page) -> None:
    phone(page, "leader").locator("textarea").focus()
    page.keyboard.type("帮")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("助")
    assert phone(page, "leader").locator("textarea").input_value() == "帮\n助"
    page.keyboard.press("Control+a")
    page.keyboard.type("帮助")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "发送"
    page.keyboard.press("Enter")
    expect(phone(page, "leader").locator(".said.mine .bubble").last).to_have_text("帮助")
    expect(answer(page, "leader", "全部指令")).to_be_attached()
    page.locator("[data-to=hour]").focus()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, textarea, a')]"
        ".filter(e => !(e.textContent.trim() || e.getAttribute('aria-label'))).length"
    )
    assert unnamed == 0


STREAM_AGAIN = """() => new Promise((done) => {
  const stream = new EventSource("/demo/api/stream");
  stream.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (event.kind !== "all") return;
    stream.close();
    heard.all(event);
    done();
  };
})"""


def test_what_is_being_written_outlives_a_lost_connection(page: Page) -> None:
    box = phone(page, "leader").locator("textarea")
    box.focus()
    page.keyboard.type("第一行")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("第二")
    tall = box.bounding_box()
    page.evaluate(STREAM_AGAIN)
    page.keyboard.type("行")
    assert box.input_value() == "第一行\n第二行"
    assert box.bounding_box() == tall


CONTRAST = """() => {
  const light = (c) => {
    const [r, g, b] = c
      .map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const read = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = read(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!e.offsetParent || !words) continue;
    const [a, b] = [light(read(getComputedStyle(e).color).slice(0, 3)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${e.className} ${ratio.toFixed(2)} ${e.textContent}`);
  }
  return poor;
}"""


def test_all_text_stands_out_from_what_is_behind_it(page: Page) -> None:
    tell(page, "member", "菜单")
    expect(phone(page, "member").locator(".choices").last).to_be_visible()
    page.evaluate(
        "heard.outbox({totals: [], rows: ['wait', 'move', 'good', 'bad', 'past'].map("
        "(tone, id) => "
        "({id, tone, what: '事', to: '人', by: '', at: '', state: tone, reason: ''}))})"
    )
    page.evaluate("tell('已断开')")
    assert page.evaluate(CONTRAST) == []


def test_a_page_outlives_the_server_and_says_so(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path / "first") as (address, process):
        pages = opened(browser, address, WIDE)
        page = next(pages)
        tell(page, "member", "菜单")
        expect(answer(page, "member", "您好")).to_be_attached()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=5)
        expect(page.locator("#status")).to_contain_text("已断开")
    port = int(re.findall(r":(\d+)/", address)[0])
    with running(tmp_path / "second", port):
        expect(page.locator("#status")).to_contain_text("演示重新开始了", timeout=15_000)
        expect(phone(page, "member").locator(".said.mine")).to_have_count(0)
        page.close()


def test_the_assets_are_small_and_ask_nobody_else() -> None:
    files = list(STATIC.glob("demo.*"))
    assert sum(path.stat().st_size for path in files) < 100_000
    outside = [
        found
        for path in files
        for found in re.findall(r"https?://[\w.]+", path.read_text(encoding="utf-8"))
        if found != "http://www.w3.org"
    ]
    assert outside == []


@pytest.mark.parametrize(
    ("path", "body", "kind", "status"),
    [
        ("say", {"user": "gao", "text": "菜单"}, "text/plain", 415),
        ("say", {"user": "gao", "text": ""}, "application/json", 400),
        ("say", {"user": "nobody", "text": "菜单"}, "application/json", 404),
        ("say", {"user": "gao", "text": "长" * 4001}, "application/json", 400),
        ("press", {"user": "gao", "bubble": 9999, "number": 0}, "application/json", 404),
        ("clock", {"to": "yesterday"}, "application/json", 400),
    ],
)
def test_what_the_page_would_never_send_is_refused(
    address: str, path: str, body: dict[str, object], kind: str, status: int
) -> None:
    request = Request(  # noqa: S310  # our own address
        f"{address}/api/{path}", json.dumps(body).encode(), {"Content-Type": kind}
    )
    assert answered(lambda: urlopen(request)) == status  # noqa: S310


def test_a_name_that_only_points_here_is_refused(address: str) -> None:
    request = Request(address, headers={"Host": "demo.example.org"})  # noqa: S310
    assert answered(lambda: urlopen(request)) == 400  # noqa: S310


def answered(ask: Callable[[], object]) -> int:
    try:
        ask()
    except HTTPError as error:
        with error:
            return error.code
    return 200
