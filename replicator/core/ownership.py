"""Which side owns a group's progress: decided from what is seen of the group each interval, never assumed.

The side that moves or has members owns it, and keeps it until it has been idle for ``IDLE_INTERVALS_MIN`` intervals while another
side is active. Movement is an offset that went forward, was not written by us, and is still there the next time one looks: a value
read once from a broker that lags behind its master is none.

    undecided  nobody moves, has members, or is the only one with progress; nothing is written
    owned      one side owns it; the others are written once they have been idle for as long
    split      two sides moved by themselves within one period; nothing is written until a person settles it

A side that cannot be reached keeps what it owns and is never written. What it did meanwhile is not held against anybody: its
offsets are taken as they are when it comes back, and so are all of them after a gap in our own observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

IDLE_INTERVALS_MIN = 3
"""Intervals without movement and members before a side counts as idle; also the period in which two movements are a split."""
WRITES_KEPT_MAX = 8
"""Writes to one queue remembered while none of them is seen; one is made at most in an interval."""


@dataclass(frozen=True, slots=True)
class SideSeen:
    """One side in one interval. ``offsets``: {queue: committed offset}, None where the side could not be reached, queues without a
    committed offset left out. ``members``: None where nobody asked. ``written``: {queue: offset} of our writes since the last
    observation, whether they succeeded or not."""

    offsets: Mapping[str, int] | None
    members: bool | None = None
    written: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    sides: Mapping[str, SideSeen]
    """Every cluster of the task; one left out was not reached."""
    follows: bool = True
    """False where the observation before this one was not the interval before: nothing that changed since is movement."""


@dataclass(frozen=True, slots=True)
class SideState:
    offsets: dict[str, int] = field(default_factory=dict)
    written: dict[str, list[int]] = field(default_factory=dict)
    """Our writes that were not seen at the broker yet, in order: each may still arrive, or never."""
    raised: dict[str, int] = field(default_factory=dict)
    """Forward and not by us, seen once."""
    reached: bool = False
    """Whether ``offsets`` are those of the interval before."""
    quiet: int = 0
    """Intervals without movement, members and raised offsets, all of them reached."""
    moved_ago: int | None = None
    """Intervals since it last moved; None: not while we looked."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """State of one group between the sides of one task. ``to_json`` and ``from_json`` keep it over a restart."""

    owner: str | None = None
    split: bool = False
    sides: dict[str, SideState] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Ownership:
        sides = {name: SideState(**side) for name, side in stored["sides"].items()}
        return cls(stored["owner"], stored["split"], sides)


@dataclass(frozen=True, slots=True)
class Decision:
    """``write``: sides that may be written now. ``ask``: sides that may be written if the broker says that nobody is there."""

    status: str
    """undecided, owned, split."""
    owner: str | None
    reason: str
    write: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    """Sides that moved by themselves, as of this observation."""


def settle(state: Ownership, owner: str, offsets: Mapping[str, Mapping[str, int]] | None = None) -> Ownership:
    """A person says whose progress counts. What was seen before does not contradict it any more, nor what ``offsets`` ({side: {queue:
    offset}}, just read) show to have moved until now."""
    sides = {name: replace(side, raised={}, moved_ago=None, quiet=0) for name, side in state.sides.items()}
    for name, now in (offsets or {}).items():
        sides[name] = replace(sides.get(name, SideState()), offsets=dict(now))
    return Ownership(owner, False, sides)


def observe(state: Ownership, seen: Observation) -> tuple[Ownership, Decision]:
    names = sorted({*state.sides, *seen.sides})
    sides: dict[str, SideState] = {}
    moved = []
    for name in names:
        before = state.sides.get(name, SideState())
        sides[name], has_moved = _look(before, seen.sides.get(name, SideSeen(None)), follows=seen.follows)
        if has_moved:
            moved.append(name)
    lately = [name for name in names if _moved_lately(sides[name])]
    has_split = state.split or len(lately) > 1
    owner = state.owner if has_split else _owner(state.owner, sides, seen)
    after = Ownership(owner, has_split, sides)
    if has_split:
        reason = f"{' and '.join(lately)} moved by themselves" if len(lately) > 1 else "two sides had moved by themselves"
        return after, Decision("split", owner, f"{reason}: a person has to say whose progress counts", moved=tuple(moved))
    if owner is None:
        return after, Decision("undecided", None, "no side is seen to be the one that consumes", moved=tuple(moved))
    return after, _owned(state.owner, owner, sides, seen, tuple(moved))


def _look(before: SideState, seen: SideSeen, *, follows: bool) -> tuple[SideState, bool]:
    """The state of one side after this observation, and whether it has moved."""
    written = dict(before.written)
    for queue, offset in seen.written.items():
        written[queue] = [*(one for one in written.get(queue, []) if one != offset), offset][-WRITES_KEPT_MAX:]
    if seen.offsets is None:
        return SideState(before.offsets, written, {}, reached=False, quiet=0, moved_ago=None), False
    # One that is missing for a while, as of a broker that restarts, has not moved when it is back.
    offsets = {**before.offsets, **seen.offsets}
    pending = {queue: left for queue, own in written.items() if (left := _not_seen(own, offsets.get(queue)))}
    if not (before.reached and follows):
        return SideState(offsets, pending, {}, reached=True, quiet=0, moved_ago=None), False
    foreign = {queue: offset for queue, offset in offsets.items() if offset not in written.get(queue, [])}
    raised = {
        queue: offset for queue, offset in foreign.items()
        if offset != (old := before.offsets.get(queue, 0)) and offset > min([old, *written.get(queue, [])])
    }
    has_moved = any(foreign.get(queue, -1) >= offset for queue, offset in before.raised.items())
    is_quiet = not has_moved and not raised and not seen.members
    ago = 0 if has_moved else None if before.moved_ago is None else before.moved_ago + 1
    after = SideState(
        offsets, pending, raised, reached=True, quiet=before.quiet + 1 if is_quiet else 0,
        moved_ago=None if ago is not None and ago >= IDLE_INTERVALS_MIN else ago,
    )
    return after, has_moved


def _not_seen(written: list[int], offset: int | None) -> list[int]:
    """One that is seen has overtaken those before it."""
    return written[written.index(offset) + 1 :] if offset in written else written


def _moved_lately(side: SideState) -> bool:
    return side.reached and side.moved_ago is not None


def _owner(current: str | None, sides: Mapping[str, SideState], seen: Observation) -> str | None:
    active = [name for name, side in sides.items() if _moved_lately(side) or (side.reached and seen.sides[name].members)]
    if current is None:
        if active:
            return active[0] if len(active) == 1 else None
        with_progress = [name for name, side in sides.items() if any(side.offsets.values())]
        all_reached = all(side.reached for side in sides.values())
        return with_progress[0] if len(with_progress) == 1 and all_reached else None
    holder = sides.get(current, SideState())
    others = [name for name in active if name != current]
    if holder.reached and holder.quiet >= IDLE_INTERVALS_MIN and len(others) == 1:
        return others[0]
    return current


def _owned(
    before: str | None, owner: str, sides: Mapping[str, SideState], seen: Observation, moved: tuple[str, ...]
) -> Decision:
    if not sides[owner].reached:
        return Decision("owned", owner, f"{owner} cannot be reached: it keeps what it owns", moved=moved)
    write, ask, notes = [], [], []
    for name, side in sides.items():
        if name == owner:
            continue
        if not side.reached:
            notes.append(f"{name} cannot be reached")
        elif seen.sides[name].members:
            notes.append(f"{name} has members")
        elif side.quiet < IDLE_INTERVALS_MIN:
            notes.append(f"{name} moves" if side.raised or _moved_lately(side) else f"{name} was not seen idle for long enough")
        elif seen.sides[name].members is None:
            ask.append(name)
        else:
            write.append(name)
    if before != owner:
        notes.insert(0, f"{owner} is the side that consumes" if before is None else f"{owner} consumes, {before} has been idle")
    return Decision("owned", owner, "; ".join(notes), tuple(write), tuple(ask), moved)
