"""What groups failed on: the schedule topic seen as one waiting topic a group, and how far each group has come in it.

Facts (AbstractSendMessageProcessor.consumerSendMsgBack, ScheduleMessageService; 5.3.3 asked): a message that a consumer sends back
stands in SCHEDULE_TOPIC_XXXX, queue = delay level - 1, with REAL_TOPIC=%RETRY%group, RETRY_TOPIC, ORIGIN_MESSAGE_ID and its count of
attempts, before the group's offset moves past it. Each level is delivered in order, and code 45 tells the next offset of each.
The delivered record keeps these properties and DELAY, which lead back to the record in the schedule topic.

Progress of a group in level L is the first schedule record that it has not processed: of what was delivered, the first one that
still stands before its offset in %RETRY%group; else the next one to be delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from connectors.rocketmq.admin import describe_topic
from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.errors import Answered
from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import ResponseCode
from connectors.rocketmq.source import PullReader
from replicator.core.correspondence import OFFSET_MAX
from replicator.core.errors import Refused
from replicator.core.record import MessageQueue, Record, TopicDescription, parse_properties
from replicator.core.retry import RETRY_PREFIX, WAITING_PREFIX, dead_letter_topic, is_waiting, retry_topic, waiting_topic

SCHEDULE_TOPIC = "SCHEDULE_TOPIC_XXXX"
DISPATCHED_SECONDS = 1.0
"""What a broker called delivered that long ago is readable in the retry topic: it writes the log first and indexes it within
milliseconds."""
BACKLOG_RECORDS_MAX = 5_000
"""Delivered and not yet processed records of one retry queue that are looked through."""
SEARCH_RECORDS_MAX = 10_000
"""Schedule records of one level that are looked through, from the newest delivered one back, for the one behind a backlog."""
LEVELS_MAX = 18
"""Queues of the schedule topic that can be read, whatever ``messageDelayLevel`` says."""
OLD_BROKERS = "brokers before 4.7.1 do not let anybody read what waits for a retry"
GROUPS_TOGETHER = 64
COUNTED_RECORDS_MAX = 20_000
"""Schedule records looked through for one answer to how many wait."""
SEARCH_AHEAD_RECORDS = 256
"""A record may be delivered before the broker says so."""

Read = Callable[[MessageQueue, int], PullReader]
GroupOffsets = Mapping[str, Mapping[MessageQueue, int]]
_Delivered = Mapping[int, int]
"""{delay level: next offset to deliver}; a level that was never used is missing."""


@dataclass(slots=True)
class _Deliveries:
    """Of one broker: answers to 45 with the time they were asked, oldest first; the first one is old enough once there are two."""

    answers: list[tuple[float, _Delivered]] = field(default_factory=list)

    def note(self, now: float, delivered: _Delivered) -> None:
        self.answers.append((now, delivered))
        while len(self.answers) > 1 and now - self.answers[1][0] >= DISPATCHED_SECONDS:
            del self.answers[0]

    def settled(self, now: float) -> _Delivered | None:
        at, delivered = self.answers[0]
        return delivered if now - at >= DISPATCHED_SECONDS else None


@dataclass(slots=True)
class _Standing:
    """What a group has yet to process of what was delivered to it. ``first``: by level, the schedule offset of the first."""

    first: dict[int, int] = field(default_factory=dict)
    unknown: set[int] = field(default_factory=set)

    def note(self, level: int, offset: int | None) -> None:
        if offset is None:
            self.unknown.add(level)
        else:
            self.first[level] = min(offset, self.first.get(level, OFFSET_MAX))


def place_of(queue: MessageQueue) -> MessageQueue:
    """Where the records of a queue stand."""
    return replace(queue, topic=SCHEDULE_TOPIC) if is_waiting(queue.topic) else queue


def retried_topic(topic: str, properties: Mapping[str, str]) -> str | None:
    if is_waiting(topic) and properties.get("REAL_TOPIC") != RETRY_PREFIX + topic.removeprefix(WAITING_PREFIX):
        return None
    return properties.get("RETRY_TOPIC")


class Retries:
    """Raises ``Unreachable``, ``Answered``, ``ProtocolError``; the connector maps them."""

    def __init__(self, client: Client, read: Read) -> None:
        self._client = client
        self._read = read
        self._deliveries: dict[str, _Deliveries] = {}

    def existing(self, groups: Iterable[str], names: Collection[str]) -> list[str]:
        """``names``: every topic of the cluster."""
        found = [waiting_topic(group) for group in groups if retry_topic(group) in names]
        return found + [dead_letter_topic(group) for group in groups if dead_letter_topic(group) in names]

    async def describe(self, topic: str) -> TopicDescription | None:
        """A waiting topic has a queue for each delay level of each broker; it is there as long as the group's retry topic is."""
        retry = await describe_topic(self._client, RETRY_PREFIX + topic.removeprefix(WAITING_PREFIX))
        if retry is None:
            return None
        schedule = await describe_topic(self._client, SCHEDULE_TOPIC)
        if schedule is None:
            return TopicDescription(topic, (), unsupported=OLD_BROKERS)
        queues = tuple(replace(queue, topic=topic) for queue in schedule.queues)
        return TopicDescription(topic, queues, readable=schedule.readable, writable=False)

    async def ends(self) -> dict[tuple[str, int], int]:
        schedule = await describe_topic(self._client, SCHEDULE_TOPIC)
        queues = schedule.queues if schedule is not None else ()
        ends = await asyncio.gather(*(self._end(queue) for queue in queues))
        return {(queue.broker_name, queue.queue_id): end for queue, end in zip(queues, ends, strict=True)}

    async def _end(self, queue: MessageQueue) -> int:
        return headers.read_offset(await self._client.ask(queue.broker_name, headers.max_offset(queue.topic, queue.queue_id)))

    async def counts(self, groups: Collection[str], offsets: GroupOffsets) -> dict[str, int]:
        """``offsets``: of the groups in their retry topics. What is delivered while this counts may be counted twice, never left out."""
        schedule = await describe_topic(self._client, SCHEDULE_TOPIC)
        if schedule is None:
            raise Refused(OLD_BROKERS)
        found: dict[str, int] = {}
        ordered = list(groups)
        for start in range(0, len(ordered), GROUPS_TOGETHER):
            together = ordered[start : start + GROUPS_TOGETHER]
            counts = await asyncio.gather(*(self._delivered_to(group, offsets.get(group, {})) for group in together))
            found.update(zip(together, counts, strict=True))
        delivered: dict[str, _Delivered] = {}
        left = COUNTED_RECORDS_MAX
        for queue in schedule.queues:
            if queue.broker_name not in delivered:
                answer = await self._client.ask(queue.broker_name, headers.all_delay_offsets())
                delivered[queue.broker_name] = bodies.read_delay_offsets(answer.body)
            position, end = delivered[queue.broker_name].get(queue.queue_id + 1, 0), await self._end(queue)
            while position < end and left > 0:
                records, position = await self._records(queue, position)
                left -= len(records)
                for record in records:
                    real = parse_properties(record.properties).get("REAL_TOPIC", "")
                    group = real.removeprefix(RETRY_PREFIX)
                    if real != group and group in found:
                        found[group] += 1
        return {group: count for group, count in found.items() if count}

    async def _delivered_to(self, group: str, offsets: Mapping[MessageQueue, int]) -> int:
        """Records in the group's retry topic that stand before it."""
        retry = retry_topic(group)
        route = await self._client.route(retry)
        queues = [
            MessageQueue(retry, data.broker_name, queue_id)
            for data in (route.queues if route is not None else ()) for queue_id in range(data.read_queue_count)
        ]  # fmt: skip
        return sum([max(0, await self._end(queue) - offsets.get(queue, 0)) for queue in queues])

    async def progress(self, topics: Collection[str], offsets: GroupOffsets) -> dict[str, dict[MessageQueue, int]]:
        """{group: {queue of its waiting topic: offset}}; queues of which it cannot be said are left out. ``offsets``: of the groups in
        their retry topics, read before this."""
        schedule = await describe_topic(self._client, SCHEDULE_TOPIC)
        if schedule is None:
            return {}
        levels: dict[str, list[int]] = {}
        for queue in schedule.queues:
            levels.setdefault(queue.broker_name, []).append(queue.queue_id + 1)
        found: dict[str, dict[MessageQueue, int]] = {}
        for broker_name, present in levels.items():
            now = asyncio.get_running_loop().time()
            latest = bodies.read_delay_offsets((await self._client.ask(broker_name, headers.all_delay_offsets())).body)
            deliveries = self._deliveries.setdefault(broker_name, _Deliveries())
            deliveries.note(now, latest)
            settled = deliveries.settled(now)
            if settled is None:
                continue
            for topic in topics:
                group = topic.removeprefix(WAITING_PREFIX)
                standing = await self._standing(broker_name, group, offsets.get(group, {}), latest)
                found.setdefault(group, {}).update({
                    MessageQueue(topic, broker_name, level - 1): min(settled.get(level, 0), standing.first.get(level, OFFSET_MAX))
                    for level in present if level not in standing.unknown
                })  # fmt: skip
        return found

    async def _standing(
        self, broker_name: str, group: str, offsets: Mapping[MessageQueue, int], latest: _Delivered
    ) -> _Standing:
        standing = _Standing()
        retry = retry_topic(group)
        route = await self._client.route(retry)
        counts = {data.broker_name: data.read_queue_count for data in route.queues} if route is not None else {}
        for queue_id in range(counts.get(broker_name, 0)):
            queue = MessageQueue(retry, broker_name, queue_id)
            await self._look_through(queue, offsets.get(queue, 0), latest, standing)
        return standing

    async def _look_through(self, queue: MessageQueue, position: int, latest: _Delivered, standing: _Standing) -> None:
        """Of each level, the first record of a retry queue from ``position`` on."""
        end = await self._end(queue)
        if position < end:
            asked = headers.min_offset(queue.topic, queue.queue_id)
            position = max(position, headers.read_offset(await self._client.ask(queue.broker_name, asked)))
        seen: set[int] = set()
        limit = position + BACKLOG_RECORDS_MAX
        while position < min(end, limit):
            records, position = await self._records(queue, position)
            for record in records:
                level = parse_properties(record.properties).get("DELAY", "")
                # A record without is a copy from another cluster, or was put there at once: it has never waited here.
                if level.isdigit() and int(level) not in seen:
                    seen.add(int(level))
                    standing.note(int(level), await self._find(queue.broker_name, int(level), record, latest))
        if position < end:
            standing.unknown.update(set(range(1, LEVELS_MAX + 1)) - seen)

    async def _find(self, broker_name: str, level: int, record: Record, latest: _Delivered) -> int | None:
        """Offset of the schedule record that was delivered as ``record``."""
        queue = MessageQueue(SCHEDULE_TOPIC, broker_name, level - 1)
        wanted = _identity(record)
        high = min(latest.get(level, 0) + SEARCH_AHEAD_RECORDS, await self._end(queue))
        lowest = max(0, high - SEARCH_RECORDS_MAX)
        while high > lowest:
            start = max(lowest, high - SEARCH_AHEAD_RECORDS)
            matching: int | None = None
            position = start
            while position < high:
                records, position = await self._records(queue, position)
                matching = max(
                    (one.queue_offset for one in records if one.queue_offset < high and _identity(one) == wanted), default=matching
                )
            if matching is not None:
                return matching
            high = start
        return None

    async def _records(self, queue: MessageQueue, offset: int) -> tuple[list[Record], int]:
        reader = self._read(queue, offset)
        try:
            batch = await reader.read()
            records = list(batch.records())
            reader.release(batch)
        finally:
            await reader.close()
        if batch.next_offset <= offset:
            raise Answered(queue.broker_name, "PULL_MESSAGE", int(ResponseCode.SYSTEM_BUSY), f"nothing at offset {offset} of {queue}")
        return records, batch.next_offset


def _identity(record: Record) -> tuple[str, str, int, int]:
    properties = parse_properties(record.properties)
    return properties.get("REAL_TOPIC", ""), properties.get("ORIGIN_MESSAGE_ID", ""), record.reconsume_times, record.born_timestamp_ms
