"""Every table, imported once, so that the metadata is whole for migrations and the privacy walk."""

from sqlmodel import SQLModel

from storage import (
    approvals,
    audit,
    bubbles,
    campaigns,
    dialogs,
    events,
    jobs,
    mailbox,
    organisation,
    people,
    profiles,
    reports,
    sequences,
)

MODULES = (
    approvals,
    audit,
    bubbles,
    campaigns,
    dialogs,
    events,
    jobs,
    mailbox,
    organisation,
    people,
    profiles,
    reports,
    sequences,
)
METADATA = SQLModel.metadata
