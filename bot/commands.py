"""What handlers and schedules declare; the catalog collects these values by their type.

A decorator turns a function into a frozen, callable value. Nothing registers itself anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from bot.messages import SILENCE, Part, Reply

if TYPE_CHECKING:
    from sqlmodel import Session

    from bot.context import Context, Services
    from storage.campaigns import Campaign
    from storage.people import Role

Handler = Callable[["Context", str], Reply]


@dataclass(frozen=True)
class Command:
    """A word people say, and the function that answers it.

    `roles`: who may say it, empty for anybody. `group`: may be answered in a group. `reads`:
    changes nothing, so it may answer in the middle of a form and by a near miss. `wins`: is heard
    even in a form (withdrawal, erasure, unsubscribing, a human). `guess`: a near miss runs it
    without asking. `needs_argument`: the bare word is not this command. `glued`: the argument may
    stand right behind the word (「退订节日信」). `digits`: with an argument of so many digits it is
    heard in a form too, where other words behind it are an answer. `feature`: only where the place
    has it.
    `section` and `help` make the help text; a command without help is not listed there.
    """

    words: tuple[str, ...]
    run: Handler
    help: str = ""
    section: str = "常用"
    roles: frozenset[str] = frozenset()
    group: bool = False
    reads: bool = False
    wins: bool = False
    guess: bool = False
    needs_argument: bool = False
    glued: bool = False
    feature: str = ""
    source: str = ""
    digits: int = 0

    @property
    def word(self) -> str:
        return self.words[0]

    def __call__(self, context: Context, argument: str) -> Reply:
        return self.run(context, argument)


def command(  # noqa: PLR0913  # all that a command may declare
    *words: str,
    help: str = "",
    section: str = "常用",
    roles: Sequence[str] = (),
    group: bool = False,
    reads: bool = False,
    wins: bool = False,
    guess: bool = False,
    needs_argument: bool = False,
    glued: bool = False,
    feature: str = "",
    digits: int = 0,
) -> Callable[[Handler], Command]:
    """Declare that a function answers these words (the first is the canonical one)."""

    def declare(run: Handler) -> Command:
        return Command(
            words,
            run,
            help,
            section,
            frozenset(roles),
            group,
            reads,
            wins,
            guess,
            needs_argument,
            glued,
            feature,
            _place(run),
            digits,
        )

    return declare


@dataclass(frozen=True)
class Purpose:
    """Why something is sent without having been asked for.

    `scope`: the consent it needs (None: duty or service, no consent). `topic`: what one can
    unsubscribe from, None for what cannot be stopped. `quiet`: keeps the quiet hours. `urgent`:
    goes in the fast lane. `repeatable`: after a crash rather twice than never. `service`: something
    the person is owed because of what they did or do here; only of that some platforms let us tell
    people by their templates, so what can be unsubscribed from is never it.
    """

    name: str
    label: str
    scope: str | None = None
    topic: str | None = None
    quiet: bool = True
    urgent: bool = False
    repeatable: bool = False
    service: bool = False

    def __post_init__(self) -> None:
        if self.service and self.topic is not None:
            raise ValueError(f"{self.name}: what can be unsubscribed from is no service")


@dataclass(frozen=True)
class Tick:
    """Something that looks at the clock: `run(services, session, now)` on every heartbeat.

    It must find out by itself, from tables, what is due, and claim it with a firing.
    """

    name: str
    run: Callable[[Services, Session, Any], None]
    label: str = ""
    source: str = ""
    upcoming: Callable[[Services, Session, Any, timedelta], Sequence[tuple[Any, str]]] | None = None
    """For `hongyan letters`: the coming moments as (aware datetime, words)."""


def tick(
    name: str,
    label: str = "",
    upcoming: Callable[..., Sequence[tuple[Any, str]]] | None = None,
) -> Callable[[Callable[..., None]], Tick]:
    """Declare that a function runs on each heartbeat, in a transaction of its own."""

    def declare(run: Callable[..., None]) -> Tick:
        return Tick(name, run, label, _place(run), upcoming)

    return declare


@dataclass(frozen=True)
class Content:
    """How a kind of campaign becomes words for each person, just before it leaves.

    `render(services, session, campaign, person_ids)` gives a reply a person; a person it leaves out
    gets nothing (and the row says `render`).
    """

    kind: str
    render: Callable[[Services, Session, Campaign, Sequence[int]], Mapping[int, Reply]]
    source: str = ""


@dataclass(frozen=True)
class Page:
    """A phone page behind a one-time token: `show` for GET, `act` for the page's own button.

    Both get services, session and the `OneTimeCode` (kind `page`, payload `{"page": kind, …}`).
    The button bears the label of the first choice of what `show` returned; `act` runs at most once.
    """

    kind: str
    show: Callable[[Services, Session, Any], Part]
    act: Callable[[Services, Session, Any], Part] | None = None
    source: str = ""


@dataclass(frozen=True)
class CliWord:
    """A word of the command line that a handler brings along.

    `run(services, arguments)` returns the lines to print; it raises `UserError` to refuse.
    `anywhere`: it also works where nothing is installed yet, on an empty throw-away database.
    """

    word: str
    help: str
    run: Callable[[Services, Sequence[str]], Sequence[str]]
    source: str = ""
    anywhere: bool = False


@dataclass(frozen=True)
class Importer:
    """A kind of `hongyan import`: `run(session, path, now, batch)` returns a row-by-row report.

    It raises `UserError` and writes nothing when a row is wrong. `undo(session, now, batch)` takes
    a batch back and returns lines as well; without it an import cannot be undone.
    """

    kind: str
    help: str
    run: Callable[[Session, Any, Any, str], Sequence[str]]
    source: str = ""
    undo: Callable[[Session, Any, str], Sequence[str]] | None = None


@dataclass(frozen=True)
class Exporter:
    """A kind of `hongyan export`: `run(session, now)` gives file name and bytes."""

    kind: str
    help: str
    run: Callable[[Session, Any], tuple[str, bytes]]
    source: str = ""


@dataclass(frozen=True)
class Retention:
    """A rule of what is forgotten when: `run(services, session, now)` returns how many rows.

    `batch`: it takes at most so many rows at once, in well under 200 ms, and is run again, in a
    transaction of its own each time, as long as it finds that many. 0: one run does all.
    """

    name: str
    help: str
    run: Callable[[Services, Session, Any], int]
    batch: int = 0
    source: str = ""


@dataclass(frozen=True)
class JobKind:
    """Long work: `run(services, session, job, now)` does one chunk of at most 200 ms.

    It returns True when the job is finished.
    """

    kind: str
    run: Callable[[Services, Session, Any, Any], bool]
    source: str = ""


@dataclass(frozen=True)
class Approvable:
    """A kind of thing that needs four eyes.

    `show(context, approval)` is what the approver must see; `granted` and `refused` are run when
    the last vote is in.
    """

    kind: str
    label: str
    show: Callable[[Context, Any], Reply]
    granted: Callable[[Context, Any], Reply]
    refused: Callable[[Context, Any], Reply]
    source: str = ""


@dataclass(frozen=True)
class Declaration:
    """A value of a kind that `bot` does not know, declared by one module for others to find.

    Subclass it with fields `name`, `label` and `source`. The catalog finds such values, and tuples
    of them, by their type: that is how handlers see what schedules above them declare.
    """


@dataclass(frozen=True)
class Greeting:
    """What is said without any command: to a follower, in an empty state, to unknown words.

    `heard` is asked before words are called unknown, and before a form hears what replies to an
    earlier bubble: it may take them as an answer to something we sent; silence means that it did
    not.
    """

    event: Callable[[Context], Reply]
    unknown: Callable[[Context, str | None], Reply]
    heard: Callable[[Context], Reply] = lambda _context: SILENCE


@dataclass(frozen=True)
class DemoPhone:
    """Somebody whose phone the demo page shows. Those with the same `phone` share one by a switch.

    `tab` is the phone's short name where the page is narrow. `group`: it looks into the group,
    where `user` speaks among others. `tries`: words to tap. `opening`: the bubbles that stand there
    before anybody spoke, as (who, text); who is "" for the bot itself.
    """

    phone: str
    tab: str
    title: str
    subtitle: str
    user: str
    tries: tuple[str, ...] = ()
    opening: tuple[tuple[str, str], ...] = ()
    group: bool = False


@dataclass(frozen=True)
class DemoData:
    """The demo's invented county: who sits before the page, and everybody else.

    `seed(services, session, now)` writes them; `names(session, person_ids)` gives masked names for
    the outbox; `settings` are those of the place and its office; `bot` is what the bot is called.
    `guide` is what to try first: words, whose phone, what is said there, perhaps a clock's move.
    """

    cast: tuple[DemoPhone, ...]
    seed: Callable[[Services, Session, Any], None]
    names: Callable[[Session, Sequence[int]], Mapping[int, str]]
    settings: Mapping[str, str]
    bot: str
    guide: tuple[tuple[str, ...], ...] = ()
    source: str = ""


class AccessPolicy(Protocol):
    """Decides who may say what. Exactly one is declared, above `bot`."""

    def may(self, roles: Sequence[Role], command: Command) -> bool:
        """May somebody with these roles say this?"""

    def refusal(self, command: Command) -> str:
        """What is said to those who may not."""

    def on_duty(self, session: Session, now: Any) -> Sequence[int]:
        """Who is told when the machine itself is in trouble."""


class PlaceLoader(Protocol):
    """Reads the place: what differs from county to county. Exactly one is declared."""

    def names(self) -> Sequence[str]:
        """The places that ship with the product."""

    def load(self, name: str, overrides: Mapping[str, str]) -> Place:
        """A place by its name or file; raises ConfigError with line and key."""


class Place(Protocol):
    """The little that `bot` itself must know of a place."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> frozenset[str]: ...

    @property
    def menu(self) -> str:
        """The buttons below a chat, as `HONGYAN_WECHAT_MENU` writes them; empty for none."""

    def missing(self) -> Sequence[str]:
        """Settings without which people may not be registered or written to."""


@dataclass(frozen=True)
class Declared:
    """Something the catalog found: its kind, its name, and where it stands."""

    kind: str
    name: str
    help: str
    source: str
    value: object = field(compare=False, repr=False)


def _place(run: Callable[..., Any]) -> str:
    code = run.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
