"""How long messages took, counted in buckets: cheap enough for every message, and exact as far as the buckets go."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Within one region a copy takes milliseconds, over a wide area tenths of a second; the upper ones tell an outage from a backlog."""
_BOUNDS_MS = tuple(bound * 1000 for bound in BOUNDS_SECONDS)


class Latencies:
    """From the moment a message was stored on its source to the moment its copy was known stored."""

    __slots__ = ("_counts", "_sum_ms")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self._sum_ms = 0.0

    def observe(self, now_ms: float, stored_ms: Sequence[int]) -> None:
        """Messages of one queue, known stored now. Skewed clocks that make a latency negative count as none at all."""
        # A queue's timestamps hardly ever fall: where both ends share a bucket, so do all between them.
        first, last = _bucket(now_ms - stored_ms[0]), _bucket(now_ms - stored_ms[-1])
        if first == last:
            self._counts[first] += len(stored_ms)
        else:
            for one in stored_ms:
                self._counts[_bucket(now_ms - one)] += 1
        self._sum_ms += max(0.0, now_ms * len(stored_ms) - sum(stored_ms))

    def to_json(self) -> dict[str, Any]:
        """``buckets``: pairs of an upper bound and how many messages did not exceed it, the last one unbounded."""
        bounds = [*map(str, BOUNDS_SECONDS), "+Inf"]
        return {"sum_seconds": self._sum_ms / 1000, "buckets": [list(pair) for pair in zip(bounds, accumulate(self._counts), strict=True)]}


def _bucket(latency_ms: float) -> int:
    return bisect_left(_BOUNDS_MS, latency_ms)
