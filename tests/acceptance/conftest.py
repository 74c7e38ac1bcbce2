"""Real clusters, the official Java client and the product as a process, for every acceptance test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local import LocalCluster, start_clusters, stop_clusters
from tests.acceptance.process import ReplicatorProcess, cluster_yaml, task_yaml
from tests.acceptance.process import one_way as spec_of_one_way
from tests.integration.conftest import PATIENT, topic_name, two_clusters, witness

__all__ = ["topic_name", "two_clusters", "witness"]


@contextmanager
def _processes(folder: Path) -> Iterator[Callable[..., ReplicatorProcess]]:
    made: list[ReplicatorProcess] = []

    def make(*documents: str, name: str = "data", **options: object) -> ReplicatorProcess:
        file = folder / f"{name}.yaml"
        file.write_text("---\n".join(documents))
        process = ReplicatorProcess(file, folder / name, **options)  # type: ignore[arg-type]
        made.append(process)
        return process

    try:
        yield make
    finally:
        for process in made:
            process.end()


@pytest.fixture
def replicator(tmp_path: Path):
    """Makes a process from YAML documents; whatever is left of it ends with the test."""
    with _processes(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def module_replicator(tmp_path_factory: pytest.TempPathFactory):
    """As ``replicator``, for a process that all tests of a module share."""
    with _processes(tmp_path_factory.mktemp("replicator")) as make:
        yield make


@pytest.fixture
def cluster_documents(two_clusters) -> list[str]:
    return [cluster_yaml(cluster.name, cluster.name_servers) for cluster in two_clusters]


COMMIT_LOG_FILE_BYTES = 8 * 1024 * 1024
"""Small enough that a test can fill one and delete it."""
SMALL_MESSAGE_BYTES_MAX = 1024 * 1024


@pytest.fixture(scope="session")
def rough_clusters() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    """A source and a destination for tests that stop, starve and damage them. The destination takes messages of 1 MiB at most.
    Every test leaves both running and whole."""
    small_files = {"mapedFileSizeCommitLog": COMMIT_LOG_FILE_BYTES, "mappedFileSizeCommitLog": COMMIT_LOG_FILE_BYTES}
    source = LocalCluster("nanjing", broker_properties=PATIENT | small_files)
    destination = LocalCluster("tianjin", broker_properties=PATIENT | {"maxMessageSize": SMALL_MESSAGE_BYTES_MAX})
    start_clusters(source, destination)
    try:
        yield source, destination
    finally:
        stop_clusters(source, destination)


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
