"""The memory connector: the ports of ``core.connector`` over a ``MemoryCluster``. Reference for connector authors."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from pydantic import BaseModel, ConfigDict, Field

from connectors.memory.cluster import INTERNAL_TOPIC_PREFIX, MemoryCluster
from connectors.memory.faults import unreachable
from connectors.memory.log import RECORD_OVERHEAD_BYTES
from connectors.memory.reader import ByteCredits, MemoryReader
from connectors.memory.sender import MemorySender
from replicator.core.connector import (
    BrokerDescription,
    ClusterDescription,
    ConnectorContext,
    SendPermit,
)
from replicator.core.errors import Fenced, NotConnected, ReplicatorError
from replicator.core.groups import GroupMembers, GroupSettings, OffsetWritten
from replicator.core.record import AppendBatch, MessageQueue, OffsetRange, QueueSpread, TopicDescription

BARRIER_TOPIC = f"{INTERNAL_TOPIC_PREFIX}barrier"
TUNED_READ_RECORDS_MAX = 1024
SILENCE_SECONDS = 3.0
"""How long a call waits for a cluster that neither answers nor refuses."""


class MemorySettings(BaseModel):
    """``spec.memory`` of a cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cluster: str = Field(min_length=1)
    """Name of the ``MemoryCluster``; made when there is none."""
    long_poll_seconds: float = Field(default=5.0, gt=0)
    """How long a read waits for new records."""


class MemoryConnector:
    """Implements ``Connector``, ``FencesSource``, ``ListsSenders``, ``TellsRetention``, ``RemovesGroups`` and
    ``TunesSource``."""

    kind = "memory"
    reserved_properties: Collection[bytes] = frozenset()

    def __init__(self, settings: MemorySettings, context: ConnectorContext) -> None:
        self.cluster = context.cluster
        self._memory = MemoryCluster.named(settings.cluster)
        self._instance = context.instance
        self._long_poll_seconds = settings.long_poll_seconds
        self._credits = ByteCredits(context.memory_bytes_max)
        self._readers: WeakSet[MemoryReader] = WeakSet()
        self._senders: dict[str, MemorySender] = {}
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True
        try:
            await self._call("open")
        except BaseException:
            self._is_open = False
            raise

    async def close(self) -> None:
        self._is_open = False
        for sender in self._senders.values():
            await sender.close()
        for reader in tuple(self._readers):
            await reader.close()

    async def describe(self) -> ClusterDescription:
        memory = await self._call("describe")
        return ClusterDescription(
            tuple(BrokerDescription(name, f"memory:{memory.name}/{name}", "memory", True) for name in sorted(memory.brokers)),
            memory.append_bytes_max, memory.append_records_max, memory.properties_bytes_max, RECORD_OVERHEAD_BYTES,
        )  # fmt: skip

    async def read_marks(self) -> Sequence[str]:
        return tuple((await self._call("read_marks")).marks)

    async def write_mark(self, cluster_id: str) -> None:
        memory = await self._call("write_mark")
        if cluster_id not in memory.marks:
            memory.marks.append(cluster_id)

    async def list_topics(self) -> Sequence[str]:
        memory = await self._call("list_topics")
        return sorted(name for name in memory.topics if not name.startswith(INTERNAL_TOPIC_PREFIX))

    async def describe_topic(self, topic: str) -> TopicDescription | None:
        return (await self._call("describe_topic")).describe_topic(topic)

    async def create_topic(self, description: TopicDescription, spread: Sequence[QueueSpread]) -> None:
        (await self._call("create_topic")).create_topic(description, spread)

    async def offset_range(self, queue: MessageQueue, *, any_replica: bool = False) -> OffsetRange:
        return (await self._call("offset_range", queue.broker_name)).log(queue).bounds

    async def offset_at(self, queue: MessageQueue, timestamp_ms: int) -> int:
        return (await self._call("offset_at", queue.broker_name)).log(queue).offset_at(timestamp_ms)

    async def consumer_offset(self, group: str, queue: MessageQueue) -> int | None:
        return (await self._call("consumer_offset", queue.broker_name)).consumer_offsets.get((group, queue))

    async def publish_position(self, group: str, positions: Mapping[MessageQueue, int]) -> None:
        memory = await self._call("publish_position")
        for queue, offset in positions.items():
            memory.commit(group, queue, offset)

    def reader(self, queue: MessageQueue, offset: int, *, prefetch: bool = True, any_replica: bool = False) -> MemoryReader:
        reader = MemoryReader(self._memory, queue, offset, self._instance, self._credits, self._long_poll_seconds)
        self._readers.add(reader)
        return reader

    def sender(self, broker_name: str) -> MemorySender:
        sender = self._senders.get(broker_name)
        if sender is None or (sender.closed and self._is_open):
            sender = self._senders[broker_name] = MemorySender(self._memory, broker_name, self._instance)
        return sender

    async def write_barrier(self, broker_name: str, permit: SendPermit, timeout_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        memory = await self._call("write_barrier", broker_name)
        memory.add_topic(BARRIER_TOPIC, {broker_name: 1})
        queue = MessageQueue(BARRIER_TOPIC, broker_name, 0)
        if not permit.is_valid():
            raise Fenced(f"the right to write to {broker_name} of cluster {self.cluster} ended before its barrier")
        offset = memory.produce_batch(queue, AppendBatch([b"barrier"], [b""], [0]))
        log = memory.log(queue)
        while log.readable_end <= offset:
            if loop.time() >= deadline:
                raise NotConnected(f"cluster {self.cluster}: the barrier on {broker_name} is not readable in time")
            await log.changed.wait(deadline - loop.time())
        log.expire(offset)

    async def lock_queues(
        self, group: str, holder: str, queues: Collection[MessageQueue], *, any_replica: bool = False
    ) -> set[MessageQueue]:
        memory = await self._call("lock_queues")
        held: set[MessageQueue] = set()
        for queue in queues:
            if memory.faults.cut_between(self._instance, queue.broker_name) is None and memory.lock(group, holder, queue):
                held.add(queue)
        return held

    async def unlock_queues(self, group: str, holder: str, queues: Collection[MessageQueue]) -> None:
        memory = await self._call("unlock_queues")
        for queue in queues:
            memory.unlock(group, holder, queue)

    async def sender_identities(self, broker_name: str) -> set[str] | None:
        broker = (await self._call("sender_identities", broker_name)).broker(broker_name)
        return set(broker.listed_senders) if self._memory.lists_senders else None

    async def retention_seconds(self, broker_name: str) -> float | None:
        return (await self._call("retention_seconds", broker_name)).retention_seconds

    async def group_offsets(self, topics: Collection[str]) -> Mapping[str, Mapping[MessageQueue, int]]:
        found: dict[str, dict[MessageQueue, int]] = {}
        for (group, queue), offset in (await self._call("group_offsets")).consumer_offsets.items():
            if queue.topic in topics:
                found.setdefault(group, {})[queue] = offset
        return found

    async def group_settings(self) -> Mapping[str, GroupSettings]:
        return dict((await self._call("group_settings")).groups)

    async def create_groups(self, settings: Sequence[GroupSettings]) -> Mapping[str, ReplicatorError]:
        there = (await self._call("create_groups")).groups
        for one in settings:
            there.setdefault(one.group, one)
        return {}

    async def set_groups_consumable(self, groups: Collection[str], consumable: bool) -> None:
        there = (await self._call("set_groups_consumable")).groups
        there.update({group: replace(there[group], consumable=consumable) for group in groups if group in there})

    async def group_members(self, group: str) -> GroupMembers:
        return (await self._call("group_members")).members.get(group, GroupMembers())

    async def can_reset_exactly(self, broker_name: str) -> bool:
        return (await self._call("can_reset_exactly", broker_name)).resets_exactly

    async def write_offsets(self, group: str, offsets: Mapping[MessageQueue, int], *, running: bool) -> Sequence[OffsetWritten]:
        return [await self._write_offset(group, queue, offset, running) for queue, offset in offsets.items()]

    async def _write_offset(self, group: str, queue: MessageQueue, offset: int, running: bool) -> OffsetWritten:
        try:
            memory = await self._call("write_offsets", queue.broker_name)
        except NotConnected as error:
            return OffsetWritten(queue, None, None, refused=str(error))
        before = memory.consumer_offsets.get((group, queue))
        refused = ""
        if group not in memory.groups:
            refused = f"group {group} does not exist"
        elif running and not memory.resets_exactly:
            refused = "members are online, and their progress cannot be set exactly here: stop them first"
        elif running and not 0 <= offset <= memory.log(queue).bounds.max_offset:
            refused = f"offset {offset} is not in the queue"
        if refused:
            return OffsetWritten(queue, before, before, refused=refused)
        memory.consumer_offsets[group, queue] = offset
        return OffsetWritten(queue, before, offset, "reset" if running else "commit")

    async def pending_counts(self) -> Mapping[str, int]:
        return dict((await self._call("pending_counts")).pending)

    async def set_topic_writable(self, topic: str, writable: bool) -> bool:
        known = (await self._call("set_topic_writable")).topics.get(topic)
        if known is None or known.writable is writable:
            return False
        known.writable = writable
        return True

    async def remove_group(self, group: str) -> None:
        memory = await self._call("remove_group")
        memory.groups.pop(group, None)
        for key in [key for key in memory.consumer_offsets if key[0] == group]:
            del memory.consumer_offsets[key]

    async def plan_tuning(self) -> Mapping[str, Mapping[str, tuple[str, str]]]:
        settings = (await self._call("plan_tuning")).settings
        low = {name: of["read_records_max"] for name, of in settings.items() if int(of["read_records_max"]) < TUNED_READ_RECORDS_MAX}
        return {broker_name: {"read_records_max": (now, str(TUNED_READ_RECORDS_MAX))} for broker_name, now in low.items()}

    async def read_settings(self, broker_name: str) -> Mapping[str, str]:
        return dict((await self._call("read_settings", broker_name)).settings[broker_name])

    async def change_settings(self, broker_name: str, settings: Mapping[str, str]) -> None:
        (await self._call("change_settings", broker_name)).settings[broker_name].update(settings)

    async def _call(self, name: str, broker_name: str | None = None) -> MemoryCluster:
        """Every request passes here: pace, planned errors, cuts."""
        if not self._is_open:
            raise NotConnected(f"the connector of cluster {self.cluster} is not open")
        memory = self._memory
        await memory.pace(name, self._instance)
        error = memory.faults.next_call_error(name)
        if error is not None:
            raise error
        if memory.faults.cut_between(self._instance, broker_name) == "silent":
            await memory.network_changed.wait(SILENCE_SECONDS)
        if memory.faults.cut_between(self._instance, broker_name) is not None:
            raise unreachable(self.cluster, broker_name)
        return memory


class MemoryConnectorFactory:
    """See ``ConnectorFactory``."""

    settings_model: type[Any] = MemorySettings

    def __call__(self, settings: MemorySettings, context: ConnectorContext) -> MemoryConnector:
        return MemoryConnector(settings, context)


factory = MemoryConnectorFactory()
