"""The command line `hongyan`: what an operator says to an installation."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError
from typer.exceptions import TyperException

from bot import backup as backups
from bot import check as checks
from bot import logs, web
from bot.app import App, build_channels, missing_of, tune_interpreter
from bot.catalog import Catalog, collect
from bot.clock import SteadyClock, SystemClock
from bot.commands import CliWord, Exporter, Importer, Retention
from bot.context import Services
from bot.doctor import report
from bot.errors import ConfigError, UserError
from bot.installation import (
    POLICIES,
    alone_on,
    explain,
    load_settings,
    migrate,
    open_services,
    ready_services,
    secrets_of,
    sqlite_file,
    write_settings,
)
from bot.play import play as talk
from bot.play import save as save_transcript
from bot.play import typed
from bot.settings import FILE, Settings, key_file, spool_folder
from bot.spool import Spool, spooled
from storage.audit import AuditEntry
from storage.columns import KeyRing
from storage.sequences import next_number

CHECKOUT = Path(__file__).resolve().parents[1]

T = TypeVar("T")


class Role(StrEnum):
    """Which loops a process runs."""

    ALL = "all"
    WEB = "web"
    WORKER = "worker"


class Player(StrEnum):
    """Whom `hongyan play` speaks for."""

    MEMBER = "member"
    TEAM_LEADER = "team_leader"
    COORDINATOR = "coordinator"
    LEADER = "leader"


# - setting up -


def init(
    context: typer.Context,
    place: Annotated[str, typer.Option(help="地方：名称，或一份 TOML 文件的路径")] = "",
) -> None:
    """写一份带注释的设置和密钥；已有的从不覆盖。"""
    catalog = _catalog(context)
    path = Path(FILE)
    if path.exists():
        raise ConfigError(f"{path} 已经存在，没有改动。")
    if not place:
        place = typer.prompt(f"哪个地方（{'、'.join(catalog.places.names())}）")
    catalog.places.load(place, {})
    # A first start may have made keys already: others would not open what they sealed.
    made = key_file("sqlite:///hongyan.db")
    keys = "" if made and made.exists() else KeyRing.generate()
    write_settings(path, place, keys)
    typer.echo(f"已写好 {path}（只有您能读）。请填写办公室、外网地址和渠道，再运行 hongyan check。")


def check(
    context: typer.Context,
    offline: Annotated[bool, typer.Option("--offline", help="只查设置和本机，不访问网络")] = False,
) -> None:
    """逐项实际试一遍，说明哪里不对、该点哪里；全都没问题才退出0。"""
    settings = load_settings()
    logs.configure("ERROR", secrets_of(settings))
    inspected = checks.inspect(settings, _catalog(context), SystemClock(), offline=offline)
    with asyncio.Runner(loop_factory=web.new_loop) as runner:
        found = runner.run(inspected)
    for line in checks.lines(found):
        typer.echo(line)
    wrong = checks.wrong(found)
    if wrong:
        raise ConfigError(f"还有{wrong}项要处理，见上面打✗的各行。")
    typer.echo(f"✓ 都齐了：{'、'.join(settings.enabled)}。{_telegram(settings)}".rstrip())


def migrate_word(context: typer.Context) -> None:
    """把数据库升到这个版本；可以重复运行。"""
    services = open_services(load_settings(), _catalog(context), {}, create=True)
    with _closing(services):
        migrate(services)
        typer.echo(f"数据库已是最新：{services.database.revision() or '空'}")


# - running -


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="监听的地址")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="监听的端口，0为任意", min=0, max=65535)] = 8080,
    role: Annotated[
        Role, typer.Option(help="all、web（只接收）或 worker（只发送、看钟）")
    ] = Role.ALL,
) -> None:
    """运行：接收、应答、投递、按时主动发送。Ctrl-C 停止。"""
    settings = load_settings()
    logs.configure(settings.log_level.upper(), secrets_of(settings))
    channels = build_channels(settings, SteadyClock())
    missing = missing_of(channels)
    if missing:
        raise ConfigError("；".join(missing))
    roles = ("web", "worker") if role is Role.ALL else (role.value,)
    with alone_on(settings):
        _serve(context, settings, channels, roles, (host, port))


def _serve(
    context: typer.Context,
    settings: Settings,
    channels: Mapping[str, Any],
    roles: Sequence[str],
    where: tuple[str, int],
) -> None:
    services = open_services(settings, _catalog(context), channels, create=True)
    with ExitStack() as stack:
        stack.enter_context(_closing(services))
        listening = stack.enter_context(web.listen(*where)) if "web" in roles else None
        logs.configure(settings.log_level.upper(), secrets_of(settings))
        migrate(services)
        spool = Spool(spool_folder(settings), services.keys)
        app = App(services, channels, alone=services.database.sqlite, spool=spool)
        stack.callback(spool.close)
        for line in services.place.missing():
            typer.echo(f"注意：{line}未设置，登记、信件、群发暂不受理。", err=True)

        def started() -> None:
            address = web.address_of(listening) if listening else "不接收网络请求"
            named = "、".join(channels) or "没有启用"
            typer.echo(f"已启动：{address}；渠道：{named}。{_telegram(settings)}按 Ctrl-C 停止。")
            sys.stdout.flush()

        tune_interpreter()
        with asyncio.Runner(loop_factory=web.new_loop) as runner:
            runner.run(web.serve(app, listening, roles, started=started))


def _telegram(settings: Settings) -> str:
    if "telegram" not in settings.enabled:
        return ""
    policy = settings.telegram_policy
    return f"Telegram 模式 {policy}：{POLICIES[policy]}。"


def play(
    context: typer.Context,
    as_: Annotated[Player, typer.Option("--as", help="以谁的身份说话")] = Player.MEMBER,
    save: Annotated[Path | None, typer.Option(help="把对话写成测试用的文本")] = None,
    place: Annotated[str, typer.Option(help="在哪个地方")] = "huolingol",
) -> None:
    """在终端里与机器人对话，用的是临时数据库。@ 2026-09-25 09:00 拨钟，空行让它看一眼钟。"""
    logs.configure("ERROR", ())
    terminal = sys.stdin.isatty()
    if terminal:
        typer.echo("说点什么吧，例如：菜单。[1] 是按钮。Ctrl-D 结束。")
    transcript = talk(
        _catalog(context),
        typed("> " if terminal else ""),
        typer.echo,
        place=place,
        role="" if as_ is Player.MEMBER else as_.value,
        start=SystemClock().now(),
    )
    if save:
        save_transcript(transcript, save)
        typer.echo(f"对话已写入 {save}。")


def demo(
    port: Annotated[int, typer.Option(help="网页的端口", min=0, max=65535)] = 8000,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="不自动打开浏览器")] = False,
    platforms: Annotated[
        bool,
        typer.Option("--platforms", help="另接上本机的模拟平台（微信、企业微信、Telegram）"),
    ] = False,
) -> None:
    """打开演示页：虚构的人物，不需要任何设置。"""
    # Imported when asked for: no installation needs it.
    code: int = importlib.import_module("bot.demo").main(port, not no_browser, platforms)
    raise typer.Exit(code)


# - looking -


def catalog(context: typer.Context) -> None:
    """列出每个指令、表单、信件、报表、页面和它所在的文件与行。"""
    rows = [
        (found.kind, found.name, found.help, _relative(found.source))
        for found in _catalog(context).declared()
    ]
    _table(("种类", "名称", "说明", "位置"), rows)


def doctor(context: typer.Context) -> None:
    """看看各队列、时钟、渠道、同意与清理的情况。"""
    settings = load_settings()
    channels = build_channels(settings, SystemClock())
    # Before the database, which may be what is in trouble.
    waiting = spooled(spool_folder(settings))
    typer.echo(f"暂存的来信：{f'{waiting}条，等数据库恢复' if waiting else '没有'}")
    with _opened(context) as services:
        for line in report(services, channels):
            typer.echo(line)


def prune(context: typer.Context) -> None:
    """现在就清理到期的数据（平时每天凌晨自动进行）。"""
    with _opened(context) as services:
        rows = []
        for rule in services.catalog.of(Retention):
            rows.append((rule.name, rule.help, str(_forget(services, rule))))
        _table(("规则", "说明", "行数"), rows)


def _forget(services: Services, rule: Retention) -> int:
    """Let a rule forget all that is due, a batch a transaction; returns how many rows."""
    total = 0
    while True:
        with services.database.session() as session:
            count = rule.run(services, session, services.clock.now())
        total += count
        if not rule.batch or count < rule.batch:
            return total


# - in and out -


def import_(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="种类，见 hongyan catalog")],
    file: Annotated[Path | None, typer.Argument(help="Excel 文件")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="只检查，不写入")] = False,
    undo: Annotated[str, typer.Option(help="撤回这个批次")] = "",
) -> None:
    """从 Excel 导入，逐行报告；--undo 按批次撤回。"""
    importer = _pick(_catalog(context).of(Importer), kind)
    if bool(file) == bool(undo):
        raise typer.BadParameter("请给出一个文件，或用 --undo 给出批次。")
    if file and not file.is_file():
        raise ConfigError(f"没有文件 {file}。")
    with _opened(context) as services:
        try:
            for line in _imported(services, importer, file, undo, dry_run=dry_run):
                typer.echo(line)
        except _DryRun as tried:
            for line in tried.lines:
                typer.echo(line)
            typer.echo("以上只是检查，没有写入。")


class _DryRun(Exception):
    """Takes an import back and brings its report along."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__()
        self.lines = lines


def _imported(
    services: Services, importer: Importer, file: Path | None, undo: str, *, dry_run: bool
) -> Sequence[str]:
    now = services.clock.now()
    with services.database.session() as session:
        batch = undo or f"I-{next_number(session, 'import'):04d}"
        if file is not None:
            lines = [*importer.run(session, file, now, batch)]
        elif importer.undo is not None:
            lines = [*importer.undo(session, now, batch)]
        else:
            raise UserError(f"「{importer.kind}」的导入不能撤回。")
        action = "import_undone" if undo else "imported"
        session.add(_audited(services, action, f"{importer.kind}:{batch}"))
        session.flush()
        if dry_run:
            raise _DryRun(lines)
    done = "已撤回" if undo else f"已导入，撤回用 hongyan import {importer.kind} --undo"
    return [*lines, f"{done} {batch}"]


def export(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="种类，见 hongyan catalog")],
    to: Annotated[Path | None, typer.Option(help="写到这个文件")] = None,
) -> None:
    """导出，与聊天里的一样；会记入审计。"""
    exporter = _pick(_catalog(context).of(Exporter), kind)
    with _opened(context) as services, services.database.session() as session:
        name, content = exporter.run(session, services.clock.now())
        session.add(_audited(services, "exported", f"{exporter.kind}:{len(content)}"))
        session.flush()
        path = to or Path(name)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise ConfigError(f"{path} 已经存在，没有覆盖；请用 --to 换一个文件名。") from error
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    typer.echo(f"已写入 {path}（只有您能读；用完请删除）。")


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="备份写到这里")],
    verify: Annotated[bool, typer.Option("--verify", help="写完从头读一遍，逐表核对")] = False,
) -> None:
    """备份全部数据，运行中也可以；密钥不在里面，请另外保存。"""
    settings = load_settings()
    with _opened(context) as services:
        held = backups.backup(services.database, file)
    if verify and backups.check(file) != held:
        raise ConfigError(f"{file} 读回来与写下的不一样，请换一个地方再备份。")
    rows = sum(content.rows for content in held.values())
    beside = key_file(settings.database_url)
    keys = f"{beside}" if beside and beside.exists() else "HONGYAN_KEYS"
    done = "，读回核对无误" if verify else ""
    typer.echo(f"已备份 {len(held)} 张表、{rows} 行到 {file}{done}。请另外保存密钥（{keys}）。")


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="hongyan backup 写的文件")],
    verify: Annotated[bool, typer.Option("--verify", help="逐行读回核对，并试开加密内容")] = False,
) -> None:
    """恢复到一个空数据库，并核对每张表的行数；对不上就什么也不写。"""
    if not file.is_file():
        raise ConfigError(f"没有文件 {file}。")
    services = open_services(load_settings(), _catalog(context), {}, create=True)
    with _closing(services):
        migrate(services)
        held = backups.restore(services.database, file, verify=verify)
    _table(("表", "行数"), [(name, str(content.rows)) for name, content in held.items()])
    typer.echo(f"已恢复，{'逐行' if verify else '行数'}核对无误。")


# - how it is put together -


WORDS: Mapping[str, Callable[..., None]] = {
    "demo": demo,
    "init": init,
    "check": check,
    "serve": serve,
    "migrate": migrate_word,
    "play": play,
    "catalog": catalog,
    "import": import_,
    "export": export,
    "backup": backup,
    "restore": restore,
    "doctor": doctor,
    "prune": prune,
}


def words(known: Catalog) -> typer.Typer:
    """All words: our own, and those that handlers bring along."""
    typed_words = typer.Typer(
        name="hongyan",
        help="一个地方与在外乡亲的联络机器人。",
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, function in WORDS.items():
        typed_words.command(name)(function)
    for word in known.of(CliWord):
        typed_words.command(
            word.word,
            help=word.help,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_mounted(word))
    return typed_words


def _mounted(word: CliWord) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        opened = _opened_anywhere if word.anywhere else _opened
        with opened(context) as services:
            for line in word.run(services, context.args):
                typer.echo(line)

    return run


def run(arguments: Sequence[str], known: Catalog | None = None) -> int:
    """Do what the words say; returns the exit code: 0 done, 1 refused or failed, 2 wrong usage."""
    try:
        known = known or collect()
        command = typer.main.get_command(words(known))
        code = command.main(list(arguments), "hongyan", standalone_mode=False, obj=known)
    except TyperException as error:
        return _say(f"用法不对：{error.format_message()} 请看 hongyan --help", error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except (ConfigError, UserError) as error:
        return _say(str(error), 1)
    except BrokenPipeError:
        # Whoever read our lines has seen enough; say nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SQLAlchemyError, OSError) as error:
        return _say(explain(error), 1)
    return code if isinstance(code, int) else 0


def _say(line: str, code: int) -> int:
    typer.echo(" ".join(line.split()), err=True)
    return code


def _catalog(context: typer.Context) -> Catalog:
    found = context.obj
    assert isinstance(found, Catalog)
    return found


@contextmanager
def _opened(context: typer.Context) -> Iterator[Services]:
    services = ready_services(load_settings(), _catalog(context))
    with _closing(services):
        yield services


@contextmanager
def _opened_anywhere(context: typer.Context) -> Iterator[Services]:
    """The installation if there is one, else an empty database that is gone afterwards."""
    settings = load_settings()
    file = sqlite_file(settings)
    if file is None or file.is_file():
        with _opened(context) as services:
            yield services
        return
    with TemporaryDirectory() as folder:
        address = f"sqlite:///{folder}/empty.db"
        empty = settings.model_copy(update={"database_url": address, "keys": SecretStr("")})
        services = open_services(empty, _catalog(context), {}, create=True)
        with _closing(services):
            migrate(services)
            yield services


@contextmanager
def _closing(services: Services) -> Iterator[None]:
    try:
        yield
    finally:
        services.database.close()


def _audited(services: Services, action: str, object: str) -> AuditEntry:
    """Whoever may use this command line is the operator; the machine's own accounts say who."""
    return AuditEntry(
        at=services.clock.now(), role="operator", channel="cli", action=action, object=object
    )


def _pick(declared: Sequence[T], kind: str) -> T:
    """The importer or exporter of a kind."""
    known = {getattr(one, "kind", ""): one for one in declared}
    if kind not in known:
        raise typer.BadParameter(f"没有「{kind}」这一种；可用：{'、'.join(known) or '（还没有）'}")
    return known[kind]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal, tab-separated lines for other programs."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(*heads)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _relative(source: str) -> str:
    path, _, line = source.rpartition(":")
    with suppress(ValueError):
        return f"{Path(path).relative_to(CHECKOUT)}:{line}"
    return source


def main() -> None:
    """The program `hongyan`."""
    sys.exit(run(sys.argv[1:]))
