"""``rebuild``: map and checkpoints of a task from its destinations' logs alone, also while the sources are gone.

A queue of a destination is read once, from its first record to the end it has when nothing of ours is under way any more: the
topic is paused meanwhile, and goes on by itself. The old map answers until the new one, complete, takes its place. Reasons of
offsets without a copy are not in that log: they are ``unknown`` until a worker has read the source again, where it still can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from replicator.coordinator import declared
from replicator.coordinator.connections import Connections, Link
from replicator.coordinator.copylog import read_copies
from replicator.coordinator.declared import Declared
from replicator.coordinator.finding import find_flow, found_checkpoint
from replicator.coordinator.leaving import LET_GO_POLL_SECONDS, LET_GO_SECONDS_MAX
from replicator.coordinator.operations import Scope, queue_json, require_scope
from replicator.core.copies import PRUNED, UNKNOWN, Gathered
from replicator.core.correspondence import OFFSET_MAX
from replicator.core.errors import Missing, NotConnected, Refused, ReplicatorError, Unsafe
from replicator.core.offset_map import RESTORED, Epoch
from replicator.core.record import MessageQueue, OffsetRange
from replicator.core.stamp import Place
from replicator.store.port import Assignment, Conflict, Duplicate, Flow, Hole, Run, Store, TopicPair

log = structlog.get_logger(__name__)

ROWS_AT_ONCE_MAX = 5_000
"""Rows of new maps kept in memory before they are written."""
SECOND_COPY = "duplicate"


@dataclass(slots=True)
class Rebuild:
    """One rebuild of a task, under way or done. Its result is in ``queues`` and ``flows``."""

    scope: Scope
    state: str = "running"
    """running, done, failed (``error`` says why; what stands in ``queues`` is done all the same)"""
    error: str = ""
    records_read: int = 0
    copies_found: int = 0
    now: str = ""
    """What is being read."""
    queues: list[dict[str, Any]] = field(default_factory=list)
    flows: list[dict[str, Any]] = field(default_factory=list)
    began_at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None

    @property
    def seconds(self) -> float:
        return (time.monotonic() if self.ended_at is None else self.ended_at) - self.began_at

    def rendered(self) -> dict[str, Any]:
        return {
            "task": self.scope.task, "state": self.state, "error": self.error, "now": self.now, "records_read": self.records_read,
            "copies_found": self.copies_found, "seconds": round(self.seconds, 3), "flows": self.flows, "queues": self.queues,
        }  # fmt: skip


@dataclass(slots=True)
class _Queue:
    """One assignment whose map is being made."""

    assignment: Assignment
    token: int
    gathered: Gathered = field(default_factory=Gathered)


class Rebuilds:
    def __init__(self, store: Store, connections: Connections) -> None:
        self._store = store
        self._connections = connections
        self._kept: dict[str, Rebuild] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def start(self, scope: Scope, cluster_ids: Mapping[str, str]) -> dict[str, Any]:
        """Returns at once; ``progress`` shows how far it is. ``cluster_ids``: of clusters that are gone and never were asked for
        theirs; only needed where the stamps leave a choice. Raises ``Unsafe`` while one is under way."""
        await require_scope(self._store, scope, topics_may_be_unknown=True)
        if scope.task in self._running:
            raise Unsafe(f"task {scope.task} is being rebuilt already")
        rebuild = self._kept[scope.task] = Rebuild(scope)
        task = asyncio.create_task(self._guarded(rebuild, dict(cluster_ids)), name=f"rebuild {scope.task}")
        self._running[scope.task] = task
        return rebuild.rendered()

    def progress(self, task: str) -> dict[str, Any]:
        """Of the last one in this coordinator."""
        rebuild = self._kept.get(task)
        if rebuild is None:
            raise Missing(f"task {task} was not rebuilt here")
        return rebuild.rendered()

    async def close(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _guarded(self, rebuild: Rebuild, cluster_ids: Mapping[str, str]) -> None:
        """Never raises but for a cancel: what went wrong is shown with the rebuild."""
        scope = rebuild.scope
        try:
            await self._all_flows(rebuild, cluster_ids)
            rebuild.state = "failed" if rebuild.error else "done"
            await self._store.record_event(
                scope.task, "rebuilt", f"{scope}: the map of {len(rebuild.queues)} queues was made from {rebuild.copies_found} copies",
                {"seconds": round(rebuild.seconds, 1), "records_read": rebuild.records_read},
            )
        except ReplicatorError as error:
            rebuild.state, rebuild.error = "failed", str(error)
        except Exception as error:
            log.exception("rebuild failed", task=scope.task)
            rebuild.state, rebuild.error = "failed", f"{type(error).__name__}: {error}"
        finally:
            rebuild.ended_at, rebuild.now = time.monotonic(), ""
            self._running.pop(scope.task, None)

    async def _all_flows(self, rebuild: Rebuild, cluster_ids: Mapping[str, str]) -> None:
        scope = rebuild.scope
        known = await declared.load(self._store)
        flows = [flow for flow in known.flows if flow.task == scope.task and scope.flow in (None, (flow.source, flow.destination))]
        for flow in flows:
            row: dict[str, Any] = {"source": flow.source, "destination": flow.destination, "error": ""}
            rebuild.flows.append(row)
            try:
                await self._flow(rebuild, flow, known, cluster_ids)
            except NotConnected as error:
                # A destination that is gone says nothing; the other flows of a two-way task do.
                row["error"] = str(error)
            except (Refused, Unsafe) as error:
                row["error"] = rebuild.error = str(error)
        errors = [row["error"] for row in rebuild.flows]
        if errors and all(errors):
            rebuild.error = "; ".join(dict.fromkeys(errors))

    async def _flow(self, rebuild: Rebuild, flow: Flow, known: Declared, cluster_ids: Mapping[str, str]) -> None:
        destination = await self._connections.get(known.cluster(flow.destination), at_once=True)
        if not await self._is_within_reach(known, flow.source):
            rebuild.now = f"{flow.source} is out of reach: looking for its copies on {flow.destination}"
            rebuild.records_read += await find_flow(self._store, destination, flow, known, cluster_ids)
        rows = {row.name: row for row in await self._store.clusters()}
        source_id, destination_id = rows[flow.source].cluster_id, rows[flow.destination].cluster_id
        if source_id is None or destination_id is None:
            raise Refused(f"cluster {flow.destination if source_id else flow.source} was never marked", hint="apply it again")
        held = [one for one in await self._store.assignments(flow_id=flow.flow_id) if rebuild.scope.holds(one)]
        for pair in await self._store.pairs(flow.flow_id):
            own = [one for one in held if one.pair_id == pair.pair_id]
            if own:
                async with self._paused(pair, flow):
                    await self._pair(rebuild, destination, own, source_id, destination_id)

    async def _is_within_reach(self, known: Declared, name: str) -> bool:
        try:
            link = await self._connections.get(known.cluster(name), at_once=True)
            await link.ask(link.connector.describe())
            return True
        except (NotConnected, Refused):
            return False

    @asynccontextmanager
    async def _paused(self, pair: TopicPair, flow: Flow) -> AsyncIterator[None]:
        if pair.paused:
            yield
            return
        place = {"topic": pair.source_topic, "flow": (flow.source, flow.destination)}
        await self._store.set_paused(flow.task, True, **place)  # type: ignore[arg-type]
        try:
            yield
        finally:
            await self._store.set_paused(flow.task, False, **place)  # type: ignore[arg-type]

    async def _pair(
        self, rebuild: Rebuild, destination: Link, assignments: Sequence[Assignment], source_id: str, destination_id: str
    ) -> None:
        tokens = {one.assignment_id: await self._begin(one) for one in assignments}
        by_queue: dict[MessageQueue, dict[Place, _Queue]] = {}
        for one in await self._store.assignments(flow_id=assignments[0].flow_id):  # As their holders left them.
            if one.assignment_id in tokens:
                queue = _Queue(one, tokens[one.assignment_id])
                by_queue.setdefault(one.destination_queue, {})[Place(source_id, one.source_queue)] = queue
        for put, queues in by_queue.items():
            began_at = time.monotonic()
            rebuild.now = f"reading {put} of {destination.cluster.name}"
            bounds = await destination.ask(destination.connector.offset_range(put))
            await self._read(rebuild, destination, Place(destination_id, put), bounds, queues)
            for queue in queues.values():
                rebuild.queues.append(await self._replace(queue, bounds, time.monotonic() - began_at))

    async def _begin(self, one: Assignment) -> int:
        """Once its holder has let go."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Conflict), wait=wait_fixed(LET_GO_POLL_SECONDS),
            stop=stop_after_delay(LET_GO_SECONDS_MAX), reraise=True,
        )  # fmt: skip
        return await retrying(self._store.begin_map, one.assignment_id)

    async def _read(
        self, rebuild: Rebuild, destination: Link, put: Place, bounds: OffsetRange, queues: Mapping[Place, _Queue]
    ) -> None:
        async with aclosing(read_copies(destination, put, bounds)) as pages:
            async for page, count in pages:
                rebuild.records_read += count
                for copy in page:
                    queue = queues.get(copy.upstream.source)
                    if queue is not None:
                        rebuild.copies_found += queue.gathered.add(copy)
                if sum(len(queue.gathered) for queue in queues.values()) >= ROWS_AT_ONCE_MAX:
                    for queue in queues.values():
                        await self._stage(queue)

    async def _stage(self, queue: _Queue, *holes: Hole) -> None:
        runs, seconds, restored = queue.gathered.take()
        duplicates = [*(Duplicate(*one, SECOND_COPY) for one in seconds), *(Duplicate(*one, RESTORED) for one in restored)]
        one = queue.assignment
        if not await self._store.stage_map(one.assignment_id, queue.token, [Run(*run) for run in runs], holes, duplicates):
            raise _taken(one)

    async def _replace(self, queue: _Queue, bounds: OffsetRange, seconds: float) -> dict[str, Any]:
        one, gathered = queue.assignment, queue.gathered
        holes = []
        first = gathered.epochs[0] if gathered.epochs else None
        if first is not None and one.start_offset < first.first_offset:
            reason = PRUNED if bounds.min_offset > 0 else UNKNOWN
            holes.append(Hole(first.number, one.start_offset, first.first_offset - one.start_offset, reason))
        await self._stage(queue, *holes)
        # What the store knows of an epoch was found by looking at the source; the log only tells its first copy.
        known = {epoch.number: epoch for epoch in await self._store.epochs(one.assignment_id)}
        found = {seen.number: Epoch(seen.number, seen.first_offset, seen.first_offset) for seen in gathered.epochs if seen.number != 1}
        epochs = sorted({**found, **known}.values(), key=lambda epoch: epoch.number)
        checkpoint = found_checkpoint(one, gathered, epochs, bounds)
        unknown_below = dict.fromkeys((seen.number for seen in gathered.epochs), OFFSET_MAX)
        if not await self._store.replace_map(one.assignment_id, queue.token, checkpoint, epochs, unknown_below):
            raise _taken(one)
        spans = sum(seen.last_offset + 1 - seen.first_offset for seen in gathered.epochs)
        return {
            "assignment_id": one.assignment_id, "source": one.source, "destination": one.destination,
            "source_queue": queue_json(one.source_queue), "destination_queue": queue_json(one.destination_queue),
            "copies": gathered.copies_total, "runs": gathered.runs_total, "duplicates": gathered.duplicates_total,
            "epochs": [epoch.number for epoch in epochs], "without_copy": spans - gathered.copies_total,
            "examined_through": checkpoint.examined_through, "seconds": round(seconds, 3),
        }  # fmt: skip


def _taken(one: Assignment) -> Conflict:
    return Conflict(f"{one.source_queue} of {one.source} was taken by somebody else meanwhile: its map stays as it was")
