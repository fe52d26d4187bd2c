"""Holds the rules about the source itself: layers, commits, the clock, no machine's traces."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bot", "handlers", "schedules", "storage")

CLOCKS = {
    "date.today",
    "datetime.now",
    "datetime.today",
    "datetime.utcnow",
    "time.time",
    "time.time_ns",
}
MACHINE_PATH = re.compile(r"(?<![\w./:-])/(?:root|work|(?:home|Users)/[a-z]\w*)/")
DOWNLOAD_ADDRESS = re.compile(
    r"https?://\S*(?:/simple\b|\.whl\b|\.tar\.gz\b|[.]pythonhosted\b|//pypi\b)"
    r"|^\s*--?(?:i|f|index-url|extra-index-url|find-links)[ =]",
    re.MULTILINE,
)


def test_each_layer_imports_only_what_is_below_it() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [linter, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_only_storage_db_commits() -> None:
    places = [
        place
        for path in _modules(PACKAGES)
        if path != ROOT / "storage" / "db.py"
        for place in _uses(path, _commits)
    ]
    assert places == []


@pytest.mark.parametrize(
    ("library", "channels"),
    [("telegram", {"telegram"}), ("wechatpy", {"wechat", "wecom"})],
)
def test_a_platform_library_stays_in_its_channel(library: str, channels: set[str]) -> None:
    home = ROOT / "bot" / "channels"
    strangers = [
        str(path.relative_to(ROOT))
        for path in _modules(PACKAGES)
        if library in _imported(path)
        and not (
            path.is_relative_to(home)
            and path.relative_to(home).parts[0].removesuffix(".py") in channels
        )
    ]
    assert strangers == []


def test_only_the_clock_asks_the_machine_for_the_time() -> None:
    places = [
        place
        for path in _modules(PACKAGES)
        if path != ROOT / "bot" / "clock.py"
        for place in _uses(path, lambda name: ".".join(name.split(".")[-2:]) in CLOCKS)
    ]
    assert places == []


def test_every_module_opens_with_a_docstring() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _modules((*PACKAGES, "tests", "benchmarks", "docs"))
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("pattern", [MACHINE_PATH, DOWNLOAD_ADDRESS], ids=["path", "address"])
def test_no_tracked_file_names_one_machine_or_where_packages_come_from(
    pattern: re.Pattern[str],
) -> None:
    found = [
        f"{path}: {match.group().strip()}"
        for path in _tracked_files()
        for match in pattern.finditer((ROOT / path).read_text(encoding="utf-8", errors="ignore"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "text", "caught"),
    [
        (MACHINE_PATH, "cd /" + "root/bot", True),
        (MACHINE_PATH, "cp x /" + "home/wang/y", True),
        (MACHINE_PATH, "https://example.org/" + "work/doc", False),
        (DOWNLOAD_ADDRESS, "\n--" + "index-url x", True),
        (DOWNLOAD_ADDRESS, "https:" + "//example.org/simple/", True),
        (DOWNLOAD_ADDRESS, "https:" + "//example.org/simply.html", False),
    ],
)
def test_the_patterns_catch_what_they_should(
    pattern: re.Pattern[str], text: str, caught: bool
) -> None:
    assert bool(pattern.search(text)) == caught


def _modules(folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def _commits(name: str) -> bool:
    return name.endswith(".commit") and name != "savepoint.commit"  # Releasing one keeps nothing.


def _imported(path: Path) -> set[str]:
    """The top-level names that `path` imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def _uses(path: Path, wanted: Callable[[str], bool]) -> list[str]:
    """The lines of `path` on which a dotted name such as `session.commit` is wanted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    dotted = [
        (ast.unparse(node), node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    ]
    return [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name, node in dotted if wanted(name)
    ]


def _tracked_files() -> list[str]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
