"""What a person is told about a database that is not there."""

from __future__ import annotations

import pytest

from replicator.store.driver import where_of, wrapped_errors
from replicator.store.port import StoreUnavailable


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql+asyncpg://someone:hunter2@db.example:6543/replicator", "db.example:6543/replicator"),
        ("postgresql+asyncpg://someone@db.example/replicator", "db.example:5432/replicator"),
        ("postgresql+asyncpg:///replicator", "localhost:5432/replicator"),
    ],
)
def test_where(url, where):
    assert where_of(url) == where


def test_a_refused_connection_names_the_database_and_no_password():
    with pytest.raises(StoreUnavailable) as caught, wrapped_errors("postgresql+asyncpg://someone:hunter2@db.example/replicator"):
        raise ConnectionRefusedError(111, "Connection refused")
    assert "db.example:5432/replicator cannot be reached" in str(caught.value)
    assert "hunter2" not in str(caught.value)
