"""The delivery ledger: what several replicas share, and what a plan counts on."""

import sqlalchemy as sa
from alembic import op

import storage.columns

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


OUTBOX_ON_POSTGRESQL = {
    "fillfactor": "80",
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "5000",
    "autovacuum_analyze_scale_factor": "0.01",
    "autovacuum_analyze_threshold": "5000",
    "autovacuum_vacuum_cost_limit": "2000",
}


WAITING = "state IN ('held', 'queued', 'deferred', 'leased', 'awaiting_staff')"


def upgrade() -> None:
    op.create_table(
        "campaign_total",
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"]),
        sa.PrimaryKeyConstraint("campaign_id", "state", "reason"),
    )
    op.create_table(
        "letter_reply",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", storage.columns.EncryptedText(), nullable=False),
        sa.Column("at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("read_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("answer", storage.columns.EncryptedText(), nullable=True),
        sa.Column("answered_at", storage.columns.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"]),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    for column in ("at", "campaign_id", "person_id"):
        op.create_index(f"ix_letter_reply_{column}", "letter_reply", [column])
    _outbox_by_campaign("campaign_id", "state", "reason")
    for table, column, name in (
        ("outbox", "created_at", "body"),
        ("inbox", "received_at", "reply"),
    ):
        there = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"ix_{table}_{name}", table, [column], sqlite_where=there, postgresql_where=there
        )
    if op.get_bind().dialect.name == "postgresql":
        words = ", ".join(f"{name} = {value}" for name, value in OUTBOX_ON_POSTGRESQL.items())
        op.execute(f"ALTER TABLE outbox SET ({words})")
    op.add_column("outbox", sa.Column("tried_at", sa.BigInteger()))
    _outbox_by_expiry(f"{WAITING} AND expires_at IS NOT NULL")
    for name, kind in (("broken_at", sa.BigInteger()), ("known_ms", sa.Integer())):
        op.add_column("lane", sa.Column(name, kind, nullable=False, server_default="0"))
    abroad = sa.text("timezone IS NOT NULL")
    op.create_index(
        "ix_person_timezone",
        "person",
        ["timezone"],
        sqlite_where=abroad,
        postgresql_where=abroad,
    )
    op.add_column("cover", sa.Column("excuse", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("cover", "excuse")
    op.drop_index("ix_person_timezone", table_name="person")
    op.drop_column("lane", "known_ms")
    op.drop_column("lane", "broken_at")
    _outbox_by_expiry(WAITING)
    op.drop_column("outbox", "tried_at")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE outbox RESET ({', '.join(OUTBOX_ON_POSTGRESQL)})")
    op.drop_index("ix_inbox_reply", table_name="inbox")
    op.drop_index("ix_outbox_body", table_name="outbox")
    _outbox_by_campaign("campaign_id", "state")
    op.drop_table("letter_reply")
    op.drop_table("campaign_total")


def _outbox_by_expiry(there: str) -> None:
    op.drop_index("ix_outbox_expiry", table_name="outbox")
    op.create_index(
        "ix_outbox_expiry",
        "outbox",
        ["expires_at"],
        sqlite_where=sa.text(there),
        postgresql_where=sa.text(there),
    )


def _outbox_by_campaign(*columns: str) -> None:
    op.drop_index("ix_outbox_campaign", table_name="outbox")
    there = sa.text("campaign_id IS NOT NULL")
    op.create_index(
        "ix_outbox_campaign", "outbox", list(columns), sqlite_where=there, postgresql_where=there
    )
