"""The errors that are part of the conversation; anything else is a bug."""

from __future__ import annotations


class UserError(Exception):
    """Said to the person as it stands: what is wrong and what to do next.

    What the handler wrote before raising it is rolled back.
    """


class SendError(Exception):
    """A channel could not deliver.

    `reason` is a short stable word for the ledger (`blocked`, `window`, `quota` …).
    `permanent`: asking again will not help. `retry_after`: seconds the platform asked for, of this
    address alone if `only_here`, else of the whole channel.
    `unknown`: the message may have left; it must not be sent again blindly.
    `stop_channel`: nothing on this channel can leave until a person acts.
    """

    def __init__(
        self,
        reason: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        unknown: bool = False,
        stop_channel: bool = False,
        only_here: bool = False,
        detail: str = "",
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.permanent = permanent
        self.retry_after = retry_after
        self.unknown = unknown
        self.stop_channel = stop_channel
        self.only_here = only_here
        self.detail = detail


class NotYet(Exception):
    """What a platform tells of is not written down here yet: it is to be told again in a while."""


class ConfigError(Exception):
    """The settings or the place file are wrong; the text is one line for an operator."""
