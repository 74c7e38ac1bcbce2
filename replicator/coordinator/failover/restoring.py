"""What a cluster lost in its failure and the other side has copies of: finding it, and having the reverse flow send it back.

Only copies whose original is shown to be gone count, each message once. They come behind what the cluster has taken since: their old
place is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from replicator.coordinator import declared
from replicator.coordinator.atlas import Atlas
from replicator.coordinator.connections import Connections
from replicator.coordinator.declared import rules_of
from replicator.coordinator.divergence import Copies, cut
from replicator.coordinator.operations import queue_json
from replicator.coordinator.stops import once_let_go
from replicator.core.correspondence import Intervals, Segment
from replicator.core.offset_map import Found, OffsetMap
from replicator.core.record import MessageQueue, OffsetRange
from replicator.core.retry import group_behind
from replicator.core.task import ReplicationTask
from replicator.store.port import Assignment, Store


@dataclass(frozen=True, slots=True)
class Lost:
    """Of one queue of the side that kept the copies. ``ranges``: where they stand, half-open, ascending."""

    queue: Assignment
    """Of the forward flow, whose destination queue that is; the first of several."""
    ranges: tuple[tuple[int, int], ...]
    way_back: Assignment | None
    """Reads that queue and writes to the cluster that lost them; None where the reverse flow has not begun with it."""

    @property
    def count(self) -> int:
        return sum(end - start for start, end in self.ranges)

    @property
    def is_examined(self) -> bool:
        """The way back has been past all of them; before that it would not know what to leave out."""
        return self.way_back is not None and self.ranges[-1][1] <= self.way_back.examined_through

    def to_json(self) -> dict[str, Any]:
        return {**queue_json(self.queue.destination_queue), "messages": self.count}


async def find_lost(
    store: Store, connections: Connections, atlas: Atlas, task: str, lost_by: str, kept_by: str, topic: str | None = None
) -> list[Lost]:
    """What ``lost_by`` does not have any more. What is on its way back already is left out. Raises as asking the two clusters does,
    and ``Missing`` where a record expired while it was looked at: ask again."""
    known = await declared.load(store)
    found: dict[MessageQueue, tuple[Assignment, list[tuple[int, int]]]] = {}
    for one in await store.assignments(task=task):
        if (one.source, one.destination) != (lost_by, kept_by) or topic not in (None, one.source_queue.topic):
            continue
        offset_map = await atlas.offset_map(one.assignment_id)
        if not offset_map.ghosts() or group_behind(one.source_queue.topic) is not None:
            continue
        source = await connections.get(known.cluster(lost_by), at_once=True)
        destination = await connections.get(known.cluster(kept_by), at_once=True)
        bounds = await source.ask(source.connector.offset_range(one.source_queue))
        kept = await destination.ask(destination.connector.offset_range(one.destination_queue))
        _, records = found.setdefault(one.destination_queue, (one, []))
        for segments in _by_history(offset_map, bounds, kept):
            copies = Copies(source, destination, one, segments)
            records += _ranges(copies.after(await copies.count_same(bounds)))
    lost = []
    for queue, (one, records) in found.items():
        # A reverse flow that was deleted after the last failback has left its map, which tells what went back then.
        ways = [way for way in await atlas.assignments_from(kept_by, queue) if way.destination == lost_by]
        for way in ways:
            records = await _not_sent_back(store, atlas, way, records)
        if records:
            way_back = next((way for way in ways if way.task), None)
            lost.append(Lost(one, tuple(Intervals(sorted(records))), way_back))
    return lost


async def restore(store: Store, lost: Lost, reason: str) -> None:
    """Its way back begins. Raises ``Conflict`` where the holder of the queue does not let go in time."""
    way_back = lost.way_back
    assert way_back is not None
    assert lost.is_examined

    async def begin() -> None:
        await store.begin_restore(way_back.assignment_id, lost.ranges, reason)

    await once_let_go(store, way_back, begin)


def unsettled(assignments: Iterable[Assignment], lost_by: str, kept_by: str, topic: str | None = None) -> list[Assignment]:
    """Queues of the forward flow of which nobody has looked yet whether they are what they were."""
    flow = (one for one in assignments if (one.source, one.destination) == (lost_by, kept_by))
    return [one for one in flow if one.state != "running" and topic in (None, one.source_queue.topic)]


def relaying(tasks: Iterable[ReplicationTask], cluster: str, topics: set[str]) -> list[str]:
    """Tasks that would carry on what comes back to ``cluster``, to others who may have it already; or that had carried on, and so have
    copies of, what was not born there and comes again from where it was."""
    return sorted(
        task.name for task in tasks
        if task.relay and any(source == cluster for source, _ in task.flows) and any(rules_of(task).matches(topic) for topic in topics)
    )  # fmt: skip


def _by_history(offset_map: OffsetMap, bounds: OffsetRange, kept: OffsetRange) -> Iterable[list[Segment]]:
    """The lowest copies of each lost history that are kept, in source order; without what the source would have expired by now."""
    ghosts = sorted((ghost for ghost in offset_map.ghosts() if ghost.destination == ghost.lowest), key=attrgetter("epoch", "source"))
    for _, found in groupby(ghosts, key=attrgetter("epoch")):
        pieces = (cut(Segment(ghost.source, ghost.destination, ghost.length), bounds.min_offset, None, kept) for ghost in found)
        yield [piece for piece in pieces if piece.length > 0]


def _ranges(segments: Iterable[Segment]) -> list[tuple[int, int]]:
    return [(segment.right, segment.right + segment.length) for segment in segments]


async def _not_sent_back(
    store: Store, atlas: Atlas, way_back: Assignment, records: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    newest = (await store.epochs(way_back.assignment_id))[-1]
    if way_back.task and way_back.examined_through < newest.restored_through:
        return []  # It is at it.
    sent = await atlas.offset_map(way_back.assignment_id)
    return [
        (offset, offset + 1) for start, end in records for offset in range(start, end)
        if not isinstance(sent.to_destination(offset), Found)
    ]  # fmt: skip
