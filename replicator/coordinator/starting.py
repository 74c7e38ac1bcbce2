"""Where a source queue begins. ``start`` concerns the queues that existed when their task was created, or when a change of its
topics first selected them; everything that appears later begins at its first message.

Which queues those are is decided once and written down as an event of kind ``started``, with the offsets found at that moment,
so that a coordinator that dies between two topics, or a topic blocked for a week, changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from replicator.coordinator.connections import Link
from replicator.core.errors import Refused
from replicator.core.record import MessageQueue, OffsetRange
from replicator.core.task import StartPoint
from replicator.store.port import Flow, Store

STARTED = "started"
EVENTS_READ_MAX = 10_000

Offsets = dict[str, dict[str, int | None]]
"""{source topic: {"broker/queue id": offset, or None where it could not be decided then}}"""


@dataclass(frozen=True, slots=True)
class QueueStart:
    """One queue as it was found. ``offset`` None: the group has no progress there."""

    queue: MessageQueue
    bounds: OffsetRange
    offset: int | None

    @property
    def messages(self) -> int | None:
        return None if self.offset is None else max(0, self.bounds.max_offset - self.offset)


def queue_key(queue: MessageQueue) -> str:
    return f"{queue.broker_name}/{queue.queue_id}"


async def find_start(link: Link, start: StartPoint, queue: MessageQueue) -> QueueStart:
    connector = link.connector
    bounds = await link.ask(connector.offset_range(queue))
    if start.kind == "latest":
        return QueueStart(queue, bounds, bounds.max_offset)
    if start.kind == "earliest":
        return QueueStart(queue, bounds, bounds.min_offset)
    if start.kind == "timestamp":
        found: int | None = await link.ask(connector.offset_at(queue, start.timestamp_ms))
    else:
        found = await link.ask(connector.consumer_offset(start.consumer_group, queue))
        if found is None and bounds.min_offset == bounds.max_offset:
            found = bounds.max_offset
    if found is not None:
        found = min(max(found, bounds.min_offset), bounds.max_offset)
    return QueueStart(queue, bounds, found)


async def find_starts(link: Link, start: StartPoint, queues: Iterable[MessageQueue]) -> list[QueueStart]:
    return list(await asyncio.gather(*(find_start(link, start, queue) for queue in queues)))


def offsets_of(starts: Iterable[QueueStart]) -> Offsets:
    offsets: Offsets = {}
    for one in starts:
        offsets.setdefault(one.queue.topic, {})[queue_key(one.queue)] = one.offset
    return offsets


async def write_down(store: Store, flow: Flow, start: StartPoint, offsets: Offsets) -> None:
    topics = len(offsets)
    message = f"{flow.source} to {flow.destination}: {topics} topic{'' if topics == 1 else 's'} found, to begin at {describe(start)}"
    await store.record_event(flow.task, STARTED, message, {"flow_id": flow.flow_id, "offsets": offsets})


async def read_back(store: Store, flow: Flow) -> Offsets | None:
    """What was written down for this flow, the earliest word counting; None before the first."""
    found: Offsets | None = None
    for event in await store.events(flow.task, limit=EVENTS_READ_MAX):
        if event.kind == STARTED and event.detail.get("flow_id") == flow.flow_id:
            found = _merged(found or {}, event.detail.get("offsets", {}))
    return found


def _merged(earlier: Offsets, later: Mapping[str, Any]) -> Offsets:
    return {topic: {**later.get(topic, {}), **earlier.get(topic, {})} for topic in {*earlier, *later}}


async def start_offset(link: Link, start: StartPoint, offsets: Offsets, queue: MessageQueue) -> int:
    """Raises ``Refused`` where a group has no progress to start from."""
    of_topic = offsets.get(queue.topic, {})
    key = queue_key(queue)
    if key not in of_topic:
        return (await link.ask(link.connector.offset_range(queue))).min_offset
    decided = of_topic[key]
    if decided is None:
        decided = (await find_start(link, start, queue)).offset
    if decided is None:
        raise Refused(
            f"group {start.consumer_group} has no progress on {queue} of {link.cluster.name} to start from",
            hint="let it consume there once, or start the task from another point",
        )
    return decided


def describe(start: StartPoint) -> str:
    if start.kind == "timestamp":
        return f"time {start.timestamp_ms} ms"
    return f"the progress of group {start.consumer_group}" if start.kind == "consumer_group" else start.kind
