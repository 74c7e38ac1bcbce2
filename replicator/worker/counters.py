"""What a worker counts of each flow since it began, told with its sign of life and shown as metrics.

A count never falls while the worker lives: it belongs to the flow, whose copiers come and go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from replicator.observe.latencies import Latencies


@dataclass(slots=True)
class SettleCounts:
    """Of one destination broker, as seen from one flow."""

    rounds_total: int = 0
    """Rounds that ended with doubt settled."""
    seconds_total: float = 0.0
    """Time spent in rounds, those that came to nothing included."""
    barriers_total: int = 0
    """Barriers written and seen."""
    barriers_failed_total: int = 0


@dataclass(slots=True)
class FlowCounts:
    doubts_total: int = 0
    history_stops_total: int = 0
    leases_lost_total: int = 0
    """Assignments taken away while they were being copied."""
    own_tags_kept_total: int = 0
    unverifiable_total: int = 0
    latencies: Latencies = field(default_factory=Latencies)

    def to_json(self, settled: Iterable[SettleCounts]) -> dict[str, Any]:
        rounds = list(settled)
        return {
            "doubts_total": self.doubts_total,
            "history_stops_total": self.history_stops_total,
            "leases_lost_total": self.leases_lost_total,
            "own_tags_kept_total": self.own_tags_kept_total,
            "unverifiable_total": self.unverifiable_total,
            "settling_rounds_total": sum(one.rounds_total for one in rounds),
            "settling_seconds_total": sum(one.seconds_total for one in rounds),
            "barriers_total": sum(one.barriers_total for one in rounds),
            "barriers_failed_total": sum(one.barriers_failed_total for one in rounds),
            "latency": self.latencies.to_json(),
        }
