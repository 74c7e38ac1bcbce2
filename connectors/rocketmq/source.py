"""Reads one queue: strided pulls run ahead of the reader, one long poll waits at its end.

Pulls are stateless reads. A window of them stands at offset, +stride, …, never beyond the last known max offset (a pull
beyond it makes 4.x brokers write a record of their own). The stride is what the broker gives in one answer, learned as
we go; an answer that ends early is followed by one for the gap.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.connection import Answer, Connection, next_opaque
from connectors.rocketmq.client.errors import Answered, Unreachable
from connectors.rocketmq.mapping import mapped
from connectors.rocketmq.remoting import headers, message
from connectors.rocketmq.remoting.codes import ResponseCode
from connectors.rocketmq.remoting.command import FrameTemplate, RemotingCommand, encode_frame
from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.message import MessageColumns, SysFlag
from replicator.core.errors import HistoryChanged
from replicator.core.record import MessageQueue, RecordBatch

READER_GROUP = "replicator-reader"
STRIDE_FIRST = 32
"""The broker's default limit of messages in one answer."""
STRIDE_MAX = 1024
"""4.9.2 to 4.9.8 allocate lists of the size asked for."""
AHEAD_RECORDS_MAX = 2048
PULLS_AHEAD_MAX = 64
READ_RECORDS_WORTH = 1000
"""While that many more are known to be there, a read waits for them: what a batch costs beside its records is shared by more."""
READ_RECORDS_MAX = 2000
READ_BYTES_MAX = 1024 * 1024
SUSPEND_MS = 5_000
PULL_TIMEOUT_SECONDS = 10.0
LONG_POLL_TIMEOUT_SECONDS = SUSPEND_MS / 1000 + 10.0
"""The broker looks for overdue polls every 5 s."""
PULL_BYTES_RESERVED = 256 * 1024
"""A pull reserves the broker's default limit of bytes in one answer until the true size is known."""
PROBE_EVERY_ANSWERS = 64
"""After so many full answers a longer stride is tried again: limits can be raised while we run."""


_PULL_ANSWERS = frozenset({
    ResponseCode.SUCCESS, ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY, ResponseCode.PULL_OFFSET_MOVED,
})


class ByteCredits:
    """Memory for records read and not yet released, shared by all readers of a connector."""

    def __init__(self, size_bytes_max: int) -> None:
        self.size_bytes_max = size_bytes_max
        self.used_bytes = 0
        self._given = asyncio.Event()

    def try_take(self, size_bytes: int) -> bool:
        if self.used_bytes + size_bytes > self.size_bytes_max:
            return False
        self.used_bytes += size_bytes
        return True

    def take(self, size_bytes: int) -> None:
        """Without asking: for what has arrived already."""
        self.used_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        self.used_bytes -= size_bytes
        self._given.set()

    async def take_within(self, size_bytes: int, timeout_seconds: float) -> bool:
        """Waits for room; False if there was none in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.try_take(size_bytes):
                    self._given.clear()
                    await self._given.wait()
        except TimeoutError:
            return False
        return True


@dataclass(slots=True)
class _Pull:
    offset: int
    asked: int
    opaque: int
    answer: Answer
    reserved_bytes: int
    suspended: bool = False


class PullReader:
    """Implements ``QueueReader``."""

    def __init__(self, client: Client, credits: ByteCredits, cluster: str, queue: MessageQueue, offset: int, *, prefetch: bool) -> None:
        self._client = client
        self._credits = credits
        self._queue = queue
        self._where = f"cluster {cluster}, queue {queue}, offset"
        self._position = offset
        self._ahead = PULLS_AHEAD_MAX if prefetch else 1
        self._stride = STRIDE_FIRST
        self._ceiling = STRIDE_MAX
        self._full_answers = 0
        self._next_pull = offset
        self._known_max = -1
        self._gathered_bytes = 0
        self._bounds = (0, 0)
        self._window: deque[_Pull] = deque()
        self._connection: Connection | None = None
        self._template: FrameTemplate | None = None

    async def read(self) -> RecordBatch:
        begin = self._position
        with mapped(f"{self._where} {begin}"):
            try:
                return await self._read()
            except asyncio.CancelledError:
                self._position = begin  # What was taken so far goes nowhere: it is pulled again by the next read.
                self._credits.give(self._gathered_bytes)
                self._drop_window()
                raise
            except (Unreachable, Answered):
                self._drop_window()
                self._connection = None
                raise

    async def _read(self) -> RecordBatch:
        """Waits for the first answer of the window, then takes along what has arrived behind it."""
        self._gathered_bytes = 0
        if self._connection is None or not self._connection.is_open:
            self._drop_window()
            self._connection = await self._client.connect(self._queue.broker_name)
        if not self._window and self._position < self._known_max:
            if not await self._credits.take_within(PULL_BYTES_RESERVED, SUSPEND_MS / 1000):
                return self._batch([], 0)
            self._append_pull(PULL_BYTES_RESERVED)
        self._fill()
        parts: list[MessageColumns] = []
        records = 0
        while self._window:
            pull = self._window[0]
            if not pull.answer.done():
                if parts and (records >= READ_RECORDS_WORTH or pull.offset + pull.asked > self._known_max):
                    break
                await asyncio.wait([pull.answer])
            try:
                columns, size_bytes = self._next(pull)
            except (Unreachable, Answered, HistoryChanged, ProtocolError):
                if not parts:
                    raise
                self._drop_window()  # What was read is handed out first; the next read meets the same again.
                break
            if columns is not None:
                parts.append(columns)
                self._gathered_bytes += size_bytes
                records += len(columns)
            self._fill(long_poll=False)
            if pull.suspended or records >= READ_RECORDS_MAX or self._gathered_bytes >= READ_BYTES_MAX:
                break
        return self._batch(parts, self._gathered_bytes)

    def _next(self, pull: _Pull) -> tuple[MessageColumns | None, int]:
        """One answer: its records, None if it brings none, and the bytes they hold, already counted against the credits."""
        answer = pull.answer.result()
        self._window.popleft()
        self._credits.give(pull.reserved_bytes)
        columns = self._take(pull, answer)
        size_bytes = len(answer.body) if columns is not None else 0
        self._credits.take(size_bytes)
        return columns, size_bytes

    def _take(self, pull: _Pull, answer: RemotingCommand) -> MessageColumns | None:
        """Advances the position by one answer. None where it brings no records."""
        code = answer.code
        if code not in _PULL_ANSWERS:
            raise Answered(self._queue.broker_name, "PULL_MESSAGE", code, answer.remark or "")
        bounds = headers.read_pull(answer)
        self._bounds = (bounds.min_offset, bounds.max_offset)
        self._known_max = bounds.max_offset
        if code == ResponseCode.PULL_OFFSET_MOVED:
            self._drop_window()
            is_lost = pull.offset < bounds.min_offset
            raise HistoryChanged(
                f"{self._where} {pull.offset}: outside of the queue's [{bounds.min_offset}, {bounds.max_offset})",
                lost_from=pull.offset if is_lost else None,
                lost_to=bounds.min_offset if is_lost else None,
            )
        if code == ResponseCode.PULL_NOT_FOUND:
            return None
        columns = message.walk(answer.body) if code == ResponseCode.SUCCESS else None
        skip = _first_at_or_after(columns.queue_offsets, self._position) if columns is not None else 0
        if columns is not None and skip:
            columns = _without_first(columns, skip)
        self._position = max(self._position, bounds.next_begin_offset)
        if columns is not None:
            self._learn(pull, len(columns) + skip)
        self._close_gap()
        return columns if columns is not None and len(columns) else None

    def _learn(self, pull: _Pull, count: int) -> None:
        if count >= pull.asked:
            self._full_answers += 1
            if self._full_answers % PROBE_EVERY_ANSWERS == 0:
                self._ceiling = STRIDE_MAX
            self._stride = min(self._stride * 2, self._ceiling, STRIDE_MAX) if pull.asked == self._stride else self._stride
        elif pull.offset + count < self._known_max and not pull.suspended and count:
            self._stride = self._ceiling = max(1, count)

    def _close_gap(self) -> None:
        """The next pull of the window must begin where the last answer ended: ask for what lies between."""
        while self._window and self._window[0].offset + self._window[0].asked <= self._position:
            self._discard(self._window.popleft())
        if self._window and self._window[0].offset > self._position:
            asked = min(self._window[0].offset - self._position, STRIDE_MAX)
            if self._credits.try_take(PULL_BYTES_RESERVED):
                self._window.appendleft(self._pull(self._position, asked, PULL_BYTES_RESERVED))
            else:
                self._drop_window()
        if not self._window:
            self._next_pull = self._position

    def _fill(self, *, long_poll: bool = True) -> None:
        self._next_pull = max(self._next_pull, self._position)
        ahead = min(self._ahead, max(2, AHEAD_RECORDS_MAX // self._stride))
        while len(self._window) < ahead and self._next_pull < self._known_max:
            if not self._credits.try_take(PULL_BYTES_RESERVED):
                return
            self._append_pull(PULL_BYTES_RESERVED)
        if not self._window and long_poll and self._next_pull >= self._known_max:
            self._window.append(self._pull(self._position, self._stride, suspended=True))
            self._next_pull = self._position + self._stride

    def _append_pull(self, reserved_bytes: int) -> None:
        self._next_pull = max(self._next_pull, self._position)
        self._window.append(self._pull(self._next_pull, self._stride, reserved_bytes))
        self._next_pull += self._stride

    def _pull(self, offset: int, asked: int, reserved_bytes: int = 0, *, suspended: bool = False) -> _Pull:
        assert self._connection is not None
        opaque = next_opaque()
        timeout = LONG_POLL_TIMEOUT_SECONDS if suspended else PULL_TIMEOUT_SECONDS
        queue = (self._queue.topic, self._queue.queue_id)
        if suspended or self._connection.credentials is not None:
            command = headers.pull(READER_GROUP, queue, offset, asked, suspend_ms=SUSPEND_MS if suspended else 0)
            command.opaque = opaque
            if self._connection.credentials is not None:
                self._connection.credentials.sign(command)
            frame = encode_frame(command)
        else:
            if self._template is None:
                self._template = FrameTemplate(headers.pull(READER_GROUP, queue, offset, asked), headers.PULL_PATCHED)
            frame = self._template.render(opaque, queueOffset=offset, maxMsgNums=asked)
        answer = self._connection.submit(frame, opaque, timeout, "PULL_MESSAGE")
        return _Pull(offset, asked, opaque, answer, reserved_bytes, suspended)

    def _batch(self, parts: list[MessageColumns], size: int) -> RecordBatch:
        minimum, maximum = self._bounds
        if not parts:
            return RecordBatch(next_offset=self._position, min_offset=minimum, max_offset=maximum)
        first = parts[0] if len(parts) == 1 else _joined(parts)
        carried = SysFlag.CARRIED
        return RecordBatch(
            first.queue_offsets, first.bodies, first.properties,
            [flag & carried for flag in first.sys_flags] if any(first.sys_flags) else first.sys_flags,
            first.flags, first.born_timestamps_ms, first.store_timestamps_ms, first.commit_log_offsets, first.body_crcs,
            first.reconsume_times, self._position, minimum, maximum, size,
        )

    def release(self, batch: RecordBatch) -> None:
        self._credits.give(batch.size_bytes)
        batch.size_bytes = 0

    async def close(self) -> None:
        self._drop_window()

    def _drop_window(self) -> None:
        while self._window:
            self._discard(self._window.pop())
        self._next_pull = self._position

    def _discard(self, pull: _Pull) -> None:
        self._credits.give(pull.reserved_bytes)
        if self._connection is not None:
            self._connection.forget(pull.opaque)


_COLUMNS = (
    "queue_offsets", "bodies", "properties", "sys_flags", "flags", "born_timestamps_ms", "store_timestamps_ms", "commit_log_offsets",
    "body_crcs", "reconsume_times",
)


def _joined(parts: list[MessageColumns]) -> MessageColumns:
    joined = MessageColumns()
    for name in _COLUMNS:
        setattr(joined, name, list(itertools.chain.from_iterable(getattr(part, name) for part in parts)))
    return joined


def _first_at_or_after(offsets: Sequence[int], position: int) -> int:
    index = 0
    while index < len(offsets) and offsets[index] < position:
        index += 1
    return index


def _without_first(columns: MessageColumns, count: int) -> MessageColumns:
    for name in _COLUMNS:
        setattr(columns, name, getattr(columns, name)[count:])
    return columns
