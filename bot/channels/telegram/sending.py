"""Bubbles as messages of the Bot API: text without markup, buttons, files, edits, topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog
from telegram import (
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    KeyboardButton,
    LinkPreviewOptions,
    Message,
    ReplyKeyboardMarkup,
    ReplyKeyboardRemove,
)

from bot.channels.telegram.keeping import Keeping
from bot.channels.telegram.pace import Pace
from bot.channels.telegram.wire import BadRequest, Wire
from bot.errors import SendError
from bot.messages import Address, Choice, File, Part

CAPTION = 1024  # characters, the platform's limit; that of a text stands in the channel's facts
UPLOAD, PHOTO = 50_000_000, 10_000_000  # bytes
PICTURES = frozenset({"image/jpeg", "image/png", "image/webp"})
LABEL = 60  # characters of a label; longer ones are cut on every phone
ROW, ROW_WIDTH, BUTTONS = 8, 26, 100  # eight a row and a hundred are the platform's limits

Markup = InlineKeyboardMarkup | ReplyKeyboardMarkup | ReplyKeyboardRemove

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Spot:
    """A chat, and in a group with topics one of them. As an address: `-1001` or `-1001/7`."""

    chat: int
    topic: int | None = None

    @classmethod
    def of(cls, address: Address) -> Spot:
        chat, _, topic = address.user.partition("/")
        return cls(int(chat), int(topic) if topic else None)

    @property
    def group(self) -> bool:
        return self.chat < 0


class Sending:
    """Puts one bubble into one chat. `keys` makes the short random names of buttons."""

    def __init__(
        self,
        wire: Wire,
        pace: Pace,
        keeping: Keeping,
        public_url: str,
        keys: Callable[[], str],
    ) -> None:
        self._wire = wire
        self._pace = pace
        self._keeping = keeping
        self._public_url = public_url
        self._keys = keys
        self._keyboards: set[int] = set()
        """Where a keyboard of ours stands under the text field, as far as this process knows."""

    async def send(self, address: Address, part: Part, *, in_turn: bool = False) -> str:
        """Send a bubble and return its number; raises SendError or the platform's refusal.

        `in_turn`: the chat's turn was taken for it.
        """
        spot = Spot.of(address)
        if part.file is not None and len(part.file.content) > UPLOAD:
            raise SendError("too_large", permanent=True)
        if part.file is not None and len(part.text) > CAPTION:
            await self.send(address, Part(part.text), in_turn=in_turn)
            part, in_turn = replace(part, text=""), False
        markup = await self._markup(address, spot, part)
        async with self._pace.turn(str(spot.chat), taken=in_turn):
            try:
                number = await self._put(address, spot, part, markup)
            except BadRequest as error:
                if spot.topic is None or not _topic_is_gone(error):
                    raise
                number = await self._put(address, replace(spot, topic=None), part, markup)
        self._note_keyboard(spot, markup)
        return number

    async def _put(self, address: Address, spot: Spot, part: Part, markup: Markup | None) -> str:
        if part.file is not None:
            return _number(await self._hand_over(spot, part.file, part.text, markup))
        if part.replaces is not None:
            return await self._renew(address, spot, part, markup)
        return await self._say(spot, part.text, markup)

    async def _say(self, spot: Spot, text: str, markup: Markup | None) -> str:
        """A message without markup: nothing in it needs escaping and no slip in it can lose it."""
        sent = await self._wire.send_message(
            spot.chat,
            text,
            message_thread_id=spot.topic,
            reply_markup=markup,
            # A preview would have the platform open pages that are meant for one person.
            link_preview_options=LinkPreviewOptions(is_disabled=True),
        )
        return _number(sent)

    async def _hand_over(
        self, spot: Spot, file: File, caption: str, markup: Markup | None
    ) -> Message:
        """A picture to look at, or else a file to keep."""
        if file.mime in PICTURES and len(file.content) <= PHOTO:
            try:
                return await self._wire.send_photo(
                    spot.chat,
                    file.content,
                    filename=file.name,
                    caption=caption or None,
                    message_thread_id=spot.topic,
                    reply_markup=markup,
                )
            except BadRequest as error:
                # Too long, too wide, no picture after all: as a file it still arrives.
                said = error.message.lower()
                if "photo" not in said and "image" not in said:
                    raise
        return await self._wire.send_document(
            spot.chat,
            file.content,
            filename=file.name,
            caption=caption or None,
            message_thread_id=spot.topic,
            reply_markup=markup,
        )

    async def _renew(self, address: Address, spot: Spot, part: Part, markup: Markup | None) -> str:
        """Bring the bubble of a topic up to date, or send a first one."""
        assert part.replaces is not None
        known = await self._keeping.bubble(address, part.replaces)
        if known is not None and await self._edited(spot, part.text, int(known), markup):
            return known
        number = await self._say(spot, part.text, markup)
        try:
            await self._keeping.keep_bubble(address, part.replaces, number)
        except Exception as error:  # noqa: BLE001  # it has left: the next one is a new bubble
            log.warning("telegram_bubble_not_kept", error=type(error).__name__)
        return number

    async def _edited(self, spot: Spot, text: str, number: int, markup: Markup | None) -> bool:
        """False: the bubble is gone or too old to be edited."""
        inline = markup if isinstance(markup, InlineKeyboardMarkup) else None
        try:
            await self._wire.edit_message_text(text, spot.chat, number, reply_markup=inline)
        except BadRequest as error:
            said = error.message.lower()
            if "not modified" in said:
                return True
            if any(words in said for words in ("to edit not found", "can't be edited", "_id_inv")):
                return False
            raise
        return True

    # - what stands below a message -

    async def _markup(self, address: Address, spot: Spot, part: Part) -> Markup | None:
        """In a group only the way into the private chat: what else it shows anybody could press."""
        rows: list[list[InlineKeyboardButton]] = []
        named: list[tuple[str, Choice]] = []
        if not spot.group:
            named = [(self._keys(), choice) for choice in part.choices[:BUTTONS]]
            for row in _rows(named):
                rows.append([InlineKeyboardButton(_label(c), callback_data=key) for key, c in row])
        if part.link is not None and (part.link.outside or not spot.group):
            url = part.link.address(self._public_url)
            rows.append([InlineKeyboardButton(part.link.label[:LABEL], url=url)])
        if named:
            values = [(key, choice.value) for key, choice in named]
            await self._keeping.keep_buttons(address, values)
        if rows:
            return InlineKeyboardMarkup(rows)
        if part.contact and not spot.group:
            return _contact_keyboard(part.contact)
        return ReplyKeyboardRemove() if spot.chat in self._keyboards else None

    def _note_keyboard(self, spot: Spot, markup: Markup | None) -> None:
        if isinstance(markup, ReplyKeyboardMarkup):
            self._keyboards.add(spot.chat)
        elif isinstance(markup, ReplyKeyboardRemove):
            self._keyboards.discard(spot.chat)


def _contact_keyboard(label: str) -> ReplyKeyboardMarkup:
    """The one thing that only a keyboard can: people share their own number by a tap."""
    return ReplyKeyboardMarkup(
        [[KeyboardButton(label[:LABEL], request_contact=True)]],
        resize_keyboard=True,
        one_time_keyboard=True,
    )


def _topic_is_gone(error: BadRequest) -> bool:
    said = error.message.lower()
    return "thread not found" in said or "topic_closed" in said or "topic_deleted" in said


def _number(sent: Message) -> str:
    return str(sent.message_id)


def _label(choice: Choice) -> str:
    return choice.label[:LABEL] or choice.value[:LABEL] or "·"


def _rows(named: Sequence[tuple[str, Choice]]) -> list[list[tuple[str, Choice]]]:
    """Buttons in rows that a phone shows without cutting labels."""
    rows: list[list[tuple[str, Choice]]] = []
    room = 0
    for key, choice in named:
        width = 2 + sum(1 if char.isascii() else 2 for char in choice.label)
        if not rows or len(rows[-1]) == ROW or width > room:
            rows.append([])
            room = ROW_WIDTH
        rows[-1].append((key, choice))
        room -= width
    return rows
