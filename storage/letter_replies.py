"""What members answer to a letter that reached them, kept for the coordinators to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, and_, delete, func, or_, select, text, update
from sqlmodel import Field, Session, SQLModel, col

from storage.campaigns import Campaign
from storage.columns import EncryptedText, UtcDateTime, personal
from storage.mailbox import TABLE as OUTBOX
from storage.states import State

PASSED_ON = "转交您的回信"


class ReplyKind(StrEnum):
    """What somebody means by an answer: a courtesy, a question, or anything else."""

    COURTESY = "courtesy"
    QUESTION = "question"
    WORDS = "words"


class LetterReply(SQLModel, table=True):
    """One answer of one member to one campaign; `answer` is what a coordinator wrote back.

    A courtesy (收到, 新年好) is born read: only what wants a person's eyes counts as unread.
    `key` is the message's in the inbox, for who takes it back.
    """

    __tablename__ = "letter_reply"
    __table_args__ = {"info": {"erase": "delete"}}

    id: int | None = Field(default=None, primary_key=True)
    campaign_id: int = Field(foreign_key="campaign.id", index=True)
    person_id: int = Field(foreign_key="person.id", index=True)
    key: str = Field(sa_column_kwargs=personal(PASSED_ON, "回信所在的消息"))
    kind: str
    text: str = Field(sa_type=EncryptedText, sa_column_kwargs=personal(PASSED_ON, "您的回信"))
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    read_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    answer: str | None = Field(
        default=None, sa_type=EncryptedText, sa_column_kwargs=personal(PASSED_ON, "给您的答复")
    )
    answered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


_REPLIES: Any = LetterReply.__table__  # type: ignore[attr-defined]  # SQLModel sets it
_ARRIVED = (State.SENT, State.DELIVERED, State.READ)
_PLAIN = col(LetterReply.kind) != ReplyKind.COURTESY


# - which letter is meant -


def letter_at(connection: Connection, address: str, provider_id: str) -> int | None:
    """The campaign whose bubble at this address the platform knows by an id."""
    found = connection.execute(
        select(OUTBOX.c.campaign_id).where(
            OUTBOX.c.provider_id == provider_id,
            text("outbox.provider_id <> ''"),  # said beside it, or the partial index is not used
            OUTBOX.c.address == address,
            OUTBOX.c.campaign_id.is_not(None),
        )
    ).first()
    return None if found is None else int(found.campaign_id)


def last_letter(connection: Connection, person_id: int, since: datetime) -> int | None:
    """The campaign that reached a person last, if after a moment."""
    found = connection.execute(
        select(OUTBOX.c.campaign_id)
        .where(
            OUTBOX.c.person_id == person_id,
            OUTBOX.c.campaign_id.is_not(None),
            OUTBOX.c.state.in_(_ARRIVED),
            OUTBOX.c.sent_at >= since,
        )
        .order_by(OUTBOX.c.sent_at.desc(), OUTBOX.c.id.desc())
        .limit(1)
    ).first()
    return None if found is None else int(found.campaign_id)


def latest(session: Session, campaign_id: int, person_id: int) -> tuple[int, datetime | None]:
    """How often a person has answered a campaign, and when last."""
    count, at = session.execute(
        select(func.count(), func.max(_REPLIES.c.at)).where(
            _REPLIES.c.campaign_id == campaign_id, _REPLIES.c.person_id == person_id
        )
    ).one()
    return int(count), at


def take_back(session: Session, person_id: int, key: str) -> bool:
    """Delete the answer that somebody took back; False if there is none."""
    mine = delete(_REPLIES).where(_REPLIES.c.person_id == person_id, _REPLIES.c.key == key)
    return bool(session.execute(mine).rowcount)  # type: ignore[attr-defined]  # a delete has one


# - the box -


@dataclass(frozen=True, slots=True)
class Tally:
    """How many answered a campaign with words, how many of these are unread, and how many
    answers were a courtesy."""

    words: int = 0
    unread: int = 0
    courtesies: int = 0


def tallies(session: Session, campaign_ids: Sequence[int] | None = None) -> dict[int, Tally]:
    """Campaign id → its tally, of those that were answered; the newest campaign first."""
    query = (
        select(
            _REPLIES.c.campaign_id,
            func.count().filter(_PLAIN),
            func.count().filter(and_(_PLAIN, _REPLIES.c.read_at.is_(None))),
            func.count().filter(~_PLAIN),
        )
        .group_by(_REPLIES.c.campaign_id)
        .order_by(_REPLIES.c.campaign_id.desc())
    )
    if campaign_ids is not None:
        query = query.where(_REPLIES.c.campaign_id.in_(campaign_ids))
    return {row[0]: Tally(*row[1:]) for row in session.execute(query)}


def unread(session: Session, since: datetime | None = None) -> int:
    """How many answers nobody has read; of those only that came since a moment, if given."""
    query = select(func.count()).select_from(_REPLIES).where(_REPLIES.c.read_at.is_(None))
    if since is not None:
        query = query.where(_REPLIES.c.at >= since)
    return int(session.execute(query).scalar_one())


def page_of(
    session: Session, campaign_id: int, offset: int, count: int, *, courtesies: bool = False
) -> list[LetterReply]:
    """Answers to a campaign, the unread first, then the newest; or its courtesies."""
    rows = session.execute(
        select(LetterReply)
        .where(col(LetterReply.campaign_id) == campaign_id, ~_PLAIN if courtesies else _PLAIN)
        .order_by(
            col(LetterReply.read_at).is_not(None),
            col(LetterReply.at).desc(),
            col(LetterReply.id).desc(),
        )
        .offset(offset)
        .limit(count)
    )
    return list(rows.scalars())


def mark_read(
    session: Session,
    now: datetime,
    *,
    ids: Sequence[int] = (),
    campaign_id: int | None = None,
) -> int:
    """Note that answers were read, by their numbers or all of a campaign; returns how many."""
    done = session.execute(
        update(_REPLIES)
        .where(
            or_(_REPLIES.c.id.in_(ids), _REPLIES.c.campaign_id == campaign_id),
            _REPLIES.c.read_at.is_(None),
        )
        .values(read_at=now)
    )
    return int(done.rowcount)  # type: ignore[attr-defined]  # an update's result has one


def campaigns_called(session: Session, words: str) -> list[Campaign]:
    """Answered campaigns in whose title these words stand, the newest first."""
    answered = select(_REPLIES.c.id).where(_REPLIES.c.campaign_id == col(Campaign.id)).exists()
    rows = session.execute(
        select(Campaign)
        .where(col(Campaign.title).contains(words, autoescape=True), answered)
        .order_by(col(Campaign.id).desc())
        .limit(5)
    )
    return list(rows.scalars())


def forget_replies(session: Session, before: datetime, most: int) -> int:
    """Delete answers that came before a moment, at most so many; returns how many."""
    old = select(_REPLIES.c.id).where(_REPLIES.c.at < before).order_by(_REPLIES.c.id).limit(most)
    done = session.execute(delete(_REPLIES).where(_REPLIES.c.id.in_(old)))
    return int(done.rowcount)  # type: ignore[attr-defined]  # a delete's result has one
