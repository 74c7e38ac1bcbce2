"""From what is declared and what exists to assignments: topics are matched, created, claimed; every source queue gets a row.

Runs in the holder of the coordinator lease only. One topic's trouble blocks that topic and is told once; one cluster's
absence leaves its flows as they are.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from replicator.config import task_from_spec
from replicator.coordinator.clusters import Clusters, identify
from replicator.core.connector import Connector
from replicator.core.errors import NotConnected, Refused, ReplicatorError, Throttled
from replicator.core.patterns import TopicRules
from replicator.core.queues import check_totals, destination_of, new_queues, plan_spread
from replicator.core.record import MessageQueue, TopicDescription
from replicator.core.task import Cluster, ReplicationTask
from replicator.store.port import Assignment, ClusterRow, Flow, NewAssignment, Store, StoreUnavailable, TopicPair

RECONCILE_SECONDS = 3.0
COORDINATOR_LEASE_SECONDS = 10.0
STARTED_EVENT = "flow-started"
EVENTS_SEARCHED_MAX = 10_000

log = structlog.get_logger(__name__)


def cluster_of(row: ClusterRow) -> Cluster:
    return Cluster(row.name, row.connector, row.settings, row.region)


@dataclass(frozen=True, slots=True)
class FlowEnds:
    """Everything a round needs of one flow."""

    flow: Flow
    task: ReplicationTask
    source: Connector
    destination: Connector
    source_id: str
    destination_id: str
    assignments: dict[int, dict[MessageQueue, Assignment]]
    """By pair and source queue, as they were when the round began."""


class Reconciler:
    def __init__(self, store: Store, clusters: Clusters, instance: str) -> None:
        self._store = store
        self._clusters = clusters
        self._instance = instance
        self._started: set[str] = set()
        self._told: dict[str, str] = {}
        """What was last said about a flow or topic, so that it is said once."""

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                if await self._store.hold_coordinator(self._instance, COORDINATOR_LEASE_SECONDS):
                    await self.round()
            except StoreUnavailable as error:
                log.warning("waiting for the database", error=str(error))
            except Exception:  # A bug in one round must not end the loop that would show it.
                log.exception("reconcile")
            try:
                await asyncio.wait_for(stop.wait(), RECONCILE_SECONDS)
            except TimeoutError:
                continue

    async def round(self) -> None:
        """One pass over every flow of every task."""
        rows = {row.name: row for row in await self._store.clusters()}
        tasks = {row.name: task_from_spec(row.name, row.spec) for row in await self._store.tasks()}
        for flow in await self._store.flows():
            task = tasks.get(flow.task)
            if task is None:
                continue
            try:
                ends = await self._open(flow, task, rows)
                await self._reconcile_flow(ends)
                self._told.pop(flow.flow_id, None)
            except StoreUnavailable:
                raise
            except ReplicatorError as error:
                await self._tell(flow.flow_id, task.name, "flow-not-reconciled", f"{flow.source} -> {flow.destination}: {error}")

    async def _open(self, flow: Flow, task: ReplicationTask, rows: dict[str, ClusterRow]) -> FlowEnds:
        source_row, destination_row = rows[flow.source], rows[flow.destination]
        source = await self._clusters.get(cluster_of(source_row))
        destination = await self._clusters.get(cluster_of(destination_row))
        for row, connector in ((source_row, source), (destination_row, destination)):
            await identify(cluster_of(row), connector, row.cluster_id)
        assignments: dict[int, dict[MessageQueue, Assignment]] = {}
        for assignment in await self._store.assignments(flow_id=flow.flow_id):
            assignments.setdefault(assignment.pair_id, {})[assignment.source_queue] = assignment
        return FlowEnds(flow, task, source, destination, source_row.cluster_id or "", destination_row.cluster_id or "", assignments)

    async def _reconcile_flow(self, ends: FlowEnds) -> None:
        flow, task = ends.flow, ends.task
        rules = TopicRules(task.include, task.exclude, task.rename)
        is_first = await self._is_first(flow)
        selected = rules.select(await ends.source.list_topics())
        for topic in selected:
            key = f"{flow.flow_id}/{topic}"
            try:
                await self._reconcile_topic(ends, topic, rules.destination_name(topic), is_first)
                if self._told.pop(key, None) is not None:
                    await self._store.record_event(task.name, "topic-mended", f"{flow.source} -> {flow.destination}, topic {topic}")
            except (StoreUnavailable, NotConnected, Throttled):
                raise
            except ReplicatorError as error:
                await self._block(ends, topic, str(error))
                await self._tell(key, task.name, "topic-blocked", f"{flow.source} -> {flow.destination}, topic {topic}: {error}")
        if is_first:
            await self._store.record_event(task.name, STARTED_EVENT, f"{flow.source} -> {flow.destination}", {"flow_id": flow.flow_id})
            self._started.add(flow.flow_id)

    async def _is_first(self, flow: Flow) -> bool:
        """True until a whole round of this flow is done: only then topics count as having appeared later."""
        if flow.flow_id not in self._started:
            events = await self._store.events(flow.task, EVENTS_SEARCHED_MAX)
            self._started.update(str(e.detail.get("flow_id")) for e in events if e.kind == STARTED_EVENT)
        return flow.flow_id not in self._started

    async def _reconcile_topic(self, ends: FlowEnds, topic: str, renamed: str, is_first: bool) -> None:
        source = await ends.source.describe_topic(topic)
        if source is None:
            return  # Deleted since it was listed; the assignments of its queues say so themselves.
        _check_usable(source, ends.flow.source, is_source=True)
        destination = await self._destination_topic(ends, source, renamed)
        _check_usable(destination, ends.flow.destination, is_source=False)
        check_totals(topic, len(source.queues), len(destination.queues), ordered=source.ordered)
        pair = await self._store.claim_pair(ends.flow.flow_id, topic, renamed)
        if pair.state != "active":
            await self._store.set_pair_state(pair.pair_id, "active", "")
        await self._assign(ends, pair, source, destination, is_first)

    async def _destination_topic(self, ends: FlowEnds, source: TopicDescription, renamed: str) -> TopicDescription:
        """The destination's topic, created or grown to the source's queue count where the task allows it."""
        found = await ends.destination.describe_topic(renamed)
        if found is not None and (not source.ordered or len(found.queues) >= len(source.queues) or not ends.task.create):
            return found
        if not ends.task.create:
            raise Refused(f"topic {renamed} does not exist on {ends.flow.destination}", hint="create it, or set topics.create: true")
        brokers = [broker.broker_name for broker in (await ends.destination.describe()).brokers]
        spread = plan_spread(len(source.queues), brokers)
        wanted = TopicDescription(renamed, (), source.ordered, source.message_type, dict(source.attributes))
        await ends.destination.create_topic(wanted, spread)
        created = await ends.destination.describe_topic(renamed)
        if created is None:
            raise NotConnected(f"topic {renamed} was created on {ends.flow.destination}, but is not visible yet")
        await self._store.record_event(
            ends.task.name, "topic-created", f"{ends.flow.destination}: topic {renamed} with {len(created.queues)} queues"
        )
        return created

    async def _assign(
        self, ends: FlowEnds, pair: TopicPair, source: TopicDescription, destination: TopicDescription, is_first: bool
    ) -> None:
        listed = await self._store.queue_map(pair.pair_id)
        additions = {
            ends.source_id: new_queues(listed.get(ends.source_id, ()), source.queues),
            ends.destination_id: new_queues(listed.get(ends.destination_id, ()), destination.queues),
        }
        if any(additions.values()):
            listed = await self._store.extend_queue_map(pair.pair_id, additions)
        sources, destinations = listed[ends.source_id], listed[ends.destination_id]
        existing = ends.assignments.get(pair.pair_id, {})
        missing = [queue for queue in source.queues if queue not in existing]
        if not missing:
            return
        if source.ordered and existing and not await self._have_passed(ends, existing):
            return
        rows = [
            NewAssignment(queue, destination_of(sources.index(queue), destinations), await self._start_offset(ends, queue, is_first))
            for queue in missing
        ]
        await self._store.add_assignments(pair.pair_id, rows)

    async def _have_passed(self, ends: FlowEnds, existing: dict[MessageQueue, Assignment]) -> bool:
        """New queues of an ordered topic wait until the old ones are read to the end they had after the growth."""
        for queue, assignment in existing.items():
            key = f"{ends.flow.flow_id}/{queue}/growth"
            if key not in self._told:
                self._told[key] = str((await ends.source.offset_range(queue)).max_offset)
            checkpoint = assignment.checkpoint
            if checkpoint is None or checkpoint.examined_through < int(self._told[key]):
                return False
        for queue in existing:
            self._told.pop(f"{ends.flow.flow_id}/{queue}/growth", None)
        return True

    async def _start_offset(self, ends: FlowEnds, queue: MessageQueue, is_first: bool) -> int:
        bounds = await ends.source.offset_range(queue)
        start = ends.task.start
        if not is_first or start.kind == "earliest":
            return bounds.min_offset
        if start.kind == "latest":
            return bounds.max_offset
        if start.kind == "timestamp":
            return await ends.source.offset_at(queue, start.timestamp_ms)
        committed = await ends.source.consumer_offset(start.consumer_group, queue)
        if committed is None:
            raise Refused(
                f"group {start.consumer_group} never committed an offset in queue {queue} of {ends.flow.source}",
                hint="start at another point, or let the group consume first",
            )
        return min(max(committed, bounds.min_offset), bounds.max_offset)

    async def _block(self, ends: FlowEnds, topic: str, reason: str) -> None:
        """Shows the reason where the topic's pair is ours already; a topic that was never claimed has only its event."""
        for pair in await self._store.pairs(ends.flow.flow_id):
            if pair.source_topic == topic and (pair.state, pair.reason) != ("blocked", reason):
                await self._store.set_pair_state(pair.pair_id, "blocked", reason)

    async def _tell(self, key: str, task: str, kind: str, message: str) -> None:
        if self._told.get(key) != message:
            self._told[key] = message
            log.warning(kind, task=task, reason=message)
            await self._store.record_event(task, kind, message)


def _check_usable(topic: TopicDescription, cluster: str, *, is_source: bool) -> None:
    if topic.unsupported:
        raise Refused(f"topic {topic.name} of {cluster} is {topic.unsupported}", hint="exclude it")
    if is_source and not topic.readable:
        raise Refused(f"topic {topic.name} of {cluster} may not be read", hint="give it read permission, or exclude it")
    if not is_source and not topic.writable:
        raise Refused(f"topic {topic.name} of {cluster} may not be written", hint="give it write permission")


