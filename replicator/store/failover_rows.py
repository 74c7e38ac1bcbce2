"""What the store keeps of moves of consumers from one cluster to another, as ``port`` hands it over."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class FailoverRow:
    """One move, open or ended. ``kind``: failover or failback. ``course``: as ``core.failover`` dumps it.

    ``is_open`` and ``abort_asked`` stand beside the course, so that the store can keep one open move a task and take an abort
    from a coordinator that does not hold the lease."""

    task: str
    kind: str
    failed: str
    destination: str
    options: dict[str, Any]
    course: dict[str, Any]
    is_open: bool = True
    abort_asked: bool = False
    failover_id: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """When the progress on a cluster was last read for a task, and what was seen there besides."""

    at: datetime
    info: dict[str, Any] = field(default_factory=dict)
