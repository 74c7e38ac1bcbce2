"""Reading again what copies prove was examined: nothing is sent, each offset without a copy gets its reason.

For positions that only the destination's log tells. Below the last copy found there everything was decided once, in order;
sending any of it now would come too late for its place, and twice where the copy has expired in the destination.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.core.copies import PRUNED, UNKNOWN
from replicator.core.correspondence import OFFSET_MAX, Intervals
from replicator.core.offset_map import Epoch
from replicator.core.stamping import Decided, merge_holes
from replicator.store.port import Run, Store
from replicator.worker.limits import REPLAY_RUNS_PAGE


class RecordedCopies:
    """Of which source offsets the stored map has copies, asked for in ascending order and read page by page."""

    def __init__(self, store: Store, assignment_id: int, epochs: Sequence[Epoch], *, has_expired: bool) -> None:
        """``has_expired``: the destination no longer holds its first copies."""
        ends = [min((later.divergence_offset for later in epochs[index + 1 :]), default=OFFSET_MAX) for index in range(len(epochs))]
        self._pages = [_Pages(store, assignment_id, epoch.number, end) for epoch, end in zip(epochs, ends, strict=True)]
        self._has_expired = has_expired
        self._first: int | None = None

    async def match(self, decided: Decided, position: int, last: int) -> None:
        """Leaves of a batch read at ``position`` what lies above ``last``, the last copy known; below it only holes remain."""
        copied = Intervals(sorted([piece for pages in self._pages for piece in await pages.within(position, decided.examined_through)]))
        if self._first is None:
            self._first = min((pages.first for pages in self._pages if pages.first is not None), default=OFFSET_MAX)
        holes = [
            (first, end - first, reason)
            for start, length, reason in decided.holes for first, end in copied.gaps(start, start + length)
        ]
        for offset in decided.offsets:
            if offset <= last and offset not in copied:
                holes.append((offset, 1, PRUNED if self._has_expired and offset < self._first else UNKNOWN))
        keep = [index for index, offset in enumerate(decided.offsets) if offset > last]
        if len(keep) != len(decided.offsets):
            decided.select(keep)
        decided.holes = merge_holes(holes)


class _Pages:
    """The runs of one epoch that count in the present history, a page at a time."""

    def __init__(self, store: Store, assignment_id: int, epoch: int, end: int) -> None:
        self._store = store
        self._assignment_id = assignment_id
        self._epoch = epoch
        self._end = end
        self._page: Sequence[Run] = ()
        self._asked_at: int | None = None
        self._is_last = False
        self.first: int | None = None
        """Source offset of the first run seen."""

    async def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """Copied offsets of ``[start, end)``, in pieces."""
        end = min(end, self._end)
        found: list[tuple[int, int]] = []
        position = start
        while position < end:
            if not self._covers(position):
                await self._read(position)
            for run in self._page:
                first, stop = max(run.source_start, position), min(run.source_start + run.length, end)
                if first < stop:
                    found.append((first, stop))
            if self._is_last:
                break
            position = max(position, self._page[-1].source_start + self._page[-1].length)
        return found

    def _covers(self, position: int) -> bool:
        if self._asked_at is None or position < self._asked_at:
            return False
        return self._is_last or position < self._page[-1].source_start + self._page[-1].length

    async def _read(self, position: int) -> None:
        self._page = await self._store.runs(
            self._assignment_id, epoch=self._epoch, around_source=position, limit=REPLAY_RUNS_PAGE
        )
        self._asked_at = position
        self._is_last = len(self._page) < REPLAY_RUNS_PAGE
        if self.first is None and self._page:
            self.first = self._page[0].source_start
