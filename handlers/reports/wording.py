"""How a report reads: its sections, its warnings, and what a correction changes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from bot.forms import Answers
from handlers.forms.fields import show_days, show_money
from handlers.rankings import needs_sponsor
from handlers.reports.reading import HUNDRED_YI, ONE_WAN, plain_wan, wan_words
from handlers.reports.sheet import NOTE, NOTHING, Funds, Member, Move, Sheet, stage_word
from storage.reports import Stage

WAITS = "待统筹员确认"
LEAD_MORE = {"needs": "要素需求", "source": "来源", "contact": "联系人", "next_step": "下一步"}


# - single lines, shared by the dialogue's review and the filed text -


def days_line(sheet: Sheet) -> str:
    """`张某22天、王某19.5天`."""
    return "、".join(sheet.shown_day(each) for each in sheet.members)


def leave_line(sheet: Sheet) -> str:
    """`王某差0.5天：回县里开会了`."""
    return "；".join(_leave(sheet, sheet.member(key)) for key in sheet.short()) or "无"


def _leave(sheet: Sheet, member: Member) -> str:
    leave = sheet.leave(member.key).get("away") or {}
    away = f"（{show_days(leave['half_days'])}）" if leave.get("half_days") else ""
    return f"{member.name}差{sheet.lacking(member)}：{leave.get('reason', '未写事由')}{away}"


def also_line(also: Mapping[str, int] | None) -> str:
    """`商协会2家，知名人士3人次`."""
    words = {"chambers": ("商协会", "家"), "notables": ("知名人士", "人次")}
    said = [f"{words[name][0]}{number}{words[name][1]}" for name, number in (also or {}).items()]
    return "，".join(said) or "未填"


def lead_line(number: str, row: Answers) -> str:
    """`线索1：项目丁（速冻玉米），某食品公司，8000万元（0.8亿元）`."""
    content = f"（{row['content']}）" if row.get("content") else ""
    planned = row.get("planned")
    amount = "金额未定" if not planned else show_money(planned)
    parts = [f"{number}：{row['called']}{content}", row.get("investor") or "", amount]
    more = [
        ("needs", "要素需求"),
        ("source", "来源"),
        ("contact", "联系人"),
        ("next_step", "下一步"),
    ]
    parts += [f"{label}{row[name]}" for name, label in more if row.get(name)]
    return "，".join(part for part in parts if part)


def leads_lines(sheet: Sheet, numbers: Sequence[str] = ()) -> list[str]:
    """One line a lead, under its number once it has one."""
    rows = sheet.get("leads", {}).get("rows", ())
    return [
        lead_line(numbers[at] if at < len(numbers) else f"线索{at + 1}", row)
        for at, row in enumerate(rows)
    ]


def move_line(move: Move, waits: str = "") -> str:
    """`签约→开工，2026-03-18`, and whose word it `waits` for."""
    words = [f"{stage_word(move.origin)}→{stage_word(move.stage)}"]
    if move.origin is Stage.LEAD and move.stage is Stage.IN_TALKS:
        words = ["新增在谈"]
    words.append(move.on.isoformat())
    if move.stage is Stage.SIGNED:
        words.append(signing_line(move.planned_yuan or 0, move.fixed_yuan or 0))
    if move.note:
        words.append(move.note)
    if waits and move.stage is not Stage.IN_TALKS:
        words.append(waits)
    return "，".join(words)


def signing_line(planned_yuan: int, fixed_yuan: int) -> str:
    """`计划总投资12000万元（1.2亿元），其中固定资产9500万元（0.95亿元）`, and who must sponsor."""
    words = f"计划总投资{show_money(planned_yuan)}，其中固定资产{show_money(fixed_yuan)}"
    return f"{words}，达1亿元须安排领导包联" if needs_sponsor(fixed_yuan) else words


def project_line(sheet: Sheet, key: str, waits: str = "") -> str:
    """`P01 项目甲：无变化`: what a project did in the month."""
    return f"{sheet.titled(key)}：{project_words(sheet, key, waits)}"


def project_words(sheet: Sheet, key: str, waits: str = "") -> str:
    """What a project did in the month, without its name."""
    row = sheet.row(key)
    said = [move_line(move, waits) for move in sheet.moves(key)]
    if row.get("formal") is False:
        said.append("签了意向（框架）协议，不计签约")
    if row.get("to") == NOTE and row.get("note"):
        said.append(row["note"])
    if row.get("to") == NOTHING:
        said.append("无变化")
    if not said and row.get("planned"):
        said.append(f"计划总投资{show_money(row['planned'])}")
    return "；".join(said) or "未填"


def funds_line(sheet: Sheet, told: Funds, title: str = "") -> str:
    """`P01 本月到位1500万元（0.15亿元），其中固投1400、其他100`."""
    name = title or sheet.called(told.key)
    if not told.total_yuan:
        return f"{name} 本月无到位资金"
    split = f"固投{plain_wan(told.fixed_yuan)}、其他{plain_wan(told.other_yuan)}"
    note = f"（{told.note}）" if told.note else ""
    return f"{name} 本月到位{show_money(told.total_yuan)}，其中{split}{note}"


def funds_total(sheet: Sheet) -> int:
    """All funds in place of the month (元)."""
    return sum(each.total_yuan for each in sheet.all_funds())


def inbound_line(inbound: Mapping[str, int]) -> str:
    """`1批6人`."""
    return f"{inbound['batches']}批{inbound['people']}人" if inbound["batches"] else "0批"


# - warnings of §3.2 -


def warnings(sheet: Sheet) -> Iterator[str]:
    """What does not keep a report back but should be looked at once more (K3, K7, K8, K10)."""
    if sheet.get("days") and sheet.on_post() < 2:
        yield "在岗不足2人。"
    for told in sheet.all_funds():
        if told.total_yuan and sheet.excess(told) > 1:
            yield f"{sheet.called(told.key)}累计到位已超过计划，请核对单位和计划总投资。"
    for row in sheet.get("leads", {}).get("rows", ()):
        planned = row.get("planned") or 0
        if planned >= HUNDRED_YI or 0 < planned < ONE_WAN:
            yield f"线索「{row['called']}」投资额{show_money(planned)}，请核对单位。"


# - the whole -


@dataclass(frozen=True, slots=True)
class Titles:
    """What is only known when a report is filed: its number, and those of its leads."""

    number: str
    as_of: date
    filer: str
    leads: Sequence[str] = ()


def report_text(sheet: Sheet, titles: Titles) -> str:
    """The report as both receivers get it and as it is hashed."""
    team = sheet.facts["team"]
    month = sheet.month
    nearby = f"（周边{team['nearby']}）" if team["nearby"] else ""
    lines = [
        f"{team['name']}{month.year}年{month.number}月月报　{titles.number}",
        f"派出单位：{team['unit']}；中心城市：{team['center']}{nearby}；"
        f"截至{titles.as_of.isoformat()}；填报人：{titles.filer or '未登记姓名'}",
        f"一、驻点天数：{days_line(sheet)}",
    ]
    if sheet.short():
        lines.append(f"　　{leave_line(sheet)}")
    also = also_line(sheet.get("also"))
    lines.append(
        f"二、走访企业{sheet.get('visits', 0)}家次，其中重点{sheet.get('visits_key', 0)}家次"
        + ("" if also == "未填" else f"；{also}")
    )
    leads = leads_lines(sheet, titles.leads)
    lines += [f"三、新增线索{len(leads)}条", *(f"　　{each}" for each in leads)]
    lines += ["四、项目进展（阶段变更以统筹员确认为准）", *_projects(sheet)]
    lines += [f"五、到位资金：合计{show_money(funds_total(sheet))}", *_funds(sheet)]
    lines.append(
        f"六、推介活动{sheet.get('promos', 0)}场；"
        f"引荐考察{inbound_line(sheet.get('inbound', {'batches': 0, 'people': 0}))}"
    )
    lines.append(f"七、问题与建议：{sheet.get('problems', '无')}")
    lines.append(f"八、下月打算：{sheet.get('plan', '未填')}")
    return "\n".join(lines)


def _projects(sheet: Sheet) -> list[str]:
    lines = [f"　　{project_line(sheet, key)}" for key in sheet.project_keys()]
    return lines or ["　　无在跟项目"]


def _funds(sheet: Sheet) -> list[str]:
    return [
        f"　　{funds_line(sheet, told, sheet.titled(told.key))}"
        for told in sheet.all_funds()
        if told.total_yuan
    ]


def changes(before: Sheet, after: Sheet) -> list[str]:
    """What a correction changes, a line each: `P01 其他 100→50，合计1500→1450`."""
    found = [
        f"{label} {old}→{new}"
        for (label, old), (_, new) in zip(_lines(before), _lines(after), strict=True)
        if old != new
    ]
    return found + _projects_changes(before, after) + _funds_changes(before, after)


def _projects_changes(before: Sheet, after: Sheet) -> list[str]:
    """By name, for new projects have no keys that last."""
    old, new = (
        {sheet.titled(key): project_words(sheet, key) for key in sheet.project_keys()}
        for sheet in (before, after)
    )
    return [
        f"{title}“{old.get(title, '无')}”→“{new.get(title, '无')}”"
        for title in dict.fromkeys([*old, *new])
        if old.get(title) != new.get(title)
    ]


def _lines(sheet: Sheet) -> list[tuple[str, str]]:
    inbound = sheet.get("inbound", {"batches": 0, "people": 0})
    return [
        ("驻点天数", days_line(sheet)),
        ("请假事由", leave_line(sheet)),
        ("走访", str(sheet.get("visits", 0))),
        ("重点企业", str(sheet.get("visits_key", 0))),
        ("商协会与知名人士", also_line(sheet.get("also"))),
        ("新增线索", "；".join(leads_lines(sheet)) or "无"),
        ("推介活动", f"{sheet.get('promos', 0)}场"),
        ("引荐考察", inbound_line(inbound)),
        ("问题与建议", str(sheet.get("problems", "无"))),
        ("下月打算", str(sheet.get("plan", "无"))),
    ]


def _funds_changes(before: Sheet, after: Sheet) -> list[str]:
    found = []
    for key in dict.fromkeys([*before.funded(), *after.funded()]):
        none = Funds(key, 0, 0)
        old, new = before.funds(key) or none, after.funds(key) or none
        parts = [
            f"{label} {plain_wan(was)}→{plain_wan(now)}"
            for label, was, now in (
                ("固投", old.fixed_yuan, new.fixed_yuan),
                ("其他", old.other_yuan, new.other_yuan),
            )
            if was != now
        ]
        if parts:
            total = f"合计{plain_wan(old.total_yuan)}→{plain_wan(new.total_yuan)}"
            found.append(f"{after.called(key)} {'、'.join(parts)}，{total}（万元）")
        elif old.note != new.note:
            found.append(f"{after.called(key)} 到位说明 {old.note or '无'}→{new.note}")
    if found:
        was, now = funds_total(before), funds_total(after)
        if len(found) > 1:
            found.append(f"到位资金合计 {wan_words(was)}→{wan_words(now)}")
    return found
