"""Applying declarations: everything is judged, and every cluster asked, before anything is written."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from replicator.config import task_from_spec, task_to_spec
from replicator.coordinator.clusters import Clusters, identify, new_cluster_id
from replicator.coordinator.reconcile import cluster_of
from replicator.core.connector import Connector
from replicator.core.errors import InvalidInput, ReplicatorError, Unsafe
from replicator.core.graph import judge
from replicator.core.patterns import TopicRules
from replicator.core.task import LIVE_FIELDS, Cluster, ReplicationTask
from replicator.store.port import ClusterRow, Store


@dataclass(slots=True)
class Plan:
    """What an apply is about to do. ``ids``: lasting id by cluster name, None where a mark has yet to be written."""

    clusters: dict[str, Cluster]
    tasks: list[ReplicationTask]
    connectors: dict[str, Connector]
    ids: dict[str, str | None]
    known: dict[str, ClusterRow]


async def plan_apply(store: Store, clusters: Clusters, declared: Sequence[Cluster], tasks: Sequence[ReplicationTask]) -> Plan:
    """Raises ``InvalidInput``, ``Unsafe`` or what a cluster's connection raises."""
    known = {row.name: row for row in await store.clusters()}
    everything = {name: cluster_of(row) for name, row in known.items()} | {cluster.name: cluster for cluster in declared}
    living = {row.name: task_from_spec(row.name, row.spec) for row in await store.tasks()}
    for task in tasks:
        _check_names(task, everything)
        if task.name in living:
            _check_changes(living[task.name], task)
    findings = judge(list((living | {task.name: task for task in tasks}).values()))
    if findings:
        raise Unsafe("; ".join(findings))
    needed = {name for task in tasks for name in task.clusters} | {cluster.name for cluster in declared}
    plan = Plan(everything, list(tasks), {}, {}, known)
    for name in sorted(needed):
        plan.connectors[name] = await clusters.get(everything[name])
        row = known.get(name)
        plan.ids[name] = await identify(everything[name], plan.connectors[name], row.cluster_id if row else None)
    _check_identities(plan)
    return plan


def _check_names(task: ReplicationTask, clusters: dict[str, Cluster]) -> None:
    for name in task.clusters:
        if name not in clusters:
            near = difflib.get_close_matches(name, clusters, n=1)
            raise InvalidInput(f"task {task.name}: no cluster is named {name}", hint=f"did you mean {near[0]}?" if near else "declare it")


def _check_changes(old: ReplicationTask, new: ReplicationTask) -> None:
    for field in fields(ReplicationTask):
        if field.name not in LIVE_FIELDS and getattr(old, field.name) != getattr(new, field.name):
            raise Unsafe(
                f"task {new.name}: {field.name} cannot be changed while the task exists",
                hint="delete the task and declare it anew; copied data and positions stay",
            )


def _check_identities(plan: Plan) -> None:
    owners = {row.cluster_id: name for name, row in plan.known.items() if row.cluster_id}
    for name, cluster_id in plan.ids.items():
        if cluster_id is None:
            continue
        owner = owners.setdefault(cluster_id, name)
        if owner != name:
            raise Unsafe(
                f"clusters {owner} and {name} are one and the same: both carry the identity {cluster_id}",
                hint="declare a physical cluster once",
            )


async def preview_task(plan: Plan, task: ReplicationTask) -> dict[str, Any]:
    """Topics that would be created, and how many messages a new task would copy."""
    to_create: list[str] = []
    messages: int | None = 0
    rules = TopicRules(task.include, task.exclude, task.rename)
    matched: list[str] = []
    for source, destination in task.flows:
        topics = rules.select(await plan.connectors[source].list_topics())
        matched.extend(f"{source}/{topic}" for topic in topics)
        present = set(await plan.connectors[destination].list_topics())
        to_create.extend(f"{destination}/{rules.destination_name(t)}" for t in topics if rules.destination_name(t) not in present)
        messages = _plus(messages, await _messages_to_copy(plan.connectors[source], task, topics))
    return {"topics_matched": matched, "topics_to_create": to_create if task.create else [], "messages_to_copy": messages}


def _plus(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more


async def _messages_to_copy(source: Connector, task: ReplicationTask, topics: Sequence[str]) -> int | None:
    """None where the start is a point that only the start itself finds out."""
    if task.start.kind not in ("earliest", "latest"):
        return None
    total = 0
    for topic in topics if task.start.kind == "earliest" else ():
        described = await source.describe_topic(topic)
        for queue in described.queues if described else ():
            bounds = await source.offset_range(queue)
            total += bounds.max_offset - bounds.min_offset
    return total


async def write(store: Store, plan: Plan, declared: Sequence[Cluster]) -> list[dict[str, Any]]:
    """Marks what has no mark, then stores clusters and tasks. The marks come first: an id is lasting, a row can be written again."""
    results: list[dict[str, Any]] = []
    for name, connector in plan.connectors.items():
        if plan.ids[name] is None:
            plan.ids[name] = new_cluster_id()
            await connector.write_mark(str(plan.ids[name]))
    for cluster in declared:
        row = ClusterRow(cluster.name, cluster.connector, cluster.region, cluster.settings, plan.ids[cluster.name])
        results.append({"kind": "Cluster", "name": cluster.name, "result": await store.put_cluster(row)})
    for task in plan.tasks:
        preview = await preview_task(plan, task)
        result = await store.put_task(task.name, task_to_spec(task), task.flows)
        results.append({"kind": "ReplicationTask", "name": task.name, "result": result, **preview})
    return results


async def dry_run(store: Store, plan: Plan, declared: Sequence[Cluster]) -> list[dict[str, Any]]:
    """The same answer without writing anything."""
    specs = {row.name: row.spec for row in await store.tasks()}
    results: list[dict[str, Any]] = []
    for cluster in declared:
        row = plan.known.get(cluster.name)
        result = "created" if row is None else "unchanged" if cluster_of(row) == cluster else "changed"
        results.append({"kind": "Cluster", "name": cluster.name, "result": result})
    for task in plan.tasks:
        spec = specs.get(task.name)
        result = "created" if spec is None else "unchanged" if spec == task_to_spec(task) else "changed"
        results.append({"kind": "ReplicationTask", "name": task.name, "result": result, **await preview_task(plan, task)})
    return results


async def check_cluster(clusters: Clusters, cluster: Cluster) -> dict[str, Any]:
    """What one cluster says of itself; an error is part of the answer."""
    report: dict[str, Any] = {"cluster": cluster.name, "brokers": [], "warnings": [], "identity": None, "error": None}
    try:
        connector = await clusters.get(cluster)
        described = await connector.describe()
        report["identity"] = await identify(cluster, connector, None)
    except ReplicatorError as error:
        report["error"] = str(error)
        return report
    report["warnings"] = list(described.warnings)
    report["brokers"] = [
        {
            "broker": broker.broker_name, "address": broker.address, "version": broker.version,
            "filters_properties": broker.filters_properties, "connect_ms": broker.connect_ms,
        }
        for broker in described.brokers
    ]
    return report
