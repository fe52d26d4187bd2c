"""A group whose address has changed: what is kept under the old one goes on under the new."""

from sqlalchemy import Connection, exists, not_, update
from sqlalchemy.orm import aliased
from sqlmodel import col

from storage.mailbox import TABLE
from storage.people import Contact


def move_group(connection: Connection, old: str, new: str) -> int:
    """Rewrite a group's address (`channel:account:user`) wherever it stands; returns how many rows.

    What has already left moves too: its occasion must not be told in the new group once more.
    """
    other = TABLE.alias("other")
    told = exists().where(other.c.occasion == TABLE.c.occasion, other.c.recipient == f"g{new}")
    moved = connection.execute(
        update(TABLE)
        .where(TABLE.c.recipient == f"g{old}", not_(told))
        .values(address=new, recipient=f"g{new}")
    ).rowcount
    there = aliased(Contact)
    known = exists().where(col(there.address) == new)
    return (
        moved
        + connection.execute(
            update(Contact).where(col(Contact.address) == old, not_(known)).values(address=new)
        ).rowcount
    )
