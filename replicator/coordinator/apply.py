"""``apply``: judge everything first, on the clusters themselves too, then write. What is refused leaves nothing behind."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields
from typing import Any

from replicator.config import task_to_spec
from replicator.coordinator import declared, starting
from replicator.coordinator.connections import Connections, Link
from replicator.coordinator.declared import Declared, cluster_of, graph_of, rules_of
from replicator.coordinator.identity import ensure_id, read_id, refuse_other_cluster
from replicator.coordinator.survey import FlowSurvey, survey_flow
from replicator.core.errors import InvalidInput, Unsafe
from replicator.core.graph import Finding, judge
from replicator.core.task import LIVE_FIELDS, Cluster, ReplicationTask
from replicator.store.port import ClusterRow, Flow, Store

CREATED, CHANGED, UNCHANGED, NOT_IN_FILES = "created", "changed", "unchanged", "not-in-files"


@dataclass(slots=True)
class ClusterPlan:
    cluster: Cluster
    result: str
    cluster_id: str | None = None


@dataclass(slots=True)
class TaskPlan:
    task: ReplicationTask
    result: str
    before: ReplicationTask | None = None
    surveys: list[FlowSurvey] = field(default_factory=list)
    queues: int = 0
    """That it has already."""
    unseen: list[tuple[str, str]] = field(default_factory=list)
    """Flows nobody could look at: one of their clusters is lost."""


@dataclass(slots=True)
class Plan:
    before: Declared
    clusters: list[ClusterPlan]
    tasks: list[TaskPlan]
    lost: frozenset[str] = frozenset()
    """Declared without being reached."""

    def rendered(self) -> list[dict[str, Any]]:
        named = {("cluster", one.cluster.name) for one in self.clusters} | {("task", one.task.name) for one in self.tasks}
        left = sorted({("cluster", name) for name in self.before.rows} | {("task", name) for name in self.before.tasks} - named)
        return [
            *(_row("cluster", one.cluster.name, one.result) for one in self.clusters),
            *(_task_row(one) for one in self.tasks),
            *(_row(kind, name, NOT_IN_FILES) for kind, name in left if (kind, name) not in named),
        ]


async def make_plan(
    store: Store,
    connections: Connections,
    clusters: Sequence[Cluster],
    tasks: Sequence[ReplicationTask],
    lost: Collection[str] = (),
) -> Plan:
    """Only reads. Raises ``InvalidInput``, ``Unsafe``, ``NotConnected``: then nothing may be written. ``lost``: clusters that are gone
    and need not answer; what copies on the others tell of them is for ``rebuild`` to find."""
    before = await declared.load(store)
    planned = [_plan_cluster(cluster, before) for cluster in clusters], [_plan_task(task, before) for task in tasks]
    plan = Plan(before, *planned, frozenset(lost))
    refuse_unknown_lost(lost, {*before.rows, *(cluster.name for cluster in clusters)})
    known = {name: cluster_of(row) for name, row in before.rows.items()} | {cluster.name: cluster for cluster in clusters}
    for task in tasks:
        refuse_dangling(task, known)
    refuse_unsafe_graph(before, plan.tasks)
    async with AsyncExitStack() as stack:
        links = await _reach(stack, connections, known, _clusters_to_reach(plan))
        await _identify(before, plan, links)
        await asyncio.gather(*(_survey(one, links) for one in plan.tasks))
    for one in plan.tasks:
        _refuse_collisions(one)
        _refuse_unknown_group(one)
        if one.before is not None:
            one.queues = len(await store.assignments(task=one.task.name))
    return plan


async def carry_out(store: Store, connections: Connections, plan: Plan) -> None:
    """Marks first: the only thing written that is not in the store, and harmless without it."""
    ids = plan.before.names_by_id()
    for one in plan.clusters:
        if one.result != UNCHANGED and one.cluster_id is None and one.cluster.name not in plan.lost:
            async with connections.probe(one.cluster) as link:
                one.cluster_id = await ensure_id(link)
        if one.cluster_id is not None:
            refuse_other_cluster(one.cluster.name, one.cluster_id, one.cluster_id, ids)
            ids[one.cluster_id] = one.cluster.name
    for one in plan.clusters:
        if one.result != UNCHANGED:
            cluster = one.cluster
            await store.put_cluster(ClusterRow(cluster.name, cluster.connector, cluster.region, cluster.settings, one.cluster_id))
    for planned in plan.tasks:
        if planned.result != UNCHANGED:
            await _put_task(store, planned, plan.before.flows)


async def _put_task(store: Store, planned: TaskPlan, flows_before: Iterable[Flow]) -> None:
    task = planned.task
    if planned.before is not None:
        # Before the change, so that nobody meets the new selection without knowing where it begins.
        await _write_starts(store, planned, [flow for flow in flows_before if flow.task == task.name])
    await store.put_task(task.name, task_to_spec(task), task.flows)
    if planned.before is None:
        await _write_starts(store, planned, [flow for flow in await store.flows() if flow.task == task.name])
        await store.record_event(task.name, CREATED, f"task {task.name} was created")
    else:
        changed = sorted(_differences(planned.before, task))
        await store.record_event(task.name, CHANGED, f"{', '.join(changed)} changed", {"changed": changed})


async def _write_starts(store: Store, planned: TaskPlan, flows: Sequence[Flow]) -> None:
    by_pair = {(survey.source, survey.destination): survey for survey in planned.surveys}
    for flow in flows:
        survey = by_pair.get((flow.source, flow.destination))
        if survey is not None and (survey.topics or planned.before is None):
            offsets = starting.offsets_of(start for topic in survey.topics for start in topic.starts)
            await starting.write_down(store, flow, planned.task.start, offsets)


def _plan_cluster(cluster: Cluster, before: Declared) -> ClusterPlan:
    row = before.rows.get(cluster.name)
    if row is None:
        return ClusterPlan(cluster, CREATED)
    return ClusterPlan(cluster, UNCHANGED if cluster_of(row) == cluster and row.cluster_id else CHANGED, row.cluster_id)


def _plan_task(task: ReplicationTask, before: Declared) -> TaskPlan:
    stored = before.tasks.get(task.name)
    if stored is None:
        return TaskPlan(task, CREATED)
    fixed = sorted(_differences(stored, task) - LIVE_FIELDS)
    if fixed:
        raise Unsafe(
            f"task {task.name}: {' and '.join(fixed)} cannot change while it exists",
            hint="delete the task and apply it again: it goes on from where the old one was",
        )
    return TaskPlan(task, UNCHANGED if task_to_spec(stored) == task_to_spec(task) else CHANGED, stored)


def _differences(one: ReplicationTask, other: ReplicationTask) -> set[str]:
    return {f.name for f in fields(ReplicationTask) if getattr(one, f.name) != getattr(other, f.name)}


def refuse_unknown_lost(lost: Iterable[str], known: Collection[str]) -> None:
    for name in lost:
        if name not in known:
            raise InvalidInput(f"cluster {name} is said to be lost, but not declared")


def refuse_dangling(task: ReplicationTask, known: Iterable[str]) -> None:
    names = sorted(known)
    for name in task.clusters:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"declared are: {', '.join(names) or 'none'}"
            raise InvalidInput(f"task {task.name}: cluster {name} is not declared", hint=hint)


def graph_findings(before: Declared, tasks: Iterable[ReplicationTask]) -> list[Finding]:
    """What is wrong with the graph once ``tasks`` stand in it, as far as these have a part in it."""
    changed = {task.name: task for task in tasks}
    findings = judge(graph_of({**before.tasks, **changed}.values()))
    return [finding for finding in findings if not changed.keys().isdisjoint(finding.tasks)]


def refuse_unsafe_graph(before: Declared, tasks: Iterable[TaskPlan]) -> None:
    findings = graph_findings(before, [one.task for one in tasks if one.result != UNCHANGED])
    if findings:
        raise Unsafe("; ".join(finding.message for finding in findings), hint="; ".join({f.hint: None for f in findings}))


def _is_selection_changed(one: TaskPlan) -> bool:
    return one.before is not None and (one.before.include, one.before.exclude) != (one.task.include, one.task.exclude)


def _clusters_to_reach(plan: Plan) -> list[str]:
    """What is unchanged need not be there: ``run -f`` starts again while one of its clusters is away."""
    names = {one.cluster.name: None for one in plan.clusters if one.result != UNCHANGED}
    for one in plan.tasks:
        if one.result == CREATED or _is_selection_changed(one):
            names.update(dict.fromkeys(one.task.clusters))
    return [name for name in names if name not in plan.lost]


async def _reach(
    stack: AsyncExitStack, connections: Connections, known: Mapping[str, Cluster], names: Sequence[str]
) -> dict[str, Link]:
    return {name: await stack.enter_async_context(connections.probe(known[name])) for name in names}


async def _identify(before: Declared, plan: Plan, links: Mapping[str, Link]) -> None:
    ids = before.names_by_id()
    plans = {one.cluster.name: one for one in plan.clusters}
    for name, link in links.items():
        row = before.rows.get(name)
        if name in plans and plans[name].result != UNCHANGED:
            await link.ask(link.connector.describe())  # What cannot be replicated with is refused before anything is written to it.
        found = await read_id(link)
        refuse_other_cluster(name, row.cluster_id if row else None, found, ids)
        if found is not None:
            ids[found] = name
        if name in plans:
            plans[name].cluster_id = found


async def _survey(one: TaskPlan, links: Mapping[str, Link]) -> None:
    if one.result != CREATED and not _is_selection_changed(one):
        return
    for source, destination in one.task.flows:
        if source not in links or destination not in links:
            one.unseen.append((source, destination))
            continue
        only = None
        if one.before is not None:
            names = await links[source].topics()
            only = set(rules_of(one.task).select(names)) - set(rules_of(one.before).select(names))
        one.surveys.append(await survey_flow(one.task, links[source], links[destination], only))


def _refuse_collisions(one: TaskPlan) -> None:
    for survey in one.surveys:
        for arrives, sources in survey.collisions.items():
            named = f"topics {' and '.join(sources)} of {survey.source}"
            raise Unsafe(
                f"task {one.task.name}: {named} would all arrive as {arrives} on {survey.destination}",
                hint=f"exclude all but one of them, or rename to another name than {arrives}",
            )


def _refuse_unknown_group(one: TaskPlan) -> None:
    """Without progress anywhere the name is wrong; a single queue without it blocks its topic only."""
    if one.task.start.kind != "consumer_group":
        return
    for survey in one.surveys:
        starts = [start for topic in survey.topics for start in topic.starts if start.bounds.min_offset < start.bounds.max_offset]
        if starts and all(start.offset is None for start in starts):
            group = one.task.start.consumer_group
            raise Unsafe(
                f"task {one.task.name}: group {group} has no progress on any topic of {survey.source}, so there is nothing to start from",
                hint="check its name, or start from another point",
            )


def _row(kind: str, name: str, result: str) -> dict[str, Any]:
    return {
        "kind": kind, "name": name, "result": result,
        "topics_to_create": [], "messages_to_copy": None, "queues": None, "warnings": [],
    }  # fmt: skip


def _task_row(one: TaskPlan) -> dict[str, Any]:
    topics = [(survey, topic) for survey in one.surveys for topic in survey.topics]
    create = {(survey.destination, topic.destination_topic): None for survey, topic in topics if topic.must_create}
    counts = [start.messages for _, topic in topics for start in topic.starts]
    warnings = [topic.problem for _, topic in topics if topic.problem]
    if one.before is None:
        warnings += [f"topic {name} does not exist on {survey.source} yet" for survey in one.surveys for name in survey.missing]
    warnings += [f"{source} to {destination} could not be looked at" for source, destination in one.unseen]
    return {
        **_row("task", one.task.name, one.result),
        "topics_to_create": [{"cluster": cluster, "topic": topic} for cluster, topic in create],
        "messages_to_copy": sum(n for n in counts if n is not None) if one.surveys and not one.unseen and None not in counts else None,
        "queues": one.queues + len(counts),
        "warnings": list(dict.fromkeys(warnings)),
    }
