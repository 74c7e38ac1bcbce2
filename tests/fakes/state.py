"""What a fake broker remembers: topics, queues of stored records, groups, offsets, locks; and fastjson's way of writing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from connectors.rocketmq.remoting.message import StoredMessage, encode_record

LOCK_SECONDS = 60.0

QueueKey = tuple[str, str, int]


class FakeQueue:
    """Stored records ``[min_offset, max_offset)`` with their store times."""

    def __init__(self) -> None:
        self.min_offset = 0
        self.records: list[bytes] = []
        self.messages: list[StoredMessage] = []
        self.arrivals: list[Callable[[], None]] = []

    @property
    def max_offset(self) -> int:
        return self.min_offset + len(self.records)

    def append(self, message: StoredMessage) -> bytes:
        record = encode_record(message)
        self.records.append(record)
        self.messages.append(message)
        return record

    def wake(self) -> None:
        waiting, self.arrivals = self.arrivals, []
        for arrived in waiting:
            arrived()

    def truncate(self, max_offset: int) -> None:
        """The tail is lost, as in an unclean switch; its offsets will be used again."""
        keep = max(0, max_offset - self.min_offset)
        del self.records[keep:], self.messages[keep:]

    def expire(self, min_offset: int) -> None:
        """The head is deleted, as by retention."""
        gone = min(max(0, min_offset - self.min_offset), len(self.records))
        del self.records[:gone], self.messages[:gone]
        self.min_offset += gone

    def read(self, offset: int, count_max: int, bytes_max: int) -> list[bytes]:
        """From ``offset`` on; the first record passes whatever its size."""
        found: list[bytes] = []
        size = 0
        start = offset - self.min_offset
        for record in self.records[start : start + count_max]:
            if found and size + len(record) > bytes_max:
                break
            found.append(record)
            size += len(record)
        return found

    def offset_at(self, timestamp_ms: int, upper: bool) -> int:
        """5.x: first at or after, one past the last if all are older; ``upper``: last at or before."""
        times = [message.store_timestamp_ms for message in self.messages]
        if upper:
            at_or_before = sum(time <= timestamp_ms for time in times)
            return self.min_offset + max(0, at_or_before - 1)
        return self.min_offset + sum(time < timestamp_ms for time in times)


@dataclass(slots=True)
class FakeTopic:
    name: str
    read_queue_count: int
    write_queue_count: int
    perm: int = 6
    order: bool = False
    attributes: dict[str, str] = field(default_factory=dict)
    queues: dict[int, FakeQueue] = field(default_factory=dict)

    def queue(self, queue_id: int) -> FakeQueue:
        return self.queues.setdefault(queue_id, FakeQueue())

    def config(self) -> dict[str, Any]:
        return {
            "attributes": dict(self.attributes),
            "order": self.order,
            "perm": self.perm,
            "readQueueNums": self.read_queue_count,
            "topicFilterType": "SINGLE_TAG",
            "topicName": self.name,
            "topicSysFlag": 0,
            "writeQueueNums": self.write_queue_count,
        }


def group_config(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "brokerId": 0,
        "consumeBroadcastEnable": True,
        "consumeEnable": True,
        "consumeFromMinEnable": True,
        "consumeMessageOrderly": False,
        "groupName": name,
        "groupSysFlag": 0,
        "notifyConsumerIdsChangedEnable": True,
        "retryMaxTimes": 16,
        "retryQueueNums": 1,
        "whichBrokerWhenConsumeSlowly": 1,
        **changes,
    }


class QueueLocks:
    """RebalanceLockManager: per group, one client a queue, for 60 s since its last request."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._held: dict[tuple[str, QueueKey], tuple[str, float]] = {}

    def lock(self, group: str, client_id: str, queues: list[QueueKey]) -> list[QueueKey]:
        now = self.clock()
        locked = []
        for queue in queues:
            holder, since = self._held.get((group, queue), ("", now))
            if not holder or holder == client_id or now - since > LOCK_SECONDS:
                self._held[group, queue] = (client_id, now)
                locked.append(queue)
        return locked

    def unlock(self, group: str, client_id: str, queues: list[QueueKey]) -> None:
        for queue in queues:
            if self._held.get((group, queue), ("", 0.0))[0] == client_id:
                del self._held[group, queue]

    def holder(self, group: str, queue: QueueKey) -> str | None:
        client_id, since = self._held.get((group, queue), ("", 0.0))
        return client_id if client_id and self.clock() - since <= LOCK_SECONDS else None


def dump(value: Any) -> str:
    """As fastjson 1.2 writes it: number keys bare, and a tuple key (topic, broker name, queue id) as an object."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_dump_key(key)}:{dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple | set):
        return "[" + ",".join(dump(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _dump_key(key: Any) -> str:
    if isinstance(key, tuple):
        return dump(queue_object(key))
    return str(key) if isinstance(key, int) else json.dumps(key)


def queue_object(queue: QueueKey) -> dict[str, Any]:
    return {"brokerName": queue[1], "queueId": queue[2], "topic": queue[0]}
