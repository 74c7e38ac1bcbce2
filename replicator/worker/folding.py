"""What becomes of runs and holes that memory has no room for while the store is away, and how they are learned again. Pure.

Copies stand in the destination's log with their stamps, so of a run it is enough to know where to look. A hole leaves no trace
there: the range keeps the one reason that most of its holes have, and holes of other reasons stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from replicator.store.port import Hole, Run, ToRelearn


def fold(
    known: ToRelearn | None, runs: Sequence[Run], holes: Sequence[Hole], examined_through: int, keep: int
) -> tuple[ToRelearn, list[Run], list[Hole]] | None:
    """The range with the older runs and holes in it, and those that stay, the newest ``keep`` of each among them; None where
    nothing can go. What lies above the position stays in any case: a restart has to leave out exactly those copies."""
    if not runs:
        return None
    epoch = runs[0].epoch
    if known is not None and known.epoch != epoch:
        return None  # An epoch begins with the store at hand, which then takes both ranges one after the other.
    ends = [run.source_start + run.length for run in runs[: max(0, len(runs) - keep)] if run.epoch == epoch]
    if len(holes) > keep:
        limit = max((h.source_start + h.length for h in holes[: len(holes) - keep] if h.epoch == epoch), default=0)
        ends += [end for end in (run.source_start + run.length for run in runs if run.epoch == epoch) if end <= limit]
    cut = min(max(ends, default=0), examined_through)
    gone = [run for run in runs if run.epoch == epoch and run.source_start + run.length <= cut]
    if not gone:
        return None
    end = max(run.source_start + run.length for run in gone)
    foldable = [hole for hole in holes if hole.epoch == epoch and hole.source_start + hole.length <= end]
    reason = known.reason if known is not None and known.reason else _most_frequent(foldable)
    without = [hole for hole in foldable if hole.reason == reason]
    range_ = ToRelearn(
        epoch,
        min([run.source_start for run in gone] + [hole.source_start for hole in without]),
        end,
        min(run.destination_start for run in gone),
        max(run.destination_start + run.length for run in gone),
        reason,
    )
    dropped_runs, dropped_holes = set(gone), set(without)
    return (
        _united(known, range_),
        [run for run in runs if run not in dropped_runs],
        [hole for hole in holes if hole not in dropped_holes],
    )


def _most_frequent(holes: Sequence[Hole]) -> str:
    counts = Counter(hole.reason for hole in holes)
    return counts.most_common(1)[0][0] if counts else ""


def _united(known: ToRelearn | None, added: ToRelearn) -> ToRelearn:
    """What stands between the two was saved, and is found again: saving it again changes nothing."""
    if known is None:
        return added
    return replace(
        added,
        source_start=min(known.source_start, added.source_start),
        source_end=max(known.source_end, added.source_end),
        destination_start=min(known.destination_start, added.destination_start),
        destination_end=max(known.destination_end, added.destination_end),
    )


@dataclass(slots=True)
class Learned:
    rest: ToRelearn | None
    """What is still to be looked at."""
    runs: list[Run] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)


def learn(known: ToRelearn, copies: Sequence[tuple[int, int]], through: int, *, is_complete: bool) -> Learned:
    """See ``Journal.relearned``. A second copy of an offset is left out: it was noted as a duplicate when it was found."""
    learned = Learned(None)
    position, reason = known.source_start, known.reason
    if not is_complete:
        # Copies that have expired there are neither found nor holes; from the first one found on, everything is known again.
        position, reason = (copies[0][0], reason) if copies else (position, "")
    for source, destination in copies:
        if not position <= source < known.source_end:
            continue
        if source > position and reason:
            learned.holes.append(Hole(known.epoch, position, source - position, reason))
        learned.runs.append(Run(known.epoch, source, destination, 1))
        position = source + 1
    if through < known.destination_end:
        learned.rest = replace(known, source_start=position, destination_start=through, reason=reason)
    elif reason and position < known.source_end:
        learned.holes.append(Hole(known.epoch, position, known.source_end - position, reason))
    return learned
