"""Where a group has to start in a destination queue so that it skips nothing, and what it will see again.

The side that owns a group's progress is the *owning* side, the one its offsets are to be written to the *written* side. Every
record of the written queue is judged by where its message stands on the owning side:

- a copy from a queue of the owning side: at its source offset there;
- a copy from a third cluster: where the flow from there to the owning side put it;
- a record born in the written queue: where the flow back put its copy;
- a copy of a message that the owning side has lost (a ghost): at the end of the history that had it; where it was sent back,
  also at its place there, and either of them shows it as processed;
- anything else (born here and not copied back, a copy no map lists yet) stands nowhere: nothing shows that the group has
  processed it, so it holds the start. ``local_holds=False`` lets go of records born here in a task without a way back.

A message is processed exactly if its lowest copy stands below the group's offset there, or if one of its records stands below
``passed_through`` of the written queue itself. **The start is the lowest record not shown to be processed, or the queue's end.**
One higher would skip that record: no later start is safe. "Not yet" needs no rule of its own: a group that is beyond what was
copied starts behind what the maps show to be processed, before the first record they do not know.

An offset proves what the broker that stores it believes: that everything below it in the queue's present history was processed,
or had expired before the group came. What a group processed on a third side counts once the owning side's offset has passed it.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import itemgetter
from typing import NamedTuple

from replicator.core.correspondence import OFFSET_MAX, Correspondence, Intervals, Segment
from replicator.core.offset_map import ContradictoryMap, Epoch, Ghosts, OffsetMap
from replicator.core.record import MessageQueue, OffsetRange

EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Feeding:
    """A source queue whose flow writes to the written queue.

    ``owning``: the queue on the owning side whose offset judges its messages: the source queue itself, or, for one of a third
    cluster, the queue that ``via`` (the map of the flow from there to the owning side) leads to; None where there is no such
    flow. A third cluster's messages that the way back *relays* count as born here: leave that feeding out."""

    name: str
    copies: OffsetMap
    owning: MessageQueue | None
    via: OffsetMap | None = None


@dataclass(frozen=True, slots=True)
class WayBack:
    """The flow from the written queue to the owning side."""

    copies: OffsetMap
    owning: MessageQueue


@dataclass(frozen=True, slots=True)
class Start:
    offset: int
    held_by: str
    """What stands at ``offset``, for people: the reason it is not later."""
    seen_again: int
    """Records at or after the start whose message the group is known to have processed."""
    seen_again_max: int
    """The same with everything counted that may turn out so: records no map lists yet, and processed messages not copied yet."""
    gone: int
    """Records known to be unprocessed that this queue has expired: a group that starts here never sees them. Once its offset is
    written they count as given up, so say it before."""

    @property
    def exact(self) -> bool:
        return self.seen_again == self.seen_again_max


@dataclass(frozen=True, slots=True)
class NoStart:
    """Nothing may be written, and why."""

    reason: str


@dataclass(frozen=True, slots=True, order=True)
class _Axis:
    """What judges a record: an offset of ``queue``, in its present history or at the end of one that is over (``past_epoch``)."""

    queue: MessageQueue
    past_epoch: int = 0


class _Row(NamedTuple):
    """Records that one offset alone does not judge: ``record + i`` is processed if the group has passed ``standing + i`` on one of the
    axes in ``ways``, or ``lowest + i`` of the written queue."""

    record: int
    length: int
    lowest: int
    ways: tuple[tuple[_Axis, int], ...]
    is_doubtful: bool
    """The group may have processed it where its offsets do not show it: in a history that is over, or before the message was lost."""


class WrittenQueue:
    """A queue of the written side and everything that is known of its records. Built once for a set of maps, for all groups.

    Give every queue that feeds it: a copy from one left out is taken for a record nobody knows and holds the start.
    Raises ``ContradictoryMap`` where two maps claim one record."""

    def __init__(self, feeding: Sequence[Feeding], back: WayBack | None = None, *, local_holds: bool = True) -> None:
        self.feeding = tuple(feeding)
        self.back = back
        judged: dict[_Axis, list[Segment]] = {}
        self._rows: list[_Row] = []
        self._without_owner: dict[str, Intervals] = {}
        sent_back = sorted(back.copies.lowest_copies()) if back is not None else []
        restored: list[tuple[int, int]] = []
        for one in self.feeding:
            if one.owning is None:
                records = sorted((s.right, s.right + s.length) for s in one.copies.lowest_copies())
                self._without_owner[one.name] = Intervals(records)
            elif one.via is None:
                self._judge_own(one.copies, one.owning, judged)
                restored += self._judge_ghosts(one.copies, one.owning, judged, back, sent_back)
            else:
                self._judge_third(one.copies, one.via, one.owning, judged)
        nothing: list[tuple[int, int]] = []
        if back is not None:
            not_ghosts = _without(sent_back, Intervals(sorted(restored))) if restored else sent_back
            judged.setdefault(_Axis(back.owning), []).extend(not_ghosts)
            nothing = [(start, end) for start, end, reason in back.copies.holes() if reason == EXPIRED]
        in_rows = [(row.record, row.record + row.length) for row in self._rows]
        claimed = sorted([*((s.left, s.left + s.length) for rows in judged.values() for s in rows), *in_rows])
        for (_, end), (start, _) in pairwise(claimed):
            if start < end:
                raise ContradictoryMap(f"two maps claim the record at offset {start} of the queue to be written")
        self._judged = {axis: Correspondence(sorted(rows)) for axis, rows in judged.items()}
        self._axes = sorted({*self._judged, *(axis for row in self._rows for axis, _ in row.ways)})
        let_go = [] if local_holds or back is not None else self._born_here()
        self._holding = Intervals(Intervals(heapq.merge(claimed, nothing, let_go)).gaps(0, OFFSET_MAX))

    def _judge_own(self, copies: OffsetMap, queue: MessageQueue, judged: dict[_Axis, list[Segment]]) -> None:
        axis = _Axis(queue)
        plain = judged.setdefault(axis, [])
        for source, destination, length in copies.lowest_copies():
            for start, size, is_restored in _parts(source, length, copies.restored):
                record = destination + start - source
                if is_restored:
                    self._rows.append(_Row(record, size, record, ((axis, start),), is_doubtful=True))
                else:
                    plain.append(Segment(record, start, size))
        for second in copies.second_copies():
            for start, size, is_restored in _parts(second.source, second.length, copies.restored):
                shift = start - second.source
                self._rows.append(_Row(second.destination + shift, size, second.lowest + shift, ((axis, start),), is_restored))

    def _judge_ghosts(
        self, copies: OffsetMap, queue: MessageQueue, judged: dict[_Axis, list[Segment]], back: WayBack | None, sent_back: Sequence[Segment]
    ) -> Iterator[tuple[int, int]]:
        """Yields the records whose messages were sent back."""
        for ghost in copies.ghosts():
            for epoch, start, length in _last_present(copies.epochs, ghost):
                axis = _Axis(queue, epoch)
                record, lowest = (first + start - ghost.source for first in (ghost.destination, ghost.lowest))
                done = 0
                for first, there, size in _overlaps(sent_back, lowest, lowest + length):
                    self._judge_ghost(Ghosts(epoch, start + done, record + done, first - lowest - done, lowest + done), axis, judged)
                    done = first - lowest
                    assert back is not None
                    ways = ((axis, start + done), (_Axis(back.owning), there))
                    self._rows.append(_Row(record + done, size, first, ways, is_doubtful=True))
                    if record == lowest:
                        yield first, first + size
                    done += size
                self._judge_ghost(Ghosts(epoch, start + done, record + done, length - done, lowest + done), axis, judged)

    def _judge_ghost(self, ghost: Ghosts, axis: _Axis, judged: dict[_Axis, list[Segment]]) -> None:
        if ghost.length <= 0:
            return
        if ghost.destination == ghost.lowest:
            judged.setdefault(axis, []).append(Segment(ghost.destination, ghost.source, ghost.length))
        else:
            self._rows.append(_Row(ghost.destination, ghost.length, ghost.lowest, ((axis, ghost.source),), is_doubtful=True))

    def _judge_third(self, copies: OffsetMap, via: OffsetMap, queue: MessageQueue, judged: dict[_Axis, list[Segment]]) -> None:
        """Ghosts stay unknown: whether two flows mean the same lost history by an epoch is not known."""
        axis = _Axis(queue)
        plain = judged.setdefault(axis, [])
        limit = _same_history_below(copies, via)
        standing = sorted(via.lowest_copies())
        for source, destination, length in copies.lowest_copies():
            for start, size, is_restored in _parts(source, length, copies.restored):
                record = destination + start - source
                if is_restored:
                    self._rows.append(_Row(record, size, record, (), is_doubtful=True))
                    continue
                end = min(start + size, limit)
                plain.extend(Segment(record + first - start, there, count) for first, there, count in _overlaps(standing, start, end))
        for second in copies.second_copies():
            for start, size, is_restored in _parts(second.source, second.length, copies.restored):
                record, lowest = (first + start - second.source for first in (second.destination, second.lowest))
                if is_restored:
                    self._rows.append(_Row(record, size, lowest, (), is_doubtful=True))
                    continue
                for first, there, count in _overlaps(standing, start, min(start + size, limit)):
                    self._rows.append(_Row(record + first - start, count, lowest + first - start, ((axis, there),), is_doubtful=False))

    def _born_here(self) -> list[tuple[int, int]]:
        """Records that are no copy for certain: below what every feeding flow has looked at, and of none of them."""
        known = min((one.copies.known_through for one in self.feeding), default=0)
        copies = [(s.right, s.right + s.length) for one in self.feeding for s in one.copies.lowest_copies()]
        copies += [(s.destination, s.destination + s.length) for one in self.feeding for s in one.copies.second_copies()]
        copies += [(g.destination, g.destination + g.length) for one in self.feeding for g in one.copies.ghosts()]
        return list(Intervals(sorted(copies)).gaps(0, known))

    def unknown_between(self, start: int, end: int) -> int:
        """Records in ``[start, end)`` that no offset of the owning side judges."""
        return self._holding.count(start, end)

    def start(
        self,
        bounds: OffsetRange,
        offsets: Mapping[MessageQueue, int | None],
        *,
        passed_through: int = 0,
        past: Mapping[tuple[MessageQueue, int], int] | None = None,
    ) -> Start | NoStart:
        """The start of one group.

        ``bounds``: of the written queue, asked after the maps were loaded. ``offsets``: the group's on the owning side, None or
        missing where it has none. ``passed_through``: everything below it in the written queue was processed: what the group
        itself reached while it owned this side, or a start that was written here; 0 where neither is proven.
        ``past``: {(owning queue, epoch that is over): the group's last offset seen in it}; without it the ghosts that were last
        present in that epoch hold."""
        passed_through = min(passed_through, bounds.max_offset)
        floor = max(bounds.min_offset, passed_through)
        refusal = self._missing_offset(floor, offsets)
        if refusal is not None:
            return refusal
        reached = {
            axis: (offsets.get(axis.queue) or 0) if not axis.past_epoch else (past or {}).get((axis.queue, axis.past_epoch), 0)
            for axis in self._axes
        }
        held = [(bounds.max_offset, "the end of the queue"), *self._held(floor, reached, passed_through)]
        offset, held_by = min(held, key=itemgetter(0))
        seen_again = self._seen_again(offset, reached, passed_through)
        undecided = self._undecided(offset, bounds.max_offset, reached, passed_through)
        return Start(offset, held_by, seen_again, seen_again + undecided, self._gone(bounds.min_offset, reached, passed_through))

    def _held(self, floor: int, reached: Mapping[_Axis, int], passed_through: int) -> Iterator[tuple[int, str]]:
        """The lowest record of each kind that is not shown to be processed."""
        held = self._holding.first(floor)
        if held is not None:
            yield held, self._name_unknown(held)
        for axis, records in self._judged.items():
            found = records.lowest_left(floor, reached[axis])
            if found is not None:
                yield found, _name(axis, records.right_of(found))
        for row in self._rows:
            first = max(floor, _first_open(row, reached, passed_through))
            if first < row.record + row.length:
                yield first, _name_of(row, first)

    def _missing_offset(self, floor: int, offsets: Mapping[MessageQueue, int | None]) -> NoStart | None:
        for name, records in self._without_owner.items():
            if records.first(floor) is not None:
                return NoStart(f"{name} feeds this queue, and its messages do not reach the side that owns the group's progress")
        for axis in self._axes:
            if axis.past_epoch or offsets.get(axis.queue) is not None:
                continue
            judged = self._judged.get(axis)
            rows = (row for row in self._rows if row.record + row.length > floor)
            if (judged and judged.lowest_left(floor, 0) is not None) or any(axis == way for row in rows for way, _ in row.ways):
                return NoStart(f"the group has no offset in {axis.queue}, which judges messages of this queue")
        return None

    def _name_unknown(self, offset: int) -> str:
        if self.back is not None:
            answer = self.back.copies.to_destination(offset)
            reason = getattr(answer, "reason", "")
            if reason == "loop":
                return "a copy that no map lists yet"
            if reason:
                return f"a message born here that was not copied back: {reason}"
        return "a record that no map lists yet"

    def _seen_again(self, start: int, reached: Mapping[_Axis, int], passed_through: int) -> int:
        count = sum(records.count((start, OFFSET_MAX), (0, reached[axis])) for axis, records in self._judged.items())
        for row in self._rows:
            count += max(0, min(row.record + row.length, _first_open(row, reached, passed_through)) - max(start, row.record))
        return count

    def _gone(self, end: int, reached: Mapping[_Axis, int], passed_through: int) -> int:
        count = sum(
            records.count((passed_through, end), (reached[axis], OFFSET_MAX)) for axis, records in self._judged.items()
        )
        return count + sum(
            max(0, min(row.record + row.length, end) - max(passed_through, _first_open(row, reached, passed_through)))
            for row in self._rows
        )

    def _undecided(self, start: int, end: int, reached: Mapping[_Axis, int], passed_through: int) -> int:
        """At most how many more may be seen again: processed messages whose copy is not known, here or on the owning side."""
        count = sum(
            records.count((start, OFFSET_MAX), (reached[axis], OFFSET_MAX)) for axis, records in self._judged.items() if axis.past_epoch
        )
        count += sum(
            max(0, row.record + row.length - max(start, _first_open(row, reached, passed_through)))
            for row in self._rows if row.is_doubtful
        )  # fmt: skip
        for one in self.feeding:
            if one.owning is None:
                continue
            offset = reached[_Axis(one.owning)]
            count += _not_listed(one.copies, offset) if one.via is None else _not_joined(one.copies, one.via, offset)
        if self.back is not None:
            back, offset = self.back.copies, reached[_Axis(self.back.owning)]
            copied_unseen = max(0, offset - back.known_through) + back.unlisted_between(start, end)
            count += min(copied_unseen, self._holding.count(start, end))
        return count


def _first_open(row: _Row, reached: Mapping[_Axis, int], passed_through: int) -> int:
    """Of the records of a row the first that nothing shows as processed, or one past them."""
    shown = max([passed_through - row.lowest, *(reached[axis] - standing for axis, standing in row.ways)])
    return row.record + min(row.length, max(0, shown))


def _parts(start: int, length: int, of: Intervals) -> Iterator[tuple[int, int, bool]]:
    """(start, length, does ``of`` hold it) of the pieces of a range."""
    if not of:
        yield start, length, False
        return
    position, end = start, start + length
    for first, last in of.gaps(start, end):
        if position < first:
            yield position, first - position, True
        yield first, last - first, False
        position = last
    if position < end:
        yield position, end - position, True


def _without(segments: Sequence[Segment], left: Intervals) -> Iterator[Segment]:
    """What of them ``left`` does not hold."""
    for segment in segments:
        for start, length, is_held in _parts(segment.left, segment.length, left):
            if not is_held:
                yield Segment(start, segment.right + start - segment.left, length)


def _not_listed(copies: OffsetMap, below: int) -> int:
    """Source offsets below ``below`` of which the map does not say whether they have a copy, and all that may still be sent back: the
    group may have processed those before they were lost."""
    below = max(below, copies.epochs[-1].restored_through)
    undecided = max(0, below - copies.examined_through) - copies.copies_between((copies.examined_through, below), distinct=True)
    return copies.unlisted_between(0, below) + max(0, undecided)


def _not_joined(copies: OffsetMap, via: OffsetMap, below: int) -> int:
    """At most how many messages that stand below ``below`` on the owning side are not joined with their record here."""
    everything = (0, OFFSET_MAX)
    undecided = min(copies.examined_through, _same_history_below(copies, via))
    count = via.copies_between((undecided, OFFSET_MAX), (0, below), distinct=True) + max(0, below - via.known_through)
    count += max(0, copies.epochs[-1].restored_through - copies.examined_through)
    return count + copies.unlisted_between(*everything) + via.unlisted_between(*everything) + sum(g.length for g in copies.ghosts())


def _same_history_below(one: OffsetMap, other: OffsetMap) -> int:
    """Below it, one offset means one message in both maps: neither has noticed a change there that the other has not."""
    changes = [[epoch.divergence_offset for epoch in copies.epochs[1:]] for copies in (one, other)]
    while changes[0] and changes[1] and changes[0][0] == changes[1][0]:
        changes = [later[1:] for later in changes]
    return min(chain(*changes), default=OFFSET_MAX)


def _last_present(epochs: Sequence[Epoch], ghost: Ghosts) -> Iterator[tuple[int, int, int]]:
    """(epoch, source offset, length): the last history in which each part of ``ghost`` was still part of its queue."""
    end = ghost.source + ghost.length
    last = ghost.epoch
    for epoch in epochs:
        if epoch.number > ghost.epoch:
            first = max(ghost.source, epoch.divergence_offset)
            if first < end:
                yield last, first, end - first
                end = first
            last = epoch.number
    if ghost.source < end:
        yield last, ghost.source, end - ghost.source


def _overlaps(segments: Sequence[Segment], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(left, right, length) of what ``segments`` (ascending, disjoint on the left) hold of ``[start, end)``."""
    index = max(0, bisect_right(segments, start, key=lambda s: s.left) - 1)
    stop = bisect_left(segments, end, key=lambda s: s.left)
    for segment in segments[index:stop]:
        first, last = max(start, segment.left), min(end, segment.left + segment.length)
        if first < last:
            yield first, segment.right + first - segment.left, last - first


def _name_of(row: _Row, record: int) -> str:
    if not row.ways:
        return "a message that its birthplace had lost, which the side that owns the group's progress does not show as processed"
    return " and ".join(_name(axis, standing + record - row.record) for axis, standing in row.ways)


def _name(axis: _Axis, offset: int | None) -> str:
    lost = f" of epoch {axis.past_epoch}, which the source has lost" if axis.past_epoch else ""
    return f"offset {offset} of {axis.queue}{lost} is not processed"
