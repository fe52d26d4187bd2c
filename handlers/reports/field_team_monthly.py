"""The monthly report as a dialogue: its questions in order, each checked as it is answered."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from bot.context import Context
from bot.forms import Answers, Ask, Asking, Form
from bot.messages import Reply
from bot.normalize import Miss, parse_date, tidy
from handlers.deadlines import freeze
from handlers.forms.fields import parse_days, parse_money, show_days, show_money
from handlers.reports import filing, reading, wording
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

NEW_PROJECT = re.compile(r"新(?:增|谈|签)\S")
_OF_PROJECT = re.compile(r"(?:(?:改|修改)\s*)?([A-Za-z]+\d+)\s*[:：,，]?\s*(.+)", re.DOTALL)
BACKFILL_KEPT = timedelta(days=7)


# - A: days and leave -


def _days_prompt(asking: Asking) -> str:
    sheet = Sheet.of(asking)
    me = asking.facts["reporter"]
    names = "、".join("您" if each.name == me else each.name for each in sheet.members)
    example = " ".join(str(22 - at) for at in range(len(sheet.members)))
    return f"【1/6 驻点天数】{names}，{sheet.month_name}各驻点多少天？如「{example}」。"


def _parse_days(text: str, asking: Asking) -> dict[str, int] | Miss:
    sheet = Sheet.of(asking)
    nicknames = {each.nickname: each.name for each in sheet.members if each.nickname}
    names = [each.name for each in sheet.members]
    days = parse_days(text, names, nicknames, asking.facts["days"], asking.facts["reporter"])
    return days if isinstance(days, Miss) else _with_leave(days, sheet)


def _with_leave(days: dict[str, int], sheet: Sheet) -> dict[str, int] | Miss:
    """Days and leave together fit into the month (K4)."""
    for member in sheet.members:
        away = (sheet.get("leave", {}).get(member.key, {}).get("away") or {}).get("half_days", 0)
        if days[member.name] + away > sheet.facts["days"] * 2 and days[member.name] < sheet.minimum:
            return Miss(
                f"{member.name}驻点{show_days(days[member.name])}加请假{show_days(away)}"
                f"超过了当月{sheet.facts['days']}天，请更正。"
            )
    return days


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


def _several_leaves(text: str, asking: Asking) -> dict[str, Answers] | Miss | None:
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


def _lead_echo(row: Answers, asking: Asking) -> str:
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


def _read_progress(text: str, asking: Asking, *, numbered: bool) -> Answers | Miss | None:
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
            return _read_progress(text, asking, numbered=True)
        return cls.amounts(text, asked, asking)


def _project_keys(asking: Asking) -> list[str]:
    return [each.key for each in Sheet.of(asking).known]


def _several_progress(text: str, asking: Asking) -> dict[str, Answers] | Miss | None:
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
    for key, words in _coded_lines(text, sheet):
        row = _read_progress(words, _in_row(asking, key), numbered=False)
        if row is None:
            called = sheet.called(key)
            return Miss(f"没看懂「{words}」，可写「{called} 无变化」或「{called} 开工 3月18日」。")
        if isinstance(row, Miss):
            return row
        rows[key] = row
    return rows or None


def _in_row(asking: Asking, key: str) -> Asking:
    return Asking({}, asking.facts, asking.today, key, asking.answers)


def _coded_lines(text: str, sheet: Sheet) -> list[tuple[str, str]]:
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


def _fresh_lines(value: Mapping[str, Any], asking: Asking) -> str:
    sheet = Sheet.of(asking)
    return "；".join(wording.project_line(sheet, key) for key, _ in sheet.fresh()) or "无"


# - F: funds -


def _funded(asking: Asking) -> list[str]:
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


def _several_funds(text: str, asking: Asking) -> dict[str, Answers] | Miss | None:
    """`都没有`, or lines that each begin with a project's code; only signed projects count (K9)."""
    sheet = Sheet.of(asking)
    if re.fullmatch(
        r"(?:全部?|都|其他都|其余都)(?:是)?(?:没有?|无|0|零)(?:到位)?[了。]?", tidy(text)
    ):
        told = sheet.get("funds", {})
        keys = [key for key in sheet.funded() if "amount" not in told.get(key, {})]
        return {key: {"amount": {"fixed": 0, "other": 0}} for key in keys}
    rows: dict[str, Answers] = {}
    for key, words in _coded_lines(text, sheet):
        found = reading.funds(words)
        if found is None:
            return Miss(f"没看懂「{words}」，请写成「{sheet.called(key)} 固投1400 其他100」。")
        if isinstance(found, Miss):
            return found
        if not is_signed(sheet.after(key)):
            return _not_signed(sheet, key)
        rows[key] = {"amount": found}
    return rows or None


def _not_signed(sheet: Sheet, key: str) -> Miss:
    return Miss(
        f"{sheet.titled(key)}目前“{stage_word(sheet.after(key))}”，签约以后才能报到位资金。"
        "已签约请先改进展，如「修改 " + sheet.called(key) + " 签约 3月20日 1.2亿 固投9500」。"
    )


# - the whole form -


def _inbound_prompt(_asking: Asking) -> str:
    return "引荐客商来考察几批几人？如「1批6人」，没有回「0」。"


def _parse_visits(text: str, asking: Asking) -> int | Miss:
    number = reading.counted(text, 300, "家次")
    if isinstance(number, Miss):
        return number
    return reading.key_visits(number, asking.get("visits_key")) or number


def _parse_key_visits(text: str, asking: Asking) -> int | Miss:
    number = reading.counted(text.removeprefix("重点"), 300, "家次")
    if isinstance(number, Miss):
        return number
    return reading.key_visits(asking.get("visits"), number) or number


def _at_most_500(text: str, _asking: Asking) -> str | Miss:
    plain = tidy(text)
    return plain if len(plain) <= 500 else Miss(f"请控制在500字以内，现有{len(plain)}字。")


class MonthlyReport(Form, name="monthly_report", label="月报"):
    """What a field team did in a month (requirements §3.1)."""

    finish = "提交"

    days: Annotated[
        dict[str, int],
        Ask(
            "驻点天数",
            _days_prompt,
            parse=_parse_days,
            show=lambda value, asking: wording.days_line(_with(asking, days=value)),
            echo=lambda value, asking: f"{wording.days_line(_with(asking, days=value))}。",
        ),
    ]
    leave: Annotated[
        dict[str, Any],
        Ask(
            "请假事由",
            "",
            rows=Leave,
            each=lambda asking: Sheet.of(asking).short(),
            bulk=_several_leaves,
            show=lambda _value, asking: wording.leave_line(Sheet.of(asking)),
        ),
    ] = Field(default_factory=dict)
    visits: Annotated[
        int,
        Ask(
            "走访",
            "【2/6 走访】走访企业几家？其中重点企业几家？如「18 重点4」；"
            "走访了商协会、知名人士的可接着写「商协会2 知名人士3」。",
            parse=_parse_visits,
            show=lambda value, _asking: f"{value}家",
        ),
    ]
    visits_key: Annotated[
        int,
        Ask(
            "重点企业",
            "其中重点企业（500强、上市、链主）几家？没有回「0」。",
            parse=_parse_key_visits,
            show=lambda value, _asking: f"{value}家",
        ),
    ]
    also: Annotated[
        dict[str, int] | None,
        Ask(
            "商协会与知名人士",
            "走访商协会几家、拜访知名人士几人次？选填，如「商协会2 知名人士3」，没有回「跳过」。",
            parse=lambda text, _asking: reading.also_visited(text),
            show=lambda value, _asking: wording.also_line(value),
            optional=True,
        ),
    ] = None
    leads: Annotated[
        dict[str, Any],
        Ask(
            "新增线索",
            "【3/6 新增线索】几条？逐条发「名称；投资方；内容；投资额」。没有回「0」。",
            rows=LeadRow,
            echo=_lead_echo,
            show=lambda _value, asking: _leads_shown(Sheet.of(asking)),
        ),
    ]
    fresh: Annotated[
        dict[str, Any],
        Ask(
            "新增在谈",
            "【4/6 项目进展】本月有新谈、新签的项目吗？逐条发「名称；投资方；首次面谈日期」，"
            "已签约的写「名称；投资方；签约 日期；1.2亿 固投9500」。没有回「没有」。",
            rows=FreshRow,
            echo=lambda row, _asking: f"新增项目「{row['called']}」，{row.get('investor', '')}。",
            show=_fresh_lines,
            when=lambda asking: (
                not asking.facts["projects"] or bool(asking.get("fresh", {}).get("rows"))
            ),
        ),
    ] = Field(default_factory=dict)
    progress: Annotated[
        dict[str, Any],
        Ask(
            "项目进展",
            "",
            rows=ProgressRow,
            each=_project_keys,
            bulk=_several_progress,
            show=lambda _value, asking: "；".join(
                wording.project_line(Sheet.of(asking), key) for key in _project_keys(asking)
            ),
        ),
    ] = Field(default_factory=dict)
    funds: Annotated[
        dict[str, Any],
        Ask(
            "到位资金",
            "",
            rows=FundsRow,
            each=_funded,
            bulk=_several_funds,
            show=lambda _value, asking: _funds_shown(Sheet.of(asking)),
        ),
    ] = Field(default_factory=dict)
    promos: Annotated[
        int,
        Ask(
            "推介活动",
            "【6/6 其他】推介活动几场？引荐来考察几批几人？问题与下月打算各说一句，"
            "如「推介1 考察1批6人 问题用地紧 下月盯开工」；也可以一项一项回，先回推介几场。",
            parse=lambda text, _asking: reading.counted(text.removeprefix("推介"), 60, "场"),
            show=lambda value, _asking: f"{value}场",
        ),
    ]
    inbound: Annotated[
        dict[str, int],
        Ask(
            "引荐考察",
            _inbound_prompt,
            parse=lambda text, _asking: reading.inbound(text),
            show=lambda value, _asking: wording.inbound_line(value),
        ),
    ]
    problems: Annotated[
        str | None,
        Ask("问题与建议", "有什么问题与建议？没有回「跳过」。", parse=_at_most_500, optional=True),
    ] = None
    plan: Annotated[str, Ask("下月打算", "下月有什么打算？一两句即可。", parse=_at_most_500)]

    @classmethod
    def extract(cls, text: str, asked: str, asking: Asking) -> Answers | Miss | None:
        """Visits in one message, and the last questions in one message."""
        if asked in ("visits", "visits_key"):
            found = reading.visits(text, asking.answers)
            # A lone number was an answer to the question, and has been refused as such.
            alone = isinstance(found, dict) and found.keys() == {"visits"}
            return None if alone and asked == "visits_key" else found
        if asked in ("promos", "inbound", "problems", "plan"):
            return reading.outcomes(text)
        return None

    @classmethod
    def interject(cls, text: str, asking: Asking) -> tuple[Answers, str] | Miss | None:
        """`新增 名称；投资方；…` and `修改 P01 …`, at any question."""
        if NEW_PROJECT.match(tidy(text).replace(" ", "")) and re.search(r"[；;]|\s", text):
            return _add_project(text, asking)
        if re.match(r"(?:改|修改)\s", tidy(text)):
            return _revise_project(tidy(text), asking)
        return None

    @classmethod
    def claims(cls, text: str) -> bool:
        """The last word is the report's own while it is open."""
        return text == cls.finish

    @classmethod
    def remarks(cls, asking: Asking) -> Sequence[str]:
        """The warnings of §3.2."""
        return list(wording.warnings(Sheet.of(asking)))

    @classmethod
    def review(cls, asking: Asking, lines: Sequence[tuple[str, str]]) -> str:
        """The whole report on one card."""
        sheet = Sheet.of(asking)
        listed = "\n".join(f"{n}. {label}：{value}" for n, (label, value) in enumerate(lines, 1))
        number = filing.number_of(sheet, asking.facts["version"]).rpartition("-")[0]
        team = sheet.facts["team"]["name"]
        return (
            f"【汇总预览】{team} {sheet.month_name}月报（{number}）\n{listed}\n"
            "直接改一项可回「修改 走访 19」或「修改 P01 固投1400 其他100」。"
        )

    @classmethod
    def deadline(cls, facts: Mapping[str, Any], now: datetime) -> datetime:
        """A draft lives until its month is frozen."""
        frozen = freeze(Sheet({}, facts).month)
        return frozen if now < frozen else now + BACKFILL_KEPT

    @classmethod
    def cancelled(cls, asking: Asking) -> str:
        """What is said to 取消."""
        return f"已取消，{Sheet.of(asking).month_name}{cls.label}没有提交。重新填请回「月报」。"

    def submit(self, context: Context) -> Reply:
        """Files it; a member's report goes to the leader first."""
        return filing.submit(context, Sheet(self.model_dump(), self.began_with))


def _with(asking: Asking, **answers: Any) -> Sheet:
    return Sheet({**asking.answers, **answers}, asking.facts)


def _leads_shown(sheet: Sheet) -> str:
    lines = wording.leads_lines(sheet)
    return f"{len(lines)}条" + (f"（{'；'.join(lines)}）" if lines else "")


def _funds_shown(sheet: Sheet) -> str:
    listed = "；".join(wording.funds_line(sheet, told) for told in sheet.all_funds())
    return f"合计{show_money(wording.funds_total(sheet))}（{listed}）" if listed else "无"


def _add_project(text: str, asking: Asking) -> tuple[Answers, str] | Miss:
    row = reading.fresh(text, asking.today, Sheet.of(asking).last_day(asking.today))
    if row is None or isinstance(row, Miss):
        return row or Miss("没看懂，请写成「新增 名称；投资方；首次面谈日期」。")
    box = asking.get("fresh", {})
    rows = [*box.get("rows", ()), row]
    closed = bool(asking.facts["projects"]) or bool(box.get("closed"))
    said = f"已记下新增项目「{row['called']}」，{row['investor']}。"
    return {"fresh": {"rows": rows, "closed": closed}}, said


def _revise_project(text: str, asking: Asking) -> tuple[Answers, str] | Miss | None:
    """`修改 P01 固投1400 其他50`, `修改 P02 签约 3月20日 1.2亿 固投9500`."""
    sheet = Sheet.of(asking)
    lines = _coded_lines(re.sub(r"^(?:改|修改)\s*", "", text), sheet)
    if len(lines) != 1:
        return None
    key, words = lines[0]
    return revised(sheet, key, words, _in_row(asking, key))


def revised(
    sheet: Sheet, key: str, words: str, asking: Asking
) -> tuple[Answers, str] | Miss | None:
    """Answers that say something new of one project's funds or progress, and what to say to it."""
    told = sheet.funds(key)
    before = {"fixed": told.fixed_yuan, "other": told.other_yuan} if told else None
    moves = key.startswith("p") and re.search(r"签|开工|动工|投产|面谈|变化|进展", words)
    found = None if moves else reading.funds(words, before)
    if isinstance(found, Miss):
        return found
    if found is not None:
        if not is_signed(sheet.after(key)):
            return _not_signed(sheet, key)
        row = {"amount": found}
        said = wording.funds_line(sheet, Funds(key, found["fixed"], found["other"]))
        return _table(sheet, "funds", key, row), f"已改：{said}。"
    if not key.startswith("p"):
        return None
    progress = _read_progress(words, asking, numbered=False)
    if progress is None or isinstance(progress, Miss):
        return progress
    return _table(sheet, "progress", key, progress), f"已改：{sheet.called(key)}进展。"


def _table(sheet: Sheet, name: str, key: str, row: Answers) -> Answers:
    """The whole table with one row told anew."""
    return {name: {**sheet.get(name, {}), key: row}}
