"""The monthly report as a dialogue: its questions in order, each checked as it is answered."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from bot.context import Context
from bot.forms import Answers, Ask, Asking, Form
from bot.messages import Reply
from bot.normalize import Miss, tidy
from handlers.deadlines import freeze
from handlers.forms.fields import parse_days, show_days, show_money
from handlers.reports import filing, reading, wording
from handlers.reports.rows import (
    FreshRow,
    FundsRow,
    LeadRow,
    Leave,
    ProgressRow,
    coded_lines,
    fresh_lines,
    funded,
    in_row,
    lead_echo,
    not_signed,
    project_keys,
    read_progress,
    several_funds,
    several_leaves,
    several_progress,
)
from handlers.reports.sheet import (
    Funds,
    Sheet,
    is_signed,
)

NEW_PROJECT = re.compile(r"新(?:增|谈|签)\S")
BACKFILL_KEPT = timedelta(days=7)


# - days -


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
            bulk=several_leaves,
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
            echo=lead_echo,
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
            show=fresh_lines,
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
            each=project_keys,
            bulk=several_progress,
            show=lambda _value, asking: "；".join(
                wording.project_line(Sheet.of(asking), key, wording.WAITS)
                for key in project_keys(asking)
            ),
        ),
    ] = Field(default_factory=dict)
    funds: Annotated[
        dict[str, Any],
        Ask(
            "到位资金",
            "",
            rows=FundsRow,
            each=funded,
            bulk=several_funds,
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
    lines = coded_lines(re.sub(r"^(?:改|修改)\s*", "", text), sheet)
    if len(lines) != 1:
        return None
    key, words = lines[0]
    return revised(sheet, key, words, in_row(asking, key))


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
            return not_signed(sheet, key)
        row = {"amount": found}
        said = wording.funds_line(sheet, Funds(key, found["fixed"], found["other"]))
        return _table(sheet, "funds", key, row), f"已改：{said}。"
    if not key.startswith("p"):
        return None
    progress = read_progress(words, asking, numbered=False)
    if progress is None or isinstance(progress, Miss):
        return progress
    return _table(sheet, "progress", key, progress), f"已改：{sheet.called(key)}进展。"


def _table(sheet: Sheet, name: str, key: str, row: Answers) -> Answers:
    """The whole table with one row told anew."""
    return {name: {**sheet.get(name, {}), key: row}}
