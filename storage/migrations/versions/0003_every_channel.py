"""Every channel: leases, cursors, links between persons, WeCom's groups and tasks, covers."""

import sqlalchemy as sa
from alembic import op

import storage.columns

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "answer_url",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("url", storage.columns.EncryptedText(), nullable=False),
        sa.Column("expires_at", storage.columns.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_answer_url_expires_at"), "answer_url", ["expires_at"], unique=False)
    op.create_index(op.f("ix_answer_url_owner"), "answer_url", ["owner"], unique=False)
    op.create_table(
        "chat_pace",
        sa.Column("chat", sa.String(), nullable=False),
        sa.Column("free_at", sa.BigInteger(), nullable=False),
        sa.Column("recent", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("chat"),
    )
    op.create_table(
        "cursor",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("at", storage.columns.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "customer_group",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("expected", sa.String(), nullable=False),
        sa.Column("due_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("reads", sa.Integer(), nullable=False),
        sa.Column("read_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("dismissed_at", storage.columns.UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("address"),
    )
    op.create_index(op.f("ix_customer_group_due_at"), "customer_group", ["due_at"], unique=False)
    op.create_table(
        "door",
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("coded", sa.String(), nullable=False),
        sa.Column("at", storage.columns.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("channel"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "platform_token",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("token", storage.columns.EncryptedText(), nullable=False),
        sa.Column("renew_at", storage.columns.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "sending",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("checked", sa.Boolean(), nullable=False),
        sa.Column("at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("media", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "content"),
    )
    op.create_index(op.f("ix_sending_at"), "sending", ["at"], unique=False)
    op.create_table(
        "arrival",
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("scene", sa.String(), nullable=False),
        sa.Column("at", storage.columns.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("person_id"),
        info={"erase": "delete"},
    )
    op.create_index(op.f("ix_arrival_scene"), "arrival", ["scene"], unique=False)
    op.create_table(
        "conversation",
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=True),
        sa.Column("led", sa.String(), nullable=False),
        sa.Column("seen_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("pass_code", sa.String(), nullable=False),
        sa.Column("pass_until", storage.columns.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("address"),
        info={"erase": "delete"},
    )
    op.create_index(op.f("ix_conversation_person_id"), "conversation", ["person_id"], unique=False)
    op.create_table(
        "customer_group_member",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("staff", sa.Boolean(), nullable=False),
        sa.Column("unionid", sa.String(), nullable=True),
        sa.Column("nickname", storage.columns.EncryptedText(), nullable=True),
        sa.Column("person_id", sa.Integer(), nullable=True),
        sa.Column("joined_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("left_at", storage.columns.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["customer_group.id"],
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("group_id", "member"),
        info={"erase": "delete"},
    )
    op.create_index(
        op.f("ix_customer_group_member_group_id"),
        "customer_group_member",
        ["group_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_customer_group_member_person_id"),
        "customer_group_member",
        ["person_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_customer_group_member_unionid"), "customer_group_member", ["unionid"], unique=False
    )
    op.create_table(
        "group_notice",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("addresses", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("document", sa.String(), nullable=False),
        sa.Column("content_hash", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=False),
        sa.Column("created_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("told_at", storage.columns.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["created_by"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("number"),
    )
    op.create_index(op.f("ix_group_notice_state"), "group_notice", ["state"], unique=False)
    op.create_table(
        "person_link",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("other_id", sa.Integer(), nullable=False),
        sa.Column("linked_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("undone_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("moved", storage.columns.EncryptedText(), nullable=True),
        sa.ForeignKeyConstraint(
            ["other_id"],
            ["person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_person_link_other_id"), "person_link", ["other_id"], unique=False)
    op.create_index(op.f("ix_person_link_person_id"), "person_link", ["person_id"], unique=False)
    op.create_table(
        "scene_code",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("scene", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=True),
        sa.Column("asked_by", sa.Integer(), nullable=False),
        sa.Column("asked_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("refused", sa.String(), nullable=False),
        sa.Column("expires_at", storage.columns.UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["asked_by"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_scene_code_scene"), "scene_code", ["scene"], unique=False)
    op.create_index(op.f("ix_scene_code_state"), "scene_code", ["state"], unique=False)
    op.create_table(
        "staff_task",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("made_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("due_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("tapped_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("reminders", sa.Integer(), nullable=False),
        sa.Column("reminded_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("recall_asked_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["customer_group.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_staff_task_due_at"), "staff_task", ["due_at"], unique=False)
    op.create_index(op.f("ix_staff_task_group_id"), "staff_task", ["group_id"], unique=False)
    op.create_table(
        "taken_message",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=True),
        sa.Column("body", storage.columns.EncryptedText(), nullable=False),
        sa.Column("at", storage.columns.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
        info={"erase": "delete"},
    )
    op.create_index(op.f("ix_taken_message_channel"), "taken_message", ["channel"], unique=False)
    op.create_index(
        op.f("ix_taken_message_person_id"), "taken_message", ["person_id"], unique=False
    )
    op.create_table(
        "wechat_follower",
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("unionid", sa.String(), nullable=True),
        sa.Column("asked_at", storage.columns.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("person_id"),
        info={"erase": "delete"},
    )
    op.create_index(
        op.f("ix_wechat_follower_unionid"), "wechat_follower", ["unionid"], unique=False
    )
    op.create_table(
        "wechat_notice_grant",
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("template", sa.String(), nullable=False),
        sa.Column("left", sa.Integer(), nullable=False),
        sa.Column("lasting", sa.Boolean(), nullable=False),
        sa.Column("changed_at", storage.columns.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("person_id", "template"),
        info={"erase": "delete"},
    )
    op.create_table(
        "cover",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=True),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("preview", sa.Boolean(), nullable=False),
        sa.Column("asked_by", sa.Integer(), nullable=False),
        sa.Column("created_at", storage.columns.UtcDateTime(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("looked_at", storage.columns.UtcDateTime(), nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("filtered", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["asked_by"],
            ["person.id"],
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id"],
            ["campaign.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index(op.f("ix_cover_campaign_id"), "cover", ["campaign_id"], unique=False)
    op.create_index(op.f("ix_cover_job"), "cover", ["job"], unique=False)
    op.create_index(op.f("ix_cover_month"), "cover", ["month"], unique=False)
    op.create_index(op.f("ix_cover_state"), "cover", ["state"], unique=False)
    op.create_table(
        "cover_recipient",
        sa.Column("cover_id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cover_id"],
            ["cover.id"],
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["person.id"],
        ),
        sa.PrimaryKeyConstraint("cover_id", "person_id"),
    )
    op.create_index(
        op.f("ix_cover_recipient_person_id"), "cover_recipient", ["person_id"], unique=False
    )
    op.add_column(
        "contact", sa.Column("preferred_at", storage.columns.UtcDateTime(), nullable=True)
    )
    op.create_index(
        "ix_outbox_provider",
        "outbox",
        ["provider_id"],
        unique=False,
        sqlite_where=sa.text("provider_id <> ''"),
        postgresql_where=sa.text("provider_id <> ''"),
    )
    op.add_column("person", sa.Column("merged_into", sa.Integer(), nullable=True))
    op.create_index(op.f("ix_person_merged_into"), "person", ["merged_into"], unique=False)


def downgrade() -> None:

    op.drop_index(op.f("ix_person_merged_into"), table_name="person")
    op.drop_column("person", "merged_into")
    op.drop_index(
        "ix_outbox_provider",
        table_name="outbox",
        sqlite_where=sa.text("provider_id <> ''"),
        postgresql_where=sa.text("provider_id <> ''"),
    )
    op.drop_column("contact", "preferred_at")
    op.drop_index(op.f("ix_cover_recipient_person_id"), table_name="cover_recipient")
    op.drop_table("cover_recipient")
    op.drop_index(op.f("ix_cover_state"), table_name="cover")
    op.drop_index(op.f("ix_cover_month"), table_name="cover")
    op.drop_index(op.f("ix_cover_job"), table_name="cover")
    op.drop_index(op.f("ix_cover_campaign_id"), table_name="cover")
    op.drop_table("cover")
    op.drop_table("wechat_notice_grant")
    op.drop_index(op.f("ix_wechat_follower_unionid"), table_name="wechat_follower")
    op.drop_table("wechat_follower")
    op.drop_index(op.f("ix_taken_message_person_id"), table_name="taken_message")
    op.drop_index(op.f("ix_taken_message_channel"), table_name="taken_message")
    op.drop_table("taken_message")
    op.drop_index(op.f("ix_staff_task_group_id"), table_name="staff_task")
    op.drop_index(op.f("ix_staff_task_due_at"), table_name="staff_task")
    op.drop_table("staff_task")
    op.drop_index(op.f("ix_scene_code_state"), table_name="scene_code")
    op.drop_index(op.f("ix_scene_code_scene"), table_name="scene_code")
    op.drop_table("scene_code")
    op.drop_index(op.f("ix_person_link_person_id"), table_name="person_link")
    op.drop_index(op.f("ix_person_link_other_id"), table_name="person_link")
    op.drop_table("person_link")
    op.drop_index(op.f("ix_group_notice_state"), table_name="group_notice")
    op.drop_table("group_notice")
    op.drop_index(op.f("ix_customer_group_member_unionid"), table_name="customer_group_member")
    op.drop_index(op.f("ix_customer_group_member_person_id"), table_name="customer_group_member")
    op.drop_index(op.f("ix_customer_group_member_group_id"), table_name="customer_group_member")
    op.drop_table("customer_group_member")
    op.drop_index(op.f("ix_conversation_person_id"), table_name="conversation")
    op.drop_table("conversation")
    op.drop_index(op.f("ix_arrival_scene"), table_name="arrival")
    op.drop_table("arrival")
    op.drop_index(op.f("ix_sending_at"), table_name="sending")
    op.drop_table("sending")
    op.drop_table("platform_token")
    op.drop_table("lease")
    op.drop_table("door")
    op.drop_index(op.f("ix_customer_group_due_at"), table_name="customer_group")
    op.drop_table("customer_group")
    op.drop_table("cursor")
    op.drop_table("chat_pace")
    op.drop_index(op.f("ix_answer_url_owner"), table_name="answer_url")
    op.drop_index(op.f("ix_answer_url_expires_at"), table_name="answer_url")
    op.drop_table("answer_url")
