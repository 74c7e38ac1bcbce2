"""Errors as instructions: the class of an error tells the engine what to do next.

``NotConnected``  reopen and try again;  ``Throttled``  wait, then try again;
``Refused``  stop this assignment and show a person;  ``Fenced``  somebody else owns it: drop everything at once.
Messages name the cluster, topic, queue and offset concerned; ``hint`` says what a person can do.
"""

from __future__ import annotations


class ReplicatorError(Exception):
    """Base of every error the product raises on purpose. ``hint`` is one sentence for the operator, or empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NotConnected(ReplicatorError):
    """The peer cannot be reached now. Reopen with back-off."""


class Throttled(ReplicatorError):
    """The peer asks for patience and has stored nothing. Wait ``retry_after_seconds``, then try the same again."""

    def __init__(self, message: str, *, retry_after_seconds: float = 0.5, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class Refused(ReplicatorError):
    """The peer, or our own safety rule, said no for good: stop this assignment and show the reason to a person."""


class NotPermitted(Refused):
    """The account lacks a right, or its key was not accepted."""


OUT_OF_REACH = (NotConnected, NotPermitted)
"""A cluster that does not answer, or does not let us in: where a person may go on without it, both are the same."""


class NotFound(Refused):
    """The topic, queue or group does not exist there."""


class HistoryChanged(Refused):
    """The source queue is not the one we copied from: truncated, re-created, restored or swapped.

    ``lost_from``/``lost_to`` (source offsets, half open) are what is gone unread, when that is known.
    """

    def __init__(self, message: str, *, lost_from: int | None = None, lost_to: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.lost_from = lost_from
        self.lost_to = lost_to


class Fenced(ReplicatorError):
    """Another holder owns this assignment. Send nothing more, save nothing, let go."""


class InvalidInput(ReplicatorError):
    """A file, flag or name given by a person is wrong. CLI exit code 2."""


class Missing(ReplicatorError):
    """The object a person named does not exist. CLI exit code 3."""


class Unsafe(ReplicatorError):
    """Refused for safety; ``hint`` names the flag that overrides it, if there is one. CLI exit code 4."""
