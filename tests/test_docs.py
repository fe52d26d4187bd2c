"""Holds the documents to the code: what they list, quote, link to and tell people to type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import typer

from bot.catalog import Catalog
from bot.cli import words
from bot.commands import Command, Exporter, Importer, Page, Purpose, Retention, Tick
from bot.settings import PREFIX, Settings
from docs.generate import KEPT, MEANINGS, PART, PARTS, ROOT, documents, renewed, told
from handlers.festivals import Letter, load_letter
from handlers.place import PLACES
from storage.privacy import tables_of_people
from storage.states import State
from tests.world import whole_catalog

READMES = ("README.md", "README.en.md")
TRANSCRIPTS = sorted((ROOT / "tests" / "transcripts").glob("*.txt"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def known() -> Catalog:
    return whole_catalog()


def test_the_generated_parts_are_what_the_code_tells(known: Catalog) -> None:
    parts = told(known)
    stale = [
        str(path.relative_to(ROOT))
        for path in documents()
        if (text := path.read_text(encoding="utf-8")) != renewed(text, parts)
    ]
    assert stale == [], "run `make docs` and commit what it writes"


def test_every_part_stands_in_some_document_and_none_is_unknown() -> None:
    named = {name for path in documents() for _, name, _ in PART.findall(_text(path))}
    assert named == set(PARTS)


def test_whatever_is_declared_is_in_the_reference(known: Catalog) -> None:
    by_name: list[Any] = [*known.of(Tick), *known.of(Purpose), *known.of(Retention)]
    by_kind: list[Any] = [*known.of(Page), *known.of(Importer), *known.of(Exporter)]
    reference = "\n".join(_text(path) for path in (ROOT / "docs" / "reference").glob("*.md"))
    named = {
        *re.findall(r"`([^`\n]+)`", reference),
        *re.findall(r"(?<=\| )[^|\n]+(?= \|)", reference),
    }
    named |= {" ".join(one.split()[:2]) for one in named if one.startswith("hongyan ")}
    wanted = {
        *(word for command in known.of(Command) for word in command.words),
        *known.forms,
        *(f"{PREFIX}{name.upper()}" for name in Settings.model_fields),
        *(f"hongyan {word}" for word in _cli(known)),
        *(letter.label for letter in known.of(Letter)),
        *(one.name for one in by_name),
        *(one.kind for one in by_kind),
    }
    assert wanted - named == set()


def test_every_state_and_every_table_with_people_is_explained() -> None:
    assert set(MEANINGS) == set(State)
    assert set(KEPT) == {table.name for table, _, _ in tables_of_people()}


def test_the_guides_name_every_setting_of_their_channel() -> None:
    missing = [
        name
        for channel in ("wechat", "telegram", "wecom_bot", "wecom_webhook")
        for name in Settings.model_fields
        if name.startswith(f"{channel}_")
        and not name.endswith("_api_base")
        and f"{PREFIX}{name.upper()}" not in _text(_guide(channel))
    ]
    assert missing == []


def _guide(channel: str) -> Path:
    return ROOT / "docs" / "channels" / f"{channel.replace('_', '-')}.md"


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(path: Path) -> None:
    prose = re.sub(r"`[^`]*`", "", BLOCK.sub("", _text(path)))
    broken = [
        link
        for link in LINK.findall(prose)
        if not link.startswith(("https://", "#")) and not _leads_somewhere(path, link)
    ]
    assert broken == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_people_are_told_to_type_exists(path: Path, known: Catalog) -> None:
    targets = re.search(r"^\.PHONY: (.*)$", _text(ROOT / "Makefile"), re.MULTILINE)
    assert targets is not None
    spoken = _cli(known)
    unknown = []
    for line in _typed(path):
        program, _, rest = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line).partition(" ")
        word, *others = rest.split() or [""]
        if program == "make":
            fine = word in targets[1].split()
        elif program in ("hongyan", ".venv/bin/hongyan"):
            options = {name for one in spoken[word].params for name in one.opts}
            loose = spoken[word].ignore_unknown_options
            fine = loose or {one for one in others if one.startswith("--")} <= options
        else:
            fine = program == "git"
        if not fine:
            unknown.append(line)
    assert unknown == []


@pytest.mark.parametrize("name", READMES)
def test_the_chats_in_the_readme_are_played_by_the_tests(name: str) -> None:
    quoted = list(_chats(ROOT / name))
    played = [path.read_text(encoding="utf-8").splitlines() for path in TRANSCRIPTS]
    invented = [chat for chat in quoted if not any(_in_order(chat, lines) for lines in played)]
    assert (len(quoted), invented) == (5, [])


def test_both_readmes_are_the_same_page() -> None:
    first, second = (_text(ROOT / name) for name in READMES)
    assert re.findall(r"^#+ ", first, re.MULTILINE) == re.findall(r"^#+ ", second, re.MULTILINE)
    assert [*_chats(ROOT / READMES[0])] == [*_chats(ROOT / READMES[1])]
    assert _proofs(first) == _proofs(second)


def test_every_proof_that_the_readme_names_exists() -> None:
    proofs = _proofs(_text(ROOT / "README.md"))
    benches = _text(ROOT / "benchmarks" / "__main__.py")
    assert len(proofs) > 5
    assert [
        proof
        for proof in proofs
        if not (
            f'"{proof.removeprefix("make bench NAME=")}"' in benches
            if proof.startswith("make")
            else (ROOT / proof).is_file()
        )
    ] == []


def test_the_letter_of_the_guide_is_a_letter(tmp_path: Path) -> None:
    file = tmp_path / "laba.md"
    file.write_text(_example("docs/letters.md", "+++\n"), encoding="utf-8")
    letter = load_letter(file)
    assert (letter.label, letter.sending_day(2027)) == ("腊八", date(2027, 1, 15))


def test_the_place_of_the_guide_is_a_place(tmp_path: Path) -> None:
    file = tmp_path / "qinghe.toml"
    file.write_text(_example("docs/places.md", "name ="), encoding="utf-8")
    place = PLACES.load(str(file), {})
    assert (place.name, place.missing()) == ("qinghe", [])


def test_the_examples_for_developers_run() -> None:
    declared: dict[str, Any] = {}
    for language, text in BLOCK.findall(_text(ROOT / "CONTRIBUTING.md")):
        if language == "python":
            exec(text, declared)  # noqa: S102  # our own page
    kinds = [type(declared[name]).__name__ for name in ("greet", "ParcelForm", "morning")]
    assert kinds == ["Command", "ModelMetaclass", "Tick"]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _cli(known: Catalog) -> dict[str, Any]:
    """Every word of the command line with its command."""
    group: Any = typer.main.get_command(words(known))
    return dict(group.commands)


def _leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve()
    if not target.exists() or not anchor:
        return target.exists()
    heads = re.findall(r"^#+ (.+)$", _text(target), re.MULTILINE)
    return anchor in {re.sub(r"[^\w-]", "", head.replace(" ", "-")).lower() for head in heads}


def _typed(path: Path) -> Iterator[str]:
    """Every command in a page's shell examples."""
    for language, text in BLOCK.findall(_text(path)):
        if language == "sh":
            for line in text.splitlines():
                yield from (part.strip() for part in line.split("&&") if " cd " not in f" {part} ")


def _chats(path: Path) -> Iterator[list[str]]:
    """The dialogues that a page quotes."""
    for language, text in BLOCK.findall(_text(path)):
        if language == "text" and re.search(r"^\S*(?:>|<<?) ", text, re.MULTILINE):
            yield text.splitlines()


def _in_order(quoted: list[str], lines: list[str]) -> bool:
    rest = iter(lines)
    return all(line in rest for line in quoted)


def _proofs(text: str) -> list[str]:
    return re.findall(r"`((?:tests/test_|tests/\w+/test_)\w+\.py|make bench NAME=\w+)`", text)


def _example(page: str, begins: str) -> str:
    """The example of a guide that begins so."""
    blocks: list[tuple[str, str]] = BLOCK.findall(_text(ROOT / page))
    return next(text for _, text in blocks if text.startswith(begins))
