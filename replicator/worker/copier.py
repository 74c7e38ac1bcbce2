"""The copy loop of one assignment: take the right to write, find out what is true, then read, decide, append, note.

One append is in flight at a time. Whatever goes wrong ends in one of two places: ``_recover`` (nothing of ours can be under
way, or doubt that must be settled first), or a state that a person sees.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from replicator.core.connector import QueueReader
from replicator.core.errors import Fenced, HistoryChanged, NotConnected, Refused, ReplicatorError, Throttled
from replicator.core.record import RecordBatch
from replicator.core.stamping import NOTHING_TO_RESTORE, Decided, Stamper
from replicator.store.port import Assignment, Progress, Store, StoreUnavailable
from replicator.worker.appending import Appender
from replicator.worker.fence import Permit
from replicator.worker.flow import FlowContext
from replicator.worker.journal import Journal
from replicator.worker.limits import (
    BACKOFF_FIRST_SECONDS,
    BACKOFF_SECONDS_MAX,
    BEYOND_COPIES_MAX,
    BLOCKED_RETRY_SECONDS,
    FENCE_VALID_SECONDS,
    FIGURES_FRESH_SECONDS,
    PROOF_AGE_SECONDS_MAX,
)
from replicator.worker.recovery import CopyFinder, first_gone_before, last_true_run, verify_examined, verify_source
from replicator.worker.replaying import RecordedCopies

HISTORY_HINT = "look at the source, then: replicator resume TASK --accept-loss, or --from-offset O"


class Copier:
    """Runs one leased assignment until it is stopped or fenced. ``journal`` is what the worker saves."""

    def __init__(
        self,
        assignment: Assignment,
        flow: FlowContext,
        store: Store,
        save: Callable[[Copier], Awaitable[None]],
        exact_senders: Callable[[int, Sequence[str]], Awaitable[Sequence[str]]],
    ) -> None:
        """``save`` writes this copier's journal to the store now; it raises ``StoreUnavailable`` or ``Fenced``.
        ``exact_senders``: as ``Vouching.exact``."""
        self.assignment = assignment
        self.flow = flow
        self.journal = Journal(assignment)
        self.state = "starting"
        self.error = ""
        self.lag_messages: int | None = None
        self.lag_seconds: float | None = None
        self.read_at = 0.0
        self.appender = Appender(str(self), assignment, flow, self.journal)
        self._store = store
        self._save = save
        self._exact_senders = exact_senders
        self._proven_at = float("-inf")
        self._permit: Permit | None = None
        self._stamper: Stamper | None = None
        self._restoration = NOTHING_TO_RESTORE
        self._restoration_of = 1
        """The epoch whose it is."""
        self._recorded: RecordedCopies | None = None
        self._stopping = False
        self._interruptible = False
        self._task: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"{self.assignment.source}: {self.assignment.source_queue} -> {self.assignment.destination}"

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def clean(self) -> bool:
        """Nothing of ours can be under way."""
        return self.appender.clean

    async def abandon(self) -> tuple[str, ...]:
        """Ends in doubt: resets the connection that may carry an append of ours. Returns the senders a next holder has to outlive."""
        return tuple(filter(None, (await self.appender.abandon(), *self.journal.senders)))

    def stop(self) -> None:
        """Asks for a clean end: an append under way is waited for, everything else is given up at once."""
        self._stopping = self.appender.stopping = True
        if self._interruptible and not self.appender.is_sending and self._task is not None:
            self._task.cancel()

    def set_flow(self, flow: FlowContext) -> None:
        """The task was edited: rules apply from the next batch on."""
        self.flow = self.appender.flow = flow
        if self._stamper is not None:
            epoch, seen = self.journal.checkpoint.epoch, self._stamper.provenance.seen
            self._stamper = flow.make_stamper(self.assignment, epoch, seen, self._restoration)

    async def run(self) -> None:
        """Returns after ``stop``; raises ``Fenced`` when another holder took over. Everything else is retried or shown."""
        self._task = asyncio.current_task()
        backoff = BACKOFF_FIRST_SECONDS
        while not self._stopping:
            try:
                await self._attempt()
                return
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
                return
            except Fenced:
                raise
            except HistoryChanged as error:
                if self._may_accept(error):
                    continue
                error.hint = error.hint or HISTORY_HINT
                self.flow.counts.history_stops_total += self.state != "stopped-history-change"
                wait = self._show("stopped-history-change", error, BLOCKED_RETRY_SECONDS)
            except Throttled as error:
                wait = self._show("running", error, error.retry_after_seconds)
            except NotConnected as error:
                wait = self._show("unreachable", error, backoff)
            except Refused as error:
                wait = self._show("blocked", error, BLOCKED_RETRY_SECONDS)
            except StoreUnavailable as error:
                wait = self._show("unreachable", error, backoff)
            backoff = BACKOFF_FIRST_SECONDS if self.state == "running" else min(backoff * 2, BACKOFF_SECONDS_MAX)
            if not await self._pause(wait * random.uniform(0.8, 1.2)):
                return

    def _show(self, state: str, error: ReplicatorError, wait_seconds: float) -> float:
        self.state, self.error = state, str(error)
        self.journal.dirty = True
        return wait_seconds

    async def _pause(self, seconds: float) -> bool:
        """False when the wait was ended by ``stop``."""
        try:
            self._interruptible = True
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            return False
        finally:
            self._interruptible = False
        return not self._stopping

    def _may_accept(self, error: HistoryChanged) -> bool:
        """``on_history_change: continue``: what the source lost is recorded and given up, where it is known exactly."""
        if self.flow.task.on_history_change != "continue" or error.lost_from is None or error.lost_to is None:
            return False
        self.journal.end_batch(
            error.lost_to, None, self.journal.checkpoint.seen, [(error.lost_from, error.lost_to - error.lost_from, "expired")]
        )
        return True

    async def _attempt(self) -> None:
        self._interruptible = True
        try:
            if self._permit is None or self._permit.lost:
                await self._take_right()
            await self._recover()
            await self._copy()
        finally:
            self._interruptible = False

    async def _take_right(self) -> None:
        """Becomes the only writer. Where the former holder did not let go cleanly, its right must have run out first."""
        if self._permit is not None:
            self.appender.clean = False  # Whoever took the lock from us may have written.
        self._permit = await self.flow.fence.take(self.assignment.source_queue, self.assignment.holder, was_released=self.clean)
        if not self.clean:
            await asyncio.sleep(FENCE_VALID_SECONDS)

    async def _recover(self) -> None:
        """From any doubt to facts: who may still write, what of ours the destination holds, whether the source is the same."""
        journal, checkpoint = self.journal, self.journal.checkpoint
        assert self._permit is not None
        journal.restart()
        if not self.clean:
            self.flow.counts.doubts_total += 1
            senders = await self._exact_senders(self.assignment.assignment_id, journal.senders)
            await self.flow.settler(self.assignment.destination_queue.broker_name).settle(senders, self._permit)
        sender = await self.appender.connect()  # Before anything is verified.
        source, put = self.flow.place_of_source(self.assignment), self.flow.place_of_destination(self.assignment)
        finder = CopyFinder(self.flow.destination, put, source, checkpoint.epoch)
        lowest_kept = (await self.flow.destination.offset_range(put.queue)).min_offset
        await self._verify_last_copy(finder, lowest_kept)
        examined_before = journal.examined_through if journal.checkpoint.identity is None else self.assignment.start_offset
        # The end is asked again: after a settled doubt it holds everything that could still have come.
        end = (await self.flow.destination.offset_range(put.queue)).max_offset
        if end < journal.checkpoint.scanned_through:
            # Known to everybody before anything is put in the place of what is gone: who comes after us has to look there again.
            journal.ends_at(end)
            await self._save(self)
            await self._tell_of_older_epochs(end)
        await self._note_unrecorded(finder, max(journal.checkpoint.scanned_through, lowest_kept), end)
        journal.scanned(end)
        journal.has_checkpoint = True
        journal.senders = ()
        self.appender.verified(sender)
        await self._verify_source()
        if journal.is_from_log and self._stamper is None:
            await self._rewind(examined_before)
        self._recorded = None
        if journal.is_replaying:
            await self._save(self)
            epochs = await self._store.epochs(self.assignment.assignment_id)
            self._recorded = RecordedCopies(self._store, self.assignment.assignment_id, epochs, has_expired=lowest_kept > 0)
        epoch = journal.checkpoint.epoch
        if epoch != self._restoration_of:  # Asked once: a later recovery needs no store that may be away.
            self._restoration = await self._store.restoration(self.assignment.assignment_id, epoch)
            self._restoration_of = epoch
        self._stamper = self.flow.make_stamper(self.assignment, epoch, journal.checkpoint.seen, self._restoration)

    async def _verify_source(self) -> None:
        journal = self.journal
        examined = journal.checkpoint.identity
        proven = await verify_source(self.flow.source, self.assignment.source_queue, journal.examined_through, examined)
        if examined is not None and not proven:
            self.flow.counts.unverifiable_total += 1

    async def _note_unrecorded(self, finder: CopyFinder, start: int, end: int) -> None:
        """Copies nobody wrote down: page by page, kept in memory only where they are few."""
        journal, checkpoint = self.journal, self.journal.checkpoint
        # Nothing was examined yet as far as anybody remembers: what stands in the log is all there is.
        is_new = checkpoint.identity is None and checkpoint.confirmed_source_offset < 0
        # Once we read ourselves, the position is ours: what is found above it was sent by us, with reasons still to be noted between.
        only_log = self._stamper is None and (journal.is_from_log or is_new)
        if not only_log and not journal.is_replaying:
            await self._load_beyond()
        found_total = 0
        async with aclosing(finder.pages(start, end)) as pages:
            async for page, through in pages:
                last = None
                for copy in page:
                    if journal.note_found(copy):
                        last = copy
                found_total += len(page)
                if last is not None and only_log:
                    journal.rest_on(last)
                elif last is not None and (journal.is_replaying or found_total > BEYOND_COPIES_MAX):
                    if not journal.is_replaying:
                        await self._verify_source()
                    journal.rest_on(last, position=journal.examined_through)
                journal.scanned(through)
                if not journal.has_room:
                    await self._save(self)
        journal.restart()

    async def _rewind(self, examined_before: int) -> None:
        """The position comes from the log alone: read again whatever the copies do not answer for, as far as the source retains it."""
        checkpoint = self.journal.checkpoint
        start = end = max(examined_before, (await self.flow.source.offset_range(self.assignment.source_queue, any_replica=True)).min_offset)
        await self._save(self)
        covering = await self._store.runs(self.assignment.assignment_id, epoch=checkpoint.epoch, around_source=start, limit=1)
        if covering and covering[0].source_start <= start and not self.flow.task.relay:
            end = covering[0].source_start + covering[0].length  # Born there, all of them: nothing that provenance had to remember.
        if end <= checkpoint.confirmed_source_offset:
            self.journal.rewind(end)

    async def _verify_last_copy(self, finder: CopyFinder, lowest_kept: int) -> None:
        checkpoint = self.journal.checkpoint
        last = checkpoint.confirmed_destination_offset
        copy = await finder.at(last) if last >= lowest_kept else None
        if last < lowest_kept or (copy is not None and copy.source_offset == checkpoint.confirmed_source_offset):
            return
        while self.journal.to_relearn is not None and self.journal.to_relearn.epoch == checkpoint.epoch:
            await finder.relearn(self.journal)
        await self._save(self)
        run = await last_true_run(self._store, finder, self.assignment.assignment_id, checkpoint.epoch, lowest_kept)
        if run is not None:
            resume_at = run.source_start + run.length
        else:
            newest = (await self._store.epochs(self.assignment.assignment_id))[-1]
            # The histories before this one have their copies: only what this one was to bring is copied again.
            resume_at = self.assignment.start_offset if newest.start_offset is None else newest.start_offset
        await self._store.record_event(
            self.assignment.task, "destination-lost-copies",
            f"{self}: the copy of source offset {checkpoint.confirmed_source_offset} is no longer at {put_text(self.assignment)} "
            f"offset {last}; copying again from source offset {resume_at}",
            {"source_offset": checkpoint.confirmed_source_offset, "destination_offset": last, "resume_at": resume_at},
        )
        was_told_by_copies = self.journal.is_from_log or self.journal.is_replaying
        if run is None:
            await self._tell_of_older_epochs((await self.flow.destination.offset_range(self.assignment.destination_queue)).max_offset)
        self.journal.fall_back(run, resume_at, {})
        kept = await finder.at(run.destination_start + run.length - 1) if run and was_told_by_copies else None
        if kept is not None:
            self.journal.rest_on(kept)

    async def _tell_of_older_epochs(self, end: int) -> None:
        """What the destination, which ends at ``end``, has lost of the copies made before this epoch is not copied again: at least
        that is said."""
        epoch = self.journal.checkpoint.epoch
        first = await first_gone_before(self._store, self.assignment.assignment_id, epoch, end) if epoch > 1 else None
        if first is not None:
            await self._store.record_event(
                self.assignment.task, "destination-lost-copies",
                f"{self}: {put_text(self.assignment)} ends at offset {end}: copies of source offsets from {first} on, made before "
                f"epoch {epoch}, are gone, and are not copied again (docs/guarantees.md, Known limits)",
                {"source_offset": first, "destination_offset": end, "epoch": epoch},
            )  # fmt: skip

    async def _load_beyond(self) -> None:
        """Copies recorded above the position: confirmed in the middle of a batch by a holder that died."""
        position = self.journal.examined_through
        if self.journal.checkpoint.confirmed_source_offset < position:
            return
        runs = await self._store.runs(self.assignment.assignment_id, epoch=self.journal.checkpoint.epoch, around_source=position)
        for run in runs:
            for index in range(max(0, position - run.source_start), run.length):
                self.journal.beyond.setdefault(run.source_start + index, run.destination_start + index)

    async def _copy(self) -> None:
        # Known before the first read: that of an idle queue waits for a record.
        source, queue, position = self.flow.source, self.assignment.source_queue, self.journal.examined_through
        self._observe((await source.offset_range(queue, any_replica=True)).max_offset - position, None)
        reader = source.reader(queue, position, any_replica=True)
        self.state, self.error = "running", ""
        self.journal.dirty = True
        try:
            while not self._stopping:
                await self._copy_one(reader)
        finally:
            await reader.close()

    async def _copy_one(self, reader: QueueReader) -> None:
        batch = await reader.read()
        try:
            assert self._stamper is not None
            position = self.journal.examined_through
            self._remark(batch.remark)
            self._observe(batch.max_offset - position, batch.store_timestamps_ms[0] if len(batch) else None)
            if batch.next_offset == position:
                self.appender.require_connection()
                return
            await self._prove_source(batch)
            decided = self._stamper.decide(batch, position)
            self.flow.counts.own_tags_kept_total += decided.own_tags_kept
            identity = decided.identity
            if self.journal.is_replaying and self._recorded is not None:
                last = self.journal.checkpoint.confirmed_source_offset
                await self._recorded.match(decided, position, last)
                identity = identity if decided.examined_through > last else None  # Till then the last copy's proves more.
            elif self.journal.beyond:
                self._leave_out_confirmed(decided)
            if len(decided):
                assert self._permit is not None
                await self.appender.append_all(decided, self._permit)
            else:
                self.appender.require_connection()
            self.journal.end_batch(decided.examined_through, identity, self._stamper.provenance.seen, decided.holes)
            self._observe(batch.max_offset - decided.examined_through, batch.store_timestamps_ms[-1] if len(batch) else None)
        finally:
            reader.release(batch)

    async def _prove_source(self, batch: RecordBatch) -> None:
        """Where the last read is too long ago, a batch counts only if what was examined before it still stands there after it was
        read. Raises ``HistoryChanged``."""
        now = asyncio.get_running_loop().time()
        if now - self._proven_at > PROOF_AGE_SECONDS_MAX:
            await verify_examined(self.flow.source, self.assignment.source_queue, self.journal.checkpoint.identity, batch.min_offset)
        self._proven_at = now

    def _remark(self, remark: str) -> None:
        self.journal.dirty = self.journal.dirty or remark != self.error
        self.error = remark

    def _observe(self, lag: int, store_timestamp_ms: int | None) -> None:
        self.read_at = asyncio.get_running_loop().time()
        self.lag_messages = max(0, lag)
        if lag <= 0:
            self.lag_seconds = 0.0
        elif store_timestamp_ms is not None:
            self.lag_seconds = max(0.0, time.time_ns() / 1e9 - store_timestamp_ms / 1e3)

    def _leave_out_confirmed(self, decided: Decided) -> None:
        """Records of which a copy is known to stand: not to be sent again."""
        beyond = self.journal.beyond
        keep = [index for index, offset in enumerate(decided.offsets) if offset not in beyond]
        if len(keep) != len(decided.offsets):
            decided.select(keep)

    def progress(self) -> Progress:
        """What is to be saved now, with the figures people look at."""
        progress = self.journal.snapshot(in_flight=not self.clean)
        silent = asyncio.get_running_loop().time() - self.read_at
        lag_messages, lag_seconds = self.lag_messages, self.lag_seconds
        if silent >= FIGURES_FRESH_SECONDS:
            # What was not copied then is so much older now, and what came since is younger than that.
            lag_messages, lag_seconds = None, None if lag_seconds is None else lag_seconds + silent
        error = self.error or self.appender.patience
        return replace(progress, state=self.state, error=error, lag_messages=lag_messages, lag_seconds=lag_seconds)


def put_text(assignment: Assignment) -> str:
    return f"cluster {assignment.destination}, queue {assignment.destination_queue}"
