"""`hongyan demo --platforms` as people run it: the real channels, and platforms on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[1]


@contextmanager
def running(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The demo in a process of its own; yields the address of the page of phones."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bot", "demo", "--platforms", "--port", "0", "--no-browser"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"http://\S+/demo/platforms", said)
        assert found is not None, said
        yield found[0], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
        process.stdout.close()


def page(address: str) -> str:
    with urlopen(address) as response:  # noqa: S310  # our own address
        text: str = response.read().decode()
    return text


def says(address: str, token: str, channel: str, user: str, text: str) -> tuple[int, str]:
    """Status and page after somebody spoke."""
    form = {"token": token, "channel": channel, "user": user, "text": text}
    try:
        with urlopen(address, urlencode(form).encode()) as response:  # noqa: S310  # the same
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.slow
def test_people_of_every_platform_speak_through_the_real_channels(tmp_path: Path) -> None:
    with running(tmp_path) as (address, process):
        shown = page(address)
        (token, *_more) = re.findall(r'name="token" value="([^"]+)"', shown)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        child = children.read_text(encoding="ascii").split() if children.exists() else []
        assert says(address, token, "wechat", "oWang", "菜单")[0] == 200
        assert says(address, "forged", "wechat", "oWang", "菜单")[0] == 400
        assert says(address, token, "wechat", "nobody", "菜单")[0] == 400
        assert says(address, token, "telegram", "1001", "/start")[0] == 200
        shown = page(address)
        assert "回「登记」留个联系方式" in shown.partition("李远归")[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert [pid for pid in child if Path(f"/proc/{pid}").exists()] == []


def test_without_the_emulators_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import pathlib, sys; from bot.demo import main, platforms\n"
            "platforms.EMULATORS = pathlib.Path('nowhere'); sys.exit(main(0, False, True))",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "模拟平台（tests/emulators）不在这里：--platforms 要在源代码目录里运行，"
        "如 make demo ARGS=--platforms"
    ]
