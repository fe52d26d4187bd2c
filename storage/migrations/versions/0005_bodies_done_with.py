"""Of the bodies only those that are done with are looked for, so only they are indexed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OPEN = "('held', 'queued', 'deferred', 'leased', 'sending')"


def upgrade() -> None:
    _bodies("ix_outbox_body_over", f"body IS NOT NULL AND state NOT IN {OPEN}")
    op.drop_index("ix_outbox_body", table_name="outbox")


def downgrade() -> None:
    _bodies("ix_outbox_body", "body IS NOT NULL")
    op.drop_index("ix_outbox_body_over", table_name="outbox")


def _bodies(name: str, there: str) -> None:
    # Before the other is dropped: the drop alone keeps everybody out, and is over at once.
    where = sa.text(there)
    op.create_index(name, "outbox", ["created_at"], sqlite_where=where, postgresql_where=where)
