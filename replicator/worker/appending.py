"""The last step of a copy: decided records go into the destination queue, in order, with one append in flight.

Whatever leaves it open whether an append was stored ends in ``clean`` False; who goes on then has to find out first.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from replicator.core.connector import AppendOutcome, NotStored, Stored, Unknown
from replicator.core.errors import NotConnected, Refused
from replicator.core.record import AppendBatch
from replicator.core.retry import takes_one_at_a_time
from replicator.core.stamping import Decided
from replicator.store.port import Assignment
from replicator.worker.fence import Permit
from replicator.worker.flow import FlowContext
from replicator.worker.journal import Journal
from replicator.worker.limits import (
    APPEND_BYTES_TARGET,
    APPEND_RECORDS_MAX,
    APPEND_TIMEOUT_SECONDS,
    FENCE_VALID_SECONDS,
    LATE_ANSWER_SECONDS,
    LATENCY_SAMPLES_MAX,
    PARKED_IN_ROW_MAX,
)


class DestinationChanged(NotConnected):
    """The destination may not hold what it confirmed: verify before the next append."""


class Appender:
    """Of one assignment. What is stored is noted in ``journal`` at once."""

    def __init__(self, name: str, assignment: Assignment, flow: FlowContext, journal: Journal) -> None:
        """``name``: of the assignment, for messages."""
        self.flow = flow
        self.clean = assignment.clean
        """Nothing of ours can be under way."""
        self.is_sending = False
        """Cancelling now would make doubt out of nothing."""
        self.stopping = False
        self.patience = ""
        """What a destination said that is too busy now."""
        self.latencies_ms: deque[float] = deque(maxlen=LATENCY_SAMPLES_MAX)
        self._name = name
        self._queue = assignment.destination_queue
        self._where = f"cluster {assignment.destination}, queue {assignment.destination_queue}"
        self._journal = journal
        self._sender = flow.destination.sender(self._queue.broker_name)
        self._verified_sender = ""
        self._parked_in_row = 0
        self._append_bytes_max = min(APPEND_BYTES_TARGET, flow.append_bytes_max)
        self._one_at_a_time = takes_one_at_a_time(self._queue.topic)
        self._append_records_max = 1 if self._one_at_a_time else min(APPEND_RECORDS_MAX, flow.append_records_max)

    async def connect(self) -> str:
        """From here on an append goes out on this connection or not at all. Returns its identity, to be ``verified``."""
        return await self._sender.connect()

    def verified(self, sender: str) -> None:
        """The destination was seen to hold what it confirmed, after ``sender`` was connected."""
        self._verified_sender = sender
        self.clean = True

    def require_connection(self) -> None:
        """Raises ``DestinationChanged`` where the connection that was verified is gone: what a destination has lost is to be found before
        the next message, which may never come."""
        if not self._sender.is_open or self._sender.identity != self._verified_sender:
            raise DestinationChanged(f"{self._name}: the connection to {self._where} has ended")

    async def abandon(self) -> str:
        """Resets the connection that may carry an append of ours, and returns its identity."""
        identity = self._sender.identity
        await self._sender.reset(identity)
        return identity

    async def append_all(self, decided: Decided, permit: Permit) -> None:
        """In order, in as few appends as limits and encodings allow. Raises ``DestinationChanged``, ``NotConnected``, ``Refused``, and
        ``CancelledError`` once it is to stop."""
        begin, count = 0, len(decided)
        self.patience = ""
        while begin < count:
            end = self._end_of_append(decided, begin)
            await self._append_range(decided, begin, end, permit)
            begin = end

    def _end_of_append(self, decided: Decided, begin: int) -> int:
        """Exclusive end of the longest stretch from ``begin`` that one append can carry; at least one record."""
        count = min(len(decided), begin + self._append_records_max)
        encoding = decided.encodings[begin]
        overhead = self.flow.record_overhead_bytes + len(self._queue.topic)
        size, end = 0, begin
        bodies, properties, encodings = decided.bodies, decided.properties, decided.encodings
        if begin == 0 and count == len(decided) and encodings.count(encoding) == count:
            total = sum(map(len, bodies)) + sum(map(len, properties)) + overhead * count
            if total <= self._append_bytes_max and max(map(len, properties)) <= self.flow.properties_bytes_max:
                return count
        while end < count and encodings[end] == encoding:
            size += len(bodies[end]) + len(properties[end]) + overhead
            too_long = len(properties[end]) > self.flow.properties_bytes_max
            if end > begin and (size > self._append_bytes_max or too_long):
                break
            end += 1
            if too_long:
                break
        return end

    async def _append_range(self, decided: Decided, begin: int, end: int, permit: Permit) -> None:
        """Appends ``[begin, end)`` and notes it. A refusal of one record is bisected to it and parked."""
        if end - begin == 1 and len(decided.properties[begin]) > self.flow.properties_bytes_max:
            await self._park(decided, begin, f"properties of {len(decided.properties[begin])} bytes with the stamp exceed the limit "
                                             f"of {self.flow.properties_bytes_max}")
            return
        batch = AppendBatch(
            decided.bodies[begin:end], decided.properties[begin:end], decided.flags[begin:end], decided.encodings[begin],
            decided.born_timestamps_ms[begin],
            decided.reconsume_times[begin] if self._one_at_a_time and decided.reconsume_times else 0,
        )
        refusal = await self._append(batch, decided, begin, end, permit)
        if refusal is None:
            self._parked_in_row = 0
            return
        if end - begin == 1:
            await self._park(decided, begin, refusal)
            return
        middle = (begin + end) // 2
        await self._append_range(decided, begin, middle, permit)
        await self._append_range(decided, middle, end, permit)

    async def _park(self, decided: Decided, index: int, reason: str) -> None:
        offset = decided.offsets[index]
        self._parked_in_row += 1
        if self.flow.task.on_refused == "stop" or self._parked_in_row > PARKED_IN_ROW_MAX:
            raise Refused(
                f"{self._name}: {self._where} refuses the copy of source offset {offset}: {reason}",
                hint="set on_refused: park to go on without such records" if self.flow.task.on_refused == "stop"
                else "so many refusals in a row are not about single records: look at the destination's limits",
            )
        size = len(decided.bodies[index]) + len(decided.properties[index])
        self._journal.park(offset, reason, size)
        decided.holes.append((offset, 1, "refused"))

    async def _append(self, batch: AppendBatch, decided: Decided, begin: int, end: int, permit: Permit) -> str | None:
        """None: stored and noted. A text: the destination refuses a record of this batch. Raises for everything else."""
        size = sum(map(len, batch.bodies)) + sum(map(len, batch.properties))
        await self.flow.rate.take(len(batch), size)
        while True:
            if self.stopping:
                raise asyncio.CancelledError
            if self._sender.identity != self._verified_sender:
                raise DestinationChanged(f"{self._name}: the connection to {self._where} is a new one")
            outcome = await self._send(batch, permit)
            if isinstance(outcome, Stored):
                self.patience = ""
                self._note_stored(outcome, decided, begin, end)
                return None
            if isinstance(outcome, Unknown):
                raise NotConnected(f"{self._name}: append to {self._where} without an answer: {outcome.detail}")
            if outcome.scope == "record":
                return outcome.detail
            await self._after_refusal(outcome, permit)

    async def _send(self, batch: AppendBatch, permit: Permit) -> AppendOutcome:
        """One append, not interruptible: cancelling it would make doubt out of nothing."""
        sender, queue = self._sender, self._queue
        self.is_sending = True
        self.clean = False
        try:
            outcome = await sender.append(queue, batch, permit, APPEND_TIMEOUT_SECONDS)
            if isinstance(outcome, Unknown):
                late = await sender.late_answer(queue, LATE_ANSWER_SECONDS)
                if late is None or isinstance(late, Unknown):
                    self._journal.senders = tuple({*self._journal.senders, outcome.sender})
                    await sender.reset(outcome.sender)
                else:
                    outcome = late
            self.clean = not isinstance(outcome, Unknown)
            return outcome
        finally:
            self.is_sending = False

    def _note_stored(self, outcome: Stored, decided: Decided, begin: int, end: int) -> None:
        expected = self._journal.checkpoint.confirmed_destination_offset + 1
        if outcome.first_offset < expected:
            # Not noted: it would take the place of the last confirmed copy, which is what has to be looked at. The scan finds this one.
            raise DestinationChanged(
                f"{self._name}: {self._where} answered offset {outcome.first_offset} where at least {expected} was due"
            )
        self._journal.add_copies(decided.offsets[begin:end], outcome.first_offset)
        now_ms = time.time_ns() / 1e6
        self.latencies_ms.append(now_ms - decided.store_timestamps_ms[end - 1])
        self.flow.counts.latencies.observe(now_ms, decided.store_timestamps_ms[begin:end])

    async def _after_refusal(self, outcome: NotStored, permit: Permit) -> None:
        """Waits where the same append may be tried again; raises where it may not."""
        if outcome.scope == "busy":
            self.patience = f"{self._where} asks for patience: {outcome.detail}"
            await asyncio.sleep(outcome.retry_after_seconds)
        elif outcome.scope == "fenced":
            if permit.lost:
                raise NotConnected(f"{self._name}: the lock of the source queue was taken by another client")
            await permit.changed(FENCE_VALID_SECONDS)
            if not permit.is_valid():
                if isinstance(permit.problem, Refused):
                    raise permit.problem
                raise NotConnected(f"{self._name}: the lock of the source queue could not be renewed in time")
        elif outcome.scope == "queue":
            raise Refused(f"{self._name}: {self._where} refuses every append: {outcome.detail}")
        else:
            raise DestinationChanged(f"{self._name}: {self._where}: {outcome.detail}")
