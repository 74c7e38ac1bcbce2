"""Reading a destination queue for the copies in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from replicator.coordinator.connections import CALL_SECONDS_MAX, Link, in_time
from replicator.core.copies import CopyFilter, FoundCopy
from replicator.core.errors import NotConnected
from replicator.core.record import OffsetRange
from replicator.core.stamp import Place


async def read_copies(link: Link, put: Place, bounds: OffsetRange) -> AsyncGenerator[tuple[list[FoundCopy], int]]:
    """Every copy in the queue, page by page, with how many records were looked at."""
    found = CopyFilter(put)
    position = bounds.min_offset
    reader = link.connector.reader(put.queue, position)
    try:
        while position < bounds.max_offset:
            batch = await in_time(reader.read(), link.cluster.name, CALL_SECONDS_MAX)
            page = [copy for copy in found.find(batch) if copy.destination_offset < bounds.max_offset]
            count, following = len(batch), batch.next_offset
            reader.release(batch)
            if following <= position:
                raise NotConnected(f"{put.queue} of {link.cluster.name} ended at {position} while it was read to {bounds.max_offset}")
            position = following
            yield page, count
    finally:
        await reader.close()
