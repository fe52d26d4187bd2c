"""Every table, imported once, so that the metadata is whole for migrations and the privacy walk."""

from sqlmodel import SQLModel

from storage import (
    approvals,
    audit,
    campaigns,
    dialogs,
    jobs,
    mailbox,
    organisation,
    people,
    profiles,
    sequences,
)

MODULES = (
    approvals,
    audit,
    campaigns,
    dialogs,
    jobs,
    mailbox,
    organisation,
    people,
    profiles,
    sequences,
)
METADATA = SQLModel.metadata
