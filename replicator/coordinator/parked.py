"""Sending a parked record by hand: a new message, without stamp, that no map knows."""

from __future__ import annotations

from replicator.core.connector import Connector, Stored
from replicator.core.errors import ReplicatorError
from replicator.core.record import AppendBatch, iterate_properties
from replicator.core.stamp import STAMP_NAME
from replicator.store.port import Assignment

RETRY_TIMEOUT_SECONDS = 10.0


class _Always:
    """A person asked for it: no fence stands behind a record that belongs to no position."""

    def is_valid(self) -> bool:
        return True


async def retry_parked(source: Connector, destination: Connector, assignment: Assignment, offset: int) -> str:
    """Empty when the record is stored now; otherwise the reason why not."""
    reader = source.reader(assignment.source_queue, offset, prefetch=False)
    try:
        batch = await reader.read()
        if not len(batch) or batch.offsets[0] != offset:
            return f"the source no longer holds offset {offset}"
        reserved = {*source.reserved_properties, STAMP_NAME}
        kept = b"".join(n + b"\x01" + v + b"\x02" for n, v in iterate_properties(batch.properties[0]) if n not in reserved)
        append = AppendBatch(
            [bytes(batch.bodies[0])], [kept], [batch.flags[0]], batch.encodings[0], batch.born_timestamps_ms[0]
        )
        reader.release(batch)
    except ReplicatorError as error:
        return str(error)
    finally:
        await reader.close()
    queue = assignment.destination_queue
    outcome = await destination.sender(queue.broker_name).append(queue, append, _Always(), RETRY_TIMEOUT_SECONDS)
    return "" if isinstance(outcome, Stored) else outcome.detail
