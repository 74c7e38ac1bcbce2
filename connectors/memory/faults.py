"""Faults a test plans for a memory cluster. Nothing here is random: each happens when and where the test says."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from replicator.core.connector import AppendOutcome, NotStored
from replicator.core.errors import NotConnected, ReplicatorError, Throttled
from replicator.core.record import MessageQueue

Execution = Literal["now", "on_release", "never"]
CutMode = Literal["refused", "silent"]
RecordJudge = Callable[[MessageQueue, bytes, bytes], str]


@dataclass(slots=True)
class PlannedAppend:
    """What shall happen to the next append (to ``queue``, where one is named). Also the handle by which a test goes on with it.

    ``execution``: when the broker carries it out. ``waits``: the sender sits through its time-out instead of learning at once
    that the answer is lost. ``delivered_after_reset``: a middlebox (or the broker's own queue of requests) has the bytes
    already, and a reset of the connection does not take them back.
    """

    execution: Execution
    queue: MessageQueue | None = None
    waits: bool = False
    delivered_after_reset: bool = False
    refusal: NotStored | None = None
    taken: bool = False
    """An append met this fault."""
    dropped: bool = False
    """The bytes were lost with their connection, before the broker had them."""
    outcome: AppendOutcome | None = None
    """What the broker did with it in the end; None so far."""
    deliver: Callable[[], AppendOutcome | None] | None = None
    """Set by the cluster when an append meets the fault."""

    def release(self) -> AppendOutcome | None:
        """The held bytes reach the broker (once), and its answer the sender where the connection still stands.
        None: dropped by a reset before, or no append came so far."""
        return self.deliver() if self.deliver is not None else None


@dataclass(slots=True)
class Faults:
    """The plan of one cluster. Methods of ``MemoryCluster`` fill it, its connectors ask it."""

    appends: list[PlannedAppend] = field(default_factory=list)
    judges: list[RecordJudge] = field(default_factory=list)
    reads: list[tuple[MessageQueue | None, ReplicatorError]] = field(default_factory=list)
    calls: dict[str, deque[ReplicatorError]] = field(default_factory=lambda: defaultdict(deque))
    cuts: dict[tuple[str | None, str | None], CutMode] = field(default_factory=dict)
    refused_locks: dict[MessageQueue | None, bool] = field(default_factory=dict)

    def next_append(self, queue: MessageQueue) -> PlannedAppend | None:
        for fault in self.appends:
            if fault.queue in (None, queue):
                self.appends.remove(fault)
                return fault
        return None

    def next_read_error(self, queue: MessageQueue) -> ReplicatorError | None:
        for planned in self.reads:
            if planned[0] in (None, queue):
                self.reads.remove(planned)
                return planned[1]
        return None

    def next_call_error(self, name: str) -> ReplicatorError | None:
        errors = self.calls.get(name)
        return errors.popleft() if errors else None

    def cut_between(self, instance: str, broker_name: str | None) -> CutMode | None:
        """How the way from an instance to a broker is cut; ``broker_name`` None: the whole cluster."""
        for key in ((None, None), (instance, None), (None, broker_name), (instance, broker_name)):
            if key in self.cuts:
                return self.cuts[key]
        return None

    def refusal_of(self, queue: MessageQueue, body: bytes, properties: bytes) -> str:
        """Why the broker refuses a record, or empty."""
        return next((reason for judge in self.judges if (reason := judge(queue, body, properties))), "")


def throttled(retry_after_seconds: float) -> Throttled:
    return Throttled("the memory cluster asks for patience", retry_after_seconds=retry_after_seconds)


def unreachable(cluster: str, broker_name: str | None) -> NotConnected:
    return NotConnected(f"cluster {cluster}: {broker_name or 'no broker'} does not answer")
