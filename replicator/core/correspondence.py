"""Which offset of one queue belongs to which of another, as columns of contiguous segments.

Order survives copying (G3), so nearly always one chain of segments ascends on both sides and every question is a bisect in
it. What does not fit (a copy that landed out of order) goes into a further chain: answers stay exact, each chain costs one
more bisect.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

OFFSET_MAX = 2**63 - 1


class Segment(NamedTuple):
    """``left + i`` belongs to ``right + i`` for i in [0, length)."""

    left: int
    right: int
    length: int


class _Chain:
    """Segments ascending on both sides. A pair's rank is its place in that order, the same seen from either side."""

    __slots__ = ("_left_end", "_right_end", "lefts", "ranks", "rights")

    def __init__(self) -> None:
        self._left_end = self._right_end = 0
        self.lefts = array("q")
        self.rights = array("q")
        self.ranks = array("q", [0])
        """Rank of the first pair of each segment, then the number of pairs."""

    @property
    def count(self) -> int:
        return self.ranks[-1]

    def append(self, left: int, right: int, length: int) -> bool:
        """Puts a segment behind the others, or answers False where it would not ascend on both sides."""
        if left < self._left_end or right < self._right_end:
            return False
        if left == self._left_end and right == self._right_end and self.lefts:
            self.ranks[-1] += length
        else:
            self.lefts.append(left)
            self.rights.append(right)
            self.ranks.append(self.ranks[-1] + length)
        self._left_end = left + length
        self._right_end = right + length
        return True

    def rank(self, starts: array[int], offset: int) -> int:
        """How many pairs lie below ``offset`` on the side of ``starts``."""
        index = bisect_right(starts, offset) - 1
        if index < 0:
            return 0
        return min(self.ranks[index] + offset - starts[index], self.ranks[index + 1])

    def place(self, starts: array[int], offset: int) -> int | None:
        """The rank of the pair that ``offset`` is part of."""
        index = bisect_right(starts, offset) - 1
        if index < 0:
            return None
        rank = self.ranks[index] + offset - starts[index]
        return rank if rank < self.ranks[index + 1] else None

    def at(self, starts: array[int], rank: int) -> int:
        index = bisect_right(self.ranks, rank) - 1
        return starts[index] + rank - self.ranks[index]


class Correspondence:
    """A set of pairs. One offset may stand in several pairs of either side; a pair stands in it once."""

    __slots__ = ("_chains",)

    def __init__(self, segments: Iterable[tuple[int, int, int]]) -> None:
        """``segments``: (left, right, length), ascending by (left, right)."""
        self._chains: list[_Chain] = []
        for left, right, length in segments:
            for chain in self._chains:
                if chain.append(left, right, length):
                    break
            else:
                chain = _Chain()
                chain.append(left, right, length)
                self._chains.append(chain)

    @property
    def chain_count(self) -> int:
        return len(self._chains)

    def __len__(self) -> int:
        return sum(chain.count for chain in self._chains)

    @property
    def right_end(self) -> int:
        """One past the highest right offset, 0 for none."""
        return max((chain.at(chain.rights, chain.count - 1) + 1 for chain in self._chains), default=0)

    def right_of(self, left: int) -> int | None:
        """The lowest right offset that ``left`` belongs to."""
        found = [chain.at(chain.rights, rank) for chain in self._chains if (rank := chain.place(chain.lefts, left)) is not None]
        return min(found, default=None)

    def left_of(self, right: int) -> int | None:
        found = [chain.at(chain.lefts, rank) for chain in self._chains if (rank := chain.place(chain.rights, right)) is not None]
        return min(found, default=None)

    def lowest_right(self, left_from: int, right_from: int = 0) -> int | None:
        """The lowest right offset of a pair at or above both."""
        found = [chain.at(chain.rights, rank) for chain, rank in self._first(left_from, right_from)]
        return min(found, default=None)

    def lowest_left(self, left_from: int, right_from: int) -> int | None:
        """The lowest left offset of a pair at or above both."""
        found = [chain.at(chain.lefts, rank) for chain, rank in self._first(left_from, right_from)]
        return min(found, default=None)

    def _first(self, left_from: int, right_from: int) -> Iterator[tuple[_Chain, int]]:
        for chain in self._chains:
            rank = max(chain.rank(chain.lefts, left_from), chain.rank(chain.rights, right_from))
            if rank < chain.count:
                yield chain, rank

    def count(self, lefts: tuple[int, int], rights: tuple[int, int] = (0, OFFSET_MAX)) -> int:
        """How many pairs lie in both half-open ranges."""
        total = 0
        for chain in self._chains:
            begin = max(chain.rank(chain.lefts, lefts[0]), chain.rank(chain.rights, rights[0]))
            end = min(chain.rank(chain.lefts, lefts[1]), chain.rank(chain.rights, rights[1]))
            total += max(0, end - begin)
        return total

    def segments(self) -> Iterator[Segment]:
        """Every segment, ascending within a chain only."""
        for chain in self._chains:
            for index, left in enumerate(chain.lefts):
                yield Segment(left, chain.rights[index], chain.ranks[index + 1] - chain.ranks[index])


class Intervals:
    """Disjoint half-open ranges of offsets of one queue, ascending."""

    __slots__ = ("_counts", "ends", "starts")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        """``ranges``: ascending by start; those that touch or overlap become one, empty ones vanish."""
        self.starts = array("q")
        self.ends = array("q")
        self._counts = array("q", [0])
        for start, end in ranges:
            if end <= start:
                continue
            if self.ends and start <= self.ends[-1]:
                if end > self.ends[-1]:
                    self._counts[-1] += end - self.ends[-1]
                    self.ends[-1] = end
                continue
            self.starts.append(start)
            self.ends.append(end)
            self._counts.append(self._counts[-1] + end - start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.starts, self.ends, strict=True))

    def __bool__(self) -> bool:
        return bool(self.starts)

    def __contains__(self, offset: int) -> bool:
        index = bisect_right(self.starts, offset) - 1
        return index >= 0 and offset < self.ends[index]

    def first(self, offset: int) -> int | None:
        """The lowest offset in a range at or above ``offset``."""
        index = bisect_right(self.ends, offset)
        return max(offset, self.starts[index]) if index < len(self.starts) else None

    def count(self, start: int, end: int) -> int:
        """How many offsets of ``[start, end)`` lie in a range."""
        return max(0, self._below(end) - self._below(start))

    def _below(self, offset: int) -> int:
        index = bisect_right(self.starts, offset) - 1
        if index < 0:
            return 0
        return self._counts[index] + min(offset, self.ends[index]) - self.starts[index]

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What of ``[start, end)`` lies in no range."""
        position = start
        for index in range(bisect_right(self.ends, start), len(self.starts)):
            if self.starts[index] >= end:
                break
            if self.starts[index] > position:
                yield position, self.starts[index]
            position = max(position, self.ends[index])
        if position < end:
            yield position, end
