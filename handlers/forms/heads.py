"""How many come: 「能，带媳妇和娃」 is read as three; who they are is neither asked nor kept."""

from __future__ import annotations

import re

from bot.normalize import read_integer, tidy
from bot.numerals import DIGITS

_N = f"[0-9十{''.join(DIGITS)}]+"
_AGE = re.compile(rf"(?:今年|才|刚|都)?{_N}(?:\s*周?岁半?|个月大?)(?:的|了)?")
_JUST_A_NUMBER = re.compile(
    rf"(?:就|共|大概|大约|我们)?({_N})\s*(?:个人|口人|[个位人口名])?[吧呢了的。]?"
)
_TOTAL = re.compile(
    rf"(?:一共|总共|共|合计|连我|加我|算我|包括我|含我|我们|咱们|一家|全家)(?:自己)?[有是，,]?\s*({_N})\s*[个位人口]"
)
_COUPLE = re.compile("两口子|夫妻|夫妇|伉俪|俩口子")
_PAIR = "父母|爸妈|爹妈|双亲|岳父母|公婆|老两口|老人家俩|双胞胎"
_ONE = (
    "儿媳妇?|媳妇|爱人|老婆|妻子|太太|夫人|老公|丈夫|对象|老伴|女朋友|男朋友|小朋友|朋友|小孩子?|孩子"
    "|儿子|女儿|闺女|姑娘|小子|孙子|孙女|外孙女?|宝宝|娃娃?|丫头|父亲|母亲|爸爸?|妈妈?|爷爷|奶奶|姥姥|姥爷"
    "|司机|助理|秘书|同事|同学|战友|客商|客户|老板|合伙人|哥哥?|姐姐?|弟弟?|妹妹?|侄子|侄女|外甥|亲戚"
)
_SOMEBODY = re.compile(rf"(?P<count>{_N})?\s*[个位名口]?\s*(?:(?P<pair>{_PAIR})|(?P<one>{_ONE}))")
_WITH_COUNT = re.compile(rf"(?:带|另有|还有|外加|加上|随行|同行|陪同)\D{{0,4}}?({_N})\s*[个位名人]")
_ALONE = re.compile("就我|只有我|我自己|自己[来去]|一个人|独自|单独|不带|没有?随行|没带")


def count_heads(text: str) -> int | None:
    """How many a sentence means, the speaker included; None where it does not say.

    Ages are taken out before anything is counted.
    """
    plain = _AGE.sub("", tidy(text)).strip()
    bare = _JUST_A_NUMBER.fullmatch(plain) or _TOTAL.search(plain)
    if bare:
        return read_integer(bare[1])
    others = sum(_people(found) for found in _SOMEBODY.finditer(plain))
    if _COUPLE.search(plain):
        return 2 + others
    if others:
        return 1 + others
    counted = _WITH_COUNT.search(plain)
    if counted:
        return 1 + (read_integer(counted[1]) or 0)
    return 1 if _ALONE.search(plain) else None


def _people(found: re.Match[str]) -> int:
    if found["pair"]:
        return 2
    return (read_integer(found["count"]) if found["count"] else None) or 1
