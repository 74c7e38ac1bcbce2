"""Reads one queue: strided pulls run ahead of the reader, one long poll waits at its end.

Pulls are stateless reads. A window of them stands at offset, +stride, …, never beyond the last known max offset (a pull
beyond it makes 4.x brokers write a record of their own). The stride is what the broker gives in one answer, learned as we
go; an answer that ends early is followed by pulls for the gap. Answers are put in order as they arrive, in the event loop's
callback; ``read`` only waits, and walks the bytes of many answers at once.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left
from collections import deque

from connectors.rocketmq.client.client import CLUSTER_INFO_SECONDS, PULL_RECORDS_DEFAULT, Client, Place
from connectors.rocketmq.client.connection import Connection, next_opaque
from connectors.rocketmq.client.credentials import Credentials
from connectors.rocketmq.client.errors import Answered, Unreachable
from connectors.rocketmq.credits import ByteCredits
from connectors.rocketmq.mapping import mapped
from connectors.rocketmq.remoting import headers, message
from connectors.rocketmq.remoting.codes import ResponseCode
from connectors.rocketmq.remoting.command import FrameTemplate, RemotingCommand, encode_frame
from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.message import VIEW_BODY_BYTES_MIN, MessageColumns, SysFlag
from replicator.core.errors import HistoryChanged, Throttled
from replicator.core.record import MessageQueue, RecordBatch

READER_GROUP = "replicator-reader"
STRIDE_MAX = 1024
"""4.9.2 to 4.9.8 allocate lists of the size asked for."""
PULLS_AHEAD_MAX = 32
AHEAD_RECORDS_MAX = 4096
AHEAD_BYTES_MAX = 8 * 1024 * 1024
"""One reader keeps no more than this in answers underway and not yet read (but always one pull)."""
READ_RECORDS_MIN = 512
"""Far behind the end of the queue a read waits for this many: what a read costs is shared by its records."""
READ_RECORDS_MAX = 2000
READ_BYTES_MAX = 1024 * 1024
SUSPEND_MS = 5_000
PULL_TIMEOUT_SECONDS = 10.0
LONG_POLL_TIMEOUT_SECONDS = SUSPEND_MS / 1000 + 10.0
"""The broker looks for overdue polls every 5 s."""
SLAVE_CHECK_SECONDS = 2.0
"""While a slave is read, the name server is asked this often whether there is a master again."""
PULL_BYTES_MIN = 16 * 1024
"""A pull reserves at least this much memory, however small the records were so far."""
SIZE_MARGIN = 2
"""A pull reserves this many times what the records before it let expect, up to the broker's limit for one answer."""
GROW_AFTER_ANSWERS = 4
"""A stride that was cut, by large records or because they lie on disk, grows back after so many full answers."""
PROBE_AFTER_ANSWERS = 64
"""After so many full answers at the broker's limit a longer stride is tried all the same: limits can be raised while we run."""
FRUITLESS_ANSWERS_MAX = 3
"""A broker that finds nothing at an offset inside of the queue's bounds is asked so often before its jump is followed."""

PULL_ANSWERS = frozenset({
    ResponseCode.SUCCESS, ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY, ResponseCode.PULL_OFFSET_MOVED,
})

_Failure = Unreachable | Answered | ProtocolError | HistoryChanged | Throttled


class _Pull:
    """One request of the window; a ``Sink`` for its answer."""

    __slots__ = ("answer", "asked", "credentials", "offset", "opaque", "reader", "reserved_bytes", "suspended")

    def __init__(self, reader: PullReader, offset: int, asked: int, reserved_bytes: int, suspended: bool) -> None:
        self.reader = reader
        self.offset = offset
        self.asked = asked
        self.reserved_bytes = reserved_bytes
        self.suspended = suspended
        self.opaque = next_opaque()
        self.credentials: Credentials | None = None
        self.answer: RemotingCommand | None = None

    def answered(self, command: RemotingCommand) -> None:
        self.answer = command
        self.reader.pull_answered(self)

    def failed(self, error: Unreachable) -> None:
        self.reader.pull_failed(self, error)


class PullReader:
    """Implements ``QueueReader``."""

    def __init__(
        self,
        client: Client,
        credits: ByteCredits,
        cluster: str,
        queue: MessageQueue,
        offset: int,
        *,
        prefetch: bool,
        any_replica: bool = False,
    ) -> None:
        self._client = client
        self._credits = credits
        self._queue = queue
        self._where = f"cluster {cluster}, queue {queue}, offset"
        self._prefetch = prefetch
        self._any_replica = any_replica
        self._place: Place | None = None
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._template: FrameTemplate | None = None
        self._master_checked_at = 0.0
        self._window: deque[_Pull] = deque()
        self._ready: deque[tuple[int, int, bytes | memoryview]] = deque()
        """Answers in order and without a hole, not yet read: (offset asked, offset after it, stored records)."""
        self._ready_bytes = 0
        self._held_bytes = 0
        self._handed = offset
        self._position = offset
        self._next_pull = offset
        self._min_offset = self._max_offset = -1
        self._stride = STRIDE_MAX
        self._stride_known = PULL_RECORDS_DEFAULT
        self._answer_bytes_max = 0
        self._record_bytes = 0.0
        self._full_answers = 0
        self._fruitless = 0
        self._is_due = False
        self._failure: _Failure | None = None
        self._refused_with: Credentials | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    # QueueReader

    async def read(self) -> RecordBatch:
        with mapped(f"{self._where} {self._handed}"):
            return await self._read()

    def release(self, batch: RecordBatch) -> None:
        self._credits.give(batch.size_bytes)
        self._held_bytes -= batch.size_bytes
        batch.size_bytes = 0

    async def close(self) -> None:
        self._closed = True
        self._restart()
        self._wake()

    # Waiting

    async def _read(self) -> RecordBatch:
        if self._failure is None and (not self._ready or self._is_master_to_be_checked()):
            await self._follow_master()
        if self._failure is None and not self._ready and not await self._start():
            return self._hand_out()
        while self._is_waiting():
            self._waiter = self._loop.create_future()
            await self._waiter
        if not self._ready and self._failure is not None:
            failure, self._failure = self._failure, None
            self._connection, self._is_due = None, False
            if isinstance(failure, Unreachable | Answered):
                self._client.forget_masters()
            if isinstance(failure, Answered) and failure.concerns_credentials and self._client.pool.renew_credentials(self._refused_with):
                return self._hand_out()  # Nothing yet; the next read asks with the new key.
            raise failure
        batch = self._hand_out()
        if self._prefetch:
            self._fill()
        return batch

    def _is_waiting(self) -> bool:
        """True while the answers underway should be waited for before anything is handed out."""
        if self._failure is not None or self._is_due or not self._window:
            return False
        if not self._ready:
            return True
        if not self._prefetch or self._position - self._handed >= READ_RECORDS_MIN or self._ready_bytes >= READ_BYTES_MAX // 2:
            return False
        return self._max_offset - self._handed >= READ_RECORDS_MIN and not self._window[0].suspended

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _follow_master(self) -> None:
        """Connects, or connects anew where another process has become master: a former one may go on answering pulls."""
        if self._closed:
            raise Unreachable(self._queue.broker_name, "the reader is closed")
        now, current = self._loop.time(), self._connection
        if current is not None and current.is_open:
            if not self._is_master_to_be_checked():
                return
            self._master_checked_at = now
            if await self._client.place(self._queue.broker_name, any_replica=self._any_replica) != self._place:
                self._restart()
                raise Unreachable(self._queue.broker_name, "another process is master now")
            connection = current
        else:
            self._place = await self._client.place(self._queue.broker_name, any_replica=self._any_replica)
            connection = await self._client.connect_to(self._place)
        limits = await self._client.pull_limits(self._queue.broker_name)
        self._stride_known = min(limits.records or PULL_RECORDS_DEFAULT, STRIDE_MAX)
        self._stride = min(self._stride, self._stride_known) if connection is not self._connection else self._stride
        self._answer_bytes_max = limits.size_bytes
        if connection is not self._connection:
            self._connection, self._master_checked_at, self._template = connection, now, None

    def _is_master_to_be_checked(self) -> bool:
        """Often while a slave is read: it may be behind."""
        seconds = SLAVE_CHECK_SECONDS if self._is_slave() else CLUSTER_INFO_SECONDS
        return self._loop.time() - self._master_checked_at >= seconds

    def _is_slave(self) -> bool:
        return self._place is not None and not self._place.is_master

    async def _start(self) -> bool:
        """Makes sure that something is underway. False where memory for it did not come back in time."""
        self._fill()
        if self._window:
            return True
        reserved = self._expected_bytes()
        if not self._held_bytes:
            # Each reader may always have one pull beyond the shared memory: others may never give theirs back.
            self._append_pull(0)
            return True
        if not await self._credits.take_within(reserved, SUSPEND_MS / 1000):
            return False
        if self._window or self._connection is None:
            self._credits.give(reserved)
            return True
        self._append_pull(reserved)
        return True

    # Asking

    def _fill(self) -> None:
        """Pulls ahead as far as bounds and memory allow; at the end of the queue one long poll."""
        if self._failure is not None or self._connection is None or self._closed:
            return
        if not self._window and self._position >= self._max_offset:
            self._window.append(self._pull(self._position, self._stride, 0, suspended=True))
            self._next_pull = self._position + self._stride
            return
        ahead = PULLS_AHEAD_MAX if self._prefetch else 1
        while len(self._window) < ahead and self._next_pull < self._max_offset:
            reserved = self._expected_bytes()
            underway = self._next_pull - self._handed
            if self._window and (underway >= AHEAD_RECORDS_MAX or underway * self._record_bytes >= AHEAD_BYTES_MAX):
                return
            if not self._credits.try_take(reserved):
                return
            self._append_pull(reserved)

    def _append_pull(self, reserved_bytes: int) -> None:
        self._window.append(self._pull(self._next_pull, self._stride, reserved_bytes))
        self._next_pull += self._stride

    def _expected_bytes(self) -> int:
        if not self._record_bytes:
            return self._answer_bytes_max
        expected = int(self._stride * self._record_bytes) * SIZE_MARGIN
        # The first record of an answer passes whatever its size.
        return max(PULL_BYTES_MIN, min(expected, self._answer_bytes_max), int(self._record_bytes))

    def _pull(self, offset: int, asked: int, reserved_bytes: int, *, suspended: bool = False) -> _Pull:
        assert self._connection is not None
        pull = _Pull(self, offset, asked, reserved_bytes, suspended)
        queue = (self._queue.topic, self._queue.queue_id)
        if suspended or self._connection.credentials is not None:
            command = headers.pull(READER_GROUP, queue, offset, asked, suspend_ms=SUSPEND_MS if suspended else 0)
            command.opaque = pull.opaque
            pull.credentials = self._connection.credentials
            if pull.credentials is not None:
                pull.credentials.sign(command)
            frame = encode_frame(command)
        else:
            if self._template is None:
                self._template = FrameTemplate(headers.pull(READER_GROUP, queue, offset, asked), headers.PULL_PATCHED)
            frame = self._template.render(pull.opaque, queueOffset=offset, maxMsgNums=asked)
        timeout = LONG_POLL_TIMEOUT_SECONDS if suspended else PULL_TIMEOUT_SECONDS
        self._connection.submit(frame, pull.opaque, timeout, "PULL_MESSAGE", pull)
        return pull

    # Answers, in the event loop's callback

    def pull_answered(self, pull: _Pull) -> None:
        window = self._window
        if not window or self._failure is not None:
            return
        try:
            while window and window[0].answer is not None:
                self._take(window.popleft())
            if self._prefetch:
                self._fill()
        except (Answered, ProtocolError, HistoryChanged, Throttled) as error:
            self._fail(error)
        if not self._is_waiting():
            self._wake()

    def pull_failed(self, pull: _Pull, error: Unreachable) -> None:
        if self._failure is None and pull in self._window:
            self._fail(error)
            self._wake()

    def _fail(self, error: _Failure) -> None:
        """What is ready is handed out first; then this is raised."""
        self._failure = error
        self._drop_window()

    def _take(self, pull: _Pull) -> None:
        """Advances the position by one answer."""
        answer = pull.answer
        assert answer is not None
        self._credits.give(pull.reserved_bytes)
        if answer.code not in PULL_ANSWERS:
            self._refused_with = pull.credentials
            raise Answered(self._queue.broker_name, "PULL_MESSAGE", answer.code, answer.remark or "")
        after = self._take_bounds(answer)
        if pull.offset < self._position and (answer.code != ResponseCode.SUCCESS or after <= self._position):
            self._close_gap()  # Asked before the broker said that nothing is there: the answer at the position is what matters.
            return
        if self._is_slave() and pull.offset > self._max_offset:
            raise Throttled(f"{self._where} {pull.offset}: {self._remark()}, and that ends at {self._max_offset}")
        if answer.code == ResponseCode.PULL_OFFSET_MOVED:
            is_lost = pull.offset < self._min_offset
            raise HistoryChanged(
                f"{self._where} {pull.offset}: outside of the queue's [{self._min_offset}, {self._max_offset})",
                lost_from=pull.offset if is_lost else None,
                lost_to=self._min_offset if is_lost else None,
            )
        if answer.code == ResponseCode.SUCCESS and after > self._position:
            self._fruitless = 0
            self._ready.append((self._position, after, answer.body))
            self._ready_bytes += len(answer.body)
            self._credits.take(len(answer.body))
            self._learn(pull, after - pull.offset, len(answer.body))
            self._position = after
        else:
            self._take_empty(pull, answer, after)
        self._is_due = self._is_due or pull.suspended
        self._close_gap()

    def _take_bounds(self, answer: RemotingCommand) -> int:
        """Returns where the broker would go on; the three fields are read for every few records, hence no object for them."""
        fields = answer.ext_fields
        try:
            self._min_offset, self._max_offset = int(fields["minOffset"]), int(fields["maxOffset"])
            return int(fields["nextBeginOffset"])
        except (KeyError, ValueError) as error:
            raise ProtocolError(f"answer to a pull without its bounds: {error}") from error

    def _take_empty(self, pull: _Pull, answer: RemotingCommand, after: int) -> None:
        """No record at this offset. It is the end of the queue, or records that are gone, or a broker that cannot tell now."""
        if answer.code == ResponseCode.PULL_RETRY_IMMEDIATELY and after > self._position:
            self._position = after
        elif self._position < self._max_offset and not pull.suspended:
            self._fruitless += 1
            if self._fruitless < FRUITLESS_ANSWERS_MAX or after <= self._position:
                raise Throttled(f"{self._where} {self._position}: the broker finds nothing there ({answer.remark or answer.code})")
            self._fruitless = 0
            self._position = after
        else:
            self._is_due = True

    def _learn(self, pull: _Pull, count: int, size_bytes: int) -> None:
        record_bytes = size_bytes / count
        # Rises at once and falls slowly: memory is reserved by it.
        self._record_bytes = record_bytes if record_bytes > self._record_bytes else (self._record_bytes * 7 + record_bytes) / 8
        if count >= pull.asked:
            self._full_answers += 1
            wanted = GROW_AFTER_ANSWERS if self._stride < self._stride_known else PROBE_AFTER_ANSWERS
            if pull.asked == self._stride < STRIDE_MAX and self._full_answers >= wanted:
                self._stride = min(self._stride * 2, STRIDE_MAX)
                self._full_answers = wanted - GROW_AFTER_ANSWERS
        elif pull.offset + count < self._max_offset:
            self._stride = max(1, count)
            self._full_answers = 0

    def _close_gap(self) -> None:
        """The next pull of the window must begin where the last answer ended: asks for what lies between."""
        window = self._window
        while window and window[0].offset + window[0].asked <= self._position:
            self._discard(window.popleft())
        if not window:
            self._next_pull = self._position
        elif window[0].offset > self._position:
            for start in reversed(range(self._position, window[0].offset, self._stride)):
                reserved = self._expected_bytes()
                while window and not self._credits.try_take(reserved):
                    # What stands behind the gap gives way: it cannot be handed out before.
                    tail = window.pop()
                    self._next_pull = tail.offset
                    self._discard(tail)
                if not window:
                    self._next_pull = self._position
                    return
                window.appendleft(self._pull(start, min(self._stride, window[0].offset - start), reserved))

    # Handing out

    def _hand_out(self) -> RecordBatch:
        self._is_due = False
        taken: list[tuple[int, int, bytes | memoryview]] = []
        start, size_bytes, records = self._handed, 0, 0
        while self._ready and (not taken or (records < READ_RECORDS_MAX and size_bytes + len(self._ready[0][2]) <= READ_BYTES_MAX)):
            entry = self._ready.popleft()
            taken.append(entry)
            records += entry[1] - entry[0]
            size_bytes += len(entry[2])
            self._handed = entry[1]
        if not taken:
            self._handed = self._position
            return RecordBatch(
                next_offset=self._position, min_offset=self._min_offset, max_offset=self._max_offset, remark=self._remark()
            )
        if not self._ready:
            self._handed = self._position  # Offsets behind the last answer that hold nothing any more.
        self._ready_bytes -= size_bytes
        try:
            columns = _walk([entry[2] for entry in taken], start)
        except ProtocolError:
            self._credits.give(size_bytes)
            self._handed = start
            self._restart()
            raise
        self._held_bytes += size_bytes
        sys_flags = columns.sys_flags
        carried = SysFlag.CARRIED
        return RecordBatch(
            columns.queue_offsets, columns.bodies, columns.properties,
            [flag & carried for flag in sys_flags] if any(sys_flags) else sys_flags,
            columns.flags, columns.born_timestamps_ms, columns.store_timestamps_ms, columns.commit_log_offsets, columns.body_crcs,
            columns.reconsume_times, self._handed, self._min_offset, self._max_offset, size_bytes, self._remark(),
        )

    def _remark(self) -> str:
        if self._place is None or self._place.is_master:
            return ""
        return f"read from {self._place.address}, a slave, while {self._place.broker_name} has no master"

    def _restart(self) -> None:
        """Forgets all that was not handed out and the connection it came by."""
        self._drop_window()
        self._credits.give(self._ready_bytes)
        self._ready.clear()
        self._ready_bytes = 0
        self._position = self._next_pull = self._handed
        self._max_offset = -1
        self._connection, self._is_due = None, False

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


def _walk(parts: list[bytes | memoryview], start: int) -> MessageColumns:
    """The records of consecutive answers from ``start`` on. Small records are walked as one run of bytes, large ones stay views."""
    if len(parts) == 1 or all(int.from_bytes(part[:4], "big") < VIEW_BODY_BYTES_MIN for part in parts):
        columns = message.walk(parts[0] if len(parts) == 1 else b"".join(parts))
    else:
        columns = _joined([message.walk(part) for part in parts])
    skip = bisect_left(columns.queue_offsets, start)
    if skip:
        for name in _COLUMNS:
            setattr(columns, name, getattr(columns, name)[skip:])
    return columns


def _joined(parts: list[MessageColumns]) -> MessageColumns:
    joined = MessageColumns()
    for name in _COLUMNS:
        setattr(joined, name, list(itertools.chain.from_iterable(getattr(part, name) for part in parts)))
    return joined
