"""Runs migrations on the connection that `storage.db` hands over."""

from alembic import context

import storage.tables
from storage.tables import METADATA

assert storage.tables  # imported so that the metadata is whole
connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
context.run_migrations()
