"""What is said to the bot and what it says, with no platform's words in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic_core import from_json, to_json


class Kind(StrEnum):
    """What an inbound message is made of."""

    TEXT = "text"
    PRESS = "press"
    IMAGE = "image"
    VOICE = "voice"
    VIDEO = "video"
    FILE = "file"
    LOCATION = "location"
    CONTACT = "contact"
    STICKER = "sticker"
    EVENT = "event"
    ASIDE = "aside"


class Happening(StrEnum):
    """What an event message tells; stands in `Inbound.text`."""

    FOLLOW = "follow"
    SCANNED = "scanned"
    UNFOLLOW = "unfollow"
    BLOCKED = "blocked"
    UNBLOCKED = "unblocked"
    JOINED = "joined"
    LEFT = "left"
    RECALLED = "recalled"


@dataclass(frozen=True, slots=True)
class Address:
    """Where one person or group is reached: channel, our account there, their id there."""

    channel: str
    account: str
    user: str

    def __str__(self) -> str:
        return f"{self.channel}:{self.account}:{self.user}"

    @classmethod
    def parse(cls, text: str) -> Address:
        channel, account, user = text.split(":", 2)
        return cls(channel, account, user)


@dataclass(frozen=True, slots=True)
class Chat:
    """Where a message was said: in private, or in a group with its own address."""

    group: Address | None = None
    addressed: bool = True
    """In a group: was the bot meant (a command, a mention, a reply to it)?"""

    @property
    def private(self) -> bool:
        return self.group is None


PRIVATE: Final = Chat()


@dataclass(frozen=True, slots=True)
class Media:
    """A picture, voice note or file as the platform names it; never its content."""

    id: str
    name: str = ""
    mime: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message from one person.

    `id` is the platform's own and the same for each of its tries. `text` holds the words, the
    value of a pressed button, or the `Happening`. `argument` goes with an event (a scanned scene).
    """

    id: str
    sender: Address
    text: str
    received_at: datetime
    kind: Kind = Kind.TEXT
    chat: Chat = PRIVATE
    reply_to: str | None = None
    media: Media | None = None
    argument: str = ""

    @property
    def key(self) -> str:
        """Under which the inbox knows it."""
        return f"{self.sender.channel}:{self.sender.account}:{self.id}"


def aside(line: Address, told: Mapping[str, Any], now: datetime) -> Inbound:
    """What a platform tells beside the conversation, in its own words.

    It has no number: two are the same if they say the same, their time and all. One is heard after
    what came before it on its `line`, an address or any other name. Nobody is met by it: not being
    private, it makes no contact of an address that is unknown.
    """
    words = as_json(told)
    id = f"e{hashlib.sha256(words.encode()).hexdigest()[:40]}"
    return Inbound(id, line, words, now, Kind.ASIDE, Chat(line, addressed=False))


@dataclass(frozen=True, slots=True)
class Choice:
    """A button: what it shows and what pressing or typing it says."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Link:
    """A page to open; `path` is below the public address of this installation, or a whole one."""

    label: str
    path: str

    @property
    def outside(self) -> bool:
        """Is it a page of somebody else's, and so no secret of one person?"""
        return self.path.startswith("https://")

    def address(self, public_url: str) -> str:
        """The whole address."""
        return self.path if self.outside else public_url + self.path


@dataclass(frozen=True, slots=True)
class File:
    """A file to hand over: its name, type and bytes."""

    name: str
    mime: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """One bubble. `replaces` names an earlier bubble (by topic) that this one brings up to date.

    `hands_over`: one of the staff is to go on from here, where the platform knows how.
    `contact` is the label of a button by which people share their own number, where there is one.
    """

    text: str
    choices: tuple[Choice, ...] = ()
    link: Link | None = None
    file: File | None = None
    replaces: str | None = None
    hands_over: bool = False
    contact: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the bot answers: some parts in order, or nothing at all."""

    parts: tuple[Part, ...] = field(default=())

    @property
    def text(self) -> str:
        """All parts as one text, for people who read logs of tests."""
        return "\n".join(part.text for part in self.parts)

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __add__(self, other: Reply) -> Reply:
        return Reply(self.parts + other.parts)

    def then(self, text: str, *choices: Choice) -> Reply:
        """This, and one more bubble."""
        return Reply((*self.parts, Part(text, choices)))

    def handing_over(self) -> Reply:
        """This, after which a person goes on where the platform can have one."""
        *before, last = self.parts
        return Reply((*before, replace(last, hands_over=True)))

    def ending(self, text: str) -> Reply:
        """This with `text` set as a last paragraph into its last bubble."""
        if not self.parts:
            return say(text)
        *first, last = self.parts
        return Reply((*first, replace(last, text=f"{last.text}\n{text}")))


SILENCE: Final = Reply()


def as_json(value: Any) -> str:
    """A value as short JSON."""
    return to_json(value).decode()


def say(text: str, *choices: Choice | str, link: Link | None = None) -> Reply:
    """One bubble; a plain string among the choices is both label and value."""
    buttons = tuple(Choice(c, c) if isinstance(c, str) else c for c in choices)
    return Reply((Part(text, buttons, link),))


def dump_reply(reply: Reply) -> str:
    """As JSON, for a stored row (which is encrypted: it may hold a person's data)."""
    rows: list[dict[str, Any]] = []
    for part in reply.parts:
        row: dict[str, Any] = {"t": part.text}
        if part.choices:
            row["c"] = [[c.label, c.value] for c in part.choices]
        if part.link:
            row["l"] = [part.link.label, part.link.path]
        if part.file:
            content = base64.b64encode(part.file.content).decode()
            row["f"] = [part.file.name, part.file.mime, content]
        if part.replaces:
            row["r"] = part.replaces
        if part.contact:
            row["n"] = part.contact
        if part.hands_over:
            row["h"] = 1
        rows.append(row)
    return as_json(rows)


def load_reply(text: str) -> Reply:
    """The inverse of `dump_reply`."""
    return Reply(
        tuple(
            Part(row["t"])
            if len(row) == 1  # as most are
            else Part(
                row["t"],
                tuple(Choice(label, value) for label, value in row.get("c", ())),
                Link(*row["l"]) if "l" in row else None,
                File(row["f"][0], row["f"][1], base64.b64decode(row["f"][2]))
                if "f" in row
                else None,
                row.get("r"),
                "h" in row,
                row.get("n", ""),
            )
            for row in from_json(text)
        )
    )


def dump_inbound(message: Inbound) -> str:
    """As JSON, for what must wait (which is encrypted: it is what a person said)."""
    raw: dict[str, Any] = {
        "i": message.id,
        "s": str(message.sender),
        "t": message.text,
        "at": message.received_at.isoformat(),
        "k": message.kind,
    }
    if message.chat.group is not None:
        raw["g"] = [str(message.chat.group), message.chat.addressed]
    if message.reply_to is not None:
        raw["r"] = message.reply_to
    if message.media is not None:
        raw["m"] = [message.media.id, message.media.name, message.media.mime, message.media.size]
    if message.argument:
        raw["a"] = message.argument
    return as_json(raw)


def load_inbound(text: str) -> Inbound:
    """The inverse of `dump_inbound`."""
    raw = from_json(text)
    group, addressed = raw.get("g", (None, True))
    return Inbound(
        raw["i"],
        Address.parse(raw["s"]),
        raw["t"],
        datetime.fromisoformat(raw["at"]),
        Kind(raw["k"]),
        Chat(Address.parse(group), addressed) if group else PRIVATE,
        raw.get("r"),
        Media(*raw["m"]) if "m" in raw else None,
        raw.get("a", ""),
    )
