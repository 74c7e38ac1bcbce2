"""Runs the suite over every kind of cluster this tree has a connector for."""

from __future__ import annotations

import importlib

import pytest

from deploy.local import LocalCluster, running_clusters
from tests.conformance.connectors.subject import ConnectorUnderTest, MemoryUnderTest

HAS_ROCKETMQ = hasattr(importlib.import_module("connectors.rocketmq"), "factory")
FAKE_KINDS = ["memory", "fake", "namespaced"] if HAS_ROCKETMQ else ["memory"]
KINDS = [*FAKE_KINDS, pytest.param("rocketmq", marks=pytest.mark.rocketmq)] if HAS_ROCKETMQ else FAKE_KINDS


@pytest.fixture(scope="package")
def real_name_server():
    """Of one RocketMQ cluster."""
    cluster = LocalCluster("conformance")
    with running_clusters(cluster):
        yield cluster.name_servers


def make(kind: str, request: pytest.FixtureRequest) -> ConnectorUnderTest:
    if kind == "memory":
        return MemoryUnderTest()
    # Only here, so that the suite runs over memory in a tree without RocketMQ's connector.
    from tests.conformance.connectors.rocketmq_subject import FakeUnderTest, NamespacedUnderTest, RocketMQUnderTest

    if kind == "rocketmq":
        return RocketMQUnderTest(request.getfixturevalue("real_name_server"))
    return NamespacedUnderTest() if kind == "namespaced" else FakeUnderTest()


async def started(under_test: ConnectorUnderTest):
    try:
        await under_test.start()
        yield under_test
    finally:
        await under_test.stop()


@pytest.fixture(params=KINDS)
def made(request):
    return make(request.param, request)


@pytest.fixture(params=FAKE_KINDS)
def made_expiring(request):
    return make(request.param, request)


@pytest.fixture
async def cluster(made):
    """The cluster under test, of each kind."""
    async for under_test in started(made):
        yield under_test


@pytest.fixture
async def expiring(made_expiring):
    """As ``cluster``, for kinds whose retention a test can trigger."""
    async for under_test in started(made_expiring):
        yield under_test


@pytest.fixture
async def connector(cluster):
    return await cluster.connector()
