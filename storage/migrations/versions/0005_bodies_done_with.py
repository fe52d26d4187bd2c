"""Of the bodies only those that are done with are looked for, so only they are indexed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _bodies("body IS NOT NULL AND state NOT IN ('held', 'queued', 'deferred', 'leased', 'sending')")


def downgrade() -> None:
    _bodies("body IS NOT NULL")


def _bodies(there: str) -> None:
    op.drop_index("ix_outbox_body", table_name="outbox")
    where = sa.text(there)
    op.create_index(
        "ix_outbox_body", "outbox", ["created_at"], sqlite_where=where, postgresql_where=where
    )
