"""Writes the parts of the documents that the code itself can tell: `python -m docs.generate`.

A part stands in any Markdown file between `<!-- begin NAME -->` and `<!-- end -->`. It is sorted
and names files without line numbers, so that it changes only when what it tells does.
"""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr

from bot.catalog import Catalog, collect
from bot.cli import words
from bot.commands import (
    Approvable,
    Command,
    Declaration,
    Exporter,
    Importer,
    Page,
    Purpose,
    Retention,
    Tick,
)
from bot.forms import Form
from bot.installation import REQUIRED
from bot.settings import PREFIX, Settings
from handlers.consent import SEPARATE
from handlers.festivals import Letter
from handlers.roles import ROLE_WORDS, Role
from handlers.welcome import SECTIONS
from storage.columns import EncryptedText
from storage.privacy import tables_of_people
from storage.states import STATE_WORDS, TRANSITIONS, WAITING, State

ROOT = Path(__file__).resolve().parents[1]
PART = re.compile(r"(<!-- begin ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LONGEST = 60  # characters shown of a prompt
REMADE = "written by `make docs`, not by hand"

KEPT: Mapping[str, str] = {
    "arrival": "在册期间",
    "consent_entry": "作为凭证保留；本人离开时原话和消息编号清空",
    "contact": "在册期间；撤回后只留标识，以便不再联系；删除后不留",
    "conversation": "会话结束30天后",
    "customer_group_member": "在群期间；退群30天后",
    "draft": "到期即清（多数7天，见表单一页）；办完或取消即清",
    "inbox": "回复1天，编号30天",
    "job": "24小时",
    "letter_reply": "12个月",
    "member_category": "在册期间",
    "member_profile": "在册期间",
    "outbox": "正文7天；明细12个月（可设），之后群发只留人数",
    "person": "在册期间",
    "profile_change": "在册期间",
    "rsvp": "在册期间",
    "taken_message": "办完即清；没办成的3天",
    "team_member": "履职记录，留存备查",
    "unsubscription": "在册期间",
    "wechat_follower": "关注期间",
    "wechat_notice_grant": "关注期间",
}
"""How long each table keeps what it knows of a person; a new table must be added here."""

MEANINGS: Mapping[State, str] = {
    State.HELD: "暂停着：名单已锁定、等待审批或放行，或被人叫停",
    State.QUEUED: "到时间就可以发",
    State.DEFERRED: "静默时段、额度用完或会话窗口已关；窗口再开时接着排队",
    State.LEASED: "已被一个投递进程领走，还没有过闸",
    State.SENDING: "已过闸，正在调用平台",
    State.AWAITING_STAFF: "平台要求员工在手机上点一下才真正发出",
    State.SENT: "平台收下了",
    State.DELIVERED: "平台说已送到；平台不说的不会有",
    State.READ: "平台说已读；平台不说的不会有",
    State.FAILED: "平台明确拒绝，附原因",
    State.DEAD: "试了几次都没成",
    State.UNKNOWN: "可能已经发出，谁也说不准；不自动重发，由人决定",
    State.SUPPRESSED: "没有同意、已退订或已撤回，附原因",
    State.CANCELLED: "人工取消",
    State.EXPIRED: "时机已过，不再发",
}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; signs that would break a row are kept from doing so."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _home(known: Catalog, value: Any) -> str:
    """The module that declares a value; a decorator tells it, otherwise the catalog."""
    source = getattr(value, "source", "")
    if not source.rpartition(":")[2].isdigit():
        source = known.sources[id(value)]
    return _module(source.rpartition(":")[0])


def _module(path: str) -> str:
    return _code(str(Path(path).relative_to(ROOT)))


# - what people may say -


def commands(known: Catalog) -> str:
    """Every word of every command, by the sections of the help."""
    blocks = []
    for section in SECTIONS:
        found = sorted((c for c in known.of(Command) if c.section == section), key=lambda c: c.word)
        rows = [
            [
                _code(one.word),
                "、".join(_code(word) for word in one.words[1:]),
                "、".join(ROLE_WORDS[role] for role in Role if role in one.roles) or "所有人",
                _short(one, known),
                "可以" if one.group else "",
                _home(known, one),
            ]
            for one in found
        ]
        heads = ("指令", "也可以说", "谁能说", "做什么", "群里", "所在文件")
        blocks.append(f"### {section}\n\n{table(heads, rows)}")
    return "\n".join(blocks)


def _short(one: Command, known: Catalog) -> str:
    """Its help; a word without one is explained by the word it begins with, or by what is said."""
    first = one.word.split()[0]
    if not one.help and first != one.word and first in known.words:
        return f"见「{first}」"
    return one.help.removeprefix(f"{one.word}：") or "按机器人的提示使用"


def forms(known: Catalog) -> str:
    """Every form with its questions."""
    return "\n".join(_form(known.forms[name]) for name in sorted(known.forms))


def _form(form: type[Form]) -> str:
    rows = [
        [label, _prompt(prompt), "、".join(words for words, true in marks.items() if true)]
        for label, prompt, marks in _questions(form)
    ]
    ends = f"最后回「{form.finish}」才算数" if form.finish else "答完即办"
    return (
        f"### {form.label}（`{form.name}`）\n\n"
        f"{ends}；草稿最多保留{_span(form.expires)}。{_module(inspect.getfile(form))}\n\n"
        f"{table(('问题', '问法', '说明'), rows)}"
    )


def _questions(form: type[Form], before: str = "") -> Iterator[tuple[str, Any, dict[str, bool]]]:
    for ask in form.asks().values():
        label = f"{before}{ask.label}"
        if ask.rows is None:
            conditional = ask.when is not None
            yield (
                label,
                ask.prompt,
                {"可跳过": ask.optional, "敏感": ask.sensitive, "用得着才问": conditional},
            )
        else:
            yield from _questions(ask.rows, f"{label}·")


def _prompt(prompt: Any) -> str:
    """Its first line; one that depends on earlier answers is only called so."""
    if not isinstance(prompt, str):
        return "（随情形而定）"
    if not prompt:
        return "（不单独问）"
    first = prompt.partition("\n")[0]
    return first if len(first) <= LONGEST and first == prompt else f"{first[:LONGEST]}…"


def _span(length: timedelta) -> str:
    hours = round(length / timedelta(hours=1))
    return f"{hours // 24}天" if hours % 24 == 0 else f"{hours}小时"


# - what an operator may say -


def command_line(known: Catalog) -> str:
    """Every word of `hongyan` with what may stand behind it."""
    group: Any = typer.main.get_command(words(known))
    rows = [
        [_code(f"hongyan {name}{_arguments(one)}"), str(one.help or ""), _options(one)]
        for name, one in sorted(group.commands.items())
    ]
    return table(("命令", "做什么", "选项"), rows)


def command_line_english(known: Catalog) -> str:
    """The same for readers of English, without the options."""
    english = _english()["words"]
    group: Any = typer.main.get_command(words(known))
    rows = [
        [_code(f"hongyan {name}{_arguments(one)}"), english[name]]
        for name, one in sorted(group.commands.items())
    ]
    return table(("Command", "Does"), rows)


def _english() -> dict[str, dict[str, str]]:
    return tomllib.loads((ROOT / "docs" / "english.toml").read_text(encoding="utf-8"))


def _arguments(command: Any) -> str:
    found = [one for one in command.params if one.param_type_name == "argument"]
    named = [one.name.upper() for one in found]
    return "".join(
        f" {name}" if one.required else f" [{name}]" for one, name in zip(found, named, strict=True)
    )


def _options(command: Any) -> str:
    found = [one for one in command.params if one.param_type_name == "option"]
    return "；".join(f"`{one.opts[0]}` {one.help or ''}" for one in found if one.name != "help")


def kinds(known: Catalog) -> str:
    """What may be imported and exported."""
    coming = [["导入", _code(one.kind), one.help] for one in known.of(Importer)]
    going = [["导出", _code(one.kind), one.help] for one in known.of(Exporter)]
    return table(("方向", "种类", "内容"), [*sorted(coming), *sorted(going)])


def settings(_known: Catalog) -> str:
    """Every setting with its default."""
    rows = [
        [_code(variable), default, f"{field.description}{'（必填）' if required else ''}"]
        for variable, default, field, required in _settings()
    ]
    return table(("设置", "默认", "说明"), rows)


def settings_english(_known: Catalog) -> str:
    """The same for readers of English."""
    english = _english()["settings"]
    rows = [
        [
            _code(variable),
            default,
            english[variable.removeprefix(PREFIX).lower()] + (" (required)" if required else ""),
        ]
        for variable, default, _field, required in _settings()
    ]
    return table(("Setting", "Default", "Meaning"), rows)


def _settings() -> Iterator[tuple[str, str, Any, bool]]:
    for name, field in Settings.model_fields.items():
        default = "" if isinstance(field.default, SecretStr) else str(field.default)
        yield f"{PREFIX}{name.upper()}", _code(default), field, name in REQUIRED


# - what happens by itself -


def schedules(known: Catalog) -> str:
    """What looks at the clock."""
    rows = [
        [_code(one.name), one.label, "有" if one.upcoming else "", _home(known, one)]
        for one in sorted(known.of(Tick), key=lambda one: one.name)
    ]
    return table(("名称", "做什么", "`hongyan letters` 里有日期", "所在文件"), rows)


def letters(known: Catalog) -> str:
    """Every festival letter."""
    rows = [
        [
            one.label,
            one.title,
            f"农历{one.month:02}-{one.day:02}{'前一天' if one.eve else ''} {one.at:%H:%M}",
            f"{one.latest:%H:%M}",
            "寄" if one.on else "不寄",
            "、".join(one.also),
            _home(known, one),
        ]
        for one in sorted(_declarations(known, Letter), key=lambda one: (one.month, one.day))
    ]
    heads = ("信", "标题", "寄出", "最晚", "地方没说时", "也叫", "所在文件")
    return table(heads, rows)


def _declarations(known: Catalog, kind: type[Declaration]) -> Sequence[Any]:
    return known.of(kind)


def purposes(known: Catalog) -> str:
    """Why people are written to unasked."""
    rows = [
        [
            one.label,
            one.scope or "不需要（履职或服务）",
            one.topic or "不可退订",
            "守" if one.quiet else "不守",
            _code(one.name),
        ]
        for one in sorted(known.of(Purpose), key=lambda one: one.name)
    ]
    return table(("目的", "须有的同意", "退订的主题", "静默时段", "代码"), rows)


def approvals(known: Catalog) -> str:
    """What needs other eyes."""
    rows = [
        [one.label, _code(one.kind), _home(known, one)]
        for one in sorted(known.of(Approvable), key=lambda one: one.kind)
    ]
    return table(("事项", "代码", "所在文件"), rows)


def pages(known: Catalog) -> str:
    """Phone pages behind a one-time link."""
    rows = [
        [_code(one.kind), _home(known, one)]
        for one in sorted(known.of(Page), key=lambda one: one.kind)
    ]
    return table(("页面", "所在文件"), rows)


def outbox(_known: Catalog) -> str:
    """Every state of an outbox row and what may follow it."""
    rows = [
        [
            STATE_WORDS[state],
            _code(state),
            MEANINGS[state],
            "、".join(STATE_WORDS[after] for after in State if after in TRANSITIONS[state])
            or "（终点）",
            "能" if state in WAITING else "",
        ]
        for state in State
    ]
    return table(("状态", "代码", "意思", "之后可以是", "还能拦下"), rows)


# - what is known of people -


def personal_data(_known: Catalog) -> str:
    """Every column that holds personal data: why, how, and how long."""
    rows = [
        [
            column.info["label"],
            column.info["personal"],
            "加密" if isinstance(column.type, EncryptedText) else "可查",
            KEPT[table.name],
            _code(f"{table.name}.{column.name}"),
        ]
        for table, _whose, columns in tables_of_people()
        for column in columns
    ]
    return table(("内容", "用途", "怎样存", "存多久", "列"), sorted(rows, key=lambda row: row[-1]))


def retention(known: Catalog) -> str:
    """Every rule of the nightly clearing."""
    rows = [
        [_code(one.name), one.help, _home(known, one)]
        for one in sorted(known.of(Retention), key=lambda one: one.name)
    ]
    return table(("规则", "清理什么", "所在文件"), rows)


def consents(_known: Catalog) -> str:
    """What is agreed to one by one."""
    rows = [["`profile`", "登记时的基本同意：建立鸿雁档案、寄节日信和活动邀请"]]
    rows += [[_code(scope), what] for scope, what in SEPARATE.items()]
    return table(("范围", "同意什么"), rows)


PARTS: Mapping[str, Callable[[Catalog], str]] = {
    "commands": commands,
    "forms": forms,
    "command-line": command_line,
    "command-line-english": command_line_english,
    "kinds": kinds,
    "settings": settings,
    "settings-english": settings_english,
    "schedules": schedules,
    "letters": letters,
    "purposes": purposes,
    "approvals": approvals,
    "pages": pages,
    "outbox": outbox,
    "personal-data": personal_data,
    "retention": retention,
    "consents": consents,
}


def documents() -> list[Path]:
    """Every Markdown file of ours that people read."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def told(known: Catalog) -> dict[str, str]:
    """Every part as the code now tells it."""
    return {name: tell(known) for name, tell in PARTS.items()}


def renewed(text: str, parts: Mapping[str, str]) -> str:
    """A document with its parts put in anew."""

    def fresh(found: re.Match[str]) -> str:
        return f"{found[1]}<!-- {REMADE} -->\n\n{parts[found[2]]}\n{found[3]}"

    return PART.sub(fresh, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what has changed; with `--pictures` take the screenshots too if we can."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--pictures", action="store_true", help="also take docs/images anew")
    asked = parser.parse_args(arguments)
    parts = told(collect())
    for path in documents():
        before = path.read_text(encoding="utf-8")
        after = renewed(before, parts)
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"written: {path.relative_to(ROOT)}\n")
    return take_pictures() if asked.pictures else 0


def take_pictures() -> int:
    """Run docs/screenshots.py; without it or a browser the old pictures stay, and we say so."""
    script = ROOT / "docs" / "screenshots.py"
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not script.exists() or browser is None:
        sys.stdout.write("no browser here: the pictures in docs/images stay as they are\n")
        return 0
    run = [sys.executable, "-m", "docs.screenshots"]
    return subprocess.run(run, cwd=ROOT, check=False).returncode  # noqa: S603  # our own module


if __name__ == "__main__":
    raise SystemExit(main())
