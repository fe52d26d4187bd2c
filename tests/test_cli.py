"""Holds what an operator is told: set-up, check, running, stopping, looking after, exit codes."""

from __future__ import annotations

import io
import signal
import stat
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from sqlmodel import Session, select

from bot import web
from bot.catalog import Catalog
from bot.cli import CHECKOUT, run
from bot.commands import CliWord, Exporter, Importer, Retention
from bot.errors import UserError
from bot.installation import load_settings
from bot.settings import Settings
from storage.audit import AuditEntry
from storage.people import Person
from storage.sequences import Sequence as Counter
from tests.playing import Player
from tests.serving import Program, laid, logging_restored, one_line, program, told
from tests.world import KEYS, World, whole_catalog

OFFICE = {
    "HONGYAN_OFFICE_NAME": "区域经济合作服务中心",
    "HONGYAN_OFFICE_PHONE": "0475-0000000",
    "HONGYAN_SIGNATORY": "区域经济合作服务中心",
}


def _bring(session: Session, path: Path, now: datetime, batch: str) -> list[str]:
    lines = path.read_text("utf-8").split()
    if "坏" in lines:
        raise UserError("第2行：认不得「坏」。没有导入任何一行。")
    session.add_all(Person(created_at=now, called=line) for line in lines)
    return [f"{len(lines)}行，批次 {batch}"]


def _take_back(session: Session, now: datetime, batch: str) -> list[str]:
    for person in session.exec(select(Person)):
        session.delete(person)
    return [f"批次 {batch} 的行已删除"]


def _sheet(session: Session, now: datetime) -> tuple[str, bytes]:
    return "people.xlsx", b"rows"


def _greet(services: object, arguments: object) -> list[str]:
    return [f"收到 {arguments}"]


@pytest.fixture
def catalog() -> Catalog:
    """The whole catalog, with a small importer, exporter, word and nothing else of their kinds."""
    known = whole_catalog()
    more = {
        Importer: (Importer("names", "名单", _bring, undo=_take_back),),
        Exporter: (Exporter("names", "名单", _sheet),),
        CliWord: (CliWord("greet", "打招呼", _greet),),
    }
    return replace(known, values={**known.values, **more})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with keys, and nobody's settings."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HONGYAN_{name.upper()}", raising=False)
    monkeypatch.setenv("HONGYAN_KEYS", KEYS)
    monkeypatch.chdir(tmp_path)
    with logging_restored():
        yield tmp_path


@pytest.fixture
def tables(folder: Path) -> Iterator[Callable[[type], list[object]]]:
    """Makes `hongyan.db` in the folder; reads all rows of a table."""
    database = laid("sqlite:///hongyan.db")

    def rows(table: type) -> list[object]:
        with database.reading() as session:
            return list(session.exec(select(table)))

    yield rows
    database.close()


# - init and check -


def test_init_writes_every_setting_with_its_description_for_the_owner_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HONGYAN_KEYS")
    assert run(["init", "--place", "gongan"], whole_catalog()) == 0
    file = folder / "hongyan.env"
    text = file.read_text("utf-8")
    for name, field in Settings.model_fields.items():
        assert f"# {field.description}\n" in text
        assert f"HONGYAN_{name.upper()}=" in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    settings = load_settings()
    assert settings.place == "gongan"
    assert settings.keys.get_secret_value().startswith("k1:")


def test_init_asks_for_the_place_and_refuses_one_it_does_not_know(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "--place", "atlantis"], whole_catalog()) == 1
    assert one_line(capsys.readouterr().err, "没有叫「atlantis」的地方")
    assert list(folder.iterdir()) == []
    monkeypatch.setattr("sys.stdin", io.StringIO("huolingol\n"))
    assert run(["init"], whole_catalog()) == 0
    assert "huolingol" in capsys.readouterr().out
    assert load_settings().place == "huolingol"


def test_init_never_overwrites(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "hongyan.env").write_text("HONGYAN_PLACE=gongan\n", "utf-8")
    assert run(["init", "--place", "huolingol"], whole_catalog()) == 1
    assert capsys.readouterr().err == "hongyan.env 已经存在，没有改动。\n"
    assert (folder / "hongyan.env").read_text("utf-8") == "HONGYAN_PLACE=gongan\n"


def test_init_makes_no_second_keys_beside_a_database_that_has_some(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HONGYAN_KEYS")
    (folder / "hongyan.db.keys").write_text(f"{KEYS}\n", "utf-8")
    assert run(["init", "--place", "gongan"], whole_catalog()) == 0
    assert load_settings().keys.get_secret_value() == ""


def test_check_names_each_thing_that_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "hongyan.env").write_text("HONGYAN_OFFICE_FONE=1\n", "utf-8")
    monkeypatch.setenv("HONGYAN_CHANNELS", "telegram")
    assert run(["check", "--offline"], whole_catalog()) == 1
    heard = capsys.readouterr()
    for name in (*OFFICE, "HONGYAN_OFFICE_FONE", "HONGYAN_PUBLIC_URL", "HONGYAN_TELEGRAM_TOKEN"):
        assert name in heard.out
    assert one_line(heard.err, "还有")
    assert sorted(path.name for path in folder.iterdir()) == ["hongyan.env"]


def test_check_is_content_when_nothing_would_be_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {
        "HONGYAN_CHANNELS": "telegram",
        "HONGYAN_PUBLIC_URL": "https://bot.example.org",
        "HONGYAN_TELEGRAM_TOKEN": "1234567:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    }
    for name, value in {**OFFICE, **more}.items():
        monkeypatch.setenv(name, value)
    assert run(["check", "--offline"], whole_catalog()) == 0
    heard = capsys.readouterr()
    assert heard.out.splitlines()[-1] == (
        "✓ 都齐了：telegram。Telegram 模式 overseas_self：只收自述在境外者本人的非敏感信息。"
    )
    assert "✗" not in heard.out


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("QUIET_HOURS", "late", "HONGYAN_QUIET_HOURS：静默时段的写法是 21:30-08:30"),
        ("QUIET_HOURS", "29:30-08:30", "HONGYAN_QUIET_HOURS 写法不对"),
        ("TELEGRAM_POLICY", "geheim", "HONGYAN_TELEGRAM_POLICY 只能是 'off'"),
        ("LOG_LEVEL", "geheim", "HONGYAN_LOG_LEVEL 只能是"),
        ("TIMEZONE", "Mars/Base", "HONGYAN_TIMEZONE 不认得"),
        ("DATABASE_URL", "geheim", "HONGYAN_DATABASE_URL 写法不对"),
        ("DATABASE_URL", "mysql://u:geheim@h/d", "不能用「mysql」"),
        ("DATABASE_URL", "sqlite://", "要指明一个文件"),
        ("DATABASE_URL", "sqlite:////proc/nowhere/x.db", "文件夹 /proc/nowhere 不存在"),
        ("DATABASE_URL", "sqlite:////proc/x.db", "读写 /proc/x.db.lock 不成"),
        ("DATABASE_URL", "postgresql+psycopg://u:geheim@127.0.0.1:1/d", "数据库用不了"),
        ("KEYS", "geheim", "HONGYAN_KEYS 未设置或太短"),
        ("PLACE", "atlantis", "没有叫「atlantis」的地方"),
        ("CHANNELS", "pigeon", "HONGYAN_CHANNELS 里的「pigeon」"),
    ],
)
def test_a_wrong_setting_ends_serve_with_one_line_and_no_secret(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.setenv(f"HONGYAN_{name}", value)
    assert run(["serve", "--port", "0"], whole_catalog()) == 1
    heard = capsys.readouterr()
    assert one_line(heard.err, words), heard.err
    assert "geheim" not in heard.err + heard.out


@pytest.mark.parametrize(
    "words",
    [
        ["fly"],
        ["serve", "--port", "many"],
        ["serve", "--port", "70000"],
        ["serve", "--role", "queen"],
        ["play", "--as", "emperor"],
        ["import", "geese", "x.xlsx"],
        ["import", "names"],
        ["export", "geese"],
        ["restore"],
    ],
)
def test_wrong_usage_is_two(
    folder: Path, catalog: Catalog, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words, catalog) == 2
    assert one_line(capsys.readouterr().err, "用法不对")


# - serve -


def _alive(running: Program) -> str:
    with urllib.request.urlopen(f"{running.address}/readyz", timeout=10) as answer:  # noqa: S310
        return str(answer.read().decode())


@pytest.mark.slow
def test_serve_says_where_it_is_ends_quietly_and_starts_again(
    folder: Path, tables: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with program(folder, "serve", "--port", "0", **OFFICE) as running:
        assert running.said.startswith("已启动：http://127.0.0.1:")
        assert "渠道：没有启用。按 Ctrl-C 停止。" in running.said
        assert _alive(running) == "ok"
        assert run(["serve", "--port", "0", "--role", "worker"], whole_catalog()) == 1
        assert one_line(capsys.readouterr().err, "另一个 hongyan 正在使用数据库")
        assert running.stop(signal.SIGINT) == (0, "")
    with program(folder, "serve", "--port", "0", **OFFICE) as running:
        assert _alive(running) == "ok"
        assert running.stop(signal.SIGTERM) == (0, "")


@pytest.mark.slow
def test_serve_starts_without_telegram_and_says_its_policy_and_what_is_owed(
    folder: Path, tables: object
) -> None:
    settings = {
        "HONGYAN_CHANNELS": "telegram",
        "HONGYAN_TELEGRAM_TOKEN": "1234567:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "HONGYAN_TELEGRAM_API_BASE": "http://127.0.0.1:1",
    }
    with program(folder, "serve", "--port", "0", **settings) as running:
        assert "渠道：telegram。Telegram 模式 overseas_self：" in running.said
        assert _alive(running) == "ok"
        code, complaints = running.stop()
    assert code == 0
    assert [line[:3] for line in complaints.splitlines()[:3]] == ["注意："] * 3
    assert "Traceback" not in complaints
    assert "AAAAAAAA" not in complaints


def test_a_busy_port_is_one_line(
    folder: Path, tables: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with web.listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert run(["serve", "--port", port], whole_catalog()) == 1
    assert one_line(capsys.readouterr().err, f"端口 {port} 正被另一个程序使用")


def test_lost_keys_are_never_replaced_by_new_ones(
    folder: Path,
    tables: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HONGYAN_KEYS")
    assert run(["doctor"], whole_catalog()) == 1
    assert one_line(capsys.readouterr().err, "密钥文件 hongyan.db.keys 不见了")
    assert not (folder / "hongyan.db.keys").exists()


def test_the_coming_letters_are_printed_where_nothing_is_installed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["letters", "--years", "5"], whole_catalog()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.endswith("春节·致鸿雁一封信　开")]) == 5
    assert list(folder.iterdir()) == []


# - play -


def _said(folder: Path, *lines: str, role: str = "member") -> str:
    words = ("play", "--as", role, "--save", "talk.txt")
    code, heard, complaint = told(folder, *words, said="\n".join(lines) + "\n")
    assert (code, complaint) == (0, "")
    return heard


def test_play_presses_buttons_and_its_transcript_is_a_test(
    folder: Path, make_world: Callable[..., World]
) -> None:
    heard = _said(folder, "菜单", "[2]", "[voice]", "@ 2027-02-01 09:00", "", "帮助", role="leader")
    assert "[1] 登记  [2] 活动" in heard
    assert "（2027-02-01 09:00）" in heard
    text = (folder / "talk.txt").read_text("utf-8")
    assert "% role 乡亲 leader\n" in text
    assert "> 活动\n" in text
    Player(make_world).play(folder / "talk.txt")


def test_play_in_an_unknown_place_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["play", "--place", "atlantis"], whole_catalog()) == 1
    assert one_line(capsys.readouterr().err, "没有叫「atlantis」的地方")


# - looking after -


def test_words_that_need_a_database_say_when_there_is_none(
    folder: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["doctor"], ["prune"], ["backup", "b"], ["export", "names"], ["greet"]):
        assert run(words, catalog) == 1
        assert one_line(capsys.readouterr().err, "没有数据库 hongyan.db")
    assert list(folder.iterdir()) == []


def test_the_catalog_gives_file_and_line_of_everything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["catalog"], whole_catalog()) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(list(whole_catalog().declared()))
    for _kind, _name, *_help, where in lines:
        path, _, number = where.rpartition(":")
        assert len((CHECKOUT / path).read_text("utf-8").splitlines()) >= int(number)


def test_a_word_that_a_handler_brings_gets_its_arguments(
    tables: object, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["greet", "leader", "--unit", "经信局"], catalog) == 0
    assert capsys.readouterr().out == "收到 ['leader', '--unit', '经信局']\n"


def test_an_import_is_tried_done_and_undone_by_its_batch(
    folder: Path,
    tables: Callable[[type], list[object]],
    catalog: Catalog,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "names.txt").write_text("甲 乙", "utf-8")
    assert run(["import", "names", "names.txt", "--dry-run"], catalog) == 0
    assert capsys.readouterr().out == "2行，批次 I-0001\n以上只是检查，没有写入。\n"
    assert tables(Person) + tables(AuditEntry) + tables(Counter) == []
    assert run(["import", "names", "names.txt"], catalog) == 0
    assert "hongyan import names --undo I-0001" in capsys.readouterr().out
    assert len(tables(Person)) == 2
    assert run(["import", "names", "--undo", "I-0001"], catalog) == 0
    assert tables(Person) == []
    actions = [
        (e.action, e.object, e.role) for e in tables(AuditEntry) if isinstance(e, AuditEntry)
    ]
    assert actions == [
        ("imported", "names:I-0001", "operator"),
        ("import_undone", "names:I-0001", "operator"),
    ]


def test_a_wrong_row_leaves_nothing_behind(
    folder: Path,
    tables: Callable[[type], list[object]],
    catalog: Catalog,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "names.txt").write_text("甲 坏", "utf-8")
    assert run(["import", "names", "names.txt"], catalog) == 1
    assert capsys.readouterr().err == "第2行：认不得「坏」。没有导入任何一行。\n"
    assert tables(Person) + tables(AuditEntry) == []


def test_an_export_is_audited_private_and_never_overwrites(
    folder: Path,
    tables: Callable[[type], list[object]],
    catalog: Catalog,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["export", "names"], catalog) == 0
    assert (folder / "people.xlsx").read_bytes() == b"rows"
    assert stat.S_IMODE((folder / "people.xlsx").stat().st_mode) == 0o600
    assert len(tables(AuditEntry)) == 1
    capsys.readouterr()
    assert run(["export", "names"], catalog) == 1
    assert one_line(capsys.readouterr().err, "people.xlsx 已经存在")
    assert len(tables(AuditEntry)) == 1


def test_the_doctor_tells_and_changes_nothing(
    tables: Callable[[type], list[object]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor"], whole_catalog()) == 0
    said = capsys.readouterr().out
    assert said.startswith("暂存的来信：没有\n")
    for words in ("发件：空", "最久未发出：没有", "与数据库一致", "同意：无", "到期待清理：没有"):
        assert words in said


def test_prune_runs_every_rule(tables: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prune"], whole_catalog()) == 0
    names = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [rule.name for rule in whole_catalog().of(Retention)]
