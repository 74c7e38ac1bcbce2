"""Namespaces of RocketMQ 4.x: brokers know nothing of them, clients write ``<namespace>%`` before the names of topics and groups.

Everything above this module sees the names as the applications of the namespace do. Our own topics and groups stand outside of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from connectors.rocketmq.connector import RocketMQConnector
from connectors.rocketmq.names import OWN_PREFIX, is_user_topic
from connectors.rocketmq.settings import RocketMQSettings
from connectors.rocketmq.sink import RocketMQSender
from connectors.rocketmq.source import PullReader
from replicator.core.connector import AppendOutcome, ClusterDescription, ConnectorContext, SendPermit
from replicator.core.errors import ReplicatorError
from replicator.core.groups import GroupMembers, GroupSettings, OffsetWritten
from replicator.core.record import AppendBatch, MessageQueue, OffsetRange, QueueSpread, TopicDescription
from replicator.core.retry import DEAD_LETTER_PREFIX, RETRY_PREFIX, WAITING_PREFIX

_GROUP_TOPIC_PREFIXES = (RETRY_PREFIX, DEAD_LETTER_PREFIX, WAITING_PREFIX)


class Namespace:
    """As RocketMQ's NamespaceUtil: the prefix stands behind ``%RETRY%`` and ``%DLQ%``, and is never written twice."""

    def __init__(self, name: str) -> None:
        self.prefix = f"{name}%"

    def wired(self, name: str) -> str:
        """The name a broker knows."""
        kind = next((kind for kind in _GROUP_TOPIC_PREFIXES if name.startswith(kind)), "")
        bare = name.removeprefix(kind)
        return name if bare.startswith((self.prefix, OWN_PREFIX)) else f"{kind}{self.prefix}{bare}"

    def bare(self, name: str) -> str:
        kind = next((kind for kind in _GROUP_TOPIC_PREFIXES if name.startswith(kind)), "")
        return kind + name.removeprefix(kind).removeprefix(self.prefix)

    def wired_queue(self, queue: MessageQueue) -> MessageQueue:
        return replace(queue, topic=self.wired(queue.topic))

    def bare_queue(self, queue: MessageQueue) -> MessageQueue:
        return replace(queue, topic=self.bare(queue.topic))


class NamespacedSender(RocketMQSender):
    namespace: Namespace

    async def append(self, queue: MessageQueue, batch: AppendBatch, permit: SendPermit, timeout_seconds: float) -> AppendOutcome:
        return await super().append(self.namespace.wired_queue(queue), batch, permit, timeout_seconds)

    async def late_answer(self, queue: MessageQueue, timeout_seconds: float) -> AppendOutcome | None:
        return await super().late_answer(self.namespace.wired_queue(queue), timeout_seconds)


class NamespacedConnector(RocketMQConnector):
    """A ``RocketMQConnector`` that sees one namespace of its cluster."""

    def __init__(self, settings: RocketMQSettings, context: ConnectorContext) -> None:
        super().__init__(settings, context)
        self._namespace = Namespace(settings.namespace)

    async def describe(self) -> ClusterDescription:
        description = await super().describe()
        return replace(description, record_overhead_bytes=description.record_overhead_bytes + len(self._namespace.prefix))

    def _is_listed(self, topic: str, brokers: Collection[str]) -> bool:
        prefix = self._namespace.prefix
        return topic.startswith(prefix) and is_user_topic(topic.removeprefix(prefix), brokers, self._client.cluster_names)

    async def list_topics(self) -> Sequence[str]:
        return [self._namespace.bare(topic) for topic in await super().list_topics()]

    async def describe_topic(self, topic: str) -> TopicDescription | None:
        found = await super().describe_topic(self._namespace.wired(topic))
        if found is None:
            return None
        return replace(found, name=topic, queues=tuple(self._namespace.bare_queue(queue) for queue in found.queues))

    async def create_topic(self, description: TopicDescription, spread: Sequence[QueueSpread]) -> None:
        await super().create_topic(replace(description, name=self._namespace.wired(description.name)), spread)

    async def offset_range(self, queue: MessageQueue, *, any_replica: bool = False) -> OffsetRange:
        return await super().offset_range(self._namespace.wired_queue(queue), any_replica=any_replica)

    async def offset_at(self, queue: MessageQueue, timestamp_ms: int) -> int:
        return await super().offset_at(self._namespace.wired_queue(queue), timestamp_ms)

    async def consumer_offset(self, group: str, queue: MessageQueue) -> int | None:
        return await super().consumer_offset(self._namespace.wired(group), self._namespace.wired_queue(queue))

    async def publish_position(self, group: str, positions: Mapping[MessageQueue, int]) -> None:
        wired = {self._namespace.wired_queue(queue): offset for queue, offset in positions.items()}
        await super().publish_position(self._namespace.wired(group), wired)

    async def group_offsets(self, topics: Collection[str]) -> Mapping[str, Mapping[MessageQueue, int]]:
        found = await super().group_offsets({self._namespace.wired(topic) for topic in topics})
        prefix = self._namespace.prefix
        return {
            group.removeprefix(prefix): {self._namespace.bare_queue(queue): offset for queue, offset in offsets.items()}
            for group, offsets in found.items() if group.startswith(prefix)
        }  # fmt: skip

    async def group_settings(self) -> Mapping[str, GroupSettings]:
        prefix = self._namespace.prefix
        found = (await super().group_settings()).values()
        return {
            (name := one.group.removeprefix(prefix)): replace(one, group=name) for one in found if one.group.startswith(prefix)
        }  # fmt: skip

    async def create_groups(self, settings: Sequence[GroupSettings]) -> Mapping[str, ReplicatorError]:
        failed = await super().create_groups([replace(one, group=self._namespace.wired(one.group)) for one in settings])
        return {group.removeprefix(self._namespace.prefix): error for group, error in failed.items()}

    async def set_groups_consumable(self, groups: Collection[str], consumable: bool) -> None:
        await super().set_groups_consumable([self._namespace.wired(group) for group in groups], consumable)

    async def group_members(self, group: str) -> GroupMembers:
        found = await super().group_members(self._namespace.wired(group))
        subscriptions = tuple(replace(one, topic=self._namespace.bare(one.topic)) for one in found.subscriptions)
        return replace(found, subscriptions=subscriptions)

    async def write_offsets(self, group: str, offsets: Mapping[MessageQueue, int], *, running: bool) -> Sequence[OffsetWritten]:
        wired = {self._namespace.wired_queue(queue): offset for queue, offset in offsets.items()}
        written = await super().write_offsets(self._namespace.wired(group), wired, running=running)
        return [replace(one, queue=self._namespace.bare_queue(one.queue)) for one in written]

    async def missing_rights(self, read: Collection[str], write: Collection[str]) -> Sequence[str]:
        wired = self._namespace.wired
        return await super().missing_rights([wired(topic) for topic in read], [wired(topic) for topic in write])

    async def set_topic_writable(self, topic: str, writable: bool) -> bool:
        return await super().set_topic_writable(self._namespace.wired(topic), writable)

    async def retry_topics(self, groups: Collection[str]) -> Collection[str]:
        found = await super().retry_topics([self._namespace.wired(group) for group in groups])
        return [self._namespace.bare(topic) for topic in found]

    async def waiting_counts(self, groups: Collection[str]) -> Mapping[str, int]:
        found = await super().waiting_counts([self._namespace.wired(group) for group in groups])
        return {self._namespace.bare(group): count for group, count in found.items()}

    def retried_topic(self, topic: str, properties: Mapping[str, str]) -> str | None:
        found = super().retried_topic(self._namespace.wired(topic), properties)
        return None if found is None else self._namespace.bare(found)

    async def remove_group(self, group: str) -> None:
        await super().remove_group(self._namespace.wired(group))

    def reader(self, queue: MessageQueue, offset: int, *, prefetch: bool = True, any_replica: bool = False) -> PullReader:
        return super().reader(self._namespace.wired_queue(queue), offset, prefetch=prefetch, any_replica=any_replica)

    def _make_sender(self, broker_name: str) -> RocketMQSender:
        sender = NamespacedSender(self._client, broker_name, self._instance, self.cluster)
        sender.namespace = self._namespace
        return sender

    async def lock_queues(
        self, group: str, holder: str, queues: Collection[MessageQueue], *, any_replica: bool = False
    ) -> set[MessageQueue]:
        wired = [self._namespace.wired_queue(queue) for queue in queues]
        held = await super().lock_queues(group, holder, wired, any_replica=any_replica)
        return {self._namespace.bare_queue(queue) for queue in held}

    async def unlock_queues(self, group: str, holder: str, queues: Collection[MessageQueue]) -> None:
        await super().unlock_queues(group, holder, [self._namespace.wired_queue(queue) for queue in queues])
