"""Text on its way out: strict templates, splitting, and shaping a reply to what a channel takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bot.context import ChannelFacts
from bot.errors import UserError
from bot.messages import Part, Reply

# Jinja's sandbox bounds neither memory nor time (`{{ [1]*10**8 }}`), so these are refused unread.
_FORBIDDEN = (
    nodes.Call,
    nodes.Mul,
    nodes.Pow,
    nodes.Mod,
    nodes.Concat,
    nodes.Macro,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
    nodes.CallBlock,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Add,
)
_FILTERS = frozenset({"join", "length", "default"})
_MAX_SOURCE = 20_000  # characters
_MAX_TEXT = 20_000  # characters of a rendered text
_MAX_NESTING = 2


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False
    )
    environment.globals.clear()
    environment.filters = {k: v for k, v in environment.filters.items() if k in _FILTERS}
    return environment


_ENVIRONMENT = _environment()


def check_template(source: str, known: Sequence[str]) -> None:
    """Refuse a template that could run away, or that asks for what nobody will fill in.

    Raises UserError with the reason in Chinese.
    """
    if len(source) > _MAX_SOURCE:
        raise UserError(f"模板太长：{len(source)}字，上限{_MAX_SOURCE}字。")
    try:
        tree = _ENVIRONMENT.parse(source)
    except TemplateError as error:
        raise UserError(f"模板第{getattr(error, 'lineno', '?')}行写法有误。") from error
    for kind in _FORBIDDEN:
        for found in tree.find_all(kind):
            raise UserError(f"模板第{found.lineno}行用了不允许的写法（{kind.__name__}）。")
    for used in tree.find_all(nodes.Filter):
        if used.name not in _FILTERS:
            raise UserError(f"模板第{used.lineno}行的「{used.name}」不能用。")
    if _depth(tree) > _MAX_NESTING:
        raise UserError(f"模板里的循环最多套{_MAX_NESTING}层。")
    unknown = sorted(meta.find_undeclared_variables(tree) - set(known))
    if unknown:
        raise UserError(f"模板里有认不得的空：{'、'.join(unknown)}。")


def _depth(node: nodes.Node) -> int:
    inner = max((_depth(child) for child in node.iter_child_nodes()), default=0)
    return inner + isinstance(node, nodes.For)


@lru_cache(maxsize=64)
def _compiled(source: str) -> Any:
    return _ENVIRONMENT.from_string(source)


def render(source: str, values: Mapping[str, Any]) -> str:
    """Fill a template in; raises UserError when something is missing or it grows without end."""
    pieces: list[str] = []
    size = 0
    try:
        for piece in _compiled(source).generate(**values):
            size += len(piece)
            if size > _MAX_TEXT:
                raise UserError("渲染出来的文字太长。")
            pieces.append(piece)
    except TemplateError as error:
        raise UserError(f"模板填不完整：{error}。") from error
    return "".join(pieces).rstrip("\n")


def content_hash(*parts: str) -> str:
    """The fingerprint of a text (sha256, hex); people are shown its first four characters."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def split_text(text: str, max_bytes: int | None, max_chars: int | None) -> list[str]:
    """Cut a long text at paragraphs, lines or sentences; never inside a character.

    `max_bytes` counts UTF-8. Joined with line breaks the pieces say the same.
    """
    if _fits(text, max_bytes, max_chars):
        return [text]
    pieces: list[str] = []
    rest = text
    while not _fits(rest, max_bytes, max_chars):
        head = _longest_head(rest, max_bytes, max_chars)
        cut = max(head.rfind("\n\n"), head.rfind("\n"))
        if cut < len(head) // 2:
            cut = max(cut, max((head.rfind(mark) + 1 for mark in "。！？；"), default=0))
        if cut <= 0:
            cut = len(head)
        pieces.append(rest[:cut].rstrip("\n"))
        rest = rest[cut:].lstrip("\n")
    if rest:
        pieces.append(rest)
    return pieces


def _fits(text: str, max_bytes: int | None, max_chars: int | None) -> bool:
    if max_chars is not None and len(text) > max_chars:
        return False
    return max_bytes is None or len(text.encode()) <= max_bytes


def _longest_head(text: str, max_bytes: int | None, max_chars: int | None) -> str:
    head = text if max_chars is None else text[:max_chars]
    if max_bytes is not None:
        head = head.encode()[:max_bytes].decode(errors="ignore")
    return head or text[0]


def shape(reply: Reply, facts: ChannelFacts, public_url: str = "") -> tuple[Part, ...]:
    """The bubbles a channel can carry, in order: links written out, long texts split.

    The same reply always gives the same bubbles, so that a delivery can go on in the middle.
    """
    return tuple(_shaped(reply, facts, public_url))


def _shaped(reply: Reply, facts: ChannelFacts, public_url: str) -> Iterator[Part]:
    for part in reply.parts:
        text = part.text
        # A button may only open a page that is safe on its way.
        link = part.link
        if link is not None:
            address = link.address(public_url)
            if not (facts.links and address.startswith("https://")):
                text, link = f"{text}\n{link.label}：{address}", None
        pieces = split_text(text, facts.text_bytes, facts.text_chars)
        for piece in pieces[:-1]:
            yield Part(piece)
        choices = part.choices if facts.buttons else ()
        last = pieces[-1]
        if part.file is not None and last and not facts.captions:
            yield Part(last)
            last = ""
        if (last, choices, link) == (part.text, part.choices, part.link):
            yield part
        else:
            yield replace(part, text=last, choices=choices, link=link)


def merged(parts: Sequence[Part], facts: ChannelFacts) -> tuple[Part, ...]:
    """As few bubbles as possible: neighbours joined while they fit."""
    if len(parts) < 2:
        return tuple(parts)
    joined: list[Part] = []
    for part in parts:
        if joined and part.file is None and joined[-1].file is None:
            text = f"{joined[-1].text}\n\n{part.text}"
            if _fits(text, facts.text_bytes, facts.text_chars):
                joined[-1] = replace(
                    part,
                    text=text,
                    choices=joined[-1].choices + part.choices,
                    hands_over=joined[-1].hands_over or part.hands_over,
                )
                continue
        joined.append(part)
    return tuple(joined)
