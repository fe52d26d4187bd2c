"""A bare installation on each database."""

from collections.abc import Iterator

import pytest

from tests.bare import Bare


@pytest.fixture
def bare(database_url: str) -> Iterator[Bare]:
    """Tables and services on an empty SQLite file, then on an empty PostgreSQL."""
    made = Bare(database_url)
    yield made
    made.close()
