"""What all assignments of one flow share on a worker: task, connectors, identities, tags, filter, rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from replicator.core.connector import Connector, KeepsRetries
from replicator.core.patterns import TopicRules
from replicator.core.provenance import Provenance
from replicator.core.retry import group_behind
from replicator.core.sql92 import compile_filter
from replicator.core.stamp import Place, stamp_prefix
from replicator.core.stamping import Restoration, Stamper, TagSource
from replicator.core.tags import CompiledTags, TagContext, compile_tags
from replicator.core.task import ReplicationTask
from replicator.store.port import Assignment, ClusterRow
from replicator.worker.clock import boot_seconds
from replicator.worker.counters import FlowCounts
from replicator.worker.fence import SourceFence
from replicator.worker.settling import BrokerSettler

RATE_BURST_SECONDS = 0.2
"""A flow may run ahead of its limit by this much."""


class Rate:
    """Token bucket over records and bytes; a waiter never holds a lock while it waits."""

    def __init__(self, records_per_second: int | None, bytes_per_second: int | None) -> None:
        self._limits = [(limit, 0) for limit in (records_per_second,) if limit] + [(limit, 1) for limit in (bytes_per_second,) if limit]
        self._ready_at = [0.0 for _ in self._limits]

    async def take(self, records: int, size_bytes: int) -> None:
        now = boot_seconds()
        wait = 0.0
        for index, (limit, kind) in enumerate(self._limits):
            begin = max(self._ready_at[index], now - RATE_BURST_SECONDS)
            self._ready_at[index] = begin + (records, size_bytes)[kind] / limit
            wait = max(wait, begin - now)
        if wait > 0:
            await asyncio.sleep(wait)


@dataclass(slots=True)
class FlowContext:
    task: ReplicationTask
    generation: int
    source: Connector
    destination: Connector
    source_row: ClusterRow
    destination_row: ClusterRow
    rows_by_id: dict[str, ClusterRow]
    fence: SourceFence
    settlers: dict[str, BrokerSettler]
    rate: Rate
    append_bytes_max: int
    append_records_max: int
    properties_bytes_max: int
    record_overhead_bytes: int
    counts: FlowCounts = field(default_factory=FlowCounts)

    def place_of_source(self, assignment: Assignment) -> Place:
        return Place(_id_of(self.source_row), assignment.source_queue)

    def place_of_destination(self, assignment: Assignment) -> Place:
        return Place(_id_of(self.destination_row), assignment.destination_queue)

    def settler(self, broker_name: str) -> BrokerSettler:
        return self.settlers.setdefault(broker_name, BrokerSettler(self.destination, broker_name))

    def figures(self) -> dict[str, Any]:
        """What was counted of this flow, as JSON."""
        names = {"task": self.task.name, "source": self.source_row.name, "destination": self.destination_row.name}
        return {**names, **self.counts.to_json(settler.counts for settler in self.settlers.values())}

    def make_stamper(self, assignment: Assignment, epoch: int, seen: dict[str, int], restoration: Restoration) -> Stamper:
        source, put = self.place_of_source(assignment), self.place_of_destination(assignment)
        topic = source.queue.topic
        # What groups failed on goes one hop only: nobody looks for a second way of it.
        provenance = Provenance(source, put.cluster_id, relay=self.task.relay and group_behind(topic) is None, seen=seen)
        prefix = stamp_prefix(assignment.flow_id, put, source, epoch)
        return Stamper(prefix, self._tags(assignment), self.source.reserved_properties, provenance, self._filter(topic), restoration)

    def _filter(self, topic: str) -> Callable[[dict[str, str]], bool] | None:
        """Which records of a source topic are copied, by their properties; None: all."""
        passes: Callable[[dict[str, str]], bool] | None = compile_filter(self.task.filter).matches if self.task.filter else None
        keeper = self.source
        if group_behind(topic) is None or not isinstance(keeper, KeepsRetries):
            return passes
        rules = TopicRules(self.task.include, self.task.exclude, self.task.rename)

        def is_carried(properties: dict[str, str]) -> bool:
            consumed_from = keeper.retried_topic(topic, properties)
            return consumed_from is not None and rules.matches(consumed_from) and (passes is None or passes(properties))

        return is_carried

    def _tags(self, assignment: Assignment) -> TagSource:
        def compiled_for(origin: str, region: str) -> CompiledTags:
            return compile_tags(
                self.task.tags,
                TagContext(
                    origin=origin, source=self.source_row.name, destination=self.destination_row.name, task=self.task.name,
                    topic=assignment.source_queue.topic, region=region,
                ),
            )

        born_here = compiled_for(self.source_row.name, self.source_row.region)
        relayed: dict[str, CompiledTags] = {}

        def suffix_for(properties: dict[str, str], origin_id: str | None) -> bytes:
            if origin_id is None:
                return born_here.suffix_for(properties)
            if origin_id not in relayed:
                row = self.rows_by_id.get(origin_id)
                relayed[origin_id] = compiled_for(row.name, row.region) if row else compiled_for(origin_id, "")
            return relayed[origin_id].suffix_for(properties)

        return TagSource(born_here.keys, born_here.constant_suffix, suffix_for)


def _id_of(row: ClusterRow) -> str:
    assert row.cluster_id is not None, "a cluster is marked before its first assignment exists"
    return row.cluster_id
