"""What an error means to a person outside: the exit code of a command, the HTTP status of an answer."""

from __future__ import annotations

from replicator.core.errors import InvalidInput, Missing, NotConnected, ReplicatorError, Throttled, Unsafe
from replicator.store.port import StoreUnavailable

DONE = 0
FAILED = 1
INVALID = 2
MISSING = 3
UNSAFE = 4

_EXIT_CODES: tuple[tuple[type[ReplicatorError], int], ...] = ((InvalidInput, INVALID), (Missing, MISSING), (Unsafe, UNSAFE))
_HTTP_STATUSES: tuple[tuple[type[ReplicatorError], int], ...] = (
    (InvalidInput, 400), (Missing, 404), (Unsafe, 409), (StoreUnavailable, 503), (NotConnected, 503), (Throttled, 503),
)


def exit_code(error: BaseException) -> int:
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), FAILED)


def http_status(error: BaseException) -> int:
    return next((status for kind, status in _HTTP_STATUSES if isinstance(error, kind)), 500)


def cause_of(error: BaseException) -> BaseException:
    """The error to show of a group: the first one raised on purpose, else the first."""
    leaves = _leaves(error)
    return next((leaf for leaf in leaves if isinstance(leaf, ReplicatorError)), leaves[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
