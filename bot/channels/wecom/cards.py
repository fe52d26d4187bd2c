"""How a bubble looks in WeCom: a text, or a card whose buttons and links can be tapped."""

from __future__ import annotations

import json
from typing import Any

from bot.messages import Choice, Link, Part
from bot.text import content_hash

Message = dict[str, Any]
"""`msgtype` and what goes with it, without whom it is for."""

# document/path/90236: longer words are cut on the phone, more buttons are refused.
CARD_TEXT, BUTTONS, BUTTON_TEXT, KEY_BYTES = 112, 6, 10, 1024
TAP = "请点一项，也可以直接打字回复。"


def messages(part: Part, key: str, public_url: str) -> tuple[Message, ...]:
    """What shows one bubble without a file: a card's words are few, so longer ones go before it."""
    tappable = _tappable(part)
    if not tappable and part.link is None:
        return (text_message(part.text),)
    if 0 < len(part.text) <= CARD_TEXT:
        return (card_message(part, key, public_url),)
    words = TAP if tappable else part.link.label if part.link else ""
    short = Part(words, part.choices, part.link)
    return (text_message(part.text), card_message(short, key, public_url))


def text_message(text: str) -> Message:
    return {"msgtype": "text", "text": {"content": text}}


def card_message(part: Part, key: str, public_url: str) -> Message:
    """A card with buttons, or one that opens a page; its text has at most 112 characters."""
    card: Message = {"card_type": "text_notice", "sub_title_text": part.text}
    if _tappable(part):
        buttons = [{"text": short(c), "key": pack(c), "style": 1} for c in part.choices]
        card |= {"card_type": "button_interaction", "button_list": buttons}
        # One task for each bubble: a second try of it is the same task.
        card["task_id"] = content_hash(key, part.text)[:32]
    page = part.link.address(public_url) if part.link else public_url
    if page:
        card["card_action"] = {"type": 1, "url": page}
    if part.link:
        card["jump_list"] = [_jump(part.link, public_url)]
    return {"msgtype": "template_card", "template_card": card}


def _jump(link: Link, public_url: str) -> Message:
    return {"type": 1, "title": link.label, "url": link.address(public_url)}


def _tappable(part: Part) -> bool:
    """More choices than a card has buttons are typed, as the text says how."""
    fits = all(len(pack(choice).encode()) <= KEY_BYTES for choice in part.choices)
    return 0 < len(part.choices) <= BUTTONS and fits


def short(choice: Choice) -> str:
    """What a button shows of a choice."""
    label = choice.label or choice.value
    return label if len(label) <= BUTTON_TEXT else f"{label[: BUTTON_TEXT - 1]}…"


def pack(choice: Choice) -> str:
    """The key of a button, which is all that a tap tells: what it shows and what it says."""
    return json.dumps([choice.label, choice.value], ensure_ascii=False, separators=(",", ":"))


def unpack(key: str) -> Choice:
    """The choice behind a key; one that is not ours says itself."""
    try:
        label, value = json.loads(key)
    except (ValueError, TypeError):
        return Choice(key, key)
    return Choice(str(label), str(value))
