"""``check``: what ``apply`` would meet, seen from this process, and from each worker whether it reaches the clusters. Goes on after
each problem, and only reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from replicator.coordinator import declared
from replicator.coordinator.apply import graph_findings, refuse_dangling
from replicator.coordinator.connections import Connections, Link
from replicator.coordinator.declared import Declared, cluster_of
from replicator.coordinator.identity import read_id, refuse_other_cluster
from replicator.coordinator.survey import FlowSurvey, survey_flow
from replicator.core.connector import TellsRights
from replicator.core.errors import InvalidInput, ReplicatorError
from replicator.core.task import LIVE_FIELDS, Cluster, ReplicationTask
from replicator.store.port import ClusterRow, Store

WORKERS_SECONDS_MAX = 12.0
"""For all workers together: they look once a second, and give a cluster 8 s."""
WORKERS_POLL_SECONDS = 0.1


async def check(
    store: Store, connections: Connections, clusters: Sequence[Cluster], tasks: Sequence[ReplicationTask], asked_from: str
) -> dict[str, Any]:
    before = await declared.load(store)
    known = {name: cluster_of(row) for name, row in before.rows.items()} | {cluster.name: cluster for cluster in clusters}
    problems = [*_graph_problems(before, tasks)]
    used = dict.fromkeys([*(cluster.name for cluster in clusters), *(name for task in tasks for name in task.clusters)])
    ids = before.names_by_id()
    workers = sorted((await store.staff()).near)
    check_id = await store.ask_check([_row_of(known[name]) for name in used if name in known]) if workers else 0
    async with AsyncExitStack() as stack:
        links: dict[str, Link] = {}
        cluster_rows = []
        for name in used:
            if name in known:
                cluster_rows.append(await _check_cluster(stack, connections, known[name], before, ids, links, problems))
        task_rows = [await _check_task(task, known, before, links, problems) for task in tasks]
    worker_rows = await _from_workers(store, workers, check_id)
    problems += [text for row in worker_rows for text in _problems_of(row)]
    return {
        "asked_from": asked_from, "clusters": cluster_rows, "tasks": task_rows, "workers": worker_rows,
        "problems": list(dict.fromkeys(problems)),
    }  # fmt: skip


def _row_of(cluster: Cluster) -> ClusterRow:
    return ClusterRow(cluster.name, cluster.connector, cluster.region, cluster.settings, None)


async def _from_workers(store: Store, workers: Sequence[str], check_id: int) -> list[dict[str, Any]]:
    """What each of ``workers`` says; one that does not answer in time may be gone."""
    answers: Mapping[str, Sequence[Mapping[str, Any]]] = {}
    deadline = time.monotonic() + WORKERS_SECONDS_MAX
    while workers and not answers.keys() >= set(workers):
        answers = await store.check_answers(check_id)
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(WORKERS_POLL_SECONDS)
    return [
        {"worker": worker, "answered": worker in answers, "clusters": [dict(row) for row in answers.get(worker, ())]}
        for worker in workers
    ]  # fmt: skip


def _problems_of(row: Mapping[str, Any]) -> list[str]:
    if not row["answered"]:
        return [f"worker {row['worker']} did not answer within {WORKERS_SECONDS_MAX:g} s"]
    return [f"worker {row['worker']}: {one['problem']}" for one in row["clusters"] if one["problem"]]


def _graph_problems(before: Declared, tasks: Sequence[ReplicationTask]) -> list[str]:
    return [f"{finding.message} ({finding.hint})" for finding in graph_findings(before, tasks)]


async def _check_cluster(
    stack: AsyncExitStack,
    connections: Connections,
    cluster: Cluster,
    before: Declared,
    ids: dict[str, str],
    links: dict[str, Link],
    problems: list[str],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": cluster.name, "connector": cluster.connector, "region": cluster.region, "reachable": False,
        "cluster_id": None, "distance_ms": None, "brokers": [], "warnings": [],
    }  # fmt: skip
    stored = before.rows.get(cluster.name)
    try:
        link = await stack.enter_async_context(connections.probe(cluster))
        begin = time.perf_counter()
        described = await link.ask(link.connector.describe())
        elapsed_ms = (time.perf_counter() - begin) * 1000
        row["reachable"] = True
        row["distance_ms"] = described.distance_ms(elapsed_ms)
        row["brokers"] = [
            {"broker_name": one.broker_name, "address": one.address, "version": one.version, "sql92": one.filters_properties}
            for one in described.brokers
        ]
        row["warnings"] = [*described.warnings, *_without_filters(row["brokers"])]
        found = row["cluster_id"] = await read_id(link)
        refuse_other_cluster(cluster.name, stored.cluster_id if stored else None, found, ids)
        if found is not None:
            ids[found] = cluster.name
        links[cluster.name] = link
    except ReplicatorError as error:
        said, prefix = str(error), f"cluster {cluster.name}"
        problems.append(said if said.startswith(prefix) else f"{prefix}: {said}")
    return row


def _without_filters(brokers: Sequence[dict[str, Any]]) -> list[str]:
    names = [broker["broker_name"] for broker in brokers if broker["sql92"] is False]
    if not names:
        return []
    return [f"consumers cannot tell copies by SQL92 on {', '.join(names)}: enablePropertyFilter is off there"]


async def _check_task(
    task: ReplicationTask, known: dict[str, Cluster], before: Declared, links: dict[str, Link], problems: list[str]
) -> dict[str, Any]:
    surveys: list[FlowSurvey] = []
    stored = before.tasks.get(task.name)
    fixed = sorted(name for name in ("mode", "clusters", "rename", "start", "relay") if stored and _differs(stored, task, name))
    assert not LIVE_FIELDS.intersection(fixed)
    if fixed:
        problems.append(f"task {task.name}: {' and '.join(fixed)} cannot change while it exists")
    try:
        refuse_dangling(task, known)
        for source, destination in task.flows:
            if source in links and destination in links:
                surveys.append(await survey_flow(task, links[source], links[destination]))
    except InvalidInput as error:
        problems.append(str(error))
    except ReplicatorError as error:
        problems.append(f"task {task.name}: {error}")
    topics = [(survey, topic) for survey in surveys for topic in survey.topics]
    problems += [f"task {task.name}: {topic.problem}" for _, topic in topics if topic.problem]
    problems += await _missing_rights(surveys, links)
    for survey in surveys:
        problems += [
            f"task {task.name}: topics {' and '.join(sources)} of {survey.source} would all arrive as {arrives}"
            for arrives, sources in survey.collisions.items()
        ]
    create = {(survey.destination, topic.destination_topic): None for survey, topic in topics if topic.must_create}
    counts = [start.messages for _, topic in topics for start in topic.starts]
    return {
        "name": task.name,
        "topics": sorted({topic.topic for _, topic in topics}),
        "missing_topics": [{"cluster": survey.source, "topic": name} for survey in surveys for name in survey.missing],
        "topics_to_create": [{"cluster": cluster, "topic": topic} for cluster, topic in create],
        "queues": len(counts),
        "messages_to_copy": sum(n for n in counts if n is not None) if surveys and None not in counts else None,
    }


async def _missing_rights(surveys: Sequence[FlowSurvey], links: dict[str, Link]) -> list[str]:
    """Of the topics that would be copied from and to; those to be created have no rights yet."""
    read: dict[str, set[str]] = {}
    write: dict[str, set[str]] = {}
    for survey in surveys:
        ready = [topic for topic in survey.topics if not topic.problem]
        read.setdefault(survey.source, set()).update(topic.topic for topic in ready)
        write.setdefault(survey.destination, set()).update(topic.destination_topic for topic in ready if not topic.must_create)
    found: list[str] = []
    for name in sorted({*read, *write}):
        connector = links[name].connector
        if not isinstance(connector, TellsRights):
            continue
        try:
            found += await links[name].ask(connector.missing_rights(read.get(name, set()), write.get(name, set())))
        except ReplicatorError as error:
            found.append(str(error))
    return found


def _differs(one: ReplicationTask, other: ReplicationTask, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))
