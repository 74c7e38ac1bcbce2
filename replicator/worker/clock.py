"""The clock of fences and leases: CLOCK_BOOTTIME, which goes on while a machine sleeps. The simulator brings its own."""

from __future__ import annotations

import time
from collections.abc import Callable


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_source: Callable[[], float] = _boot_time


def boot_seconds() -> float:
    return _source()


def use(source: Callable[[], float] | None) -> None:
    """Replaces the clock of this process; None goes back to the real one. For simulations only."""
    global _source
    _source = source or _boot_time
