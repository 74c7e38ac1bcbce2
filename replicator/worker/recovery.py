"""Finding out what is true before going on: the source's history, the last confirmed copy, and copies nobody recorded.

The destination's log is the truth about copies. What is found there is a fact; what the store remembers is a hint to
where to look.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from replicator.core.connector import Connector
from replicator.core.copies import CopyFilter, FoundCopy
from replicator.core.errors import HistoryChanged, NotConnected
from replicator.core.record import UNSEEN_COMMIT_LOG_OFFSET, MessageQueue, RecordBatch, RecordIdentity
from replicator.core.stamp import Place
from replicator.store.port import Run, Store
from replicator.worker.journal import Journal
from replicator.worker.limits import RELEARN_OFFSETS_PAGE, VERIFY_RUNS_PAGE


class CopyFinder:
    """Recognises, in one destination queue, the copies of one source queue. ``epoch``: the history that ``at`` and ``relearn`` are
    about."""

    def __init__(self, destination: Connector, put: Place, source: Place, epoch: int) -> None:
        self._destination = destination
        self._put = put
        self._source = source
        self._epoch = epoch
        self._filter = CopyFilter(put)

    async def at(self, destination_offset: int) -> FoundCopy | None:
        """The copy standing at that offset, None where there is something else or nothing (any more, or yet)."""
        bounds = await self._destination.offset_range(self._put.queue)
        if not bounds.min_offset <= destination_offset < bounds.max_offset:
            return None
        reader = self._destination.reader(self._put.queue, destination_offset, prefetch=False)
        try:
            batch = await reader.read()
            copies = [copy for copy in self._copies(batch) if copy.destination_offset == destination_offset]
            reader.release(batch)
            return copies[0] if copies and copies[0].upstream.epoch == self._epoch else None
        finally:
            await reader.close()

    async def pages(self, start: int, end: int) -> AsyncGenerator[tuple[list[FoundCopy], int]]:
        """Copies of any history in ``[start, end)``, in destination order, each page with the offset it was read to."""
        if start >= end:
            return
        reader = self._destination.reader(self._put.queue, start)
        try:
            position = start
            while position < end:
                batch = await reader.read()
                found = [copy for copy in self._copies(batch) if copy.destination_offset < end]
                following = batch.next_offset
                reader.release(batch)
                if following <= position:
                    break  # The log ends here: its last records expired or were truncated while we read.
                position = following
                yield found, min(position, end)
        finally:
            await reader.close()

    async def relearn(self, journal: Journal) -> None:
        """One page of the range that the journal had no room for; the finder is of the range's epoch."""
        known = journal.to_relearn
        assert known is not None
        bounds = await self._destination.offset_range(self._put.queue)
        start = max(known.destination_start, bounds.min_offset)
        through = min(max(start, known.destination_start) + RELEARN_OFFSETS_PAGE, known.destination_end)
        copies: list[tuple[int, int]] = []
        async with aclosing(self.pages(start, through)) as pages:
            async for page, _ in pages:
                copies += [(copy.source_offset, copy.destination_offset) for copy in page if copy.upstream.epoch == self._epoch]
        if journal.to_relearn is known:  # Else more was added to it meanwhile: the next page begins where that does.
            journal.relearned(copies, through, is_complete=start == known.destination_start)

    def _copies(self, batch: RecordBatch) -> list[FoundCopy]:
        return [copy for copy in self._filter.find(batch) if copy.upstream.source == self._source]


async def last_true_run(store: Store, finder: CopyFinder, assignment_id: int, epoch: int, lowest_kept: int) -> Run | None:
    """Walks back over the stored runs to the newest one of which something is still there; cut to the part that is.

    ``lowest_kept``: destination offsets below it have expired there and count as true: nobody can say otherwise.
    None where no run is left to stand on.
    """
    limit = VERIFY_RUNS_PAGE
    checked = 0
    while True:
        runs = await store.last_runs(assignment_id, limit)
        for run in runs[checked:]:
            if run.epoch != epoch:
                return None
            kept = await _kept_part(finder, run, lowest_kept)
            if kept is not None:
                return kept
        if len(runs) < limit:
            return None
        checked, limit = len(runs), limit * 2


async def first_gone_before(store: Store, assignment_id: int, epoch: int, end: int) -> int | None:
    """The lowest source offset whose copy, made before ``epoch``, stood at or beyond ``end`` of the destination queue."""
    limit, checked, first = VERIFY_RUNS_PAGE, 0, None
    while True:
        runs = await store.last_runs(assignment_id, limit)
        for run in runs[checked:]:
            if run.epoch == epoch:
                continue
            if run.destination_start + run.length <= end:
                return first  # Older ones stand before it.
            gone = run.source_start + max(0, end - run.destination_start)
            first = gone if first is None else min(first, gone)
        if len(runs) < limit:
            return first
        checked, limit = len(runs), limit * 2


async def _kept_part(finder: CopyFinder, run: Run, lowest_kept: int) -> Run | None:
    """A log loses its tail only, so the copies of a run that are still there are its first ones: bisect for how many."""

    async def is_there(index: int) -> bool:
        if run.destination_start + index < lowest_kept:
            return True
        copy = await finder.at(run.destination_start + index)
        return copy is not None and copy.source_offset == run.source_start + index

    if not await is_there(0):
        return None
    low, high = 1, run.length  # low copies are known to be there, more than high cannot be
    while low < high:
        middle = (low + high + 1) // 2
        if await is_there(middle - 1):
            low = middle
        else:
            high = middle - 1
    return Run(run.epoch, run.source_start, run.destination_start, low)


async def verify_source(source: Connector, queue: MessageQueue, position: int, identity: RecordIdentity | None) -> bool:
    """Is the source queue still the one that was examined through ``position``? True: proven. False: nothing left to compare
    with (the last examined record has expired), but nothing contradicts it. Raises ``HistoryChanged``."""
    bounds = await source.offset_range(queue, any_replica=True)
    where = f"cluster {source.cluster}, queue {queue}"
    if position < bounds.min_offset:
        raise HistoryChanged(
            f"{where}: offsets {position} to {bounds.min_offset - 1} expired before they were read",
            lost_from=position, lost_to=bounds.min_offset,
            hint="go on with: replicator resume TASK --accept-loss",
        )
    if position > bounds.max_offset and bounds.may_lack_newest:
        raise NotConnected(f"{where}: its master is away, and the replica read instead ends at {bounds.max_offset}, before {position}")
    if position > bounds.max_offset:
        raise HistoryChanged(
            f"{where}: the queue ends at offset {bounds.max_offset}, but {position} was examined: truncated or created anew"
        )
    return await verify_examined(source, queue, identity, bounds.min_offset)


async def verify_examined(source: Connector, queue: MessageQueue, identity: RecordIdentity | None, lowest_kept: int) -> bool:
    """Does the last examined record still stand where it stood? As ``verify_source``, for bounds known already."""
    if identity is None or identity.queue_offset < lowest_kept:
        return False
    reader = source.reader(queue, identity.queue_offset, prefetch=False, any_replica=True)
    try:
        batch = await reader.read()
        found = None
        if len(batch) and batch.offsets[0] == identity.queue_offset:
            found = RecordIdentity(batch.offsets[0], batch.store_timestamps_ms[0], batch.commit_log_offsets[0], batch.body_crcs[0])
        reader.release(batch)
    finally:
        await reader.close()
    if found is None:
        return False
    if not _is_same(found, identity):
        raise HistoryChanged(
            f"cluster {source.cluster}, queue {queue}: offset {identity.queue_offset} holds another record than the one examined (stored "
            f"at {found.store_timestamp_ms} instead of {identity.store_timestamp_ms} ms): truncated, created anew, restored or swapped"
        )
    return True


def _is_same(found: RecordIdentity, known: RecordIdentity) -> bool:
    if known.commit_log_offset == UNSEEN_COMMIT_LOG_OFFSET:
        return (found.queue_offset, found.store_timestamp_ms) == (known.queue_offset, known.store_timestamp_ms)
    return found == known
