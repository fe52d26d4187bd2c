"""Runs migrations on the connection that `storage.db` hands over."""

from alembic import context

from storage.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    render_as_batch=connection.dialect.name == "sqlite",
    include_name=context.config.attributes.get("include_name"),
    compare_type=True,
)
context.run_migrations()
