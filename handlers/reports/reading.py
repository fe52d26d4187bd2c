"""Read what a team writes into its report: visits, leads, progress, funds and outcomes.

Each function returns answers by question name, a `Miss` that says what to send instead, or None
where the text is about something else. Money is in 元.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from bot.forms import LIST_END, Answers
from bot.normalize import Ambiguous, Miss, parse_date, read_integer, tidy
from bot.personal_numbers import find_mobiles
from handlers.forms.fields import parse_money, show_days, wan
from handlers.reports.sheet import DATES, NOTE, NOTHING, next_stages, stage_word
from storage.reports import STAGE_ORDER, Stage

ONE_YI = 100_000_000
HUNDRED_YI = 100 * ONE_YI
ONE_WAN = 10_000

_NUMBER = r"\d+|[零〇一二两三四五六七八九十百]+"
_NONE = frozenset((*LIST_END, "零", "没", "暂无", "都没有", "无变化"))
_GAP = re.compile(r"[\s，,、;；]+")
_THOUSANDS = re.compile(r"(?<=\d)[,，](?=\d{3}(?!\d))")


def counted(text: str, most: int, unit: str) -> int | Miss:
    """A whole number of things such as `18家`, from 0 to `most`."""
    plain = re.sub(r"[。.！!]$|(?:家次|人次|家|场|次|个|人|批)+$", "", tidy(text))
    if plain in _NONE:
        return 0
    number = None if re.search(r"\d\s+\d", plain) else read_integer(plain)
    if number is None:
        return Miss(f"请回一个整数，如「4」；没有回「0」（单位：{unit}）。")
    if not 0 <= number <= most:
        return Miss(f"这一项请填0到{most}之间的整数，收到{number}，请核对。")
    return number


# - B: visits -

_VISITS = re.compile(
    rf"(?P<before>走访企业|走访|企业|重点企业|重点|商协会|商会|协会|知名人士|知名|名人|鸿雁|乡贤)?"
    rf"\s*[:：是为]?\s*(?P<number>{_NUMBER})\s*(?:家次|人次|家|位|人|个|次)?"
    rf"(?P<after>(?:重点企业|重点|商协会|商会|协会|知名人士|鸿雁)(?!\s*[:：是为]?\s*(?:{_NUMBER})))?"
)
_VISITED = {"重": "visits_key", "商": "chambers", "协": "chambers"} | dict.fromkeys(
    "知名鸿乡", "notables"
)


def visits(text: str, known: Mapping[str, Any]) -> Answers | Miss | None:
    """`18家 重点4 商会2 知名人士3`; bare numbers are visits, then key visits (K5)."""
    found: Answers = {}
    also: dict[str, int] = {}
    for each in _VISITS.finditer(tidy(text)):
        number = read_integer(each["number"]) or 0
        name = _VISITED.get((each["after"] or each["before"] or "走")[0], "visits")
        if name in ("chambers", "notables"):
            also[name] = number
        elif name == "visits" and "visits" in found:
            found.setdefault("visits_key", number)
        else:
            found[name] = number
    if not found:
        return {"also": also} if also else None
    if "visits" in found and "visits_key" in found:
        found["also"] = also or None
    elif also:
        found["also"] = also
    miss = key_visits(found.get("visits", known.get("visits")), found.get("visits_key"))
    return miss or found


def key_visits(every: int | None, key: int | None) -> Miss | None:
    """What is wrong with the number of visits to key enterprises, if anything (K5)."""
    for number in (every, key):
        if number is not None and number > 300:
            return Miss(f"走访家次请填0到300之间的整数，收到{number}，请核对。")
    if every is None or key is None or key <= every:
        return None
    return Miss(f"重点企业（{key}）不能多于走访总数（{every}），请更正，如「{every} 重点4」。")


def also_visited(text: str) -> Answers | Miss:
    """Chambers and notables: `商会2 知名人士3`; a bare number counts chambers."""
    found = visits(text, {})
    if isinstance(found, Miss) or not found:
        return Miss("请写成「商协会2 知名人士3」（知名人士只报人次，不写姓名）；没有回「跳过」。")
    also: Answers = found.get("also") or {}
    return {"chambers": found["visits"], **also} if "visits" in found else also


# - C: leads -

LEAD_PARTS = ("called", "investor", "content", "planned", "needs", "source", "contact", "next_step")


def parts_of(text: str) -> list[str]:
    """The parts of a line: between semicolons, or, where there are none, between other marks."""
    parts = [part.strip() for part in re.split(r"[；;]", tidy(text))]
    if len(parts) > 1:
        return parts
    return [part for part in re.split(r"[，,、\s]+", tidy(text)) if part]


def lead(text: str) -> Answers | Miss | None:
    """`名称；投资方；内容；投资额；选址要求；来源；联系人；下一步`.

    `said` is what is unclear of the amount.
    """
    parts = parts_of(text)
    # Between spaces only a line with an amount in its place is sure to be a lead.
    sure = re.search("[；;]", tidy(text)) or (
        len(parts) > 3 and not isinstance(parse_money(parts[3]), Miss)
    )
    if len(parts) < 2 or not parts[0] or not sure:
        return Miss("请按「名称；投资方；内容；投资额」一条一行发；没有新增线索回「0」。")
    if find_mobiles(text):
        return Miss("联系人请只写职务和姓氏（如「王总」），不写电话，请重发这一条。")
    row: Answers = {
        name: part for name, part in zip(LEAD_PARTS, parts, strict=False) if part.strip()
    }
    said = row.pop("planned", None)
    if said is None:
        return row
    amount = parse_money(said)
    if isinstance(amount, Miss):
        return {**row, "said": amount.text}
    return {**row, "planned": amount}


# - D: progress -

_STILL = re.compile(r"无变化|没变化|没有变化|未变化|没有?进展|无进展|照旧|不变|正常推进")
_STAGE_WORDS = (
    (Stage.PRODUCED, re.compile(r"(?<![未没])(?:投产|试生产)")),
    (Stage.STARTED, re.compile(r"(?<![未没])(?:开工|动工|开建|开的)")),
    (Stage.SIGNED, re.compile(r"(?<![未没拟待])(?:签约|签了|已签|签订|签下|新签)")),
    (Stage.IN_TALKS, re.compile(r"(?<![未没])(?:在谈|面谈|洽谈|首谈|接洽)")),
)
_LETTER = re.compile(r"意向|框架|备忘录")
_FIXED = re.compile(r"(?:其中)?(?:固定资产(?:投资)?|固投|固定)[:：是为]?")
_TOTAL = re.compile(r"(?:计划)?(?:总投资|投资额?|总额|合同额)[:：是为]?")
_FILING = re.compile(r"(?:立项|备案)\S*")
_MONEY_LIKE = re.compile(rf"^(?:{_NUMBER}|[\d.]+).*$|^\$|^[¥￥]")


def progress(
    text: str, origin: Stage, today: date, last: date, *, numbered: bool = True
) -> Answers | Miss | None:
    """What a project did in the month: `2 3月18号开的`, `签了 1.2亿 固投9500`, `无变化`.

    `numbered`: the text may begin with the number of an option. Other words are a note.
    """
    plain = tidy(text)
    stages = next_stages(origin)
    option = re.match(r"([1-9])(?:[.、]\s*|\s+|$)", plain) if numbered else None
    words = plain[option.end() :] if option else plain
    named = [stage for stage, pattern in _STAGE_WORDS if pattern.search(words)]
    ahead = [stage for stage in named if stage in stages]
    row: Answers = {}
    if option:
        chosen = _option(int(option[1]), stages)
        if isinstance(chosen, Miss):
            return chosen
        row["to"] = chosen
    elif ahead:
        row["to"] = str(max(ahead, key=STAGE_ORDER.index))
    elif _STILL.search(words):
        return {"to": NOTHING}
    elif named:
        return _backwards(origin, stages)
    elif len(words) >= 3 and not re.fullmatch(r"[\d\s.]+", words):
        return {"to": NOTE, "note": words} if len(words) <= 200 else Miss("进展请控制在200字以内。")
    else:
        return None
    if row["to"] == NOTHING:
        return row
    if row["to"] == NOTE:
        return {**row, "note": words} if words else row
    more = _details(words, Stage(row["to"]), today, last)
    return more if isinstance(more, Miss) else {**row, **more}


def _option(number: int, stages: Sequence[Stage]) -> str | Miss:
    choices = [NOTHING, *(str(each) for each in stages[:1]), NOTE]
    if number > len(choices):
        return Miss(f"选项只有1到{len(choices)}，请重新回数字。")
    return choices[number - 1]


def _backwards(origin: Stage, stages: Sequence[Stage]) -> Miss:
    legal = "、".join(f"「已{stage_word(each)}」" for each in stages)
    ahead = f"可报：「无变化」、{legal}" if legal else "可报「无变化」或写一句进展"
    return Miss(
        f"这个项目目前已是“{stage_word(origin)}”，月报里不能往回改。{ahead}。"
        "以前报错了，请用「更正」或联系统筹员。"
    )


def _details(words: str, to: Stage, today: date, last: date) -> Answers | Miss:
    """Days, amounts and the kind of agreement that stand beside a stage."""
    row: Answers = {}
    filing = _FILING.search(words)
    if filing:
        row["note"] = filing[0]
        words = words.replace(filing[0], " ")
    if _LETTER.search(words):
        row["formal"] = False
    elif "正式" in words:
        row["formal"] = True
    money: list[str] = []
    for token in filter(None, _GAP.split(_THOUSANDS.sub("", words))):
        day = None if _is_money(token) else parse_date(token, today, "past")
        if isinstance(day, date):
            checked = checked_day(day, last)
            if isinstance(checked, Miss):
                return checked
            row[DATES[_stage_in(token) or to]] = checked
        elif _is_money(token):
            money.append(token)
    amounts = planned_amounts(" ".join(money)) if money else None
    if isinstance(amounts, Miss):
        return amounts
    return {**row, **(amounts or {})}


def _stage_in(token: str) -> Stage | None:
    return next((stage for stage, pattern in _STAGE_WORDS if pattern.search(token)), None)


def _is_money(token: str) -> bool:
    if re.search(r"[万亿]|元|美金|固|投资|总额", token):
        return True
    return re.fullmatch(r"[\d.]+", token) is not None and "." not in token[:-3]


def checked_day(day: date, last: date) -> str | Miss:
    """A day as ISO text, unless it lies after what the report can tell of."""
    if day > last:
        return Miss(f"这份月报只报到{last.month}月{last.day}日，{day:%Y-%m-%d}请放到下期报。")
    return day.isoformat()


def planned_amounts(text: str) -> Answers | Miss | None:
    """Planned total and fixed assets: `1.2亿 固投9500`; None where there is no amount."""
    row: Answers = {}
    label = ""
    for token in filter(None, _GAP.split(_THOUSANDS.sub("", tidy(text)))):
        fixed, total = _FIXED.match(token), _TOTAL.match(token)
        label = "fixed" if fixed else "planned" if total else label
        rest = token[(fixed or total).end() :] if fixed or total else token  # type: ignore[union-attr]
        if not rest:
            continue
        amount = parse_money(rest)
        if isinstance(amount, Miss):
            return amount
        row[label or ("fixed" if "planned" in row else "planned")] = amount
        label = ""
    return plan_miss(row.get("planned"), row.get("fixed")) or row or None


def plan_miss(planned: int | None, fixed: int | None) -> Miss | None:
    """What is wrong with a plan's amounts, if anything."""
    if planned is None or fixed is None or fixed <= planned:
        return None
    return Miss(
        f"其中固定资产（{wan_words(fixed)}）不能多于计划总投资（{wan_words(planned)}），请核对后重报。"
    )


def fresh(text: str, today: date, last: date) -> Answers | Miss | None:
    """A project that is new in the ledger: `名称；投资方；在谈；3月5日；1.2亿`."""
    plain = re.sub(r"^(?:新增(?:在谈|签约|项目)?|新谈|新签)[:：]?\s*", "", tidy(text))
    signed = re.match(r"(?:新增签约|新签)", tidy(text)) is not None
    parts = parts_of(plain)
    if len(parts) < 2:
        return Miss("请按「新增 名称；投资方；在谈或签约；日期；计划总投资」写在一行里发。")
    called, investor, *rest = parts
    words = " ".join(rest)
    row: Answers = {"called": called, "investor": investor}
    to = Stage.SIGNED if signed or _STAGE_WORDS[2][1].search(words) else Stage.IN_TALKS
    further = [s for s, pattern in _STAGE_WORDS[:2] if pattern.search(words)]
    to = further[0] if further else to
    more = _details(words, to, today, last)
    return more if isinstance(more, Miss) else {**row, "to": str(to), **more}


# - F: funds -

_FUNDS_LABEL = re.compile(
    r"(合计|总共|一共|共计|共|总计|总数|固定资产投资|固定资产|固投|其他|其它|流动资金|设备预付)"
)
_FUNDS_NAMES = {"固": "fixed", "其": "other", "流": "other", "设": "other"}


def funds(text: str, before: Mapping[str, int] | None = None) -> Answers | Miss | None:
    """Funds of one project: `1400 100`, `固投1400 其他100`, `1500 固投1400 其他200` (K6).

    `before` is what a correction that names only one of the two leaves as it is.
    """
    plain = _THOUSANDS.sub("", tidy(text)).rstrip("。")
    if plain in _NONE:
        return {"fixed": 0, "other": 0}
    said: dict[str, int] = {}
    bare: list[int] = []
    label = ""
    for token in filter(None, _GAP.split(_FUNDS_LABEL.sub(r" \1 ", plain))):
        if _FUNDS_LABEL.fullmatch(token):
            label = _FUNDS_NAMES.get(token[0], "total")
            continue
        words = re.sub(r"^(?:应该是|应该为|应为|应是|改成|改为|是|为|→|->|[:：=])+", "", token)
        if not words:
            continue
        amount = parse_money(words)
        if isinstance(amount, Miss):
            return (
                amount
                if said or bare or label or isinstance(amount, Ambiguous)
                else _unread(words, amount)
            )
        if label:
            said[label] = said.get(label, 0) + amount if label == "other" else amount
        else:
            bare.append(amount)
        label = ""
    return _agreed(said, bare, before)


def _unread(words: str, miss: Miss) -> Miss | None:
    return miss if re.search(r"\d|外币|美元|欧元|港", words) else None


def _agreed(
    said: dict[str, int], bare: list[int], before: Mapping[str, int] | None
) -> Answers | Miss | None:
    if not said and len(bare) == 2:
        return {"fixed": bare[0], "other": bare[1]}
    if not said and len(bare) == 3:
        said = {"total": bare[0], "fixed": bare[1], "other": bare[2]}
    elif bare:
        if len(bare) > 1 or "total" in said:
            return Miss("没分清哪个是固投、哪个是其他，请写成「固投1400 其他100」。")
        said["total"] = bare[0]
    if not said:
        return None
    if before is not None and "total" not in said:
        said = {**before, **said}
    if "fixed" not in said and "other" not in said:
        if said["total"] == 0:
            return {"fixed": 0, "other": 0}
        return Miss("请把到位资金分成固投和其他两项，如「固投1400 其他100」，没有的写0。")
    if "total" in said and ("fixed" not in said or "other" not in said):
        given = "fixed" if "fixed" in said else "other"
        rest = said["total"] - said[given]
        if rest < 0:
            return Miss(f"合计{wan_words(said['total'])}比其中一项还少，请核对后重报。")
        said["other" if given == "fixed" else "fixed"] = rest
    fixed, other = said.get("fixed", 0), said.get("other", 0)
    if "total" in said and said["total"] != fixed + other:
        return _sum_miss(said["total"], fixed, other)
    return {"fixed": fixed, "other": other}


def _sum_miss(total: int, fixed: int, other: int) -> Miss:
    return Miss(
        f"三个数对不上：固投{plain_wan(fixed)}+其他{plain_wan(other)}={plain_wan(fixed + other)}，"
        f"而您说合计{plain_wan(total)}，差{plain_wan(abs(fixed + other - total))}（万元）。"
        "请重报，如「固投1400 其他100」。"
    )


# - G, H, I: outcomes -

_OUTCOMES = re.compile(
    r"(?:^|(?<=[\s，,。；;、]))(推介(?:活动)?|(?:引荐)?(?:客商)?(?:来)?考察|引荐|问题(?:与建议|和建议)?"
    r"|建议|下月(?:打算|计划)?|打算|计划)\s*[:：是]?"
)
_OUTCOME_NAMES = {"推": "promos", "问": "problems", "建": "problems"} | dict.fromkeys(
    "引客来考", "inbound"
)


def outcomes(text: str) -> Answers | Miss | None:
    """`推介1 考察1批6人 问题用地指标紧 下月盯开工`: at least two of the last questions at once."""
    plain = tidy(text)
    marks = list(_OUTCOMES.finditer(plain))
    if len(marks) < 2 or marks[0].start() > 0:
        return None
    found: Answers = {}
    ends = [*(mark.start() for mark in marks[1:]), len(plain)]
    for mark, end in zip(marks, ends, strict=True):
        words = plain[mark.end() : end].strip(" ，,。；;、")
        name = _OUTCOME_NAMES.get(mark[1][0], "plan")
        value: Any = words
        if name == "promos":
            value = counted(words, 60, "场")
        elif name == "inbound":
            value = inbound(words)
        elif name == "problems":
            value = None if words in _NONE else words
        if isinstance(value, Miss):
            return value
        if value != "":
            found[name] = value
    if found.get("plan"):
        found.setdefault("problems", None)
    return found


def inbound(text: str) -> Answers | Miss:
    """Batches and people brought to look around: `1批6人`, `1 6` (K5)."""
    plain = tidy(text).rstrip("。")
    if plain in _NONE or re.fullmatch(r"0批?\s*0?(?:人次|人)?", plain):
        return {"batches": 0, "people": 0}
    numbers = [read_integer(each) or 0 for each in re.findall(_NUMBER, plain)]
    if len(numbers) != 2:
        return Miss("引荐考察请写批数和人次，如「1批6人」；没有回「0」。")
    batches, people = numbers
    if batches > people:
        return Miss(f"批数（{batches}）不能多于人次（{people}），请更正，如「1批6人」。")
    return {"batches": batches, "people": people}


# - leave -

_LEAVE_DAYS = re.compile(r"((?:\d+(?:\.\d+|点5)?|[一二两三四五六七八九十]+)?\s*个?半?)\s*天(半)?")


def leave(text: str, spare_half_days: int) -> Answers | Miss:
    """Why somebody was away, with the days if told: `返县汇报2天`; at most `spare` (K4)."""
    plain = tidy(text)
    if not 2 <= len(plain) <= 60:
        return Miss("请写一句事由，60字以内，如「返县汇报2天」。")
    half_days = 0
    found = _LEAVE_DAYS.search(plain)
    if found:
        half_days = _half_days(found)
        if half_days > spare_half_days:
            return Miss(
                f"驻点天数加请假{show_days(half_days)}超过了当月天数，"
                f"最多还能请假{show_days(spare_half_days)}，请更正。"
            )
    return {"reason": plain, "half_days": half_days}


def _half_days(found: re.Match[str]) -> int:
    words = found[1].replace(" ", "").replace("个", "").replace("点5", ".5")
    half = words.endswith("半") or bool(found[2])
    words = words.removesuffix("半")
    if re.fullmatch(r"\d+\.\d+", words):
        return round(float(words) * 2)
    return 2 * (read_integer(words) or 0) + half


def plain_wan(yuan: int) -> str:
    """`1400`, `0.5`: 万元 without the unit."""
    shown = wan(yuan)
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def wan_words(yuan: int) -> str:
    """`1400万元`."""
    return f"{plain_wan(yuan)}万元"
