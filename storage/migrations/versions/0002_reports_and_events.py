"""Field teams' reports, the project ledger, events and buttons."""

import sqlalchemy as sa
from alembic import op

import storage.columns

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bubble",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("at", storage.columns.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "topic"),
    )
    op.create_table(
        "bulletin",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("snapshot", sa.String(), nullable=False),
        sa.Column("content_hash", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("drafted_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("published_at", storage.columns.UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("period"),
    )
    op.create_table(
        "button",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("value", storage.columns.EncryptedText(), nullable=False),
        sa.Column("expires_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("pressed_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("press", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index(op.f("ix_button_expires_at"), "button", ["expires_at"], unique=False)
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("starts_on", sa.Date(), nullable=False),
        sa.Column("ends_on", sa.Date(), nullable=False),
        sa.Column("starts_at", sa.String(), nullable=False),
        sa.Column("venue", sa.String(), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("deadline", sa.Date(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=False),
        sa.Column("created_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("cancelled_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("came", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["created_by"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("number"),
    )
    op.create_table(
        "leads_passed",
        sa.Column("team_id", sa.Integer(), nullable=False),
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("passed", sa.Integer(), nullable=False),
        sa.Column("batch", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"],
            ["field_team.id"],
        ),
        sa.PrimaryKeyConstraint("team_id", "month"),
    )
    op.create_table(
        "prepared_report",
        sa.Column("team_id", sa.Integer(), nullable=False),
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sheet", storage.columns.EncryptedText(), nullable=False),
        sa.Column("content_hash", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("prepared_by", sa.Integer(), nullable=False),
        sa.Column("prepared_at", storage.columns.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["prepared_by"],
            ["person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["team_id"],
            ["field_team.id"],
        ),
        sa.PrimaryKeyConstraint("team_id", "month", "kind"),
    )
    op.create_table(
        "project",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("team_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("investor", sa.String(), nullable=False),
        sa.Column("planned_yuan", sa.BigInteger(), nullable=False),
        sa.Column("fixed_yuan", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("talks_on", sa.Date(), nullable=True),
        sa.Column("signed_on", sa.Date(), nullable=True),
        sa.Column("started_on", sa.Date(), nullable=True),
        sa.Column("produced_on", sa.Date(), nullable=True),
        sa.Column("carried_over", sa.Boolean(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("merged_into", sa.Integer(), nullable=True),
        sa.Column("created_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("batch", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["merged_into"],
            ["project.id"],
        ),
        sa.ForeignKeyConstraint(
            ["team_id"],
            ["field_team.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("code"),
    )
    op.create_index(op.f("ix_project_team_id"), "project", ["team_id"], unique=False)
    op.create_table(
        "report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("team_id", sa.Integer(), nullable=False),
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("filed_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("filed_by", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("answers", storage.columns.EncryptedText(), nullable=False),
        sa.Column("content_hash", sa.String(), nullable=False),
        sa.Column("text", storage.columns.EncryptedText(), nullable=False),
        sa.Column("visits", sa.Integer(), nullable=False),
        sa.Column("visits_key", sa.Integer(), nullable=False),
        sa.Column("chambers", sa.Integer(), nullable=True),
        sa.Column("notables", sa.Integer(), nullable=True),
        sa.Column("promos", sa.Integer(), nullable=False),
        sa.Column("inbound_batches", sa.Integer(), nullable=False),
        sa.Column("inbound_people", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("locked_at", storage.columns.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["filed_by"],
            ["person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["team_id"],
            ["field_team.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("number"),
        sa.UniqueConstraint("team_id", "month", "version"),
    )
    op.create_index(op.f("ix_report_month"), "report", ["month"], unique=False)
    op.create_index(op.f("ix_report_team_id"), "report", ["team_id"], unique=False)
    op.create_table(
        "rsvp",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("heads", sa.Integer(), nullable=False),
        sa.Column("queued_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("answered_at", storage.columns.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["event_id"],
            ["event.id"],
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("event_id", "person_id"),
        sa.UniqueConstraint("number"),
    )
    op.create_index(op.f("ix_rsvp_event_id"), "rsvp", ["event_id"], unique=False)
    op.create_index(op.f("ix_rsvp_person_id"), "rsvp", ["person_id"], unique=False)
    op.create_index(op.f("ix_rsvp_state"), "rsvp", ["state"], unique=False)
    op.create_table(
        "snooze",
        sa.Column("team_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("said_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("until", storage.columns.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"],
            ["field_team.id"],
        ),
        sa.PrimaryKeyConstraint("team_id", "day"),
    )
    op.create_table(
        "days_word",
        sa.Column("report_id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("agrees", sa.Boolean(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("at", storage.columns.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["report.id"],
        ),
        sa.PrimaryKeyConstraint("report_id"),
    )
    op.create_table(
        "lead",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("team_id", sa.Integer(), nullable=False),
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("report_id", sa.Integer(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("investor", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("planned_yuan", sa.BigInteger(), nullable=False),
        sa.Column("needs", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("contact", storage.columns.EncryptedText(), nullable=True),
        sa.Column("next_step", sa.String(), nullable=False),
        sa.Column("filed_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("passed_at", storage.columns.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["report.id"],
        ),
        sa.ForeignKeyConstraint(
            ["team_id"],
            ["field_team.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("number"),
    )
    op.create_index(op.f("ix_lead_month"), "lead", ["month"], unique=False)
    op.create_index(op.f("ix_lead_team_id"), "lead", ["team_id"], unique=False)
    op.create_table(
        "recognition",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("fixed_yuan", sa.BigInteger(), nullable=False),
        sa.Column("other_yuan", sa.BigInteger(), nullable=False),
        sa.Column("basis", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("entered_by", sa.Integer(), nullable=False),
        sa.Column("entered_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entered_by"],
            ["person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_recognition_month"), "recognition", ["month"], unique=False)
    op.create_index(op.f("ix_recognition_project_id"), "recognition", ["project_id"], unique=False)
    op.create_index(op.f("ix_recognition_request"), "recognition", ["request"], unique=False)
    op.create_index(op.f("ix_recognition_state"), "recognition", ["state"], unique=False)
    op.create_table(
        "report_days",
        sa.Column("report_id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("half_days", sa.Integer(), nullable=False),
        sa.Column("leave_half_days", sa.Integer(), nullable=False),
        sa.Column("leave_reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["member_id"],
            ["team_member.id"],
        ),
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["report.id"],
        ),
        sa.PrimaryKeyConstraint("report_id", "member_id"),
    )
    op.create_table(
        "report_receipt",
        sa.Column("report_id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("side", sa.String(), nullable=False),
        sa.Column("occasion", sa.String(), nullable=False),
        sa.Column("read_at", storage.columns.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["report.id"],
        ),
        sa.PrimaryKeyConstraint("report_id", "person_id"),
    )
    op.create_table(
        "reported_funds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("fixed_yuan", sa.BigInteger(), nullable=False),
        sa.Column("other_yuan", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["report.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("report_id", "project_id"),
    )
    op.create_index(op.f("ix_reported_funds_month"), "reported_funds", ["month"], unique=False)
    op.create_index(
        op.f("ix_reported_funds_project_id"), "reported_funds", ["project_id"], unique=False
    )
    op.create_index(
        op.f("ix_reported_funds_report_id"), "reported_funds", ["report_id"], unique=False
    )
    op.create_table(
        "stage_change",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.Integer(), nullable=True),
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("from_stage", sa.String(), nullable=False),
        sa.Column("to_stage", sa.String(), nullable=False),
        sa.Column("happened_on", sa.Date(), nullable=False),
        sa.Column("formal", sa.Boolean(), nullable=False),
        sa.Column("planned_yuan", sa.BigInteger(), nullable=True),
        sa.Column("fixed_yuan", sa.BigInteger(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("proposed_by", sa.Integer(), nullable=True),
        sa.Column("decided_by", sa.Integer(), nullable=True),
        sa.Column("decided_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["decided_by"],
            ["person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.ForeignKeyConstraint(
            ["proposed_by"],
            ["person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["report.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_stage_change_month"), "stage_change", ["month"], unique=False)
    op.create_index(
        op.f("ix_stage_change_project_id"), "stage_change", ["project_id"], unique=False
    )
    op.create_index(op.f("ix_stage_change_report_id"), "stage_change", ["report_id"], unique=False)
    op.create_index(op.f("ix_stage_change_state"), "stage_change", ["state"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_stage_change_state"), table_name="stage_change")
    op.drop_index(op.f("ix_stage_change_report_id"), table_name="stage_change")
    op.drop_index(op.f("ix_stage_change_project_id"), table_name="stage_change")
    op.drop_index(op.f("ix_stage_change_month"), table_name="stage_change")
    op.drop_table("stage_change")
    op.drop_index(op.f("ix_reported_funds_report_id"), table_name="reported_funds")
    op.drop_index(op.f("ix_reported_funds_project_id"), table_name="reported_funds")
    op.drop_index(op.f("ix_reported_funds_month"), table_name="reported_funds")
    op.drop_table("reported_funds")
    op.drop_table("report_receipt")
    op.drop_table("report_days")
    op.drop_index(op.f("ix_recognition_state"), table_name="recognition")
    op.drop_index(op.f("ix_recognition_request"), table_name="recognition")
    op.drop_index(op.f("ix_recognition_project_id"), table_name="recognition")
    op.drop_index(op.f("ix_recognition_month"), table_name="recognition")
    op.drop_table("recognition")
    op.drop_index(op.f("ix_lead_team_id"), table_name="lead")
    op.drop_index(op.f("ix_lead_month"), table_name="lead")
    op.drop_table("lead")
    op.drop_table("days_word")
    op.drop_table("snooze")
    op.drop_index(op.f("ix_rsvp_state"), table_name="rsvp")
    op.drop_index(op.f("ix_rsvp_person_id"), table_name="rsvp")
    op.drop_index(op.f("ix_rsvp_event_id"), table_name="rsvp")
    op.drop_table("rsvp")
    op.drop_index(op.f("ix_report_team_id"), table_name="report")
    op.drop_index(op.f("ix_report_month"), table_name="report")
    op.drop_table("report")
    op.drop_index(op.f("ix_project_team_id"), table_name="project")
    op.drop_table("project")
    op.drop_table("prepared_report")
    op.drop_table("leads_passed")
    op.drop_table("event")
    op.drop_index(op.f("ix_button_expires_at"), table_name="button")
    op.drop_table("button")
    op.drop_table("bulletin")
    op.drop_table("bubble")
