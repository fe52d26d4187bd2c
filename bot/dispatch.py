"""One message in, its answer out, in one transaction; many people's messages in one commit.

A message whose key the inbox knows is answered from there and changes nothing. What only asks,
answers or corrects a question is computed in memory; a handler runs inside a savepoint of its own,
so that its mistakes are its own. If the batch as a whole fails, each message is done again alone.
While the database is away, what a platform would soon give up is spooled and taken in later.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

import structlog
from pydantic_core import from_json
from sqlalchemy import Connection, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlmodel import col

from bot import entrances
from bot.alarm import call_for_help
from bot.catalog import Catalog, Match, spoken
from bot.clock import beijing
from bot.commands import Command, Greeting
from bot.context import ChannelFacts, Context, Sender, Services, group_row, new_row, outbox_row
from bot.errors import NotYet, UserError
from bot.forms import UNDER, Ask, Dialog, DraftState, Form, Step
from bot.logs import incident
from bot.messages import (
    SILENCE,
    Address,
    Happening,
    Inbound,
    Kind,
    Part,
    Reply,
    as_json,
    dump_reply,
    load_reply,
    say,
)
from bot.normalize import Reserved, answer, near_miss, reserved
from bot.personal_numbers import reaches_somebody, scrub
from bot.purposes import ANSWER, TROUBLE
from bot.spool import Spool
from bot.text import merged, shape
from storage import mailbox, overview
from storage.db import Kept, away
from storage.dialogs import answered_last
from storage.hotpath import HotPath
from storage.people import Contact, Role

BATCH = 64
LOOSE = 6  # characters around a word from which on it may merely be mentioned
PROBE = 0.25  # seconds between two looks whether a database that was away is back
TRIES = 5  # to take in what was kept; whatever cannot be taken must not be tried for ever
LOOKS = 240  # the same for what may only come too early: a minute, where nothing else waits
LATE = timedelta(seconds=2)  # a platform's clock tells whole seconds

LONGEST = 4096  # characters, as long as Telegram's longest; WeChat's are shorter
TOO_LONG = f"这条太长了，没有保存，请分几次发，每次不超过{LONGEST}字。"
NUMBER_DROPPED = "证件号或卡号我们不需要，已丢弃、未保存，建议您撤回刚才那条消息。"
TAKEN_BACK = "您撤回的那条已删去。"
GROUP_PRIVATE = "涉及个人信息，请私聊我办理。"
GROUP_NUMBER = (
    "为保护您的信息，建议撤回刚才那条消息，需要办理请私聊我。紧急情况请直接拨打110、119、120。"
)
CAUGHT_UP = "恢复：数据库刚才用不了，其间的来信和平台通知已暂存并补办。请管理员查明原因。"
USED_UP = "这个入口已经用过、过期，或者是给别人的。"

log = structlog.get_logger()


@dataclass
class Waiting:
    """A message in hand and who waits for its answer.

    `abandoned`: the platform's connection is gone, so the answer must leave through the outbox.
    """

    inbound: Inbound
    future: Future[tuple[Part, ...]] | asyncio.Future[tuple[Part, ...]] = field(
        default_factory=Future
    )
    abandoned: bool = False
    key: str = field(init=False)
    address: str = field(init=False)

    def __post_init__(self) -> None:
        self.key, self.address = self.inbound.key, str(self.inbound.sender)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Where the answer is awaited: a batch's answers are handed to a loop in one call."""
        return None if isinstance(self.future, Future) else self.future.get_loop()


@dataclass
class _Batch:
    """What the end of a transaction writes in a few statements."""

    inbox: list[tuple[str, int | None, str | None]] = field(default_factory=list)
    outbox: list[dict[str, Any]] = field(default_factory=list)
    drafts: list[tuple[int, str, bool, str, datetime]] = field(default_factory=list)
    gone: list[tuple[int, str]] = field(default_factory=list)
    windows: list[tuple[int, datetime, int]] = field(default_factory=list)
    spoken: list[str] = field(default_factory=list)


_STRANGER = Sender()
_Done = tuple[Waiting, tuple[Part, ...], Exception | None]


class DidYouMean(Form, name="did_you_mean", label="确认指令"):
    """Asks before a near miss runs something that changes things."""

    finish = None
    expires: ClassVar[timedelta] = timedelta(hours=1)

    yes: bool = False

    @classmethod
    def asks(cls) -> Mapping[str, Ask]:  # type: ignore[override]  # one question, in sight
        return _DID_YOU_MEAN

    def submit(self, context: Context) -> Reply:
        raise NotImplementedError  # the dispatcher runs the command itself


_DID_YOU_MEAN = {
    "yes": Ask(
        "确认",
        lambda asking: f"您是要「{asking.facts['word']}」吗？回「是」。",
        lambda text, _asking: _yes(text),
        yes_no=True,
        options=("是", "不是"),
    )
}


def _yes(text: str) -> bool:
    said = answer(text)
    return text in ("1",) or (said is not None and said.yes)


class Dispatcher:
    """Takes messages from any thread; one writer thread does them in batches."""

    def __init__(
        self,
        services: Services,
        wake: Callable[[], None] = lambda: None,
        spool: Spool | None = None,
        noting: Mapping[str, Callable[[Context], None]] | None = None,
    ) -> None:
        """`noting`: by channel, who writes down what its platform tells beside the conversation."""
        self.services = services
        self.spool = spool
        self._noting = noting or {}
        self._trouble: Exception | None = None
        self._tries: Counter[str] = Counter()
        self._look_at = 0.0
        self.catalog: Catalog = services.catalog
        self._forms: Mapping[str, type[Form]] = {
            **self.catalog.forms,
            DidYouMean.name: DidYouMean,
        }
        self.wake = wake
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._left_over: list[Waiting] = []
        self._busy = threading.Lock()
        self._kept = Kept(services.database)
        self._thread: threading.Thread | None = None
        self._greeting = next(iter(self.catalog.of(Greeting)), None)

    # - the writer thread -

    def start(self) -> None:
        """Begin to take messages from `submit`, after those that an earlier process kept."""
        if self.spool is not None and self.spool.adopt():
            log.warning("spool_found", depth=self.spool.depth)
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish what was submitted, then end the thread and let its connection go."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        self._kept.close()

    def submit(
        self, inbound: Inbound, answer: asyncio.Future[tuple[Part, ...]] | None = None
    ) -> Waiting:
        """Hand a message to the writer; the future in what is returned holds its answer.

        A loop's own future is settled in that loop's thread.
        """
        waiting = Waiting(inbound) if answer is None else Waiting(inbound, answer)
        self._queue.put(waiting)
        return waiting

    def handle(self, inbound: Inbound) -> tuple[Part, ...]:
        """Answer one message here and now (tests, the terminal)."""
        waiting = Waiting(inbound)
        self.work([waiting])
        return waiting.future.result()

    def _run(self) -> None:
        while True:
            spool = self.spool if self.spool is not None and self.spool.depth else None
            batch = self._gather(None if spool is None else self._pause())
            if batch is None:
                return
            if spool is not None and time.monotonic() >= self._look_at:
                self._take_in(spool)
            if batch:
                self.work(batch)

    def _gather(self, patience: float | None = None) -> list[Waiting] | None:
        """Up to a batch of waiting messages, at most one an address; none after so many seconds.

        Somebody who says a hundred things at once keeps nobody waiting behind them.
        """
        arrived, self._left_over = self._left_over, []
        chosen: dict[str, Waiting] = {}
        for waiting in arrived:
            self._choose(waiting, chosen)
        while len(chosen) < BATCH:
            try:
                more = self._queue.get(not chosen, patience)
            except queue.Empty:
                break
            if more is None:
                if not chosen:
                    return None
                self._queue.put(None)
                break
            self._choose(more, chosen)
        return list(chosen.values())

    def _choose(self, waiting: Waiting, chosen: dict[str, Waiting]) -> None:
        if chosen.setdefault(waiting.address, waiting) is not waiting:
            self._left_over.append(waiting)

    def work(self, batch: Sequence[Waiting]) -> None:
        """Answer a batch in one transaction; one by one, if that fails."""
        if self.spool is not None and self.spool.depth:
            batch = self._not_behind(self.spool, batch)
        lost = self._answer_all(batch)
        if lost and self._trouble is not None:
            self._set_aside(lost, self._trouble)

    def _answer_all(self, batch: Sequence[Waiting]) -> Sequence[Waiting]:
        """Those that a database out of reach has left without an answer."""
        if not batch:
            return ()
        with self._busy:
            try:
                answers = self._together(batch)
            except Exception as error:  # noqa: BLE001  # done alone it says what it was
                if self._trouble is None and not isinstance(error, NotYet):
                    log.warning("batch_replayed", size=len(batch), error=type(error).__name__)
                answers = None
        if answers is None:
            for number, waiting in enumerate(batch):
                if not self._alone(waiting):
                    return batch[number:]
            return ()
        self._hand_over([(w, parts, None) for w, parts in zip(batch, answers, strict=True)])
        return ()

    def _alone(self, waiting: Waiting) -> bool:
        """Once more by itself: another replica may have been in the way, or quicker.

        False when the database is out of reach; then nobody has been told anything.
        """
        with self._busy:
            try:
                parts = self._together([waiting])[0]
            except Exception as error:  # noqa: BLE001  # the dispatcher is one of the outer walls
                if away(error):
                    self._note_away(error)
                    return False
                self._trouble = None  # it has been asked, and has answered
                self._fail(waiting, error)
                return True
        self._hand_over([(waiting, parts, None)])
        return True

    # - while the database is away -

    def _pause(self) -> float:
        """How long to wait for something new while something is kept."""
        return PROBE if self._trouble else max(0.0, self._look_at - time.monotonic())

    def _note_away(self, error: Exception) -> None:
        if self._trouble is None:
            log.error("database_away", error=type(getattr(error, "orig", error)).__name__)
        self._trouble = error

    def _gives_up(self, waiting: Waiting) -> bool:
        inbound = waiting.inbound
        return self.services.channels[inbound.sender.channel].lets_go(inbound.kind)

    def _not_behind(self, spool: Spool, batch: Sequence[Waiting]) -> list[Waiting]:
        """Those to be answered now; a spooled message must be answered before what follows it."""
        behind = [
            waiting
            for waiting in batch
            if self._gives_up(waiting) and (self._trouble or spool.holds(waiting.address))
        ]
        self._set_aside(behind, self._trouble)
        return [waiting for waiting in batch if waiting not in behind]

    def _set_aside(self, batch: Sequence[Waiting], trouble: Exception | None) -> None:
        """Keep what its platform would not tell again for long; the others are told again."""
        kept = [waiting for waiting in batch if self._gives_up(waiting)]
        try:
            if self.spool is None:
                kept = []
            elif kept:
                self.spool.keep([waiting.inbound for waiting in kept])
        except OSError as error:
            log.error("spool_refused", count=len(kept), error=type(error).__name__)
            kept, trouble = [], trouble or error
        # The answer leaves through the outbox, when there is one.
        self._hand_over([(waiting, (), None) for waiting in kept])
        for waiting in batch:
            if waiting not in kept and trouble is not None:
                self._fail(waiting, trouble)

    def _take_in(self, spool: Spool) -> None:
        """Answer the oldest that were kept, in order for each address, if the database is back.

        What fails for another reason goes behind, so that nothing waits for it.
        """
        kept = [Waiting(inbound, abandoned=True) for inbound in spool.next(BATCH)]
        rest = kept
        while rest:
            chosen: dict[str, Waiting] = {}
            behind = [w for w in rest if chosen.setdefault(w.address, w) is not w]
            if self._answer_all(list(chosen.values())):
                return
            rest = behind
        left = [waiting.inbound for waiting in kept if self._is_left(waiting)]
        spool.taken(len(kept), left)
        if left and spool.depth == len(left):
            self._look_at = time.monotonic() + PROBE
        if len(left) < len(kept):
            log.info("spool_taken_in", count=len(kept) - len(left), depth=spool.depth)
        if kept and not spool.depth:
            self._tell_of_outage(kept[-1].inbound.sender.channel)

    def _is_left(self, waiting: Waiting) -> bool:
        """Is it to be tried again? Not for ever; then the log says what was given up."""
        error, key = waiting.future.exception(), waiting.key
        if error is None:
            del self._tries[key]
            return False
        self._tries[key] += 1
        if self._tries[key] < (LOOKS if isinstance(error, NotYet) else TRIES):
            return True
        del self._tries[key]
        log.error("spool_given_up", kind=waiting.inbound.kind, error=type(error).__name__)
        return False

    def _tell_of_outage(self, channel: str) -> None:
        try:
            with self.services.database.transaction() as connection:
                call_for_help(self.services, connection, channel, CAUGHT_UP)
        except Exception as error:  # noqa: BLE001  # all was taken in; this only says so
            log.warning("outage_not_told", error=type(error).__name__)

    def _fail(self, waiting: Waiting, error: Exception) -> None:
        if not isinstance(error, NotYet):
            log.error("message_failed", error=type(error).__name__)
        self._hand_over([(waiting, (), error)])

    def _hand_over(self, done: Sequence[_Done]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop | None, list[_Done]] = {}
        for one in done:
            by_loop.setdefault(one[0].loop, []).append(one)
        for loop, mine in by_loop.items():
            if loop is None or loop.is_closed():
                self._settle(mine)
            else:
                loop.call_soon_threadsafe(self._settle, mine)

    def _settle(self, done: Sequence[_Done]) -> None:
        """Give each waiter its answer, or the reason why there is none."""
        for waiting, parts, error in done:
            if waiting.future.done():
                if waiting.abandoned and parts:
                    # Given up between its answer and its commit: the inbox has what nobody took.
                    self._queue.put(Waiting(waiting.inbound, abandoned=True))
            elif error is None:
                waiting.future.set_result(parts)
            else:
                waiting.future.set_exception(error)

    # - one transaction -

    def _together(self, batch: Sequence[Waiting]) -> list[tuple[Part, ...]]:
        now = self.services.clock.now()
        written = _Batch()
        answers: list[tuple[Part, ...]] = []
        with self._kept.transaction() as connection:
            seen = HotPath(connection).seen([w.key for w in batch])
            fresh = [w for w in batch if w.key not in seen or w.abandoned]
            senders = self._senders(connection, fresh, now)
            done: set[int] = set()
            for waiting in batch:
                if waiting.key in seen:
                    reply = seen[waiting.key]
                    answers.append(load_reply(reply).parts if reply else ())
                    if waiting.abandoned and reply:
                        sender, inbound = senders[waiting.address], waiting.inbound
                        written.outbox.append(self._late_row(connection, inbound, sender, reply))
                    continue
                sender = senders[waiting.address]
                if sender.person_id and sender.person_id in done:
                    # Two addresses of one person: the later message needs the earlier one's draft.
                    raise _TooCloseTogether
                seen[waiting.key] = None
                parts, merged = self._one(connection, waiting, sender, now, written)
                if merged & done:
                    raise _TooCloseTogether
                done |= {sender.person_id, *merged}
                answers.append(parts)
            due = self._write(connection, written, now)
        self._trouble = None
        if due:
            self.wake()
        return answers

    def _late_row(
        self, connection: Connection, inbound: Inbound, sender: Sender, reply: str
    ) -> dict[str, Any]:
        context = Context(self.services, connection, inbound, sender, self.services.clock.now())
        facts = self.services.channels[inbound.sender.channel]
        return self._answer_row(context, load_reply(reply), facts)

    def _senders(
        self, connection: Connection, messages: Sequence[Waiting], now: datetime
    ) -> dict[str, Sender]:
        """Person, roles and drafts of everybody who speaks, each kind in one statement."""
        strangers = dict.fromkeys([message.address for message in messages], _STRANGER)
        messages = [m for m in messages if not self._anonymous(m.inbound.sender)]
        if not messages:
            return strangers
        hot = HotPath(connection)
        contacts = hot.contacts(sorted({message.address for message in messages}))
        for message in messages:
            address, inbound = message.address, message.inbound
            if address not in contacts and inbound.chat.private:
                contacts[address] = hot.newcomer(inbound.sender.channel, address, now)
        people = sorted({person for _contact, person in contacts.values()})
        if not hot.lock(people):
            raise _TooCloseTogether
        roles: dict[int, list[Role]] = {}
        for person, role, unit, team in hot.roles(people, now):
            roles.setdefault(person, []).append(Role(role, unit, team))
        drafts, open_forms = self._drafts(hot, people, now)
        senders = {
            address: Sender(
                person,
                contact,
                roles.get(person, ()),
                drafts.get(person, {}),
                open_forms.get(person),
            )
            for address, (contact, person) in contacts.items()
        }
        return strangers | senders

    def _anonymous(self, sender: Address) -> bool:
        return self.services.channels[sender.channel].anonymous

    def _drafts(
        self, hot: HotPath, people: Sequence[int], now: datetime
    ) -> tuple[dict[int, dict[str, DraftState]], dict[int, str]]:
        drafts: dict[int, dict[str, DraftState]] = {}
        open_forms: dict[int, str] = {}
        for person, form, parked, state in hot.drafts(people, now):
            if form not in self._forms:
                continue
            drafts.setdefault(person, {})[form] = load_draft(form, state)
            if not parked:
                open_forms[person] = form
        return drafts, open_forms

    def _one(
        self,
        connection: Connection,
        waiting: Waiting,
        sender: Sender,
        now: datetime,
        written: _Batch,
    ) -> tuple[tuple[Part, ...], set[int]]:
        """The platform's own answer, and the persons who became one over it."""
        inbound = waiting.inbound
        context = Context(self.services, connection, inbound, sender, now)
        reply = self._answered(context)
        facts = self.services.channels[inbound.sender.channel]
        self._note_contact(context, waiting.address, facts, written)
        if context.person_id:
            self._note_drafts(context, context.loaded, now, written)
        written.outbox += context.outgoing
        inline, rest = self._divide(reply, facts, waiting)
        stored = dump_reply(Reply(inline)) if inline else None
        written.inbox.append((waiting.key, context.person_id or None, stored))
        if rest:
            written.outbox.append(self._answer_row(context, Reply(rest), facts))
        return inline, context.merged

    def _divide(
        self, reply: Reply, facts: ChannelFacts, waiting: Waiting
    ) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        """What goes into the platform's own answer, and what must leave through the outbox."""
        apart = waiting.inbound.kind in facts.apart
        if not facts.inline or waiting.abandoned or apart:
            return (), reply.parts
        parts = merged(shape(reply, facts, self.services.settings.public_url), facts)
        return parts[: facts.inline], parts[facts.inline :]

    def _answer_row(self, context: Context, reply: Reply, facts: ChannelFacts) -> dict[str, Any]:
        inbound = context.inbound
        occasion = f"answer:{inbound.key}"
        if inbound.chat.group is not None:
            return group_row(self.services, inbound.chat.group, reply, occasion, context.now)
        return new_row(
            occasion=occasion,
            # Who writes on an anonymous channel is nobody we keep.
            recipient=f"p{context.person_id}" if context.person_id else f"a{inbound.sender}",
            person_id=context.person_id or None,
            address=str(inbound.sender),
            purpose=ANSWER.name,
            lane=facts.lane(urgent=True),
            windowed=facts.windowed,
            repeatable=True,
            body=dump_reply(reply),
            not_before=context.now,
            created_at=context.now,
        )

    def _note_contact(
        self, context: Context, address: str, facts: ChannelFacts, written: _Batch
    ) -> None:
        inbound = context.inbound
        if not context.contact_id or not inbound.chat.private:
            return
        kind = inbound.text if inbound.kind is Kind.EVENT else str(inbound.kind)
        if kind in (Happening.UNFOLLOW, Happening.BLOCKED):
            context.connection.execute(
                update(Contact)
                .where(col(Contact.id) == context.contact_id)
                .values(reachable=False, window_until=None, window_left=0)
            )
            return
        window = facts.windows.get(kind) or facts.windows.get("any")
        if facts.windowed and window is None:
            return
        span, left = window or (timedelta(0), 0)
        # What is fetched late was said before: its platform has counted since then.
        said = min(context.now, inbound.received_at)
        if facts.windowed and said < context.now - LATE:
            sent = overview.bubbles_since(context.connection, address, said)
            left = max(0, left - sent)
        written.windows.append((context.contact_id, said + span, left))
        if facts.windowed:
            written.spoken.append(address)

    def _note_drafts(
        self, context: Context, sender: Sender, now: datetime, written: _Batch
    ) -> None:
        for name in sender.drafts:
            if name not in context.drafts:
                written.gone.append((context.person_id, name))
        for name, state in context.drafts.items():
            parked = name != context.open_form
            if sender.drafts.get(name) == state and parked == (name != sender.open_form):
                continue
            form = self._forms[name]
            expires = form.deadline(state.facts, now)
            written.drafts.append((context.person_id, name, parked, dump_draft(state), expires))

    def _write(self, connection: Connection, written: _Batch, now: datetime) -> bool:
        """Write it all; is anything due to be sent now?"""
        hot = HotPath(connection)
        hot.forget_drafts(written.gone)
        hot.keep_drafts(written.drafts, now)
        hot.open_windows(written.windows, now)
        reopened = hot.reopen(written.spoken)
        mailbox.enqueue(connection, written.outbox)
        hot.remember(written.inbox, now)
        return reopened or bool(written.outbox)

    # - what is answered -

    def _answered(self, context: Context) -> Reply:
        """The answer; a bug outside every handler is told like one inside."""
        kept = dict(context.drafts), context.open_form
        try:
            return self._answer(context)
        except (DBAPIError, NotYet, _TooCloseTogether):
            raise
        except Exception as error:  # noqa: BLE001  # nobody may be stuck behind one message
            context.drafts, context.open_form = kept
            return self._bug(context, error) + self._without_broken_form(context)

    def _without_broken_form(self, context: Context) -> Reply:
        """Forget the open form if it cannot even repeat its question, and say so."""
        if context.open_form is None:
            return SILENCE
        form = self._forms[context.open_form]
        try:
            self._dialog(context, form).again()
        except Exception as error:  # noqa: BLE001  # left from another release, or spoilt
            log.error("form_forgotten", form=form.name, error=type(error).__name__)
            context.discard(form)
            return say(f"没填完的「{form.label}」打不开了，已收起，请重新开始。")
        return SILENCE

    def _answer(self, context: Context) -> Reply:
        inbound = context.inbound
        if not inbound.chat.private:
            if inbound.kind is Kind.ASIDE:
                return self._noted(context)
            return self._answer_group(context) if len(inbound.text) <= LONGEST else SILENCE
        if len(inbound.text) > LONGEST:
            return say(TOO_LONG)
        boundary = context.boundary
        instead = boundary.message(context) if boundary is not None else None
        if instead is not None:
            return instead
        if inbound.kind is Kind.EVENT:
            return self._come_in(context)
        text, dropped = scrub(inbound.text) if inbound.kind is Kind.TEXT else (inbound.text, False)
        if dropped:
            context.inbound = replace(inbound, text=text)
        reply = self._route(context, text)
        if dropped:
            return say(NUMBER_DROPPED) + reply if reply else say(NUMBER_DROPPED)
        return reply

    def _noted(self, context: Context) -> Reply:
        """What nobody said is answered by nothing, a mistake in it neither."""

        def note() -> Reply:
            self._noting[context.inbound.sender.channel](context)
            return SILENCE

        self._guarded(context, note)
        return SILENCE

    def _come_in(self, context: Context) -> Reply:
        """Who comes by a code of ours is heard as if they had said what it stands for."""
        if context.inbound.text == Happening.RECALLED:
            return self._recalled(context)
        if not entrances.came_by_code(context):
            return self._greet(context)
        words = entrances.enter(context)
        if words is None:
            return say(USED_UP) + self._greet(context)
        arrived = context.inbound
        context.inbound = replace(arrived, text=words, kind=Kind.TEXT, argument="")
        reply = self._route(context, words)
        context.inbound = arrived
        return reply

    def _greet(self, context: Context) -> Reply:
        greeting = self._greeting
        if greeting is None:
            return SILENCE
        return self._guarded(context, lambda: greeting.event(context))

    def _recalled(self, context: Context) -> Reply:
        """What somebody takes back is no answer any more: its question is asked again."""
        answered = self._heard(context)
        if answered:
            return answered
        name = context.open_form
        sender, number = context.inbound.sender, context.inbound.argument
        key = f"{sender.channel}:{sender.account}:{number}"
        if name is None or not answered_last(context.connection, context.person_id, name, key):
            return SILENCE
        form = self._forms[name]
        step = self._dialog(context, form).hear("上一步", Kind.TEXT)
        if step.draft is None or step.draft.answers == context.drafts[name].answers:
            return SILENCE
        return say(TAKEN_BACK) + self._apply(context, form, step)

    def _answer_group(self, context: Context) -> Reply:
        inbound = context.inbound
        if inbound.kind is Kind.EVENT:
            return self._greet(context)
        if inbound.kind not in (Kind.TEXT, Kind.PRESS):
            return SILENCE
        _text, dropped = scrub(inbound.text)
        if inbound.chat.addressed and (dropped or reaches_somebody(inbound.text)):
            return self._private(context, GROUP_NUMBER)
        found = self.catalog.match(spoken(inbound.text))
        if found is None or not inbound.chat.addressed:
            return SILENCE
        if not found.command.group:
            return self._private(context, GROUP_PRIVATE, found)
        if not self._present(found.command):
            return SILENCE
        return self._run_command(context, found)

    def _private(self, context: Context, words: str, found: Match | None = None) -> Reply:
        """Words that end a matter in a group, with the way to where it belongs."""
        return self._guarded(context, lambda: say(words, link=entrances.way_in(context, found)))

    def _route(self, context: Context, text: str) -> Reply:
        form = self._forms[context.open_form] if context.open_form else None
        said = spoken(text)
        if context.inbound.reply_to is not None and self.catalog.match(said) is None:
            answered = self._heard(context)
            if answered:
                return answered
        if form is None:
            return self._no_form(context, text, said)
        refusal = self._outgrown(context, form)
        if refusal is not None:
            known = self.catalog.match(said) is not None
            return self._no_form(context, text, said) if known else refusal
        if form is DidYouMean:
            return self._did_you_mean(context, said)
        if context.inbound.kind in (Kind.TEXT, Kind.PRESS):
            found = self._command_in_form(said, form, context)
            if found is not None:
                return self._beside(context, found)
        instead = self._barred(context, form)
        if instead is not None:
            return instead
        step = self._dialog(context, form).hear(text, context.inbound.kind)
        if step.missed and form.passing:
            context.discard(form)
            return self._no_form(context, text, said)
        reply = self._apply(context, form, step)
        return self._with_aside(context, step.aside, reply)

    def _command_in_form(self, said: str, form: type[Form], context: Context) -> Match | None:
        """A command said while a form is open; reserved words and corrections are the form's."""
        word = reserved(said)
        if (word is not None and word is not Reserved.HUMAN) or form.claims(said):
            return None
        found = self.catalog.match(said)
        if found is None or not self._present(found.command):
            return None
        if found.command.word.startswith("修改") and not found.command.wins:
            return None
        if found.argument and not found.command.wins and context.drafts[form.name].asked:
            # 「政策 用地」 may be an answer; only a bare command is certainly one.
            certain = (
                found.command.reads
                or (found.command.roles and self.catalog.policy.may(context.roles, found.command))
                or (found.argument.isdigit() and len(found.argument) == found.command.digits)
            )
            return found if certain else None
        return found

    def _beside(self, context: Context, found: Match) -> Reply:
        """Run a command in the middle of a form; what only reads repeats the question once."""
        form = context.open_form
        reply = self._run_command(context, found)
        if found.command.reads and context.open_form == form and form is not None:
            if self._forms[form].passing:
                return reply
            again = self._dialog(context, self._forms[form]).again("咱们接着——")
            return reply + again.reply
        return reply

    def _with_aside(self, context: Context, aside: str, reply: Reply) -> Reply:
        """Answer what was said besides the answer, if it names something that only reads."""
        if not aside or context.open_form is None:
            return reply
        readable = {
            word: command
            for word, command in self.catalog.words.items()
            if command.reads and self._present(command) and not command.roles
        }
        word = near_miss(spoken(aside), readable) or next((w for w in readable if w in aside), None)
        if word is None:
            return reply
        return self._run_command(context, Match(readable[word], "")) + reply

    def _no_form(self, context: Context, text: str, said: str) -> Reply:
        if context.inbound.kind not in (Kind.TEXT, Kind.PRESS):
            return self._unknown(context, None)
        found = self.catalog.match(said)
        if found is not None and self._present(found.command):
            return self._run_command(context, found)
        if reserved(said) is Reserved.CONTINUE or reserved(said) is Reserved.BACK:
            return self._continue(context)
        if reserved(said) is Reserved.CANCEL:
            return say("现在没有正在填的表。需要什么请回「菜单」看看。")
        word = near_miss(said, self._hearable(context)) if 1 < len(said) <= 30 else None
        if word is None:
            return self._heard(context) or self._unknown(context, None)
        command = self.catalog.words[word]
        if command.reads or command.guess:
            return self._run_command(context, Match(command, ""))
        if len(said) - len(word) > LOOSE:
            answered = self._heard(context)
            if answered:
                return answered
        facts = {"word": command.word, "said": text}
        begun = Dialog.begin(DidYouMean, facts, context.today).next_step()
        assert begun.draft is not None
        context.drafts[DidYouMean.name] = begun.draft
        context.open_form = DidYouMean.name
        return begun.reply

    def _hearable(self, context: Context) -> list[str]:
        """Words a near miss may stand for: of commands this person may say here."""
        return [
            word
            for word, command in self.catalog.words.items()
            if len(word) > 1
            and not word.startswith("/")
            and self._present(command)
            and (not command.roles or self.catalog.policy.may(context.roles, command))
        ]

    def _did_you_mean(self, context: Context, said: str) -> Reply:
        state = context.drafts.pop(DidYouMean.name)
        context.open_form = None
        if _yes(said.rpartition("=")[2]):
            return self._run_command(context, Match(self.catalog.words[state.facts["word"]], ""))
        no = answer(said)
        if no is None or no.yes or no.rest:
            return self._no_form(context, context.inbound.text, said)
        arrived = context.inbound
        context.inbound = replace(arrived, text=state.facts.get("said", ""))
        reply = self._heard(context)
        context.inbound = arrived
        return reply or self._unknown(context, None)

    def _continue(self, context: Context) -> Reply:
        parked = [name for name in context.drafts if name != DidYouMean.name]
        if not parked:
            return say("没有填到一半的表。需要什么请回「菜单」看看。")
        name = parked[-1]
        form = self._forms[name]
        instead = self._outgrown(context, form) or self._barred(context, form)
        if instead is not None:
            return instead
        context.open_form = name
        return self._apply(
            context, form, self._dialog(context, form).again(f"接着填{form.label}。")
        )

    def _unknown(self, context: Context, suggestion: str | None) -> Reply:
        greeting = self._greeting
        if greeting is None:
            return SILENCE
        return self._guarded(context, lambda: greeting.unknown(context, suggestion))

    def _heard(self, context: Context) -> Reply:
        """The answer to words that are meant for something we sent; silence if they are not."""
        greeting = self._greeting
        if greeting is None:
            return SILENCE
        return self._guarded(context, lambda: greeting.heard(context))

    def _outgrown(self, context: Context, form: type[Form]) -> Reply | None:
        """Forget a form of somebody who may no longer say what it was begun with; the refusal."""
        word = context.drafts[form.name].facts.get(UNDER)
        command = self.catalog.words.get(word) if word is not None else None
        if command is None or self.catalog.policy.may(context.roles, command):
            return None
        context.discard(form)
        return say(self.catalog.policy.refusal(command))

    def _barred(self, context: Context, form: type[Form]) -> Reply | None:
        """What is answered where this channel must not carry the form."""
        boundary = context.boundary
        return boundary.form(context, form) if boundary is not None else None

    def _dialog(self, context: Context, form: type[Form]) -> Dialog:
        return Dialog.resume(form, context.drafts[form.name], context.today)

    def _apply(self, context: Context, form: type[Form], step: Step) -> Reply:
        """Take a step's draft over; a finished form is submitted inside its savepoint."""
        if step.draft is not None:
            context.open_form = step.draft.form
            context.drafts[context.open_form] = step.draft
            return step.reply
        done = step.done
        if done is None:
            context.discard(form)
            return step.reply

        def submit() -> Reply:
            context.discard(form)
            context.under = done.began_with.get(UNDER, "")
            return done.submit(context)

        reply = self._guarded(context, submit)
        return step.reply + reply

    def _run_command(self, context: Context, found: Match) -> Reply:
        command = found.command
        boundary = context.boundary
        if boundary is not None:
            instead = self._guarded(context, lambda: boundary.command(context, command) or SILENCE)
            if instead:
                return instead
        if command.roles and not self.catalog.policy.may(context.roles, command):
            return say(self.catalog.policy.refusal(command))
        context.under = command.word if command.roles else ""
        return self._guarded(context, lambda: command(context, found.argument))

    def _present(self, command: Command) -> bool:
        return not command.feature or command.feature in self.services.place.features

    def _guarded(self, context: Context, run: Callable[[], Reply]) -> Reply:
        """Run a handler in its savepoint: `UserError` is its answer, a bug gets a number."""
        try:
            with context.work():
                return run()
        except UserError as error:
            return say(str(error))
        except DBAPIError as error:
            # A mistake in a statement is a bug; a database in trouble is for the platform's retry.
            if not isinstance(error, IntegrityError | ProgrammingError | DataError):
                raise
            return self._bug(context, error)
        except (NotYet, _TooCloseTogether):
            raise
        except Exception as error:  # noqa: BLE001  # the dispatcher is one of the two outer walls
            return self._bug(context, error)

    def _bug(self, context: Context, error: Exception) -> Reply:
        number = incident()
        log.error("handler_failed", number=number, error=type(error).__name__, where=_where(error))
        hour = beijing(context.now).strftime("%Y%m%d%H")
        with context.work():
            for person_id in self.catalog.policy.on_duty(context.session, context.now):
                row = outbox_row(
                    self.services,
                    context.session,
                    person_id,
                    say(f"系统出了点问题（编号 {number}），请管理员查看日志。"),
                    occasion=f"bug:{hour}:{type(error).__name__}",
                    purpose=TROUBLE,
                    now=context.now,
                )
                if row is not None:
                    context.outgoing.append(row)
        return say(f"出了点问题（编号 {number}），已告知工作人员。您刚才说的没有保存，请稍后再试。")


class _TooCloseTogether(Exception):
    """Two messages of one person in one batch, or of two who became one; each is done alone."""


def _where(error: BaseException) -> str:
    """File and line of the innermost frame; never the message, which may quote a person."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 2)[-1]}:{trace.tb_lineno}"


def dump_draft(state: DraftState) -> str:
    """A draft as JSON."""
    return as_json(
        {
            "a": state.answers,
            "f": state.facts,
            "q": state.asked,
            "p": state.pending,
            "v": state.version,
        }
    )


def load_draft(form: str, text: str) -> DraftState:
    """The inverse of `dump_draft`."""
    raw = from_json(text)
    return DraftState(form, raw["a"], raw["f"], raw["q"], raw["p"], raw["v"])
