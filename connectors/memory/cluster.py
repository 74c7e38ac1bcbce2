"""An honest in-process cluster: brokers with a commit log each, topics, queues, groups, locks, sending connections.

All of it lives in one thread. Methods a test calls take effect at once; the connector (``connectors.memory.connector``) is the
only other user. ``pace`` and ``clock_ms`` are the two ways in which a simulator drives it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from connectors.memory.faults import CutMode, Faults, PlannedAppend, RecordJudge, throttled
from connectors.memory.log import QueueLog, Signal
from connectors.memory.wire import Connection, Exchange
from replicator.core.connector import AppendOutcome, NotStored, Stored
from replicator.core.errors import NotConnected, NotFound, Refused, ReplicatorError
from replicator.core.groups import GroupMembers, GroupSettings
from replicator.core.record import (
    AppendBatch,
    MessageQueue,
    QueueSpread,
    Record,
    TopicDescription,
    pack_properties,
)

LOCK_LIFE_MS = 60_000
APPEND_BYTES_MAX = 4 * 1024 * 1024
APPEND_RECORDS_MAX = 4096
PROPERTIES_BYTES_MAX = 32_767
INTERNAL_TOPIC_PREFIX = "replicator-"

Pace = Callable[[str, str], Awaitable[None]]
"""Awaited with (point, instance) wherever a network would take its time: a simulator's delays and crashes go here."""
Pairs = dict[str, str] | Sequence[tuple[str, str]]

_clusters: dict[str, MemoryCluster] = {}


async def yield_once(point: str, instance: str) -> None:
    """The pace of a perfect network."""
    await asyncio.sleep(0)


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Broker:
    """One replica group. ``role_epoch`` grows with each role change; a sender that knows an older one is answered "moved"."""

    broker_name: str
    role_epoch: int = 0
    commit_log_end: int = 0
    dispatch_paused: bool = False
    connections: dict[str, Connection] = field(default_factory=dict)
    listed_senders: set[str] = field(default_factory=set)
    """Identities the broker still has a channel for, living or not yet noticed as dead."""
    interruptions: int = 0
    """Grows when readers of this broker lose their connection."""


@dataclass(slots=True)
class Topic:
    name: str
    queue_counts: dict[str, int] = field(default_factory=dict)
    ordered: bool = False
    message_type: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    readable: bool = True
    writable: bool = True
    unsupported: str = ""


@dataclass(slots=True)
class Lock:
    holder: str
    expires_ms: int


class MemoryCluster:
    """The cluster itself. Build it through ``MemoryCluster.named`` or ``create`` where connectors shall find it by name."""

    def __init__(self, name: str, brokers: Sequence[str] = ("broker-a",), clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self.name = name
        self.clock_ms = clock_ms
        self.pace: Pace = yield_once
        self.brokers = {broker_name: Broker(broker_name) for broker_name in brokers}
        self.topics: dict[str, Topic] = {}
        self.marks: list[str] = []
        self.consumer_offsets: dict[tuple[str, MessageQueue], int] = {}
        self.groups: dict[str, GroupSettings] = {}
        self.members: dict[str, GroupMembers] = {}
        """Who is online, by group: what a test says."""
        self.pending: dict[str, int] = {}
        """Messages taken and not delivered yet, by kind: what a test says."""
        self.resets_exactly = True
        """Whether the offset of a group with members can be set, as RocketMQ can from 5.2 on."""
        self.locks: dict[tuple[str, MessageQueue], Lock] = {}
        self.lock_life_ms = LOCK_LIFE_MS
        self.append_bytes_max = APPEND_BYTES_MAX
        self.append_records_max = APPEND_RECORDS_MAX
        self.properties_bytes_max = PROPERTIES_BYTES_MAX
        self.lists_senders = True
        """False: the broker cannot say which connections it holds."""
        self.senders_linger = False
        """True: the broker goes on listing a reset connection until ``forget_reset_senders``."""
        self.weak_answer = ""
        """What every append from now on says in ``Stored.weak``."""
        self.retention_seconds: float | None = None
        """How long brokers say they keep records; None: they do not say."""
        self.settings: dict[str, dict[str, str]] = {broker_name: {"read_records_max": "32"} for broker_name in brokers}
        """Of each broker, as ``TunesSource`` sees them."""
        self.faults = Faults()
        self.network_changed = Signal()
        self.logs: dict[MessageQueue, QueueLog] = {}
        self._connections_made = 0

    # Registry

    @classmethod
    def create(
        cls, name: str, brokers: Sequence[str] = ("broker-a",), clock_ms: Callable[[], int] = wall_clock_ms
    ) -> MemoryCluster:
        """A fresh cluster under this name; one that stood there before is no longer found."""
        _clusters[name] = cls(name, brokers, clock_ms)
        return _clusters[name]

    @classmethod
    def named(cls, name: str) -> MemoryCluster:
        """The cluster of this name, made when there is none."""
        return _clusters.get(name) or cls.create(name)

    @staticmethod
    def forget(name: str) -> None:
        _clusters.pop(name, None)

    # Topics and content

    def add_topic(self, name: str, queue_counts: Mapping[str, int] | int = 4, **attributes: object) -> Topic:
        """Creates or grows a topic. An int: that many queues on each broker. ``attributes``: fields of ``Topic``."""
        counts = dict.fromkeys(self.brokers, queue_counts) if isinstance(queue_counts, int) else dict(queue_counts)
        for broker_name in counts:
            self.broker(broker_name)
        topic = self.topics.setdefault(name, Topic(name))
        for field_name, value in attributes.items():
            setattr(topic, field_name, value)
        for broker_name, count in counts.items():
            topic.queue_counts[broker_name] = max(count, topic.queue_counts.get(broker_name, 0))
        for queue in self.queues(name):
            self.logs.setdefault(queue, QueueLog(name))
        return topic

    def queues(self, topic: str) -> list[MessageQueue]:
        """Queues of a topic, sorted."""
        counts = self.topics[topic].queue_counts if topic in self.topics else {}
        return [MessageQueue(topic, broker_name, i) for broker_name in sorted(counts) for i in range(counts[broker_name])]

    def describe_topic(self, name: str) -> TopicDescription | None:
        topic = self.topics.get(name)
        if topic is None:
            return None
        return TopicDescription(
            name, tuple(self.queues(name)) if topic.readable else (), topic.ordered, topic.message_type,
            dict(topic.attributes), topic.readable, topic.writable, topic.unsupported,
        )  # fmt: skip

    def create_topic(self, description: TopicDescription, spread: Sequence[QueueSpread]) -> None:
        counts = {item.broker_name: item.queue_count for item in spread}
        if description.name in self.topics:
            self.add_topic(description.name, counts)
            return
        self.add_topic(
            description.name, counts, ordered=description.ordered, message_type=description.message_type,
            attributes=dict(description.attributes), readable=description.readable, writable=description.writable,
        )  # fmt: skip

    def delete_topic(self, name: str) -> None:
        for queue in self.queues(name):
            self.logs.pop(queue).changed.fire()
        self.topics.pop(name, None)

    def recreate_topic(self, name: str) -> None:
        """The topic is deleted and made again: empty, offsets restart at 0, consumer offsets stay behind."""
        topic = self.topics[name]
        self.delete_topic(name)
        self.topics[name] = topic
        self.add_topic(name, topic.queue_counts)

    def broker(self, broker_name: str) -> Broker:
        found = self.brokers.get(broker_name)
        if found is None:
            raise NotFound(f"cluster {self.name} has no broker {broker_name}")
        return found

    def log(self, queue: MessageQueue) -> QueueLog:
        found = self.logs.get(queue)
        if found is None:
            raise NotFound(f"cluster {self.name} has no queue {queue}")
        return found

    def produce(
        self, queue: MessageQueue, body: bytes, properties: bytes | Pairs = b"", *, flag: int = 0, encoding: int = 0
    ) -> int:
        """A local producer's message, past every fault; returns its offset."""
        packed = properties if isinstance(properties, bytes) else pack_properties(properties)
        return self.produce_batch(queue, AppendBatch([body], [packed], [flag], encoding, self.clock_ms()))

    def produce_many(self, queue: MessageQueue, bodies: Sequence[bytes], properties: bytes = b"") -> int:
        """Many messages of equal properties; returns the first offset."""
        n = len(bodies)
        return self.produce_batch(queue, AppendBatch(bodies, [properties] * n, [0] * n, 0, self.clock_ms()))

    def produce_batch(self, queue: MessageQueue, batch: AppendBatch) -> int:
        log, broker = self.log(queue), self.broker(queue.broker_name)
        first_offset = log.end_offset
        broker.commit_log_end = log.append(batch, self.clock_ms(), broker.commit_log_end)
        if not broker.dispatch_paused:
            log.dispatch()
        return first_offset

    def records(self, queue: MessageQueue) -> Sequence[Record]:
        """Everything a queue holds, also what is not readable so far."""
        return self.log(queue).records()

    def commit(self, group: str, queue: MessageQueue, offset: int) -> None:
        """A consumer group's progress, as its own clients would store it."""
        self.consumer_offsets[group, queue] = offset

    # History

    def expire(self, queue: MessageQueue, min_offset: int) -> None:
        """The head below ``min_offset`` is deleted by retention."""
        self.log(queue).expire(min_offset)

    def truncate(self, queue: MessageQueue, end_offset: int) -> None:
        """The queue loses its tail; the next append is answered with a lower offset than expected."""
        self.log(queue).truncate(end_offset)

    def lose_log_tail(self, broker_name: str, commit_log_offset: int) -> None:
        """A replica that was behind takes over: every queue of the broker loses what stood at or beyond a log position, and
        the position is assigned again."""
        broker = self.broker(broker_name)
        broker.commit_log_end = min(broker.commit_log_end, commit_log_offset)
        for queue, log in self.logs.items():
            if queue.broker_name == broker_name:
                log.truncate_log(commit_log_offset)

    def punch_hole(self, queue: MessageQueue, start: int, end: int) -> None:
        """Records in the middle vanish; their offsets stay empty."""
        self.log(queue).remove(start, end)

    def skip_offsets(self, queue: MessageQueue, count: int) -> None:
        """The next offsets are used up by something that no reader ever sees."""
        self.log(queue).skip(count)
        if not self.broker(queue.broker_name).dispatch_paused:
            self.log(queue).dispatch()

    # Faults of appends

    def _plan(self, fault: PlannedAppend) -> PlannedAppend:
        self.faults.appends.append(fault)
        return fault

    def refuse_next_append(
        self, scope: str, detail: str = "planned refusal", *, queue: MessageQueue | None = None, retry_after_seconds: float = 0.5
    ) -> PlannedAppend:
        """The next append is answered ``NotStored(scope)``."""
        return self._plan(PlannedAppend("never", queue, refusal=NotStored(scope, detail, retry_after_seconds)))

    def refuse_records(self, judge: RecordJudge) -> None:
        """From now on an append with a record for which ``judge(queue, body, properties)`` gives a reason is
        ``NotStored("record")`` as a whole."""
        self.faults.judges.append(judge)

    def lose_next_append(self, queue: MessageQueue | None = None, *, waits: bool = False) -> PlannedAppend:
        """The next append never reaches the broker and its sender learns nothing: ``Unknown``, nothing stored."""
        return self._plan(PlannedAppend("never", queue, waits))

    def lose_next_answer(self, queue: MessageQueue | None = None, *, waits: bool = False) -> PlannedAppend:
        """The next append is stored and its sender learns nothing; ``release()`` lets the answer through late."""
        return self._plan(PlannedAppend("now", queue, waits))

    def hold_next_append(
        self, queue: MessageQueue | None = None, *, waits: bool = False, delivered_after_reset: bool = False
    ) -> PlannedAppend:
        """The next append is underway when its sender gives up: ``Unknown``; stored at ``release()``, unless a reset of its
        connection took the bytes back before."""
        return self._plan(PlannedAppend("on_release", queue, waits, delivered_after_reset))

    # Faults of readers, network and brokers

    def throttle_next_read(self, queue: MessageQueue | None = None, *, retry_after_seconds: float = 0.5) -> None:
        self.fail_next_read(throttled(retry_after_seconds), queue)

    def fail_next_read(self, error: ReplicatorError, queue: MessageQueue | None = None) -> None:
        self.faults.reads.append((queue, error))
        self._wake_readers()

    def fail_next_call(self, name: str, error: ReplicatorError) -> None:
        """The next call of a connector method (``describe``, ``lock_queues``, …) raises ``error``."""
        self.faults.calls[name].append(error)

    def cut(self, broker_name: str | None = None, *, instance: str | None = None, mode: CutMode = "refused") -> None:
        """Nobody (or only ``instance`` not) reaches the broker (None: any broker). ``refused``: connections break at once.
        ``silent``: packets vanish, so that everybody sits through time-outs and open connections stay."""
        self.faults.cuts[instance, broker_name] = mode
        if mode == "refused":
            self.reset_connections(broker_name, instance=instance)
        self.network_changed.fire()
        self._wake_readers()

    def heal(self, broker_name: str | None = None, *, instance: str | None = None) -> None:
        """Ends the cut made with the same arguments."""
        self.faults.cuts.pop((instance, broker_name), None)
        self.network_changed.fire()

    def cut_readers(self, broker_name: str | None = None) -> None:
        """Readers lose their connection once (``NotConnected``) and may go on reading."""
        for broker in self._brokers(broker_name):
            broker.interruptions += 1
        self._wake_readers()

    def reset_connections(self, broker_name: str | None = None, *, instance: str | None = None) -> None:
        """The network, the broker, or the death of ``instance`` resets sending connections."""
        for broker in self._brokers(broker_name):
            for connection in [c for c in broker.connections.values() if instance in (None, c.instance)]:
                self.disconnect(connection)

    def restart_broker(self, broker_name: str) -> None:
        """Connections and queue locks are gone, the log is not."""
        self.reset_connections(broker_name)
        self.broker(broker_name).listed_senders.clear()
        self.cut_readers(broker_name)
        for key in [key for key in self.locks if key[1].broker_name == broker_name]:
            del self.locks[key]

    def change_role(self, broker_name: str) -> None:
        """Another replica is master: as a restart, and each connector's next append is answered ``NotStored("moved")``.
        With ``lose_log_tail`` before it, one that was behind."""
        self.restart_broker(broker_name)
        self.broker(broker_name).role_epoch += 1

    def pause_dispatch(self, broker_name: str) -> None:
        """Appends are stored and answered, but not readable until ``resume_dispatch``."""
        self.broker(broker_name).dispatch_paused = True

    def resume_dispatch(self, broker_name: str) -> None:
        self.broker(broker_name).dispatch_paused = False
        for queue, log in self.logs.items():
            if queue.broker_name == broker_name:
                log.dispatch()

    def refuse_locks(self, queue: MessageQueue | None = None) -> None:
        """Locks of the queue (None: any) are neither given nor renewed until ``allow_locks``."""
        self.faults.refused_locks[queue] = True

    def allow_locks(self, queue: MessageQueue | None = None) -> None:
        self.faults.refused_locks.pop(queue, None)

    def forget_reset_senders(self) -> None:
        """The broker notices that reset connections are gone."""
        for broker in self.brokers.values():
            broker.listed_senders &= set(broker.connections)

    def _brokers(self, broker_name: str | None) -> Iterable[Broker]:
        return self.brokers.values() if broker_name is None else (self.broker(broker_name),)

    def _wake_readers(self) -> None:
        for log in self.logs.values():
            log.changed.fire()

    # What connectors ask for

    def connect(self, broker_name: str, instance: str, identity: str) -> Connection:
        broker = self.broker(broker_name)
        if self.faults.cut_between(instance, broker_name) is not None:
            raise NotConnected(f"cluster {self.name}: {broker_name} refuses connections")
        connection = Connection(broker_name, instance, identity)
        broker.connections[identity] = connection
        broker.listed_senders.add(identity)
        return connection

    def new_identity(self, instance: str, broker_name: str) -> str:
        self._connections_made += 1
        return f"{instance}@{broker_name}#{self._connections_made}"

    def disconnect(self, connection: Connection) -> None:
        broker = self.broker(connection.broker_name)
        broker.connections.pop(connection.identity, None)
        if not self.senders_linger:
            broker.listed_senders.discard(connection.identity)
        connection.close()

    def receive(self, connection: Connection, queue: MessageQueue, batch: AppendBatch) -> Exchange:
        """The frame has left the sender. What becomes of it is the fault's or the broker's business."""
        fault = self.faults.next_append(queue)
        if fault is None and self.faults.cut_between(connection.instance, queue.broker_name) is not None:
            fault = PlannedAppend("never", queue, waits=True)
        if fault is None:
            return connection.exchange(queue, fault, self._execute(queue, batch))
        fault.taken = True
        if fault.refusal is not None:
            fault.outcome = fault.refusal
            return connection.exchange(queue, fault, fault.refusal)
        exchange = connection.exchange(queue, fault)
        if fault.execution == "now":
            fault.outcome = self._execute(queue, batch)
        kept = AppendBatch(
            [bytes(body) for body in batch.bodies], list(batch.properties), list(batch.flags), batch.encoding,
            batch.born_timestamp_ms, batch.reconsume_times,
        )  # fmt: skip

        def deliver() -> AppendOutcome | None:
            if fault.execution == "never" or fault.dropped:
                return None
            if fault.outcome is None:
                fault.dropped = connection.closed and not fault.delivered_after_reset
                fault.outcome = None if fault.dropped else self._execute(queue, kept)
            if fault.outcome is not None:
                exchange.settle(fault.outcome)
            return fault.outcome

        fault.deliver = deliver
        return exchange

    def _execute(self, queue: MessageQueue, batch: AppendBatch) -> AppendOutcome:
        topic, log = self.topics.get(queue.topic), self.logs.get(queue)
        if topic is None or log is None:
            return NotStored("queue", f"cluster {self.name} has no queue {queue}")
        if not topic.writable:
            return NotStored("queue", f"cluster {self.name}: topic {queue.topic} is not writable")
        if len(batch) == 0 or len(batch) > self.append_records_max or sum(log.record_sizes(batch)) > self.append_bytes_max:
            return NotStored("record", f"{queue}: an append of {len(batch)} records is empty or too large")
        if max(map(len, batch.properties)) > self.properties_bytes_max:
            return NotStored("record", f"{queue}: properties exceed {self.properties_bytes_max} bytes")
        if self.faults.judges:
            for body, packed in zip(batch.bodies, batch.properties, strict=True):
                if reason := self.faults.refusal_of(queue, bytes(body), packed):
                    return NotStored("record", reason)
        return Stored(self.produce_batch(queue, batch), self.weak_answer)

    def lock(self, group: str, holder: str, queue: MessageQueue) -> bool:
        if None in self.faults.refused_locks or queue in self.faults.refused_locks:
            return False
        now = self.clock_ms()
        lock = self.locks.get((group, queue))
        if lock is not None and lock.holder != holder and lock.expires_ms > now:
            return False
        self.log(queue)
        self.locks[group, queue] = Lock(holder, now + self.lock_life_ms)
        return True

    def unlock(self, group: str, holder: str, queue: MessageQueue) -> None:
        lock = self.locks.get((group, queue))
        if lock is not None and lock.holder == holder:
            del self.locks[group, queue]

    def check_known(self, queue: MessageQueue) -> None:
        """Raises ``Refused`` where a topic cannot be read."""
        topic = self.topics.get(queue.topic)
        if topic is not None and not topic.readable:
            raise Refused(f"cluster {self.name}: topic {queue.topic} is not readable")


