"""What the smart bot can show: Markdown that says what we say, and cards with buttons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bot.messages import Choice

BUTTONS, OPTIONS = 6, 20  # the platform's limits for a card
LABEL, OPTION = 10, 17  # characters; the second is the console's advice
TITLE, WORDS = 26, 112
ASKS = "请点选（也可以打字回复）"
SUBMIT = "提交"
CHOSEN = "已选："
EXPIRED = "这个按钮已经失效，请直接打字回复，或回「菜单」。"
AGAIN = "已收到，正在办理。"
LOST = "刚才没有记下，请过一会儿再点一次，或直接打字回复。"
REFUSED = {"expired": EXPIRED, "again": AGAIN}
KEPT = "|"  # between a key and the label that goes with it, for the card that follows

_URL = re.compile(r"(https?://[!#$%&'*+,\-./0-9:;=?@A-Z_a-z~]+)")
_MARKS = re.compile(r"[\\`*_\[\]<>~|&]")
_LINE_MARKS = re.compile(r"(?m)^([^\S\n]*)([#+=\-])")


def as_markdown(text: str) -> str:
    """The text, with whatever Markdown would take for a mark escaped; addresses stay whole.

    At most twice as long.
    """
    pieces = _URL.split(text)
    return "".join(piece if n % 2 else _escaped(piece) for n, piece in enumerate(pieces))


def _escaped(text: str) -> str:
    return _LINE_MARKS.sub(r"\1\\\2", _MARKS.sub(r"\\\g<0>", text))


def markdown(text: str) -> dict[str, Any]:
    """A message of its own."""
    return {"msgtype": "markdown", "markdown": {"content": as_markdown(text)}}


def stream(id: str, text: str, *, finish: bool = True) -> dict[str, Any]:
    """An answer, or the first part of one; a later part replaces it."""
    content = {"id": id, "finish": finish, "content": as_markdown(text)}
    return {"msgtype": "stream", "stream": content}


def choice_card(named: Sequence[tuple[str, Choice]], task_id: str, words: str = "") -> Any:
    """A card whose buttons stand for choices, under short keys; a list where there are many.

    What does not fit can still be typed.
    """
    card: dict[str, Any] = {"main_title": {"title": ASKS}, "task_id": task_id}
    if words:
        card["sub_title_text"] = words
    if len(named) <= BUTTONS and all(len(_label(choice)) <= LABEL for _key, choice in named):
        buttons = [{"text": _label(c), "style": 1, "key": _kept(key, c)} for key, c in named]
        return card | {"card_type": "button_interaction", "button_list": buttons}
    options = [
        {"id": _kept(key, c), "text": _cut(_label(c), OPTION), "is_checked": False}
        for key, c in named[:OPTIONS]
    ]
    return card | {
        "card_type": "vote_interaction",
        "checkbox": {"question_key": "choice", "mode": 0, "option_list": options},
        "submit_button": {"text": SUBMIT, "key": "submit"},
    }


def pressed_card(task_id: str, key: str, words: str = "") -> dict[str, Any]:
    """What the card becomes when it was pressed: it shows what was chosen, or why not."""
    label = key.partition(KEPT)[2] or SUBMIT
    card: dict[str, Any] = {
        "card_type": "button_interaction",
        "main_title": {"title": _cut(f"{CHOSEN}{label}", TITLE)},
        "button_list": [{"text": _cut(label, LABEL), "style": 2, "key": key or "gone"}],
        "task_id": task_id,
    }
    if words:
        card["sub_title_text"] = _cut(words, WORDS)
    return {"response_type": "update_template_card", "template_card": card}


def short_key(key: str) -> str:
    """The key alone, as our table knows it."""
    return key.partition(KEPT)[0]


def _kept(key: str, choice: Choice) -> str:
    return f"{key}{KEPT}{_cut(_label(choice), OPTION)}"


def _label(choice: Choice) -> str:
    return choice.label or choice.value or "·"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
