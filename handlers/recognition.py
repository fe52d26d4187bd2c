"""Coordinators recognise reported funds, project by project, on the evidence they have seen."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated

from sqlmodel import Session, col, select

from bot.commands import Approvable, command
from bot.context import Context
from bot.errors import UserError
from bot.forms import Ask, Asking, Form
from bot.messages import Reply, say
from bot.normalize import Miss, read_integer, tidy
from bot.text import content_hash
from handlers.approvals import request, void
from handlers.bulletin import WAN_YUAN, in_wan, two_places
from handlers.forms.fields import parse_money
from handlers.ledger import FundsEntry, funds_entries, month_ended, parse_month
from handlers.periods import Month
from handlers.place import here
from handlers.purposes import DUTY
from handlers.roles import Role, leaders_of
from storage.approvals import Approval, ApprovalState
from storage.reports import ChangeState, Project, Recognition

BASES = ("验资报告", "银行进账", "设备清单与发票", "工程款", "统计入库")
KIND = "recognition"
_CODE = re.compile(r"[A-Za-z]+-?\d+")
_MONTH = re.compile(r"(?:\d{4}年)?[0-9一二三四五六七八九十]{1,2}月|\d{4}-\d{2}")
_PART = re.compile(r"(固投|其他)(\S+)")
_EXAMPLE = "「认定 P03 3月 450 依据 银行进账 理由 150无凭证」"


@dataclass(frozen=True)
class Word:
    """What a coordinator said: a project (or all) of a month, amounts in 元, basis and reason."""

    code: str
    month: Month
    total_yuan: int | None = None
    fixed_yuan: int | None = None
    other_yuan: int | None = None
    basis: str = ""
    reason: str = ""


def open_entries(context: Context, month: Month | None) -> list[FundsEntry]:
    """Reported funds nobody recognised yet, of a month or of the year, by project code."""
    year = month.year if month else month_ended(context.today).year
    years = {year, context.today.year} if month is None else {year}
    entries = [
        each
        for number in sorted(years)
        for each in funds_entries(context.session, number, context.now)
        if each.superseded_at is None and each.reported_yuan and each.recognition is None
    ]
    kept = [each for each in entries if month is None or each.month == month]
    return sorted(kept, key=lambda each: (each.month, each.project.code))


@command(
    "认定",
    help="认定：看待认定的到位资金；认定 P03 3月 450 依据 银行进账",
    section="统筹",
    roles=(Role.COORDINATOR,),
    feature="monthly_reports",
)
def recognise(context: Context, argument: str) -> Reply:
    """List what waits, or recognise one amount, or all of a month as reported."""
    said = tidy(argument)
    if not said or _MONTH.fullmatch(said):
        return _waiting(context, parse_month(said, context.today) if said else None)
    word = _read(said, context)
    if word.code == "全部":
        return _recognise_all(context, word)
    entry = _entry(context, word)
    fixed_yuan, other_yuan = _split(entry, word)
    lacking = entry.reported_yuan - fixed_yuan - other_yuan
    if word.basis and (word.reason or not lacking):
        return _recognise_one(context, entry, word)
    answers = {"what": said.partition("依据")[0].partition("理由")[0].strip()}
    answers |= {"basis": word.basis} if word.basis else {}
    answers |= {"reason": word.reason} if word.reason else {}
    return context.begin(RecognitionForm, {"lacking": lacking}, answers, _reported_words(entry))


def _waiting(context: Context, month: Month | None) -> Reply:
    entries = open_entries(context, month)
    when = f"{month.number}月" if month else ""
    if not entries:
        return say(f"{when}没有待认定的到位资金。")
    lines = [
        f"{_reported_words(each)}{'（待第二人审批）' if each.pending else ''}" for each in entries
    ]
    first = entries[0]
    return say(
        f"{when}待认定的到位资金：\n"
        + "\n".join(lines)
        + f"\n逐项回「认定 {first.project.code} {first.month.number}月 "
        f"{two_places(Fraction(first.reported_yuan, WAN_YUAN))} 依据 银行进账」，"
        f"或「认定 {first.month.number}月 全部 依据 银行进账」。"
    )


def _reported_words(entry: FundsEntry) -> str:
    return (
        f"{entry.project.code} {entry.project.name} {entry.month.number}月："
        f"上报{in_wan(entry.reported_yuan)}"
        f"（固投{in_wan(entry.fixed_yuan)}，其他{in_wan(entry.other_yuan)}）"
    )


# - reading what was said -


def _read(said: str, context: Context) -> Word:
    """Take `P03 3月 固投450 其他0 依据 银行进账 理由 …` apart; raises UserError."""
    head, _, reason = said.partition("理由")
    head, _, basis = head.partition("依据")
    code, month, total = "", None, None
    parts: dict[str, int] = {}
    for piece in head.split():
        if piece == "全部":
            code = piece
        elif _MONTH.fullmatch(piece):
            month = parse_month(piece, context.today)
        elif found := _PART.fullmatch(piece):
            parts[found[1]] = _money(found[2])
        elif _CODE.fullmatch(piece) and not code:
            code = piece.upper()
        else:
            total = _money(piece)
    if not code or month is None:
        raise UserError(f"请写明项目编号和月份，如{_EXAMPLE}。")
    return Word(
        code,
        month,
        total,
        parts.get("固投"),
        parts.get("其他"),
        _basis(basis.strip(" ：:")) if basis.strip(" ：:") else "",
        reason.strip(" ：:"),
    )


def _money(text: str) -> int:
    yuan = parse_money(text)
    if isinstance(yuan, Miss):
        raise UserError(yuan.text)
    return yuan


def _basis(text: str) -> str:
    """The basis of §3.3 that was meant, by name, part of a name or number; raises UserError."""
    number = read_integer(text)
    if number is not None and 1 <= number <= len(BASES):
        return BASES[number - 1]
    found = [each for each in BASES if text in each or each in text]
    if len(found) != 1:
        raise UserError(f"依据请从{'、'.join(BASES)}中选一种。")
    return found[0]


def _entry(context: Context, word: Word) -> FundsEntry:
    project = context.session.exec(select(Project).where(Project.code == word.code)).first()
    if project is None:
        raise UserError(f"台账里没有 {word.code}。回「认定」看待认定的清单。")
    for each in funds_entries(context.session, word.month.year, context.now):
        same = (each.project.code, each.month) == (word.code, word.month)
        if same and each.superseded_at is None and each.reported_yuan:
            return each
    raise UserError(f"{word.code} {word.month.number}月没有上报到位资金，无从认定。")


def _split(entry: FundsEntry, word: Word) -> tuple[int, int]:
    """Fixed assets and other, never more than reported; raises UserError."""
    if word.fixed_yuan is not None or word.other_yuan is not None:
        fixed_yuan, other_yuan = word.fixed_yuan or 0, word.other_yuan or 0
        if word.total_yuan not in (None, fixed_yuan + other_yuan):
            raise UserError(
                f"固投与其他合计{in_wan(fixed_yuan + other_yuan)}，"
                f"与{in_wan(word.total_yuan or 0)}不符，请核对。"
            )
    elif word.total_yuan is None or word.total_yuan == entry.reported_yuan:
        return entry.fixed_yuan, entry.other_yuan
    elif not entry.other_yuan:
        fixed_yuan, other_yuan = word.total_yuan, 0
    elif not entry.fixed_yuan:
        fixed_yuan, other_yuan = 0, word.total_yuan
    else:
        raise UserError(
            f"{_reported_words(entry)}。请分开写认定数，"
            f"如「认定 {word.code} {word.month.number}月 固投… 其他…」。"
        )
    for label, given, reported in (
        ("固投", fixed_yuan, entry.fixed_yuan),
        ("其他", other_yuan, entry.other_yuan),
    ):
        if given > reported:
            raise UserError(
                f"{label}认定{in_wan(given)}，多于上报的{in_wan(reported)}；认定数不能超过上报数。"
            )
    return fixed_yuan, other_yuan


# - asking what is still missing -


def _parse_basis(text: str, _asking: Asking) -> str | Miss:
    try:
        return _basis(text)
    except UserError as error:
        return Miss(str(error))


class RecognitionForm(Form, name="recognition", label="认定"):
    """Asks for the basis, and for the reason where less is recognised than was reported."""

    finish = None

    what: Annotated[str, Ask("认定数", f"认定哪个项目哪个月多少？如{_EXAMPLE}")]
    basis: Annotated[
        str,
        Ask(
            "依据",
            "依据是哪一种？\n" + "\n".join(f"{n} {each}" for n, each in enumerate(BASES, 1)),
            _parse_basis,
            options=BASES,
        ),
    ]
    reason: Annotated[
        str,
        Ask(
            "理由",
            lambda asking: f"比上报少认{in_wan(asking.facts['lacking'])}，理由是？",
            when=lambda asking: bool(asking.facts["lacking"]),
        ),
    ] = ""

    def submit(self, context: Context) -> Reply:
        """Recognise as if all had been said at once."""
        word = replace(_read(self.what, context), basis=self.basis, reason=self.reason)
        return _recognise_one(context, _entry(context, word), word)


# - recognising -


def _recognise_one(context: Context, entry: FundsEntry, word: Word) -> Reply:
    fixed_yuan, other_yuan = _split(entry, word)
    row = _row(context, entry, (fixed_yuan, other_yuan), word)
    words = f"{_reported_words(entry)}，认定{in_wan(fixed_yuan + other_yuan)}，依据{word.basis}"
    words += f"，理由：{word.reason}" if word.reason else ""
    if not _needs_second_person(context, row):
        _confirm(context, row)
        return say(f"已认定。{words}。")
    number = _submit(context, [row], word.month)
    return say(f"{words}。\n单笔达到复核线，已提交 {number}，第二人同意后生效。")


def _recognise_all(context: Context, word: Word) -> Reply:
    """Recognise all of a month as reported; what needs a second person goes in one request."""
    if not word.basis:
        raise UserError(
            f"请写明依据，如「认定 {word.month.number}月 全部 依据 {BASES[1]}」；"
            f"可选{'、'.join(BASES)}。"
        )
    entries = open_entries(context, word.month)
    waiting = [each for each in entries if not _is_asked_for(context, each)]
    if not waiting:
        raise UserError(f"{word.month.number}月没有待认定的到位资金。")
    rows = [_row(context, each, (each.fixed_yuan, each.other_yuan), word) for each in waiting]
    large = [each for each in rows if _needs_second_person(context, each)]
    small = [each for each in rows if each not in large]
    for each in small:
        _confirm(context, each)
    total = sum(each.fixed_yuan + each.other_yuan for each in small)
    lines = (
        [f"{word.month.number}月按上报数认定{len(small)}笔，合计{in_wan(total)}。"] if small else []
    )
    if large:
        number = _submit(context, large, word.month)
        lines.append(f"另有{len(large)}笔达到复核线，已提交 {number}，第二人同意后生效。")
    return say("\n".join(lines))


def _row(context: Context, entry: FundsEntry, amounts: tuple[int, int], word: Word) -> Recognition:
    """A new row, in the place of an older one that still waited."""
    if entry.pending is not None:
        _take_back(context.session, entry.pending.request)
    row = Recognition(
        project_id=entry.project.id or 0,
        month=str(entry.month),
        fixed_yuan=amounts[0],
        other_yuan=amounts[1],
        basis=word.basis,
        reason=word.reason,
        entered_by=context.person_id,
        entered_at=context.now,
    )
    context.session.add(row)
    context.session.flush()
    return row


def _is_asked_for(context: Context, entry: FundsEntry) -> bool:
    """Is a second person's word on this amount still awaited?"""
    if entry.pending is None:
        return False
    awaited = select(Approval.id).where(
        Approval.kind == KIND,
        Approval.object == entry.pending.request,
        Approval.state == ApprovalState.OPEN,
        col(Approval.expires_at) > context.now,
    )
    return context.session.exec(awaited).first() is not None


def _take_back(session: Session, asked: str) -> None:
    """Void a request; the other amounts in it wait for recognition again."""
    void(session, KIND, asked)
    for row in _rows_of(session, asked):
        row.state = ChangeState.REJECTED
        session.add(row)
    session.flush()


def _rows_of(session: Session, asked: str) -> Sequence[Recognition]:
    return session.exec(
        select(Recognition)
        .where(Recognition.request == asked, Recognition.state == ChangeState.SUBMITTED)
        .order_by(col(Recognition.id))
    ).all()


def _needs_second_person(context: Context, row: Recognition) -> bool:
    threshold = here(context).reports.second_person_from_wan * WAN_YUAN
    return row.fixed_yuan + row.other_yuan >= threshold


def _confirm(context: Context, row: Recognition) -> None:
    row.state = ChangeState.CONFIRMED
    context.session.add(row)
    context.session.flush()
    project = context.session.get_one(Project, row.project_id)
    context.audit("funds.recognise", f"project:{project.code}:{row.month}", _why(row))
    month = Month.parse(row.month).number
    for person_id in leaders_of(context.session, project.team_id, context.now):
        context.send(
            person_id,
            say(
                f"{project.code} {project.name} {month}月到位资金"
                f"认定{in_wan(row.fixed_yuan + row.other_yuan)}，{_why(row)}。"
                "有异议请回「人工」。"
            ),
            occasion=f"recognition:{row.id}",
            purpose=DUTY,
        )


def _why(row: Recognition) -> str:
    return f"依据{row.basis}" + (f"，理由：{row.reason}" if row.reason else "")


# - four eyes -


def _submit(context: Context, rows: Sequence[Recognition], month: Month) -> str:
    """Ask for a second person's word on some amounts; returns the request's number."""
    asked = f"{month}:{rows[0].id}"
    for row in rows:
        row.state, row.request = ChangeState.SUBMITTED, asked
        context.session.add(row)
    context.session.flush()
    total = sum(row.fixed_yuan + row.other_yuan for row in rows)
    approval = request(
        context,
        KIND,
        asked,
        f"{month.number}月到位资金认定{len(rows)}笔，合计{in_wan(total)}",
        content_hash(KIND, *_lines(context.session, asked)),
        reason="；".join(_why(row) for row in rows),
    )
    return approval.number


def _lines(session: Session, asked: str) -> list[str]:
    """The amounts of a request as the second person reads them; the approval is of these words."""
    lines = []
    for row in _rows_of(session, asked):
        project = session.get_one(Project, row.project_id)
        lines.append(
            f"{project.code} {project.name}：认定{in_wan(row.fixed_yuan + row.other_yuan)}"
            f"（固投{in_wan(row.fixed_yuan)}，其他{in_wan(row.other_yuan)}），{_why(row)}"
        )
    return lines


def _show(context: Context, approval: Approval) -> Reply:
    return say(f"{approval.title}\n" + "\n".join(_lines(context.session, approval.object)))


def _granted(context: Context, approval: Approval) -> Reply:
    rows = _rows_of(context.session, approval.object)
    current = {
        (each.project.id, str(each.month)): each
        for year in {row.month[:4] for row in rows}
        for each in funds_entries(context.session, int(year), context.now)
        if each.superseded_at is None
    }
    for row in rows:
        entry = current[row.project_id, row.month]
        if entry.pending is None or entry.pending.id != row.id:
            raise UserError(
                f"{entry.project.code} {entry.month.number}月的上报数已经更正，"
                "这份认定对不上了，请驳回后重新认定。"
            )
    for row in rows:
        _confirm(context, row)
    return say(f"{len(rows)}笔认定已生效。")


def _refused(context: Context, approval: Approval) -> Reply:
    for row in _rows_of(context.session, approval.object):
        row.state = ChangeState.REJECTED
        context.session.add(row)
    return say("这些项目回到待认定。")


RECOGNITIONS = Approvable(KIND, "到位资金认定", _show, _granted, _refused)
