"""Finds what the packages above declare; there is no central list to edit."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from bot.boundary import Boundary
from bot.commands import (
    AccessPolicy,
    Approvable,
    CliWord,
    Command,
    Content,
    Declaration,
    Declared,
    DemoData,
    Exporter,
    Greeting,
    Importer,
    JobKind,
    Page,
    PlaceLoader,
    Purpose,
    Retention,
    Tick,
)
from bot.errors import ConfigError
from bot.forms import Form
from bot.normalize import tidy

PACKAGES = ("handlers", "schedules")
KINDS: tuple[type, ...] = (
    Command,
    Boundary,
    Purpose,
    Tick,
    Content,
    Page,
    CliWord,
    Importer,
    Exporter,
    Retention,
    JobKind,
    Approvable,
    Greeting,
    DemoData,
)
T = TypeVar("T")
_CODED = re.compile(r"([\u4e00-\u9fff]+)([0-9A-Za-z].*)", re.DOTALL)


@dataclass(frozen=True)
class Match:
    """A command that was said, and what stood after it."""

    command: Command
    argument: str


@dataclass(frozen=True)
class Catalog:
    """Everything declared: by type, in the order of modules and lines."""

    values: Mapping[type, Sequence[Any]]
    forms: Mapping[str, type[Form]]
    policy: AccessPolicy
    places: PlaceLoader
    sources: Mapping[int, str] = field(default_factory=dict)

    def of(self, kind: type[T]) -> Sequence[T]:
        """All values of a kind."""
        return self.values.get(kind, ())

    def form(self, name: str) -> type[Form]:
        """A form by its name; KeyError if this release has none of that name."""
        return self.forms[name]

    def purpose(self, name: str) -> Purpose:
        """A purpose by its name."""
        return self._purposes[name]

    def content(self, kind: str) -> Content | None:
        """How campaigns of a kind are rendered."""
        return self._contents.get(kind)

    @cached_property
    def boundary(self) -> Boundary | None:
        """The rules of channels that must not carry everything."""
        return next(iter(self.of(Boundary)), None)

    @cached_property
    def _purposes(self) -> Mapping[str, Purpose]:
        return {purpose.name: purpose for purpose in self.of(Purpose)}

    @cached_property
    def _contents(self) -> Mapping[str, Content]:
        return {content.kind: content for content in self.of(Content)}

    @cached_property
    def words(self) -> Mapping[str, Command]:
        """Every spoken word of every command, lower case."""
        found: dict[str, Command] = {}
        for command in self.of(Command):
            for word in command.words:
                if found.setdefault(word.lower(), command) is not command:
                    raise ConfigError(f"two commands answer to {word}")
        return found

    @cached_property
    def _longest(self) -> int:
        return max((len(word.split()) for word in self.words), default=1)

    def match(self, text: str) -> Match | None:
        """The command a message is: its first words, the rest being the argument.

        Several words are tried before fewer, so that 「群发 进度 B-0001」 is not 「群发」.
        """
        spoken = text.split()
        words = self.words
        for count in range(min(self._longest, len(spoken)), 0, -1):
            head = " ".join(spoken[:count]).lower()
            found = words.get(head)
            if found is not None and (count < len(spoken) or not found.needs_argument):
                rest = text
                for word in spoken[:count]:
                    rest = rest.lstrip()[len(word) :]
                return Match(found, rest.strip())
        return self._with_code(text) or self._glued(text)

    def _glued(self, text: str) -> Match | None:
        """A command with its argument set right behind it, as in 「退订节日信」."""
        if not text.startswith(self._gluing):
            return None
        word = next(word for word in self._gluing if text.startswith(word))
        return Match(self.words[word], text[len(word) :].strip())

    @cached_property
    def _gluing(self) -> tuple[str, ...]:
        return tuple(word for word, one in self.words.items() if one.glued and word == one.word)

    def _with_code(self, text: str) -> Match | None:
        """A command with its code set right behind it, as in 「同意3fa9」."""
        run = _CODED.fullmatch(text)
        found = self.words.get(run[1]) if run else None
        return Match(found, run[2]) if run and found and found.needs_argument else None

    def declared(self) -> Iterator[Declared]:
        """Everything, for `hongyan catalog`."""
        for form in self.forms.values():
            yield Declared("form", form.name, form.label, source_of(form), form)
        own = [kind for kind in self.values if issubclass(kind, Declaration)]
        for kind in (*KINDS, *own):
            values: Sequence[Any] = self.values.get(kind, ())
            for value in values:
                named = (getattr(value, key, "") for key in ("word", "name", "kind"))
                name = next((text for text in named if text), kind.__name__.lower())
                words = getattr(value, "help", "") or getattr(value, "label", "")
                source = getattr(value, "source", "")
                if not source.rpartition(":")[2].isdigit():
                    source = self.sources.get(id(value), source)
                yield Declared(kind.__name__.lower(), name, words, source, value)


def source_of(thing: Any) -> str:
    """`file:line` of a class or function."""
    return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"


def collect(packages: Sequence[str] = PACKAGES) -> Catalog:
    """Import every module of the packages and gather what they declare."""
    values: dict[type, list[Any]] = {}
    forms: dict[str, type[Form]] = {}
    policies: list[Any] = []
    loaders: list[Any] = []
    sources: dict[int, str] = {}
    for module in _modules(packages):
        for name, value in list(vars(module).items()):
            if isinstance(value, type):
                if issubclass(value, Form) and value.name and value.__module__ == module.__name__:
                    if value.name in forms:
                        raise ConfigError(f"two forms are called {value.name}")
                    forms[value.name] = value
                continue
            declared = [each for each in _each(value) if isinstance(each, (*KINDS, Declaration))]
            for each in declared:
                found = values.setdefault(type(each), [])
                if not any(known is each for known in found):
                    found.append(each)
                # The module that assigns the name is the one to read, not one that imports it.
                line = _line(module, name)
                if line or id(each) not in sources:
                    sources[id(each)] = line or f"{module.__file__}:1"
            if declared:
                continue
            if name == "POLICY":
                policies.append(value)
            elif name == "PLACES":
                loaders.append(value)
    policies = _distinct(policies)
    loaders = _distinct(loaders)
    if len(policies) != 1 or len(loaders) != 1:
        raise ConfigError("exactly one access policy and one place loader must be declared")
    return Catalog(values, forms, policies[0], loaders[0], sources)


def _each(value: object) -> Sequence[object]:
    """A value, or what a tuple of declarations holds."""
    return value if isinstance(value, tuple) and not hasattr(value, "_fields") else (value,)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({id(value): value for value in values}.values())


def _modules(packages: Sequence[str]) -> Iterator[ModuleType]:
    for package in packages:
        root = importlib.import_module(package)
        yield root
        for found in pkgutil.walk_packages(root.__path__, f"{package}."):
            yield importlib.import_module(found.name)


def _line(module: ModuleType, name: str) -> str:
    """`file:line` where a module assigns a name; empty if it does not."""
    path = Path(module.__file__ or "")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith((f"{name} =", f"{name}:")):
            return f"{path}:{number}"
    return ""


def spoken(text: str) -> str:
    """A message as it is compared with commands: tidy, without a final full stop or slash mark."""
    return tidy(text).rstrip("。.！!").strip()
