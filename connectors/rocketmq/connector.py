"""The RocketMQ connector: the ports of ``core.connector`` over the client."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Mapping, Sequence

from connectors.rocketmq import admin, pending, rights
from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.errors import Answered
from connectors.rocketmq.client.sending import SENDER_GROUP, LostInFlight, NeverLeft, PermitEnded
from connectors.rocketmq.credits import ByteCredits
from connectors.rocketmq.groups import Groups
from connectors.rocketmq.mapping import error_of, mapped
from connectors.rocketmq.names import BARRIER_TOPIC, MARK_PREFIX, RESERVED_PROPERTIES, is_user_topic
from connectors.rocketmq.progress import GroupProgress
from connectors.rocketmq.proxies import ProxyMembers
from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import Kind, ResponseCode, kind_of
from connectors.rocketmq.retries import Retries, place_of, retried_topic
from connectors.rocketmq.settings import RocketMQSettings
from connectors.rocketmq.sink import BATCH_BYTES_MAX, RocketMQSender
from connectors.rocketmq.source import PULL_ANSWERS, READER_GROUP, PullReader
from replicator.core.connector import ClusterDescription, ConnectorContext, SendPermit
from replicator.core.errors import Fenced, NotConnected, ReplicatorError
from replicator.core.groups import GroupMembers, GroupSettings, OffsetWritten
from replicator.core.record import MessageQueue, OffsetRange, QueueSpread, TopicDescription
from replicator.core.retry import WAITING_PREFIX, is_waiting, retry_topic

BARRIER_POLL_SECONDS = 0.005
BARRIER_PULL_RECORDS = 32
POSITIONS_TOGETHER = 64
"""Commits of read positions underway at a time."""


class RocketMQConnector:
    """Implements ``Connector``, ``FencesSource``, ``ListsSenders``, ``TellsRetention``, ``RemovesGroups``,
    ``KeepsProgress``, ``KeepsRetries``, ``TellsRights`` and ``TunesSource``."""

    kind = "rocketmq"
    reserved_properties: Collection[bytes] = RESERVED_PROPERTIES

    def __init__(self, settings: RocketMQSettings, context: ConnectorContext) -> None:
        self.cluster = context.cluster
        self._instance = context.instance
        self._client = Client(settings.address(), settings.security())
        self._credits = ByteCredits(context.memory_bytes_max)
        self._senders: dict[str, RocketMQSender] = {}
        self._progress = GroupProgress(self._client)
        self._groups = Groups(self._client, self._progress, ProxyMembers(self._client, self._one_reader))
        self._retries = Retries(self._client, self._one_reader)
        self._barriers_ready: set[str] = set()
        self._batch_bytes_max = BATCH_BYTES_MAX

    async def open(self) -> None:
        with mapped(f"cluster {self.cluster}"):
            await self._client.brokers(fresh=True)

    async def close(self) -> None:
        for sender in self._senders.values():
            await sender.close()
        self._client.close()

    # The cluster

    async def describe(self) -> ClusterDescription:
        with mapped(f"cluster {self.cluster}"):
            description = await admin.describe_cluster(self._client, self.cluster)
        self._batch_bytes_max = description.append_bytes_max
        for sender in self._senders.values():
            sender.batch_bytes_max = self._batch_bytes_max
        return description

    async def read_marks(self) -> Sequence[str]:
        with mapped(f"cluster {self.cluster}"):
            topics = await self._topic_names()
        return sorted(topic.removeprefix(MARK_PREFIX) for topic in topics if topic.startswith(MARK_PREFIX))

    async def write_mark(self, cluster_id: str) -> None:
        spread = [QueueSpread(name, 1) for name in await self._broker_names()]
        await self.create_topic(TopicDescription(MARK_PREFIX + cluster_id, ()), spread)

    async def list_topics(self) -> Sequence[str]:
        with mapped(f"cluster {self.cluster}"):
            topics = await self._topic_names()
            brokers = await self._client.brokers()
        return sorted(topic for topic in topics if self._is_listed(topic, brokers))

    def _is_listed(self, topic: str, brokers: Collection[str]) -> bool:
        return is_user_topic(topic, brokers, self._client.cluster_names)

    async def _topic_names(self) -> set[str]:
        """Topics of this cluster's brokers; one name server may serve several clusters. Raises ``Unreachable`` without brokers."""
        names = await self._listed_topics()
        if not names:
            await admin.require_brokers(self._client)
            names = await self._listed_topics()
        return names

    async def _listed_topics(self) -> set[str]:
        await self._client.brokers()
        names: set[str] = set()
        for cluster in self._client.cluster_names:
            names.update(bodies.read_topic_list((await self._client.ask_name_server(headers.topics_by_cluster(cluster))).body))
        return names

    async def _broker_names(self) -> list[str]:
        with mapped(f"cluster {self.cluster}"):
            return sorted(await self._client.brokers(fresh=True))

    async def describe_topic(self, topic: str) -> TopicDescription | None:
        with mapped(f"cluster {self.cluster}, topic {topic}"):
            return await (self._retries.describe(topic) if is_waiting(topic) else admin.describe_topic(self._client, topic))

    async def create_topic(self, description: TopicDescription, spread: Sequence[QueueSpread]) -> None:
        with mapped(f"cluster {self.cluster}, topic {description.name}"):
            await admin.create_topic(self._client, description, spread)

    # Offsets

    async def offset_range(self, queue: MessageQueue, *, any_replica: bool = False) -> OffsetRange:
        with mapped(f"cluster {self.cluster}, queue {queue}"):
            queue = place_of(queue)
            place = await self._client.place(queue.broker_name, any_replica=any_replica)
            lowest, highest = await asyncio.gather(
                self._client.ask_at(place, headers.min_offset(queue.topic, queue.queue_id)),
                self._client.ask_at(place, headers.max_offset(queue.topic, queue.queue_id)),
            )
            return OffsetRange(max(0, headers.read_offset(lowest)), headers.read_offset(highest), may_lack_newest=not place.is_master)

    async def offset_at(self, queue: MessageQueue, timestamp_ms: int) -> int:
        queue = place_of(queue)
        bounds = await self.offset_range(queue)
        if bounds.min_offset >= bounds.max_offset:
            return bounds.max_offset
        with mapped(f"cluster {self.cluster}, queue {queue}, time {timestamp_ms}"):
            answer = await self._client.ask(queue.broker_name, headers.search_offset(queue.topic, queue.queue_id, timestamp_ms))
            found = min(max(headers.read_offset(answer), bounds.min_offset), bounds.max_offset)
        return await admin.first_at_or_after(self, queue, bounds, found, timestamp_ms)

    async def consumer_offset(self, group: str, queue: MessageQueue) -> int | None:
        with mapped(f"cluster {self.cluster}, group {group}, queue {queue}"):
            return await self._progress.offset(group, queue)

    async def publish_position(self, group: str, positions: Mapping[MessageQueue, int]) -> None:
        real = [(queue, offset) for queue, offset in positions.items() if not is_waiting(queue.topic)]
        with mapped(f"cluster {self.cluster}, group {group}"):
            for start in range(0, len(real), POSITIONS_TOGETHER):
                together = real[start : start + POSITIONS_TOGETHER]
                await asyncio.gather(*(self._publish(group, queue, offset) for queue, offset in together))

    async def _publish(self, group: str, queue: MessageQueue, offset: int) -> None:
        command = headers.update_consumer_offset(group, queue.topic, queue.queue_id, offset)
        answer = await self._client.ask(
            queue.broker_name, command, (int(ResponseCode.SUCCESS), int(ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST))
        )
        if answer.code != ResponseCode.SUCCESS:
            await admin.create_group(self._client, queue.broker_name, group)
            await self._client.ask(queue.broker_name, headers.update_consumer_offset(group, queue.topic, queue.queue_id, offset))
        self._progress.forget(queue.broker_name)

    # Records

    def reader(self, queue: MessageQueue, offset: int, *, prefetch: bool = True, any_replica: bool = False) -> PullReader:
        where = place_of(queue)
        return PullReader(self._client, self._credits, self.cluster, where, offset, prefetch=prefetch, any_replica=any_replica)

    def _one_reader(self, queue: MessageQueue, offset: int) -> PullReader:
        return PullReader(self._client, self._credits, self.cluster, queue, offset, prefetch=False, any_replica=True)

    def sender(self, broker_name: str) -> RocketMQSender:
        sender = self._senders.get(broker_name)
        if sender is None:
            sender = self._senders[broker_name] = self._make_sender(broker_name)
            sender.batch_bytes_max = self._batch_bytes_max
        return sender

    def _make_sender(self, broker_name: str) -> RocketMQSender:
        return RocketMQSender(self._client, broker_name, self._instance, self.cluster)

    async def write_barrier(self, broker_name: str, permit: SendPermit, timeout_seconds: float) -> None:
        where = f"cluster {self.cluster}, broker {broker_name}, barrier"
        try:
            async with asyncio.timeout(timeout_seconds):
                with mapped(where):
                    await self._ensure_barrier_topic(broker_name)
                    offset = await self._append_barrier(broker_name, permit, timeout_seconds)
                    await self._until_readable(broker_name, offset)
        except TimeoutError as error:
            raise NotConnected(f"{where}: not readable after {timeout_seconds:.0f} s") from error

    async def _ensure_barrier_topic(self, broker_name: str) -> None:
        if broker_name not in self._barriers_ready:
            await admin.ensure_own_topic(self._client, broker_name, BARRIER_TOPIC)
            self._barriers_ready.add(broker_name)

    async def _append_barrier(self, broker_name: str, permit: SendPermit, timeout_seconds: float) -> int:
        target = headers.SendTarget(SENDER_GROUP, BARRIER_TOPIC, 0, 0)
        command = headers.send_single(target, uuid.uuid4().hex.encode(), b"")
        sender = self.sender(broker_name)
        try:
            answer = await sender.barrier_append(command, permit.is_valid, timeout_seconds)
        except PermitEnded as error:
            raise Fenced(f"broker {broker_name}: the right to write ended before its barrier") from error
        except (NeverLeft, LostInFlight) as error:
            raise NotConnected(f"broker {broker_name}: the barrier was not answered: {error}") from error
        if kind_of(answer.code) not in (Kind.OK, Kind.STORED_WEAK):
            self._barriers_ready.discard(broker_name)  # The topic may have been deleted.
            raise Answered(broker_name, "barrier", answer.code, answer.remark or "")
        return headers.read_send(answer).queue_offset

    async def _until_readable(self, broker_name: str, offset: int) -> None:
        """Pulls the barrier record itself: ``maxOffset`` alone may run ahead of what can be read."""
        while True:
            command = headers.pull(READER_GROUP, (BARRIER_TOPIC, 0), offset, BARRIER_PULL_RECORDS)
            answer = await self._client.ask(broker_name, command, PULL_ANSWERS)
            if answer.code == ResponseCode.SUCCESS and answer.body:
                return
            await asyncio.sleep(BARRIER_POLL_SECONDS)

    # FencesSource

    async def lock_queues(
        self, group: str, holder: str, queues: Collection[MessageQueue], *, any_replica: bool = False
    ) -> set[MessageQueue]:
        held: set[MessageQueue] = set()
        with mapped(f"cluster {self.cluster}, queue locks of group {group}"):
            for broker_name, keys in _by_broker(queues).items():
                answer = await self._client.ask(broker_name, headers.lock_queues(group, holder, keys), any_replica=any_replica)
                held.update(MessageQueue(*key) for key in bodies.read_locked_queues(answer.body))
        return held & set(queues)

    async def unlock_queues(self, group: str, holder: str, queues: Collection[MessageQueue]) -> None:
        with mapped(f"cluster {self.cluster}, queue locks of group {group}"):
            for broker_name, keys in _by_broker(queues).items():
                await self._client.ask(broker_name, headers.unlock_queues(group, holder, keys))

    # TellsRetention

    async def retention_seconds(self, broker_name: str) -> float | None:
        return admin.retention_seconds(await self.read_settings(broker_name))

    # TellsRights

    async def missing_rights(self, read: Collection[str], write: Collection[str]) -> Sequence[str]:
        with mapped(f"cluster {self.cluster}, rights"):
            return [f"cluster {self.cluster}: {said}" for said in await rights.missing_rights(self._client, read, write)]

    # TunesSource

    async def plan_tuning(self) -> Mapping[str, Mapping[str, tuple[str, str]]]:
        found = {}
        for broker_name in await self._broker_names():
            settings = await self.read_settings(broker_name)
            if below := admin.below_wanted(settings):
                found[broker_name] = below
        return found

    async def read_settings(self, broker_name: str) -> Mapping[str, str]:
        with mapped(f"cluster {self.cluster}, broker {broker_name}, configuration"):
            return bodies.read_properties_text((await self._client.ask(broker_name, headers.broker_config())).body)

    async def change_settings(self, broker_name: str, settings: Mapping[str, str]) -> None:
        with mapped(f"cluster {self.cluster}, broker {broker_name}, configuration"):
            await self._client.ask(broker_name, headers.update_broker_config(settings))

    # KeepsProgress

    async def group_offsets(self, topics: Collection[str]) -> Mapping[str, Mapping[MessageQueue, int]]:
        waiting = {topic for topic in topics if is_waiting(topic)}
        retries = {retry_topic(topic.removeprefix(WAITING_PREFIX)) for topic in waiting}
        with mapped(f"cluster {self.cluster}, progress of groups"):
            known = await self._groups.offsets({*topics, *retries})
            if not waiting:
                return known
            found = {
                group: {queue: offset for queue, offset in offsets.items() if queue.topic in topics} for group, offsets in known.items()
            }
            for group, offsets in (await self._retries.progress(waiting, known)).items():
                found.setdefault(group, {}).update(offsets)
        return {group: offsets for group, offsets in found.items() if offsets}

    async def group_settings(self) -> Mapping[str, GroupSettings]:
        with mapped(f"cluster {self.cluster}, groups"):
            return await self._groups.settings()

    async def create_groups(self, settings: Sequence[GroupSettings]) -> Mapping[str, ReplicatorError]:
        with mapped(f"cluster {self.cluster}, groups"):
            failed = await self._groups.create(settings)
        return {group: error_of(f"cluster {self.cluster}, group {group}", error) for group, error in failed.items()}

    async def set_groups_consumable(self, groups: Collection[str], consumable: bool) -> None:
        with mapped(f"cluster {self.cluster}, groups"):
            await self._groups.set_consumable(groups, consumable)

    async def group_members(self, group: str) -> GroupMembers:
        with mapped(f"cluster {self.cluster}, members of group {group}"):
            return await self._groups.members(group)

    async def can_reset_exactly(self, broker_name: str) -> bool:
        with mapped(f"cluster {self.cluster}, broker {broker_name}"):
            return await self._groups.can_reset_exactly(broker_name)

    async def write_offsets(self, group: str, offsets: Mapping[MessageQueue, int], *, running: bool) -> Sequence[OffsetWritten]:
        with mapped(f"cluster {self.cluster}, progress of group {group}"):
            return await self._groups.write(group, offsets, running=running)

    # CountsPending, ClosesTopics

    async def pending_counts(self) -> Mapping[str, int]:
        with mapped(f"cluster {self.cluster}, pending messages"):
            return await pending.pending_counts(self._client)

    async def set_topic_writable(self, topic: str, writable: bool) -> bool:
        with mapped(f"cluster {self.cluster}, topic {topic}"):
            return await pending.set_topic_writable(self._client, topic, writable)
    # KeepsRetries

    async def retry_topics(self, groups: Collection[str]) -> Collection[str]:
        with mapped(f"cluster {self.cluster}"):
            return self._retries.existing(groups, await self._topic_names())

    async def waiting_ends(self) -> Mapping[tuple[str, int], int]:
        with mapped(f"cluster {self.cluster}, ends of the schedule topic"):
            return await self._retries.ends()

    async def waiting_counts(self, groups: Collection[str]) -> Mapping[str, int]:
        with mapped(f"cluster {self.cluster}, messages waiting for a retry"):
            names = await self._topic_names()
            failing = [group for group in groups if retry_topic(group) in names]
            return await self._retries.counts(failing, await self._groups.offsets({retry_topic(group) for group in failing}))

    def retried_topic(self, topic: str, properties: Mapping[str, str]) -> str | None:
        return retried_topic(topic, properties)

    # RemovesGroups

    async def remove_group(self, group: str) -> None:
        with mapped(f"cluster {self.cluster}, group {group}"):
            for broker_name in sorted(await self._client.brokers(fresh=True)):
                await self._client.ask(broker_name, headers.delete_subscription_group(group, clean_offset=True))
                self._progress.forget(broker_name)

    # ListsSenders

    async def sender_identities(self, broker_name: str) -> set[str] | None:
        with mapped(f"cluster {self.cluster}, broker {broker_name}, senders"):
            try:
                answer = await self._client.ask(broker_name, headers.producer_connections(SENDER_GROUP, BARRIER_TOPIC))
            except Answered as error:
                if error.code == ResponseCode.CONSUMER_NOT_ONLINE or "not exist" in error.remark:
                    return set()
                if kind_of(error.code) is Kind.BUSY or (error.concerns_credentials and not error.concerns_rights):
                    raise  # A key that is not accepted now says nothing about who is connected.
                return None
        return {connection.client_id for connection in bodies.read_producer_connections(answer.body)}


def _by_broker(queues: Collection[MessageQueue]) -> dict[str, list[headers.QueueKey]]:
    grouped: dict[str, list[headers.QueueKey]] = {}
    for queue in queues:
        grouped.setdefault(queue.broker_name, []).append((queue.topic, queue.broker_name, queue.queue_id))
    return grouped
