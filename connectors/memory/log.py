"""What one queue holds, as columns, and the signal that wakes those who wait for a change."""

from __future__ import annotations

import asyncio
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from replicator.core.record import AppendBatch, OffsetRange, Record, RecordBatch

RECORD_OVERHEAD_BYTES = 91
"""What a record costs beside topic, body and properties; as RocketMQ's, so that sizes are comparable."""


class Signal:
    """Wakes every waiter of the running loop; holds no loop of its own, so a cluster may outlive one."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}  # In the order in which they came: simulations repeat exactly.

    def fire(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)

    async def wait(self, timeout_seconds: float) -> bool:
        """True when fired within the time."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await asyncio.wait((waiter,), timeout=max(0.0, timeout_seconds))
        finally:
            self._waiters.pop(waiter, None)
        return waiter.done()


class QueueLog:
    """Records of one queue in offset order. ``end_offset`` is the next to be assigned, ``readable_end`` the end readers see
    (behind it while dispatch is paused). Offsets may have holes; commit log offsets are given by the broker."""

    def __init__(self, topic: str) -> None:
        self.overhead_bytes = RECORD_OVERHEAD_BYTES + len(topic.encode())
        self.changed = Signal()
        self.min_offset = 0
        self.end_offset = 0
        self.readable_end = 0
        self.offsets: list[int] = []
        self.bodies: list[bytes] = []
        self.properties: list[bytes] = []
        self.encodings: list[int] = []
        self.flags: list[int] = []
        self.born_timestamps_ms: list[int] = []
        self.store_timestamps_ms: list[int] = []
        self.commit_log_offsets: list[int] = []
        self.body_crcs: list[int] = []
        self.reconsume_times: list[int] = []
        self.sizes_bytes: list[int] = []

    def _columns(self) -> tuple[list[int] | list[bytes], ...]:
        return (
            self.offsets, self.bodies, self.properties, self.encodings, self.flags, self.born_timestamps_ms,
            self.store_timestamps_ms, self.commit_log_offsets, self.body_crcs, self.reconsume_times, self.sizes_bytes,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def bounds(self) -> OffsetRange:
        return OffsetRange(self.min_offset, self.readable_end)

    def record_sizes(self, batch: AppendBatch) -> list[int]:
        overhead = self.overhead_bytes
        return [overhead + len(body) + len(packed) for body, packed in zip(batch.bodies, batch.properties, strict=True)]

    def append(self, batch: AppendBatch, store_timestamp_ms: int, commit_log_offset: int) -> int:
        """Stores a batch as contiguous offsets; returns the commit log offset after it."""
        n = len(batch)
        sizes = self.record_sizes(batch)
        bodies = [bytes(body) for body in batch.bodies]
        ends = list(accumulate(sizes, initial=commit_log_offset))
        self.offsets.extend(range(self.end_offset, self.end_offset + n))
        self.bodies.extend(bodies)
        self.properties.extend(map(bytes, batch.properties))
        self.encodings.extend([batch.encoding] * n)
        self.flags.extend(batch.flags)
        self.born_timestamps_ms.extend([batch.born_timestamp_ms] * n)
        self.store_timestamps_ms.extend([store_timestamp_ms] * n)
        self.commit_log_offsets.extend(ends[:-1])
        self.body_crcs.extend(map(zlib.crc32, bodies))
        self.reconsume_times.extend([batch.reconsume_times] * n)
        self.sizes_bytes.extend(sizes)
        self.end_offset += n
        return ends[-1]

    def dispatch(self) -> None:
        """Makes everything stored readable."""
        if self.readable_end != self.end_offset:
            self.readable_end = self.end_offset
            self.changed.fire()

    def skip(self, count: int) -> None:
        """Uses up offsets without a record."""
        self.end_offset += count

    def remove(self, start: int, end: int) -> None:
        """Punches a hole: records of ``[start, end)`` vanish, bounds stay."""
        self._delete(bisect_left(self.offsets, start), bisect_left(self.offsets, end))

    def expire(self, min_offset: int) -> None:
        """The head below ``min_offset`` is gone."""
        self.min_offset = max(self.min_offset, min(min_offset, self.end_offset))
        self._delete(0, bisect_left(self.offsets, self.min_offset))
        self.changed.fire()

    def truncate(self, end_offset: int) -> None:
        """The tail from ``end_offset`` on is gone, and its offsets are assigned again."""
        self.end_offset = min(self.end_offset, max(0, end_offset))
        self.readable_end = min(self.readable_end, self.end_offset)
        self.min_offset = min(self.min_offset, self.end_offset)
        self._delete(bisect_left(self.offsets, self.end_offset), len(self.offsets))
        self.changed.fire()

    def truncate_log(self, commit_log_offset: int) -> None:
        """As ``truncate``, for records at or beyond a position in the broker's log."""
        i = bisect_left(self.commit_log_offsets, commit_log_offset)
        if i < len(self.offsets):
            self.truncate(self.offsets[i])

    def _delete(self, start: int, end: int) -> None:
        if start < end:
            for column in self._columns():
                del column[start:end]

    def offset_at(self, timestamp_ms: int) -> int:
        i = bisect_left(self.store_timestamps_ms, timestamp_ms)
        return min(self.offsets[i], self.readable_end) if i < len(self.offsets) else self.readable_end

    def slice(self, position: int, records_max: int, size_bytes_max: int) -> RecordBatch:
        """Records from ``position`` on, at least one when one is readable there, whatever its size."""
        start = bisect_left(self.offsets, position)
        end = min(bisect_left(self.offsets, self.readable_end), start + records_max)
        size_bytes = 0
        for i in range(start, end):
            if size_bytes + self.sizes_bytes[i] > size_bytes_max and i > start:
                end = i
                break
            size_bytes += self.sizes_bytes[i]
        stops_early = end < len(self.offsets) and self.offsets[end] < self.readable_end
        return RecordBatch(
            self.offsets[start:end], self.bodies[start:end], self.properties[start:end], self.encodings[start:end],
            self.flags[start:end], self.born_timestamps_ms[start:end], self.store_timestamps_ms[start:end],
            self.commit_log_offsets[start:end], self.body_crcs[start:end], self.reconsume_times[start:end],
            next_offset=self.offsets[end - 1] + 1 if stops_early else max(position, self.readable_end),
            min_offset=self.min_offset, max_offset=self.readable_end, size_bytes=size_bytes,
        )  # fmt: skip

    def records(self) -> Sequence[Record]:
        """Everything stored, readable or not."""
        return [Record(*row) for row in zip(*self._columns()[:10], strict=True)]
