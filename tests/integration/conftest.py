"""Real RocketMQ clusters, once a folder of tests: an idle broker takes a tenth of a core from whatever comes after."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from deploy.local import LocalCluster, running_clusters
from tests.witness.client import Witness

PATIENT = {"waitTimeMillsInSendQueue": 5000}
"""On a loaded machine a broker throws sends away that waited for 200 ms; the witness's producers do not send again."""


@pytest.fixture(scope="package")
def two_clusters() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    """Two independent clusters, one broker each; topics have to be created."""
    hangzhou, shanghai = (LocalCluster(name, broker_properties=PATIENT) for name in ("hangzhou", "shanghai"))
    with running_clusters(hangzhou, shanghai):
        yield hangzhou, shanghai


@pytest.fixture(scope="package")
def witness() -> Iterator[Witness]:
    """The official client's programs, in one JVM."""
    with Witness() as running:
        yield running


@pytest.fixture(scope="session")
def topic_name() -> Callable[[str], str]:
    """Makes names no other test uses: ``topic_name("orders")``."""
    return lambda stem: f"{stem}-{uuid.uuid4().hex[:8]}"
