"""Every offset map the coordinator has asked for, as new as the store: where messages stand, whichever task copied them.

Maps are kept as long as there is room for them. One that changed is brought up to date with what is new in the store, and built
anew from its columns: building takes about 4 µs a row, beside the event loop where it takes long.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from replicator.coordinator import declared
from replicator.core.errors import Missing
from replicator.core.offset_map import OffsetMap
from replicator.core.progress import Feeding, WayBack, WrittenQueue
from replicator.core.record import MessageQueue
from replicator.store.port import Assignment, KnownRows, MapRows, MapVersion, Store, TopicPair

MAPS_MAX = 512
"""Offset maps kept in memory, and as many queues to be written."""
MAP_ROWS_MAX = 4_000_000
"""Rows of all kept maps together, at about 100 bytes each with what is built from them; the one in use may be larger."""
ROWS_AT_ONCE_MAX = 5_000
"""A map of more rows is built in a thread: the event loop has leases to renew."""

Built = TypeVar("Built")


@dataclass(slots=True)
class _Sheet:
    """One map and the columns it was built from."""

    rows: MapRows
    map: OffsetMap

    @property
    def row_count(self) -> int:
        return len(self.rows.runs) + len(self.rows.holes)

    @property
    def known(self) -> KnownRows:
        return KnownRows(self.rows.version.version, self.rows.runs.last, self.rows.holes.last)


@dataclass(slots=True)
class _Written:
    versions: Mapping[int, MapVersion]
    queue: WrittenQueue


@dataclass(frozen=True, slots=True)
class _WrittenKey:
    cluster_id: str
    queue: MessageQueue
    owning_id: str
    task: str
    copies_only: bool


@dataclass(slots=True)
class _Plan:
    """What a written queue is made of, before any map is loaded."""

    feeding: list[tuple[Assignment, MessageQueue | None, Assignment | None]] = field(default_factory=list)
    """(assignment, owning queue, assignment of the map ``via``)."""
    back: Assignment | None = None

    def assignment_ids(self) -> list[int]:
        ids = [one.assignment_id for source, _, via in self.feeding for one in (source, via) if one is not None]
        return sorted({*ids, *([self.back.assignment_id] if self.back else [])})


class Atlas:
    def __init__(self, store: Store, *, maps_max: int = MAPS_MAX, rows_max: int = MAP_ROWS_MAX) -> None:
        self._store = store
        self._maps_max = maps_max
        self._rows_max = rows_max
        self._sheets: OrderedDict[int, _Sheet] = OrderedDict()
        self._written: OrderedDict[_WrittenKey, _Written] = OrderedDict()
        self._loading = asyncio.Lock()

    async def offset_map(self, assignment_id: int) -> OffsetMap:
        """As the store has it now. Raises ``Missing`` for an assignment that is gone, ``ContradictoryMap``."""
        return (await self._current([assignment_id]))[assignment_id].map

    async def assignments_into(self, cluster: str, queue: MessageQueue) -> list[Assignment]:
        """Every assignment that writes to the queue, of whatever task; also those a deleted task left, whose copies are still
        there (their ``task`` is empty)."""
        cluster_id = await self._id(cluster)
        found = await self._store.topic_assignments(cluster_id, queue.topic)
        return [one for pair, one in found if pair.destination_cluster_id == cluster_id and one.destination_queue == queue]

    async def assignments_from(self, cluster: str, queue: MessageQueue) -> list[Assignment]:
        """Every assignment that reads the queue, likewise."""
        cluster_id = await self._id(cluster)
        return [one for _, one in await self._reading(cluster_id, queue)]

    async def written_queue(
        self, task: str, cluster: str, queue: MessageQueue, owning: str, *, copies_only: bool = False
    ) -> WrittenQueue:
        """``queue`` of ``cluster`` as the side to be written, ``owning`` the cluster whose groups' offsets judge its records. Every
        flow of any task that feeds the queue is in it; the way back is that of ``task``, or of another task to the same topic.
        ``copies_only``: for a group that consumes only what came from the owning side; nothing else is in it then.

        Ask for the queue's bounds after this. Raises ``Missing``, ``ContradictoryMap``."""
        cluster_id, owning_id = await self._id(cluster), await self._id(owning)
        plan = await self._plan(task, cluster_id, queue, owning_id)
        if copies_only:
            plan = _Plan([one for one in plan.feeding if one[0].source == owning])
        sheets = await self._current(plan.assignment_ids())
        versions = {assignment_id: sheet.rows.version for assignment_id, sheet in sheets.items()}
        key = _WrittenKey(cluster_id, queue, owning_id, task, copies_only)
        kept = self._written.get(key)
        if kept is None or kept.versions != versions:
            rows = sum(sheet.row_count for sheet in sheets.values())
            made = await _build(lambda: _written_queue(plan, sheets, local_holds=not copies_only), rows)
            kept = self._written[key] = _Written(versions, made)
        self._written.move_to_end(key)
        while len(self._written) > self._maps_max:
            self._written.popitem(last=False)
        return kept.queue

    async def _id(self, cluster: str) -> str:
        found = next((row.cluster_id for row in await self._store.clusters() if row.name == cluster), None)
        if found is None:
            raise Missing(f"cluster {cluster} does not exist, or no task has marked it yet")
        return found

    async def _reading(self, cluster_id: str, queue: MessageQueue) -> list[tuple[TopicPair, Assignment]]:
        found = await self._store.topic_assignments(cluster_id, queue.topic)
        return [(pair, one) for pair, one in found if pair.source_cluster_id == cluster_id and one.source_queue == queue]

    # which flows a written queue hangs on

    async def _plan(self, task: str, cluster_id: str, queue: MessageQueue, owning_id: str) -> _Plan:
        touching = await self._store.topic_assignments(cluster_id, queue.topic)
        into = [(p, one) for p, one in touching if p.destination_cluster_id == cluster_id and one.destination_queue == queue]
        out = [(p, one) for p, one in touching if p.source_cluster_id == cluster_id and one.source_queue == queue]
        here = (cluster_id, queue.topic)
        # Of the whole topic: where the owning side has fewer queues, some queue here may be fed by third clusters only.
        topics = {
            pair.source_topic for pair, _ in touching
            if pair.source_cluster_id == owning_id and (pair.destination_cluster_id, pair.destination_topic) == here
        }
        plan = _Plan(back=_choose(out, owning_id, task, topics))
        for pair, one in into:
            if pair.source_cluster_id == owning_id:
                plan.feeding.append((one, one.source_queue, None))
                continue
            via = _choose(await self._reading(pair.source_cluster_id, one.source_queue), owning_id, task, topics)
            if via is not None:
                plan.feeding.append((one, via.destination_queue, via))
            elif plan.back is None or not await self._relays(plan.back):
                plan.feeding.append((one, None, None))
        return plan

    async def _relays(self, assignment: Assignment) -> bool:
        """Messages of third clusters go that way too."""
        task = (await declared.load(self._store)).tasks.get(assignment.task)
        return task is not None and task.relay

    # maps

    async def _current(self, assignment_ids: Sequence[int]) -> dict[int, _Sheet]:
        versions = await self._store.map_versions(assignment_ids)
        missing = sorted(set(assignment_ids) - set(versions))
        if missing:
            raise Missing(f"assignment {missing[0]} does not exist")
        found = {assignment_id: self._sheets.get(assignment_id) for assignment_id in assignment_ids}
        if any(sheet is None or sheet.rows.version != versions[one] for one, sheet in found.items()):
            async with self._loading:
                for one in assignment_ids:
                    found[one] = await self._load(one, versions[one])
        for one in assignment_ids:
            if one in self._sheets:
                self._sheets.move_to_end(one)
        self._make_room()
        return {one: sheet for one, sheet in found.items() if sheet is not None}

    async def _load(self, assignment_id: int, version: MapVersion) -> _Sheet:
        before = self._sheets.get(assignment_id)
        if before is not None and before.rows.version == version:
            return before
        rows = await self._store.map_rows(assignment_id, before.known if before is not None else None)
        if rows is None:
            self._sheets.pop(assignment_id, None)
            raise Missing(f"assignment {assignment_id} does not exist")
        if before is not None and not rows.is_whole:
            rows = _joined(before.rows, rows)
        if before is not None and _only_scanned(before.rows, rows):
            sheet = _Sheet(rows, before.map.scanned(rows.version.scanned_through))
        else:
            # The columns are this sheet's from here on: a failed build must not leave them behind under the old version.
            self._sheets.pop(assignment_id, None)
            sheet = _Sheet(rows, await _build(lambda: _offset_map(rows), len(rows.runs) + len(rows.holes)))
        self._sheets[assignment_id] = sheet
        return sheet

    def _make_room(self) -> None:
        rows = sum(sheet.row_count for sheet in self._sheets.values())
        while self._sheets and (len(self._sheets) > self._maps_max or rows > self._rows_max):
            assignment_id, sheet = self._sheets.popitem(last=False)
            rows -= sheet.row_count
            self._forget_written({assignment_id})

    def _forget_written(self, assignment_ids: set[int]) -> None:
        """A queue that was built from a map that had to go holds that map's memory."""
        for key in [key for key, one in self._written.items() if assignment_ids & set(one.versions)]:
            del self._written[key]


def _joined(before: MapRows, newer: MapRows) -> MapRows:
    before.runs.continue_with(newer.runs)
    before.holes.continue_with(newer.holes)
    return MapRows(newer.version, True, before.runs, before.holes, newer.duplicates, newer.epochs, newer.start_offset)


def _only_scanned(before: MapRows, rows: MapRows) -> bool:
    return before.version._replace(scanned_through=0) == rows.version._replace(scanned_through=0)


def _choose(found: Iterable[tuple[TopicPair, Assignment]], to_id: str, task: str, topics: set[str]) -> Assignment | None:
    """The one of several flows to a cluster that leads to one of ``topics``; one of ``task`` before others, living before left ones.
    Without ``topics``, nothing of the cluster comes here directly: then only the task says which topic is meant."""
    leading = [
        one for pair, one in found
        if pair.destination_cluster_id == to_id and (pair.destination_topic in topics or (not topics and one.task == task))
    ]
    return min(leading, key=lambda one: (one.task != task, not one.task, one.assignment_id), default=None)


def _offset_map(rows: MapRows) -> OffsetMap:
    return OffsetMap(
        rows.runs,
        examined_through=rows.version.examined_through,
        holes=rows.holes,
        duplicates=rows.duplicates,
        epochs=rows.epochs,
        start_offset=rows.start_offset,
        scanned_through=rows.version.scanned_through,
        relearn_from=rows.version.relearn_from,
    )


def _written_queue(plan: _Plan, sheets: Mapping[int, _Sheet], *, local_holds: bool) -> WrittenQueue:
    feeding = [
        Feeding(f"{one.source} {one.source_queue}", sheets[one.assignment_id].map, owning, sheets[via.assignment_id].map if via else None)
        for one, owning, via in plan.feeding
    ]
    back = WayBack(sheets[plan.back.assignment_id].map, plan.back.destination_queue) if plan.back is not None else None
    return WrittenQueue(feeding, back, local_holds=local_holds)


async def _build(build: Callable[[], Built], rows: int) -> Built:
    return build() if rows <= ROWS_AT_ONCE_MAX else await asyncio.to_thread(build)
