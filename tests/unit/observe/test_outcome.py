"""Errors and what they mean outside."""

import pytest

from replicator.core.errors import InvalidInput, Missing, NotConnected, Refused, ReplicatorError, Unsafe
from replicator.observe.outcome import cause_of, exit_code, http_status
from replicator.store.port import Conflict, StoreUnavailable


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (InvalidInput("x"), 2, 400), (Missing("x"), 3, 404), (Unsafe("x"), 4, 409), (Conflict("x"), 4, 409),
        (NotConnected("x"), 1, 503), (StoreUnavailable("x"), 1, 503), (Refused("x"), 1, 500), (ReplicatorError("x"), 1, 500),
        (ValueError("x"), 1, 500),
    ],
)
def test_codes(error, code, status):
    assert (exit_code(error), http_status(error)) == (code, status)


def test_of_a_group_the_error_raised_on_purpose_is_shown():
    wanted = Unsafe("no")
    group = ExceptionGroup("all", [ValueError("bug"), ExceptionGroup("inner", [wanted])])
    assert cause_of(group) is wanted
    assert cause_of(wanted) is wanted
