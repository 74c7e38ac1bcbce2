"""What one assignment knows of itself between two saves: position, last confirmed copy, new runs and holes.

Rule: ``examined_through``, ``seen`` and ``identity`` move together, at the end of a source batch. Copies confirmed in the
middle of a batch stand in ``beyond`` until then, so that a restart from the position finds them instead of sending them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from replicator.core.copies import FoundCopy
from replicator.core.offset_map import RESTORED, Epoch
from replicator.core.record import UNSEEN_COMMIT_LOG_OFFSET, RecordIdentity
from replicator.store.port import Assignment, Checkpoint, Duplicate, Hole, Parked, Progress, Run, ToRelearn
from replicator.worker.folding import fold, learn
from replicator.worker.limits import RUNS_KEPT_MAX


class Journal:
    def __init__(self, assignment: Assignment) -> None:
        checkpoint = assignment.checkpoint
        self.has_checkpoint = checkpoint is not None
        self.checkpoint = checkpoint or Checkpoint(examined_through=assignment.start_offset)
        self.assignment_id = assignment.assignment_id
        self.token = assignment.token
        self.beyond: dict[int, int] = {}
        """Source offset -> destination offset of copies at or above ``examined_through`` that a restart has to leave out."""
        self._in_batch: list[tuple[Sequence[int], int]] = []
        self.senders = assignment.senders
        self.dirty = not self.has_checkpoint
        self._runs: list[Run] = []
        self._holes: list[Hole] = []
        self._duplicates: list[Duplicate] = []
        self._parked: list[Parked] = []
        self._drop_runs_from: int | None = None
        self._epochs: list[Epoch] = []
        self._met = {1, self.checkpoint.epoch}

    @property
    def is_from_log(self) -> bool:
        """Only copies tell the position: nothing of the source was looked at behind the last one of them."""
        identity = self._told_by_copy
        return identity is not None and self.examined_through == identity.queue_offset + 1

    @property
    def is_replaying(self) -> bool:
        """What copies prove was examined is read again for its reasons, see ``replaying``."""
        identity = self._told_by_copy
        return identity is not None and self.examined_through <= identity.queue_offset

    @property
    def _told_by_copy(self) -> RecordIdentity | None:
        identity = self.checkpoint.identity
        return identity if identity is not None and identity.commit_log_offset == UNSEEN_COMMIT_LOG_OFFSET else None

    @property
    def to_relearn(self) -> ToRelearn | None:
        return self.checkpoint.to_relearn

    @property
    def has_room(self) -> bool:
        """False: what was learned again should be saved before more is."""
        return max(len(self._runs), len(self._holes)) < RUNS_KEPT_MAX // 4

    @property
    def examined_through(self) -> int:
        return self.checkpoint.examined_through

    def add_copies(self, offsets: Sequence[int], first_destination_offset: int) -> None:
        """``offsets`` stand at ``first_destination_offset`` and on, in one piece."""
        destination = first_destination_offset
        begin = 0
        count = len(offsets)
        while begin < count:
            if offsets[-1] - offsets[begin] == count - begin - 1:
                end = count
            else:
                end = begin + 1
                while end < count and offsets[end] == offsets[end - 1] + 1:
                    end += 1
            self._add_run(Run(self.checkpoint.epoch, offsets[begin], destination, end - begin))
            destination += end - begin
            begin = end
        self._in_batch.append((offsets, first_destination_offset))
        last, checkpoint = offsets[-1], self.checkpoint
        copied_total = checkpoint.copied_total + count
        if last > checkpoint.confirmed_source_offset:
            checkpoint = replace(
                checkpoint, confirmed_source_offset=last, confirmed_destination_offset=destination - 1,
                scanned_through=max(checkpoint.scanned_through, destination),
            )
        self.checkpoint = replace(checkpoint, copied_total=copied_total)
        self.dirty = True

    def restart(self) -> None:
        """Reading begins again at ``examined_through``: what was confirmed above it moves to ``beyond``."""
        for offsets, first in self._in_batch:
            for index, offset in enumerate(offsets):
                if offset >= self.examined_through:
                    self.beyond[offset] = first + index
        self._in_batch.clear()

    def note_found(self, copy: FoundCopy) -> bool:
        """A copy in the destination's log, looked at in its order. True where it is the last one of all now."""
        epoch, source_offset, destination_offset = copy.upstream.epoch, copy.source_offset, copy.destination_offset
        if copy.is_restored and epoch > self.checkpoint.epoch:
            self.add_duplicate(source_offset, destination_offset, RESTORED)
            return False
        if epoch > self.checkpoint.epoch:
            self._begin_epoch(epoch, source_offset)
        if epoch < self.checkpoint.epoch:
            if epoch in self._met:
                self.add_duplicate(source_offset, destination_offset, "duplicate", epoch)
            return False
        known = self.beyond.get(source_offset)
        if known is None and source_offset > self.checkpoint.confirmed_source_offset:
            self.add_copies([source_offset], destination_offset)
            return True
        if known != destination_offset and destination_offset != self.checkpoint.confirmed_destination_offset:
            self.add_duplicate(source_offset, destination_offset, "duplicate")
        return False

    def _begin_epoch(self, epoch: int, first_copied: int) -> None:
        """The log alone cannot tell where a later history began to differ, only its first copy."""
        self._epochs.append(Epoch(epoch, first_copied, first_copied))
        self._met.add(epoch)
        self.checkpoint = replace(self.checkpoint, epoch=epoch, confirmed_source_offset=-1, confirmed_destination_offset=-1)
        self.dirty = True

    def rest_on(self, copy: FoundCopy, *, position: int | None = None) -> None:
        """``copy``, the last one found, proves what was examined. Reading goes on behind it, or is repeated from ``position``."""
        self._in_batch.clear()
        self.beyond = {}
        examined_through = copy.source_offset + 1 if position is None else position
        identity = RecordIdentity(copy.source_offset, copy.store_timestamp_ms, UNSEEN_COMMIT_LOG_OFFSET, 0)
        self.checkpoint = replace(self.checkpoint, examined_through=examined_through, identity=identity)
        self.dirty = True

    def rewind(self, examined_through: int) -> None:
        """Read again from here, for the reasons; the copies known stay what they are."""
        self.checkpoint = replace(self.checkpoint, examined_through=examined_through, seen={})
        self.dirty = True

    def end_batch(
        self, examined_through: int, identity: RecordIdentity | None, seen: dict[str, int], holes: Sequence[tuple[int, int, str]]
    ) -> None:
        """Everything below ``examined_through`` is decided and, where it was to be copied, confirmed."""
        checkpoint = self.checkpoint
        skipped = dict(checkpoint.skipped_total)
        for start, length, reason in holes:
            self._add_hole(Hole(checkpoint.epoch, start, length, reason))
            skipped[reason] = skipped.get(reason, 0) + length
        self._in_batch.clear()
        if self.beyond:
            self.beyond = {s: d for s, d in self.beyond.items() if s >= examined_through}
        self.checkpoint = replace(
            checkpoint,
            examined_through=examined_through,
            identity=identity or checkpoint.identity,
            seen=dict(seen) if seen != checkpoint.seen else checkpoint.seen,
            skipped_total=skipped if holes else checkpoint.skipped_total,
        )
        self.dirty = True
        self._fold()

    def add_duplicate(self, source_offset: int, destination_offset: int, kind: str, epoch: int | None = None) -> None:
        self._duplicates.append(Duplicate(self.checkpoint.epoch if epoch is None else epoch, source_offset, destination_offset, kind))
        self.dirty = True

    def park(self, source_offset: int, reason: str, size_bytes: int) -> None:
        self._parked.append(Parked(source_offset, reason, size_bytes))
        self.dirty = True

    def scanned(self, through: int) -> None:
        """The destination was read up to ``through`` while nothing of ours was in flight."""
        if through > self.checkpoint.scanned_through:
            self.checkpoint = replace(self.checkpoint, scanned_through=through)
            self.dirty = True

    def ends_at(self, end: int) -> None:
        """The destination lost what stood at ``end`` and beyond, none of it a copy of this epoch."""
        self.checkpoint = replace(self.checkpoint, scanned_through=min(self.checkpoint.scanned_through, end))
        self.dirty = True

    def fall_back(self, confirmed: Run | None, examined_through: int, seen: dict[str, int]) -> None:
        """The destination lost our copies above ``confirmed`` (its last true run): go on from ``examined_through`` again.
        Nothing may be left to be learned again: what is not in the map would be copied twice."""
        assert self.to_relearn is None or self.to_relearn.epoch != self.checkpoint.epoch
        source = confirmed.source_start + confirmed.length - 1 if confirmed else -1
        destination = confirmed.destination_start + confirmed.length - 1 if confirmed else -1
        self._runs = [run for run in self._runs if run.source_start < examined_through]
        self._holes = [hole for hole in self._holes if hole.source_start < examined_through]
        self._drop_runs_from = min(examined_through, self._drop_runs_from if self._drop_runs_from is not None else examined_through)
        self.beyond = {}
        self._in_batch.clear()
        self.checkpoint = replace(
            self.checkpoint, confirmed_source_offset=source, confirmed_destination_offset=destination, scanned_through=destination + 1,
            examined_through=examined_through, identity=None, seen=dict(seen),
        )
        self.dirty = True

    def snapshot(self, *, in_flight: bool) -> Progress:
        """What is to be saved now; hand it back to ``saved`` or ``not_saved``."""
        progress = Progress(
            self.assignment_id, self.token, replace(self.checkpoint, in_flight=in_flight), self._runs, self._holes, self._duplicates,
            self._parked, self.senders, self._drop_runs_from, epochs=self._epochs,
        )
        self._runs, self._holes, self._duplicates, self._parked, self._epochs = [], [], [], [], []
        self._drop_runs_from = None
        self.dirty = False
        return progress

    def not_saved(self, progress: Progress) -> None:
        """The store could not be reached: what the snapshot took out goes back in front."""
        newer_runs, newer_holes = self._runs, self._holes
        self._runs, self._holes = list(progress.runs), list(progress.holes)
        if self._drop_runs_from is not None:
            limit = self._drop_runs_from
            self._runs = [run for run in self._runs if run.source_start < limit]
            self._holes = [hole for hole in self._holes if hole.source_start < limit]
        for run in newer_runs:
            self._add_run(run)
        for hole in newer_holes:
            self._add_hole(hole)
        self._duplicates = [*progress.duplicates, *self._duplicates]
        self._parked = [*progress.parked, *self._parked]
        self._epochs = [*progress.epochs, *self._epochs]
        limits = [limit for limit in (progress.drop_runs_from, self._drop_runs_from) if limit is not None]
        self._drop_runs_from = min(limits) if limits else None
        self.dirty = True
        self._fold()

    def _fold(self) -> None:
        """Above the cap the older half is given up in memory: where it stands is kept as one range."""
        if len(self._runs) <= RUNS_KEPT_MAX and len(self._holes) <= RUNS_KEPT_MAX:
            return
        folded = fold(self.to_relearn, self._runs, self._holes, self.examined_through, RUNS_KEPT_MAX // 2)
        if folded is not None:
            range_, self._runs, self._holes = folded
            self.checkpoint = replace(self.checkpoint, to_relearn=range_)

    def relearned(self, copies: Sequence[tuple[int, int]], through: int, *, is_complete: bool) -> None:
        """``copies``: (source, destination) of this history found from the start of the range up to destination offset
        ``through``, in order. ``is_complete`` False: the first of that piece of log has expired."""
        known = self.to_relearn
        assert known is not None
        learned = learn(known, copies, through, is_complete=is_complete)
        for run in learned.runs:
            self._add_run(run)
        for hole in learned.holes:
            self._add_hole(hole)
        self.checkpoint = replace(self.checkpoint, to_relearn=learned.rest)
        self.dirty = True

    def _add_run(self, run: Run) -> None:
        if self._runs:
            last = self._runs[-1]
            if (last.epoch, last.source_start + last.length, last.destination_start + last.length) == (
                run.epoch, run.source_start, run.destination_start
            ):
                self._runs[-1] = replace(last, length=last.length + run.length)
                return
        self._runs.append(run)

    def _add_hole(self, hole: Hole) -> None:
        if self._holes:
            last = self._holes[-1]
            if (last.epoch, last.source_start + last.length, last.reason) == (hole.epoch, hole.source_start, hole.reason):
                self._holes[-1] = replace(last, length=last.length + hole.length)
                return
        self._holes.append(hole)
