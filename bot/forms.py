"""Forms: a class is a dialog, and its answers are the dialog's whole state.

A form is a Pydantic class with one `Annotated[..., Ask(...)]` field a question. Which question is
next is computed from the answers, never stored, so a restart, a release that adds a question,
「上一步」 and 「改 3」 are not special cases. Everything here is computed in memory.
"""

# Lambdas in annotations must be real objects: no `from __future__ import annotations` here.
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, TypeAdapter, ValidationError

from bot.messages import SILENCE, Choice, Kind, Part, Reply, say
from bot.normalize import Miss, Reserved, answer, is_soft_yes, is_yes, reserved, tidy

if TYPE_CHECKING:
    from bot.context import Context

Answers = dict[str, Any]

WITHHELD = "!withheld"
"""The fact of a form that lists the questions not asked where it was begun."""

UNDER = "!under"
"""The fact of a form that names the command, not everybody's, under which it was begun."""

REVIEW = "!review"
PENDING = "!pending"
LIST_END = frozenset(
    [
        "没有",
        "没有了",
        "没了",
        "无",
        "0",
        "不用",
        "不用了",
        "完了",
        "就这些",
        "没",
        "好了",
        "都没有",
        "暂无",
    ]
)


class Asking(NamedTuple):
    """What a question may look at: the answers so far, the facts the form began with, the day.

    `item` is the key of the row in a question that is asked once a row; `parent` then has the
    answers of the form around it.
    """

    answers: Mapping[str, Any]
    facts: Mapping[str, Any]
    today: date
    item: str = ""
    parent: Mapping[str, Any] = {}

    def get(self, name: str, default: Any = None) -> Any:
        """An answer, or `default` while there is none or it was skipped."""
        value = self.answers.get(name)
        return default if value is None else value


Words = str | Callable[[Asking], str]


@dataclass(frozen=True)
class Ask:
    """One question. It also feeds the review list, the correction words and the export.

    `parse` turns words into a JSON value or a `Miss` that says what to do next; it may look at
    other answers and so refuse what contradicts them. `show` is the value as people read it,
    `echo` what is said back at once. `options` are labels of buttons; pressing the n-th says n.
    `rows` names a sub-form: asked once for each key of `each`, or, without `each`, as often as
    `more` is answered. `bulk` may read several rows from one message. `follows` names questions
    whose change makes this answer void. `verbatim`: a button says its label, not its number, for
    answers that count only word for word. `contact`: where the channel has a button that shares
    one's own telephone number, pressing it answers.
    """

    label: str
    prompt: Words
    parse: Callable[[str, Asking], Any] = lambda text, _asking: text
    show: Callable[[Any, Asking], str] = lambda value, _asking: str(value)
    echo: Callable[[Any, Asking], str] | None = None
    options: tuple[str, ...] | Callable[[Asking], tuple[str, ...]] = ()
    when: Callable[[Asking], bool] | None = None
    optional: bool = False
    counted: bool = False
    yes_no: bool = False
    hint: str = ""
    purpose: str = ""
    sensitive: bool = False
    rows: "type[Form] | None" = None
    each: Callable[[Asking], Sequence[str]] | None = None
    more: Words = "还有吗？「没有」继续。"
    bulk: Callable[[str, Asking], "dict[str, Answers] | Miss | None"] | None = None
    follows: tuple[str, ...] = ()
    verbatim: bool = False
    contact: bool | Callable[[Asking], bool] = False

    def wants_contact(self, asking: Asking) -> bool:
        """May it be answered by sharing one's own number?"""
        return self.contact(asking) if callable(self.contact) else self.contact

    def labels(self, asking: Asking) -> tuple[str, ...]:
        """The buttons of this question."""
        return self.options(asking) if callable(self.options) else self.options


class Question(NamedTuple):
    """A question as it stands now: where its answer lives, and whether it has one."""

    path: str
    name: str
    ask: Ask
    asking: Asking
    answered: bool
    is_list: bool = False
    form: "type[Form] | None" = None

    @property
    def value(self) -> Any:
        return self.asking.answers.get(self.name)

    def shown(self) -> str:
        """The answer as people read it, or 未填."""
        if self.value is None:
            return "未填"
        return self.ask.show(self.value, self.asking)


class DraftState(NamedTuple):
    """What is remembered of a form in progress. `asked` is a name, never an index."""

    form: str
    answers: Answers
    facts: Mapping[str, Any]
    asked: str = ""
    pending: Mapping[str, Any] = {}
    version: str = ""

    def answered(self, answers: Answers) -> "DraftState":
        """The same with other answers; what waited to be confirmed is settled by that."""
        return DraftState(self.form, answers, self.facts, self.asked, {}, self.version)

    def waiting_for(self, asked: str) -> "DraftState":
        """The same after another question."""
        return DraftState(self.form, self.answers, self.facts, asked, {}, self.version)


class Step(NamedTuple):
    """What one message did to a form. `draft` None: the form is over; `done`: and was finished.

    `aside` is what was said besides the answer. `missed`: it did not answer the question.
    """

    reply: Reply
    draft: DraftState | None
    done: "Form | None" = None
    aside: str = ""
    missed: bool = False


class Form(BaseModel):
    """A dialog. Subclass with `name=` and `label=`; override what differs.

    `finish` is the only word that ends the review, None for forms without one. `expires` is how
    long a draft lives. `passing`: an offer by the way, forgotten as soon as people talk of
    something else, never parked.
    """

    model_config = ConfigDict(extra="ignore")

    name: ClassVar[str] = ""
    label: ClassVar[str] = ""
    finish: ClassVar[str | None] = "确认"
    expires: ClassVar[timedelta] = timedelta(days=7)
    confirm_extracted: ClassVar[bool] = False
    passing: ClassVar[bool] = False

    _facts: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    def __init_subclass__(cls, name: str = "", label: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name, cls.label = name, label

    @property
    def began_with(self) -> Mapping[str, Any]:
        """The facts a finished form was begun with."""
        return self._facts

    def submit(self, context: "Context") -> Reply:
        """What happens with the finished form; runs like a command's handler."""
        raise NotImplementedError

    @classmethod
    def deadline(cls, facts: Mapping[str, Any], now: datetime) -> datetime:
        """When an untouched draft is thrown away."""
        return now + cls.expires

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> Answers | Miss | None:
        """Several answers out of one message; None when there is nothing to find."""
        return None

    @classmethod
    def interject(cls, text: str, asking: Asking) -> tuple[Answers, str] | Miss | None:
        """Answers to other questions than the one asked, by path, and what to say to them.

        It is heard at any question and at the review; None for an ordinary answer.
        """
        return None

    @classmethod
    def stop(cls, asking: Asking) -> Reply | None:
        """A reply that ends the form here and forgets it, or None to go on."""
        return None

    @classmethod
    def claims(cls, text: str) -> bool:
        """Is this an answer here, though it reads like a command?"""
        return False

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """What is said to 取消."""
        return f"已取消{cls.label}，刚才填的没有保存。"

    @classmethod
    def remarks(cls, asking: Asking) -> Sequence[str]:
        """Warnings shown at the review; they do not block."""
        return ()

    @classmethod
    def review(cls, asking: Asking, lines: Sequence[tuple[str, str]]) -> str:
        """The card before the last word: `lines` are label and shown value."""
        listed = "\n".join(f"{n}. {label}：{value}" for n, (label, value) in enumerate(lines, 1))
        return f"请核对：\n{listed}"

    @classmethod
    @cache
    def asks(cls) -> Mapping[str, Ask]:
        """Question by name, in the order they stand in the class."""
        found: dict[str, Ask] = {}
        for name, info in cls.model_fields.items():
            for mark in info.metadata:
                if isinstance(mark, Ask):
                    found[name] = mark
        return found


@dataclass(frozen=True, slots=True)
class Outline:
    """What the engine wants to know of a form over and over, read from its class once.

    An attribute of a Pydantic class costs ten times one of an ordinary object.
    """

    asks: Mapping[str, Ask]
    row_names: tuple[str, ...]
    """Questions that are asked once a row."""
    plain: bool
    """Is every question asked of everybody, and once?"""
    followed: tuple[tuple[str, tuple[str, ...]], ...]
    """Questions whose answer is void when another is answered anew, with those others."""
    counted: tuple[str, ...]
    """Questions that carry a number (第1/5题)."""
    fingerprint: str
    """Changes when the questions do; a draft from another release is looked at again."""


@cache
def outline(form: type[Form]) -> Outline:
    """The outline of a form."""
    asks = form.asks()
    questions = ",".join(f"{name}:{info.annotation}" for name, info in form.model_fields.items())
    return Outline(
        asks,
        tuple(name for name, ask in asks.items() if ask.rows is not None),
        all(ask.when is None and ask.rows is None for ask in asks.values()),
        tuple((name, ask.follows) for name, ask in asks.items() if ask.follows),
        tuple(name for name, ask in asks.items() if ask.counted),
        hashlib.sha256(questions.encode()).hexdigest()[:16],
    )


# --- enumerating questions -----------------------------------------------------------------


def walk(
    form: type[Form], asking: Asking, prefix: str = "", *, unanswered: bool = False
) -> Iterator[Question]:
    """Every question that applies now, in order; perhaps only those without an answer."""
    answers, facts, today = asking.answers, asking.facts, asking.today
    for name, ask in outline(form).asks.items():
        answered = name in answers
        if (unanswered and answered and ask.rows is None) or not _applies(name, ask, asking):
            continue
        path = prefix + name
        if ask.rows is None:
            yield Question(path, name, ask, asking, answered, False, form)
            continue
        for key, row in _rows(ask, name, asking):
            within = Asking(row, facts, today, key, answers)
            yield from walk(ask.rows, within, f"{path}[{key}].", unanswered=unanswered)
        if ask.each is None:
            closed = bool((answers.get(name) or {}).get("closed"))
            yield Question(path, name, ask, asking, closed, is_list=True, form=form)


def _applies(name: str, ask: Ask, asking: Asking) -> bool:
    return name not in asking.facts.get(WITHHELD, ()) and (ask.when is None or ask.when(asking))


def _rows(ask: Ask, name: str, asking: Asking) -> Iterator[tuple[str, Answers]]:
    stored = asking.answers.get(name) or {}
    if ask.each is not None:
        for key in ask.each(asking):
            yield key, stored.get(key, {})
    else:
        for number, row in enumerate(stored.get("rows", ()), 1):
            yield str(number), row


_STEP = re.compile(r"(\w+)(?:\[([^\]]+)\])?")


def put(answers: Answers, path: str, value: Any) -> Answers:
    """A copy of the answers with one of them set; `path` is like `progress[P01].date`."""
    name, key, rest = _first(path)
    fresh = dict(answers)
    if key is None:
        fresh[name] = value
    elif key.isdigit() and "rows" in (fresh.get(name) or {"rows": ()}):
        box = dict(fresh.get(name) or {"rows": [], "closed": False})
        rows = [dict(row) for row in box["rows"]]
        while len(rows) < int(key):
            rows.append({})
        rows[int(key) - 1] = put(rows[int(key) - 1], rest, value)
        fresh[name] = {**box, "rows": rows}
    else:
        table = dict(fresh.get(name) or {})
        table[key] = put(table.get(key, {}), rest, value)
        fresh[name] = table
    return fresh


def take(answers: Answers, path: str) -> Answers:
    """A copy of the answers without one of them."""
    name, key, rest = _first(path)
    fresh = dict(answers)
    if name not in fresh:
        return fresh
    if key is None:
        if isinstance(fresh[name], dict) and "rows" in fresh[name]:
            fresh[name] = {"rows": fresh[name]["rows"][:-1], "closed": False}
        else:
            del fresh[name]
    elif isinstance(fresh[name], dict) and "rows" in fresh[name]:
        rows = [dict(row) for row in fresh[name]["rows"]]
        if int(key) <= len(rows):
            rows[int(key) - 1] = take(rows[int(key) - 1], rest)
        fresh[name] = {**fresh[name], "rows": rows, "closed": False}
    else:
        table = dict(fresh[name] or {})
        if key in table:
            table[key] = take(table[key], rest)
        fresh[name] = table
    return fresh


def _first(path: str) -> tuple[str, str | None, str]:
    if path.isidentifier():
        return path, None, ""
    head, _, rest = path.partition(".")
    found = _STEP.fullmatch(head)
    if found is None:
        raise ValueError(f"not a question's path: {path}")
    return found[1], found[2], rest


# --- the engine ----------------------------------------------------------------------------


@dataclass(slots=True)
class Dialog:
    """One form in progress, and what may be done with it. Each method returns a new `Step`.

    `asking` is what a question may look at now.
    """

    form: type[Form]
    state: DraftState
    today: date
    outline: Outline = field(init=False, repr=False)
    asking: Asking = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.outline = outline(self.form)
        self.asking = Asking(self.state.answers, self.state.facts, self.today)

    @classmethod
    def begin(
        cls,
        form: type[Form],
        facts: Mapping[str, Any],
        today: date,
        answers: Mapping[str, Any] | None = None,
    ) -> Self:
        """A fresh dialog, perhaps with some answers filled in beforehand."""
        version = outline(form).fingerprint
        return cls(form, DraftState(form.name, dict(answers or {}), facts, version=version), today)

    @classmethod
    def resume(cls, form: type[Form], state: DraftState, today: date) -> Self:
        """A stored dialog; answers that this release no longer accepts are asked again."""
        known = outline(form)
        if state.version != known.fingerprint:
            kept = {
                name: value
                for name, value in state.answers.items()
                if name in known.asks and _acceptable(form, name, value)
            }
            state = state._replace(answers=kept, version=known.fingerprint)
        return cls(form, state, today)

    def _answered(self, answers: Answers) -> "Dialog":
        """The same with other answers."""
        return Dialog(self.form, self.state.answered(answers), self.today)

    # - looking -

    def questions(self, *, unanswered: bool = False) -> Iterator[Question]:
        """Those that apply now, one after another."""
        return walk(self.form, self.asking, unanswered=unanswered)

    def _settled(self) -> "Dialog":
        """Without answers to questions that no longer apply."""
        outline, answers = self.outline, self.state.answers
        if (
            outline.plain
            and not self.state.facts.get(WITHHELD)
            and answers.keys() <= outline.asks.keys()
        ):
            return self
        live = {question.path for question in self.questions()}
        if not outline.row_names and live.issuperset(answers):
            return self
        roots = {re.split(r"[.\[]", path)[0] for path in live}
        nested = [name for name in outline.row_names if name in answers]
        if not nested and roots.issuperset(answers):
            return self
        dialog = self._answered({name: v for name, v in answers.items() if name in roots})
        for name in nested:
            if name in roots:
                dialog = dialog._settle_rows(name, outline.asks[name], live)
        return dialog

    def _settle_rows(self, name: str, ask: Ask, live: set[str]) -> "Dialog":
        answers = self.state.answers
        for key, row in list(_rows(ask, name, self.asking)):
            for inner in row:
                path = f"{name}[{key}].{inner}"
                if path not in live and not any(p.startswith(path + "[") for p in live):
                    answers = take(answers, path)
        box = self.state.answers[name] or {}
        if box.get("closed") and answers is not self.state.answers:
            # Forgetting what no longer applies does not open a list again.
            answers = {**answers, name: {**answers[name], "closed": True}}
        return self._answered(answers)

    # - asking -

    def next_step(self, before: str = "") -> Step:
        """Ask the first open question, show the review, or finish; `before` is said first."""
        dialog = self._settled()
        ending = self.form.stop(dialog.asking)
        if ending is not None:
            return Step(ending, None)
        for question in dialog.questions(unanswered=True):
            if not question.answered:
                return dialog._ask(question, before)
        if self.form.finish is None:
            return dialog._finish()
        return dialog._review(before)

    def again(self, before: str = "") -> Step:
        """Repeat what was asked last."""
        if self.state.asked == PENDING:
            return self._show_pending(dict(self.state.pending), before)
        for question in self.questions():
            if question.path == self.state.asked and not question.answered:
                return self._ask(question, before)
        return self.next_step(before)

    def _ask(self, question: Question, before: str) -> Step:
        path, ask, asking = question.path, question.ask, question.asking
        text = self._prompt(question)
        choices = [
            Choice(label, label if ask.verbatim else f"{path}={number}")
            for number, label in enumerate(ask.labels(asking), 1)
        ]
        joined = f"{before}\n{text}" if before else text
        contact = OWN_NUMBER if ask.wants_contact(asking) else ""
        part = Part(joined, tuple(choices), contact=contact)
        return Step(Reply((part,)), self.state.waiting_for(path))

    def _prompt(self, question: Question) -> str:
        ask, asking = question.ask, question.asking
        words = ask.prompt
        if question.is_list and (asking.answers.get(question.name) or {}).get("rows"):
            words = ask.more
        text = words(asking) if callable(words) else words
        return f"{self._number(question)}{text}"

    def _number(self, question: Question) -> str:
        counted = self.outline.counted
        if question.name not in counted or question.form is not self.form:
            return ""
        return f"第{counted.index(question.name) + 1}/{len(counted)}题 "

    def _review(self, before: str = "") -> Step:
        lines = self._lines()
        parts = [before] if before else []
        parts.append(self.form.review(self.asking, lines))
        parts += [f"提醒：{remark}" for remark in self.form.remarks(self.asking)]
        parts.append(f"回「{self.form.finish}」提交，「上一步」修改，或「改 2」重填第2项。")
        assert self.form.finish is not None
        return Step(
            say("\n".join(parts), self.form.finish, "上一步"),
            self.state.waiting_for(REVIEW),
        )

    def _lines(self) -> list[tuple[str, str]]:
        return [(label, shown) for label, shown, _name in self._items()]

    def _items(self) -> list[tuple[str, str, str]]:
        """What the review lists: label, shown value, and the question's name."""
        items: list[tuple[str, str, str]] = []
        every = list(self.questions())
        for name, ask in self.outline.asks.items():
            mine = [q for q in every if re.split(r"[.\[]", q.path)[0] == name]
            if not mine:
                continue
            if ask.rows is None:
                items.append((ask.label, mine[0].shown(), name))
            else:
                value = self.state.answers.get(name) or {}
                items.append((ask.label, ask.show(value, self.asking), name))
        return items

    def _finish(self) -> Step:
        try:
            done = self.form.model_validate(self.state.answers)
        except ValidationError as error:
            broken = str(error.errors()[0]["loc"][0])
            answers = take(self.state.answers, broken)
            return self._answered(answers).next_step("有一项需要重新填一下。")
        done._facts = self.state.facts
        return Step(SILENCE, None, done)

    # - hearing -

    def hear(self, text: str, kind: Kind = Kind.TEXT) -> Step:
        """Take one message as the answer to what was asked last."""
        if kind is Kind.PRESS and "=" in text:
            path, _, text = text.rpartition("=")
            if path != self.state.asked:
                return self.again("这个按钮是前面问题的，请看下面这一题。")
        elif kind not in (Kind.TEXT, Kind.PRESS) and not self._own_number(text, kind):
            return self._not_words(kind)
        text = tidy(text)
        question = self._current()
        word = reserved(
            text,
            optional=question is not None and question.ask.optional,
            yes_no=question is None or question.ask.yes_no,
        )
        if word is not None and word is not Reserved.HUMAN:
            return self._reserved(word, question)
        interjected = self.form.interject(text, self.asking)
        if isinstance(interjected, Miss):
            return self._missed(interjected.text)
        if interjected is not None:
            return self._set(*interjected)
        corrected = self._correction(text, question)
        if corrected is not None:
            return corrected
        if self.state.asked == PENDING:
            return self._hear_pending(text)
        if question is None:
            return self._hear_review(text)
        return self._hear_answer(question, text)

    def _current(self) -> Question | None:
        """The question asked last, if it still applies."""
        path, form, answers = self.state.asked, self.form, self.state.answers
        ask = self.outline.asks.get(path)
        if ask is None or ask.rows is not None:
            return next((one for one in self.questions() if one.path == path), None)
        if not _applies(path, ask, self.asking):
            return None
        return Question(path, path, ask, self.asking, path in answers, False, form)

    def _own_number(self, text: str, kind: Kind) -> bool:
        """Was the number that is asked for shared by a button? Somebody else's comes empty."""
        question = self._current()
        asked = question is not None and question.ask.wants_contact(question.asking)
        return kind is Kind.CONTACT and bool(text) and asked

    def _not_words(self, kind: Kind) -> Step:
        said = NOT_WORDS.get(kind, "这种消息我看不了，麻烦打字告诉我。")
        question = self._current()
        hint = question.ask.hint if question is not None else ""
        step = self.again()
        return Step(say(said + hint) if hint else say(said) + step.reply, self.state)

    def _reserved(self, word: Reserved, question: Question | None) -> Step:
        if word is Reserved.CANCEL:
            return Step(say(self.form.cancelled(self.asking)), None)
        if word is Reserved.BACK:
            return self._back()
        if word is Reserved.HELP:
            return self.again(_FORM_HELP)
        if word is Reserved.SKIP:
            if question is None or not question.ask.optional:
                return self.again("这一题是必填的，不能跳过。不想填可回「取消」。")
            return self._set({question.path: None})
        return self.again()

    def _back(self) -> Step:
        before: list[str] = []
        for question in self.questions():
            if question.path == self.state.asked:
                break
            if question.answered or (question.is_list and question.value):
                before.append(question.path)
        if self.state.asked == PENDING:
            return self._answered(self.state.answers).next_step("好的，重新来。")
        if not before:
            return self.again("已经是第一题了。")
        answers = take(self.state.answers, before[-1])
        step = self._answered(answers).next_step()
        return step._replace(reply=_prefixed("好的，回到上一题。", step.reply))

    def _set(self, values: Mapping[str, Any], before: str = "", aside: str = "") -> Step:
        answers = self._without_followers(values)
        for path, value in values.items():
            answers = put(answers, path, value)
        dialog = self._answered(answers)
        step = dialog.next_step(before)
        return step._replace(aside=aside) if aside else step

    def _without_followers(self, values: Mapping[str, Any]) -> Answers:
        """The answers without those that a change of `values` makes void."""
        answers, followed = self.state.answers, self.outline.followed
        if not followed:
            return answers
        changed = {name for name, value in values.items() if answers.get(name) != value}
        for name, follows in followed:
            if changed.intersection(follows):
                answers = take(answers, name)
        return answers

    # - corrections: 改 3 · 修改 走访 19 · 城市 苏州 -

    def _correction(self, text: str, question: Question | None) -> Step | None:
        if question is not None and not text.startswith(("改", "修改")):
            return None
        numbered = re.fullmatch(r"(?:改|修改)\s*第?\s*(\d{1,2})\s*[项题]?", text)
        if numbered:
            return self._redo(int(numbered[1]))
        named = re.fullmatch(r"(?:改|修改)\s*(\S+?)(?:\s+(.+))?", text, re.DOTALL)
        loose = (
            None if question is not None else re.fullmatch(r"(\S+?)[\s：:]+(.+)", text, re.DOTALL)
        )
        found = named or loose
        if not found:
            return None
        if named and found[2] is None:
            labels = [label for label, _shown, _name in self._items()]
            if found[1] in labels:
                return self._redo(labels.index(found[1]) + 1)
        target = self._labelled(found[1])
        if target is None:
            # 「改造老厂房」 is an answer, 「修改 厂房」 a correction of something unknown.
            meant = named and (question is None or re.match(r"(?:改|修改)\s", text))
            return self.again(f"没有叫「{found[1]}」的一项。") if meant else None
        if found[2] is None:
            return self._retake(target)
        return self._revalue(target, found[2])

    def _labelled(self, word: str) -> Question | None:
        pending = self.state.pending
        answers = {**self.state.answers, **pending}
        every = list(walk(self.form, self.asking._replace(answers=answers)))
        for question in every:
            if word in (question.ask.label, question.path) and question.form is self.form:
                return question
        close = [q for q in every if q.form is self.form and len(word) >= 2 and word in q.ask.label]
        return close[0] if len(close) == 1 else None

    def _redo(self, number: int) -> Step:
        items = self._items()
        if not 1 <= number <= len(items):
            return self.again(f"只有1到{len(items)}项。")
        name = items[number - 1][2]
        answers = {known: value for known, value in self.state.answers.items() if known != name}
        return self._answered(answers).next_step("好的，重新填这一项。")

    def _retake(self, question: Question) -> Step:
        answers = take(self.state.answers, question.path)
        return self._answered(answers).next_step("好的，重新填这一项。")

    def _revalue(self, question: Question, text: str) -> Step:
        value = question.ask.parse(text, question.asking)
        if isinstance(value, Miss):
            return self.again(value.text)
        if self.state.asked == PENDING:
            return self._show_pending({**self.state.pending, question.path: value})
        shown = question.ask.show(value, question.asking)
        return self._set({question.path: value}, f"已改：{question.ask.label}={shown}。")

    # - the last word -

    def _hear_review(self, text: str) -> Step:
        if text == self.form.finish:
            return self._finish()
        if is_soft_yes(text) or is_yes(text):
            return Step(say(f"提交前最后一步，请回「{self.form.finish}」。"), self.state)
        read = self._read_template(text)
        if read is not None:
            return read
        return Step(
            say(f"请回「{self.form.finish}」提交，「上一步」修改，或「取消」放弃。"), self.state
        )

    # - several answers at once -

    def _show_pending(self, values: Mapping[str, Any], before: str = "") -> Step:
        answers = {**self.state.answers, **values}
        asking = self.asking._replace(answers=answers)
        every = {question.path: question for question in walk(self.form, asking)}
        listed = " | ".join(
            f"{every[path].ask.label}={every[path].shown()}" for path in values if path in every
        )
        text = (
            f"一次说了好几项，我这样理解：\n{listed}\n"
            "对吗？回「对」继续；哪项不对直接说，如「城市 苏州」。"
        )
        return Step(
            say(f"{before}\n{text}" if before else text, "对", "不对"),
            self.state._replace(asked=PENDING, pending=dict(values)),
        )

    def _hear_pending(self, text: str) -> Step:
        said = answer(text)
        if said is None:
            return self._show_pending(self.state.pending, "没听明白。")
        if not said.yes:
            dialog = self._answered(self.state.answers)
            return dialog.next_step("好的，那我们一项一项来。")
        return self._set(self.state.pending, "已记下。", said.rest)

    # - an ordinary answer -

    def _hear_answer(self, question: Question, text: str) -> Step:
        read = self._read_template(text)
        if read is not None:
            return read
        if question.is_list:
            return self._hear_list(question, text)
        nested = question.path != question.name
        if nested:
            several = self._hear_rows(question, text)
            if several is not None:
                return several
        value, aside = self._parse(question, text)
        if isinstance(value, Miss):
            found = None if nested else self.form.extract(text, question.name, self.asking)
            if isinstance(found, Miss):
                return self._missed(found.text)
            if found:
                return self._found(found)
            return self._missed(value.text)
        return self._set({question.path: value}, self._echo(question, value), aside)

    def _missed(self, text: str) -> Step:
        return Step(say(text), self.state, missed=True)

    def _parse(self, question: Question, text: str) -> tuple[Any, str]:
        value = question.ask.parse(text, question.asking)
        if not isinstance(value, Miss) or not question.ask.yes_no:
            return value, ""
        said = answer(text)
        if said is None or not said.rest:
            return value, ""
        return question.ask.parse("是" if said.yes else "否", question.asking), said.rest

    def _echo(self, question: Question, value: Any) -> str:
        if question.ask.echo is None:
            return ""
        answers = {**question.asking.answers, question.name: value}
        return question.ask.echo(value, question.asking._replace(answers=answers))

    def _found(self, found: Answers) -> Step:
        if self.form.confirm_extracted and len(found) > 1:
            return self._show_pending(found)
        return self._set(found)

    def _hear_rows(self, question: Question, text: str) -> Step | None:
        """Rows are read whole where their form knows how, and several at a time where asked so."""
        root = re.split(r"[.\[]", question.path)[0]
        outer = self.outline.asks[root]
        if outer.bulk is not None:
            several = outer.bulk(text, self.asking)
            if isinstance(several, Miss):
                return self._missed(several.text)
            if several:
                step = self._set(_flat(root, several))
                echo = "".join(
                    self._row_echo(outer.rows, row, question._replace(asking=self._row_asking(key)))
                    for key, row in several.items()
                    if outer.rows is not None
                )
                return step._replace(reply=_prefixed(echo, step.reply)) if echo else step
        assert outer.rows is not None
        found = outer.rows.extract(text, question.name, question.asking)
        if found is None:
            return None
        if isinstance(found, Miss):
            return self._missed(found.text)
        base = question.path[: -len(question.name)]
        step = self._set({f"{base}{name}": value for name, value in found.items()})
        echo = self._row_echo(outer.rows, found, question)
        return step._replace(reply=_prefixed(echo, step.reply)) if echo else step

    def _row_asking(self, key: str) -> Asking:
        return Asking({}, self.state.facts, self.today, key, self.state.answers)

    def _row_echo(self, form: type[Form], found: Answers, question: Question) -> str:
        asking = question.asking._replace(answers={**question.asking.answers, **found})
        said = [
            ask.echo(found[name], asking)
            for name, ask in outline(form).asks.items()
            if ask.echo is not None and found.get(name) is not None
        ]
        return "".join(said)

    def _hear_list(self, question: Question, text: str) -> Step:
        box = self.state.answers.get(question.name) or {"rows": [], "closed": False}
        if text in LIST_END:
            return self._set({question.name: {**box, "closed": True}})
        assert question.ask.rows is not None
        rows, said = list(box["rows"]), []
        for line in filter(None, map(str.strip, text.splitlines())):
            found = question.ask.rows.extract(line, question.name, question.asking)
            if found is None or isinstance(found, Miss):
                return self._missed(
                    found.text if found else "没看懂这一条，请再说一遍；没有了回「没有」。"
                )
            rows.append(found)
            if question.ask.echo is not None:
                said.append(question.ask.echo(found, question.asking._replace(item=str(len(rows)))))
        step = self._set({question.name: {"rows": rows, "closed": False}})
        return step._replace(reply=_prefixed("\n".join(said), step.reply)) if said else step

    # - a whole form in one message -

    def _read_template(self, text: str) -> Step | None:
        """`标签：值` on a line each, at least three known labels: a filled-in template."""
        if text.count("\n") < 2:
            return None
        lines = _template_lines(text, {ask.label for ask in self.outline.asks.values()})
        if len(lines) < 3:
            return None
        dialog, misses = self, []
        for label, words in lines:
            dialog, miss = dialog._fill(label, words)
            if miss:
                misses.append(f"{label}：{miss}")
        step = dialog.next_step()
        if not misses:
            return step
        said = "收到整张表。这几项还需要您看一下：\n" + "\n".join(misses)
        return step._replace(reply=_prefixed(said, step.reply))

    def _fill(self, label: str, words: str) -> "tuple[Dialog, str]":
        for name, ask in self.outline.asks.items():
            if ask.label != label:
                continue
            if ask.rows is not None:
                return self._fill_rows(name, ask, words)
            asking = self.asking
            if ask.when is not None and not ask.when(asking):
                return self, ""
            if ask.optional and reserved(words, optional=True) is Reserved.SKIP:
                return self._with({name: None}), ""
            value = ask.parse(words, asking)
            if not isinstance(value, Miss):
                return self._with({name: value}), ""
            several = self.form.extract(words, name, asking)
            if several and not isinstance(several, Miss):
                return self._with(several), ""
            return self, several.text if isinstance(several, Miss) else value.text
        return self, "没有这一项。"

    def _fill_rows(self, name: str, ask: Ask, words: str) -> "tuple[Dialog, str]":
        assert ask.rows is not None
        if ask.bulk is not None:
            several = ask.bulk(words, self.asking)
            if isinstance(several, Miss):
                return self, several.text
            if several is None:
                return self, "没看懂这一项。"
            return self._with(_flat(name, several)), ""
        rows: list[Answers] = []
        for line in re.split(r"\n|／|\s/\s", words):
            if line.strip() in LIST_END:
                continue
            found = ask.rows.extract(line.strip(), name, self.asking)
            if found is None or isinstance(found, Miss):
                return self, found.text if found else f"没看懂「{line.strip()}」。"
            rows.append(found)
        return self._with({name: {"rows": rows, "closed": True}}), ""

    def _with(self, values: Mapping[str, Any]) -> "Dialog":
        answers = self.state.answers
        for path, value in values.items():
            answers = put(answers, path, value)
        return self._answered(answers)


def _flat(root: str, rows: Mapping[str, Answers]) -> dict[str, Any]:
    return {f"{root}[{key}].{name}": v for key, row in rows.items() for name, v in row.items()}


def _template_lines(text: str, labels: set[str]) -> list[tuple[str, str]]:
    """Known labels with what stands after them; a line without a label goes on the one before."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        head, sep, rest = re.sub(r"^\s*\d+[.、]\s*", "", line).replace(":", "：").partition("：")
        if sep and head.strip() in labels:
            found.append((head.strip(), rest.strip()))
        elif found and line.strip():
            label, before = found[-1]
            found[-1] = (label, f"{before}\n{line.strip()}".strip())
    return [(label, words) for label, words in found if words]


def template_of(form: type[Form]) -> str:
    """An empty form to copy, fill in and send back as one message."""
    return "\n".join(f"{ask.label}：" for ask in form.asks().values())


def _prefixed(text: str, reply: Reply) -> Reply:
    if not reply.parts:
        return say(text)
    first, *rest = reply.parts
    return Reply((replace(first, text=f"{text}\n{first.text}"), *rest))


@cache
def _adapter(form: type[Form], name: str) -> TypeAdapter[Any]:
    annotation: Any = form.model_fields[name].annotation
    return TypeAdapter(annotation)


def _acceptable(form: type[Form], name: str, value: Any) -> bool:
    if form.asks()[name].rows is not None:
        return isinstance(value, dict)
    if value is None:
        return form.asks()[name].optional
    try:
        _adapter(form, name).validate_python(value)
    except ValidationError:
        return False
    return True


OWN_NUMBER = "发送我的手机号"

NOT_WORDS: Mapping[Kind, str] = {
    Kind.IMAGE: "图片我没有保存，麻烦打字告诉我。",
    Kind.VOICE: "暂时听不了语音，麻烦打字。",
    Kind.VIDEO: "视频我看不了，也没有保存，麻烦打字告诉我。",
    Kind.FILE: "文件我没有保存，麻烦打字告诉我。",
    Kind.LOCATION: "位置我没有保存，也不需要，麻烦打字告诉我。",
    Kind.CONTACT: "名片里是别人的信息，我没有保存，麻烦打字告诉我。",
    Kind.STICKER: "收到表情啦。",
}

_FORM_HELP = (
    "您正在填表。可以回：「上一步」返回，「跳过」略过选填题，「改 2」重填第2项，"
    "「取消」放弃，「人工」找工作人员。随时离开，草稿会替您留着，回「继续」接着填。"
)
