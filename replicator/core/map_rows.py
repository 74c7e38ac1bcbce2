"""Rows of an offset map as columns: what a store hands over and ``OffsetMap`` is built from, 32 bytes a run.

Ascending by (epoch, source start), as they are stored. Iterating makes one tuple at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

Place = tuple[int, int]
"""(epoch, source start) of a row."""


class RunTuple(NamedTuple):
    epoch: int
    source_start: int
    destination_start: int
    length: int


class HoleTuple(NamedTuple):
    epoch: int
    source_start: int
    length: int
    reason: str


class RunColumns:
    __slots__ = ("destination_starts", "epochs", "lengths", "source_starts")

    def __init__(
        self,
        epochs: Iterable[int] = (),
        source_starts: Iterable[int] = (),
        destination_starts: Iterable[int] = (),
        lengths: Iterable[int] = (),
    ) -> None:
        self.epochs = array("q", epochs)
        self.source_starts = array("q", source_starts)
        self.destination_starts = array("q", destination_starts)
        self.lengths = array("q", lengths)

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[RunTuple]:
        return map(RunTuple, self.epochs, self.source_starts, self.destination_starts, self.lengths)

    @property
    def last(self) -> Place | None:
        return (self.epochs[-1], self.source_starts[-1]) if self.epochs else None

    def continue_with(self, newer: RunColumns) -> None:
        """``newer``: every row from the present last one on, that one again included."""
        if self.epochs:
            for column in (self.epochs, self.source_starts, self.destination_starts, self.lengths):
                column.pop()
        self.append(newer)

    def append(self, page: RunColumns) -> None:
        self.epochs.extend(page.epochs)
        self.source_starts.extend(page.source_starts)
        self.destination_starts.extend(page.destination_starts)
        self.lengths.extend(page.lengths)


class HoleColumns:
    __slots__ = ("codes", "epochs", "lengths", "reasons", "source_starts")

    def __init__(
        self,
        reasons: Sequence[str] = (),
        epochs: Iterable[int] = (),
        source_starts: Iterable[int] = (),
        lengths: Iterable[int] = (),
        codes: Iterable[int] = (),
    ) -> None:
        """``codes``: the place in ``reasons`` of each row's reason."""
        self.epochs = array("q", epochs)
        self.source_starts = array("q", source_starts)
        self.lengths = array("q", lengths)
        self.codes = array("h", codes)
        self.reasons = list(reasons)

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[HoleTuple]:
        return map(HoleTuple, self.epochs, self.source_starts, self.lengths, map(self.reasons.__getitem__, self.codes))

    @property
    def last(self) -> Place | None:
        return (self.epochs[-1], self.source_starts[-1]) if self.epochs else None

    def continue_with(self, newer: HoleColumns) -> None:
        """``newer``: every row from the present last one on, that one again included."""
        if self.epochs:
            for column in (self.epochs, self.source_starts, self.lengths, self.codes):
                column.pop()
        self.append(newer)

    def append(self, page: HoleColumns) -> None:
        self.epochs.extend(page.epochs)
        self.source_starts.extend(page.source_starts)
        self.lengths.extend(page.lengths)
        self.reasons.extend(reason for reason in page.reasons if reason not in self.reasons)
        codes = [self.reasons.index(reason) for reason in page.reasons]
        self.codes.extend(codes[code] for code in page.codes)
