"""How much may be asked: limits of one request, and the rate of each caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Far above what people, dashboards and scripts ask; they stop what runs wild."""

    body_bytes_max: int = 4 * 1024 * 1024
    headers_max: int = 100
    request_seconds_max: float = 110.0
    """Below what the command line waits for an answer, so that it is told."""
    at_once_max: int = 64
    requests_per_second_max: float = 50.0
    """Of each token."""
    burst_max: int = 200


class Rate:
    """A bucket for each name: full at ``burst_max`` requests, filled again at ``requests_per_second_max``. Names are those of
    tokens and a few fixed ones, so there is a limit to the buckets too."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> float:
        """Seconds to wait for the next request; 0.0: this one may go."""
        now = self._clock()
        filled, at = self._buckets.get(name, (float(self._limits.burst_max), now))
        filled = min(float(self._limits.burst_max), filled + (now - at) * self._limits.requests_per_second_max)
        is_free = filled >= 1.0
        self._buckets[name] = (filled - 1.0 if is_free else filled, now)
        return 0.0 if is_free else (1.0 - filled) / self._limits.requests_per_second_max
