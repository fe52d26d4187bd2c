"""The rows of the monthly report: leave, leads, projects and funds, each asked one by one."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from bot.forms import Answers, Ask, Asking, Form
from bot.normalize import Miss, parse_date, tidy
from handlers.forms.fields import parse_money, show_days, show_money
from handlers.reports import reading, wording
from handlers.reports.sheet import (
    DATES,
    NOTE,
    NOTHING,
    Funds,
    Member,
    Sheet,
    crossed,
    is_signed,
    next_stages,
    stage_word,
)
from storage.reports import STAGE_ORDER, Stage

# - A: leave -


def _member(asking: Asking) -> Member:
    return Sheet.of(asking).member(asking.item)


def _spare(asking: Asking) -> int:
    sheet = Sheet.of(asking)
    return int(sheet.facts["days"]) * 2 - sheet.half_days(_member(asking))


def _leave_prompt(asking: Asking) -> str:
    sheet, member = Sheet.of(asking), _member(asking)
    return (
        f"{member.name}差{sheet.lacking(member)}（最低{show_days(sheet.minimum)}），"
        "请写事由，如「返县汇报2天」。"
    )


class Leave(Form, name="monthly_leave", label="请假事由"):
    """Why somebody was on post for less than the month asks."""

    away: Annotated[
        dict[str, Any],
        Ask("事由", _leave_prompt, parse=lambda text, asking: reading.leave(text, _spare(asking))),
    ] = Field(default_factory=dict)


def several_leaves(text: str, asking: Asking) -> dict[str, Answers] | Miss | None:
    """`都回县开会了`, `小李家里有事 小王回县汇报2天`, or the one reason that is missing."""
    sheet = Sheet.of(asking)
    short = [sheet.member(key) for key in sheet.short()]
    said: dict[str, str] = {}
    for line in filter(None, map(str.strip, re.split(r"[\n；;]", text))):
        for member in short:
            for name in (member.name, member.nickname):
                if name and line.startswith(name):
                    said[member.key] = line[len(name) :].lstrip(" :：，,")
    if not said and (text.startswith("都") or len(short) == 1):
        said = {member.key: text for member in short}
    rows: dict[str, Answers] = {}
    for key, words in said.items():
        away = reading.leave(
            words, _spare(Asking({}, asking.facts, asking.today, key, asking.answers))
        )
        if isinstance(away, Miss):
            return away
        rows[key] = {"away": away}
    return rows or None


# - C: leads -


def _lead_amount_prompt(asking: Asking) -> str:
    unclear = asking.get("said")
    if unclear:
        return f"线索「{asking.get('called')}」的投资额：{unclear}"
    return f"线索「{asking.get('called')}」拟投资多少？单位万元，如「8000」；还没谈到回「0」。"


class LeadRow(Form, name="monthly_lead", label="线索"):
    """A new lead. The last four parts are kept where they are told, never asked for."""

    called: Annotated[str, Ask("名称", "线索名称是什么？")] = ""
    investor: Annotated[
        str, Ask("投资方", lambda asking: f"线索「{asking.get('called')}」的投资方是谁？")
    ] = ""
    content: Annotated[
        str, Ask("内容", lambda asking: f"线索「{asking.get('called')}」做什么项目？一句话即可。")
    ] = ""
    said: Annotated[str, Ask("金额原话", "", when=lambda asking: "said" in asking.answers)] = ""
    planned: Annotated[
        int,
        Ask(
            "拟投资额",
            _lead_amount_prompt,
            parse=lambda text, _asking: parse_money(text),
            show=lambda value, _asking: show_money(value),
        ),
    ] = 0
    needs: Annotated[str, Ask("要素需求", "", when=lambda asking: "needs" in asking.answers)] = ""
    source: Annotated[str, Ask("来源", "", when=lambda asking: "source" in asking.answers)] = ""
    contact: Annotated[str, Ask("联系人", "", when=lambda asking: "contact" in asking.answers)] = ""
    next_step: Annotated[
        str, Ask("下一步", "", when=lambda asking: "next_step" in asking.answers)
    ] = ""

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> Answers | Miss | None:
        """A whole lead in one line."""
        return reading.lead(text) if asked == "leads" else None


def lead_echo(row: Answers, asking: Asking) -> str:
    return f"{wording.lead_line(f'线索{asking.item}', row)}。"


# - D: progress, and projects that are new -


def _origin(asking: Asking) -> Stage:
    return Sheet.of(asking).before(asking.item) if asking.item.startswith("p") else Stage.LEAD


def _reaches(stage: Stage) -> Callable[[Asking], bool]:
    """Does the row reach `stage` (and not by a letter of intent)?"""
    return lambda asking: stage in crossed(_origin(asking), asking.answers)


def _signs(asking: Asking) -> bool:
    said = {**asking.answers, "formal": None}
    return Stage.SIGNED in crossed(_origin(asking), said)


def _parse_day(stage: Stage) -> Callable[[str, Asking], str | Miss]:
    def parse(text: str, asking: Asking) -> str | Miss:
        day = parse_date(text, asking.today, "past")
        if isinstance(day, Miss):
            return day
        checked = reading.checked_day(day, Sheet.of(asking).last_day(asking.today))
        return checked if isinstance(checked, Miss) else _in_order(stage, checked, asking)

    return parse


def _in_order(stage: Stage, day: str, asking: Asking) -> str | Miss:
    """Stages are reached one after another."""
    known = {**Sheet.of(asking).reached(asking.item), **asking.answers}
    for earlier in DATES:
        before = known.get(DATES[earlier])
        if STAGE_ORDER.index(earlier) < STAGE_ORDER.index(stage) and before and before > day:
            return Miss(
                f"{stage_word(stage)}日期{day}早于{stage_word(earlier)}日期{before}，请核对后重发。"
            )
    return day


def _day_ask(stage: Stage, label: str) -> Ask:
    return Ask(
        label,
        lambda asking: f"{_row_title(asking)}{label}？如「3月18日」「昨天」。",
        parse=_parse_day(stage),
        echo=lambda value, asking: _day_echo(stage, value, asking),
        when=_reaches(stage),
    )


def _day_echo(stage: Stage, value: str, asking: Asking) -> str:
    waits = "" if stage is Stage.IN_TALKS else f"，{wording.WAITS}"
    return f"{stage_word(stage)}日期{value}{waits}。"


def _row_title(asking: Asking) -> str:
    if asking.item.startswith("p"):
        return f"{Sheet.of(asking).called(asking.item)} "
    return f"「{asking.get('called', '')}」"


def _parse_planned(text: str, asking: Asking) -> int | Miss:
    amounts = reading.planned_amounts(text)
    if amounts is None or isinstance(amounts, Miss):
        return amounts or Miss("请发计划总投资，单位万元，如「12000」或「1.2亿」。")
    planned = int(amounts.get("planned", 0))
    if not planned:
        return Miss("签约项目须有计划总投资，单位万元，如「12000」或「1.2亿」。")
    return reading.plan_miss(planned, asking.get("fixed")) or planned


def _parse_fixed(text: str, asking: Asking) -> int | Miss:
    amounts = reading.planned_amounts(f"固投{text}" if "固" not in text else text)
    if amounts is None or isinstance(amounts, Miss):
        return amounts or Miss("请发其中固定资产投资，单位万元，如「9500」；没有回「0」。")
    fixed = int(amounts.get("fixed", 0))
    return reading.plan_miss(asking.get("planned"), fixed) or fixed


def _parse_formal(text: str, _asking: Asking) -> bool | Miss:
    plain = tidy(text)
    if plain == "2" or re.search("意向|框架|备忘", plain):
        return False
    if plain == "1" or "正式" in plain:
        return True
    return Miss("请回「1」正式协议，或「2」意向、框架协议（不计签约）。")


def _formal_echo(value: bool, _asking: Asking) -> str:
    return "" if value else "签的是意向（框架）协议，只作记载，不计签约。"


def _huge(name: str) -> Callable[[Asking], bool]:
    return lambda asking: (asking.get(name) or 0) >= reading.HUNDRED_YI


def _parse_sure(text: str, _asking: Asking) -> bool | Miss:
    if tidy(text) in ("对", "是", "是的", "对的", "没错", "确认", "1"):
        return True
    return Miss("数没错请回「对」；错了请直接重报金额，带上单位，如「1.2亿」。")


class Steps(Form):
    """What reaching a stage asks for: days, amounts, and which kind of agreement it was."""

    to: Annotated[str, Ask("进展", "")] = ""
    talks_on: Annotated[str, _day_ask(Stage.IN_TALKS, "首次面谈日期")] = ""
    planned: Annotated[
        int,
        Ask(
            "计划总投资",
            lambda asking: (
                f"{_row_title(asking)}签约的计划总投资多少？其中固定资产多少？"
                "如「1.2亿 固投9500」。"
            ),
            parse=_parse_planned,
            echo=lambda value, _asking: f"计划总投资{show_money(value)}，",
            when=lambda asking: _signs(asking) or "planned" in asking.answers,
        ),
    ] = 0
    planned_sure: Annotated[
        bool,
        Ask(
            "金额复核",
            lambda asking: (
                f"计划总投资{show_money(asking.get('planned'))}，达到100亿元，"
                "对吗？回「对」，或重报。"
            ),
            parse=_parse_sure,
            when=_huge("planned"),
        ),
    ] = False
    fixed: Annotated[
        int,
        Ask(
            "固定资产投资",
            lambda asking: f"{_row_title(asking)}其中固定资产投资多少？单位万元。",
            parse=_parse_fixed,
            echo=lambda value, _asking: f"其中固定资产{show_money(value)}。",
            when=lambda asking: _signs(asking) or "fixed" in asking.answers,
        ),
    ] = 0
    formal: Annotated[
        bool,
        Ask(
            "协议类型",
            "签的是正式协议吗？1正式 2意向/框架（意向不计签约）",
            parse=_parse_formal,
            echo=_formal_echo,
            options=("正式", "意向/框架"),
            when=_signs,
        ),
    ] = False
    signed_on: Annotated[str, _day_ask(Stage.SIGNED, "签约日期")] = ""
    started_on: Annotated[str, _day_ask(Stage.STARTED, "开工日期")] = ""
    produced_on: Annotated[str, _day_ask(Stage.PRODUCED, "投产日期")] = ""

    @classmethod
    def amounts(cls, text: str, asked: str, asking: Asking) -> Answers | Miss | None:
        """Both amounts where either is asked for, or the planned total anew."""
        if asked not in ("planned", "planned_sure"):
            return None
        found = reading.planned_amounts(text)
        if isinstance(found, Miss):
            return found if asked == "planned" else None
        if asked == "planned_sure":
            return found
        return found if found and len(found) > 1 and found.get("planned") else None


def _progress_prompt(asking: Asking) -> str:
    sheet = Sheet.of(asking)
    project = sheet.project(asking.item)
    assert project is not None, "only projects of the ledger have progress rows"
    waiting = "（待确认）" if project.waiting else ""
    listed = " ".join(f"{n}{label}" for n, label in enumerate(_progress_options(asking), 1))
    head = ""
    if sheet.known[0].key == asking.item:
        head = (
            "【4/6 项目进展】没动的可回「都无变化」；"
            "有新谈、新签的回「新增 名称；投资方；日期」。\n"
        )
    return (
        f"{head}{sheet.titled(asking.item)}：目前“{stage_word(project.stage)}”{waiting}。{listed}"
    )


def _progress_options(asking: Asking) -> tuple[str, ...]:
    following = next_stages(_origin(asking))[:1]
    return ("无变化", *(f"已{stage_word(each)}" for each in following), "其他")


def read_progress(text: str, asking: Asking, *, numbered: bool) -> Answers | Miss | None:
    last = Sheet.of(asking).last_day(asking.today)
    row = reading.progress(text, _origin(asking), asking.today, last, numbered=numbered)
    if row is None or isinstance(row, Miss):
        return row
    for stage, name in DATES.items():
        if name in row:
            ordered = _in_order(
                stage,
                row[name],
                Asking(row, asking.facts, asking.today, asking.item, asking.parent),
            )
            if isinstance(ordered, Miss):
                return ordered
    return row


def _parse_progress(text: str, _asking: Asking) -> Miss:
    return Miss("请回选项前的数字，如「1」无变化；有进展可带日期，如「2 3月18日」。")


def _progress_echo(value: str, asking: Asking) -> str:
    if value in (NOTHING, NOTE):
        return ""
    return f"{_row_title(asking)}{stage_word(_origin(asking))}→{stage_word(value)}："


class ProgressRow(Steps, name="monthly_progress", label="项目进展"):
    """What one project of the ledger did in the month."""

    to: Annotated[
        str,
        Ask(
            "进展",
            _progress_prompt,
            parse=_parse_progress,
            echo=_progress_echo,
            options=_progress_options,
        ),
    ] = ""
    note: Annotated[
        str,
        Ask(
            "进展说明",
            lambda asking: f"{_row_title(asking)}本月有什么进展？一句话；暂缓、终止请写明原因。",
            parse=lambda text, _asking: (
                tidy(text) if len(tidy(text)) <= 200 else Miss("进展请控制在200字以内。")
            ),
            when=lambda asking: asking.get("to") == NOTE or "note" in asking.answers,
        ),
    ] = ""

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> Answers | Miss | None:
        """A stage with its day and amounts in one line."""
        if asked == "to":
            return read_progress(text, asking, numbered=True)
        return cls.amounts(text, asked, asking)


def project_keys(asking: Asking) -> list[str]:
    return [each.key for each in Sheet.of(asking).known]


def several_progress(text: str, asking: Asking) -> dict[str, Answers] | Miss | None:
    """`都无变化`, or lines that each begin with a project's code."""
    sheet = Sheet.of(asking)
    if re.fullmatch(
        r"(?:全部?|都|其他都|其余都|其它都)(?:是)?(?:没有?变化|无变化|没变|照旧)[了。]?", tidy(text)
    ):
        told = sheet.get("progress", {})
        return {
            each.key: {"to": NOTHING} for each in sheet.known if "to" not in told.get(each.key, {})
        }
    rows: dict[str, Answers] = {}
    for key, words in coded_lines(text, sheet):
        row = read_progress(words, in_row(asking, key), numbered=False)
        if row is None:
            called = sheet.called(key)
            return Miss(f"没看懂「{words}」，可写「{called} 无变化」或「{called} 开工 3月18日」。")
        if isinstance(row, Miss):
            return row
        rows[key] = row
    return rows or None


def in_row(asking: Asking, key: str) -> Asking:
    return Asking({}, asking.facts, asking.today, key, asking.answers)


def coded_lines(text: str, sheet: Sheet) -> list[tuple[str, str]]:
    """Lines that begin with a project's code or name, as key and rest; empty if one does not."""
    named = {name: key for key in sheet.project_keys() for name in _names(sheet, key)}
    found = []
    for line in filter(None, map(str.strip, re.split(r"[\n；;／]", tidy(text)))):
        name = max((n for n in named if line.upper().startswith(n)), key=len, default="")
        rest = line[len(name) :]
        if not name or (name[-1].isdigit() and rest[:1].isdigit()):
            return []
        found.append((named[name], rest.strip(" :：，,")))
    return [pair for pair in found if pair[1]]


def _names(sheet: Sheet, key: str) -> set[str]:
    return {name.upper() for name in (sheet.called(key), sheet.named(key)) if name}


class FreshRow(Steps, name="monthly_fresh_project", label="新增项目"):
    """A project that the ledger does not have yet: in talks since this month, or signed at once."""

    called: Annotated[str, Ask("名称", "新项目叫什么？")] = ""
    investor: Annotated[str, Ask("投资方", "投资方全称？")] = ""
    to: Annotated[str, Ask("阶段", "现在是在谈还是已签约？")] = ""
    note: Annotated[str, Ask("说明", "", when=lambda asking: "note" in asking.answers)] = ""

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> Answers | Miss | None:
        """A whole project in one line."""
        if asked == "fresh":
            return reading.fresh(text, asking.today, Sheet.of(asking).last_day(asking.today))
        return cls.amounts(text, asked, asking)


def fresh_lines(value: Mapping[str, Any], asking: Asking) -> str:
    sheet = Sheet.of(asking)
    return (
        "；".join(wording.project_line(sheet, key, wording.WAITS) for key, _ in sheet.fresh())
        or "无"
    )


# - F: funds -


def funded(asking: Asking) -> list[str]:
    return Sheet.of(asking).funded()


def _funds_prompt(asking: Asking) -> str:
    sheet = Sheet.of(asking)
    called = sheet.called(asking.item)
    if sheet.funded()[0] != asking.item:
        return f"{sheet.titled(asking.item)} 呢？没有回「0」。"
    return (
        f"【5/6 到位资金】{sheet.titled(asking.item)}本月到位多少万元？按“固投 其他”报，"
        f"如「{called} 1400 100」；没有回「0」。"
    )


def _parse_funds(text: str, asking: Asking) -> Answers | Miss:
    called = Sheet.of(asking).called(asking.item)
    found = reading.funds(text)
    return found or Miss(f"没看懂，请用数字报，如「{called} 固投1400 其他100」；没有回「0」。")


def _odd(asking: Asking) -> bool:
    """A single amount so large or so small that its unit may be wrong (K10)."""
    amount = asking.get("amount") or {}
    return any(
        each >= reading.HUNDRED_YI or 0 < each < reading.ONE_WAN
        for each in (amount.get("fixed", 0), amount.get("other", 0))
    )


def _odd_prompt(asking: Asking) -> str:
    amount = asking.get("amount")
    total = amount["fixed"] + amount["other"]
    return (
        f"{_row_title(asking)}到位{show_money(total)}，单位没有弄错吧？没错回「对」，错了请重报。"
    )


def _far_over(asking: Asking) -> bool:
    """More in place than 1.2 times the plan (K7, K8)."""
    sheet = Sheet.of(asking)
    rows = {**sheet.get("funds", {}), asking.item: asking.answers}
    told = Sheet({**sheet.answers, "funds": rows}, sheet.facts).funds(asking.item)
    return told is not None and told.total_yuan > 0 and sheet.excess(told) * 5 > 6


class FundsRow(Form, name="monthly_funds", label="到位资金"):
    """Funds in place of one project this month."""

    amount: Annotated[
        dict[str, int],
        Ask(
            "金额",
            _funds_prompt,
            parse=_parse_funds,
            echo=lambda value, asking: f"{_funds_echo(value, asking)}。",
            hint="佐证是选填，请先用数字报到位资金，如「固投1400 其他100」。",
        ),
    ] = Field(default_factory=dict)
    sure: Annotated[bool, Ask("复核", _odd_prompt, parse=_parse_sure, when=_odd)] = False
    note: Annotated[
        str,
        Ask(
            "超计划说明",
            lambda asking: f"{_row_title(asking)}累计到位超过计划的1.2倍，请写一句说明。",
            parse=lambda text, _asking: (
                tidy(text) if 2 <= len(tidy(text)) <= 200 else Miss("请写一句说明，200字以内。")
            ),
            when=_far_over,
        ),
    ] = ""

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> Answers | Miss | None:
        """An amount told anew where it was to be looked at again."""
        if asked != "sure":
            return None
        found = reading.funds(text)
        return found if found is None or isinstance(found, Miss) else {"amount": found}


def _funds_echo(value: Answers, asking: Asking) -> str:
    sheet = Sheet.of(asking)
    told = Funds(asking.item, value["fixed"], value["other"])
    return wording.funds_line(sheet, told)


def several_funds(text: str, asking: Asking) -> dict[str, Answers] | Miss | None:
    """`都没有`, or lines that each begin with a project's code; only signed projects count (K9)."""
    sheet = Sheet.of(asking)
    if re.fullmatch(
        r"(?:全部?|都|其他都|其余都)(?:是)?(?:没有?|无|0|零)(?:到位)?[了。]?", tidy(text)
    ):
        told = sheet.get("funds", {})
        keys = [key for key in sheet.funded() if "amount" not in told.get(key, {})]
        return {key: {"amount": {"fixed": 0, "other": 0}} for key in keys}
    rows: dict[str, Answers] = {}
    for key, words in coded_lines(text, sheet):
        found = reading.funds(words)
        if found is None:
            return Miss(f"没看懂「{words}」，请写成「{sheet.called(key)} 固投1400 其他100」。")
        if isinstance(found, Miss):
            return found
        if not is_signed(sheet.after(key)):
            return not_signed(sheet, key)
        rows[key] = {"amount": found}
    return rows or None


def not_signed(sheet: Sheet, key: str) -> Miss:
    return Miss(
        f"{sheet.titled(key)}目前“{stage_word(sheet.after(key))}”，签约以后才能报到位资金。"
        "已签约请先改进展，如「修改 " + sheet.called(key) + " 签约 3月20日 1.2亿 固投9500」。"
    )
