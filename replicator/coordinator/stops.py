"""Going on: after a pause, and after a history stop, where a person says what is given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from replicator.coordinator import declared
from replicator.coordinator.atlas import Atlas
from replicator.coordinator.connections import Connections
from replicator.coordinator.divergence import Divergence, find_divergence
from replicator.coordinator.leaving import LET_GO_POLL_SECONDS, LET_GO_SECONDS_MAX
from replicator.coordinator.operations import Scope, queue_json, require_scope, set_paused
from replicator.core.errors import InvalidInput, Unsafe
from replicator.core.record import OffsetRange
from replicator.store.port import Assignment, Checkpoint, Conflict, Hole, Store

STOPPED = "stopped-history-change"


@dataclass(frozen=True, slots=True)
class WayOut:
    """How one stopped queue goes on."""

    assignment: Assignment
    position: int
    bounds: OffsetRange
    go_on_at: int
    divergence: Divergence
    """Its offset is of no meaning where reading goes on below it."""

    @property
    def epoch(self) -> int:
        """The one that begins here."""
        return (self.assignment.checkpoint or Checkpoint()).epoch + 1

    @property
    def _is_another_queue(self) -> bool:
        """Shorter than it was, or the record examined last is no longer there."""
        checkpoint = self.assignment.checkpoint
        was_compared = checkpoint is not None and checkpoint.identity is not None
        return self.position > self.bounds.max_offset or (was_compared and self.bounds.min_offset <= self.divergence.offset < self.position)

    @property
    def lost(self) -> Hole | None:
        """Offsets that will never be copied; None where nothing is given up."""
        epoch, start = self.epoch - 1, self.position
        if self._is_another_queue:
            # The old history answers for these offsets with its copies, so it is the new one that lacks them.
            epoch, start = self.epoch, self.divergence.offset
        length = self.go_on_at - start
        return Hole(epoch, start, length, "history") if length > 0 else None

    @property
    def given_up(self) -> int:
        return self.lost.length if self.lost else 0

    @property
    def divergence_offset(self) -> int:
        """Where nothing was compared (the queue expired past the position), the histories part where reading goes on."""
        return self.go_on_at if self.position < self.bounds.min_offset else min(self.divergence.offset, self.go_on_at)

    def rendered(self) -> dict[str, Any]:
        return {
            "assignment_id": self.assignment.assignment_id,
            "source": self.assignment.source,
            "destination": self.assignment.destination,
            "source_queue": queue_json(self.assignment.source_queue),
            "position": self.position,
            "min_offset": self.bounds.min_offset,
            "max_offset": self.bounds.max_offset,
            "go_on_at": self.go_on_at,
            "given_up": self.given_up,
            "given_up_from": self.lost.source_start if self.lost else None,
            "given_up_to": self.lost.source_start + self.lost.length - 1 if self.lost else None,
        }


async def resume(
    store: Store, connections: Connections, atlas: Atlas, scope: Scope, *, accept_loss: bool, from_offset: int | None, dry_run: bool
) -> dict[str, Any]:
    """``dry_run``: only says which queues would go on where, and what that gives up."""
    if accept_loss and from_offset is not None:
        raise InvalidInput("accept_loss and from_offset exclude each other")
    await require_scope(store, scope)
    held = [one for one in await store.assignments(task=scope.task) if scope.holds(one)]
    stopped = [one for one in held if one.state == STOPPED]
    if dry_run and not accept_loss and from_offset is None:
        ways = await _ways_out(store, connections, atlas, stopped, None)
        return _answer(scope, ways, dry_run=True)
    if not accept_loss and from_offset is None:
        return await _resume_paused(store, connections, atlas, scope, stopped, any(one.paused for one in held))
    if not stopped:
        raise InvalidInput(f"{scope}: no queue is stopped for a history change, so there is no loss to accept")
    ways = await _ways_out(store, connections, atlas, stopped, from_offset)
    if dry_run:
        return _answer(scope, ways, dry_run=True)
    reason = "loss accepted" if from_offset is None else f"read on from offset {from_offset}"
    for way in ways:
        await _go_on(store, way, reason)
    return {**await set_paused(store, scope, False), **_answer(scope, ways, dry_run=False)}


def _answer(scope: Scope, ways: list[WayOut], *, dry_run: bool) -> dict[str, Any]:
    given_up = sum(way.given_up for way in ways)
    return {"task": scope.task, "dry_run": dry_run, "given_up_total": given_up, "queues": [way.rendered() for way in ways]}


async def _resume_paused(
    store: Store, connections: Connections, atlas: Atlas, scope: Scope, stopped: list[Assignment], was_paused: bool
) -> dict[str, Any]:
    ways = await _ways_out(store, connections, atlas, stopped, None) if stopped else []
    if ways and not was_paused:
        lost = sum(way.given_up for way in ways)
        raise Unsafe(
            f"{scope}: {len(ways)} queues are stopped because their history changed; going on gives up {lost} offsets",
            hint="--accept-loss goes on so, --from-offset O from another offset; --dry-run shows where",
        )
    return {**await set_paused(store, scope, False), "queues": [way.rendered() for way in ways]}


async def _ways_out(
    store: Store, connections: Connections, atlas: Atlas, stopped: list[Assignment], from_offset: int | None
) -> list[WayOut]:
    known = await declared.load(store)
    ways = []
    for one in stopped:
        link = await connections.get(known.cluster(one.source), at_once=True)
        bounds = await link.ask(link.connector.offset_range(one.source_queue))
        if from_offset is not None and not bounds.min_offset <= from_offset <= bounds.max_offset:
            raise InvalidInput(
                f"{one.source_queue} of {one.source} holds offsets {bounds.min_offset} to {bounds.max_offset}, not {from_offset}",
                hint="narrow it down with --topic and --source, --destination",
            )
        # What was not sent back yet stays where its copies are; it can be asked for again.
        position = max(one.examined_through, (await store.epochs(one.assignment_id))[-1].restored_through)
        divergence = await find_divergence(atlas, connections, known, one, bounds, position)
        # What may be a record that was copied before is left out, though it may be a new one: copying old ones twice is worse.
        without_doubling = min(max(position, bounds.min_offset), bounds.max_offset, divergence.new_from)
        ways.append(WayOut(one, position, bounds, without_doubling if from_offset is None else from_offset, divergence))
    return ways


async def _go_on(store: Store, way: WayOut, reason: str) -> None:
    async def begin() -> None:
        await store.set_epoch(
            way.assignment.assignment_id, way.epoch, way.go_on_at, reason,
            given_up=way.lost, divergence_offset=way.divergence_offset,
        )  # fmt: skip

    await once_let_go(store, way.assignment, begin)


async def once_let_go(store: Store, one: Assignment, change: Callable[[], Awaitable[None]]) -> None:
    """``change`` is made once the holder of the queue has let go of it, which its topic is paused for. Raises ``Conflict`` where that
    does not happen in time."""
    flow = (one.source, one.destination)
    await store.set_paused(one.task, True, topic=one.source_queue.topic, flow=flow)
    try:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Conflict),
            wait=wait_fixed(LET_GO_POLL_SECONDS),
            stop=stop_after_delay(LET_GO_SECONDS_MAX),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                await change()
    finally:
        await store.set_paused(one.task, False, topic=one.source_queue.topic, flow=flow)
