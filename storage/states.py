"""Where a message that is to leave may stand, and what may become of it from there."""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where an outbox row stands; `TRANSITIONS` says which may follow which."""

    HELD = "held"
    QUEUED = "queued"
    DEFERRED = "deferred"
    LEASED = "leased"
    SENDING = "sending"
    AWAITING_STAFF = "awaiting_staff"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    DEAD = "dead"
    UNKNOWN = "unknown"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


STATE_WORDS: Mapping[State, str] = {
    State.HELD: "暂停",
    State.QUEUED: "排队",
    State.DEFERRED: "顺延",
    State.LEASED: "待发",
    State.SENDING: "发送中",
    State.AWAITING_STAFF: "待员工确认",
    State.SENT: "已发出",
    State.DELIVERED: "已送达",
    State.READ: "已读",
    State.FAILED: "失败",
    State.DEAD: "多次未成",
    State.UNKNOWN: "未知",
    State.SUPPRESSED: "不发",
    State.CANCELLED: "已取消",
    State.EXPIRED: "已过期",
}

WAITING = (State.HELD, State.QUEUED, State.DEFERRED, State.LEASED)
"""States in which a row can still be stopped."""

OPEN = (*WAITING, State.SENDING)
"""States that a campaign still has before it when it asks whether it is done."""

TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.HELD: frozenset(
        {State.QUEUED, State.CANCELLED, State.SUPPRESSED, State.EXPIRED, State.UNKNOWN}
    ),
    State.QUEUED: frozenset(
        {
            State.LEASED,
            State.HELD,
            State.CANCELLED,
            State.SUPPRESSED,
            State.EXPIRED,
            State.UNKNOWN,
        }
    ),
    State.DEFERRED: frozenset(
        {
            State.QUEUED,
            State.HELD,
            State.CANCELLED,
            State.SUPPRESSED,
            State.EXPIRED,
            State.UNKNOWN,
        }
    ),
    State.LEASED: frozenset(
        {
            State.SENDING,
            State.QUEUED,
            State.HELD,
            State.DEFERRED,
            State.CANCELLED,
            State.SUPPRESSED,
            State.EXPIRED,
            State.FAILED,
            State.UNKNOWN,
        }
    ),
    State.SENDING: frozenset(
        {
            State.SENT,
            State.AWAITING_STAFF,
            State.FAILED,
            State.DEAD,
            State.UNKNOWN,
            State.QUEUED,
            State.DEFERRED,
        }
    ),
    State.AWAITING_STAFF: frozenset(
        {State.SENT, State.FAILED, State.CANCELLED, State.EXPIRED, State.SUPPRESSED}
    ),
    State.UNKNOWN: frozenset(
        {
            State.SENT,
            State.AWAITING_STAFF,
            State.FAILED,
            State.DEAD,
            State.QUEUED,
            State.DEFERRED,
        }
    ),
    State.SENT: frozenset({State.DELIVERED, State.READ, State.FAILED}),
    State.DELIVERED: frozenset({State.READ}),
    State.READ: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.DEAD: frozenset({State.QUEUED}),
    State.SUPPRESSED: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
}
