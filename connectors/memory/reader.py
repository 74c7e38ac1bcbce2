"""Reads one queue of a memory cluster, within the byte credits of its connector."""

from __future__ import annotations

import asyncio

from connectors.memory.cluster import MemoryCluster
from connectors.memory.faults import unreachable
from connectors.memory.log import QueueLog, Signal
from replicator.core.errors import HistoryChanged, NotConnected
from replicator.core.record import MessageQueue, RecordBatch

READ_RECORDS_MAX = 1024
READ_BYTES_MAX = 1024 * 1024


class ByteCredits:
    """Memory of batches that were read and not released. One batch is always let through when nothing else is out, so that a
    record larger than the limit can be read at all."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.released = Signal()

    @property
    def free_bytes(self) -> int:
        return self.limit_bytes - self.used_bytes

    def may_take(self, size_bytes: int) -> bool:
        return size_bytes <= self.free_bytes or self.used_bytes == 0

    def give_back(self, size_bytes: int) -> None:
        self.used_bytes -= size_bytes
        self.released.fire()


class MemoryReader:
    """See ``QueueReader``. Reading is immediate here, so ``prefetch`` changes nothing and there is nothing to drop."""

    def __init__(
        self, cluster: MemoryCluster, queue: MessageQueue, offset: int, instance: str, credits: ByteCredits, long_poll_seconds: float
    ) -> None:
        self._cluster = cluster
        self._queue = queue
        self._position = offset
        self._instance = instance
        self._credits = credits
        self._long_poll_seconds = long_poll_seconds
        self._interruptions = cluster.broker(queue.broker_name).interruptions
        self._out: dict[int, RecordBatch] = {}
        self._closed = False

    async def read(self) -> RecordBatch:
        await self._cluster.pace("read", self._instance)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._long_poll_seconds
        while True:
            if self._cluster.faults.cut_between(self._instance, self._queue.broker_name) == "silent":
                await self._cluster.network_changed.wait(deadline - loop.time())
            log = self._checked_log()
            batch = log.slice(self._position, READ_RECORDS_MAX, max(1, min(READ_BYTES_MAX, self._credits.free_bytes)))
            fits = self._credits.may_take(batch.size_bytes)
            if fits and batch.next_offset != self._position:
                return self._hand_out(batch)
            if loop.time() >= deadline:
                return RecordBatch(
                    next_offset=self._position, min_offset=log.min_offset, max_offset=log.readable_end
                )
            await (log.changed if fits else self._credits.released).wait(deadline - loop.time())

    def _hand_out(self, batch: RecordBatch) -> RecordBatch:
        self._position = batch.next_offset
        if batch.size_bytes:
            self._credits.used_bytes += batch.size_bytes
            self._out[id(batch)] = batch
        return batch

    def _checked_log(self) -> QueueLog:
        queue, broker = self._queue, self._cluster.broker(self._queue.broker_name)
        if self._closed:
            raise NotConnected(f"the reader of {queue} is closed")
        if self._cluster.faults.cut_between(self._instance, queue.broker_name) is not None:
            raise unreachable(self._cluster.name, queue.broker_name)
        if self._interruptions != broker.interruptions:
            self._interruptions = broker.interruptions
            raise NotConnected(f"{queue}: the connection to {queue.broker_name} was lost")
        error = self._cluster.faults.next_read_error(queue)
        if error is not None:
            raise error
        self._cluster.check_known(queue)
        log = self._cluster.log(queue)
        if self._position < log.min_offset:
            raise HistoryChanged(
                f"{queue}: position {self._position} is below the first kept offset {log.min_offset}",
                lost_from=self._position, lost_to=log.min_offset,
            )  # fmt: skip
        if self._position > log.readable_end:
            raise HistoryChanged(f"{queue}: position {self._position} is beyond the end {log.readable_end}")
        return log

    def release(self, batch: RecordBatch) -> None:
        if self._out.pop(id(batch), None) is not None:
            self._credits.give_back(batch.size_bytes)

    async def close(self) -> None:
        """Batches handed out stay charged until they are released."""
        self._closed = True
        log = self._cluster.logs.get(self._queue)
        if log is not None:
            log.changed.fire()
