"""What a worker counts about itself since it began, told with its sign of life and shown as metrics of the coordinator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol


class Counted(Protocol):
    """A copier, as far as it counts."""

    own_tags_kept_total: int
    unverifiable_total: int
    doubts_total: int


class Counters:
    """Sums over copiers that come and go; a sum never falls while the worker lives."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()

    def ended(self, copier: Counted) -> None:
        """Called once for each copier, when it is no longer among the living handed to ``sums``."""
        self._ended.update(_of(copier))

    def sums(self, living: Iterable[Counted], settling_rounds: int) -> Mapping[str, int]:
        total = Counter(self._ended)
        for copier in living:
            total.update(_of(copier))
        names = ("own_tags_kept_total", "unverifiable_total", "doubts_total")
        return {**{name: total[name] for name in names}, "settling_rounds_total": settling_rounds}


def _of(copier: Counted) -> dict[str, int]:
    return {
        "own_tags_kept_total": copier.own_tags_kept_total,
        "unverifiable_total": copier.unverifiable_total,
        "doubts_total": copier.doubts_total,
    }
