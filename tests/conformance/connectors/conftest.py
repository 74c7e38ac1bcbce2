"""Runs the suite over every kind of cluster this tree has a connector for."""

from __future__ import annotations

import pytest

from tests.conformance.connectors.under_test import ConnectorUnderTest, MemoryUnderTest

KINDS = {"memory": MemoryUnderTest}
EXPIRING_KINDS = ("memory",)


async def _started(kind: str):
    under_test: ConnectorUnderTest = KINDS[kind]()
    await under_test.start()
    try:
        yield under_test
    finally:
        await under_test.stop()


@pytest.fixture(params=list(KINDS))
async def cluster(request):
    """The cluster under test, of each kind."""
    async for under_test in _started(request.param):
        yield under_test


@pytest.fixture(params=EXPIRING_KINDS)
async def expiring(request):
    """As ``cluster``, for kinds whose retention a test can trigger."""
    async for under_test in _started(request.param):
        yield under_test


@pytest.fixture
async def connector(cluster):
    return await cluster.connector()
