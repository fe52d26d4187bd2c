"""Updates of the Bot API, read as what people do; nothing here asks the network or a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from telegram import CallbackQuery, ChatMemberUpdated, Message, Update, User

from bot.messages import PRIVATE, Address, Chat, Happening, Inbound, Kind, Media

CHANNEL = "telegram"
INSIDE = frozenset({"member", "administrator", "creator"})

_COMMAND = re.compile(r"/(\w+)(?:@(\w+))?(?=\s|$)")
_ENTERED = re.compile(r"/start ([A-Za-z0-9_-]{1,64})")


@dataclass(frozen=True, slots=True)
class Ourselves:
    """The bot: its id, and its name (without @; empty until the platform has told it)."""

    id: str
    username: str = ""

    def address(self, chat: int | str) -> Address:
        """Where a person or group is reached."""
        return Address(CHANNEL, self.id, str(chat))


@dataclass(frozen=True, slots=True)
class Pressed:
    """A button: the query that must be answered, the key it carried, and who spoke where."""

    query: str
    key: str
    inbound: Inbound


@dataclass(frozen=True, slots=True)
class Moved:
    """A group has become another one."""

    old: Address
    new: Address


Event = Inbound | Pressed | Moved


def read(update: Update, us: Ourselves, now: datetime) -> tuple[Event, ...]:
    """What an update tells us; nothing for edits, channel posts, other bots and idle group talk.

    Ids come from chat and message, not from the update: update ids begin anew at random after a
    week of silence.
    """
    if update.message is not None:
        return tuple(_message(update.message, us, now))
    if update.callback_query is not None:
        return _press(update.callback_query, us, now)
    if update.my_chat_member is not None:
        return _blocking(update.my_chat_member, us, now)
    if update.chat_member is not None:
        return _membership(update.chat_member, us, now)
    return ()


def _message(message: Message, us: Ourselves, now: datetime) -> Iterator[Event]:
    here = us.address(message.chat.id)
    if message.migrate_to_chat_id is not None:
        yield Moved(here, us.address(message.migrate_to_chat_id))
    elif message.migrate_from_chat_id is not None:
        yield Moved(us.address(message.migrate_from_chat_id), here)
    elif message.new_chat_members:
        for person in message.new_chat_members:
            if not person.is_bot:
                yield _joined(person, here, us, now)
    elif message.from_user is not None and not message.from_user.is_bot:
        if message.chat.type == "private":
            yield from _private(message, message.from_user, us, now)
        elif message.chat.type in ("group", "supergroup"):
            yield from _in_group(message, message.from_user, us, now)


def _private(message: Message, sender: User, us: Ourselves, now: datetime) -> Iterator[Inbound]:
    kind, media = _content(message)
    if kind is None:
        return
    text: str | None = _own_number(message, sender)
    if kind is Kind.TEXT:
        text = _without_suffix(message.text or "", us)
    if text is None:
        return
    said = Inbound(_id(message), us.address(sender.id), text, now, kind, media=media)
    entered = _ENTERED.fullmatch(text)
    if entered:
        # Come in by a link or a QR code of ours: what stood in it is not their word.
        said = replace(said, text=Happening.FOLLOW, kind=Kind.EVENT, argument=entered[1])
    yield said


def _own_number(message: Message, sender: User) -> str:
    """The number of a contact that somebody shares; empty unless it is their own."""
    contact = message.contact
    if contact is None or contact.user_id != sender.id:
        return ""
    return f"+{re.sub(r'[^0-9]', '', contact.phone_number)}"


def _in_group(message: Message, sender: User, us: Ourselves, now: datetime) -> Iterator[Inbound]:
    """Commands for us, mentions of us, answers to us; all other talk is none of our business."""
    said = message.text or message.caption
    text = _without_suffix(said, us) if said else None
    if text is None:
        return
    replied = message.reply_to_message
    to_us = replied is not None and replied.from_user is not None
    answers = to_us and str(replied.from_user.id) == us.id  # type: ignore[union-attr]  # just seen
    mention = f"@{us.username}".casefold()
    named = bool(us.username) and mention in text.casefold()
    if not (text.startswith("/") or named or answers):
        return
    if named:
        text = re.sub(re.escape(mention), " ", text, flags=re.IGNORECASE).strip()
    chat = Chat(us.address(_spot(message)))
    reply_to = str(replied.message_id) if replied is not None else None
    yield Inbound(_id(message), us.address(sender.id), text, now, chat=chat, reply_to=reply_to)


def _spot(message: Message) -> str:
    """The group, and where it has topics the one in which this was said."""
    topic = message.message_thread_id if message.is_topic_message else None
    return f"{message.chat.id}/{topic}" if topic else str(message.chat.id)


def _without_suffix(text: str, us: Ourselves) -> str | None:
    """`/help@our_bot 政策` as `/help 政策`; None for another bot's command.

    While our own name is unknown any name is taken for it: privacy mode lets no other through.
    """
    found = _COMMAND.match(text)
    if found is None or found[2] is None:
        return text
    if us.username and found[2].casefold() != us.username.casefold():
        return None
    return f"/{found[1]}{text[found.end() :]}"


def _id(message: Message) -> str:
    return f"m{message.chat.id}.{message.message_id}"


def _content(message: Message) -> tuple[Kind | None, Media | None]:
    """The kind of a message, and the file it names."""
    if message.text is not None:
        return Kind.TEXT, None
    if message.photo:
        largest = message.photo[-1]
        return Kind.IMAGE, Media(largest.file_id, size=largest.file_size or 0)
    for kind, file in (
        (Kind.VOICE, message.voice or message.audio),
        (Kind.VIDEO, message.video or message.video_note or message.animation),
        (Kind.FILE, message.document),
        (Kind.STICKER, message.sticker),
    ):
        if file is not None:
            name = getattr(file, "file_name", None) or ""
            mime = getattr(file, "mime_type", None) or ""
            return kind, Media(file.file_id, name, mime, file.file_size or 0)
    if message.location is not None or message.venue is not None:
        return Kind.LOCATION, None
    if message.contact is not None:
        return Kind.CONTACT, None
    if message.dice is not None:
        return Kind.STICKER, None
    return None, None


def _press(query: CallbackQuery, us: Ourselves, now: datetime) -> tuple[Event, ...]:
    message = query.message
    group = message is not None and message.chat.type != "private"
    assert message is not None or not group
    chat = Chat(us.address(message.chat.id)) if message is not None and group else PRIVATE
    sender = us.address(query.from_user.id)
    inbound = Inbound(f"q{query.id}", sender, "", now, Kind.PRESS, chat=chat)
    return (Pressed(query.id, query.data or "", inbound),)


def _blocking(change: ChatMemberUpdated, us: Ourselves, now: datetime) -> tuple[Event, ...]:
    """A person stops or restarts the bot; our own coming and going in groups needs no answer."""
    if change.chat.type != "private":
        return ()
    before, after = change.old_chat_member.status, change.new_chat_member.status
    if after == "kicked":
        what = Happening.BLOCKED
    elif before == "kicked":
        what = Happening.UNBLOCKED
    else:
        return ()
    person = change.from_user.id
    name = f"s{person}.{int(change.date.timestamp())}.{what}"
    return (Inbound(name, us.address(person), what, now, Kind.EVENT),)


def _membership(change: ChatMemberUpdated, us: Ourselves, now: datetime) -> tuple[Event, ...]:
    person = change.new_chat_member.user
    came = change.new_chat_member.status in INSIDE and change.old_chat_member.status not in INSIDE
    if person.is_bot or not came:
        return ()
    return (_joined(person, us.address(change.chat.id), us, now),)


def _joined(person: User, group: Address, us: Ourselves, now: datetime) -> Inbound:
    """Named by who and where alone: told by a message and by an update, and for who comes and
    goes and comes again, it is one joining, for as long as the inbox remembers.
    """
    name = f"j{group.user}.{person.id}"
    return Inbound(name, us.address(person.id), Happening.JOINED, now, Kind.EVENT, chat=Chat(group))
