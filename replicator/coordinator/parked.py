"""Refused messages: looked at, sent again by hand, given up. One sent again is a new message to everybody: it stands in no map."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from replicator.coordinator import declared
from replicator.coordinator.connections import CALL_SECONDS_MAX, Connections, Link, in_time
from replicator.coordinator.operations import queue_json
from replicator.core.connector import NotStored, Stored
from replicator.core.errors import InvalidInput, Missing, ReplicatorError, Unsafe
from replicator.core.record import AppendBatch, MessageQueue, Record, iterate_properties
from replicator.core.stamp import STAMP_NAME
from replicator.store.port import Assignment, Parked, Store, TopicPair

SEND_SECONDS_MAX = 10.0
READS_MAX = 3
"""A read may come back empty before it comes back with the record."""
OPEN = "parked"


class _ByHand:
    """A person asked for it: no fence, and nothing in a map to keep consistent."""

    def is_valid(self) -> bool:
        return True


async def listing(store: Store, task: str) -> list[dict[str, Any]]:
    return [_row(assignment, one) for assignment, one in await _of(store, task)]


async def discard(store: Store, task: str, ids: Sequence[int] | None) -> list[dict[str, Any]]:
    results = []
    for _, one in await _chosen(store, task, ids):
        await store.set_parked_state(one.parked_id, "discarded")
        results.append({"id": one.parked_id, "result": "discarded", "detail": ""})
    if results:
        await store.record_event(task, "discarded", f"{len(results)} refused messages were given up", {"ids": [r["id"] for r in results]})
    return results


async def retry(store: Store, connections: Connections, task: str, ids: Sequence[int] | None) -> list[dict[str, Any]]:
    known = await declared.load(store)
    pairs = [pair for pair in await store.pairs() if pair.flow_id is not None]
    results = []
    for assignment, one in await _chosen(store, task, ids):
        try:
            _refuse_onward(assignment, pairs)
            source = await connections.get(known.cluster(assignment.source), at_once=True)
            destination = await connections.get(known.cluster(assignment.destination), at_once=True)
            record = await read_record(source, assignment.source_queue, one.source_offset)
            result, detail = await _send(source, destination, assignment.destination_queue, record)
        except ReplicatorError as error:
            result, detail = "failed", str(error)
        if result == "retried":
            await store.set_parked_state(one.parked_id, "retried")
        where = {"id": one.parked_id, "queue": queue_json(assignment.source_queue), "source_offset": one.source_offset}
        await store.record_event(task, f"retry-{result}", f"{assignment.source_queue}@{one.source_offset}: {detail or result}", where)
        results.append({"id": one.parked_id, "result": result, "detail": detail})
    return results


def _refuse_onward(assignment: Assignment, pairs: Sequence[TopicPair]) -> None:
    """A message sent by hand counts as born at the destination. Where flows would carry it from there to a cluster that has it, or
    gets it from the source, it would be there twice."""
    put, taken = assignment.destination_queue.topic, assignment.source_queue.topic
    onward = {pair.destination for pair in pairs if (pair.source, pair.source_topic) == (assignment.destination, put)}
    supplied = {pair.destination for pair in pairs if (pair.source, pair.source_topic) == (assignment.source, taken)}
    twice = sorted(onward & {assignment.source, *supplied})
    if twice:
        raise Unsafe(
            f"sent to {assignment.destination} by hand it would be copied on as a new message to "
            f"{' and '.join(twice)}, which has it already",
            hint="let the application send what is missing in a form that the destination takes, then discard this one",
        )


async def _of(store: Store, task: str) -> Sequence[tuple[Assignment, Parked]]:
    if all(row.name != task for row in await store.tasks()):
        raise Missing(f"task {task} does not exist")
    return await store.parked(task)


async def _chosen(store: Store, task: str, ids: Sequence[int] | None) -> list[tuple[Assignment, Parked]]:
    """Those of ``ids``, all where it is None; only what is still parked."""
    waiting = [(assignment, one) for assignment, one in await _of(store, task) if one.state == OPEN]
    if ids is None:
        return waiting
    if not ids:
        raise InvalidInput("no parked message is named", hint="give their ids, or ask for all")
    unknown = set(ids) - {one.parked_id for _, one in waiting}
    if unknown:
        raise Missing(f"task {task} has no refused message {', '.join(map(str, sorted(unknown)))} waiting")
    return [(assignment, one) for assignment, one in waiting if one.parked_id in ids]


async def read_record(link: Link, queue: MessageQueue, offset: int) -> Record:
    """Raises ``Missing`` where the queue does not hold it."""
    reader = link.connector.reader(queue, offset, prefetch=False)
    try:
        for _ in range(READS_MAX):
            batch = await in_time(reader.read(), link.cluster.name, CALL_SECONDS_MAX)
            try:
                found = next((record for record in batch.records() if record.queue_offset == offset), None)
            finally:
                reader.release(batch)
            if found is not None:
                return found
            if batch.next_offset > offset:
                break
    finally:
        await reader.close()
    raise Missing(f"{queue} of {link.cluster.name} does not hold offset {offset} any more")


async def _send(source: Link, destination: Link, queue: MessageQueue, record: Record) -> tuple[str, str]:
    left_out = {STAMP_NAME, *source.connector.reserved_properties}
    pairs = [(name, value) for name, value in iterate_properties(record.properties) if name not in left_out]
    packed = b"".join(name + b"\x01" + value + b"\x02" for name, value in pairs)
    batch = AppendBatch([record.body], [packed], [record.flag], record.encoding, record.born_timestamp_ms, 0)
    sender = destination.connector.sender(queue.broker_name)
    await in_time(sender.connect(), destination.cluster.name, CALL_SECONDS_MAX)
    try:
        async with asyncio.timeout(SEND_SECONDS_MAX * 2):
            outcome = await sender.append(queue, batch, _ByHand(), SEND_SECONDS_MAX)
    except TimeoutError:
        return "unknown", "no answer: it may have been stored"
    if isinstance(outcome, Stored):
        return "retried", f"stored at {queue}@{outcome.first_offset}"
    if isinstance(outcome, NotStored):
        return "refused", outcome.detail
    return "unknown", f"{outcome.detail}: it may have been stored"


def _row(assignment: Assignment, one: Parked) -> dict[str, Any]:
    return {
        "id": one.parked_id,
        "source": assignment.source,
        "destination": assignment.destination,
        "source_queue": queue_json(assignment.source_queue),
        "source_offset": one.source_offset,
        "reason": one.reason,
        "size_bytes": one.size_bytes,
        "state": one.state,
    }
