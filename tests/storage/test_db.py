"""The database file itself."""

import stat
from pathlib import Path

from storage.columns import KeyRing
from storage.db import Database


def test_a_new_database_file_is_for_its_owner_only(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/new.db", KeyRing(KeyRing.generate()))
    database.migrate()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    database.close()
    assert modes == {0o600}
