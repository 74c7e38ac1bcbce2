"""Real clusters that tests stop, starve and damage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local import LocalCluster, running_clusters
from tests.acceptance.conftest import replicator
from tests.acceptance.process import ReplicatorProcess, cluster_yaml, task_yaml
from tests.acceptance.process import one_way as spec_of_one_way
from tests.integration.conftest import PATIENT, topic_name, witness

__all__ = ["replicator", "topic_name", "witness"]

COMMIT_LOG_FILE_BYTES = 8 * 1024 * 1024
"""Small enough that a test can fill one and delete it."""
SMALL_MESSAGE_BYTES_MAX = 1024 * 1024


@pytest.fixture(scope="package")
def rough_clusters() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    """A source and a destination for tests that stop, starve and damage them. The destination takes messages of 1 MiB at most.
    Every test leaves both running and whole."""
    small_files = {"mapedFileSizeCommitLog": COMMIT_LOG_FILE_BYTES, "mappedFileSizeCommitLog": COMMIT_LOG_FILE_BYTES}
    source = LocalCluster("nanjing", broker_properties=PATIENT | small_files)
    destination = LocalCluster("tianjin", broker_properties=PATIENT | {"maxMessageSize": SMALL_MESSAGE_BYTES_MAX})
    with running_clusters(source, destination):
        yield source, destination


@pytest.fixture
def one_way(rough_clusters, witness, replicator, topic_name):
    """Makes a running one-way process over a new topic: ``process, topic = one_way("faults")``."""
    source, destination = rough_clusters

    def make(stem: str, *lines: str, queues: int = 2) -> tuple[ReplicatorProcess, str]:
        topic = topic_name(stem)
        witness.create_topic(source.name_servers, topic, queues=queues)
        body = spec_of_one_way(source.name, destination.name) + "".join(f"  {line}\n" for line in lines)
        clusters = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in rough_clusters]
        process = replicator(*clusters, task_yaml(stem, topic, body))
        process.start()
        process.wait_ready()
        process.wait_topic(witness, destination.name_servers, topic)
        return process, topic

    return make
