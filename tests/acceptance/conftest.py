"""Real clusters, the official Java client and the product as a process, for every acceptance test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.process import ReplicatorProcess, cluster_yaml
from tests.integration.conftest import topic_name, two_clusters, witness

__all__ = ["topic_name", "two_clusters", "witness"]


@pytest.fixture
def replicator(tmp_path: Path):
    """Makes a process from YAML documents; whatever is left of it ends with the test."""
    made: list[ReplicatorProcess] = []

    def make(*documents: str, name: str = "data", **options: object) -> ReplicatorProcess:
        file = tmp_path / f"{name}.yaml"
        file.write_text("---\n".join(documents))
        process = ReplicatorProcess(file, tmp_path / name, **options)  # type: ignore[arg-type]
        made.append(process)
        return process

    yield make
    for process in made:
        process.end()


@pytest.fixture
def cluster_documents(two_clusters) -> list[str]:
    return [cluster_yaml(cluster.name, cluster.name_servers) for cluster in two_clusters]
