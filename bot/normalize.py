"""Recognise what people mean by short answers: choices, yes and no, reserved and legal words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from pypinyin import Style, lazy_pinyin

from bot.dates import LunarGuess, SpokenTime, parse_date, parse_when, read_time
from bot.numerals import NUMERAL, Ambiguous, Miss, read_integer, read_number, tidy

__all__ = [
    "Ambiguous",
    "Answer",
    "Explicit",
    "LunarGuess",
    "Miss",
    "Reserved",
    "SpokenTime",
    "answer",
    "coded",
    "explicit",
    "is_no",
    "is_soft_yes",
    "is_yes",
    "near_miss",
    "parse_date",
    "parse_when",
    "pick_numbers",
    "read_integer",
    "read_number",
    "read_time",
    "reserved",
    "tidy",
]

_SEPARATORS = "[\\s、,，;；/+\uff0b&\uff0e.。|]|和|跟|与|及|还有|以及"
_RANGE = re.compile(f"([{NUMERAL}]+)\\s*(到|至|~|\uff5e|-|\uff0d|—|\u2013)\\s*([{NUMERAL}]+)")
_CHOICE_FILLERS = re.compile(r"我?选择?|第|[个项号条类](?![一-龥])|[吧呢啊呀哈了]|都要|我是|这")
_ALL = frozenset(("全选", "全部", "都选", "全都选", "都是", "都要"))


def pick_numbers(text: str, options: int) -> tuple[int, ...] | Miss:
    """Return the chosen option numbers in the order said, each once, from 1 to `options`.

    `13` where fewer than ten options exist, and `1-3`, come back as Ambiguous with both readings.
    """
    plain = tidy(text)
    if plain in _ALL:
        return tuple(range(1, options + 1))
    spanned = _RANGE.fullmatch(plain)
    if spanned:
        return _pick_range(plain, spanned, options)
    parts = [part for part in re.split(_SEPARATORS, _CHOICE_FILLERS.sub("", plain)) if part]
    numbers = [read_integer(part) for part in parts]
    if not numbers or None in numbers:
        return Miss(
            f"请回选项前的数字（1到{options}），多选用空格隔开，如「{_example(options)}」。"
        )
    picked = tuple(dict.fromkeys(number for number in numbers if number is not None))
    if all(1 <= number <= options for number in picked):
        return picked
    if len(picked) == 1 and options < 10:
        digits = tuple(int(digit) for digit in str(picked[0]))
        if len(set(digits)) == len(digits) and all(1 <= digit <= options for digit in digits):
            return _ask_apart(str(picked[0]), digits)
    return Miss(f"选项只有1到{options}，请重新回数字，如「{_example(options)}」。")


def _example(options: int) -> str:
    return "1 3" if options >= 3 else "1"


def _ask_apart(said: str, digits: tuple[int, ...]) -> Ambiguous:
    apart = " ".join(str(digit) for digit in digits)
    return Ambiguous(
        f"「{said}」是指{'和'.join(apart.split())}吗？请用空格隔开再发，如「{apart}」。", (digits,)
    )


def _pick_range(text: str, spanned: re.Match[str], options: int) -> tuple[int, ...] | Miss:
    first, last = read_integer(spanned[1]), read_integer(spanned[3])
    if first is None or last is None or not 1 <= first < last <= options:
        return Miss(f"选项只有1到{options}，请重新回数字，如「{_example(options)}」。")
    whole = tuple(range(first, last + 1))
    if spanned[2] in "到至~\uff5e" or len(whole) == 2:
        return whole
    return Ambiguous(
        f"「{text}」是{first}和{last}两项，还是{first}到{last}每一项？"
        f"请逐个写出并用空格隔开，如「{first} {last}」。",
        ((first, last), whole),
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_YES = _words(
    "是 是的 是啊 是滴 对 对的 对啊 对呀 对对 对对对 好 好的 好啊 好吧 好嘞 好滴 嗯 嗯嗯 嗯呢 "
    "行 行吧 行啊 可以 可以的 没错 没问题 中 要 要的 ok okay k yes y yep 👌 👍"
)
_NO = _words(
    "不 不是 不是的 不对 不要 不用 不用了 不行 不可以 不能 不需要 不必 不了 否 没 没有 没有的 "
    "还没 还没有 别 别了 算了 no n nope 👎"
)
_TRAILING = "。\uff0e.！!~\uff5e，,、 \n"
_EMOJI_STYLE = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")
_QUOTES = "「」“”\"'‘’【】"
_PAUSE = "\\s，,。\uff0e.！!；;：:、~\uff5e"
_FIRST_WORD = re.compile(f"([^{_PAUSE}]+)[{_PAUSE}]+(.+)", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """A yes or a no, and whatever else was said after it."""

    yes: bool
    rest: str = ""


def answer(text: str) -> Answer | None:
    """Read an answer to a yes-or-no question; `对 活动啥时候` gives yes and the rest."""
    word = _word(text)
    if word in _YES or word in _NO:
        return Answer(word in _YES)
    found = _FIRST_WORD.fullmatch(tidy(text))
    if not found:
        return None
    first = _word(found[1])
    return Answer(first in _YES, found[2].strip()) if first in _YES or first in _NO else None


def is_yes(text: str) -> bool:
    """Say whether the whole text is a yes."""
    return _word(text) in _YES


def is_no(text: str) -> bool:
    """Say whether the whole text is a no."""
    return _word(text) in _NO


def _word(text: str) -> str:
    return _EMOJI_STYLE.sub("", tidy(text)).strip(_TRAILING).casefold()


class Reserved(StrEnum):
    """Words that steer an open form instead of answering its question."""

    SKIP = "skip"
    BACK = "back"
    CANCEL = "cancel"
    CONTINUE = "continue"
    HELP = "help"
    HUMAN = "human"


_RESERVED = {
    word: meaning
    for meaning, words in {
        Reserved.SKIP: "跳过 略 过 略过 pass skip - \uff0d — 不填 不便说",
        Reserved.BACK: "上一步 返回 上一题 退回 back",
        Reserved.CANCEL: "取消 退出 不填了 cancel /cancel quit q",
        Reserved.CONTINUE: "继续 接着 接着填 continue",
        Reserved.HELP: "帮助 菜单 ? ？ help 怎么用",
        Reserved.HUMAN: "人工 转人工 客服 真人 人工客服",
    }.items()
    for word in words.split()
}


def reserved(text: str, *, optional: bool = False, yes_no: bool = False) -> Reserved | None:
    """Return the reserved word a whole text is, or None.

    无 counts as a skip only at an optional question; 算了 gives up, but answers a yes-or-no one.
    """
    word = _word(text).strip(_QUOTES)
    if word == "无" and optional:
        return Reserved.SKIP
    if word == "算了" and not yes_no:
        return Reserved.CANCEL
    return _RESERVED.get(word)


class Explicit(StrEnum):
    """Declarations with legal or final effect; nothing short of the very word counts."""

    AGREE = "agree"
    DECLINE = "decline"
    CONFIRM = "confirm"
    SUBMIT = "submit"


_EXPLICIT = {
    "同意": Explicit.AGREE,
    "我同意": Explicit.AGREE,
    "agree": Explicit.AGREE,
    "不同意": Explicit.DECLINE,
    "我不同意": Explicit.DECLINE,
    "disagree": Explicit.DECLINE,
    "确认": Explicit.CONFIRM,
    "提交": Explicit.SUBMIT,
}


def explicit(text: str) -> Explicit | None:
    """Return the declaration a text makes word for word; quotes around it and a full stop pass."""
    return _EXPLICIT.get(_verbatim(text))


def is_soft_yes(text: str) -> bool:
    """Say whether a text sounds like consent (好的, OK, 👍, 1) without being the required word."""
    return _verbatim(text) not in _EXPLICIT and (is_yes(text) or _word(text) == "1")


def _verbatim(text: str) -> str:
    return tidy(text).rstrip("。.").strip(_QUOTES).rstrip("。.").casefold()


def coded(text: str, verb: str) -> tuple[str, str] | None:
    """Read `同意 3fa9 其他话` as (code in capitals, the rest), or None without verb and code."""
    found = re.fullmatch(
        rf"[{_QUOTES}]*{re.escape(verb)}[\s:：]*([0-9A-Za-z]{{1,8}})(?![0-9A-Za-z])(.*)",
        tidy(text),
        re.DOTALL,
    )
    return (found[1].upper(), found[2].strip(_QUOTES + _TRAILING)) if found else None


_CHINESE = re.compile("[\u4e00-\u9fff]+")
_LATIN = re.compile("[a-z]{4,}")
# Longer talk is talk: a homophone somewhere in it means nothing.
_LONGEST_PHRASE = 16


@dataclass(frozen=True)
class _Heard:
    """A text with the syllables of each of its Chinese runs, without and with tones."""

    text: str
    runs: tuple[tuple[str, ...], ...]
    toned: tuple[tuple[str, ...], ...]


def near_miss(text: str, candidates: Iterable[str]) -> str | None:
    """Return the one candidate the text probably means by sound, slip or inclusion, else None.

    The first test with any hit decides, and two hits mean no answer.
    """
    word, known = _word(text), tuple(dict.fromkeys(candidates))
    if not word or word in known:
        return word or None
    heard = _hear(word)
    tests: Sequence[Callable[[_Heard, str], bool]] = (
        _sounds_alike,
        _nearly_sounds_alike,
        _one_slip_apart,
        _contains,
        _contains_sound_and_tone,
        _contains_sound,
    )
    for test in tests:
        hits = _without_parts([candidate for candidate in known if test(heard, candidate)])
        if hits:
            return hits[0] if len(hits) == 1 else None
    return None


def _without_parts(hits: list[str]) -> list[str]:
    """Leave out a hit that is only a part of a longer one."""
    return [hit for hit in hits if not any(hit != other and hit in other for other in hits)]


def _hear(word: str) -> _Heard:
    runs = _CHINESE.findall(word) if len(word) <= _LONGEST_PHRASE else []
    return _Heard(
        word,
        tuple(_syllables(run, tones=False) for run in runs),
        tuple(_syllables(run, tones=True) for run in runs),
    )


def _syllables(text: str, *, tones: bool) -> tuple[str, ...]:
    style = Style.TONE3 if tones else Style.NORMAL
    return tuple(lazy_pinyin(text, style=style, neutral_tone_with_five=True))


@lru_cache(maxsize=2048)
def _candidate_syllables(candidate: str, *, tones: bool) -> tuple[str, ...]:
    # Only our own words are remembered, never what people write.
    return _syllables(candidate, tones=tones)


_CONFUSED = (("zh", "z"), ("ch", "c"), ("sh", "s"), ("ang", "an"), ("eng", "en"), ("ing", "in"))


def _blurred(syllable: str) -> str:
    """Return a syllable as those hear it who do not tell zh from z, ang from an, or n from l."""
    for clear, blurred in _CONFUSED:
        syllable = syllable.replace(clear, blurred)
    return "l" + syllable[1:] if syllable.startswith("n") and len(syllable) > 1 else syllable


def _is_one_run(heard: _Heard) -> bool:
    return len(heard.runs) == 1 and len(heard.runs[0]) == len(heard.text) > 1


def _sounds_alike(heard: _Heard, candidate: str) -> bool:
    wanted = _candidate_syllables(candidate, tones=False)
    if _is_one_run(heard):
        return heard.runs[0] == wanted
    typed = heard.text.replace(" ", "").replace("'", "")
    return _LATIN.fullmatch(typed) is not None and typed == "".join(wanted)


def _nearly_sounds_alike(heard: _Heard, candidate: str) -> bool:
    if not _is_one_run(heard):
        return False
    wanted = [_blurred(syllable) for syllable in _candidate_syllables(candidate, tones=False)]
    return [_blurred(syllable) for syllable in heard.runs[0]] == wanted


def _one_slip_apart(heard: _Heard, candidate: str) -> bool:
    """Compare by one character changed, added, left out, or two swapped.

    In a word of two characters one changed leaves too little to guess from.
    """
    word = heard.text
    if min(len(word), len(candidate)) < 2 or abs(len(word) - len(candidate)) > 1:
        return False
    if len(word) == len(candidate):
        differing = [i for i, (a, b) in enumerate(zip(word, candidate, strict=True)) if a != b]
        if len(differing) == 1:
            return len(candidate) > 2
        first, last = differing[0], differing[-1]
        swapped = word[first] == candidate[last] and word[last] == candidate[first]
        return len(differing) == 2 and last == first + 1 and swapped
    longer, shorter = sorted((word, candidate), key=len, reverse=True)
    return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


def _contains(heard: _Heard, candidate: str) -> bool:
    return len(candidate) > 1 and len(heard.text) <= _LONGEST_PHRASE and candidate in heard.text


def _contains_sound_and_tone(heard: _Heard, candidate: str) -> bool:
    return _is_within(_candidate_syllables(candidate, tones=True), heard.toned)


def _contains_sound(heard: _Heard, candidate: str) -> bool:
    return _is_within(_candidate_syllables(candidate, tones=False), heard.runs)


def _is_within(wanted: tuple[str, ...], runs: tuple[tuple[str, ...], ...]) -> bool:
    size = len(wanted)
    return size > 1 and any(
        run[start : start + size] == wanted for run in runs for start in range(len(run) - size + 1)
    )
