"""What is declared now, read from the store in one go, in the terms of ``core.task`` and ``core.graph``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from replicator.config import task_from_spec
from replicator.core.graph import GraphFlow
from replicator.core.patterns import TopicRules
from replicator.core.task import Cluster, ReplicationTask
from replicator.store.port import ClusterRow, Flow, Store


@dataclass(frozen=True, slots=True)
class Declared:
    rows: dict[str, ClusterRow]
    tasks: dict[str, ReplicationTask]
    flows: tuple[Flow, ...]

    def cluster(self, name: str) -> Cluster:
        return cluster_of(self.rows[name])

    def names_by_id(self) -> dict[str, str]:
        return {row.cluster_id: row.name for row in self.rows.values() if row.cluster_id is not None}


async def load(store: Store) -> Declared:
    rows = {row.name: row for row in await store.clusters()}
    tasks = {row.name: task_from_spec(row.name, row.spec) for row in await store.tasks()}
    return Declared(rows, tasks, tuple(flow for flow in await store.flows() if flow.task in tasks))


def cluster_of(row: ClusterRow) -> Cluster:
    return Cluster(row.name, row.connector, row.settings, row.region)


def rules_of(task: ReplicationTask) -> TopicRules:
    return TopicRules(task.include, task.exclude, task.rename)


def graph_of(tasks: Iterable[ReplicationTask]) -> list[GraphFlow]:
    """Declared names stand for clusters: no id is ever under two of them."""
    return [
        GraphFlow(task.name, source, destination, rules_of(task), task.relay)
        for task in tasks
        for source, destination in task.flows
    ]
