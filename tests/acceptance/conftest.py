"""Real clusters, the official Java client and the product as a process, for every acceptance test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.process import ReplicatorProcess, cluster_yaml
from tests.integration.conftest import topic_name, two_clusters, witness

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
