"""What is kept on the disk while the database is away: sealed, bounded, in order, found again."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.messages import Address, Chat, Inbound, Kind, Media
from bot.spool import Spool, SpoolFull, spooled
from storage.columns import KeyRing
from tests.world import KEYS

RING = KeyRing(KEYS)
NOON = datetime(2026, 3, 12, 4, 0, tzinfo=UTC)


def said(number: int, who: str = "wang", text: str = "") -> Inbound:
    return Inbound(str(number), Address("wechat", "gh_1", who), text or f"第{number}句", NOON)


def kept(folder: Path, *messages: Inbound) -> None:
    """What a process that was killed leaves behind."""
    spool = Spool(folder, RING)
    spool.keep(messages)
    spool.close()


def test_what_is_kept_comes_out_in_order_and_leaves_no_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", RING)
    spool.keep([said(1), said(2, "li")])
    spool.keep([said(3)])
    assert [message.id for message in spool.next(2)] == ["1", "2"]
    assert spool.holds("wechat:gh_1:wang")
    spool.taken(2)
    assert (spool.depth, spool.holds("wechat:gh_1:li")) == (1, False)
    assert [message.id for message in spool.next(9)] == ["3"]
    spool.taken(1)
    assert (spool.depth, list((tmp_path / "spool").iterdir())) == (0, [])


def test_every_kind_of_message_comes_back_as_it_was(tmp_path: Path) -> None:
    group = Chat(Address("wechat", "gh_1", "group"), addressed=False)
    picture = Media("media", "照片.jpg", "image/jpeg", 1234)
    messages = [
        said(1, text="两行\n话 🐎"),
        Inbound("2", said(1).sender, "", NOON, Kind.IMAGE, group, "1", picture, "scene-7"),
    ]
    kept(tmp_path, *messages)
    spool = Spool(tmp_path, RING)
    assert spool.adopt() == 2
    assert spool.next(2) == messages
    spool.close()


def test_only_its_owner_can_read_the_files_and_only_the_keys_open_them(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    kept(folder, said(1, text="我叫王一"))
    (file,) = folder.iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)] == [0o700, 0o600]
    assert "王一".encode() not in file.read_bytes()
    other = Spool(folder, KeyRing("k1:fedcba9876543210fedcba9876543210"))
    assert other.adopt() == 0


@pytest.mark.parametrize("torn", [b"azE6", b"azE6\n", b"\xff\xfe\n", b"=\n"])
def test_half_a_line_is_left_out_and_told_of(
    tmp_path: Path, torn: bytes, logged: list[str]
) -> None:
    kept(tmp_path, said(1), said(2))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + torn)
    spool = Spool(tmp_path, RING)
    assert spool.adopt() == 2
    assert [message.id for message in spool.next(9)] == ["1", "2"]
    assert ["spool_line_unreadable" in line for line in logged] == [True]
    spool.close()


def test_an_altered_line_is_left_out_and_those_around_it_are_not(tmp_path: Path) -> None:
    kept(tmp_path, said(1), said(2), said(3))
    (file,) = tmp_path.iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:40] + (b"A" if lines[1][40:41] != b"A" else b"B") + lines[1][41:]
    file.write_bytes(b"".join(lines))
    spool = Spool(tmp_path, RING)
    spool.adopt()
    assert [message.id for message in spool.next(9)] == ["1", "3"]
    spool.close()


def test_a_living_process_keeps_its_file_and_a_dead_ones_is_taken_over_once(
    tmp_path: Path,
) -> None:
    living, heir, late = (Spool(tmp_path, RING) for _ in range(3))
    living.keep([said(1)])
    assert heir.adopt() == 0
    living.close()
    assert (heir.adopt(), late.adopt()) == (1, 0)
    heir.keep([said(2)])
    assert [message.id for message in heir.next(9)] == ["1", "2"]
    assert spooled(tmp_path) == 2
    heir.taken(2)
    assert spooled(tmp_path) == 0


def test_a_full_spool_refuses_whole_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = Spool(tmp_path, RING, most=600)
    spool.keep([said(1)])
    with pytest.raises(SpoolFull):
        spool.keep([said(2), said(3), said(4), said(5)])
    assert [message.id for message in spool.next(9)] == ["1"]
    spool.close()
    heir = Spool(tmp_path, RING)
    assert heir.adopt() == 1
    heir.close()
