"""What WeChat alone tells of its followers: the union id, and which notices they have agreed to.

The platform counts one-time agreements but lets nobody read the count, so the ledger is ours.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, exists, select, update
from sqlmodel import Field, SQLModel, col

from storage.columns import UtcDateTime, personal
from storage.driver import on_conflict_base
from storage.mailbox import TABLE
from storage.people import Contact, Person
from storage.states import State


class Follower(SQLModel, table=True):
    """What the platform told of one follower; no row: it has not been asked yet.

    `unionid` is the same for every account of one owner, so that a member of a customer group is
    found again; None where the account is not bound to any such owner.
    """

    __tablename__ = "wechat_follower"
    __table_args__ = {"info": {"erase": "delete"}}

    person_id: int = Field(foreign_key="person.id", primary_key=True)
    unionid: str | None = Field(
        default=None,
        index=True,
        sa_column_kwargs=personal("收发消息", "同一主体各微信渠道间的标识"),
    )
    asked_at: datetime = Field(sa_type=UtcDateTime)


class NoticeGrant(SQLModel, table=True):
    """How many notices of a template somebody still takes.

    `left` counts one-time agreements that were given and not yet used up; `lasting` is a long-term
    one, which no notice uses up.
    """

    __tablename__ = "wechat_notice_grant"
    __table_args__ = {"info": {"erase": "delete"}}

    person_id: int = Field(foreign_key="person.id", primary_key=True)
    template: str = Field(
        primary_key=True, sa_column_kwargs=personal("收发消息", "您同意接收的订阅通知")
    )
    left: int = 0
    lasting: bool = False
    changed_at: datetime = Field(sa_type=UtcDateTime)


# - followers -


def in_flight(connection: Connection, address: str) -> bool:
    """Is something on its way to this address whose end, and so its number, is not written yet?"""
    whose = select(col(Contact.person_id)).where(col(Contact.address) == address).scalar_subquery()
    mine = exists().where(
        TABLE.c.person_id == whose,
        TABLE.c.address == address,
        TABLE.c.state.in_([State.SENDING, State.UNKNOWN]),
    )
    return bool(connection.execute(select(mine)).scalar())


def never_asked(connection: Connection, channel: str, count: int) -> Sequence[tuple[int, str]]:
    """(person, address) of followers whose union id nobody has asked for; none of those who left.

    Who withdrew or asked for silence is not looked up again.
    """
    known = exists().where(col(Follower.person_id) == col(Contact.person_id))
    rows = connection.execute(
        select(col(Contact.person_id), col(Contact.address))
        .join(Person, col(Person.id) == col(Contact.person_id))
        .where(
            col(Contact.channel) == channel,
            col(Contact.reachable),
            col(Person.silent_since).is_(None),
            ~known,
        )
        .order_by(col(Contact.id))
        .limit(count)
    )
    return [(person_id, address) for person_id, address in rows]


def keep_unionid(
    connection: Connection, person_id: int, unionid: str | None, now: datetime
) -> None:
    """Remember what the platform said; who has been erased meanwhile stays forgotten."""
    still_here = select(col(Person.id)).where(
        col(Person.id) == person_id, col(Person.silent_since).is_(None)
    )
    if connection.execute(still_here).first() is None:
        return
    statement = on_conflict_base(connection, Follower.__table__)  # type: ignore[attr-defined]
    connection.execute(
        statement.values(person_id=person_id, unionid=unionid, asked_at=now).on_conflict_do_update(
            index_elements=["person_id"], set_={"unionid": unionid, "asked_at": now}
        )
    )


# - the ledger of agreements -


def agree(
    connection: Connection, person_id: int, template: str, now: datetime, *, lasting: bool = False
) -> None:
    """One more agreement; a lasting one stands until it is taken back."""
    more = 0 if lasting else 1
    new = {"left": more, "lasting": lasting, "changed_at": now}
    changed = {"left": col(NoticeGrant.left) + more, "changed_at": now}
    statement = on_conflict_base(connection, NoticeGrant.__table__)  # type: ignore[attr-defined]
    connection.execute(
        statement.values(person_id=person_id, template=template, **new).on_conflict_do_update(
            index_elements=["person_id", "template"],
            set_=changed | ({"lasting": True} if lasting else {}),
        )
    )


def refuse(connection: Connection, person_id: int, template: str, now: datetime) -> None:
    """Whatever was agreed to is over."""
    connection.execute(
        update(NoticeGrant)
        .where(col(NoticeGrant.person_id) == person_id, col(NoticeGrant.template) == template)
        .values(left=0, lasting=False, changed_at=now)
    )


def use_up(connection: Connection, person_id: int, template: str, now: datetime) -> bool:
    """Take one agreement, before the call that needs it; False where there is none.

    One statement takes it, so that of two workers who want the last one only one gets it.
    """
    mine = (col(NoticeGrant.person_id) == person_id, col(NoticeGrant.template) == template)
    lasting = select(col(NoticeGrant.person_id)).where(*mine, col(NoticeGrant.lasting))
    if connection.execute(lasting).first() is not None:
        return True
    taken = connection.execute(
        update(NoticeGrant)
        .where(*mine, col(NoticeGrant.left) > 0)
        .values(left=col(NoticeGrant.left) - 1, changed_at=now)
    )
    return bool(taken.rowcount)


def put_back(connection: Connection, person_id: int, template: str, now: datetime) -> None:
    """A notice for which an agreement was taken has certainly not left."""
    connection.execute(
        update(NoticeGrant)
        .where(
            col(NoticeGrant.person_id) == person_id,
            col(NoticeGrant.template) == template,
            ~col(NoticeGrant.lasting),
        )
        .values(left=col(NoticeGrant.left) + 1, changed_at=now)
    )
