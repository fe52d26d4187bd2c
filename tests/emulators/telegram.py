"""The Telegram Bot API on 127.0.0.1, as far as the product uses it.

As of 2026-11-21, after core.telegram.org/bots/api (Bot API 10.0), core.telegram.org/bots/faq and
the constants of python-telegram-bot 22.8. "Fact n" is a line of the project's list of platform
facts. What could not be confirmed there stands in `Rules` with the mark [from memory].
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import aiohttp
from aiohttp import web

from tests.emulators.clock import VirtualClock
from tests.emulators.control import control
from tests.emulators.faults import Fallible, answer_with

Json = dict[str, Any]

TOKEN = "110201543:an-invented-token-of-no-bot-at-all"

TAGS = {
    "b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "a", "code", "pre", "span",
    "tg-spoiler", "tg-emoji", "blockquote",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rules:
    """The platform's numbers; a limit is (messages, seconds), None lifts it."""

    per_chat: tuple[int, float] | None = (1, 1.0)
    per_group: tuple[int, float] | None = (20, 60.0)
    overall: tuple[int, float] | None = (30, 1.0)
    text_length: int = 4096
    caption_length: int = 1024
    callback_data_bytes: int = 64
    callback_answer_length: int = 200
    buttons: int = 100
    commands: int = 100
    download_bytes: int = 20 * 1024 * 1024
    upload_bytes: int = 50 * 1024 * 1024
    photo_bytes: int = 10 * 1024 * 1024
    edit_life: float = 48 * 3600  # until a message can no longer be edited [from memory]
    callback_life: float = 60  # until a press can no longer be answered [from memory]
    update_life: float = 24 * 3600  # that updates wait on the server [from memory]
    webhook_retries: tuple[float, ...] = (1, 5, 15, 60, 300)  # [from memory]
    webhook_patience: float = 60  # [from memory]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that a chat shows."""

    at: float
    by: str
    kind: str
    text: str


@dataclass(slots=True)
class User:
    """One person's Telegram; the id is also that of their private chat."""

    id: int
    name: str
    started: bool = False
    blocked: bool = False
    deactivated: bool = False

    def shown(self) -> Json:
        return {"id": self.id, "is_bot": False, "first_name": self.name, "language_code": "zh"}


@dataclass(slots=True)
class Chat:
    """A private chat, a group or a supergroup, with all its messages."""

    id: int
    kind: str
    title: str = ""
    migrated_to: int | None = None
    bot_inside: bool = True
    bot_admin: bool = False
    bot_reads_all: bool = False
    other_bot_spoke: bool = False
    topics: dict[int, str] = field(default_factory=dict)
    keyboard: list[Json] | None = None
    """The keys under the text field, as the last message with some has set them."""
    messages: dict[int, Json] = field(default_factory=dict)
    transcript: list[Line] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def private(self) -> bool:
        return self.kind == "private"


class Refused(Exception):
    """An error of the Bot API: HTTP status, description and parameters."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters


class Limiter:
    """Sliding windows by chat, by group and overall, with the flood wait they impose (fact 67)."""

    def __init__(self, clock: VirtualClock, rules: Rules) -> None:
        self._clock = clock
        self._rules = rules
        self._sent: dict[str, deque[float]] = {}
        self._flood: dict[str, float] = {}

    def pass_through(self, chat: Chat) -> None:
        """Count one message, or refuse it with the seconds to wait."""
        limits = {"overall": self._rules.overall, f"chat {chat.id}": self._rules.per_chat}
        if not chat.private:
            limits[f"group {chat.id}"] = self._rules.per_group
        now = self._clock.timestamp()
        active = {key: limit for key, limit in limits.items() if limit is not None}
        for key, (count, seconds) in active.items():
            sent = self._sent.setdefault(key, deque())
            while sent and sent[0] <= now - seconds:
                sent.popleft()
            wait = self._flood.get(key, 0.0) - now
            if len(sent) >= count:
                wait = max(wait, sent[-count] + seconds - now)
            if wait > 0:
                retry_after = max(1, math.ceil(wait))
                self._flood[key] = max(self._flood.get(key, 0.0), now + retry_after)
                raise flood(retry_after)
        for key in active:
            self._sent[key].append(now)

    def flood(self, key: str, seconds: float) -> None:
        self._flood[key] = self._clock.timestamp() + seconds


def flood(seconds: int) -> Refused:
    description = f"Too Many Requests: retry after {seconds}"
    return Refused(429, description, retry_after=seconds)


class Markup(HTMLParser):
    """Telegram's HTML: a small set of tags, all closed, in order; anything else is an error."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            raise _unparsable(f'Unsupported start tag "{tag}" at byte offset {self.getpos()[1]}')
        if tag == "span" and ("class", "tg-spoiler") not in attrs:
            raise _unparsable('Tag "span" must have class "tg-spoiler"')
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            raise _unparsable(f'Unmatched end tag at byte offset {self.getpos()[1]}, found "{tag}"')

    def handle_data(self, data: str) -> None:
        self.text += data

    @classmethod
    def read(cls, text: str) -> str:
        """What remains to be seen of `text`."""
        if re.search(r"<(?![a-zA-Z/])|<[^>]*$", text):
            raise _unparsable("Unexpected end of tag or unsupported start tag")
        parser = cls()
        parser.feed(text)
        parser.close()
        if parser._open:
            raise _unparsable(
                f'Can\'t find end tag corresponding to start tag "{parser._open[-1]}"'
            )
        return parser.text


def _unparsable(why: str) -> Refused:
    return Refused(400, f"Bad Request: can't parse entities: {why}")


class Telegram(Fallible):
    """One bot, the people and groups around it, and the API at `<url>/bot<token>/<method>`."""

    def __init__(
        self,
        clock: VirtualClock,
        *,
        token: str = TOKEN,
        rules: Rules | None = None,
        privacy: bool = True,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.token = token
        self.rules = rules or Rules()
        self.privacy = privacy
        self.bot: Json = {
            "id": 110201543, "is_bot": True, "first_name": "鸿雁回通", "username": "hongyan_bot",
            "can_join_groups": True, "can_read_all_group_messages": not privacy,
            "supports_inline_queries": False,
        }  # fmt: skip
        self.users: dict[int, User] = {}
        self.chats: dict[int, Chat] = {}
        self.menus: dict[str, list[Json]] = {}
        """Commands by the type of their scope."""
        self.calls: Counter[str] = Counter()
        self.limiter = Limiter(clock, self.rules)
        self.webhook = ""
        self._secret = ""
        self._allowed: frozenset[str] | None = None
        self.last_error: Json = {}
        self._updates: deque[tuple[float, Json]] = deque()
        self._update_ids = itertools.count(880_000_001)
        self._new = asyncio.Event()
        self._changed = asyncio.Event()
        self.waiting_polls = 0
        self._poll: asyncio.Event | None = None
        self._presses: dict[str, float] = {}
        self.toasts: list[str] = []
        """What popped up over pressed buttons, in order; empty where only the spinner ended."""
        self._files: dict[str, tuple[str, bytes]] = {}
        self._duplicates = 0
        self._holds = 0
        self._held: list[Json] = []
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    # What people do ------------------------------------------------------------------------------

    @control
    def person(self, id: int, name: str) -> int:
        """Make a person; they have not spoken to the bot yet."""
        self.users[id] = User(id, name)
        self.chats[id] = Chat(id, "private")
        return id

    @control
    def start(self, user: int, payload: str = "") -> int:
        """Press START, perhaps from a deep link with 1 to 64 letters of payload."""
        if payload and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", payload):
            raise ValueError("a deep link cannot carry this payload")
        return self.say(user, f"/start {payload}".strip())

    @control
    def say(
        self,
        user: int,
        text: str,
        chat: int | None = None,
        reply_to: int | None = None,
        topic: int | None = None,
    ) -> int:
        """Write in private or in a group, perhaps in a topic of it; returns the message id."""
        return self._speak(user, {"text": text} | _in_topic(topic), text, chat, reply_to)

    @control
    def follow_link(self, user: int, label: str, chat: int | None = None) -> int:
        """Open a button's link to the bot, and press START where it leads."""
        place = self.chats[user if chat is None else chat]
        for message in reversed(place.messages.values()):
            for button in _inline_buttons(message):
                if button["text"] == label and "url" in button:
                    return self.scan(user, button["url"])
        raise LookupError(f"no link {label!r} in chat {place.id}")

    @control
    def scan(self, user: int, url: str) -> int:
        """Open `https://t.me/<bot>?start=<payload>`, from a link or a QR code."""
        found = re.fullmatch(r"https://t\.me/(\w+)(?:\?start=([^&]*))?", url)
        if found is None or found[1] != self.bot["username"]:
            raise ValueError(f"{url} does not lead to this bot")
        return self.start(user, found[2] or "")

    @control
    def share_contact(self, user: int, phone: str) -> int:
        """Tap the key that shares one's own number; the keyboard folds away."""
        keys = self.chats[user].keyboard or []
        if not any(key.get("request_contact") for key in keys):
            raise LookupError("no key asks for the number")
        self.chats[user].keyboard = None
        return self.send_contact(user, phone)

    @control
    def send_contact(self, user: int, phone: str, owner: int | None = None) -> int:
        """Share a contact: their own, or that of `owner` (0: of somebody without Telegram)."""
        owner = user if owner is None else owner
        contact: Json = {"phone_number": phone, "first_name": self.users[user].name}
        if owner:
            contact["user_id"] = owner
        return self._speak(user, {"contact": contact}, "[contact]")

    @control
    def send_location(self, user: int, lat: float, lon: float) -> int:
        return self._speak(user, {"location": {"latitude": lat, "longitude": lon}}, "[location]")

    @control
    def send_photo(
        self, user: int, content: str = "jpeg", caption: str = "", chat: int | None = None
    ) -> int:
        size = self._keep("photos/file.jpg", content.encode()) | {"width": 90, "height": 90}
        shown = {"photo": [size]} | ({"caption": caption} if caption else {})
        return self._speak(user, shown, "[photo]", chat)

    @control
    def send_voice(self, user: int) -> int:
        voice = self._keep("voice/file.ogg", b"ogg") | {"duration": 3, "mime_type": "audio/ogg"}
        return self._speak(user, {"voice": voice}, "[voice]")

    @control
    def send_document(self, user: int, name: str, content: str = "", mime: str = "") -> int:
        document = self._keep(f"documents/{name}", content.encode())
        document |= {"file_name": name, "mime_type": mime or "application/octet-stream"}
        return self._speak(user, {"document": document}, f"[document] {name}")

    @control
    def press(self, user: int, label: str, chat: int | None = None) -> str:
        """Press the newest inline button with this label; returns the id of the callback query."""
        place = self.chats[user if chat is None else chat]
        for message in reversed(place.messages.values()):
            for button in _inline_buttons(message):
                if button["text"] == label and "callback_data" in button:
                    return self.press_data(
                        user, button["callback_data"], message["message_id"], chat
                    )
        raise LookupError(f"no button {label!r} in chat {place.id}")

    @control
    def press_data(self, user: int, data: str, message: int, chat: int | None = None) -> str:
        """Press a button by its data, as an old or a forged client might."""
        place = self.chats[user if chat is None else chat]
        query = str(secrets.randbelow(10**18))
        self._presses[query] = self.clock.timestamp()
        self._note(place, self.users[user].name, "press", data)
        self._update(
            "callback_query",
            {
                "id": query,
                "from": self.users[user].shown(),
                "message": place.messages[message],
                "chat_instance": str(place.id),
                "data": data,
            },
        )
        return query

    @control
    def block(self, user: int) -> None:
        self._set_blocked(user, True)

    @control
    def unblock(self, user: int) -> None:
        self._set_blocked(user, False)

    @control
    def deactivate(self, user: int) -> None:
        self.users[user].deactivated = True

    @control
    def group(self, title: str, members: list[int], supergroup: bool = False) -> int:
        """A new group with the bot in it; returns its id."""
        id = -(10**12) - len(self.chats) - 1 if supergroup else -(1000 + len(self.chats))
        if not self.bot["can_join_groups"]:
            raise ValueError("this bot cannot be added to groups")
        kind = "supergroup" if supergroup else "group"
        chat = self.chats[id] = Chat(id, kind, title, bot_reads_all=not self.privacy)
        founder = self.users[members[0]]
        self._update("my_chat_member", self._membership(chat, founder, self.bot, "left", "member"))
        return id

    @control
    def topic(self, chat: int, title: str) -> int:
        """A topic of a supergroup; returns its thread id. The group is a forum from then on."""
        place = self.chats[chat]
        if place.kind != "supergroup":
            raise ValueError("only a supergroup has topics")
        thread = next(place.numbers)
        place.topics[thread] = title
        return thread

    @control
    def close_topic(self, chat: int, topic: int) -> None:
        """The topic is deleted."""
        del self.chats[chat].topics[topic]

    @control
    def join(self, user: int, chat: int) -> None:
        """A service message for everybody; `chat_member` only for an admin who asked (fact 74)."""
        place, person = self.chats[chat], self.users[user]
        self._post(place, person.shown(), {"new_chat_members": [person.shown()]}, "[joined]")
        if place.bot_admin:
            change = self._membership(place, person, person.shown(), "left", "member")
            self._update("chat_member", change)

    @control
    def leave(self, user: int, chat: int) -> None:
        place, person = self.chats[chat], self.users[user]
        self._post(place, person.shown(), {"left_chat_member": person.shown()}, "[left]")
        if place.bot_admin:
            change = self._membership(place, person, person.shown(), "member", "left")
            self._update("chat_member", change)

    @control
    def promote_bot(self, chat: int, admin: bool = True) -> None:
        self.chats[chat].bot_admin = admin

    @control
    def kick_bot(self, chat: int, by: int) -> None:
        place = self.chats[chat]
        place.bot_inside = False
        change = self._membership(place, self.users[by], self.bot, "member", "kicked")
        self._update("my_chat_member", change)

    @control
    def add_bot(self, chat: int, by: int) -> None:
        """Take the bot out, if it is in, and in again: only so a changed privacy takes effect."""
        place = self.chats[chat]
        place.bot_inside, place.bot_reads_all = True, not self.privacy
        change = self._membership(place, self.users[by], self.bot, "left", "member")
        self._update("my_chat_member", change)

    @control
    def set_privacy(self, on: bool) -> None:
        """@BotFather's /setprivacy; groups where the bot already is do not notice."""
        self.privacy = on
        self.bot["can_read_all_group_messages"] = not on

    @control
    def set_join_groups(self, on: bool) -> None:
        """@BotFather's /setjoingroups."""
        self.bot["can_join_groups"] = on

    @control
    def revoke(self) -> str:
        """@BotFather's API Token, Revoke current token; returns the new one."""
        self.token = f"{self.bot['id']}:{secrets.token_urlsafe(26)}"
        return self.token

    @control
    def other_bot_speaks(self, chat: int) -> None:
        """Then general commands are no longer for us (privacy mode)."""
        self.chats[chat].other_bot_spoke = True

    @control
    def migrate(self, chat: int, by: int) -> int:
        """The group becomes a supergroup with another id (fact 69); returns that."""
        old = self.chats[chat]
        id = -(10**12) - len(self.chats) - 1
        new = self.chats[id] = Chat(id, "supergroup", old.title, bot_admin=old.bot_admin)
        self._post(old, self.users[by].shown(), {"migrate_to_chat_id": id}, "[migrated]")
        self._post(new, self.users[by].shown(), {"migrate_from_chat_id": chat}, "[migrated]")
        old.migrated_to = id
        return id

    # What tests and operators do -----------------------------------------------------------------

    @control
    def flood(self, seconds: float, chat: int | None = None) -> None:
        """Impose a flood wait on one chat, or on the whole bot."""
        self.limiter.flood("overall" if chat is None else f"chat {chat}", seconds)

    @control
    def duplicate_next(self, times: int = 1) -> None:
        """The next updates arrive twice with the same update_id (fact 65)."""
        self._duplicates += times

    @control
    def hold_next(self, times: int = 1) -> None:
        """The next updates arrive after the one that follows them (fact 65)."""
        self._holds += times

    @control
    def poison(self, update: Json | None = None) -> None:
        """Deliver an update that no library can read (fact 66)."""
        self._deliver({"update_id": next(self._update_ids), **(update or {"message": {}})})

    @control
    def transcript(self, chat: int) -> list[Line]:
        return self.chats[chat].transcript

    @control
    def heard(self, chat: int) -> list[str]:
        """The texts that the bot wrote into a chat, in order (edits as `[edit] …`)."""
        return [line.text for line in self.chats[chat].transcript if line.by == "bot"]

    @control
    def heard_in(self, chat: int, topic: int | None) -> list[str]:
        """The texts that the bot wrote into one topic; None: outside of all."""
        return [
            message["text"]
            for message in self.chats[chat].messages.values()
            if message["from"] == self.bot
            and "text" in message
            and message.get("message_thread_id") == topic
        ]

    @property
    def commands(self) -> list[Json]:
        """The commands of the default scope."""
        return self.menus.get("default", [])

    @control
    def counters(self) -> dict[str, int]:
        """Calls by method since the start."""
        return dict(self.calls)

    @control
    def pending(self) -> int:
        """Updates that nobody has taken yet."""
        self._forget_old()
        return len(self._updates)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; asked whenever a poll opens or a webhook answers."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # Updates -------------------------------------------------------------------------------------

    def _speak(
        self,
        user: int,
        content: Json,
        shown: str,
        chat: int | None = None,
        reply_to: int | None = None,
    ) -> int:
        person = self.users[user]
        place = self.chats[user if chat is None else chat]
        if place.private:
            person.started = True
            if person.blocked:
                raise ValueError(f"{person.name} has blocked the bot")
        if reply_to is not None:
            replied = place.messages[reply_to]
            content = {**content, "reply_to_message": replied}
        if shown.startswith("/"):
            length = len(shown.split()[0])
            command = {"type": "bot_command", "offset": 0, "length": length}
            content = {**content, "entities": [command]}
        return self._post(place, person.shown(), content, shown)

    def _post(self, place: Chat, sender: Json, content: Json, shown: str) -> int:
        message = self._message(place, sender, content)
        self._note(place, str(sender["first_name"]), "said", shown)
        if place.private or self._bot_may_read(place, message):
            self._update("message", message)
        return int(message["message_id"])

    def _message(self, place: Chat, sender: Json, content: Json) -> Json:
        number = next(place.numbers)
        message = {
            "message_id": number,
            "date": int(self.clock.timestamp()),
            "chat": self._chat_shown(place, sender),
            "from": sender,
            **content,
        }
        place.messages[number] = message
        return message

    def _chat_shown(self, place: Chat, sender: Json) -> Json:
        if place.private:
            return {"id": place.id, "type": "private", "first_name": self.users[place.id].name}
        forum = {"is_forum": True} if place.topics else {}
        return {"id": place.id, "type": place.kind, "title": place.title, **forum}

    def _bot_may_read(self, place: Chat, message: Json) -> bool:
        """Privacy mode: commands, replies to the bot and service messages; an admin reads all."""
        if not place.bot_inside:
            return False
        if place.bot_reads_all or place.bot_admin:
            return True
        text = message.get("text", message.get("caption"))
        if text is None:
            return any(key.startswith(("new_", "left_", "migrate_")) for key in message)
        if message.get("reply_to_message", {}).get("from", {}).get("id") == self.bot["id"]:
            return True
        command = re.match(r"/\w+(?:@(\w+))?", text)
        if command is None:
            return False
        if command[1] is None:
            return not place.other_bot_spoke
        return bool(command[1] == self.bot["username"])

    def _membership(self, place: Chat, by: User, who: Json, before: str, after: str) -> Json:
        return {
            "chat": self._chat_shown(place, by.shown()),
            "from": by.shown(),
            "date": int(self.clock.timestamp()),
            "old_chat_member": {"user": who, "status": before, **_until(before)},
            "new_chat_member": {"user": who, "status": after, **_until(after)},
        }

    def _set_blocked(self, user: int, blocked: bool) -> None:
        person = self.users[user]
        person.blocked = blocked
        before, after = ("member", "kicked") if blocked else ("kicked", "member")
        change = self._membership(self.chats[user], person, self.bot, before, after)
        self._update("my_chat_member", change)

    def _update(self, kind: str, content: Json) -> None:
        # Without a list of kinds these are left out (fact 74).
        if self._allowed is None:
            if kind in ("chat_member", "message_reaction"):
                return
        elif kind not in self._allowed:
            return
        update = {"update_id": next(self._update_ids), kind: content}
        if self._holds:
            self._holds -= 1
            self._held.append(update)
            return
        self._deliver(update)
        if self._duplicates:
            self._duplicates -= 1
            self._deliver(update)
        for held in self._held:
            self._deliver(held)
        self._held.clear()

    def _deliver(self, update: Json) -> None:
        # A copy: an edit must not change what is already on its way.
        entry = (self.clock.timestamp(), json.loads(json.dumps(update)))
        self._updates.append(entry)
        if self.webhook:
            self._call_webhook(entry)
        self._new.set()

    def _forget_old(self) -> None:
        born_after = self.clock.timestamp() - self.rules.update_life
        while self._updates and self._updates[0][0] < born_after:
            self._updates.popleft()

    def _call_webhook(self, entry: tuple[float, Json]) -> None:
        task = asyncio.get_running_loop().create_task(self._push(entry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _push(self, entry: tuple[float, Json]) -> None:
        """Anything but 2xx is repeated, and given up after some tries."""
        for pause in (*self.rules.webhook_retries, None):
            if not self.webhook:
                return
            arrived = await self._pushed(entry[1])
            self._changed.set()
            if arrived:
                break
            if pause is not None:
                await self.clock.wait(pause)
        if entry in self._updates:
            self._updates.remove(entry)
        self._changed.set()

    async def _pushed(self, update: Json) -> bool:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=40)
            self._session = aiohttp.ClientSession(connector=connector)
        headers = {"X-Telegram-Bot-Api-Secret-Token": self._secret} if self._secret else {}
        timeout = aiohttp.ClientTimeout(total=self.rules.webhook_patience)
        try:
            async with self._session.post(
                self.webhook, json=update, headers=headers, timeout=timeout
            ) as response:
                if 200 <= response.status < 300:
                    return True
                error = f"Wrong response from the webhook: {response.status} {response.reason}"
        except (aiohttp.ClientError, OSError) as failure:
            error = type(failure).__name__
        self.last_error = {
            "last_error_date": int(self.clock.timestamp()),
            "last_error_message": error,
        }
        return False

    # The API -------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        return [
            web.route("*", "/bot{token}/{method}", self._serve),
            web.get("/file/bot{token}/{path:.+}", self._download),
        ]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.calls[method] += 1

        async def answer() -> web.StreamResponse:
            return await self._answer(method, request)

        return await answer_with(self.faults.take(method), request, self.clock, answer, _error)

    async def _answer(self, method: str, request: web.Request) -> web.StreamResponse:
        doors: dict[str, Callable[[Json], Awaitable[Any]]] = {
            "getme": self._get_me,
            "getupdates": self._get_updates,
            "setwebhook": self._set_webhook,
            "deletewebhook": self._delete_webhook,
            "getwebhookinfo": self._get_webhook_info,
            "sendmessage": self._send_message,
            "editmessagetext": self._edit_message_text,
            "editmessagereplymarkup": self._edit_message_markup,
            "answercallbackquery": self._answer_callback_query,
            "senddocument": self._send_document,
            "sendphoto": self._send_photo,
            "sendchataction": self._send_chat_action,
            "getfile": self._get_file,
            "setmycommands": self._set_my_commands,
            "getmycommands": self._get_my_commands,
            "getchat": self._get_chat,
        }
        try:
            if request.match_info["token"] != self.token:
                raise Refused(401, "Unauthorized")
            door = doors.get(method.lower())
            if door is None:
                raise Refused(404, "Not Found: method not found")
            result = await door(await _parameters(request))
        except Refused as refused:
            return _refusal(refused)
        return web.json_response({"ok": True, "result": result})

    async def _get_me(self, given: Json) -> Json:
        return self.bot

    async def _get_updates(self, given: Json) -> list[Json]:
        """Long poll; a newer poll ends the older with 409 (fact 76)."""
        if self.webhook:
            raise Refused(
                409,
                "Conflict: can't use getUpdates method while webhook is active; "
                "use deleteWebhook to delete the webhook first",
            )
        if "allowed_updates" in given:
            self._allow(given["allowed_updates"])
        offset = int(given.get("offset", 0))
        if offset > 0:
            kept = [entry for entry in self._updates if entry[1]["update_id"] >= offset]
            self._updates = deque(kept)
        elif offset < 0:
            self._updates = deque(list(self._updates)[offset:])
        await self._poll_for(float(given.get("timeout", 0)))
        self._forget_old()
        limit = min(100, max(1, int(given.get("limit", 100))))
        return [update for _, update in itertools.islice(self._updates, limit)]

    async def _poll_for(self, seconds: float) -> None:
        if self._poll is not None:
            self._poll.set()
        mine = self._poll = asyncio.Event()
        self._new.clear()
        if self._updates or seconds <= 0:
            return
        waits = [
            asyncio.ensure_future(wait)
            for wait in (self._new.wait(), mine.wait(), self.clock.wait(seconds))
        ]
        self.waiting_polls += 1
        self._changed.set()
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.waiting_polls -= 1
            for wait in waits:
                wait.cancel()
            if self._poll is mine:
                self._poll = None
        if mine.is_set():
            raise Refused(
                409,
                "Conflict: terminated by other getUpdates request; "
                "make sure that only one bot instance is running",
            )

    def _allow(self, kinds: list[str] | None) -> None:
        self._allowed = frozenset(kinds) if kinds else None

    async def _set_webhook(self, given: Json) -> bool:
        url, secret = given.get("url", ""), given.get("secret_token", "")
        if url and not url.startswith(("https://", "http://127.0.0.1:")):
            raise Refused(
                400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook"
            )
        if secret and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", secret):
            raise Refused(400, "Bad Request: secret token contains unallowed characters")
        if "allowed_updates" in given:
            self._allow(given["allowed_updates"])
        if given.get("drop_pending_updates"):
            self._updates.clear()
        self.webhook, self._secret = url, secret
        if self._poll is not None:
            self._poll.set()
        if url:
            for entry in list(self._updates):
                self._call_webhook(entry)
        return True

    async def _delete_webhook(self, given: Json) -> bool:
        return await self._set_webhook(
            {"url": "", "drop_pending_updates": given.get("drop_pending_updates")}
        )

    async def _get_webhook_info(self, given: Json) -> Json:
        info: Json = {"url": self.webhook, "has_custom_certificate": False}
        if self._allowed is not None:
            info["allowed_updates"] = sorted(self._allowed)
        return info | {"pending_update_count": self.pending(), **self.last_error}

    def _chat(self, given: Json) -> Chat:
        """The chat to write to, or the reason why not."""
        try:
            chat = self.chats[int(given["chat_id"])]
        except (KeyError, ValueError):
            raise Refused(400, "Bad Request: chat not found") from None
        if chat.migrated_to is not None:
            raise Refused(
                400,
                "Bad Request: group chat was upgraded to a supergroup chat",
                migrate_to_chat_id=chat.migrated_to,
            )
        if not chat.bot_inside:
            raise Refused(403, f"Forbidden: bot was kicked from the {chat.kind} chat")
        if chat.private:
            person = self.users[chat.id]
            if person.deactivated:
                raise Refused(403, "Forbidden: user is deactivated")
            if person.blocked:  # fact 70
                raise Refused(403, "Forbidden: bot was blocked by the user")
            if not person.started:
                raise Refused(403, "Forbidden: bot can't initiate conversation with a user")
        return chat

    def _text(self, given: Json, name: str, limit: int) -> str:
        text = str(given.get(name, ""))
        if given.get("parse_mode", "").upper() == "HTML":
            text = Markup.read(text)
        elif given.get("parse_mode"):
            raise Refused(400, "Bad Request: unsupported parse_mode")
        if len(text) > limit:  # fact 72
            what = "message caption" if name == "caption" else "message"
            raise Refused(400, f"Bad Request: {what} is too long")
        return text.strip()

    def _reply_markup(self, given: Json, chat: Chat) -> Json:
        """What of the markup belongs to the message (inline buttons); raises if it is not valid."""
        markup = given.get("reply_markup") or {}
        buttons = [button for row in markup.get("inline_keyboard", []) for button in row]
        if len(buttons) > self.rules.buttons:
            raise Refused(400, "Bad Request: reply markup is too long")
        for button in buttons:
            self._check_button(button)
        for row in markup.get("keyboard", []):
            for key in row:
                if isinstance(key, dict) and key.get("request_contact") and not chat.private:
                    raise Refused(
                        400, "Bad Request: phone number can be requested in private chats only"
                    )
        return {"reply_markup": markup} if buttons else {}

    def _check_button(self, button: Json) -> None:
        if not button.get("text"):
            raise Refused(400, "Bad Request: can't parse inline keyboard button: Text is empty")
        data = button.get("callback_data")
        if data is not None:
            if not 1 <= len(data.encode()) <= self.rules.callback_data_bytes:  # fact 73
                raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")
        elif not button.get("url") and not button.get("web_app"):
            raise Refused(
                400,
                "Bad Request: can't parse inline keyboard button: "
                "Text buttons are unallowed in the inline keyboard",
            )

    async def _send_message(self, given: Json) -> Json:
        chat = self._chat(given)
        text = self._text(given, "text", self.rules.text_length)
        if not text:
            raise Refused(400, "Bad Request: message text is empty")
        markup = self._reply_markup(given, chat)
        topic = self._topic(given, chat)
        self.limiter.pass_through(chat)
        keyboard = given.get("reply_markup") or {}
        return self._say(chat, {"text": text, **markup, **topic}, "said", text, keyboard)

    def _topic(self, given: Json, chat: Chat) -> Json:
        """What of the message says in which topic it stands."""
        topic = given.get("message_thread_id")
        if topic is None:
            return {}
        if int(topic) not in chat.topics:
            raise Refused(400, "Bad Request: message thread not found")
        return _in_topic(int(topic))

    def _say(self, chat: Chat, content: Json, kind: str, text: str, keyboard: Json) -> Json:
        chat.other_bot_spoke = False
        message = self._message(chat, self.bot, content)
        self._note(chat, "bot", kind, text)
        if keyboard.get("remove_keyboard"):
            chat.keyboard = None
        elif keyboard.get("keyboard"):
            chat.keyboard = [
                key if isinstance(key, dict) else {"text": key}
                for row in keyboard["keyboard"]
                for key in row
            ]
        rows = keyboard.get("inline_keyboard") or keyboard.get("keyboard") or []
        labels = [key if isinstance(key, str) else key["text"] for row in rows for key in row]
        if labels:
            self._note(chat, "buttons", kind, " | ".join(labels))
        return message

    def _editable(self, given: Json, chat: Chat) -> Json:
        message = chat.messages.get(int(given.get("message_id", 0)))
        if message is None:
            raise Refused(400, "Bad Request: message to edit not found")
        if message["from"]["id"] != self.bot["id"]:
            raise Refused(400, "Bad Request: message can't be edited")
        if self.clock.timestamp() - message["date"] > self.rules.edit_life:
            raise Refused(400, "Bad Request: message can't be edited")
        return message

    async def _edit_message_text(self, given: Json) -> Json:
        chat = self._chat(given)
        message = self._editable(given, chat)
        text = self._text(given, "text", self.rules.text_length)
        if not text:
            raise Refused(400, "Bad Request: message text is empty")
        return self._change(chat, message, {"text": text, **self._reply_markup(given, chat)})

    async def _edit_message_markup(self, given: Json) -> Json:
        chat = self._chat(given)
        message = self._editable(given, chat)
        kept = {"text": message["text"]} if "text" in message else {}
        return self._change(chat, message, {**kept, **self._reply_markup(given, chat)})

    def _change(self, chat: Chat, message: Json, new: Json) -> Json:
        old = {key: message[key] for key in ("text", "reply_markup") if key in message}
        if old == new:
            raise Refused(
                400,
                "Bad Request: message is not modified: specified new message content and reply "
                "markup are exactly the same as a current content and reply markup of the message",
            )
        message.pop("reply_markup", None)
        message.update(new, edit_date=int(self.clock.timestamp()))
        self._note(chat, "bot", "edit", f"[edit] {new.get('text', '')}")
        return message

    async def _answer_callback_query(self, given: Json) -> bool:
        pressed = self._presses.get(str(given.get("callback_query_id")))
        if pressed is None or self.clock.timestamp() - pressed > self.rules.callback_life:
            raise Refused(
                400,
                "Bad Request: query is too old and response timeout expired or query ID is invalid",
            )
        if len(given.get("text", "")) > self.rules.callback_answer_length:
            raise Refused(400, "Bad Request: MESSAGE_TOO_LONG")
        self.toasts.append(given.get("text", ""))
        return True

    async def _send_document(self, given: Json) -> Json:
        return await self._send_file(given, "document")

    async def _send_photo(self, given: Json) -> Json:
        return await self._send_file(given, "photo")

    async def _send_file(self, given: Json, kind: str) -> Json:
        chat = self._chat(given)
        part = given.get(kind, "")
        if isinstance(part, str) and part.startswith("attach://"):
            part = given.get(part.removeprefix("attach://"), "")
        caption = self._text(given, "caption", self.rules.caption_length)
        markup = self._reply_markup(given, chat)
        if isinstance(part, web.FileField):
            content = part.file.read()
            if len(content) > self.rules.upload_bytes:
                raise Refused(413, "Request Entity Too Large")
            if not content:
                raise Refused(400, "Bad Request: file must be non-empty")
            if kind == "photo":
                self._check_photo(content)
            file = self._keep(f"{kind}s/{part.filename}", content)
            file["file_name"] = part.filename
        elif part in self._files:
            file = {"file_id": part, "file_unique_id": part, "file_name": part}
        else:
            raise Refused(400, f"Bad Request: there is no {kind} in the request")
        topic = self._topic(given, chat)
        self.limiter.pass_through(chat)
        shown = [file | {"width": 90, "height": 90}] if kind == "photo" else file
        content_shown = {
            kind: shown,
            **({"caption": caption} if caption else {}),
            **markup,
            **topic,
        }
        text = f"[{kind}] {file['file_name']} {caption}".strip()
        return self._say(chat, content_shown, kind, text, given.get("reply_markup") or {})

    def _check_photo(self, content: bytes) -> None:
        if len(content) > self.rules.photo_bytes:
            raise Refused(400, "Bad Request: file is too big")
        if not content.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF")):
            raise Refused(400, "Bad Request: IMAGE_PROCESS_FAILED")

    async def _send_chat_action(self, given: Json) -> bool:
        self._chat(given)
        return True

    def _keep(self, path: str, content: bytes) -> Json:
        file_id = secrets.token_urlsafe(24)
        self._files[file_id] = (f"{secrets.token_hex(4)}/{path}", content)
        return {"file_id": file_id, "file_unique_id": file_id[:12], "file_size": len(content)}

    async def _get_file(self, given: Json) -> Json:
        file_id = str(given.get("file_id"))
        if file_id not in self._files:
            raise Refused(400, "Bad Request: invalid file_id")
        path, content = self._files[file_id]
        if len(content) > self.rules.download_bytes:
            raise Refused(400, "Bad Request: file is too big")
        shown = {"file_id": file_id, "file_unique_id": file_id[:12], "file_size": len(content)}
        return shown | {"file_path": path}

    async def _download(self, request: web.Request) -> web.StreamResponse:
        wanted = request.match_info["path"]
        for path, content in self._files.values():
            if path == wanted and request.match_info["token"] == self.token:
                return web.Response(body=content)
        return _refusal(Refused(404, "Not Found"))

    async def _set_my_commands(self, given: Json) -> bool:
        commands = given.get("commands") or []
        if len(commands) > self.rules.commands:
            raise Refused(400, "Bad Request: BOT_COMMANDS_TOO_MUCH")
        for command in commands:
            if not re.fullmatch(r"[a-z0-9_]{1,32}", command["command"]):
                raise Refused(400, "Bad Request: BOT_COMMAND_INVALID")
        self.menus[_scope(given)] = commands
        return True

    async def _get_my_commands(self, given: Json) -> list[Json]:
        return self.menus.get(_scope(given), [])

    async def _get_chat(self, given: Json) -> Json:
        chat = self._chat(given)
        return self._chat_shown(chat, self.bot)

    def _note(self, chat: Chat, by: str, kind: str, text: str) -> None:
        chat.transcript.append(Line(self.clock.timestamp(), by, kind, text))


def _scope(given: Json) -> str:
    return str((given.get("scope") or {"type": "default"})["type"])


def _in_topic(topic: int | None) -> Json:
    return {} if topic is None else {"message_thread_id": topic, "is_topic_message": True}


def _until(status: str) -> Json:
    return {"until_date": 0} if status == "kicked" else {}


def _inline_buttons(message: Json) -> list[Json]:
    rows = message.get("reply_markup", {}).get("inline_keyboard", [])
    return [button for row in rows for button in row]


async def _parameters(request: web.Request) -> Json:
    """Query, JSON, form or multipart: the API takes them all."""
    given: Json = dict(request.query)
    if request.content_type == "application/json":
        given |= await request.json()
    elif request.can_read_body:
        given |= dict(await request.post())
    for name in ("reply_markup", "allowed_updates", "commands", "reply_parameters", "scope"):
        if isinstance(given.get(name), str):
            try:
                given[name] = json.loads(given[name])
            except ValueError:
                raise Refused(400, f"Bad Request: can't parse {name} JSON object") from None
    return given


def _error(code: int) -> web.StreamResponse:
    descriptions = {429: "Too Many Requests: retry after 3", 500: "Internal Server Error"}
    parameters = {"retry_after": 3} if code == 429 else {}
    return _refusal(Refused(code, descriptions.get(code, "Bad Request"), **parameters))


def _refusal(refused: Refused) -> web.StreamResponse:
    answer: Json = {
        "ok": False,
        "error_code": refused.status,
        "description": refused.description,
    }
    if refused.parameters:
        answer["parameters"] = refused.parameters
    return web.json_response(answer, status=refused.status)
